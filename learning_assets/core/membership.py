"""Which trades each of many slices matches, as sparse rows.

A slice's trades are found from the rarest of its scope pairs, so that thousands of slices cost no
more than the sum of their sizes. What is done with them is in `core.history` and `core.factors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey, Lesson
from learning_assets.core.scope import ScopeSubset

Ints = NDArray[np.int64]

_NOTHING: Ints = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Postings:
    """The action rows of one group, and those of each (dimension, code), ascending."""

    events: EventTable
    rows: Ints
    of_dim: dict[int, list[Ints]] = field(default_factory=dict)

    def with_pair(self, dim: int, code: int) -> Ints:
        if dim not in self.of_dim:
            codes = self.events.codes[dim, self.rows]
            order = np.argsort(codes, kind="stable")
            edges = np.cumsum(np.bincount(codes, minlength=len(self.events.values[dim]) + 1))
            self.of_dim[dim] = np.split(self.rows[order], edges[:-1])
        return self.of_dim[dim][code]

    def matching(self, pairs: Sequence[tuple[int, int]]) -> Ints:
        """Rows whose scope has all the pairs."""
        if not pairs:
            return self.rows
        rarest, *others = sorted(pairs, key=lambda pair: len(self.with_pair(*pair)))
        rows = self.with_pair(*rarest)
        for dim, code in others:
            rows = rows[self.events.codes[dim, rows] == code]
        return rows


def trades_of(events: EventTable, lessons: Sequence[Lesson]) -> tuple[Ints, ...]:
    """The trades (indices, ascending) with an action in each lesson's slice.

    None where the events hold no such group, dimension or value.
    """
    postings = _postings(events, {lesson.group for lesson in lessons})
    codes = _codes(events)
    return tuple(
        _trades(events, postings.get(lesson.group), _pairs(codes, lesson.scope_subset))
        for lesson in lessons
    )


def _postings(events: EventTable, keys: set[GroupKey]) -> dict[GroupKey, _Postings]:
    order = np.argsort(events.group, kind="stable")
    edges = np.cumsum(np.bincount(events.group, minlength=len(events.groups)))
    rows = np.split(order, edges[:-1])
    return {key: _Postings(events, rows[i]) for i, key in enumerate(events.groups) if key in keys}


def _codes(events: EventTable) -> Mapping[tuple[str, str], tuple[int, int]]:
    return {
        (dim, value): (d, v + 1)
        for d, dim in enumerate(events.dims)
        for v, value in enumerate(events.values[d])
    }


def _pairs(
    codes: Mapping[tuple[str, str], tuple[int, int]], scope_subset: ScopeSubset
) -> list[tuple[int, int]] | None:
    """The subset in codes, None where the events do not know a pair of it."""
    if any(pair not in codes for pair in scope_subset):
        return None
    return [codes[pair] for pair in scope_subset]


def _trades(
    events: EventTable, postings: _Postings | None, pairs: list[tuple[int, int]] | None
) -> Ints:
    if postings is None or pairs is None:
        return _NOTHING
    trade = events.trade[postings.matching(pairs)]
    is_first = np.ones(len(trade), dtype=bool)
    is_first[1:] = trade[1:] != trade[:-1]
    distinct: Ints = trade[is_first]
    return distinct


def group_trades(events: EventTable, keys: Sequence[GroupKey]) -> Ints:
    """The distinct trades with an action in any of the groups, ascending."""
    index = [i for i, key in enumerate(events.groups) if key in keys]
    return np.unique(events.trade[np.isin(events.group, index)])
