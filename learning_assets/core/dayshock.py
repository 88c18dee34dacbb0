"""The common daily shock: how much of the noise all trades of a day share, and for how long.

The noise of a trade closing on day d is modelled as e + s_d, with e independent of variance σ²
and s a first-order autoregression over days of variance γ and autocorrelation φ, so that the
outcomes have covariance V = σ²I + γZΦZ'. Contrasts are weighted by V⁻¹ (generalised least
squares: Aitken 1936; random effects: Henderson 1975), which compares trades within a day where
it can and across days only as far as the shock allows. The precision of an autoregression is
tridiagonal, so everything is linear in the number of days. The model only ranks slices: the
cut-offs are calibrated by rotation, the published errors are clustered by day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

Floats = NDArray[np.float64]

LEAST_VARIANCE = 1e-12
"""R²: outcomes are known to a millionth of an R at best, also where a fit leaves nothing."""

_MAX_LAG_DAYS = 20
_PHI_GRID = np.linspace(0.0, 0.98, 50)


@dataclass(frozen=True, slots=True)
class DayShock:
    """Variances in R²: of the independent noise, of the daily shock, and its autocorrelation."""

    noise_variance: float
    day_variance: float
    day_autocorrelation: float


def fit_day_shock(y: Floats, day: NDArray[np.int64]) -> DayShock:
    """Moment estimates from residual outcomes `y` (R) and their closing days.

    Products of outcomes of different trades h days apart have mean γ·φ^h; the fit is least
    squares over h = 0 … 20 days, weighted by the number of pairs. With fewer than two trades
    the variances are 0.
    """
    if len(y) < 2:
        return DayShock(0.0, 0.0, 0.0)
    centred = y - y.mean()
    total = float(centred @ centred) / (len(y) - 1)
    gamma, phi = _fit_decay(*_pair_moments(centred, day))
    gamma = min(gamma, 0.9 * total)
    return DayShock(max(total - gamma, LEAST_VARIANCE), gamma, phi)


def _pair_moments(y: Floats, day: NDArray[np.int64]) -> tuple[Floats, Floats]:
    first = int(day.min())
    sums = np.bincount(day - first, weights=y)
    counts = np.bincount(day - first).astype(np.float64)
    lags = min(_MAX_LAG_DAYS, len(sums) - 1)
    products = [0.5 * float(sums @ sums - y @ y)]
    pairs = [0.5 * float(counts @ counts - len(y))]
    for lag in range(1, lags + 1):
        products.append(float(sums[:-lag] @ sums[lag:]))
        pairs.append(float(counts[:-lag] @ counts[lag:]))
    return np.array(products), np.array(pairs)


def _fit_decay(products: Floats, pairs: Floats) -> tuple[float, float]:
    shape = _PHI_GRID[:, None] ** np.arange(len(pairs))[None, :]
    weight = (shape**2 * pairs).sum(axis=1)
    fit = (shape * products).sum(axis=1)
    gamma = np.divide(fit, weight, out=np.zeros_like(fit), where=weight > 0)
    gained = np.where(gamma > 0, gamma * fit, 0.0)
    best = int(np.argmax(gained))
    return (float(gamma[best]), float(_PHI_GRID[best])) if gained[best] > 0 else (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Whitener:
    """V⁻¹ of one group under a day shock, in a form that slices can use by streaming.

    With K = (σ²(γΦ)⁻¹ + Z'Z)⁻¹ over days, V⁻¹ = (I − ZKZ')/σ². `day` is the day of each trade
    from 0, `diagonal` the K_dd and `log_ratio` the running sum of log l with K_de = K_ee·Πl for
    d < e; `ones` is V⁻¹1 at each trade and `ones_total` its sum.
    """

    day: NDArray[np.int64]
    noise_variance: float
    banded: Floats | None
    diagonal: Floats
    log_ratio: Floats
    ones: Floats
    ones_total: float

    def solve(self, y: Floats) -> Floats:
        """V⁻¹y for y of shape T or T × columns."""
        if self.banded is None:
            return y / self.noise_variance
        shock = self.shared(self.by_day(y))
        out: Floats = (y - shock[self.day]) / self.noise_variance
        return out

    def by_day(self, y: Floats) -> Floats:
        """Z'y: sums over the trades of each day, y of shape T or T × columns."""
        return days_of(y, self.day)

    def ones_of_day(self) -> Floats:
        """V⁻¹1 of the trades of each day; 0 where a day has none."""
        out = np.zeros(len(self.diagonal))
        out[self.day] = self.ones
        return out

    def shared(self, by_day: Floats) -> Floats:
        """K times sums by day (days or days × columns): what the shock is thought to be."""
        if self.banded is None:
            return np.zeros_like(by_day)
        out: Floats = solveh_banded(self.banded, by_day, lower=False)
        return out

    def centre(self, y: Floats) -> Floats:
        """V⁻¹(y − its generalised mean): sums to 0 over the trades."""
        solved = self.solve(y)
        mean = solved.sum(axis=0) / self.ones_total
        solved -= np.multiply.outer(self.ones, mean)
        return solved


