"""Where a book lives: its folders, its database addresses and its schemas, from the environment.

Nothing here connects to anything; addresses are worked out, and that is all.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from learning_assets.errors import UserError

MAIN_BOOK = "main"
_BOOK_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")
_SOCKET_NAME = "/.s.PGSQL.5432"
_SOCKET_PATH_LIMIT_BYTES = 103
"""The shortest limit among the systems that we run on (macOS; Linux allows 107)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One book: its name, the software's home folder and the addresses that the user gave.

    An address that is None means the embedded server. Addresses may hold passwords: they are
    left out of the representation.
    """

    book: str
    home: Path
    database_url: str | None = field(default=None, repr=False)
    dagster_url: str | None = field(default=None, repr=False)
    strands_url: str | None = field(default=None, repr=False)

    @property
    def schema(self) -> str:
        """The schema that holds the learning tables of the book."""
        return _schema("learning", self.book)

    @property
    def dagster_schema(self) -> str:
        """The schema that holds the Dagster history of the book."""
        return _schema("dagster", self.book)

    @property
    def needs_embedded_server(self) -> bool:
        """Whether anything of the book is on the embedded server."""
        return self.database_url is None or self.dagster_url is None

    @property
    def data_folder(self) -> Path:
        """The data folder of the embedded server."""
        return self.home / "pg"

    @property
    def socket_folder(self) -> Path:
        """Where the embedded server listens: its data folder, which nobody else may enter.

        A path that is too long for a socket's address gets a short private folder instead.
        """
        data = str(self.data_folder)
        if len(os.fsencode(data + _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT_BYTES:
            return self.data_folder
        digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
        return Path("/tmp") / f"learning-{os.getuid()}-{digest}"

    @property
    def columns_folder(self) -> Path:
        """Where the book keeps days of events as columns; it may be deleted at any time."""
        return self.home / "columns" / self.book

    def embedded_url(self, database: str) -> str:
        """The libpq address of a database on the embedded server."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_folder), safe='')}"

    @property
    def learning_url(self) -> str:
        """The libpq address of the database with the learning tables."""
        return self.database_url or self.embedded_url("learning")

    @property
    def history_url(self) -> str:
        """The libpq address of the database with Dagster's history, whatever the schema."""
        return self.dagster_url or self.embedded_url("dagster")

    @property
    def dagster_storage_url(self) -> str:
        """The address for Dagster's instance: psycopg2 as the driver, the book's schema set."""
        return _with_schema(self.history_url, self.dagster_schema)

    @property
    def strands_source_url(self) -> str:
        """The libpq address of the database with `ad_strands`: by default the learning one."""
        return self.strands_url or self.learning_url


def settings(env: Mapping[str, str], book: str = MAIN_BOOK) -> Settings:
    """The settings of a book from environment variables.

    `LEARNING_HOME`, `LEARNING_DATABASE_URL`, `LEARNING_DAGSTER_URL`, `LEARNING_STRANDS_URL`;
    an empty variable counts as absent.

    Raises:
        UserError: for a book name or an address that cannot be one.
    """
    if not _BOOK_NAME.fullmatch(book):
        raise UserError(
            f"the book name {book!r} is not allowed: use at most 31 lower-case letters, digits "
            "and underscores, beginning with a letter"
        )
    return Settings(
        book=book,
        home=_home(env),
        database_url=_address(env, "LEARNING_DATABASE_URL"),
        dagster_url=_address(env, "LEARNING_DAGSTER_URL"),
        strands_url=_address(env, "LEARNING_STRANDS_URL"),
    )


def _schema(prefix: str, book: str) -> str:
    return prefix if book == MAIN_BOOK else f"{prefix}_{book}"


def _home(env: Mapping[str, str]) -> Path:
    given = env.get("LEARNING_HOME", "").strip()
    home = Path(given) if given else _user_data_folder(env) / "learning-assets"
    if home.parts[:1] == ("~",):
        home = _user_home(env).joinpath(*home.parts[1:])
    return Path(os.path.abspath(home))  # noqa: PTH100 (resolve() would follow the user's links)


def _user_home(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def _user_data_folder(env: Mapping[str, str]) -> Path:
    if Path(env.get("XDG_DATA_HOME", "")).is_absolute():
        return Path(env["XDG_DATA_HOME"])
    if sys.platform == "darwin":
        return _user_home(env) / "Library" / "Application Support"
    return _user_home(env) / ".local" / "share"


def _address(env: Mapping[str, str], variable: str) -> str | None:
    raw = env.get(variable, "").strip()
    return checked_address(raw, variable) if raw else None


def checked_address(raw: str, variable: str) -> str:
    """The libpq address that a user gave; `variable` is what it was given as.

    Raises:
        UserError: for what is none, without its password.
    """
    scheme, separator, rest = raw.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise UserError(
            f"{variable} is no PostgreSQL address: write it as postgresql://user:password@host/name"
        )
    url = f"postgresql://{rest}"
    _check_address(url, variable)
    return url


def _check_address(url: str, variable: str) -> None:
    # The library's message may quote the whole address, the password included: only the one
    # about a parameter's name is passed on.
    try:
        conninfo_to_dict(url)
    except ProgrammingError as error:
        known = "invalid URI query parameter"
        detail = f" ({str(error).splitlines()[0]})" if str(error).startswith(known) else ""
        raise UserError(
            f"{variable} is no PostgreSQL address{detail}: write it as "
            "postgresql://user:password@host:port/name, with special characters in the password "
            "percent-encoded"
        ) from None


def _with_schema(url: str, schema: str) -> str:
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    options = [value for key, value in pairs if key == "options"]
    kept = [(key, value) for key, value in pairs if key != "options"]
    kept.append(("options", " ".join([*options, f"-csearch_path={schema}"])))
    query = urlencode(kept, quote_via=quote, safe="")
    return f"postgresql+psycopg2://{parts.netloc}{parts.path}?{query}"
