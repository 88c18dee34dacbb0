"""The list of markets, given to freqtrade's exchange where it would ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freqtrade.exchange import Exchange


def give_markets(pairs: Sequence[str]) -> None:
    """From now on every exchange has these pairs, and nothing is asked of one at its start."""

    def reload_markets(self: Exchange, *args: object, **kwargs: object) -> None:
        for api in (self._api, self._api_async):
            api.set_markets([_market(pair) for pair in pairs])
        self._markets = self._api.markets
        self._last_markets_refresh = 2**62

    Exchange.reload_markets = reload_markets
    Exchange.check_time_offset = lambda self: None


def _market(pair: str) -> dict[str, Any]:
    base, quote = pair.split("/")
    market: dict[str, Any] = {"id": base + quote, "symbol": pair, "info": {}, "active": True}
    market |= {"base": base, "quote": quote, "baseId": base, "quoteId": quote}
    market |= {"type": "spot", "spot": True, "taker": 0.001, "maker": 0.001}
    market |= dict.fromkeys(("margin", "swap", "future", "option", "contract"), False)
    market |= dict.fromkeys(("settle", "settleId", "linear", "inverse", "contractSize"))
    amounts, costs = {"min": 1e-6, "max": 1e9}, {"min": 5.0, "max": 1e9}
    limits = {"amount": amounts, "price": amounts, "cost": costs}
    limits["leverage"] = {"min": None, "max": None}
    return {**market, "precision": {"amount": 1e-6, "price": 1e-6}, "limits": limits}
