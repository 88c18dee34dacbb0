"""Ours against peers, out of sample, on simulated markets with known truth.

A market has 6,000 trades of one pattern to learn from (180 days), 6,000 to test on (the next
180), 28 dimensions and 8 lasting effects; its noise is `light` (normal, independent) or `bursty`
(skewed, with a daily shock). `--parts` adds what the meta-learners know and what each is worth
(`meta_learners`); whether anything is found where nothing is, is measured in `honesty`.

Figures of a method, on the test trades; "true edge" is a trade's expected rr minus the base:
- correlation of the prediction with the true edge; None where the prediction is constant
- calibration_slope: slope of the true edge on the prediction (1 is right, less is overstated)
- realised_slope: the same slope of what was really earned
- mean_rr: R per unit of size
- information_ratio: per year, of the daily result with sizes (scaled to the same total size)
  minus the daily result without
- overrides, and how many of them have a true edge under 0.05 R or of the other sign
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

import numpy as np
from honesty import CONFIG, NULL_R, found, measured_on, published, scopes_of, seeds_of
from meta_learners import PARTS
from numpy.typing import NDArray
from peers import (
    Learned,
    Slices,
    lasso,
    replaced,
    slices_of,
    trees,
    true_edges,
    without_slices,
)

from learning_assets.core.dayshock import DayShock, whiten
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.learn import learn_module
from learning_assets.core.mining import Group, group_of
from learning_assets.core.overrides import trade_sizes
from learning_assets.core.records import Override
from learning_assets.core.scope import ScopeSubset, signature
from learning_assets.sources.demo import Market, MarketSettings, simulate

Floats = NDArray[np.float64]

LOOK_BACK_DAYS = 180
DAYS_PER_YEAR = 365
CLEAR_Z = 7.0
"""An effect of this oracle z should be found to the letter."""
NEAR = 0.02
"""A correlation that is lower by no more than this counts as not below."""
NOISES = ("light", "bursty")


@dataclass(frozen=True, slots=True)
class Problem:
    """A market split at as_of: a group to learn from, the same group later, and the truth (R)."""

    market: Market
    as_of: datetime
    learn: Group
    test: Group
    learn_events: EventTable
    test_events: EventTable
    learn_true_r: Floats
    test_true_r: Floats


@dataclass(frozen=True, slots=True)
class Measured:
    """What a method is worth on the test trades; see the head of the module."""

    correlation: float | None
    calibration_slope: float | None
    realised_slope: float | None
    mean_rr: float
    information_ratio: float
    overrides: int
    null_or_wrong: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Effect:
    """A planted effect: the z of an oracle that knows all others, and whether ours names it."""

    scope_subset: str
    effect_r: float
    n_learn: int
    oracle_z: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One market: every method on it, and every planted effect."""

    seed: int
    noise: str
    n_learn: int
    n_test: int
    methods: dict[str, Measured]
    effects: tuple[Effect, ...]


def settings_of(seed: int, noise: str, n_trades: int = 12_000) -> MarketSettings:
    """One pattern, entries only, lasting effects; half of the span is to learn from."""
    return MarketSettings(
        seed=seed,
        n_trades=n_trades,
        span_days=2 * LOOK_BACK_DAYS,
        noise="light" if noise == "light" else "bursty",
        n_patterns=1,
        categories=("entry",),
        allocation_share=0.0,
        n_dm_effects=0,
        share_decaying=0.0,
        min_support=n_trades // 40,
    )


def problem_of(settings: MarketSettings) -> Problem:
    """The market of the settings, split in its middle."""
    market = simulate(settings)
    events = from_frame(market.frame())
    as_of = settings.start + timedelta(days=settings.span_days / 2)
    before, after = (events.window(at, LOOK_BACK_DAYS) for at in (as_of, settings.end))
    [key] = before.groups
    return Problem(
        market,
        as_of,
        group_of(before, key),
        group_of(after, key),
        before,
        after,
        true_r(market, before),
        true_r(market, after),
    )


def true_r(market: Market, events: EventTable) -> Floats:
    """True edge (R) of every trade."""
    expected = market.truth.expected_rr
    return np.array([expected[t] for t in events.trade_ids]) - market.truth.base_rr


# --- the methods -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ours:
    """The overrides that the main job would publish, and all scopes that mean their trades."""

    overrides: tuple[Override, ...]
    scopes: Mapping[str, set[ScopeSubset]]


def ours(problem: Problem) -> Ours:
    """Learn as the main job does, half-lives and factors included."""
    events, as_of = problem.learn_events, problem.as_of
    lessons = learn_module(events, "pm", CONFIG, as_of).lessons
    return Ours(published(lessons, events, as_of), scopes_of(lessons))


