"""What the trades of each closing day brought; all days are summed up anew."""

from alembic import op

from learning_assets.store.events import FILL_DAYS
from learning_assets.store.tables import statements

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column and fill the table."""
    for statement in ("DELETE FROM event_days", *statements(revision), FILL_DAYS):
        op.get_bind().exec_driver_sql(statement)
