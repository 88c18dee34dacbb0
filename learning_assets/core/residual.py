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

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.calibration import slice_cutoffs
from learning_assets.core.dayshock import DayShock, Whitener, fit_day_shock, whiten
from learning_assets.core.lattice import (
    Beside,
    Lattice,
    Strongest,
    Weighted,
    lattice_of,
    strongest_of,
)
from learning_assets.core.mining import Group, SliceTable, cell
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset, subset

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_MAX_EXCHANGES = 12
_SHOCK_STEPS = 2
_LEAST_GAIN = 1e-6  # in evidence²: more than rounding
_MOST_BYTES = 2**30  # of the lattices that are kept
_MOST_MEMBERS = 2**28  # bytes
_MOST_SUMS = 64  # columns whose sums over a lattice are kept
_OPTIONS_TOGETHER = 8  # sets of taken slices whose residuals are held at once
_CHUNK = 2**16
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


@dataclass(slots=True)
class Memory:
    """What searches of one run need again and again: lattices, sums over them, members.

    `rr` are the outcomes that the statistics of slices are taken from (all trades of the events,
    in R). What is kept is bounded by its size; results do not depend on it.
    """

    rr: Floats
    lattices: dict[GroupKey, Lattice] = field(default_factory=dict)
    weighted: dict[GroupKey, tuple[DayShock, Weighted]] = field(default_factory=dict)
    given: dict[GroupKey, dict[ScopeSubset, Floats]] = field(default_factory=dict)
    sums: dict[GroupKey, dict[object, Floats]] = field(default_factory=dict)
    members: dict[tuple[GroupKey, ScopeSubset], Mask] = field(default_factory=dict)

    def under(self, search: Search, shock: DayShock) -> Weighted:
        """The lattice of the group of a search under a day shock."""
        key = search.group.key
        if key not in self.lattices:
            rr = self.rr[search.group.trades]
            made = lattice_of(search.group, rr, shock, search.n_min, search.depth)
            self._make_room(made.nbytes)
            self.lattices[key] = made
        if key not in self.weighted or self.weighted[key][0] != shock:
            self.weighted[key] = shock, Weighted.of(self.lattices[key], shock)
            self.given[key] = {}
            if not self.lattices[key].has_days:
                self.sums.pop(key, None)
        return self.weighted[key][1]

    def _make_room(self, nbytes: int) -> None:
        """Forget the oldest lattices, and what was summed up on them."""
        while (
            self.lattices and nbytes + sum(x.nbytes for x in self.lattices.values()) > _MOST_BYTES
        ):
            oldest = next(iter(self.lattices))
            for kept in (self.lattices, self.weighted, self.given, self.sums):
                kept.pop(oldest, None)

    def summed(self, weighted: Weighted, name: object, column: Callable[[], Floats]) -> Floats:
        """Plain sums (S) of a column that is named; without days those of its weighted form."""
        known = self.sums.setdefault(weighted.lattice.group.key, {})
        if name not in known:
            if len(known) >= _MOST_SUMS:
                known.clear()
            known[name] = _sums(weighted, column()[:, None])[:, 0]
        return known[name]

    def mask(self, group: Group, scope_subset: ScopeSubset) -> Mask:
        """Which trades of a group (length T) a slice matches."""
        key = group.key, scope_subset
        if key not in self.members:
            if sum(map(len, self.members.values())) > _MOST_MEMBERS:
                self.members.clear()
            self.members[key] = group.members(scope_subset)
        return self.members[key]


def _sums(weighted: Weighted, columns: Floats) -> Floats:
    """Sums of columns, over the trades alone where any is not 0; without days, of x'P."""
    if not weighted.lattice.has_days:
        return weighted.lattice.sums(weighted.whitener.centre(columns))
    only: Mask = np.any(columns, axis=1)
    return weighted.lattice.sums(columns, None if only.all() else only)


