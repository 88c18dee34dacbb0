"""What each lesson's edge was, week by week: the edge history.

delta_rr of a week = mean over the slice's trades − mean over the complement's, both of that week
and of rr without the other active joint edges that match the trade. Its variance under the
day-shock model of `core.dayshock` is σ²_slice/n + σ²_rest/m + γ·a'Φa, where a is, day by day, the
share of the slice's trades less that of the complement's: a week's own variance is a trap, so
σ² is pooled over all trades closed by the end of the week. Nothing later enters a week's row; what
the rows say about wear is in `core.halflife`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.config import LearningConfig
from learning_assets.core.dayshock import fit_day_shock
from learning_assets.core.events import EventTable
from learning_assets.core.membership import group_trades, trades_of
from learning_assets.core.multipliers import support, week_of
from learning_assets.core.records import GroupKey, Lesson, LessonStatus
from learning_assets.core.scope import signature

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WEEK = timedelta(days=7)

_EPOCH_MONDAY = datetime(1969, 12, 29, tzinfo=UTC)
_DAYS = 7
_FEWEST_POOLED = 10
"""Trades of a group that a variance needs at least."""

_SHRINK_N = 50.0
"""Trades that the group's variance counts for in that of a slice."""

_SIZING = frozenset({"entry", "allocation"})


@dataclass(frozen=True, slots=True)
class EdgePoint:
    """The edge of a lesson in one week (`week`: its Monday 00:00 UTC).

    `delta_rr`, its standard error `se` and `edge_raw` in R, `n` the slice's distinct trades of
    the week (at least 1). `edge_raw` has the lesson's multipliers and the week's n.
    """

    lesson_id: str
    group: GroupKey
    scope_signature: str
    week: datetime
    delta_rr: float
    se: float
    n: int
    edge_raw: float


def monday(at: datetime) -> datetime:
    """The Monday 00:00 UTC at or before an aware time."""
    return _EPOCH_MONDAY + (at.astimezone(UTC) - _EPOCH_MONDAY) // WEEK * WEEK


def last_full_week(as_of: datetime) -> datetime:
    """The Monday of the newest week that had ended by `as_of`."""
    return monday(as_of) - WEEK


def edge_history(
    events: EventTable,
    lessons: Sequence[Lesson],
    config: LearningConfig,
    first_week: datetime,
    last_week: datetime,
) -> list[EdgePoint]:
    """The edges of the lessons in each week from `first_week` to `last_week`, both included.

    Both are Mondays 00:00 UTC. The other edges that are taken out are the joint edges of the
    active among `lessons`. There is no row for a week in which the slice or its complement has
    no trade, or by the end of which the group has fewer than ten.

    Raises:
        ValueError: for a week that does not begin on a Monday 00:00 UTC.
    """
    weeks = _week_number(first_week), _week_number(last_week)
    members = trades_of(events, lessons)
    points = []
    for context in _contexts(events, lessons, members):
        points += list(context.points(*weeks))
    return sorted(points, key=lambda p: (p.lesson_id, p.week))


def _week_number(week: datetime) -> int:
    if week.tzinfo is None or monday(week) != week:
        raise ValueError(f"{week.isoformat()} is not a Monday 00:00 UTC")
    return (week - _EPOCH_MONDAY) // WEEK


# --- what is compared with what --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Context:
    """Lessons that are compared within the same trades.

    `trades` are those of the group (of the category, for lessons on a whole pattern); `rr` (same
    length) is without any active joint edge; `own` (R) is given back to each lesson.
    """

    events: EventTable
    lessons: Sequence[Lesson]
    members: Sequence[Ints]
    trades: Ints
    rr: Floats
    own: Floats

    def points(self, first: int, last: int) -> Iterator[EdgePoint]:
        """The rows of the lessons from week `first` to week `last`."""
        until = np.searchsorted(week_of(self.events.day[self.trades]), last, side="right")
        if until < _FEWEST_POOLED:
            return
        weekly = _weekly(self, int(until))
        delta, variance = weekly.delta(self.own), weekly.variance(max(first, weekly.start))
        usable = np.isfinite(delta) & (variance > 0)
        usable[:, : max(first - weekly.start, 0)] = False
        rows, columns = np.nonzero(usable)
        n = weekly.counts.sum(axis=2)[rows, columns].astype(int)
        edge, se = delta[rows, columns], np.sqrt(variance[rows, columns])
        score = edge * _unit_scores(self.lessons)[rows] * _supports(n)
        names = [(x.lesson_id, x.group, signature(x.scope_subset)) for x in self.lessons]
        weeks = [_EPOCH_MONDAY + (weekly.start + w) * WEEK for w in range(usable.shape[1])]
        found = (rows, columns, edge, se, n, score)
        for i, w, *numbers in zip(*(column.tolist() for column in found), strict=True):
            name, group, scope = names[i]
            yield EdgePoint(name, group, scope, weeks[w], *numbers)


def _unit_scores(lessons: Sequence[Lesson]) -> Floats:
    """edge_raw per R of delta_rr and full support."""
    m = [lesson.multipliers for lesson in lessons]
    return np.array([x.time * x.field * x.recurrence * x.variance for x in m])


def _supports(n: Ints) -> Floats:
    table = np.array([support(k) for k in range(int(n.max(initial=0)) + 1)])
    return table[n]


