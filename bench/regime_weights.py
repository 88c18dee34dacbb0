"""Are regime weights right where a multiplier matters in a regime, and 1 where none does?

Worlds of 40 planted edges in four patterns. In one state of the first regime dimension the size of
each edge goes with (or against) one property of its slice: the speed of payback (time), how many
segments agree (field), how much it grew lately (recurrence), how little its outcomes vary
(variance); in the other states, and in the worlds `nothing` and `trending`, with none. The edges
are mined, the weights learned, and both are tried on trades that follow in that state, with and
without the weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from honesty import measured_on, seeds_of
from numpy.typing import NDArray

from learning_assets.core.adjust import (
    MeasuredFactors,
    MeasuredWeights,
    MetaResults,
    adjusted_edges,
)
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import ABSENT, EventTable
from learning_assets.core.factors import latent_factors
from learning_assets.core.learn import learn_module
from learning_assets.core.membership import trades_of
from learning_assets.core.records import GroupKey, Lesson, LessonStatus
from learning_assets.core.regime_weights import (
    EVERY,
    by_multiplier,
    learn_regime_weights,
    weights_in_force,
)
from learning_assets.core.regimes import Regime

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONFIG = LearningConfig(rotations=39, max_scope_dims=1)
START = datetime(2026, 1, 5, tzinfo=UTC)
DAYS, HELD_OUT_DAYS = 180, 60
MULTIPLIERS = ("time", "field", "recurrence", "variance")
KINDS = ("nothing", *MULTIPLIERS, "trending")
PATTERNS, SLOTS = 4, 10
WITHOUT_EDGE = 0.5
"""Share of the trades that are in none of the slots."""
SEGMENTS = (("timeframe", ("15m", "1h", "4h")), ("mcap_bucket", ("micro", "mid")))
STATES = (("btc_macro", 3, 10.0), ("alt_macro", 2, 8.0), ("bucket_macro", 2, 6.0))
MATTERS_IN = 1
AS_OF = START + timedelta(days=DAYS)
STATE = f"{STATES[0][0]}=S{MATTERS_IN}"
IN_FORCE = Regime(f"{STATE}|alt_macro=S0|bucket_macro=S0", AS_OF, "the bench")
STRENGTH = 0.8
NEAR_ONE = (0.9, 1.1)
RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class World:
    """What is planted: in state S1 edges are multiplied by 1 + strength · property, −1 … 1.

    `kind` is the multiplier that matters there, `nothing`, or `trending` for edges that grow or
    fade over time and do not depend on the regime.
    """

    seed: int
    kind: str
    n_trades: int = 32_000
    n_held_out: int = 24_000

    @property
    def matters(self) -> str | None:
        """The multiplier that matters in the state; None in a world without."""
        return self.kind if self.kind in MULTIPLIERS else None

    @property
    def strength(self) -> float:
        """Positive in even seeds, negative in odd ones, 0 where nothing matters."""
        return 0.0 if self.matters is None else STRENGTH * (1 if self.seed % 2 == 0 else -1)


@dataclass(frozen=True, slots=True)
class Row:
    """One world: the weight in force in the state, and squared errors on the trades after it.

    `near_one` of `others` weights lie within 0.9–1.1: all weights of a null world, those of the
    other multipliers in a planted one. `difference` is the mean squared error of the adjusted
    edges with the weights minus without, in thousandths of R².
    """

    kind: str
    seed: int
    active: int
    weight: float | None
    is_right: bool | None
    near_one: int
    others: int
    difference: float
    seconds: float


# --- the world -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slices:
    """The planted slices, as arrays of patterns × slots: edge (R) and properties −1 … 1."""

    edge: Floats
    properties: Mapping[str, Floats]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Slices:
        """Half of the edges of each pattern negative; the last slot has none."""
        shape = (PATTERNS, SLOTS + 1)
        sign = rng.permuted(np.resize([1.0, -1.0], (PATTERNS, SLOTS + 1)), axis=1)
        edge = sign * rng.uniform(0.4, 1.0, shape)
        edge[:, SLOTS] = 0.0
        return cls(edge, {name: rng.uniform(-1, 1, shape) for name in MULTIPLIERS})


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades in closing order: pattern, slot, segment codes, regime codes and days since START."""

    days: Floats
    pattern: Ints
    slot: Ints
    segment: Ints
    states: Ints

    @classmethod
    def draw(cls, rng: np.random.Generator, n: int, first: float, last: float) -> Trades:
        """`n` trades closing between the days `first` and `last`."""
        days = np.sort(rng.uniform(first, last, n))
        return cls(
            days,
            rng.integers(0, PATTERNS, n),
            np.where(rng.random(n) < WITHOUT_EDGE, SLOTS, rng.integers(0, SLOTS, n)),
            np.array([rng.integers(0, len(values), n) for _, values in SEGMENTS]),
            np.array([_stays(rng, days, k, mean) for _, k, mean in STATES]),
        )


