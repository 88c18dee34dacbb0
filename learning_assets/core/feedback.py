"""What overrides did where bots applied them, against the trades that were held out.

effect = mean(size · rr | applied) − mean(rr | held out), in R per trade at base size: what an
override changes is the size of a trade, not its R-multiple. The error is that of a difference of
two means, clustered by UTC closing day (Liang & Zeger 1986), since trades of one day share a shock
in whichever arm they are; Student's t has as many degrees of freedom as the arm with fewer days
allows (Cameron & Miller 2015).

How a hold-out is drawn is in `runtime.book`; sets that were never live are judged in `core.judge`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.overrides import SIZING, sizing_actions
from learning_assets.core.records import Applied, Status

ALL = "*"
"""The name of all overrides together."""

FEWEST_DAYS = 4
"""An error from fewer closing days in one arm says nothing."""

_ARMS = (Status.OK, Status.HELD_OUT, Status.SHADOW)
_UPPER = 0.95
_NO_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class AppliedAction:
    """An action of a closed trade with what a bot was answered for it. `rr` (R) is the trade's."""

    trade_id: str
    rr: float
    closed_at: datetime
    module: str
    action_category: str
    applied: Applied


@dataclass(frozen=True, slots=True)
class Arm:
    """The distinct trades of one arm, their closing days (UTC), and their mean R (None: none)."""

    n_trades: int
    n_days: int
    mean_rr: float | None


@dataclass(frozen=True, slots=True)
class Effect:
    """What happened to the trades that one override matched (`ALL`: any override).

    `n_shadow` trades were only watched; `n_mixed` were treated in two ways, and are in no arm.
    `mean_multiplier` is what was applied to the actions that matched, `gained_r` = Σ (multiplier −
    1)·(rr − baseline) over the applied trades, in R; the baseline is the look-back's mean over the
    trades of the module and category. It is None for trim and exit, whose multiplier is no size.
    `effect_r` is the difference to the hold-out with its 90 % interval `low` to `high`, in R per
    trade at base size; where they are None, `reason` says why.
    """

    lesson_id: str
    applied: Arm
    held_out: Arm
    n_shadow: int
    n_mixed: int
    mean_multiplier: float | None
    gained_r: float | None
    effect_r: float | None
    low: float | None
    high: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class AppliedFeedback:
    """What bots applied to the trades that closed from `since` to before `as_of`.

    `overrides` are by lesson, those with most trades first; a trade may count for several.
    """

    since: datetime
    as_of: datetime
    total: Effect
    overrides: tuple[Effect, ...]


def feedback(
    actions: Iterable[AppliedAction], events: EventTable, as_of: datetime, config: LearningConfig
) -> AppliedFeedback | None:
    """What the overrides did that matched these actions, over the look-back before `as_of`.

    `events` are those of the book, for the baselines. None where no override matched any action.
    """
    since = as_of - timedelta(days=config.look_back_days)
    by_trade: defaultdict[str, list[AppliedAction]] = defaultdict(list)
    for action in actions:
        if since <= action.closed_at < as_of:
            by_trade[action.trade_id].append(action)
    found: dict[str, _Outcomes] = {}
    for trade in by_trade.values():
        _count(trade, found)
    if ALL not in found:
        return None
    baselines = _Baselines(events.window(as_of, config.look_back_days))
    total = _effect(ALL, found.pop(ALL), baselines)
    overrides = [_effect(name, outcomes, baselines) for name, outcomes in found.items()]
    overrides.sort(key=lambda x: (-x.applied.n_trades - x.held_out.n_trades, x.lesson_id))
    return AppliedFeedback(since, as_of, total, tuple(overrides))


# --- trades → arms ---------------------------------------------------------------------------


class _Outcome(NamedTuple):
    """A trade in an arm. `size` is the whole trade's, `multiplier` of the actions that matched."""

    day: date
    rr: float
    size: float
    multiplier: float


@dataclass(slots=True)
class _Outcomes:
    """The trades that an override matched; `group` is its module and category, None for all."""

    group: tuple[str, str] | None
    arms: Mapping[Status, list[_Outcome]] = field(
        default_factory=lambda: {status: [] for status in _ARMS}
    )
    n_mixed: int = 0


def _count(trade: Sequence[AppliedAction], found: dict[str, _Outcomes]) -> None:
    """Put a trade into an arm of each override that matched one of its actions, and of all."""
    by_lesson: defaultdict[str, list[AppliedAction]] = defaultdict(list)
    for action in trade:
        if action.applied.overrides and action.applied.status in _ARMS:
            by_lesson[ALL].append(action)
            for name in dict.fromkeys(x.lesson_id for x in action.applied.overrides):
                by_lesson[name].append(action)
    size, day = _size(trade), trade[0].closed_at.astimezone(UTC).date()
    for name, matched in by_lesson.items():
        first = matched[0]
        group = None if name == ALL else (first.module, first.action_category)
        outcomes = found.setdefault(name, _Outcomes(group))
        statuses = {action.applied.status for action in matched}
        if len(statuses) > 1:
            outcomes.n_mixed += 1
            continue
        multiplier = size if name == ALL else fmean(a.applied.multiplier for a in matched)
        outcomes.arms[statuses.pop()].append(_Outcome(day, first.rr, size, multiplier))


