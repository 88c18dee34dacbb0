"""What is left of each joint edge once its wear and its common causes are known, step by step.

adjusted = joint edge · remaining share · share, the remaining share as in `core.halflife`, the
share 1 ÷ the divisor of `core.factors`. A result that is missing, out of date or about other
lessons counts as neutral and is named in the notes. Multipliers are made in `core.overrides`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.factors import Factor, share_divisors
from learning_assets.core.halflife import HalfLife, remaining_share
from learning_assets.core.history import WEEK
from learning_assets.core.membership import trades_of
from learning_assets.core.records import DecayState, Lesson, LessonStatus

MOST_WEEKS_OLD = 2
"""Half-lives and factors are learned weekly; after two weeks they no longer count."""


@dataclass(frozen=True, slots=True)
class MeasuredHalfLives:
    """Half-lives by lesson id, and the moment as of which they were measured."""

    as_of: datetime
    by_lesson: Mapping[str, HalfLife]


@dataclass(frozen=True, slots=True)
class MeasuredFactors:
    """Latent factors, and the moment as of which they were found."""

    as_of: datetime
    factors: Sequence[Factor]


@dataclass(frozen=True, slots=True)
class MetaResults:
    """What the meta-learners found; None where nothing was."""

    half_lives: MeasuredHalfLives | None = None
    factors: MeasuredFactors | None = None


@dataclass(frozen=True, slots=True)
class AdjustedEdge:
    """The edge of an active lesson, and all that changed it. Edges in R, shares in (0, 1].

    `factor_members` are the lesson ids in its factor that share trades with it as overrides, its
    own included; `notes` say which results are missing and counted as neutral.
    """

    lesson: Lesson
    joint_edge_r: float
    remaining_share: float
    decay_state: DecayState
    half_life_hours: float | None
    share: float
    factor_id: str | None
    factor_members: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def remaining_edge_r(self) -> float:
        """What has not worn out."""
        return self.joint_edge_r * self.remaining_share

    @property
    def adjusted_edge_r(self) -> float:
        """The edge that the override acts on."""
        return self.remaining_edge_r * self.share

    def why_withheld(self, least_r: float) -> str | None:
        """Why there is no override where less than `least_r` is left; None where there is one."""
        if abs(self.adjusted_edge_r) >= least_r:
            return None
        if abs(self.joint_edge_r) < least_r:
            return f"its edge of {self.joint_edge_r:+.3f} R is under {least_r:g} R"
        if abs(self.remaining_edge_r) < least_r:
            return (
                f"worn out: {self.remaining_edge_r:+.3f} R are left of {self.joint_edge_r:+.3f} R "
                f"(half-life {self.half_life_hours or 0:,.0f} h)"
            )
        return (
            f"its share of the factor {self.factor_id} is {self.adjusted_edge_r:+.3f} R, under "
            f"{least_r:g} R"
        )


def adjusted_edges(
    lessons: Sequence[Lesson],
    window: EventTable,
    config: LearningConfig,
    as_of: datetime,
    meta: MetaResults,
) -> tuple[AdjustedEdge, ...]:
    """The adjusted edge of every active lesson, in the order of the lessons.

    `window` are the events of the look-back before `as_of`. Lessons of one pattern that share a
    factor are not merged: the joint fit has already shared their trades out between them, and
    merging them deletes true effects. Members of different patterns were fitted without each
    other, so each edge is divided by the mean number of the factor's patterns that a trade meets;
    a member that has worn out adjusts no trade and is not counted.
    """
    active = [x for x in lessons if x.status is LessonStatus.ACTIVE and x.joint_edge_r is not None]
    worn = [
        _worn(lesson, window.closed_at[trades], as_of, meta.half_lives)
        for lesson, trades in zip(active, trades_of(window, active), strict=True)
    ]
    return _shared(worn, window, config.min_edge_r, as_of, meta.factors)


# --- wear ------------------------------------------------------------------------------------


def _worn(
    lesson: Lesson,
    closed_at: NDArray[np.datetime64],
    as_of: datetime,
    measured: MeasuredHalfLives | None,
) -> AdjustedEdge:
    joint = lesson.joint_edge_r or 0.0
    neutral = _why_neutral(measured.as_of if measured else None, as_of)
    found = measured.by_lesson.get(lesson.lesson_id) if measured and not neutral else None
    if found is not None and found.status is DecayState.DECAYING and not len(closed_at):
        found, neutral = None, "no trades in the look-back"
    if found is None:
        note = f"half-life: {neutral or 'none for this lesson'}; taken as lasting"
        state = DecayState.INSUFFICIENT
        return AdjustedEdge(lesson, joint, 1.0, state, None, 1.0, None, (), (note,))
    share = remaining_share(found, closed_at, as_of)
    hours = found.half_life_hours
    return AdjustedEdge(lesson, joint, share, found.status, hours, 1.0, None, (), ())


def _why_neutral(measured_as_of: datetime | None, as_of: datetime) -> str:
    """Why a result does not count at `as_of`; empty where it does."""
    if measured_as_of is None:
        return "not measured yet"
    if measured_as_of > as_of:
        return f"measured as of {measured_as_of:%Y-%m-%d}, which is later"
    if as_of - measured_as_of > MOST_WEEKS_OLD * WEEK:
        return f"measured as of {measured_as_of:%Y-%m-%d}, over {MOST_WEEKS_OLD} weeks ago"
    return ""


# --- common causes ---------------------------------------------------------------------------


def _shared(
    worn: Sequence[AdjustedEdge],
    window: EventTable,
    least_r: float,
    as_of: datetime,
    measured: MeasuredFactors | None,
) -> tuple[AdjustedEdge, ...]:
    neutral = _why_neutral(measured.as_of if measured else None, as_of)
    factors = measured.factors if measured and not neutral else ()
    alive = [e.lesson for e in worn if abs(e.remaining_edge_r) >= least_r]
    divisors = share_divisors(window, alive, factors)
    factor_of = {name: factor for factor in factors for name in factor.member_ids}
    return tuple(
        _with_factor(e, factor_of.get(e.lesson.lesson_id), divisors, neutral) for e in worn
    )


def _with_factor(
    edge: AdjustedEdge, factor: Factor | None, divisors: Mapping[str, float], neutral: str
) -> AdjustedEdge:
    own = edge.lesson.lesson_id
    if factor is None:
        note = f"factor: {neutral or 'none for this lesson'}; taken as a cause of its own"
        return replace(edge, notes=(*edge.notes, note))
    members = tuple(sorted((factor.member_ids & divisors.keys()) | {own}))
    share = 1.0 / divisors.get(own, 1.0)
    return replace(edge, share=share, factor_id=factor.factor_id, factor_members=members)
