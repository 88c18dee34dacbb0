"""Are half-lives measured as well as they can be, and are lasting edges left alone?

Four parts. `planted`: edges of 0.8 R with known half-lives over 26 weeks of 40 trades in the
slice; the error of what is found beside the Cramér–Rao bound, and the coverage of the interval.
`lasting`: constant edges of the same markets. `found`: constant edges that the miner itself found
on the same data, the case in which selection could pass for wear. `speed`: 5,000 lessons × 52
weeks.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from honesty import measured_on, seeds_of
from numpy.typing import NDArray

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.halflife import HalfLife, fit_half_lives, half_lives
from learning_assets.core.history import edge_history, last_full_week, monday
from learning_assets.core.learn import lessons_of, search
from learning_assets.core.records import (
    DecayState,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    SliceStats,
)
from learning_assets.sources.demo import MarketSettings, simulate

Floats = NDArray[np.float64]

CONFIG = LearningConfig()
START = datetime(2026, 1, 5, tzinfo=UTC)
WEEKS = 26
WEEK_HOURS = 168
IN_SLICE, OUTSIDE = 40, 360
E0_R, NOISE_SD_R = 0.8, 1.2
GROUPS = 20
MEDIAN_OF_NORMAL = 0.6745
HALF_LIVES_HOURS = (200.0, 500.0, 1500.0)


@dataclass(frozen=True, slots=True)
class PlantedRow:
    """One planted half-life: shares 0–1, errors relative to the half-life."""

    half_life_hours: float
    fits: int
    called_share: float
    median_error: float
    cramer_rao_median: float
    error_over_bound: float
    coverage: float


@dataclass(frozen=True, slots=True)
class LastingRow:
    """Constant edges of one kind: how many fits there were, and what they were called."""

    kind: str
    fits: int
    stable: int
    decaying: int
    improving: int
    insufficient: int
    decaying_share: float


def lesson(key: GroupKey) -> Lesson:
    """The one lesson of a planted group."""
    stats = SliceStats(1000, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0)
    multipliers = Multipliers(1.0, 1.0, 1.0, 1.0, None, None, 0, None)
    subset = (("chain", "solana"),)
    return Lesson(key, subset, LessonStatus.ACTIVE, stats, multipliers, 0.0, 0.0, 0.1)


def planted_events(rng: np.random.Generator, half_life_hours: float) -> EventTable:
    """Twenty groups, each with exactly 40 trades a week in its slice and 360 outside it.

    The edge is 0.8 R in the middle of the first week.
    """
    per_week = IN_SLICE + OUTSIDE
    shape = (GROUPS, WEEKS, per_week)
    hours = (np.arange(WEEKS)[None, :, None] + rng.random(shape)) * WEEK_HOURS
    inside = np.broadcast_to(np.arange(per_week) < IN_SLICE, shape)
    edge = E0_R * np.exp(-math.log(2) / half_life_hours * (hours - WEEK_HOURS / 2))
    rr = edge * inside + NOISE_SD_R * rng.standard_normal(shape)
    group = np.broadcast_to(np.arange(GROUPS)[:, None, None], shape)
    order = np.argsort(hours, axis=None)
    passed = (hours.reshape(-1)[order] * 3.6e9).astype("timedelta64[us]")
    closed = np.datetime64(START.replace(tzinfo=None), "us") + passed
    codes = inside.reshape(-1)[order].astype(np.int32) + 1
    n = len(order)
    unknown = np.full(n, np.nan)
    return EventTable(
        np.arange(n).astype(object), closed, closed, rr.reshape(-1)[order], unknown, unknown,
        np.arange(n), group.reshape(-1)[order], keys(), ("chain",), (("base", "solana"),),
        codes[None, :],
    )  # fmt: skip


def keys() -> tuple[GroupKey, ...]:
    """The groups of the planted markets."""
    return tuple(GroupKey("pm", f"pm.planted.S{k:02d}.x", "entry") for k in range(GROUPS))


def fits(half_life_hours: float, markets: int, seed: int) -> list[HalfLife]:
    """Half-lives found in planted markets, from the trades on."""
    rng = np.random.default_rng([seed, round(min(half_life_hours, 1e6))])
    lessons = [lesson(key) for key in keys()]
    last = START + timedelta(weeks=WEEKS - 1)
    found: list[HalfLife] = []
    for _ in range(markets):
        events = planted_events(rng, half_life_hours)
        found += half_lives(edge_history(events, lessons, CONFIG, START, last)).values()
    return found


def cramer_rao(half_life_hours: float) -> float:
    """Smallest standard deviation of an unbiased half-life, relative to it, e0 being unknown.

    From 26 weekly means of the slice's 40 trades; the complement is taken as known.
    """
    rate = math.log(2) / half_life_hours
    hours = np.arange(WEEKS) * WEEK_HOURS
    curve = np.exp(-rate * hours)
    slope = np.column_stack([curve, -E0_R * hours * curve])
    information = slope.T @ slope * IN_SLICE / NOISE_SD_R**2
    return float(np.sqrt(np.linalg.inv(information)[1, 1]) / rate)


def planted(half_life_hours: float, markets: int, seed: int) -> PlantedRow:
    """What is found of one planted half-life in markets of 20 slices."""
    return planted_row(half_life_hours, fits(half_life_hours, markets, seed))


def planted_row(half_life_hours: float, found: Sequence[HalfLife]) -> PlantedRow:
    """How good the fits of one planted half-life are; one that is not called counts as wrong."""
    called = [f for f in found if f.status is DecayState.DECAYING]
    errors = [abs((f.half_life_hours or 0.0) / half_life_hours - 1) for f in called]
    median = statistics.median(errors + [math.inf] * (len(found) - len(called)))
    bound = MEDIAN_OF_NORMAL * cramer_rao(half_life_hours)
    covered = sum((f.low or 0.0) <= half_life_hours <= (f.high or 0.0) for f in called)
    return PlantedRow(
        half_life_hours,
        len(found),
        len(called) / len(found),
        median,
        bound,
        median / bound,
        covered / max(len(called), 1),
    )


def lasting(kind: str, found: Sequence[HalfLife]) -> LastingRow:
    """Counts of what constant edges were called."""
    counts = {state: sum(f.status is state for f in found) for state in DecayState}
    return LastingRow(
        kind,
        len(found),
        counts[DecayState.STABLE],
        counts[DecayState.DECAYING],
        counts[DecayState.IMPROVING],
        counts[DecayState.INSUFFICIENT],
        counts[DecayState.DECAYING] / max(len(found), 1),
    )


def found_by_miner(seed: int, span_days: int) -> list[HalfLife]:
    """Half-lives of what the miner found in a market whose edges all last."""
    settings = MarketSettings(
        seed=seed,
        n_trades=round(6000 * span_days / 180),
        span_days=span_days,
        share_decaying=0.0,
        categories=("entry",),
    )
    events = from_frame(simulate(settings).frame())
    window = events.window(settings.end, CONFIG.look_back_days)
    searched = search(window, ("dm", "pm"), CONFIG, settings.end, {})
    learned = [lessons_of(searched, module, CONFIG, settings.end) for module in ("dm", "pm")]
    active = [x for m in learned for x in m.lessons if x.status is LessonStatus.ACTIVE]
    weeks = monday(settings.start), last_full_week(settings.end)
    return list(half_lives(edge_history(events, active, CONFIG, *weeks)).values())


def speed() -> dict[str, float]:
    """Seconds for 5,000 lessons × 52 weeks, by the kind of edge."""
    rng = np.random.default_rng(1)
    hours = np.arange(52.0) * WEEK_HOURS
    se = np.full((5000, 52), NOISE_SD_R / math.sqrt(IN_SLICE))
    seconds = {}
    for name, half_life in (("lasting", 1e9), ("weak", 3000.0), ("short", 300.0)):
        edge = 0.3 * np.exp(-math.log(2) / half_life * hours) + se * rng.standard_normal(se.shape)
        begin = time.perf_counter()
        fit_half_lives(hours, edge, se)
        seconds[name] = time.perf_counter() - begin
    return seconds


def _rows(args: argparse.Namespace) -> Iterator[tuple[str, PlantedRow | LastingRow]]:
    for half_life in HALF_LIVES_HOURS:
        yield "planted", planted(half_life, args.markets, args.seed)
    yield "lasting", lasting("planted", fits(1e12, args.markets, args.seed))
    for span in args.spans:
        found = [f for seed in args.found_seeds for f in found_by_miner(seed, span)]
        yield "found", lasting(f"found in {span} days", found)


def main() -> None:
    """Run all parts and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markets", type=int, default=12, help="planted markets of 20 slices")
    parser.add_argument("--seed", type=int, default=1, help="seed of the planted markets")
    parser.add_argument("--found-seeds", type=seeds_of, default=seeds_of("701-703"), help="A-B")
    parser.add_argument("--spans", type=int, nargs="*", default=[180], help="days of a market")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: dict[str, list[dict[str, object]]] = {}
    for part, row in _rows(args):
        print(row, file=sys.stderr, flush=True)
        rows.setdefault(part, []).append(asdict(row))
    document = {
        **measured_on(),
        "rows": rows,
        "seconds_5000_lessons_52_weeks": speed(),
    }
    if args.json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        _print(document["rows"], speed_line=document["seconds_5000_lessons_52_weeks"])


def _print(rows: object, speed_line: object) -> None:
    for part, lines in (rows if isinstance(rows, dict) else {}).items():
        print(part)
        for line in lines:
            cells = (
                f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()
            )
            print("  " + ", ".join(cells))
    print("seconds, 5,000 lessons × 52 weeks:", speed_line)


if __name__ == "__main__":
    main()
