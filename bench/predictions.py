"""How much of what replayed overrides predict is true, and where the rest is lost.

Known only where a market is simulated. `true_slopes` is the regression of `core.gain` on the
expected instead of the earned R, so without noise, after each step that an edge goes through.
`true_shares` compares each joint edge with its true value: the least-squares fit of the expected R
of all trades on the scopes of a set's overrides together, with a level for each pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.gain import gains_of
from learning_assets.core.overrides import matching_actions, mean_by_trade, sizing_actions
from learning_assets.core.records import GroupKey, Override
from learning_assets.core.replay import judge_all
from learning_assets.core.scope import ScopeSubset
from learning_assets.core.walkforward import Replay

Floats = NDArray[np.float64]
Slice = tuple[GroupKey, ScopeSubset]

STEPS = ("joint_edge_r", "remaining_share", "share", "regime_factor")
"""The parts of an override whose product is the prediction, in their order."""

_OPENING = ("entry", "allocation")


@dataclass(frozen=True, slots=True)
class TrueShare:
    """Joint edges of a kind of overrides: how many, their mean size (R), what share of it is true.

    `true_share` is Σ true edge in the direction of the joint one ÷ Σ |joint edge|.
    """

    n: int
    mean_r: float
    true_share: float


def true_slopes(
    replays: Sequence[Replay],
    events: EventTable,
    expected: Floats,
    as_of: datetime,
    config: LearningConfig,
) -> Mapping[str, Mapping[str, float | None]]:
    """Slope of the expected R (length T) on the prediction after each step, by module.

    None where the gain would not have been measured either.
    """
    true = events.with_rr(expected)
    slopes = {}
    for k, step in enumerate(STEPS, start=1):
        made = [_after(replay, STEPS[:k]) for replay in replays]
        gains = gains_of(judge_all(made, true, as_of, config), config, as_of)
        slopes[step] = {m: gain.slope for m, gain in gains.items()}
    return slopes


def _after(replay: Replay, steps: Sequence[str]) -> Replay:
    overrides = tuple(
        replace(o, adjusted_edge_r=float(np.prod([o.parts[step] for step in steps])))
        for o in replay.content.overrides
    )
    return replace(replay, content=replace(replay.content, overrides=overrides))


def true_shares(
    replays: Sequence[Replay],
    events: EventTable,
    expected: Floats,
    planted: frozenset[Slice],
    config: LearningConfig,
) -> Mapping[str, TrueShare]:
    """Of the newest `config.gain_weeks` sets, by module and whether a planted scope is named."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for replay in replays[-config.gain_weeks :]:
        overrides = [o for o in replay.content.overrides if o.group.action_category in _OPENING]
        for o, true_r in zip(overrides, true_edges(overrides, events, expected), strict=True):
            name = "named" if (o.group, o.scope_subset) in planted else "other"
            kind = f"{o.group.module} {name}"
            rows.setdefault(kind, []).append((o.parts["joint_edge_r"], true_r))
    return {kind: _true_share(np.array(pairs)) for kind, pairs in sorted(rows.items())}


def _true_share(pairs: Floats) -> TrueShare:
    joint, true = pairs.T
    size = np.abs(joint).sum()
    return TrueShare(len(joint), float(size / len(joint)), float(np.sign(joint) @ true / size))


def true_edges(overrides: Sequence[Override], events: EventTable, expected: Floats) -> list[float]:
    """What each override adds to the expected R (length T) beside the others, in R."""
    whole = {o.group for o in overrides if not o.scope_subset}
    levels = {o.group: replace(o, scope_subset=()) for o in overrides if o.group not in whole}
    columns = [_members(o, events) for o in (*overrides, *levels.values())]
    design = np.column_stack([*columns, np.ones(events.n_trades)])
    edges: list[float] = np.linalg.lstsq(design, expected, rcond=None)[0].tolist()
    return edges[: len(overrides)]


def _members(override: Override, events: EventTable) -> Floats:
    key = override.group
    actions = sizing_actions(events, key.module, (key.action_category,))
    inside = matching_actions(override, events).astype(float)
    return mean_by_trade(inside, actions, events, 0.0)
