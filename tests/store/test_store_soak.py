"""The bot's client while sets are published and the server goes, and two that publish at once."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from learning_assets.runtime import Answer, Matched, Status
from learning_assets.store.connection import Conn, connect
from learning_assets.store.overrides import live, publish
from learning_assets.store.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import soak

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def own_server() -> Iterator[Mapping[str, str]]:
    """A server that may be stopped."""
    home = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    yield {"LEARNING_HOME": str(home / "home")}
    shutil.rmtree(home, ignore_errors=True)


def test_no_answer_fails_mixes_sets_or_hides_that_it_is_stale(
    own_server: Mapping[str, str],
) -> None:
    found = soak.soak(own_server, seconds=10, threads=8)
    assert (found["errors"], found["mixed"], found["backwards"]) == ([], 0, 0)
    assert found["answers"]["ok"] > 1000
    assert found["answers"]["stale"] > 0
    assert found["published"] > 3
    assert found["sets_seen"] > 3
    assert any("the database cannot be read" in reason for reason in found["reasons"])
    assert set(found["answers"]) == {"ok", "stale"}


def test_the_soak_would_notice_an_answer_of_two_sets() -> None:
    first, second = (soak.set_of(number, NOW) for number in (3, 4))

    def answer(of: soak.OverrideSet, *numbers: int) -> Answer:
        matched = tuple(Matched("x", (), soak.multipliers_of(n)[k]) for k, n in enumerate(numbers))
        multiplier = soak.combine("pm", [m.multiplier for m in matched])
        times = of.published_at, of.expires_at
        return Answer(multiplier, multiplier, Status.OK, "", matched, 1, *times)

    assert soak.is_of_one_set(answer(first, 3, 3))
    assert soak.is_of_one_set(answer(second, 4, 4))
    assert not soak.is_of_one_set(answer(first, 3, 4))
    assert not soak.is_of_one_set(answer(second, 3, 3))
    assert not soak.is_of_one_set(answer(first, 3))
    assert not soak.is_of_one_set(answer(first, 3, 3)._replace(status=Status.STALE))


def test_of_two_that_publish_at_once_one_wins_whole(conn: Conn, book: Settings) -> None:
    sets = [soak.set_of(number, NOW + timedelta(seconds=number)) for number in range(12)]

    def publish_one(number: int) -> int:
        with connect(book) as other:
            return publish(other, sets[number])

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(publish_one, range(len(sets))))
    current = live(conn)
    assert current is not None
    [winner] = [k for k, number in enumerate(numbers) if number == current.set_id]
    assert current.content.overrides == sets[winner].overrides
    rows = conn.execute("SELECT DISTINCT set_id, published_at, expires_at FROM pm_overrides")
    assert rows.fetchall() == [(current.set_id, sets[winner].published_at, sets[winner].expires_at)]
    lives = conn.execute(
        "SELECT set_id, live_from, live_to FROM pm_override_sets ORDER BY set_id"
    ).fetchall()
    assert [row[0] for row in lives] == sorted(numbers)
    assert [row[2] is None for row in lives] == [False] * 11 + [True]
    assert all(to is None or since <= to for _, since, to in lives)
