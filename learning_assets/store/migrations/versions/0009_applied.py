"""What bots applied to their actions, and what became of it."""

from alembic import op

from learning_assets.store.events import APPLIED_INDEX
from learning_assets.store.tables import statements

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the columns, and an index of the few rows that have one."""
    for statement in (*statements(revision), APPLIED_INDEX):
        op.get_bind().exec_driver_sql(statement)
