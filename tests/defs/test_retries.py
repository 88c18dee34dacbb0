"""A run waits for a database that is away, and does not try bad input twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import dagster as dg
import psycopg
import pytest
from dagster._core.test_utils import environ

from learning_assets.defs import resources
from learning_assets.defs.build import build_definitions
from learning_assets.defs.resources import RETRIES, BookResource, clear_failures
from learning_assets.errors import DatabaseAwayError, UserError
from learning_assets.store.connection import Conn, connect
from learning_assets.store.overrides import live
from learning_assets.store.settings import Settings

NOBODY = "postgresql://u:secret@127.0.0.1:1/x"


class Flaky(BookResource):
    """A book whose database is away the first times that it is asked."""

    away: ClassVar[int] = 0

    @property
    def settings(self) -> Settings:
        here = super().settings
        if Flaky.away <= 0:
            return here
        Flaky.away -= 1
        return replace(here, database_url=NOBODY)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits in a test."""
    policy = dg.RetryPolicy(RETRIES.max_retries, delay=0.001, backoff=RETRIES.backoff)
    monkeypatch.setattr(resources, "RETRIES", policy)


def run(
    job: str, book: Settings, env: Mapping[str, str], away: int, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    Flaky.away = away
    definitions = build_definitions(resources={"book": Flaky(name=book.book)})
    with environ(dict(env)), dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance, raise_on_error=False, partition_key=partition
        )


def tries_again(result: dg.ExecuteInProcessResult) -> int:
    return sum(e.event_type_value == "STEP_UP_FOR_RETRY" for e in result.all_events)


def sentence(result: dg.ExecuteInProcessResult) -> str:
    [failed] = [e for e in result.all_events if e.is_step_failure]
    said = failed.step_failure_data.user_failure_data
    assert said is not None
    return said.description or ""


def test_a_database_that_comes_back_is_waited_for(
    conn: Conn, book: Settings, server_env: Mapping[str, str]
) -> None:
    result = run("overrides", book, server_env, away=RETRIES.max_retries)
    assert result.success
    assert tries_again(result) == RETRIES.max_retries
    assert live(conn) is not None


def test_one_that_stays_away_fails_with_one_sentence(
    book: Settings, server_env: Mapping[str, str]
) -> None:
    result = run("overrides", book, server_env, away=1000)
    assert not result.success
    assert tries_again(result) == RETRIES.max_retries
    assert sentence(result).startswith("the database of LEARNING_DATABASE_URL at 127.0.0.1:1/x")
    assert "secret" not in sentence(result)


def test_a_check_waits_too(conn: Conn, book: Settings, server_env: Mapping[str, str]) -> None:
    result = run("missing_days", book, server_env, away=2)
    assert tries_again(result) == 2


def test_bad_input_is_tried_once(book: Settings, server_env: Mapping[str, str]) -> None:
    result = run("events", book, server_env, away=0, partition="2026-06-01")
    assert not result.success
    assert tries_again(result) == 0
    assert "has no source yet" in sentence(result)


def test_a_mistake_in_the_code_is_tried_once(
    book: Settings, server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(self: BookResource) -> object:
        raise ValueError("a mistake")

    monkeypatch.setattr(BookResource, "config", property(mistaken))
    result = run("overrides", book, server_env, away=0)
    assert not result.success
    assert tries_again(result) == 0


def test_outside_a_run_nobody_is_asked_to_try_again() -> None:
    with pytest.raises(dg.Failure, match="away") as caught, clear_failures():
        raise DatabaseAwayError("away")
    assert not caught.value.allow_retries


def lose_connection(book: Settings, conn: Conn) -> None:
    with connect(book) as other:
        conn.execute("SELECT pg_terminate_backend(%s)", [other.info.backend_pid])
        other.execute("SELECT 1")


def test_a_database_that_stops_in_the_middle_is_away(book: Settings, conn: Conn) -> None:
    with pytest.raises(DatabaseAwayError, match="stopped in the middle"):
        lose_connection(book, conn)


def test_a_mistake_in_a_statement_is_no_absence(book: Settings) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), connect(book) as conn:
        conn.execute("SELECT * FROM nothing")


def test_an_absence_is_a_sentence_for_the_command_line() -> None:
    assert issubclass(DatabaseAwayError, UserError)
