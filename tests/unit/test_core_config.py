"""Every setting of the learning changes something, and what it changes is what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError
from worlds import ONE, TWO, Edge, Plan, market

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.gain import ModuleGain, gains_of
from learning_assets.core.history import WEEK
from learning_assets.core.learn import ModuleLearning, learn_module
from learning_assets.core.overrides import build_overrides
from learning_assets.core.publication import why_hold_back
from learning_assets.core.records import LessonStatus, OverrideSet
from learning_assets.core.regime_weights import RegimeEdge, edges_by_regime
from learning_assets.core.walkforward import DaySums, ModuleResult, WeekResult

PLAN = Plan(
    seed=2, n_trades=700, n_days=60,
    edges=(Edge(ONE, {"chain": "solana"}, 1.2), Edge(TWO, {"timeframe": "1h"}, 0.6)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one configuration leads to: a learning, its overrides, and edges by regime."""

    learning: ModuleLearning
    overrides: OverrideSet
    by_regime: tuple[RegimeEdge, ...]
    gain_of: ModuleGain
    why_wait: str
    as_of: datetime

    def count(self, status: LessonStatus) -> int:
        """Number of lessons of that status."""
        return sum(lesson.status is status for lesson in self.learning.lessons)

    def cutoffs(self) -> list[tuple[float, ...]]:
        """Cut-offs of all groups."""
        return [c.cutoffs for c in self.learning.calibrations]

    def ages(self) -> set[float]:
        """Age of every calibration in days."""
        return {
            (self.as_of - c.calibrated_at) / timedelta(days=1) for c in self.learning.calibrations
        }

    def multipliers(self, name: str) -> list[float]:
        """One of the four multipliers, of all lessons."""
        return [getattr(lesson.multipliers, name) for lesson in self.learning.lessons]


def judged(k: int) -> WeekResult:
    """Week k of a walk-forward in which pm's edges came true, with four closing days."""
    week = PLAN.end - k * WEEK
    days = tuple(DaySums(week.date() + timedelta(days=d), 9, 1.0 + d, 1.0, 0.0) for d in range(6))
    modules = {"pm": ModuleResult(0.5, 54, days), "dm": ModuleResult(0.5, 0, ())}
    return WeekResult(week, 54, 1, 54, *[None] * 6, modules, (), PLAN.end)


@lru_cache
def events() -> EventTable:
    return from_frame(market(PLAN))


def outcome(config: LearningConfig) -> Outcome:
    """Learn three days before the end, then at the end with the cached calibrations."""
    before = PLAN.end - timedelta(days=3)
    cached = {c.group: c for c in learn_module(events(), "pm", config, before).calibrations}
    learning = learn_module(events(), "pm", config, PLAN.end, calibrations=cached)
    made = build_overrides(
        learning.lessons, events(), config, PLAN.end, PLAN.end, timedelta(hours=1)
    )
    by_regime = edges_by_regime(events(), config, PLAN.end)
    gains = gains_of([judged(k) for k in range(1, 7)], config, PLAN.end)
    wait = why_hold_back(changed(made, 8), changed(made, 4), [], config.most_changed_share)
    return Outcome(learning, made, by_regime, gains["pm"], wait, PLAN.end)


def changed(made: OverrideSet, n: int) -> OverrideSet:
    """The set with its first override in `n` scopes."""
    copies = [
        replace(o, scope_subset=(("n", str(k)),)) for o in made.overrides[:1] for k in range(n)
    ]
    return replace(made, overrides=tuple(copies))


@dataclass(frozen=True, slots=True)
class Case:
    """Two values of a setting, and what they must do; `base` are the other settings."""

    values: tuple[Any, Any]
    holds: Callable[[Outcome, Outcome], bool]
    base: Mapping[str, Any] = field(default_factory=dict)


def _total_size(o: Outcome) -> float:
    return abs(o.overrides.expected["total_size"])


