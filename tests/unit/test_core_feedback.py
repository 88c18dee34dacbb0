"""What applied overrides did: the arms, the effect against the hold-out, and when none is told."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import ONE, START, TWO, row, to_frame

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from feedback import World, coverage

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.feedback import (
    ALL,
    AppliedAction,
    AppliedFeedback,
    Effect,
    clustered_difference,
    feedback,
)
from learning_assets.core.records import Applied, AppliedOverride, Status

CONFIG = LearningConfig()
END = START + timedelta(days=100)
LESSON, OTHER = "pm.one.S1.flag/entry/chain=solana", "pm.one.S1.flag/entry/*"
NOTHING = from_frame(to_frame([]))


def applied(multiplier: float, status: str = "ok", lessons: Sequence[str] = (LESSON,)) -> Applied:
    said = Status(status)
    overrides = tuple(AppliedOverride(name, multiplier) for name in lessons)
    return Applied(multiplier if status == "ok" else 1.0, multiplier, said, 12, overrides)


def action(
    trade: str, rr: float, day: int, answer: Applied, module: str = "pm", category: str = "entry"
) -> AppliedAction:
    return AppliedAction(trade, rr, START + timedelta(days=day), module, category, answer)


def arms(n: int = 6, multiplier: float = 1.5) -> list[AppliedAction]:
    """Trades on days of their own: n applied, then n held out."""
    held_out = applied(multiplier, "held_out")
    return [
        *(action(f"a{k}", 0.5 * k, k, applied(multiplier)) for k in range(n)),
        *(action(f"h{k}", -0.2 * k, n + k, held_out) for k in range(n)),
    ]


def found(actions: Sequence[AppliedAction], events: EventTable = NOTHING) -> AppliedFeedback:
    result = feedback(actions, events, END, CONFIG)
    assert result is not None
    return result


def of_lesson(actions: Sequence[AppliedAction], events: EventTable = NOTHING) -> Effect:
    (effect,) = found(actions, events).overrides
    return effect


def test_the_effect_is_size_times_r_less_the_r_of_the_hold_out() -> None:
    effect = of_lesson(arms())
    assert effect.lesson_id == LESSON
    assert (effect.applied.n_trades, effect.applied.n_days) == (6, 6)
    assert (effect.held_out.n_trades, effect.held_out.n_days) == (6, 6)
    assert effect.applied.mean_rr == pytest.approx(1.25)
    assert effect.held_out.mean_rr == pytest.approx(-0.5)
    assert effect.effect_r == pytest.approx(1.5 * 1.25 + 0.5)
    assert effect.mean_multiplier == 1.5
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < 1.5 * 1.25 + 0.5 < effect.high
    assert effect.reason == ""
    assert found(arms()).total == replace(effect, lesson_id=ALL)


def test_nothing_is_said_where_no_override_matched() -> None:
    nobody_asked = action("t", 1.0, 3, Applied(1.0, 1.0, Status.NO_MATCH))
    assert feedback([], NOTHING, END, CONFIG) is None
    assert feedback([nobody_asked], NOTHING, END, CONFIG) is None


def test_only_the_look_back_counts() -> None:
    early = timedelta(days=CONFIG.look_back_days)
    kept = [action("in", 1.0, 0, applied(1.5))]
    moments = (END - early - timedelta(seconds=1), END, END + timedelta(days=1))
    outside = [replace(kept[0], trade_id=f"out{k}", closed_at=m) for k, m in enumerate(moments)]
    edge = replace(kept[0], trade_id="edge", closed_at=END - early)
    result = found([*kept, *outside, edge])
    assert result.total.applied.n_trades == 2
    assert (result.since, result.as_of) == (END - early, END)


def test_without_a_hold_out_there_is_no_effect_but_a_gain() -> None:
    closed = [START + timedelta(days=k) for k in range(4)]
    events = from_frame(
        to_frame([row(f"t{k}", closed[k], {}, rr) for k, rr in enumerate((2.0, 1.0, -1.0, 0.0))])
    )
    ours = [action("t0", 2.0, 0, applied(1.5)), action("t2", -1.0, 2, applied(1.5))]
    effect = of_lesson(ours, events)
    assert (effect.effect_r, effect.low, effect.high) == (None, None, None)
    assert effect.reason == "no trade was held out"
    assert effect.gained_r == pytest.approx(0.5 * (2.0 - 0.5) + 0.5 * (-1.0 - 0.5))
    assert effect.applied.mean_rr == 0.5


def test_trades_that_were_all_held_out_tell_no_effect() -> None:
    effect = of_lesson(arms()[6:])
    assert effect.reason == "it was applied to no trade"
    assert (effect.effect_r, effect.mean_multiplier, effect.gained_r) == (None, None, None)
    assert effect.applied.mean_rr is None


def test_too_few_days_tell_no_effect() -> None:
    on_three_days = [
        replace(a, closed_at=START + timedelta(days=k % 3)) for k, a in enumerate(arms())
    ]
    effect = of_lesson(on_three_days)
    assert (effect.effect_r, effect.low, effect.high) == (None, None, None)
    assert effect.reason == "only 3 closing days in one arm, 4 are needed"
    one_day = [*arms()[:6], *(replace(a, closed_at=START) for a in arms()[6:])]
    assert of_lesson(one_day).reason == "only 1 closing day in one arm, 4 are needed"


def test_outcomes_that_are_all_the_same_have_no_interval() -> None:
    same = of_lesson([replace(a, rr=-1.0) for a in arms()])
    assert same.effect_r == pytest.approx(-0.5)
    assert (same.low, same.high) == (None, None)
    assert "the same" in same.reason


def test_trades_that_were_only_watched_are_counted_apart() -> None:
    watched = [action(f"s{k}", 9.0, 30 + k, applied(1.5, "shadow")) for k in range(3)]
    effect = of_lesson([*arms(), *watched])
    assert effect.n_shadow == 3
    assert replace(effect, n_shadow=0) == of_lesson(arms())


def test_a_trade_that_was_treated_in_two_ways_is_in_no_arm() -> None:
    both = [action("m", 9.0, 40, applied(1.5)), action("m", 9.0, 40, applied(1.5, "held_out"))]
    effect = of_lesson([*arms(), *both])
    assert effect.n_mixed == 1
    assert replace(effect, n_mixed=0) == of_lesson(arms())


def test_of_overrides_that_match_together_each_has_the_trade_and_what_they_made_of_it() -> None:
    together = Applied(
        *(1.8, 1.8, Status.OK, 12),
        (AppliedOverride(LESSON, 1.5), AppliedOverride(OTHER, 1.3)),
    )
    alone = action("b", 1.0, 2, applied(1.3, lessons=(OTHER,)))
    result = found([action("a", 2.0, 1, together), alone])
    assert [x.lesson_id for x in result.overrides] == [OTHER, LESSON]
    one = {x.lesson_id: x for x in result.overrides}
    assert one[LESSON].mean_multiplier == 1.8
    assert one[OTHER].mean_multiplier == pytest.approx((1.8 + 1.3) / 2)
    assert [one[name].applied.n_trades for name in (LESSON, OTHER)] == [1, 2]
    assert result.total.applied.n_trades == 2


def test_an_override_that_is_named_twice_counts_once() -> None:
    twice = [action(f"a{k}", 1.0, k, applied(1.5, lessons=(LESSON, LESSON))) for k in range(3)]
    assert of_lesson(twice).applied.n_trades == 3


def test_the_size_of_a_trade_is_that_of_entries_and_adds_times_the_allocation() -> None:
    """As in `core.overrides.trade_sizes`: mean over sizing actions, pm times dm, trims aside."""
    nobody = Applied(1.0, 1.0, Status.NO_MATCH)
    trade = [
        action("t", 2.0, 1, applied(1.6)),
        action("t", 2.0, 1, nobody, category="add"),
        action("t", 2.0, 1, applied(0.5, lessons=("trim",)), category="trim"),
        action("t", 2.0, 1, applied(1.2, lessons=("dm",)), module="dm", category="allocation"),
    ]
    result = found(trade)
    assert result.total.mean_multiplier == pytest.approx((1.6 + 1.0) / 2 * 1.2)
    one = {x.lesson_id: x for x in result.overrides}
    assert [one[x].mean_multiplier for x in (LESSON, "trim", "dm")] == [1.6, 0.5, 1.2]


def test_the_multiplier_of_a_trim_is_no_size() -> None:
    """It changes the R of the trade itself: the effect is a difference of R alone."""
    trims = [replace(a, action_category="trim") for a in arms()]
    events = from_frame(to_frame([row("t", START, {}, 1.0, ONE._replace(action_category="trim"))]))
    effect = of_lesson(trims, events)
    assert effect.effect_r == pytest.approx(1.25 + 0.5)
    assert effect.gained_r is None
    assert effect.mean_multiplier == 1.5


def test_the_baseline_is_of_the_module_and_category() -> None:
    events = from_frame(
        to_frame(
            [
                row("a", START, {}, 3.0, ONE),
                row("b", START, {}, 1.0, TWO),
                row("c", START, {}, -9.0, ONE._replace(action_category="trim")),
            ]
        )
    )
    assert of_lesson([action("a", 3.0, 0, applied(1.5))], events).gained_r == pytest.approx(0.5)
    total = found([action("a", 3.0, 0, applied(1.5))], events).total
    assert total.gained_r == pytest.approx(0.5 * (3.0 + 5.0 / 3.0))
    assert of_lesson([action("a", 3.0, 0, applied(1.5))]).gained_r is None


@given(st.randoms(use_true_random=False))
def test_the_order_of_actions_changes_nothing(random: object) -> None:
    actions = [*arms(), *(action(f"h{k}", 0.0, k, applied(1.5)) for k in range(3))]
    shuffled = list(actions)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = of_lesson(actions), of_lesson(shuffled)
    assert first.n_mixed == second.n_mixed == 3
    assert second.effect_r == pytest.approx(first.effect_r)
    assert second.low == pytest.approx(first.low)


# --- the error -------------------------------------------------------------------------------


def naive_error(arms: Sequence[Sequence[tuple[int, float]]]) -> float:
    """The same by loops: days pull the difference, and their pulls are squared and added."""
    pulls: dict[int, float] = {}
    for sign, arm in zip((1.0, -1.0), arms, strict=True):
        mean = sum(value for _, value in arm) / len(arm)
        days = {day for day, _ in arm}
        correction = math.sqrt(len(days) / (len(days) - 1))
        for day, value in arm:
            pulls[day] = pulls.get(day, 0.0) + sign * correction * (value - mean) / len(arm)
    return math.sqrt(sum(pull**2 for pull in pulls.values()))


@given(st.integers(0, 10**6))
def test_the_error_equals_a_loop_over_trades(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (
        [(int(d), float(v)) for d, v in zip(rng.integers(0, 9, n), rng.normal(size=n), strict=True)]
        for n in rng.integers(6, 30, 2)
    )
    if min(len({day for day, _ in arm}) for arm in (one, other)) < 2:
        return
    columns = [np.array(x) for arm in (one, other) for x in zip(*arm, strict=True)]
    difference, error = clustered_difference(*columns)
    assert difference == pytest.approx(np.mean(columns[1]) - np.mean(columns[3]))
    assert error == pytest.approx(naive_error([one, other]))


def test_trades_of_different_days_have_the_textbook_error() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=30), 2 * rng.normal(size=20)
    _, error = clustered_difference(np.arange(30), one, np.arange(30, 50), other)
    assert error == pytest.approx(math.sqrt(one.var(ddof=1) / 30 + other.var(ddof=1) / 20))


def test_a_shock_that_both_arms_share_is_no_error() -> None:
    shock = 5.0 * np.random.default_rng(2).normal(size=40)
    days = np.arange(40)
    _, shared = clustered_difference(days, shock, days, shock)
    _, alone = clustered_difference(days, shock, days + 100, shock)
    assert shared == pytest.approx(0.0)
    assert alone > 1.0


@pytest.mark.parametrize(
    ("n", "n_days", "hold_out"),
    [(60, 25, 0.5), (300, 60, 0.1), (300, 120, 0.2)],
    ids=["few days, half held out", "a tenth held out", "many days"],
)
@pytest.mark.parametrize("shock_r", [0.0, 0.6], ids=["no day shock", "day shock"])
def test_the_interval_covers_the_truth_as_often_as_it_says(
    n: int, n_days: int, hold_out: float, shock_r: float
) -> None:
    """Nominally 90 %; `bench/feedback.py` draws more often."""
    found = coverage(World(n, n_days, hold_out, shock_r), 150, seed=5)
    assert found.told > 0.9
    assert 0.82 <= found.covered <= 0.97
