"""The mixin for freqtrade on a stand-in for its base class: stakes, records, settings, modes.

The real freqtrade is in `tests/e2e/test_freqtrade_stakes.py`.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from learning_assets.core.records import APPLIED
from learning_assets.runtime import InSampleError, OverrideBook
from learning_assets.runtime.freqtrade import LearnedStakes, resized
from learning_assets.runtime.freqtrade_settings import (
    LearnedSettings,
    Mode,
    mode_of,
    timerange_of,
)
from learning_assets.sources.detect import open_source

MONDAY = datetime(2025, 3, 3, tzinfo=UTC)
NOON = MONDAY + timedelta(hours=12, minutes=3)
WEEK = timedelta(weeks=1)


class IStrategy:
    """What the mixin stands before."""

    timeframe = "5m"

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.said: list[str] = []

    def get_strategy_name(self) -> str:
        return type(self).__name__

    def bot_start(self, **kwargs: Any) -> None:
        self.said.append("bot_start")

    def ft_bot_cleanup(self) -> None:
        self.said.append("cleanup")

    def order_filled(self, **kwargs: Any) -> None:
        self.said.append("order_filled")

    def custom_stake_amount(self, **kwargs: Any) -> float:
        return float(kwargs["proposed_stake"])


class My(LearnedStakes, IStrategy):
    pass


@dataclass
class Order:
    ft_order_side: str
    safe_amount_after_fee: float = 1.0


@dataclass
class Trade:
    """The parts of freqtrade's that are used."""

    pair: str = "BTC/USDT"
    is_short: bool = False
    enter_tag: str | None = "volume"
    leverage: float = 1.0
    open_date_utc: datetime = NOON
    is_open: bool = True
    orders: list[Order] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def entry_side(self) -> str:
        return "sell" if self.is_short else "buy"

    @property
    def exit_side(self) -> str:
        return "buy" if self.is_short else "sell"

    @property
    def nr_of_successful_entries(self) -> int:
        return len(self.select_filled_orders(self.entry_side))

    @property
    def nr_of_successful_exits(self) -> int:
        return len(self.select_filled_orders(self.exit_side))

    def select_filled_orders(self, side: str) -> list[Order]:
        return [order for order in self.orders if order.ft_order_side == side]

    def get_custom_data(self, key: str, default: Any = None) -> Any:
        return json.loads(self.data[key]) if key in self.data else default

    def set_custom_data(self, key: str, value: Any) -> None:
        self.data[key] = json.dumps(value)


def override(multiplier: float, category: str = "entry", **scope: str) -> dict[str, Any]:
    return {
        "group": ["pm", "pm.My.long.volume", category],
        "scope_subset": scope,
        "multiplier": multiplier,
    }


def document(number: int, begin: datetime, *overrides: Mapping[str, Any], replay: bool) -> Any:
    end = (begin + WEEK).isoformat() if replay else datetime(2999, 1, 1, tzinfo=UTC).isoformat()
    times = {"as_of": begin.isoformat(), "published_at": begin.isoformat(), "expires_at": end}
    live = {"live_from": None if replay else begin.isoformat(), "live_to": None, "replay": replay}
    return {"set_id": number, **times, **live, "overrides": list(overrides)}


def written(path: Path, *sets: Any) -> str:
    path.write_text(json.dumps({"sets": sets}))
    return str(path)


@pytest.fixture
def live(tmp_path: Path) -> str:
    made = override(1.5, base="BTC"), override(0.5, "add"), override(0.8, "trim")
    return written(tmp_path / "live.json", document(7, MONDAY, *made, replay=False))


@pytest.fixture
def replays(tmp_path: Path) -> str:
    return written(
        tmp_path / "replays.json",
        document(1, MONDAY, replay=True),
        document(2, MONDAY + WEEK, override(1.2), replay=True),
        document(9, MONDAY, override(3.0), replay=False),
    )


def started(runmode: str = "dry_run", of: type[Any] = My, **learning: Any) -> Any:
    config = {"runmode": runmode, "timerange": "20250303-20250317", "learning": learning}
    strategy = of(config)
    strategy.bot_start()
    return strategy


def stake(strategy: Any, **other: Any) -> float:
    asked = {
        "pair": "BTC/USDT",
        "current_time": NOON,
        "current_rate": 1.0,
        "leverage": 1.0,
        "proposed_stake": 100.0,
        "min_stake": 10.0,
        "max_stake": 1000.0,
        "entry_tag": "volume",
        "side": "long",
    }
    return float(strategy.custom_stake_amount(**{**asked, **other}))


