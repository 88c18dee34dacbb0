"""Sums over all slices of a large group from few tables, each of several dimensions.

A table of six dimensions is filled in one pass, and twenty of its margins have three: so some
hundreds of tables do for thousands of triples (data cubes: Gray et al. 1997). What a slice of the
lattice sums up to is a cell of a margin. Actions of one trade must not count it twice: what differs
in the dimensions of a table is added by inclusion and exclusion, each action in its cell, less the
cell of what two of them have in common, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.descent import common_rows, distinct_actions, fill_cubes, sum_out
from learning_assets.core.walk import Walk, in_parallel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FEWEST_TRADES = 20_000  # with fewer, a walk costs less than the margins
_MOST_CELLS = 2**15
_TRADES_PER_CELL = 4  # so that the margins do not cost more than the tables
_MOST_SETS = 2**20  # of dimensions, that the tables must have
_ROWS = 2**14  # that are put in order at once
_MOST_DIMS = 63
_SETS_PER_ACTION = 4  # of what actions of a trade have in common, as memory for them
_LANES = 8
_TOGETHER = 4  # tables that are filled from the same trades while these are in the cache


class Actions(NamedTuple):
    """The actions of trades that differ, and what they have in common.

    `numbers` (dimensions × sets) are values as the root of the walk numbers them, 0 for none, of
    each set of actions of a trade; those of trade k begin at `first[k]`. `differ` has the
    dimensions, as bits, in which each action of a trade differs from each before it; those of
    trade k begin at `pairs[k]`.
    """

    numbers: NDArray[np.unsignedinteger[Any]]
    first: Ints
    differ: NDArray[np.uint64]
    pairs: Ints

    def take(self, trades: Ints) -> Actions:
        """Those of some trades."""
        rows, first = _spans(self.first, trades)
        differ, pairs = _spans(self.pairs, trades)
        numbers = np.ascontiguousarray(self.numbers[:, rows])
        return Actions(numbers, first, self.differ[differ], pairs)


def _spans(begin: Ints, some: Ints) -> tuple[Ints, Ints]:
    """All places of some spans, and where these begin among them."""
    count = begin[some + 1] - begin[some]
    first = np.concatenate([[0], np.cumsum(count)])
    return np.repeat(begin[some] - first[:-1], count) + np.arange(first[-1]), first


class Table(NamedTuple):
    """A table of some dimensions, and which slices of the lattice its margins have.

    Values of a dimension count from `least`. The table and its margins have `cells` in all;
    `steps` are how one follows from another (see `descent.sum_out`). Slice `rows[k]` of the
    lattice is cell `at[k]`.
    """

    dims: Ints
    widths: Ints
    least: Ints
    cells: int
    steps: Ints
    rows: Ints
    at: Ints


@dataclass(frozen=True, slots=True)
class Cubes:
    """The tables that have all slices of a group; `trades` is the order of those of `actions`."""

    trades: Ints
    actions: Actions
    tables: tuple[Table, ...]

    @classmethod
    def of(cls, walk: Walk, dims: NDArray[Any], codes: NDArray[Any]) -> Cubes | None:
        """Those of the slices that `dims` and `codes` name, as in `SliceTable`.

        None where tables would not pay: for few trades, dimensions of very many values, or trades
        of many actions that differ.
        """
        root, n_trades = walk.root, len(walk.trades)
        if n_trades < _FEWEST_TRADES or not 0 < len(root.numbers) <= _MOST_DIMS or not len(dims):
            return None
        kept, begin, differ, pairs = distinct_actions(root.t, root.numbers, n_trades)
        if not len(kept) or (2 ** np.diff(begin)).sum() > _SETS_PER_ACTION * len(root.t):
            return None
        numbers, first = common_rows(root.numbers, kept, begin)
        actions = Actions(numbers, first, differ, pairs)
        vary = int(np.bitwise_or.reduce(differ, initial=np.uint64(0)))
        least = np.array(
            [int(row.min() > 0 and not vary >> d & 1) for d, row in enumerate(actions.numbers)]
        )
        sizes = tuple((root.shape.widths - least).tolist())
        depth = int((dims >= 0).sum(axis=1).max())
        chosen = _covers(sizes, depth, min(_MOST_CELLS, n_trades // _TRADES_PER_CELL))
        if chosen is None:
            return None
        named = _numbered(walk, dims, codes)
        return cls(walk.trades, actions, tuple(_tables(chosen, np.array(sizes), least, *named)))

    @property
    def nbytes(self) -> int:
        """The memory that they take, about."""
        return sum(a.nbytes for a in self.actions) + sum(t.at.nbytes * 2 for t in self.tables)

    def each(
        self, columns: Floats, use: Callable[[Ints, Floats], Any], only: NDArray[np.bool_] | None
    ) -> list[Any]:
        """Go through the tables in parallel with the sums of their slices."""
        width = columns.shape[1]
        actions, trades = self.actions, self.trades
        if only is not None:
            at = np.flatnonzero(only[trades])
            actions, trades = actions.take(at), trades[at]
        y = np.zeros((len(trades), -(-width // _LANES) * _LANES))

        def put(k: int) -> None:
            rows = slice(k * _ROWS, (k + 1) * _ROWS)
            y[rows, :width] = columns[trades[rows]]

        in_parallel(put, -(-len(trades) // _ROWS))

        def go(k: int) -> list[Any]:
            some = self.tables[k * _TOGETHER : (k + 1) * _TOGETHER]
            return [
                use(table.rows, sums[table.at, :width])
                for table, sums in zip(some, _margins(some, actions, y), strict=True)
            ]

        parts = in_parallel(go, -(-len(self.tables) // _TOGETHER))
        return [found for part in parts for found in part]


def _margins(tables: Sequence[Table], actions: Actions, y: Floats) -> Iterator[Floats]:
    """The margins of some tables, filled together."""
    most, width = max(len(table.dims) for table in tables), y.shape[1]
    dims, strides = np.zeros((2, len(tables), most), np.int64)
    starts, cover, less = [0], [], []
    for k, table in enumerate(tables):
        inside, place = slice(len(table.dims)), np.cumprod([1, *table.widths])
        dims[k, inside], strides[k, inside] = table.dims, place[:-1]
        less.append(int(place[:-1] @ table.least))
        cover.append(sum(1 << d for d in table.dims.tolist()))
        starts.append(starts[-1] + table.cells)
    cells = fill_cubes(
        *actions, dims, strides, np.array(starts), np.array(less), np.array(cover, np.uint64), y
    )
    for table, lo, hi in zip(tables, starts, starts[1:], strict=False):
        sum_out(cells, width, lo, table.steps)
        yield cells[lo * width : hi * width].reshape(-1, width)


def _numbered(walk: Walk, dims: NDArray[Any], codes: NDArray[Any]) -> tuple[Ints, Ints]:
    """Slices as dimensions of the walk, ascending, and numbers of their values; −1 and 0 beyond."""
    shape = walk.root.shape
    place = np.append(np.argsort(walk.order), len(walk.order))
    at = place[dims]
    number = np.zeros(dims.shape, np.int64)
    named = dims >= 0
    number[named] = shape.number[at[named], codes[named]]
    order = np.argsort(at, axis=1, kind="stable")
    at, number = (np.take_along_axis(x, order, axis=1) for x in (at, number))
    return np.where(at < len(walk.order), at, -1), number


def _tables(
    chosen: Sequence[tuple[int, ...]], sizes: Ints, least: Ints, dims: Ints, number: Ints
) -> Iterator[Table]:
    """The tables, each with the slices of the dimensions that no table before it has."""
    unique, which = np.unique(dims, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    edges = np.searchsorted(which.reshape(-1)[order], np.arange(len(unique) + 1))
    left = {tuple(d for d in key if d >= 0): k for k, key in enumerate(unique.tolist())}
    depth = dims.shape[1]
    for table in chosen:
        keys = [key for n in range(1, depth + 1) for key in combinations(table, n) if key in left]
        if not keys:
            continue
        begins, cells, steps = _margin_steps(table, sizes, keys)
        rows, at = [], []
        for key in keys:
            group, own = left.pop(key), list(key)
            mine = order[edges[group] : edges[group + 1]]
            stride = np.cumprod([1, *sizes[own][:-1]])
            rows.append(mine)
            at.append(begins[key] + (number[mine, : len(key)] - least[own]) @ stride)
        index = np.array(table)
        yield Table(
            index, sizes[index], least[index], cells, steps, np.concatenate(rows),
            np.concatenate(at),
        )  # fmt: skip


def _margin_steps(
    table: tuple[int, ...], sizes: Ints, keys: Sequence[tuple[int, ...]]
) -> tuple[dict[tuple[int, ...], int], int, Ints]:
    """Where a table and its margins begin, how many cells they have, and the steps to `keys`.

    A margin is taken from the one that has its smallest missing dimension as well.
    """
    wanted, source = set(keys), {}
    for n in range(1, len(table)):
        for key in [key for key in wanted if len(key) == n]:
            more = min((d for d in table if d not in key), key=lambda d: (sizes[d], d))
            source[key] = tuple(sorted((*key, more)))
            wanted.add(source[key])
    begins, cells, steps = {table: 0}, math.prod(sizes[list(table)].tolist()), []
    for key in sorted(source, key=lambda key: (-len(key), key)):
        begins[key] = cells
        cells += math.prod(sizes[list(key)].tolist())
        above = sizes[list(source[key])].tolist()
        [q] = [k for k, d in enumerate(source[key]) if d not in key]
        shape = math.prod(above[:q]), above[q], math.prod(above[q + 1 :])
        steps.append((begins[source[key]], begins[key], *shape))
    return begins, cells, np.array(steps, np.int64).reshape(-1, 5)


@lru_cache(maxsize=64)
def _covers(sizes: tuple[int, ...], depth: int, most: int) -> tuple[tuple[int, ...], ...] | None:
    """Sets of dimensions with at most so many cells that have all sets of `depth` among them.

    Greedy: begin with the largest set that is left, add what brings the most new sets for its
    size. None where a set alone has too many cells.
    """
    n, size = len(sizes), np.array(sizes)
    if n**depth > _MOST_SETS:
        return None
    grid = np.indices((n,) * depth)
    left = np.ones((n,) * depth, bool)
    for a, b in combinations(range(depth), 2):
        left &= grid[a] != grid[b]
    cells = np.prod(size[grid], axis=0)
    if n <= depth:
        return (tuple(range(n)),) if math.prod(sizes) <= most else None
    if cells[left].max() > most:
        return None
    found = []
    while left.any():
        first = np.unravel_index(np.argmax(np.where(left, cells, 0)), left.shape)
        chosen = sorted(int(d) for d in first)
        while True:
            new = left[np.ix_(range(n), *[chosen] * (depth - 1))].reshape(n, -1).sum(axis=1)
            new[chosen] = 0
            new[size * math.prod(sizes[d] for d in chosen) > most] = 0
            if not new.any():
                break
            chosen = sorted([*chosen, int(np.argmax(new / np.log(size + 1)))])
        left[np.ix_(*[chosen] * depth)] = False
        found.append(tuple(chosen))
    return tuple(found)
