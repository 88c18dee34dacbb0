from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from psycopg import sql

from learning_assets.core.records import GroupKey
from learning_assets.errors import UserError
from learning_assets.sources.older import EDGES, LESSONS, OVERRIDES, OlderTables, read_older
from learning_assets.store.connection import Conn

AT = datetime(2025, 6, 2, tzinfo=UTC)
ENTRY = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
TYPES = {
    LESSONS: "module text, pattern_key text, action_category text, scope_subset jsonb, n int, "
    "stats jsonb, lesson_type text, decay_halflife_hours float, latent_factor_id text, status text",
    EDGES: "pattern_key text, action_category text, scope_signature text, edge_raw float, "
    "ts timestamptz, n int",
    OVERRIDES: "pattern_key text, action_category text, scope_subset jsonb, multiplier float",
}
LESSON = {
    "module": "pm",
    "pattern_key": "module=pm|pattern_key=uptrend.S1.buy_flag",
    "action_category": "entry",
    "scope_subset": {"chain": "solana", "bucket_rank_position": 1},
    "n": 50,
    "stats": {"edge_raw": 0.31, "avg_rr": 0.7},
    "lesson_type": "pm_strength",
    "decay_halflife_hours": 168.0,
    "latent_factor_id": "lf_x",
    "status": "active",
}
EDGE = {
    "pattern_key": "pm.uptrend.S1.buy_flag",
    "action_category": "entry",
    "scope_signature": "mcap_bucket=micro|chain=solana",
    "edge_raw": 0.85,
    "ts": AT,
    "n": 40,
}
OVERRIDE = {
    "pattern_key": "uptrend.S1.buy_flag",
    "action_category": "entry",
    "scope_subset": {},
    "multiplier": 1.4,
}
_numbers = itertools.count(1)


@pytest.fixture
def schema(conn: Conn) -> str:
    name = f"older{next(_numbers)}"
    conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    return name


def _make(conn: Conn, schema: str, table: str, *rows: Mapping[str, object]) -> None:
    name = sql.Identifier(schema, table)
    conn.execute(sql.SQL("CREATE TABLE {} ").format(name) + sql.SQL(f"({TYPES[table]})"))
    for row in rows:
        values = [json.dumps(v) if isinstance(v, (dict, list)) else v for v in row.values()]
        columns = sql.SQL(", ").join(map(sql.Identifier, row))
        marks = sql.SQL(", ").join([sql.Placeholder()] * len(values))
        conn.execute(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(name, columns, marks), values
        )


def _read(conn: Conn, schema: str, table: str, *rows: Mapping[str, object]) -> OlderTables:
    _make(conn, schema, table, *rows)
    return read_older(conn, schema)


def test_a_lesson_is_read_under_our_names(conn: Conn, schema: str) -> None:
    found = _read(conn, schema, LESSONS, LESSON)
    [lesson] = found.lessons
    assert lesson.group == ENTRY
    assert lesson.scope_subset == (("bucket_rank_position", "1"), ("chain", "solana"))
    assert (lesson.n, lesson.edge_raw, lesson.half_life_hours) == (50, 0.31, 168.0)
    assert (lesson.lesson_type, lesson.factor_id, lesson.status) == (
        *("pm_strength", "lf_x", "active"),
    )
    assert lesson.stats == {"edge_raw": 0.31, "avg_rr": 0.7}
    assert found.missing == (EDGES, OVERRIDES)
    assert found.left_out == {}


def test_what_a_lesson_does_not_say_is_none(conn: Conn, schema: str) -> None:
    bare = {**dict.fromkeys(LESSON), "pattern_key": "dm.a.b", "action_category": "allocation"}
    [lesson] = _read(conn, schema, LESSONS, bare).lessons
    assert lesson.group == GroupKey("dm", "dm.a.b", "allocation")
    assert lesson.scope_subset == ()
    assert (lesson.n, lesson.edge_raw, lesson.half_life_hours, lesson.status) == (None,) * 4


def test_of_two_spellings_of_a_slice_the_larger_counts(conn: Conn, schema: str) -> None:
    dotted = {**LESSON, "pattern_key": "pm.uptrend.S1.buy_flag", "n": 20}
    [lesson] = _read(conn, schema, LESSONS, LESSON, dotted).lessons
    assert lesson.n == 50


