"""Does learning pay, and does the gain fall where it does not? Markets walked forward week by week.

Three parts on simulated markets of 40 weeks: `stable` (the effects last), `shuffled` (the same with
outcomes moved against the scopes at random: nothing to learn) and `flip` (all effects change sign
halfway). With `--real PATH` a real source is walked forward too. What counts is the last quarter.
Of a simulated market without shuffling the rows also tell how much of the predictions was true: see
`predictions`.
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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import numpy as np
from predictions import TrueShare, true_shares, true_slopes

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.gain import gains_of
from learning_assets.core.judge import Difference, total_of
from learning_assets.core.records import ClosedTrade
from learning_assets.core.replay import judge_all, past_weeks, walk_forward
from learning_assets.core.walkforward import Replay
from learning_assets.sources.demo import Market, MarketSettings, frame_of, simulate
from learning_assets.sources.detect import SourceOptions

CONFIG = LearningConfig()
MARKET = MarketSettings(n_trades=4000, span_days=280, n_dims=6, n_regime_dims=3, share_decaying=0.0)
MOST_LOST_R = 0.02
ENOUGH_GAIN = 0.85


@dataclass(frozen=True, slots=True)
class Row:
    """One source walked forward: all weeks, the last quarter of them, and the gains at the end.

    `true_slopes` and `true_shares` are empty where the truth is not known.
    """

    name: str
    weeks: int
    overrides: int
    all_weeks: Difference
    last_quarter: Difference
    gain: Mapping[str, float]
    rests_on: Mapping[str, str]
    seconds: float
    true_slopes: Mapping[str, Mapping[str, float | None]]
    true_shares: Mapping[str, TrueShare]


def walked(name: str, events: EventTable, as_of: datetime) -> tuple[Row, list[Replay]]:
    """Walk the events forward to `as_of`; `overrides` are those of the newest set."""
    start = time.process_time()
    weeks = past_weeks(events, as_of)
    replays = walk_forward(events, CONFIG, weeks)
    results = judge_all(replays, events, as_of, CONFIG)
    gains = gains_of(results, CONFIG, as_of)
    row = Row(
        name,
        len(weeks),
        len(replays[-1].content.overrides),
        total_of(results, CONFIG),
        total_of(results[-(len(results) // 4) :], CONFIG),
        {m: gain.value for m, gain in gains.items()},
        {m: gain.why for m, gain in gains.items()},
        time.process_time() - start,
        {},
        {},
    )
    return row, replays


def simulated(kind: str, seed: int) -> Row:
    """A simulated market of that kind, walked forward; where there is one, beside the truth."""
    market, events = market_of(kind, seed)
    row, replays = walked(f"{kind} {seed}", events, market.settings.end)
    return row if kind == "shuffled" else _beside_truth(row, replays, market, events)


def market_of(kind: str, seed: int, base: MarketSettings = MARKET) -> tuple[Market, EventTable]:
    """A simulated market of that kind, and its events."""
    market = simulate(replace(base, seed=seed, flip_halfway=kind == "flip"))
    events = from_frame(market.frame())
    if kind == "shuffled":
        events = events.with_rr(np.random.default_rng(seed).permutation(events.rr))
    return market, events


def _beside_truth(row: Row, replays: Sequence[Replay], market: Market, events: EventTable) -> Row:
    expected = np.array([market.truth.expected_rr[t] for t in events.trade_ids])
    planted = frozenset((e.group, e.scope_subset) for e in market.truth.effects)
    return replace(
        row,
        true_slopes=true_slopes(replays, events, expected, market.settings.end, CONFIG),
        true_shares=true_shares(replays, events, expected, planted, CONFIG),
    )


def real(path: Path, risk: float | None) -> Row:
    """A real source, up to the midnight after its last close."""
    options = SourceOptions.of(path, risk=risk)
    rows = options.open().read(date(2000, 1, 1), date(2100, 1, 1))
    events = from_frame(frame_of([row for row in rows if isinstance(row, ClosedTrade)]))
    last = (events.closed_at.max().astype("datetime64[D]") + np.timedelta64(1, "D")).astype(date)
    return walked(path.name, events, datetime(last.year, last.month, last.day, tzinfo=UTC))[0]


def summary_of(rows: Sequence[Row]) -> Mapping[str, float]:
    """What the criteria ask for: gains, and what the last quarter lost at most."""
    last = [row.last_quarter.difference or 0.0 for row in rows]
    return {
        "sources": len(rows),
        "gain_pm_median": statistics.median(row.gain["pm"] for row in rows),
        "gain_dm_median": statistics.median(row.gain["dm"] for row in rows),
        "gain_pm_least": min(row.gain["pm"] for row in rows),
        "gain_dm_least": min(row.gain["dm"] for row in rows),
        "gains_enough": sum(min(row.gain.values()) >= ENOUGH_GAIN for row in rows),
        "last_quarter_worst_r": min(last),
        "last_quarter_mean_r": statistics.mean(last),
        "lost_too_much": sum(difference < -MOST_LOST_R for difference in last),
        "seconds_median": statistics.median(row.seconds for row in rows),
    }


def _rows(tasks: Sequence[Callable[[], Row]], processes: int) -> Iterator[Row]:
    with ProcessPoolExecutor(processes) as pool:
        for row in pool.map(_done, tasks):
            print(row, file=sys.stderr, flush=True)
            yield row


def _done(task: Callable[[], Row]) -> Row:
    return task()


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> None:
    """Run the chosen parts and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=_seeds("401-403"), help="A-B")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="real sources")
    parser.add_argument("--risk", type=float, help="risk of a real trade, if its file has none")
    parser.add_argument(
        "--parts", nargs="*", default=["stable", "shuffled", "flip"], metavar="PART"
    )
    parser.add_argument("--processes", type=int, default=1, help="sources at the same time")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tasks: dict[str, list[Callable[[], Row]]] = {
        kind: [partial(simulated, kind, seed) for seed in args.seeds] for kind in args.parts
    }
    if args.real:
        tasks["real"] = [partial(real, path, args.risk) for path in args.real]
    rows = {name: list(_rows(part, args.processes)) for name, part in tasks.items()}
    document = {
        "machine": {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "date": datetime.now(UTC).date().isoformat(),
        "rows": {name: [asdict(row) for row in part] for name, part in rows.items()},
        "summary": {name: summary_of(part) for name, part in rows.items()},
    }
    print(json.dumps(document if args.json else document["summary"], indent=2))


if __name__ == "__main__":
    main()
