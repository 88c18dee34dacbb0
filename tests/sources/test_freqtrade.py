"""freqtrade exports and databases: what becomes an action, in which R, and what is one trade."""

from __future__ import annotations

import io
import itertools
import json
import sqlite3
import zipfile
from collections import Counter
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_assets.core.records import ClosedTrade, Reason
from learning_assets.errors import UserError
from learning_assets.sources.detect import open_source

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "freqtrade-backtests"
OPENED = datetime(2024, 5, 4, 8, 25, tzinfo=UTC)  # a Saturday, in the European session
RUN = datetime(2024, 9, 7, tzinfo=UTC)


def _ms(at):
    return int(at.timestamp() * 1000)


def _order(at, *, entry):
    stamp = None if at is None else _ms(at)
    return {"ft_is_entry": entry, "order_filled_timestamp": stamp, "amount": 1.0}


def _trade(pair="ARKM/USDT", opened=OPENED, hours=2.0, profit=0.03, **more):
    closed = opened + timedelta(hours=hours)
    return {
        "pair": pair,
        "open_date": str(opened),
        "close_date": str(closed),
        "profit_ratio": profit,
        "profit_abs": profit * 100,
        "initial_stop_loss_ratio": -0.15,
        "is_open": False,
        "enter_tag": "cross",
        "leverage": 1.0,
        "is_short": False,
        "orders": [_order(opened, entry=True), _order(closed, entry=False)],
        **more,
    }


def _export(*trades, strategy="Daily", run=RUN, **more):
    result = {
        "trades": list(trades),
        "timeframe": "5m",
        "stoploss": -0.15,
        "backtest_run_start_ts": int(run.timestamp()),
        **more,
    }
    return {"strategy": {strategy: result}, "strategy_comparison": []}


def _write(path, document):
    path.write_text(json.dumps(document))
    return path


def _opened(tmp_path, *trades, risk=None, **more):
    return open_source(_write(tmp_path / "backtest.json", _export(*trades, **more)), risk=risk)


def _rows(source):
    return list(source.read(date.min, date.max))


def test_a_trade_of_an_export(tmp_path):
    source = _opened(tmp_path, _trade())
    (trade,) = _rows(source)
    assert trade.trade_id == "Daily:ARKM/USDT:long:2024-05-04T08:25:00Z"
    assert trade.rr == pytest.approx(0.2)
    assert (trade.opened_at, trade.closed_at) == (OPENED, OPENED + timedelta(hours=2))
    assert (trade.pnl_usd, trade.payback_hours, trade.version) == (3.0, None, RUN)
    (action,) = trade.actions
    assert (action.module, action.pattern_key, action.action_category) == (
        "pm",
        "pm.Daily.long.cross",
        "entry",
    )
    assert action.scope == {
        "base": "ARKM",
        "direction": "long",
        "leverage_bucket": "1x",
        "pair": "ARKM/USDT",
        "quote": "USDT",
        "session": "europe",
        "timeframe": "5m",
        "weekday": "sat",
    }
    assert list(action.scope) == sorted(action.scope)
    summary = source.summary()
    assert (summary.kind, summary.n_trades, summary.n_rejected) == ("freqtrade", 1, 0)
    assert list(summary.days) == [OPENED.date()]
    assert summary.notes == ("Daily: rr is profit ÷ stop loss in 1 trade.",)
    assert not source.is_live
    assert source.regime() is None


def test_shorts_futures_and_odd_names(tmp_path):
    odd = _trade("BTC/EUR:EUR", is_short=True, leverage=3.0, enter_tag="a b.c")
    (trade,) = _rows(_opened(tmp_path, odd, strategy="My.Strategy 2"))
    (action,) = trade.actions
    assert action.pattern_key == "pm.My_Strategy_2.short.a_b_c"
    assert action.scope["direction"] == "short"
    assert (action.scope["base"], action.scope["quote"]) == ("BTC", "EUR")
    assert action.scope["leverage_bucket"] == "to_5x"
    assert trade.pnl_usd is None  # 3 EUR are not 3 USD


