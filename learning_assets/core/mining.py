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
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from learning_assets.core.dayshock import DayShock, Whitener, whiten
from learning_assets.core.descent import (
    describe_node,
    matching,
    number_frequent,
    strongest_node,
    trade_hashes,
)
from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset, subset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
"""As many as there are processors for this process; results do not depend on it."""

_LARGEST_LOG = 300.0
_ROUNDING = 1e-9


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

    level: Ints
    dims: Ints
    codes: Ints
    n: Ints
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

    def take_over(self, other: Strongest) -> None:
        """Take what is stronger in `other`."""
        better = other.score > self.score
        for name in self.__slots__:
            getattr(self, name)[better] = getattr(other, name)[better]


Subtree = Callable[[], Iterator[tuple["_Node", bool]]]


def _in_parallel(task: Callable[[Subtree], Any], subtrees: Sequence[Subtree]) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(task, subtrees))


@dataclass(frozen=True, slots=True)
class _Node:
    """A scope subset of the descent, and what may be added to it.

    `dims` and `codes` name the subset, `t` is the trade of each action that matches. `numbers`
    (dimensions × actions) has the values of the dimensions from `first` on that are frequent
    here, numbered from 1; `value` translates them to the codes of the group, `widths` counts
    them, 0 included.
    """

    dims: tuple[int, ...]
    codes: tuple[int, ...]
    first: int
    t: Ints
    numbers: NDArray[np.unsignedinteger[Any]]
    value: Ints
    widths: Ints

    def children(self, n_min: int) -> Iterator[_Node]:
        """The nodes with one dimension more, in order."""
        for d in range(len(self.widths)):
            yield from self.children_of(d, n_min)

    def children_of(self, d: int, n_min: int) -> Iterator[_Node]:
        """The nodes with a value of the dimension `first` + d."""
        for v in range(1, int(self.widths[d])):
            t, inside = matching(self.t, self.numbers, d, v)
            numbers = np.empty_like(inside)
            width = int(self.widths[d + 1 :].max(initial=1))
            value, widths = number_frequent(inside, t, width, n_min, numbers)
            later = np.arange(d + 1, len(self.widths))[:, None]
            yield _Node(
                (*self.dims, self.first + d),
                (*self.codes, int(self.value[d, v])),
                self.first + d + 1,
                t,
                numbers,
                self.value[later, value],
                widths,
            )

    def descend(self, depth: int, n_min: int, *, prune: bool) -> Iterator[tuple[_Node, bool]]:
        """The nodes that are gone through, and whether two dimensions at once are added to them.

        `prune` leaves out those with the actions of a simpler one.
        """
        left = depth - len(self.dims)
        yield self, left == 2
        for child in self.children(n_min) if left > 2 else ():
            if not (prune and len(child.t) == len(self.t)):
                yield from child.descend(depth, n_min, prune=prune)


def _root(group: Group, n_min: int) -> _Node:
    width = int(group.n_values.max(initial=0)) + 1
    kind = np.uint16 if width <= np.iinfo(np.uint16).max else np.uint32
    numbers = np.empty(group.codes.shape, kind)
    value, widths = number_frequent(group.codes, group.row_trade, width, n_min, numbers)
    return _Node((), (), 0, group.row_trade, numbers, value, widths)


def _subtrees(root: _Node, depth: int, n_min: int, *, prune: bool) -> list[Subtree]:
    """The descent in parts that do not need each other: the root, and each first dimension."""
    if depth <= 2:
        return [lambda: root.descend(depth, n_min, prune=prune)]

    def below(d: int) -> Iterator[tuple[_Node, bool]]:
        for child in root.children_of(d, n_min):
            if not (prune and len(child.t) == len(root.t)):
                yield from child.descend(depth, n_min, prune=prune)

    return [lambda: iter([(root, False)]), *(partial(below, d) for d in range(len(root.widths)))]


