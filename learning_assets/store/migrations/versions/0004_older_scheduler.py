"""What is kept of an older scheduler, for comparison."""

from alembic import op

from learning_assets.store.tables import statements

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the tables."""
    for statement in statements(revision):
        op.get_bind().exec_driver_sql(statement)