def _contexts(
    events: EventTable, lessons: Sequence[Lesson], members: Sequence[Ints]
) -> Iterator[_Context]:
    joint = np.array([joint_edge(lesson) for lesson in lessons])
    by_context: dict[tuple[GroupKey, bool], list[int]] = {}
    for i, lesson in enumerate(lessons):
        key, whole = lesson.group, not lesson.scope_subset
        key = GroupKey(key.module, "*", key.action_category) if whole else key
        by_context.setdefault((key, whole), []).append(i)
    for (key, whole), own in by_context.items():
        same = [k for k in events.groups if k == key or (whole and _is_category(k, key))]
        trades = group_trades(events, same)
        taken_out = np.zeros(events.n_trades)
        for i, other in enumerate(lessons):
            if joint[i] and matters(other.group, key):
                taken_out[members[i]] += joint[i]
        mine = [lessons[i] for i in own], [members[i] for i in own]
        yield _Context(events, *mine, trades, (events.rr - taken_out)[trades], joint[own])


def joint_edge(lesson: Lesson) -> float:
    """The joint edge of an active lesson (R), 0 for any other."""
    return (lesson.joint_edge_r or 0.0) if lesson.status is LessonStatus.ACTIVE else 0.0


def _is_category(key: GroupKey, other: GroupKey) -> bool:
    return (key.module, key.action_category) == (other.module, other.action_category)


def matters(other: GroupKey, key: GroupKey) -> bool:
    """Whether an edge of the group `other` is in the outcomes that `key` is learned from.

    Those of the same group (of the category, for a whole pattern); of the allocation for pm, of
    the entries for the allocation: as the search itself has it.
    """
    if other.module == key.module:
        return other == key or (key.pattern_key == "*" and _is_category(other, key))
    return other.module == "dm" or other.action_category in _SIZING


# --- sums by week ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Weekly:
    """Sums of lessons (first axis) and of all trades of the context, by week from `start`.

    `counts` (lessons × weeks × 7 days), `sums` and `squares` (lessons × weeks) are of the
    lessons' trades, `all_counts`, `all_sums` of all. `day` and `rr` are the context's trades.
    """

    start: int
    counts: Floats
    sums: Floats
    squares: Floats
    all_counts: Floats
    all_sums: Floats
    day: Ints
    rr: Floats

    def delta(self, own: Floats) -> Floats:
        """Mean of the slice − mean of the complement (R): lessons × weeks; NaN without trades."""
        n = self.counts.sum(axis=2)
        m = self.all_counts.sum(axis=1) - n
        with np.errstate(divide="ignore", invalid="ignore"):
            delta: Floats = self.sums / n - (self.all_sums - self.sums) / m + own[:, None]
        return np.where((n > 0) & (m > 0), delta, np.nan)

    def variance(self, first: int) -> Floats:
        """Variance of `delta` (R²), each week from what had closed by its end; NaN before."""
        n = self.counts.sum(axis=2)
        m = self.all_counts.sum(axis=1) - n
        noise, day, phi = self._shocks(first)
        with np.errstate(divide="ignore", invalid="ignore"):
            slices = np.maximum(self._pooled(noise + day) - day, 0.1 * noise)
            lean = self.counts / n[:, :, None]
            lean = lean - (self.all_counts - self.counts) / m[:, :, None]
            apart = np.abs(np.subtract.outer(np.arange(_DAYS), np.arange(_DAYS)))
            shared = np.einsum("lwd,wde,lwe->lw", lean, phi[:, None, None] ** apart, lean)
            variance: Floats = slices / n + noise / m + day * shared
        return variance

    def _pooled(self, group_variance: Floats) -> Floats:
        """Variance of the slice's trades so far, with the group's for `_SHRINK_N` of them."""
        n, total = self.counts.sum(axis=2).cumsum(axis=1), self.sums.cumsum(axis=1)
        around = self.squares.cumsum(axis=1) - total**2 / np.maximum(n, 1)
        free = np.maximum(n - 1, 0)
        pooled: Floats = (around + _SHRINK_N * group_variance) / (free + _SHRINK_N)
        return pooled

    def _shocks(self, first: int) -> tuple[Floats, Floats, Floats]:
        """Noise and day variance (R²) and autocorrelation as known at the end of each week."""
        out = np.full((3, len(self.all_counts)), np.nan)
        out[2] = 0.0
        ends = self.all_counts.sum(axis=1).cumsum().astype(int)
        for w in range(first - self.start, len(ends)):
            if ends[w] >= _FEWEST_POOLED:
                shock = fit_day_shock(self.rr[: ends[w]], self.day[: ends[w]])
                out[:, w] = shock.noise_variance, shock.day_variance, shock.day_autocorrelation
        return out[0], out[1], out[2]


def _weekly(context: _Context, until: int) -> _Weekly:
    """The sums over the context's first `until` trades."""
    trades, rr = context.trades[:until], context.rr[:until]
    day = context.events.day[trades]
    start, end = int(week_of(day[0])), int(week_of(day[-1])) + 1
    slot = day - _days_before(start)
    n_days = (end - start) * _DAYS
    place = np.zeros(trades[-1] + 1, dtype=np.int64)
    place[trades] = np.arange(until)
    sums = np.zeros((3, len(context.members), n_days))
    for i, members in enumerate(context.members):
        at = place[members[: np.searchsorted(members, trades[-1], "right")]]
        own, days = rr[at], slot[at]
        for k, weights in enumerate((None, own, own * own)):
            sums[k, i] = np.bincount(days, weights=weights, minlength=n_days)
    by_week = sums.reshape(3, len(context.members), -1, _DAYS)
    totals = [np.bincount(slot, weights=w, minlength=n_days) for w in (None, rr)]
    counts, outcomes = (t.astype(float).reshape(-1, _DAYS) for t in totals)
    squares = by_week[2].sum(axis=2)
    return _Weekly(
        start, by_week[0], by_week[1].sum(axis=2), squares, counts, outcomes.sum(axis=1), day, rr
    )


def _days_before(week: int) -> int:
    """Days from 1970 to the Monday of a week."""
    return (_EPOCH_MONDAY + week * WEEK - datetime(1970, 1, 1, tzinfo=UTC)).days
