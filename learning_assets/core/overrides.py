"""From active lessons to a set of overrides, and what the set would have done to the look-back.

What is left of an edge is worked out in `core.adjust`. The rule by which overrides combine is in
`core.combine`; publishing is in `store.overrides`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from learning_assets.core.adjust import AdjustedEdge, MetaResults, adjusted_edges
from learning_assets.core.combine import clip_multiplier, combine
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.gain import ModuleGain, gains_of
from learning_assets.core.publication import lasting
from learning_assets.core.records import Lesson, Override, OverrideSet
from learning_assets.core.regime_weights import by_multiplier, four_of
from learning_assets.core.vetoes import Veto, with_vetoes

Floats = NDArray[np.float64]

SIZING = {"pm": ("entry", "add"), "dm": ("allocation",)}
"""Categories whose multiplier changes a trade's size; of a trim or exit it is the fraction sold."""

_HALVINGS = 40
_NOTHING_MEASURED = MetaResults()


@dataclass(frozen=True, slots=True)
class ExpectedEffect:
    """What a set would have done to the trades of the look-back, as ratios minus 1.

    `total_size` of the mean size per trade, `volatility` of the standard deviation of the daily
    result, `drawdown` of the largest drawdown of the running result (R times size); `mean_rr`
    is the change of the mean R per unit of size, in R. All 0 where there are no trades.
    """

    total_size: float
    volatility: float
    drawdown: float
    mean_rr: float
    n_trades: int


def build_overrides(
    lessons: Sequence[Lesson],
    events: EventTable,
    config: LearningConfig,
    as_of: datetime,
    published_at: datetime,
    interval: timedelta,
    *,
    meta: MetaResults = _NOTHING_MEASURED,
    gains: Mapping[str, ModuleGain] | None = None,
    vetoes: Sequence[Veto] = (),
) -> OverrideSet:
    """The set of overrides that the active lessons give.

    `meta` (half-lives, factors, regime weights) changes the edges as `core.adjust` says; what of
    it is missing or out of date is neutral. Lessons of one pattern in one factor are not merged:
    the joint fit has shared their trades out already, and merging deletes true effects. `gains`
    are by module, as `core.gain` measures them; without them `config.prior_gain` counts.

    An adjusted edge under `config.min_edge_r` gives none. `interval` is that between two
    publications; the set expires after three of them, or after `config.expiry_hours` if that is
    longer. Adjustments are scaled down together until the total size of the look-back's trades
    stays within ±`config.max_size_change`. What the `vetoes` in force name is there, without
    effect.
    """
    window = events.window(as_of, config.look_back_days)
    edges = adjusted_edges(lessons, window, config, as_of, meta)
    actionable = [edge for edge in edges if edge.why_withheld(config.min_edge_r) is None]
    known = gains if gains is not None else gains_of((), config, as_of)

    def made(scale: float) -> tuple[Override, ...]:
        found = (_override(edge, known, scale) for edge in actionable)
        return with_vetoes(found, vetoes, published_at)

    overrides = made(_scale_to_size(made, window, config.max_size_change))
    expiry = lasting(config, interval)
    effect = expected_effect(overrides, window)
    return OverrideSet(
        as_of,
        published_at,
        published_at + expiry,
        overrides,
        {name: getattr(effect, name) for name in effect.__slots__},
    )


def _override(edge: AdjustedEdge, gains: Mapping[str, ModuleGain], scale: float) -> Override:
    lesson, gain = edge.lesson, gains[edge.lesson.group.module]
    return Override(
        lesson.group,
        lesson.scope_subset,
        clip_multiplier(lesson.group.module, 1.0 + scale * gain.value * edge.adjusted_edge_r),
        edge.adjusted_edge_r,
        _confidence(edge.joint_edge_r, lesson.joint_se_r),
        edge.decay_state,
        edge.half_life_hours,
        lesson.stats.n,
        lesson.stats.q_value,
        _parts(edge, gain, scale),
    )


def _confidence(edge_r: float, se_r: float | None) -> float:
    """Probability that the edge has its sign, from its clustered error; 0.5 without an error."""
    if not se_r:
        return 0.5
    return float(stats.norm.cdf(abs(edge_r) / se_r))


def _parts(edge: AdjustedEdge, gain: ModuleGain, scale: float) -> Mapping[str, Any]:
    """The sum: multiplier = 1 + size_scale · gain · joint_edge_r · remaining_share · share ·
    regime_factor, and what gain and regime factor were made from.
    """
    return {
        "joint_edge_r": edge.joint_edge_r,
        "joint_se_r": edge.lesson.joint_se_r,
        "remaining_share": edge.remaining_share,
        "half_life_hours": edge.half_life_hours,
        "factor_id": edge.factor_id,
        "factor_members": list(edge.factor_members),
        "share": edge.share,
        "regime_signature": edge.regime_signature,
        "regime_factor": edge.regime_factor,
        "regime_parts": _regime_parts(edge),
        "gain": gain.value,
        "gain_rests_on": gain.why,
        "size_scale": scale,
        "notes": list(edge.notes),
    }


def _regime_parts(edge: AdjustedEdge) -> Mapping[str, Any] | None:
    """regime_factor = Π clip((multipliers / medians)^(weights − 1), 0.5, 1.5); None if neutral."""
    if edge.weights is None or edge.medians is None:
        return None
    found = edge.weights
    return {
        "weights_of": "/".join(found.group),
        "weights_signature": found.regime_signature,
        "n_samples": found.n_samples,
        "weights": by_multiplier(found.four),
        "medians": by_multiplier(edge.medians),
        "multipliers": by_multiplier(four_of(edge.lesson.multipliers)),
    }


