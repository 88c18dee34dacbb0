"""Launches runs as Dagster does, and knows whether the process of a run still lives.

Dagster's own launcher cannot tell: when everything was killed at once, its runs would count as
under way for ever, and hold their places in the queue. A run of the daemon lives in the code
server that started it, one of `learning run` in the process that its tag names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import cast

import dagster as dg
import psutil  # type: ignore[import-untyped]  # ships no type information

# Dagster has no public names for these.
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

PROCESS_TAG = "learning/process"
_TIMEOUT_SECONDS = 10


def process_tags() -> Mapping[str, str]:
    """The tags of a run in this process: where it lives, and that nobody starts it again."""
    began = psutil.Process().create_time()
    return {
        PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {began:.2f}",
        "dagster/max_retries": "0",
    }


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, whose runs the daemon can look after."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: that is what it is for."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a started run lives; running, where nobody can say."""
        if PROCESS_TAG in run.tags:
            return _health_of_process(run.tags[PROCESS_TAG])
        return self._health_in_server(run.run_id)

    def _health_in_server(self, run_id: str) -> CheckRunHealthResult:
        client = self._get_grpc_client_for_termination(run_id)  # type: ignore[no-untyped-call]  # Dagster has no types here
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "nobody knows where it runs")
        request = CanCancelExecutionRequest(run_id=run_id)
        try:
            answer = client.can_cancel_execution(request, timeout=_TIMEOUT_SECONDS)
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server does not answer")
        found = cast("CanCancelExecutionResult", deserialize_value(answer))
        if found.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "the code server does not know it")


def _health_of_process(tag: str) -> CheckRunHealthResult:
    host, pid, began = tag.rsplit(" ", 2)
    if host != socket.gethostname():
        return CheckRunHealthResult(WorkerStatus.RUNNING, f"it runs on {host}")
    try:
        same = f"{psutil.Process(int(pid)).create_time():.2f}" == began
    except psutil.NoSuchProcess:
        same = False
    if same:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"the process {pid} is gone")
