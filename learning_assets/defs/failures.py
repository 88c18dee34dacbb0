"""What went wrong in a book, read from Dagster's event log: failed runs, failed and missing checks.

A check is missing when its asset was materialized more than a quarter of an hour ago, and the
check has not been executed since. Telling somebody is the business of `defs.alerts`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import dagster as dg
from dagster._core.events import JobFailureData  # no public name for these
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecord,
)
from dagster_shared.error import SerializableErrorInfo

MISSING_AFTER = timedelta(minutes=15)
"""How long after a materialization its checks may still be under way."""

_LONGEST_SENTENCE = 300
_PARTITION = "dagster/partition"
_RANGE = tuple(f"dagster/asset_partition_range_{end}" for end in ("start", "end"))


class Kind(StrEnum):
    """What it is about."""

    RUN = "run"
    CHECK = "check"
    MISSING_CHECK = "missing_check"


@dataclass(frozen=True, slots=True)
class News:
    """Something that went wrong, or right again (`passed`); times in UTC.

    `event` is the number of the event in the log, None for a missing check, which has none.
    """

    kind: Kind
    at: datetime
    passed: bool = False
    event: int | None = None
    job: str | None = None
    run_id: str | None = None
    asset: str | None = None
    check: str | None = None
    partition: str | None = None
    error: str = ""

    @property
    def subject(self) -> str:
        """The check that it is about; of a run, the job and how it failed."""
        return f"{self.asset}.{self.check}" if self.check else f"{self.job}: {self.error}"


def newest_event(instance: dg.DagsterInstance) -> int:
    """The number of the newest event in the log, 0 without any."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def events_between(
    instance: dg.DagsterInstance, after: int, last: int, most: int
) -> tuple[list[News], int]:
    """Failed runs and executed checks, in order, and the number up to which these are all.

    At most `most` events of each kind are read, from after `after` up to `last`.
    """
    found: list[News] = []
    for kind, read in (
        (dg.DagsterEventType.RUN_FAILURE, _failed_run),
        (dg.DagsterEventType.ASSET_CHECK_EVALUATION, _executed_check),
    ):
        entries = instance.event_log_storage.get_logs_for_all_runs_by_log_id(after, kind, most)
        found += [read(instance, number, entry) for number, entry in entries.items()]
        if len(entries) == most:
            last = min(last, max(entries))
    return sorted((n for n in found if _number(n) <= last), key=_number), last


def _number(news: News) -> int:
    assert news.event is not None
    return news.event


def _failed_run(instance: dg.DagsterInstance, number: int, entry: dg.EventLogEntry) -> News:
    event = entry.get_dagster_event()
    data = event.event_specific_data
    step = data.first_step_failure_event if isinstance(data, JobFailureData) else None
    return News(
        Kind.RUN,
        datetime.fromtimestamp(entry.timestamp, UTC),
        event=number,
        job=entry.job_name,
        run_id=entry.run_id,
        asset=step.step_key if step else None,
        partition=_partition(instance, entry.run_id),
        error=_sentence(step, event.message or ""),
    )


def _sentence(step: dg.DagsterEvent | None, otherwise: str) -> str:
    """The first line of what a person should read of an error."""
    data: Any = step.event_specific_data if step else None
    if data is None or data.error is None:
        return _first_line(otherwise)
    if data.user_failure_data and data.user_failure_data.description:
        return _first_line(data.user_failure_data.description)
    return error_line(data.error)


def error_line(error: SerializableErrorInfo | None) -> str:
    """The first line of the error that caused all others."""
    while error is not None and error.cause:
        error = error.cause
    return _first_line(error.message if error else "")


def _first_line(text: str) -> str:
    line = next(iter(text.strip().splitlines()), "no message")
    return line if len(line) <= _LONGEST_SENTENCE else line[: _LONGEST_SENTENCE - 1] + "…"


def _partition(instance: dg.DagsterInstance, run_id: str) -> str | None:
    run = instance.get_run_by_id(run_id)
    if run is None:
        return None
    first, last = (run.tags.get(name) for name in _RANGE)
    return run.tags.get(_PARTITION) or (f"{first}…{last}" if first else None)


def _executed_check(instance: dg.DagsterInstance, number: int, entry: dg.EventLogEntry) -> News:
    found = entry.get_dagster_event().asset_check_evaluation_data
    return News(
        Kind.CHECK,
        datetime.fromtimestamp(entry.timestamp, UTC),
        passed=found.passed,
        event=number,
        job=entry.job_name,
        run_id=entry.run_id or None,
        asset=found.asset_key.to_user_string(),
        check=found.check_name,
        partition=None if found.passed else _partition(instance, entry.run_id),
        error="" if found.passed else _first_line(found.description or "it says no more"),
    )


def missing_checks(
    instance: dg.DagsterInstance,
    checks: Iterable[dg.AssetCheckKey],
    since: datetime,
    now: datetime,
) -> Iterator[News]:
    """The checks that are missing now; materializations before `since` are let be."""
    keys = list(checks)
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assets = {key.asset_key for key in keys}
    last_made = {x: _last_made(instance, x, since, now - MISSING_AFTER) for x in assets}
    for key in keys:
        made = last_made[key.asset_key]
        if made is not None and _executed_at(instance, key, newest.get(key)) < made.timestamp:
            at = datetime.fromtimestamp(made.timestamp, UTC)
            yield News(
                Kind.MISSING_CHECK,
                at,
                run_id=made.event_log_entry.run_id or None,
                asset=key.asset_key.to_user_string(),
                check=key.name,
                partition=made.partition_key,
                error=f"not executed since the materialization of {at:%Y-%m-%d %H:%M} UTC",
            )


def _last_made(
    instance: dg.DagsterInstance, asset: dg.AssetKey, since: datetime, until: datetime
) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(
        asset, after_timestamp=since.timestamp(), before_timestamp=until.timestamp()
    )
    return next(iter(instance.fetch_materializations(wanted, limit=1).records), None)


def _executed_at(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, newest: AssetCheckExecutionRecord | None
) -> float:
    """When a check gave its last result, 0 if it never did; the newest may have none yet."""
    if newest is not None and newest.status not in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES:
        executed = instance.event_log_storage.get_asset_check_execution_history(
            key, limit=1, status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
        )
        newest = next(iter(executed), None)
    return newest.event.timestamp if newest is not None and newest.event else 0.0


def of_location(
    instance: dg.DagsterInstance, news: Iterable[News], jobs: Collection[str], location: str | None
) -> list[News]:
    """The news without the runs of other code locations that share the instance."""
    return [n for n in news if n.kind is not Kind.RUN or _is_ours(instance, n, jobs, location)]


def _is_ours(
    instance: dg.DagsterInstance, news: News, jobs: Collection[str], location: str | None
) -> bool:
    run = instance.get_run_by_id(news.run_id) if news.run_id else None
    origin = run.remote_job_origin if run else None
    if origin is None or location is None:
        return news.job in jobs
    return location == origin.repository_origin.code_location_origin.location_name
