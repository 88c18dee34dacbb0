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

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.calibration import slice_cutoffs
from learning_assets.core.dayshock import DayShock, Whitener, days_of, fit_day_shock, whiten
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
_WORD = 64  # bits
_EQUAL = 1e-12  # R: no more than rounding
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


class Members(NamedTuple):
    """The trades of a slice: a mask (T), the same as bits, and how many there are by day."""

    mask: Mask
    bits: NDArray[np.uint64]
    by_day: Floats

    @classmethod
    def of(cls, mask: Mask, day: NDArray[np.int64]) -> Members:
        """Those of a mask over trades that closed on `day` (ascending)."""
        padded = np.zeros(-(-len(mask) // _WORD) * _WORD, np.bool_)
        padded[: len(mask)] = mask
        return cls(mask, np.packbits(padded).view(np.uint64), days_of(mask, day))


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
    members: dict[tuple[GroupKey, ScopeSubset], Members] = field(default_factory=dict)
    totals: dict[GroupKey, tuple[Floats, dict[ScopeSubset, float]]] = field(default_factory=dict)

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

    def total(self, group: Group, y: Floats, slices: Sequence[ScopeSubset]) -> Floats:
        """The sum of outcomes `y` (T) over the trades of each slice; those of the last y stay."""
        last, known = self.totals.get(group.key, (None, {}))
        if last is None or not np.array_equal(last, y):
            known = {}
            self.totals[group.key] = y, known
        for s in slices:
            if s not in known:
                known[s] = float(y[self.members_of(group, s).mask].sum())
        return np.array([known[s] for s in slices])

    def members_of(self, group: Group, scope_subset: ScopeSubset) -> Members:
        """The trades of a group that a slice matches."""
        key = group.key, scope_subset
        if key not in self.members:
            if sum(len(known.mask) for known in self.members.values()) > _MOST_MEMBERS:
                self.members.clear()
            self.members[key] = Members.of(group.members(scope_subset), group.day)
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

    def members(self, slices: Sequence[ScopeSubset]) -> list[Members]:
        """The trades that each slice matches."""
        return [self.memory.members_of(self.group, s) for s in slices]

    def masks(self, slices: Sequence[ScopeSubset]) -> list[Mask]:
        """Which trades (length T) each slice matches."""
        return [members.mask for members in self.members(slices)]

    def design(self, slices: Sequence[ScopeSubset]) -> Mask:
        """T × k: which trades each slice matches."""
        masks = self.masks(slices)
        return np.stack(masks).T if masks else np.empty((len(self.y), 0), np.bool_)

    def explained(self, slices: Sequence[ScopeSubset], edges: Floats) -> Floats:
        """What the edges of slices add up to at each trade (T)."""
        out = np.zeros(len(self.y))
        for mask, edge in zip(self.masks(slices), edges.tolist(), strict=True):
            np.add(out, edge, out=out, where=mask)
        return out


class _Equations(NamedTuple):
    """The normal equations of slices: information X'PX and score X'Py.

    They follow from how many trades slices share, from their trades by day and from one sum over
    the trades of each, so that no matrix of trades × slices is ever multiplied.
    """

    information: Floats
    score: Floats

    @classmethod
    def of(
        cls, search: Search, slices: Sequence[ScopeSubset], white: Whitener, y: Floats
    ) -> _Equations:
        """Those of slices for outcomes `y` (T)."""
        members = search.members(slices)
        if not members:
            return cls(np.empty((0, 0)), np.empty(0))
        bits = np.stack([known.bits for known in members])
        both = np.array([np.bitwise_count(bits & row).sum(axis=1) for row in bits], float)
        by_day = np.stack([known.by_day for known in members], axis=1)
        ones = by_day.T @ white.ones_of_day()
        information = (both - by_day.T @ white.shared(by_day)) / white.noise_variance
        information -= np.outer(ones, ones) / white.ones_total
        total = search.memory.total(search.group, y, slices)
        score = (total - by_day.T @ white.shared(white.by_day(y))) / white.noise_variance
        return cls(information, score - ones * white.solve(y).sum() / white.ones_total)

    def take(self, places: Sequence[int]) -> _Equations:
        """Those of some of the slices."""
        return _Equations(self.information[np.ix_(places, places)], self.score[list(places)])

    def inverse(self) -> Floats:
        """Of the information; a slice that says nothing new gets its share."""
        return np.asarray(np.linalg.pinv(self.information, hermitian=True), np.float64)


def _sums_within(members: Sequence[Members], y: Floats) -> Floats:
    return np.array([y[known.mask].sum() for known in members])


@dataclass(frozen=True, slots=True)
class _Fit:
    """A weighted least-squares fit: its equations and the inverse of their information.

    `plain` are the coefficients, `left` (T) what they leave, `tamed` (T) the same winsorised.
    """

    equations: _Equations
    inverse: Floats
    plain: Floats
    left: Floats
    tamed: Floats

    @property
    def residual(self) -> Floats:
        """What is left to mine: winsorised and centred."""
        out: Floats = self.tamed - self.tamed.mean()
        return out


def _fit(search: Search, slices: Sequence[ScopeSubset], white: Whitener) -> _Fit:
    return _solved(search, slices, _Equations.of(search, slices, white, search.y))


def _solved(search: Search, slices: Sequence[ScopeSubset], equations: _Equations) -> _Fit:
    inverse = equations.inverse()
    plain = inverse @ equations.score
    left = search.y - search.explained(slices, plain)
    return _Fit(equations, inverse, plain, left, winsorised(left, search.winsor))


def fit_jointly(search: Search, slices: Sequence[ScopeSubset], shock: DayShock) -> JointFit:
    """Fit the slices together to the outcomes, with an intercept that is not penalised."""
    white, members = whiten(search.group.day, shock), search.members(slices)
    fit = _fit(search, slices, white)
    edge = _ridge(fit.equations, float(search.y @ white.centre(search.y)), len(search.y))
    size = np.array([known.by_day.sum() for known in members])
    return JointFit(
        tuple(slices),
        edge,
        fit.plain,
        np.array(list(_clustered_errors(search, slices, fit, white))),
        _evidence(fit, members, white),
        float(search.y.mean() - size @ edge / len(search.y)),
        fit.residual,
    )


def effect_of(search: Search, slices: Sequence[ScopeSubset], shock: DayShock) -> Floats:
    """What the slices, fitted together, explain of each outcome (T)."""
    white = whiten(search.group.day, shock)
    equations = _Equations.of(search, slices, white, search.y)
    energy = float(search.y @ white.centre(search.y))
    return search.explained(slices, _ridge(equations, energy, len(search.y)))


def _evidence(fit: _Fit, members: Sequence[Members], white: Whitener) -> Floats:
    robust = fit.plain + fit.inverse @ _sums_within(members, white.centre(fit.tamed))
    out: Floats = robust / np.sqrt(np.diag(fit.inverse))
    return out


def _clustered_errors(
    search: Search, slices: Sequence[ScopeSubset], fit: _Fit, white: Whitener
) -> Iterator[float]:
    errors = fit.left - fit.left.mean()
    for row in fit.inverse:
        influence = white.centre(search.explained(slices, row)) * errors
        yield clustered_se(influence, search.group.day)


def winsorised(y: Floats, share: float) -> Floats:
    """`y` with the `share` of values at either end clipped (Tukey 1962)."""
    return np.clip(y, *np.quantile(y, [share, 1 - share]))


def clustered_se(influence: Floats, day: NDArray[np.int64]) -> float:
    """Standard error from the influence of each trade, by closing day (ascending, at least one)."""
    by_day = np.bincount(day - day[0], weights=influence)
    return float(np.sqrt(by_day @ by_day))


def _ridge(equations: _Equations, energy: float, n: int) -> Floats:
    """Ridge coefficients; the penalty (per trade) minimises generalised cross-validation.

    `energy` is y'Py of the n outcomes.
    """
    if not len(equations.score):
        return np.empty(0)
    values, vectors = np.linalg.eigh(equations.information)
    keep = values > 1e-9 * values.max()
    values, vectors = values[keep], vectors[:, keep]
    rotated = vectors.T @ equations.score
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
    every = _Every.of(search, options, weighted.whitener, search.y)
    columns = _columns(search, weighted, every)
    for k in range(0, len(options), _OPTIONS_TOGETHER):
        some = options[k : k + _OPTIONS_TOGETHER]
        left = [_left(search, every, taken) for taken in some]
        sums = _sums_of_residuals(search, weighted, some, left)
        for n, (taken, one) in enumerate(zip(some, left, strict=True)):
            beside = Beside.of(weighted, *columns, [every.place[s] for s in taken])
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
class _Every:
    """The equations of all slices of several sets of taken slices."""

    equations: _Equations
    place: Mapping[ScopeSubset, int]

    @classmethod
    def of(
        cls,
        search: Search,
        options: Sequence[Sequence[ScopeSubset]],
        white: Whitener,
        y: Floats,
    ) -> _Every:
        every = sorted({s for option in options for s in option})
        place = {s: k for k, s in enumerate(every)}
        return cls(_Equations.of(search, every, white, y), place)

    def take(self, taken: Sequence[ScopeSubset]) -> _Equations:
        return self.equations.take([self.place[s] for s in taken])


@dataclass(frozen=True, slots=True)
class _Left:
    """What a fit leaves: its edges, the residual (T), and what winsorising changed (T).

    The residual is centred: `mean` is that of what was left before.
    """

    plain: Floats
    residual: Floats
    changed: Floats
    mean: float


def _left(search: Search, every: _Every, taken: Sequence[ScopeSubset]) -> _Left:
    fit = _solved(search, taken, every.take(taken))
    changed = fit.tamed - fit.left
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
    """Plain sums of the outcomes; the table of the lattice has them but for a constant, mostly."""
    taken_out, table = search.memory.rr[search.group.trades] - search.y, weighted.lattice.table
    if np.ptp(taken_out) < _EQUAL:
        out: Floats = table.n * (table.mean - taken_out.mean())
        return out
    name = hashlib.blake2b(search.y.tobytes(), digest_size=16).digest()
    return search.memory.summed(weighted, name, lambda: search.y)


def _sums_of_slice(search: Search, weighted: Weighted, scope_subset: ScopeSubset) -> Floats:
    def column() -> Floats:
        return search.memory.members_of(search.group, scope_subset).mask.astype(float)

    return search.memory.summed(weighted, scope_subset, column)


def _given(search: Search, weighted: Weighted, scope_subset: ScopeSubset) -> Floats:
    """x'P of the trades of a slice: S × 1."""
    sums = _sums_of_slice(search, weighted, scope_subset)[:, None]
    if not weighted.lattice.has_days:
        return sums
    return weighted.of_sums(search.design([scope_subset]).astype(float), sums)


def _columns(search: Search, weighted: Weighted, every: _Every) -> tuple[Mask, Floats, Floats]:
    """What `Beside` needs of slices: X, X'PX and x'PX."""
    slices, known = list(every.place), search.memory.given[search.group.key]
    for s in slices:
        if s not in known:
            known[s] = _given(search, weighted, s)[:, 0]
    given = np.empty((len(weighted.lattice), len(slices)))
    for k, s in enumerate(slices):
        given[:, k] = known[s]
    return search.design(slices), every.equations.information, given


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
    white = whiten(search.group.day, cut.shock)
    first = _fit(search, options[0], white)
    robust = search.y - first.left + first.residual
    every = _Every.of(search, options, white, robust)
    members = search.members(list(every.place))
    size = np.array([known.by_day.sum() for known in members])
    large = (size >= search.n_min) & (len(search.y) - size >= search.n_min)
    return [
        _worth_of(every.take(option), option, cut)
        if all(large[every.place[s]] for s in option)
        else -np.inf
        for option in options
    ]


def _worth_of(equations: _Equations, slices: Sequence[ScopeSubset], cut: Cutoffs) -> float:
    plain = equations.inverse() @ equations.score
    price = sum(cut.of(s, edge) ** 2 for s, edge in zip(slices, plain.tolist(), strict=True))
    return float(equations.score @ plain) - price


def drop_weak(search: Search, taken: list[ScopeSubset], cut: Cutoffs) -> list[ScopeSubset]:
    """Drop, weakest first, what is not beyond its cut-off in the joint fit."""
    white = whiten(search.group.day, cut.shock)
    every = _Every.of(search, [taken], white, search.y)
    while taken:
        fit = _solved(search, taken, every.take(taken))
        evidence = _evidence(fit, search.members(taken), white)
        beyond = evidence**2 - np.square(
            [cut.of(s, z) for s, z in zip(taken, evidence, strict=True)]
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
    every = _Every.of(search, [slices], weighted.whitener, search.y)
    fit = _solved(search, list(every.place), every.equations)
    beside = Beside.of(weighted, *_columns(search, weighted, every))
    by_cell = slice_cutoffs(weighted, fit.residual, beside, rotated=rotated, tail=tail, rng=rng)
    return Cutoffs(by_cell, shock)
