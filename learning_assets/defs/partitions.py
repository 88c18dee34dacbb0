"""The partitions: days for events, modules for lessons, weeks for what is learned about them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from learning_assets.core.history import WEEK, last_full_week, monday
from learning_assets.sources.parse import START

DAY = timedelta(days=1)

DAYS = dg.DailyPartitionsDefinition(
    start_date=START.date().isoformat(), timezone="UTC", end_offset=1
)
"""One partition per UTC day of closing, today included."""

MODULES = dg.StaticPartitionsDefinition(["pm", "dm"])
"""One partition per module."""

FIRST_WEEK = monday(START) + WEEK
"""The first whole week: every day of it has a partition."""

WEEKS = dg.WeeklyPartitionsDefinition(
    start_date=FIRST_WEEK.date().isoformat(), timezone="UTC", day_offset=1
)
"""One partition per week from Monday 00:00 UTC; the running week is none, since it is not over."""


def weeks_of(keys: Iterable[str]) -> list[datetime]:
    """The Mondays 00:00 UTC of weekly partitions, in order."""
    return sorted(datetime.fromisoformat(key).replace(tzinfo=UTC) for key in keys)


def day_ends(keys: Iterable[str]) -> list[datetime]:
    """The midnights UTC that end daily partitions, in order."""
    return sorted(datetime.fromisoformat(key).replace(tzinfo=UTC) + DAY for key in keys)


def last_full_day(as_of: datetime) -> date | None:
    """The newest UTC day with a partition that had ended by `as_of`; None without any."""
    day = as_of.astimezone(UTC).date() - DAY
    return day if day >= START.date() else None


def weeks_between(first: datetime, as_of: datetime) -> tuple[datetime, datetime] | None:
    """The first and last whole week from the moment `first` to `as_of`; None without any."""
    earliest, last = max(monday(first), FIRST_WEEK), last_full_week(as_of)
    return (earliest, last) if earliest <= last else None
