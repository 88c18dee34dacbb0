"""Mining as a competent person writes it in pandas: recursion over frames, one slice at a time.

It gives the same slices with the same statistics as `core.mining.describe`, which is measured
against it and must agree with it. It is frozen: what makes it faster belongs in the engine, never
here. (The twins of the tests are written to be obviously right and use dense algebra, which
thousands of trades do not allow; one of those tests holds this one against them.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from learning_assets.core.dayshock import DayShock, whiten
from learning_assets.core.events import EventTable
from learning_assets.core.scope import ScopeSubset

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """One slice: its name, its set of trades, and what `describe` says of it (R)."""

    scope_subset: ScopeSubset
    trades: frozenset[int]
    n: int
    mean: float
    variance: float
    delta: float
    se: float
    evidence: float


@dataclass(frozen=True, slots=True)
class Naive:
    """The trades (rr, day) and actions (trade, one category column per dimension) of one group."""

    trades: pd.DataFrame
    actions: pd.DataFrame
    shock: DayShock
    n_min: int
    depth: int

    @property
    def dims(self) -> list[str]:
        """The scope dimensions, in order."""
        return [name for name in self.actions.columns if name != "trade"]


def naive_of(events: EventTable, shock: DayShock, n_min: int, depth: int) -> Naive:
    """The frames of events that are all of one group."""
    trades = pd.DataFrame({"rr": events.rr, "day": events.day})
    columns = {
        dim: pd.Categorical.from_codes(events.codes[d] - 1, categories=pd.Index(list(known)))
        for d, (dim, known) in enumerate(zip(events.dims, events.values, strict=True))
    }
    actions = pd.DataFrame({"trade": events.trade, **columns})
    return Naive(trades, actions, shock, n_min, depth)


def slices(naive: Naive) -> Iterator[Found]:
    """Every subset of 1 … depth dimensions with at least `n_min` distinct trades."""
    describe = _Described(naive)
    yield from _below(naive, describe, naive.actions, naive.dims, ())


def slices_from(naive: Naive, roots: Sequence[ScopeSubset]) -> Iterator[Found]:
    """The subsets `roots`, and those that add later dimensions to one of them."""
    describe = _Described(naive)
    for root in roots:
        rows = naive.actions
        for dim, value in root:
            rows = rows[rows[dim] == value]
        yield describe(root, rows)
        later = naive.dims[naive.dims.index(root[-1][0]) + 1 :]
        yield from _below(naive, describe, rows, later, root)


def _below(
    naive: Naive,
    describe: _Described,
    rows: pd.DataFrame,
    dims: Sequence[str],
    pairs: ScopeSubset,
) -> Iterator[Found]:
    if len(pairs) == naive.depth:
        return
    for k, dim in enumerate(dims):
        for value, part in rows.groupby(dim, observed=True):
            if part["trade"].nunique() < naive.n_min:
                continue
            longer = (*pairs, (dim, str(value)))
            yield describe(longer, part)
            yield from _below(naive, describe, part, dims[k + 1 :], longer)


class _Described:
    """Statistics of one slice after the other; what all of them need is made once."""

    def __init__(self, naive: Naive) -> None:
        self.trades = naive.trades
        self.whitener = whiten(naive.trades["day"].to_numpy(), naive.shock)
        self.centred = self.whitener.centre(naive.trades["rr"].to_numpy())

    def __call__(self, scope_subset: ScopeSubset, rows: pd.DataFrame) -> Found:
        trades = rows["trade"].unique()
        inside = self.trades.index.isin(trades)
        rr, rest = self.trades["rr"][inside], self.trades["rr"][~inside]
        mean, variance = float(rr.mean()), float(rr.var())
        delta = se = evidence = np.nan
        if len(rest):
            delta = mean - float(rest.mean())
            se = self._clustered_error(inside, mean, float(rest.mean()))
            evidence = self._evidence(inside.astype(float))
        return Found(
            scope_subset, frozenset(trades.tolist()), len(rr), mean, variance, delta, se, evidence
        )

    def _clustered_error(self, inside: NDArray[np.bool_], mean: float, other: float) -> float:
        n, rr = int(inside.sum()), self.trades["rr"]
        influence = ((rr - mean) / n).where(inside, -(rr - other) / (len(rr) - n))
        by_day = influence.groupby(self.trades["day"]).sum()
        return float(np.sqrt((by_day**2).sum())) if len(by_day) > 1 else np.nan

    def _evidence(self, x: Floats) -> float:
        solved = self.whitener.solve(x)
        shared = solved.sum()
        information = x @ solved - shared**2 / self.whitener.ones_total
        return float(x @ self.centred / np.sqrt(information))


def sampled_roots(naive: Naive, count: int, seed: int) -> list[ScopeSubset]:
    """Up to `count` subsets one dimension short of the depth, drawn from all, in random order.

    They and what is below them stand for the whole: nearly all slices have as many dimensions
    as are allowed.
    """
    known = [
        tuple(zip(dims, values, strict=True))
        for dims in combinations(naive.dims, naive.depth - 1)
        for values in _frequent(naive, list(dims))
    ]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(known), min(count, len(known)), replace=False)
    return [known[k] for k in chosen.tolist()]


def _frequent(naive: Naive, dims: list[str]) -> list[tuple[str, ...]]:
    n = naive.actions.groupby(dims, observed=True)["trade"].nunique()
    return [
        values if isinstance(values, tuple) else (values,) for values in n[n >= naive.n_min].index
    ]
