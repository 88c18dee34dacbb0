"""Joint edges by residual mining: the few slices of a group whose effects may be added.

Forward: take the slice with the largest evidence² − cut-off² on what is still unexplained, fit
all taken slices together, mine the new residual. Exchange: ask of each taken slice whether
another explains its share better. Backward: drop, weakest first, what is no longer beyond its
cut-off in the joint fit. The rotated outcomes of the first calibration still hold the effects
themselves, which makes those cut-offs too high: so calibrate again on the residual, until a
round changes nothing. (Greedy selection with replacement: Miller 2002, ch. 3; ridge penalty by
generalised cross-validation: Golub, Heath & Wahba 1979.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.calibration import slice_cutoffs
from learning_assets.core.dayshock import DayShock, fit_day_shock, whiten
from learning_assets.core.mining import Group, Strongest, cell, strongest
from learning_assets.core.scope import ScopeSubset

Floats = NDArray[np.float64]

_MAX_EXCHANGES = 12
_SHOCK_STEPS = 2
_PENALTIES = np.concatenate([[0.0], np.logspace(-5, 1, 37)])


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """What a calibration fixes: cut-offs on |evidence| by `mining.cell`, and the noise."""

    by_cell: tuple[float, ...]
    shock: DayShock

    def of(self, scope_subset: ScopeSubset, evidence: float) -> float:
        """The cut-off for a subset of at least one dimension with evidence of that sign."""
        return self.by_cell[cell(len(scope_subset), evidence)]


@dataclass(frozen=True, slots=True)
class JointFit:
    """Slices fitted together: edges and intercept in R, standard errors clustered by day.

    `evidence` is that of the least-squares coefficient under the day-shock model; `edge_r` is
    shrunk by the ridge penalty. `residual` (length T) is what the fit leaves, winsorised.
    """

    slices: tuple[ScopeSubset, ...]
    edge_r: Floats
    se_r: Floats
    evidence: Floats
    intercept_r: float
    residual: Floats


@dataclass(frozen=True, slots=True)
class Search:
    """What a search needs to know: the group, its outcomes (T, in R) and the limits."""

    group: Group
    y: Floats
    n_min: int
    depth: int
    winsor: float

    def design(self, slices: Sequence[ScopeSubset]) -> Floats:
        """T × k: which trades each slice matches."""
        columns = [self.group.members(s) for s in slices]
        return np.column_stack(columns).astype(float) if columns else np.empty((len(self.y), 0))


@dataclass(frozen=True, slots=True)
class _Weighted:
    """Normal equations of the weighted fit: information X'PX, score X'Py and energy y'Py."""

    X: Floats
    PX: Floats
    information: Floats
    score: Floats
    energy: float


def _weighted(search: Search, slices: Sequence[ScopeSubset], shock: DayShock) -> _Weighted:
    white = whiten(search.group.day, shock)
    X = search.design(slices)
    PX = white.centre(X)
    return _Weighted(X, PX, X.T @ PX, PX.T @ search.y, float(search.y @ white.centre(search.y)))


def fit_jointly(search: Search, slices: Sequence[ScopeSubset], shock: DayShock) -> JointFit:
    """Fit the slices together to the outcomes, with an intercept that is not penalised."""
    w = _weighted(search, slices, shock)
    inverse = np.linalg.pinv(w.information, hermitian=True)
    plain = inverse @ w.score
    residual = search.y - w.X @ plain
    tamed = winsorised(residual, search.winsor)
    robust = plain + inverse @ (w.PX.T @ tamed)
    edge = _ridge(w, len(search.y))
    errors = residual - residual.mean()
    return JointFit(
        tuple(slices),
        edge,
        np.array([_clustered_se(row * errors, search.group.day) for row in inverse @ w.PX.T]),
        robust / np.sqrt(np.diag(inverse)),
        float(search.y.mean() - w.X.mean(axis=0) @ edge),
        tamed - tamed.mean(),
    )


def winsorised(y: Floats, share: float) -> Floats:
    """`y` with the `share` of values at either end clipped (Tukey 1962)."""
    return np.clip(y, *np.quantile(y, [share, 1 - share]))


