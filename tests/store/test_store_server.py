from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from learning_assets.errors import UserError
from learning_assets.store import server
from learning_assets.store.connection import connect, open_database, table_lock
from learning_assets.store.settings import Settings, settings

HOLD = """
import sys
from learning_assets.store import server
from learning_assets.store.settings import settings
with server.running(settings({"LEARNING_HOME": sys.argv[1]})):
    print("up", flush=True)
    sys.stdin.read()
"""


def _holder(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_until_up(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    yield folder
    server.stop(settings({"LEARNING_HOME": str(folder)}))
    shutil.rmtree(folder)


def test_processes_share_one_server_and_the_last_one_stops_it(home: Path) -> None:
    chosen = settings({"LEARNING_HOME": str(home)})
    first, second = _holder(home), _holder(home)  # both find no data folder and no server
    _wait_until_up(first)
    _wait_until_up(second)
    first.communicate()
    assert first.returncode == 0
    assert server.is_running(chosen)
    second.kill()  # it cannot clean up, so the server outlives it …
    second.communicate()
    assert server.is_running(chosen)
    with server.running(chosen):  # … until the next one leaves
        assert server.is_running(chosen)
    assert not server.is_running(chosen)


def test_a_killed_server_comes_back(home: Path) -> None:
    chosen = settings({"LEARNING_HOME": str(home)})
    server.start(chosen)
    pid = int((chosen.data_folder / "postmaster.pid").read_text().split("\n")[0])
    os.kill(pid, signal.SIGKILL)
    while server.is_running(chosen):
        time.sleep(0.02)
    server.start(chosen)
    assert server.is_running(chosen)
    server.stop(chosen)
    # After a restart of the machine the number may be that of another program.
    (chosen.data_folder / "postmaster.pid").write_text(f"{os.getpid()}\n{chosen.data_folder}\n")
    server.start(chosen)
    assert server.is_running(chosen)


def test_a_long_path_with_a_space_and_a_quote_works_and_stays_private(home: Path) -> None:
    chosen = settings({"LEARNING_HOME": str(home / ("it's a long path " * 6))})
    assert chosen.socket_folder != chosen.data_folder
    (chosen.home / "pg.new" / "rubbish").mkdir(parents=True)  # of a broken-off first start
    try:
        with server.running(chosen):
            for folder in (chosen.socket_folder, chosen.data_folder):
                assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        chosen.socket_folder.chmod(0o755)
        with pytest.raises(UserError, match="not private"):
            server.start(chosen)
    finally:
        server.stop(chosen)
        shutil.rmtree(chosen.socket_folder)


def test_the_folders_above_stay_closed_to_readers(server_env: Mapping[str, str]) -> None:
    home = Path(server_env["LEARNING_HOME"])
    assert not home.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    assert stat.S_IMODE((home / "pg").stat().st_mode) == 0o700


def test_the_server_listens_on_no_network(book: Settings) -> None:
    with connect(book) as conn:
        assert conn.execute("SHOW listen_addresses").fetchone() == ("",)


def test_the_databases_are_there(server_env: Mapping[str, str]) -> None:
    chosen = settings(server_env)
    for url in (chosen.learning_url, chosen.history_url):
        with open_database(url, "test") as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)


def test_no_server_is_started_where_none_is_needed(home: Path) -> None:
    urls = {f"LEARNING_{name}_URL": "postgresql://h/d" for name in ("DATABASE", "DAGSTER")}
    with server.running(settings({"LEARNING_HOME": str(home / "x")} | urls)):
        assert not (home / "x").exists()


def test_a_home_that_cannot_be_made(home: Path) -> None:
    (home / "file").touch()
    with (
        pytest.raises(UserError, match="LEARNING_HOME"),
        server.running(settings({"LEARNING_HOME": str(home / "file" / "x")})),
    ):
        pass


def test_data_of_another_version_is_refused(home: Path) -> None:
    (home / "pg").mkdir()
    (home / "pg" / "PG_VERSION").write_text("16\n")
    with pytest.raises(UserError, match=r"PostgreSQL 16.*LEARNING_HOME"):
        server.start(settings({"LEARNING_HOME": str(home)}))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host.invalid", "192.0.2.1"])
def test_a_database_that_does_not_answer(address: str, home: Path) -> None:
    url = f"postgresql://ann:secret@{address}/trades"
    if address == "192.0.2.1":
        url += "?connect_timeout=2"
    chosen = settings({"LEARNING_HOME": str(home), "LEARNING_DATABASE_URL": url})
    began = time.monotonic()
    with pytest.raises(UserError, match="LEARNING_DATABASE_URL") as caught, connect(chosen):
        pass
    assert time.monotonic() - began < 8
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_database_on_a_running_server(server_env: Mapping[str, str]) -> None:
    url = settings(server_env).embedded_url("nosuch").replace("postgres@", "postgres:secret@")
    with pytest.raises(UserError, match="nosuch") as caught:
        open_database(url, "LEARNING_STRANDS_URL")
    assert "secret" not in str(caught.value)


def test_times_come_back_in_utc_and_names_resolve_in_the_book(book: Settings) -> None:
    with connect(book) as conn:
        assert conn.execute("SHOW timezone").fetchone() == ("UTC",)
        assert conn.execute("SELECT current_schema()").fetchone() == (book.schema,)


def test_a_lock_is_of_one_book_and_needs_a_transaction(
    book: Settings, server_env: Mapping[str, str]
) -> None:
    with connect(book) as one, connect(book) as two, connect(settings(server_env, "x")) as other:
        with pytest.raises(RuntimeError, match="transaction"):
            table_lock(one, "t")
        two.execute("SET lock_timeout = '50ms'")
        other.execute("SET lock_timeout = '50ms'")
        other.execute("CREATE SCHEMA IF NOT EXISTS learning_x")
        with one.transaction():
            table_lock(one, "t")
            with other.transaction():
                table_lock(other, "t")
            with pytest.raises(psycopg.errors.LockNotAvailable), two.transaction():
                table_lock(two, "t")
        with two.transaction():
            table_lock(two, "t")
