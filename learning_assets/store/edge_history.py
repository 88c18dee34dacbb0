"""The edge history: what each lesson earned in each week.

What an edge is, is the business of `core.history`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from learning_assets.core.history import WEEK, EdgePoint
from learning_assets.core.records import GroupKey
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows
from learning_assets.store.tables import LEARNING_EDGE_HISTORY

_COLUMNS = LEARNING_EDGE_HISTORY.column_names


def replace_edge_history(
    conn: Conn, points: Iterable[EdgePoint], first_week: datetime, last_week: datetime
) -> int:
    """Make `points` the rows of their weeks, in one transaction; return how many were written.

    The rows of the weeks from `first_week` to `last_week` (Mondays, both included) are replaced.
    Points of other weeks are written where there is no row yet: a lesson that is new brings its
    past along, and what was there stays.
    """
    with conn.transaction():
        table_lock(conn, LEARNING_EDGE_HISTORY.name)
        conn.execute(
            "DELETE FROM learning_edge_history WHERE ts BETWEEN %s AND %s", [first_week, last_week]
        )
        conn.execute("CREATE TEMP TABLE new_points (LIKE learning_edge_history) ON COMMIT DROP")
        copy_rows(conn, "new_points", _COLUMNS, map(_row, points))
        written = conn.execute(
            f"INSERT INTO learning_edge_history ({', '.join(_COLUMNS)}) "
            f"SELECT {', '.join(_COLUMNS)} FROM new_points ON CONFLICT DO NOTHING"
        ).rowcount
        conn.execute("DROP TABLE new_points")
    return written


def _row(point: EdgePoint) -> tuple[object, ...]:
    return (
        point.lesson_id,
        *point.group,
        point.scope_signature,
        point.week,
        point.n,
        point.delta_rr,
        point.se,
        point.edge_raw,
    )


def edge_history(conn: Conn, as_of: datetime) -> list[EdgePoint]:
    """The rows of all weeks that had ended by `as_of`, by lesson and week."""
    rows = conn.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM learning_edge_history WHERE ts <= %s "
        "ORDER BY lesson_id, ts",
        [as_of - WEEK],
    )
    return [
        EdgePoint(name, GroupKey(*group), scope, week, delta_rr, se, n, edge_raw)
        for name, *group, scope, week, n, delta_rr, se, edge_raw in rows
    ]
