"""The tables of edge history, half-lives and latent factors."""

from alembic import op

from learning_assets.store.tables import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    for statement in statements(revision):
        op.get_bind().exec_driver_sql(statement)
