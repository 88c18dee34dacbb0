"""Walk-forward and gain: the judge equals a loop over trades, nothing later is seen."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import (
    ALLOCATION,
    ONE,
    START,
    TWO,
    Edge,
    Plan,
    events_of,
    market,
    row,
    to_frame,
)

from learning_assets.core.combine import look_up
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import from_frame
from learning_assets.core.gain import combined_gain, gains_of
from learning_assets.core.history import WEEK
from learning_assets.core.judge import judge, predicted_edges
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.core.replay import judge_all, past_weeks, replay_week, walk_forward
from learning_assets.core.walkforward import Replay

CONFIG = LearningConfig(rotations=39)
PLAN = Plan(
    seed=4, n_trades=700, n_days=56, allocated=True, edges=(Edge(ONE, {"chain": "solana"}, 1.2),)
)
EVENTS = events_of(PLAN)


def override(key: GroupKey, pairs: tuple[tuple[str, str], ...], edge_r: float) -> Override:
    state = DecayState.INSUFFICIENT
    return Override(key, pairs, 1 + edge_r / 2, edge_r, 0.9, state, None, 50, 0.02)


OVERRIDES = (
    override(ONE, (("chain", "solana"),), 0.6),
    override(ONE, (("timeframe", "1h"),), -0.4),
    override(ALLOCATION, (("mcap_bucket", "micro"),), 0.3),
)


def of_week(overrides: tuple[Override, ...], k: int = 5) -> Replay:
    week = START + k * WEEK
    content = OverrideSet(week, week, week + WEEK, overrides, {}, replay=True)
    return Replay(content, {"pm": 0.5, "dm": 0.5})


def test_the_judge_equals_a_loop_over_trades() -> None:
    replay, size, rr = of_week(OVERRIDES), [], []
    for _, actions in market(PLAN).groupby("trade_id"):
        opened = actions["opened_at"].iloc[0]
        if not (replay.week <= opened < replay.week + WEEK):
            continue
        found = [
            look_up(OVERRIDES, GroupKey(a.module, a.pattern_key, a.action_category), a.scope)
            for a in actions.itertuples()
        ]
        size.append(np.prod([x.multiplier for x in found]))
        rr.append(actions["rr"].iloc[0])
    result = judge(replay, EVENTS, PLAN.end + WEEK, CONFIG)
    assert result.n_trades == len(rr) > 50
    assert result.mean_rr == pytest.approx(np.mean(rr))
    assert result.mean_rr_with == pytest.approx(np.dot(size, rr) / np.sum(size))
    assert result.total_size == pytest.approx(np.mean(size))
    assert result.low is not None
    assert result.high is not None
    assert result.low <= result.high


def test_a_cause_that_two_patterns_share_is_predicted_once() -> None:
    """Each pattern has half of the edge; a trade that fires both is predicted the whole."""
    rows = [row("both", START, {}, 1.0, key) for key in (ONE, TWO)]
    rows += [row("one", START, {}, 1.0, ONE), row("neither", START, {}, 1.0, ALLOCATION)]
    events = from_frame(to_frame(rows))
    halves = [override(key, (), 0.3) for key in (ONE, TWO)]
    found = dict(zip(events.trade_ids, predicted_edges(halves, events, "pm"), strict=True))
    assert found == pytest.approx({"both": 0.6, "one": 0.3, "neither": 0.0})


def test_only_trades_closed_before_the_evaluation_count() -> None:
    replay = of_week(OVERRIDES)
    assert judge(replay, EVENTS, replay.week, CONFIG).difference is None
    half = judge(replay, EVENTS, replay.week + WEEK / 2, CONFIG).n_trades
    assert 0 < half < judge(replay, EVENTS, PLAN.end, CONFIG).n_trades


def test_a_set_sees_nothing_that_closed_later() -> None:
    week = START + 6 * WEEK
    gains = gains_of((), CONFIG, week)
    frame = market(PLAN)
    later = frame["closed_at"] >= week
    frame.loc[later, "rr"] = -frame.loc[later, "rr"] + 3.0
    assert replay_week(EVENTS, week, CONFIG, gains) == replay_week(
        from_frame(frame.sample(frac=1.0, random_state=1)), week, CONFIG, gains
    )


def test_known_weeks_count_as_if_they_had_been_replayed() -> None:
    weeks = past_weeks(EVENTS, PLAN.end)
    whole = walk_forward(EVENTS, CONFIG, weeks)
    assert walk_forward(EVENTS, CONFIG, weeks[-1:], whole[:-1]) == whole[-1:]
    gains = gains_of(judge_all(whole, EVENTS, PLAN.end, CONFIG), CONFIG, PLAN.end)
    assert gains["pm"].slope is not None
    assert gains["pm"].value > CONFIG.prior_gain
    early = gains_of(judge_all(whole, EVENTS, PLAN.end, CONFIG), CONFIG, weeks[-1])
    assert early["pm"].slope is None


def test_too_little_gives_nothing_and_no_error() -> None:
    nothing = EVENTS.where(np.zeros(EVENTS.n_trades, dtype=bool))
    assert past_weeks(nothing, PLAN.end) == []
    [replay] = walk_forward(nothing, CONFIG, [START])
    assert replay.content.overrides == ()
    assert judge(replay, nothing, START + WEEK, CONFIG).mean_rr is None
    assert gains_of((), replace_prior(0.3), START)["dm"].value == 0.3


def replace_prior(prior: float) -> LearningConfig:
    return LearningConfig(prior_gain=prior)


@pytest.mark.parametrize(
    ("prior", "slope", "se", "gain"),
    [(0.5, 1.0, 0.5, 0.75), (0.5, 0.0, 0.5, 0.25), (0.5, -3.0, 0.1, 0.0), (0.2, 1.0, 0.0, 1.0)],
)
def test_the_gain_is_that_of_the_formula(
    prior: float, slope: float, se: float, gain: float
) -> None:
    assert combined_gain(prior, slope, se) == pytest.approx(gain)


@given(st.floats(0, 1), st.floats(-5, 5), st.floats(0, 5))
def test_the_gain_lies_between_prior_and_slope(prior: float, slope: float, se: float) -> None:
    low, high = sorted((prior, min(max(slope, 0.0), 1.0)))
    assert low - 1e-9 <= combined_gain(prior, slope, se) <= high + 1e-9


def test_fewer_weeks_make_a_gain_rest_on_less() -> None:
    whole = walk_forward(EVENTS, CONFIG, past_weeks(EVENTS, PLAN.end))
    at = PLAN.end + timedelta(days=1)
    results = judge_all(whole, EVENTS, at, CONFIG)
    few = gains_of(results, CONFIG.model_copy(update={"gain_weeks": 2}), at)["pm"]
    assert few.n_weeks < gains_of(results, CONFIG, at)["pm"].n_weeks
