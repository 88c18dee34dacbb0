"""The tables' history, by Alembic: one schema per book, each with its own record of versions.

What the tables look like is declared in `store.tables`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import ProgrammingError

from learning_assets.errors import UserError
from learning_assets.store.connection import Conn, database_name, open_database
from learning_assets.store.history import create_schema
from learning_assets.store.settings import Settings

VERSION_TABLE = "schema_version"


def migrate(settings: Settings) -> None:
    """Bring the tables of the book up to date. Safe twice and from several processes at once.

    All of it is one transaction: after a failure the tables are as before.

    Raises:
        UserError: where the database does not answer or forbids it, or where the tables were
            made by a newer version of this software.
    """
    named = database_name(settings)
    with open_database(settings.learning_url, named) as conn:
        create_schema(conn, settings.schema, named)
    try:
        _upgrade(settings)
    except CommandError:
        raise UserError(
            f"the tables of the book {settings.book} were made by a newer version of this "
            "software: install that version, or use another book"
        ) from None
    except ProgrammingError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise
        raise UserError(
            f"the user of {named} may not make tables in the schema {settings.schema}: let an "
            "administrator grant all rights on it to this user"
        ) from None


def bring_up_to_date(conn: Conn, settings: Settings) -> None:
    """Migrate the book where the tables behind `conn` are not those of this version.

    Errors as `migrate`.
    """
    if recorded_revision(conn) != latest_revision():
        migrate(settings)


def recorded_revision(conn: Conn) -> str | None:
    """The revision of the book's tables behind `conn`, None where there are none."""
    if conn.execute("SELECT to_regclass(%s)", [VERSION_TABLE]).fetchone() == (None,):
        return None
    row = conn.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    return None if row is None else str(row[0])


@cache
def latest_revision() -> str:
    """The revision that this version of the software wants."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _config() -> Config:
    config = Config()
    # A percent sign in the path would be read as a reference to another option.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(settings: Settings) -> None:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(settings.learning_url, prepare_threshold=None),
        poolclass=sqlalchemy.NullPool,
    )
    config = _config()
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (settings.schema,)
        )
        connection.exec_driver_sql(f'SET LOCAL search_path TO "{settings.schema}"')
        config.attributes["connection"] = connection
        config.attributes["schema"] = settings.schema
        command.upgrade(config, "head")
