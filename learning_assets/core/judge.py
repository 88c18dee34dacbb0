"""What one set of overrides did to the trades opened in its week, per unit of size.

Sizes come from `core.overrides.trade_sizes`, the rule that the runtime has too. The interval is a
block bootstrap over closing days (Künsch 1989): trades of one day share a shock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, instant
from learning_assets.core.history import WEEK
from learning_assets.core.overrides import (
    SIZING,
    matching_actions,
    mean_by_trade,
    sizing_actions,
    trade_sizes,
    with_other_patterns,
)
from learning_assets.core.records import Override
from learning_assets.core.walkforward import (
    DaySums,
    ModuleResult,
    OverrideResult,
    Replay,
    WeekResult,
)

Floats = NDArray[np.float64]

MOST_PREDICTED_R = 2.0
"""Predicted edges are clipped here, so that a few trades with many overrides do not decide."""

_PREDICTED = {"pm": ("entry",), "dm": ("allocation",)}
_OTHER = {"pm": "dm", "dm": "pm"}
_DRAWS = 999
_FEWEST_BLOCKS = 4
_INTERVAL = (0.05, 0.95)


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean R with the overrides, per unit of size, less that without, and its 90 % interval.

    `low` and `high` are None with fewer than four blocks, everything without trades.
    """

    n_trades: int
    mean_rr: float | None
    mean_rr_with: float | None
    difference: float | None
    low: float | None
    high: float | None
    total_size: float | None


def judge(
    replay: Replay, events: EventTable, evaluated_at: datetime, config: LearningConfig
) -> WeekResult:
    """Judge a replayed set by the trades opened in its week and closed before `evaluated_at`.

    A trade whose opening is unknown counts where it closed. Without such trades the result says
    so with None; it is never an error.
    """
    trades = _opened_in(events, replay.week, evaluated_at)
    overrides = replay.content.overrides
    found = _difference_of(trades, trade_sizes(overrides, trades), config, replay.week)
    sizing = [o for o in overrides if o.group.action_category in SIZING[o.group.module]]
    matched = [_matched(o, trades) for o in sizing]
    return WeekResult(
        replay.week,
        found.n_trades,
        len(overrides),
        int(np.any(matched, axis=0).sum()) if matched else 0,
        found.mean_rr,
        found.mean_rr_with,
        found.difference,
        found.low,
        found.high,
        found.total_size,
        module_results(replay, trades),
        tuple(_override_result(o, m, trades) for o, m in zip(sizing, matched, strict=True)),
        evaluated_at,
    )


def total_of(results: Sequence[WeekResult], config: LearningConfig) -> Difference:
    """All weeks together; a week is a block of the bootstrap."""
    used = [r for r in results if r.n_trades]
    n = np.array([r.n_trades for r in used], dtype=float)
    rr, with_rr, size = (
        np.array([getattr(r, name) for r in used], dtype=float)
        for name in ("mean_rr", "mean_rr_with", "total_size")
    )
    blocks = np.column_stack([n, n * rr, n * size, n * size * with_rr])
    return _difference(blocks, np.random.default_rng(config.seed))


@dataclass(frozen=True, slots=True)
class OverrideTotal:
    """What one lesson's overrides did over several weeks.

    `predicted_r` and `realised_r` are means over its `n_trades` trades (R), `effect_r` what it
    changed per trade of all weeks that are looked at (R), trades that it did not match included.
    """

    lesson_id: str
    n_weeks: int
    n_trades: int
    predicted_r: float
    realised_r: float
    effect_r: float


def totals_by_override(results: Sequence[WeekResult]) -> list[OverrideTotal]:
    """Each lesson's overrides over all weeks, those that hurt most first.

    Without those that no trade met.
    """
    n_all = sum(r.n_trades for r in results)
    by_lesson: dict[str, list[tuple[int, OverrideResult]]] = {}
    for result in results:
        for x in result.overrides:
            if x.n_trades:
                by_lesson.setdefault(x.lesson_id, []).append((result.n_trades, x))
    totals = [_override_total(name, rows, n_all) for name, rows in by_lesson.items()]
    return sorted(totals, key=lambda x: (x.effect_r, x.lesson_id))


def _override_total(
    name: str, rows: Sequence[tuple[int, OverrideResult]], n_all: int
) -> OverrideTotal:
    n = sum(x.n_trades for _, x in rows)
    return OverrideTotal(
        name,
        len(rows),
        n,
        sum(x.predicted_r * x.n_trades for _, x in rows) / n,
        sum((x.realised_r or 0.0) * x.n_trades for _, x in rows) / n,
        sum(x.effect_r * n_week for n_week, x in rows) / n_all,
    )


