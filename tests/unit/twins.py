"""Naive twins: the textbook version of what the core computes fast, by frames and dense algebra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from learning_assets.core.dayshock import DayShock
from learning_assets.core.events import EventTable
from learning_assets.core.scope import ScopeSubset

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TwinSlice:
    """One subset: its action rows and its trades."""

    rows: frozenset[int]
    trades: frozenset[str]


def actions(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One row per action with a column per dimension (absent: NaN), and the dimensions."""
    dims = sorted({dim for scope in frame["scope"] for dim in scope})
    wide = pd.DataFrame(
        [{d: scope.get(d) for d in dims} for scope in frame["scope"]], columns=dims, dtype=object
    )
    wide["trade_id"] = frame["trade_id"].to_numpy()
    return wide, dims


def slices(frame: pd.DataFrame, n_min: int, depth: int) -> dict[ScopeSubset, TwinSlice]:
    """Every subset of 1 … depth dimensions with at least `n_min` distinct trades."""
    wide, dims = actions(frame)
    return dict(_descend(wide, dims, (), n_min, depth))


def _descend(
    rows: pd.DataFrame, dims: Sequence[str], pairs: ScopeSubset, n_min: int, depth: int
) -> Iterator[tuple[ScopeSubset, TwinSlice]]:
    for k, dim in enumerate(dims):
        for value, part in rows.groupby(dim):
            trades = frozenset(part["trade_id"])
            if len(trades) < n_min:
                continue
            longer = (*pairs, (dim, str(value)))
            yield longer, TwinSlice(frozenset(part.index), trades)
            if len(longer) < depth:
                yield from _descend(part, dims[k + 1 :], longer, n_min, depth)


def is_reducible(subset: ScopeSubset, found: Mapping[ScopeSubset, TwinSlice], n_rows: int) -> bool:
    """Whether a simpler subset has the same actions."""
    rows = found[subset].rows
    if len(rows) == n_rows:
        return True
    return any(
        found[shorter].rows == rows
        for size in range(1, len(subset))
        for shorter in combinations(subset, size)
    )


def covariance(day: NDArray[np.int64], shock: DayShock) -> Floats:
    """V = σ²I + γφ^|d − d'|."""
    apart = np.abs(day[:, None] - day[None, :])
    shared = shock.day_variance * np.power(shock.day_autocorrelation, apart)
    out: Floats = shock.noise_variance * np.eye(len(day)) + shared
    return out


def evidence(x: Floats, y: Floats, inverse: Floats) -> float:
    """Score statistic of an indicator beside an intercept, with weights V⁻¹."""
    one = np.ones(len(y))
    mean = (one @ inverse @ y) / (one @ inverse @ one)
    information = x @ inverse @ x - (x @ inverse @ one) ** 2 / (one @ inverse @ one)
    return float(x @ inverse @ (y - mean) / np.sqrt(information))


def residual_of(x: Floats, known: Floats, inverse: Floats) -> Floats:
    """What the columns of `known` leave of x, with weights V⁻¹."""
    fitted = np.linalg.solve(known.T @ inverse @ known, known.T @ inverse @ x)
    out: Floats = x - known @ fitted
    return out


@dataclass(frozen=True, slots=True)
class TwinStats:
    """What `describe` says of one slice."""

    n: int
    mean: float
    variance: float
    delta: float
    se: float
    evidence: float


def statistics(
    inside: NDArray[np.bool_], y: Floats, ranked: Floats, day: NDArray[np.int64], inverse: Floats
) -> TwinStats:
    """The statistics of a slice, trade by trade."""
    n, m = int(inside.sum()), int((~inside).sum())
    mean, variance = float(y[inside].mean()), float(y[inside].var(ddof=1))
    if m == 0:
        return TwinStats(n, mean, variance, np.nan, np.nan, np.nan)
    outside = float(y[~inside].mean())
    influence = np.where(inside, (y - mean) / n, -(y - outside) / m)
    by_day = pd.Series(influence).groupby(day).sum()
    se = float(np.sqrt((by_day**2).sum())) if len(by_day) > 1 else np.nan
    return TwinStats(
        n, mean, variance, mean - outside, se, evidence(inside.astype(float), ranked, inverse)
    )


@dataclass(frozen=True, slots=True)
class TwinFit:
    """A joint fit by dense algebra."""

    edge_r: Floats
    evidence: Floats
    se_r: Floats
    intercept_r: float
    residual: Floats


