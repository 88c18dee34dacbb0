"""How long a look-up of the trading bot takes: one thread, the client of `learning_assets.runtime`.

Scopes have the 28 dimensions of `mining_data`. Sets have 10 overrides a group, of one to three
dimensions, of which at most 3 match an action; `one group` is the worst case, all of them in one.
Each look-up is timed on its own, the time that the clock takes itself not taken off. The summary
is of 10,000 overrides in 1,000 groups; `p50_growth` is its p50 ÷ that of 100 overrides.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from mining_data import Shape, names, values_of

from learning_assets.runtime import OverrideBook
from learning_assets.runtime.sets import LiveSet

LOOKUPS, ROUNDS = 20_000, 5
IN_A_GROUP, MOST_MATCHES = 10, 3
NOW = datetime(2026, 3, 2, tzinfo=UTC)
DIMS = names(Shape(1))
_SEED = 5
_IMPORTS = 9

Question = tuple[str, Mapping[str, str]]


class _Given:
    def __init__(self, live: LiveSet) -> None:
        self._live = live

    def newest(self, known: LiveSet | None) -> LiveSet:
        return self._live

    def at(self, moment: datetime) -> LiveSet:
        return self._live


def scope_of(rng: random.Random) -> dict[str, str]:
    """A scope with all dimensions."""
    return {dim: rng.choice(values_of(dim)) for dim in DIMS}


def overrides_of(rng: random.Random, n: int, in_a_group: int) -> list[dict[str, Any]]:
    """So many overrides, each scope once in its group."""
    chosen: dict[tuple[int, tuple[tuple[str, str], ...]], None] = {}
    while len(chosen) < n:
        dims = sorted(rng.sample(DIMS, rng.randrange(1, 4)))
        pairs = tuple((dim, rng.choice(values_of(dim))) for dim in dims)
        chosen[(len(chosen) // in_a_group, pairs)] = None
    return [
        {
            "group": ["pm", f"pm.strategy.S{group}.signal", "entry"],
            "scope_subset": dict(pairs),
            "multiplier": rng.uniform(0.8, 1.2),
        }
        for group, pairs in chosen
    ]


def book_of(overrides: list[dict[str, Any]]) -> OverrideBook:
    """A book of them."""
    document = {
        "set_id": 1,
        "live_from": NOW,
        "published_at": NOW,
        "expires_at": NOW + timedelta(days=1),
        "overrides": overrides,
    }
    source = _Given(LiveSet.of(document))
    return OverrideBook(source, refresh_seconds=3600, clock=lambda: NOW)


def questions_of(
    book: OverrideBook, rng: random.Random, groups: int, most: int | None
) -> list[Question]:
    """What is asked: a pattern and a scope that not too many overrides match."""
    found: list[Question] = []
    while len(found) < LOOKUPS:
        pattern, scope = f"pm.strategy.S{rng.randrange(groups)}.signal", scope_of(rng)
        if most is None or len(book.lookup(pattern, "entry", scope).matched) <= most:
            found.append((pattern, scope))
    return found


def row_of(n: int, in_a_group: int, most: int | None) -> dict[str, Any]:
    """Percentiles of one set, in microseconds: medians over the rounds."""
    rng = random.Random(_SEED)
    book = book_of(overrides_of(rng, n, in_a_group))
    asked = questions_of(book, rng, n // in_a_group, most)
    rounds = [_microseconds(book, asked) for _ in range(ROUNDS)]
    cuts = [statistics.quantiles(one, n=100) for one in rounds]
    matched = [len(book.lookup(p, "entry", scope).matched) for p, scope in asked]
    book.close()
    return {
        "overrides": n,
        "groups": n // in_a_group,
        "p50_us": statistics.median(cut[49] for cut in cuts),
        "p99_us": statistics.median(cut[98] for cut in cuts),
        "matches": statistics.mean(matched),
        "most_matches": max(matched),
    }


def _microseconds(book: OverrideBook, asked: list[Question]) -> list[float]:
    taken, clock, lookup = [], time.perf_counter_ns, book.lookup
    for pattern, scope in asked:
        began = clock()
        lookup(pattern, "entry", scope)
        taken.append((clock() - began) / 1000)
    return taken


def import_milliseconds() -> float:
    """What importing the client takes in a process that has imported nothing."""
    code = (
        "import time; began = time.perf_counter(); import learning_assets.runtime; "
        "print((time.perf_counter() - began) * 1000)"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(_IMPORTS)]
    return statistics.median(map(float, runs))


def document_of() -> dict[str, Any]:
    """Everything that is measured."""
    from honesty import measured_on

    rows = [
        row_of(n, IN_A_GROUP, MOST_MATCHES) for n in (100, 1_000, 10_000)
    ] + [row_of(10_000, 10_000, None)]  # fmt: skip
    few, many = rows[0], rows[2]
    return {
        **measured_on(),
        "import_ms": import_milliseconds(),
        "rows": rows,
        "summary": {
            "p50_us": many["p50_us"],
            "p99_us": many["p99_us"],
            "p50_growth": many["p50_us"] / few["p50_us"],
        },
    }


def main() -> None:
    """Measure, and print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    document = document_of()
    if args.json:
        print(json.dumps(document, indent=2))
        return
    for row in document["rows"]:
        print(
            f"{row['overrides']:,} overrides in {row['groups']:,} groups: p50 {row['p50_us']:.1f} "
            f"µs, p99 {row['p99_us']:.1f} µs, {row['matches']:.2f} match, at most "
            f"{row['most_matches']}"
        )
    growth = document["summary"]["p50_growth"]
    print(f"p50 × {growth:.2f} from 100 to 10,000; importing {document['import_ms']:.0f} ms")


if __name__ == "__main__":
    main()
