"""Joint edges by residual mining: the few slices of a group whose effects may be added.

Forward: take the slice with the largest evidence² − cut-off² beside those taken (Rao's score test
with the taken edges as nuisance), fit all taken slices together, mine the new residual. Exchange:
ask of each taken slice whether another explains its share better. Regroup: say with a parent
scope and one exception what several of its parts say. Backward: drop, weakest first, what is no
longer beyond its cut-off in the joint fit. The rotated outcomes of the first calibration still
hold the effects themselves, which makes those cut-offs too high: so calibrate again on the
residual, until a round changes nothing. (Score test: Rao 1948; greedy selection with replacement:
Miller 2002, ch. 3; ridge penalty by generalised cross-validation: Golub, Heath & Wahba 1979.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.calibration import slice_cutoffs
from learning_assets.core.dayshock import DayShock, fit_day_shock, whiten
from learning_assets.core.mining import Group, Strongest, cell, strongest
from learning_assets.core.scope import ScopeSubset, subset

Floats = NDArray[np.float64]

_MAX_EXCHANGES = 12
_SHOCK_STEPS = 2
_LEAST_GAIN = 1e-6  # in evidence²: more than rounding
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

    `evidence` is that of the least-squares coefficient under the day-shock model; `plain_r`
    are the least-squares edges, `edge_r` those shrunk by the ridge penalty. `residual` (length T)
    is what the fit leaves, winsorised.
    """

    slices: tuple[ScopeSubset, ...]
    edge_r: Floats
    plain_r: Floats
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
        plain,
        np.array([clustered_se(row * errors, search.group.day) for row in inverse @ w.PX.T]),
        robust / np.sqrt(np.diag(inverse)),
        float(search.y.mean() - w.X.mean(axis=0) @ edge),
        tamed - tamed.mean(),
    )


def winsorised(y: Floats, share: float) -> Floats:
    """`y` with the `share` of values at either end clipped (Tukey 1962)."""
    return np.clip(y, *np.quantile(y, [share, 1 - share]))


def clustered_se(influence: Floats, day: NDArray[np.int64]) -> float:
    """Standard error from the influence of each trade, by closing day (ascending, at least one)."""
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


def best_beside(
    search: Search, taken: Sequence[ScopeSubset], cut: Cutoffs
) -> tuple[ScopeSubset | None, float]:
    """The slice with the largest evidence² − cut-off² beside those taken, and by how much.

    None where no slice is beyond its cut-off.
    """
    residual = _residual(search, taken, cut.shock)[:, None]
    given = search.design(taken)
    found = strongest(search.group, residual, cut.shock, search.n_min, search.depth, given)
    beyond = found.score[0] - np.square(cut.by_cell)
    best = int(beyond.argmax())
    return (_name(search, found, best) if beyond[best] > 0 else None, float(beyond[best]))


def _name(search: Search, found: Strongest, k: int) -> ScopeSubset:
    dims, codes = found.dims[0, k], found.codes[0, k]
    return search.group.name(dims[dims >= 0].tolist(), codes[dims >= 0].tolist())


def exchange(search: Search, taken: list[ScopeSubset], cut: Cutoffs) -> list[ScopeSubset]:
    """Replace, one at a time, the slice whose place another fills best; bounded."""
    for _ in range(_MAX_EXCHANGES if taken else 0):
        better = []
        for old in taken:
            rest = [s for s in taken if s != old]
            new, beyond = best_beside(search, rest, cut)
            if new is not None and new not in taken:
                better.append((beyond, [*rest, new]))
        if not better:
            break
        taken = max(better, key=lambda pair: pair[0])[1]
    return taken


def regroup(search: Search, taken: list[ScopeSubset], cut: Cutoffs) -> list[ScopeSubset]:
    """Say with a parent scope, and at most one exception, what some of its parts say; bounded.

    Two effects of opposite sign, one inside the other, hide each other: the rest of the outer one
    is then found value by value. Where the parent and its exception are worth more (explained
    energy minus the squared cut-offs of its slices), they take the place of the parts.
    """
    for _ in range(_MAX_EXCHANGES):
        options = [taken, *_regroupings(search.group, taken)]
        worth = _worth(search, options, cut)
        best = int(np.argmax(worth))
        if worth[best] <= worth[0] + _LEAST_GAIN:
            break
        taken = options[best]
    return taken


def _regroupings(group: Group, taken: Sequence[ScopeSubset]) -> Iterator[list[ScopeSubset]]:
    """For each pair of each slice: its parts give way to their parent, alone or with one part."""
    for parent, dim in sorted({(_without(s, d), d) for s in taken for d, _ in s}):
        values = group.values[group.dims.index(dim)]
        parts = [subset([*parent, (dim, value)]) for value in values]
        rest = [s for s in taken if s not in parts and s != parent]
        base = [*rest, parent] if parent else rest
        yield base
        yield from ([*base, part] for part in parts)


def _without(scope_subset: ScopeSubset, dim: str) -> ScopeSubset:
    return tuple(pair for pair in scope_subset if pair[0] != dim)


def _worth(search: Search, options: Sequence[Sequence[ScopeSubset]], cut: Cutoffs) -> list[float]:
    """Explained energy minus squared cut-offs of sets of slices, winsorised beside the first.

    Minus infinity for a set with a slice that is too small on either side.
    """
    every = sorted({s for option in options for s in option})
    if not every:
        return [0.0] * len(options)
    first = fit_jointly(search, options[0], cut.shock)
    tamed = search.design(options[0]) @ first.plain_r + first.residual
    w = _weighted(replace(search, y=tamed), every, cut.shock)
    size = w.X.sum(axis=0)
    large = (size >= search.n_min) & (len(tamed) - size >= search.n_min)
    place = {s: k for k, s in enumerate(every)}
    return [
        _worth_of(w, option, [place[s] for s in option], cut)
        if all(large[place[s]] for s in option)
        else -np.inf
        for option in options
    ]


def _worth_of(
    w: _Weighted, slices: Sequence[ScopeSubset], places: list[int], cut: Cutoffs
) -> float:
    score = w.score[places]
    plain = np.linalg.pinv(w.information[np.ix_(places, places)], hermitian=True) @ score
    price = sum(cut.of(s, edge) ** 2 for s, edge in zip(slices, plain.tolist(), strict=True))
    return float(score @ plain) - price


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
        given=search.design(slices),
    )
    return Cutoffs(by_cell, shock)
