"""Where a bot's sets of overrides come from: the database, or a file.

psycopg is imported with the first database, so that a bot that reads a file does without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from learning_assets.runtime.sets import LiveSet, live_at

_CONNECT_SECONDS = 3
_STATEMENT_MILLISECONDS = 5000
_SILENT: Mapping[str, Any] = {
    "connect_timeout": _CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
"""How long a server may say nothing before the connection is given up."""

_TIMES = ("as_of", "live_from", "live_to", "published_at", "expires_at")
_COLUMNS = ("set_id", *_TIMES, "replay", "overrides")


class UnavailableError(Exception):
    """The source cannot be read now; the message says why, never with a password."""


class Source(Protocol):
    """What a book reads its sets from."""

    def newest(self, known: LiveSet | None) -> LiveSet | None:
        """The set that is live; the same object where it is the one that is known.

        Raises:
            UnavailableError: where it cannot be read, or is damaged.
        """

    def at(self, moment: datetime) -> LiveSet | None:
        """The set that was live at a moment, None where none was.

        Raises:
            UnavailableError: likewise.
        """

    def replays(self, since: datetime, until: datetime) -> list[LiveSet]:
        """The replayed sets of the weeks that touch since … until, in order of time.

        Raises:
            UnavailableError: likewise.
        """


class Database:
    """The tables of a book in PostgreSQL; a connection for each reading."""

    def __init__(self, url: str, schema: str) -> None:
        import psycopg  # see the head of the module
        from psycopg import conninfo, sql

        try:
            conninfo.conninfo_to_dict(url)  # one that is none is a mistake of whoever writes it
        except psycopg.ProgrammingError:
            # Not the message: it may hold the address.
            raise ValueError("the url is no address of a PostgreSQL database") from None
        self._psycopg, self._url = psycopg, url
        names = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
        table = sql.Identifier(schema, "pm_override_sets")
        where = sql.SQL(" FROM {} WHERE ").format(table)
        live = where + sql.SQL("live_from IS NOT NULL ")
        self._which = sql.SQL("SELECT set_id, expires_at") + live + sql.SQL("AND live_to IS NULL")
        self._newest = sql.SQL("SELECT ") + names + live + sql.SQL("AND live_to IS NULL")
        self._at = sql.SQL("SELECT ") + names + live
        self._at += sql.SQL(
            "AND live_from <= %s AND coalesce(live_to, 'infinity') > %s "
            "ORDER BY set_id DESC LIMIT 1"
        )
        self._replays = sql.SQL("SELECT ") + names + where
        self._replays += sql.SQL("replay AND as_of < %s AND expires_at > %s ORDER BY as_of, set_id")

    def newest(self, known: LiveSet | None) -> LiveSet | None:
        """As `Source` has it; a set that is known costs one small query."""
        if known is not None and self._rows(self._which) == [(known.set_id, known.expires_at)]:
            return known
        return _first(self._rows(self._newest))

    def at(self, moment: datetime) -> LiveSet | None:
        """As `Source` has it."""
        return _first(self._rows(self._at, (moment, moment)))

    def replays(self, since: datetime, until: datetime) -> list[LiveSet]:
        """As `Source` has it."""
        return [_set(row) for row in self._rows(self._replays, (until, since))]

    def _rows(self, query: Any, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._psycopg.connect(
                self._url,
                autocommit=True,
                prepare_threshold=None,
                **_SILENT,
                options=f"-c statement_timeout={_STATEMENT_MILLISECONDS} -c timezone=UTC",
            ) as conn:
                return conn.execute(query, values or None).fetchall()
        except (self._psycopg.Error, OSError) as error:
            # Not the message: the server or the driver may put the address into it.
            why = getattr(getattr(error, "diag", None), "message_primary", None)
            raise UnavailableError(
                f"the database cannot be read ({why or type(error).__name__})"
            ) from None


def _first(rows: list[tuple[Any, ...]]) -> LiveSet | None:
    return _set(rows[0]) if rows else None


def _set(row: tuple[Any, ...]) -> LiveSet:
    document = dict(zip(_COLUMNS, row, strict=True))
    try:
        return LiveSet.of(document)
    except ValueError as error:
        raise UnavailableError(f"set {document['set_id']} is damaged ({error})") from None


class File:
    """A file that `learning overrides --export` or `learning replay --export` wrote.

    It may be replaced at any time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int, int], _Sets] | None = None

    def newest(self, known: LiveSet | None) -> LiveSet | None:
        """As `Source` has it."""
        return next((one for one in self._sets().live if one.live_to is None), None)

    def at(self, moment: datetime) -> LiveSet | None:
        """As `Source` has it."""
        return live_at(self._sets().live, moment)

    def replays(self, since: datetime, until: datetime) -> list[LiveSet]:
        """As `Source` has it."""
        found = self._sets().replays
        return [one for one in found if one.live_from < until and one.expires_at > since]

    def _sets(self) -> _Sets:
        try:
            stat = self._path.stat()
            state = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if self._read is None or self._read[0] != state:
                document = json.loads(self._path.read_text(encoding="utf-8"))
                self._read = state, _Sets.of(_documents(document))
        except OSError as error:
            raise UnavailableError(f"{self._path} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise UnavailableError(f"{self._path} is damaged ({error})") from None
        return self._read[1]


class _Sets(NamedTuple):
    """What a file holds: sets that were live, and replays by time."""

    live: list[LiveSet]
    replays: list[LiveSet]

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]]) -> _Sets:
        live = [LiveSet.of(one) for one in documents if one.get("replay") is not True]
        replays = [LiveSet.of(one) for one in documents if one.get("replay") is True]
        return cls(live, sorted(replays, key=lambda one: (one.live_from, one.set_id)))


def _documents(document: object) -> list[Mapping[str, Any]]:
    sets = document.get("sets") if isinstance(document, dict) else None
    if not isinstance(sets, list) or not all(isinstance(one, dict) for one in sets):
        raise ValueError(
            "it is not what `learning overrides --export` or `learning replay --export` writes"
        )
    return sets