def _size(trade: Sequence[AppliedAction]) -> float:
    """The size of a trade by the rule of `core.overrides.trade_sizes`, from what was applied."""
    size = 1.0
    for module, categories in SIZING.items():
        mine = [
            action.applied.multiplier
            for action in trade
            if action.module == module and action.action_category in categories
        ]
        size *= fmean(mine) if mine else 1.0
    return size


class _Baselines:
    """Mean R over the trades of a module and category, of all trades for None."""

    def __init__(self, window: EventTable) -> None:
        self._window = window
        self._known: dict[tuple[str, str] | None, float | None] = {}

    def of(self, group: tuple[str, str] | None) -> float | None:
        """The baseline in R; None without trades."""
        if group not in self._known:
            rr = self._window.rr
            if group is not None:
                module, category = group
                actions = sizing_actions(self._window, module, (category,))
                rr = rr[np.unique(self._window.trade[actions])]
            self._known[group] = float(rr.mean()) if len(rr) else None
        return self._known[group]


# --- arms → effect ---------------------------------------------------------------------------


def _effect(name: str, outcomes: _Outcomes, baselines: _Baselines) -> Effect:
    applied, held_out, shadow = (outcomes.arms[status] for status in _ARMS)
    effect_r, low, high, reason = _against_hold_out(applied, held_out)
    return Effect(
        name,
        _arm(applied),
        _arm(held_out),
        len(shadow),
        outcomes.n_mixed,
        fmean(x.multiplier for x in applied) if applied else None,
        _gained(applied, outcomes.group, baselines),
        effect_r,
        low,
        high,
        reason,
    )


def _arm(trades: Sequence[_Outcome]) -> Arm:
    mean_rr = fmean(x.rr for x in trades) if trades else None
    return Arm(len(trades), len({x.day for x in trades}), mean_rr)


def _gained(
    applied: Sequence[_Outcome], group: tuple[str, str] | None, baselines: _Baselines
) -> float | None:
    if not applied or (group is not None and group[1] not in SIZING[group[0]]):
        return None
    baseline = baselines.of(group)
    if baseline is None:
        return None
    return sum((x.multiplier - 1.0) * (x.rr - baseline) for x in applied)


_Difference = tuple[float | None, float | None, float | None, str]


def _against_hold_out(applied: Sequence[_Outcome], held_out: Sequence[_Outcome]) -> _Difference:
    """The effect with its interval, or the reason why there is none."""
    if not held_out:
        return None, None, None, "no trade was held out"
    if not applied:
        return None, None, None, "it was applied to no trade"
    fewest = min(len({x.day for x in trades}) for trades in (applied, held_out))
    if fewest < FEWEST_DAYS:
        days = "1 closing day" if fewest == 1 else f"{fewest} closing days"
        return None, None, None, f"only {days} in one arm, {FEWEST_DAYS} are needed"
    with_it = _values([(x.day, x.size * x.rr) for x in applied])
    effect_r, se = clustered_difference(*with_it, *_values([(x.day, x.rr) for x in held_out]))
    if se < _NO_SPREAD:
        return effect_r, None, None, "all outcomes are the same, which tells no error"
    half = float(stdtrit(fewest - 1, _UPPER)) * se
    return effect_r, effect_r - half, effect_r + half, ""


def _values(pairs: Sequence[tuple[date, float]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    days, values = zip(*pairs, strict=True)
    return np.array([day.toordinal() for day in days]), np.array(values)


def clustered_difference(
    day: NDArray[np.int64],
    value: NDArray[np.float64],
    other_day: NDArray[np.int64],
    other_value: NDArray[np.float64],
) -> tuple[float, float]:
    """Mean of one arm less that of the other, and its standard error, clustered by day.

    Days are any integers, the same in both arms; each arm needs two of them at least.
    """
    _, place = np.unique(np.concatenate([day, other_day]), return_inverse=True)
    pulled = [
        _pull(part, values, int(place.max()) + 1)
        for part, values in ((place[: len(day)], value), (place[len(day) :], other_value))
    ]
    difference = float(value.mean() - other_value.mean())
    return difference, float(np.sqrt(((pulled[0] - pulled[1]) ** 2).sum()))


def _pull(day: NDArray[np.int64], value: NDArray[np.float64], n_days: int) -> NDArray[np.float64]:
    """How far each day pulls the mean of an arm, corrected for the arm's number of days."""
    own = len(np.unique(day))
    sums = np.bincount(day, weights=value - value.mean(), minlength=n_days)
    pull: NDArray[np.float64] = sums * (np.sqrt(own / (own - 1)) / len(value))
    return pull
