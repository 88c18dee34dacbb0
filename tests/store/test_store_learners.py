"""Edge history, half-lives and latent factors in the tables, and what the lessons know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from learning_assets.core.factors import Factor
from learning_assets.core.halflife import HalfLife
from learning_assets.core.history import EdgePoint
from learning_assets.core.records import (
    DecayState,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    SliceStats,
)
from learning_assets.store import edge_history, events, factors, half_lives, lessons
from learning_assets.store.connection import Conn
from learning_assets.store.tables import TABLES

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
WEEK = timedelta(days=7)
GROUP = GroupKey("pm", "pm.up/down.S1.flag", "entry")
ONE = Lesson(
    GROUP,
    (("chain", "solana"),),
    LessonStatus.ACTIVE,
    SliceStats(50, 0.4, 1.4, 0.4, 0.1, 4.0, 0.001, 0.01, 4.4, 3.9),
    Multipliers(0.7, 0.8, 0.9, 0.4, None, None, 0, None),
    0.05,
    0.4,
    0.1,
)
TWO = replace(ONE, scope_subset=(("chain", "base"),))
FADING = HalfLife(DecayState.DECAYING, 500.25, 300.0, 900.5, 0.1 + 0.2, 12, 5e-324, 0.0014)
UNKNOWN = HalfLife(DecayState.INSUFFICIENT, None, None, None, None, 2, None, None)
FACTOR = Factor(
    "lf_solana",
    "pm",
    "entry",
    (GROUP.pattern_key,),
    ONE.lesson_id,
    ((ONE.lesson_id, 1.0), (TWO.lesson_id, 2 / 3)),
    ((1.0, 0.1 + 0.2), (0.1 + 0.2, 1.0)),
)


def _store(conn: Conn, *found: Lesson) -> None:
    state = lessons.ModuleState("digest", MONDAY, 10, 0)
    lessons.replace_lessons(conn, "pm", MONDAY, found, state)


def _columns(conn: Conn) -> Mapping[str, tuple[float | None, str | None]]:
    query = "SELECT lesson_id, decay_halflife_hours, latent_factor_id FROM learning_lessons"
    return {name: (hours, factor) for name, hours, factor in conn.execute(query)}


def _point(weeks: int, lesson: Lesson = ONE, delta_rr: float = 0.1 + 0.2) -> EdgePoint:
    at = MONDAY + weeks * WEEK
    return EdgePoint(lesson.lesson_id, lesson.group, "chain=x", at, delta_rr, 0.07, 12, 0.01)


# --- edge history ----------------------------------------------------------------------------


def test_edges_come_back_as_they_were(conn: Conn) -> None:
    points = [_point(0), _point(1)]
    assert edge_history.replace_edge_history(conn, points, MONDAY, MONDAY + WEEK) == 2
    assert edge_history.edge_history(conn, MONDAY + 2 * WEEK) == points


def test_only_weeks_that_had_ended_are_read(conn: Conn) -> None:
    edge_history.replace_edge_history(conn, [_point(0), _point(1)], MONDAY, MONDAY + WEEK)
    assert edge_history.edge_history(conn, MONDAY + 2 * WEEK - timedelta(seconds=1)) == [_point(0)]
    assert edge_history.edge_history(conn, MONDAY) == []


def test_weeks_are_replaced_and_others_only_filled_in(conn: Conn) -> None:
    old = [_point(w) for w in range(4)]
    edge_history.replace_edge_history(conn, old, MONDAY, MONDAY + 3 * WEEK)
    new = [_point(w, delta_rr=9.0) for w in range(3)] + [_point(w, TWO) for w in range(3)]
    written = edge_history.replace_edge_history(conn, new, MONDAY + WEEK, MONDAY + 2 * WEEK)
    assert written == 2 + 3
    stored = edge_history.edge_history(conn, MONDAY + 9 * WEEK)
    found = {(p.lesson_id, p.week): p.delta_rr for p in stored}
    mine = [found[ONE.lesson_id, MONDAY + w * WEEK] for w in range(4)]
    assert mine == [0.1 + 0.2, 9.0, 9.0, 0.1 + 0.2]
    assert sum(name == TWO.lesson_id for name, _ in found) == 3


def test_a_week_without_points_is_emptied(conn: Conn) -> None:
    edge_history.replace_edge_history(conn, [_point(0)], MONDAY, MONDAY)
    edge_history.replace_edge_history(conn, [], MONDAY, MONDAY)
    assert edge_history.edge_history(conn, MONDAY + WEEK) == []


# --- half-lives ------------------------------------------------------------------------------


def test_half_lives_come_back_as_they_were(conn: Conn) -> None:
    found = {ONE.lesson_id: FADING, TWO.lesson_id: UNKNOWN}
    half_lives.replace_half_lives(conn, MONDAY, found)
    back = half_lives.half_lives(conn, MONDAY)
    assert back is not None
    assert (back.as_of, back.by_lesson) == (MONDAY, found)


def test_the_newest_half_lives_not_later_than_the_moment_count(conn: Conn) -> None:
    for weeks in (0, 2, 1):
        found = {ONE.lesson_id: replace(FADING, n_windows=weeks)}
        half_lives.replace_half_lives(conn, MONDAY + weeks * WEEK, found)
    assert half_lives.half_lives(conn, MONDAY - WEEK) is None
    for days, weeks in ((0, 0), (8, 1), (13, 1), (14, 2), (100, 2)):
        back = half_lives.half_lives(conn, MONDAY + timedelta(days=days))
        assert back is not None
        assert back.as_of == MONDAY + weeks * WEEK
        assert back.by_lesson[ONE.lesson_id].n_windows == weeks


def test_lessons_know_the_newest_half_life(conn: Conn) -> None:
    _store(conn, ONE, TWO)
    found = {ONE.lesson_id: FADING, TWO.lesson_id: UNKNOWN}
    half_lives.replace_half_lives(conn, MONDAY, found)
    older = {ONE.lesson_id: replace(FADING, half_life_hours=1.0)}
    half_lives.replace_half_lives(conn, MONDAY - WEEK, older)
    hours = {name: hours for name, (hours, _) in _columns(conn).items()}
    assert hours == {ONE.lesson_id: 500.25, TWO.lesson_id: None}
    half_lives.replace_half_lives(conn, MONDAY + WEEK, {TWO.lesson_id: FADING})
    hours = {name: hours for name, (hours, _) in _columns(conn).items()}
    assert hours == {ONE.lesson_id: None, TWO.lesson_id: 500.25}


# --- factors ---------------------------------------------------------------------------------


def test_factors_come_back_as_they_were(conn: Conn) -> None:
    other = replace(FACTOR, factor_id="lf_a", members=((ONE.lesson_id, 1.0),), matrix=((1.0,),))
    factors.replace_factors(conn, MONDAY, [FACTOR])
    factors.replace_factors(conn, MONDAY, [FACTOR, other])
    back = factors.factors(conn, MONDAY + timedelta(days=3))
    assert back is not None
    assert (back.as_of, list(back.factors)) == (MONDAY, [other, FACTOR])
    assert factors.factors(conn, MONDAY - WEEK) is None
    query = "SELECT DISTINCT representative_pattern FROM learning_latent_factors"
    assert conn.execute(query).fetchall() == [(GROUP.pattern_key,)]


def test_lessons_know_their_newest_factor(conn: Conn) -> None:
    _store(conn, ONE, TWO)
    factors.replace_factors(conn, MONDAY, [FACTOR])
    factors.replace_factors(conn, MONDAY - WEEK, [replace(FACTOR, factor_id="lf_old")])
    assert {factor for _, factor in _columns(conn).values()} == {"lf_solana"}
    alone = replace(FACTOR, members=FACTOR.members[:1], matrix=((1.0,),))
    factors.replace_factors(conn, MONDAY + WEEK, [alone])
    found = {name: factor for name, (_, factor) in _columns(conn).items()}
    assert found == {ONE.lesson_id: "lf_solana", TWO.lesson_id: None}


# --- all of them -----------------------------------------------------------------------------


def test_rebuilding_lessons_touches_neither_half_life_nor_factor(conn: Conn) -> None:
    _store(conn, ONE, TWO)
    half_lives.replace_half_lives(conn, MONDAY, {ONE.lesson_id: FADING})
    factors.replace_factors(conn, MONDAY, [FACTOR])
    before = _columns(conn)
    assert before[ONE.lesson_id] == (500.25, "lf_solana")
    _store(conn, replace(ONE, joint_edge_r=0.2), TWO)
    assert _columns(conn) == before


def test_a_failure_leaves_the_old_results(conn: Conn) -> None:
    _store(conn, ONE)
    factors.replace_factors(conn, MONDAY, [FACTOR])
    with pytest.raises(Exception, match="module"):
        factors.replace_factors(conn, MONDAY, [replace(FACTOR, module="xx")])
    back = factors.factors(conn, MONDAY)
    assert back is not None
    assert back.factors == [FACTOR]


def test_a_reset_empties_every_table(conn: Conn) -> None:
    _store(conn, ONE)
    edge_history.replace_edge_history(conn, [_point(0)], MONDAY, MONDAY)
    half_lives.replace_half_lives(conn, MONDAY, {ONE.lesson_id: FADING})
    factors.replace_factors(conn, MONDAY, [FACTOR])
    events.reset(conn)
    for table in TABLES:
        assert conn.execute(f"SELECT count(*) FROM {table.name}").fetchone() == (0,), table.name
