"""How long the runs of each job took, from Dagster's history of a book."""

from __future__ import annotations

from dataclasses import dataclass

from learning_assets.store.connection import Conn


@dataclass(frozen=True, slots=True)
class RunTimes:
    """The median of what successful runs of a job took, in seconds, and how many there were.

    Of lessons, `module` is theirs and `idle` says that the run found nothing new; of others they
    are None and False.
    """

    job: str
    module: str | None
    idle: bool
    seconds: float
    n: int


_QUERY = """
WITH lessons AS (
    SELECT run_id, min(partition) AS module, bool_and(event LIKE '%"label": "unchanged"%') AS idle
    FROM event_logs
    WHERE asset_key = '["learning_lessons"]' AND dagster_event_type = 'ASSET_MATERIALIZATION'
    GROUP BY run_id
)
SELECT pipeline_name, CASE WHEN pipeline_name = 'lessons' THEN module END AS module,
    pipeline_name = 'lessons' AND coalesce(idle, false) AS is_idle,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY end_time - start_time), count(*)
FROM runs LEFT JOIN lessons USING (run_id)
WHERE status = 'SUCCESS' AND start_time IS NOT NULL AND end_time IS NOT NULL
    AND NOT (pipeline_name = 'events' AND EXISTS (
        SELECT 1 FROM run_tags WHERE run_tags.run_id = runs.run_id
            AND run_tags.key = 'learning/process'))
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


def run_times(conn: Conn) -> list[RunTimes]:
    """What the successful runs in the history took; `conn` is to the tables of the history.

    Runs of the events by a person (`learning run`) read the whole source and are left out. Empty
    where Dagster has no history yet.
    """
    if conn.execute("SELECT to_regclass('runs')").fetchone() == (None,):
        return []
    return [RunTimes(*row) for row in conn.execute(_QUERY)]