@pytest.mark.parametrize(
    ("written", "signature"),
    [
        ("mcap_bucket=micro|chain=solana", "chain=solana|mcap_bucket=micro"),
        ("chain=", "*"),
        ("", "*"),
        (None, "*"),
        ("a1b2c3", "a1b2c3"),
    ],
)
def test_an_edge_is_read_as_it_was(
    conn: Conn, schema: str, written: str | None, signature: str
) -> None:
    [edge] = _read(conn, schema, EDGES, {**EDGE, "scope_signature": written}).edges
    assert (edge.pattern_key, edge.action_category) == ENTRY[1:]
    assert (edge.scope_signature, edge.ts, edge.edge_raw, edge.n) == (signature, AT, 0.85, 40)


def test_an_override_without_module_or_multiplier(conn: Conn, schema: str) -> None:
    dm = {"pattern_key": "lowcap.a", "action_category": "allocation"}
    found = _read(conn, schema, OVERRIDES, OVERRIDE, {**OVERRIDE, **dm, "multiplier": "NaN"})
    assert [(o.group, o.multiplier) for o in found.overrides] == [
        (ENTRY, 1.4),
        (GroupKey("dm", "dm.lowcap.a", "allocation"), None),
    ]


@pytest.mark.parametrize(
    ("table", "good", "change", "reason"),
    [
        (LESSONS, LESSON, {"pattern_key": None}, "no pattern key"),
        (LESSONS, LESSON, {"module": "xy"}, "not pm or dm"),
        (LESSONS, LESSON, {"action_category": "hold"}, "action category"),
        (LESSONS, LESSON, {"scope_subset": [1]}, "no JSON object"),
        (LESSONS, LESSON, {"scope_subset": {"a": []}}, "scope"),
        (LESSONS, LESSON, {"n": -1}, "no number of trades"),
        (LESSONS, LESSON, {"stats": {"edge_raw": "high"}}, "edge_raw: 'high' is no number"),
        (EDGES, EDGE, {"edge_raw": None}, "no edge_raw"),
        (EDGES, EDGE, {"ts": None}, "timestamp"),
        (OVERRIDES, OVERRIDE, {"pattern_key": "pm."}, "pattern key"),
    ],
)
def test_a_row_that_cannot_be_used_is_counted(
    conn: Conn,
    schema: str,
    table: str,
    good: Mapping[str, object],
    change: Mapping[str, object],
    reason: str,
) -> None:
    found = _read(conn, schema, table, good, {**good, **change})
    assert len(found.lessons) + len(found.edges) + len(found.overrides) == 1
    [[said, n]] = found.left_out[table].items()
    assert reason in said
    assert n == 1


def test_columns_of_other_types_are_read_by_their_text(conn: Conn, schema: str) -> None:
    conn.execute(
        f"CREATE TABLE {schema}.pm_overrides (pattern_key text, action_category text, "
        "scope_subset jsonb, multiplier text)"
    )
    conn.execute(f"INSERT INTO {schema}.pm_overrides VALUES ('pm.a', 'entry', '{{}}', '1.25')")
    [override] = read_older(conn, schema).overrides
    assert override.multiplier == 1.25
    conn.execute(f"UPDATE {schema}.pm_overrides SET multiplier = 'much'")
    with pytest.raises(UserError, match=r"no row of .* 'much' is no number"):
        read_older(conn, schema)


def test_a_schema_without_its_tables_is_refused(conn: Conn, schema: str) -> None:
    with pytest.raises(UserError, match=f"{schema} holds none.*--schema"):
        read_older(conn, schema)


def test_a_missing_column_is_named(conn: Conn, schema: str) -> None:
    conn.execute(f"CREATE TABLE {schema}.learning_edge_history (pattern_key text, ts text)")
    with pytest.raises(UserError, match=r"no column action_category, .*; it has pattern_key, ts"):
        read_older(conn, schema)


def test_our_own_tables_are_none_of_the_older_scheduler(
    conn: Conn, server_env: Mapping[str, str]
) -> None:
    own = conn.execute("SELECT current_schema()").fetchone()
    assert own is not None
    with pytest.raises(UserError, match="holds none"):
        read_older(conn, own[0])


def test_a_user_who_may_not_read_is_told_so(conn: Conn, schema: str) -> None:
    _make(conn, schema, OVERRIDES, OVERRIDE)
    conn.execute("DROP ROLE IF EXISTS stranger")
    conn.execute("CREATE ROLE stranger")
    conn.execute("SET ROLE stranger")
    with pytest.raises(UserError, match="grant SELECT"):
        read_older(conn, schema)
    conn.execute("RESET ROLE")
