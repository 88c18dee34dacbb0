"""Does the trading bot's client hold? Threads look up while sets are published and the server goes.

Each set has two overrides whose multipliers follow from its number, and so does the time for which
it lasts: an answer that mixes two sets gives itself away. In the middle the embedded server is
stopped for longer than a set lasts, and started again. The server is one of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psycopg

from learning_assets.core.combine import combine
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.core.scope import subset
from learning_assets.errors import UserError
from learning_assets.runtime import Answer, OverrideBook, Status
from learning_assets.store import server
from learning_assets.store.connection import connect
from learning_assets.store.migrations import migrate
from learning_assets.store.overrides import publish
from learning_assets.store.settings import Settings, settings

THREADS, SECONDS, PUBLISHES_PER_SECOND = 8, 60.0, 5.0
LASTS = timedelta(seconds=2)
AWAY_SECONDS = 4.0
_REFRESH_SECONDS = 0.05
_GROUP = GroupKey("pm", "pm.soak.S1.buy", "entry")
_SCOPE = {"chain": "solana", "timeframe": "1h"}
_PATIENCE_SECONDS = 30.0


def set_of(number: int, now: datetime) -> OverrideSet:
    """The set of a number: its multipliers and how long it lasts follow from it."""
    overrides = tuple(
        Override(_GROUP, subset(scope), m, 0.1, 0.9, DecayState.STABLE, None, 50, 0.01)
        for scope, m in zip(({}, {"chain": "solana"}), multipliers_of(number), strict=True)
    )
    expires = now + LASTS + timedelta(microseconds=number)
    return OverrideSet(now, now, expires, overrides, {})


def multipliers_of(number: int) -> tuple[float, float]:
    """The multipliers of the two overrides of a set."""
    return 1.0 + number % 97 / 1000, 1.0 + number * 31 % 89 / 1000


def is_of_one_set(answer: Answer) -> bool:
    """Whether all that an answer says is of the set that it names."""
    if answer.status is not Status.OK:
        return answer.multiplier == 1.0 and not answer.matched
    assert answer.published_at is not None
    assert answer.expires_at is not None
    rest = answer.expires_at - answer.published_at - LASTS
    expected = multipliers_of(rest // timedelta(microseconds=1))
    said = tuple(one.multiplier for one in answer.matched)
    return said == expected and answer.multiplier == combine("pm", expected)


@dataclass(slots=True)
class Seen:
    """What one thread saw."""

    answers: Counter[str] = field(default_factory=Counter)
    sets: set[int] = field(default_factory=set)
    mixed: int = 0
    backwards: int = 0
    errors: list[str] = field(default_factory=list)
    longest_us: float = 0.0
    reasons: set[str] = field(default_factory=set)


def look_up(book: OverrideBook, ended: threading.Event) -> Seen:
    """Look up until the end, and check every answer."""
    seen, last = Seen(), 0
    while not ended.is_set():
        began = time.perf_counter()
        try:
            answer = book.lookup(_GROUP.pattern_key, _GROUP.action_category, _SCOPE)
        except Exception as error:  # noqa: BLE001  # what must not happen is what is counted
            seen.errors.append(repr(error))
            continue
        seen.longest_us = max(seen.longest_us, (time.perf_counter() - began) * 1e6)
        seen.answers[answer.status.value] += 1
        seen.mixed += not is_of_one_set(answer)
        seen.backwards += (answer.set_id or last) < last
        last = answer.set_id or last
        seen.sets.add(last)
        if answer.reason:
            seen.reasons.add(answer.reason.partition(";")[2].strip() or answer.reason)
        time.sleep(0)  # the other threads are to have their turn
    return seen


def keep_publishing(env: Mapping[str, str], per_second: float, ended: Event, count: Any) -> None:
    """Publish sets, each number once, until the end; while the server is away, try to reach it.

    `count` is shared: how many were published.
    """
    chosen, due = settings(env), time.monotonic()
    while not ended.is_set():
        try:
            with connect(chosen) as conn:
                while not ended.wait(max(0.0, due - time.monotonic())):
                    publish(conn, set_of(count.value + 1, datetime.now(UTC)))
                    count.value += 1
                    due = max(due + 1 / per_second, time.monotonic())
        except (psycopg.Error, UserError, OSError):
            ended.wait(1 / per_second)


@contextmanager
def _publisher(env: Mapping[str, str], per_second: float) -> Iterator[Any]:
    spawn = multiprocessing.get_context("spawn")
    ended, count = spawn.Event(), spawn.Value("i", 0)
    process = spawn.Process(target=keep_publishing, args=(env, per_second, ended, count))
    process.start()
    try:
        yield count
    finally:
        ended.set()
        process.join(_PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _wait_for_first(count: Any) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not count.value:
        if time.monotonic() > end:
            raise SystemExit("nothing was published: is the server too slow?")
        time.sleep(0.01)


def _restart(chosen: Settings) -> None:
    server.stop(chosen)
    time.sleep(AWAY_SECONDS)
    server.start(chosen)


def soak(
    env: Mapping[str, str], seconds: float = SECONDS, threads: int = THREADS
) -> Mapping[str, Any]:
    """Run all of it on the embedded server of this environment, and sum up."""
    chosen = settings(env)
    with server.running(chosen):
        migrate(chosen)
        with connect(chosen) as conn:
            publish(conn, set_of(0, datetime.now(UTC)))
        url, found, ended = chosen.learning_url, [Seen() for _ in range(threads)], threading.Event()

        def run(place: int, book: OverrideBook) -> None:
            found[place] = look_up(book, ended)

        with (
            OverrideBook.from_database(url, refresh_seconds=_REFRESH_SECONDS) as book,
            _publisher(env, PUBLISHES_PER_SECOND) as count,
        ):
            _wait_for_first(count)
            running = [threading.Thread(target=run, args=(k, book)) for k in range(threads)]
            for thread in running:
                thread.start()
            time.sleep((seconds - AWAY_SECONDS) / 2)
            _restart(chosen)
            time.sleep((seconds - AWAY_SECONDS) / 2)
            ended.set()
            for thread in running:
                thread.join()
            published = count.value
    return summed_up(found, published)


def summed_up(found: Sequence[Seen], published: int) -> Mapping[str, Any]:
    """What all threads saw together."""
    answers = sum((one.answers for one in found), Counter[str]())
    return {
        "lookups": answers.total(),
        "published": published,
        "sets_seen": len(set().union(*(one.sets for one in found))),
        "answers": dict(answers),
        "errors": [error for one in found for error in one.errors],
        "mixed": sum(one.mixed for one in found),
        "backwards": sum(one.backwards for one in found),
        "longest_us": max(one.longest_us for one in found),
        "reasons": sorted(set().union(*(one.reasons for one in found)))[:5],
    }


def main() -> None:
    """Soak, and print what was seen; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--threads", type=int, default=THREADS)
    args = parser.parse_args()
    from honesty import measured_on

    # A socket's address is short.
    home = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    try:
        found = soak({"LEARNING_HOME": str(home / "home")}, args.seconds, args.threads)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps({**measured_on(), **found}, indent=2))
    wrong = found["errors"] or found["mixed"] or found["backwards"]
    raise SystemExit(bool(wrong or not found["answers"].get("stale")))


if __name__ == "__main__":
    main()
