"""The peers that enumerate the same slices: pysubgroup (counts and means) and pyfim (counts).

Both are optional; `make peers` installs them. Each has several exhaustive algorithms: the bench
tries those that are listed here and takes the fastest. Not listed is what lost by far: on 1,000
trades, 28 dimensions and depth 2 SimpleDFS and DFSNumeric of pysubgroup, and its SimpleSearch
and BestFirstSearch, took 1.3 s where its DFS took 0.24 s (DFSNumeric knows no minimum support);
its beam search is not exhaustive. Of pyfim on 5,000 trades and depth 3, the other variants of
eclat and fpgrowth, sam and relim took 0.2 to 0.7 s, apriori 0.06 s.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from learning_assets.core.events import EventTable
from learning_assets.core.scope import ScopeSubset, subset

MODULES = {"pysubgroup": "pysubgroup", "pyfim": "fim"}
"""By name of the peer that of its module."""

_ALL = 10**9  # more slices than there are: nothing is left out


@dataclass(frozen=True, slots=True)
class Way:
    """One algorithm of a peer: how to run it, how many slices its result has, and which.

    `read` gives the number of actions by subset.
    """

    name: str
    run: Callable[[], Any]
    count: Callable[[Any], int]
    read: Callable[[Any], dict[ScopeSubset, int]]


def is_installed(peer: str) -> bool:
    """Whether the peer can be measured here."""
    return importlib.util.find_spec(MODULES[peer]) is not None


def ways_of(peer: str, events: EventTable, n_min: int, depth: int) -> tuple[Way, ...]:
    """The algorithms of a peer on the actions of the events, which are all of one group."""
    make = {"pysubgroup": _pysubgroup, "pyfim": _pyfim}[peer]
    return make(events, n_min, depth)


def transactions(events: EventTable) -> tuple[list[list[int]], list[tuple[str, str]]]:
    """The scope of each action as numbers, and the pair of dimension and value of each number."""
    pairs = [(d, v) for d, known in zip(events.dims, events.values, strict=True) for v in known]
    widths = [len(known) for known in events.values]
    begin = np.cumsum([0, *widths[:-1]])
    numbers = (events.codes.T + begin - 1).tolist()
    if events.codes.all():
        return numbers, pairs
    present = (events.codes.T > 0).tolist()
    return [
        [item for item, here in zip(row, known, strict=True) if here]
        for row, known in zip(numbers, present, strict=True)
    ], pairs


def _pyfim(events: EventTable, n_min: int, depth: int) -> tuple[Way, ...]:
    import fim  # optional

    rows, pairs = transactions(events)
    asked = {"target": "s", "supp": -n_min, "zmin": 1, "zmax": depth}

    def read(result: Sequence[tuple[tuple[int, ...], int]]) -> dict[ScopeSubset, int]:
        return {subset(pairs[item] for item in items): n for items, n in result}

    return (
        Way("apriori", lambda: fim.apriori(rows, **asked), len, read),
        Way("eclat, bit vectors", lambda: fim.eclat(rows, algo="b", **asked), len, read),
        Way("fpgrowth, one tree", lambda: fim.fpgrowth(rows, algo="d", **asked), len, read),
    )


def _pysubgroup(events: EventTable, n_min: int, depth: int) -> tuple[Way, ...]:
    import pysubgroup as ps  # optional

    data = _frame(events)
    selectors = ps.create_selectors(data, ignore=["rr"])
    constraints = [ps.MinSupportConstraint(n_min)]

    def run(make: Callable[[], Any]) -> Any:
        task = ps.SubgroupDiscoveryTask(
            data,
            ps.NumericTarget("rr"),
            selectors,
            ps.StandardQFNumeric(0.5),
            result_set_size=_ALL,
            depth=depth,
            constraints=constraints,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
            return make().execute(task).results

    def one_by_one() -> Any:
        algorithm = ps.Apriori(use_numba=True)
        algorithm.use_vectorization = False  # the vectorised one does not prune by support
        return algorithm

    def sets() -> Any:
        return ps.DFS(ps.NumpySetRepresentation)

    return (
        Way("DFS, sets", lambda: run(sets), _named, _read),
        Way("Apriori", lambda: run(one_by_one), _named, _read),
    )


def _frame(events: EventTable) -> pd.DataFrame:
    columns = {
        dim: np.array([None, *known], dtype=object)[events.codes[d]]
        for d, (dim, known) in enumerate(zip(events.dims, events.values, strict=True))
    }
    return pd.DataFrame({**columns, "rr": events.rr[events.trade]})


def _named(result: Any) -> int:
    """Subgroups with a description: its DFS counts the whole as one, too."""
    return sum(1 for _, group, _ in result if group.selectors)


def _read(result: Any) -> dict[ScopeSubset, int]:
    return {
        subset((s.attribute_name, str(s.attribute_value)) for s in group.selectors): int(
            statistics.size_sg
        )
        for _, group, statistics in result
        if group.selectors
    }
