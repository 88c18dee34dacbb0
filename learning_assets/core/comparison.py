"""What an older scheduler had learned beside what is learned here.

The older one's rows are looked up among ours by pattern, category and scope. Reading them is the
business of `sources.older`; nothing here makes a lesson or an override of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from learning_assets.core.combine import look_up
from learning_assets.core.records import GroupKey, Lesson, Override, lesson_id
from learning_assets.core.scope import ScopeSubset

NO_CHANGE = 0.005
"""Multipliers this near to 1 change nothing."""

NOT_FOUND = "not found"
"""No lesson here: too few trades, or no stronger than what chance gives."""


@dataclass(frozen=True, slots=True)
class OlderLesson:
    """A row of the older `learning_lessons`; None is what it does not say.

    `edge_raw` is in R by the older formula, which is not ours; `stats` is kept as it was.
    """

    group: GroupKey
    scope_subset: ScopeSubset
    n: int | None
    edge_raw: float | None
    stats: Mapping[str, object]
    lesson_type: str | None
    half_life_hours: float | None
    factor_id: str | None
    status: str | None

    @property
    def lesson_id(self) -> str:
        """The id that the lesson would have here."""
        return lesson_id(self.group, self.scope_subset)


@dataclass(frozen=True, slots=True)
class OlderEdge:
    """A row of the older `learning_edge_history`: an edge as it was measured at `ts`."""

    pattern_key: str
    action_category: str
    scope_signature: str
    ts: datetime
    edge_raw: float
    n: int | None


@dataclass(frozen=True, slots=True)
class OlderOverride:
    """A row of the older `pm_overrides`; a multiplier of None was published as null."""

    group: GroupKey
    scope_subset: ScopeSubset
    multiplier: float | None


class Agreement(StrEnum):
    """How an older override and ours go together in the scope of the older one."""

    SAME = "same direction"
    OPPOSITE = "opposite"
    ONLY_OLDER = "only the older one"
    ONLY_OURS = "only ours"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class ComparedLesson:
    """An older lesson, and what it is here: a status and its edge in R, or `NOT_FOUND`."""

    older: OlderLesson
    found: str
    n: int | None = None
    edge_r: float | None = None
    explained_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparedOverride:
    """An older override, and what ours come to in its scope."""

    older: OlderOverride
    ours: float
    agreement: Agreement


def compare_lessons(
    older: Iterable[OlderLesson], ours: Sequence[Lesson]
) -> tuple[ComparedLesson, ...]:
    """Each older lesson beside ours of the same slice, those of the most trades first.

    A slice is the same where pattern, category and scope are, or where ours names the scope as
    another name of the same trades.
    """
    known = {lesson_id(lesson.group, alias): lesson for lesson in ours for alias in lesson.aliases}
    known |= {lesson.lesson_id: lesson for lesson in ours}
    compared = [_compared(lesson, known.get(lesson.lesson_id)) for lesson in older]
    return tuple(sorted(compared, key=lambda c: (-(c.older.n or 0), c.older.lesson_id)))


def _compared(older: OlderLesson, ours: Lesson | None) -> ComparedLesson:
    if ours is None:
        return ComparedLesson(older, NOT_FOUND)
    edge_r = ours.stats.delta_rr if ours.joint_edge_r is None else ours.joint_edge_r
    return ComparedLesson(older, ours.status.value, ours.stats.n, edge_r, ours.explained_by)


def compare_overrides(
    older: Iterable[OlderOverride], ours: Sequence[Override]
) -> tuple[ComparedOverride, ...]:
    """Each older override beside what ours come to in its scope, the widest apart first."""
    compared = [_beside(override, ours) for override in older]
    return tuple(sorted(compared, key=_apart))


def _apart(compared: ComparedOverride) -> tuple[float, str]:
    older = compared.older
    multiplier = 1.0 if older.multiplier is None else older.multiplier
    return -abs(multiplier - compared.ours), lesson_id(older.group, older.scope_subset)


def _beside(older: OlderOverride, ours: Sequence[Override]) -> ComparedOverride:
    multiplier = look_up(ours, older.group, dict(older.scope_subset)).multiplier
    return ComparedOverride(older, multiplier, _agreement(older.multiplier, multiplier))


def _agreement(older: float | None, ours: float) -> Agreement:
    before, now = _direction(older), _direction(ours)
    if not before and not now:
        return Agreement.NEITHER
    if not before or not now:
        return Agreement.ONLY_OLDER if before else Agreement.ONLY_OURS
    return Agreement.SAME if before == now else Agreement.OPPOSITE


def _direction(multiplier: float | None) -> int:
    if multiplier is None or abs(multiplier - 1) < NO_CHANGE:
        return 0
    return 1 if multiplier > 1 else -1
