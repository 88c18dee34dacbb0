"""What `learning doctor` sees of a daemon: schedules, sensors, and the closings that wait."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo

from learning_assets.core.records import ClosedTrade
from learning_assets.defs.finding import Finding, State
from learning_assets.defs.opening import simulated_strands
from learning_assets.defs.plans import PLANS
from learning_assets.defs.sensors import Cursor
from learning_assets.defs.watch import Watch, is_live_book, look
from learning_assets.sources.demo import MarketSettings, append_strands, simulate, write_strands
from learning_assets.store.connection import Conn
from learning_assets.store.ingestion import ingest
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source

NOW = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)  # a Monday
EVER = date(2010, 1, 1), date(2100, 1, 1)
BEGAN = NOW - timedelta(days=3)
ERROR = SerializableErrorInfo("ValueError: no such thing\nmore", [], "ValueError")


@pytest.fixture
def watch(book: Settings) -> Iterator[Watch]:
    """A live book whose daemon never ran."""
    with dg.DagsterInstance.local_temp() as instance:
        yield Watch(book, instance, PLANS["hybrid"], NOW, live=True)


def sign(watch: Watch, at: datetime, *errors: SerializableErrorInfo, part: str = "SENSOR") -> None:
    watch.instance.add_daemon_heartbeat(DaemonHeartbeat(at.timestamp(), part, "x", errors))


def states(watch: Watch) -> Mapping[str, Finding]:
    return {finding.check: finding for finding in look(watch)}


def known(
    watch: Watch, name: str, data: ScheduleInstigatorData | SensorInstigatorData, *, on: bool = True
) -> InstigatorState:
    """The daemon knows a schedule or a sensor."""
    target = LoadableTargetOrigin(module_name="learning_assets.defs.location")
    location = InProcessCodeLocationOrigin(target, location_name="learning_assets")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    schedule = isinstance(data, ScheduleInstigatorData)
    kind = InstigatorType.SCHEDULE if schedule else InstigatorType.SENSOR
    status = InstigatorStatus.RUNNING if on else InstigatorStatus.STOPPED
    return watch.instance.add_instigator_state(InstigatorState(origin, kind, status, data))


def schedule(watch: Watch, name: str, *, on: bool = True) -> InstigatorState:
    return known(watch, name, ScheduleInstigatorData("x", BEGAN.timestamp()), on=on)


def tick(
    watch: Watch,
    of: InstigatorState,
    at: datetime,
    status: TickStatus = TickStatus.SUCCESS,
    reason: str | None = None,
) -> None:
    error = ERROR if status is TickStatus.FAILURE else None
    watch.instance.create_tick(
        TickData(
            of.instigator_origin_id, of.instigator_name, of.instigator_type, status,
            at.timestamp(), [], [], skip_reason=reason, error=error, selector_id=of.selector_id,
        )
    )  # fmt: skip


def test_without_a_daemon_a_live_book_needs_a_person_and_another_does_not(watch: Watch) -> None:
    assert states(watch)["daemon"].state is State.FAILED
    assert "never ran" in states(watch)["daemon"].detail
    quiet = states(replace(watch, live=False))
    assert {name: f.state for name, f in quiet.items()} == dict.fromkeys(
        ["daemon", "schedules", "freshness", "sensors"], State.SKIPPED
    )
    sign(watch, NOW - timedelta(hours=2))
    assert states(watch)["daemon"] == Finding(
        "daemon",
        State.FAILED,
        f"off since 2026-06-01 10:30 UTC: `learning ui --book {watch.settings.book}` starts it",
    )
    assert states(replace(watch, live=False))["daemon"].state is State.SKIPPED


def test_a_daemon_that_runs_and_one_of_whose_parts_does_not(watch: Watch) -> None:
    sign(watch, NOW - timedelta(seconds=20))
    for live in (True, False):
        found = states(replace(watch, live=live))
        assert found["daemon"].state is State.OK
        assert "schedule.overrides" in found
    sign(watch, NOW - timedelta(minutes=11), part="SCHEDULER")
    assert "SCHEDULER has given no sign since 2026-06-01 12:19" in states(watch)["daemon"].detail
    sign(watch, NOW, ERROR, part="SCHEDULER")
    assert states(watch)["daemon"].state is State.FAILED
    assert states(watch)["daemon"].detail.endswith("SCHEDULER: ValueError: no such thing")


def test_the_last_tick_of_a_schedule(watch: Watch) -> None:
    def found() -> tuple[State, str]:
        finding = states(watch)["schedule.overrides"]
        return finding.state, finding.detail

    assert found() == (State.SKIPPED, "the daemon has not seen it yet")
    overrides = schedule(watch, "overrides")
    assert found() == (State.FAILED, "the tick of 2026-06-01 11:10 UTC was missed")
    tick(watch, overrides, datetime(2026, 6, 1, 10, 10, tzinfo=UTC))
    assert found()[1].endswith("was missed, the last one was 2026-06-01 10:10 UTC")
    tick(watch, overrides, datetime(2026, 6, 1, 12, 10, tzinfo=UTC))
    assert found() == (State.OK, "the tick of 2026-06-01 12:10 UTC, its run has not begun")
    for status, state, said in (
        (dg.DagsterRunStatus.SUCCESS, State.OK, "succeeded"),
        (dg.DagsterRunStatus.STARTED, State.OK, "is under way"),
        (dg.DagsterRunStatus.FAILURE, State.FAILED, "failed"),
    ):
        tags = {"dagster/schedule_name": "overrides"}
        create_run_for_test(watch.instance, job_name="overrides", tags=tags, status=status)
        assert found() == (state, f"the tick of 2026-06-01 12:10 UTC, its run {said}")
    at = datetime(2026, 6, 1, 12, 11, tzinfo=UTC)
    tick(watch, overrides, at, TickStatus.SKIPPED, "the book x has no source yet")
    assert found()[0] is State.OK
    assert found()[1].endswith("did nothing: the book x has no source yet")
    tick(watch, overrides, at + timedelta(minutes=1), TickStatus.FAILURE)
    assert found() == (
        State.FAILED,
        "the tick of 2026-06-01 12:12 UTC failed: ValueError: no such thing",
    )


def test_a_schedule_that_is_new_or_switched_off_has_missed_nothing(watch: Watch) -> None:
    schedule(watch, "factors", on=False)
    known(watch, "half_lives", ScheduleInstigatorData("x", (NOW - timedelta(hours=1)).timestamp()))
    found = states(watch)
    assert found["schedule.factors"].detail == "switched off in Dagster"
    assert found["schedule.half_lives"] == Finding(
        "schedule.half_lives", State.OK, "no tick yet, the first is 2026-06-08 02:00 UTC"
    )


def test_the_freshness_of_each_asset_of_the_plan(watch: Watch) -> None:
    for key in ("pm", "dm"):
        made = dg.AssetMaterialization("learning_lessons", partition=key)
        watch.instance.report_runless_asset_event(made)
    found = states(watch)
    assert found["freshness.learning_lessons"].state is State.OK
    assert found["freshness.pm_overrides"].state is State.FAILED
    off = states(replace(watch, plan=watch.plan.without_meta()))
    gone = {
        *("schedule.regime_weights", "schedule.half_lives", "schedule.factors"),
        *("schedule.walk_forward", "freshness.learning_regime_weights"),
        *("freshness.lesson_half_lives", "freshness.learning_edge_history"),
        *("freshness.learning_latent_factors", "freshness.override_effectiveness"),
    }
    assert set(found) - set(off) == gone
    for name in ("lessons_pm", "overrides"):
        known(watch, name, ScheduleInstigatorData("x", (NOW - timedelta(minutes=5)).timestamp()))
    assert states(watch)["freshness.pm_overrides"].detail == "not due yet"


def again(trade: ClosedTrade, closed_at: datetime) -> ClosedTrade:
    """The trade under a new id, closed at a moment."""
    actions = tuple(action._replace(action_id=str(uuid.uuid4())) for action in trade.actions)
    return trade._replace(
        trade_id=str(uuid.uuid4()), opened_at=None, closed_at=closed_at, actions=actions
    )


def test_closings_that_wait(watch: Watch, conn: Conn, book: Settings) -> None:
    market = simulate(MarketSettings(seed=3, n_trades=40, n_effects=0, n_dm_effects=0))
    write_strands(conn, market, book.schema)
    remember_source(conn, BookSource("demo", f"{book.schema}.ad_strands"))
    assert not is_live_book(book)
    source = simulated_strands(book)
    ingest(conn, "demo", *EVER, source.read(*EVER))
    cursor = Cursor(source.changes(None).seen).to_text()
    sensor = known(watch, "closings", SensorInstigatorData(cursor=cursor))

    def found(watch: Watch) -> tuple[State, str]:
        finding = states(watch)["sensor.closings"]
        return finding.state, finding.detail

    assert found(watch) == (State.SKIPPED, "has not looked yet")
    tick(watch, sensor, NOW - timedelta(seconds=10))
    assert found(watch) == (State.OK, "looked 10 s ago, nothing waits")
    closed_at = NOW - timedelta(minutes=4)
    append_strands(conn, [again(trade, closed_at) for trade in market.trades[:2]], book.schema)
    state, said = found(watch)
    assert (state, said.split(", ", 1)[1]) == (State.OK, "2 closings wait, the oldest for 4 min")
    later = replace(watch, now=NOW + timedelta(minutes=2))
    assert found(later)[0] is State.FAILED
    ingest(conn, "demo", *EVER, source.read(*EVER))
    assert found(later) == (State.OK, "looked 2 min ago, nothing waits")
    assert found(replace(watch, now=NOW + timedelta(minutes=6))) == (
        State.FAILED,
        "has not looked since 2026-06-01 12:29 UTC, nothing waits",
    )


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("nothing went wrong", State.OK),
        ("told 2", State.OK),
        ("LEARNING_ALERT_URL is not set", State.SKIPPED),
        ("the webhook of LEARNING_ALERT_URL refuses (HTTP 404): check it; 2 to tell", State.FAILED),
        ("LEARNING_ALERT_URL is no address of a webhook: write it as x", State.FAILED),
    ],
)
def test_the_alerts(watch: Watch, reason: str, state: State) -> None:
    tick(watch, known(watch, "alerts", SensorInstigatorData()), NOW, TickStatus.SKIPPED, reason)
    assert states(watch)["sensor.alerts"].state is state
