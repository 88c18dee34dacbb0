"""Reading `ad_strands`: the simulated market comes back whole, and nothing odd gets lost."""

from __future__ import annotations

import gc
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from learning_assets.core.records import ClosedTrade, Reason, RejectedRow
from learning_assets.errors import UserError
from learning_assets.sources import demo
from learning_assets.sources.demo import MarketSettings, simulate, write_strands
from learning_assets.sources.strands import StrandsSource, _loaded, _Reader, _regime_of, _Row
from learning_assets.store.connection import Conn, connect
from learning_assets.store.settings import Settings
from learning_assets.store.settings import settings as book_settings

CLOSED = "2026-03-05T12:00:00+00:00"
DAY = date(2026, 3, 5)
SMALL = MarketSettings(
    *(7, 400), n_effects=0, n_dm_effects=0, late_share=0.1, duplicate_share=0.1, broken_share=0.07
)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Strands:
    """A schema with an empty `ad_strands`, a way to fill it, and its source."""

    book: Settings
    conn: Conn
    schema: str

    @property
    def source(self) -> StrandsSource:
        return StrandsSource(lambda: connect(self.book), self.schema)

    def add(self, row_id: str, kind: str, trade: str | None, content: Any, **columns: Any) -> None:
        row = {
            "id": row_id,
            "kind": kind,
            "trade_id": trade,
            "content": content if isinstance(content, str) else json.dumps(content),
            "created_at": "2026-03-05T12:00:05Z",
            **columns,
        }
        query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            sql.Identifier(self.schema, "ad_strands"),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Placeholder, row)),
        )
        self.conn.execute(query, row)

    def read(self, first: date = date.min, last: date = date.max) -> list[Any]:
        return list(self.source.read(first, last))

    def trade(self) -> ClosedTrade:
        (found,) = self.read()
        assert isinstance(found, ClosedTrade)
        return found

    def rejected(self) -> RejectedRow:
        (found,) = self.read()
        assert isinstance(found, RejectedRow)
        return found


@pytest.fixture(scope="module")
def strands_book(server_env: Mapping[str, str]) -> Settings:
    return book_settings(server_env, "strandstests")


@pytest.fixture
def strands(strands_book: Settings) -> Iterator[Strands]:
    schema = f"strands_{next(_numbers)}"
    with connect(strands_book) as conn:
        conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        table = sql.Identifier(schema, "ad_strands")
        conn.execute(sql.SQL("CREATE TABLE {} ").format(table) + sql.SQL(demo._STRAND_COLUMNS))
        yield Strands(strands_book, conn, schema)


def new_id() -> str:
    return str(uuid.uuid4())


def closing(summary: Mapping[str, Any] | None = None, **content: Any) -> dict[str, Any]:
    whole = {"rr": 1.5, "pnl_usd": 30.0, "exit_timestamp": CLOSED, **(summary or {})}
    return {
        "trade_summary": {name: value for name, value in whole.items() if value is not ...},
        "entry_context": {"chain": "solana"},
        **content,
    }


def action(category: str = "entry", key: str = "pm.uptrend.S1.buy_flag", **scope: Any) -> Any:
    return {"pattern_key": key, "action_category": category, "scope": scope}


# ---- the simulated market ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def market() -> demo.Market:
    return simulate(SMALL)


@pytest.fixture
def written(
    strands_book: Settings, market: demo.Market
) -> Iterator[tuple[demo.WrittenStrands, StrandsSource]]:
    schema = f"market_{next(_numbers)}"
    with connect(strands_book) as conn:
        yield (
            write_strands(conn, market, schema),
            StrandsSource(lambda: connect(strands_book), schema),
        )


def test_the_market_comes_back_whole_and_the_rest_rejected(
    written: tuple[demo.WrittenStrands, StrandsSource], market: demo.Market
) -> None:
    report, source = written
    found = list(source.read(date.min, date.max))
    trades = [t._replace(version=None) for t in found if isinstance(t, ClosedTrade)]
    assert sorted(trades, key=lambda t: (t.closed_at, t.trade_id)) == market.trades
    assert Counter(r.reason for r in found if isinstance(r, RejectedRow)) == report.rejected
    assert len(report.rejected) == 6
    assert min(report.n_late, report.n_duplicates) > 10


def test_days_add_up_to_the_whole(
    written: tuple[demo.WrittenStrands, StrandsSource], market: demo.Market
) -> None:
    _, source = written
    middle = date(2026, 3, 30)
    early = list(source.read(date.min, middle))
    late = list(source.read(middle + timedelta(days=1), date.max))
    whole = {t.trade_id for t in market.trades}
    halves = [{t.trade_id for t in part if isinstance(t, ClosedTrade)} for part in (early, late)]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == whole
    timeless = [
        {r.row_id for r in part if isinstance(r, RejectedRow) and r.closed_at is None}
        for part in (early, late)
    ]
    assert timeless[0] == timeless[1] != set()


