"""What each plan would have cost and changed on the trades of a book: ticks, run times, trades.

The comparison itself is in `core.plan_costs`. Here its input is put together: the ticks from the
crons of the plans, the seconds of a run from the book's own history (median of its job's successful
runs; of lessons those that learned and those that found nothing new apart), and the trades. A trade
came in when its events were written, if that was within ten minutes of its closing; a trade that
was taken in later, as from a file, would have come in a minute after it, by the sensor. The runs of
the sensor are the same in each plan and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from dagster._utils.schedules import cron_string_iterator  # no public name for it

from learning_assets.core.plan_costs import Arrival, PlanCost, Role, Ticks, plan_cost
from learning_assets.core.records import OverrideSet
from learning_assets.defs.plans import PLANS, Plan, Planned
from learning_assets.store.run_times import RunTimes

_WITHIN_A_MINUTE, _LIVE_WITHIN = timedelta(minutes=1), timedelta(minutes=10)
_AFTER_THE_WINDOW = timedelta(days=1)
"""So long the ticks go on, so that the last trades of the window become live too."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a book knows of the window since … until (its end not included)."""

    since: datetime
    until: datetime
    arrivals: Sequence[Arrival]
    sets: Sequence[tuple[datetime, OverrideSet]]
    times: Sequence[RunTimes]


def arrival_of(module: str, closed_at: datetime, written_at: datetime) -> Arrival:
    """When a trade came in, or would have."""
    is_live = timedelta(0) <= written_at - closed_at <= _LIVE_WITHIN
    return Arrival(module, closed_at, written_at if is_live else closed_at + _WITHIN_A_MINUTE)


def compared(past: Past, plans: Mapping[str, Plan] = PLANS) -> Mapping[str, PlanCost]:
    """What each plan would have cost, by name."""
    return {
        name: plan_cost(
            [ticks_of(planned, past) for planned in plan.schedules],
            past.arrivals,
            past.sets,
            past.since,
            past.until,
        )
        for name, plan in plans.items()
    }


def ticks_of(planned: Planned, past: Past) -> Ticks:
    """The moments of a schedule in the window and a day after it, and what its runs took."""
    end = past.until + _AFTER_THE_WINDOW
    at = tuple(takewhile(lambda moment: moment < end, moments(planned.cron, past.since)))
    role, module = _role(planned), planned.of.value if planned.job == "lessons" else None
    took = {x.idle: x.seconds for x in past.times if (x.job, x.module) == (planned.job, module)}
    return Ticks(planned.name, role, at, took.get(False), took.get(True), module)


def _role(planned: Planned) -> Role:
    if planned.is_meta:
        return Role.META
    return {"events": Role.EVENTS, "lessons": Role.LESSONS}.get(planned.job, Role.OVERRIDES)


def moments(cron: str, since: datetime) -> Iterator[datetime]:
    """The moments of a cron in UTC from `since` on, that included, without end."""
    before = since.timestamp() - 1
    for at in cron_string_iterator(before, cron, "UTC"):
        if at >= since:
            yield at.astimezone(UTC)


def next_tick(planned: Planned, now: datetime) -> datetime:
    """The first moment of a schedule after `now`."""
    return next(at for at in moments(planned.cron, now) if at > now)