def _opened_in(events: EventTable, week: datetime, evaluated_at: datetime) -> EventTable:
    opened = np.where(np.isnat(events.opened_at), events.closed_at, events.opened_at)
    start, end = instant(week), instant(week + WEEK)
    return events.where(
        (opened >= start) & (opened < end) & (events.closed_at < instant(evaluated_at))
    )


# --- with and without ------------------------------------------------------------------------


def _difference_of(
    trades: EventTable, size: Floats, config: LearningConfig, week: datetime
) -> Difference:
    _, day = np.unique(trades.day, return_inverse=True)
    columns = (np.ones_like(size), trades.rr, size, size * trades.rr)
    blocks: Floats = np.column_stack([np.bincount(day, weights=c) for c in columns]).astype(float)
    return _difference(blocks, np.random.default_rng([config.seed, week.toordinal()]))


def _difference(blocks: Floats, rng: np.random.Generator) -> Difference:
    """From blocks × (trades, Σ rr, Σ size, Σ size·rr)."""
    total = blocks.sum(axis=0)
    if total[0] == 0:
        return Difference(0, None, None, None, None, None, None)
    low = high = None
    if len(blocks) >= _FEWEST_BLOCKS:
        draws = rng.integers(0, len(blocks), (_DRAWS, len(blocks)))
        low, high = np.quantile(_gained(blocks[draws].sum(axis=1)), _INTERVAL).tolist()
    return Difference(
        int(total[0]),
        float(total[1] / total[0]),
        float(total[3] / total[2]),
        float(_gained(total[None])[0]),
        low,
        high,
        float(total[2] / total[0]),
    )


def _gained(sums: Floats) -> Floats:
    gained: Floats = sums[:, 3] / sums[:, 2] - sums[:, 1] / sums[:, 0]
    return gained


# --- predicted and realised ------------------------------------------------------------------


def module_results(replay: Replay, trades: EventTable) -> Mapping[str, ModuleResult]:
    """What the gain is learned from: predicted edges of pm entries and dm allocations."""
    predicted = {m: predicted_edges(replay.content.overrides, trades, m) for m in SIZING}
    return {
        module: ModuleResult(
            replay.gains[module],
            int((x != 0).sum()),
            tuple(_day_sums(trades, x, predicted[_OTHER[module]])),
        )
        for module, x in predicted.items()
    }


def predicted_edges(overrides: Sequence[Override], trades: EventTable, module: str) -> Floats:
    """Predicted edge of each trade before gain (length T, R, within ±2): 0 where none matches.

    The adjusted edges that match an action are added, with those of other patterns that fired in
    the same trade and category; a trade has the mean of its entries (pm) or allocations (dm).
    """
    edge = np.zeros(trades.n_events)
    for o in overrides:
        if o.group.module == module:
            edge[matching_actions(o, trades)] += o.adjusted_edge_r
    edge = with_other_patterns(edge, trades)
    edge = np.clip(edge, -MOST_PREDICTED_R, MOST_PREDICTED_R)
    return mean_by_trade(edge, sizing_actions(trades, module, _PREDICTED[module]), trades, 0.0)


def _day_sums(trades: EventTable, x: Floats, z: Floats) -> Iterator[DaySums]:
    """Sums within the week, as a market that moves as a whole says nothing about the edges."""
    days, day = np.unique(trades.day, return_inverse=True)
    if len(days) == 0:
        return
    has = np.bincount(day, weights=x != 0)
    x, y, z = (v - v.mean() for v in (x, trades.rr, z))
    sums = [np.bincount(day, weights=w).tolist() for w in (x * x, x * y, x * z)]
    for d, n, *numbers in zip(days.tolist(), has.tolist(), *sums, strict=True):
        yield DaySums(date.fromordinal(_EPOCH + d), int(n), *numbers)


_EPOCH = date(1970, 1, 1).toordinal()


def _matched(override: Override, trades: EventTable) -> NDArray[np.bool_]:
    matched = np.zeros(trades.n_trades, dtype=bool)
    matched[trades.trade[matching_actions(override, trades)]] = True
    return matched


def _override_result(
    override: Override, matched: NDArray[np.bool_], trades: EventTable
) -> OverrideResult:
    key, n = override.group, int(matched.sum())
    of_category = sizing_actions(trades, key.module, (key.action_category,))
    edge = trades.rr - trades.rr[np.unique(trades.trade[of_category])].mean() if n else trades.rr
    return OverrideResult(
        override.lesson_id,
        key.module,
        override.multiplier,
        override.adjusted_edge_r,
        n,
        float(edge[matched].mean()) if n else None,
        float((override.multiplier - 1.0) * edge[matched].sum() / max(trades.n_trades, 1)),
    )