def _stays(rng: np.random.Generator, days: Floats, n_states: int, mean_days: float) -> Ints:
    """The state at each of the days: stays of random length, then another state."""
    ends = days[0] + np.cumsum(rng.exponential(mean_days, 4 + int(6 * np.ptp(days) / mean_days)))
    state = np.cumsum(np.concatenate([[0], rng.integers(1, n_states, len(ends))])) % n_states
    return np.asarray(state[np.searchsorted(ends, days)])


def edges_of(world: World, slices: Slices, t: Trades) -> Floats:
    """The true edge of each trade, in R."""
    at = t.pattern, t.slot
    edge = slices.edge[at] * (1 + _agreement(slices, t))
    if world.kind in ("recurrence", "trending"):
        edge = edge * (1 + _growth(slices, t))
    if world.matters is not None:
        there = t.states[0] == MATTERS_IN
        edge = edge * (1 + there * world.strength * slices.properties[world.matters][at])
    return np.asarray(edge)


def _agreement(slices: Slices, t: Trades) -> Floats:
    """How far a segment's edge is from its slice's, mean 0: some turn it round."""
    disagree = (1 - slices.properties["field"][t.pattern, t.slot]) / 2
    place = (2 * t.segment[0] + t.segment[1] + t.slot) % 6
    return np.asarray(disagree * np.array([-1.6, 1.2, -1.6, 1.2, -0.4, 1.2])[place])


def _growth(slices: Slices, t: Trades) -> Floats:
    """An edge that grew or faded over the time learned from; its mean afterwards."""
    lately = np.clip(2 * t.days / DAYS - 1, -1, 1) * (t.days < DAYS)
    return np.asarray(0.6 * slices.properties["recurrence"][t.pattern, t.slot] * lately)


def outcomes_of(rng: np.random.Generator, world: World, slices: Slices, t: Trades) -> Floats:
    """rr: edge, skewed noise of the slice's own size, and a shock that a day's trades share."""
    n = len(t.days)
    size = 1.1 - 0.5 * slices.properties["variance"][t.pattern, t.slot]
    skewed = (rng.lognormal(0.0, 0.6, n) - np.exp(0.18)) / np.sqrt(np.expm1(0.36) * np.exp(0.36))
    shock = 0.15 * rng.standard_normal(DAYS + HELD_OUT_DAYS + 1)[t.days.astype(int)]
    return np.asarray(edges_of(world, slices, t) + size * skewed + shock)


def event_table(rng: np.random.Generator, slices: Slices, t: Trades, rr: Floats) -> EventTable:
    """The trades as events of one action each."""
    n = len(rr)
    passed = (t.days * 86_400e6).astype("timedelta64[us]")
    closed = np.datetime64(START.replace(tzinfo=None), "us") + passed
    speed = slices.properties["time"][t.pattern, t.slot]
    payback = 24 * np.exp(-1.5 * speed + 0.5 * rng.standard_normal(n))
    dims = {
        "setup": (np.where(t.slot < SLOTS, t.slot, ABSENT - 1), tuple("abcdefghij")),
        **{name: (c, v) for (name, v), c in zip(SEGMENTS, t.segment, strict=True)},
        **{
            name: (c, tuple(f"S{k}" for k in range(n_states)))
            for (name, n_states, _), c in zip(STATES, t.states, strict=True)
        },
    }
    return EventTable(
        np.arange(n).astype(object), closed, closed, rr, payback, payback, np.arange(n),
        t.pattern, tuple(GroupKey("pm", f"pm.planted.S{k}.x", "entry") for k in range(PATTERNS)),
        tuple(dims), tuple(values for _, values in dims.values()),
        np.array([codes + 1 for codes, _ in dims.values()], dtype=np.int32),
    )  # fmt: skip


