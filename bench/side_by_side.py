"""Times and peak memory of several things side by side, each in a child process of its own.

The children take turns, so that whatever else the machine does meanwhile disturbs all of them
alike, and each knows its own peak of resident memory. A thing prepares itself first; preparation
is not timed. What is measured is up to the caller.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np

_SPAWN = multiprocessing.get_context("spawn")  # a fork would begin with the memory of its parent
_READ_BYTES = 1 << 30  # larger than any cache


@dataclass(frozen=True, slots=True)
class Seen:
    """What a result holds: how many slices, and the bytes that finding them takes at the least."""

    slices: int
    least_bytes: int = 0


def nothing_of_note(result: object) -> Seen:
    """For a result without slices."""
    return Seen(0)


@dataclass(frozen=True, slots=True)
class Thing:
    """What is run, by which algorithm, and how its result is looked at (not timed)."""

    algorithm: str
    run: Callable[[], Any]
    look: Callable[[Any], Seen] = nothing_of_note


@dataclass(frozen=True, slots=True)
class Measured:
    """The runs of one thing; `peak_mib` is the most resident memory of its process, ever."""

    algorithm: str
    all_seconds: tuple[float, ...]
    seen: Seen
    peak_mib: float

    @property
    def seconds(self) -> float:
        """Median of the runs."""
        return statistics.median(self.all_seconds)


class _Child:
    def __init__(self, name: str, make: Callable[[], Thing]) -> None:
        self._name = name
        self._pipe, there = _SPAWN.Pipe()
        self._process: SpawnProcess = _SPAWN.Process(target=_serve, args=(make, there), daemon=True)
        self._process.start()
        there.close()  # so that a child that died is noticed
        self._algorithm: str = self._answer()
        self._seconds: list[float] = []
        self._seen = Seen(0)

    def run(self) -> None:
        self._pipe.send(True)
        seconds, self._seen = self._answer()
        self._seconds.append(seconds)

    def end(self) -> Measured:
        self._pipe.send(False)
        peak_mib = self._answer()
        self._process.join()
        return Measured(self._algorithm, tuple(self._seconds), self._seen, peak_mib)

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError as error:
            self._process.join()
            raise ChildProcessError(
                f"{self._name} ended with {self._process.exitcode} before it was measured"
            ) from error


def _serve(make: Callable[[], Thing], pipe: Connection) -> None:
    thing = make()
    pipe.send(thing.algorithm)
    while pipe.recv():
        begin = time.perf_counter()
        result = thing.run()
        seconds = time.perf_counter() - begin
        seen = thing.look(result)
        del result  # millions of objects: not while another child is timed
        pipe.send((seconds, seen))
    pipe.send(peak_mib())


def peak_mib() -> float:
    """The most memory that this process has had resident; `ru_maxrss` begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [peak_kib] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return peak_kib / 1024


def measure(things: Mapping[str, tuple[Callable[[], Thing], int]]) -> dict[str, Measured]:
    """Run each thing as often as it says, in turn; what makes a thing must be picklable.

    Raises:
        ChildProcessError: for a thing that ends early; its own message is on stderr.
    """
    children = {name: _Child(name, make) for name, (make, _) in things.items()}
    for k in range(max((times for _, times in things.values()), default=0)):
        for name, (_, times) in things.items():
            if k < times:
                children[name].run()
    return {name: child.end() for name, child in children.items()}


def idle() -> Thing:
    """Nothing: what a process takes that has only imported the libraries."""
    return Thing("", lambda: None)


def reading(threads: int) -> Thing:
    """Reading (adding up) a GiB of memory on so many threads."""
    parts = np.array_split(np.ones(_READ_BYTES // 8), threads)

    def run() -> float:
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(lambda part: float(part.sum()), parts))

    return Thing(f"sum, {threads} threads", run)


def bandwidth_gib(measured: Measured) -> float:
    """GiB a second of the fastest of the runs of `reading`: a limit, not a habit."""
    return _READ_BYTES / 2**30 / min(measured.all_seconds)


def processor() -> str:
    """How many processors this process may use, and what they call themselves."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} × {names[0] if names else platform.machine()}"
