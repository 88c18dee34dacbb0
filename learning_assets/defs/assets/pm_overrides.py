"""The asset `pm_overrides`: the live set of multipliers, published whole or not at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import dagster as dg

from learning_assets import pictures
from learning_assets.core.adjust import AdjustedEdge, MetaResults, adjusted_edges, why_gone
from learning_assets.core.changes import Changed, changes
from learning_assets.core.config import LearningConfig
from learning_assets.core.gain import MODULES, ModuleGain, gains_of
from learning_assets.core.overrides import build_overrides
from learning_assets.core.publication import Problem, problems, why_hold_back
from learning_assets.core.records import Lesson, LessonStatus, OverrideSet
from learning_assets.defs.assets.learning_latent_factors import learning_latent_factors
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.learning_regime_weights import learning_regime_weights
from learning_assets.defs.assets.lesson_half_lives import lesson_half_lives
from learning_assets.defs.assets.override_effectiveness import override_effectiveness
from learning_assets.defs.effectiveness_metadata import of_gains
from learning_assets.defs.metadata import (
    column_schema,
    of_changes,
    of_overrides,
    of_thresholds,
    of_withheld,
    pictured,
)
from learning_assets.defs.options import (
    OverridesConfig,
    in_words,
    settings_of_run,
    thresholds_of_run,
)
from learning_assets.defs.regime import regime_now
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.errors import UserError
from learning_assets.store import (
    effectiveness,
    factors,
    half_lives,
    lessons,
    overrides,
    regime_weights,
    vetoes,
)
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import PM_OVERRIDES

BEFORE = (
    *("pattern_trade_events", "learning_lessons", "lesson_half_lives"),
    *("learning_regime_weights", "learning_latent_factors", "override_effectiveness"),
)
"""The assets that overrides are made from: nothing is published on one that offends its checks."""

CHECKS = {
    "in_bounds": "Every multiplier is a number within the bounds of its module.",
    "once": "No lesson has two overrides, and no two factors claim one lesson.",
    "not_expired": "The set is not out of date when it is published.",
    "complete": "Every active lesson has an override or a reason for having none.",
}
NOT_TOO_MUCH = "not_too_much_at_once"
NO_TRIAL = "settings_of_the_book"
NOT_PINNED = "not_pinned"
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Made:
    """A set, and what it was made from."""

    content: OverrideSet
    lessons: Sequence[Lesson]
    edges: tuple[AdjustedEdge, ...]
    gains: Mapping[str, ModuleGain]


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
    description=(
        "What the trading bot multiplies its sizes by, and where: this is the table that it reads. "
        "Made from the active lessons, from what is left of their edges, from the regime in force "
        "and from the gain. A set goes live whole, if its checks hold, or the last one stays."
    ),
    check_specs=[
        *(
            dg.AssetCheckSpec(name, asset="pm_overrides", description=what, blocking=True)
            for name, what in CHECKS.items()
        ),
        dg.AssetCheckSpec(
            NOT_TOO_MUCH,
            asset="pm_overrides",
            description=(
                "No more of the overrides change at once than the configuration allows. A set that "
                "offends it waits until three ticks in a row agree, or a person forces it."
            ),
        ),
        dg.AssetCheckSpec(
            NO_TRIAL,
            asset="pm_overrides",
            description=(
                "The lessons were learned with the settings of the book. Those of a run with other "
                "thresholds wait until a person forces them, or until lessons are learned again."
            ),
        ),
        dg.AssetCheckSpec(
            NOT_PINNED,
            asset="pm_overrides",
            description=(
                "No person holds a set live. While one does (`learning pin`, `learning rollback`), "
                "new sets wait, also forced ones, and the held one does not expire."
            ),
        ),
    ],
)
def pm_overrides(config: OverridesConfig, book: BookResource) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with check results Dagster wants no more
    """Publish what the active lessons of both modules give, by what was measured of them."""
    now = book.now()
    with clear_failures(), book.connect() as conn:
        settings = settings_of_run(config, book.config)
        refuse_unsound(conn, BEFORE, settings, now)
        made = _made(conn, book, settings, _as_of(conn, book, config))
        wrong = problems(made.content, _expected(made.edges, settings.min_edge_r), now)
        why = {} if config.force else _why_hold_back(conn, made.content, settings)
        with overrides.alone(conn):
            # Meanwhile a person may have held a set, or set a veto.
            made = replace(made, content=_as_of_now(conn, made.content, book.now()))
            why |= _why_pinned(conn)
            changed = _changes(conn, made, settings)
            if wrong or why:
                _keep_live(conn, made.content)
            set_id = None if wrong else _store(conn, made.content, changed, waits=bool(why))
    return dg.MaterializeResult(
        metadata={
            **pictured(pictures.overrides(made.content.overrides)),
            **of_overrides(made.content, set_id, "; ".join(why.values())),
            **of_changes(changed),
            **of_thresholds(thresholds_of_run(settings, book.config)),
            **of_gains(made.gains),
            **of_withheld(made.edges, settings.min_edge_r),
        },
        check_results=[
            *_results(wrong),
            *(_waits(check, why) for check in (NOT_TOO_MUCH, NO_TRIAL, NOT_PINNED)),
        ],
    )


def _as_of(conn: Conn, book: BookResource, config: OverridesConfig) -> datetime:
    """The moment of the set; one that a person asks for is never older than the live set's."""
    as_of, live = book.as_of(conn, config.as_of), overrides.live(conn)
    is_older = live is not None and as_of < live.content.as_of
    if live is not None and is_older and config.as_of and not config.force:
        raise UserError(
            f"the book {book.name} is live as of {live.content.as_of:%Y-%m-%d %H:%M} UTC and its "
            "bot would get an older set: give a later as_of, or none"
        )
    return as_of


