"""The look-up tells of vetoes, trims what Python trims, and no number makes it fail."""

from alembic import op

from learning_assets.store.lookup import STATEMENTS

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the functions anew."""
    for statement in STATEMENTS:
        op.get_bind().exec_driver_sql(statement)
