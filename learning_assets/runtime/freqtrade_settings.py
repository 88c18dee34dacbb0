"""The section `learning` of a freqtrade configuration, and what opens with it.

Bad settings are a ValueError of one sentence, with which freqtrade stops. Nothing here looks
anything up: that is in `runtime.freqtrade`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from learning_assets.runtime.book import REFRESH_SECONDS, OverrideBook

_TIMES = (("%Y%m%d", 8), ("%Y%m%dT%H%M", 13), ("%Y%m%dT%H%M%S", 15))
_SECONDS, _MILLISECONDS = 10, 13  # digits of an epoch


class Mode(Enum):
    """How sizes are decided in a run mode of freqtrade."""

    LIVE = "the live set"
    BACKTEST = "the sets of their time"
    OFF = "none"


def mode_of(runmode: object) -> Mode:
    """The mode of a run mode; charts and the analyses of indicators size nothing."""
    modes = {"live": Mode.LIVE, "dry_run": Mode.LIVE}
    modes |= {"backtest": Mode.BACKTEST, "hyperopt": Mode.BACKTEST}
    return modes.get(_name(runmode), Mode.OFF)


def is_hyperopt(runmode: object) -> bool:
    """Whether a run mode is that of hyperopt."""
    return _name(runmode) == "hyperopt"


def _name(runmode: object) -> str:
    return str(getattr(runmode, "value", runmode))


@dataclass(frozen=True, slots=True)
class LearnedSettings:
    """Where overrides come from and how they are applied.

    One of `url` (PostgreSQL) and `file` (a path, from the folder that freqtrade runs in). `shadow`
    and `hold_out` (a share, 0–1) as in `OverrideBook`. `in_sample` forces a backtest with the
    newest set, although it has seen the trades. Not `enabled`, stakes stay as they are proposed.
    """

    enabled: bool = True
    url: str | None = None
    schema: str = "learning"
    file: str | None = None
    refresh_seconds: float = REFRESH_SECONDS
    shadow: bool = False
    hold_out: float = 0.0
    in_sample: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> LearnedSettings:
        """The settings in a configuration.

        Raises:
            ValueError: where there are none, one is unknown, or one is not what it must be.
        """
        raw = config.get("learning")
        if not isinstance(raw, Mapping):
            raise ValueError(
                'the configuration has no section "learning": give {"url": …} of the database or '
                '{"file": …} of the sets'
            )
        known = [field.name for field in fields(cls)]
        for name, value in raw.items():
            if name not in known:
                raise ValueError(f"learning.{name} is no setting: there are {', '.join(known)}")
            _check(name, value)
        is_enabled = raw.get("enabled", True)
        if is_enabled and (raw.get("url") is None) == (raw.get("file") is None):
            raise ValueError("learning needs either url or file, and not both")
        return cls(**raw)

    def opened(self) -> OverrideBook:
        """The book of these settings. What it cannot read is no error.

        Raises:
            ValueError: for an address that is none, and where psycopg is not installed.
        """
        how: dict[str, Any] = {
            "refresh_seconds": self.refresh_seconds,
            "shadow": self.shadow,
            "hold_out": self.hold_out,
        }
        if self.file is not None:
            return OverrideBook.from_file(Path(self.file).expanduser(), **how)
        try:
            return OverrideBook.from_database(str(self.url), schema=self.schema, **how)
        except ImportError:
            raise ValueError(
                "learning.url needs psycopg: install `psycopg[binary]` where freqtrade is, or "
                "give learning.file"
            ) from None
        except ValueError:  # all else was looked at before
            raise ValueError("learning.url is no address of a PostgreSQL database") from None


def _check(name: str, value: object) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in {"url", "schema", "file"}:
        fits, what = isinstance(value, str) and value.strip() != "", "text"
        fits = fits or (value is None and name != "schema")
    elif name == "hold_out":
        fits, what = is_number and 0 <= value <= 1, "a share from 0 to 1"  # type: ignore[operator]
    elif name == "refresh_seconds":
        fits, what = is_number and value > 0, "a number above 0"  # type: ignore[operator]
    else:
        fits, what = isinstance(value, bool), "true or false"
    if not fits:
        shown = "" if name == "url" else f", not {value!r}"
        raise ValueError(f"learning.{name} is {what}{shown}")


def timerange_of(config: Mapping[str, Any], now: datetime) -> tuple[datetime, datetime]:
    """Begin and end of a backtest; one that is open at its end, or ends later, ends now.

    Raises:
        ValueError: where it has no begin, or is no time range.
    """
    text = str(config.get("timerange") or "")
    begin, _, end = text.partition("-")
    since = _moment(begin, text)
    if since is None:
        raise ValueError(
            "a backtest with overrides needs to know from when on it trades: give "
            "--timerange YYYYMMDD-YYYYMMDD"
        )
    return since, min(_moment(end, text) or now, now)


def _moment(text: str, whole: str) -> datetime | None:
    """A moment as freqtrade writes it: a date, a date and time, or an epoch; None for none."""
    if not text:
        return None
    try:
        if re.fullmatch(r"\d+", text) and len(text) in (_SECONDS, _MILLISECONDS):
            per_second = 1000 if len(text) == _MILLISECONDS else 1
            return datetime.fromtimestamp(int(text) / per_second, UTC)
        form = next(form for form, size in _TIMES if size == len(text))
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except (StopIteration, ValueError):
        raise ValueError(f"the time range {whole!r} is none: give YYYYMMDD-YYYYMMDD") from None
