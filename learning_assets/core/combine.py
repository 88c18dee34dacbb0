"""How several overrides that match one action become one multiplier.

The only rule there is: the runtime client, the commands and the walk-forward
(`core.overrides.action_multipliers`) all call it. It imports nothing beyond records and scopes,
because a trading bot imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from learning_assets.core.records import GroupKey, Override
from learning_assets.core.scope import Scope, matches

BOUNDS: Mapping[str, tuple[float, float]] = {"pm": (0.3, 3.0), "dm": (0.7, 1.3)}
"""Smallest and largest multiplier of a module."""


def clip_multiplier(module: str, multiplier: float) -> float:
    """The multiplier within the bounds of its module.

    Raises:
        KeyError: for a module other than pm and dm.
    """
    low, high = BOUNDS[module]
    return min(max(multiplier, low), high)


def combine(module: str, multipliers: Iterable[float]) -> float:
    """1 + Σ (multiplier − 1), within the bounds of the module; 1.0 where nothing matches.

    Joint edges may be added, so their multipliers are added too, not multiplied.
    """
    return clip_multiplier(module, 1.0 + sum(m - 1.0 for m in multipliers))


@dataclass(frozen=True, slots=True)
class Lookup:
    """The answer to a look-up: the multiplier, and the overrides that it was combined from."""

    multiplier: float
    matched: tuple[Override, ...]


def look_up(overrides: Iterable[Override], group: GroupKey, scope: Scope) -> Lookup:
    """The multiplier for an action of `group` in `scope` (normalised)."""
    matched = tuple(o for o in overrides if o.group == group and matches(o.scope_subset, scope))
    return Lookup(combine(group.module, (o.multiplier for o in matched)), matched)
