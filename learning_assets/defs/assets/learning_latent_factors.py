"""The asset `learning_latent_factors`: lessons that mean much the same trades."""

from datetime import datetime, timedelta

import dagster as dg

from learning_assets import pictures
from learning_assets.core.events import EventTable
from learning_assets.core.factors import Factor, latent_factors
from learning_assets.core.history import WEEK
from learning_assets.core.records import LessonStatus
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.learners_metadata import of_factors
from learning_assets.defs.metadata import column_schema, materialized, pictured
from learning_assets.defs.partitions import WEEKS, weeks_of
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import factors as stored
from learning_assets.store import lessons
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import LEARNING_LATENT_FACTORS

SIGNIFICANT = (LessonStatus.ACTIVE, LessonStatus.REDUNDANT)

BEFORE = ("pattern_trade_events", "learning_lessons")
"""Nothing is computed from tables that offend their checks."""


@dg.asset(
    deps=[
        dg.AssetDep(pattern_trade_events, partition_mapping=dg.TimeWindowPartitionMapping()),
        dg.AssetDep(learning_lessons, partition_mapping=dg.AllPartitionMapping()),
    ],
    partitions_def=WEEKS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="meta_learners",
    kinds={"postgres", "numba"},
    pool="learning_latent_factors",
    metadata=column_schema(LEARNING_LATENT_FACTORS),
    description=(
        "Which lessons mean much the same trades, and so perhaps one cause. In the overrides, "
        "members of different patterns share their edge, so that no trade is adjusted twice for it."
    ),
)
def learning_latent_factors(
    context: dg.AssetExecutionContext, book: BookResource
) -> dg.MaterializeResult[None]:
    """Find the factors as of the end of each of these weeks."""
    found: tuple[Factor, ...] = ()
    as_ofs = [week + WEEK for week in weeks_of(context.partition_keys)]
    with clear_failures(), book.connect() as conn, conn.transaction():
        refuse_unsound(conn, BEFORE, book.config, book.now())
        for as_of in as_ofs:
            since = as_of - timedelta(days=book.config.look_back_days)
            found = _factors(conn, book.events(as_of, since), as_of)
            stored.replace_factors(conn, as_of, found)
    drawn = pictured(pictures.factors(found))
    return materialized(context, {**drawn, **of_factors(found, as_ofs[-1])})


def _factors(conn: Conn, window: EventTable, as_of: datetime) -> tuple[Factor, ...]:
    known, previous = lessons.lessons(conn), stored.factors(conn, as_of)
    return latent_factors(
        window,
        [lesson for lesson in known if lesson.status in SIGNIFICANT],
        previous=previous.factors if previous else (),
        known=known,
    )
