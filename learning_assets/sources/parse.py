"""Raw fields of a source → the values of a record, or a `RowError` that says why not.

Fields that mean the same in every source are read here, and what one reading of files found is
served by closing day; what a particular format calls its fields, and which rows make a trade, is
in the module of that format.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from learning_assets.core.freqtrade_entry import holds_nothing
from learning_assets.core.freqtrade_entry import key_part as key_part
from learning_assets.core.records import (
    RR_LIMIT,
    ClosedTrade,
    Reason,
    RegimeReading,
    RejectedRow,
)
from learning_assets.core.scope import is_text, normalise_scope
from learning_assets.errors import UserError
from learning_assets.sources.base import Changes, SourceSummary

START = datetime(2010, 1, 1, tzinfo=UTC)
"""Closings before it are mistakes of a clock or a unit, not trades."""

CATEGORIES: Mapping[str, frozenset[str]] = {
    "pm": frozenset({"entry", "add", "trim", "exit"}),
    "dm": frozenset({"allocation"}),
}
"""The action categories of each module."""

EMERGENCY_STOP = 0.5
"""A stop at this loss (a fraction of the stake) or beyond is no measure of the risk taken."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")
_ZONE = re.compile(r"(Z|UTC|[ T]\d\d:?\d\d.*[+-]\d\d(:?\d\d)?)$", re.IGNORECASE)
_DATE_DIGITS = 8  # 20240131 is a day, not 234 days after 1970

# An epoch's unit by its size: in seconds these limits are the years 5138 and beyond.
_EPOCH_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (0.0, 1.0))


class RowError(Exception):
    """A row of a source cannot be used: the reason and a sentence for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def is_absent(raw: object) -> bool:
    """Whether a field holds nothing: None, NaN, NaT, blank text, or the words for these."""
    if holds_nothing(raw) or raw is pd.NA or raw is pd.NaT:
        return True
    return isinstance(raw, np.floating) and math.isnan(raw)


def trade_id(raw: object) -> str:
    """The text of a trade id; RowError NO_TRADE_ID where there is none or it cannot be stored."""
    if is_absent(raw):
        raise RowError(Reason.NO_TRADE_ID, "there is no trade id")
    text = str(raw).strip()
    if not _is_storable(text):
        raise RowError(
            Reason.NO_TRADE_ID, f"the trade id {text!r} holds characters that are no text"
        )
    return text


def pattern_key(raw: object, module: object = None) -> tuple[str, str]:
    """The module and the dotted key, e.g. `("pm", "pm.uptrend.S1.buy_flag")`.

    Accepts `pm.uptrend.S1.buy_flag`, `module=pm|pattern_key=uptrend.S1.buy_flag` and, where
    `module` says which, `uptrend.S1.buy_flag`. The key's own module and `module` must agree.

    Raises:
        RowError: NO_PATTERN_KEY (absent), BAD_PATTERN_KEY (not of these forms, no module to be
            had), BAD_MODULE (a module other than pm and dm, or two that disagree).
    """
    if is_absent(raw):
        raise RowError(Reason.NO_PATTERN_KEY, "there is no pattern key")
    if not isinstance(raw, str):
        raise RowError(Reason.BAD_PATTERN_KEY, f"the pattern key {raw!r} is not text")
    return _dotted(raw, None if is_absent(module) else _module(module))


@lru_cache(4096)
def _dotted(raw: str, module: str | None) -> tuple[str, str]:
    named, key = _named_module(raw.strip())
    first, _, rest = key.partition(".")
    prefix = first.lower() if first.lower() in CATEGORIES and rest else None
    found = _agreed_module(raw, named, prefix, module)
    return found, f"{found}.{_checked_key(raw, rest if prefix else key)}"


def _named_module(text: str) -> tuple[str | None, str]:
    """The module and key of the form `module=…|pattern_key=…`; (None, text) for any other."""
    if "=" not in text and "|" not in text:
        return None, text
    fields = dict(part.split("=", 1) for part in text.split("|") if "=" in part)
    if set(fields) != {"module", "pattern_key"} or text.count("|") != 1:
        raise RowError(
            Reason.BAD_PATTERN_KEY, f"{text!r} is not of the form module=pm|pattern_key=a.b.c"
        )
    return _module(fields["module"]), fields["pattern_key"].strip()


def _module(raw: object) -> str:
    name = str(raw).strip().lower()
    if name not in CATEGORIES:
        raise RowError(Reason.BAD_MODULE, f"the module is {raw!r}, not pm or dm")
    return name


def _agreed_module(raw: str, *claims: str | None) -> str:
    named = sorted({claim for claim in claims if claim is not None})
    if not named:
        raise RowError(
            Reason.BAD_PATTERN_KEY,
            f"the pattern key {raw!r} does not start with pm. or dm., and no module is given",
        )
    if len(named) > 1:
        raise RowError(Reason.BAD_MODULE, f"{raw!r} and its row name two modules: {named}")
    return named[0]


def _checked_key(raw: str, key: str) -> str:
    parts = [part.strip() for part in key.split(".")]
    if not all(parts) or not _is_storable(key):
        raise RowError(
            Reason.BAD_PATTERN_KEY,
            f"the pattern key {raw!r} has empty parts or characters that are no text",
        )
    return ".".join(parts)


def category(raw: object, module: str) -> str:
    """The action category in lower case; RowError BAD_CATEGORY where `module` has no such one."""
    name = "" if is_absent(raw) else str(raw).strip().lower()
    if name not in CATEGORIES[module]:
        known = ", ".join(sorted(CATEGORIES[module]))
        raise RowError(
            Reason.BAD_CATEGORY, f"the action category {raw!r} of module {module} is not of {known}"
        )
    return name


def scope(raw: Mapping[str, object]) -> dict[str, str]:
    """The normalised scope; RowError BAD_SCOPE for a value that is no text, number or boolean."""
    try:
        found = normalise_scope(raw if is_text(raw) else {n: _plain(v) for n, v in raw.items()})
    except TypeError as error:
        raise RowError(Reason.BAD_SCOPE, str(error)) from None
    if not _is_storable("".join((*found, *found.values()))):
        names = [name for name, value in found.items() if not _is_storable(name + value)]
        raise RowError(
            Reason.BAD_SCOPE, f"scope dimension {names[0]!r} holds characters that are no text"
        )
    return found


def _plain(value: object) -> object:
    """Python's own scalar for NumPy's and pandas'; anything else unchanged."""
    if value is pd.NA or value is pd.NaT:
        return None
    return value.item() if isinstance(value, np.generic) else value