def _clustered_se(influence: Floats, day: NDArray[np.int64]) -> float:
    by_day = np.bincount(day - day[0], weights=influence)
    return float(np.sqrt(by_day @ by_day))


def _ridge(w: _Weighted, n: int) -> Floats:
    """Ridge coefficients; the penalty (per trade) minimises generalised cross-validation."""
    if w.X.shape[1] == 0:
        return np.empty(0)
    values, vectors = np.linalg.eigh(w.information)
    keep = values > 1e-9 * values.max()
    values, vectors = values[keep], vectors[:, keep]
    rotated = vectors.T @ w.score
    shrink = values / (values + values.mean() * _PENALTIES[:, None])
    explained = (shrink * (2 - shrink) * rotated**2 / values).sum(axis=1)
    gcv = (w.energy - explained) / (n - 1 - shrink.sum(axis=1)) ** 2
    best = shrink[int(np.argmin(gcv))]
    coefficients: Floats = vectors @ (best * rotated / values)
    return coefficients


def _residual(search: Search, slices: Sequence[ScopeSubset], shock: DayShock) -> Floats:
    return fit_jointly(search, slices, shock).residual


def best_of(
    search: Search, residuals: Floats, cut: Cutoffs
) -> list[tuple[ScopeSubset | None, float]]:
    """Per column of residuals: the slice with the largest evidence² − cut-off², and by how much.

    None where no slice is beyond its cut-off.
    """
    found = strongest(search.group, residuals, cut.shock, search.n_min, search.depth)
    beyond = found.score - np.square(cut.by_cell)
    best = beyond.argmax(axis=1)
    return [
        (_name(search, found, column, k) if beyond[column, k] > 0 else None, beyond[column, k])
        for column, k in enumerate(best.tolist())
    ]


def _name(search: Search, found: Strongest, column: int, k: int) -> ScopeSubset:
    dims, codes = found.dims[column, k], found.codes[column, k]
    return search.group.name(dims[dims >= 0].tolist(), codes[dims >= 0].tolist())


def exchange(search: Search, taken: list[ScopeSubset], cut: Cutoffs) -> list[ScopeSubset]:
    """Replace, one at a time, the slice whose place another fills best; bounded."""
    for _ in range(_MAX_EXCHANGES if taken else 0):
        without = [[s for s in taken if s != old] for old in taken]
        columns = np.column_stack([_residual(search, rest, cut.shock) for rest in without])
        better = [
            (beyond, [*rest, new])
            for (new, beyond), rest in zip(best_of(search, columns, cut), without, strict=True)
            if new is not None and new not in taken
        ]
        if not better:
            break
        taken = max(better, key=lambda pair: pair[0])[1]
    return taken


def drop_weak(search: Search, taken: list[ScopeSubset], cut: Cutoffs) -> list[ScopeSubset]:
    """Drop, weakest first, what is not beyond its cut-off in the joint fit."""
    while taken:
        fit = fit_jointly(search, taken, cut.shock)
        beyond = fit.evidence**2 - np.square(
            [cut.of(s, z) for s, z in zip(taken, fit.evidence, strict=True)]
        )
        weakest = int(np.argmin(beyond))
        if beyond[weakest] > 0:
            return taken
        taken = [s for i, s in enumerate(taken) if i != weakest]
    return taken


def noise_of(search: Search, slices: Sequence[ScopeSubset]) -> DayShock:
    """The noise that the slices leave, with its daily shock."""
    shock = fit_day_shock(search.y, search.group.day)
    for _ in range(_SHOCK_STEPS):
        shock = fit_day_shock(_residual(search, slices, shock), search.group.day)
    return shock


def calibrate(
    search: Search,
    slices: Sequence[ScopeSubset],
    *,
    rotated: int,
    tail: float,
    rng: np.random.Generator,
) -> Cutoffs:
    """Cut-offs on what the slices leave unexplained."""
    shock = noise_of(search, slices)
    residual = _residual(search, slices, shock)
    by_cell = slice_cutoffs(
        search.group,
        residual,
        shock,
        n_min=search.n_min,
        depth=search.depth,
        rotated=rotated,
        tail=tail,
        rng=rng,
    )
    return Cutoffs(by_cell, shock)
