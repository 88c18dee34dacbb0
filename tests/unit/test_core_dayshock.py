"""The daily shock against dense matrices, and its estimates against what was planted."""

from __future__ import annotations

import numpy as np
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter

from learning_assets.core.dayshock import DayShock, Whitener, fit_day_shock, whiten

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAYS = st.lists(st.integers(0, 30), min_size=2, max_size=40).map(
    lambda days: np.array(sorted(days), dtype=np.int64) + 20_000
)
SHOCKS = st.builds(
    DayShock,
    st.floats(0.05, 5.0),
    st.sampled_from([0.0, 0.01, 0.4, 3.0]),
    st.sampled_from([0.0, 0.3, 0.9, 0.98]),
)
SOME_DAYS = np.sort(np.random.default_rng(5).choice([3, 4, 5, 9, 30, 31], 25)).astype(np.int64)
SOME_SHOCK = DayShock(0.8, 0.3, 0.9)


def inverse_of(day: Ints, shock: DayShock) -> Floats:
    return np.asarray(np.linalg.inv(twins.covariance(day, shock)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(DAYS.filter(lambda day: day[-1] > day[0]), SHOCKS, st.integers(0, 99))
def test_whitening_equals_the_dense_inverse(day: Ints, shock: DayShock, seed: int) -> None:
    y = np.random.default_rng(seed).standard_normal((len(day), 3))
    inverse, white = inverse_of(day, shock), whiten(day, shock)
    one = np.ones(len(day))
    mean = (one @ inverse @ y) / (one @ inverse @ one)
    np.testing.assert_allclose(white.solve(y), inverse @ y, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(white.solve(y[:, 0]), inverse @ y[:, 0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(white.centre(y), inverse @ (y - mean), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(white.centre(y[:, 0]), white.centre(y)[:, 0], atol=1e-12)
    np.testing.assert_allclose(white.ones, inverse @ one, rtol=1e-7, atol=1e-9)
    assert white.ones_total == pytest.approx(one @ inverse @ one)
    assert white.centre(y).sum(axis=0) == pytest.approx(np.zeros(3), abs=1e-8)


def dense_k(day: Ints, shock: DayShock) -> Floats:
    """K = (σ²(γΦ)⁻¹ + Z'Z)⁻¹ over all days from the first to the last."""
    n_days = int(day[-1] - day[0]) + 1
    apart = np.abs(np.subtract.outer(np.arange(n_days), np.arange(n_days)))
    phi = np.power(shock.day_autocorrelation, apart)
    precision = shock.noise_variance * np.linalg.inv(shock.day_variance * phi)
    counts = np.diag(np.bincount(day - day[0]))
    return np.asarray(np.linalg.inv(precision + counts))


@pytest.mark.parametrize("phi", [0.2, 0.9, 0.98])
def test_the_streamed_inverse_equals_the_dense_one(phi: float) -> None:
    shock = DayShock(0.8, 0.3, phi)
    white, K = whiten(SOME_DAYS, shock), dense_k(SOME_DAYS, shock)
    np.testing.assert_allclose(white.diagonal, np.diag(K), rtol=1e-9)
    for d in range(len(K)):
        for e in range(d + 1, len(K)):
            streamed = white.diagonal[e] * np.exp(white.log_ratio[e] - white.log_ratio[d])
            assert streamed == pytest.approx(K[d, e], rel=1e-8, abs=1e-14)


def test_without_autocorrelation_days_do_not_reach_each_other() -> None:
    shock = DayShock(0.8, 0.3, 0.0)
    white, K = whiten(SOME_DAYS, shock), dense_k(SOME_DAYS, shock)
    np.testing.assert_allclose(white.diagonal, np.diag(K), rtol=1e-9)
    assert (np.exp(np.diff(white.log_ratio)) < 1e-200).all()


def test_a_whitener_solves_nothing_but_its_own_system() -> None:
    white = whiten(SOME_DAYS, SOME_SHOCK)
    V = twins.covariance(SOME_DAYS, SOME_SHOCK)
    y = np.random.default_rng(1).standard_normal(len(SOME_DAYS))
    np.testing.assert_allclose(V @ white.solve(y), y, atol=1e-10)


def test_one_day_with_a_shock_can_be_whitened() -> None:
    day = np.full(6, 20_000, dtype=np.int64)
    shock = DayShock(0.8, 0.3, 0.9)
    y = np.arange(6.0)
    np.testing.assert_allclose(whiten(day, shock).solve(y), inverse_of(day, shock) @ y)


def test_one_trade_can_be_whitened() -> None:
    white: Whitener = whiten(np.array([7]), DayShock(0.5, 0.0, 0.0))
    assert white.solve(np.array([3.0])) == pytest.approx([6.0])
    assert white.centre(np.array([3.0])) == pytest.approx([0.0])


@pytest.mark.parametrize("day_variance", [0.0, 0.3])
def test_outcomes_without_own_noise_cannot_be_weighted(day_variance: float) -> None:
    with pytest.raises(ValueError, match="without variance"):
        whiten(SOME_DAYS, DayShock(0.0, day_variance, 0.5))


# --- the fit ------------------------------------------------------------------------------


def noise(seed: int, shock: DayShock, n_days: int, n_trades: int) -> tuple[Floats, Ints]:
    """Outcomes of the model, with their days."""
    rng = np.random.default_rng(seed)
    phi = shock.day_autocorrelation
    steps = rng.standard_normal(n_days + 100) * np.sqrt(shock.day_variance * (1 - phi**2))
    by_day = lfilter([1.0], [1.0, -phi], steps)[100:]
    day = np.sort(rng.integers(0, n_days, n_trades)).astype(np.int64)
    own = rng.standard_normal(n_trades) * np.sqrt(shock.noise_variance)
    return by_day[day] + own, day


@pytest.mark.parametrize("planted", [DayShock(1.0, 0.3, 0.7), DayShock(1.0, 0.2, 0.3)])
def test_the_fit_recovers_a_planted_shock(planted: DayShock) -> None:
    fits = [fit_day_shock(*noise(seed, planted, 400, 4000)) for seed in range(25)]
    assert np.mean([f.day_variance for f in fits]) == pytest.approx(planted.day_variance, rel=0.15)
    assert np.mean([f.day_autocorrelation for f in fits]) == pytest.approx(
        planted.day_autocorrelation, abs=0.08
    )
    assert np.mean([f.noise_variance for f in fits]) == pytest.approx(1.0, rel=0.05)


def test_the_fit_finds_next_to_nothing_without_a_shock() -> None:
    fits = [fit_day_shock(*noise(seed, DayShock(1.0, 0.0, 0.0), 100, 2000)) for seed in range(40)]
    assert max(f.day_variance for f in fits) < 0.05
    assert np.mean([f.day_variance for f in fits]) < 0.01
    assert np.mean([f.noise_variance for f in fits]) == pytest.approx(1.0, rel=0.03)


def test_days_that_repel_their_trades_have_no_shock() -> None:
    day = np.repeat(np.arange(50), 2)
    y = np.tile([1.0, -1.0], 50)
    fit = fit_day_shock(y, day)
    assert (fit.day_variance, fit.day_autocorrelation) == (0.0, 0.0)
    assert fit.noise_variance == pytest.approx(y.var(ddof=1))


def by_pairs(y: Floats, day: Ints) -> tuple[float, float]:
    """γ and φ that fit the products of all pairs at most 20 days apart, pair by pair."""
    centred = y - y.mean()
    pairs = [
        (centred[i] * centred[j], abs(day[i] - day[j]))
        for i in range(len(y))
        for j in range(i)
        if abs(day[i] - day[j]) <= 20
    ]
    product, lag = np.array(pairs).T
    fits = []
    for phi in np.linspace(0, 0.98, 50):
        shape = phi**lag
        gamma = max(0.0, (product @ shape) / (shape @ shape))
        fits.append((((product - gamma * shape) ** 2).sum(), gamma, phi))
    _, gamma, phi = min(fits)
    return gamma, phi


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("phi", [0.0, 0.6, 0.95])
def test_the_fit_is_least_squares_over_pairs_of_trades(seed: int, phi: float) -> None:
    y, day = noise(seed, DayShock(1.0, 0.4, phi), 50, 120)
    gamma, best = by_pairs(y, day)
    fit = fit_day_shock(y, day)
    assert fit.day_variance == pytest.approx(gamma)
    assert gamma == 0 or fit.day_autocorrelation == pytest.approx(best)
    assert fit.noise_variance == pytest.approx(y.var(ddof=1) - gamma)


@pytest.mark.parametrize("scale", [0.25, 8.0])
def test_variances_scale_with_the_square_of_outcomes(scale: float) -> None:
    y, day = noise(3, SOME_SHOCK, 60, 500)
    one, other = fit_day_shock(y, day), fit_day_shock(scale * y + 5 * scale, day + 11)
    assert other.day_variance == pytest.approx(scale**2 * one.day_variance)
    assert other.noise_variance == pytest.approx(scale**2 * one.noise_variance)
    assert other.day_autocorrelation == one.day_autocorrelation


def test_fewer_than_two_trades_have_no_variance() -> None:
    for n in (0, 1):
        fit = fit_day_shock(np.ones(n), np.zeros(n, dtype=np.int64))
        assert fit == DayShock(0.0, 0.0, 0.0)


@pytest.mark.parametrize("day", [[4, 4], [4, 5], [4, 400]])
def test_two_trades_give_finite_variances(day: list[int]) -> None:
    fit = fit_day_shock(np.array([1.0, -0.5]), np.array(day))
    assert fit.noise_variance > 0
    assert fit.day_variance >= 0
    assert fit.noise_variance + fit.day_variance == pytest.approx(np.var([1.0, -0.5], ddof=1))


def test_some_of_the_variance_stays_with_the_trades() -> None:
    day = np.repeat(np.arange(30), 4)
    y = np.repeat(np.random.default_rng(1).standard_normal(30), 4)
    fit = fit_day_shock(y, day)
    assert fit.noise_variance >= 0.0999 * y.var(ddof=1)