def test_the_summary_counts_what_reading_gives(
    written: tuple[demo.WrittenStrands, StrandsSource], market: demo.Market
) -> None:
    report, source = written
    summary = source.summary()
    assert (summary.kind, summary.n_trades) == ("strands", 400)
    assert summary.n_rejected == sum(report.rejected.values())
    assert summary.days == sorted({t.closed_at.date() for t in market.trades})
    assert summary.notes == ()


def test_the_regime_is_that_of_the_newest_strand(
    written: tuple[demo.WrittenStrands, StrandsSource],
) -> None:
    reading = written[1].regime()
    assert reading is not None
    assert set(reading.states) == set(demo.REGIME_DIMENSIONS)
    assert abs(reading.at - SMALL.end) < timedelta(days=3)


@pytest.mark.parametrize(
    "name", ["late_share", "duplicate_share", "broken_share", "embedded_share"]
)
def test_every_setting_of_the_strands_changes_what_is_written(strands: Strands, name: str) -> None:
    def rows(share: float) -> Any:
        shape = replace(SMALL, n_trades=60, **{name: share})
        report = write_strands(strands.conn, simulate(shape), f"{strands.schema}_{name}")
        return (report.n_rows, report.n_late, report.n_duplicates)

    assert rows(0.0) != rows(0.5)


def test_a_simulated_table_may_be_written_again_a_real_one_never(
    strands: Strands, market: demo.Market
) -> None:
    again = f"{strands.schema}_again"
    assert write_strands(strands.conn, market, again) == write_strands(strands.conn, market, again)
    strands.add("mine", "note", None, {})
    with pytest.raises(UserError, match="not simulated"):
        write_strands(strands.conn, market, strands.schema)
    row = strands.conn.execute(
        sql.SQL("SELECT id FROM {}").format(sql.Identifier(strands.schema, "ad_strands"))
    ).fetchone()
    assert row == ("mine",)


# ---- one trade --------------------------------------------------------------------------------


def test_a_trade_with_all_its_fields(strands: Strands) -> None:
    trade = new_id()
    summary = {
        "entry_timestamp": "2026-03-05T02:00:00+02:00",
        "time_to_payback_days": 0.25,
        "hold_time_days": 99,
    }
    context = {"curator_id": "ada", "token_chain": "base", "bucket": "micro", "intent": ""}
    strands.add("c", "position_closed", trade, closing(summary, entry_context=context))
    strands.add("a", "pm_action", trade, action(timeframe="1h", rank=1, leader=True, chain=None))
    found = strands.trade()
    assert (found.trade_id, found.rr, found.pnl_usd, found.payback_hours) == (trade, 1.5, 30, 6)
    assert found.opened_at == datetime(2026, 3, 5, tzinfo=UTC)
    assert found.version == datetime(2026, 3, 5, 12, 0, 5, tzinfo=UTC)
    (only,) = found.actions
    assert (only.action_id, only.module, only.action_category) == ("a", "pm", "entry")
    assert only.pattern_key == "pm.uptrend.S1.buy_flag"
    assert only.scope == {
        "curator": "ada",
        "chain": "base",
        "mcap_bucket": "micro",
        "timeframe": "1h",
        "rank": "1",
        "leader": "true",
    }


def test_own_scope_lies_over_entry_context_over_own_regime(strands: Strands) -> None:
    trade = new_id()
    context = {"chain": "base", "timeframe": "1d", "btc_meso": "S2"}
    regime = {"btc_macro": "S1", "btc_meso": "S3", "btc_micro": "S4", "score": 0.7}
    strands.add(
        *("c", "position_closed", trade, closing(entry_context=context)),
        regime_context=json.dumps({"alt_macro": "S0"}),
    )
    strands.add(
        *("a", "pm_action", trade, action(timeframe="1h")), regime_context=json.dumps(regime)
    )
    assert strands.trade().actions[0].scope == {
        "chain": "base",
        "timeframe": "1h",
        "btc_macro": "S1",
        "btc_meso": "S2",
        "btc_micro": "S4",
    }


def test_the_proper_name_of_a_dimension_wins_over_its_synonym(strands: Strands) -> None:
    trade = new_id()
    context = {"bucket": "mid", "mcap_bucket": "micro"}
    strands.add("c", "position_closed", trade, closing(entry_context=context))
    strands.add("a", "pm_action", trade, action(token_chain="base", chain="bsc"))
    assert strands.trade().actions[0].scope == {"mcap_bucket": "micro", "chain": "bsc"}


