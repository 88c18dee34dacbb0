"""`learning plan`: the plan that is chosen, and what plans would have cost on a small history."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test, environ

from learning_assets.cli import main
from learning_assets.core.plan_costs import Arrival, Role
from learning_assets.core.records import Action, ClosedTrade
from learning_assets.defs.instance import instance_of
from learning_assets.defs.launcher import PROCESS_TAG
from learning_assets.defs.plan_comparison import (
    Past,
    arrival_of,
    compared,
    moments,
    next_tick,
    ticks_of,
)
from learning_assets.defs.plans import PLANS
from learning_assets.store import ingestion
from learning_assets.store.connection import Conn
from learning_assets.store.housekeeping import history
from learning_assets.store.run_times import RunTimes, run_times
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)

Learning = Callable[..., tuple[int, str, str]]


@pytest.fixture
def learning(
    server_env: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Learning:
    for name in ("LEARNING_PLAN", "LEARNING_META_LEARNERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEARNING_HOME", server_env["LEARNING_HOME"])

    def call(*arguments: str, **variables: str) -> tuple[int, str, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def trade(name: str, closed_at: datetime, module: str = "pm") -> ClosedTrade:
    category = "entry" if module == "pm" else "allocation"
    action = Action("1", module, f"{module}.a.S1.b", category, {"chain": "x"})
    return ClosedTrade(
        trade_id=name, closed_at=closed_at, rr=1.0, actions=(action,),
        opened_at=closed_at - HOUR, pnl_usd=None, payback_hours=None, version=None,
    )  # fmt: skip


def past(arrivals: list[Arrival], times: list[RunTimes]) -> Past:
    return Past(MONDAY, MONDAY + timedelta(days=7), arrivals, [], times)


def test_the_moments_of_a_cron_begin_with_the_first_and_are_utc() -> None:
    assert list(islice(moments("0 */2 * * *", MONDAY), 3)) == [
        MONDAY + 2 * k * HOUR for k in range(3)
    ]
    found = next_tick(PLANS["v5"].schedules[0], MONDAY)
    assert (found, found.tzinfo) == (MONDAY + 2 * HOUR, UTC)


def test_a_trade_came_in_when_it_was_written_or_a_minute_after_it_closed() -> None:
    assert arrival_of("pm", MONDAY, MONDAY + 9 * MINUTE).came_in_at == MONDAY + 9 * MINUTE
    assert arrival_of("pm", MONDAY, MONDAY + 11 * MINUTE).came_in_at == MONDAY + MINUTE
    assert arrival_of("pm", MONDAY, MONDAY - MINUTE).came_in_at == MONDAY + MINUTE


def test_the_ticks_of_a_schedule_know_what_its_runs_took() -> None:
    times = [
        RunTimes("lessons", "pm", False, 60.0, 3),
        RunTimes("lessons", "pm", True, 2.0, 9),
        RunTimes("lessons", "dm", False, 30.0, 3),
        RunTimes("overrides", None, False, 4.0, 5),
    ]
    found = {x.name: ticks_of(x, past([], times)) for x in PLANS["hybrid"].schedules}
    pm, dm = found["lessons_pm"], found["lessons_dm"]
    assert (pm.role, pm.module, pm.busy_seconds, pm.idle_seconds) == (Role.LESSONS, "pm", 60.0, 2.0)
    assert (dm.module, dm.busy_seconds, dm.idle_seconds) == ("dm", 30.0, None)
    assert found["overrides"].busy_seconds == 4.0
    assert found["events"].role is Role.EVENTS
    assert found["half_lives"].role is Role.META
    # Seven days and one more.
    assert len(found["overrides"].at) == 8 * 24
    assert len(found["half_lives"].at) == 2


def test_a_week_of_one_trade_in_every_plan() -> None:
    closed = MONDAY + 30 * MINUTE
    times = [
        RunTimes("events", None, False, 1.0, 1),
        RunTimes("lessons", "pm", False, 60.0, 1),
        RunTimes("lessons", "pm", True, 2.0, 1),
        RunTimes("lessons", "dm", True, 2.0, 1),
        RunTimes("overrides", None, False, 10.0, 1),
        RunTimes("regime_weights", None, False, 5.0, 1),
        RunTimes("half_lives", None, False, 5.0, 1),
        RunTimes("factors", None, False, 5.0, 1),
        RunTimes("effectiveness", None, False, 5.0, 1),
    ]
    found = compared(past([Arrival("pm", closed, closed + MINUTE)], times))
    current, hybrid, v5 = found["current"], found["hybrid"], found["v5"]
    # Events every 5 minutes, lessons of two modules and overrides every hour.
    assert current.runs == 7 * (288 + 24 * 3) == 2520
    # Seven daily runs and three weekly ones more.
    assert hybrid.runs == current.runs + 7 + 3
    assert v5.runs == 7 * (12 + 4 * 2 + 12) + 7 + 3 == 234
    # 60 s once and 2 s else; 2 s; 10 s; 1 s.
    assert current.seconds == (60 + 167 * 2) + 168 * 2 + 168 * 10 + 2016 == 4426
    assert hybrid.seconds == 4426 + 10 * 5
    assert v5.seconds == (60 + 27 * 2) + 28 * 2 + 84 * 10 + 84 + 10 * 5 == 1144
    # Live at 01:10:10, in v5 with the lessons of 06:08 at 06:10:10.
    assert current.delay_median == hybrid.delay_median == 40 * 60 + 10
    assert v5.delay_median == 5 * 3600 + 40 * 60 + 10
    # The lessons of pm, overrides once, the day's weights, and the three of Monday: they run
    # on Monday morning, after the trade came in. At 00:30 the events were quicker than the sensor.
    assert hybrid.changed_share == pytest.approx((1 + 1 + 1 + 1 + 3) / 2530)


def test_run_times_are_medians_of_what_succeeded(
    book: Settings, server_env: Mapping[str, str]
) -> None:
    with history(book) as conn:
        assert run_times(conn) == []
    with environ(dict(server_env)), instance_of(book) as instance, history(book) as conn:
        for job, status, seconds in (
            *(("overrides", DagsterRunStatus.SUCCESS, s) for s in (2.0, 9.0, 4.0)),
            ("overrides", DagsterRunStatus.FAILURE, 100.0),
            ("lessons", DagsterRunStatus.SUCCESS, 60.0),
            ("events", DagsterRunStatus.SUCCESS, 3.0),
            *(("events by a person", DagsterRunStatus.SUCCESS, 50.0) for _ in range(2)),
        ):
            name, _, by_a_person = job.partition(" ")
            tags = {PROCESS_TAG: "1"} if by_a_person else {}
            run = create_run_for_test(instance, job_name=name, status=status, tags=tags)
            conn.execute(
                "UPDATE runs SET start_time = 1000, end_time = %s WHERE run_id = %s",
                [1000 + seconds, run.run_id],
            )
        assert run_times(conn) == [
            RunTimes("events", None, False, 3.0, 1),
            RunTimes("lessons", None, False, 60.0, 1),
            RunTimes("overrides", None, False, 4.0, 3),
        ]


def test_the_chosen_plan_and_the_others(learning: Learning) -> None:
    code, out, _ = learning("plan", "--json")
    shown: Any = json.loads(out)
    assert (code, shown["plan"], shown["meta_learners"]) == (0, "hybrid", True)
    assert set(shown["other_plans"]) == {"current", "v5"}
    crons = {x["schedule"]: x["cron"] for x in shown["schedules"]}
    assert crons["lessons_pm"] == "8 * * * *"
    assert crons["housekeeping"] == "45 0 * * *"
    now = datetime.now(UTC)
    following = {x["schedule"]: datetime.fromisoformat(x["next"]) for x in shown["schedules"]}
    assert now - MINUTE < following["events"] < now + 6 * MINUTE
    assert following["half_lives"].strftime("%a %H:%M") == "Mon 02:00"
    code, out, _ = learning("plan", LEARNING_PLAN="v5", LEARNING_META_LEARNERS="off")
    assert code == 0
    assert "8 */6 * * *" in out
    assert "LEARNING_PLAN=hybrid" in out
    assert "meta-learners are off" in out
    assert "factors" not in out


def test_a_plan_that_is_none_is_refused(learning: Learning) -> None:
    code, _, err = learning("plan", LEARNING_PLAN="hourly")
    assert code == 2
    assert "current, hybrid, v5" in err


def test_a_comparison_on_a_book(learning: Learning, conn: Conn, book: Settings) -> None:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    closed = [today - timedelta(days=2) + k * HOUR for k in (1, 2, 3)]
    trades = [trade(str(k), moment) for k, moment in enumerate(closed)]
    ingestion.ingest(conn, "x", closed[0].date(), closed[-1].date(), trades)
    remember_source(conn, BookSource("csv", "trades.csv"))
    code, out, _ = learning("plan", "--compare", "--weeks", "1", "--book", book.book, "--json")
    assert code == 0
    found: Any = json.loads(out)
    # A file is over: the window ends with the day of the last close.
    assert datetime.fromisoformat(found["until"]) == today - timedelta(days=1)
    assert found["trades"] == 3
    assert list(found["plans"]) == ["current", "hybrid", "v5"]
    assert found["plans"]["current"]["runs"] == 2520
    assert "lessons_pm" in found["not_measured"]
    # In at 01:01, lessons 01:08, overrides 01:10; in v5 06:10, so 5 h 10 to 3 h 10 later.
    assert found["plans"]["current"]["delay_median_seconds"] == 10 * 60
    assert found["plans"]["v5"]["delay_median_seconds"] == 4 * 3600 + 10 * 60
    code, out, _ = learning("plan", "--compare", "--book", book.book)
    assert code == 0
    assert "Not measured" in out
    assert "4 h 10 min" in out


def test_a_book_without_trades_says_so(learning: Learning, book: Settings) -> None:
    code, _, err = learning("plan", "--compare", "--book", book.book)
    assert code == 2
    assert "no trade of the book" in err
    code, _, err = learning("plan", "--compare", "--book", "never_used")
    assert code == 2
    assert "holds nothing yet" in err
    assert os.environ["LEARNING_HOME"]
