"""The slices of a group that a search looks at again and again: found once, then only summed up.

Everything that is ranked is linear in the outcomes. Once it is known how many trades each slice
has on each day, evidence under any day shock follows from plain sums over its trades: with C the
trades by day, x'V⁻¹y = (Σy − C·K·Z'y)/σ² (see `core.dayshock`). So a new shock costs no pass, and
what changes few outcomes is summed up over these alone. Where the days would take too much
memory there are none, and each weighted column takes a pass of its own: the result is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.cubes import Cubes
from learning_assets.core.dayshock import DayShock, Whitener, whiten
from learning_assets.core.descent import sum_node, take_given, take_maxima, weigh_days
from learning_assets.core.mining import (
    Group,
    Rows,
    SliceTable,
    Survey,
    by_name,
    can_be_mined,
    joined,
    table_of,
)
from learning_assets.core.walk import ShockArrays, Walk, in_parallel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

_ROUNDING = 1e-9
_ROWS = 2**16  # trades
_LANES = 8  # columns of a line of the cache, which two threads should not write to
_CHUNK = 1024  # slices whose trades by day fit into the cache as numbers
_MOST_COUNTS = 2**28
"""Trades by day and slice that are kept at the most: half a GiB."""


@dataclass(frozen=True, slots=True)
class Lattice:
    """All slices of a group with at least `n_min` trades: S of them.

    `table` has the statistics of the outcomes that it was made for. `testable` (S): the slice and
    its complement both have `n_min` trades, and no simpler one has the same actions (as far as
    the walk meets it). `by_day` (S × days) counts trades, S × 0 where that is too much.
    """

    group: Group
    n_min: int
    depth: int
    table: SliceTable
    testable: Mask
    by_day: NDArray[np.uint16]
    _walk: Walk | Cubes | None
    _where: tuple[tuple[NDArray[np.int32], ...], ...]

    def __len__(self) -> int:
        return len(self.table)

    @property
    def has_days(self) -> bool:
        """Whether the trades of each slice are known by day."""
        return bool(self.by_day.size)

    @property
    def nbytes(self) -> int:
        """The memory that it takes, about."""
        more = self._walk.nbytes if isinstance(self._walk, Cubes) else 0
        return self.by_day.nbytes + 120 * len(self) + more

    def sums(self, columns: Floats, only: Mask | None = None) -> Floats:
        """Sums of each column (T × columns) over the trades of each slice: S × columns.

        With `only` (T), all columns are 0 but for these trades.
        """
        out = np.zeros((len(self), columns.shape[1]))
        if not columns.shape[1]:
            return out

        def keep(rows: Ints | slice, sums: Floats) -> None:
            out[rows] = sums

        self.each(columns, keep, only)
        return out

    def spread(self, of_day: Floats) -> Floats:
        """Sums (S × columns) of what is the same all day (days × columns), where days are known."""
        out = np.empty((len(self), of_day.shape[1]))

        def part(k: int) -> None:
            rows = slice(k * _CHUNK, (k + 1) * _CHUNK)
            out[rows] = self.by_day[rows].astype(np.float64) @ of_day

        in_parallel(part, -(-len(self) // _CHUNK))
        return out

    def each(
        self, columns: Floats, use: Callable[[Ints | slice, Floats], Any], only: Mask | None = None
    ) -> list[Any]:
        """Go through all slices in parallel, some at a time, with their rows and sums."""
        if self._walk is None:
            return []
        if isinstance(self._walk, Cubes):
            return self._walk.each(columns, use, only)
        walk = self._walk if only is None else self._walk.restricted(only)
        columns = columns[walk.trades]
        sizes = [sum(map(len, part)) for part in self._where]
        begins = np.concatenate([[0], np.cumsum(sizes)])

        def go(k: int) -> list[Any]:
            results, at = [], int(begins[k])
            for (node, pairs), where in zip(walk.subtree(k), self._where[k], strict=True):
                sums = sum_node(
                    node.t, node.numbers, node.starts, node.constant, node.shape.widths, pairs,
                    walk.repeated, where, columns,
                )  # fmt: skip
                results.append(use(slice(at, at + len(where)), sums))
                at += len(where)
            return results

        return [found for part in in_parallel(go, walk.n_subtrees) for found in part]


def lattice_of(group: Group, y: Floats, shock: DayShock, n_min: int, depth: int) -> Lattice:
    """The lattice of a group, with statistics of the outcomes `y` (T, in R).

    No slices where the group is too small or its noise is none.
    """
    if depth < 1 or not can_be_mined(group, shock, n_min + 1):
        return _lattice(group, joined((), max(depth, 1)), n_min, depth, None, ())
    w = whiten(group.day, shock)
    walk = Walk.of(group, w.day, n_min, depth)
    most = _MOST_COUNTS if np.bincount(w.day).max() <= np.iinfo(np.uint16).max else 0
    parts = Survey.of(walk, y, np.zeros_like(y), w, daily=most).found()
    rows = joined(parts, depth)
    cubes = Cubes.of(walk, rows.dims, rows.codes)
    if cubes is not None:
        return _lattice(group, rows, n_min, depth, cubes, ())
    where = tuple(tuple(found.where for found in part) for part in parts)
    shapes = tuple(tuple(found.shape for found in part) for part in parts)
    return _lattice(group, rows, n_min, depth, replace(walk, shapes=shapes), where)


def _lattice(
    group: Group,
    rows: Rows,
    n_min: int,
    depth: int,
    walk: Walk | Cubes | None,
    where: tuple[tuple[NDArray[np.int32], ...], ...],
) -> Lattice:
    testable = ~rows.repeats & (rows.n <= group.n_trades - n_min)
    table = table_of(rows, group.day)
    return Lattice(group, n_min, depth, table, testable, rows.by_day, walk, where)


@dataclass(frozen=True, slots=True)
class Weighted:
    """A lattice under a day shock.

    `information` (S) is x'V⁻¹x beside the intercept, `ones` (S) 1'V⁻¹x where days are known.
    """

    lattice: Lattice
    whitener: Whitener
    information: Floats
    ones: Floats

    @classmethod
    def of(cls, lattice: Lattice, shock: DayShock) -> Weighted:
        """The lattice under a shock; without days that takes a pass."""
        group = lattice.group
        if not len(lattice):
            nothing = whiten(np.zeros(1, np.int64), DayShock(1.0, 0.0, 0.0))
            return cls(lattice, nothing, np.empty(0), np.empty(0))
        w = whiten(group.day, shock)
        if lattice.has_days:
            x = ShockArrays.of(w, np.zeros(group.n_trades))
            q, g = weigh_days(lattice.by_day, x.of_day)
            information = (lattice.table.n - q) / w.noise_variance - g * g / w.ones_total
            return cls(lattice, w, information, g)
        zeros = np.zeros(group.n_trades)
        walk = Walk.of(group, w.day, lattice.n_min, lattice.depth)
        rows = joined(Survey.of(walk, zeros, zeros, w).found(), lattice.depth)
        return cls(lattice, w, rows.statistics[5].copy(), np.empty(0))

    def of_sums(self, columns: Floats, sums: Floats) -> Floats:
        """x'Py (S × columns) from the plain sums of the columns, where days are known."""
        w = self.whitener
        shock = w.shared(w.by_day(columns))
        solved = (sums - self.lattice.spread(shock)) / w.noise_variance
        mean = w.solve(columns).sum(axis=0) / w.ones_total
        out: Floats = solved - np.multiply.outer(self.ones, mean)
        return out

    def maxima(self, columns: Floats, beside: Beside) -> Floats:
        """The largest evidence² of each cell (columns × 2·depth) beside the given slices.

        `columns` (T × columns) are outcomes in R, and are written over; −1 where a cell has no
        slice. Nothing is kept but the maxima.
        """
        white, count = columns, columns.shape[1]

        def centre(k: int) -> None:
            for b in range(k * _LANES, min((k + 1) * _LANES, count)):
                white[:, b] = self.whitener.centre(columns[:, b])

        in_parallel(centre, -(-count // _LANES))
        taken, level = beside.coefficients(white), self.lattice.table.level
        nothing = np.full((columns.shape[1], 2 * self.lattice.depth), -1.0)

        def strongest_of(rows: Ints | slice, sums: Floats) -> Floats:
            score = nothing.copy()
            take_given(sums, beside.sums[rows], taken)
            take_maxima(sums, beside.information[rows], level[rows], score)
            return score

        best: Floats = np.max([nothing, *self.lattice.each(white, strongest_of)], axis=0)
        return best


@dataclass(frozen=True, slots=True)
class Beside:
    """What is left of each slice of a lattice beside given slices X (T × k).

    With M from the inverse of X'PX = (MM')⁻¹, P the weights V⁻¹ with the intercept taken out:
    `sums` (S × rank) is x'PXM and `information` (S) that of x less the squares of these; infinite
    for what may not be kept: what is not testable, and what is left worth fewer than half of
    `n_min` trades, compared with as many others.
    """

    X: Mask
    mixing: Floats
    sums: Floats
    information: Floats

    @classmethod
    def of(
        cls,
        weighted: Weighted,
        X: Mask,
        own: Floats,
        given: Floats,
        some: Sequence[int] | None = None,
    ) -> Beside:
        """Beside X or `some` of its columns; `own` is X'PX and `given` (S × k) x'PX."""
        lattice, places = weighted.lattice, list(range(len(own))) if some is None else list(some)
        values, vectors = np.linalg.eigh(own[np.ix_(places, places)])
        keep = values > _ROUNDING * values.max(initial=0.0)
        mixing = np.zeros((len(own), int(keep.sum())))
        mixing[places] = vectors[:, keep] / np.sqrt(values[keep])
        sums = given @ mixing
        alone = weighted.information
        left = alone - np.einsum("sk,sk->s", sums, sums)
        enough = lattice.testable & (2.0 * lattice.table.n * left >= lattice.n_min * alone)
        return cls(X, mixing, sums, np.where(enough, left, np.inf))

    @classmethod
    def nothing(cls, weighted: Weighted) -> Beside:
        """Beside no slice."""
        n_trades, n_slices = weighted.lattice.group.n_trades, len(weighted.lattice)
        nothing = np.empty((n_trades, 0), np.bool_), np.empty((0, 0)), np.empty((n_slices, 0))
        return cls.of(weighted, *nothing)

    def coefficients(self, white: Floats) -> Floats:
        """What the given slices explain (rank × columns) of the weighted outcomes `white`."""
        X, n = self.X, len(white)
        found = np.zeros((X.shape[1], white.shape[1]))
        for lo in range(0, n if X.shape[1] else 0, _ROWS):
            found += X[lo : lo + _ROWS].T.astype(float) @ white[lo : lo + _ROWS]
        out: Floats = self.mixing.T @ found
        return out

    def evidence(self, white: Floats, sums: Floats) -> Floats:
        """Evidence (S × columns) of every slice from weighted outcomes and their sums; else 0."""
        score = sums - self.sums @ self.coefficients(white)
        out: Floats = score / np.sqrt(self.information)[:, None]
        return out


@dataclass(frozen=True, slots=True)
class Strongest:
    """The strongest slice of each cell (number of dimensions and sign), per outcome column.

    `score` (columns × 2·depth) is evidence²; −1 where no slice was found. `dims` and `codes`
    (columns × 2·depth × depth) name the slices, −1 beyond their level.
    """

    score: Floats
    dims: Ints
    codes: Ints

    @classmethod
    def nothing(cls, columns: int, depth: int) -> Strongest:
        """No slice in any cell."""
        cells = (columns, 2 * depth)
        names = (np.full((*cells, depth), -1, np.int64) for _ in range(2))
        return cls(np.full(cells, -1.0), *names)


def strongest(
    group: Group, y: Floats, shock: DayShock, n_min: int, depth: int, given: Floats | None = None
) -> Strongest:
    """The strongest slice of each cell for every column of `y`.

    `y` is T × columns, in R; evidence² of a slice is its score statistic x'V⁻¹y with V of the
    day shock, squared and divided by its variance. `given` (T × k: which trades each taken slice
    matches) is fitted beside each slice, so that a part of a taken slice is compared with the
    rest of that slice. Few trades are no evidence: see `Lattice` and `Beside`. A group without
    slices gives scores of −1.
    """
    lattice = lattice_of(group, y[:, 0], shock, n_min, depth)
    if not len(lattice):
        return Strongest.nothing(y.shape[1], depth)
    weighted = Weighted.of(lattice, shock)
    X = given.astype(np.bool_) if given is not None else np.empty((len(y), 0), np.bool_)
    PX = weighted.whitener.centre(X.astype(float))
    beside = Beside.of(weighted, X, X.T @ PX, lattice.sums(PX))
    white = weighted.whitener.centre(y)
    return strongest_of(lattice, beside, beside.evidence(white, lattice.sums(white)))


def strongest_of(lattice: Lattice, beside: Beside, evidence: Floats) -> Strongest:
    """The slices with the largest evidence² (S × columns) of each cell.

    Of equal ones (but for rounding) the one with the alphabetically first dimensions.
    """
    found, table = Strongest.nothing(evidence.shape[1], lattice.depth), lattice.table
    may = np.flatnonzero(np.isfinite(beside.information))
    for b, z in enumerate(evidence[may].T):
        cells = 2 * (table.level[may] - 1) + (z > 0)
        for k in range(2 * lattice.depth):
            at = np.flatnonzero(cells == k)
            square = z[at] ** 2
            if len(at):
                best = may[at[square >= (1 - _ROUNDING) * square.max()]]
                first = best[by_name(table.dims[best], table.codes[best])[0]]
                found.score[b, k] = square.max()
                found.dims[b, k], found.codes[b, k] = table.dims[first], table.codes[first]
    return found