def utc(raw: object) -> datetime:
    """A moment as an aware UTC datetime.

    Accepts ISO text with or without zone (without: UTC), seconds, milliseconds, microseconds or
    nanoseconds since 1970 (told apart by their size), dates, datetimes and pandas Timestamps.

    Raises:
        RowError: BAD_TIMESTAMP for anything else, absent ones included.
    """
    at = _plain_moment(raw)
    if at is not None:
        return at
    if is_absent(raw):
        raise RowError(Reason.BAD_TIMESTAMP, "the timestamp is missing")
    try:
        return _moment(raw)
    except (ValueError, TypeError, OverflowError, OSError):
        raise RowError(Reason.BAD_TIMESTAMP, f"{raw!r} is no timestamp") from None


def optional_utc(raw: object) -> datetime | None:
    """As `utc`, None where the field is absent."""
    return _plain_moment(raw) or (None if is_absent(raw) else utc(raw))


def _plain_moment(raw: object) -> datetime | None:
    """The moment of text as programs write it, quickly; None where more must be looked at."""
    if type(raw) is not str or raw[4:5] != "-":
        return None
    try:
        at = datetime.fromisoformat(raw)
    except ValueError:
        return None
    return at if at.tzinfo is UTC else None


def _moment(raw: object) -> datetime:
    if isinstance(raw, np.datetime64):
        raw = pd.Timestamp(raw)
    if isinstance(raw, pd.Timestamp):
        raw = raw.to_pydatetime(warn=False)
    if isinstance(raw, datetime):
        return raw.replace(tzinfo=UTC) if raw.tzinfo is None else raw.astimezone(UTC)
    if isinstance(raw, date):
        return datetime(raw.year, raw.month, raw.day, tzinfo=UTC)
    if isinstance(raw, str):
        return _moment_of_text(raw.strip())
    return _moment_of_epoch(_float(raw))


