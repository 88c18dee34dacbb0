"""The past week by week, as if nothing later were known: the walk-forward.

Each week's set is learned from the events that closed before it, with the gains that the weeks
before had earned by then, and judged by the trades opened in it. No calibration is carried from
week to week: a set then depends on the events alone, not on which weeks were replayed before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from learning_assets.core.adjust import MetaResults
from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, instant
from learning_assets.core.gain import MODULES, ModuleGain, gains_of
from learning_assets.core.history import WEEK, last_full_week, monday
from learning_assets.core.judge import judge
from learning_assets.core.learn import lessons_of, search
from learning_assets.core.meta import meta_results
from learning_assets.core.overrides import build_overrides
from learning_assets.core.records import Lesson
from learning_assets.core.walkforward import Replay, WeekResult


def past_weeks(events: EventTable, as_of: datetime) -> list[datetime]:
    """The Mondays of the weeks from the first close on that had ended by `as_of`, in order."""
    if events.n_trades == 0:
        return []
    first = monday(events.closed_at[0].astype(datetime).replace(tzinfo=UTC))
    count = (last_full_week(as_of) - first) // WEEK + 1
    return [first + k * WEEK for k in range(count)]


def walk_forward(
    events: EventTable,
    config: LearningConfig,
    weeks: Sequence[datetime],
    known: Sequence[Replay] = (),
) -> list[Replay]:
    """Replay the `weeks` (Mondays 00:00 UTC), each with the gains of the weeks before it.

    `known` are replays of other weeks, which are not learned again but count for the gains.
    Returns those of `weeks`, in order.
    """
    done = {replay.week: replay for replay in known}
    for week in sorted(weeks):
        earlier = [done[w] for w in sorted(done) if week - config.gain_weeks * WEEK <= w < week]
        results = judge_all(earlier, events, week, config)
        done[week] = replay_week(events, week, config, gains_of(results, config, week))
    return [done[week] for week in sorted(weeks)]


def judge_all(
    replays: Sequence[Replay], events: EventTable, evaluated_at: datetime, config: LearningConfig
) -> list[WeekResult]:
    """Judge every replay by what had closed before `evaluated_at`."""
    return [judge(replay, events, evaluated_at, config) for replay in replays]


def replay_week(
    events: EventTable,
    week: datetime,
    config: LearningConfig,
    gains: Mapping[str, ModuleGain],
) -> Replay:
    """The set that would have been published at the start of the week.

    Nothing that closed later is seen. Too little data gives an empty set.
    """
    return published(learned_before(events, week, config), config, gains)


@dataclass(frozen=True, slots=True)
class Learned:
    """What was known at the start of a week: the trades closed by then, and what they teach."""

    week: datetime
    events: EventTable
    lessons: tuple[Lesson, ...]
    meta: MetaResults


def learned_before(events: EventTable, week: datetime, config: LearningConfig) -> Learned:
    """Learn as of the start of the week; no gain is part of it."""
    known = events.where(events.closed_at < instant(week))
    searched = search(known.window(week, config.look_back_days), MODULES, config, week, {})
    lessons = tuple(x for m in MODULES for x in lessons_of(searched, m, config, week).lessons)
    return Learned(week, known, lessons, meta_results(lessons, known, config, week))


def published(learned: Learned, config: LearningConfig, gains: Mapping[str, ModuleGain]) -> Replay:
    """The set that these gains make of what was learned."""
    week = learned.week
    made = build_overrides(
        learned.lessons,
        learned.events,
        config,
        week,
        week,
        WEEK,
        meta=learned.meta,
        gains=gains,
    )
    content = replace(made, expires_at=week + WEEK, replay=True)
    return Replay(content, {module: gain.value for module, gain in gains.items()})