@dataclass(frozen=True, slots=True)
class Search:
    """What a search needs to know: the group, its outcomes (T, in R), limits, and the memory."""

    group: Group
    y: Floats
    n_min: int
    depth: int
    winsor: float
    memory: Memory

    def masks(self, slices: Sequence[ScopeSubset]) -> list[Mask]:
        """Which trades (length T) each slice matches."""
        return [self.memory.mask(self.group, s) for s in slices]

    def design(self, slices: Sequence[ScopeSubset]) -> Floats:
        """T × k: which trades each slice matches."""
        masks = self.masks(slices)
        return np.column_stack(masks).astype(float) if masks else np.empty((len(self.y), 0))


@dataclass(frozen=True, slots=True)
class _Fit:
    """A weighted least-squares fit with X (T × k): information X'PX, score X'Py, its inverse.

    `plain` are the coefficients, `tamed` (T) what they leave, winsorised.
    """

    X: Floats
    PX: Floats
    information: Floats
    inverse: Floats
    score: Floats
    plain: Floats
    tamed: Floats

    @property
    def residual(self) -> Floats:
        """What is left to mine: winsorised and centred."""
        out: Floats = self.tamed - self.tamed.mean()
        return out


def _fit(search: Search, slices: Sequence[ScopeSubset], white: Whitener) -> _Fit:
    X = search.design(slices)
    PX = white.centre(X)
    information, score = X.T @ PX, PX.T @ search.y
    inverse = np.asarray(np.linalg.pinv(information, hermitian=True), np.float64)
    plain = inverse @ score
    tamed = winsorised(search.y - X @ plain, search.winsor)
    return _Fit(X, PX, information, inverse, score, plain, tamed)


def fit_jointly(search: Search, slices: Sequence[ScopeSubset], shock: DayShock) -> JointFit:
    """Fit the slices together to the outcomes, with an intercept that is not penalised."""
    white = whiten(search.group.day, shock)
    fit = _fit(search, slices, white)
    robust = fit.plain + fit.inverse @ (fit.PX.T @ fit.tamed)
    edge = _ridge(fit, float(search.y @ white.centre(search.y)), len(search.y))
    errors = search.y - fit.X @ fit.plain
    errors -= errors.mean()
    influence = (fit.PX @ row * errors for row in fit.inverse)
    return JointFit(
        tuple(slices),
        edge,
        fit.plain,
        np.array([clustered_se(each, search.group.day) for each in influence]),
        robust / np.sqrt(np.diag(fit.inverse)),
        float(search.y.mean() - fit.X.mean(axis=0) @ edge),
        fit.residual,
    )


def winsorised(y: Floats, share: float) -> Floats:
    """`y` with the `share` of values at either end clipped (Tukey 1962)."""
    return np.clip(y, *np.quantile(y, [share, 1 - share]))


def clustered_se(influence: Floats, day: NDArray[np.int64]) -> float:
    """Standard error from the influence of each trade, by closing day (ascending, at least one)."""
    by_day = np.bincount(day - day[0], weights=influence)
    return float(np.sqrt(by_day @ by_day))


def _ridge(fit: _Fit, energy: float, n: int) -> Floats:
    """Ridge coefficients; the penalty (per trade) minimises generalised cross-validation.

    `energy` is y'Py of the n outcomes.
    """
    if fit.X.shape[1] == 0:
        return np.empty(0)
    values, vectors = np.linalg.eigh(fit.information)
    keep = values > 1e-9 * values.max()
    values, vectors = values[keep], vectors[:, keep]
    rotated = vectors.T @ fit.score
    shrink = values / (values + values.mean() * _PENALTIES[:, None])
    explained = (shrink * (2 - shrink) * rotated**2 / values).sum(axis=1)
    gcv = (energy - explained) / (n - 1 - shrink.sum(axis=1)) ** 2
    best = shrink[int(np.argmin(gcv))]
    coefficients: Floats = vectors @ (best * rotated / values)
    return coefficients


def _residual(search: Search, slices: Sequence[ScopeSubset], shock: DayShock) -> Floats:
    return _fit(search, slices, whiten(search.group.day, shock)).residual


Best = tuple[ScopeSubset | None, float]
"""A slice and its evidence² − cut-off²; None where no slice is beyond its cut-off."""