def days_of(y: NDArray[Any], day: NDArray[np.int64]) -> Floats:
    """Sums over the trades of each day, counted from the first; y of shape T or T × columns."""
    starts = np.flatnonzero(np.diff(day, prepend=day[0] - 1))
    out = np.zeros((_n_days(day), *y.shape[1:]))
    out[day[starts] - day[0]] = np.add.reduceat(y, starts, axis=0, dtype=np.float64)
    return out


def _n_days(day: NDArray[np.int64]) -> int:
    """A banded matrix needs two rows; an empty day changes nothing."""
    return max(int(day[-1] - day[0]) + 1, 2)


def whiten(day: NDArray[np.int64], shock: DayShock) -> Whitener:
    """The whitener for trades closing on `day` (ascending, at least one trade).

    A shock without independent noise cannot be whitened: ValueError.
    """
    if shock.noise_variance <= 0:
        raise ValueError("outcomes without variance cannot be weighted")
    day = day - day[0]
    n_days = _n_days(day)
    nothing = np.zeros(n_days)
    if shock.day_variance <= 0:
        ones = np.full(len(day), 1.0 / shock.noise_variance)
        return Whitener(day, shock.noise_variance, None, nothing, nothing, ones, ones.sum())
    main, off = _precision(day, n_days, shock)
    banded = np.vstack([np.concatenate([[0.0], -off]), main])
    diagonal, log_ratio = _inverse_by_streaming(main, off)
    bare = Whitener(day, shock.noise_variance, banded, diagonal, log_ratio, nothing, 1.0)
    ones = bare.solve(np.ones(len(day)))
    return replace(bare, ones=ones, ones_total=float(ones.sum()))


def _precision(day: NDArray[np.int64], n_days: int, shock: DayShock) -> tuple[Floats, Floats]:
    """Diagonal and (negated) off-diagonal of σ²(γΦ)⁻¹ + Z'Z."""
    phi = shock.day_autocorrelation
    scale = shock.noise_variance / (shock.day_variance * (1 - phi**2))
    inner = np.full(n_days, 1 + phi**2)
    inner[0] = inner[-1] = 1.0
    counts = np.bincount(day, minlength=n_days)
    return scale * inner + counts, np.full(n_days - 1, scale * phi)


def _inverse_by_streaming(main: Floats, off: Floats) -> tuple[Floats, Floats]:
    """K_dd and the running sum of log ratios of the inverse of a tridiagonal matrix."""
    forward, backward = main.copy(), main.copy()
    for k in range(1, len(main)):
        forward[k] -= off[k - 1] ** 2 / forward[k - 1]
        backward[-k - 1] -= off[-k] ** 2 / backward[-k]
    ratio = np.maximum(off / forward[:-1], 1e-300)
    log_ratio = np.concatenate([[0.0], np.cumsum(np.log(ratio))])
    return 1.0 / (forward + backward - main), log_ratio
