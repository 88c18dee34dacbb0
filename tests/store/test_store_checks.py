"""Each check of the tables: a sound book offends none, and each offence is found by its own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from psycopg import sql

from learning_assets.core.config import LearningConfig
from learning_assets.errors import UserError
from learning_assets.store.checks import CHECKS, Check, look, of_asset, refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import TABLES

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CONFIG = LearningConfig()
BY_NAME = {check.name: check for check in CHECKS}

GROUP = {"module": "pm", "pattern_key": "pm.a.S1.b", "action_category": "entry"}
EVENT = {
    "event_id": "t:1", "trade_id": "t", "source": "s", **GROUP, "scope": "{}", "rr": 1.0,
    "closed_at": "2026-05-01Z", "opened_at": "2026-04-30Z", "trade_digest": "d",
}  # fmt: skip
STATS = '{"avg_rr": 1, "variance": 1, "delta_rr": 1, "se": 1, "joint_edge_r": 1}'
LESSON = {
    "lesson_id": "l", **GROUP, "scope_subset": "{}", "scope_signature": "*", "n": 50,
    "stats": STATS, "lesson_type": "pm_strength", "status": "active", "reason": "",
    "as_of": "2026-05-01Z",
}  # fmt: skip
POINT = {
    "lesson_id": "l", **GROUP, "scope_signature": "*", "ts": "2026-05-04Z", "n": 5,
    "delta_rr": 0.1, "se": 0.2, "edge_raw": 0.1,
}  # fmt: skip
HALF_LIFE = {
    "as_of": "2026-05-04Z", "lesson_id": "l", "status": "decaying", "half_life_hours": 500.0,
    "low": 300.0, "high": 900.0, "n_windows": 9,
}  # fmt: skip
WEIGHTS = {
    "as_of": "2026-05-04Z", **GROUP, "regime_signature": "*", "weights": '{"time": 1.2}',
    "n_samples": 30, "confidence": 0.6,
}  # fmt: skip
FACTOR = {
    "as_of": "2026-05-04Z", "factor_id": "lf_a", "module": "pm", "action_category": "entry",
    "pattern_keys": ["pm.a.S1.b"], "representative_pattern": "pm.a.S1.b",
    "representative_lesson": "l", "members": '[{"lesson_id": "l", "overlap": 1}]',
    "correlation_matrix": "[[1]]",
}  # fmt: skip
WEEK = {
    "ts": "2026-05-18Z", "n_trades": 3, "n_overrides": 1, "n_matched": 1,
    "modules": '{"pm": {"gain": 0.5}}', "overrides": "[]", "evaluated_at": "2026-05-30Z",
    "learned_from": "d",
}  # fmt: skip
SOUND: Mapping[str, Mapping[str, object]] = {
    "pattern_trade_events": EVENT,
    "learning_lessons": LESSON,
    "learning_edge_history": POINT,
    "learning_half_lives": HALF_LIFE,
    "learning_regime_weights": WEIGHTS,
    "learning_latent_factors": FACTOR,
    "override_effectiveness": WEEK,
}
REJECTED = {
    "row_id": "r", "reason": "bad_rr", "detail": "d", "payload": "{}", "source": "s",
}  # fmt: skip

OFFENCES: list[tuple[str, str, Mapping[str, object]]] = [
    ("one_outcome_per_trade", "pattern_trade_events", EVENT | {"event_id": "t:2", "rr": 2.0}),
    (
        "outcomes_in_range",
        "pattern_trade_events",
        EVENT | {"event_id": "u:1", "trade_id": "u", "closed_at": "2026-06-02Z"},
    ),
    ("few_rejected", "rejected_strands", REJECTED),
    ("enough_trades", "learning_lessons", LESSON | {"lesson_id": "m", "n": 32}),
    (
        "finite_statistics",
        "learning_lessons",
        LESSON | {"lesson_id": "m", "stats": '{"avg_rr": null}'},
    ),
    (
        "redundancy_is_explained",
        "learning_lessons",
        LESSON | {"lesson_id": "m", "status": "redundant", "stats": '{"explained_by": ["x"]}'},
    ),
    ("no_future_weeks", "learning_edge_history", POINT | {"ts": "2026-06-01Z"}),
    ("no_future_weeks", "learning_edge_history", POINT | {"ts": "2026-05-05Z"}),
    ("no_future_weeks", "learning_edge_history", POINT | {"ts": "2026-04-27Z", "se": 0.0}),
    (
        "half_lives_in_range",
        "learning_half_lives",
        HALF_LIFE | {"lesson_id": "m", "half_life_hours": 9000.0, "high": 9500.0},
    ),
    (
        "half_lives_in_range",
        "learning_half_lives",
        HALF_LIFE | {"lesson_id": "m", "status": "stable"},
    ),
    ("half_lives_in_range", "learning_half_lives", HALF_LIFE | {"lesson_id": "m", "low": 600.0}),
    (
        "weights_in_range",
        "learning_regime_weights",
        WEIGHTS | {"regime_signature": "x", "weights": '{"time": 1.8}'},
    ),
    (
        "weights_in_range",
        "learning_regime_weights",
        WEIGHTS | {"regime_signature": "x", "n_samples": 0},
    ),
    ("one_factor_per_lesson", "learning_latent_factors", FACTOR | {"factor_id": "lf_b"}),
    (
        "one_factor_per_lesson",
        "learning_latent_factors",
        FACTOR | {"factor_id": "lf_b", "members": "[]"},
    ),
    ("only_weeks_that_ended", "override_effectiveness", WEEK | {"ts": "2026-05-29Z"}),
    (
        "only_weeks_that_ended",
        "override_effectiveness",
        WEEK | {"ts": "2026-05-11Z", "modules": '{"pm": {"gain": 1.2}}'},
    ),
]


def insert(conn: Conn, table: str, row: Mapping[str, object]) -> None:
    known = next(t for t in TABLES if t.name == table)
    assert row.keys() <= set(known.column_names)
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Placeholder, row)),
    )
    conn.execute(query, row)


@pytest.fixture
def sound(conn: Conn) -> Conn:
    for table, row in SOUND.items():
        insert(conn, table, row)
    return conn


def test_nothing_offends_in_an_empty_book(conn: Conn) -> None:
    assert all(look(conn, check, CONFIG, NOW).passed for check in CHECKS)


def test_nothing_offends_in_a_sound_book(sound: Conn) -> None:
    found = {check.name: look(sound, check, CONFIG, NOW) for check in CHECKS}
    assert {name for name, f in found.items() if not f.passed} == set()
    refuse_unsound(sound, [check.asset for check in CHECKS], CONFIG, NOW)


@pytest.mark.parametrize(("name", "table", "row"), OFFENCES)
def test_what_offends_is_found_by_its_check_alone(
    sound: Conn, name: str, table: str, row: Mapping[str, object]
) -> None:
    insert(sound, table, row)
    found = {check.name: look(sound, check, CONFIG, NOW) for check in CHECKS}
    assert {n for n, f in found.items() if not f.passed} == {name}
    assert found[name].offenders >= 1
    check = BY_NAME[name]
    if check.is_blocking:
        with pytest.raises(UserError, match=name):
            refuse_unsound(sound, [check.asset], CONFIG, NOW)
    else:
        refuse_unsound(sound, [check.asset], CONFIG, NOW)


def test_every_check_has_an_offence_and_a_reader() -> None:
    assert {name for name, _, _ in OFFENCES} == BY_NAME.keys()
    assert all(check.description.endswith(".") for check in CHECKS)
    assert {check.name for check in of_asset("learning_lessons")} == {
        *("enough_trades", "finite_statistics", "redundancy_is_explained")
    }


def test_a_redundant_lesson_may_name_one_that_wore_out(sound: Conn) -> None:
    insert(sound, "learning_lessons", LESSON | {"lesson_id": "w", "status": "deprecated", "n": 0})
    explained = '{"explained_by": ["w"]}'
    row = LESSON | {"lesson_id": "m", "status": "redundant", "stats": explained}
    insert(sound, "learning_lessons", row)
    check: Check = BY_NAME["redundancy_is_explained"]
    assert look(sound, check, CONFIG, NOW).passed