def test_what_is_only_known_after_entry_stays_out_of_scopes_and_is_said(strands: Strands) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing())
    strands.add("a", "pm_action", trade, action(exit_reason="stop", timeframe="1h"))
    assert strands.trade().actions[0].scope == {"chain": "solana", "timeframe": "1h"}
    (note,) = strands.source.summary().notes
    assert "exit_reason" in note


def test_several_actions_of_pm_and_dm_make_one_trade(strands: Strands) -> None:
    trade = new_id()
    for name, category in [("a2", "entry"), ("a3", "add"), ("a4", "trim"), ("a5", "exit")]:
        key = "module=pm|pattern_key=uptrend.S1.buy_flag"
        strands.add(name, "pm_action", trade, action(category, key))
    decision = {"pattern_key": "lowcap.S1.allocate", "scope": {"curator": "ada"}}
    strands.add("a1", "decision_lowcap", trade, decision)
    strands.add("a6", "pm_action", trade, action("Allocation", "dm.lowcap.S1.more"))
    strands.add("c", "position_closed", trade, closing())
    found = strands.trade().actions
    assert [a.action_id for a in found] == ["a1", "a2", "a3", "a4", "a5", "a6"]
    assert [a.module for a in found] == ["dm", "pm", "pm", "pm", "pm", "dm"]
    assert {a.pattern_key for a in found} == {
        *("dm.lowcap.S1.allocate", "dm.lowcap.S1.more", "pm.uptrend.S1.buy_flag"),
    }


def test_actions_inside_the_closing_count_where_there_are_no_rows(strands: Strands) -> None:
    trade = new_id()
    inside = [
        {**action("allocation", "dm.lowcap.S1.allocate"), "id": "x1"},
        {**action("entry", timeframe="1h"), "regime_context": {"btc": {"macro": "S2"}}},
        action("exit"),
    ]
    completed = [{"actions": inside[:2]}, {"actions": inside[2:]}, "junk", {"actions": 3}]
    strands.add("c", "position_closed", trade, closing(completed_trades=completed))
    found = strands.trade().actions
    assert [a.action_category for a in found] == ["entry", "exit", "allocation"]
    assert [a.action_id for a in found] == [f"{trade}#1", f"{trade}#2", "x1"]
    assert found[0].scope == {"chain": "solana", "timeframe": "1h", "btc_macro": "S2"}
    strands.add("d", "decision_lowcap", trade, {"pattern_key": "dm.lowcap.S1.allocate"})
    assert {a.action_id for a in strands.trade().actions} == {"d", f"{trade}#1", f"{trade}#2"}
    strands.add("a", "pm_action", trade, action())
    assert [a.action_id for a in strands.trade().actions] == ["a", "d"]


def test_actions_inside_the_closing_with_one_id_are_two(strands: Strands) -> None:
    same = [{**action("entry"), "id": "x"}, {**action("exit"), "id": "x"}]
    completed = [{"actions": same}]
    strands.add("c", "position_closed", new_id(), closing(completed_trades=completed))
    assert [a.action_category for a in strands.trade().actions] == ["entry", "exit"]


@pytest.mark.parametrize("name", ["pnl_usd", "rpnl_usd", "total_pnl_usd"])
def test_profit_has_three_names(strands: Strands, name: str) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing({"pnl_usd": ..., name: "-12.5"}))
    strands.add("a", "pm_action", trade, action())
    assert strands.trade().pnl_usd == -12.5


@pytest.mark.parametrize(
    ("held", "hours"),
    [({"hold_time_days": 0.5}, 12.0), ({"duration_hours": 3}, 3.0), ({}, None)],
)
def test_the_opening_follows_from_the_time_held(
    strands: Strands, held: Mapping[str, Any], hours: float | None
) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing(held))
    strands.add("a", "pm_action", trade, action())
    assert strands.trade().hold_hours == hours


@pytest.mark.parametrize("payback", [None, -1, "nan", ...])
def test_an_unknown_payback_is_unknown(strands: Strands, payback: object) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing({"time_to_payback_days": payback}))
    strands.add("a", "pm_action", trade, action())
    assert strands.trade().payback_hours is None


def test_the_trade_id_may_stand_in_the_content_alone(strands: Strands) -> None:
    trade = new_id()
    strands.add("c", "position_closed", None, closing(trade_id=trade.upper()))
    strands.add("a", "pm_action", None, {**action(), "trade_id": trade})
    strands.add("b", "pm_action", trade, action("exit"))
    found = strands.trade()
    assert found.trade_id == trade
    assert [a.action_id for a in found.actions] == ["a", "b"]


def test_an_rr_beyond_the_limit_is_clipped(strands: Strands) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing({"rr": "-50"}))
    strands.add("a", "pm_action", trade, action())
    assert strands.trade().rr == -33


