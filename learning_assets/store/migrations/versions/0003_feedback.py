"""The tables of regime weights and of the walk-forward."""

from alembic import op

from learning_assets.store.tables import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    for statement in statements(revision):
        op.get_bind().exec_driver_sql(statement)
