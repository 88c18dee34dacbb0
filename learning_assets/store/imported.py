"""What was read of an older scheduler's tables, kept for comparison beside our own.

Nothing is learned from these rows, and no asset writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from learning_assets.core.comparison import OlderEdge, OlderLesson
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows, to_jsonb
from learning_assets.store.tables import IMPORTED_EDGE_HISTORY, IMPORTED_LESSONS, Table


def keep(
    conn: Conn, lessons: Sequence[OlderLesson], edges: Sequence[OlderEdge], now: datetime
) -> None:
    """Keep these rows, in one transaction: one that is there already is replaced.

    Rows of an earlier import that the older scheduler no longer has stay.
    """
    with conn.transaction():
        _upsert(conn, IMPORTED_LESSONS, (_lesson_row(lesson, now) for lesson in lessons))
        _upsert(conn, IMPORTED_EDGE_HISTORY, (_edge_row(edge, now) for edge in edges))


def _upsert(conn: Conn, table: Table, rows: Iterable[Sequence[object]]) -> None:
    columns = ", ".join(table.column_names)
    changes = ", ".join(f"{name} = excluded.{name}" for name in table.column_names)
    table_lock(conn, table.name)
    conn.execute(f"CREATE TEMP TABLE staged (LIKE {table.name}) ON COMMIT DROP")
    copy_rows(conn, "staged", table.column_names, rows)
    conn.execute(
        f"INSERT INTO {table.name} ({columns}) SELECT {columns} FROM staged "
        f"ON CONFLICT ({', '.join(table.primary_key)}) DO UPDATE SET {changes}"
    )
    conn.execute("DROP TABLE staged")


def _lesson_row(lesson: OlderLesson, now: datetime) -> tuple[object, ...]:
    return (
        lesson.lesson_id,
        *lesson.group,
        to_jsonb(dict(lesson.scope_subset)),
        lesson.n,
        lesson.edge_raw,
        to_jsonb(lesson.stats),
        lesson.lesson_type,
        lesson.half_life_hours,
        lesson.factor_id,
        lesson.status,
        now,
    )


def _edge_row(edge: OlderEdge, now: datetime) -> tuple[object, ...]:
    return (
        edge.pattern_key,
        edge.action_category,
        edge.scope_signature,
        edge.ts,
        edge.edge_raw,
        edge.n,
        now,
    )
