"""The sensor that takes in closed trades within a minute of their commit.

It asks the source what was committed since its last look, and asks for runs of the days concerned:
few at a time, and none while the last ones are under way, so that a backlog becomes a handful of
runs. What it has seen moves on only when those runs have succeeded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from learning_assets.defs.opening import open_source
from learning_assets.defs.resources import BookResource
from learning_assets.errors import UserError
from learning_assets.sources.base import Changes
from learning_assets.sources.parse import START

INTERVAL_SECONDS = 15
MOST_RUNS = 3
"""Ranges of days beyond this number become one: days without a change are taken in quickly."""

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 30, 600
_SUCCEEDED = "succeeded"
_ASKED_BY = "learning/asked_by"
_RANGE_START, _RANGE_END = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Asked:
    """Runs that were asked for: up to where they take the book, and which try it is."""

    seen: str
    days: tuple[str, ...]
    attempt: int

    @property
    def name(self) -> str:
        """What the runs of this try have in common, and no others."""
        return f"{self.seen} #{self.attempt}"

    @property
    def wait_seconds(self) -> float:
        """How long to wait after this try failed."""
        return min(_FIRST_WAIT_SECONDS * 2.0 ** (self.attempt - 1), _LONGEST_WAIT_SECONDS)


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers: what has been taken in, and what is under way."""

    seen: str | None = None
    asked: Asked | None = None

    def to_text(self) -> str:
        """The cursor as Dagster keeps it."""
        return json.dumps(asdict(self))


def cursor_of(text: str | None) -> Cursor:
    """The cursor that Dagster kept; a first one where there is none."""
    if not text:
        return Cursor()
    kept = json.loads(text)
    asked = kept["asked"]
    return Cursor(
        kept["seen"], None if asked is None else Asked(**{**asked, "days": tuple(asked["days"])})
    )


@dg.sensor(
    name="closings",
    job_name="events",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Takes in positions within a minute of their closing, whatever the plan: asks the source "
        "what was committed since the last look, and runs the days concerned."
    ),
)
def closings(
    context: dg.SensorEvaluationContext, book: BookResource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for the days with changes, unless earlier ones are under way."""
    cursor = cursor_of(context.cursor)
    asked = cursor.asked
    if asked is not None:
        outcome = _outcome(context.instance, asked, book.now())
        if not outcome:
            return _ask(cursor, replace(asked, attempt=asked.attempt + 1))
        if outcome != _SUCCEEDED:
            return dg.SkipReason(outcome)
        cursor = Cursor(asked.seen)
    try:
        changes = _changes(book, cursor.seen)
    except UserError as error:
        return dg.SkipReason(str(error))
    if not changes.days:
        reason = dg.SkipReason("nothing new in the source")
        return dg.SensorResult(skip_reason=reason, cursor=Cursor(changes.seen).to_text())
    return _ask(cursor, Asked(changes.seen, _partitions(changes.days, book.now().date()), 1))


def _partitions(days: Sequence[date], today: date) -> tuple[str, ...]:
    """The partitions of these days; the first and the last one take what lies beyond them."""
    return tuple(sorted({min(max(day, START.date()), today).isoformat() for day in days}))


def _changes(book: BookResource, since: str | None) -> Changes:
    with book.connect() as conn:
        return open_source(book.settings, book.source(conn)).changes(since)


def _outcome(instance: dg.DagsterInstance, asked: Asked, now: datetime) -> str:
    """`succeeded`, why to wait, or nothing where the runs must be asked for again."""
    records = instance.get_run_records(dg.RunsFilter(tags={_ASKED_BY: asked.name}))
    newest = {record.dagster_run.tags[_RANGE_START]: record for record in reversed(records)}
    runs = [record.dagster_run for record in newest.values()]
    if any(not run.is_finished or run.is_complete_and_waiting_to_retry for run in runs):
        return "the days of the last look are being taken in"
    if len(runs) == len(ranges(asked.days)) and all(run.is_success for run in runs):
        return _SUCCEEDED
    ended = max((record.end_time or 0.0 for record in newest.values()), default=0.0)
    again_at = ended + asked.wait_seconds
    if now.timestamp() >= again_at:
        return ""
    return f"taking in failed {asked.attempt} times; the next try is after {_time(again_at)} UTC"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}"


def _ask(cursor: Cursor, asked: Asked) -> dg.SensorResult:
    requests = [
        dg.RunRequest(
            run_key=f"{asked.name} {first}",
            tags={_ASKED_BY: asked.name, _RANGE_START: first, _RANGE_END: last},
        )
        for first, last in ranges(asked.days)
    ]
    return dg.SensorResult(requests, cursor=replace(cursor, asked=asked).to_text())


def ranges(days: Sequence[str]) -> list[tuple[str, str]]:
    """The first and last day of each run of neighbouring days (ISO, in order).

    More than `MOST_RUNS` are one range from the first day to the last.
    """
    found: list[tuple[str, str]] = []
    for day in days:
        if found and date.fromisoformat(day) - date.fromisoformat(found[-1][1]) <= _DAY:
            found[-1] = found[-1][0], day
        else:
            found.append((day, day))
    return found if len(found) <= MOST_RUNS else [(found[0][0], found[-1][1])]
