"""How a closed trade is written: its events as COPY takes them, and the digest of its content.

This is the innermost loop of taking in: most scopes of a source have the same dimensions in the
same order, so how these are written is worked out once for all of them.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from learning_assets.core.records import Action, Applied, ClosedTrade
from learning_assets.store.rows import clean_text, copy_cell, to_jsonb, words_jsonb

EVENT_COLUMNS = (
    "trade_id",
    "rr",
    "closed_at",
    "opened_at",
    "pnl_usd",
    "payback_hours",
    "hold_hours",
    "version",
    "source",
    "trade_digest",
    "event_id",
    "module",
    "pattern_key",
    "action_category",
    "scope",
    "applied_overrides",
)
"""The columns of pattern_trade_events in the order of `TradeLines.events`."""

_MOST_FORMS = 4096


class TradeLines(NamedTuple):
    """A trade as it is stored: `events` are lines of EVENT_COLUMNS, one per action.

    Of two actions with one name the later one counts. The digest is of the content: version and
    source are not part of it, nor is the order of the actions or of the dimensions of a scope.
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
    trade_id, rr, closed_at, actions, opened_at, pnl_usd, payback_hours, version = trade
    name = copy_cell(trade_id)
    times = f"{_time_cell(closed_at)}\t{_time_cell(opened_at)}"
    content = f"{name}\t{rr}\t{times}\t{_number_cell(pnl_usd)}\t{_number_cell(payback_hours)}"
    by_name = {action.action_id: _action_cells(action) for action in actions}
    whole = "\n".join([content, *sorted(by_name.values())])
    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    held = f"{_number_cell(trade.hold_hours)}\t{_time_cell(version)}"
    head = f"{content}\t{held}\t{copy_cell(source)}\t{digest}\t{name}:"
    lines = "".join([f"{head}{cells}\n" for cells in by_name.values()])
    return TradeLines(trade_id, version, closed_at, rr, digest, len(by_name), lines)


def _time_cell(at: datetime | None) -> str:
    return "\\N" if at is None else str(at.astimezone(UTC))


def _number_cell(value: float | None) -> str:
    return "\\N" if value is None or math.isnan(value) else str(value)


def _action_cells(action: Action) -> str:
    action_id, module, pattern_key, category, scope, applied = action
    group = _group_cells(module, pattern_key, category)
    said = "\\N" if applied is None else copy_cell(_applied_text(applied))
    return f"{copy_cell(action_id)}\t{group}\t{_scope_cell(scope)}\t{said}"


@lru_cache(_MOST_FORMS)
def _group_cells(module: str, pattern_key: str, category: str) -> str:
    return "\t".join(map(copy_cell, (module, pattern_key, category)))


def _applied_text(applied: Applied) -> str:
    return to_jsonb(
        {
            "multiplier": applied.multiplier,
            "suggested": applied.suggested,
            "status": applied.status.value,
            "set_id": applied.set_id,
            "overrides": [x._asdict() for x in applied.overrides],
        }
    )


def _scope_cell(scope: Mapping[str, str]) -> str:
    """A scope as a JSON object, its dimensions in order."""
    values_of, form = _form(tuple(scope))
    values = values_of(scope)
    if not _is_plain("".join(values)):
        values = tuple(copy_cell(words_jsonb(value)[1:-1]) for value in values)
    return form % values


def _is_plain(text: str) -> bool:
    """Whether JSON and COPY hold the text as it is."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _as_jsonb(dim: str) -> tuple[int, bytes]:
    """The order in which PostgreSQL keeps the keys of an object: what comes in it is not sorted."""
    name = clean_text(dim).encode()
    return len(name), name


@lru_cache(_MOST_FORMS)
def _form(dims: tuple[str, ...]) -> tuple[Callable[..., tuple[str, ...]], str]:
    """What takes the values out of a scope of these dimensions, and the JSON to put them into."""
    ordered = sorted(dims, key=_as_jsonb)
    names = [copy_cell(words_jsonb(dim)).replace("%", "%%") for dim in ordered]
    return _values_of(ordered), "{" + ",".join(f'{name}:"%s"' for name in names) + "}"


def _values_of(dims: list[str]) -> Callable[..., tuple[str, ...]]:
    if len(dims) > 1:
        return operator.itemgetter(*dims)
    return lambda scope: tuple(scope[dim] for dim in dims)
