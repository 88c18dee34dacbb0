"""The table of closing days, filled from the events that there are."""

from alembic import op

from learning_assets.store.events import FILL_DAYS
from learning_assets.store.tables import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table and fill it."""
    for statement in (*statements(revision), FILL_DAYS):
        op.get_bind().exec_driver_sql(statement)
