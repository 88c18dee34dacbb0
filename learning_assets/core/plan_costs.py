"""What a plan would have cost and changed: its ticks replayed over the trades of the past.

A tick of a lesson or of a meta-learner changes something when a trade came in since its last one.
A tick of the events does when a trade had closed and was not in yet. A tick of the overrides does
when the set in force differs from that at the tick before (`_DIGITS` of the multipliers), where
sets were published in between; else when a tick of the lessons changed something in between.

A trade is live, delay = live − closed, once the first overrides have been published that began
after the first lessons that began after it came in had been learned. Which ticks there are, and
how long a run takes, is told by the caller.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median

from learning_assets.core.records import OverrideSet

_DIGITS = 2


class Role(StrEnum):
    """What the runs of a schedule are for."""

    EVENTS = "events"
    LESSONS = "lessons"
    OVERRIDES = "overrides"
    META = "meta"


@dataclass(frozen=True, slots=True)
class Ticks:
    """The moments of one schedule, in order and to some time after the window.

    `module` is that of lessons, else None. A run takes `busy_seconds` when it changes something
    and `idle_seconds` when it does not; None where that was never measured.
    """

    name: str
    role: Role
    at: Sequence[datetime]
    busy_seconds: float | None = None
    idle_seconds: float | None = None
    module: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A trade with actions of one module: when it closed, and when it was among the events."""

    module: str
    closed_at: datetime
    came_in_at: datetime