def _moment_of_text(text: str) -> datetime:
    if _NUMBER.fullmatch(text) and len(text) != _DATE_DIGITS:
        return _moment_of_epoch(float(text))
    return _moment(datetime.fromisoformat(text.removesuffix("UTC").rstrip()))


def _moment_of_epoch(value: float) -> datetime:
    per_second = next(unit for limit, unit in _EPOCH_UNITS if abs(value) >= limit)
    return datetime.fromtimestamp(value / per_second, tz=UTC)


def _float(raw: object) -> float:
    """`raw` as a float; ValueError or TypeError where it is no number (a boolean is none)."""
    if isinstance(raw, (bool, np.bool_, bytes, bytearray)):
        raise TypeError("booleans and bytes are no numbers")
    if isinstance(raw, str) and "_" in raw:
        raise ValueError("underscores are for programmers")
    return float(raw)  # type: ignore[arg-type]  # what float() refuses is the caller's to report


def names_no_zone(raw: object) -> bool:
    """Whether a timestamp is text or a datetime without a zone, to be read as UTC by custom."""
    if isinstance(raw, datetime):
        return raw.tzinfo is None
    if not isinstance(raw, str) or is_absent(raw):
        return False
    text = raw.strip()
    return _ZONE.search(text) is None and (
        _NUMBER.fullmatch(text) is None or len(text) == _DATE_DIGITS
    )


def check_closed_at(at: datetime, start: datetime = START, now: datetime | None = None) -> None:
    """Refuses closings before `start` (BEFORE_START) and after `now` (IN_THE_FUTURE)."""
    if at < start:
        raise RowError(
            Reason.BEFORE_START, f"closed at {at.isoformat()}, before {start.date().isoformat()}"
        )
    if now is not None and at > now:
        raise RowError(Reason.IN_THE_FUTURE, f"closed at {at.isoformat()}, after {now.isoformat()}")


def rr(raw: object) -> float:
    """The R-multiple, clipped to ±33 R; RowError BAD_RR where it is absent or not finite."""
    try:
        value = raw if type(raw) is float else math.nan if is_absent(raw) else _float(raw)
    except (ValueError, TypeError, OverflowError):
        raise RowError(Reason.BAD_RR, f"rr is {raw!r}, which is no number") from None
    if not math.isfinite(value):
        raise RowError(Reason.BAD_RR, f"rr is {raw!r}, which is not finite")
    return max(-RR_LIMIT, min(RR_LIMIT, value))


def optional_number(raw: object) -> float | None:
    """A number in its own unit; None where it is absent or not finite.

    Raises:
        RowError: BAD_PAYLOAD for what is there but no number.
    """
    if type(raw) is float:
        return raw if math.isfinite(raw) else None
    if is_absent(raw):
        return None
    try:
        value = _float(raw)
    except (ValueError, TypeError, OverflowError):
        raise RowError(Reason.BAD_PAYLOAD, f"{raw!r} is no number") from None
    return value if math.isfinite(value) else None


def rejected(
    row_id: str,
    error: RowError,
    raw: Mapping[str, Any],
    *,
    trade: str | None = None,
    closed_at: datetime | None = None,
    where: str = "",
) -> RejectedRow:
    """The rejected row for `error`; `where` (a row number, a file) goes before the detail."""
    detail = f"{where}: {error.detail}" if where else error.detail
    return RejectedRow(row_id, error.reason, detail, payload(raw), trade, closed_at)


