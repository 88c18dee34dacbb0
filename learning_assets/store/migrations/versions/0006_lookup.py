"""The look-up as a function in the database, for a bot that has nothing but SQL."""

from alembic import op

from learning_assets.store.lookup import STATEMENTS

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the functions."""
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