@dataclass(frozen=True, slots=True)
class _Shock:
    """The day shock as the compiled loops need it.

    `day` of each trade from 0; `of_day` (days × 7) as `descent` explains it. L is kept as a
    difference to a reference R that moves on before e^L leaves the range of numbers.
    """

    day: Ints
    of_day: Floats
    ones_total: float
    noise_variance: float

    @classmethod
    def of(cls, w: Whitener, y: Floats | None = None) -> _Shock:
        """That of a whitener, with the day sums of `y`."""
        reference = np.empty_like(w.log_ratio)
        now = math.inf
        for d, value in enumerate(w.log_ratio):
            now = value if now - value > _LARGEST_LOG else now
            reference[d] = now
        ones = np.zeros(len(w.diagonal))
        ones[w.day] = w.ones
        up = np.exp(w.log_ratio - reference)
        days = len(w.diagonal)
        sums = np.bincount(w.day, weights=y, minlength=days)
        counts = np.bincount(w.day, minlength=days)
        of_day = [sums, counts, w.diagonal, w.diagonal * up, 1 / up, reference, ones]
        return cls(w.day, np.column_stack(of_day), float(w.ones_total), w.noise_variance)


def strongest(
    group: Group, y: Floats, shock: DayShock, n_min: int, depth: int, given: Floats | None = None
) -> Strongest:
    """The strongest slice of each cell for every column of `y`.

    `y` is T × columns, in R; evidence² of a slice is its score statistic x'V⁻¹y with V of the
    day shock, squared and divided by its variance. `given` (T × k: which trades each taken slice
    matches) is fitted beside each slice, so that a part of a taken slice is compared with the
    rest of that slice. Ties go to the slice found first: fewer dimensions, then alphabetical. A
    slice and its complement both need `n_min` trades: few trades are no evidence, on either
    side; nor is what is left of a slice beside the given ones if it is worth fewer than half of
    `n_min`, as that of `n_min` trades compared with as many others. A group without such slices
    gives scores of −1.
    """
    found = Strongest.nothing(y.shape[1], depth)
    if group.n_trades <= n_min or shock.noise_variance <= 0 or not group.dims:
        return found
    w = whiten(group.day, shock)
    basis = _explained(w, given if given is not None else np.empty((len(y), 0)))
    subtrees = _subtrees(_root(group, n_min), depth, n_min, prune=True)
    white = np.column_stack([basis, w.centre(y) - basis @ (basis.T @ y)])
    task = _StrongestTask(group, white, basis.shape[1], n_min, depth, _Shock.of(w))
    for one in _in_parallel(task, subtrees):
        found.take_over(one)
    return found


@dataclass(frozen=True, slots=True)
class _StrongestTask:
    """Finds the strongest slices of a subtree for some columns."""

    group: Group
    white: Floats
    n_given: int
    n_min: int
    depth: int
    shock: _Shock

    def __call__(self, subtree: Subtree) -> Strongest:
        x, columns = self.shock, self.white.shape[1] - self.n_given
        found = Strongest.nothing(columns, self.depth)
        for node, pairs in subtree():
            first = 2 * len(node.dims)
            cells = slice(first, first + (4 if pairs else 2))
            score = found.score[:, cells].copy()
            best = np.full((*score.shape, 4), -1, np.int64)
            strongest_node(
                node.t, node.numbers, node.widths, pairs, self.group.has_repeats, self.n_min,
                self.white, self.n_given, x.day, x.of_day, x.ones_total,
                x.noise_variance, self.group.n_trades, score, best,
            )  # fmt: skip
            better = best[..., 0] >= 0
            dims, codes = _named(node, best[better], self.depth)
            found.score[:, cells] = score
            found.dims[:, cells][better], found.codes[:, cells][better] = dims, codes
        return found


def _explained(w: Whitener, X: Floats) -> Floats:
    """B (T × rank) with BB' = PX(X'PX)⁻¹X'P, P the weights with the intercept taken out."""
    PX = w.centre(X)
    values, vectors = np.linalg.eigh(X.T @ PX)
    keep = values > _ROUNDING * values.max(initial=0.0)
    basis: Floats = PX @ (vectors[:, keep] / np.sqrt(values[keep]))
    return basis


