"""What a joint edge is worth once wear, common causes and the market regime are known.

adjusted = joint edge · remaining share · share · regime factor, the remaining share as in
`core.halflife`, the share 1 ÷ the divisor of `core.factors`, the regime factor as in
`core.regime_weights`. A result that is missing, out of date or about other lessons counts as
neutral and is named in the notes. The multipliers of sizes are made in `core.overrides`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.changes import Reason, Why
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.factors import Factor, share_divisors
from learning_assets.core.halflife import HalfLife, remaining_share
from learning_assets.core.history import WEEK
from learning_assets.core.membership import trades_of
from learning_assets.core.records import DecayState, Lesson, LessonStatus
from learning_assets.core.regime_weights import (
    Four,
    RegimeWeights,
    group_medians,
    regime_factor,
    weights_in_force,
)
from learning_assets.core.regimes import Regime

MOST_WEEKS_OLD = 2
"""Half-lives and factors are learned weekly; after two weeks they no longer count."""

MOST_DAYS_OLD = 2
"""Regime weights are learned daily; after two days they no longer count."""


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
class MeasuredWeights:
    """Regime weights, and the moment as of which they were learned."""

    as_of: datetime
    rows: Sequence[RegimeWeights]


@dataclass(frozen=True, slots=True)
class MetaResults:
    """What the meta-learners found, and the regime in force; None where nothing was."""

    half_lives: MeasuredHalfLives | None = None
    factors: MeasuredFactors | None = None
    weights: MeasuredWeights | None = None
    regime: Regime | None = None


@dataclass(frozen=True, slots=True)
class AdjustedEdge:
    """The edge of an active lesson, and all that changed it. Edges in R, shares in (0, 1].

    `factor_members` are the lesson ids in its factor that share trades with it as overrides, its
    own included. `regime_factor` (1 where neutral) is what its multipliers make of it beside the
    `medians` of its group under the `weights` of the regime in force. `notes` say which results
    are missing and counted as neutral.
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
    regime_signature: str | None = None
    weights: RegimeWeights | None = None
    medians: Four | None = None
    regime_factor: float = 1.0

    @property
    def remaining_edge_r(self) -> float:
        """What has not worn out."""
        return self.joint_edge_r * self.remaining_share

    @property
    def shared_edge_r(self) -> float:
        """Its share of what has not worn out."""
        return self.remaining_edge_r * self.share

    @property
    def adjusted_edge_r(self) -> float:
        """The edge that the override acts on."""
        return self.shared_edge_r * self.regime_factor

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
        if abs(self.shared_edge_r) < least_r:
            return (
                f"its share of the factor {self.factor_id} is {self.shared_edge_r:+.3f} R, under "
                f"{least_r:g} R"
            )
        return (
            f"in the regime {self.regime_signature} it counts {self.regime_factor:.2f} times: "
            f"{self.adjusted_edge_r:+.3f} R, under {least_r:g} R"
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
    shared = _shared(worn, window, config.min_edge_r, as_of, meta.factors)
    return _in_regime(shared, as_of, meta)


# --- wear ------------------------------------------------------------------------------------


def _worn(
    lesson: Lesson,
    closed_at: NDArray[np.datetime64],
    as_of: datetime,
    measured: MeasuredHalfLives | None,
) -> AdjustedEdge:
    joint = lesson.joint_edge_r or 0.0
    neutral = _why_neutral(measured.as_of if measured else None, as_of, _WEEKLY)
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


_WEEKLY = (MOST_WEEKS_OLD * WEEK, f"over {MOST_WEEKS_OLD} weeks ago")
_DAILY = (timedelta(days=MOST_DAYS_OLD), f"over {MOST_DAYS_OLD} days ago")


def _why_neutral(
    measured_as_of: datetime | None, as_of: datetime, oldest: tuple[timedelta, str]
) -> str:
    """Why a result does not count at `as_of`; empty where it does."""
    if measured_as_of is None:
        return "not measured yet"
    if measured_as_of > as_of:
        return f"measured as of {measured_as_of:%Y-%m-%d}, which is later"
    age, in_words = oldest
    if as_of - measured_as_of > age:
        return f"measured as of {measured_as_of:%Y-%m-%d}, {in_words}"
    return ""


# --- common causes ---------------------------------------------------------------------------


def _shared(
    worn: Sequence[AdjustedEdge],
    window: EventTable,
    least_r: float,
    as_of: datetime,
    measured: MeasuredFactors | None,
) -> tuple[AdjustedEdge, ...]:
    neutral = _why_neutral(measured.as_of if measured else None, as_of, _WEEKLY)
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


# --- the regime ------------------------------------------------------------------------------


def _in_regime(
    edges: Sequence[AdjustedEdge], as_of: datetime, meta: MetaResults
) -> tuple[AdjustedEdge, ...]:
    signature, neutral = _usable_regime(as_of, meta)
    rows = meta.weights.rows if meta.weights and not neutral else ()
    medians = group_medians([edge.lesson for edge in edges])
    return tuple(
        _with_weights(edge, signature, rows, medians[edge.lesson.group], neutral) for edge in edges
    )


def _usable_regime(as_of: datetime, meta: MetaResults) -> tuple[str | None, str]:
    """The signature of the regime in force, and why its weights do not count; empty if they do."""
    signature = meta.regime.signature if meta.regime else None
    measured = meta.weights
    neutral = _why_neutral(measured.as_of if measured else None, as_of, _DAILY)
    if not neutral and signature is None:
        why = meta.regime.whence if meta.regime else "not looked up"
        neutral = f"regime unknown ({why})"
    return signature, neutral


def _with_weights(
    edge: AdjustedEdge,
    signature: str | None,
    rows: Sequence[RegimeWeights],
    medians: Four,
    neutral: str,
) -> AdjustedEdge:
    found = weights_in_force(rows, edge.lesson.group, signature) if signature else None
    if found is None:
        note = f"regime weights: {neutral or 'none for its module'}; taken as 1"
        return replace(edge, regime_signature=signature, notes=(*edge.notes, note))
    factor = regime_factor(edge.lesson.multipliers, medians, found)
    return replace(
        edge,
        regime_signature=signature,
        weights=found,
        medians=medians,
        regime_factor=factor,
    )


def why_gone(
    lessons: Iterable[Lesson], edges: Iterable[AdjustedEdge], least_r: float
) -> dict[str, Reason]:
    """Why each lesson that has no override has none: by its status, or by what is left of it."""
    found = {
        lesson.lesson_id: Reason(Why.DEPRECATED, lesson.reason or str(lesson.status))
        for lesson in lessons
        if lesson.status is not LessonStatus.ACTIVE
    }
    for edge in edges:
        detail = edge.why_withheld(least_r)
        if detail is not None:
            found[edge.lesson.lesson_id] = Reason(_withheld_by(edge, least_r), detail)
    return found


def _withheld_by(edge: AdjustedEdge, least_r: float) -> Why:
    steps = (
        (edge.joint_edge_r, Why.LEARNED_AGAIN),
        (edge.remaining_edge_r, Why.DECAYED),
        (edge.shared_edge_r, Why.FACTOR),
    )
    return next((why for left, why in steps if abs(left) < least_r), Why.REGIME)
