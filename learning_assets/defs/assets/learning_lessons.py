"""The asset `learning_lessons`: what was learned about each slice, by module."""

from dataclasses import asdict
from datetime import datetime, timedelta

import dagster as dg

from learning_assets import pictures
from learning_assets.core.config import LearningConfig
from learning_assets.core.learn import ModuleLearning, learn_module
from learning_assets.core.records import Lesson
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.metadata import (
    column_schema,
    of_lessons,
    of_thresholds,
    of_unchanged,
    pictured,
)
from learning_assets.defs.options import LessonsConfig, settings_of_run, thresholds_of_run
from learning_assets.defs.partitions import MODULES
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import events, lessons
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import LEARNING_LESSONS

UNCHANGED_DAYS = 7
"""After so many days lessons are learned again without news: the look-back has moved on."""


@dg.asset(
    deps=[dg.AssetDep(pattern_trade_events, partition_mapping=dg.LastPartitionMapping())],
    partitions_def=MODULES,
    group_name="lessons",
    kinds={"postgres", "numba"},
    pool="learning_lessons",
    metadata=column_schema(LEARNING_LESSONS),
    description=(
        "Which scopes of which patterns earn more or less than usual, for each module: pm sizes "
        "positions, dm allocates. Every scope of up to three dimensions is tested against cut-offs "
        "calibrated on the same trades. The `active` lessons make the overrides; a `redundant` one "
        "is explained by those, a `candidate` is not sure enough, a `deprecated` one holds no more."
    ),
)
def learning_lessons(
    context: dg.AssetExecutionContext, config: LessonsConfig, book: BookResource
) -> dg.MaterializeResult[None]:
    """Learn the lessons of one module from the trades closed before as_of."""
    module = context.partition_key
    with clear_failures(), book.connect() as conn:
        settings = settings_of_run(config, book.config)
        thresholds = thresholds_of_run(settings, book.config)
        as_of = book.as_of(conn, config.as_of)
        unchanged = None if config.anew else _unchanged(conn, module, settings, as_of)
        if unchanged is not None:
            return dg.MaterializeResult(metadata=of_unchanged(as_of, unchanged.as_of))
        refuse_unsound(conn, ["pattern_trade_events"], settings, book.now())
        previous = _previous(conn, module, as_of)
        learned = learn_module(
            book.events(as_of, _since(as_of, settings)),
            module,
            settings,
            as_of,
            calibrations=lessons.calibrations(conn),
            previous=previous,
        )
        trial = lessons.trial(thresholds, previous) if thresholds else None
        _store(conn, learned, settings, as_of, trial)
    when = {"as of": dg.MetadataValue.timestamp(as_of), **of_thresholds(thresholds)}
    drawn = pictured(pictures.lessons(learned.lessons, {module: learned.detection_limit}))
    return dg.MaterializeResult(metadata={**drawn, **when, **of_lessons(learned)})


def _unchanged(
    conn: Conn, module: str, settings: LearningConfig, as_of: datetime
) -> lessons.ModuleState | None:
    """What the lessons were learned from, if nothing came in since and that was not long ago."""
    state = lessons.module_state(conn, module)
    is_same = (
        state is not None
        and timedelta(0) <= as_of - state.as_of < timedelta(days=UNCHANGED_DAYS)
        and state.summary.get("settings") == settings.model_dump_json()
        and state.events_digest == events.events_digest(conn, as_of)
    )
    return state if is_same else None


def _previous(conn: Conn, module: str, as_of: datetime) -> list[Lesson]:
    """The lessons of the last time; those of a later moment are the future and not seen.

    What a run found with thresholds of its own is not remembered.
    """
    state = lessons.module_state(conn, module)
    if state is None or state.as_of > as_of:
        return []
    known = lessons.lessons(conn, module)
    trial = lessons.trial_of(state)
    return known if trial is None else [x for x in known if x.lesson_id in trial.remembered]


def _since(as_of: datetime, settings: LearningConfig) -> datetime:
    return as_of - timedelta(days=settings.look_back_days)


def _store(
    conn: Conn,
    learned: ModuleLearning,
    settings: LearningConfig,
    as_of: datetime,
    trial: lessons.Trial | None,
) -> None:
    """Lessons, what they were learned from, and the cut-offs: all or nothing.

    Cut-offs for thresholds of one run stay out of the cache, which is the book's.
    """
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
            "trial": None if trial is None else asdict(trial),
        },
    )
    with conn.transaction():
        lessons.replace_lessons(conn, learned.module, as_of, learned.lessons, state)
        if trial is None:
            lessons.save_calibrations(conn, learned.calibrations)
