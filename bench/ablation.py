"""What each meta-learner is worth: with it and without, where its effect is and where it is not.

A market is learned once, then judged with all learners and with each switched off, against the true
edges of the trades that follow. Kinds of markets: `lasting` and `wearing` effects; the `echo`es, in
which a share of the entries fires a second pattern (one cause, learned twice); `own trades`, two
patterns that never meet; and the worlds of `regime_weights`. The gain is judged in the markets of
`walk_forward`, against a gain that stays at its prior and one that is always 1. All differences
are paired by seed; intervals are Student's, 90 %.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np
import pandas as pd
import regime_weights
import walk_forward
from honesty import measured_on, seeds_of
from numpy.typing import NDArray
from scipy import stats

from learning_assets.core.adjust import AdjustedEdge, MetaResults, adjusted_edges
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame, instant
from learning_assets.core.gain import MODULES, ModuleGain, gains_of
from learning_assets.core.judge import total_of
from learning_assets.core.learn import learn_module
from learning_assets.core.membership import trades_of
from learning_assets.core.meta import meta_results
from learning_assets.core.records import Lesson
from learning_assets.core.replay import judge_all, learned_before, past_weeks, published
from learning_assets.core.walkforward import Replay, WeekResult
from learning_assets.sources.demo import MarketSettings, simulate

Floats = NDArray[np.float64]
R = TypeVar("R")

CONFIG = LearningConfig(rotations=99)
LEARN_DAYS, TEST_DAYS = 180, 28
ECHO = "pm.echo.S1.x"
ECHOES = {"echo": 1.0, "echo of 75 %": 0.75, "echo of 40 %": 0.4}
"""Share of the entries that fire the second pattern; under 0.6 it is not the same trades."""

WORLDS = {f"regime: {kind}": kind for kind in regime_weights.KINDS}
SIMULATED = ("lasting", "wearing", *ECHOES, "own trades")
MARKETS = (*SIMULATED, *WORLDS)
ALL_OF_THEM = "all of them"
ALONE = MarketSettings(
    n_trades=7000,
    span_days=LEARN_DAYS + TEST_DAYS,
    n_dims=10,
    n_regime_dims=3,
    share_regime=0.0,
    n_patterns=1,
    categories=("entry",),
    allocation_share=0.0,
    n_dm_effects=0,
    share_decaying=0.0,
    min_support=200,
)
Without = Callable[[MetaResults], MetaResults]


@dataclass(frozen=True, slots=True)
class Learner:
    """A meta-learner: the results without it, the markets with its effect, those that are judged
    as having none of it; in all others its effect may be there by the way.
    """

    without: Without
    planted: tuple[str, ...]
    absent: tuple[str, ...]


LEARNERS: Mapping[str, Learner] = {
    "half_lives": Learner(
        lambda meta: replace(meta, half_lives=None),
        ("wearing",),
        ("lasting", "own trades"),
    ),
    "factors": Learner(
        lambda meta: replace(meta, factors=None),
        tuple(ECHOES),
        ("lasting", "wearing", "own trades"),
    ),
    "weights": Learner(
        lambda meta: replace(meta, weights=None),
        tuple(name for name, kind in WORLDS.items() if kind in regime_weights.MULTIPLIERS),
        ("lasting", "wearing", "own trades", "regime: nothing", "regime: trending"),
    ),
}
"""All but the gain, which is no part of the meta-results."""


# --- half-lives, factors and weights ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """Overrides against the truth of the trades that follow.

    `squared_error` of the predicted edges (both without their mean; R² / 1000),
    `calibration_slope` of the true edge on them (None for a constant prediction).
    """

    squared_error: float
    calibration_slope: float | None
    overrides: int


@dataclass(frozen=True, slots=True)
class Row:
    """One market: with all learners, and without the one that is asked about."""

    learner: str
    market: str
    planted: bool
    seed: int
    on: Judged
    off: Judged


@dataclass(frozen=True, slots=True)
class Learned:
    """What was learned of a market, and the trades that follow with their true edges (R)."""

    lessons: Sequence[Lesson]
    events: EventTable
    meta: MetaResults
    as_of: datetime
    config: LearningConfig
    after: EventTable
    true_r: Floats


def rows_of(market: str, seed: int) -> Iterator[Row]:
    """A row for each learner that is judged in such a market."""
    asked = {name: x for name, x in LEARNERS.items() if market in (*x.planted, *x.absent)}
    learned = learn(market, seed)
    on = judged(learned, learned.meta)
    for name, learner in asked.items():
        off = judged(learned, learner.without(learned.meta))
        yield Row(name, market, market in learner.planted, seed, on, off)


def learn(market: str, seed: int) -> Learned:
    """Simulate and learn a market of that kind."""
    if market in WORLDS:
        return _learn_world(regime_weights.World(seed, WORLDS[market]))
    changes = {
        "wearing": {"share_decaying": 1.0},
        "own trades": {"n_patterns": 2, "min_support": 100},
    }
    settings = replace(ALONE, seed=seed, **changes.get(market, {}))  # type: ignore[arg-type]
    return _learn_simulated(settings, ECHOES.get(market, 0.0))


def _learn_simulated(settings: MarketSettings, echo: float) -> Learned:
    market = simulate(settings)
    events = from_frame(with_echo(market.frame(), echo, settings.seed))
    as_of = settings.start + timedelta(days=LEARN_DAYS)
    known = events.window(as_of, CONFIG.look_back_days)
    after = events.window(settings.end, TEST_DAYS)
    expected = np.array([market.truth.expected_rr[t] for t in after.trade_ids])
    lessons = learn_module(known, "pm", CONFIG, as_of).lessons
    meta = meta_results(lessons, known, CONFIG, as_of)
    return Learned(lessons, known, meta, as_of, CONFIG, after, expected - market.truth.base_rr)


def with_echo(frame: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """That share of the entries fires a second pattern in the same scope: one cause, twice."""
    fires = np.random.default_rng([seed, 3]).random(len(frame)) < share
    echo = frame[fires].assign(pattern_key=ECHO, event_id=frame["event_id"][fires] + "-echo")
    return pd.concat([frame, echo], ignore_index=True)


def _learn_world(world: regime_weights.World) -> Learned:
    found, as_of, config = regime_weights.learn(world), regime_weights.AS_OF, regime_weights.CONFIG
    meta = meta_results(found.active, found.events, config, as_of)
    meta = replace(meta, regime=regime_weights.IN_FORCE)
    return Learned(
        found.active, found.events, meta, as_of, config, found.held_out, found.held_out_true_r
    )


def judged(learned: Learned, meta: MetaResults) -> Judged:
    """What would be published with these meta-results, compared with the truth."""
    config = learned.config
    edges = adjusted_edges(learned.lessons, learned.events, config, learned.as_of, meta)
    used = [edge for edge in edges if edge.why_withheld(config.min_edge_r) is None]
    x, y = predicted(used, learned.after), learned.true_r
    x, y = x - x.mean(), y - y.mean()
    return Judged(
        1000 * float(np.square(y - x).mean()),
        float(x @ y / (x @ x)) if np.ptp(x) > 0 else None,
        len(used),
    )


def predicted(edges: Sequence[AdjustedEdge], after: EventTable) -> Floats:
    """Sum of the adjusted edges (R) that match a trade."""
    total = np.zeros(after.n_trades)
    trades_by_edge = trades_of(after, [edge.lesson for edge in edges])
    for edge, trades in zip(edges, trades_by_edge, strict=True):
        total[trades] += edge.adjusted_edge_r
    return total


# --- the gain --------------------------------------------------------------------------------

WALK_CONFIG = LearningConfig(rotations=39, max_scope_dims=2)
WALKED = replace(
    walk_forward.MARKET, n_patterns=1, categories=("entry",), allocation_share=0.0, n_dm_effects=0
)
FIRST_WEEK = 8
"""Earlier weeks have seen too few trades to publish anything."""

CHURN = "churn"
CHURN_WEEKS = 10
"""After so many weeks all effects change sign, again and again: what was learned is soon wrong."""

GAIN_MARKETS = ("stable", "shuffled", "flip", CHURN)
"""In the first trust pays, in the others it does not."""

Gains = Mapping[str, ModuleGain]


@dataclass(frozen=True, slots=True)
class Worth:
    """What a gain is worth over all weeks, less without overrides.

    `mean_rr` in R per unit of size. It grows with the gain wherever edges are right on the whole,
    so beside it `squared_error` of gain times predicted edge (R² / 1000 per trade), which is
    least where the gain is what the edges come true by.
    """

    mean_rr: float
    squared_error: float


@dataclass(frozen=True, slots=True)
class GainRow:
    """One market walked forward: with the gain as learned, with its prior, and always 1.

    `gain` is the learned one at the start of the last week.
    """

    market: str
    seed: int
    gain: float
    learned: Worth
    prior: Worth
    full: Worth


def gain_row(market: str, seed: int) -> GainRow:
    """Learn every week once, publish it with the three gains, judge all weeks."""
    events, end = _churning(seed) if market == CHURN else _walked(market, seed)
    weeks = past_weeks(events, end)[FIRST_WEEK:]
    learned = [learned_before(events, week, WALK_CONFIG) for week in weeks]
    earned: list[Replay] = []
    for week in learned:
        earned.append(published(week, WALK_CONFIG, _gains_of(earned, events, week.week)))
    prior, full = (
        [published(week, WALK_CONFIG, _constant(value, week.week)) for week in learned]
        for value in (WALK_CONFIG.prior_gain, 1.0)
    )
    worth = (_worth(judge_all(r, events, end, WALK_CONFIG)) for r in (earned, prior, full))
    return GainRow(market, seed, earned[-1].gains["pm"], *worth)


def _worth(results: Sequence[WeekResult]) -> Worth:
    total = total_of(results, WALK_CONFIG)
    error = sum(
        module.gain**2 * day.xx - 2 * module.gain * day.xy
        for module in (result.modules["pm"] for result in results)
        for day in module.days
    )
    return Worth(total.difference or 0.0, 1000 * error / max(total.n_trades, 1))


def _walked(market: str, seed: int) -> tuple[EventTable, datetime]:
    simulated, events = walk_forward.market_of(market, seed, WALKED)
    return events, simulated.settings.end


def _churning(seed: int) -> tuple[EventTable, datetime]:
    """A market whose effects change sign every ten weeks."""
    market = simulate(replace(WALKED, seed=seed))
    events = from_frame(market.frame())
    effect = np.array([market.truth.expected_rr[t] for t in events.trade_ids])
    effect -= market.truth.base_rr
    week = (events.closed_at - instant(WALKED.start)) // np.timedelta64(7, "D")
    turned = week // CHURN_WEEKS % 2 == 1
    return events.with_rr(np.where(turned, events.rr - 2 * effect, events.rr)), WALKED.end


def _gains_of(earlier: Sequence[Replay], events: EventTable, week: datetime) -> Gains:
    return gains_of(judge_all(earlier, events, week, WALK_CONFIG), WALK_CONFIG, week)


def _constant(value: float, as_of: datetime) -> Gains:
    return {m: ModuleGain(m, as_of, value, None, None, 0, 0) for m in MODULES}


# --- summaries -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paired:
    """Mean of differences (with less without) and its 90 % interval over `n` markets.

    The interval is None with fewer than two.
    """

    n: int
    mean: float
    low: float | None
    high: float | None


def paired(differences: Sequence[float]) -> Paired:
    """Student's interval; a mean of 0 where there is nothing to compare."""
    n, mean = len(differences), statistics.fmean([*differences] or [0.0])
    if n < 2:
        return Paired(n, mean, None, None)
    half = float(stats.t.ppf(0.95, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Paired(n, mean, mean - half, mean + half)


def summary_of(rows: Sequence[Row]) -> list[dict[str, object]]:
    """A line for each learner and kind of market, and for all with its effect, and all without.

    Of `squared_error` (R² / 1000) and `off_by`, the distance of the calibration slope from 1, the
    differences with less without are given: below 0 the learner helps.
    """
    lines: list[dict[str, object]] = []
    for learner in dict.fromkeys(row.learner for row in rows):
        for planted in (True, False):
            mine = [r for r in rows if (r.learner, r.planted) == (learner, planted)]
            markets = dict.fromkeys(row.market for row in mine)
            lines += [_line(m, [row for row in mine if row.market == m]) for m in markets]
            if mine:
                lines.append(_line(ALL_OF_THEM, mine))
    return lines


def _line(market: str, rows: Sequence[Row]) -> dict[str, object]:
    both = [(row.on, row.off) for row in rows]
    slopes = [
        (on.calibration_slope, off.calibration_slope)
        for on, off in both
        if on.calibration_slope is not None and off.calibration_slope is not None
    ]
    return {
        "learner": rows[0].learner,
        "market": market,
        "planted": rows[0].planted,
        "overrides": statistics.median(on.overrides for on, _ in both),
        "squared_error_on": statistics.fmean(on.squared_error for on, _ in both),
        "squared_error_off": statistics.fmean(off.squared_error for _, off in both),
        "slope_on": statistics.median([on for on, _ in slopes] or [0.0]),
        "slope_off": statistics.median([off for _, off in slopes] or [0.0]),
        "changed": sum(on != off for on, off in both),
        "squared_error": asdict(paired([a.squared_error - b.squared_error for a, b in both])),
        "off_by": asdict(paired([abs(a - 1) - abs(b - 1) for a, b in slopes])),
    }


def gain_summary(rows: Sequence[GainRow]) -> list[dict[str, object]]:
    """A line for each kind of market: what each gain is worth, and the differences."""
    return [
        _gain_line([row for row in rows if row.market == market])
        for market in dict.fromkeys(row.market for row in rows)
    ]


def _gain_line(rows: Sequence[GainRow]) -> dict[str, object]:
    line: dict[str, object] = {
        "learner": "gain",
        "market": rows[0].market,
        "planted": rows[0].market == "stable",
        "gain": statistics.median(row.gain for row in rows),
    }
    for figure in ("squared_error", "mean_rr"):
        learned, prior, full = (
            [getattr(getattr(row, name), figure) for row in rows]
            for name in ("learned", "prior", "full")
        )
        line[figure] = {
            "learned": statistics.fmean(learned),
            "prior": statistics.fmean(prior),
            "full": statistics.fmean(full),
            "less_prior": asdict(paired(np.subtract(learned, prior).tolist())),
            "less_full": asdict(paired(np.subtract(learned, full).tolist())),
        }
    return line


def measured(
    markets: Sequence[str], gain_markets: Sequence[str], seeds: Sequence[int]
) -> dict[str, list[dict[str, object]]]:
    """All rows and their summary, as they go into a document."""
    rows = [row for market in markets for seed in seeds for row in _told(rows_of(market, seed))]
    gains = [row for m in gain_markets for seed in seeds for row in _told([gain_row(m, seed)])]
    return {
        "summary": [*summary_of(rows), *gain_summary(gains)],
        "rows": [*map(asdict, rows), *map(asdict, gains)],
    }


def _told(rows: Iterable[R]) -> Iterator[R]:
    for row in rows:
        print(row, file=sys.stderr, flush=True)
        yield row


def main() -> None:
    """Run the chosen markets and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("831-840"), help="A-B")
    parser.add_argument("--markets", nargs="*", default=MARKETS, choices=MARKETS, metavar="KIND")
    parser.add_argument("--gain", nargs="*", default=GAIN_MARKETS, choices=GAIN_MARKETS)
    parser.add_argument("--json", action="store_true", help="with a row for each market")
    args = parser.parse_args()
    found = measured(args.markets, args.gain, args.seeds)
    document = {**measured_on(), **found}
    shown = document if args.json else document["summary"]
    print(json.dumps(shown, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