# --- what is learned of it -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Learned:
    """The trades of a world, what was mined in them, and the trades that follow in the state.

    `held_out_true_r` are the true edges of the latter, in R.
    """

    world: World
    events: EventTable
    held_out: EventTable
    held_out_true_r: Floats
    active: tuple[Lesson, ...]


def learn(world: World) -> Learned:
    """Simulate a world and mine its edges."""
    rng = np.random.default_rng([world.seed, KINDS.index(world.kind)])
    slices = Slices.draw(rng)
    past = Trades.draw(rng, world.n_trades, 0, DAYS)
    after = Trades.draw(rng, world.n_held_out, DAYS, DAYS + HELD_OUT_DAYS)
    after.states[0] = MATTERS_IN
    events, held_out = (
        event_table(rng, slices, t, outcomes_of(rng, world, slices, t)) for t in (past, after)
    )
    lessons = learn_module(events, "pm", CONFIG, AS_OF).lessons
    active = tuple(x for x in lessons if x.status is LessonStatus.ACTIVE)
    return Learned(world, events, held_out, edges_of(world, slices, after), active)


def judge(learned: Learned) -> Row:
    """Learn the weights and try them on the trades that follow."""
    world, active = learned.world, learned.active
    began = time.perf_counter()
    factors = latent_factors(learned.events, active)
    weights = learn_regime_weights(active, learned.events, CONFIG, AS_OF, factors)
    seconds = time.perf_counter() - began
    found = weights_in_force(weights, GroupKey("pm", EVERY, EVERY), STATE)
    assert found is not None  # every module has a row for any regime
    of_state = by_multiplier(found.four)
    weight = of_state.pop(world.matters) if world.matters else None
    every = [w for row in weights if row.n_samples for w in row.four]
    others = list(of_state.values()) if world.matters else every
    without = MetaResults(factors=MeasuredFactors(AS_OF, factors))
    with_them = replace(without, weights=MeasuredWeights(AS_OF, weights), regime=IN_FORCE)
    before, after = squared_errors(learned, without), squared_errors(learned, with_them)
    return Row(
        world.kind,
        world.seed,
        len(active),
        weight,
        None if weight is None else (weight - 1) * world.strength > 0,
        sum(NEAR_ONE[0] <= w <= NEAR_ONE[1] for w in others),
        len(others),
        1000 * float((after - before).mean()),
        seconds,
    )


def squared_errors(learned: Learned, meta: MetaResults) -> Floats:
    """(rr − baseline − the edges that match the trade)², one per held-out trade, in R²."""
    events, held_out = learned.events, learned.held_out
    edges = adjusted_edges(learned.active, events, CONFIG, AS_OF, meta)
    predicted = np.full(held_out.n_trades, events.rr.mean())
    lessons = [edge.lesson for edge in edges]
    for edge, trades in zip(edges, trades_of(held_out, lessons), strict=True):
        predicted[trades] += edge.adjusted_edge_r
    return np.asarray((held_out.rr - predicted) ** 2)


def summary_of(rows: Sequence[Row]) -> dict[str, object]:
    """The figures of one kind of world, the interval of the difference by bootstrap over worlds."""
    rng = np.random.default_rng(1)
    differences = np.array([row.difference for row in rows])
    means = rng.choice(differences, (RESAMPLES, len(rows))).mean(axis=1)
    low, high = np.quantile(means, [0.05, 0.95]).tolist()
    planted = [row.is_right for row in rows if row.is_right is not None]
    return {
        "worlds": len(rows),
        "active_median": statistics.median(row.active for row in rows),
        "right_share": sum(planted) / len(planted) if planted else None,
        "near_one_share": sum(r.near_one for r in rows) / max(sum(r.others for r in rows), 1),
        "difference": float(differences.mean()),
        "low": low,
        "high": high,
        "seconds_median": statistics.median(row.seconds for row in rows),
    }


def main() -> None:
    """Run every kind of world and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("301-320"), help="A-B")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--trades", type=int, default=32_000, help="trades learned from")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: dict[str, list[Row]] = {}
    for kind in args.kinds:
        for seed in args.seeds:
            row = judge(learn(World(seed, kind, args.trades)))
            print(row, file=sys.stderr, flush=True)
            rows.setdefault(kind, []).append(row)
    document = {
        **measured_on(),
        "rows": [asdict(row) for part in rows.values() for row in part],
        "summary": {kind: summary_of(part) for kind, part in rows.items()},
    }
    print(json.dumps(document if args.json else document["summary"], indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
