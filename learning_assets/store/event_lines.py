"""How a closed trade is written: the digest of its content, and its events as COPY takes them.

This is the innermost loop of taking in: most scopes of a source have the same dimensions in the
same order, so how these are written is worked out once for all of them.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from learning_assets.core.records import Action, Applied, ClosedTrade
from learning_assets.store.rows import copy_cell, to_jsonb, words_jsonb

EVENT_COLUMNS = (
    "event_id",
    "trade_id",
    "source",
    "module",
    "pattern_key",
    "action_category",
    "scope",
    "applied_overrides",
    "rr",
    "closed_at",
    "opened_at",
    "pnl_usd",
    "payback_hours",
    "hold_hours",
    "version",
    "trade_digest",
)
"""The columns of pattern_trade_events in the order of `TradeLines.events`."""

_MOST_FORMS = 4096

_Written = tuple[str, str]
"""An action as part of its trade's digest, and as cells of its line."""


class TradeLines(NamedTuple):
    """A trade as it is stored: `events` are lines of EVENT_COLUMNS, one per action.

    Of two actions with one name the later one counts.
    """

    trade_id: str
    version: datetime | None
    closed_at: datetime
    rr: float
    digest: str
    n_events: int
    events: str


def trade_lines(trade: ClosedTrade, source: str) -> TradeLines:
    """The trade as it is stored."""
    written = list(map(_written, trade.actions))
    closed_at, opened_at = _moment(trade.closed_at), _moment(trade.opened_at)
    rr, pnl, payback = map(_number, (trade.rr, trade.pnl_usd, trade.payback_hours))
    content = (
        f'[{_word(trade.trade_id)},"{rr}","{pnl}","{payback}",'
        f"{_optional_word(closed_at)},{_optional_word(opened_at)},["
        f"{','.join([pairs for pairs, _ in _in_order(trade.actions, written)])}]]"
    )
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    name = copy_cell(trade.trade_id)
    head = f"{name}\t{copy_cell(source)}"
    of_trade = (rr, closed_at, opened_at, pnl, payback, trade.hold_hours, _moment(trade.version))
    tail = "\t".join(["\\N" if cell is None else str(cell) for cell in of_trade])
    tail += f"\t{digest}\n"
    events = {
        action.action_id: f"{name}:{copy_cell(action.action_id)}\t{head}\t{cells}\t{tail}"
        for action, (_, cells) in zip(trade.actions, written, strict=True)
    }
    return TradeLines(
        trade.trade_id,
        trade.version,
        trade.closed_at,
        trade.rr,
        digest,
        len(events),
        "".join(events.values()),
    )


def _in_order(actions: Sequence[Action], written: list[_Written]) -> Sequence[_Written]:
    """The actions in an order that does not depend on theirs."""
    names = [action.action_id for action in actions]
    if all(map(operator.lt, names, names[1:])):
        return written
    order = sorted(range(len(actions)), key=lambda i: _NAMES(actions[i]))
    return [written[i] for i in order]


_NAMES = operator.attrgetter("action_id", "module", "pattern_key", "action_category")


def _moment(at: datetime | None) -> str | None:
    return None if at is None else str(at if at.tzinfo is UTC else at.astimezone(UTC))


def _optional_word(text: str | None) -> str:
    return "null" if text is None else f'"{text}"'


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _written(action: Action) -> _Written:
    group, group_cells = _group(action.module, action.pattern_key, action.action_category)
    pairs, scope = _scope(action.scope)
    if "\\" in scope:
        scope = copy_cell(scope)
    head = f"[{_word(action.action_id)},{group},{pairs}"
    if action.applied_overrides is None:  # as digests were before there was such a thing
        return f"{head}]", f"{group_cells}\t{scope}\t\\N"
    applied = _applied(action.applied_overrides)
    return f"{head},{_word(applied)}]", f"{group_cells}\t{scope}\t{copy_cell(applied)}"


@lru_cache(_MOST_FORMS)
def _group(module: str, pattern_key: str, category: str) -> tuple[str, str]:
    names = (module, pattern_key, category)
    return ",".join(map(_word, names)), "\t".join(map(copy_cell, names))


def _applied(applied: Applied) -> str:
    return to_jsonb(
        {
            "multiplier": applied.multiplier,
            "suggested": applied.suggested,
            "status": applied.status.value,
            "set_id": applied.set_id,
            "overrides": [x._asdict() for x in applied.overrides],
        }
    )


def _is_plain(text: str) -> bool:
    """Whether JSON holds the text as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _word(text: str) -> str:
    """`words_jsonb` of one word."""
    return f'"{text}"' if _is_plain(text) else words_jsonb(text)


def _scope(scope: Mapping[str, str]) -> tuple[str, str]:
    """A scope as JSON, dimensions in order: as a list of pairs, and as an object."""
    values_of, pairs, whole = _form(tuple(scope))
    values = values_of(scope)
    if not _is_plain("".join(values)):
        values = tuple(_word(value)[1:-1] for value in values)
    return pairs % values, whole % values


@lru_cache(_MOST_FORMS)
def _form(dims: tuple[str, ...]) -> tuple[Callable[..., tuple[str, ...]], str, str]:
    """What takes the values out of a scope of these dimensions, and the JSON to put them into."""
    ordered = sorted(dims)
    names = [_word(dim).replace("%", "%%") for dim in ordered]
    pairs = ",".join(f'[{name},"%s"]' for name in names)
    whole = ",".join(f'{name}:"%s"' for name in names)
    return _values_of(ordered), f"[{pairs}]", f"{{{whole}}}"


def _values_of(dims: list[str]) -> Callable[..., tuple[str, ...]]:
    if len(dims) > 1:
        return operator.itemgetter(*dims)
    return lambda scope: tuple(scope[dim] for dim in dims)