def test_a_stake_is_the_proposed_one_times_the_multiplier_within_the_bounds(live: str) -> None:
    strategy = started(file=live)
    assert stake(strategy) == 150.0
    assert stake(strategy, pair="ETH/USDT") == 100.0
    assert stake(strategy, side="short") == stake(strategy, entry_tag=None) == 100.0
    assert stake(strategy, max_stake=120.0) == 120.0
    assert stake(strategy, min_stake=None) == 150.0
    assert stake(strategy, pair=None) == 100.0
    assert strategy.said == ["bot_start"]


@pytest.mark.parametrize(
    ("proposed", "multiplier", "low", "high", "expected"),
    [
        (100.0, 0.5, 80.0, 200.0, 80.0),
        (100.0, 0.5, None, 200.0, 50.0),
        (100.0, 0.5, 120.0, 200.0, 100.0),  # too small already: freqtrade decides
        (300.0, 1.5, 10.0, 200.0, 300.0),  # too large already, likewise
        (300.0, 0.5, 10.0, 200.0, 150.0),
        (100.0, 1.0, 120.0, 50.0, 100.0),
        (0.0, 1.5, 10.0, 200.0, 0.0),
        (None, 1.5, 10.0, 200.0, None),  # the strategy wants no trade
        (100.0, 1.5, 10.0, None, 150.0),
    ],
)
def test_bounds_hold_and_what_is_outside_is_not_moved_in(
    proposed: Any, multiplier: float, low: float | None, high: float | None, expected: Any
) -> None:
    assert resized(proposed, multiplier, low, high) == expected


def test_a_strategy_with_stakes_of_its_own_combines_both_ways(live: str) -> None:
    class Own(IStrategy):
        def custom_stake_amount(self, proposed_stake: float, **kwargs: Any) -> float:
            return proposed_stake / 4

    below = type("My", (LearnedStakes, Own), {})
    assert stake(started(of=below, file=live)) == 37.5

    class Above(LearnedStakes, IStrategy):
        def get_strategy_name(self) -> str:
            return "My"

        def custom_stake_amount(self, proposed_stake: float, **kwargs: Any) -> float:
            return super().custom_stake_amount(proposed_stake=proposed_stake / 2, **kwargs)

    assert stake(started(of=Above, file=live)) == 75.0


def test_without_its_bot_start_stakes_are_as_proposed(
    live: str, caplog: pytest.LogCaptureFixture
) -> None:
    strategy: Any = My({"runmode": "live", "learning": {"file": live}})
    assert stake(strategy) == stake(strategy) == 100.0
    assert [record.message for record in caplog.records] == [
        "Stakes are as proposed: bot_start must call super().bot_start()."
    ]
    assert strategy.learned_multiplier(Trade(), NOON) == 1.0


def filled(strategy: Any, trade: Trade, side: str, amount: float = 1.0) -> None:
    trade.orders.append(Order(side, amount))
    strategy.order_filled(
        pair=trade.pair, trade=trade, order=trade.orders[-1], current_time=trade.open_date_utc
    )


def test_what_was_applied_is_kept_by_the_importers_action_names(live: str) -> None:
    strategy, trade = started(file=live), Trade()
    stake(strategy)
    filled(strategy, trade, "buy")
    for n in (1, 2):
        assert strategy.learned_multiplier(trade, NOON + n * timedelta(hours=1)) == 0.5
        filled(strategy, trade, "buy")
    assert strategy.learned_multiplier(trade, NOON, category="trim") == 0.8
    filled(strategy, trade, "sell")
    strategy.learned_multiplier(trade, NOON, category="trim")
    filled(strategy, trade, "sell", 2.0)  # the last exit decides nothing
    kept = trade.get_custom_data(APPLIED)
    assert list(kept) == ["entry", "add1", "add2", "trim1"]
    assert kept["entry"] == {
        "multiplier": 1.5,
        "suggested": 1.5,
        "status": "ok",
        "reason": "",
        "set_id": 7,
        "overrides": [{"lesson_id": "pm.My.long.volume/entry/base=BTC", "multiplier": 1.5}],
    }
    assert [kept[name]["multiplier"] for name in ("add1", "add2", "trim1")] == [0.5, 0.5, 0.8]
    assert strategy.said.count("order_filled") == 5


