"""How large does Dagster's history of a book get, night by night with its housekeeping?

Copies real runs: from the history of the book `demo`, after `learning run` and `learning ui` have
been at it, the newest run of each job is copied to every tick of the plan `hybrid` of so many days,
and to the runs and looks of the sensor, into the history of a book `upkeep` that nobody uses. After
each day the housekeeping of that night runs on it, as of that night.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile

from dagster import DagsterInstance
from dagster._core.scheduler.instigation import TickStatus
from psycopg import sql

from learning_assets.defs.housekeeping import delete_runs
from learning_assets.defs.instance import instance_of
from learning_assets.defs.keeping import DEFAULT_KEEP_DAYS
from learning_assets.defs.plan_comparison import moments
from learning_assets.defs.plans import PLANS, UPKEEP, Planned
from learning_assets.defs.resources import BookResource
from learning_assets.defs.schedules import partitions_at
from learning_assets.defs.sensors import INTERVAL_SECONDS
from learning_assets.store import server
from learning_assets.store.connection import Conn
from learning_assets.store.housekeeping import history, history_bytes
from learning_assets.store.settings import Settings, settings

DAY = timedelta(days=1)
SKIPPED_DAYS = 2
OF_RUNS = ("run_tags", "event_logs", "asset_check_executions")


@dataclass(frozen=True, slots=True)
class Grown:
    """Bytes of the history: a day's growth without housekeeping, at the end, and in between.

    `bytes_by_day` is after each tenth day, `night_seconds` what a night took (median and longest).
    """

    days: int
    runs_a_day: float
    bytes_a_day: float
    bytes_by_day: Mapping[int, int]
    runs_left: int
    night_seconds_median: float
    night_seconds_longest: float


@dataclass(frozen=True, slots=True)
class Copied:
    """A run to be: of which template, when, and of which partition."""

    template: str
    at: datetime
    partition: str | None


def templates(conn: Conn) -> Mapping[str, tuple[str, str | None]]:
    """The newest run of one partition of each job, with that partition."""
    query = (
        "SELECT DISTINCT ON (pipeline_name) pipeline_name, run_id, value FROM runs "
        "LEFT JOIN (SELECT run_id, value FROM run_tags WHERE key = 'dagster/partition') AS tags "
        "USING (run_id) WHERE status = 'SUCCESS' AND (value IS NOT NULL OR pipeline_name IN "
        "('overrides', 'effectiveness', 'missing_days', 'housekeeping')) "
        "ORDER BY pipeline_name, runs.id DESC"
    )
    return {job: (run_id, value) for job, run_id, value in conn.execute(query)}


def runs_of_day(day: date, made: Mapping[str, tuple[str, str | None]], sensor: int) -> list[Copied]:
    """The runs of a day: of the plan, of the upkeep, and of the sensor."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found = [
        Copied(made[planned.job][0], at, key)
        for planned in (*PLANS["hybrid"].schedules, *UPKEEP)
        if planned.job in made
        for at in ticks(planned, start)
        for key in partitions_at(planned, at)
    ]
    between = DAY / max(sensor, 1)
    events = made["events"][0]
    return found + [Copied(events, start + k * between, day.isoformat()) for k in range(sensor)]


def ticks(planned: Planned, start: datetime) -> Iterator[datetime]:
    """The moments of one day."""
    return takewhile(lambda at: at < start + DAY, moments(planned.cron, start))


def copy_runs(conn: Conn, source: str, runs: list[Copied], old: Mapping[str, str | None]) -> None:
    """Write the runs into the schema of the connection, in one transaction."""
    with conn.transaction():
        conn.execute(
            "CREATE TEMP TABLE wanted (old_id text, run_id text, at timestamptz, old_part text, "
            "part text) ON COMMIT DROP"
        )
        with conn.cursor().copy("COPY wanted FROM STDIN") as copy:
            for run in runs:
                row = (run.template, str(uuid.uuid4()), run.at, old[run.template], run.partition)
                copy.write_row(row)
        for table in ("runs", *OF_RUNS):
            conn.execute(copying(conn, source, table))


TEXTS = ("event", "run_body", "evaluation_event", "value")
MOMENTS = ("timestamp", "create_timestamp", "update_timestamp", "evaluation_event_timestamp")
SECONDS = ("start_time", "end_time")


def copying(conn: Conn, source: str, table: str) -> sql.Composed:
    """The statement that copies the rows of the wanted runs."""
    names = [
        name
        for (name,) in conn.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s "
            "AND table_name = %s AND column_name <> 'id'",
            [source, table],
        )
    ]
    return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM wanted JOIN {} AS x ON x.run_id = old_id")\
        .format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(sql.SQL(expression(name)) for name in names),
            sql.Identifier(source, table),
        )  # fmt: skip


