"""Cut-offs calibrated on the data: how strong is the strongest slice when nothing is there?

R-multiples are skewed and come in bursts, so no table gives the right p-value. Rotating the
outcomes against the scopes in closing order breaks every link between the two and keeps the
skewness, the bursts and the persistence of both (the circular-shift test of time series; with
the maximum over slices as statistic it controls the family-wise error, Westfall & Young 1993).
The maxima of evidence² are given the tail of the largest of m independent χ²₁ variables of
scale s: for many slices that is a Gumbel tail, for a single contrast the plain χ²₁.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from learning_assets.core.lattice import Beside, Weighted

Floats = NDArray[np.float64]

_SMALLEST_OFFSET = 0.1
"""Share of the span by which outcomes are moved at least, so that bursts do not overlap."""

_MOST_TOGETHER, _FEWEST_TOGETHER = 64, 8
_NUMBERS_TOGETHER = 3 * 2**24
"""Rotations that are carried through the slices at once, and outcomes held for it: 384 MB."""

_LANES = 8  # columns that are summed up at once

_FEWEST_MAXIMA = 15
"""Fewer rotations than these with a slice in a cell say nothing about its tail."""


def offsets_of(n_trades: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` random offsets of a tenth to nine tenths of the trades."""
    low = max(1, math.ceil(_SMALLEST_OFFSET * n_trades))
    return rng.integers(low, max(low + 1, n_trades - low + 1), count)


def rotated_by(y: Floats, offsets: NDArray[np.int64]) -> Floats:
    """`y` moved by each offset: T × offsets."""
    moved = np.empty((len(y), len(offsets)))
    for b, offset in enumerate(offsets.tolist()):
        moved[:, b] = np.roll(y, -offset)
    return moved


def tail_cutoff(maxima: Floats, tail: float) -> float:
    """The value that the largest of m scaled χ²₁ variables, fitted to `maxima`, exceeds.

    `maxima` (≥ 2 values ≥ 0) are maxima of squared evidence, `tail` the chance of exceeding the
    result. Maximum likelihood over the scale; m then has a closed form. Identical maxima give
    that value.
    """
    x = np.maximum(maxima, 1e-12)
    if np.ptp(x) == 0:
        return float(x[0])

    def cost(log_scale: float) -> float:
        scaled = x / math.exp(log_scale)
        log_cdf = _log_cdf(scaled)
        m = _effective_number(log_cdf, len(x))
        density = -0.5 * float(np.sum(scaled + np.log(2 * math.pi * scaled))) - len(x) * log_scale
        return -(len(x) * math.log(m) + (m - 1) * log_cdf + density)

    middle = math.log(float(x.mean()) / 10)
    best = optimize.minimize_scalar(cost, bounds=(middle - 3, middle + 3), method="bounded")
    scale = math.exp(best.x)
    m = _effective_number(_log_cdf(x / scale), len(x))
    exceeded = -math.expm1(math.log1p(-tail) / m)
    return scale * float(special.ndtri(exceeded / 2)) ** 2


def _log_cdf(x: Floats) -> float:
    """Sum of log P(χ²₁ ≤ x): the distribution objects of scipy.stats cost more than the mining."""
    return float(np.log1p(-special.erfc(np.sqrt(x / 2))).sum())


def _effective_number(log_cdf: float, count: int) -> float:
    return count / max(-log_cdf, 1e-12)


def slice_cutoffs(
    weighted: Weighted,
    residual: Floats,
    beside: Beside,
    *,
    rotated: int,
    tail: float,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Smallest |evidence| that counts in each cell (see `mining.cell`); inf where none is testable.

    Skewed outcomes make small slices stray further up than down, so either sign has cut-offs of
    its own. `tail` is the chance that the strongest slice of a cell exceeds its cut-off where
    nothing is there but the slices `beside` which each is tested. Several rotations are carried
    together, as many as memory allows.
    """
    if not len(weighted.lattice):
        return (math.inf,) * (2 * weighted.lattice.depth)
    offsets = offsets_of(len(residual), rotated, rng)
    most = min(_MOST_TOGETHER, max(_FEWEST_TOGETHER, _NUMBERS_TOGETHER // len(residual)))
    lanes = min(_LANES, most)
    # As few times as possible, and as evenly as eight at once allow.
    times = -(-rotated // (most // lanes * lanes))
    together = lanes * -(-rotated // (lanes * times))
    parts = [offsets[k : k + together] for k in range(0, rotated, together)]
    score = np.vstack([weighted.maxima(rotated_by(residual, part), beside) for part in parts])
    return tuple(_cutoff(score[:, c], tail) for c in range(score.shape[1]))


def _cutoff(score: Floats, tail: float) -> float:
    tested = score[score >= 0]
    return math.sqrt(tail_cutoff(tested, tail)) if len(tested) >= _FEWEST_MAXIMA else math.inf
