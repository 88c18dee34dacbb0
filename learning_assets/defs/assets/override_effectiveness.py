"""The asset `override_effectiveness`: did what was learned before each week pay in it?"""

import hashlib
from collections.abc import Collection
from datetime import datetime, timedelta

import dagster as dg

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.core.feedback import feedback
from learning_assets.core.history import WEEK
from learning_assets.core.replay import judge_all, walk_forward
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.effectiveness_metadata import of_effectiveness
from learning_assets.defs.metadata import column_schema, materialized
from learning_assets.defs.options import AsOfConfig
from learning_assets.defs.partitions import WEEKS, weeks_of
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import effectiveness as stored
from learning_assets.store import events
from learning_assets.store import feedback as stored_feedback
from learning_assets.store.checks import refuse_unsound
from learning_assets.store.connection import Conn
from learning_assets.store.tables import OVERRIDE_EFFECTIVENESS


@dg.asset(
    deps=[dg.AssetDep(pattern_trade_events, partition_mapping=dg.TimeWindowPartitionMapping())],
    partitions_def=WEEKS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="meta_learners",
    kinds={"postgres", "numba"},
    pool="override_effectiveness",
    metadata=column_schema(OVERRIDE_EFFECTIVENESS),
    description=(
        "Does it pay? The walk-forward: the overrides that would have been published at the start "
        "of each week, applied to the trades opened in it. The gain, by which all overrides are "
        "scaled, is learned from it. A week whose past has not changed is judged again, not "
        "learned again. Where closed trades say what a bot applied to them, it also tells what "
        "happened with each override applied, against the trades that were held out."
    ),
)
def override_effectiveness(
    context: dg.AssetExecutionContext, config: AsOfConfig, book: BookResource
) -> dg.MaterializeResult[None]:
    """Replay these weeks, as far as they are not stored yet, and judge them and those before."""
    weeks, settings = weeks_of(context.partition_keys), book.config
    with clear_failures(), book.connect() as conn:
        refuse_unsound(conn, ["pattern_trade_events"], settings, book.now())
        evaluated_at = book.as_of(conn, config.as_of)
        known, stale = _unchanged(conn, weeks, settings)
        missing = [week for week in weeks if week not in {x.replay.week for x in known}]
        trades = book.events(evaluated_at)
        replays = walk_forward(trades, settings, missing, [x.replay for x in known])
        kept = (set(stored.weeks(conn)) - set(stale)) | set(missing)
        digests = {week: _digest(conn, week, settings, kept) for week in missing}
        with conn.transaction():
            stored.forget(conn, stale)
            known += stored.save_replays(conn, replays, digests)
            results = judge_all([x.replay for x in known], trades, evaluated_at, settings)
            stored.replace_results(conn, results, known)
            _keep_feedback(conn, weeks[-1], trades, evaluated_at, settings)
        everything, applied = stored.results(conn), stored_feedback.newest(conn)
    said = of_effectiveness(everything, weeks, settings, evaluated_at, len(missing), applied)
    return materialized(context, said)


def _keep_feedback(
    conn: Conn, week: datetime, trades: EventTable, as_of: datetime, settings: LearningConfig
) -> None:
    """What bots applied over the look-back, into the row of the newest week."""
    since = as_of - timedelta(days=settings.look_back_days)
    actions = stored_feedback.applied_actions(conn, since, as_of)
    stored_feedback.save(conn, week, feedback(actions, trades, as_of, settings))


def replay_running_week(conn: Conn, book: BookResource, week: datetime) -> None:
    """Store the set of a week that is not over yet; the partition comes, and judges it, later.

    Raises:
        UserError: where the events do not hold what their checks promise.
    """
    settings = book.config
    refuse_unsound(conn, ["pattern_trade_events"], settings, book.now())
    known, _ = _unchanged(conn, [week], settings)
    made = walk_forward(book.events(week), settings, [week], [x.replay for x in known])
    stored.save_replays(conn, made, {week: ""})


def _unchanged(
    conn: Conn, weeks: list[datetime], settings: LearningConfig
) -> tuple[list[stored.StoredReplay], list[datetime]]:
    """The stored replays, of `weeks` or such that their gains rest on, that still hold.

    These would come out the same today. The weeks of the others, which say nothing any more, are
    returned beside them.
    """
    found = stored.stored_replays(conn, weeks[0] - settings.gain_weeks * WEEK, weeks[-1])
    kept = {*stored.weeks(conn), *weeks}
    good = []
    for one in found:
        week = one.replay.week
        if one.learned_from == _digest(conn, week, settings, kept):
            good.append(one)
        elif week not in weeks:
            kept.remove(week)
    return good, [x.replay.week for x in found if x not in good]


def _digest(
    conn: Conn, week: datetime, settings: LearningConfig, weeks: Collection[datetime]
) -> str:
    """What a replayed set depends on.

    The trades that closed before its week, the settings, and how many of the `weeks` that are
    replayed its gains rest on.
    """
    chosen = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:16]
    first = week - settings.gain_weeks * WEEK
    return f"{events.events_digest(conn, week)}:{chosen}:{sum(first <= w < week for w in weeks)}"
