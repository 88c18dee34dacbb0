from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from learning_assets.core.comparison import OlderEdge, OlderLesson
from learning_assets.core.records import GroupKey
from learning_assets.store import edge_history, lessons
from learning_assets.store.connection import Conn
from learning_assets.store.imported import keep

NOW = datetime(2026, 6, 1, tzinfo=UTC)
GROUP = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
LESSON = OlderLesson(
    *(GROUP, (("chain", "solana"),), 50, 0.31, {"edge_raw": 0.31}, "pm_strength"),
    *(168.0, "lf_x", "active"),
)
EDGE = OlderEdge(GROUP.pattern_key, "entry", "chain=solana", NOW - timedelta(days=7), 0.8, None)


def _rows(conn: Conn, table: str) -> list[tuple[object, ...]]:
    return conn.execute(f"SELECT * FROM {table} ORDER BY 1, 4").fetchall()


def test_what_was_read_is_kept(conn: Conn) -> None:
    keep(conn, [LESSON], [EDGE], NOW)
    assert _rows(conn, "imported_lessons") == [
        (
            *("pm.uptrend.S1.buy_flag/entry/chain=solana", *GROUP, {"chain": "solana"}),
            *(50, 0.31, {"edge_raw": 0.31}, "pm_strength", 168.0, "lf_x", "active", NOW),
        )
    ]
    assert _rows(conn, "imported_edge_history") == [
        (GROUP.pattern_key, "entry", "chain=solana", EDGE.ts, 0.8, None, NOW)
    ]


def test_nothing_is_learned_from_it(conn: Conn) -> None:
    keep(conn, [LESSON], [EDGE], NOW)
    assert lessons.lessons(conn) == []
    assert edge_history.edge_history(conn, NOW + timedelta(days=400)) == []


def test_again_replaces_a_row_and_keeps_those_that_are_gone(conn: Conn) -> None:
    keep(conn, [LESSON], [EDGE], NOW)
    keep(conn, [LESSON], [EDGE], NOW)
    other = replace(LESSON, scope_subset=())
    later = NOW + timedelta(days=1)
    keep(conn, [replace(other, n=1)], [replace(EDGE, edge_raw=0.7)], later)
    keep(conn, [replace(other, n=2)], [], later)
    assert [row[5] for row in _rows(conn, "imported_lessons")] == [2, 50]
    assert [row[4] for row in _rows(conn, "imported_edge_history")] == [0.7]


def test_half_of_it_is_never_kept(conn: Conn) -> None:
    with pytest.raises(psycopg.errors.CardinalityViolation):
        keep(conn, [LESSON], [EDGE, EDGE], NOW)
    assert _rows(conn, "imported_lessons") == []
