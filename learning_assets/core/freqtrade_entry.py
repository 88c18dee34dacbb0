"""What freqtrade knows of an action, in the words of the lessons: trade id, pattern key, scope.

The importer of closed trades and the bot that asks for a multiplier call the same functions, so
that what is asked for is what was learned. How exports and databases are read is in
`sources.freqtrade`, and how a bot asks in `runtime.freqtrade`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

_ABSENT: Final = frozenset({"", "nan", "none", "null", "nat", "<na>"})
_LEVERAGE_BUCKETS: Final = ((1.0, "1x"), (2.0, "to_2x"), (5.0, "to_5x"), (10.0, "to_10x"))
_WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SESSIONS: Final = ((8, "asia"), (16, "europe"), (24, "us"))
_MINUTES_PER: Final = ((10080, "w"), (1440, "d"), (60, "h"), (1, "m"))


def holds_nothing(raw: object) -> bool:
    """Whether a field is None, NaN, blank text, or text that is a word for these."""
    if isinstance(raw, str):
        return raw.strip().lower() in _ABSENT
    return raw is None or (isinstance(raw, float) and raw != raw)


def key_part(raw: object) -> str:
    """Text as one part of a pattern key: dots, blanks and `|=/` become underscores."""
    return re.sub(r"[\s.|=/]+", "_", str(raw).strip()).strip("_") or "_"


def side_of(is_short: object) -> str:
    """`short` or `long`."""
    return "short" if is_short else "long"


def trade_id(strategy: str, pair: str, side: str, opened_at: datetime) -> str:
    """The id of a trade: strategy, pair, side and opening time (UTC) tell it from all others."""
    return f"{strategy}:{pair}:{side}:{opened_at:%Y-%m-%dT%H:%M:%SZ}"


def action_name(category: str, n: int) -> str:
    """The name of the n-th (from 1) action of a category in its trade: `entry`, `add1`, `trim2`."""
    return category if category == "entry" else f"{category}{n}"


def entry_pattern(strategy: str, side: str, tag: object) -> str:
    """The pattern key of all actions of a trade, e.g. `pm.MyStrategy.long.breakout`.

    Without a tag the last part is `entry`.
    """
    name = "entry" if holds_nothing(tag) else tag
    return f"pm.{key_part(strategy)}.{side}.{key_part(name)}"


def action_scope(
    pair: str, side: str, timeframe: object, leverage: float | None, at: datetime
) -> dict[str, object]:
    """The scope of an action at a time (UTC): what was known when its order was decided.

    `timeframe` is text as `5m`, or minutes as the database has it. Values are not normalised.
    """
    return {
        "pair": pair,
        "base": pair.split("/")[0],
        "quote": quote_currency(pair),
        "timeframe": _timeframe(timeframe),
        "direction": side,
        "leverage_bucket": _leverage_bucket(leverage),
        "weekday": _WEEKDAYS[at.weekday()],
        "session": next(name for end, name in _SESSIONS if at.hour < end),
    }


def quote_currency(pair: str) -> str | None:
    """The quote currency: USDT of `BTC/USDT` and of the future `BTC/USDT:USDT`; None if unnamed."""
    _, slash, rest = pair.partition("/")
    return rest.split(":")[0] if slash else None


def _timeframe(raw: object) -> object:
    """`5m` as it is; 5 minutes of the database as `5m`."""
    if not isinstance(raw, int) or raw <= 0:
        return raw
    size, unit = next(pair for pair in _MINUTES_PER if raw % pair[0] == 0)
    return f"{raw // size}{unit}"


def _leverage_bucket(leverage: float | None) -> str:
    size = 1.0 if leverage is None else leverage
    return next((name for limit, name in _LEVERAGE_BUCKETS if size <= limit), "over_10x")
