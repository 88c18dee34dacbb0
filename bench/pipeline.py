"""From strands to overrides: what each step of the main job takes, and how much memory.

Writes the trades of `mining_data` (28 dimensions, three actions a trade, eight planted effects,
180 days) as a table `ad_strands` on an embedded server of its own, which is not counted, and runs
the assets as the main job does, each step in a process of its own: taking the strands in, lessons
from nothing, with cut-offs cached, with only the last day new and with nothing new, overrides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from mining_data import END, GROUP, START, Shape, events_of
from psycopg import Connection

from learning_assets.core.events import EventTable
from learning_assets.defs.run import MainJob, main_job
from learning_assets.sources.demo import REGIME_DIMENSIONS
from learning_assets.store import server
from learning_assets.store.connection import connect, open_database
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import Settings, settings
from learning_assets.store.sources import BookSource, remember_source

SIZES, FULL_SIZES = (10_000, 100_000), (10_000, 100_000, 1_000_000)
ACTIONS, EFFECTS = 3, 8
DAY = timedelta(days=1)
AT_ONCE = 2_000
WRITTEN = "COPY public.ad_strands FROM STDIN"
TABLE = """CREATE TABLE public.ad_strands (
  id text PRIMARY KEY, module text, kind text NOT NULL, symbol text, timeframe text,
  position_id text, trade_id uuid, content jsonb, regime_context jsonb,
  created_at timestamptz NOT NULL, updated_at timestamptz)"""


@dataclass(frozen=True, slots=True)
class Row:
    """A step at a size: seconds of the asset alone, and the peak memory of its process."""

    trades: int
    events: int
    stage: str
    seconds: float
    trades_per_second: float
    peak_mib: float


# --- the strands ---------------------------------------------------------------------------


def write_strands(conn: Connection[tuple[object, ...]], trades: int) -> None:
    """The trades as strands, a closing row and a row per action, in closing order."""
    events = events_of(Shape(trades, ACTIONS, effects=EFFECTS))
    conn.execute(TABLE)
    with conn.cursor() as cursor, cursor.copy(WRITTEN) as copy:
        for first in range(0, trades, AT_ONCE):
            copy.write("".join(_lines(events, range(first, min(first + AT_ONCE, trades)))))
    conn.execute("VACUUM ANALYZE public.ad_strands")


def _lines(events: EventTable, trades: range) -> Iterator[str]:
    is_regime = [dim in REGIME_DIMENSIONS for dim in events.dims]
    own = [dim in ("A_mode", "E_mode") for dim in events.dims]
    pairs = [
        [f'"{dim}": "{value}"' for value in known]
        for dim, known in zip(events.dims, events.values, strict=True)
    ]

    def words(codes: list[int], wanted: Callable[[int], bool]) -> str:
        return ", ".join(pairs[d][c - 1] for d, c in enumerate(codes) if wanted(d))

    columns = events.codes[:, trades.start * ACTIONS : trades.stop * ACTIONS].T.tolist()
    for k, t in enumerate(trades):
        name = f"{t:08x}-0000-4000-8000-{t:012x}"
        closed, opened = (f"{at[t]}+00:00" for at in (events.closed_at, events.opened_at))
        head = f"pm\t{{}}\tCOIN\t1h\tp{t}\t{name}"
        first = columns[k * ACTIONS]
        summary = (
            f'{{"rr": {float(events.rr[t])}, "pnl_usd": {float(events.rr[t]) * 100}, '
            f'"exit_timestamp": "{closed}", "entry_timestamp": "{opened}", '
            f'"time_to_payback_days": {float(events.payback_hours[t]) / 24}}}'
        )
        context = words(first, lambda d: not is_regime[d] and not own[d])
        regime = words(first, lambda d: is_regime[d])
        content = (
            f'{{"trade_id": "{name}", "trade_summary": {summary}, "entry_context": {{{context}}}}}'
        )
        tail = f"{{{regime}}}\t{closed}\t\\N\n"
        yield f"{name}-closed\t{head.format('position_closed')}\t{content}\t{tail}"
        for j in range(ACTIONS):
            codes = columns[k * ACTIONS + j]
            content = (
                f'{{"trade_id": "{name}", "pattern_key": "{GROUP.pattern_key}", '
                f'"action_category": "{GROUP.action_category}", '
                f'"scope": {{{words(codes, lambda d: own[d])}}}}}'
            )
            regime = words(codes, lambda d: is_regime[d])
            tail = f"{{{regime}}}\t{opened}\t\\N\n"
            yield f"{name}-{j}\t{head.format('pm_action')}\t{content}\t{tail}"


# --- the steps -----------------------------------------------------------------------------


def _learn(job: MainJob, as_of: datetime, *, anew: bool = False) -> None:
    options = {"as_of": as_of.isoformat(), "anew": anew}
    job.definitions.resolve_job_def("lessons").execute_in_process(
        instance=job.instance,
        partition_key="pm",
        run_config={
            "ops": {"learning_lessons": {"config": options}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


STAGES: dict[str, tuple[str, Callable[[MainJob], None]]] = {
    "take in": (
        "pattern_trade_events",
        lambda job: job.take_in(START.date(), (END - DAY).date()),
    ),
    "learn": ("learning_lessons, from nothing", lambda job: _learn(job, END - DAY)),
    "cached": (
        "learning_lessons, cut-offs cached",
        lambda job: _learn(job, END - DAY, anew=True),
    ),
    "day": ("learning_lessons, the last day new", lambda job: _learn(job, END)),
    "unchanged": ("learning_lessons, nothing new", lambda job: _learn(job, END)),
    "publish": ("pm_overrides", lambda job: job.publish(END, force=True)),
}


def run_stage(chosen: Settings, stage: str) -> None:
    """One step in this process; prints seconds and peak memory as JSON."""
    with main_job(chosen, lambda _: nullcontext()) as job:
        began = time.perf_counter()
        STAGES[stage][1](job)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def rows_of(trades: int, home: Path) -> Iterator[Row]:
    """All steps at one size, on a server of their own."""
    env = {**os.environ, "LEARNING_HOME": str(home)}
    for variable in ("LEARNING_DATABASE_URL", "LEARNING_STRANDS_URL", "LEARNING_DAGSTER_URL"):
        env.pop(variable, None)
    chosen = settings(env, "bench")
    with server.running(chosen):
        migrate(chosen)
        with open_database(chosen.learning_url, "the bench") as conn:
            write_strands(conn, trades)
        with connect(chosen) as conn:
            remember_source(conn, BookSource("strands", "public.ad_strands"))
        for stage, (name, _) in STAGES.items():
            found = _in_a_process(stage, env)
            per_second = trades / found["seconds"]
            yield Row(
                trades, trades * ACTIONS, name, found["seconds"], per_second, found["peak_mib"]
            )


def _in_a_process(stage: str, env: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--stage", stage], env=env, text=True, stdout=subprocess.PIPE
    )
    if done.returncode:
        raise SystemExit(f"the step {stage!r} failed")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Run the steps at each size and print a table, or JSON with `--json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="1,000,000 trades as well")
    parser.add_argument("--sizes", type=int, nargs="*", help="numbers of trades")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        run_stage(settings(os.environ, "bench"), args.stage)
        return
    rows = []
    for trades in args.sizes or (FULL_SIZES if args.full else SIZES):
        with tempfile.TemporaryDirectory(prefix="lp", dir="/tmp") as home:
            for row in rows_of(trades, Path(home)):
                rows.append(row)
                if not args.json:
                    print(
                        f"{row.trades:>9,} {row.stage:<36} {row.seconds:>8.1f} s "
                        f"{row.trades_per_second:>9,.0f}/s {row.peak_mib:>7,.0f} MiB",
                        flush=True,
                    )
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    made = {"machine": machine, "at": datetime.now(UTC).isoformat(), "numpy": np.__version__}
    if args.json:
        print(json.dumps({**made, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
