"""Mining: every scope subset of a group, with its evidence.

`describe` keeps every slice with its full statistics; `strongest` carries many outcome columns
through one descent and keeps only the best of each number of dimensions and sign, which is what
calibration needs a hundred times. The loops are in `core.descent`.

Which slices matter is decided in `core.residual`, not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from learning_assets.core.dayshock import DayShock, Whitener, whiten
from learning_assets.core.descent import describe_task, near_ratios, strongest_task, trade_hashes
from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset, subset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at import
"""As many as there are processors for this process; results do not depend on it."""

_NEAR_DAYS = 32
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


def _in_parallel(task: Callable[[int], Any], n_tasks: int) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(task, range(n_tasks)))


@dataclass(frozen=True, slots=True)
class _Frequent:
    """The codes of a group without the values that are too rare to make a slice.

    `codes` counts the frequent values of each dimension from 1, `original` (dimensions × width)
    translates back; its first and any unused column is −1.
    """

    codes: NDArray[np.int32]
    original: Ints

    @property
    def width(self) -> int:
        return int(self.original.shape[1])

    def back(self, dims: Ints, codes: Ints) -> Ints:
        """Codes of the group for those of this record; −1 stays."""
        return np.where(dims >= 0, self.original[dims, codes], -1)


def _frequent(group: Group, n_min: int) -> _Frequent:
    new = np.zeros_like(group.codes)
    kept: list[Ints] = []
    for d, column in enumerate(group.codes):
        rows = np.bincount(column, minlength=int(group.n_values[d]) + 1)
        values = np.flatnonzero(rows[1:] >= n_min) + 1
        translate = np.zeros(len(rows), dtype=np.int32)
        translate[values] = np.arange(1, len(values) + 1)
        new[d] = translate[column]
        kept.append(values)
    original = np.full((len(kept), max(map(len, kept), default=0) + 1), -1, dtype=np.int64)
    for d, values in enumerate(kept):
        original[d, 1 : len(values) + 1] = values
    return _Frequent(new, original)


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
    columns = y.shape[1]
    score = np.full((columns, 2 * depth), -1.0)
    dims = np.full((columns, 2 * depth, depth), -1, np.int64)
    codes = np.full((columns, 2 * depth, depth), -1, np.int64)
    if group.n_trades <= n_min or shock.noise_variance <= 0 or not group.dims:
        return Strongest(score, dims, codes)
    w = whiten(group.day, shock)
    basis = _explained(w, given if given is not None else np.empty((len(y), 0)))
    white = np.column_stack([w.centre(y) - basis @ (basis.T @ y), basis])
    near = near_ratios(w.log_ratio, _NEAR_DAYS)
    frequent = _frequent(group, n_min)

    def task(d: int) -> tuple[Floats, Ints, Ints]:
        found: tuple[Floats, Ints, Ints] = strongest_task(
            d, depth, n_min, frequent.codes, group.row_trade, white, basis.shape[1],
            w.noise_variance, w.day, w.diagonal, near, w.log_ratio, w.ones, w.ones_total,
            frequent.width,
        )  # fmt: skip
        return found

    for s, d, c in _in_parallel(task, len(group.dims)):
        better = s > score
        score[better], dims[better], codes[better] = s[better], d[better], c[better]
    return Strongest(score, dims, frequent.back(dims, codes))


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
    white = w.centre(ranked)[:, None]
    near = near_ratios(w.log_ratio, _NEAR_DAYS)
    frequent = _frequent(group, n_min)
    day_y = np.bincount(w.day, weights=y)
    day_n = np.bincount(w.day).astype(np.float64)
    hashes = trade_hashes(group.n_trades)

    def task(d: int) -> tuple[Ints, Floats, NDArray[np.uint64]]:
        capacity = 4096
        while True:
            out_i, out_f, out_k, used = describe_task(
                d, depth, n_min, frequent.codes, group.row_trade, y, white, float(y.sum()),
                w.noise_variance, w.day, w.diagonal, near, w.log_ratio, w.ones, w.ones_total,
                day_y, day_n, hashes, frequent.width, capacity,
            )  # fmt: skip
            if used <= capacity:
                return out_i[:used], out_f[:used], out_k[:used]
            capacity = used

    table = _table(_in_parallel(task, len(group.dims)), depth)
    one_day = group.day[0] == group.day[-1]
    se = np.full(len(table), np.nan) if one_day else table.se
    return replace(table, codes=frequent.back(table.dims, table.codes), se=se)


def _table(parts: list[tuple[Ints, Floats, NDArray[np.uint64]]], depth: int) -> SliceTable:
    ints = np.concatenate([p[0] for p in parts] or [np.empty((0, 2 + 2 * depth), np.int64)])
    floats = np.concatenate([p[1] for p in parts] or [np.empty((0, 5))])
    keys = np.concatenate([p[2] for p in parts] or [np.empty(0, np.uint64)])
    return SliceTable(
        ints[:, 0], ints[:, 2 : 2 + depth], ints[:, 2 + depth :], ints[:, 1],
        floats[:, 0], floats[:, 1], floats[:, 2], floats[:, 3], floats[:, 4], keys,
    )  # fmt: skip


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
