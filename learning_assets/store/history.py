"""Dagster's own history of a book: its schema is made here, its tables are made by Dagster."""

from __future__ import annotations

import psycopg
from psycopg import sql

from learning_assets.errors import UserError
from learning_assets.store.connection import Conn, open_database
from learning_assets.store.settings import Settings


def prepare_history(settings: Settings) -> str:
    """Make the schema of the book's Dagster history and return the address for the instance.

    Safe to call again and from several processes at once.

    Raises:
        UserError: where the database does not answer, forbids schemas, or ignores the schema
            in the address (a connection pooler in transaction mode does).
    """
    named = "LEARNING_DAGSTER_URL" if settings.dagster_url else "the embedded server"
    with open_database(settings.history_url, named) as conn:
        create_schema(conn, settings.dagster_schema, named)
    url = settings.dagster_storage_url.replace("postgresql+psycopg2://", "postgresql://", 1)
    with open_database(url, named) as conn:
        row = conn.execute("SELECT current_schema()").fetchone()
    if row != (settings.dagster_schema,):
        raise UserError(
            f"the database of {named} ignores the schema {settings.dagster_schema} in the "
            "address: use a direct connection or a pooler in session mode"
        )
    return settings.dagster_storage_url


def create_schema(conn: Conn, schema: str, named: str) -> None:
    """Create a schema where there is none.

    Raises:
        UserError: where the user of the database may not.
    """
    try:
        with conn.transaction():
            # CREATE SCHEMA IF NOT EXISTS fails when two do it at the same moment.
            conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [schema])
            conn.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    except psycopg.errors.InsufficientPrivilege:
        if conn.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() != (None,):
            return
        raise UserError(
            f"the user of {named} may not create the schema {schema}: let an administrator run "
            f"CREATE SCHEMA {schema} and grant all rights on it to this user"
        ) from None
