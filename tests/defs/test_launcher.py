"""Whether the process of a run lives, and what becomes of a run whose process is gone."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test, instance_for_test
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from learning_assets.defs.launch import Child, stop
from learning_assets.defs.launcher import PROCESS_TAG, WatchedRunLauncher, process_tags

LAUNCHER = {"module": "learning_assets.defs.launcher", "class": "WatchedRunLauncher"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with instance_for_test({"run_launcher": LAUNCHER, "run_monitoring": {"enabled": True}}) as made:
        yield made


def started(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> dg.DagsterRun:
    status = dg.DagsterRunStatus.STARTED
    return create_run_for_test(instance, job_name="x", tags=dict(tags), status=status)


def health(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> WorkerStatus:
    launcher = instance.run_launcher
    assert isinstance(launcher, WatchedRunLauncher)
    return launcher.check_run_worker_health(started(instance, tags)).status


def ended_process() -> str:
    """The tag of a process that is gone."""
    host, _, began = process_tags()[PROCESS_TAG].rsplit(" ", 2)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pid = process.pid
    return f"{host} {pid} {began}"


def test_a_run_of_this_process_lives(instance: dg.DagsterInstance) -> None:
    assert health(instance, process_tags()) is WorkerStatus.RUNNING


def test_a_run_of_a_process_that_is_gone_does_not(instance: dg.DagsterInstance) -> None:
    assert health(instance, {PROCESS_TAG: ended_process()}) is WorkerStatus.NOT_FOUND


def test_another_process_under_the_same_number_is_another(instance: dg.DagsterInstance) -> None:
    host, pid, began = process_tags()[PROCESS_TAG].rsplit(" ", 2)
    tag = f"{host} {pid} {float(began) - 60:.2f}"
    assert health(instance, {PROCESS_TAG: tag}) is WorkerStatus.NOT_FOUND


def test_what_nobody_can_say_is_not_failed(instance: dg.DagsterInstance) -> None:
    nobody = {"host": "localhost", "socket": "/tmp/there-is-no-such-socket"}
    assert health(instance, {PROCESS_TAG: "elsewhere 1 1.00"}) is WorkerStatus.RUNNING
    assert health(instance, {}) is WorkerStatus.RUNNING
    assert health(instance, {".dagster/grpc_info": json.dumps(nobody)}) is WorkerStatus.RUNNING


@pytest.mark.parametrize(("lives", "status"), [(True, "STARTED"), (False, "FAILURE")])
def test_a_run_whose_process_is_gone_fails(
    instance: dg.DagsterInstance, lives: bool, status: str
) -> None:
    tags = process_tags() if lives else {PROCESS_TAG: ended_process()}
    run = started(instance, tags)
    [record] = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    workspace: Any = None
    monitor_started_run(instance, workspace, record, logging.getLogger("test"))
    [after] = instance.get_runs(dg.RunsFilter(run_ids=[run.run_id]))
    assert after.status.value == status


def test_what_a_dead_process_started_is_ended_too(tmp_path: Any) -> None:
    script = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script}; time.sleep(60)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    assert psutil.pid_exists(orphan)
    stop([Child("it", process, tmp_path / "log")])
    until = time.monotonic() + 10
    while psutil.pid_exists(orphan) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == "zombie"


def test_a_code_server_that_does_not_know_a_run_means_that_it_is_gone(
    instance: dg.DagsterInstance, tmp_path: Any
) -> None:
    code = tmp_path / "empty.py"
    code.write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    # pytest's own folders are too deep for the address of a socket.
    address = Path(tempfile.mkdtemp(prefix="la", dir="/tmp")) / "code.sock"
    command = ["-m", "dagster", "api", "grpc", "-s", str(address), "-f", str(code)]
    server = subprocess.Popen([sys.executable, *command], start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not address.exists() and time.monotonic() < until:
            time.sleep(0.1)
        tag = json.dumps({"host": "localhost", "socket": str(address)})
        assert health(instance, {".dagster/grpc_info": tag}) is WorkerStatus.NOT_FOUND
    finally:
        stop([Child("code server", server, tmp_path / "log")])
        shutil.rmtree(address.parent)
