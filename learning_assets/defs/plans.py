"""The plans: which job runs when. Data, and nothing else; `defs.schedules` makes schedules of it.

All times are UTC. To add a plan, add it to `PLANS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from learning_assets.errors import UserError

PLAN_VARIABLE = "LEARNING_PLAN"
DEFAULT_PLAN = "hybrid"
META_VARIABLE = "LEARNING_META_LEARNERS"


class Of(StrEnum):
    """The partition that a tick asks for."""

    TODAY = "the UTC day of the tick, and in the first tick of a day the day before too"
    YESTERDAY = "the UTC day before the tick"
    LAST_WEEK = "the week that ended last"
    PM = "pm"
    DM = "dm"
    WHOLE = "no partition"


@dataclass(frozen=True, slots=True)
class Planned:
    """One schedule of a plan: its job, its cron, how far its ticks are apart, and why it is there.

    `is_meta` says that it belongs to the meta-learners, which can be switched off together.
    """

    name: str
    job: str
    cron: str
    every: timedelta
    of: Of
    description: str
    is_meta: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A named set of schedules."""

    name: str
    description: str
    schedules: tuple[Planned, ...]

    def interval(self, job: str) -> timedelta | None:
        """How far the ticks of a job are apart at most; None where the plan does not have it."""
        return max((x.every for x in self.schedules if x.job == job), default=None)

    def without_meta(self) -> Plan:
        """The plan without the meta-learners."""
        return replace(self, schedules=tuple(x for x in self.schedules if not x.is_meta))


_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def _events(cron: str, every: timedelta) -> Planned:
    what = "Take in closed trades. The sensor does so within a minute; this makes up for its gaps."
    return Planned("events", "events", cron, every, Of.TODAY, what)


def _lessons(hours: str, every: timedelta) -> tuple[Planned, ...]:
    what = "Learn the lessons of {}; without a new trade it says `unchanged` at once."
    return (
        Planned(
            "lessons_pm",
            "lessons",
            f"8 {hours} * * *",
            every,
            Of.PM,
            what.format("entries to exits"),
        ),
        Planned(
            "lessons_dm", "lessons", f"9 {hours} * * *", every, Of.DM, what.format("allocations")
        ),
    )


def _overrides(hours: str, every: timedelta) -> Planned:
    what = "Publish the overrides, always anew: wear, regime and expiry go on without news."
    return Planned("overrides", "overrides", f"10 {hours} * * *", every, Of.WHOLE, what)


_META = (
    Planned(
        "regime_weights", "regime_weights", "0 1 * * *", _DAY, Of.YESTERDAY,
        "Learn in which market regime which multiplier tells something.", True,
    ),
    Planned(
        "half_lives", "half_lives", "0 2 * * 1", 7 * _DAY, Of.LAST_WEEK,
        "Add last week's edges to the history, and measure how fast edges wear out.", True,
    ),
    Planned(
        "factors", "factors", "0 3 * * 1", 7 * _DAY, Of.LAST_WEEK,
        "Find the lessons that mean much the same trades.", True,
    ),
    Planned(
        "walk_forward", "effectiveness", "0 4 * * 1", 7 * _DAY, Of.LAST_WEEK,
        "Judge last week's overrides by the trades opened in it, and learn the gain.", True,
    ),
)  # fmt: skip

PLANS: Mapping[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan(
            "current",
            "Lessons and overrides every hour, as the older scheduler does; no meta-learners.",
            (_events("*/5 * * * *", 5 * _MINUTE), *_lessons("*", _HOUR), _overrides("*", _HOUR)),
        ),
        Plan(
            "hybrid",
            "Option C: lessons and overrides every hour, and the meta-learners beside them.",
            (
                _events("*/5 * * * *", 5 * _MINUTE),
                *_lessons("*", _HOUR),
                _overrides("*", _HOUR),
                *_META,
            ),
        ),
        Plan(
            "v5",
            "Option A: lessons every six hours, overrides every two, and the meta-learners.",
            (
                _events("0 */2 * * *", 2 * _HOUR),
                *_lessons("*/6", 6 * _HOUR),
                _overrides("*/2", 2 * _HOUR),
                *_META,
            ),
        ),
    )
}
"""The plans by name, as the design has them."""


UPKEEP = (
    Planned(
        "missing_days", "missing_days", "30 0 * * *", _DAY, Of.WHOLE,
        "Look every night whether a day of the source is missing.",
    ),
    Planned(
        "freshness", "freshness", "45 * * * *", _HOUR, Of.WHOLE,
        "Look every hour whether an asset is late.",
    ),
    Planned(
        "housekeeping", "housekeeping", "45 0 * * *", _DAY, Of.WHOLE,
        "Delete old runs from Dagster's history every night.",
    ),
)  # fmt: skip
"""What every plan has besides its own schedules."""


def meta_learners_on(env: Mapping[str, str]) -> bool:
    """Whether the meta-learners run and count: unless `LEARNING_META_LEARNERS` is off.

    Raises:
        UserError: for another word than on or off.
    """
    given = env.get(META_VARIABLE) or "on"
    if given not in ("on", "off"):
        raise UserError(f"{META_VARIABLE}={given} is unknown: it is on or off")
    return given == "on"


def chosen_plan(env: Mapping[str, str]) -> Plan:
    """The plan that `LEARNING_PLAN` names, without meta-learners where these are off.

    Raises:
        UserError: for a name that is no plan; it lists those that there are.
    """
    name = env.get(PLAN_VARIABLE) or DEFAULT_PLAN
    if name not in PLANS:
        raise UserError(f"{PLAN_VARIABLE}={name} is unknown: the plans are {', '.join(PLANS)}")
    plan = PLANS[name]
    return plan if meta_learners_on(env) else plan.without_meta()
