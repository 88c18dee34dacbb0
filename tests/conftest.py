"""A private embedded server for the session, and a fresh book for each test that wants one."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from learning_assets.store import server
from learning_assets.store.connection import Conn, connect, open_database
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import Settings, settings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_env() -> Iterator[Mapping[str, str]]:
    """The environment of a book on a server of the session's own, which runs meanwhile."""
    # pytest's own folders are too deep for the address of a socket.
    home = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    env = {"LEARNING_HOME": str(home / "home")}
    try:
        with server.running(settings(env)):
            _make_careless(settings(env))
            yield env
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _make_careless(chosen: Settings) -> None:
    # Nobody misses these data after a power cut, and waiting for the disk takes most of the time.
    with open_database(chosen.learning_url, "the tests") as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {name} = off")
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def book(server_env: Mapping[str, str]) -> Settings:
    """A fresh, migrated book."""
    fresh = settings(server_env, f"t{next(_numbers)}")
    migrate(fresh)
    return fresh


@pytest.fixture
def conn(book: Settings) -> Iterator[Conn]:
    """A connection to a fresh book."""
    with connect(book) as connection:
        yield connection
