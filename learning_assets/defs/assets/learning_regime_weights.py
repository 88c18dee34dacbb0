"""The asset `learning_regime_weights`: which multiplier tells what in which market regime."""

from datetime import datetime, timedelta

import dagster as dg

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.records import LessonStatus
from learning_assets.core.regime_weights import (
    RegimeWeights,
    edges_by_regime,
    learn_regime_weights,
)
from learning_assets.defs.assets.learning_latent_factors import learning_latent_factors
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.learners_metadata import of_regime_weights
from learning_assets.defs.metadata import column_schema, materialized
from learning_assets.defs.partitions import DAYS, day_ends
from learning_assets.defs.regime import regime_now
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import factors, lessons
from learning_assets.store import regime_weights as stored
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import LEARNING_REGIME_WEIGHTS

BEFORE = ("pattern_trade_events", "learning_lessons", "learning_latent_factors")
"""Nothing is computed from tables that offend their checks."""


@dg.asset(
    deps=[
        # All days of the look-back are read; the newest of them is that of the partition.
        dg.AssetDep(pattern_trade_events, partition_mapping=dg.TimeWindowPartitionMapping()),
        dg.AssetDep(learning_lessons, partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep(learning_latent_factors, partition_mapping=dg.LastPartitionMapping()),
    ],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="meta_learners",
    kinds={"postgres"},
    pool="learning_regime_weights",
    metadata=column_schema(LEARNING_REGIME_WEIGHTS),
    description=(
        "What matters in which market regime: where which multiplier tells whether an edge holds "
        "up. The overrides weigh an edge by it while that regime is in force."
    ),
)
def learning_regime_weights(
    context: dg.AssetExecutionContext, book: BookResource
) -> dg.MaterializeResult[None]:
    """Learn the weights as of the end of each of these days, never later than now."""
    as_ofs = sorted({min(end, book.now()) for end in day_ends(context.partition_keys)})
    with clear_failures(), book.connect() as conn, conn.transaction():
        refuse_unsound(conn, BEFORE, book.config, book.now())
        for as_of in as_ofs:
            known = book.events(as_of, as_of - timedelta(days=book.config.look_back_days))
            found = _weights(conn, book.config, as_of, known)
            stored.replace_regime_weights(conn, as_of, found)
        regime = regime_now(book, conn, known, as_of)
    edges = edges_by_regime(known, book.config, as_of)
    return materialized(context, of_regime_weights(found, edges, regime, as_of))


def _weights(
    conn: Conn, settings: LearningConfig, as_of: datetime, known: EventTable
) -> tuple[RegimeWeights, ...]:
    active, shared = lessons.lessons(conn, status=LessonStatus.ACTIVE), factors.factors(conn, as_of)
    causes = shared.factors if shared else ()
    return learn_regime_weights(active, known, settings, as_of, causes)
