"""Mining: every scope subset of a group, with its evidence.

`describe` keeps every slice with its full statistics; `strongest` carries many outcome columns
through one descent and keeps only the best of each number of dimensions and sign, which is what
calibration needs a hundred times. The loops are in `core.descent`.

Which slices matter is decided in `core.residual`, not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from learning_assets.core.dayshock import DayShock, Whitener, whiten
from learning_assets.core.descent import (
    columns_of_trades,
    constants,
    cut,
    describe_node,
    matching,
    number_frequent,
    sum_node,
    take_maxima,
)
from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset, subset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Dims = NDArray[np.int16]
Codes = NDArray[np.int32]

_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
"""As many as there are processors for this process; results do not depend on it."""

_LARGEST_LOG = 300.0
_ROUNDING = 1e-9
_KEY_BITS = 64
_ODD = np.uint64(0x9E3779B97F4A7C15)
_BEYOND = np.iinfo(np.int16).max


@dataclass(frozen=True, slots=True)
class Group:
    """The trades and actions of one group, ready for the engine.

    `trades` (length T) indexes the trades of the event table, ascending in closing order; `day`
    is their closing day. `row_trade` (length A, ascending) is the local trade of each action,
    `codes` (dimensions × A) its scope.
    """

    key: GroupKey
    trades: Ints
    day: Ints
    row_trade: Ints
    codes: NDArray[np.int32]
    n_values: Ints
    dims: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    @property
    def n_trades(self) -> int:
        """Number of distinct trades of the group."""
        return len(self.trades)

    @property
    def has_repeats(self) -> bool:
        """Whether a trade has several actions."""
        return len(self.row_trade) != len(self.trades)

    def name(self, dims: Sequence[int], codes: Sequence[int]) -> ScopeSubset:
        """The subset that pairs of dimension index and code stand for."""
        return subset(
            (self.dims[d], self.values[d][c - 1]) for d, c in zip(dims, codes, strict=True)
        )

    def members(self, scope_subset: ScopeSubset) -> NDArray[np.bool_]:
        """Which trades (length T) have an action whose scope contains the subset."""
        rows = np.ones(len(self.row_trade), dtype=bool)
        for dim, value in scope_subset:
            d = self.dims.index(dim) if dim in self.dims else -1
            known = d >= 0 and value in self.values[d]
            rows &= self.codes[d] == self.values[d].index(value) + 1 if known else False
        mask = np.zeros(self.n_trades, dtype=bool)
        mask[self.row_trade[rows]] = True
        return mask


def group_of(events: EventTable, key: GroupKey) -> Group:
    """The group `key` of the events; a key that they do not hold gives an empty group."""
    index = events.groups.index(key) if key in events.groups else -1
    rows = np.flatnonzero(events.group == index)
    trades, row_trade = np.unique(events.trade[rows], return_inverse=True)
    return Group(
        key,
        trades.astype(np.int64),
        events.day[trades],
        row_trade.astype(np.int64),
        np.ascontiguousarray(events.codes[:, rows]),
        np.array([len(known) for known in events.values], dtype=np.int64),
        events.dims,
        events.values,
    )


@dataclass(frozen=True, slots=True)
class SliceTable:
    """All slices of a group with at least `n_min` trades, one row per scope subset.

    `dims` and `codes` (S × depth, −1 beyond the level) name the subset; `n` distinct trades,
    `mean` and `variance` (ddof 1) of the outcome, `delta` against the complement (NaN where it
    is empty), `se` clustered by closing day (NaN where all
    trades closed on one), `evidence` the score statistic under the day-shock
    model, `key` a hash of the set of trades: equal keys and n mean the same set.
    """

    level: NDArray[np.int8]
    dims: Dims
    codes: Codes
    n: NDArray[np.int32]
    mean: Floats
    variance: Floats
    delta: Floats
    se: Floats
    evidence: Floats
    key: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.n)

    def take(self, index: NDArray[Any]) -> SliceTable:
        """The rows `index`, in that order."""
        return SliceTable(*(getattr(self, name)[index] for name in self.__slots__))


def cell(level: int, evidence: float) -> int:
    """Index of a number of dimensions (1 … depth) and a sign of the evidence: −1, +1, −2, +2, …"""
    return 2 * (level - 1) + (1 if evidence > 0 else 0)


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


def _in_parallel(task: Callable[[int], Any], count: int) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(task, range(count)))


@dataclass(frozen=True, slots=True)
class _Node:
    """A scope subset of the descent, and what may be added to it.

    `dims` and `codes` name the subset, dimensions in the order of the descent; `t` is the trade
    of each action that matches. `numbers` (dimensions × actions) has the values of the dimensions
    from `first` on that are frequent here, numbered from 1; `value` translates them to the codes
    of the group, `widths` counts them, 0 included. `starts` and `constant` are its blocks. It
    `repeats` a simpler one with its actions.
    """

    dims: tuple[int, ...]
    codes: tuple[int, ...]
    first: int
    t: Ints
    numbers: NDArray[np.unsignedinteger[Any]]
    value: Ints
    widths: Ints
    starts: Ints
    constant: NDArray[np.int32]
    repeats: bool = False

    def children_of(self, d: int, day: Ints, n_min: int) -> Iterator[_Node]:
        """The nodes with a value of the dimension `first` + d."""
        for v in range(1, int(self.widths[d])):
            t, numbers = matching(self.t, self.numbers, d, v)
            starts = cut(t, day)
            constant = constants(numbers, starts)
            width = int(self.widths[d + 1 :].max(initial=1))
            value, widths = number_frequent(numbers, t, starts, constant, width, n_min)
            later = np.arange(d + 1, len(self.widths))[:, None]
            yield _Node(
                (*self.dims, self.first + d),
                (*self.codes, int(self.value[d, v])),
                self.first + d + 1,
                t,
                numbers,
                self.value[later, value],
                widths,
                starts,
                constant,
                self.repeats or len(t) == len(self.t),
            )


@dataclass(frozen=True, slots=True)
class _Descent:
    """The descent of a group: its root, and what its trades and dimensions are in the group.

    Dimensions that keep their value from trade to trade come last; so that they do, the trades of
    a day are sorted by them. See `core.descent`.
    """

    root: _Node
    trades: Ints
    order: Ints
    day: Ints
    repeated: bool
    n_min: int
    depth: int

    @classmethod
    def of(cls, group: Group, day: Ints, n_min: int, depth: int) -> _Descent:
        """The descent of a group with at least one dimension."""
        width = int(group.n_values.max(initial=0)) + 1
        kind = np.uint8 if width <= 256 else np.uint16 if width <= 65536 else np.uint32
        trades, rows = _sorted_within_days(group, day)
        codes = np.stack([known[rows] for known in group.codes.astype(kind)])
        t = _positions(trades)[group.row_trade[rows]]
        starts = cut(t, day)
        constant = constants(codes, starts)
        order = np.argsort((constant >= 0).mean(axis=1), kind="stable")
        numbers, constant = codes[order], constant[order]
        value, widths = number_frequent(numbers, t, starts, constant, width, n_min)
        root = _Node((), (), 0, t, numbers, value, widths, starts, constant)
        return cls(root, trades, order, day, group.has_repeats, n_min, depth)

    @property
    def n_subtrees(self) -> int:
        """In how many parts that do not need each other it can be gone through."""
        return 1 + len(self.root.widths) if self.depth > 2 else 1

    def subtree(self, k: int) -> Iterator[tuple[_Node, bool]]:
        """Part k: the root, and the nodes below each first dimension."""
        if self.depth <= 2:
            yield self.root, self.depth == 2
        elif k == 0:
            yield self.root, False
        else:
            yield from self._below(self.root, k - 1)

    def _below(self, node: _Node, d: int) -> Iterator[tuple[_Node, bool]]:
        """The nodes with a value of a later dimension, and those below them.

        With each, whether two dimensions at once are added to it.
        """
        for child in node.children_of(d, self.day, self.n_min):
            is_last = self.depth - len(child.dims) == 2
            yield child, is_last
            for later in range(0 if is_last else len(child.widths)):
                yield from self._below(child, later)

    def named(self, node: _Node, where: NDArray[np.int32]) -> tuple[Dims, Codes]:
        """Dimensions and codes (slices × depth), as the group has them, of slices of a node.

        `where` has dimension, value, later dimension or −1, and its value.
        """
        level, shape = len(node.dims), (len(where), self.depth)
        dims, codes = np.full(shape, _BEYOND, np.int16), np.full(shape, -1, np.int32)
        dims[:, :level], codes[:, :level] = self.order[list(node.dims)], node.codes
        for k in range(min(2, self.depth - level)):
            d, v = where[:, 2 * k], where[:, 2 * k + 1]
            is_there = d >= 0
            dims[is_there, level + k] = self.order[node.first + d[is_there]]
            codes[is_there, level + k] = node.value[d[is_there], v[is_there]]
        order = np.argsort(dims, axis=1, kind="stable")
        dims = np.take_along_axis(dims, order, axis=1)
        dims[dims == _BEYOND] = -1
        return dims, np.take_along_axis(codes, order, axis=1)


def _sorted_within_days(group: Group, day: Ints) -> tuple[Ints, Ints]:
    """The trades and the actions of a group by day, and within a day by what lasts longest.

    Dimensions go by how much more often than by chance a trade has the value of the one before.
    """
    first = np.flatnonzero(np.diff(group.row_trade, prepend=-1))
    codes = group.codes[:, first]
    chance = np.array([np.square(np.bincount(c) / len(c)).sum() for c in codes])
    lasting = (codes[:, 1:] == codes[:, :-1]).mean(axis=1) - chance
    key, left = day.astype(np.uint64), _KEY_BITS - int(day[-1]).bit_length()
    for d in np.lexsort([-chance, -np.round(lasting, 2)]):
        bits = int(group.n_values[d]).bit_length()
        if bits <= left:
            key = (key << np.uint64(bits)) | codes[d].astype(np.uint64)
            left -= bits
    trades = np.argsort(key, kind="stable")
    counts = np.diff(first, append=len(group.row_trade))[trades]
    ends = np.cumsum(counts)
    rows = np.repeat(first[trades] - (ends - counts), counts) + np.arange(ends[-1])
    return trades, rows


def _positions(order: Ints) -> Ints:
    """Where each index stands in an order."""
    at = np.empty_like(order)
    at[order] = np.arange(len(order))
    return at


@dataclass(frozen=True, slots=True)
class _Shock:
    """The day shock as the compiled loops need it.

    `of_day` (days × 7) as `descent` explains it: L is kept as a difference to a reference R that
    moves on before e^L leaves the range of numbers. `total` is the sum of all outcomes.
    """

    of_day: Floats
    ones_total: float
    noise_variance: float
    total: float

    @classmethod
    def of(cls, w: Whitener, y: Floats) -> _Shock:
        """That of a whitener, with the day sums of `y`."""
        days = len(w.diagonal)
        ones = np.zeros(days)
        ones[w.day] = w.ones
        sums = np.bincount(w.day, weights=y, minlength=days)
        counts = np.bincount(w.day, minlength=days)
        of_day = [sums, counts, w.diagonal, *_across_days(w), ones]
        return cls(np.column_stack(of_day), float(w.ones_total), w.noise_variance, float(y.sum()))


def _across_days(w: Whitener) -> tuple[Floats, Floats, Floats]:
    """K_dd·e^(L − R), e^(R − L) and R of each day; days that share nothing need none of it."""
    if np.all(np.diff(w.log_ratio) < -_LARGEST_LOG):
        nothing = np.zeros_like(w.log_ratio)
        return nothing, nothing, nothing
    reference = np.empty_like(w.log_ratio)
    now = math.inf
    for d, value in enumerate(w.log_ratio):
        now = value if now - value > _LARGEST_LOG else now
        reference[d] = now
    up = np.exp(w.log_ratio - reference)
    return w.diagonal * up, 1 / up, reference


class _Rows(NamedTuple):
    """Slices as they are found; see `descent.describe_node`. Not all are asked for by all."""

    dims: Dims
    codes: Codes
    where: NDArray[np.int32]
    n: NDArray[np.int32]
    repeats: NDArray[np.bool_]
    statistics: Floats
    key: NDArray[np.uint64]

    def take(self, keep: NDArray[np.bool_]) -> _Rows:
        """Those rows."""
        return _Rows(*(column[keep] for column in self))  # type: ignore[arg-type]  # as they are


@dataclass(frozen=True, slots=True)
class _Survey:
    """Finds the slices of a subtree with everything that one pass can say of them."""

    descent: _Descent
    of_trade: Floats
    shock: _Shock

    def __call__(self, subtree: int) -> list[_Rows]:
        return [self._node(*given) for given in self.descent.subtree(subtree)]

    def _node(self, node: _Node, pairs: bool) -> _Rows:
        x, d = self.shock, self.descent
        where, statistics, key, used = describe_node(
            node.t, node.numbers, node.starts, node.constant, node.widths, pairs, d.repeated,
            d.n_min, self.of_trade, x.of_day, x.ones_total, x.noise_variance, x.total,
        )  # fmt: skip
        dims, codes = d.named(node, where[:used, :4])
        n, repeats = where[:used, 4].copy(), (where[:used, 5] != 0) | node.repeats
        return _Rows(
            dims, codes, where[:used, :4].copy(), n, repeats, statistics[:used], key[:used]
        )


def _survey(
    group: Group, y: Floats, ranked: Floats, w: Whitener, n_min: int, depth: int
) -> tuple[_Descent, list[list[_Rows]]]:
    descent = _Descent.of(group, w.day, n_min, depth)
    columns = (y[descent.trades], w.centre(ranked)[descent.trades], w.day)
    task = _Survey(descent, columns_of_trades(*columns), _Shock.of(w, y))
    return descent, _in_parallel(task, descent.n_subtrees)


def _can_be_mined(group: Group, shock: DayShock, fewest: int) -> bool:
    return group.n_trades >= fewest and shock.noise_variance > 0 and bool(group.dims)


def describe(
    group: Group, y: Floats, ranked: Floats, shock: DayShock, n_min: int, depth: int
) -> SliceTable:
    """All subsets with at least `n_min` trades (not the empty one), with their statistics.

    `y` and `ranked` have length T, in R: the outcomes, and what the evidence is taken from. A
    group of fewer trades, or one whose outcomes do not vary, gives an empty table.
    """
    if depth < 1 or not _can_be_mined(group, shock, max(n_min, 2)):
        return _table([], depth)
    _, parts = _survey(group, y, ranked, whiten(group.day, shock), n_min, depth)
    table = _table([rows for part in parts for rows in part], depth)
    one_day = group.day[0] == group.day[-1]
    return replace(table, se=np.full(len(table), np.nan)) if one_day else table


def _table(parts: Sequence[_Rows], depth: int) -> SliceTable:
    rows = _joined(parts, depth)
    mean, variance, delta, se, evidence, _ = rows.statistics.T
    level = (rows.dims >= 0).sum(axis=1, dtype=np.int8)
    return SliceTable(
        level, rows.dims, rows.codes, rows.n, mean, variance, delta, se, evidence, rows.key
    )


def _joined(parts: Sequence[_Rows], depth: int) -> _Rows:
    nothing = _Rows(
        np.empty((0, depth), np.int16),
        np.empty((0, depth), np.int32),
        np.empty((0, 4), np.int32),
        np.empty(0, np.int32),
        np.empty(0, np.bool_),
        np.empty((0, 6)),
        np.empty(0, np.uint64),
    )
    return _Rows(*(np.concatenate(column) for column in zip(nothing, *parts, strict=True)))


# --- what may be kept, and how strong it is -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lattice:
    """The slices of a group that may be kept, and sums over their trades.

    A slice and its complement both need `n_min` trades; those with the actions of a simpler one
    (as far as the descent meets it) are left out. Arrays of length S: `cell` is `cell(level, −1)`;
    `dims` and `codes` (S × depth, −1 beyond the level) name the slice; `n` its trades;
    `information` is x'V⁻¹x beside the intercept, under the day shock of `whitener`.
    """

    whitener: Whitener
    n_min: int
    depth: int
    level: NDArray[np.int8]
    dims: Dims
    codes: Codes
    n: NDArray[np.int32]
    information: Floats
    _descent: _Descent | None
    _where: tuple[tuple[NDArray[np.int32], ...], ...]

    def __len__(self) -> int:
        return len(self.n)

    def sums(self, columns: Floats) -> Floats:
        """Sums of each column (T × columns) over the trades of each slice: S × columns."""
        out = np.empty((len(self), columns.shape[1]))

        def keep(rows: slice, sums: Floats) -> None:
            out[rows] = sums

        self._each(columns, keep)
        return out

    def maxima(self, columns: Floats, beside: Beside) -> Floats:
        """The largest evidence² of each cell (columns × 2·depth) beside the given slices.

        `columns` (T × columns) are outcomes in R; −1 where a cell has no slice. Nothing is kept
        but the maxima.
        """
        white = self.whitener.centre(columns)
        taken = beside.coefficients(white)

        def strongest_of(rows: slice, sums: Floats) -> Floats:
            score = np.full((columns.shape[1], 2 * self.depth), -1.0)
            sums -= beside.sums[rows] @ taken
            take_maxima(sums, beside.information[rows], self.level[rows], score)
            return score

        nothing = np.full((columns.shape[1], 2 * self.depth), -1.0)
        best: Floats = np.max([nothing, *self._each(white, strongest_of)], axis=0)
        return best

    def _each(self, columns: Floats, use: Callable[[slice, Floats], Any]) -> list[Any]:
        """Go through the nodes in parallel with the sums of their slices."""
        d = self._descent
        if d is None:
            return []
        columns = columns[d.trades]
        sizes = [[len(where) for where in part] for part in self._where]
        begins = np.concatenate([[0], np.cumsum([sum(part) for part in sizes])])

        def go(k: int) -> list[Any]:
            results, at = [], int(begins[k])
            for (node, pairs), where in zip(d.subtree(k), self._where[k], strict=True):
                if len(where):
                    sums = sum_node(
                        node.t, node.numbers, node.starts, node.constant, node.widths, pairs,
                        d.repeated, where, columns,
                    )  # fmt: skip
                    results.append(use(slice(at, at + len(where)), sums))
                at += len(where)
            return results

        return [found for part in _in_parallel(go, d.n_subtrees) for found in part]


def lattice_of(group: Group, shock: DayShock, n_min: int, depth: int) -> Lattice:
    """The slices of a group that may be kept; none where the group or its noise is too small."""
    if depth < 1 or not _can_be_mined(group, shock, n_min + 1):
        return _lattice(
            None, [], whiten(np.zeros(1, np.int64), DayShock(1.0, 0.0, 0.0)), n_min, depth
        )
    w, nothing = whiten(group.day, shock), np.zeros(group.n_trades)
    descent, parts = _survey(group, nothing, nothing, w, n_min, depth)
    most = group.n_trades - n_min
    kept = [[rows.take(~rows.repeats & (rows.n <= most)) for rows in part] for part in parts]
    return _lattice(descent, kept, w, n_min, depth)


def _lattice(
    descent: _Descent | None, parts: list[list[_Rows]], w: Whitener, n_min: int, depth: int
) -> Lattice:
    rows = _joined([rows for part in parts for rows in part], depth)
    level = (rows.dims >= 0).sum(axis=1, dtype=np.int8)
    where = tuple(tuple(rows.where for rows in part) for part in parts)
    information = np.ascontiguousarray(rows.statistics[:, 5])
    return Lattice(
        w, n_min, depth, level, rows.dims, rows.codes, rows.n, information, descent, where
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What is left of each slice of a lattice beside given slices X (T × k).

    With M from the inverse of X'PX = (MM')⁻¹, P the weights V⁻¹ with the intercept taken out:
    `sums` (S × rank) is x'PXM and `information` (S) that of x less the squares of these; infinite
    where what is left is worth fewer than half of `n_min` trades, compared with as many others.
    """

    X: Floats
    mixing: Floats
    sums: Floats
    information: Floats

    @classmethod
    def of(cls, lattice: Lattice, X: Floats, given: Floats | None = None) -> Beside:
        """Beside X; `given` (S × k) is x'PX, where it is known already."""
        PX = lattice.whitener.centre(X)
        values, vectors = np.linalg.eigh(X.T @ PX)
        keep = values > _ROUNDING * values.max(initial=0.0)
        mixing = vectors[:, keep] / np.sqrt(values[keep])
        sums = (lattice.sums(PX) if given is None else given) @ mixing
        alone = lattice.information
        left = alone - (sums * sums).sum(axis=1)
        too_small = 2.0 * lattice.n * left < lattice.n_min * alone
        return cls(X, mixing, sums, np.where(too_small, np.inf, left))

    def coefficients(self, white: Floats) -> Floats:
        """What the given slices explain (rank × columns) of the weighted outcomes `white`."""
        found: Floats = self.mixing.T @ (self.X.T @ white)
        return found

    def evidence(self, lattice: Lattice, white: Floats, sums: Floats) -> Floats:
        """Evidence (S × columns) of every slice, from the weighted outcomes and their sums."""
        score = sums - self.sums @ self.coefficients(white)
        out: Floats = score / np.sqrt(self.information)[:, None]
        return out


