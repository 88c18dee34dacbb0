"""The edge history against its textbook version, and its promise not to look ahead."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_market import ALLOCATION, START, TWO, lesson, random_table, table

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, instant
from learning_assets.core.history import edge_history, last_full_week, monday
from learning_assets.core.membership import trades_of
from learning_assets.core.mining import group_of
from learning_assets.core.multipliers import edge_raw
from learning_assets.core.records import GroupKey, Lesson, LessonStatus

CONFIG = LearningConfig()
WEEK = timedelta(days=7)
LESSONS = (
    lesson({"d0": "a"}, 0.3),
    lesson({"d0": "a", "d1": "b"}, -0.4),
    lesson({"d2": "c"}, None, status=LessonStatus.DEPRECATED),
    lesson({}, 0.2),
    lesson({"d1": "a"}, 0.5, TWO),
    lesson({"d1": "b"}, 0.25, ALLOCATION),
)


def _members(events: EventTable, one: Lesson) -> set[int]:
    found = set()
    for action in range(events.n_events):
        scope = {
            dim: events.values[d][events.codes[d, action] - 1]
            for d, dim in enumerate(events.dims)
            if events.codes[d, action]
        }
        same = events.groups[events.group[action]] == one.group
        if same and all(scope.get(dim) == value for dim, value in one.scope_subset):
            found.add(int(events.trade[action]))
    return found


def _population(events: EventTable, one: Lesson) -> set[int]:
    """The trades that a lesson is compared within."""
    keys = [
        k
        for k in events.groups
        if k == one.group
        or (not one.scope_subset and (k.module, k.action_category) == (one.group.module, "entry"))
    ]
    return {
        int(t) for t, g in zip(events.trade, events.group, strict=True) if events.groups[g] in keys
    }


def _taken_out(one: Lesson, other: Lesson) -> bool:
    if other is one or other.status is not LessonStatus.ACTIVE:
        return False
    if other.group.module != one.group.module:
        return True
    return other.group == one.group or not one.scope_subset


def naive_deltas(
    events: EventTable, lessons: tuple[Lesson, ...]
) -> dict[tuple[str, datetime], float]:
    members = {x.lesson_id: _members(events, x) for x in lessons}
    out = {}
    for one in lessons:
        rr = events.rr.copy()
        for other in lessons:
            if _taken_out(one, other):
                rr[sorted(members[other.lesson_id])] -= other.joint_edge_r or 0.0
        week = [monday(t.astype(datetime).replace(tzinfo=UTC)) for t in events.closed_at]
        for w in set(week):
            trades = {t for t in _population(events, one) if week[t] == w}
            inside = [rr[t] for t in trades & members[one.lesson_id]]
            outside = [rr[t] for t in trades - members[one.lesson_id]]
            if inside and outside:
                out[one.lesson_id, w] = float(np.mean(inside) - np.mean(outside))
    return out


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_weekly_edges_are_those_of_the_textbook(seed: int) -> None:
    events = random_table(seed, 700)
    points = edge_history(events, LESSONS, CONFIG, START, START + 7 * WEEK)
    naive = naive_deltas(events, LESSONS)
    assert {(p.lesson_id, p.week) for p in points} == naive.keys()
    for p in points:
        assert p.delta_rr == pytest.approx(naive[p.lesson_id, p.week], abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_nothing_after_the_end_of_a_week_enters_its_row(seed: int, week: int) -> None:
    events = random_table(seed)
    end = START + (week + 1) * WEEK
    before = events.where(events.closed_at < instant(end))
    later = np.where(events.closed_at < instant(end), events.rr, 30.0)
    whole = edge_history(events, LESSONS, CONFIG, START, START + week * WEEK)
    assert whole == edge_history(before, LESSONS, CONFIG, START, START + week * WEEK)
    every = edge_history(events.with_rr(later), LESSONS, CONFIG, START, START + 7 * WEEK)
    assert [p for p in every if p.week <= START + week * WEEK] == whole


def test_one_week_alone_has_the_rows_of_the_backfill() -> None:
    events = random_table(3)
    every = edge_history(events, LESSONS, CONFIG, START, START + 7 * WEEK)
    for w in range(8):
        alone = edge_history(events, LESSONS, CONFIG, START + w * WEEK, START + w * WEEK)
        assert alone == [p for p in every if p.week == START + w * WEEK]
        assert alone


def test_the_trades_of_a_lesson_are_those_of_its_group() -> None:
    events = random_table(5)
    for one, found in zip(LESSONS, trades_of(events, LESSONS), strict=True):
        assert set(found.tolist()) == _members(events, one)
        group = group_of(events, one.group)
        assert found.tolist() == group.trades[group.members(one.scope_subset)].tolist()


def test_unknown_groups_and_values_have_no_rows() -> None:
    events = random_table(5)
    unknown = [
        lesson({"d0": "zz"}),
        lesson({"d9": "a"}),
        lesson({}, key=GroupKey("pm", "pm.no.such.x", "entry")),
    ]
    assert edge_history(events, unknown, CONFIG, START, START + 7 * WEEK) == []
    assert edge_history(events, [], CONFIG, START, START + 7 * WEEK) == []


def test_edge_raw_is_that_of_the_week_with_the_multipliers_of_the_lesson() -> None:
    points = edge_history(random_table(1), LESSONS, CONFIG, START, START + 7 * WEEK)
    for p in points:
        assert p.edge_raw == pytest.approx(edge_raw(p.delta_rr, p.n, (0.8, 0.7, 0.6, 0.5)))


def test_standard_errors_are_honest() -> None:
    rng = np.random.default_rng(4)
    shock = np.repeat(0.8 * rng.standard_normal(40 * 7), 20)
    hours = np.repeat(np.arange(40 * 7) * 24.0, 20) + rng.uniform(0, 24, len(shock))
    skewed = rng.exponential(1.0, len(hours)) - 1.0
    # Scopes that stick to days, so that a common shock of the day does not cancel.
    codes = (rng.random(len(hours)) < np.repeat(rng.beta(0.5, 0.5, 40 * 7), 20)).astype(int) + 1
    points = edge_history(
        table(hours, shock + skewed, codes[None, :]),
        [lesson({"d0": "b"}, None)],
        CONFIG,
        START,
        START + 39 * WEEK,
    )
    z = np.array([p.delta_rr / p.se for p in points])
    assert len(z) == 40
    assert 0.7 < z.std() < 1.35


def test_a_planted_edge_is_seen_without_the_one_on_top_of_it() -> None:
    rng = np.random.default_rng(2)
    hours = rng.uniform(0, 10 * 168, 8000)
    codes = rng.integers(1, 3, (2, 8000))
    first, second = codes[0] == 1, (codes == 1).all(axis=0)
    events = table(hours, 0.5 * first + 0.4 * second + 0.3 * rng.standard_normal(8000), codes)
    lessons = [lesson({"d0": "a"}, 0.5), lesson({"d0": "a", "d1": "a"}, 0.4)]
    points = edge_history(events, lessons, CONFIG, START, START + 9 * WEEK)
    for one, true in zip(lessons, (0.5, 0.4), strict=True):
        own = [p.delta_rr for p in points if p.lesson_id == one.lesson_id]
        assert np.mean(own) == pytest.approx(true, abs=0.02)
    alone = [replace(lessons[0]), replace(lessons[1], status=LessonStatus.DEPRECATED)]
    without = edge_history(events, alone, CONFIG, START, START + 9 * WEEK)
    own = [p.delta_rr for p in without if p.lesson_id == lessons[0].lesson_id]
    assert np.mean(own) == pytest.approx(0.7, abs=0.02)


def test_weeks_are_mondays() -> None:
    assert monday(datetime(2026, 1, 11, 23, 59, tzinfo=UTC)) == START
    assert monday(START) == START
    assert last_full_week(START + timedelta(days=6)) == START - WEEK
    assert last_full_week(START + WEEK) == START
    with pytest.raises(ValueError, match="Monday"):
        edge_history(random_table(1), LESSONS, CONFIG, START + timedelta(days=1), START)


def test_many_lessons_and_weeks_take_seconds() -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    events = table(rng.uniform(0, 52 * 168, n), rng.standard_normal(n), rng.integers(1, 9, (6, n)))
    scopes = [
        {f"d{i}": a, f"d{j}": b}
        for i in range(6)
        for j in range(i + 1, 6)
        for a in "abcdefgh"
        for b in "abcdefgh"
    ]
    lessons = [lesson(scope, 0.01) for scope in scopes]
    start = time.process_time()
    points = edge_history(events, lessons, CONFIG, START, START + 51 * WEEK)
    assert len(points) > 40_000
    assert time.process_time() - start < 10


def test_golden_row() -> None:
    points = edge_history(random_table(1), LESSONS, CONFIG, START, START + 7 * WEEK)
    assert len(points) == 46
    last = points[-1]
    assert (last.lesson_id, last.week, last.n) == (
        "pm.uptrend.S2.retest/entry/d1=a",
        START + 7 * WEEK,
        5,
    )
    assert last.delta_rr == pytest.approx(1.00996350, abs=1e-7)
    assert last.se == pytest.approx(0.50897426, abs=1e-7)
    assert last.edge_raw == pytest.approx(0.01614660, abs=1e-7)
