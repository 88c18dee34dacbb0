"""The sensor that takes in closings: what it asks for, when it waits, and what it never forgets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from hypothesis import given
from hypothesis import strategies as st

from learning_assets.defs import sensors
from learning_assets.defs.resources import BookResource
from learning_assets.defs.sensors import MOST_RUNS, closings, cursor_of, ranges
from learning_assets.errors import UserError
from learning_assets.sources.base import Changes

TODAY = date(2026, 6, 10)


class Clock(BookResource):
    """A book with a clock of its own."""

    hours_later: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=self.hours_later)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


class Source:
    """What a source would say, look by look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: Changes | UserError) -> None:
        self.looks, self.since = list(looks), []  # type: ignore[var-annotated]
        monkeypatch.setattr(sensors, "_changes", self.changes)

    def changes(self, book: BookResource, since: str | None) -> Changes:
        self.since.append(since)
        look = self.looks.pop(0)
        if isinstance(look, UserError):
            raise look
        return look


def look(
    instance: dg.DagsterInstance, cursor: str | None, book: BookResource | None = None
) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=instance, cursor=cursor)
    return closings(context, book=book or Clock())


def runs_of(
    instance: dg.DagsterInstance, asked: dg.SensorResult, status: dg.DagsterRunStatus
) -> None:
    for request in asked.run_requests or ():
        create_run_for_test(instance, job_name="events", tags=request.tags, status=status)


def days_of(asked: dg.SensorResult | dg.SkipReason) -> list[tuple[str, str]]:
    assert isinstance(asked, dg.SensorResult)
    start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    return [(r.tags[start], r.tags[end]) for r in asked.run_requests or ()]


def test_it_asks_for_the_days_and_remembers_them_when_they_are_in(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = [Changes("a", [date(2026, 6, 1), date(2026, 6, 3)]), Changes("b", [])]
    source = Source(monkeypatch, *changes)
    asked = look(instance, None)
    assert days_of(asked) == [("2026-06-01", "2026-06-01"), ("2026-06-03", "2026-06-03")]
    assert isinstance(asked, dg.SensorResult)
    assert cursor_of(asked.cursor).seen is None
    runs_of(instance, asked, dg.DagsterRunStatus.SUCCESS)
    then = look(instance, asked.cursor)
    assert isinstance(then, dg.SensorResult)
    assert not then.run_requests
    assert cursor_of(then.cursor).seen == "b"
    assert source.since == [None, "a"]


def test_it_waits_while_a_run_is_under_way(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(monkeypatch, Changes("a", [date(2026, 6, 1)]))
    asked = look(instance, None)
    assert isinstance(asked, dg.SensorResult)
    runs_of(instance, asked, dg.DagsterRunStatus.STARTED)
    assert isinstance(look(instance, asked.cursor), dg.SkipReason)
    assert source.since == [None]


def test_what_failed_is_asked_for_again_later_and_later(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    Source(monkeypatch, Changes("a", [date(2026, 6, 1)]), Changes("b", []))
    asked = look(instance, None)
    keys = set()
    for _ in range(8):
        assert isinstance(asked, dg.SensorResult)
        keys.add(asked.run_requests[0].run_key)  # type: ignore[index]
        runs_of(instance, asked, dg.DagsterRunStatus.FAILURE)
        asked = look(instance, asked.cursor, Clock(hours_later=1.0))
        assert days_of(asked) == [("2026-06-01", "2026-06-01")]
    assert len(keys) == 8
    assert isinstance(asked, dg.SensorResult)
    assert cursor_of(asked.cursor).seen is None
    assert cursor_of(asked.cursor).asked.wait_seconds == 600  # type: ignore[union-attr]


def test_a_run_that_never_came_is_asked_for_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    Source(monkeypatch, Changes("a", [date(2026, 6, 1)]))
    asked = look(instance, None)
    assert isinstance(asked, dg.SensorResult)
    assert days_of(look(instance, asked.cursor)) == [("2026-06-01", "2026-06-01")]


def test_a_source_that_is_away_is_a_skipped_look_and_nothing_is_lost(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    Source(monkeypatch, UserError("the database is away"), Changes("a", [date(2026, 6, 1)]))
    skipped = look(instance, '{"seen": "z", "asked": null}')
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "the database is away"
    assert days_of(look(instance, '{"seen": "z", "asked": null}'))


def test_days_without_a_partition_go_to_the_first_and_the_newest(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime.now(UTC).date()
    Source(monkeypatch, Changes("a", [date(1999, 1, 1), today + timedelta(days=40)]))
    assert days_of(look(instance, None)) == [
        ("2010-01-01", "2010-01-01"),
        (today.isoformat(), today.isoformat()),
    ]


@given(st.sets(st.dates(date(2026, 1, 1), date(2026, 3, 1))))
def test_ranges_hold_every_day_and_are_few(days: set[date]) -> None:
    ordered = [day.isoformat() for day in sorted(days)]
    found = ranges(ordered)
    assert len(found) <= MOST_RUNS
    assert all(any(first <= day <= last for first, last in found) for day in ordered)
    assert {end for pair in found for end in pair} <= set(ordered)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


def test_a_backlog_of_many_days_is_one_run() -> None:
    days = [(TODAY - timedelta(days=2 * i)).isoformat() for i in range(100)]
    assert ranges(sorted(days)) == [(min(days), max(days))]
