"""Does every closing become an event, once and soon, whatever order closings commit in?

Needs `learning ui --book demo` running on the simulated market. Closes positions in transactions
that stay open for up to twenty seconds, so that they commit in another order than they were
written in, and then looks when each became an event. With `--backlog N` it commits N closings of
the last 200 days at once, as after a long outage, and looks how many runs they take.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from psycopg import sql

from learning_assets.core.records import ClosedTrade
from learning_assets.sources.demo import MarketSettings, append_strands, simulate
from learning_assets.store import server
from learning_assets.store.connection import connect, open_database
from learning_assets.store.settings import Settings, settings

LONGEST_OPEN_SECONDS = 20.0
AT_ONCE = 12
PATIENCE_SECONDS = 120.0
BACKLOG_DAYS, BACKLOG_PATIENCE_SECONDS = 200, 1200.0


@dataclass(frozen=True, slots=True)
class Result:
    """Closings, how many are events once, and the delay from commit to event in seconds."""

    closings: int
    there_once: int
    missing: int
    delay_median: float
    delay_p95: float
    delay_max: float
    failed_runs: int
    runs: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Closings that were committed at once, how many are events once, and what that took.

    `seconds` is from the commit until the last one was seen to be an event.
    """

    closings: int
    days: int
    there_once: int
    missing: int
    seconds: float
    failed_runs: int
    runs: int


def closed_now(trade: ClosedTrade) -> ClosedTrade:
    """The trade under a new id, closed a moment ago."""
    return closed_at(trade, datetime.now(UTC))


def closed_at(trade: ClosedTrade, moment: datetime) -> ClosedTrade:
    """The trade under a new id, closed at a moment."""
    moved = moment - trade.closed_at
    opened_at = None if trade.opened_at is None else trade.opened_at + moved
    actions = tuple(a._replace(action_id=str(uuid.uuid4())) for a in trade.actions)
    return trade._replace(
        trade_id=str(uuid.uuid4()), opened_at=opened_at, closed_at=moment, actions=actions
    )


def close(book: Settings, trade: ClosedTrade, open_seconds: float) -> tuple[str, float]:
    """Write the trade's strands, wait, commit; its id and the time of the commit."""
    with connect(book) as conn:
        with conn.transaction():
            append_strands(conn, [trade], book.schema)
            time.sleep(open_seconds)
        return trade.trade_id, time.time()


def run(book: Settings, minutes: float, rate: float, seed: int) -> Result:
    """Close positions for so many minutes, `rate` a second, and look what became of them."""
    rng, began = random.Random(seed), time.time()
    trades = simulate(MarketSettings(seed=seed, n_trades=1000, n_effects=0, n_dm_effects=0)).trades
    with ThreadPoolExecutor(AT_ONCE) as pool:
        pending = []
        while time.time() < began + 60 * minutes:
            trade = closed_now(rng.choice(trades))
            pending.append(pool.submit(close, book, trade, rng.uniform(0, LONGEST_OPEN_SECONDS)))
            time.sleep(rng.expovariate(rate))
        committed = dict(p.result() for p in pending)
    return judged(book, committed, began)


def judged(book: Settings, committed: dict[str, float], began: float) -> Result:
    """Wait until all are events, or patience ends."""
    until = time.time() + PATIENCE_SECONDS
    found: dict[str, tuple[float, bool]] = {}
    while time.time() < until and len(found) < len(committed):
        time.sleep(2)
        found = ingested(book, list(committed))
    delays = sorted(max(at - committed[name], 0.0) for name, (at, _) in found.items()) or [0.0]
    total, failed = runs_since(book, began)
    return Result(
        len(committed),
        sum(once for _, once in found.values()),
        len(committed) - len(found),
        statistics.median(delays),
        delays[int(0.95 * (len(delays) - 1))],
        delays[-1],
        failed,
        total,
    )


def run_backlog(book: Settings, closings: int, seed: int) -> Backlog:
    """Commit so many closings of the last days at once, and wait until all are events."""
    rng, now = random.Random(seed), datetime.now(UTC)
    trades = simulate(MarketSettings(seed=seed, n_trades=1000, n_effects=0, n_dm_effects=0)).trades
    backlog = [
        closed_at(rng.choice(trades), now - timedelta(days=rng.uniform(0, BACKLOG_DAYS)))
        for _ in range(closings)
    ]
    names = [trade.trade_id for trade in backlog]
    days = {trade.closed_at.date() for trade in backlog}
    with connect(book) as conn, conn.transaction():
        append_strands(conn, backlog, book.schema)
    began = time.time()
    found: dict[str, tuple[float, bool]] = {}
    while time.time() < began + BACKLOG_PATIENCE_SECONDS and len(found) < closings:
        time.sleep(5)
        found |= ingested(book, [name for name in names if name not in found])
    seconds = time.time() - began
    total, failed = runs_since(book, began)
    there = sum(once for _, once in ingested(book, names).values())
    return Backlog(closings, len(days), there, closings - len(found), seconds, failed, total)


def ingested(book: Settings, names: list[str]) -> dict[str, tuple[float, bool]]:
    """When each trade became events, and whether each of its actions is there once."""
    query = (
        "SELECT trade_id, extract(epoch FROM min(ingested_at))::float8, "
        "count(*) = count(DISTINCT event_id) AND count(DISTINCT (rr, closed_at)) = 1 "
        "FROM pattern_trade_events WHERE trade_id = ANY(%s) GROUP BY trade_id"
    )
    with connect(book) as conn:
        return {name: (at, once) for name, at, once in conn.execute(query, [names])}


def runs_since(book: Settings, began: float) -> tuple[int, int]:
    """Dagster's runs since a moment, and those of them that failed."""
    query = sql.SQL(
        "SELECT count(*), count(*) FILTER (WHERE status IN ('FAILURE', 'CANCELED')) "
        "FROM {} WHERE create_timestamp >= %s"
    ).format(sql.Identifier(book.dagster_schema, "runs"))
    at = datetime.fromtimestamp(began, UTC) - timedelta(seconds=1)
    with open_database(book.history_url, "Dagster's history") as conn:
        row = conn.execute(query, [at.replace(tzinfo=None)]).fetchone()
    assert row is not None
    return row[0], row[1]


def main() -> None:
    """Close positions and print what became of them as one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=0.5, help="closings a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backlog", type=int, metavar="N", help="commit N closings at once")
    args = parser.parse_args()
    book = settings(os.environ, "demo")
    with server.running(book):
        result: Result | Backlog = (
            run_backlog(book, args.backlog, args.seed)
            if args.backlog
            else run(book, args.minutes, args.rate, args.seed)
        )
    print(json.dumps(asdict(result), indent=2))
    sys.exit(0 if result.there_once == result.closings and not result.failed_runs else 1)


if __name__ == "__main__":
    main()
