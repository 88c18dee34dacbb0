"""Connections to a book's tables, the locks on them, and one sentence where nobody answers.

Starting a server is not done here, nor is any table known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from learning_assets.errors import DatabaseAwayError
from learning_assets.store.settings import Settings

CONNECT_TIMEOUT_SECONDS = 5
EMBEDDED = "the embedded server"
"""How the embedded server is called in a sentence for the user."""

_WAKE = (
    "it runs while `learning ui` or `learning run` does; in a Dagster of your own set "
    "LEARNING_DATABASE_URL to a PostgreSQL server"
)
_CHECK = "check that the server runs, and the address, user and password"

Conn = Connection[TupleRow]


def open_database(url: str, named: str) -> Conn:
    """A connection in autocommit mode, times in UTC; `named` says in errors whose address it is.

    Raises:
        DatabaseAwayError: where the server does not answer in time or refuses; never with the
            password.
    """
    try:
        # Server-side prepared statements do not survive a connection pooler.
        conn = psycopg.connect(_with_timeout(url), autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise DatabaseAwayError(_no_answer(url, named, str(error))) from None
    conn.execute("SET TIME ZONE 'UTC'")
    return conn


def _with_timeout(url: str) -> str:
    if conninfo_to_dict(url).get("connect_timeout"):
        return url
    return make_conninfo(url, connect_timeout=CONNECT_TIMEOUT_SECONDS)


def _no_answer(url: str, named: str, message: str) -> str:
    parts = conninfo_to_dict(url)
    port = f":{parts['port']}" if parts.get("port") else ""
    where = f"{parts.get('host', 'localhost')}{port}/{parts.get('dbname', '')}"
    reason = _first_line(message)
    if parts.get("password"):
        reason = reason.replace(str(parts["password"]), "***")
    advice = _WAKE if named == EMBEDDED else _CHECK
    return f"the database of {named} at {where} does not answer ({reason}): {advice}"


def _first_line(message: str) -> str:
    lines = (line.strip() for line in message.splitlines())
    return next((line for line in lines if line), "no reason given")


def database_name(settings: Settings) -> str:
    """How to call the learning database in a sentence for the user."""
    return "LEARNING_DATABASE_URL" if settings.database_url else EMBEDDED


@contextmanager
def connect(settings: Settings) -> Iterator[Conn]:
    """A connection whose search path is the schema of the book.

    It is in autocommit mode: each function of the store is one transaction, and several are one
    inside `with conn.transaction():`.

    Raises:
        DatabaseAwayError: where the database does not answer, or stops in the middle.
    """
    try:
        with open_database(settings.learning_url, database_name(settings)) as conn:
            conn.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(settings.schema)))
            yield conn
    except psycopg.OperationalError as error:
        raise DatabaseAwayError(
            f"a database stopped in the middle of the work ({_first_line(str(error))}): nothing "
            "is half written, so check that the server runs and try again"
        ) from error


def table_lock(conn: Conn, name: str) -> None:
    """Wait for the lock on a table of the book and hold it to the end of the transaction.

    Readers are not kept waiting: only those who take the same lock are.

    Raises:
        RuntimeError: outside a transaction, where the lock would be gone at once.
    """
    if conn.info.transaction_status != TransactionStatus.INTRANS:
        raise RuntimeError(f"the lock on {name} needs a transaction around it")
    conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.' || %s, 0))", [name]
    )