def expression(column: str) -> str:
    """What a column of a copied row holds."""
    if column == "run_id":
        return "wanted.run_id"
    if column == "partition":
        return "CASE WHEN x.partition = old_part THEN part ELSE x.partition END"
    if column in TEXTS:
        new = f"replace(x.{column}, x.run_id, wanted.run_id)"
        return f"CASE WHEN old_part IS NULL THEN {new} ELSE replace({new}, old_part, part) END"
    if column in MOMENTS:
        return "at AT TIME ZONE 'UTC'"
    if column in SECONDS:
        return "extract(epoch FROM at)"
    return f'x."{column}"'


def copy_looks(conn: Conn, source: str, start: datetime) -> tuple[str, str] | None:
    """The looks of the sensor in a day in which nothing was to do; whose they are."""
    found = conn.execute(
        sql.SQL(
            "SELECT job_origin_id, selector_id, status, type, tick_body FROM {} "
            "WHERE type = 'SENSOR' AND status = 'SKIPPED' ORDER BY id DESC LIMIT 1"
        ).format(sql.Identifier(source, "job_ticks"))
    ).fetchone()
    if found is None:
        return None
    conn.execute(
        "INSERT INTO job_ticks (job_origin_id, selector_id, status, type, tick_body, timestamp, "
        "create_timestamp, update_timestamp) SELECT %s, %s, %s, %s, %s, at, at, at FROM "
        "generate_series(%s::timestamp, %s::timestamp, make_interval(secs => %s)) AS at",
        [*found, start.replace(tzinfo=None), (start + DAY).replace(tzinfo=None), INTERVAL_SECONDS],
    )
    return str(found[0]), str(found[1])


def grow(demo: Settings, target: Settings, days: int, sensor: int) -> Grown:
    """Live through so many days that end today, each with its night."""
    with history(demo) as conn:
        made = templates(conn)
    old = dict(made.values())
    today, book = datetime.now(UTC).date(), BookResource(name=target.book)
    sizes, nights, n_runs = [], [], 0
    with instance_of(target) as instance, history(target) as conn:
        empty(conn, demo.dagster_schema)
        sizes.append(history_bytes(conn))
        for k in range(1, days + 1):
            day = today - (days - k) * DAY
            runs = runs_of_day(day, made, sensor)
            n_runs += len(runs)
            copy_runs(conn, demo.dagster_schema, runs, old)
            night = datetime(day.year, day.month, day.day, tzinfo=UTC) + DAY
            looks = copy_looks(conn, demo.dagster_schema, night - DAY)
            began = time.perf_counter()
            keep_house(instance, book, night, looks)
            nights.append(time.perf_counter() - began)
            conn.execute("VACUUM ANALYZE")
            sizes.append(history_bytes(conn))
        left = conn.execute("SELECT count(*) FROM runs").fetchone()
    assert left is not None
    # Housekeeping has nothing to delete in the first three days.
    by_day = {k: sizes[k] for k in (1, 2, 3, *range(10, days + 1, 10))}
    growth = (sizes[3] - sizes[0]) / 3
    return Grown(
        days, n_runs / days, growth, by_day, left[0], statistics.median(nights), max(nights)
    )


def empty(conn: Conn, source: str) -> None:
    """Begin with nothing but what runs refer to."""
    for table in ("run_tags", "runs", "event_logs", "asset_check_executions", "job_ticks"):
        conn.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.Identifier(table)))
    conn.execute(
        sql.SQL(
            "INSERT INTO snapshots (snapshot_id, snapshot_body, snapshot_type) "
            "SELECT snapshot_id, snapshot_body, snapshot_type FROM {} ON CONFLICT DO NOTHING"
        ).format(sql.Identifier(source, "snapshots"))
    )


def keep_house(
    instance: DagsterInstance, book: BookResource, now: datetime, looks: tuple[str, str] | None
) -> None:
    """A night: runs by the housekeeping, looks as the daemon does."""
    delete_runs(instance, book, now - DEFAULT_KEEP_DAYS * DAY)
    if looks is not None:
        before = (now - SKIPPED_DAYS * DAY).timestamp()
        instance.purge_ticks(*looks, before, [TickStatus.SKIPPED])


def main() -> None:
    """Print what became of the history as one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--sensor", type=int, default=60, help="runs of the sensor a day")
    args = parser.parse_args()
    demo, target = settings(os.environ, "demo"), settings(os.environ, "upkeep")
    with server.running(demo):
        os.environ["LEARNING_BOOK"] = target.book
        print(json.dumps(asdict(grow(demo, target, args.days, args.sensor)), indent=2))


if __name__ == "__main__":
    main()
