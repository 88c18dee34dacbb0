"""Replays and their results: they come back as they were, and no replay is ever live."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from learning_assets.core.history import WEEK
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.core.walkforward import (
    DaySums,
    ModuleResult,
    OverrideResult,
    Replay,
    WeekResult,
)
from learning_assets.store import overrides
from learning_assets.store.connection import Conn
from learning_assets.store.effectiveness import (
    StoredReplay,
    forget,
    replace_results,
    results,
    save_replays,
    stored_replays,
)

START = datetime(2026, 1, 5, tzinfo=UTC)
MADE = Override(
    GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry"), (("chain", "solana"),), 1.2, 0.1 + 0.2, 0.97,
    DecayState.DECAYING, 1536.0, 412, 1e-9, {"gain": 0.6, "regime_parts": None},
)  # fmt: skip


def _replay(k: int = 0, multiplier: float = 1.2) -> Replay:
    week = START + k * WEEK
    made = (replace(MADE, multiplier=multiplier),)
    content = OverrideSet(week, week, week + WEEK, made, {"total_size": 0.03}, replay=True)
    return Replay(content, {"pm": 0.6, "dm": 1 / 3})


def _result(replay: Replay, evaluated_at: datetime | None = None) -> WeekResult:
    days = (DaySums(date(2026, 1, 6), 4, 0.5, 1 / 3, -0.1), DaySums(date(2026, 1, 9), 0, 0, 0, 0))
    return WeekResult(
        replay.week, 40, 1, 12, 0.1, 0.15, 0.05, -0.02, 0.12, 1.01,
        {"pm": ModuleResult(0.6, 12, days), "dm": ModuleResult(1 / 3, 0, ())},
        (
            OverrideResult(MADE.lesson_id, "pm", 1.2, 0.3, 12, 0.25, 0.004),
            OverrideResult("nobody met it", "dm", 0.9, -0.1, 0, None, 0.0),
        ),
        evaluated_at or replay.week + WEEK,
    )  # fmt: skip


def _store(conn: Conn, *replays: Replay, digest: str = "d") -> list[StoredReplay]:
    stored = save_replays(conn, replays, dict.fromkeys((x.week for x in replays), digest))
    replace_results(conn, [_result(x) for x in replays], stored)
    return stored


def test_replays_and_results_come_back_as_they_were(conn: Conn) -> None:
    given = [_replay(0), _replay(1), _replay(2)]
    stored = _store(conn, *given)
    assert [x.replay for x in stored] == given
    assert stored_replays(conn, START, START + 2 * WEEK) == stored
    assert stored_replays(conn, START + WEEK, START + WEEK) == stored[1:2]
    assert results(conn) == [_result(x) for x in given]


def test_a_week_without_trades_comes_back_with_nothing(conn: Conn) -> None:
    replay = _replay()
    empty = WeekResult(
        replay.week, 0, 1, 0, *[None] * 6, {"pm": ModuleResult(0.5, 0, ())}, (), replay.week
    )
    replace_results(conn, [empty], save_replays(conn, [replay], {replay.week: "d"}))
    assert results(conn) == [empty]


def test_a_replay_never_becomes_live(conn: Conn) -> None:
    _store(conn, _replay())
    assert overrides.live(conn) is None
    shown = OverrideSet(START, START, START + WEEK, (MADE,), {})
    overrides.publish(conn, shown)
    before = overrides.live(conn)
    [stored] = _store(conn, _replay(52, 0.7))
    assert overrides.live(conn) == before
    assert [row["multiplier"] for row in overrides.override_rows(conn)] == [MADE.multiplier]
    kept = overrides.published_set(conn, stored.set_id)
    assert kept is not None
    assert (kept.live_from, kept.live_to, kept.content.replay) == (None, None, True)


def test_a_new_replay_takes_the_place_of_that_of_its_week_alone(conn: Conn) -> None:
    old, other = _store(conn, _replay(0), _replay(1))
    overrides.publish(conn, OverrideSet(START, START, START + WEEK, (), {}))
    [new] = _store(conn, _replay(0, 1.5), digest="another")
    assert stored_replays(conn, START, START + WEEK) == [new, other]
    assert overrides.published_set(conn, old.set_id) is None
    # A live set of the same moment is none of the replays.
    assert overrides.live(conn) is not None
    assert len(results(conn)) == 2


def test_what_was_later_is_not_seen(conn: Conn) -> None:
    stored = save_replays(conn, [_replay(0), _replay(1)], {START: "d", START + WEEK: "d"})
    late = START + 9 * WEEK
    first, second = _result(_replay(0)), _result(_replay(1), late)
    replace_results(conn, [first, second], stored)
    assert results(conn, START + WEEK) == [first]
    assert results(conn, START + WEEK - WEEK / 7) == []
    assert results(conn, late - WEEK / 7) == [first]
    assert results(conn, late) == results(conn) == [first, second]


def test_forgotten_weeks_have_no_rows_but_keep_their_sets(conn: Conn) -> None:
    first, second = _store(conn, _replay(0), _replay(1))
    forget(conn, [START])
    assert stored_replays(conn, START, START + WEEK) == [second]
    assert [r.week for r in results(conn)] == [START + WEEK]
    assert overrides.published_set(conn, first.set_id) is not None
    forget(conn, [])
    assert len(results(conn)) == 1


def test_a_failure_leaves_what_was_there(conn: Conn) -> None:
    [stored] = _store(conn, _replay())
    with pytest.raises(KeyError):
        replace_results(conn, [_result(_replay(3))], [stored])
    assert results(conn) == [_result(_replay())]
