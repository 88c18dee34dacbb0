"""The asset `learning_edge_history`: what each lesson earned, week by week."""

from datetime import datetime

import dagster as dg

from learning_assets import pictures
from learning_assets.core.history import WEEK, edge_history
from learning_assets.core.records import Lesson, LessonStatus
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.learners_metadata import of_edge_history
from learning_assets.defs.metadata import column_schema, materialized, pictured
from learning_assets.defs.partitions import FIRST_WEEK, WEEKS, weeks_of
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import edge_history as stored
from learning_assets.store import half_lives, lessons
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import LEARNING_EDGE_HISTORY

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
    kinds={"postgres"},
    pool="learning_edge_history",
    metadata=column_schema(LEARNING_EDGE_HISTORY),
    description=(
        "What each lesson earned, week by week: its edge in each week from Monday 00:00 UTC. All "
        "past weeks can be backfilled in one run; a lesson that is new gets its past in any run."
    ),
)
def learning_edge_history(
    context: dg.AssetExecutionContext, book: BookResource
) -> dg.MaterializeResult[None]:
    """Compute the edges of these weeks, and of earlier ones where they are missing."""
    weeks = weeks_of(context.partition_keys)
    end = weeks[-1] + WEEK
    with clear_failures(), book.connect() as conn:
        refuse_unsound(conn, BEFORE, book.config, book.now())
        known = book.events(end)
        seen = _ever_active(conn)
        points = edge_history(known, seen, book.config, _before(weeks[0]), weeks[-1])
        written = stored.replace_edge_history(conn, points, weeks[0], weeks[-1])
        history, wear = stored.edge_history(conn, end), half_lives.half_lives(conn, end)
    drawn = pictured(pictures.edge_history(history, wear.by_lesson if wear else {}, seen))
    return materialized(context, {**drawn, **of_edge_history(points, weeks, written)})


def _ever_active(conn: Conn) -> list[Lesson]:
    statuses = (LessonStatus.ACTIVE, LessonStatus.DEPRECATED)
    return [lesson for status in statuses for lesson in lessons.lessons(conn, status=status)]


def _before(week: datetime) -> datetime:
    """From when on missing weeks are looked for."""
    return min(week, FIRST_WEEK)