def _of_ours(problem: Problem, made: Ours, seconds: float) -> Measured:
    edges = np.array([o.adjusted_edge_r for o in made.overrides])
    inside = [problem.learn.members(o.scope_subset) for o in made.overrides]
    prediction = predicted(made.overrides, problem.test_events)
    sizes = trade_sizes(made.overrides, problem.test_events)
    true = np.array([_contrast(problem.learn_true_r, mask) for mask in inside])
    return measure(problem, prediction, sizes, edges, true, seconds)


def predicted(overrides: Sequence[Override], events: EventTable) -> Floats:
    """Sum of the adjusted edges (R) of the overrides that match a trade's actions."""
    total = np.zeros(events.n_trades)
    for override in overrides:
        group = group_of(events, override.group)
        total[group.trades[group.members(override.scope_subset)]] += override.adjusted_edge_r
    return total


def _contrast(y: Floats, inside: NDArray[np.bool_]) -> float:
    return float(y[inside].mean() - y[~inside].mean()) if not inside.all() else math.nan


def _of_peer(
    problem: Problem, slices: Slices, peer: Callable[[Slices, Group], Learned]
) -> Measured:
    begin = time.perf_counter()
    made = peer(slices, problem.test)
    seconds = time.perf_counter() - begin
    true = true_edges(slices, problem.learn_true_r)[made.slices]
    return measure(problem, made.prediction, made.sizes, made.edge, true, seconds)


def no_overrides(slices: Slices, test: Group) -> Learned:
    """Every trade at its usual size."""
    return without_slices(np.zeros(test.n_trades))


METHODS: Mapping[str, Callable[[Slices, Group], Learned]] = {
    "no_overrides": no_overrides,
    "replaced": replaced,
    "trees": trees,
    "lasso": lasso,
}


def measure(
    problem: Problem, prediction: Floats, sizes: Floats, edges: Floats, true: Floats, seconds: float
) -> Measured:
    """The figures of a method from what it says of the test trades and of its slices."""
    rr, truth = problem.test_events.rr, problem.test_true_r
    known = bool(np.ptp(prediction) > 0 and np.ptp(truth) > 0)
    wrong = ~(np.abs(true) >= NULL_R) | (true * edges < 0)
    return Measured(
        float(np.corrcoef(prediction, truth)[0, 1]) if known else None,
        slope(truth, prediction) if known else None,
        slope(rr, prediction) if known else None,
        float(sizes @ rr / sizes.sum()),
        information_ratio(sizes, rr, problem.test_events.day),
        len(edges),
        int(wrong.sum()),
        seconds,
    )


def slope(y: Floats, x: Floats) -> float:
    """Least-squares slope of y on x, with an intercept."""
    centred = x - x.mean()
    return float(centred @ y / (centred @ centred))


def information_ratio(sizes: Floats, rr: Floats, day: NDArray[np.int64]) -> float:
    """Per year, of the daily result with sizes over that without, both of the same total size.

    0 where the two never differ.
    """
    active = np.bincount(day - day.min(), weights=(sizes / sizes.mean() - 1.0) * rr)
    spread = float(active.std())
    return float(active.mean()) / spread * math.sqrt(DAYS_PER_YEAR) if spread > 0 else 0.0


# --- the oracle ------------------------------------------------------------------------------


def oracle_z(problem: Problem) -> Floats:
    """z of each planted effect where all others and the covariance of the noise are known.

    The true effect over its standard error in generalised least squares on the trades to learn
    from; 0 where the effect has none of them, or all.
    """
    settings, effects = problem.market.settings, problem.market.truth.effects
    share = settings.day_share if settings.noise == "bursty" else 0.0
    variance = settings.noise_sd**2
    shock = DayShock((1 - share) * variance, share * variance, settings.day_autocorrelation)
    X = np.column_stack([problem.learn.members(e.scope_subset) for e in effects]).astype(float)
    covariance = np.linalg.pinv(X.T @ whiten(problem.learn.day, shock).centre(X), hermitian=True)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    size = np.array([abs(e.e0) for e in effects])
    z: Floats = np.divide(size, spread, out=np.zeros_like(size), where=spread > 0)
    return z


def _effects(problem: Problem, made: Ours) -> tuple[Effect, ...]:
    planted = problem.market.truth.effects
    return tuple(
        Effect(
            signature(effect.scope_subset),
            effect.e0,
            int(problem.learn.members(effect.scope_subset).sum()),
            float(z),
            found(effect, made.overrides, made.scopes),
        )
        for effect, z in zip(planted, oracle_z(problem), strict=True)
    )


# --- rows and their summary ------------------------------------------------------------------


def row_of(settings: MarketSettings, methods: Sequence[str] = tuple(METHODS)) -> Row:
    """Ours and the chosen peers on one market."""
    problem = problem_of(settings)
    begin = time.perf_counter()
    made = ours(problem)
    figures = {"ours": _of_ours(problem, made, time.perf_counter() - begin)}
    slices = slices_of(problem.learn, problem.learn_events.rr)
    figures |= {name: _of_peer(problem, slices, METHODS[name]) for name in methods}
    n = problem.learn.n_trades, problem.test.n_trades
    return Row(settings.seed, settings.noise, *n, figures, _effects(problem, made))