def test_an_order_whose_stake_was_not_asked_for_leaves_no_record(live: str) -> None:
    strategy, trade = started(file=live), Trade()
    filled(strategy, trade, "buy")
    assert trade.data == {}
    stake(strategy)
    late = Trade(open_date_utc=NOON + timedelta(minutes=1, seconds=59), orders=[])
    filled(strategy, late, "buy")  # the order was placed as the next candle began? the same one
    assert "entry" in late.get_custom_data(APPLIED)
    stake(strategy, current_time=NOON + timedelta(minutes=1, seconds=59))
    next_candle = Trade(open_date_utc=NOON + timedelta(minutes=2, seconds=1))
    filled(strategy, next_candle, "buy")
    assert "entry" in next_candle.get_custom_data(APPLIED)


def test_a_trade_that_cannot_be_written_to_is_no_error(live: str) -> None:
    strategy = started(file=live)
    stake(strategy)
    trade: Any = Trade()
    trade.set_custom_data = None
    filled(strategy, trade, "buy")
    assert trade.data == {}


def test_why_stakes_are_as_proposed_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = started(file=str(tmp_path / "none.json"))
    assert stake(strategy) == stake(strategy) == 100.0
    (said,) = (record.message for record in caplog.records)
    assert said.startswith("Stakes are as proposed: ")
    assert said.endswith("cannot be read (No such file or directory)")


def test_the_hold_out_goes_with_the_trade(live: str) -> None:
    strategy = started(file=live, hold_out=0.5)
    times = [NOON + k * timedelta(minutes=5) for k in range(200)]
    by_entry = [stake(strategy, current_time=at) == 100.0 for at in times]
    trades = [Trade(open_date_utc=at + timedelta(seconds=20)) for at in times]
    by_add = [strategy.learned_multiplier(trade, MONDAY + WEEK) == 1.0 for trade in trades]
    assert by_entry == by_add
    assert 60 < sum(by_entry) < 140


def test_a_backtest_asks_the_sets_of_its_time(replays: str) -> None:
    strategy = started("backtest", file=replays)
    assert stake(strategy) == 100.0
    assert stake(strategy, current_time=NOON + WEEK) == pytest.approx(120.0)
    assert strategy.config["learning_opened_at"]


def test_a_backtest_over_trades_that_a_set_has_seen_is_refused_unless_forced(live: str) -> None:
    with pytest.raises(InSampleError, match=r"learning replay --from 2025-03-03 .*in_sample"):
        started("backtest", file=live)
    assert stake(started("hyperopt", file=live, in_sample=True)) == 150.0
    forced = started("backtest", file=live, in_sample=True)
    trade = Trade()
    stake(forced)
    filled(forced, trade, "buy")
    assert trade.get_custom_data(APPLIED)["entry"]["reason"].startswith("in sample: set 7")


def test_hyperopt_takes_the_strategy_to_other_processes(replays: str) -> None:
    strategy = started("hyperopt", file=replays)
    there = pickle.loads(pickle.dumps(strategy))
    assert stake(there, current_time=NOON + WEEK) == pytest.approx(120.0)
    assert pickle.loads(pickle.dumps(started(file=replays)))


def test_hyperopt_comes_to_no_base_that_it_cannot_send() -> None:
    def sent(bases: tuple[type, ...]) -> list[str]:  # as its `hyperopt_pickle_magic` does
        found = [base for base in bases if base.__name__ != "IStrategy"]
        return [m for base in found for m in (base.__module__, *sent(base.__bases__))]

    assert sent(My.__bases__) == ["learning_assets.runtime.freqtrade"]


def test_charts_and_analyses_ask_for_nothing() -> None:
    assert stake(started("plot", file="none")) == 100.0
    assert [mode_of(name) for name in ("live", "other", None)] == [Mode.LIVE, Mode.OFF, Mode.OFF]


def test_switched_off_it_leaves_stakes_alone() -> None:
    assert stake(started("backtest", enabled=False)) == 100.0


@pytest.mark.parametrize(
    ("learning", "sentence"),
    [
        ({}, "needs either url or file, and not both"),
        ({"url": "postgresql://a@b/c", "file": "x"}, "needs either url or file, and not both"),
        ({"fil": "x"}, r"learning\.fil is no setting: there are enabled, url, schema, file,"),
        ({"file": "x", "hold_out": 2}, r"learning\.hold_out is a share from 0 to 1, not 2"),
        ({"file": "x", "shadow": "no"}, r"learning\.shadow is true or false, not 'no'"),
        ({"file": "x", "refresh_seconds": True}, "is a number above 0, not True"),
        ({"file": 3}, r"learning\.file is text, not 3"),
        ({"url": "postgresql://u:secret@["}, r"learning\.url is no address of a PostgreSQL"),
    ],
)
def test_bad_settings_are_one_sentence(learning: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        started(**learning)
    assert "secret" not in str(caught.value)


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "freqtrade.md").read_text(encoding="utf-8")
    assert all(f"`{setting.name}`" in text for setting in fields(LearnedSettings))


