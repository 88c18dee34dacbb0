"""The source that a book remembers, opened; which days it covers, and as of when it is learned.

Reading a format is in `sources`, remembering in `store.sources`. No Dagster here, since the
command line asks these things before it starts anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from learning_assets.errors import UserError
from learning_assets.sources.base import Source
from learning_assets.sources.detect import SourceOptions
from learning_assets.sources.parse import START
from learning_assets.sources.strands import StrandsSource
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource

STRANDS, DEMO = "strands", "demo"
DEMO_BOOK = "demo"
"""The book of the simulated market, which never mixes with real trades."""

_LIVE = "is_live"
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SimulatedStrands(StrandsSource):
    """The strands of the simulated market: nothing follows once it has ended."""

    @property
    def is_live(self) -> bool:
        """False: a simulated market is over."""
        return False


def strands_of(settings: Settings) -> StrandsSource:
    """The strands of a trading system, at `LEARNING_STRANDS_URL` or beside the learning tables."""
    return StrandsSource(settings.strands_source_url)


def simulated_strands(settings: Settings) -> SimulatedStrands:
    """The simulated market's strands, which lie among the book's own tables."""
    return SimulatedStrands(settings.learning_url, settings.schema)


def open_source(settings: Settings, remembered: BookSource) -> Source:
    """The source that a book remembers.

    Raises:
        UserError: when what it remembers can no longer be read.
    """
    if remembered.kind == DEMO:
        return simulated_strands(settings)
    if remembered.kind == STRANDS:
        return strands_of(settings)
    return SourceOptions.from_json(remembered.options).open()


def remembered_file(options: SourceOptions, source: Source) -> BookSource:
    """What a book should remember of a file source."""
    kind = source.summary().kind
    return BookSource(kind, options.path, {**options.to_json(), _LIVE: source.is_live})


def remembered_strands(settings: Settings) -> BookSource:
    """What a book should remember of the strands: no address, which may hold a password."""
    return BookSource(STRANDS, strands_of(settings).location)


def is_live(remembered: BookSource) -> bool:
    """Whether trades keep coming from a remembered source, without opening it."""
    return remembered.kind == STRANDS or bool(remembered.options.get(_LIVE, False))


def source_name(remembered: BookSource) -> str:
    """The name under which the trades of a source are stored."""
    return f"{remembered.kind}:{remembered.location}"


def window_of(days: Sequence[date], today: date, *, live: bool) -> tuple[date, date]:
    """The first and last UTC day to take in, within the days that have a partition.

    A live source is taken in up to today; without any day it is today alone.
    """
    known = [day for day in days if START.date() <= day <= today]
    if not known:
        return today, today
    return min(known), today if live else max(known)


def learned_as_of(days: Sequence[date], now: datetime, *, live: bool) -> datetime:
    """Now for a live source, else the UTC midnight after the last close (`days` as stored).

    Never later than the midnight that follows `now`; without any day it is now.
    """
    if live or not days:
        return now
    tomorrow = _midnight(now.astimezone(UTC).date()) + _DAY
    return min(_midnight(days[-1]) + _DAY, tomorrow)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def parse_time(text: str, option: str) -> datetime:
    """A time that a person gave as this option; without a zone it is UTC.

    Raises:
        UserError: for what is no time.
    """
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UserError(
            f"{option} {text!r} is no time: write it like 2026-07-01 or 2026-07-01T12:00+00:00"
        ) from None
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)


def parse_as_of(text: str, now: datetime, option: str = "--as-of") -> datetime:
    """A time that a person gave as this option; without a zone it is UTC.

    Raises:
        UserError: for what is no time, or lies after the midnight that follows `now`.
    """
    as_of = parse_time(text, option)
    if as_of > _midnight(now.astimezone(UTC).date()) + _DAY:
        raise UserError(
            f"{option} {as_of.isoformat()} lies in the future: give a time up to tonight's midnight"
        )
    if as_of < START:
        raise UserError(f"{option} {as_of.isoformat()} is before {START.date()}: give a later time")
    return as_of