def test_open_trades_and_other_kinds_are_no_concern(strands: Strands) -> None:
    strands.add("a", "pm_action", new_id(), action())
    strands.add("b", "braid", None, {"x": 1})
    assert strands.read() == []
    assert strands.source.summary().days == []
    assert strands.source.regime() is None


# ---- several rows of one trade ----------------------------------------------------------------


def test_the_newest_closing_counts_whatever_the_order(strands: Strands) -> None:
    trade = new_id()
    newer, newest = "2026-03-05T13:00:00Z", "2026-03-05T14:00:00Z"
    strands.add("a", "pm_action", trade, action())
    strands.add("c2", "position_closed", trade, closing({"rr": 2}), updated_at=newest)
    strands.add("c3", "position_closed", trade, closing({"rr": 3}), updated_at=newer)
    strands.add("c1", "position_closed", trade, closing({"rr": 1}), created_at=newer)
    found = strands.trade()
    assert found.rr == 2
    assert found.version == datetime(2026, 3, 5, 14, tzinfo=UTC)


def test_of_equally_new_closings_the_last_id_counts(strands: Strands) -> None:
    trade = new_id()
    strands.add("a", "pm_action", trade, action())
    for name, rr in [("c2", 2), ("c9", 9), ("c1", 1)]:
        strands.add(name, "position_closed", trade, closing({"rr": rr}))
    assert strands.trade().rr == 9


def test_a_correction_moves_a_trade_to_another_day(strands: Strands) -> None:
    trade = new_id()
    moved = closing({"exit_timestamp": "2026-03-20T12:00:00Z"})
    strands.add("a", "pm_action", trade, action())
    strands.add("c1", "position_closed", trade, closing())
    assert len(strands.read(DAY, DAY)) == 1
    strands.add("c2", "position_closed", trade, moved, updated_at="2026-03-21T00:00:00Z")
    assert strands.read(DAY, DAY) == []
    (found,) = strands.read(date(2026, 3, 20), date(2026, 3, 20))
    assert found.closed_at.day == 20


def test_a_late_action_makes_the_trade_newer(strands: Strands) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing())
    assert strands.rejected().reason == Reason.NO_ACTIONS
    strands.add("a", "pm_action", trade, action(), created_at="2026-03-09T00:00:00Z")
    assert strands.trade().version == datetime(2026, 3, 9, tzinfo=UTC)


def test_a_trade_whose_newest_row_is_bad_is_rejected_with_its_id(strands: Strands) -> None:
    trade = new_id()
    strands.add("a", "pm_action", trade, action())
    strands.add("c1", "position_closed", trade, closing())
    strands.add("c2", "position_closed", trade, closing({"rr": None}))
    found = strands.rejected()
    assert (found.row_id, found.trade_id, found.reason) == ("c2", trade, Reason.BAD_RR)
    assert found.closed_at == datetime(2026, 3, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize("when", ["infinity", "-infinity", "0044-03-15 BC", "12026-01-01"])
def test_a_time_of_writing_that_cannot_be_orders_nothing(strands: Strands, when: str) -> None:
    trade = new_id()
    strands.add("a", "pm_action", trade, action(), created_at=when)
    strands.add("c1", "position_closed", trade, closing({"rr": 1}))
    strands.add("c2", "position_closed", trade, closing({"rr": 2}), created_at=when)
    assert strands.trade().rr == 1


# ---- rejected rows, one reason after the other -------------------------------------------------

DEEP = "[" * 600 + "]" * 600
BAD_CLOSINGS: list[tuple[Reason, Any]] = [
    (Reason.BAD_RR, closing({"rr": ...})),
    (Reason.BAD_RR, closing({"rr": "NaN"})),
    (Reason.BAD_RR, closing({"rr": "abc"})),
    (Reason.BAD_RR, closing({"rr": True})),
    (Reason.BAD_RR, closing({"rr": [1]})),
    (Reason.BAD_RR, '{"trade_summary": {"exit_timestamp": "2026-03-05", "rr": 1e999}}'),
    (Reason.BAD_TIMESTAMP, closing({"exit_timestamp": ...})),
    (Reason.BAD_TIMESTAMP, closing({"exit_timestamp": "yesterday"})),
    (Reason.BAD_TIMESTAMP, closing({"exit_timestamp": "2026-02-30T00:00:00Z"})),
    (Reason.BAD_TIMESTAMP, closing({"exit_timestamp": "2026-03-05T25:00:00Z"})),
    (Reason.BAD_TIMESTAMP, closing({"exit_timestamp": {"at": 1}})),
    (Reason.BAD_TIMESTAMP, closing({"entry_timestamp": "2026-03-06T00:00:00Z"})),
    (Reason.BAD_TIMESTAMP, closing({"entry_timestamp": "soon"})),
    (Reason.BAD_TIMESTAMP, closing({"hold_time_days": 1e300})),
    (Reason.BEFORE_START, closing({"exit_timestamp": "1970-01-01T00:00:00Z"})),
    (Reason.BAD_PAYLOAD, closing({"pnl_usd": "a lot"})),
    (Reason.BAD_PAYLOAD, closing(trade_summary=None)),
    (Reason.BAD_PAYLOAD, closing(trade_summary=[1])),
    (Reason.BAD_PAYLOAD, []),
    (Reason.BAD_PAYLOAD, "null"),
    (Reason.BAD_PAYLOAD, '"text"'),
    (Reason.BAD_PAYLOAD, "7"),
    (Reason.BAD_PAYLOAD, DEEP),
    (Reason.BAD_PAYLOAD, f'{{"deep": {DEEP}}}'),
    (Reason.BAD_PAYLOAD, '{"trade_summary": ' + "9" * 5000 + "}"),
    (Reason.BAD_SCOPE, closing(entry_context={"chain": ["solana"]})),
    (Reason.BAD_SCOPE, closing(entry_context="solana")),
]


@pytest.mark.parametrize(("reason", "content"), BAD_CLOSINGS)
def test_a_bad_closing_is_rejected(strands: Strands, reason: Reason, content: Any) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, content)
    strands.add("a", "pm_action", trade, action())
    found = strands.rejected()
    assert (found.row_id, found.reason, found.trade_id) == ("c", reason, trade)
    assert found.detail
    assert [a["id"] for a in found.payload["actions"]] == ["a"]
    json.dumps(found.payload, allow_nan=False)


