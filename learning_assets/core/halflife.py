"""How fast an edge wears out: e(t) = e0·exp(−λt), fitted to the weekly edges of a slice.

Weighted least squares on the signed values (no logarithms), profiled over λ: given λ, e0 has a
closed form, so one number per lesson is searched, on a grid and then within its best bracket, for
all lessons at once. λ is tested and bounded by the likelihood ratio (Wilks 1938). Where the edge
is weak, λ is hardly identified and the ratio exceeds its textbook distribution (Davies 1987):
there the test is repeated on simulated constant edges. What the weekly edges are is in
`core.history`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from learning_assets.core.events import instant
from learning_assets.core.history import EdgePoint
from learning_assets.core.records import DecayState

Floats = NDArray[np.float64]

SHORTEST_HOURS = 1.0
LONGEST_HOURS = 8760.0
"""Half-lives are looked for between an hour and a year."""

FEWEST_WINDOWS = 4
"""Fewer windows with trades say nothing about wear."""

SIGNIFICANCE = 0.05
_INTERVAL_DROP = float(stats.chi2.ppf(0.90, 1))
_TEST_DROP = float(stats.chi2.isf(SIGNIFICANCE, 1))
_POSITIVE = math.log(2) / np.geomspace(LONGEST_HOURS, SHORTEST_HOURS, 64)
_GRID: Floats = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE])
_ZERO = len(_POSITIVE)
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 32
_CHUNK = 1024

_SEED = 20240101
_SIMULATED = 999
_WEAK_Z = 7
"""From here on, in standard errors of its mean, a constant edge has the textbook distribution."""

_WINDOW_STEP = 1.2
_COARSE: Floats = math.log(2) / np.geomspace(LONGEST_HOURS, 15.0, 48)


@dataclass(frozen=True, slots=True)
class HalfLife:
    """What is known of an edge's wear.

    `half_life_hours` and its 90 % interval `low` to `high` (hours, within 1 to 8760) are None
    unless decaying. `e0` (R) is the fitted edge in the first window with trades, the mean edge
    where stable, None where insufficient. `p_value` is that of "the edge is constant", and
    `decay_per_hour` the λ of the curve to draw: 0 where stable, negative where improving.
    """

    status: DecayState
    half_life_hours: float | None
    low: float | None
    high: float | None
    e0: float | None
    n_windows: int
    p_value: float | None
    decay_per_hour: float | None


@dataclass(frozen=True, slots=True)
class _Profile:
    """Windows of many lessons: their hours, and weights (0 where absent) and edges of each.

    `hours` has length W, the others are lessons × W.
    """

    hours: Floats
    weight: Floats
    edge: Floats

    def curve(self, rate: Floats) -> Floats:
        """e^(−λt) of each lesson's own λ, scaled so that the largest window with trades is 1."""
        power = np.where(self.weight > 0, -np.outer(rate, self.hours), -np.inf)
        out: Floats = np.exp(power - power.max(axis=1, keepdims=True))
        return out

    def gain(self, rate: Floats) -> Floats:
        """Twice the log-likelihood at each lesson's λ, up to a constant."""
        curve = self.curve(rate)
        weighted = self.weight * curve
        gained: Floats = (weighted * self.edge).sum(axis=1) ** 2 / (weighted * curve).sum(axis=1)
        return gained

    def gains(self) -> Floats:
        """The same at every λ of the grid: lessons × grid."""
        there = self.weight > 0
        last = there.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
        fading = self._grid_gains(there.argmax(axis=1), _GRID[_ZERO:])
        growing = self._grid_gains(last, _GRID[:_ZERO])
        return np.column_stack([growing, fading])

    def _grid_gains(self, peak: NDArray[np.int64], rates: Floats) -> Floats:
        """Gains at the rates where the curves of a lesson are largest in its window `peak`.

        A curve's scale does not matter, so lessons with the same peak share their curves.
        """
        gains = np.empty((len(self.edge), len(rates)))
        weighted = self.weight * self.edge
        for at in np.unique(peak).tolist():
            rows = peak == at
            power = np.minimum(-np.outer(rates, self.hours - self.hours[at]), 0.0)
            curves = np.exp(power).T
            gains[rows] = (weighted[rows] @ curves) ** 2 / (self.weight[rows] @ curves**2)
        return gains

    def e0(self, rate: Floats) -> Floats:
        """The edge (R) in the lesson's first window with trades."""
        curve = self.curve(rate)
        weighted = self.weight * curve
        scale = (weighted * self.edge).sum(axis=1) / (weighted * curve).sum(axis=1)
        first = (self.weight > 0).argmax(axis=1)
        out: Floats = scale * curve[np.arange(len(curve)), first]
        return out

    def take(self, rows: NDArray[np.int64]) -> _Profile:
        """Some of the lessons."""
        return _Profile(self.hours, self.weight[rows], self.edge[rows])

    def windows(self, row: int) -> tuple[Floats, Floats, Floats]:
        """Hours, weights and edges of one lesson's windows with trades."""
        there = self.weight[row] > 0
        return self.hours[there], self.weight[row, there], self.edge[row, there]