def test_a_trade_without_a_tag_is_an_entry(tmp_path):
    rows = _rows(_opened(tmp_path, _trade(enter_tag=None), _trade("A/USDT", enter_tag="")))
    assert {row.actions[0].pattern_key for row in rows} == {"pm.Daily.long.entry"}


def test_orders_become_entry_adds_and_trims(tmp_path):
    hours = [OPENED + timedelta(hours=n) for n in range(24)]
    orders = [
        _order(hours[9], entry=False),  # at 17:25: American session
        _order(hours[0], entry=True),
        _order(hours[16], entry=True),  # at 00:25 on Sunday
        _order(None, entry=True),  # never filled
        _order(hours[20], entry=False),
    ]
    (trade,) = _rows(_opened(tmp_path, _trade(hours=20, orders=orders)))
    seen = [(a.action_category, a.scope["weekday"], a.scope["session"]) for a in trade.actions]
    assert seen == [
        ("entry", "sat", "europe"),
        ("add", "sun", "asia"),
        ("trim", "sat", "us"),
    ]
    assert len({action.action_id for action in trade.actions}) == 3
    assert {action.scope["pair"] for action in trade.actions} == {"ARKM/USDT"}


def test_exports_without_orders_have_the_entry(tmp_path):
    bare = {name: value for name, value in _trade().items() if name != "orders"}
    (trade,) = _rows(_opened(tmp_path, bare))
    assert [action.action_category for action in trade.actions] == ["entry"]


def test_the_stop_of_the_trade_comes_before_the_strategys(tmp_path):
    own = _trade(initial_stop_loss_ratio=-0.1, profit=0.03)
    without = _trade("B/USDT", initial_stop_loss_ratio=None, profit=0.03)
    rows = _rows(_opened(tmp_path, own, without, stoploss=-0.3))
    assert sorted(row.rr for row in rows) == pytest.approx([0.1, 0.3])


def test_leverage_is_in_both_ratios(tmp_path):
    plain, levered = _trade("A/USDT"), _trade("B/USDT", leverage=10.0)
    first, second = _rows(_opened(tmp_path, plain, levered))
    assert first.rr == second.rr


def test_an_emergency_stop_gives_way_to_the_mean_loss(tmp_path):
    stop = {"initial_stop_loss_ratio": -0.5}
    profits = {"A/USDT": 0.06, "B/USDT": -0.02, "C/USDT": -0.04}
    trades = [_trade(pair, profit=profit, **stop) for pair, profit in profits.items()]
    source = _opened(tmp_path, *trades, stoploss=-0.99)
    assert sorted(row.rr for row in _rows(source)) == pytest.approx([-4 / 3, -2 / 3, 2.0])
    (note,) = source.summary().notes
    assert "0.0300 of the stake" in note
    assert "mean loss of 2 losing trades" in note
    assert "--risk" in note


def test_a_strategy_that_sits_out_its_losses_is_measured_by_its_excursions(tmp_path):
    stop = {"initial_stop_loss_ratio": -0.5, "open_rate": 100.0, "max_rate": 108.0}
    long_trade = _trade("A/USDT", profit=0.06, min_rate=98.0, **stop)
    short_trade = _trade("B/USDT", profit=0.03, is_short=True, min_rate=99.0, **stop)
    source = _opened(tmp_path, long_trade, short_trade, stoploss=-0.99)
    rows = {row.trade_id.split(":")[1]: row.rr for row in _rows(source)}
    assert rows == pytest.approx({"A/USDT": 0.06 / 0.05, "B/USDT": 0.03 / 0.05})
    (note,) = source.summary().notes
    assert "0.0500 of the stake (the mean adverse excursion, since only 0 of 2 lost" in note


def test_a_named_risk_replaces_the_emergency_stop_only(tmp_path):
    emergency = _trade("A/USDT", profit=0.06, initial_stop_loss_ratio=-0.99)
    source = _opened(tmp_path, emergency, _trade("B/USDT"), stoploss=-0.99, risk=0.03)
    assert {row.trade_id.split(":")[1]: row.rr for row in _rows(source)} == pytest.approx(
        {"A/USDT": 2.0, "B/USDT": 0.2}
    )
    assert source.summary().notes == (
        "Daily: rr is profit ÷ stop loss in 1 trade.",
        "Daily: rr is profit ÷ the risk named with --risk in 1 trade.",
    )