BAD_ACTIONS: list[tuple[Reason, Any]] = [
    (Reason.NO_PATTERN_KEY, {"action_category": "entry"}),
    (Reason.NO_PATTERN_KEY, action(key="")),
    (Reason.BAD_PATTERN_KEY, action(key="module=pm|key=x")),
    (Reason.BAD_PATTERN_KEY, {**action(), "pattern_key": 7}),
    (Reason.BAD_MODULE, action(key="dm.uptrend.S1.x")),
    (Reason.BAD_MODULE, action(key="module=xx|pattern_key=a.b.c")),
    (Reason.BAD_CATEGORY, action("hold")),
    (Reason.BAD_CATEGORY, {**action(), "action_category": None}),
    (Reason.BAD_CATEGORY, {**action(), "action_category": {}}),
    (Reason.BAD_SCOPE, {**action(), "scope": [1]}),
    (Reason.BAD_SCOPE, action(chain={"name": "solana"})),
    (Reason.BAD_PAYLOAD, "null"),
    (Reason.BAD_PAYLOAD, "[1, 2]"),
    (Reason.BAD_PAYLOAD, DEEP),
]


@pytest.mark.parametrize(("reason", "content"), BAD_ACTIONS)
def test_a_trade_of_bad_actions_alone_is_rejected_for_the_first(
    strands: Strands, reason: Reason, content: Any
) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing())
    strands.add("a", "pm_action", trade, content)
    found = strands.rejected()
    assert (found.row_id, found.reason, found.trade_id) == ("c", reason, trade)
    assert "a: " in found.detail
    json.dumps(found.payload, allow_nan=False)


@pytest.mark.parametrize(("reason", "content"), BAD_ACTIONS)
def test_a_bad_action_among_good_ones_is_rejected_alone(
    strands: Strands, reason: Reason, content: Any
) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing())
    strands.add("a", "pm_action", trade, content)
    strands.add("b", "pm_action", trade, action())
    found, bad = strands.read()
    assert [a.action_id for a in found.actions] == ["b"]
    # With the trade's id, the store would take the whole trade for rejected.
    assert (bad.row_id, bad.reason, bad.trade_id) == ("a", reason, None)
    assert trade in bad.detail
    assert bad.closed_at == found.closed_at


def test_closings_without_trade_id_are_rejected_each(strands: Strands) -> None:
    strands.add("c1", "position_closed", None, closing())
    strands.add("c2", "position_closed", None, closing(trade_id="  "))
    found = strands.read()
    assert [r.row_id for r in found] == ["c1", "c2"]
    assert {(r.reason, r.trade_id) for r in found} == {(Reason.NO_TRADE_ID, None)}


def test_a_closing_without_content_is_rejected(strands: Strands) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, {})
    strands.conn.execute(
        sql.SQL("UPDATE {} SET content = NULL").format(sql.Identifier(strands.schema, "ad_strands"))
    )
    assert strands.rejected().reason == Reason.BAD_PAYLOAD


