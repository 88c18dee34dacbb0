"""One function that puts the definitions together; a test may replace any part of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from learning_assets.defs.about import with_about
from learning_assets.defs.alerts import alerts
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
from learning_assets.defs.freshness import (
    Watched,
    in_time_checks,
    in_time_key,
    watched_assets,
    with_policies,
)
from learning_assets.defs.housekeeping import housekeeping
from learning_assets.defs.owners import owners_of
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

LEARNED = [key for made in ASSETS if isinstance(made, dg.AssetsDefinition) for key in made.keys]

IN_TIME = dg.AssetSelection.checks(*map(in_time_key, LEARNED))
"""Looked at by a schedule of their own: what was just made is always in time."""


def _only(*assets: dg.AssetsDefinition) -> dg.AssetSelection:
    """The assets with the checks that go with them."""
    return dg.AssetSelection.assets(*assets) - IN_TIME


JOBS = (
    dg.define_asset_job(
        "events",
        _only(pattern_trade_events) - dg.AssetSelection.checks(NO_DAY_MISSING),
        description="Take in the trades that closed on a day, or on several.",
    ),
    dg.define_asset_job(
        "missing_days",
        dg.AssetSelection.checks(NO_DAY_MISSING),
        description="Look whether a day of the source is missing; reads all of it.",
    ),
    housekeeping,
    dg.define_asset_job(
        "lessons",
        _only(learning_lessons),
        description=(
            "Learn the lessons of a module (pm or dm); on demand with thresholds of your own, "
            "which count for that run."
        ),
    ),
    dg.define_asset_job(
        "edge_history",
        _only(learning_edge_history),
        description="Compute what each lesson earned in a week.",
    ),
    dg.define_asset_job(
        "half_lives",
        _only(learning_edge_history, lesson_half_lives),
        description="Compute what each lesson earned in a week, and how fast edges wear out.",
    ),
    dg.define_asset_job(
        "factors",
        _only(learning_latent_factors),
        description="Find the lessons that mean much the same trades, and so share a cause.",
    ),
    dg.define_asset_job(
        "regime_weights",
        _only(learning_regime_weights),
        description="Learn which multiplier tells what in which market regime.",
    ),
    dg.define_asset_job(
        "effectiveness",
        _only(override_effectiveness),
        description="Judge what was learned before a week by the trades opened in it.",
    ),
    dg.define_asset_job(
        "overrides",
        _only(pm_overrides),
        description="Publish the overrides that the trading bot reads.",
    ),
    dg.define_asset_job(
        "main",
        _only(learning_lessons, pm_overrides),
        description=(
            "Learn the lessons of a module and publish the overrides. Events have partitions of "
            "their own, so the job `events` comes before."
        ),
    ),
    dg.define_asset_job("freshness", IN_TIME, description="Look whether an asset is late."),
)


SENSORS = (closings, alerts)


def _checks(watched: Watched) -> list[dg.AssetChecksDefinition]:
    return [*asset_checks(), *in_time_checks(LEARNED, watched)]


def build_definitions(
    *,
    assets: Sequence[Any] = ASSETS,
    owners: Sequence[str] | None = None,
    jobs: Sequence[Any] = JOBS,
    checks: Sequence[Any] | None = None,
    plan: Plan | None = None,
    upkeep: Sequence[Any] | None = None,
    sensors: Sequence[Any] = SENSORS,
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = dg.in_process_executor,
) -> dg.Definitions:
    """The definitions of the project.

    The book is that of `LEARNING_BOOK`; the plan that of `LEARNING_PLAN` and the owners those of
    `LEARNING_OWNERS` unless given. To merge them into definitions that have an executor, give None
    for `executor`.

    Raises:
        UserError: for an unknown plan, or an owner that is none.
    """
    chosen = chosen_plan(os.environ) if plan is None else plan
    owned_by = owners_of(os.environ) if owners is None else owners
    watched = watched_assets(chosen, jobs, assets)
    return dg.Definitions(
        assets=with_about(with_policies(assets, watched), owned_by),
        asset_checks=_checks(watched) if checks is None else checks,
        jobs=jobs,
        schedules=[*schedules_of(chosen), *(upkeep_schedules() if upkeep is None else upkeep)],
        sensors=sensors,
        resources={"book": book_from_environment()} if resources is None else resources,
        executor=executor,
    )
