"""How Alembic runs a migration here: on the connection and in the schema that `migrate` gives."""

from alembic import context

from learning_assets.store.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    version_table_schema=context.config.attributes["schema"],
)
with context.begin_transaction():
    context.run_migrations()
