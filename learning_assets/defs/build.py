"""One function that puts the definitions together; a test may replace any part of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from learning_assets.defs.assets.closed_trades import closed_trades
from learning_assets.defs.assets.learning_edge_history import learning_edge_history
from learning_assets.defs.assets.learning_latent_factors import learning_latent_factors
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.learning_regime_weights import learning_regime_weights
from learning_assets.defs.assets.lesson_half_lives import lesson_half_lives
from learning_assets.defs.assets.override_effectiveness import override_effectiveness
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.assets.pm_overrides import pm_overrides
from learning_assets.defs.checks import NO_DAY_MISSING, asset_checks
from learning_assets.defs.plans import Plan, chosen_plan
from learning_assets.defs.resources import book_from_environment
from learning_assets.defs.schedules import schedules_of, upkeep_schedules
from learning_assets.defs.sensors import closings

ASSETS = (
    closed_trades,
    pattern_trade_events,
    learning_lessons,
    learning_edge_history,
    lesson_half_lives,
    learning_latent_factors,
    learning_regime_weights,
    override_effectiveness,
    pm_overrides,
)

JOBS = (
    dg.define_asset_job(
        "events",
        dg.AssetSelection.assets(pattern_trade_events) - dg.AssetSelection.checks(NO_DAY_MISSING),
        description="Take in the closed trades of a day.",
    ),
    dg.define_asset_job(
        "missing_days",
        dg.AssetSelection.checks(NO_DAY_MISSING),
        description="Look whether a day of the source is missing; reads all of it.",
    ),
    dg.define_asset_job(
        "lessons", [learning_lessons], description="Learn the lessons of a module."
    ),
    dg.define_asset_job(
        "edge_history", [learning_edge_history], description="Compute the edges of a week."
    ),
    dg.define_asset_job(
        "half_lives",
        [learning_edge_history, lesson_half_lives],
        description="Compute the edges of a week, and measure how fast edges wear out.",
    ),
    dg.define_asset_job(
        "factors", [learning_latent_factors], description="Find the lessons that share a cause."
    ),
    dg.define_asset_job(
        "regime_weights",
        [learning_regime_weights],
        description="Learn which multiplier tells what in which market regime.",
    ),
    dg.define_asset_job(
        "effectiveness",
        [override_effectiveness],
        description="Judge what was learned before a week by the trades opened in it.",
    ),
    dg.define_asset_job("overrides", [pm_overrides], description="Publish the overrides."),
    dg.define_asset_job(
        "main",
        [learning_lessons, pm_overrides],
        description=(
            "Learn the lessons of a module and publish the overrides. Events have partitions of "
            "their own, so the job `events` comes before."
        ),
    ),
)


SENSORS = (closings,)


def build_definitions(
    *,
    assets: Sequence[Any] = ASSETS,
    jobs: Sequence[Any] = JOBS,
    checks: Sequence[Any] | None = None,
    plan: Plan | None = None,
    upkeep: Sequence[Any] | None = None,
    sensors: Sequence[Any] = SENSORS,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """The definitions of the project.

    The book is that of `LEARNING_BOOK`, the plan that of `LEARNING_PLAN` unless given. To merge
    them into definitions that have an executor, give None for `executor`.

    Raises:
        UserError: for an unknown plan.
    """
    chosen = chosen_plan(os.environ) if plan is None else plan
    return dg.Definitions(
        assets=assets,
        asset_checks=asset_checks() if checks is None else checks,
        jobs=jobs,
        schedules=[*schedules_of(chosen), *(upkeep_schedules() if upkeep is None else upkeep)],
        sensors=sensors,
        resources={"book": book_from_environment()} if resources is None else resources,
        executor=executor,
    )
