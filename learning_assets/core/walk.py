"""How a group is gone through: the nodes of the descent, their numbering, and the day shock.

A walk visits the same nodes in the same order each time, on as many threads as there are; what is
gathered at a node is in `core.descent`, what it means in `core.mining` and `core.lattice`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from learning_assets.core.dayshock import Whitener
from learning_assets.core.descent import (
    constants,
    cut,
    frequent,
    known_node,
    name_pairs,
    new_node,
    renumber,
)

if TYPE_CHECKING:
    from learning_assets.core.mining import Group

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Dims = NDArray[np.int16]

_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
"""As many as there are processors for this process; results do not depend on it."""

_KEY_BITS = 64


def in_parallel(task: Callable[[int], Any], count: int) -> list[Any]:
    """The results of the task for 0 … count − 1, in order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(task, range(count)))


class Shape(NamedTuple):
    """How a node numbers the values of its later dimensions.

    `number` (dimensions × values of the node above) numbers those that are frequent from 1; 0 for
    the others. `value` translates back to the codes of the group, `widths` counts, 0 included.
    """

    number: NDArray[np.unsignedinteger[Any]]
    value: Ints
    widths: Ints


@dataclass(frozen=True, slots=True)
class Node:
    """A scope subset of the descent, and what may be added to it.

    `dims` and `codes` name the subset, dimensions in the order of the descent; `t` is the trade
    of each action that matches, `numbers` (dimensions × actions) has the values of the dimensions
    from `first` on as `shape` numbers them. `starts` and `constant` are its blocks. It `repeats`
    a simpler one with its actions.
    """

    dims: tuple[int, ...]
    codes: tuple[int, ...]
    first: int
    t: Ints
    numbers: NDArray[np.unsignedinteger[Any]]
    shape: Shape
    starts: Ints
    constant: Codes
    repeats: bool = False

    def children_of(
        self, d: int, day: Ints, n_min: int, shapes: Iterator[Shape] | None
    ) -> Iterator[Node]:
        """The nodes with a value of the dimension `first` + d; their `shapes`, where known."""
        for v in range(1, int(self.shape.widths[d])):
            if shapes is not None:
                shape = next(shapes)
                t, numbers, starts, constant = known_node(
                    self.t, self.numbers, d, v, day, shape.number
                )
            else:
                t, numbers, starts, constant, *found = new_node(
                    self.t, self.numbers, d, v, day, self.shape.value, n_min
                )
                shape = Shape(*found)
            yield Node(
                (*self.dims, self.first + d),
                (*self.codes, int(self.shape.value[d, v])),
                self.first + d + 1,
                t,
                numbers,
                shape,
                starts,
                constant,
                self.repeats or len(t) == len(self.t),
            )


@dataclass(frozen=True, slots=True)
class Walk:
    """The walk through a group: its root, and what its trades and dimensions are in the group.

    Dimensions that keep their value from trade to trade come last; so that they do, the trades of
    a day are sorted by them. See `core.descent`. `shapes` are those of the nodes of each subtree,
    once they are known.
    """

    root: Node
    trades: Ints
    order: Ints
    day: Ints
    repeated: bool
    n_min: int
    depth: int
    shapes: tuple[tuple[Shape, ...], ...] = ()

    @classmethod
    def of(cls, group: Group, day: Ints, n_min: int, depth: int) -> Walk:
        """The walk through a group with at least one dimension; `day` counts from 0."""
        width = int(group.n_values.max(initial=0)) + 1
        kind = np.uint8 if width <= 256 else np.uint16 if width <= 65536 else np.uint32
        trades, rows = _sorted_within_days(group, day)
        codes = np.stack([known[rows].astype(kind) for known in group.codes])
        t = _positions(trades)[group.row_trade[rows]]
        starts = cut(t, day)
        constant = constants(codes, starts)
        order = np.argsort((constant >= 0).mean(axis=1), kind="stable")
        codes, constant = codes[order], constant[order]
        shape = Shape(*frequent(codes, t, starts, constant, width, n_min))
        renumber(codes, constant, shape.number)
        root = Node((), (), 0, t, codes, shape, starts, constant)
        return cls(root, trades, order, day, group.has_repeats, n_min, depth)

    def restricted(self, trades: NDArray[np.bool_]) -> Walk:
        """The same walk through some of the trades of the group; its shapes must be known."""
        rows = np.flatnonzero(trades[self.trades][self.root.t])
        t, numbers = self.root.t[rows], np.ascontiguousarray(self.root.numbers[:, rows])
        starts = cut(t, self.day)
        root = replace(
            self.root, t=t, numbers=numbers, starts=starts, constant=constants(numbers, starts)
        )
        return replace(self, root=root)

    @property
    def n_subtrees(self) -> int:
        """In how many parts that do not need each other it can be gone through."""
        return 1 + len(self.root.shape.widths) if self.depth > 2 else 1

    def subtree(self, k: int) -> Iterator[tuple[Node, bool]]:
        """Part k: the root, or the nodes below a first dimension.

        With each, whether two dimensions at once are added to it.
        """
        if self.depth <= 2:
            yield self.root, self.depth == 2
        elif k == 0:
            yield self.root, False
        else:
            shapes = iter(self.shapes[k]) if self.shapes else None
            yield from self._below(self.root, k - 1, shapes)

    def _below(
        self, node: Node, d: int, shapes: Iterator[Shape] | None
    ) -> Iterator[tuple[Node, bool]]:
        for child in node.children_of(d, self.day, self.n_min, shapes):
            is_last = self.depth - len(child.dims) == 2
            yield child, is_last
            for later in range(0 if is_last else len(child.shape.widths)):
                yield from self._below(child, later, shapes)

    def named(self, node: Node, where: NDArray[np.int32]) -> tuple[Dims, Codes]:
        """Dimensions and codes (slices × depth), as the group has them, of slices of a node.

        `where` has dimension, value, later dimension or −1, and its value.
        """
        dims, codes = (np.array(known, np.int64) for known in (node.dims, node.codes))
        found: tuple[Dims, Codes] = name_pairs(
            where, dims, codes, node.first, node.shape.value, self.order, self.depth
        )
        return found


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
class ShockArrays:
    """The day shock as the compiled loops need it.

    `of_day` (days × 5) as `descent` explains it, `total` the sum of all outcomes.
    """

    of_day: Floats
    ones_total: float
    noise_variance: float
    total: float

    @classmethod
    def of(cls, w: Whitener, y: Floats) -> ShockArrays:
        """That of a whitener, with the day sums of `y`."""
        days = len(w.diagonal)
        sums = np.bincount(w.day, weights=y, minlength=days)
        counts = np.bincount(w.day, minlength=days)
        of_day = [sums, counts, w.diagonal, w.ones_of_day(), w.log_ratio]
        return cls(np.column_stack(of_day), float(w.ones_total), w.noise_variance, float(y.sum()))
