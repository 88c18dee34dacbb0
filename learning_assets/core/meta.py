"""What the meta-learners know of lessons at a moment, computed from events alone.

The assets measure the same once a week and store it; the walk-forward and the benches, which look
into the past, call this.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from learning_assets.core.adjust import (
    MeasuredFactors,
    MeasuredHalfLives,
    MeasuredWeights,
    MetaResults,
)
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.factors import latent_factors
from learning_assets.core.halflife import half_lives
from learning_assets.core.history import WEEK, edge_history, last_full_week, monday
from learning_assets.core.records import Lesson, LessonStatus
from learning_assets.core.regime_weights import learn_regime_weights
from learning_assets.core.regimes import regime_in_force

SIGNIFICANT = (LessonStatus.ACTIVE, LessonStatus.REDUNDANT)
"""Lessons of these statuses make the latent factors."""


def meta_results(
    lessons: Sequence[Lesson], events: EventTable, config: LearningConfig, as_of: datetime
) -> MetaResults:
    """What a book knows of its lessons at `as_of`, from `events`, however long ago they closed.

    Half-lives and factors as of the last Monday at or before `as_of`, regime weights as of the
    last midnight, the regime as of `as_of` itself. Without events nothing is measured.
    """
    if events.n_trades == 0:
        return MetaResults()
    active = [x for x in lessons if x.status is LessonStatus.ACTIVE]
    first = monday(events.closed_at[0].astype(datetime).replace(tzinfo=UTC))
    last = last_full_week(as_of)
    points = edge_history(events, active, config, first, last)
    known = events.window(last + WEEK, config.look_back_days)
    significant = [x for x in lessons if x.status in SIGNIFICANT]
    factors = latent_factors(known, significant)
    midnight = as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    seen = events.window(midnight, config.look_back_days)
    return MetaResults(
        MeasuredHalfLives(last + WEEK, half_lives(points)),
        MeasuredFactors(last + WEEK, factors),
        MeasuredWeights(midnight, learn_regime_weights(active, seen, config, midnight, factors)),
        regime_in_force(None, events, config.regime_dims, as_of),
    )
