"""Overrides: how they add up, how far a set may go, and what it would have done."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ALLOCATION, ONE, START, TWO, Chaos, Plan, chaos, events_of, row, to_frame

from learning_assets.core.combine import BOUNDS, clip_multiplier, combine, look_up
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.overrides import (
    SIZING,
    action_multipliers,
    build_overrides,
    expected_effect,
    trade_sizes,
    with_other_patterns,
)
from learning_assets.core.records import (
    DecayState,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    Override,
    OverrideSet,
    SliceStats,
)
from learning_assets.core.scope import ScopeSubset, normalise_scope

CONFIG = LearningConfig()
HOUR = timedelta(hours=1)
END = Plan().end
MULTIPLIERS = st.lists(st.floats(0.3, 3.0), max_size=8)


def lesson(
    scope_subset: ScopeSubset, edge_r: float | None, key: GroupKey = ONE, se_r: float | None = 0.1
) -> Lesson:
    stats = SliceStats(50, 0.1, 1.0, 0.3, 0.1, 3.0, 0.003, 0.02, 3.5, 3.0)
    known = Multipliers(0.7, 0.8, 0.9, 0.5, 0.4, 1.0, 3, 0.5)
    return Lesson(
        key, scope_subset, LessonStatus.ACTIVE, stats, known, 0.1, edge_r, se_r if edge_r else None
    )


def override(scope_subset: ScopeSubset, multiplier: float, key: GroupKey = ONE) -> Override:
    return Override(
        *(key, scope_subset, multiplier, multiplier - 1.0, 0.9),
        *(DecayState.INSUFFICIENT, None, 50, 0.02),
    )


def built(
    lessons: Sequence[Lesson], events: EventTable, config: LearningConfig = CONFIG,
    as_of: datetime = END, interval: timedelta = HOUR,
) -> OverrideSet:  # fmt: skip
    return build_overrides(lessons, events, config, as_of, as_of + HOUR, interval)


EVENTS = events_of(Plan(n_trades=120, allocated=True))
SOLANA: ScopeSubset = (("chain", "solana"),)
MICRO: ScopeSubset = (("mcap_bucket", "micro"),)


# --- the rule by which they combine -------------------------------------------------------


@given(MULTIPLIERS)
def test_multipliers_are_added(multipliers: list[float]) -> None:
    plain = 1.0 + math.fsum(m - 1.0 for m in multipliers)
    assert combine("pm", multipliers) == pytest.approx(min(max(plain, 0.3), 3.0))
    assert combine("dm", multipliers) == pytest.approx(min(max(plain, 0.7), 1.3))


@given(MULTIPLIERS, st.randoms())
def test_their_order_does_not_matter(multipliers: list[float], random: object) -> None:
    other = list(multipliers)
    random.shuffle(other)  # type: ignore[attr-defined]
    assert combine("pm", other) == pytest.approx(combine("pm", multipliers))


def test_the_bounds_are_those_of_the_module() -> None:
    assert dict(BOUNDS) == {"pm": (0.3, 3.0), "dm": (0.7, 1.3)}
    assert [clip_multiplier("pm", m) for m in (-1.0, 0.3, 1.0, 3.0, 9.0)] == [0.3, 0.3, 1, 3, 3]
    assert [clip_multiplier("dm", m) for m in (-1.0, 0.8, 9.0)] == [0.7, 0.8, 1.3]
    with pytest.raises(KeyError):
        combine("other", [1.0])


def test_what_is_added_is_clipped_at_the_end_alone() -> None:
    assert combine("pm", [3.0, 3.0, 0.3]) == 3.0
    assert combine("pm", [3.0, 0.5, 0.5]) == pytest.approx(2.0)
    assert combine("pm", []) == combine("dm", []) == 1.0


def test_a_look_up_finds_the_overrides_of_its_group_that_match() -> None:
    mine, narrower, other = (
        override(SOLANA, 1.4),
        override((*SOLANA, *MICRO), 0.8),
        override(SOLANA, 2.0, TWO),
    )
    exits = override((), 1.9, ONE._replace(action_category="exit"))
    everywhere = override((), 1.1)
    every = [mine, narrower, other, exits, everywhere]
    found = look_up(every, ONE, {"chain": "solana", "mcap_bucket": "micro"})
    assert found.matched == (mine, narrower, everywhere)
    assert found.multiplier == pytest.approx(1.3)
    assert look_up(every, ONE, {}).matched == (everywhere,)
    assert look_up([mine], ONE, {"chain": "base"}).multiplier == 1.0


def random_overrides(seed: int, events: EventTable, n: int = 12) -> list[Override]:
    rng = np.random.default_rng(seed)
    pairs = [(d, v) for d, dim in enumerate(events.dims) for v in (*events.values[d], "new")]
    made = []
    for _ in range(n):
        chosen = [pairs[i] for i in rng.choice(len(pairs), rng.integers(0, 3), replace=False)]
        scope = {events.dims[d]: v for d, v in chosen}
        key = events.groups[rng.integers(len(events.groups))]
        made.append(override(tuple(sorted(scope.items())), float(rng.uniform(0.3, 2.0)), key))
    return made


def scope_of(events: EventTable, action: int) -> dict[str, str]:
    return {
        dim: events.values[d][events.codes[d, action] - 1]
        for d, dim in enumerate(events.dims)
        if events.codes[d, action]
    }


WORLDS = [EVENTS, from_frame(chaos(Chaos(seed=4, n_trades=40, absent=0.4)))]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0, 1]))
def test_a_look_up_equals_the_multiplier_of_the_action(seed: int, world: int) -> None:
    events = WORLDS[world]
    made = [*random_overrides(seed, events), override((("unknown", "x"),), 2.0)]
    by_module = {m: action_multipliers(made, events, m) for m in ("pm", "dm")}
    for a in range(events.n_events):
        key = events.groups[events.group[a]]
        expected = look_up(made, key, scope_of(events, a)).multiplier
        assert by_module[key.module][a] == pytest.approx(expected)
        other = "dm" if key.module == "pm" else "pm"
        assert by_module[other][a] == 1.0


def test_overrides_of_absent_groups_and_values_match_nothing() -> None:
    strangers = [
        override(SOLANA, 2.0, GroupKey("pm", "pm.unknown.S1.x", "entry")),
        override((("chain", "unknown"),), 2.0),
        override((("unknown", "solana"),), 2.0),
    ]
    assert (action_multipliers(strangers, EVENTS, "pm") == 1.0).all()


def test_a_scope_of_numbers_is_looked_up_by_its_text() -> None:
    made = [override((("rank", "1"),), 1.5)]
    for raw in (1, 1.0, "1", " 1 "):
        assert look_up(made, ONE, normalise_scope({"rank": raw})).multiplier == 1.5


# --- from lessons to a set ----------------------------------------------------------------


def test_a_lesson_becomes_a_multiplier() -> None:
    config = LearningConfig(prior_gain=0.4)
    [made] = built([lesson(SOLANA, 0.3)], EVENTS, config).overrides
    assert made.multiplier == pytest.approx(1 + 0.4 * 0.3)
    assert made.adjusted_edge_r == 0.3
    assert made.lesson_id == "pm.one.S1.flag/entry/chain=solana"
    assert (made.n, made.q_value) == (50, 0.02)
    assert made.decay_state is DecayState.INSUFFICIENT
    assert made.half_life_hours is None
    assert made.parts["joint_edge_r"] == 0.3
    assert made.parts["gain"] == 0.4


@pytest.mark.parametrize(
    ("edge_r", "count"), [(0.049, 0), (-0.049, 0), (0.05, 1), (-0.05, 1), (0.0, 0), (None, 0)]
)
def test_an_edge_too_small_to_act_on_gives_no_override(edge_r: float | None, count: int) -> None:
    assert len(built([lesson(SOLANA, edge_r)], EVENTS).overrides) == count


@pytest.mark.parametrize(
    "status", [LessonStatus.CANDIDATE, LessonStatus.REDUNDANT, LessonStatus.DEPRECATED]
)
def test_only_active_lessons_give_overrides(status: LessonStatus) -> None:
    assert built([replace(lesson(SOLANA, 0.5), status=status)], EVENTS).overrides == ()


def test_a_multiplier_stays_within_the_bounds_of_its_module() -> None:
    config = LearningConfig(prior_gain=1.0, max_size_change=0.999)
    lessons = [
        lesson((("chain", "none"),), 9.0),
        lesson((("chain", "none"),), -9.0, TWO),
        lesson((("chain", "none"),), 9.0, ALLOCATION),
        lesson((("chain", "nil"),), -9.0, ALLOCATION),
    ]
    got = [o.multiplier for o in built(lessons, EVENTS, config).overrides]
    assert got == [3.0, 0.3, 1.3, 0.7]


def test_confidence_is_the_probability_of_the_sign() -> None:
    made = built(
        [
            lesson(SOLANA, 0.2, se_r=0.1),
            lesson(MICRO, -0.2, se_r=0.1),
            lesson((), 0.2, se_r=None),
            lesson((), 0.2, TWO, se_r=0.0),
        ],
        EVENTS,
    )
    up, down, unknown, without = (o.confidence_score for o in made.overrides)
    assert up == down == pytest.approx(0.5 * (1 + math.erf(2 / math.sqrt(2))))
    assert unknown == without == 0.5


@pytest.mark.parametrize(
    ("interval_hours", "expiry_hours", "expected_hours"),
    [(1.0, 6.0, 6.0), (2.0, 6.0, 6.0), (3.0, 6.0, 9.0), (6.0, 6.0, 18.0), (0.1, 1.0, 1.0)],
)
def test_a_set_expires_after_three_intervals_or_the_expiry(
    interval_hours: float, expiry_hours: float, expected_hours: float
) -> None:
    config = LearningConfig(expiry_hours=expiry_hours)
    made = built([], EVENTS, config, interval=timedelta(hours=interval_hours))
    assert made.as_of == Plan().end
    assert made.published_at == Plan().end + HOUR
    assert made.expires_at - made.published_at == timedelta(hours=expected_hours)


def test_no_lessons_and_no_trades_are_no_error() -> None:
    nothing = from_frame(to_frame([]))
    for lessons in ([], [lesson(SOLANA, 0.5)]):
        made = built(lessons, nothing)
        assert len(made.overrides) == len(lessons)
        assert dict(made.expected) == {
            "total_size": 0.0, "volatility": 0.0, "drawdown": 0.0, "mean_rr": 0.0, "n_trades": 0,
        }  # fmt: skip
    assert built([], EVENTS).expected["total_size"] == 0.0


# --- the total size -----------------------------------------------------------------------


@pytest.mark.parametrize(("edge_r", "change"), [(2.0, 0.25), (-1.2, -0.25)])
def test_the_total_size_is_kept_within_its_bounds(edge_r: float, change: float) -> None:
    lessons = [lesson((), edge_r), lesson((), edge_r, TWO), lesson(SOLANA, 0.4)]
    made = built(lessons, EVENTS, LearningConfig(prior_gain=1.0))
    assert made.expected["total_size"] == pytest.approx(change, abs=1e-6)
    scales = {o.parts["size_scale"] for o in made.overrides}
    assert len(scales) == 1
    assert 0 < scales.pop() < 1
    for o in made.overrides:
        assert o.multiplier == pytest.approx(
            1 + o.parts["size_scale"] * o.parts["gain"] * o.adjusted_edge_r
        )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.25, 0.6]))
def test_no_set_changes_the_total_size_by_more(seed: int, most: float) -> None:
    rng = np.random.default_rng(seed)
    lessons = [
        lesson(o.scope_subset, float(rng.normal(0.5, 2.0)), o.group)
        for o in random_overrides(seed, EVENTS, 6)
    ]
    config = LearningConfig(prior_gain=1.0, max_size_change=most)
    made = built(lessons, EVENTS, config)
    assert abs(made.expected["total_size"]) <= most
    assert made.expected["total_size"] == pytest.approx(
        trade_sizes(made.overrides, EVENTS).mean() - 1
    )


def test_a_set_within_its_bounds_is_not_scaled() -> None:
    made = built([lesson(SOLANA, 0.4), lesson(MICRO, -0.4, TWO)], EVENTS)
    assert {o.parts["size_scale"] for o in made.overrides} == {1.0}


def test_opposite_changes_cancel_before_anything_is_scaled() -> None:
    rows = [row(f"t{i}", START + i * HOUR, {"side": "ab"[i % 2]}, 0.1 * i) for i in range(20)]
    lessons = [lesson((("side", "a"),), 1.2), lesson((("side", "b"),), -1.2)]
    made = built(lessons, from_frame(to_frame(rows)))
    assert {o.parts["size_scale"] for o in made.overrides} == {1.0}
    assert made.expected["total_size"] == pytest.approx(0.0)


def test_only_the_look_back_counts() -> None:
    as_of = START + timedelta(days=400)
    rows = [row(f"t{i}", as_of - timedelta(days=10 * i), {}, 1.0) for i in range(-3, 30)]
    made = built([lesson((), 0.4)], from_frame(to_frame(rows)), as_of=as_of)
    assert made.expected["n_trades"] == 18


# --- the expected effect ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_expected_effect_equals_loops_over_trades(seed: int) -> None:
    events = events_of(Plan(seed=seed, n_trades=120, n_days=25, allocated=True))
    made = random_overrides(seed, events, 6)
    by_module = [action_multipliers(made, events, m) for m in ("pm", "dm")]
    sizes = twins.sizes_by_lookup(events, by_module[0] * by_module[1])
    np.testing.assert_allclose(trade_sizes(made, events), sizes)
    effect = expected_effect(made, events)
    expected = twins.expected_effect(sizes.tolist(), events.rr.tolist(), events.day.tolist())
    assert {n: getattr(effect, n) for n in effect.__slots__} == pytest.approx(expected)


def test_a_trade_has_the_mean_size_of_its_sizing_actions() -> None:
    add, exits = (ONE._replace(action_category=c) for c in ("add", "exit"))
    scope = {"chain": "solana"}
    rows = [
        row("t", START, scope, 1.0, key, event=str(i))
        for i, key in enumerate((ONE, add, add, exits, ALLOCATION))
    ]
    made = [
        override((), m, key) for key, m in ((ONE, 1.6), (add, 1.0), (exits, 3.0), (ALLOCATION, 1.2))
    ]
    assert trade_sizes(made, from_frame(to_frame(rows))) == pytest.approx([1.2 * 1.2])
    assert dict(SIZING) == {"pm": ("entry", "add"), "dm": ("allocation",)}


def test_patterns_of_one_decision_add_up_and_two_orders_of_one_pattern_do_not() -> None:
    add = ONE._replace(action_category="add")
    rows = [row("one pattern", START, {}, 1.0, ONE, event=str(k)) for k in range(2)]
    rows += [row("two patterns", START, {}, 1.0, key) for key in (ONE, TWO)]
    rows += [row("entry and add", START, {}, 1.0, key) for key in (ONE, add)]
    rows += [row("far too much", START, {"x": "y"}, 1.0, key) for key in (ONE, TWO)]
    events = from_frame(to_frame(rows))
    made = [override((), m, key) for key, m in ((ONE, 1.4), (TWO, 1.1), (add, 1.2))]
    made += [override((("x", "y"),), 2.9, key) for key in (ONE, TWO)]
    sizes = dict(zip(events.trade_ids, trade_sizes(made, events), strict=True))
    assert sizes == pytest.approx(
        {"one pattern": 1.4, "two patterns": 1.5, "entry and add": 1.3, "far too much": 3.0}
    )


@pytest.mark.parametrize("seed", range(4))
def test_other_patterns_are_those_of_the_same_trade_and_category(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = (ONE, TWO, ONE._replace(action_category="add"), ALLOCATION)
    rows = [
        row(f"t{t}", START, {}, 1.0, keys[int(rng.integers(4))], event=str(k))
        for t in range(20)
        for k in range(rng.integers(1, 6))
    ]
    events = from_frame(to_frame(rows))
    values = rng.standard_normal(events.n_events)
    key_of = [events.groups[g] for g in events.group]
    for i, value in enumerate(with_other_patterns(values, events)):
        by_pattern: dict[GroupKey, list[float]] = {}
        for j in range(events.n_events):
            same = (key_of[j].module, key_of[j][2]) == (key_of[i].module, key_of[i][2])
            if events.trade[j] == events.trade[i] and same and key_of[j] != key_of[i]:
                by_pattern.setdefault(key_of[j], []).append(values[j])
        assert value == pytest.approx(values[i] + sum(map(np.mean, by_pattern.values())))


def test_overrides_on_exits_change_no_size() -> None:
    exits = ONE._replace(action_category="exit")
    rows = [row("t", START, {}, 1.0, key) for key in (ONE, exits)]
    effect = expected_effect([override((), 2.5, exits)], from_frame(to_frame(rows)))
    assert (effect.total_size, effect.mean_rr) == (0.0, 0.0)


def test_a_drawdown_may_begin_with_the_first_trade() -> None:
    outcomes = (-3.0, -1.0, 5.0, -2.0)
    rows = [
        row(f"t{i}", START + i * HOUR, {"first": str(i < 2)}, rr) for i, rr in enumerate(outcomes)
    ]
    effect = expected_effect([override((("first", "True"),), 0.75)], from_frame(to_frame(rows)))
    assert effect.drawdown == pytest.approx(3.0 / 4.0 - 1)


def test_more_size_on_winners_earns_more_per_unit() -> None:
    rows = [
        row(f"t{i}", START + i * 5 * HOUR, {"side": "ab"[i % 2]}, 1.0 if i % 2 else -0.9)
        for i in range(40)
    ]
    events = from_frame(to_frame(rows))
    effect = expected_effect(
        [override((("side", "b"),), 1.5), override((("side", "a"),), 0.5)], events
    )
    assert effect.total_size == pytest.approx(0.0)
    assert effect.mean_rr > 0.4
    assert effect.drawdown < 0


@pytest.mark.parametrize("multiplier", [0.5, 2.0])
def test_the_same_size_on_everything_scales_risk_and_not_earnings(multiplier: float) -> None:
    made = [override((), multiplier), override((), multiplier, TWO)]
    effect = expected_effect(made, EVENTS)
    assert effect.total_size == pytest.approx(multiplier - 1)
    assert effect.volatility == pytest.approx(multiplier - 1)
    assert effect.drawdown == pytest.approx(multiplier - 1)
    assert effect.mean_rr == pytest.approx(0.0, abs=1e-12)


def test_the_order_of_lessons_does_not_matter() -> None:
    lessons = [lesson(SOLANA, 1.4), lesson((), 0.9), lesson(MICRO, -0.6, TWO)]
    config = LearningConfig(prior_gain=1.0)
    sets = [built(list(order), EVENTS, config) for order in itertools.permutations(lessons)]
    for made in sets:
        assert {o.lesson_id: o.multiplier for o in made.overrides} == pytest.approx(
            {o.lesson_id: o.multiplier for o in sets[0].overrides}
        )
