"""What the bench says of predictions where the truth is known: full, half and wrong edges."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from worlds import ALLOCATION, ONE, START, TWO, Edge, Plan, events_of

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from predictions import STEPS, true_edges, true_shares, true_slopes

from learning_assets.core.config import LearningConfig
from learning_assets.core.history import WEEK
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.core.walkforward import Replay

CONFIG = LearningConfig()
SOLANA, MICRO = (("chain", "solana"),), (("mcap_bucket", "micro"),)
PLAN = Plan(
    seed=2,
    n_trades=900,
    n_days=56,
    noise_sd=0.0,
    allocated=True,
    edges=(Edge(ONE, dict(SOLANA), 0.8), Edge(ALLOCATION, dict(MICRO), -0.5)),
)
EVENTS = events_of(PLAN)
"""Without noise, so that the outcomes are the expected R."""


def override(
    key: GroupKey, pairs: tuple[tuple[str, str], ...], joint_r: float, remaining: float = 1.0
) -> Override:
    parts = dict(zip(STEPS, (joint_r, remaining, 1.0, 1.0), strict=True))
    state = DecayState.INSUFFICIENT
    return Override(key, pairs, 1.0, joint_r * remaining, 0.9, state, None, 50, 0.02, parts)


def replays(*overrides: Override) -> list[Replay]:
    weeks = [START + k * WEEK for k in range(8)]
    sets = [OverrideSet(w, w, w + WEEK, overrides, {}, replay=True) for w in weeks]
    return [Replay(one, {"pm": 0.5, "dm": 0.5}) for one in sets]


def test_true_edges_have_slope_one_and_doubled_ones_a_half() -> None:
    made = replays(override(ONE, SOLANA, 1.6, remaining=0.5), override(ALLOCATION, MICRO, -0.5))
    slopes = true_slopes(made, EVENTS, EVENTS.rr, PLAN.end, CONFIG)
    assert slopes["joint_edge_r"]["pm"] == pytest.approx(0.5)
    assert slopes["remaining_share"]["pm"] == pytest.approx(1.0)
    assert slopes["regime_factor"] == pytest.approx({"pm": 1.0, "dm": 1.0})


def test_slopes_of_a_module_without_overrides_are_unknown() -> None:
    slopes = true_slopes(replays(override(ONE, SOLANA, 0.8)), EVENTS, EVENTS.rr, PLAN.end, CONFIG)
    assert slopes["joint_edge_r"]["dm"] is None


def test_true_edges_are_those_that_were_planted() -> None:
    made = [
        override(ONE, SOLANA, 1.0),
        override(ALLOCATION, MICRO, 0.1),
        override(TWO, (("timeframe", "1h"),), 0.4),
    ]
    assert true_edges(made, EVENTS, EVENTS.rr) == pytest.approx([0.8, -0.5, 0.0])
    [pattern] = true_edges([override(ONE, (), 0.3)], EVENTS, EVENTS.rr)
    assert pattern == pytest.approx(_mean_of(ONE) - _mean_of(TWO))


def _mean_of(key: GroupKey) -> float:
    return float(EVENTS.rr[EVENTS.trade[EVENTS.group == EVENTS.groups.index(key)]].mean())


def test_shares_are_told_apart_by_what_is_named() -> None:
    made = replays(
        override(ONE, SOLANA, 1.0),
        override(ALLOCATION, MICRO, 0.1),
        override(TWO, (("timeframe", "1h"),), 0.4),
    )
    shares = true_shares(made, EVENTS, EVENTS.rr, frozenset({(ONE, SOLANA)}), CONFIG)
    assert shares["pm named"].true_share == pytest.approx(0.8)
    assert shares["pm named"].n == len(made)
    assert shares["pm named"].mean_r == pytest.approx(1.0)
    assert shares["pm other"].true_share == pytest.approx(0.0, abs=1e-9)
    assert shares["dm other"].true_share == pytest.approx(-5.0)
    few = CONFIG.model_copy(update={"gain_weeks": 3})
    assert true_shares(made, EVENTS, EVENTS.rr, frozenset(), few)["pm other"].n == 6