@dataclass(frozen=True, slots=True)
class Summary:
    """Over all rows; shares 0–1.

    `wins_over_…` are shares of rows in which our correlation is higher (a prediction that is
    constant has correlation 0), `near_gbm` that in which it is not below trees by more than 0.02;
    None for a peer that did not run.
    `exact_share` is of the effects with an oracle z of at least 7, `exact_share_of_all` of all,
    beside the oracle's own share `clear_share`.
    """

    rows: int
    wins_over_gbm: float | None
    near_gbm: float | None
    wins_over_replaced: float | None
    wins_over_lasso: float | None
    null_or_wrong_share: float
    exact_share: float
    exact_share_of_all: float
    clear_share: float
    calibration_slope_median: float
    overrides_per_planted: float
    methods: dict[str, dict[str, float]]


def summary_of(rows: Sequence[Row]) -> Summary:
    """The figures that the targets are about."""
    effects = [e for row in rows for e in row.effects]
    clear = [e for e in effects if e.oracle_z >= CLEAR_Z]
    mine = [row.methods["ours"] for row in rows]
    slopes = [m.calibration_slope for m in mine if m.calibration_slope is not None]
    count = sum(m.overrides for m in mine)
    return Summary(
        len(rows),
        _ahead(rows, "trees"),
        _ahead(rows, "trees", by=-NEAR),
        _ahead(rows, "replaced"),
        _ahead(rows, "lasso"),
        sum(m.null_or_wrong for m in mine) / max(count, 1),
        _share(e.exact for e in clear),
        _share(e.exact for e in effects),
        len(clear) / max(len(effects), 1),
        statistics.median(slopes or [0.0]),
        count / max(len(effects), 1),
        {name: _medians([row.methods[name] for row in rows]) for name in rows[0].methods},
    )


def _ahead(rows: Sequence[Row], peer: str, by: float = 0.0) -> float | None:
    """Share of rows in which our correlation is ahead by more; None where the peer did not run."""
    leads = [
        (row.methods["ours"].correlation or 0.0) - (row.methods[peer].correlation or 0.0)
        for row in rows
        if peer in row.methods
    ]
    return _share(lead > by for lead in leads) if leads else None


def _share(flags: Iterable[bool]) -> float:
    return statistics.fmean([*map(float, flags)] or [0.0])


def _medians(figures: Sequence[Measured]) -> dict[str, float]:
    """Median of each figure; null_or_wrong as the share of all overrides."""
    medians = {
        name: statistics.median([getattr(m, name) or 0.0 for m in figures])
        for name in Measured.__slots__
        if name != "null_or_wrong"
    }
    wrong = sum(m.null_or_wrong for m in figures) / max(sum(m.overrides for m in figures), 1)
    return {**medians, "null_or_wrong_share": wrong}


def main() -> None:
    """Run the markets and the chosen parts, and print a summary or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-2"), help="A-B, markets")
    parser.add_argument("--noises", nargs="*", default=NOISES, choices=NOISES)
    parser.add_argument("--peers", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--parts", nargs="*", default=[], choices=list(PARTS), help="and these")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = list(_rows(args.seeds, args.noises, args.peers))
    by_noise = {noise: [row for row in rows if row.noise == noise] for noise in args.noises}
    document = {
        **measured_on(),
        "summary": asdict(summary_of(rows)),
        "by_noise": {noise: asdict(summary_of(part)) for noise, part in by_noise.items()},
        "parts": {name: PARTS[name](args.seeds) for name in args.parts},
        "rows": [asdict(row) for row in rows],
    }
    shown = document if args.json else {k: v for k, v in document.items() if k != "rows"}
    print(json.dumps(shown, indent=2, allow_nan=False))


def _rows(seeds: Sequence[int], noises: Sequence[str], peers: Sequence[str]) -> Iterator[Row]:
    for seed in seeds:
        for noise in noises:
            row = row_of(settings_of(seed, noise), peers)
            print(_line(row), file=sys.stderr, flush=True)
            yield row


def _line(row: Row) -> str:
    cells = [
        f"{name} {m.correlation or 0:.3f} ({m.overrides}, {m.null_or_wrong}, {m.seconds:.0f} s)"
        for name, m in row.methods.items()
    ]
    clear = [e for e in row.effects if e.oracle_z >= CLEAR_Z]
    slope_of_ours = row.methods["ours"].calibration_slope or 0.0
    return (
        f"{row.seed} {row.noise}: {', '.join(cells)}; slope {slope_of_ours:.3f}, exact "
        f"{sum(e.exact for e in clear)}/{len(clear)} clear, "
        f"{sum(e.exact for e in row.effects)}/{len(row.effects)}"
    )


if __name__ == "__main__":
    main()
