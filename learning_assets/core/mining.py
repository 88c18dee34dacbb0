"""Mining: every scope subset of a group, with its evidence.

The walk through the subsets is in `core.walk`, the loops in `core.descent`, what a search needs
again and again in `core.lattice`. Which slices matter is decided in `core.residual`, not here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.dayshock import DayShock, Whitener, whiten
from learning_assets.core.descent import columns_of_trades, count_node, describe_node
from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset, subset
from learning_assets.core.walk import Node, Shape, ShockArrays, Walk, in_parallel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Dims = NDArray[np.int16]
Codes = NDArray[np.int32]

_ODD = np.uint64(0x9E3779B97F4A7C15)
_LINE = 64  # bytes of the cache


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
    codes: NDArray[np.integer[Any]]
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
        np.ascontiguousarray(
            events.codes if len(rows) == len(events.group) else events.codes[:, rows]
        ),
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


class Rows(NamedTuple):
    """Slices as they are found; see `descent.describe_node`. `statistics` has one per column."""

    dims: Dims
    codes: Codes
    n: NDArray[np.int32]
    repeats: NDArray[np.bool_]
    key: NDArray[np.uint64]
    by_day: NDArray[np.uint16]
    statistics: Floats


class Found(NamedTuple):
    """What is found at each node: its slices, and what another walk needs to come upon them."""

    rows: Rows
    shape: Shape
    where: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Survey:
    """Finds the slices of a group with everything that one pass can say of them.

    `daily` asks for the trades of each slice by day, up to so many numbers in all; beyond that
    there are none.
    """

    walk: Walk
    of_trade: Floats
    keys: Ints
    shock: ShockArrays
    daily: list[int]

    @classmethod
    def of(cls, walk: Walk, y: Floats, ranked: Floats, w: Whitener, daily: int = 0) -> Survey:
        """The survey of outcomes `y` with evidence from `ranked` (T, in R)."""
        x = ShockArrays.of(w, y)
        columns = y[walk.trades], w.centre(ranked)[walk.trades], w.day, x.of_day
        of_trade, keys = columns_of_trades(*columns)
        return cls(walk, of_trade, keys, x, [daily])

    def found(self) -> list[list[Found]]:
        """What is found at each node of each subtree."""
        return in_parallel(self._subtree, self.walk.n_subtrees)

    def _subtree(self, k: int) -> list[Found]:
        return [self._node(node, pairs) for node, pairs in self.walk.subtree(k)]

    def _node(self, node: Node, pairs: bool) -> Found:
        x, walk = self.shock, self.walk
        at = node.t, node.numbers, node.starts, node.constant, node.shape.widths, pairs
        where, n, repeats, key, statistics = describe_node(
            *at, walk.repeated, walk.n_min, self.of_trade, self.keys, walk.day, x.of_day,
            x.ones_total, x.noise_variance, x.total,
        )  # fmt: skip
        days = len(x.of_day) if self.daily[0] > 0 else 0
        if days:
            by_day = count_node(*at, walk.repeated, where, walk.day, days)
            self.daily[0] -= by_day.size
        else:
            by_day = np.empty((len(n), 0), np.uint16)
        dims, codes = walk.named(node, where)
        rows = Rows(dims, codes, n, repeats | node.repeats, key, by_day, statistics)
        return Found(rows, node.shape, where)


def can_be_mined(group: Group, shock: DayShock, fewest: int) -> bool:
    """Whether a group has so many trades, and dimensions, and outcomes that vary."""
    return group.n_trades >= fewest and shock.noise_variance > 0 and bool(group.dims)


def describe(
    group: Group, y: Floats, ranked: Floats, shock: DayShock, n_min: int, depth: int
) -> SliceTable:
    """All subsets with at least `n_min` trades (not the empty one), with their statistics.

    `y` and `ranked` have length T, in R: the outcomes, and what the evidence is taken from. A
    group of fewer trades, or one whose outcomes do not vary, gives an empty table.
    """
    if depth < 1 or not can_be_mined(group, shock, max(n_min, 2)):
        return table_of(joined((), depth), group.day)
    w = whiten(group.day, shock)
    parts = Survey.of(Walk.of(group, w.day, n_min, depth), y, ranked, w).found()
    return table_of(joined(parts, depth), group.day)


def table_of(rows: Rows, day: Ints) -> SliceTable:
    """The rows as a table; trades that closed on one day have no error clustered by day."""
    mean, variance, delta, se, evidence, _ = rows.statistics
    level = sum((dims >= 0 for dims in rows.dims.T), np.zeros(len(rows.n), np.int8))
    table = SliceTable(
        level, rows.dims, rows.codes, rows.n, mean, variance, delta, se, evidence, rows.key
    )
    one_day = len(day) > 0 and day[0] == day[-1]
    return replace(table, se=np.full(len(table), np.nan)) if one_day else table


def joined(parts: Iterable[Iterable[Found]], depth: int) -> Rows:
    """The rows of all parts; trades by day only where every node has them."""
    rows = [found.rows for part in parts for found in part if len(found.rows.n)]
    n = sum(len(known.n) for known in rows)
    days = min((known.by_day.shape[1] for known in rows), default=0)
    rows = [known._replace(by_day=known.by_day[:, :days]) for known in rows]
    dims, codes, of_n, repeats, key, statistics = _in_one_block(
        ((n, depth), np.int16),
        ((n, depth), np.int32),
        ((n,), np.int32),
        ((n,), np.bool_),
        ((n,), np.uint64),
        ((6, n), np.float64),
    )
    by_day = np.empty((n, days), np.uint16)  # apart, since it may be much and is not needed long
    out = Rows(dims, codes, of_n, repeats, key, by_day, statistics)
    last = len(out) - 1  # its slices are columns
    for k, columns in enumerate(zip(*rows, strict=True)):
        np.concatenate(columns, axis=int(k == last), out=out[k])
    return out


def _in_one_block(*kinds: tuple[tuple[int, ...], type[np.generic]]) -> Iterator[NDArray[Any]]:
    """Arrays of these shapes and types in one block of memory.

    Of a block of up to 32 MiB that is given back glibc keeps twice as much for the next: then its
    pages are not fetched again.
    """
    sizes = [math.prod(shape) * np.dtype(kind).itemsize for shape, kind in kinds]
    block, begin = np.empty(sum(sizes) + len(sizes) * _LINE, np.uint8), 0
    for (shape, kind), size in zip(kinds, sizes, strict=True):
        yield block[begin : begin + size].view(kind).reshape(shape)
        begin += -(-size // _LINE) * _LINE


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


def by_name(dims: Dims, codes: Codes, *before: NDArray[Any]) -> Ints:
    """The order of slices by what is `before`, then dimensions, then codes."""
    columns = [a[:, j] for a in (codes, dims) for j in range(a.shape[1] - 1, -1, -1)]
    return np.lexsort([*columns, *before])


def name_slices(table: SliceTable) -> tuple[Ints, dict[int, Ints]]:
    """Which rows name a slice, and the other rows (aliases) that mean the same trades.

    Rows with equal sets of trades are one slice, named by the one with the fewest dimensions,
    then the alphabetically first. Returns the naming rows in order of evidence-free rank
    (level, dimensions, codes) and, for those that have any, their aliases.
    """
    order = by_name(table.dims, table.codes, table.level)
    mixed = table.key[order] ^ table.n[order].astype(np.uint64) * _ODD
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    names = order[np.sort(first)]
    owner = order[first[inverse.reshape(-1)]]
    other = owner != order
    aliases: dict[int, list[int]] = {}
    for name, row in zip(owner[other].tolist(), order[other].tolist(), strict=True):
        aliases.setdefault(name, []).append(row)
    return names, {name: np.array(rows) for name, rows in aliases.items()}
