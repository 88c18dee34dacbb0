"""Small worlds of trades for the tests of the core: random ones, and markets with planted edges.

The naive versions of what the core computes on them are in `twins`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import matches, subset

START = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday."""

ONE = GroupKey("pm", "pm.one.S1.flag", "entry")
TWO = GroupKey("pm", "pm.two.S1.flag", "entry")
ALLOCATION = GroupKey("dm", "dm.lowcap.S1.allocate", "allocation")

DIMS: Mapping[str, tuple[str, ...]] = {
    "chain": ("base", "bsc", "solana"),
    "mcap_bucket": ("large", "micro", "mid"),
    "timeframe": ("15m", "1h", "4h"),
}


def row(
    trade: str,
    closed_at: datetime,
    scope: Mapping[str, str],
    rr: float,
    key: GroupKey = ONE,
    event: str = "0",
    payback_hours: float = np.nan,
    hold_hours: float = 12.0,
) -> dict[str, Any]:
    """One action as a row of an event frame."""
    return {
        "event_id": f"{trade}:{key.pattern_key}:{key.action_category}:{event}",
        "trade_id": trade,
        **key._asdict(),
        "scope": dict(scope),
        "rr": rr,
        "closed_at": pd.Timestamp(closed_at),
        "opened_at": pd.Timestamp(closed_at) - pd.Timedelta(hours=12.0),
        "payback_hours": payback_hours,
        "hold_hours": hold_hours,
    }


COLUMNS = tuple(row("t", START, {}, 0.0))


def to_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows as an event frame; none give an empty frame with its columns."""
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


@dataclass(frozen=True, slots=True)
class Chaos:
    """A random world: several actions per trade, absent dimensions, days without trades."""

    seed: int = 0
    n_trades: int = 80
    n_days: int = 12
    n_dims: int = 4
    n_values: int = 3
    most_actions: int = 3
    absent: float = 0.2
    constant_dim: bool = False


def chaos(world: Chaos) -> pd.DataFrame:
    """The event frame of a random world, one group, rows shuffled."""
    rng = np.random.default_rng(world.seed)
    days = rng.choice(world.n_days, max(1, (2 * world.n_days + 2) // 3), replace=False)
    rows = []
    for t in range(world.n_trades):
        closed = START + timedelta(days=int(rng.choice(days)), seconds=int(rng.integers(86_400)))
        rr = float(rng.standard_t(4))
        rows += [
            row(f"t{t:04d}", closed, _random_scope(rng, world), rr, event=str(a))
            for a in range(rng.integers(1, world.most_actions + 1))
        ]
    return to_frame(rows).sample(frac=1.0, random_state=world.seed)


def _random_scope(rng: np.random.Generator, world: Chaos) -> dict[str, str]:
    scope = {
        f"d{k}": "abcdefgh"[min(int(rng.geometric(0.5)) - 1, world.n_values - 1)]
        for k in range(world.n_dims)
        if rng.random() >= world.absent
    }
    return {**scope, "everywhere": "yes"} if world.constant_dim else scope


@dataclass(frozen=True, slots=True)
class Edge:
    """A planted edge, in R."""

    key: GroupKey
    scope: Mapping[str, str]
    edge_r: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A market: every trade has one entry of one pattern, and an allocation where wanted."""

    seed: int = 0
    n_trades: int = 500
    n_days: int = 60
    noise_sd: float = 0.5
    edges: tuple[Edge, ...] = ()
    patterns: tuple[GroupKey, ...] = (ONE, TWO)
    allocated: bool = False
    start: datetime = START

    @property
    def end(self) -> datetime:
        """The midnight after the last day."""
        return self.start + timedelta(days=self.n_days)


def market(plan: Plan) -> pd.DataFrame:
    """The event frame of a market: entries, then allocations of the same scopes."""
    rng = np.random.default_rng(plan.seed)
    rows = []
    for t in range(plan.n_trades):
        scope = {dim: str(rng.choice(values)) for dim, values in DIMS.items()}
        keys = [plan.patterns[int(rng.integers(len(plan.patterns)))]]
        keys += [ALLOCATION] if plan.allocated else []
        rr = plan.noise_sd * rng.standard_normal()
        rr += sum(e.edge_r for e in plan.edges if e.key in keys and _holds(e, scope))
        closed = plan.start + timedelta(seconds=int(rng.integers(plan.n_days * 86_400)))
        payback = float(rng.uniform(1, 100)) if rr > 0 else np.nan
        rows += [
            row(f"t{t:05d}", closed, scope, rr, key, payback_hours=payback, hold_hours=30.0)
            for key in keys
        ]
    return to_frame(rows)


def _holds(edge: Edge, scope: Mapping[str, str]) -> bool:
    return matches(subset(edge.scope), scope)


def events_of(plan: Plan) -> EventTable:
    """The events of a market."""
    return from_frame(market(plan))