def _made(conn: Conn, book: BookResource, settings: LearningConfig, as_of: datetime) -> _Made:
    learned = lessons.lessons(conn)
    active = [lesson for lesson in learned if lesson.status is LessonStatus.ACTIVE]
    since = as_of - timedelta(days=settings.look_back_days)
    known = book.events(as_of, since)
    meta, gains = MetaResults(), gains_of([], settings, as_of)
    if book.meta_learners_on:
        meta = MetaResults(
            half_lives.half_lives(conn, as_of),
            factors.factors(conn, as_of),
            regime_weights.regime_weights(conn, as_of),
            regime_now(book, conn, known, as_of),
        )
        gains = gains_of(effectiveness.results(conn, as_of), settings, as_of)
    interval = book.plan.interval("overrides") or _HOUR
    now = book.now()
    content = build_overrides(
        active,
        known,
        settings,
        as_of,
        now,
        interval,
        meta=meta,
        gains=gains,
        vetoes=vetoes.in_force(conn, now),
    )
    return _Made(content, learned, adjusted_edges(active, known, settings, as_of, meta), gains)


def _as_of_now(conn: Conn, content: OverrideSet, now: datetime) -> OverrideSet:
    """The set as it goes live now, with the vetoes that are in force now."""
    lasts = content.expires_at - content.published_at
    again = overrides.with_vetoes_of(conn, content, now)
    return replace(again, published_at=now, expires_at=now + lasts)


def _changes(conn: Conn, made: _Made, settings: LearningConfig) -> tuple[Changed, ...]:
    """What the set changes against the live one, and why."""
    live = overrides.live(conn)
    old = live.content.overrides if live else ()
    new = made.content.overrides
    added = {o.lesson_id for o in new} - {o.lesson_id for o in old}
    gone = why_gone(made.lessons, made.edges, settings.min_edge_r)
    return changes(old, new, gone, overrides.gone_before(conn, added) if added else ())


def _expected(edges: Sequence[AdjustedEdge], least_r: float) -> list[str]:
    return [edge.lesson.lesson_id for edge in edges if edge.why_withheld(least_r) is None]


def _why_hold_back(conn: Conn, new: OverrideSet, settings: LearningConfig) -> dict[str, str]:
    """The checks for which the set must wait, each with the reason."""
    live = overrides.live(conn)
    held = [earlier.content for earlier in overrides.held_back(conn)]
    much = why_hold_back(new, live.content if live else None, held, settings.most_changed_share)
    why = {NOT_TOO_MUCH: much, NO_TRIAL: _why_trial(conn)}
    return {check: reason for check, reason in why.items() if reason}


def _why_trial(conn: Conn) -> str:
    """Which lessons were learned with other thresholds than the book's; empty where none were."""
    states = {module: lessons.module_state(conn, module) for module in MODULES}
    tried = {m: lessons.trial_of(state) for m, state in states.items() if state is not None}
    said = [f"{m} with {in_words(t.thresholds)}" for m, t in tried.items() if t is not None]
    return (
        f"the lessons of {' and '.join(said)} are those of one run: held back until they are "
        "learned with the settings of the book again, or until a person forces it"
        if said
        else ""
    )


def _why_pinned(conn: Conn) -> dict[str, str]:
    live = overrides.live(conn)
    if live is None or live.pinned_at is None:
        return {}
    since = f"{live.pinned_at:%Y-%m-%d %H:%M} UTC"
    return {
        NOT_PINNED: f"set {live.set_id} is held live by a person since {since}: new sets wait "
        "until `learning unpin`"
    }


def _keep_live(conn: Conn, content: OverrideSet) -> None:
    """The live set stays: with the vetoes in force, and where it is held without expiring."""
    overrides.apply_vetoes(conn, content.published_at)
    overrides.renew(conn, content.published_at, content.expires_at)


def _store(conn: Conn, content: OverrideSet, changed: Sequence[Changed], *, waits: bool) -> int:
    """Publish the set, or keep it beside the live one."""
    return (overrides.hold_back if waits else overrides.publish)(conn, content, changed)


def _results(wrong: Sequence[Problem]) -> list[dg.AssetCheckResult]:
    said = {name: [p.detail for p in wrong if p.check == name] for name in CHECKS}
    return [
        dg.AssetCheckResult(
            check_name=name, passed=not details, description="; ".join(details[:3]) or "holds"
        )
        for name, details in said.items()
    ]


def _waits(check: str, why: Mapping[str, str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=check,
        passed=check not in why,
        severity=dg.AssetCheckSeverity.WARN,
        description=why.get(check, "holds"),
    )