def fit_half_lives(hours: Floats, edge_r: Floats, se_r: Floats) -> list[HalfLife]:
    """Half-lives of many lessons.

    `hours` (length W) are the middles of the windows, `edge_r` and `se_r` (lessons × W, R) their
    edges and standard errors; NaN, or an error of 0, where there were no trades. A lesson with
    fewer than four windows is `insufficient`.

    Raises:
        ValueError: when the shapes do not agree.
    """
    if edge_r.shape != se_r.shape or edge_r.shape[1:] != hours.shape:
        raise ValueError(f"{edge_r.shape} edges, {se_r.shape} errors, {hours.shape} windows")
    fitted: list[HalfLife] = []
    for start in range(0, len(edge_r), _CHUNK):
        rows = slice(start, start + _CHUNK)
        fitted += _fit_chunk(hours, edge_r[rows], se_r[rows])
    return fitted


def _fit_chunk(hours: Floats, edge_r: Floats, se_r: Floats) -> list[HalfLife]:
    known = np.isfinite(edge_r) & np.isfinite(se_r) & (se_r > 0)
    windows = known.sum(axis=1)
    out = [_insufficient(int(n)) for n in windows]
    enough = np.flatnonzero(windows >= FEWEST_WINDOWS)
    if len(enough):
        profile = _profile(hours, edge_r[enough], se_r[enough], known[enough])
        for row, half_life in zip(enough.tolist(), _fit(profile), strict=True):
            out[row] = half_life
    return out


def _insufficient(n_windows: int) -> HalfLife:
    state = DecayState.INSUFFICIENT
    return HalfLife(state, None, None, None, None, n_windows, None, None)


def _profile(hours: Floats, edge: Floats, se: Floats, known: NDArray[np.bool_]) -> _Profile:
    weight = np.divide(1.0, se**2, out=np.zeros_like(se), where=known)
    return _Profile(hours, weight, np.where(known, edge, 0.0))


