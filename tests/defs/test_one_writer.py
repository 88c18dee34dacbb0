"""No two runs write one table at once, whoever started them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.test_utils import environ

from learning_assets.defs import build
from learning_assets.defs.build import ASSETS, build_definitions
from learning_assets.defs.opening import DEMO
from learning_assets.defs.resources import BookResource
from learning_assets.sources.demo import MarketSettings, simulate, write_strands
from learning_assets.store import books
from learning_assets.store.connection import Conn, connect, table_lock
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source

MARKET = MarketSettings(seed=5, n_trades=300, span_days=20, n_effects=0, n_dm_effects=0)
PATIENCE_SECONDS = 60


@pytest.fixture
def days(conn: Conn, book: Settings) -> list[str]:
    """The closing days of a small market that is the source of the book."""
    market = simulate(MARKET)
    write_strands(conn, market, book.schema)
    remember_source(conn, BookSource(DEMO, "simulated market"))
    return sorted({trade.closed_at.date().isoformat() for trade in market.trades})


def events_job(book: Settings) -> dg.JobDefinition:
    """Made in the main thread: Dagster's warnings are silenced for the whole process meanwhile."""
    definitions = build_definitions(resources={"book": BookResource(name=book.book)})
    return definitions.resolve_job_def("events")


def take_in(job: dg.JobDefinition, days: list[str]) -> dg.ExecuteInProcessResult:
    """A run of its own instance, as `learning run` and the daemon have them."""
    with dg.DagsterInstance.ephemeral() as instance:
        start, end = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))
        return job.execute_in_process(
            instance=instance, raise_on_error=False, tags={start: days[0], end: days[-1]}
        )


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def waiting(conn: Conn) -> bool:
    """Whether somebody waits for an advisory lock of this database."""
    query = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
    )
    return conn.execute(query).fetchone() != (0,)


def test_a_run_waits_for_another_that_writes_its_table(
    conn: Conn, book: Settings, server_env: Mapping[str, str], days: list[str]
) -> None:
    with environ(dict(server_env)), ThreadPoolExecutor(1) as pool, connect(book) as other:
        with other.transaction():
            table_lock(other, "pattern_trade_events")
            job = events_job(book)
            running: Future[dg.ExecuteInProcessResult] = pool.submit(take_in, job, days)
            until(lambda: waiting(conn))
            assert not running.done()
            assert books.size(conn).n_trades == 0
        assert running.result(PATIENCE_SECONDS).success
    assert books.size(conn).n_trades > 0


def test_two_runs_at_the_same_time_leave_everything_once(
    conn: Conn, book: Settings, server_env: Mapping[str, str], days: list[str]
) -> None:
    with environ(dict(server_env)), ThreadPoolExecutor(3) as pool:
        jobs = [events_job(book) for _ in range(3)]
        runs = [pool.submit(take_in, job, days) for job in jobs]
        assert all(one.result(2 * PATIENCE_SECONDS).success for one in runs)
    query = (
        "SELECT count(*) = count(DISTINCT event_id) AND count(DISTINCT (trade_id, trade_digest)) = "
        "count(DISTINCT trade_id) FROM pattern_trade_events"
    )
    assert conn.execute(query).fetchone() == (True,)
    before = books.size(conn)
    with environ(dict(server_env)):
        assert take_in(events_job(book), days).success
    assert books.size(conn) == before


def test_a_dead_writer_lets_go_of_its_table(conn: Conn, book: Settings) -> None:
    with connect(book) as dead, dead.transaction(force_rollback=True):
        table_lock(dead, "pm_overrides")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(_lock_once, book)
            until(lambda: waiting(conn))
            conn.execute("SELECT pg_terminate_backend(%s)", [dead.info.backend_pid])
            assert running.result(PATIENCE_SECONDS)
        dead.close()


def _lock_once(book: Settings) -> bool:
    with connect(book) as conn, conn.transaction():
        table_lock(conn, "pm_overrides")
    return True


def test_every_asset_has_a_place_in_the_queue_and_only_one() -> None:
    config = yaml.safe_load(Path(build.__file__).with_name("dagster.yaml").read_text("utf-8"))
    assert config["concurrency"]["pools"] == {"default_limit": 1, "granularity": "run"}
    made = [asset for asset in ASSETS if isinstance(asset, dg.AssetsDefinition)]
    pools = [asset.op.pool for asset in made]
    assert all(pools)
    assert len(set(pools)) == len(made) == len(ASSETS) - 1