def _scale_to_size(
    made: Callable[[float], Sequence[Override]], window: EventTable, most: float
) -> float:
    """The largest factor ≤ 1 on all adjustments that keeps the total size within its bounds."""

    def change(scale: float) -> float:
        return abs(expected_effect(made(scale), window).total_size)

    if change(1.0) <= most:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if change(middle) <= most else (low, middle)
    return low


def expected_effect(overrides: Sequence[Override], events: EventTable) -> ExpectedEffect:
    """What the overrides would have done to these trades."""
    if events.n_trades == 0:
        return ExpectedEffect(0.0, 0.0, 0.0, 0.0, 0)
    size = trade_sizes(overrides, events)
    result = size * events.rr
    return ExpectedEffect(
        float(size.mean() - 1.0),
        _ratio(_daily(result, events).std(), _daily(events.rr, events).std()) - 1.0,
        _ratio(_drawdown(result), _drawdown(events.rr)) - 1.0,
        float(result.sum() / size.sum() - events.rr.mean()),
        events.n_trades,
    )


def _ratio(value: float, base: float) -> float:
    return float(value / base) if base > 0 else 1.0


def _daily(result: Floats, events: EventTable) -> Floats:
    _, day = np.unique(events.day, return_inverse=True)
    daily: Floats = np.bincount(day, weights=result).astype(np.float64)
    return daily


def _drawdown(result: Floats) -> float:
    running = np.cumsum(result)
    return float((np.maximum.accumulate(np.maximum(running, 0.0)) - running).max())


def trade_sizes(overrides: Sequence[Override], events: EventTable) -> Floats:
    """Size of each trade (length T, 1 without overrides): its sizing actions' multipliers.

    Multipliers that match one action, and those of other patterns that fired in the same trade
    and category, are combined by `core.combine`'s rule; a trade's size is the mean over its
    sizing actions of pm times that of dm.
    """
    size = np.ones(events.n_trades)
    for module, categories in SIZING.items():
        added = action_multipliers(overrides, events, module) - 1.0
        multiplier = _combined(module, with_other_patterns(added, events))
        size *= mean_by_trade(multiplier, sizing_actions(events, module, categories), events, 1.0)
    return size


def sizing_actions(events: EventTable, module: str, categories: Sequence[str]) -> NDArray[np.int64]:
    """The actions of these categories of a module, ascending."""
    mine = [
        i
        for i, key in enumerate(events.groups)
        if key.module == module and key.action_category in categories
    ]
    return np.flatnonzero(np.isin(events.group, mine))


def mean_by_trade(
    values: Floats, actions: NDArray[np.int64], events: EventTable, empty: float
) -> Floats:
    """Mean of the values (length A) over each trade's `actions`; `empty` where it has none."""
    trade = events.trade[actions]
    count = np.bincount(trade, minlength=events.n_trades)
    total = np.bincount(trade, weights=values[actions], minlength=events.n_trades)
    mean: Floats = np.divide(total, count, out=np.full(len(count), empty), where=count > 0)
    return mean


def action_multipliers(overrides: Sequence[Override], events: EventTable, module: str) -> Floats:
    """Combined multiplier of every action (length A); 1 for those of other modules."""
    added = np.zeros(events.n_events)
    for override in overrides:
        if override.group.module == module:
            added[matching_actions(override, events)] += override.multiplier - 1.0
    return _combined(module, added)


def _combined(module: str, added: Floats) -> Floats:
    """What `core.combine` makes of sums of (multiplier − 1); few of them differ."""
    sums, where = np.unique(added, return_inverse=True)
    return np.array([combine(module, (1.0 + x,)) for x in sums.tolist()])[where.reshape(-1)]


def with_other_patterns(values: Floats, events: EventTable) -> Floats:
    """Each action's value (length A) plus those of the other patterns of its trade and category.

    Several patterns that fire in one category of one trade are one decision, so what they say of
    it adds up; a cause that they share has been divided among them (`core.factors`). A pattern
    with several actions in the trade counts with their mean.
    """
    category = _categories(events)
    if len(np.unique(category)) == len(category):
        return values
    n_groups = len(events.groups)
    pairs, of_pair = np.unique(events.trade * n_groups + events.group, return_inverse=True)
    mean = np.bincount(of_pair, weights=values) / np.bincount(of_pair)
    decisions = pairs // n_groups * n_groups + category[pairs % n_groups]
    _, of_decision = np.unique(decisions, return_inverse=True)
    total, patterns = np.bincount(of_decision, weights=mean), np.bincount(of_decision)
    others = np.where(patterns[of_decision] > 1, total[of_decision] - mean, 0.0)
    out: Floats = values + others[of_pair]
    return out


def _categories(events: EventTable) -> NDArray[np.int64]:
    """By group a number that the groups of one module and category share."""
    names = [(key.module, key.action_category) for key in events.groups]
    return np.array([names.index(name) for name in names], dtype=np.int64)


def matching_actions(override: Override, events: EventTable) -> NDArray[np.bool_]:
    """Which actions (length A) the override matches."""
    if override.group not in events.groups:
        return np.zeros(events.n_events, dtype=bool)
    rows: NDArray[np.bool_] = events.group == events.groups.index(override.group)
    for dim, value in override.scope_subset:
        d = events.dims.index(dim) if dim in events.dims else -1
        if d < 0 or value not in events.values[d]:
            return np.zeros(events.n_events, dtype=bool)
        rows = rows & (events.codes[d] == events.values[d].index(value) + 1)
    return rows
