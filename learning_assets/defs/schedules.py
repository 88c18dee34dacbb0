"""Schedules made from a plan: when which job runs on which partition.

The plan itself is in `defs.plans`. A tick asks for one run per partition, once, however often the
daemon looks at it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from learning_assets.defs.plans import UPKEEP, Of, Plan, Planned
from learning_assets.defs.resources import BookResource
from learning_assets.errors import UserError
from learning_assets.store.sources import current_source

_DAY = timedelta(days=1)


def schedules_of(plan: Plan) -> list[dg.ScheduleDefinition]:
    """The schedules of a plan, which run by default."""
    return [_schedule(planned) for planned in plan.schedules]


def upkeep_schedules() -> list[dg.ScheduleDefinition]:
    """The schedules that every plan has besides its own."""
    return [_schedule(planned) for planned in UPKEEP]


def _schedule(planned: Planned) -> dg.ScheduleDefinition:
    @dg.schedule(
        planned.cron,
        name=planned.name,
        job_name=planned.job,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=planned.description,
    )
    def tick(
        context: dg.ScheduleEvaluationContext, book: BookResource
    ) -> dg.SkipReason | list[dg.RunRequest]:
        at = context.scheduled_execution_time.astimezone(UTC)
        reason = _why_not(book)
        return dg.SkipReason(reason) if reason else list(requests_at(planned, at))

    return tick


def _why_not(book: BookResource) -> str:
    """Why nothing can run now; empty where it can."""
    try:
        with book.connect() as conn:
            source = current_source(conn)
    except UserError as error:
        return str(error)
    return "" if source else f"the book {book.name} has no source yet"


def requests_at(planned: Planned, at: datetime) -> Iterator[dg.RunRequest]:
    """The runs that a tick at this moment (UTC) asks for."""
    for key in partitions_at(planned, at):
        # The daemon may die between the launch of a run and the record of its tick.
        run_key = f"{planned.name} {at.isoformat()} {key or ''}".rstrip()
        yield dg.RunRequest(run_key, partition_key=key)


def partitions_at(planned: Planned, at: datetime) -> Sequence[str | None]:
    """The partitions that a tick at this moment (UTC) asks for; None is a run without one."""
    today = at.date()
    if planned.of is Of.TODAY:
        is_first = at - planned.every < datetime(at.year, at.month, at.day, tzinfo=UTC)
        days = [today - _DAY, today] if is_first else [today]
        return [day.isoformat() for day in days]
    if planned.of is Of.YESTERDAY:
        return [(today - _DAY).isoformat()]
    if planned.of is Of.LAST_WEEK:
        return [(today - timedelta(days=today.weekday() + 7)).isoformat()]
    return [None if planned.of is Of.WHOLE else planned.of.value]