def test_without_stop_and_losers_there_is_no_r(tmp_path):
    trades = [_trade(pair, initial_stop_loss_ratio=-0.99) for pair in ("A/USDT", "B/USDT")]
    source = _opened(tmp_path, *trades, stoploss=-0.99)
    rows = _rows(source)
    assert [row.reason for row in rows] == [Reason.NO_RISK] * 2
    assert all("--risk" in row.detail and row.trade_id and row.closed_at for row in rows)
    assert source.summary().n_trades == 0


def test_the_risk_is_measured_strategy_by_strategy(tmp_path):
    one = _export(_trade(profit=-0.02, initial_stop_loss_ratio=None), stoploss=None)
    two = _export(_trade(profit=-0.04, initial_stop_loss_ratio=None), stoploss=None, strategy="B")
    one["strategy"].update(two["strategy"])
    source = open_source(_write(tmp_path / "multi.json", one))
    assert [row.rr for row in _rows(source)] == [-1.0, -1.0]
    assert {row.actions[0].pattern_key for row in _rows(source)} == {
        "pm.Daily.long.cross",
        "pm.B.long.cross",
    }


def test_open_trades_are_neither_used_nor_rejected(tmp_path):
    still = _trade("A/USDT", is_open=True, close_date=None)
    source = _opened(tmp_path, still, _trade())
    assert source.summary().n_trades == 1
    assert source.summary().n_rejected == 0
    assert any("1 trade still open" in note for note in source.summary().notes)


def test_forced_exits_are_closings(tmp_path):
    assert _opened(tmp_path, _trade(exit_reason="force_exit")).summary().n_trades == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"profit_ratio": None}, Reason.BAD_RR),
        ({"profit_ratio": "abc"}, Reason.BAD_RR),
        ({"close_date": "soon"}, Reason.BAD_TIMESTAMP),
        ({"close_date": None}, Reason.BAD_TIMESTAMP),
        ({"close_date": str(OPENED - timedelta(days=1))}, Reason.BAD_TIMESTAMP),
        ({"open_date": None}, Reason.BAD_TIMESTAMP),
        ({"open_date": "2001-01-01", "close_date": "2001-01-02"}, Reason.BEFORE_START),
        ({"pair": None}, Reason.NO_TRADE_ID),
        ({"orders": "many"}, Reason.BAD_PAYLOAD),
    ],
)
def test_a_broken_trade_is_kept_with_its_reason(tmp_path, change, reason):
    source = _opened(tmp_path, _trade("A/USDT"), _trade(**change))
    rejected = [row for row in _rows(source) if not isinstance(row, ClosedTrade)]
    assert [row.reason for row in rejected] == [reason]
    assert rejected[0].detail.startswith("backtest.json: ")
    assert rejected[0].payload["enter_tag"] == "cross"
    assert (source.summary().n_trades, source.summary().n_rejected) == (1, 1)


def test_what_is_no_trade_at_all_is_rejected(tmp_path):
    (row,) = _rows(_opened(tmp_path, 17))
    assert (row.reason, dict(row.payload)) == (Reason.NO_TRADE_ID, {"trade": 17})


def test_copies_in_one_export_must_agree(tmp_path):
    (same,) = _rows(_opened(tmp_path, _trade(), _trade()))
    assert isinstance(same, ClosedTrade)
    (torn,) = _rows(_opened(tmp_path, _trade(), _trade(profit=0.06)))
    assert torn.reason is Reason.CONFLICTING_ROWS
    assert torn.trade_id == same.trade_id


def test_in_a_folder_the_newest_run_has_the_say(tmp_path):
    _write(tmp_path / "a.json", _export(_trade(profit=0.06), run=RUN + timedelta(days=1)))
    _write(tmp_path / "b.json", _export(_trade(profit=0.03), _trade("B/USDT")))
    _write(tmp_path / "b.meta.json", {"Daily": {"run_id": "1"}})
    _write(tmp_path / ".last_result.json", {"latest_backtest": "b.json"})
    _write(tmp_path / "settings.json", {"a": 1})
    source = open_source(tmp_path)
    assert {row.trade_id.split(":")[1]: row.rr for row in _rows(source)} == pytest.approx(
        {"ARKM/USDT": 0.4, "B/USDT": 0.2}
    )
    assert any("1 duplicate of trades" in note for note in source.summary().notes)


