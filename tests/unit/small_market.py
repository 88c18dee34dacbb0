"""A table of events from plain columns, and lessons on it, for the tests of the meta-learners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey, Lesson, LessonStatus, Multipliers, SliceStats
from learning_assets.core.scope import subset

START = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday."""

ONE = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
TWO = GroupKey("pm", "pm.uptrend.S2.retest", "entry")
ALLOCATION = GroupKey("dm", "dm.lowcap.S1.allocate", "allocation")


def table(
    hours: NDArray[np.float64],
    rr: NDArray[np.float64],
    codes: NDArray[np.int64],
    group: NDArray[np.int64] | None = None,
    groups: Sequence[GroupKey] = (ONE,),
    trade: NDArray[np.int64] | None = None,
) -> EventTable:
    """Trades closing `hours` after the start; codes (dimensions × actions) of d0, d1, …: a, b, …"""
    order = np.argsort(hours, kind="stable")
    rank = np.argsort(order, kind="stable")
    of_action = rank[np.arange(len(hours)) if trade is None else trade]
    actions = np.argsort(of_action, kind="stable")
    passed = (hours[order] * 3.6e9).astype("timedelta64[us]")
    closed = np.datetime64(START.replace(tzinfo=None), "us") + passed
    unknown = np.full(len(hours), np.nan)
    own = np.zeros(len(of_action), np.int64) if group is None else group
    return EventTable(
        np.array([f"t{i}" for i in order], dtype=object),
        closed,
        closed,
        rr[order],
        unknown,
        unknown,
        of_action[actions],
        own[actions],
        tuple(groups),
        tuple(f"d{d}" for d in range(len(codes))),
        tuple(tuple("abcdefgh") for _ in codes),
        codes[:, actions].astype(np.int32),
    )


def lesson(
    scope: Mapping[str, str],
    edge_r: float | None = 0.0,
    key: GroupKey = ONE,
    status: LessonStatus = LessonStatus.ACTIVE,
    evidence: float = 5.0,
) -> Lesson:
    """A lesson; only what the meta-learners read is meant."""
    return Lesson(
        key,
        subset(scope),
        status,
        SliceStats(50, 0.0, 1.0, 0.1, 0.1, 1.0, 0.3, 0.3, evidence, 4.0),
        Multipliers(0.8, 0.7, 0.6, 0.5, None, None, 0, None),
        0.1,
        edge_r,
        None if edge_r is None else 0.1,
    )


def random_table(seed: int, n_trades: int = 300, weeks: int = 8, n_dims: int = 3) -> EventTable:
    """Two patterns and an allocation of the same trades, several actions per trade."""
    rng = np.random.default_rng(seed)
    hours = rng.uniform(0, weeks * 168, n_trades)
    trade = np.repeat(np.arange(n_trades), rng.integers(1, 4, n_trades))
    codes = rng.integers(0, 4, (n_dims, len(trade)))
    groups = sorted([ONE, TWO, ALLOCATION])
    group = rng.integers(0, 3, len(trade))
    return table(hours, rng.standard_normal(n_trades), codes, group, groups, trade)
