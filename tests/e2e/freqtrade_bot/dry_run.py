"""A bot that trades dry for a moment: `dry_run.py <configuration>`.

It enters, adds, sells a part and then all by freqtrade's own functions; the trades are in the
database of the configuration. Prices are given.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from freqtrade.configuration import Configuration
from freqtrade.enums import ExitCheckTuple, ExitType, RunMode
from freqtrade.exchange import Exchange
from freqtrade.freqtradebot import FreqtradeBot
from freqtrade.persistence import Trade
from given_markets import give_markets

PRICE = 100.0


def order_book(self: Exchange, pair: str, limit: int) -> dict[str, list[list[float]]]:
    return {"bids": [[PRICE, 1e6]], "asks": [[PRICE, 1e6]]}


def ticker(self: Exchange, pair: str) -> dict[str, float]:
    return {"bid": PRICE, "ask": PRICE, "last": PRICE}


def trade_once(bot: FreqtradeBot, pair: str) -> None:
    assert bot.execute_entry(pair, 100.0, PRICE, enter_tag="volume")
    (trade,) = Trade.get_trades_proxy(pair=pair, is_open=True)
    size = 50.0 * bot.strategy.learned_multiplier(trade, datetime.now(UTC))
    assert bot.execute_entry(pair, size, PRICE, trade=trade, mode="pos_adjust", enter_tag="add")
    part = bot.strategy.learned_multiplier(trade, datetime.now(UTC), category="trim")
    exit_ = ExitCheckTuple(ExitType.PARTIAL_EXIT, "trim")
    assert bot.execute_trade_exit(trade, PRICE, exit_, sub_trade_amt=trade.amount / 2 * part)
    assert bot.execute_trade_exit(trade, PRICE, ExitCheckTuple(ExitType.EXIT_SIGNAL, "end"))
    assert not trade.is_open


config = Configuration({"config": [sys.argv[1]]}, RunMode.DRY_RUN).get_config()
pairs = config["exchange"]["pair_whitelist"]
give_markets(pairs)
Exchange.fetch_l2_order_book, Exchange.fetch_ticker = order_book, ticker
bot = FreqtradeBot(config)
try:
    for pair in pairs[:2]:
        trade_once(bot, pair)
finally:
    bot.cleanup()