def describe(
    group: Group, y: Floats, ranked: Floats, shock: DayShock, n_min: int, depth: int
) -> SliceTable:
    """All subsets with at least `n_min` trades (not the empty one), with their statistics.

    `y` and `ranked` have length T, in R: the outcomes, and what the evidence is taken from. A
    group of fewer trades, or one whose outcomes do not vary, gives an empty table.
    """
    if group.n_trades < max(n_min, 2) or shock.noise_variance <= 0 or not group.dims:
        return _table([], depth)
    w = whiten(group.day, shock)
    task = _DescribeTask(
        group,
        np.column_stack([y, np.ones_like(y), y * y, w.centre(ranked)]),
        trade_hashes(group.n_trades),
        n_min,
        depth,
        _Shock.of(w, y),
    )
    subtrees = _subtrees(_root(group, n_min), depth, n_min, prune=False)
    table = _table(_in_parallel(task, subtrees), depth)
    one_day = group.day[0] == group.day[-1]
    return replace(table, se=np.full(len(table), np.nan)) if one_day else table


_Rows = tuple[Ints, Ints, Ints, Floats, NDArray[np.uint64]]


@dataclass(frozen=True, slots=True)
class _DescribeTask:
    """Describes the slices of a subtree: dimensions, codes, n, statistics, hashes."""

    group: Group
    of_trade: Floats
    hashes: NDArray[np.uint64]
    n_min: int
    depth: int
    shock: _Shock

    def __call__(self, subtree: Subtree) -> _Rows:
        x, total, parts = self.shock, float(self.of_trade[:, 0].sum()), []
        for node, pairs in subtree():
            where, statistics, keys, used = describe_node(
                node.t, node.numbers, node.widths, pairs, self.group.has_repeats, self.n_min,
                self.of_trade, self.hashes, x.day, x.of_day, x.ones_total, x.noise_variance,
                self.group.n_trades, total,
            )  # fmt: skip
            dims, codes = _named(node, where[:used, :4], self.depth)
            parts.append((dims, codes, where[:used, 4], statistics[:used], keys[:used]))
        return _joined(parts, self.depth)


def _named(node: _Node, where: Ints, depth: int) -> tuple[Ints, Ints]:
    """Dimensions and codes (… × depth) of slices that add to a node (dimension, value, twice)."""
    dims, codes = (np.full((*where.shape[:-1], depth), -1, np.int64) for _ in range(2))
    level = len(node.dims)
    dims[..., :level], codes[..., :level] = node.dims, node.codes
    for k in range(min(2, depth - level)):
        d, v = where[..., 2 * k], where[..., 2 * k + 1]
        dims[..., level + k] = np.where(d >= 0, node.first + d, -1)
        codes[..., level + k] = np.where(d >= 0, node.value[d, v], -1)
    return dims, codes


def _joined(parts: Sequence[_Rows], depth: int) -> _Rows:
    empty = np.empty((0, depth), np.int64)
    nothing = (empty, empty, np.empty(0, np.int64), np.empty((0, 5)), np.empty(0, np.uint64))
    return tuple(map(np.concatenate, zip(nothing, *parts, strict=True)))  # type: ignore[return-value]


def _table(parts: Sequence[_Rows], depth: int) -> SliceTable:
    dims, codes, n, statistics, keys = _joined(parts, depth)
    mean, variance, delta, se, evidence = statistics.T
    level = (dims >= 0).sum(axis=1)
    return SliceTable(level, dims, codes, n, mean, variance, delta, se, evidence, keys)


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


def name_slices(table: SliceTable) -> tuple[Ints, dict[int, Ints]]:
    """Which rows name a slice, and the other rows (aliases) that mean the same trades.

    Rows with equal sets of trades are one slice, named by the one with the fewest dimensions,
    then the alphabetically first. Returns the naming rows in order of evidence-free rank
    (level, dimensions, codes) and, for those that have any, their aliases.
    """
    columns = [table.codes[:, j] for j in range(table.codes.shape[1] - 1, -1, -1)]
    columns += [table.dims[:, j] for j in range(table.dims.shape[1] - 1, -1, -1)]
    order = np.lexsort([*columns, table.level])
    _, first, inverse = np.unique(
        np.column_stack([table.key[order], table.n[order].astype(np.uint64)]),
        axis=0, return_index=True, return_inverse=True,
    )  # fmt: skip
    names = order[np.sort(first)]
    owner = order[first[inverse.reshape(-1)]]
    other = owner != order
    aliases: dict[int, list[int]] = {}
    for name, row in zip(owner[other].tolist(), order[other].tolist(), strict=True):
        aliases.setdefault(name, []).append(row)
    return names, {name: np.array(rows) for name, rows in aliases.items()}
