"""The asset `lesson_half_lives`: how fast each edge wears out."""

import dagster as dg

from learning_assets import pictures
from learning_assets.core.halflife import half_lives
from learning_assets.core.history import WEEK, EdgePoint
from learning_assets.core.records import LessonStatus
from learning_assets.defs.assets.learning_edge_history import learning_edge_history
from learning_assets.defs.learners_metadata import of_half_lives
from learning_assets.defs.metadata import column_schema, materialized, pictured
from learning_assets.defs.partitions import WEEKS, weeks_of
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import edge_history, lessons
from learning_assets.store import half_lives as stored
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.tables import LEARNING_HALF_LIVES


@dg.asset(
    # All earlier weeks are read too; those that are missing are made with the newest one.
    deps=[dg.AssetDep(learning_edge_history, partition_mapping=dg.TimeWindowPartitionMapping())],
    partitions_def=WEEKS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="meta_learners",
    kinds={"postgres"},
    pool="learning_half_lives",
    metadata=column_schema(LEARNING_HALF_LIVES),
    description=(
        "How fast each edge wears out, fitted to the weekly edges of a lesson up to the end of the "
        "week. The overrides use what is left of an edge that is wearing out."
    ),
)
def lesson_half_lives(
    context: dg.AssetExecutionContext, book: BookResource
) -> dg.MaterializeResult[None]:
    """Fit the half-lives as of the end of each of these weeks."""
    points: list[EdgePoint] = []
    found, as_ofs = {}, [week + WEEK for week in weeks_of(context.partition_keys)]
    with clear_failures(), book.connect() as conn, conn.transaction():
        refuse_unsound(conn, ["learning_edge_history"], book.config, book.now())
        for as_of in as_ofs:
            points = edge_history.edge_history(conn, as_of)
            found = half_lives(points)
            stored.replace_half_lives(conn, as_of, found)
        active = lessons.lessons(conn, status=LessonStatus.ACTIVE)
    drawn = pictured(pictures.edge_history(points, found, active))
    return materialized(context, {**drawn, **of_half_lives(found, as_ofs[-1])})
