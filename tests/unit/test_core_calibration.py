"""Rotations are rotations, and cut-offs are exceeded as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from worlds import ONE, Chaos, chaos

from learning_assets.core import calibration
from learning_assets.core.calibration import (
    offsets_of,
    rotated_by,
    slice_cutoffs,
    tail_cutoff,
)
from learning_assets.core.dayshock import DayShock
from learning_assets.core.events import from_frame
from learning_assets.core.lattice import Beside, Weighted, lattice_of, strongest
from learning_assets.core.mining import Group, group_of

Floats = NDArray[np.float64]


def rotations(y: Floats, count: int, rng: np.random.Generator) -> Floats:
    return rotated_by(y, offsets_of(len(y), count, rng))


@pytest.mark.parametrize("n", [10, 97, 1000])
def test_rotations_are_rotations_by_a_tenth_to_nine_tenths(n: int) -> None:
    y = np.arange(float(n))
    moved = rotations(y, 300, np.random.default_rng(1))
    assert moved.shape == (n, 300)
    for column in moved.T:
        np.testing.assert_array_equal(column, np.roll(y, -int(column[0])))
    offsets = moved[0] / n
    assert offsets.min() >= 0.1
    assert offsets.max() <= 0.9
    assert np.ptp(offsets) > 0.6


def test_every_offset_between_is_possible() -> None:
    moved = rotations(np.arange(20.0), 2000, np.random.default_rng(1))
    assert set(moved[0].astype(int)) == set(range(2, 19))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_samples_can_be_rotated(n: int) -> None:
    moved = rotations(np.arange(float(n)), 20, np.random.default_rng(1))
    assert (np.sort(moved, axis=0) == np.arange(float(n))[:, None]).all()
    assert n < 2 or (moved[0] != 0).all()


def test_rotations_follow_from_the_seed() -> None:
    y = np.arange(50.0)
    one, same, other = (rotations(y, 9, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def maxima_of(m: int, count: int, seed: int) -> Floats:
    """Maxima of m independent χ²₁ variables, by the inverse of their distribution."""
    u = np.random.default_rng(seed).random(count)
    return np.asarray(stats.chi2.isf(-np.expm1(np.log(u) / m), 1))


@pytest.mark.parametrize("m", [1, 100, 10_000])
@pytest.mark.parametrize("tail", [0.05, 0.003])
def test_cutoffs_equal_the_quantile_of_simulated_maxima(m: int, tail: float) -> None:
    truth = stats.chi2.isf(-math.expm1(math.log1p(-tail) / m), 1)
    cutoffs = [tail_cutoff(maxima_of(m, 99, seed), tail) for seed in range(30)]
    assert np.median(cutoffs) == pytest.approx(truth, rel=0.07)
    assert np.std(cutoffs) / truth < 0.25


@pytest.mark.parametrize("m", [1, 100, 10_000])
def test_cutoffs_are_exceeded_as_often_as_they_say(m: int) -> None:
    cutoffs = np.array([tail_cutoff(maxima_of(m, 99, seed), 0.05) for seed in range(40)])
    exceeded = -np.expm1(m * np.log1p(-stats.chi2.sf(cutoffs, 1)))
    assert 0.035 < exceeded.mean() < 0.075


def test_the_inverse_distribution_of_the_maxima_is_right() -> None:
    drawn = np.random.default_rng(3).chisquare(1, (4000, 50)).max(axis=1)
    assert stats.ks_2samp(drawn, maxima_of(50, 4000, 4)).pvalue > 0.01


def test_cutoffs_scale_with_the_maxima() -> None:
    x = maxima_of(100, 99, 1)
    assert tail_cutoff(4 * x, 0.05) == pytest.approx(4 * tail_cutoff(x, 0.05), rel=1e-3)


def test_a_smaller_tail_has_a_larger_cutoff() -> None:
    x = maxima_of(100, 99, 1)
    assert tail_cutoff(x, 0.001) > tail_cutoff(x, 0.01) > tail_cutoff(x, 0.1) > np.median(x)


def test_identical_maxima_give_their_value() -> None:
    assert tail_cutoff(np.full(20, 7.5), 0.05) == 7.5


def test_maxima_with_zeros_give_a_finite_cutoff() -> None:
    assert 0 < tail_cutoff(np.array([0.0, 0.0, 1.0, 2.0, 3.0]), 0.05) < 1000


# --- cut-offs of a group ------------------------------------------------------------------

SHOCK = DayShock(1.0, 0.0, 0.0)


def a_group() -> Group:
    return group_of(from_frame(chaos(Chaos(seed=3, n_trades=300, n_days=60, absent=0.0))), ONE)


def cutoffs(
    group: Group, y: Floats, seed: int = 1, tail: float = 0.01, n_min: int = 15, depth: int = 3
) -> tuple[float, ...]:
    weighted = Weighted.of(lattice_of(group, y, SHOCK, n_min, depth), SHOCK)
    rng = np.random.default_rng(seed)
    return slice_cutoffs(weighted, y, Beside.nothing(weighted), rotated=60, tail=tail, rng=rng)


def test_cutoffs_are_those_of_the_rotated_maxima() -> None:
    group, y = a_group(), np.random.default_rng(0).standard_normal(300)
    moved = rotations(y, 60, np.random.default_rng(1))
    score = strongest(group, moved, SHOCK, 15, 3).score
    expected = [math.sqrt(tail_cutoff(score[:, k], 0.01)) for k in range(6)]
    assert cutoffs(group, y) == pytest.approx(expected)


def test_cutoffs_follow_from_the_seed_and_the_tail() -> None:
    group, y = a_group(), np.random.default_rng(0).standard_normal(300)
    assert cutoffs(group, y) == cutoffs(group, y)
    assert cutoffs(group, y) != cutoffs(group, y, seed=2)
    assert (np.array(cutoffs(group, y)) > np.array(cutoffs(group, y, tail=0.1))).all()


def test_either_sign_of_skewed_outcomes_has_its_own() -> None:
    group, y = a_group(), np.random.default_rng(0).lognormal(0.0, 1.5, 300)
    by_cell = cutoffs(group, (y - y.mean()) / y.std())
    assert by_cell[3] > 1.15 * by_cell[2]
    assert by_cell[5] > 1.15 * by_cell[4]


def test_cells_without_testable_slices_cannot_be_passed() -> None:
    group = group_of(from_frame(chaos(Chaos(n_dims=1, n_trades=40))), ONE)
    y = np.random.default_rng(0).standard_normal(40)
    by_cell = cutoffs(group, y, n_min=5, depth=2)
    assert np.isfinite(by_cell[:2]).all()
    assert np.isinf(by_cell[2:]).all()


@pytest.mark.parametrize("n", [0, 3])
def test_too_few_trades_have_no_cutoff(n: int) -> None:
    frame = chaos(Chaos(n_trades=8))
    group = group_of(from_frame(frame[frame["trade_id"] < f"t{n:04d}"]), ONE)
    assert cutoffs(group, np.ones(n), n_min=5, depth=2) == (math.inf,) * 4


@pytest.mark.parametrize("together", [1, 7, 1000])
def test_how_many_rotations_are_carried_at_once_does_not_matter(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, y = a_group(), np.random.default_rng(0).standard_normal(300)
    before = cutoffs(group, y)
    monkeypatch.setattr(calibration, "_MOST_TOGETHER", together)
    monkeypatch.setattr(calibration, "_FEWEST_TOGETHER", 1)
    assert cutoffs(group, y) == pytest.approx(before, rel=1e-9)