# ---- windows ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-03-05T23:59:59.999999Z", date(2026, 3, 5)),
        ("2026-03-05", date(2026, 3, 5)),
        ("2026-03-05 00:30:00+02:00", date(2026, 3, 4)),
        ("2026-03-05T23:30:00-05", date(2026, 3, 6)),
        ("2026-03-31T10:00:00Z", date(2026, 3, 31)),
        ("2028-02-29T10:00:00Z", date(2028, 2, 29)),
        (1772712000, date(2026, 3, 5)),
        ("1772712000000", date(2026, 3, 5)),
    ],
)
def test_a_trade_is_in_the_window_of_its_utc_day_alone(
    strands: Strands, text: object, day: date
) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closing({"exit_timestamp": text}))
    strands.add("a", "pm_action", trade, action())
    one = timedelta(days=1)
    assert len(strands.read(day, day)) == 1
    assert strands.read(day - one, day - one) == strands.read(day + one, day + one) == []
    assert len(strands.read(day - one, day + one)) == 1


@pytest.mark.parametrize("text", ["2026-13-45", "2026-02-30", "2026-01-05T99:00", "?", None, ...])
def test_an_unknown_closing_time_belongs_to_every_window(strands: Strands, text: object) -> None:
    strands.add("c", "position_closed", new_id(), closing({"exit_timestamp": text}))
    for day in (date(2020, 1, 1), date(2026, 1, 5), date(2040, 1, 1)):
        (found,) = strands.read(day, day)
        assert (found.reason, found.closed_at) == (Reason.BAD_TIMESTAMP, None)


def test_a_rejected_row_with_a_closing_time_is_in_its_window_alone(strands: Strands) -> None:
    strands.add("c", "position_closed", new_id(), closing({"rr": None}))
    assert len(strands.read(DAY, DAY)) == 1
    assert strands.read(date(2026, 3, 6), date.max) == []


# ---- the regime -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "context",
    [
        {"btc_macro": "S1", "alt_meso": "S2", "note": "x"},
        {"btc": {"macro": "S1"}, "alt": {"meso": "S2", "at": 3}},
        {"macro": {"btc": "S1"}, "meso": {"alt": "S2"}, "micro": {"btc": [1]}},
    ],
)
def test_the_regime_is_read_flat_and_nested(strands: Strands, context: Any) -> None:
    strands.add("a", "note", None, {}, regime_context=json.dumps(context))
    strands.add("b", "note", None, {}, regime_context='{"phase": "up"}', created_at="2026-04-01Z")
    strands.add("c", "note", None, {}, regime_context="[1]", created_at="2026-04-02Z")
    strands.add(
        "d", "note", None, {}, regime_context='{"btc_macro": "S4"}', created_at="2026-01-01Z"
    )
    reading = strands.source.regime()
    assert reading is not None
    assert reading.states == {"btc_macro": "S1", "alt_meso": "S2"}
    assert reading.at == datetime(2026, 3, 5, 12, 0, 5, tzinfo=UTC)


# ---- a table that cannot be read --------------------------------------------------------------

CALLS: list[Callable[[StrandsSource], object]] = [
    lambda source: source.check(),
    lambda source: source.summary(),
    lambda source: source.regime(),
    lambda source: list(source.read(date.min, date.max)),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("schema", ["nowhere", 'odd "name'])
def test_no_table_is_one_sentence(
    strands: Strands, call: Callable[[StrandsSource], object], schema: str
) -> None:
    source = StrandsSource(lambda: connect(strands.book), schema)
    assert not source.exists()
    with pytest.raises(UserError, match=r"there is no table .*LEARNING_STRANDS_URL"):
        call(source)


@pytest.mark.parametrize("call", CALLS)
def test_missing_columns_are_named_beside_those_there_are(
    strands: Strands, call: Callable[[StrandsSource], object]
) -> None:
    table = sql.Identifier(strands.schema, "ad_strands")
    strands.conn.execute(sql.SQL("ALTER TABLE {} DROP COLUMN content").format(table))
    with pytest.raises(UserError, match="no column content; it has id, module"):
        call(strands.source)
    assert strands.source.exists()


@pytest.mark.parametrize("call", CALLS)
def test_a_view_is_one_sentence(strands: Strands, call: Callable[[StrandsSource], object]) -> None:
    table = sql.Identifier(strands.schema, "ad_strands")
    other = sql.Identifier("behind")
    strands.conn.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(table, other))
    behind = sql.Identifier(strands.schema, "behind")
    strands.conn.execute(sql.SQL("CREATE VIEW {} AS SELECT * FROM {}").format(table, behind))
    with pytest.raises(UserError, match="is a view or a foreign table"):
        call(strands.source)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("may_enter", [False, True])