def best_beside(search: Search, taken: Sequence[ScopeSubset], cut: Cutoffs) -> Best:
    """The slice with the largest evidence² − cut-off² beside those taken, and by how much.

    None where no slice is beyond its cut-off.
    """
    [best] = bests_beside(search, [taken], cut)
    return best


def bests_beside(
    search: Search, options: Sequence[Sequence[ScopeSubset]], cut: Cutoffs
) -> list[Best]:
    """`best_beside` for several sets of taken slices, summed up together, a few at a time."""
    weighted = search.memory.under(search, cut.shock)
    if not len(weighted.lattice):
        return [(None, -math.inf) for _ in options]
    found = []
    for k in range(0, len(options), _OPTIONS_TOGETHER):
        some = options[k : k + _OPTIONS_TOGETHER]
        left = [_left(search, weighted, taken) for taken in some]
        sums = _sums_of_residuals(search, weighted, some, left)
        for n, (taken, one) in enumerate(zip(some, left, strict=True)):
            beside = _beside(search, weighted, taken)
            found.append(_best(search, weighted, beside, one.residual, sums[:, [n]], cut))
    return found


def _best(
    search: Search,
    weighted: Weighted,
    beside: Beside,
    residual: Floats,
    sums: Floats,
    cut: Cutoffs,
) -> Best:
    white = weighted.whitener.centre(residual[:, None])
    found = strongest_of(weighted.lattice, beside, beside.evidence(white, sums))
    beyond = found.score[0] - np.square(cut.by_cell)
    # A slice and its mirror image are equal but for rounding: the first one counts.
    best = int(np.flatnonzero(beyond >= beyond.max() - _LEAST_GAIN)[0])
    name = _name(search, found, best) if beyond[best] > 0 else None
    return name, float(beyond[best])


@dataclass(frozen=True, slots=True)
class _Left:
    """What a fit leaves: its edges, the residual (T), and what winsorising changed (T).

    The residual is centred: `mean` is that of what was left before.
    """

    plain: Floats
    residual: Floats
    changed: Floats
    mean: float


def _left(search: Search, weighted: Weighted, taken: Sequence[ScopeSubset]) -> _Left:
    fit = _fit(search, taken, weighted.whitener)
    changed = fit.tamed - (search.y - fit.X @ fit.plain)
    return _Left(fit.plain, fit.residual, changed, float(fit.tamed.mean()))


def _sums_of_residuals(
    search: Search,
    weighted: Weighted,
    options: Sequence[Sequence[ScopeSubset]],
    left: Sequence[_Left],
) -> Floats:
    """x'P of what each fit leaves: of y, less its slices, plus what winsorising changed."""
    residuals = np.column_stack([one.residual for one in left])
    if not weighted.lattice.has_days:
        return _sums(weighted, residuals)
    sums = _sums(weighted, np.column_stack([one.changed for one in left]))
    for k, (taken, one) in enumerate(zip(options, left, strict=True)):
        sums[:, k] += _sums_of_y(search, weighted) - one.mean * weighted.lattice.table.n
        for s, edge in zip(taken, one.plain.tolist(), strict=True):
            sums[:, k] -= edge * _sums_of_slice(search, weighted, s)
    return weighted.of_sums(residuals, sums)


def _sums_of_y(search: Search, weighted: Weighted) -> Floats:
    name = zlib.crc32(search.y.tobytes())
    return search.memory.summed(weighted, name, lambda: search.y)


def _sums_of_slice(search: Search, weighted: Weighted, scope_subset: ScopeSubset) -> Floats:
    def column() -> Floats:
        return search.memory.mask(search.group, scope_subset).astype(float)

    return search.memory.summed(weighted, scope_subset, column)


def _given(search: Search, weighted: Weighted, scope_subset: ScopeSubset) -> Floats:
    """x'P of the trades of a slice: S × 1."""
    sums = _sums_of_slice(search, weighted, scope_subset)[:, None]
    return (
        weighted.of_sums(search.design([scope_subset]), sums) if weighted.lattice.has_days else sums
    )