def payload(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` as plain JSON that PostgreSQL takes: no NaN, no NUL, no lone surrogates."""
    return {_storable(str(name)): _json(value) for name, value in raw.items()}


def _json(value: object) -> Any:
    value = _plain(value)
    if isinstance(value, str):
        return _storable(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return payload(value)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_json(item) for item in value]
    return value.isoformat() if isinstance(value, date) else _storable(str(value))


def _is_storable(text: str) -> bool:
    return "\x00" not in text and _encodes(text)


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def _storable(text: str) -> str:
    clean = text.replace("\x00", "�")
    return clean if _encodes(clean) else clean.encode("utf-8", "replace").decode("utf-8")


def counted(n: int, noun: str) -> str:
    """A number with its noun, e.g. `1 trade`, `2 trades`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


class RiskMeasure(StrEnum):
    """What the profit of a trade was divided by."""

    STOP = "its stop loss"
    NAMED = "the named risk"
    MEAN_LOSS = "the mean loss of the losing trades"
    EXCURSION = "the mean adverse excursion"


def usable_stop(*stops: float | None) -> float | None:
    """The first stop that measures a risk, as a positive fraction of the stake; else None.

    A stop of 0 and one of `EMERGENCY_STOP` or more measure nothing.
    """
    sizes = (abs(stop) for stop in stops if stop is not None)
    return next((size for size in sizes if 0 < size < EMERGENCY_STOP), None)


def mean_loss(profit_ratios: Iterable[float]) -> float | None:
    """The mean loss of the losing trades, positive, a fraction; None where none lost."""
    losses = [-profit for profit in profit_ratios if profit < 0]
    return sum(losses) / len(losses) if losses else None


FEWEST_LOSERS = 10
MANY_TRADES = 100
"""So few losing trades among so many measure no risk."""


def own_risk(
    profit_ratios: Sequence[float], excursions: Sequence[float | None]
) -> tuple[float, RiskMeasure] | None:
    """What a strategy's own trades say of its risk, as a fraction of the stake.

    The mean loss of its losers. A strategy that sits out its losses still took the risk: fewer
    than `FEWEST_LOSERS` losers in at least `MANY_TRADES` trades measure nothing, but the mean
    adverse excursion of all its trades does (how far the price went against them). None where
    that is unknown too, and where none lost.
    """
    loss = mean_loss(profit_ratios)
    known = [excursion for excursion in excursions if excursion is not None]
    losers = sum(profit < 0 for profit in profit_ratios)
    if losers < FEWEST_LOSERS and (losers == 0 or len(profit_ratios) >= MANY_TRADES):
        return (sum(known) / len(known), RiskMeasure.EXCURSION) if sum(known) > 0 else None
    return None if loss is None else (loss, RiskMeasure.MEAN_LOSS)


def measured_risk(
    stop: float | None, named: float | None, own: tuple[float, RiskMeasure] | None
) -> tuple[float, RiskMeasure]:
    """The risk of a trade as a fraction of the stake, and how it was measured.

    Its usable stop, else the risk that the user named, else what its strategy's trades say.

    Raises:
        RowError: NO_RISK where there is none of the three.
    """
    if stop is not None:
        return stop, RiskMeasure.STOP
    if named is not None:
        return named, RiskMeasure.NAMED
    if own is not None:
        return own
    raise RowError(
        Reason.NO_RISK,
        f"no stop loss below {EMERGENCY_STOP:.0%} and too few losing trades to take the risk from: "
        "name the risk of a trade, e.g. --risk 0.05",
    )


def checked_risk(risk: float | None) -> float | None:
    """`risk` itself; UserError where it is no fraction of the stake in (0, 1]."""
    if risk is not None and not 0 < risk <= 1:
        raise UserError(
            f"the risk {risk:g} is no fraction of the stake: give one above 0 and up to 1, "
            "e.g. --risk 0.05 for 5 %"
        )
    return risk


def check_order(opened_at: datetime | None, closed_at: datetime) -> None:
    """Refuses a closing before the opening (BAD_TIMESTAMP)."""
    if opened_at is not None and closed_at < opened_at:
        raise RowError(
            Reason.BAD_TIMESTAMP,
            f"closed at {closed_at.isoformat()}, before it opened at {opened_at.isoformat()}",
        )


Row = ClosedTrade | RejectedRow


@dataclass(frozen=True, slots=True)
class Batch:
    """What one reading of a source's files found, by UTC closing day.

    `by_day` has the days in order; `undated` are rejected rows without a known closing time.
    """

    by_day: Mapping[date, Sequence[Row]]
    undated: Sequence[RejectedRow]
    notes: tuple[str, ...]
    regime: RegimeReading | None = None

    @property
    def trades(self) -> list[ClosedTrade]:
        """The usable trades in closing order."""
        rows = (row for day in self.by_day.values() for row in day)
        return [row for row in rows if isinstance(row, ClosedTrade)]

    @property
    def rejected(self) -> list[RejectedRow]:
        """The rejected rows, those without a closing time first."""
        rows = (row for day in self.by_day.values() for row in day)
        return [*self.undated, *(row for row in rows if isinstance(row, RejectedRow))]

    def between(self, first: date, last: date) -> Iterator[Row]:
        """The undated rows, then those that closed on the days first … last, in order."""
        yield from self.undated
        days = list(self.by_day)
        for day in days[bisect_left(days, first) : bisect_right(days, last)]:
            yield from self.by_day[day]


def batch(
    rows: Iterable[Row], notes: Sequence[str] = (), regime: RegimeReading | None = None
) -> Batch:
    """The rows in closing order (equal times: by id), so that file order does not matter."""
    days: defaultdict[date, list[Row]] = defaultdict(list)
    undated: list[RejectedRow] = []
    for row in rows:
        if row.closed_at is not None:
            days[row.closed_at.date()].append(row)
        elif isinstance(row, RejectedRow):
            undated.append(row)
    by_day = {day: sorted(days[day], key=_closing_order) for day in sorted(days)}
    return Batch(by_day, sorted(undated, key=lambda row: row.row_id), tuple(notes), regime)


def _closing_order(row: Row) -> tuple[datetime, str]:
    name = row.trade_id if isinstance(row, ClosedTrade) else row.row_id
    return row.closed_at or START, name


class BatchSource(ABC):
    """A source that is read from files as a whole, and again only when the files change."""

    kind: str

    def __init__(self, location: Path, paths: Sequence[Path]) -> None:
        self._location = location
        self._paths = tuple(paths)
        self._read: tuple[object, Batch] | None = None

    @property
    @abstractmethod
    def is_live(self) -> bool:
        """Whether trades keep coming."""

    @abstractmethod
    def _load(self) -> Batch:
        """Reads the files; UserError where they cannot be read."""

    @property
    def batch(self) -> Batch:
        """All that the files hold now; UserError where they cannot be read."""
        stamp = tuple(_stamp(path) for path in self._paths)
        if self._read is None or self._read[0] != stamp:
            self._read = (stamp, self._load())
        return self._read[1]

    def summary(self) -> SourceSummary:
        """What the files hold; UserError where they cannot be read."""
        found = self.batch
        trades = found.trades
        days = sorted({trade.closed_at.date() for trade in trades})
        rejected = len(found.rejected)
        return SourceSummary(
            self.kind, str(self._location), len(trades), rejected, days, found.notes
        )

    def read(self, first: date, last: date) -> Iterator[Row]:
        """Rows that closed on the UTC days first … last, and those of unknown closing time."""
        yield from self.batch.between(first, last)

    def regime(self) -> RegimeReading | None:
        """The newest regime states among the rows, None where there are none."""
        return self.batch.regime

    def changes(self, since: str | None) -> Changes:
        """All days where the files are others than those of `since`.

        Of a source that grows, only the days from the last one known on: what closes is new.
        """
        stamps = repr([_stamp(path) for path in self._paths])
        stamp = hashlib.sha256(stamps.encode()).hexdigest()[:16]
        before, _, last_known = (since or "").partition(" ")
        if before == stamp:
            return Changes(since or "", ())
        days = list(self.batch.by_day)
        seen = f"{stamp} {days[-1].isoformat() if days else ''}"
        if self.is_live and last_known:
            days = [day for day in days if day.isoformat() >= last_known]
        return Changes(seen, days)


def _stamp(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """Size and modification time of a file and of its write-ahead log (SQLite's newest pages)."""
    files = (path, path.with_name(path.name + "-wal"))
    return tuple((s.st_size, s.st_mtime_ns) if (s := _stat(file)) else None for file in files)


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:  # the reading itself says what is wrong with the file
        return None


def read_bytes(path: Path) -> bytes:
    """The content of a file; UserError where it cannot be read or is empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if not content:
        raise UserError(f"{path} is empty: give a file with closed trades")
    return content
