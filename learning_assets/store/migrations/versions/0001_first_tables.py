"""The tables of the main job: events, lessons, overrides and what belongs to them."""

from alembic import op

from learning_assets.store.tables import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    for statement in statements(revision):
        op.get_bind().exec_driver_sql(statement)
