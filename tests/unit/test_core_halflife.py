"""Half-lives: the test vector, a naive twin, what is invariant, and what chance may claim."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize
from small_market import ONE, START

from learning_assets.core.halflife import HalfLife, fit_half_lives, half_lives, remaining_share
from learning_assets.core.history import EdgePoint
from learning_assets.core.records import DecayState

WEEK_HOURS = 168.0
DESIGN = np.array([[0.85, 0.78, 0.72, 0.68]])


def _weeks(n: int) -> np.ndarray:
    return WEEK_HOURS * np.arange(n)


def _one(edge: np.ndarray, se: float = 0.03) -> HalfLife:
    [found] = fit_half_lives(_weeks(len(edge)), edge[None, :], np.full((1, len(edge)), se))
    return found


def test_vector_of_the_design() -> None:
    found = _one(DESIGN[0])
    assert found.status is DecayState.DECAYING
    assert found.half_life_hours == pytest.approx(1536, abs=5)
    assert found.low is not None
    assert found.high is not None
    assert 1 <= found.low < 1536 < found.high <= 8760
    assert found.e0 == pytest.approx(0.8457, abs=1e-3)
    assert found.n_windows == 4
    assert found.p_value is not None
    assert found.p_value < 0.01


def _cost(rate: float, edge: np.ndarray, se: float) -> float:
    curve = np.exp(-rate * _weeks(len(edge)))
    e0 = (edge @ curve) / (curve @ curve)
    return float((((edge - e0 * curve) / se) ** 2).sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(100, 4000), st.sampled_from([-0.8, 0.5, 0.9]))
def test_decay_and_interval_are_those_of_a_general_optimiser(
    seed: int, half_life: float, e0: float
) -> None:
    true = math.log(2) / half_life
    noise = 0.05 * np.random.default_rng(seed).standard_normal(20)
    edge = e0 * np.exp(-true * _weeks(20)) + noise
    found = _one(edge, 0.05)
    assume(found.status is DecayState.DECAYING)
    best = optimize.minimize_scalar(
        _cost, bounds=(true / 20, true * 20), args=(edge, 0.05), method="bounded",
        options={"xatol": 1e-10},
    )  # fmt: skip
    assert found.half_life_hours == pytest.approx(math.log(2) / best.x, rel=1e-3)
    for bound in (found.low, found.high):
        if bound is not None and 1 < bound < 8760:
            extra = _cost(math.log(2) / bound, edge, 0.05) - best.fun
            assert extra == pytest.approx(2.7055, rel=1e-2)


def test_states() -> None:
    weeks = _weeks(12)
    assert _one(np.full(12, 0.5)).status is DecayState.STABLE
    assert _one(np.full(12, 0.5)).half_life_hours is None
    assert _one(0.2 * np.exp(weeks / 1000)).status is DecayState.IMPROVING
    assert _one(np.full(3, 0.5)).status is DecayState.INSUFFICIENT
    assert _one(-0.9 * np.exp(-weeks / 700)).status is DecayState.DECAYING
    crossing = np.linspace(0.6, -0.1, 12)
    assert _one(crossing).status is DecayState.DECAYING


def test_windows_without_trades_do_not_count() -> None:
    edge = np.array(
        [[0.85, np.nan, 0.78, 0.72, np.nan, 0.68], [0.9, np.nan, 0.8, 0.7, np.nan, np.nan]]
    )
    se = np.where(np.isnan(edge), np.nan, 0.03)
    hours = np.array([0, 100, 168, 336, 400, 504.0])
    found, too_few = fit_half_lives(hours, edge, se)
    assert found.half_life_hours == pytest.approx(1536, abs=5)
    assert found.n_windows == 4
    assert too_few.status is DecayState.INSUFFICIENT
    assert too_few.n_windows == 3
    assert fit_half_lives(hours, edge[:0], se[:0]) == []
    with pytest.raises(ValueError, match="windows"):
        fit_half_lives(hours[:2], edge, se)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.sampled_from([-1.0, 1.0]), st.floats(-5000, 5000))
def test_scale_sign_and_time_shift_change_nothing(scale: float, sign: float, shift: float) -> None:
    edge = scale * sign * DESIGN
    [found] = fit_half_lives(_weeks(4) + shift, edge, np.full((1, 4), 0.03 * scale))
    assert found.half_life_hours == pytest.approx(1536.3, abs=0.5)
    assert found.e0 == pytest.approx(0.84565 * scale * sign, rel=1e-3)


def test_many_at_once_are_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    edge = 0.8 * np.exp(-_weeks(20) / 900) + 0.1 * rng.standard_normal((40, 20))
    edge[rng.random(edge.shape) < 0.3] = np.nan
    se = np.where(np.isnan(edge), np.nan, 0.1)
    together = fit_half_lives(_weeks(20), edge, se)
    for row, found in enumerate(together):
        [alone] = fit_half_lives(_weeks(20), edge[[row]], se[[row]])
        assert alone.status is found.status
        assert alone.half_life_hours == pytest.approx(found.half_life_hours, rel=1e-6)


@pytest.mark.parametrize("z", [0.0, 2.0, 4.0, 10.0])
def test_constant_edges_are_seldom_called_decaying(z: float) -> None:
    rng = np.random.default_rng(8)
    edge = z / math.sqrt(26) + rng.standard_normal((1500, 26))
    found = fit_half_lives(_weeks(26), edge, np.ones(edge.shape))
    share = sum(f.status is DecayState.DECAYING for f in found) / len(found)
    assert share < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1500)


@pytest.mark.parametrize(("half_life", "bound"), [(200, 0.281), (500, 0.197), (1500, 0.146)])
def test_errors_are_near_the_cramer_rao_bound(half_life: float, bound: float) -> None:
    rng = np.random.default_rng(9)
    se = 1.2 / math.sqrt(40)
    edge = 0.8 * np.exp(-math.log(2) / half_life * _weeks(26)) + se * rng.standard_normal((600, 26))
    found = fit_half_lives(_weeks(26), edge, np.full(edge.shape, se))
    errors = [
        abs(f.half_life_hours / half_life - 1) if f.half_life_hours else math.inf for f in found
    ]
    covered = [f.low <= half_life <= f.high for f in found if f.low and f.high]
    assert np.median(errors) < 1.15 * bound
    assert 0.85 <= np.mean(covered) <= 0.95


def test_five_thousand_lessons_take_seconds() -> None:
    rng = np.random.default_rng(1)
    se = np.full((5000, 52), 0.19)
    edge = 0.3 * np.exp(-_weeks(52) / 4000) + se * rng.standard_normal(se.shape)
    start = time.process_time()
    assert len(fit_half_lives(_weeks(52), edge, se)) == 5000
    assert time.process_time() - start < 10


def test_half_lives_of_points() -> None:
    points = [
        EdgePoint("x", ONE, "a=b", START + timedelta(weeks=w), e, 0.03, 40, 0.1)
        for w, e in enumerate(DESIGN[0])
    ]
    points += [EdgePoint("y", ONE, "a=c", START + timedelta(weeks=9), 0.5, 0.03, 40, 0.1)]
    found = half_lives(reversed(points))
    assert found["x"].half_life_hours == pytest.approx(1536, abs=5)
    assert found["y"].status is DecayState.INSUFFICIENT
    assert half_lives([]) == {}


def _decaying(half_life: float) -> HalfLife:
    rate = math.log(2) / half_life
    return HalfLife(DecayState.DECAYING, half_life, 1.0, 8760.0, 0.8, 20, 0.01, rate)


@settings(max_examples=30, deadline=None)
@given(st.floats(50, 8760), st.lists(st.floats(0, 4000), min_size=1, max_size=30))
def test_what_remains_is_the_edge_now_over_its_mean(half_life: float, hours: list[float]) -> None:
    closed = np.datetime64("2026-01-05", "us") + (np.array(hours) * 3.6e9).astype("timedelta64[us]")
    as_of = START + timedelta(hours=4000)
    rate = math.log(2) / half_life
    naive = math.exp(-rate * 4000) / np.mean(np.exp(-rate * np.array(hours)))
    share = remaining_share(_decaying(half_life), closed, as_of)
    assert share == pytest.approx(naive, rel=1e-6)
    assert 0 <= share <= 1


def test_what_remains_of_an_edge_that_does_not_wear_out() -> None:
    stable = HalfLife(DecayState.STABLE, None, None, None, 0.5, 20, 0.4, 0.0)
    nothing = np.array([], dtype="datetime64[us]")
    assert remaining_share(stable, nothing, START) == 1.0
    with pytest.raises(ValueError, match="no trades"):
        remaining_share(_decaying(100), nothing, START)
    long_ago = np.array(["2020-01-01"], dtype="datetime64[us]")
    assert remaining_share(_decaying(1.0), long_ago, datetime(2026, 1, 1, tzinfo=UTC)) == 0.0
