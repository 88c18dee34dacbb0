"""Does it find what is there, and nothing where nothing is? Simulated markets with known truth.

Four parts: `planted` (20 markets with effects: which were found to the letter, which overrides are
null or wrong-signed), and three kinds of markets in which nothing can be learned: `empty` (no
effects), `shuffled` and `rotated` (outcomes of a market with effects, moved against the scopes).
With `--real FILE` the outcomes of a real export are shuffled as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.learn import Searched, learn_module, search
from learning_assets.core.meta import meta_results
from learning_assets.core.overrides import build_overrides
from learning_assets.core.records import ClosedTrade, Lesson, LessonStatus, Override
from learning_assets.core.scope import ScopeSubset
from learning_assets.sources.demo import Market, MarketSettings, PlantedEffect, frame_of, simulate
from learning_assets.sources.detect import open_source

CONFIG = LearningConfig()
NULL_R = 0.05
LARGE_R = 0.5
LARGE_N = 400


@dataclass(frozen=True, slots=True)
class Planted:
    """One market with effects: how many of them, and of the overrides, are what."""

    seed: int
    effects: int
    found: int
    large: int
    large_found: int
    overrides: int
    null_or_wrong: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Nothing:
    """One market in which nothing can be learned: what was kept all the same."""

    seed: int
    kept: int
    seconds: float


def planted(seed: int, **changes: object) -> Planted:
    """Learn a market with effects, as the main job does, and compare with its truth."""
    market = simulate(MarketSettings(seed=seed, **changes))  # type: ignore[arg-type]
    as_of = market.settings.end
    events = from_frame(market.frame())
    start = time.perf_counter()
    lessons = [
        lesson for m in ("dm", "pm") for lesson in learn_module(events, m, CONFIG, as_of).lessons
    ]
    made = published(lessons, events, as_of)
    seconds = time.perf_counter() - start
    aliases = scopes_of(lessons)
    alive = [e for e in market.truth_as_of(as_of).effects if e.alive]
    large = [e for e in alive if abs(e.effect_r) >= LARGE_R and e.n_trades >= LARGE_N]
    return Planted(
        seed,
        len(alive),
        sum(found(e, made, aliases) for e in alive),
        len(large),
        sum(found(e, made, aliases) for e in large),
        len(made),
        sum(_is_wrong(o, market) for o in made),
        seconds,
    )


def published(
    lessons: Sequence[Lesson], events: EventTable, as_of: datetime
) -> tuple[Override, ...]:
    """The overrides that the main job would publish, half-lives, factors and weights included."""
    meta = meta_results(lessons, events, CONFIG, as_of)
    hour = timedelta(hours=1)
    return build_overrides(lessons, events, CONFIG, as_of, as_of, hour, meta=meta).overrides


def scopes_of(lessons: Sequence[Lesson]) -> dict[str, set[ScopeSubset]]:
    """By id of each active lesson its scope and those that mean the same trades."""
    return {
        lesson.lesson_id: {lesson.scope_subset, *lesson.aliases}
        for lesson in lessons
        if lesson.status is LessonStatus.ACTIVE
    }


def found(
    effect: PlantedEffect, made: Sequence[Override], aliases: Mapping[str, set[ScopeSubset]]
) -> bool:
    """Whether an override of the right sign has the effect's scope, to the letter or as alias."""
    return any(
        o.group == effect.group
        and effect.scope_subset in aliases[o.lesson_id]
        and o.adjusted_edge_r * effect.effect_r > 0
        for o in made
    )


def _is_wrong(override: Override, market: Market) -> bool:
    """Whether the slice's true edge over the look-back is null or of the other sign."""
    true = market.true_edge_r(override.group, override.scope_subset)
    if true is None:
        return True
    return abs(true) < NULL_R or true * override.adjusted_edge_r < 0


def nothing(kind: str, seed: int) -> Nothing:
    """Search a market in which nothing can be learned, both modules together."""
    effects = {} if kind != "empty" else {"n_effects": 0, "n_dm_effects": 0}
    market = simulate(MarketSettings(seed=seed, **effects))  # type: ignore[arg-type]
    events = from_frame(market.frame())
    return _nothing(kind, seed, events, market.settings.end)