def joint_fit(
    X: Floats, y: Floats, day: NDArray[np.int64], shock: DayShock, winsor: float
) -> TwinFit:
    """Generalised ridge with an unpenalised intercept, its penalty by cross-validation."""
    inverse = np.linalg.inv(covariance(day, shock))
    one = np.ones(len(y))
    P = inverse - np.outer(inverse @ one, one @ inverse) / (one @ inverse @ one)
    M = X.T @ P @ X
    plain = np.linalg.solve(M, X.T @ P @ y)
    left = y - X @ plain
    tamed = np.clip(left, np.quantile(left, winsor), np.quantile(left, 1 - winsor))
    robust = np.linalg.solve(M, X.T @ P @ (X @ plain + tamed))
    edge = _cross_validated(X, y, P)
    influence = (np.linalg.inv(M) @ X.T @ P) * (left - left.mean())
    by_day = pd.DataFrame(influence.T).groupby(day).sum().to_numpy()
    return TwinFit(
        edge,
        robust / np.sqrt(np.diag(np.linalg.inv(M))),
        np.sqrt((by_day**2).sum(axis=0)),
        float((y - X @ edge).mean()),
        tamed - tamed.mean(),
    )


def _cross_validated(X: Floats, y: Floats, P: Floats) -> Floats:
    M, n = X.T @ P @ X, len(y)
    unit = np.trace(M) / len(M)
    fits = []
    for penalty in [0.0, *10.0 ** np.linspace(-5, 1, 37)]:
        ridge = M + penalty * unit * np.eye(len(M))
        beta = np.linalg.solve(ridge, X.T @ P @ y)
        left = y - X @ beta
        used = 1 + np.trace(np.linalg.solve(ridge, M))
        fits.append((float(left @ P @ left) / (n - used) ** 2, beta))
    best: Floats = min(fits, key=lambda fit: fit[0])[1]
    return best


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """q of every p: the smallest p_(j)·m/j over the j not before it."""
    order = np.argsort(p, kind="stable")
    q, smallest = [0.0] * len(p), 1.0
    for rank in range(len(p), 0, -1):
        i = int(order[rank - 1])
        smallest = min(smallest, p[i] * len(p) / rank)
        q[i] = smallest
    return q


def recurrence(trades: pd.DataFrame, as_of: pd.Timestamp, tau_days: float) -> float | None:
    """ρ from a frame with closed_at (UTC), rr and inside; weeks begin on Monday."""
    monday = trades["closed_at"].dt.normalize() - pd.to_timedelta(
        trades["closed_at"].dt.day_of_week, unit="D"
    )
    edges, weights = [], []
    for start, week in trades.groupby(monday):
        inside, outside = week[week["inside"]], week[~week["inside"]]
        if len(inside) and len(outside):
            age = max((as_of - (start + pd.Timedelta(days=3.5))) / pd.Timedelta(days=1), 0.0)
            edges.append(inside["rr"].mean() - outside["rr"].mean())
            weights.append(np.exp(-age / tau_days))
    return float(np.average(edges, weights=weights)) if edges else None


def coherence(trades: pd.DataFrame, delta_rr: float, n_min: int) -> tuple[float | None, int]:
    """φ and k from a frame with segment (None: unknown), rr and inside."""
    outside = trades[~trades["inside"]]["rr"].mean()
    agrees = [
        bool(np.sign(part["rr"].mean() - outside) == np.sign(delta_rr))
        for _, part in trades[trades["inside"]].groupby("segment")
        if len(part) >= n_min
    ]
    return (float(np.mean(agrees)), len(agrees)) if agrees else (None, 0)


def expected_effect(
    sizes: Sequence[float], rr: Sequence[float], days: Sequence[Any]
) -> dict[str, float]:
    """What sizes do to a run of trades, by loops."""
    daily: dict[Any, list[float]] = {}
    totals, peaks, falls = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for size, outcome, day in zip(sizes, rr, days, strict=True):
        for k, result in enumerate((outcome, size * outcome)):
            daily.setdefault(day, [0.0, 0.0])[k] += result
            totals[k] += result
            peaks[k] = max(peaks[k], totals[k])
            falls[k] = max(falls[k], peaks[k] - totals[k])
    spread = np.std(np.array(list(daily.values())), axis=0)
    return {
        "total_size": sum(sizes) / len(sizes) - 1,
        "volatility": float(spread[1] / spread[0]) - 1,
        "drawdown": falls[1] / falls[0] - 1,
        "mean_rr": totals[1] / sum(sizes) - totals[0] / len(rr),
        "n_trades": len(rr),
    }


def sizes_by_lookup(events: EventTable, multiplier: Floats) -> Floats:
    """Size of each trade: mean over its sizing actions of pm, times that of dm."""
    size = np.ones(events.n_trades)
    for module, wanted in (("pm", {"entry", "add"}), ("dm", {"allocation"})):
        for t in range(events.n_trades):
            mine = [
                multiplier[a]
                for a in np.flatnonzero(events.trade == t)
                if events.groups[events.group[a]].module == module
                and events.groups[events.group[a]].action_category in wanted
            ]
            size[t] *= np.mean(mine) if mine else 1.0
    return size
