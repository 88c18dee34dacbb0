"""When an asset is late: the freshness policies and the checks `in_time`, made from a plan.

An asset is late when its grace is over and nothing came since the tick: half an hour after a tick,
or at the next tick where that comes sooner. Dagster's policy looks at the asset as a whole, so that
backfilling an old day turns it green; the check looks at the partitions that the tick asked for.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,  # no public name for it
)
from dagster._core.scheduler.instigation import ScheduleInstigatorData  # no public name for it
from dagster._utils.schedules import get_latest_completed_cron_tick  # no public name for it

from learning_assets.defs.plans import Of, Plan, Planned
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.defs.schedules import partitions_at

IN_TIME = "in_time"
"""The name of the check, which every learned asset has."""

_LONGEST_GRACE = timedelta(minutes=30)
_MINUTE = timedelta(minutes=1)
_OF_A_PERIOD = (Of.YESTERDAY, Of.LAST_WEEK)

Watched = Mapping[dg.AssetKey, Sequence[Planned]]
"""The schedules that ask for an asset; an asset that none asks for is not in it."""


@dataclass(frozen=True, slots=True)
class Due:
    """What a tick asked for: a partition (None is the whole asset) not older than a moment."""

    planned: Planned
    partition: str | None
    tick: datetime
    not_before: datetime


def watched_assets(plan: Plan, jobs: Iterable[Any], assets: Iterable[Any]) -> Watched:
    """Which schedules of the plan ask for which asset."""
    made = [asset for asset in assets if isinstance(asset, dg.AssetsDefinition)]
    asked = {
        job.name: job.selection.resolve(made)
        for job in jobs
        if isinstance(job, UnresolvedAssetJobDefinition)
    }
    found: defaultdict[dg.AssetKey, list[Planned]] = defaultdict(list)
    for planned in plan.schedules:
        for key in asked.get(planned.job, ()):
            found[key].append(planned)
    return dict(found)


def with_policies(assets: Sequence[Any], watched: Watched) -> Sequence[Any]:
    """The assets with the policies that their schedules ask for; the others as they were."""

    def add(spec: dg.AssetSpec) -> dg.AssetSpec:
        schedules = watched.get(spec.key)
        return dg.apply_freshness_policy(spec, policy_of(schedules)) if schedules else spec

    return dg.map_asset_specs(add, assets)


def policy_of(schedules: Sequence[Planned]) -> dg.FreshnessPolicy:
    """The policy of an asset: of several schedules the one that ticks most often, and first."""
    planned = min(schedules, key=lambda planned: planned.every)
    return dg.FreshnessPolicy.cron(
        deadline_cron=deadline(planned), lower_bound_delta=grace(planned)
    )


def grace(planned: Planned) -> timedelta:
    """How long after a tick nothing is late yet."""
    return min(planned.every, _LONGEST_GRACE)


def deadline(planned: Planned) -> str:
    """The cron of the moments at which the grace of a tick is over.

    Raises:
        ValueError: for a cron whose minute or hours are not written in one of the ways that the
            plans use, or whose grace ends after midnight.
    """
    if grace(planned) == planned.every:
        return planned.cron
    minute, hours, *days = planned.cron.split()
    carried, late_minute = divmod(int(minute) + grace(planned) // _MINUTE, 60)
    return " ".join([str(late_minute), _later(hours, carried), *days])


def _later(hours: str, carried: int) -> str:
    if not carried or hours == "*":
        return hours
    start, _, step = hours.partition("/")
    if step and start == "*":
        return f"{carried}-23/{step}"
    if not hours.isdigit() or int(hours) + carried > 23:
        raise ValueError(f"no deadline can be made from the hours {hours!r} of a cron")
    return str(int(hours) + carried)


def dues_at(schedules: Iterable[Planned], now: datetime) -> Iterator[Due]:
    """What must be there at this moment (UTC): what the last ticks whose grace is over asked for.

    A day or week that is over may have been materialized before its tick; the rest must be newer.
    """
    for planned in schedules:
        tick = get_latest_completed_cron_tick(planned.cron, now - grace(planned), "UTC")
        tick = tick.astimezone(UTC)
        for key in partitions_at(planned, tick):
            yield Due(planned, key, tick, _end_of_period(tick) if _is_period(planned) else tick)


def _is_period(planned: Planned) -> bool:
    return planned.of in _OF_A_PERIOD


def _end_of_period(tick: datetime) -> datetime:
    """The midnight on which yesterday ended; last week did so no later."""
    return datetime(tick.year, tick.month, tick.day, tzinfo=UTC)


def last_materialized(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str | None
) -> datetime | None:
    """When a partition, or the asset where it is None, was materialized last."""
    wanted = dg.AssetRecordsFilter(asset, [partition] if partition is not None else None)
    records = instance.fetch_materializations(wanted, limit=1).records
    return datetime.fromtimestamp(records[0].timestamp, UTC) if records else None


def schedule_starts(instance: dg.DagsterInstance) -> Mapping[str, datetime]:
    """Since when the daemon knows each schedule; a schedule that it never saw is not in it."""
    if instance.schedule_storage is None:
        return {}
    return {
        state.instigator_name: datetime.fromtimestamp(state.instigator_data.start_timestamp, UTC)
        for state in instance.all_instigator_state()
        if isinstance(state.instigator_data, ScheduleInstigatorData)
        and state.instigator_data.start_timestamp is not None
    }


def counted_dues(
    instance: dg.DagsterInstance, schedules: Iterable[Planned], now: datetime
) -> Iterator[Due]:
    """What must be there, without ticks before the daemon knew them: nobody was to run those."""
    known_since = schedule_starts(instance)
    for due in dues_at(schedules, now):
        if due.tick >= known_since.get(due.planned.name, due.tick):
            yield due


def late(
    instance: dg.DagsterInstance, asset: dg.AssetKey, schedules: Iterable[Planned], now: datetime
) -> Iterator[tuple[Due, datetime | None]]:
    """What is late at this moment (UTC), each with the time of its last materialization."""
    for due in counted_dues(instance, schedules, now):
        last = last_materialized(instance, asset, due.partition)
        if last is None or last < due.not_before:
            yield due, last


def sentence(due: Due, last: datetime | None) -> str:
    """What is late, in words."""
    what = f"{due.partition} " if due.partition else ""
    there = f"is of {last:%Y-%m-%d %H:%M} UTC" if last else "was never materialized"
    return f"{what}{there}, the tick of {due.planned.name} was {due.tick:%Y-%m-%d %H:%M} UTC"


def in_time_key(asset: dg.AssetKey) -> dg.AssetCheckKey:
    """The key of an asset's check."""
    return dg.AssetCheckKey(asset, IN_TIME)


def in_time_checks(
    assets: Iterable[dg.AssetKey], watched: Watched
) -> list[dg.AssetChecksDefinition]:
    """A check for each of these assets; where no schedule asks for one, it is never late."""
    return [_in_time(asset, watched.get(asset, ())) for asset in assets]


def _in_time(asset: dg.AssetKey, schedules: Sequence[Planned]) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=IN_TIME,
        description=(
            "The partitions that the plan asked for last are there: of a day or week the one that "
            "ended last, of the modules both."
        ),
    )
    def look(context: dg.AssetCheckExecutionContext, book: BookResource) -> dg.AssetCheckResult:
        with clear_failures():
            found = list(late(context.instance, asset, schedules, book.now()))
        said = "; ".join(sentence(*item) for item in found)
        holds = "holds" if schedules else "no schedule of the plan asks for it"
        return dg.AssetCheckResult(
            passed=not found,
            severity=dg.AssetCheckSeverity.WARN,
            description=said or holds,
            metadata={"late": len(found)},
        )

    return look