def _nothing(kind: str, seed: int, events: EventTable, as_of: datetime) -> Nothing:
    rng = np.random.default_rng(seed)
    n = events.n_trades
    if kind == "shuffled":
        events = events.with_rr(rng.permutation(events.rr))
    elif kind == "rotated":
        events = events.with_rr(np.roll(events.rr, int(rng.integers(n // 10, n - n // 10))))
    start = time.perf_counter()
    window = events.window(as_of, CONFIG.look_back_days)
    found = search(window, ("pm", "dm"), CONFIG, as_of, {})
    return Nothing(seed, _kept(found), time.perf_counter() - start)


def _kept(found: Searched) -> int:
    return sum(len(f.fit.slices) for f in (*found.groups, *found.patterns))


def real(path: Path) -> Callable[[int], Nothing]:
    """Shuffles of the outcomes of a real source, as a function of the seed."""
    rows = open_source(path).read(date(2000, 1, 1), date(2100, 1, 1))
    events = from_frame(frame_of([row for row in rows if isinstance(row, ClosedTrade)]))
    last = events.closed_at.max().astype("datetime64[D]") + np.timedelta64(1, "D")
    as_of = last.astype(datetime)
    at = datetime(as_of.year, as_of.month, as_of.day, tzinfo=UTC)
    return lambda seed: _nothing("shuffled", seed, events, at)


def summary_of(rows: Sequence[Planted] | Sequence[Nothing]) -> dict[str, float]:
    """The figures that the README and the issues ask for."""
    seconds = statistics.median(row.seconds for row in rows)
    if isinstance(rows[0], Nothing):
        kept = sum(1 for row in rows if isinstance(row, Nothing) and row.kept)
        return {"markets": len(rows), "with_a_lesson": kept, "seconds_median": seconds}
    total = {
        name: sum(getattr(row, name) for row in rows)
        for name in Planted.__slots__
        if name not in ("seed", "seconds")
    }
    return {
        **total,
        "large_found_share": total["large_found"] / max(total["large"], 1),
        "found_share": total["found"] / max(total["effects"], 1),
        "null_or_wrong_share": total["null_or_wrong"] / max(total["overrides"], 1),
        "seconds_median": seconds,
    }


def _rows(task: Callable[[int], object], seeds: Sequence[int], name: str) -> Iterator[object]:
    for seed in seeds:
        row = task(seed)
        print(name, row, file=sys.stderr, flush=True)
        yield row


def measured_on() -> dict[str, object]:
    """The machine and the day, for the head of a document of figures."""
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    return {"machine": machine, "date": datetime.now(UTC).date().isoformat()}


def seeds_of(text: str) -> range:
    """The seeds A … B of "A-B", or the one of "A"."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Run the chosen parts and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("101-104"), help="A-B, planted")
    parser.add_argument("--null-seeds", type=seeds_of, default=seeds_of("501-505"), help="A-B")
    parser.add_argument("--real", type=Path, help="a real export to shuffle")
    parser.add_argument(
        "--parts", nargs="*", default=["planted", "empty", "shuffled", "rotated"], metavar="PART"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tasks: dict[str, tuple[Callable[[int], object], range]] = {
        "planted": (planted, args.seeds),
        **{
            kind: (partial(nothing, kind), args.null_seeds)
            for kind in ("empty", "shuffled", "rotated")
        },
    }
    chosen = {name: tasks[name] for name in args.parts}
    if args.real:
        chosen["real"] = (real(args.real), range(1, 21))
    rows = {name: list(_rows(task, seeds, name)) for name, (task, seeds) in chosen.items()}
    document = {
        **measured_on(),
        "rows": {name: [asdict(row) for row in part] for name, part in rows.items()},  # type: ignore[call-overload]
        "summary": {name: summary_of(part) for name, part in rows.items()},  # type: ignore[arg-type]
    }
    print(json.dumps(document if args.json else document["summary"], indent=2))


if __name__ == "__main__":
    main()
