"""The four multipliers of a slice and edge_raw, one public function per formula.

edge_raw = delta_rr · (1 − e^(−n/50)) · T^w · F^w · R^w · V^w with T time, F field coherence,
R recurrence and V variance, each in (0, 1]: one comparable score per lesson. Weights are 1 here;
those of the market regime enter in the overrides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from learning_assets.core.records import Multipliers

Floats = NDArray[np.float64]

_SUPPORT_SCALE = 50.0
_WEEK_DAYS = 7.0
_MONDAY_OFFSET = 3  # 1970-01-01 was a Thursday


def time_multiplier(te: float) -> float:
    """T = 0.5 + 0.5·te, te in (0, 1] the mean of 1 / (1 + days to payback)."""
    return 0.5 + 0.5 * te


def field_multiplier(phi: float, segments: int) -> float:
    """F = (0.5 + 0.5·φ)·(0.5 + 0.5·tanh(k/3)), φ the share of k segments with the slice's sign."""
    return (0.5 + 0.5 * phi) * (0.5 + 0.5 * float(np.tanh(segments / 3)))


def recurrence_multiplier(signed_rho: float) -> float:
    """R = 0.5 + 0.5·tanh(ρ·sign), ρ (R) the smoothed weekly edge of the slice; never 0."""
    return float(expit(2.0 * signed_rho))


def variance_multiplier(variance: float, n: int) -> float:
    """V = 1 / (1 + variance + 0.25/n), variance in R², n ≥ 1 trades."""
    return 1.0 / (1.0 + variance + 0.25 / n)


def support(n: int) -> float:
    """1 − e^(−n/50), the share of an edge that n trades support."""
    return float(-np.expm1(-n / _SUPPORT_SCALE))


def edge_raw(
    delta_rr: float,
    n: int,
    multipliers: Sequence[float],
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
) -> float:
    """The score of a slice in R; `multipliers` and `weights` in the order T, F, R, V."""
    weighted = [m**w for m, w in zip(multipliers, weights, strict=True)]
    return delta_rr * support(n) * float(np.prod(weighted))


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The trades of a group as the multipliers need them; arrays of length T.

    `rr` in R; `days_to_payback` (days held where unknown, NaN where neither is known);
    `segment` the (timeframe × mcap_bucket) of the trade, −1 where it has none; `week` counted
    from Mondays; `age_days` from the middle of that week to as_of.
    """

    rr: Floats
    days_to_payback: Floats
    segment: NDArray[np.int64]
    week: NDArray[np.int64]
    age_days: Floats


def week_of(day: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the week, Monday to Sunday UTC, of a day counted from 1970."""
    return (day + _MONDAY_OFFSET) // 7


def age_of_week(week: NDArray[np.int64], as_of_day: float) -> Floats:
    """Days from the middle of a week to `as_of_day` (days from 1970), never negative."""
    middle = week * _WEEK_DAYS - _MONDAY_OFFSET + _WEEK_DAYS / 2
    age: Floats = np.maximum(as_of_day - middle, 0.0)
    return age


def time_efficiency(days: Floats) -> float | None:
    """Mean of 1 / (1 + days); None where no trade's days are known."""
    known = days[~np.isnan(days)]
    return float((1.0 / (1.0 + np.maximum(known, 0.0))).mean()) if len(known) else None


def field_coherence(
    members: NDArray[np.bool_], outcomes: Outcomes, delta_rr: float, n_min: int
) -> tuple[float | None, int]:
    """φ and the number of segments k with at least `n_min` trades of the slice.

    φ is the share of segments whose mean differs from the slice's complement in the direction
    of delta_rr; None where no segment has enough trades.
    """
    inside = members & (outcomes.segment >= 0)
    if not inside.any() or members.all():
        return None, 0
    counts = np.bincount(outcomes.segment[inside])
    sums = np.bincount(outcomes.segment[inside], weights=outcomes.rr[inside])
    enough = counts >= n_min
    if not enough.any():
        return None, 0
    rest = outcomes.rr.sum() - outcomes.rr[members].sum()
    difference = sums[enough] / counts[enough] - rest / (len(members) - members.sum())
    return float((difference * delta_rr > 0).mean()), int(enough.sum())


def recurrence(members: NDArray[np.bool_], outcomes: Outcomes, tau_days: float) -> float | None:
    """ρ: mean of the slice's weekly edges (R), weighted with e^(−age/τ); None without any week.

    The edge of a week is the mean of its trades in the slice minus that of the others; a week
    needs both.
    """
    counts, sums, ages = _weekly_totals(outcomes)
    week = outcomes.week[members] - outcomes.week.min()
    n = np.bincount(week, minlength=len(counts))
    s = _sums(week, outcomes.rr[members], len(counts))
    edges = _means(s, n.astype(np.float64)) - _means(sums - s, counts - n)
    known = ~np.isnan(edges)
    if not known.any():
        return None
    weights = np.exp(-(ages[known] - ages[known].min()) / tau_days)
    return float(weights @ edges[known] / weights.sum())


@lru_cache(maxsize=1)
def _weekly_totals(outcomes: Outcomes) -> tuple[Floats, Floats, Floats]:
    """Trades, their rr (R) and the age in days of each week from the first to the last.

    Asked for once for each of hundreds of slices of a group.
    """
    week = outcomes.week - outcomes.week.min()
    counts = np.bincount(week).astype(np.float64)
    ages = np.full(len(counts), np.nan)
    ages[week] = outcomes.age_days
    return counts, _sums(week, outcomes.rr, len(counts)), ages


def _sums(week: NDArray[np.int64], rr: Floats, n_weeks: int) -> Floats:
    return np.asarray(np.bincount(week, weights=rr, minlength=n_weeks), np.float64)


def _means(sums: Floats, counts: Floats) -> Floats:
    means: Floats = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    return means


@dataclass(frozen=True, slots=True)
class Measured:
    """What the multipliers of one slice were measured from; None where unknown."""

    te: float | None
    phi: float | None
    segments: int
    rho: float | None
    variance: float
    n: int
    sign: float


def measure(
    members: NDArray[np.bool_],
    outcomes: Outcomes,
    delta_rr: float,
    variance: float,
    segment_n_min: int,
    tau_days: float,
) -> Measured:
    """Measure a slice given by its `members` (length T, at least one trade)."""
    phi, segments = field_coherence(members, outcomes, delta_rr, segment_n_min)
    return Measured(
        time_efficiency(outcomes.days_to_payback[members]),
        phi,
        segments,
        recurrence(members, outcomes, tau_days),
        variance,
        int(members.sum()),
        float(np.sign(delta_rr)),
    )


def multipliers_of(measured: Sequence[Measured]) -> list[Multipliers]:
    """The multipliers of the slices of one group.

    An unknown one is the median of those known in the group (1 where none is), so that
    ignorance is neither reward nor punishment.
    """
    time = [None if m.te is None else time_multiplier(m.te) for m in measured]
    coherence = [None if m.phi is None else field_multiplier(m.phi, m.segments) for m in measured]
    again = [None if m.rho is None else recurrence_multiplier(m.rho * m.sign) for m in measured]
    return [
        Multipliers(t, f, r, variance_multiplier(m.variance, m.n), m.te, m.phi, m.segments, m.rho)
        for t, f, r, m in zip(
            _filled(time), _filled(coherence), _filled(again), measured, strict=True
        )
    ]


def _filled(values: Sequence[float | None]) -> list[float]:
    known = [v for v in values if v is not None]
    median = float(np.median(known)) if known else 1.0
    return [median if v is None else v for v in values]