def test_no_permission_is_one_sentence(
    strands: Strands, call: Callable[[StrandsSource], object], may_enter: bool
) -> None:
    role = sql.Identifier(f"stranger_{next(_numbers)}")
    strands.conn.execute(sql.SQL("CREATE ROLE {}").format(role))
    if may_enter:
        schema = sql.Identifier(strands.schema)
        strands.conn.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))

    def stranger() -> psycopg.Connection[Any]:
        conn = psycopg.connect(strands.book.learning_url, autocommit=True)
        conn.execute(sql.SQL("SET ROLE {}").format(role))
        return conn

    with pytest.raises(UserError, match=r"may not read .*grant it SELECT"):
        call(StrandsSource(stranger, strands.schema))


def test_no_answer_is_one_sentence_without_the_password() -> None:
    source = StrandsSource("postgresql://me:secret@127.0.0.1:1/x")
    with pytest.raises(UserError, match="cannot be read") as caught:
        source.check()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (source.is_live, source.location) == (True, "public.ad_strands")


def test_an_address_does_as_well_as_a_connection(strands: Strands) -> None:
    source = StrandsSource(strands.book.learning_url, strands.schema)
    source.check()
    assert source.exists()
    assert list(source.read(DAY, DAY)) == []


def test_reading_is_read_only_and_may_be_broken_off(strands: Strands) -> None:
    for k in range(3):
        strands.add(f"c{k}", "position_closed", new_id(), closing())
    with (
        strands.source._asking() as conn,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
        conn.transaction(),
    ):
        conn.execute("CREATE TABLE t()")
    reading = strands.source.read(DAY, DAY)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert len(strands.read()) == 3


