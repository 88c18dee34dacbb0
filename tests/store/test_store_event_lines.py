"""Trades as they are stored: what is written comes back, and the digest tells contents apart."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learning_assets.core.records import Action, Applied, ClosedTrade, Status
from learning_assets.store.connection import Conn
from learning_assets.store.event_lines import EVENT_COLUMNS, trade_lines
from learning_assets.store.rows import clean_text, copying

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
ODD = "\\\t\n\r\"'%{}\x00\x01\x7f\ud800é漢\N{ROCKET}, :"

_text = st.text(st.sampled_from("ab1.") | st.sampled_from(ODD) | st.characters(), max_size=8)
_scopes = st.dictionaries(_text, _text, max_size=5)
_applied = st.builds(
    Applied, st.floats(0, 9), st.just(1.0), st.just(Status.OK), st.none() | st.integers(0, 9)
)
_actions = st.builds(Action, _text, _text, _text, _text, _scopes, st.none() | _applied)
_numbers = st.none() | st.floats(allow_infinity=False)
_moments = st.datetimes(timezones=st.just(UTC), min_value=datetime(1980, 1, 1))
_trades = st.builds(
    ClosedTrade,
    trade_id=_text.map(clean_text),
    rr=st.floats(-33, 33),
    closed_at=_moments,
    actions=st.lists(_actions, min_size=1, max_size=4, unique_by=lambda a: a.action_id).map(tuple),
    opened_at=st.none() | _moments,
    pnl_usd=_numbers,
    payback_hours=_numbers,
    version=st.none() | _moments,
)
_many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_order_source_version_and_zone_are_not_in_the_digest() -> None:
    actions = tuple(Action(name, "pm", "pm.a", "entry", {"b": name}) for name in ("a2", "a1", "b"))
    trade = ClosedTrade("t", 1.0, NOON, actions)
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    other = trade._replace(actions=actions[::-1], version=NOON, closed_at=east)
    assert trade_lines(other, "x").digest == trade_lines(trade, "s").digest


def test_dimensions_are_told_apart_whatever_their_order() -> None:
    def digest(scope: dict[str, str]) -> str:
        return trade_lines(
            ClosedTrade("t", 1.0, NOON, (Action("a", "pm", "k", "entry", scope),)), "s"
        ).digest

    assert digest({"a": "1", "b": "2"}) == digest({"b": "2", "a": "1"})
    found = {digest(x) for x in ({"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"a": "1"}, {})}
    assert len(found) == 4


@_many
@given(trade=_trades)
def test_what_is_written_is_what_comes_back(conn: Conn, trade: ClosedTrade) -> None:
    source = "a\tsource\\n"
    lines = trade_lines(trade, source)
    with conn.transaction(force_rollback=True):
        conn.execute("CREATE TEMP TABLE lines (LIKE pattern_trade_events) ON COMMIT DROP")
        conn.execute("ALTER TABLE lines ALTER ingested_at DROP NOT NULL")
        with copying(conn, "lines", EVENT_COLUMNS) as copy:
            copy.write(lines.events)
        found = conn.execute(f"SELECT {', '.join(EVENT_COLUMNS)} FROM lines").fetchall()
    expected = [_row(trade, source, action, lines.digest) for action in trade.actions]
    assert found == expected
    assert lines.n_events == len(trade.actions)


def _row(trade: ClosedTrade, source: str, action: Action, digest: str) -> tuple[object, ...]:
    names = (action.module, action.pattern_key, action.action_category)
    numbers = [
        None if x is None or math.isnan(x) else x for x in (trade.pnl_usd, trade.payback_hours)
    ]
    return (
        trade.trade_id,
        trade.rr,
        trade.closed_at,
        trade.opened_at,
        *numbers,
        trade.hold_hours,
        trade.version,
        source,
        digest,
        f"{trade.trade_id}:{clean_text(action.action_id)}",
        *map(clean_text, names),
        {clean_text(dim): clean_text(value) for dim, value in sorted(action.scope.items())},
        _document(action.applied_overrides),
    )


def _document(applied: Applied | None) -> dict[str, object] | None:
    if applied is None:
        return None
    names = ("multiplier", "suggested", "status", "set_id")
    return {**{name: getattr(applied, name) for name in names}, "overrides": []}


def test_of_two_actions_with_one_name_the_later_one_counts() -> None:
    twice = [Action("a", "pm", f"pm.{k}", "entry", {}) for k in (1, 2)]
    lines = trade_lines(ClosedTrade("t", 1.0, NOON + timedelta(days=1), tuple(twice)), "s")
    assert lines.n_events == 1
    assert "pm.2" in lines.events
    assert "pm.1" not in lines.events
