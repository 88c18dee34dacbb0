"""What a person has forbidden, and why each set changed what it did."""

from alembic import op

from learning_assets.store.tables import statements

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table and add the column."""
    for statement in statements(revision):
        op.get_bind().exec_driver_sql(statement)
