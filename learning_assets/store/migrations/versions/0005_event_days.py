"""The table of closing days; 0011 fills it."""

from alembic import op

from learning_assets.store.tables import statements

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    for statement in statements(revision):
        op.get_bind().exec_driver_sql(statement)
