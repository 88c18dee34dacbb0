"""Each plan, tick by tick over a week, against the table of the reference."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.execution import build_resources
from dagster._core.test_utils import environ
from dagster._utils.schedules import cron_string_iterator

from learning_assets.defs import schedules
from learning_assets.defs.plans import PLANS, Of, Plan, Planned, chosen_plan, meta_learners_on
from learning_assets.defs.resources import BookResource
from learning_assets.defs.schedules import partitions_at, requests_at, schedules_of
from learning_assets.errors import UserError
from learning_assets.store.connection import Conn
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
WEEK = timedelta(days=7)

HOURLY = [f"{h:02}" for h in range(24)]
EVERY_2 = HOURLY[::2]
EVERY_6 = HOURLY[::6]
META = {
    ("regime_weights", "daily"): {"01:00"},
    ("half_lives", "Monday"): {"02:00"},
    ("factors", "Monday"): {"03:00"},
    ("walk_forward", "Monday"): {"04:00"},
}


def times(hours: list[str], minute: str) -> set[str]:
    return {f"{hour}:{minute}" for hour in hours}


FIVE_MINUTES = {f"{h}:{m:02}" for h in HOURLY for m in range(0, 60, 5)}
HOUR_BY_HOUR = {
    ("events", "daily"): FIVE_MINUTES,
    ("lessons_pm", "daily"): times(HOURLY, "08"),
    ("lessons_dm", "daily"): times(HOURLY, "09"),
    ("overrides", "daily"): times(HOURLY, "10"),
}
REFERENCE = {
    "current": HOUR_BY_HOUR,
    "hybrid": HOUR_BY_HOUR | META,
    "v5": {
        ("events", "daily"): times(EVERY_2, "00"),
        ("lessons_pm", "daily"): times(EVERY_6, "08"),
        ("lessons_dm", "daily"): times(EVERY_6, "09"),
        ("overrides", "daily"): times(EVERY_2, "10"),
    }
    | META,
}


def ticks(schedule: dg.ScheduleDefinition) -> Iterator[datetime]:
    """The moments of a week, in UTC."""
    zone = schedule.execution_timezone
    assert zone == "UTC"
    start = (MONDAY - timedelta(seconds=1)).timestamp()
    for at in cron_string_iterator(start, str(schedule.cron_schedule), zone):
        if at >= MONDAY + WEEK:
            return
        if at >= MONDAY:
            yield at.astimezone(ZoneInfo("UTC"))


@pytest.mark.parametrize("name", PLANS)
def test_a_week_of_ticks_is_that_of_the_reference(name: str) -> None:
    found = {
        schedule.name: Counter(f"{at:%a %H:%M}" for at in ticks(schedule))
        for schedule in schedules_of(PLANS[name])
    }
    expected: dict[str, Counter[str]] = {}
    for (schedule, days), at in REFERENCE[name].items():
        which = ["Mon"] if days == "Monday" else ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
        expected[schedule] = Counter(f"{day} {time}" for day in which for time in at)
    assert found == expected


@pytest.mark.parametrize("name", PLANS)
def test_no_two_ticks_of_a_week_ask_for_the_same_run(name: str) -> None:
    plan = PLANS[name]
    keys = [
        request.run_key
        for planned, schedule in zip(plan.schedules, schedules_of(plan), strict=True)
        for at in ticks(schedule)
        for request in requests_at(planned, at)
    ]
    assert len(keys) == len(set(keys)) >= 7 * len(FIVE_MINUTES if name != "v5" else EVERY_2)


@pytest.mark.parametrize("name", PLANS)
def test_every_tick_of_a_week_asks_for_its_partitions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "_why_not", lambda book: "")
    plan, book = PLANS[name], BookResource()
    with dg.DagsterInstance.ephemeral() as instance:
        # Each context would make an instance of its own, which takes 50 ms.
        monkeypatch.setattr(build_resources, "ephemeral_instance_if_missing", nullcontext)
        for planned, schedule in zip(plan.schedules, schedules_of(plan), strict=True):
            for at in ticks(schedule):
                context = dg.build_schedule_context(instance, scheduled_execution_time=at)
                asked = [(r.run_key, r.partition_key) for r in schedule(context, book=book)]
                assert asked == [(r.run_key, r.partition_key) for r in requests_at(planned, at)]
                assert [key for _, key in asked] == wanted(planned.name, at)


def wanted(schedule: str, at: datetime) -> list[str | None]:
    """The partitions of a tick by the reference, worked out without the code that is tested."""
    yesterday, today, week_ago = (f"{at - timedelta(days=n):%Y-%m-%d}" for n in (1, 0, 7))
    if schedule == "events":
        return [yesterday, today] if f"{at:%H:%M}" == "00:00" else [today]
    by_name = {"lessons_pm": "pm", "lessons_dm": "dm", "regime_weights": yesterday}
    return [None] if schedule == "overrides" else [by_name.get(schedule, week_ago)]


def test_a_tick_says_why_it_does_nothing(
    conn: Conn, book: Settings, server_env: Mapping[str, str]
) -> None:
    with (
        environ(dict(server_env)),
        dg.build_schedule_context(
            scheduled_execution_time=MONDAY, resources={"book": BookResource(name=book.book)}
        ) as context,
    ):
        [schedule, *_] = schedules_of(PLANS["hybrid"])
        found = schedule.evaluate_tick(context)
        assert "has no source yet" in (found.skip_message or "")
        remember_source(conn, BookSource("strands", "public.ad_strands"))
        assert len(schedule(context)) == 2


@pytest.mark.parametrize("name", PLANS)
def test_the_ticks_are_as_far_apart_as_the_plan_says(name: str) -> None:
    for planned, schedule in zip(PLANS[name].schedules, schedules_of(PLANS[name]), strict=True):
        at = list(ticks(schedule))
        assert {b - a for a, b in itertools.pairwise(at)} <= {planned.every}


@pytest.mark.parametrize("name", PLANS)
def test_the_schedules_run_by_themselves_and_say_what_they_do(name: str) -> None:
    for schedule in schedules_of(PLANS[name]):
        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        assert schedule.description


def planned(of: Of, every: timedelta = timedelta(hours=1)) -> Planned:
    return Planned("x", "x", "0 * * * *", every, of, "")


@pytest.mark.parametrize(
    ("of", "at", "keys"),
    [
        (Of.TODAY, datetime(2026, 6, 3, 7, tzinfo=UTC), ["2026-06-03"]),
        (Of.TODAY, datetime(2026, 6, 3, 0, 5, tzinfo=UTC), ["2026-06-02", "2026-06-03"]),
        (Of.TODAY, datetime(2026, 1, 1, tzinfo=UTC), ["2025-12-31", "2026-01-01"]),
        (Of.YESTERDAY, datetime(2026, 6, 1, 1, tzinfo=UTC), ["2026-05-31"]),
        (Of.LAST_WEEK, datetime(2026, 6, 1, 2, tzinfo=UTC), ["2026-05-25"]),
        (Of.LAST_WEEK, datetime(2026, 6, 7, 23, tzinfo=UTC), ["2026-05-25"]),
        (Of.PM, datetime(2026, 6, 1, 2, tzinfo=UTC), ["pm"]),
        (Of.DM, datetime(2026, 6, 1, 2, tzinfo=UTC), ["dm"]),
        (Of.WHOLE, datetime(2026, 6, 1, 2, tzinfo=UTC), [None]),
    ],
)
def test_which_partition_a_tick_asks_for(of: Of, at: datetime, keys: list[str | None]) -> None:
    assert list(partitions_at(planned(of), at)) == keys


def test_the_plan_is_one_setting_and_the_meta_learners_another() -> None:
    assert chosen_plan({}).name == chosen_plan({"LEARNING_PLAN": ""}).name == "hybrid"
    assert chosen_plan({"LEARNING_PLAN": "v5"}) is PLANS["v5"]
    off = chosen_plan({"LEARNING_META_LEARNERS": "off"})
    assert jobs(off) == jobs(PLANS["current"])
    assert jobs(PLANS["hybrid"]) - jobs(off) == {
        *("regime_weights", "half_lives", "factors", "effectiveness")
    }


def jobs(plan: Plan) -> set[str]:
    return {planned.job for planned in plan.schedules}


def test_an_unknown_word_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UserError, match="current, hybrid, v5"):
        chosen_plan({"LEARNING_PLAN": "hourly"})
    with pytest.raises(UserError, match="on or off"):
        meta_learners_on({"LEARNING_META_LEARNERS": "no"})


def test_the_interval_of_a_job() -> None:
    assert PLANS["v5"].interval("overrides") == timedelta(hours=2)
    assert PLANS["current"].interval("factors") is None
