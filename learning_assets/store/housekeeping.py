"""Which runs of Dagster's history are no longer needed, and what they leave behind.

Dagster deletes a run with its events when told to, and keeps what its asset checks found for
ever. Its tables are only looked at here; the one exception are rows of those checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from psycopg import sql

from learning_assets.store.connection import Conn, open_database
from learning_assets.store.settings import Settings

# The newest attempt and the newest success of each partition say what state it is in, and the
# newest look and the newest finished look of each check whether it holds.
_OLD_RUNS = """
WITH newest AS (
    SELECT max(id) AS id FROM event_logs
    WHERE asset_key IS NOT NULL AND dagster_event_type IN
        ('ASSET_MATERIALIZATION', 'ASSET_MATERIALIZATION_PLANNED', 'ASSET_OBSERVATION')
    GROUP BY asset_key, dagster_event_type, partition
), newest_looks AS (
    SELECT max(id) AS id FROM asset_check_executions
    GROUP BY asset_key, check_name, partition, execution_status = 'PLANNED'
), needed AS (
    SELECT run_id FROM event_logs JOIN newest USING (id)
    UNION SELECT run_id FROM asset_check_executions JOIN newest_looks USING (id)
), ended AS (
    SELECT id, run_id, row_number() OVER (PARTITION BY pipeline_name ORDER BY id DESC) AS place,
        coalesce(end_time, extract(epoch FROM update_timestamp AT TIME ZONE 'UTC')) AS at
    FROM runs WHERE status IN ('SUCCESS', 'FAILURE', 'CANCELED')
)
SELECT run_id FROM ended
WHERE (at < %(before)s OR place > %(most_of_job)s)
    AND NOT EXISTS (SELECT FROM needed WHERE needed.run_id = ended.run_id)
ORDER BY id LIMIT %(most)s
"""


@contextmanager
def history(settings: Settings) -> Iterator[Conn]:
    """A connection to the tables of the book's Dagster history.

    Raises:
        DatabaseAwayError: where the database does not answer.
    """
    named = "LEARNING_DAGSTER_URL" if settings.dagster_url else "the embedded server"
    with open_database(settings.history_url, named) as conn:
        schema = sql.Identifier(settings.dagster_schema)
        conn.execute(sql.SQL("SET search_path TO {}").format(schema))
        yield conn


def old_runs(conn: Conn, before: datetime, most_of_job: int, most: int) -> list[str]:
    """The ids of at most `most` runs that are not needed any more, the oldest first.

    These ended before a moment or have `most_of_job` newer ones of their job, and nothing rests on
    them. Kept are runs that have not ended, and those that hold the newest materialization, attempt
    or observation of an asset or partition, or the newest result of a check.
    """
    limits = {"before": before.timestamp(), "most_of_job": most_of_job, "most": most}
    return [name for (name,) in conn.execute(_OLD_RUNS, limits)]


def forget_checks(conn: Conn, runs: Sequence[str]) -> int:
    """Delete what the asset checks of these runs found; return how many rows."""
    query = "DELETE FROM asset_check_executions WHERE run_id = ANY(%s)"
    return conn.execute(query, [list(runs)]).rowcount


def history_bytes(conn: Conn) -> int:
    """How many bytes the tables of the history take, indexes and free space included."""
    row = conn.execute(
        "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
    ).fetchone()
    assert row is not None
    return int(row[0])
