"""The simulated market of the book demo: made, written as strands, compared with what was found.

How a market is simulated is in `sources.demo`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np

from learning_assets.core.records import Lesson, LessonStatus, Override
from learning_assets.sources.demo import (
    ALIVE_R,
    Market,
    MarketSettings,
    PlantedEffect,
    simulate,
    write_strands,
)
from learning_assets.store.connection import connect
from learning_assets.store.settings import Settings

FOUND, ALIAS, NOT_FOUND, WORN_OUT = "found", "alias", "not found", "worn out"

_WEEK = timedelta(days=7)


def market_before(now: datetime) -> Market:
    """The market of the demo, moved by whole weeks so that it ended within the last one."""
    fixed = MarketSettings()
    weeks = (now - fixed.end) // _WEEK
    return simulate(MarketSettings(start=fixed.start + weeks * _WEEK))


def write(settings: Settings, market: Market) -> None:
    """Write the market's strands among the tables of the book."""
    with connect(settings) as conn:
        write_strands(conn, market, settings.schema)


def days_of(market: Market) -> list[date]:
    """The days on which trades of the market closed."""
    return sorted({trade.closed_at.date() for trade in market.trades})


@dataclass(frozen=True, slots=True)
class Compared:
    """A planted effect, whether it was found, and the override that says so."""

    effect: PlantedEffect
    outcome: str
    override: Override | None


@dataclass(frozen=True, slots=True)
class Judged:
    """An override and the true edge of its slice in R, None where there is no telling."""

    override: Override
    true_edge_r: float | None

    @property
    def verdict(self) -> str:
        """`right`, `wrong sign` or `null` (a true edge under 0.05 R)."""
        if self.true_edge_r is None or abs(self.true_edge_r) < ALIVE_R:
            return "null"
        return "right" if self.true_edge_r * self.override.adjusted_edge_r > 0 else "wrong sign"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The truth as of a moment beside what was found."""

    market: Market
    as_of: datetime
    effects: tuple[Compared, ...]
    overrides: tuple[Judged, ...]

    def to_json(self) -> Mapping[str, Any]:
        """The comparison for programs; expected rr of the trades as a summary."""
        expected = np.array(list(self.market.truth.expected_rr.values()))
        return {
            "as_of": self.as_of,
            "base_rr": self.market.truth.base_rr,
            "expected_rr": {
                "n": len(expected),
                "mean": float(expected.mean()),
                "sd": float(expected.std()),
            },
            "effects": [_effect_document(c) for c in self.effects],
            "overrides": [
                {
                    "lesson_id": judged.override.lesson_id,
                    "true_edge_r": judged.true_edge_r,
                    "verdict": judged.verdict,
                }
                for judged in self.overrides
            ],
        }


def _effect_document(compared: Compared) -> Mapping[str, Any]:
    effect, override = compared.effect, compared.override
    return {
        **effect.group._asdict(),
        "scope_subset": dict(effect.scope_subset),
        "effect_r": effect.effect_r,
        "e0": effect.e0,
        "half_life_hours": effect.half_life_hours,
        "n_trades": effect.n_trades,
        "alive": effect.alive,
        "found": override is not None,
        "outcome": compared.outcome,
        "lesson_id": override.lesson_id if override else None,
        "multiplier": override.multiplier if override else None,
        "adjusted_edge_r": override.adjusted_edge_r if override else None,
    }


def compare(
    market: Market, as_of: datetime, lessons: Sequence[Lesson], overrides: Sequence[Override]
) -> Comparison:
    """The planted effects beside the overrides: found by the planted scope or an alias of it."""
    active = {
        lesson.lesson_id: lesson for lesson in lessons if lesson.status is LessonStatus.ACTIVE
    }
    effects = sorted(
        market.truth_as_of(as_of).effects, key=lambda e: (not e.alive, -abs(e.effect_r))
    )
    judged = (
        Judged(o, market.true_edge_r(o.group, o.scope_subset, as_of))
        for o in sorted(overrides, key=lambda o: -abs(o.multiplier - 1))
    )
    compared = tuple(_compared(effect, active, overrides) for effect in effects)
    return Comparison(market, as_of, compared, tuple(judged))


def _compared(
    effect: PlantedEffect, active: Mapping[str, Lesson], overrides: Sequence[Override]
) -> Compared:
    for override in overrides:
        same_sign = override.adjusted_edge_r * effect.effect_r > 0
        if override.group != effect.group or not same_sign:
            continue
        if override.scope_subset == effect.scope_subset:
            return Compared(effect, FOUND, override)
        lesson = active.get(override.lesson_id)
        if lesson is not None and effect.scope_subset in lesson.aliases:
            return Compared(effect, ALIAS, override)
    return Compared(effect, NOT_FOUND if effect.alive else WORN_OUT, None)
