"""Sets that a person went back to, or holds."""

from alembic import op

from learning_assets.store.tables import statements

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns."""
    for statement in statements(revision):
        op.get_bind().exec_driver_sql(statement)