def _beside(search: Search, weighted: Weighted, taken: Sequence[ScopeSubset]) -> Beside:
    known = search.memory.given[search.group.key]
    new = [s for s in taken if s not in known]
    given = np.empty((len(weighted.lattice), len(new)))
    for k, s in enumerate(new):
        given[:, [k]] = _given(search, weighted, s)
    known.update(zip(new, given.T.copy(), strict=True))
    columns = [known[s] for s in taken]
    X = search.design(taken)
    return Beside.of(weighted, X, np.array(columns).T if columns else given)


def described(search: Search, shock: DayShock) -> SliceTable:
    """All slices of the group, with the statistics of rr and evidence from the outcomes."""
    weighted, ranked = search.memory.under(search, shock), winsorised(search.y, search.winsor)
    lattice = weighted.lattice
    if not len(lattice):
        return lattice.table
    if lattice.has_days:
        sums = _sums(weighted, (ranked - search.y)[:, None])
        sums[:, 0] += _sums_of_y(search, weighted)
        sums = weighted.of_sums(ranked[:, None], sums)
    else:
        sums = _sums(weighted, ranked[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        evidence = sums[:, 0] / np.sqrt(weighted.information)
    everywhere = lattice.table.n == lattice.group.n_trades
    return replace(lattice.table, evidence=np.where(everywhere, np.nan, evidence))


def _name(search: Search, found: Strongest, k: int) -> ScopeSubset:
    dims, codes = found.dims[0, k], found.codes[0, k]
    return search.group.name(dims[dims >= 0].tolist(), codes[dims >= 0].tolist())


def exchange(search: Search, taken: list[ScopeSubset], cut: Cutoffs) -> list[ScopeSubset]:
    """Replace, one at a time, the slice whose place another fills best; bounded."""
    for _ in range(_MAX_EXCHANGES if taken else 0):
        rests = [[s for s in taken if s != old] for old in taken]
        better = [
            (beyond, [*rest, new])
            for rest, (new, beyond) in zip(rests, bests_beside(search, rests, cut), strict=True)
            if new is not None and new not in taken
        ]
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
    white = whiten(search.group.day, cut.shock)
    first = _fit(search, options[0], white)
    equations = _equations(search, every, white, first.X @ first.plain + first.residual)
    size = np.array([mask.sum() for mask in search.masks(every)])
    large = (size >= search.n_min) & (len(search.y) - size >= search.n_min)
    place = {s: k for k, s in enumerate(every)}
    return [
        _worth_of(*equations, option, [place[s] for s in option], cut)
        if all(large[place[s]] for s in option)
        else -np.inf
        for option in options
    ]


def _equations(
    search: Search, slices: Sequence[ScopeSubset], white: Whitener, y: Floats
) -> tuple[Floats, Floats]:
    """X'PX and X'Py of many slices, without all their columns as numbers at once."""
    masks = search.masks(slices)
    both = np.zeros((len(masks), len(masks)))
    for lo in range(0, len(y), _CHUNK):
        part = np.array([mask[lo : lo + _CHUNK] for mask in masks], dtype=np.float32)
        both += part @ part.T
    by_day = np.column_stack([white.by_day(mask.astype(float)) for mask in masks])
    ones = np.array([white.ones[mask].sum() for mask in masks])
    Py = white.centre(y)
    information = (both - by_day.T @ white.shared(by_day)) / white.noise_variance
    information -= np.outer(ones, ones) / white.ones_total
    return information, np.array([Py[mask].sum() for mask in masks])


def _worth_of(
    information: Floats,
    scores: Floats,
    slices: Sequence[ScopeSubset],
    places: list[int],
    cut: Cutoffs,
) -> float:
    score = scores[places]
    plain = np.linalg.pinv(information[np.ix_(places, places)], hermitian=True) @ score
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
    weighted = search.memory.under(search, shock)
    if not len(weighted.lattice):
        return Cutoffs((math.inf,) * (2 * search.depth), shock)
    residual = _residual(search, slices, shock)
    beside = _beside(search, weighted, slices)
    by_cell = slice_cutoffs(weighted, residual, beside, rotated=rotated, tail=tail, rng=rng)
    return Cutoffs(by_cell, shock)