@dataclass(frozen=True, slots=True)
class JobCost:
    """What the runs of one schedule cost in the window.

    `seconds` is of all runs, None where no run of its job was ever measured.
    """

    name: str
    role: Role
    runs: int
    changed: int
    seconds: float | None


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What a plan would have cost in the window, and how soon a trade would have been live.

    `seconds` is the sum of what was measured. `told_by_sets` of the overrides' ticks were judged by
    sets that were really published. Delays are in seconds, None without a trade that became live.
    """

    jobs: Sequence[JobCost]
    told_by_sets: int
    delay_median: float | None
    delay_p95: float | None

    @property
    def runs(self) -> int:
        """Runs of all schedules."""
        return sum(job.runs for job in self.jobs)

    @property
    def seconds(self) -> float:
        """Seconds of all runs that were measured."""
        return sum(job.seconds or 0.0 for job in self.jobs)

    @property
    def changed_share(self) -> float | None:
        """The share of the runs that changed anything; None without a run."""
        return sum(job.changed for job in self.jobs) / self.runs if self.runs else None

    def of(self, role: Role) -> PlanCost:
        """The part of the schedules with one role."""
        jobs = tuple(job for job in self.jobs if job.role is role)
        return PlanCost(jobs, self.told_by_sets, self.delay_median, self.delay_p95)


def plan_cost(
    schedules: Sequence[Ticks],
    arrivals: Sequence[Arrival],
    sets: Sequence[tuple[datetime, OverrideSet]],
    since: datetime,
    until: datetime,
) -> PlanCost:
    """Replay the ticks of a plan over the window since … until (its end not included).

    `sets` are the sets that went live, with the moment at which they did, in order.
    """
    asked = {x.name: [at for at in x.at if since <= at < until] for x in schedules}
    changed = {x.name: _news(x, asked[x.name], arrivals, since) for x in schedules}
    lessons = sorted(
        at
        for x in schedules
        if x.role is Role.LESSONS
        for at, new in zip(asked[x.name], changed[x.name], strict=True)
        if new
    )
    told_by_sets = 0
    for x in schedules:
        if x.role is Role.OVERRIDES:
            found = _sets_changed(asked[x.name], sets, lessons, since)
            changed[x.name] = [new for new, _ in found]
            told_by_sets += sum(by_set for _, by_set in found)
    delays = _delays(schedules, arrivals)
    return PlanCost(
        tuple(_cost(x, changed[x.name]) for x in schedules),
        told_by_sets,
        median(delays) if delays else None,
        percentile_95(delays),
    )


def _cost(schedule: Ticks, changed: Sequence[bool]) -> JobCost:
    n, busy = len(changed), sum(changed)
    either = schedule.busy_seconds, schedule.idle_seconds
    known = next((x for x in either if x is not None), None)
    seconds = None
    if known is not None:
        busy_seconds, idle_seconds = (known if x is None else x for x in either)
        seconds = busy * busy_seconds + (n - busy) * idle_seconds
    return JobCost(schedule.name, schedule.role, n, busy, seconds)


# --- what a tick changes ---------------------------------------------------------------------


def _news(
    schedule: Ticks, at: Sequence[datetime], arrivals: Sequence[Arrival], since: datetime
) -> list[bool]:
    """Whether each tick finds something new."""
    if schedule.role is Role.EVENTS:
        return _found_before_the_sensor(at, arrivals)
    came = sorted(x.came_in_at for x in arrivals if schedule.module in (None, x.module))
    return _any_between(came, at, since)


def _found_before_the_sensor(at: Sequence[datetime], arrivals: Sequence[Arrival]) -> list[bool]:
    found = [False] * len(at)
    for arrival in arrivals:
        place = bisect_left(at, arrival.closed_at)
        if place < len(at) and at[place] < arrival.came_in_at:
            found[place] = True
    return found


def _any_between(
    moments: Sequence[datetime], at: Sequence[datetime], since: datetime
) -> list[bool]:
    """For each tick, whether a moment lies after the tick before it and not after itself."""
    before = [since, *at[:-1]]
    return [
        bisect_right(moments, now) > bisect_right(moments, then)
        for then, now in zip(before, at, strict=True)
    ]


def _sets_changed(
    at: Sequence[datetime],
    sets: Sequence[tuple[datetime, OverrideSet]],
    lessons: Sequence[datetime],
    since: datetime,
) -> list[tuple[bool, bool]]:
    """For each tick, whether what is live changed, and whether published sets say so."""
    by_lessons = _any_between(lessons, at, since)
    published = [moment for moment, _ in sets]
    contents = [_content(made) for _, made in sets]
    found = []
    for then, now, guess in zip([since, *at[:-1]], at, by_lessons, strict=True):
        first, last = bisect_right(published, then), bisect_right(published, now)
        if first == last:
            found.append((guess, False))
        else:
            found.append((first == 0 or contents[first - 1] != contents[last - 1], True))
    return found


def _content(made: OverrideSet) -> Mapping[str, float]:
    return {x.lesson_id: round(x.multiplier, _DIGITS) for x in made.overrides}


# --- how soon a trade is live ----------------------------------------------------------------


def _delays(schedules: Sequence[Ticks], arrivals: Sequence[Arrival]) -> list[float]:
    """Seconds from closing to live, of each arrival for which the ticks reach far enough."""
    lessons = {x.module: x for x in schedules if x.role is Role.LESSONS}
    overrides = next((x for x in schedules if x.role is Role.OVERRIDES), None)
    found = []
    for arrival in arrivals:
        learned = _end_of_first(lessons.get(arrival.module), arrival.came_in_at)
        live = None if learned is None else _end_of_first(overrides, learned)
        if live is not None:
            found.append((live - arrival.closed_at).total_seconds())
    return sorted(found)


def _end_of_first(schedule: Ticks | None, moment: datetime) -> datetime | None:
    """When the first run ends that does not begin before a moment; None without one."""
    if schedule is None:
        return None
    place = bisect_left(schedule.at, moment)
    if place == len(schedule.at):
        return None
    return schedule.at[place] + timedelta(seconds=schedule.busy_seconds or 0.0)


def percentile_95(values: Sequence[float]) -> float | None:
    """The smallest of the ordered values that 95 percent do not exceed; None without any."""
    return values[math.ceil(0.95 * len(values)) - 1] if values else None
