from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import psycopg
import pytest
from alembic import command

from learning_assets.errors import UserError
from learning_assets.store.connection import Conn, connect, open_database
from learning_assets.store.history import prepare_history
from learning_assets.store.migrations import VERSION_TABLE, latest_revision, migrate
from learning_assets.store.settings import Settings, settings
from learning_assets.store.tables import FIRST, PATTERN_TRADE_EVENTS, TABLES, statements

MIGRATE = """
import sys
from learning_assets.store.history import prepare_history
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import settings
chosen = settings({"LEARNING_HOME": sys.argv[1]}, sys.argv[2])
sys.stdin.read(1)
migrate(chosen)
prepare_history(chosen)
"""


def _columns(conn: Conn) -> dict[str, list[tuple[str, str, bool, str]]]:
    rows = conn.execute(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, "
        "col_description(c.oid, a.attnum) "
        "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' "
        "AND a.attnum > 0 AND NOT a.attisdropped AND c.relname <> %s ORDER BY c.relname, a.attnum",
        [VERSION_TABLE],
    )
    found: dict[str, list[tuple[str, str, bool, str]]] = {}
    for table, *column in rows:
        found.setdefault(table, []).append((column[0], column[1], column[2], column[3]))
    return found


def _declared() -> dict[str, list[tuple[str, str, bool, str]]]:
    long = {"timestamptz": "timestamp with time zone", "bigserial": "bigint"}
    return {
        table.name: [
            (c.name, long.get(c.type, c.type), c.nullable, c.description) for c in table.columns
        ]
        for table in TABLES
    }


def test_the_tables_are_as_declared(conn: Conn) -> None:
    assert _columns(conn) == _declared()


def test_every_table_belongs_to_a_migration() -> None:
    revisions = {table.revision for table in TABLES} | {
        column.revision for table in TABLES for column in table.columns
    }
    assert max(revisions) <= latest_revision()
    assert statements("none") == []


def test_a_second_migration_changes_nothing(book: Settings, conn: Conn) -> None:
    before = _columns(conn)
    migrate(book)
    assert _columns(conn) == before
    query = f"SELECT version_num FROM {VERSION_TABLE}"
    assert conn.execute(query).fetchall() == [(latest_revision(),)]


def test_an_upgrade_keeps_what_the_first_tables_hold(
    server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(server_env, "upgraded")
    with monkeypatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(command, "upgrade", lambda config, _: upgrade(config, FIRST))
        migrate(chosen)
    with connect(chosen) as conn:
        old = {table.name for table in TABLES if table.revision == FIRST}
        assert _columns(conn).keys() == old
        conn.execute("INSERT INTO learning_state VALUES ('pm', 'd', now(), 1, 2, '{}')")
        before = conn.execute("SELECT * FROM learning_state").fetchall()
        migrate(chosen)
        assert _columns(conn) == _declared()
        assert conn.execute("SELECT * FROM learning_state").fetchall() == before


def test_two_processes_migrate_at_once(server_env: Mapping[str, str]) -> None:
    command = [sys.executable, "-c", MIGRATE, server_env["LEARNING_HOME"], "both"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in processes] == ["", ""]
    with connect(settings(server_env, "both")) as conn:
        assert _columns(conn) == _declared()


def test_books_do_not_see_each_other(book: Settings, server_env: Mapping[str, str]) -> None:
    other = settings(server_env, "elsewhere")
    migrate(other)
    with connect(book) as one, connect(other) as two:
        one.execute("INSERT INTO learning_state VALUES ('pm', '', now(), 1, 1, '{}')")
        assert two.execute("SELECT count(*) FROM learning_state").fetchone() == (0,)


def test_tables_of_a_newer_version_are_refused(book: Settings, conn: Conn) -> None:
    conn.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(UserError, match="newer version"):
        migrate(book)


def test_a_failed_migration_leaves_nothing(
    server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(server_env, "failing")
    monkeypatch.setattr("learning_assets.store.tables.TABLES", (*TABLES, PATTERN_TRADE_EVENTS))
    with pytest.raises(Exception, match="already exists"):
        migrate(chosen)
    with connect(chosen) as conn:
        assert _columns(conn) == {}
    monkeypatch.undo()
    migrate(chosen)


def test_a_user_without_rights_is_told_so(server_env: Mapping[str, str]) -> None:
    admin = settings(server_env)
    with open_database(admin.learning_url, "test") as conn:
        conn.execute("DROP ROLE IF EXISTS guest")
        conn.execute("CREATE ROLE guest LOGIN")
        conn.execute("CREATE SCHEMA IF NOT EXISTS learning_seen")
    url = admin.learning_url.replace("postgres@", "guest@")
    env = {**server_env, "LEARNING_DATABASE_URL": url, "LEARNING_DAGSTER_URL": url}
    with pytest.raises(UserError, match="may not create the schema learning_unseen"):
        migrate(settings(env, "unseen"))
    with pytest.raises(UserError, match="learning_seen"):
        migrate(settings(env, "seen"))
    with pytest.raises(UserError, match="dagster_unseen"):
        prepare_history(settings(env, "unseen"))


def test_values_out_of_range_are_refused(conn: Conn) -> None:
    for rr in ("34", "'NaN'", "'Infinity'"):
        with pytest.raises(psycopg.errors.CheckViolation):
            conn.execute(
                "INSERT INTO pattern_trade_events (event_id, trade_id, source, module, "
                "pattern_key, action_category, scope, rr, closed_at, trade_digest) VALUES "
                f"('e', 't', 's', 'pm', 'p', 'entry', '{{}}', {rr}, now(), '')"
            )


def test_an_unknown_column_is_named_with_those_there_are() -> None:
    assert PATTERN_TRADE_EVENTS.column("rr").type == "double precision"
    with pytest.raises(KeyError, match="closed_at"):
        PATTERN_TRADE_EVENTS.column("profit")
