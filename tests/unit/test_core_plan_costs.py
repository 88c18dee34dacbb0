"""A day of ticks over three trades, every number worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from learning_assets.core.plan_costs import (
    Arrival,
    PlanCost,
    Role,
    Ticks,
    percentile_95,
    plan_cost,
)
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.core.scope import subset

DAY = datetime(2026, 6, 1, tzinfo=UTC)
END = DAY + timedelta(days=1)


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return DAY + timedelta(hours=hour, minutes=minute, seconds=second)


def every(hours: int, minute: int) -> tuple[datetime, ...]:
    return tuple(at(hour, minute) for hour in range(0, 48, hours))


LESSONS = Ticks("lessons", Role.LESSONS, every(1, 8), 60.0, 2.0, "pm")
OVERRIDES = Ticks("overrides", Role.OVERRIDES, every(1, 10), 10.0)
HOURLY = [LESSONS, OVERRIDES]
TRADES = [
    Arrival("pm", at(0, 30), at(0, 31)),
    Arrival("pm", at(1, 7, 30), at(1, 8, 30)),
    Arrival("pm", at(5), at(5, 1)),
]


def cost(
    schedules: Sequence[Ticks] = HOURLY,
    arrivals: Sequence[Arrival] = TRADES,
    sets: Sequence[tuple[datetime, OverrideSet]] = (),
) -> PlanCost:
    return plan_cost(schedules, arrivals, sets, DAY, END)


def published(multiplier: float) -> OverrideSet:
    override = Override(
        GroupKey("pm", "pm.a.S1.b", "entry"), subset({"chain": "x"}), multiplier, 0.2, 0.9,
        DecayState.STABLE, None, 100, 0.01, {},
    )  # fmt: skip
    return OverrideSet(DAY, DAY, END, (override,), {}, False)


def test_runs_seconds_and_changes() -> None:
    found = cost()
    lessons, overrides = found.jobs
    # News at 01:08, 02:08 (in at 01:08:30, too late for 01:08) and 05:08: 3 · 60 s + 21 · 2 s.
    assert (lessons.runs, lessons.changed, lessons.seconds) == (24, 3, 222.0)
    # Each is followed by overrides that differ, at 01:10, 02:10 and 05:10: 24 · 10 s.
    assert (overrides.runs, overrides.changed, overrides.seconds) == (24, 3, 240.0)
    assert (found.runs, found.seconds, found.changed_share) == (48, 462.0, 6 / 48)
    assert found.told_by_sets == 0


def test_delays_are_from_closing_to_published_overrides() -> None:
    # 00:30 → 01:10:10, 01:07:30 → 02:10:10, 05:00 → 05:10:10.
    found = cost()
    assert found.delay_median == 40 * 60 + 10
    assert found.delay_p95 == 62 * 60 + 40


def test_overrides_that_begin_before_the_lessons_are_learned_do_not_count() -> None:
    slow = [replace(LESSONS, busy_seconds=180.0), OVERRIDES]
    # Learned at 01:11, 02:11 and 05:11, published at 02:10:10, 03:10:10 and 06:10:10.
    found = cost(slow)
    assert found.delay_median == 100 * 60 + 10
    assert found.delay_p95 == 122 * 60 + 40


def test_a_slower_plan_costs_less_and_is_later() -> None:
    slow = [replace(LESSONS, at=every(6, 8)), replace(OVERRIDES, at=every(2, 10))]
    found = cost(slow)
    lessons, overrides = found.jobs
    # All three trades are in by the tick at 06:08; the overrides at 06:10 follow it.
    assert (lessons.runs, lessons.changed, lessons.seconds) == (4, 1, 66.0)
    assert (overrides.runs, overrides.changed, overrides.seconds) == (12, 1, 120.0)
    assert found.delay_median == 5 * 3600 + 2 * 60 + 40
    assert found.delay_p95 == 5 * 3600 + 40 * 60 + 10


def test_published_sets_tell_where_there_are_any() -> None:
    sets = [
        (at(1, 10, 5), published(1.2)),
        (at(2, 10, 5), published(1.204)),
        (at(5, 10, 5), published(1.3)),
    ]
    found = cost(sets=sets)
    # By lessons 01:10 and 05:10; by sets 02:10 (the first) and 06:10, not 03:10 (1.20 again).
    assert found.jobs[1].changed == 4
    assert found.told_by_sets == 3


def test_a_tick_of_the_events_finds_only_what_the_sensor_has_not() -> None:
    events = Ticks("events", Role.EVENTS, (at(0, 30, 30), at(0, 35), at(5, 1)), 3.0)
    [job] = cost([events]).jobs
    # At 00:30:30 the first trade was not in yet; at 05:01 the third one was.
    assert (job.runs, job.changed, job.seconds) == (3, 1, 9.0)


def test_lessons_see_their_own_module_and_meta_learners_all() -> None:
    dm = replace(LESSONS, name="dm", module="dm")
    meta = Ticks("factors", Role.META, (at(3), at(6), at(9)), 5.0)
    found = cost([*HOURLY, dm, meta])
    by_name = {job.name: job for job in found.jobs}
    assert by_name["dm"].changed == 0
    assert by_name["factors"].changed == 2
    assert found.of(Role.META).runs == 3
    assert found.of(Role.META).seconds == 15.0


def test_what_was_never_measured_is_said() -> None:
    lessons, overrides = cost([replace(LESSONS, busy_seconds=None), OVERRIDES]).jobs
    # What one kind of run took stands in for the other.
    assert lessons.seconds == 24 * 2.0
    unknown = cost([LESSONS, replace(OVERRIDES, busy_seconds=None)])
    assert unknown.jobs[1].seconds is None
    assert unknown.seconds == 222.0
    assert overrides.seconds == 240.0


def test_without_trades_nothing_changes_and_nothing_is_late() -> None:
    found = cost(arrivals=[])
    assert found.changed_share == 0.0
    assert found.delay_median is found.delay_p95 is None
    assert cost([], []).changed_share is None
    # A plan that never learns a module makes none of its trades live.
    assert cost([OVERRIDES]).delay_median is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([7.0], 7.0), (list(range(1, 21)), 19), (list(range(1, 101)), 95)],
)
def test_percentile(values: list[float], expected: float | None) -> None:
    assert percentile_95(values) == expected
