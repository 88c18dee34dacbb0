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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    def replays(self, since: datetime, until: datetime) -> list[LiveSet]:
        return []


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
        "as_of": NOW,
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


@dataclass(frozen=True, slots=True)
class Case:
    """A set of `n` overrides; questions that more than `most` of them match are left out."""

    n: int
    in_a_group: int = IN_A_GROUP
    most: int | None = MOST_MATCHES


def rows_of(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Percentiles of each set in microseconds: medians over rounds in which the sets take turns."""
    made = [_made(case) for case in cases]
    rounds = [[_percentiles(book, asked) for book, asked in made] for _ in range(ROUNDS)]
    rows = []
    for case, (book, asked), turns in zip(cases, made, zip(*rounds, strict=True), strict=True):
        matched = [len(book.lookup(pattern, "entry", scope).matched) for pattern, scope in asked]
        book.close()
        rows.append(
            {
                "overrides": case.n,
                "groups": case.n // case.in_a_group,
                "p50_us": statistics.median(p50 for p50, _ in turns),
                "p99_us": statistics.median(p99 for _, p99 in turns),
                "matches": statistics.mean(matched),
                "most_matches": max(matched),
            }
        )
    return rows


def _made(case: Case) -> tuple[OverrideBook, list[Question]]:
    rng = random.Random(_SEED)
    book = book_of(overrides_of(rng, case.n, case.in_a_group))
    return book, questions_of(book, rng, case.n // case.in_a_group, case.most)


def _percentiles(book: OverrideBook, asked: list[Question]) -> tuple[float, float]:
    taken, clock, lookup = [], time.perf_counter_ns, book.lookup
    for pattern, scope in asked:
        began = clock()
        lookup(pattern, "entry", scope)
        taken.append((clock() - began) / 1000)
    cuts = statistics.quantiles(taken, n=100)
    return cuts[49], cuts[98]


def import_milliseconds() -> float:
    """What importing the client takes in a process that has imported nothing."""
    code = (
        "import time; began = time.perf_counter(); import learning_assets.runtime; "
        "print((time.perf_counter() - began) * 1000)"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(_IMPORTS)]
    return statistics.median(map(float, runs))


CASES = (Case(100), Case(1_000), Case(10_000), Case(10_000, 10_000, None))


def document_of() -> dict[str, Any]:
    """Everything that is measured."""
    from honesty import measured_on

    rows = rows_of(CASES)
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