def strongest(
    group: Group, y: Floats, shock: DayShock, n_min: int, depth: int, given: Floats | None = None
) -> Strongest:
    """The strongest slice of each cell for every column of `y`.

    `y` is T × columns, in R; evidence² of a slice is its score statistic x'V⁻¹y with V of the
    day shock, squared and divided by its variance. `given` (T × k: which trades each taken slice
    matches) is fitted beside each slice, so that a part of a taken slice is compared with the
    rest of that slice. Ties go to the slice with the alphabetically first dimensions. Few trades
    are no evidence: see `Lattice` and `Beside`. A group without slices gives scores of −1.
    """
    lattice = lattice_of(group, shock, n_min, depth)
    if not len(lattice):
        return Strongest.nothing(y.shape[1], depth)
    beside = Beside.of(lattice, given if given is not None else np.empty((len(y), 0)))
    white = lattice.whitener.centre(y)
    return strongest_of(lattice, beside.evidence(lattice, white, lattice.sums(white)))


def strongest_of(lattice: Lattice, evidence: Floats) -> Strongest:
    """The slices with the largest evidence² (S × columns) of each cell.

    Of equal ones (but for rounding) the one with the alphabetically first dimensions.
    """
    found = Strongest.nothing(evidence.shape[1], lattice.depth)
    for b, z in enumerate(evidence.T):
        cells = 2 * (lattice.level - 1) + (z > 0)
        for k in range(2 * lattice.depth):
            rows = np.flatnonzero(cells == k)
            square = z[rows] ** 2
            if len(rows):
                best = rows[square >= (1 - _ROUNDING) * square.max()]
                first = best[_by_name(lattice.dims[best], lattice.codes[best])[0]]
                found.score[b, k] = square.max()
                found.dims[b, k], found.codes[b, k] = lattice.dims[first], lattice.codes[first]
    return found


