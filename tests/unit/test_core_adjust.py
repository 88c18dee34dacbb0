"""What is left of an edge: wear and common causes, what is neutral, and the sum done by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_market import ONE, START, TWO, lesson, table

from learning_assets.core.adjust import (
    AdjustedEdge,
    MeasuredFactors,
    MeasuredHalfLives,
    MeasuredWeights,
    MetaResults,
    adjusted_edges,
)
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.factors import Factor, latent_factors
from learning_assets.core.halflife import HalfLife, half_lives
from learning_assets.core.history import edge_history, last_full_week
from learning_assets.core.overrides import build_overrides
from learning_assets.core.records import DecayState, Lesson, LessonStatus, Override
from learning_assets.core.regime_weights import RegimeWeights
from learning_assets.core.regimes import Regime

CONFIG = LearningConfig()
WEEK = timedelta(days=7)
WEEKS = 20
END = START + WEEKS * WEEK
A = lesson({"d0": "a"}, 0.6)
"""The edge of a value of the first dimension, in the first pattern."""


def market(
    seed: int = 1, n: int = 2000, half_life_hours: float = math.inf, edge_r: float = 0.0
) -> EventTable:
    """Trades of one pattern; half have d0=a and an edge, which fades from the start on."""
    rng = np.random.default_rng(seed)
    hours = np.sort(rng.uniform(0, WEEKS * 168, n))
    codes = rng.integers(1, 3, (1, n))
    fading = edge_r * 0.5 ** (hours / half_life_hours)
    rr = rng.standard_normal(n) + np.where(codes[0] == 1, fading, 0.0)
    return table(hours, rr, codes)


def decaying(half_life_hours: float) -> HalfLife:
    rate = math.log(2) / half_life_hours
    return HalfLife(DecayState.DECAYING, half_life_hours, 100.0, 900.0, 1.0, 20, 0.001, rate)


def of_half_lives(found: Mapping[str, HalfLife], as_of: datetime = END) -> MetaResults:
    return MetaResults(half_lives=MeasuredHalfLives(as_of, found))


def edges(
    lessons: Sequence[Lesson], events: EventTable, meta: MetaResults
) -> tuple[AdjustedEdge, ...]:
    return adjusted_edges(lessons, events, CONFIG, END, meta)


def overrides(
    lessons: Sequence[Lesson], events: EventTable, meta: MetaResults
) -> tuple[Override, ...]:
    return build_overrides(lessons, events, CONFIG, END, END, WEEK, meta=meta).overrides


# --- wear ------------------------------------------------------------------------------------


def test_a_decaying_edge_is_worth_what_is_left_of_it() -> None:
    events, meta = market(), of_half_lives({A.lesson_id: decaying(500.0)})
    [edge] = edges([A], events, meta)
    hours = (np.datetime64(END.replace(tzinfo=None), "us") - events.closed_at) / np.timedelta64(
        1, "h"
    )
    mine = events.codes[0] == 1
    expected = 1 / np.mean(2.0 ** (hours[mine] / 500.0))
    assert edge.remaining_share == pytest.approx(expected)
    assert edge.adjusted_edge_r == pytest.approx(0.6 * expected)
    assert (edge.decay_state, edge.half_life_hours) == (DecayState.DECAYING, 500.0)


@pytest.mark.parametrize(
    "state", [DecayState.STABLE, DecayState.IMPROVING, DecayState.INSUFFICIENT]
)
def test_any_other_state_leaves_the_edge_as_it_is(state: DecayState) -> None:
    found = HalfLife(state, None, None, None, 0.5, 10, 0.4, 0.0)
    [edge] = edges([A], market(), of_half_lives({A.lesson_id: found}))
    assert (edge.adjusted_edge_r, edge.decay_state) == (0.6, state)
    assert not any("half-life" in note for note in edge.notes)


def test_an_edge_that_has_worn_out_gives_no_override_and_says_why() -> None:
    events, meta = market(), of_half_lives({A.lesson_id: decaying(300.0)})
    [edge] = edges([A], events, meta)
    assert abs(edge.remaining_edge_r) < CONFIG.min_edge_r
    reason = edge.why_withheld(CONFIG.min_edge_r)
    assert reason is not None
    assert reason.startswith("worn out")
    assert "300 h" in reason
    assert overrides([A], events, meta) == ()
    assert edges([A], events, MetaResults())[0].why_withheld(CONFIG.min_edge_r) is None


def test_a_small_joint_edge_is_not_called_worn_out() -> None:
    [edge] = edges([replace(A, joint_edge_r=0.01)], market(), MetaResults())
    assert "is under 0.05 R" in (edge.why_withheld(0.05) or "")


# --- what is missing is neutral, and says so -------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        (MetaResults(), "not measured yet"),
        (of_half_lives({A.lesson_id: decaying(300.0)}, END - 3 * WEEK), "over 2 weeks ago"),
        (of_half_lives({A.lesson_id: decaying(300.0)}, END + WEEK), "which is later"),
        (of_half_lives({"another": decaying(300.0)}), "none for this lesson"),
    ],
)
def test_half_lives_that_do_not_count_are_neutral(meta: MetaResults, said: str) -> None:
    [made] = overrides([A], market(), meta)
    assert made.adjusted_edge_r == 0.6
    assert (made.decay_state, made.half_life_hours) == (DecayState.INSUFFICIENT, None)
    assert said in made.parts["notes"][0]


def test_half_lives_of_two_weeks_ago_still_count() -> None:
    meta = of_half_lives({A.lesson_id: decaying(900.0)}, END - 2 * WEEK)
    [edge] = edges([A], market(), meta)
    assert edge.remaining_share < 1


def test_a_decaying_lesson_without_trades_is_neutral() -> None:
    gone = lesson({"d0": "h"}, 0.6)
    [edge] = edges([gone], market(), of_half_lives({gone.lesson_id: decaying(300.0)}))
    assert edge.remaining_share == 1.0
    assert "no trades in the look-back" in edge.notes[0]


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        (None, "not measured yet"),
        (MeasuredFactors(END - 3 * WEEK, ()), "over 2 weeks ago"),
        (MeasuredFactors(END, ()), "none for this lesson"),
    ],
)
def test_factors_that_do_not_count_are_neutral(factors: MeasuredFactors | None, said: str) -> None:
    [made] = overrides([A], market(), MetaResults(factors=factors))
    assert (made.parts["share"], made.parts["factor_id"]) == (1.0, None)
    assert said in made.parts["notes"][1]


# --- common causes ---------------------------------------------------------------------------


def two_patterns() -> tuple[EventTable, Lesson, Lesson]:
    """Both patterns fire in four of five trades with d0=a, one of them alone in the rest."""
    rng = np.random.default_rng(5)
    n = 500
    hours, trade = np.sort(rng.uniform(0, WEEKS * 168, n)), np.repeat(np.arange(n), 2)
    group = np.tile([0, 1], n)
    keep = (group == 0) | (trade % 5 > 0)
    codes = rng.integers(1, 3, n)[trade][None, :]
    rr = rng.standard_normal(n)
    events = table(hours, rr, codes[:, keep], group[keep], [ONE, TWO], trade[keep])
    return events, lesson({"d0": "a"}, 0.6), lesson({"d0": "a"}, 0.4, TWO)


PATTERNS = two_patterns()


def test_patterns_of_one_factor_share_their_edge() -> None:
    events, first, second = PATTERNS
    factors = latent_factors(events, [first, second])
    assert len(factors) == 1
    made = overrides([first, second], events, MetaResults(factors=MeasuredFactors(END, factors)))
    a = events.codes[0] == 1
    met = np.bincount(events.trade[a])
    divisor = met[met > 0].mean()
    assert 1.7 < divisor < 1.9
    for override, joint in zip(made, (0.6, 0.4), strict=True):
        assert override.adjusted_edge_r == pytest.approx(joint / divisor)
        assert override.parts["share"] == pytest.approx(1 / divisor)
        assert override.parts["factor_members"] == sorted((first.lesson_id, second.lesson_id))


def test_a_worn_out_member_takes_no_share() -> None:
    events, first, second = PATTERNS
    factors = MeasuredFactors(END, latent_factors(events, [first, second]))
    worn = MeasuredHalfLives(END, {second.lesson_id: decaying(200.0)})
    [made] = overrides([first, second], events, MetaResults(worn, factors))
    assert made.lesson_id == first.lesson_id
    assert made.adjusted_edge_r == 0.6
    assert made.parts["factor_members"] == [first.lesson_id]


def test_lessons_of_one_pattern_are_not_merged() -> None:
    first, second = lesson({"d0": "a"}, 0.6), lesson({"d0": "a", "d1": "a"}, 0.4)
    names = (first.lesson_id, second.lesson_id)
    members = tuple((name, 1.0) for name in names)
    one = Factor("lf_a", "pm", "entry", (ONE.pattern_key,), names[0], members, ((1.0,),))
    made = overrides([first, second], market(), MetaResults(None, MeasuredFactors(END, [one])))
    assert [o.adjusted_edge_r for o in made] == [0.6, 0.4]
    assert {o.parts["factor_id"] for o in made} == {"lf_a"}


# --- the regime ------------------------------------------------------------------------------

IN_S1 = Regime("btc_macro=S1|alt_macro=S0", END, "the test")
WEIGHTS = RegimeWeights(ONE, "btc_macro=S1", 1.4, 0.6, 1.0, 1.7, 40, 40 / 60)


def in_regime(
    as_of: datetime = END, regime: Regime | None = IN_S1, rows: Sequence[RegimeWeights] = (WEIGHTS,)
) -> MetaResults:
    return MetaResults(weights=MeasuredWeights(as_of, rows), regime=regime)


def of_different_speed() -> list[Lesson]:
    """Two lessons of a group whose payback differs, and so does their time multiplier."""
    slow = lesson({"d0": "b"}, -0.4)
    return [A, replace(slow, multipliers=replace(slow.multipliers, time=0.5))]


def test_the_regime_factor_can_be_redone_from_its_parts() -> None:
    lessons, gain = of_different_speed(), 0.5
    made = overrides(lessons, market(), in_regime())
    for override, time in zip(made, (0.8, 0.5), strict=True):
        p = override.parts
        q = p["regime_parts"]
        assert q["multipliers"] == {"time": time, "field": 0.7, "recurrence": 0.6, "variance": 0.5}
        assert q["medians"]["time"] == pytest.approx(0.65)
        factor = 1.0
        for name, weight in q["weights"].items():
            ratio = q["multipliers"][name] / q["medians"][name]
            factor *= min(max(ratio ** (weight - 1), 0.5), 1.5)
        assert p["regime_factor"] == pytest.approx(factor, rel=1e-12)
        assert factor == pytest.approx((time / 0.65) ** 0.4)
        edge = p["joint_edge_r"] * p["remaining_share"] * p["share"] * p["regime_factor"]
        assert override.adjusted_edge_r == pytest.approx(edge, rel=1e-12)
        assert p["gain"] == gain
        assert override.multiplier == pytest.approx(1 + p["size_scale"] * gain * edge, rel=1e-12)
        assert p["regime_signature"] == IN_S1.signature
        assert (q["weights_of"], q["weights_signature"]) == ("/".join(ONE), "btc_macro=S1")
        assert q["n_samples"] == 40
        assert not any("regime" in note for note in p["notes"])


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        (MetaResults(regime=IN_S1), "not measured yet"),
        (in_regime(END - timedelta(days=2, seconds=1)), "over 2 days ago"),
        (in_regime(END + timedelta(seconds=1)), "which is later"),
        (in_regime(regime=None), "regime unknown (not looked up)"),
        (in_regime(regime=Regime(None, None, "none seen")), "regime unknown (none seen)"),
        (in_regime(rows=()), "none for its module"),
    ],
)
def test_weights_that_do_not_count_are_neutral(meta: MetaResults, said: str) -> None:
    for override in overrides(of_different_speed(), market(), meta):
        p = override.parts
        assert override.adjusted_edge_r == p["joint_edge_r"]
        assert (p["regime_factor"], p["regime_parts"]) == (1.0, None)
        [note] = [note for note in p["notes"] if note.startswith("regime weights: ")]
        assert said in note


def test_weights_of_two_days_ago_still_count() -> None:
    made = edges(of_different_speed(), market(), in_regime(END - timedelta(days=2)))
    assert all(edge.regime_factor != 1.0 for edge in made)


def test_an_edge_that_the_regime_makes_small_gives_no_override_and_says_why() -> None:
    lessons = [replace(x, joint_edge_r=0.052) for x in of_different_speed()]
    fast, slow = edges(lessons, market(), in_regime())
    assert fast.why_withheld(0.05) is None
    said = "in the regime btc_macro=S1|alt_macro=S0 it counts 0.90 times: +0.047 R, under 0.05 R"
    assert slow.why_withheld(0.05) == said


# --- the whole sum ---------------------------------------------------------------------------


def test_a_person_can_redo_the_sum_from_the_parts() -> None:
    events, first, second = PATTERNS
    whole = lesson({}, 1.9)
    lessons = [first, second, whole, replace(A, status=LessonStatus.REDUNDANT)]
    factors = MeasuredFactors(END, latent_factors(events, lessons[:3]))
    wear = MeasuredHalfLives(END, {first.lesson_id: decaying(1500.0)})
    made = overrides(lessons, events, MetaResults(wear, factors))
    assert len(made) == 3
    for override in made:
        p = override.parts
        edge = p["joint_edge_r"] * p["remaining_share"] * p["share"]
        assert override.adjusted_edge_r == pytest.approx(edge, rel=1e-12)
        multiplier = min(max(1 + p["size_scale"] * p["gain"] * edge, 0.3), 3.0)
        assert override.multiplier == pytest.approx(multiplier, rel=1e-12)
        assert override.half_life_hours == p["half_life_hours"]
    fading = made[0].parts
    assert fading["half_life_hours"] == 1500.0
    assert 0 < fading["remaining_share"] < 1
    assert 0 < fading["share"] < 1
    assert 0 < fading["size_scale"] < 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.lists(st.sampled_from([None, 50.0, 400.0, 4000.0]), min_size=3, max_size=3),
    st.permutations(range(3)),
)
def test_an_edge_keeps_its_sign_never_grows_and_order_does_not_matter(
    joints: list[float], hours: list[float | None], order: list[int]
) -> None:
    events, first, second = PATTERNS
    plain = [first, second, lesson({}, 0.0)]
    lessons = [replace(x, joint_edge_r=edge) for x, edge in zip(plain, joints, strict=True)]
    wear = {x.lesson_id: decaying(h) for x, h in zip(lessons, hours, strict=True) if h is not None}
    factors = MeasuredFactors(END, latent_factors(events, plain))
    meta = MetaResults(MeasuredHalfLives(END, wear), factors)
    made = edges(lessons, events, meta)
    assert edges([lessons[i] for i in order], events, meta) == tuple(made[i] for i in order)
    for edge, joint in zip(made, joints, strict=True):
        assert abs(edge.adjusted_edge_r) <= abs(joint)
        assert edge.adjusted_edge_r * joint >= 0


# --- is it worth it? -------------------------------------------------------------------------


def _found(events: EventTable) -> tuple[Lesson, MetaResults]:
    """The lesson as the joint fit would have it, and its half-life from the weekly edges."""
    mine = events.codes[0] == 1
    fitted = float(events.rr[mine].mean() - events.rr[~mine].mean())
    known = replace(A, joint_edge_r=fitted)
    points = edge_history(events, [known], CONFIG, START, last_full_week(END))
    return known, of_half_lives(half_lives(points))


def _errors(half_life_hours: float, seeds: range) -> tuple[float, float]:
    """Mean error of the adjusted edge (R) with half-lives, and without."""
    found = []
    for seed in seeds:
        known, meta = _found(events := market(seed, 2500, half_life_hours, 1.0))
        true = 0.5 ** (WEEKS * 168 / half_life_hours)
        either = [edges([known], events, m)[0].adjusted_edge_r for m in (meta, MetaResults())]
        found.append([abs(edge_r - true) for edge_r in either])
    with_them, without = np.mean(found, axis=0)
    return float(with_them), float(without)


@pytest.mark.parametrize("half_life_hours", [400.0, 1200.0])
def test_with_half_lives_a_fading_edge_is_nearer_to_what_is_left_of_it(
    half_life_hours: float,
) -> None:
    with_them, without = _errors(half_life_hours, range(6))
    assert with_them < 0.5 * without


def test_with_half_lives_a_lasting_edge_loses_next_to_nothing() -> None:
    with_them, without = _errors(math.inf, range(12))
    assert with_them < without + 0.03