def test_without_its_section_it_does_not_start() -> None:
    strategy: Any = My({"runmode": "live"})
    with pytest.raises(ValueError, match='the configuration has no section "learning"'):
        strategy.bot_start()


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("20250303-20250310", MONDAY, MONDAY + WEEK),
        ("20250303-", MONDAY, MONDAY + 2 * WEEK),
        ("20250303-20990101", MONDAY, MONDAY + 2 * WEEK),
        ("20250303T1203-20250303T120300", NOON, NOON),
        (f"{MONDAY.timestamp():.0f}-{MONDAY.timestamp():.0f}000", MONDAY, MONDAY),
    ],
)
def test_a_time_range_is_read_as_freqtrade_does(text: str, begin: datetime, end: datetime) -> None:
    assert timerange_of({"timerange": text}, MONDAY + 2 * WEEK) == (begin, end)


@pytest.mark.parametrize("text", [None, "", "-20250303"])
def test_a_backtest_without_a_begin_is_told_to_give_one(text: str | None) -> None:
    with pytest.raises(ValueError, match="give --timerange"):
        timerange_of({"timerange": text}, MONDAY)


def test_what_is_asked_for_is_what_the_importer_learns_from(
    live: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = ["volume", None, "  ", "a.b c|d", "nan"]
    pairs = ["BTC/USDT", "ETH/USDT:USDT", "XRP"]
    entries = [
        Trade(pair, bool(k % 2), tag, leverage, MONDAY + k * timedelta(hours=7))
        for k, (pair, tag, leverage) in enumerate(
            (pair, tag, leverage) for pair in pairs for tag in tags for leverage in (1.0, 3.0, 20.0)
        )
    ]
    path = tmp_path / "export.json"
    rows = [_row(trade) for trade in entries]
    path.write_text(json.dumps({"strategy": {"My": {"timeframe": "5m", "trades": rows}}}))
    source = open_source(path)
    learned = {
        (action.pattern_key, action.action_category, tuple(action.scope.items()))
        for row in source.read(MONDAY.date(), (MONDAY + 20 * WEEK).date())
        for action in row.actions  # type: ignore[union-attr]
    }
    asked = set()

    def lookup(self: Any, pattern: str, category: str, scope: Any, **kwargs: Any) -> Any:
        from learning_assets.core.scope import normalise_scope
        from learning_assets.runtime import Answer, Status

        asked.add((pattern, category, tuple(normalise_scope(scope).items())))
        return Answer(1.0, 1.0, Status.NO_MATCH, "")

    monkeypatch.setattr(OverrideBook, "lookup", lookup)
    strategy = started(file=live)
    for trade in entries:
        stake(
            strategy,
            pair=trade.pair,
            entry_tag=trade.enter_tag,
            leverage=trade.leverage,
            side="short" if trade.is_short else "long",
            current_time=trade.open_date_utc,
        )
        for hours, category in ((9, "add"), (30, "trim")):
            strategy.learned_multiplier(
                trade, trade.open_date_utc + timedelta(hours=hours), category
            )
    assert asked == learned
    assert len(asked) == 3 * len(entries)


def _row(trade: Trade) -> dict[str, Any]:
    def order(hours: int, is_entry: bool) -> dict[str, Any]:
        at = trade.open_date_utc + timedelta(hours=hours)
        return {"ft_is_entry": is_entry, "order_filled_timestamp": int(at.timestamp() * 1000)}

    return {
        "pair": trade.pair,
        "is_short": trade.is_short,
        "enter_tag": trade.enter_tag,
        "leverage": trade.leverage,
        "open_date": trade.open_date_utc.isoformat(),
        "close_date": (trade.open_date_utc + timedelta(hours=40)).isoformat(),
        "profit_ratio": 0.01,
        "initial_stop_loss_ratio": -0.05,
        "orders": [order(0, True), order(9, True), order(30, False), order(40, False)],
    }


def test_importing_it_brings_nothing_heavy_and_no_freqtrade() -> None:
    code = (
        "import sys, learning_assets.runtime.freqtrade\n"
        "kinds = {'dagster', 'numpy', 'pandas', 'numba', 'psycopg', 'pydantic', 'freqtrade'}\n"
        "sys.exit(', '.join(kinds & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