def test_an_entry_taken_by_several_strategies_is_reported(tmp_path):
    document = _export(_trade(), _trade("B/USDT"))
    document["strategy"].update(_export(_trade(), strategy="Variant")["strategy"])
    source = open_source(_write(tmp_path / "x.json", document))
    assert source.summary().n_trades == 3
    assert any(
        "3 trades come from only 2 different market entries" in note
        for note in source.summary().notes
    )


def test_the_version_may_come_from_the_file_name(tmp_path):
    document = _export(_trade(), backtest_run_start_ts=None)
    source = open_source(_write(tmp_path / "backtest-result-2024-09-06_22-42-22.json", document))
    assert _rows(source)[0].version == datetime(2024, 9, 6, 22, 42, 22, tzinfo=UTC)


def test_a_zip_is_its_export(tmp_path):
    path = tmp_path / "backtest-result.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("backtest-result.json", json.dumps(_export(_trade())))
        archive.writestr("backtest-result_config.json", json.dumps({"strategy": "Daily"}))
        archive.writestr("backtest-result_Daily.json", json.dumps({"params": {}}))
        archive.writestr("backtest-result_Daily.py", "class Daily: ...")
        archive.writestr("backtest-result_market_change.feather", b"\x00\x01")
    plain = _opened(tmp_path, _trade())
    assert _rows(open_source(path)) == _rows(plain)


def test_zips_that_are_none(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match="damaged"):
        open_source(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match=r"no freqtrade backtest export.*readme\.txt"):
        open_source(path)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r.json", json.dumps(_export(_trade())))
    spoilt = bytearray(whole.getvalue())
    spoilt[45:60] = b"\xff" * 15
    path.write_bytes(bytes(spoilt))
    with pytest.raises(UserError, match="damaged"):
        open_source(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "it holds a list"),
        ('{"b": 1, "a": 2}', "top-level keys are: a, b"),
        ('{"strategy": "Daily"}', "top-level keys are: strategy"),
        ('{"strategy": {"Daily": {}}}', "expected the key 'strategy'"),
        ("", "is empty"),
    ],
)
def test_json_that_is_no_export(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(path)


def test_options_of_tables_are_refused(tmp_path):
    path = _write(tmp_path / "x.json", _export(_trade()))
    with pytest.raises(UserError, match="--mapping"):
        open_source(path, mapping=tmp_path / "m.toml")
    with pytest.raises(UserError, match="--force-scope"):
        open_source(path, force_scope=True)
    with pytest.raises(UserError, match="fraction"):
        open_source(path, risk=5.0)


# A bot's database

TRADE_COLUMNS = (
    "id, strategy, pair, is_open, is_short, open_date, close_date, close_profit, close_profit_abs, "
    "initial_stop_loss_pct, enter_tag, leverage, timeframe"
)
ORDER_COLUMNS = (
    "ft_trade_id, ft_order_side, ft_is_open, status, filled, order_date, order_filled_date"
)


def _database(path, trades, orders):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE trades ({TRADE_COLUMNS})")
        database.execute(f"CREATE TABLE orders ({ORDER_COLUMNS})")
        database.execute("CREATE TABLE trade_custom_data (id, ft_trade_id)")
        database.executemany(f"INSERT INTO trades VALUES ({','.join('?' * 13)})", trades)
        database.executemany(f"INSERT INTO orders VALUES ({','.join('?' * 7)})", orders)
    return path


def _live(number, *, pair="BTC/USDT", is_open=0, is_short=0, profit=0.03):
    at = ("2024-05-04 08:25:00.000000", None if is_open else "2024-05-04 10:25:00.123000")
    return (number, "Daily", pair, is_open, is_short, *at, profit, 3.0, -0.1, "cross", 2.0, 60)


def _filled(number, side, clock, *, filled=1.0, is_open=0):
    at = f"2024-05-04 {clock}:00.000000"
    return (number, side, is_open, "closed", filled, at, at)


def test_a_live_database(tmp_path):
    orders = [
        _filled(1, "buy", "08:25"),
        _filled(1, "buy", "09:00"),
        _filled(1, "buy", "09:10", filled=0.0),  # cancelled
        _filled(1, "sell", "09:30"),
        _filled(1, "stoploss", "10:25"),
        _filled(1, "sell", "10:26", is_open=1),
        _filled(2, "sell", "08:25"),
        _filled(2, "buy", "10:25"),
    ]
    trades = [_live(1), _live(2, is_short=1, profit=-0.1), _live(3, pair="C/USDT", is_open=1)]
    source = open_source(_database(tmp_path / "tradesv3.sqlite", trades, orders))
    assert source.is_live
    long, short = sorted(_rows(source), key=lambda row: row.trade_id)
    assert long.trade_id == "Daily:BTC/USDT:long:2024-05-04T08:25:00Z"
    assert [action.action_category for action in long.actions] == ["entry", "add", "trim"]
    assert [action.action_category for action in short.actions] == ["entry"]
    assert (long.rr, short.rr) == pytest.approx((0.3, -1.0))
    assert long.actions[0].scope["timeframe"] == "1h"
    assert long.actions[0].scope["leverage_bucket"] == "to_2x"
    assert long.version == datetime(2024, 5, 4, 10, 25, 0, 123000, tzinfo=UTC)
    assert any("1 trade still open" in note for note in source.summary().notes)


def test_a_live_database_is_read_again_when_it_grows(tmp_path):
    path = _database(tmp_path / "tradesv3.sqlite", [_live(1)], [])
    source = open_source(path)
    assert source.summary().n_trades == 1
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            f"INSERT INTO trades VALUES ({','.join('?' * 13)})", _live(2, pair="D/USDT")
        )
    assert source.summary().n_trades == 2


