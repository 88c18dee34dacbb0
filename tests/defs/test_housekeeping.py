"""Old runs are deleted, and nothing that says what state an asset is in goes with them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.test_utils import create_run_for_test, environ
from psycopg import sql

from learning_assets.defs import housekeeping
from learning_assets.defs.build import build_definitions
from learning_assets.defs.housekeeping import delete_runs
from learning_assets.defs.instance import instance_of
from learning_assets.defs.keeping import keep_days
from learning_assets.defs.resources import BookResource
from learning_assets.errors import UserError
from learning_assets.store.housekeeping import history, history_bytes, old_runs
from learning_assets.store.settings import Settings

NOW = datetime.now(UTC)
OLD, CUT = NOW - timedelta(days=40), NOW - timedelta(days=14)
PARTS = dg.StaticPartitionsDefinition(["a", "b"])


class Config(dg.Config):
    fails: bool = False


@dg.asset(partitions_def=PARTS)
def parted(config: Config) -> None:
    if config.fails:
        raise dg.Failure("it fails")


@dg.asset
def whole() -> None:
    return None


@dg.asset_check(asset=whole)
def holds() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@pytest.fixture
def book_instance(
    book: Settings, server_env: Mapping[str, str]
) -> Iterator[tuple[BookResource, dg.DagsterInstance]]:
    with environ(dict(server_env)), instance_of(book) as instance:
        yield BookResource(name=book.book), instance


def run(instance: dg.DagsterInstance, part: str | None = None, *, fails: bool = False) -> str:
    """One run of an asset, with its checks; its id."""
    config = {"ops": {"parted": {"config": {"fails": fails}}}} if part else {}
    result = dg.materialize(
        [parted] if part else [whole, holds],
        partition_key=part,
        instance=instance,
        run_config=config,
        raise_on_error=False,
    )
    assert result.success is not fails
    return result.run_id


def age(book: BookResource, runs: Sequence[str], at: datetime = OLD) -> None:
    """Make runs end at a moment."""
    with history(book.settings) as conn:
        query = "UPDATE runs SET end_time = %s, update_timestamp = %s WHERE run_id = ANY(%s)"
        conn.execute(query, [at.timestamp(), at.replace(tzinfo=None), list(runs)])


def rows_of(book: BookResource, run_id: str) -> dict[str, int]:
    tables = ("runs", "run_tags", "event_logs", "asset_check_executions")
    with history(book.settings) as conn:
        return {
            name: conn.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE run_id = %s").format(sql.Identifier(name)),
                [run_id],
            ).fetchone()[0]  # type: ignore[index]
            for name in tables
        }


def state(instance: dg.DagsterInstance) -> object:
    """What the UI says about the assets."""
    keys = [dg.AssetKey("parted"), dg.AssetKey("whole")]
    newest = {k: instance.get_latest_materialization_event(k) for k in keys}
    check = dg.AssetCheckKey(dg.AssetKey("whole"), "holds")
    looks = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])
    return (
        {k: e and (e.run_id, e.timestamp) for k, e in newest.items()},
        instance.get_materialized_partitions(keys[0]),
        instance.get_status_by_partition(keys[0], ["a", "b"], PARTS),
        {k: (x.run_id, x.status) for k, x in looks.items()},
    )


def test_old_runs_go_and_the_state_of_all_assets_stays(
    book_instance: tuple[BookResource, dg.DagsterInstance],
) -> None:
    book, instance = book_instance
    gone = [run(instance, "a"), run(instance), run(instance, "b", fails=True)]
    kept = [run(instance, "a"), run(instance, "b"), run(instance), run(instance, "b", fails=True)]
    unfinished = create_run_for_test(
        instance, job_name="x", status=dg.DagsterRunStatus.STARTED
    ).run_id
    age(book, [*gone, *kept, unfinished])
    young = run(instance)
    # The run of `whole` that was the newest is not any more.
    gone, kept = [*gone, kept[2]], [*kept[:2], kept[3]]
    before = state(instance)
    assert delete_runs(instance, book, CUT) == len(gone)
    assert {run_id for run_id in gone if any(rows_of(book, run_id).values())} == set()
    assert all(instance.get_run_by_id(name) for name in [*kept, unfinished, young])
    assert all(rows_of(book, name)["event_logs"] for name in kept)
    assert state(instance) == before
    assert delete_runs(instance, book, CUT) == 0


def test_the_output_of_a_deleted_run_goes_too(
    book_instance: tuple[BookResource, dg.DagsterInstance],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book, instance = book_instance
    old = run(instance)
    run(instance)
    age(book, [old])
    asked: list[object] = []
    logs = instance.compute_log_manager
    monkeypatch.setattr(logs, "delete_logs", lambda prefix: asked.append(prefix))
    delete_runs(instance, book, CUT)
    assert asked == [[old]]


def test_at_most_so_many_at_once_the_oldest_first(
    book_instance: tuple[BookResource, dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    book, instance = book_instance
    runs = [run(instance) for _ in range(4)]
    age(book, runs)
    with history(book.settings) as conn:
        assert old_runs(conn, CUT, 9, 2) == runs[:2]
        assert old_runs(conn, OLD, 9, 9) == []
    monkeypatch.setattr(housekeeping, "MOST_RUNS", 2)
    monkeypatch.setattr(housekeeping, "RUNS_AT_ONCE", 1)
    assert delete_runs(instance, book, CUT) == 2
    assert [bool(instance.get_run_by_id(name)) for name in runs] == [False, False, True, True]


def test_surplus_runs_of_a_job_go_however_young(
    book_instance: tuple[BookResource, dg.DagsterInstance],
) -> None:
    book, instance = book_instance
    parts = [run(instance, "a") for _ in range(2)]
    runs = [run(instance) for _ in range(3)]
    with history(book.settings) as conn:
        # A job that was made for one call has the same name for both.
        assert old_runs(conn, CUT, 3, 9) == parts[:1]
        assert old_runs(conn, CUT, 1, 9) == [parts[0], *runs[:2]]


def test_the_job_says_what_it_did(
    book_instance: tuple[BookResource, dg.DagsterInstance],
) -> None:
    book, instance = book_instance
    runs = [run(instance) for _ in range(2)]
    age(book, runs, NOW - timedelta(days=3))
    job = build_definitions(resources={"book": book}).resolve_job_def("housekeeping")
    config = {"ops": {"delete_old_runs": {"config": {"keep_days": 2}}}}
    for run_config, n in ((None, 0), (config, 1)):
        result = job.execute_in_process(instance=instance, run_config=run_config)
        [output] = [e for e in result.all_events if e.event_type_value == "STEP_OUTPUT"]
        said = output.step_output_data.metadata
        assert said["runs deleted"].value == n
        assert said["days kept"].value == (14 if run_config is None else 2)
    with history(book.settings) as conn:
        assert history_bytes(conn) > 100_000


def test_how_long_runs_are_kept_is_one_setting() -> None:
    assert keep_days(None) == keep_days("") == 14
    assert keep_days("30") == 30
    for wrong in ("0", "two", "-3", "1.5"):
        with pytest.raises(UserError, match="LEARNING_KEEP_RUNS_DAYS"):
            keep_days(wrong)


def test_ticks_are_purged_by_the_daemon(
    book_instance: tuple[BookResource, dg.DagsterInstance],
) -> None:
    _, instance = book_instance
    for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR):
        days = instance.get_tick_retention_settings(kind)
        assert set(days) == set(TickStatus)
        assert all(0 < n <= 30 for n in days.values())
        assert days[TickStatus.SKIPPED] == 2
