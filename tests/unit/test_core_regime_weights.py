"""Regime weights: the factor by hand, what is in force, planted worlds, and the plain question."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from small_market import ONE, START, TWO, lesson

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.factors import Factor
from learning_assets.core.records import GroupKey, Lesson, LessonStatus, Multipliers
from learning_assets.core.regime_weights import (
    EVERY,
    FEWEST_SAMPLES,
    RegimeWeights,
    by_multiplier,
    edges_by_regime,
    four_of,
    group_medians,
    learn_regime_weights,
    regime_factor,
    weights_in_force,
)

CONFIG = LearningConfig(regime_dims=("btc_macro", "alt_macro"))
AS_OF = START + timedelta(days=120)
POOLED = GroupKey("pm", EVERY, EVERY)
N_SLOTS = 32
SLOTS = tuple(f"s{k:02}" for k in range(N_SLOTS))
LESSONS = [lesson({"setup": slot}, 0.5) for slot in SLOTS]


def world(seed: int, strength: float, n: int = 12_000) -> EventTable:
    """Where the first regime is S1, an edge times 1 + strength · speed of payback (−1 … 1)."""
    rng = np.random.default_rng(seed)
    edge = np.resize([1.0, -1.0], N_SLOTS) * rng.uniform(0.4, 1.0, N_SLOTS)
    speed = rng.uniform(-1, 1, N_SLOTS)
    slot = np.where(rng.random(n) < 0.4, -1, rng.integers(0, N_SLOTS, n))
    hours = np.sort(rng.uniform(0, 120 * 24, n))
    states = rng.integers(0, 2, (2, 121))[:, (hours // 24).astype(int)]
    true = np.where(slot < 0, 0.0, edge[slot] * (1 + strength * speed[slot] * states[0]))
    closed = np.datetime64(START.replace(tzinfo=None), "us") + (hours * 3.6e9).astype(
        "timedelta64[us]"
    )
    payback = 24 * np.exp(-1.5 * speed[slot])
    return EventTable(
        np.arange(n).astype(object), closed, closed, true + 0.5 * rng.standard_normal(n),
        payback, payback, np.arange(n), np.zeros(n, dtype=np.int64), (ONE,),
        ("setup", *CONFIG.regime_dims), (SLOTS, ("S0", "S1"), ("S0", "S1")),
        np.array([slot, *states], dtype=np.int32) + np.int32(1),
    )  # fmt: skip


PLANTED = world(1, 0.9)


def learned(
    events: EventTable, lessons: list[Lesson] | None = None, factors: tuple[Factor, ...] = ()
) -> tuple[RegimeWeights, ...]:
    given = LESSONS if lessons is None else lessons
    return learn_regime_weights(given, events, CONFIG, AS_OF, factors)


def weights(group: GroupKey, signature: str, time: float = 1.0) -> RegimeWeights:
    return RegimeWeights(group, signature, time, 1.0, 1.0, 1.0, 40, 40 / 60)


# --- use -------------------------------------------------------------------------------------


def test_the_factor_by_hand() -> None:
    known = Multipliers(0.9, 0.4, 0.7, 0.5, None, None, 0, None)
    w = RegimeWeights(ONE, "*", 1.5, 0.6, 1.0, 1.7, 40, 0.5)
    made = regime_factor(known, (0.6, 0.5, 0.1, 0.4), w)
    # (0.9/0.6)^0.5 · (0.4/0.5)^−0.4 · 1 · (0.5/0.4)^0.7
    assert made == pytest.approx(1.2247449 * 1.0933600 * 1.1690707, rel=1e-5)


@pytest.mark.parametrize(
    ("multiplier", "weight", "expected"), [(0.9, 1.7, 1.5), (0.1, 1.7, 0.5), (0.1, 0.3, 1.5)]
)
def test_a_multiplier_does_no_more_than_its_bounds(
    multiplier: float, weight: float, expected: float
) -> None:
    known = Multipliers(multiplier, 0.5, 0.5, 0.5, None, None, 0, None)
    assert regime_factor(known, (0.3, 0.5, 0.5, 0.5), weights(ONE, "*", weight)) == expected


def test_what_is_like_its_group_and_what_weighs_1_is_left_alone() -> None:
    known = Multipliers(0.3, 0.4, 0.5, 0.6, None, None, 0, None)
    assert regime_factor(known, four_of(known), weights(ONE, "*", 1.7)) == 1.0
    assert regime_factor(known, (0.9, 0.9, 0.9, 0.9), weights(ONE, "*")) == 1.0


def test_the_longest_signature_counts_and_there_the_group_before_its_module() -> None:
    pooled = [weights(POOLED, name) for name in ("*", "a=1", "a=1|b=2")]
    own = [weights(ONE, "*"), weights(ONE, "a=1")]
    rows = [*pooled, *own]
    assert weights_in_force(rows, ONE, "a=1|b=2") is pooled[2]
    assert weights_in_force(rows, ONE, "a=1|b=3") is own[1]
    assert weights_in_force(rows, TWO, "a=1|b=3") is pooled[1]
    assert weights_in_force(rows, ONE, "a=2|b=2") is own[0]
    assert weights_in_force(rows, GroupKey("dm", "x", "y"), "a=1|b=2") is None
    assert weights_in_force((), ONE, "*") is None


def test_medians_are_those_of_the_active_lessons_of_each_group() -> None:
    def one(time: float, key: GroupKey = ONE, status: LessonStatus = LessonStatus.ACTIVE) -> Lesson:
        known = Multipliers(time, 0.7, 0.6, 0.5, None, None, 0, None)
        return replace(lesson({}, 0.1, key, status), multipliers=known)

    found = group_medians([one(0.2), one(0.4), one(0.9), one(0.8, TWO),
                           one(1.0, ONE, LessonStatus.REDUNDANT)])  # fmt: skip
    assert found == {ONE: (0.4, 0.7, 0.6, 0.5), TWO: (0.8, 0.7, 0.6, 0.5)}


# --- learning --------------------------------------------------------------------------------


def test_what_was_planted_in_a_regime_moves_its_weight_to_the_right_side() -> None:
    for events, sign in ((PLANTED, 1), (world(1, -0.9), -1)):
        found = weights_in_force(learned(events), ONE, "btc_macro=S1")
        assert found is not None
        assert found.regime_signature == "btc_macro=S1"
        assert (found.time - 1) * sign > 0.2


def test_where_nothing_was_planted_few_weights_leave_1() -> None:
    # At 3 % each, a world of 28 weights is expected to hold about one that strays.
    per_world = [
        [w for row in learned(world(seed, 0.0)) if row.group == POOLED for w in row.four]
        for seed in range(2, 12)
    ]
    strays = [sum(not 0.9 <= w <= 1.1 for w in found) for found in per_world]
    assert strays[3] == 0
    assert sum(strays) <= 0.08 * sum(map(len, per_world))


def test_rows_count_their_samples_and_stay_within_bounds() -> None:
    rows = learned(PLANTED)
    assert rows[0].group == GroupKey("dm", EVERY, EVERY)
    assert {row.regime_signature for row in rows if row.group == ONE} > {"*", "btc_macro=S1"}
    for row in rows:
        assert row.confidence == pytest.approx(row.n_samples / (row.n_samples + 20))
        assert all(0.3 <= w <= 1.7 for w in row.four)
        assert by_multiplier(row.four)["time"] == row.time
    of_all = next(r for r in rows if r.group == POOLED and r.regime_signature == "*")
    assert of_all.n_samples == 2 * N_SLOTS  # each lesson in either state of the first dimension


@pytest.mark.parametrize("n", [0, FEWEST_SAMPLES - 1])
def test_without_evidence_the_weights_are_exactly_1(n: int) -> None:
    rows = learned(PLANTED, LESSONS[:n])
    assert [(row.group, row.regime_signature, row.four) for row in rows] == [
        (GroupKey(module, EVERY, EVERY), "*", (1.0, 1.0, 1.0, 1.0)) for module in ("dm", "pm")
    ]


def test_lessons_that_are_not_active_say_nothing() -> None:
    idle = [replace(x, status=LessonStatus.REDUNDANT) for x in LESSONS]
    assert learned(PLANTED, idle) == learned(PLANTED, [])


def test_a_factor_is_one_sample() -> None:
    names = tuple(x.lesson_id for x in LESSONS[:3])
    members = tuple((name, 1.0) for name in names)
    one = Factor("lf_a", "pm", "entry", (ONE.pattern_key,), names[1], members, ((1.0,),))
    rest = [LESSONS[1], *LESSONS[3:]]
    assert learned(PLANTED, factors=(one,)) == learned(PLANTED, rest)
    assert learned(PLANTED, rest) != learned(PLANTED)


def test_order_does_not_matter() -> None:
    assert learned(PLANTED, LESSONS[::-1]) == learned(PLANTED)
    shuffled = np.random.default_rng(3).permutation(PLANTED.n_trades)
    order = shuffled[np.argsort(PLANTED.closed_at[shuffled].astype("datetime64[D]"), kind="stable")]
    by_trade = ("trade_ids", "closed_at", "opened_at", "rr", "payback_hours", "hold_hours")
    moved = {name: getattr(PLANTED, name)[order] for name in by_trade}
    other = learned(replace(PLANTED, **moved, codes=PLANTED.codes[:, order]))
    for a, b in zip(other, learned(PLANTED), strict=True):
        assert (a.group, a.regime_signature) == (b.group, b.regime_signature)
        assert a.four == pytest.approx(b.four, abs=1e-9)


def test_nothing_that_closed_later_is_seen() -> None:
    as_of = START + timedelta(days=80)
    later = PLANTED.closed_at >= np.datetime64(as_of.replace(tzinfo=None), "us")
    changed = PLANTED.with_rr(np.where(later, 99.0, PLANTED.rr))
    found = learn_regime_weights(LESSONS, PLANTED, CONFIG, as_of, ())
    assert learn_regime_weights(LESSONS, changed, CONFIG, as_of, ()) == found
    assert learn_regime_weights(LESSONS, PLANTED.where(~later), CONFIG, as_of, ()) == found
    assert found != learned(PLANTED)


def test_the_regime_dimensions_decide_what_is_a_regime() -> None:
    other = CONFIG.model_copy(update={"regime_dims": ("alt_macro",)})
    found = learn_regime_weights(LESSONS, PLANTED, other, AS_OF, ())
    assert {row.regime_signature for row in found} == {"*", "alt_macro=S0", "alt_macro=S1"}


# --- the plain question ----------------------------------------------------------------------


def test_edges_by_regime_are_those_of_a_plain_loop() -> None:
    events = world(4, 0.5, 900)
    d = events.dims.index("btc_macro")
    codes = events.codes.copy()
    codes[d, ::7] = 0
    events = replace(events, codes=codes)
    frame = pd.DataFrame({"rr": events.rr, "day": events.day})
    expected = []
    for dim in CONFIG.regime_dims:
        code = events.codes[events.dims.index(dim)]
        known = frame[code > 0].assign(state=code[code > 0])
        for state in (1, 2):
            here, rest = known[known.state == state], known[known.state != state]
            total = 0.0
            for _, day in known.groupby("day"):
                mine, others = day[day.state == state].rr, day[day.state != state].rr
                total += (
                    (mine - here.rr.mean()).sum() / len(here)
                    - (others - rest.rr.mean()).sum() / len(rest)
                ) ** 2
            days = min(here.day.nunique(), rest.day.nunique())
            n_days = known.day.nunique()
            edge = here.rr.mean() - rest.rr.mean()
            half = stats.t.ppf(0.95, days - 1) * np.sqrt(total)
            expected.append((dim, f"S{state - 1}", len(here), edge, half, n_days))
    found = edges_by_regime(events, CONFIG, AS_OF)
    assert [(e.dim, e.state, e.n) for e in found] == [row[:3] for row in expected]
    for e, (_, _, _, edge, half, n_days) in zip(found, expected, strict=True):
        assert e.group == ONE
        assert e.edge_r == pytest.approx(edge)
        correction = (e.high - e.low) / 2 / half
        assert correction == pytest.approx(1.0, abs=1 / n_days)


def test_a_state_with_too_few_trades_has_no_edge() -> None:
    events = world(4, 0.5, 900)
    codes = events.codes.copy()
    codes[1] = 1
    codes[1, :9] = 2
    found = edges_by_regime(replace(events, codes=codes), CONFIG, AS_OF)
    assert {e.dim for e in found} == {"alt_macro"}
    assert edges_by_regime(events, CONFIG, START) == ()