CASES: Mapping[str, Case] = {
    "look_back_days": Case((60, 20), lambda a, b: b.learning.n_trades < 0.5 * a.learning.n_trades),
    "n_min": Case((33, 60), lambda a, b: b.learning.slices_tested < a.learning.slices_tested),
    "max_scope_dims": Case(
        (1, 3),
        lambda a, b: (
            max(len(x.scope_subset) for x in a.learning.lessons)
            == 1
            < max(len(x.scope_subset) for x in b.learning.lessons)
        ),
    ),
    "family_wise_error": Case(
        (0.03, 0.3),
        lambda a, b: all(
            y < x
            for one, other in zip(a.cutoffs(), b.cutoffs(), strict=True)
            for x, y in zip(one, other, strict=True)
            if x < float("inf")
        ),
    ),
    "rotations": Case((39, 60), lambda a, b: a.cutoffs() != b.cutoffs()),
    "winsor": Case(
        (0.0, 0.1),
        lambda a, b: all(
            y.noise_variance < x.noise_variance
            for x, y in zip(a.learning.calibrations, b.learning.calibrations, strict=True)
        ),
    ),
    "seed": Case((1, 2), lambda a, b: a.cutoffs() != b.cutoffs()),
    "calibration_growth": Case((0.5, 0.001), lambda a, b: a.ages() == {3.0} and b.ages() == {0.0}),
    "calibration_days": Case(
        (4.0, 2.0),
        lambda a, b: a.ages() == {3.0} and b.ages() == {0.0},
        {"calibration_growth": 0.5},
    ),
    "min_edge_r": Case(
        (0.05, 5.0), lambda a, b: len(a.overrides.overrides) > len(b.overrides.overrides) == 0
    ),
    "max_redundant": Case(
        (500, 1),
        lambda a, b: a.count(LessonStatus.REDUNDANT) > b.count(LessonStatus.REDUNDANT) > 0,
    ),
    "max_candidates": Case(
        (200, 1),
        lambda a, b: a.count(LessonStatus.CANDIDATE) > b.count(LessonStatus.CANDIDATE) > 0,
    ),
    "segment_dims": Case(
        (("timeframe", "mcap_bucket"), ("chain", "none")),
        lambda a, b: (
            a.multipliers("segments") != b.multipliers("segments")
            and set(b.multipliers("segments")) == {0}
        ),
    ),
    "segment_n_min": Case(
        (2, 20), lambda a, b: sum(a.multipliers("segments")) > sum(b.multipliers("segments"))
    ),
    "recurrence_tau_days": Case(
        (5.0, 500.0), lambda a, b: a.multipliers("rho") != b.multipliers("rho")
    ),
    "max_size_change": Case(
        (0.9, 0.05),
        lambda a, b: _total_size(a) > 0.06 and abs(_total_size(b) - 0.05) < 1e-6,
        {"prior_gain": 1.0},
    ),
    "prior_gain": Case(
        (0.0, 1.0),
        lambda a, b: (
            {o.multiplier for o in a.overrides.overrides} == {1.0}
            and all(abs(o.multiplier - 1) > 0.01 for o in b.overrides.overrides)
        ),
    ),
    "gain_weeks": Case((2, 4), lambda a, b: (a.gain_of.n_weeks, b.gain_of.n_weeks) == (2, 4)),
    "regime_dims": Case(
        (("chain",), ("timeframe", "none")),
        lambda a, b: (
            {edge.dim for edge in a.by_regime} == {"chain"}
            and {edge.dim for edge in b.by_regime} == {"timeframe"}
        ),
    ),
    "most_changed_share": Case(
        (0.9, 0.1),
        lambda a, b: a.why_wait == "" and "10%" in b.why_wait,
    ),
    "expiry_hours": Case((6.0, 50.0), lambda a, b: b.overrides.expires_at > a.overrides.expires_at),
}


def test_every_setting_has_a_case() -> None:
    assert CASES.keys() == LearningConfig.model_fields.keys()


@pytest.mark.parametrize("name", LearningConfig.model_fields)
def test_the_setting_does_what_it_says(name: str) -> None:
    case = CASES[name]
    base = {"rotations": 39, **case.base}
    one, other = (outcome(LearningConfig(**{**base, name: value})) for value in case.values)
    assert one.overrides.overrides or name in ("prior_gain", "min_edge_r")
    assert case.holds(one, other)


def test_the_defaults_are_those_of_the_reference() -> None:
    config = LearningConfig()
    assert (config.look_back_days, config.n_min, config.max_scope_dims) == (180, 33, 3)
    assert (config.max_redundant, config.max_candidates) == (500, 200)
    assert (config.min_edge_r, config.max_size_change, config.prior_gain) == (0.05, 0.25, 0.5)
    assert (config.calibration_growth, config.calibration_days) == (0.05, 7.0)
    assert (config.segment_dims, config.segment_n_min) == (("timeframe", "mcap_bucket"), 10)
    assert (config.recurrence_tau_days, config.expiry_hours) == (30.0, 6.0)
    assert config.regime_dims == ("btc_macro", "alt_macro", "bucket_macro")
    assert config.rotations >= 39
    assert config.family_wise_error <= 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_min": 1}, {"look_back_days": 0}, {"max_scope_dims": 5}, {"max_scope_dims": 0},
        {"family_wise_error": 0.0}, {"family_wise_error": 1.0}, {"rotations": 10},
        {"winsor": 0.3}, {"winsor": -0.1}, {"seed": -1}, {"prior_gain": 1.5},
        {"min_edge_r": -0.1}, {"expiry_hours": 0}, {"recurrence_tau_days": 0.0},
        {"segment_dims": ("one",)}, {"max_size_change": 0.0}, {"no_such_setting": 1},
        {"min_edge_r": float("nan")}, {"look_back_days": "soon"},
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LearningConfig(**wrong)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        LearningConfig().n_min = 50  # type: ignore[misc]


def test_every_setting_says_what_it_is() -> None:
    assert all(info.description for info in LearningConfig.model_fields.values())


def test_the_deepest_search_is_what_the_engine_is_laid_out_for() -> None:
    frame: pd.DataFrame = market(PLAN)
    frame["scope"] = [{**s, "side": "ab"[len(s["chain"]) % 2]} for s in frame["scope"]]
    config = LearningConfig(rotations=39, max_scope_dims=4, n_min=5)
    learning = learn_module(from_frame(frame), "pm", config, PLAN.end)
    assert {len(c.cutoffs) for c in learning.calibrations} == {8, 2}
    assert any(len(a) == 4 for x in learning.lessons for a in (x.scope_subset, *x.aliases))