def find_slice(table: SliceTable, group: Group, scope_subset: ScopeSubset) -> int:
    """Row of a subset in the table.

    Raises:
        KeyError: for a subset that the table does not hold.
    """
    dims = np.full(table.dims.shape[1], -1, dtype=np.int64)
    codes = dims.copy()
    pairs = sorted((group.dims.index(dim), dim, value) for dim, value in scope_subset)
    for j, (d, _, value) in enumerate(pairs):
        dims[j], codes[j] = d, group.values[d].index(value) + 1
    rows = np.flatnonzero(((table.dims == dims) & (table.codes == codes)).all(axis=1))
    if not len(rows):
        raise KeyError(scope_subset)
    return int(rows[0])


def _by_name(dims: Dims, codes: Codes, *before: NDArray[Any]) -> Ints:
    """The order by what is `before`, then dimensions, then codes."""
    columns = [a[:, j] for a in (codes, dims) for j in range(a.shape[1] - 1, -1, -1)]
    return np.lexsort([*columns, *before])


def name_slices(table: SliceTable) -> tuple[Ints, dict[int, Ints]]:
    """Which rows name a slice, and the other rows (aliases) that mean the same trades.

    Rows with equal sets of trades are one slice, named by the one with the fewest dimensions,
    then the alphabetically first. Returns the naming rows in order of evidence-free rank
    (level, dimensions, codes) and, for those that have any, their aliases.
    """
    order = _by_name(table.dims, table.codes, table.level)
    mixed = table.key[order] ^ table.n[order].astype(np.uint64) * _ODD
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    names = order[np.sort(first)]
    owner = order[first[inverse.reshape(-1)]]
    other = owner != order
    aliases: dict[int, list[int]] = {}
    for name, row in zip(owner[other].tolist(), order[other].tolist(), strict=True):
        aliases.setdefault(name, []).append(row)
    return names, {name: np.array(rows) for name, rows in aliases.items()}