# ---- anything at all --------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        *("trade_summary", "entry_context", "rr", "exit_timestamp", "entry_timestamp", "scope"),
        *("completed_trades", "actions", "pattern_key", "action_category", "hold_time_days"),
        *("time_to_payback_days", "pnl_usd", "chain", "bucket", "id", "regime_context", "btc"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from([CLOSED, "entry", "allocation", "pm.a.b.c", "1e400", "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)
CONTENTS = VALUES | st.fixed_dictionaries(
    {
        "trade_summary": st.fixed_dictionaries(
            {"rr": VALUES, "exit_timestamp": st.just(CLOSED) | VALUES},
            optional={"entry_timestamp": VALUES, "hold_time_days": VALUES, "pnl_usd": VALUES},
        )
    },
    optional={"entry_context": VALUES, "completed_trades": VALUES},
)


@settings(max_examples=300, deadline=None)
@given(CONTENTS, st.lists(st.tuples(VALUES, VALUES), max_size=3))
def test_no_content_makes_reading_fail(content: Any, actions: list[tuple[Any, Any]]) -> None:
    rows = [_row("c", "position_closed", content, None)]
    rows += [_row(f"a{k}", "pm_action", *texts) for k, texts in enumerate(actions)]
    found = list(_Reader(date.min, date.max).trade(rows))
    assert found
    for record in found:
        if isinstance(record, RejectedRow):
            json.dumps(record.payload, allow_nan=False)
        else:
            assert record.actions


def _row(row_id: str, kind: str, content: Any, regime: Any) -> _Row:
    loaded = _loaded(json.dumps(content)), _regime_of(json.dumps(regime))
    return _Row("t", row_id, kind, None, *loaded)


# ---- what changed -------------------------------------------------------------------------------


def closes(day: str) -> dict[str, Any]:
    return closing({"exit_timestamp": f"{day}T12:00:00Z"})


def test_a_late_commit_is_a_change_whatever_its_timestamps_say(strands: Strands) -> None:
    source = strands.source
    with connect(strands.book) as slow:
        with slow.transaction():
            late = replace(strands, conn=slow)
            late.add("late", "position_closed", new_id(), closes("2026-03-01"))
            strands.add("quick", "position_closed", new_id(), closes("2026-03-02"))
            first = source.changes(None)
            assert first.days == [date(2026, 3, 2)]
        then = source.changes(first.seen)
    assert then.days == [date(2026, 3, 1)]
    assert source.changes(then.seen).days == []


def test_any_strand_of_a_trade_that_changes_names_the_day_of_its_closing(strands: Strands) -> None:
    trade = new_id()
    strands.add("c", "position_closed", trade, closes("2026-03-04"))
    strands.add("o", "position_closed", new_id(), closes("2026-03-07"))
    seen = strands.source.changes(None).seen
    strands.add("a", "pm_action", trade, action())
    strands.add("x", "something_else", trade, {})
    changed = strands.source.changes(seen)
    assert changed.days == [date(2026, 3, 4)]
    strands.conn.execute(
        sql.SQL("UPDATE {} SET created_at = created_at WHERE id = 'o'").format(
            sql.Identifier(strands.schema, "ad_strands")
        )
    )
    assert strands.source.changes(changed.seen).days == [date(2026, 3, 7)]


def test_a_closing_without_a_trade_or_time_is_no_error(strands: Strands) -> None:
    strands.add("n", "position_closed", None, closes("2026-03-04"))
    strands.add("t", "position_closed", new_id(), closing({"exit_timestamp": "soon"}))
    assert strands.source.changes(None).days == [date(2026, 3, 4)]


@pytest.mark.parametrize("partitioned", [False, True])
def test_more_rows_than_are_read_at_once(strands: Strands, partitioned: bool) -> None:
    table = sql.Identifier(strands.schema, "ad_strands")
    if partitioned:
        whole, kind = sql.Identifier(strands.schema, "whole"), sql.SQL("PARTITION BY LIST (kind)")
        strands.conn.execute(sql.SQL("ALTER TABLE {} RENAME TO whole").format(table))
        like = sql.SQL("CREATE TABLE {} (LIKE {}) {}").format(table, whole, kind)
        strands.conn.execute(like)
        for name, rest in (("closings", "FOR VALUES IN ('position_closed')"), ("rest", "DEFAULT")):
            part = sql.Identifier(strands.schema, name)
            create = sql.SQL("CREATE TABLE {} PARTITION OF {} ").format(part, table)
            strands.conn.execute(create + sql.SQL(rest))
    for n in range(150):
        trade, day = new_id(), date(2026, 3, 1) + timedelta(days=n % 7)
        strands.add(f"c{n}", "position_closed", trade, closes(day.isoformat()))
        for k in range(3):
            strands.add(f"a{n}-{k}", "pm_action", trade, action(n=n))
    found = strands.read()
    assert [len(trade.actions) for trade in found] == [3] * 150
    assert {a.action_id for t in found for a in t.actions} == {
        f"a{n}-{k}" for n in range(150) for k in range(3)
    }
    for trade in found:
        assert len({a.scope["n"] for a in trade.actions}) == 1
    days = [trade.closed_at.date() for trade in found]
    assert days == sorted(days)
    second = date(2026, 3, 2)
    assert {t.closed_at.date() for t in strands.read(second, second)} == {second}


def test_rows_that_change_while_they_are_read_are_read_as_they_were(strands: Strands) -> None:
    table = sql.Identifier(strands.schema, "ad_strands")
    for n in range(300):
        strands.add(f"c{n}", "position_closed", new_id(), closes("2026-03-04"))
    reading = strands.source.read(date.min, date.max)
    first = next(reading)
    change = "UPDATE {} SET content = '{{}}', kind = 'pm_action'"
    strands.conn.execute(sql.SQL(change).format(table))
    strands.conn.execute(sql.SQL("VACUUM {}").format(table))
    rest = list(reading)
    assert len([first, *rest]) == 300
    assert {row.closed_at and row.closed_at.date() for row in rest} == {date(2026, 3, 4)}


def test_who_stops_reading_is_told_nothing(
    strands: Strands, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        strands.add(f"c{n}", "position_closed", new_id(), closes("2026-03-04"))
    reading = strands.source.read(date.min, date.max)
    next(reading)
    reading.close()
    del reading
    gc.collect()
    assert not caplog.records
    assert len(strands.read()) == 3


def test_a_snapshot_of_another_server_counts_for_nothing(strands: Strands) -> None:
    strands.add("c", "position_closed", new_id(), closes("2026-03-04"))
    assert strands.source.changes("999999999:999999999:").days == [date(2026, 3, 4)]


@contextmanager
def with_little_memory(book: Settings) -> Iterator[Conn]:
    with connect(book) as conn:
        conn.execute("SET work_mem = '64kB'")
        conn.execute("SET statement_timeout = '30s'")
        yield conn


def test_many_changes_at_once_are_found_without_comparing_each_with_each(strands: Strands) -> None:
    table = sql.Identifier(strands.schema, "ad_strands")
    fill = sql.SQL(
        "INSERT INTO {} (id, kind, trade_id, content, created_at) SELECT 'c' || n, "
        "'position_closed', gen_random_uuid(), jsonb_build_object('trade_summary', "
        "jsonb_build_object('exit_timestamp', date '2026-03-01' + n %% 90)), now() "
        "FROM generate_series(1, %s) AS n"
    )
    strands.conn.execute(fill.format(table), [30_000])
    strands.conn.execute(sql.SQL("ANALYZE {}").format(table))
    source = StrandsSource(lambda: with_little_memory(strands.book), strands.schema)
    changes = source.changes(None)
    assert len(changes.days) == 90
    assert source.changes(changes.seen).days == []
