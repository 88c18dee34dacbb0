"""What bots applied: it is kept with the actions, and its result stands in the newest week."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from alembic import command

from learning_assets.core.feedback import ALL, AppliedFeedback, Arm, Effect
from learning_assets.core.history import WEEK
from learning_assets.core.records import (
    Action,
    Applied,
    AppliedOverride,
    ClosedTrade,
    DayOutcome,
    OverrideSet,
    Status,
)
from learning_assets.core.walkforward import ModuleResult, Replay, WeekResult
from learning_assets.store import events, ingestion
from learning_assets.store.connection import Conn, connect
from learning_assets.store.effectiveness import replace_results, save_replays
from learning_assets.store.event_lines import trade_lines
from learning_assets.store.feedback import applied_actions, newest, save
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import settings

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
DAY = date(2026, 1, 5)
ANSWER = Applied(
    1.1 + 0.2, 1.1 + 0.2, Status.OK, 12,
    (AppliedOverride("pm.one.S1.flag/entry/*", 1.1 + 0.2), AppliedOverride("Größe|'\"/\n", 0.9)),
)  # fmt: skip
NOBODY = Applied(1.0, 1.0, Status.NO_OVERRIDES)


def trade(trade_id: str = "t", *answers: Applied | None, day: int = 0) -> ClosedTrade:
    actions = [
        Action(f"a{k}", "pm", "pm.one.S1.flag", "entry", {"chain": "base"}, answer)
        for k, answer in enumerate(answers or (None,))
    ]
    return ClosedTrade(trade_id, 1.5, NOON + timedelta(days=day), tuple(actions))


def _digest(trade: ClosedTrade) -> str:
    return trade_lines(trade, "strands").digest


def ingest(conn: Conn, *trades: ClosedTrade) -> ingestion.IngestResult:
    return ingestion.ingest(conn, "strands", DAY, DAY + timedelta(days=9), trades)


def test_what_was_applied_comes_back_as_it_was(conn: Conn) -> None:
    ingest(conn, trade("one", ANSWER, None, NOBODY), trade("two"), trade("three", NOBODY, day=2))
    found = applied_actions(conn, NOON, NOON + timedelta(days=9))
    assert [(x.trade_id, x.applied) for x in found] == [
        ("one", ANSWER), ("one", NOBODY), ("three", NOBODY),
    ]  # fmt: skip
    first = found[0]
    assert (first.rr, first.closed_at) == (1.5, NOON)
    assert (first.module, first.action_category) == ("pm", "entry")
    assert applied_actions(conn, NOON, NOON) == []
    assert len(applied_actions(conn, NOON + timedelta(days=1), NOON + timedelta(days=3))) == 1


def test_text_that_postgresql_cannot_hold_is_cleaned(conn: Conn) -> None:
    odd = replace(ANSWER, overrides=(AppliedOverride("a\x00b\ud800", 1.2),))
    ingest(conn, trade("t", odd))
    [found] = applied_actions(conn, NOON, NOON + timedelta(days=1))
    assert found.applied.overrides[0].lesson_id == "a\ufffdb?"
    assert ingest(conn, trade("t", odd)).unchanged == 1


def test_the_digest_stays_as_it_is() -> None:
    """Where it changes, every book is taken in again."""
    assert _digest(trade()) == "8b8fa30931f133d19cbb932e9f3b0999"


@pytest.mark.parametrize(
    "other",
    [
        None,
        NOBODY,
        replace(ANSWER, multiplier=1.2),
        replace(ANSWER, suggested=1.2),
        replace(ANSWER, status=Status.SHADOW),
        replace(ANSWER, set_id=13),
        replace(ANSWER, overrides=()),
    ],
)
def test_another_answer_replaces_the_trade(conn: Conn, other: Applied | None) -> None:
    ingest(conn, trade("t", ANSWER))
    before = events.events_digest(conn, NOON + WEEK)
    assert ingest(conn, trade("t", ANSWER)).unchanged == 1
    assert ingest(conn, trade("t", other)).replaced == 1
    assert events.events_digest(conn, NOON + WEEK) != before
    found = applied_actions(conn, NOON, NOON + WEEK)
    assert [x.applied for x in found] == ([] if other is None else [other])


def test_the_columns_come_to_a_book_that_has_trades(
    server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(server_env, "applied")
    with monkeypatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(command, "upgrade", lambda config, _: upgrade(config, "0007"))
        migrate(chosen)
    with connect(chosen) as conn:
        conn.execute(
            "INSERT INTO pattern_trade_events (event_id, trade_id, source, module, pattern_key, "
            "action_category, scope, rr, closed_at, trade_digest) VALUES ('t:a0', 't', 'strands', "
            "'pm', 'pm.one.S1.flag', 'entry', '{\"chain\": \"base\"}', 1.5, %s, %s)",
            [NOON, _digest(trade())],
        )
        conn.execute("INSERT INTO event_days VALUES (%s, 1, 1, 'as it was')", [NOON.date()])
        migrate(chosen)
        assert events.day_outcomes(conn, 9) == [DayOutcome(NOON.date(), 1, 1.5)]
        assert ingest(conn, trade()).unchanged == 1
        assert applied_actions(conn, NOON, NOON + WEEK) == []
        assert ingest(conn, trade("t", ANSWER)).replaced == 1
        assert len(applied_actions(conn, NOON, NOON + WEEK)) == 1


def test_only_rows_that_say_what_was_applied_are_read(conn: Conn) -> None:
    ingest(conn, *(trade(f"t{k}", day=k % 9) for k in range(500)), trade("one", ANSWER))
    conn.execute("ANALYZE pattern_trade_events")
    plan = conn.execute(
        "EXPLAIN SELECT 1 FROM pattern_trade_events WHERE applied_overrides IS NOT NULL "
        "AND closed_at >= %s AND closed_at < %s",
        [NOON, NOON + WEEK],
    ).fetchall()
    assert "pattern_trade_events_closed_at_idx1" in str(plan)


# --- the result ------------------------------------------------------------------------------

FEW = Effect(
    "pm.one.S1.flag/entry/*", Arm(3, 2, 0.1 + 0.2), Arm(0, 0, None), 1, 0, 1.3, 0.7,
    None, None, None, "no trade was held out",
)  # fmt: skip
MANY = replace(FEW, lesson_id=ALL, effect_r=0.1, low=-0.2, high=0.4, reason="")
FOUND = AppliedFeedback(NOON - 26 * WEEK, NOON, MANY, (FEW,))


def judged(conn: Conn, *weeks: datetime) -> None:
    """Rows of these weeks, as the walk-forward writes them."""
    replays = [Replay(OverrideSet(w, w, w + WEEK, (), {}, replay=True), {"pm": 0.5}) for w in weeks]
    stored = save_replays(conn, replays, dict.fromkeys(weeks, "d"))
    empty = {"pm": ModuleResult(0.5, 0, ())}
    replace_results(
        conn, [WeekResult(w, 0, 0, 0, *[None] * 6, empty, (), w + WEEK) for w in weeks], stored
    )


def test_the_result_stands_in_the_newest_week_alone(conn: Conn) -> None:
    first, second = NOON, NOON + WEEK
    assert newest(conn) is None
    judged(conn, first)
    save(conn, first, FOUND)
    assert newest(conn) == FOUND
    judged(conn, second)
    save(conn, second, replace(FOUND, overrides=()))
    assert newest(conn) == replace(FOUND, overrides=())
    rows = conn.execute("SELECT applied IS NULL FROM override_effectiveness ORDER BY ts").fetchall()
    assert rows == [(True,), (False,)]


def test_an_earlier_week_leaves_the_result_alone(conn: Conn) -> None:
    judged(conn, NOON, NOON + WEEK)
    save(conn, NOON + WEEK, FOUND)
    judged(conn, NOON)
    save(conn, NOON, None)
    assert newest(conn) == FOUND


def test_the_result_goes_when_no_trade_says_any_more_what_was_applied(conn: Conn) -> None:
    judged(conn, NOON)
    save(conn, NOON, FOUND)
    save(conn, NOON, None)
    assert newest(conn) is None
