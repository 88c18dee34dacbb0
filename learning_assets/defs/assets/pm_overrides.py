"""The asset `pm_overrides`: the live set of multipliers, published whole or not at all."""

from datetime import timedelta

import dagster as dg

from learning_assets import pictures
from learning_assets.core.adjust import MetaResults, adjusted_edges
from learning_assets.core.events import from_frame
from learning_assets.core.gain import gains_of
from learning_assets.core.overrides import build_overrides
from learning_assets.core.records import LessonStatus
from learning_assets.defs.assets.learning_latent_factors import learning_latent_factors
from learning_assets.defs.assets.learning_lessons import AsOfConfig, learning_lessons
from learning_assets.defs.assets.learning_regime_weights import learning_regime_weights
from learning_assets.defs.assets.lesson_half_lives import lesson_half_lives
from learning_assets.defs.assets.override_effectiveness import override_effectiveness
from learning_assets.defs.effectiveness_metadata import of_gains
from learning_assets.defs.metadata import column_schema, of_overrides, of_withheld, pictured
from learning_assets.defs.regime import regime_now
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import (
    effectiveness,
    events,
    factors,
    half_lives,
    lessons,
    overrides,
    regime_weights,
)
from learning_assets.store.tables import PM_OVERRIDES

INTERVAL = timedelta(hours=1)
"""Between two publications; three of them decide when a set expires."""


@dg.asset(
    deps=[
        dg.AssetDep(learning_lessons, partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep(lesson_half_lives, partition_mapping=dg.LastPartitionMapping()),
        dg.AssetDep(learning_latent_factors, partition_mapping=dg.LastPartitionMapping()),
        dg.AssetDep(learning_regime_weights, partition_mapping=dg.LastPartitionMapping()),
        dg.AssetDep(override_effectiveness, partition_mapping=dg.LastPartitionMapping()),
    ],
    group_name="overrides",
    kinds={"postgres"},
    pool="learning_overrides",
    metadata=column_schema(PM_OVERRIDES),
    description="What the trading system should multiply its sizes by, and in which scopes.",
)
def pm_overrides(config: AsOfConfig, book: BookResource) -> dg.MaterializeResult[None]:
    """Publish what the active lessons of both modules give, by what was measured of them."""
    settings = book.config
    with clear_failures(), book.connect() as conn:
        as_of = book.as_of(conn, config.as_of)
        since = as_of - timedelta(days=settings.look_back_days)
        active = lessons.lessons(conn, status=LessonStatus.ACTIVE)
        known = from_frame(events.events_frame(conn, as_of, since))
        meta = MetaResults(
            half_lives.half_lives(conn, as_of),
            factors.factors(conn, as_of),
            regime_weights.regime_weights(conn, as_of),
            regime_now(book, conn, known, as_of),
        )
        gains = gains_of(effectiveness.results(conn, as_of), settings, as_of)
        published = build_overrides(
            active, known, settings, as_of, book.now(), INTERVAL, meta=meta, gains=gains
        )
        set_id = overrides.publish(conn, published)
    edges = adjusted_edges(active, known, settings, as_of, meta)
    return dg.MaterializeResult(
        metadata={
            **of_overrides(published, set_id),
            **of_gains(gains),
            **of_withheld(edges, settings.min_edge_r),
            **pictured(pictures.overrides(published.overrides)),
        }
    )