def test_reading_leaves_the_database_as_it_was(tmp_path):
    path = _database(tmp_path / "tradesv3.sqlite", [_live(1)], [])
    before = path.read_bytes()
    open_source(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tradesv3.sqlite"]


def test_databases_that_are_none(tmp_path):
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 30)
    with pytest.raises(UserError, match="cannot be read as a freqtrade database"):
        open_source(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE candles (id)")
    with pytest.raises(UserError, match="no table trades, but: candles"):
        open_source(path)


# Properties and the real files


@given(st.lists(st.floats(-0.9, 3.0), min_size=1, max_size=8), st.randoms())
def test_the_order_of_trades_does_not_matter(tmp_path_factory, profits, random):
    folder = tmp_path_factory.mktemp("order")
    trades = [_trade(f"P{n}/USDT", profit=profit) for n, profit in enumerate(profits)]
    first = _rows(_opened(folder, *trades))
    random.shuffle(trades)
    (folder / "backtest.json").unlink()
    assert _rows(_opened(folder, *trades)) == first


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real exports are not at {SHARED}")
class TestRealExports:
    N_TRADES = (225, 479, 557, 353, 391)

    def test_every_trade_is_used_or_rejected(self):
        files = sorted(SHARED.glob("*.json"))
        for path, expected in zip(files, self.N_TRADES, strict=True):
            summary = open_source(path).summary()
            assert summary.n_trades + summary.n_rejected == expected
            assert summary.n_rejected == 0
            assert list(summary.days) == sorted(set(summary.days))

    def test_each_trade_once_over_all_five(self):
        source = open_source(SHARED)
        trades = source.batch.trades
        assert len({trade.trade_id for trade in trades}) == len(trades) == 1995
        entries = {(trade.actions[0].scope["pair"], trade.opened_at) for trade in trades}
        assert len(entries) == 1726
        assert any("1995 trades come from only 1726" in note for note in source.summary().notes)
        assert any("10 duplicates of trades" in note for note in source.summary().notes)
        kinds = Counter(action.action_category for trade in trades for action in trade.actions)
        assert kinds == {"entry": 1995, "add": 121}

    def test_days_add_up_to_the_whole(self):
        source = open_source(SHARED)
        days = source.summary().days
        by_day = itertools.chain.from_iterable(source.read(day, day) for day in days)
        assert list(by_day) == _rows(source)
