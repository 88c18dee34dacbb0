"""The processes of `learning ui`: code server, web server and daemon, watched until they stop.

They end with this process, however it ends: each gets a signal when its parent dies, and when
this one stops in an orderly way it waits until they are gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil  # type: ignore[import-untyped]  # ships no type information

from learning_assets.defs.instance import dagster_home, environment
from learning_assets.errors import UserError
from learning_assets.store import server
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import Settings

HOST = "127.0.0.1"
START_TIMEOUT_SECONDS = 120.0
STOP_TIMEOUT_SECONDS = 20.0

_POLL_SECONDS = 0.25
_PR_SET_PDEATHSIG = 1
_LOCATION = "learning_assets.defs.location"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Child:
    """A process and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class _StopError(Exception):
    """Somebody asked for the end."""


def serve(settings: Settings, port: int, say: Say) -> None:
    """Run the UI of a book on 127.0.0.1 until a signal comes, and leave no process behind.

    Raises:
        UserError: when the port is taken, the book's UI runs already, or a process gives up.
    """
    check_port(port)
    with ExitStack() as stack:
        stack.enter_context(_signals())
        try:
            stack.enter_context(server.running(settings))
            home = dagster_home(settings)
            stack.enter_context(_only_one(home, settings.book))
            migrate(settings)
            children = stack.enter_context(_children(home, port, environment(settings)))
            _wait_until_up(children, port)
            say(f"The book {settings.book} is at http://{HOST}:{port} (Ctrl-C ends it)")
            while True:
                _check_alive(children)
                time.sleep(_POLL_SECONDS)
        except _StopError:
            say("stopping …")


def check_port(port: int) -> None:
    """Nothing, when the port is free.

    Raises:
        UserError: when it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST} cannot be had ({error.strerror}): choose another one with "
                f"--port, e.g. --port {port + 1 if port < 65_535 else 3000}"
            ) from None


@contextmanager
def _signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the block, once: what comes later is ignored while it cleans up."""

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise _StopError

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _only_one(home: Path, book: str) -> Iterator[None]:
    """Two daemons on one history would run everything twice."""
    with (home / "ui.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the UI of the book {book} runs already: use that one, or end it first"
            ) from None
        yield


@contextmanager
def _children(home: Path, port: int, variables: Mapping[str, str]) -> Iterator[list[Child]]:
    workspace, address = _workspace(home)
    commands = {
        "code-server": ["dagster", "api", "grpc", "-s", str(address), "-m", _LOCATION],
        "webserver": ["dagster_webserver", "-h", HOST, "-p", str(port), "-w", str(workspace)],
        "daemon": ["dagster._daemon", "run", "-w", str(workspace)],
    }
    started: list[Child] = []
    try:
        for name, arguments in commands.items():
            started.append(_start(name, arguments, home, variables))
            if name == "code-server":
                _wait_for(address, started)
        yield started
    finally:
        stop(started)
        address.unlink(missing_ok=True)


def _workspace(home: Path) -> tuple[Path, Path]:
    """The workspace file, and the socket of the code server that it names."""
    address = Path(f"/tmp/learning-{os.getuid()}-{os.getpid()}.sock")
    if len(os.fsencode(home / "code.sock")) < 100:
        address = home / "code.sock"
    address.unlink(missing_ok=True)
    workspace = home / "workspace.yaml"
    workspace.write_text(
        "load_from:\n  - grpc_server:\n"
        f"      socket: {address}\n      location_name: learning_assets\n"
    )
    return workspace, address


def _start(name: str, arguments: Sequence[str], home: Path, variables: Mapping[str, str]) -> Child:
    log = home / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=home,
            env={**os.environ, **variables, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for this process, which tells them
            preexec_fn=_as_child,
        )
    return Child(name, process, log)


_libc = ctypes.CDLL(None, use_errno=True)


def _as_child() -> None:
    """In the new process: end with the parent, and listen to signals whatever the parent does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_for(address: Path, children: Sequence[Child]) -> None:
    _wait(address.exists, children)


def _wait_until_up(children: Sequence[Child], port: int) -> None:
    _wait(lambda: _answers(port), children)


def _wait(ready: Callable[[], bool], children: Sequence[Child]) -> None:
    until = time.monotonic() + START_TIMEOUT_SECONDS
    while not ready():
        _check_alive(children)
        if time.monotonic() > until:
            slow = children[-1]
            raise UserError(f"{slow.name} does not answer: see {slow.log}")
        time.sleep(_POLL_SECONDS)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/server_info", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _check_alive(children: Sequence[Child]) -> None:
    for child in children:
        code = child.process.poll()
        if code is not None:
            raise UserError(f"{child.name} ended by itself with code {code}: see {child.log}")


def stop(children: Sequence[Child]) -> None:
    """End the processes and all that they started: first by asking, then without."""
    family = [process for child in children for process in _family(child.process.pid)]
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.terminate()
    _, left = psutil.wait_procs(family, timeout=STOP_TIMEOUT_SECONDS)
    for process in left:
        _kill(process)
    psutil.wait_procs(left, timeout=STOP_TIMEOUT_SECONDS)
    for child in children:
        child.process.wait()


def _family(pid: int) -> list[psutil.Process]:
    """The processes of a child's session: those of runs live on when their code server died."""
    return [process for process in psutil.process_iter() if _session(process.pid) == pid]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