def _fit(profile: _Profile) -> list[HalfLife]:
    gains = profile.gains()
    rate, best = _refine(profile, gains)
    ratio = best - gains[:, _ZERO]
    p_value = _p_values(profile, ratio, gains[:, _ZERO])
    changes = p_value < SIGNIFICANCE
    rate = np.where(changes, rate, 0.0)
    low, high = np.full((2, len(rate)), np.nan)
    fading = np.flatnonzero(rate > 0)
    low[fading], high[fading] = _intervals(
        profile.take(fading), rate[fading], best[fading], gains[fading]
    )
    e0 = profile.e0(rate)
    windows = (profile.weight > 0).sum(axis=1)
    columns = (rate, low, high, e0, windows, p_value)
    return [_record(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def _record(
    rate: float, low: float, high: float, e0: float, n_windows: int, p_value: float
) -> HalfLife:
    if rate > 0:
        half_life = min(max(math.log(2) / rate, SHORTEST_HOURS), LONGEST_HOURS)
        state = DecayState.DECAYING
        return HalfLife(state, half_life, low, high, e0, n_windows, p_value, rate)
    state = DecayState.IMPROVING if rate < 0 else DecayState.STABLE
    return HalfLife(state, None, None, None, e0, n_windows, p_value, rate)


def _refine(profile: _Profile, gains: Floats) -> tuple[Floats, Floats]:
    """The best λ of each lesson and its gain, by golden section around the best of the grid."""
    at = gains.argmax(axis=1)
    low, high = _GRID[np.maximum(at - 1, 0)], _GRID[np.minimum(at + 1, len(_GRID) - 1)]
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        is_left = profile.gain(left) >= profile.gain(right)
        low, high = np.where(is_left, low, left), np.where(is_left, right, high)
    rate = (low + high) / 2
    gain = profile.gain(rate)
    grid_gain = gains[np.arange(len(at)), at]
    better = gain >= grid_gain
    return np.where(better, rate, _GRID[at]), np.where(better, gain, grid_gain)


def _intervals(
    profile: _Profile, rate: Floats, best: Floats, gains: Floats
) -> tuple[Floats, Floats]:
    """Shortest and longest half-life (hours) that the data do not exclude at 90 %."""
    floor = best - _INTERVAL_DROP
    fastest = _crossing(profile, rate, floor, gains, faster=True)
    slowest = _crossing(profile, rate, floor, gains, faster=False)
    return math.log(2) / fastest, math.log(2) / slowest


def _crossing(
    profile: _Profile, rate: Floats, floor: Floats, gains: Floats, *, faster: bool
) -> Floats:
    """The λ > 0 next to the best one, on one side, at which the gain falls under the floor."""
    step = _POSITIVE - rate[:, None]
    beyond = step > 0 if faster else step < 0
    falls = beyond & (gains[:, _ZERO + 1 :] < floor[:, None])
    at = falls.argmax(axis=1) if faster else falls.shape[1] - 1 - falls[:, ::-1].argmax(axis=1)
    limit = _POSITIVE[-1] if faster else _POSITIVE[0]
    outer = np.where(falls.any(axis=1), _POSITIVE[at], limit)
    inner = np.clip(rate, _POSITIVE[0], _POSITIVE[-1])
    closed = falls.any(axis=1)
    for _ in range(_STEPS):
        middle = (inner + outer) / 2
        inside = profile.gain(middle) >= floor
        inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
    crossing: Floats = np.where(closed, (inner + outer) / 2, limit)
    return crossing


def _p_values(profile: _Profile, ratio: Floats, flat_gain: Floats) -> Floats:
    """Chance of such a ratio were the edge constant, from the table.

    For a weak edge (`flat_gain` is the square of its mean in standard errors) at least the
    simulated chance of such a ratio in its own direction, so that 5 % bounds false decay.
    """
    p_value: Floats = stats.chi2.sf(np.maximum(ratio, 0.0), 1)
    z = np.sqrt(flat_gain)
    for row in np.flatnonzero((z < _WEAK_Z - 1) & (ratio > _TEST_DROP)).tolist():
        hours = profile.hours[profile.weight[row] > 0]
        simulated = _null_ratios(*_shape_of(hours))[int(z[row]) : int(z[row]) + 2]
        exceeded = [(1 + len(r) - np.searchsorted(r, ratio[row])) / (1 + len(r)) for r in simulated]
        p_value[row] = max(p_value[row], np.interp(z[row] % 1, (0, 1), exceeded) / 2)
    return p_value


def _shape_of(hours: Floats) -> tuple[int, float]:
    """Number of windows and hours between them, rounded so that lessons share simulations."""
    step = round(math.log(len(hours) / FEWEST_WINDOWS, _WINDOW_STEP))
    spacing = (hours[-1] - hours[0]) / (len(hours) - 1)
    return round(FEWEST_WINDOWS * _WINDOW_STEP**step), 2.0 ** round(math.log2(spacing))


@lru_cache(maxsize=256)
def _null_ratios(n_windows: int, spacing_hours: float) -> Floats:
    """Likelihood ratios of constant edges of 0, 1, 2, … standard errors: sizes × simulations.

    Windows are taken as equally precise; each row ascends.
    """
    hours = spacing_hours * np.arange(n_windows)
    fading = np.exp(-np.outer(_COARSE, hours))
    curves = np.vstack([np.ones(n_windows), fading, fading[:, ::-1]])
    curves /= np.linalg.norm(curves, axis=1, keepdims=True)
    noise = np.random.default_rng(_SEED).standard_normal((_SIMULATED, n_windows))
    ratios = np.empty((_WEAK_Z, _SIMULATED))
    for z in range(_WEAK_Z):
        gains = ((noise + z * curves[0]) @ curves.T) ** 2
        ratios[z] = np.sort(gains.max(axis=1) - gains[:, 0])
    return ratios


def half_lives(points: Iterable[EdgePoint]) -> dict[str, HalfLife]:
    """The half-life of every lesson among the points of the edge history, by lesson id."""
    rows = list(points)
    ids = sorted({p.lesson_id for p in rows})
    weeks = sorted({p.week for p in rows})
    place, column = {k: i for i, k in enumerate(ids)}, {w: i for i, w in enumerate(weeks)}
    edge = np.full((len(ids), len(weeks)), np.nan)
    se = edge.copy()
    for p in rows:
        edge[place[p.lesson_id], column[p.week]] = p.delta_rr
        se[place[p.lesson_id], column[p.week]] = p.se
    hours = np.array([(w - weeks[0]).total_seconds() / 3600 for w in weeks])
    return dict(zip(ids, fit_half_lives(hours, edge, se), strict=True))


def remaining_share(
    half_life: HalfLife, closed_at: NDArray[np.datetime64], as_of: datetime
) -> float:
    """What is left at as_of of an edge that was fitted as one number to these trades.

    e^(−λ·as_of) / mean of e^(−λ·tᵢ) over the slice's trades (UTC closing times, at least one);
    1 unless decaying.

    Raises:
        ValueError: for a decaying edge without trades.
    """
    if half_life.status is not DecayState.DECAYING or half_life.half_life_hours is None:
        return 1.0
    if not len(closed_at):
        raise ValueError("no trades: nothing is known of the edge that is wearing out")
    age_hours = (instant(as_of) - closed_at) / np.timedelta64(1, "h")
    growth = math.log(2) / half_life.half_life_hours * age_hours
    return float(np.exp(math.log(len(growth)) - special.logsumexp(growth)))
