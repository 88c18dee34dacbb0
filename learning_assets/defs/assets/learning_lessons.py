"""The asset `learning_lessons`: what was learned about each slice, by module."""

from dataclasses import asdict
from datetime import datetime, timedelta

import dagster as dg

from learning_assets import pictures
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import from_frame
from learning_assets.core.learn import ModuleLearning, learn_module
from learning_assets.core.records import Lesson
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.metadata import column_schema, of_lessons, of_unchanged, pictured
from learning_assets.defs.partitions import MODULES
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import events, lessons
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import LEARNING_LESSONS

UNCHANGED_DAYS = 7
"""After so many days lessons are learned again without news: the look-back has moved on."""


class AsOfConfig(dg.Config):
    """Options of one run."""

    as_of: str | None = None
    """ISO time as of which to learn; by default what suits the source."""


class LessonsConfig(AsOfConfig):
    """Options of one run."""

    anew: bool = False
    """Learn even where nothing came in since the last time."""


@dg.asset(
    deps=[dg.AssetDep(pattern_trade_events, partition_mapping=dg.LastPartitionMapping())],
    partitions_def=MODULES,
    group_name="learning",
    kinds={"postgres", "numba"},
    pool="learning_lessons",
    metadata=column_schema(LEARNING_LESSONS),
    description="What was learned about each slice: which scopes earn more or less than usual.",
)
def learning_lessons(
    context: dg.AssetExecutionContext, config: LessonsConfig, book: BookResource
) -> dg.MaterializeResult[None]:
    """Learn the lessons of one module from the trades closed before as_of."""
    module, settings = context.partition_key, book.config
    with clear_failures(), book.connect() as conn:
        as_of = book.as_of(conn, config.as_of)
        refuse_unsound(conn, ["pattern_trade_events"], settings, book.now())
        if not config.anew and _is_unchanged(conn, module, settings, as_of):
            return dg.MaterializeResult(metadata=of_unchanged(as_of))
        learned = learn_module(
            from_frame(events.events_frame(conn, as_of, _since(as_of, settings))),
            module,
            settings,
            as_of,
            calibrations=lessons.calibrations(conn),
            previous=_previous(conn, module, as_of),
        )
        _store(conn, learned, settings, as_of)
    when = dg.MetadataValue.timestamp(as_of)
    drawn = pictured(pictures.lessons(learned.lessons, {module: learned.detection_limit}))
    return dg.MaterializeResult(metadata={"as of": when, **of_lessons(learned), **drawn})


def _is_unchanged(conn: Conn, module: str, settings: LearningConfig, as_of: datetime) -> bool:
    """Whether nothing came in since the lessons were learned, and that was not long ago."""
    state = lessons.module_state(conn, module)
    return (
        state is not None
        and timedelta(0) <= as_of - state.as_of < timedelta(days=UNCHANGED_DAYS)
        and state.summary.get("settings") == settings.model_dump_json()
        and state.events_digest == events.events_digest(conn, as_of)
    )


def _previous(conn: Conn, module: str, as_of: datetime) -> list[Lesson]:
    """The lessons of the last time; those of a later moment are the future and not seen."""
    state = lessons.module_state(conn, module)
    return [] if state is None or state.as_of > as_of else lessons.lessons(conn, module)


def _since(as_of: datetime, settings: LearningConfig) -> datetime:
    return as_of - timedelta(days=settings.look_back_days)


def _store(conn: Conn, learned: ModuleLearning, settings: LearningConfig, as_of: datetime) -> None:
    """Lessons, what they were learned from, and the cut-offs: all or nothing."""
    limit = learned.detection_limit
    state = lessons.ModuleState(
        events.events_digest(conn, as_of),
        as_of,
        learned.slices_tested,
        learned.redundant_total,
        {
            "n_trades": learned.n_trades,
            "detection_limit": None if limit is None else asdict(limit),
            "settings": settings.model_dump_json(),
        },
    )
    with conn.transaction():
        lessons.replace_lessons(conn, learned.module, as_of, learned.lessons, state)
        lessons.save_calibrations(conn, learned.calibrations)
