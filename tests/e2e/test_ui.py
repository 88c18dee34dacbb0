"""`learning ui` from outside: it answers, and leaves no process behind however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

LEARNING = Path(sys.executable).with_name("learning")
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # pytest's own folders are too deep for the address of a socket.
    made = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    yield made / "home"
    shutil.rmtree(made, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(home: Path, port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(LEARNING), "ui", "--port", str(port)],
        env={**os.environ, "LEARNING_HOME": str(home), "COLUMNS": "200"},
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_until_up(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def _ask(port: int, query: str) -> object:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def _of(home: Path) -> list[str]:
    """Command lines of the processes that belong to this home."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        lines = process.info["cmdline"] or []
        variables = process.info["environ"] or {}
        mine = variables.get("LEARNING_HOME") == str(home)
        if mine or any(str(home) in word for word in lines):
            found.append(" ".join(lines))
    return found


def _wait_until_gone(home: Path, what: str) -> list[str]:
    until = time.monotonic() + 40
    while left := [line for line in _of(home) if what in line]:
        if time.monotonic() > until:
            return left
        time.sleep(0.25)
    return []


def test_it_answers_and_ends_cleanly(home: Path) -> None:
    port = _free_port()
    process = _start(home, port)
    try:
        assert f"http://127.0.0.1:{port}" in _wait_until_up(process)
        nodes = _ask(port, "{ assetNodes { assetKey { path } } }")
        assert "pm_overrides" in json.dumps(nodes)
        assert len(_of(home)) >= 4
        second = subprocess.run(
            [str(LEARNING), "ui", "--port", str(port)],
            env={**os.environ, "LEARNING_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert second.returncode == 2
        assert "--port" in second.stderr
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert _wait_until_gone(home, "") == []


def test_its_processes_end_when_it_is_killed(home: Path) -> None:
    process = _start(home, _free_port())
    try:
        _wait_until_up(process)
        assert [line for line in _of(home) if "dagster" in line]
    finally:
        process.kill()
    process.wait(PATIENCE_SECONDS)
    assert _wait_until_gone(home, "-m dagster") == []
    # The server outlives a killed launcher; whoever starts it next takes it over and ends it.
    subprocess.run(
        [str(LEARNING), "doctor", "--book", "demo"],
        env={**os.environ, "LEARNING_HOME": str(home)},
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert _wait_until_gone(home, "") == []
