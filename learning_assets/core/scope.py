"""Scopes: the contexts in which actions fire, as normalised dimension → value mappings.

What a value means and which dimensions leak the outcome is decided here; matching many scopes
at once is the business of `core.mining`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeGuard

Scope = Mapping[str, str]
ScopeSubset = tuple[tuple[str, str], ...]

EVERYWHERE = "*"
"""Signature of the empty subset, which matches every scope."""

KNOWN_AFTER_ENTRY = frozenset(
    {
        "close_rate",
        "duration",
        "duration_hours",
        "duration_min",
        "exit_reason",
        "exit_tag",
        "exit_timestamp",
        "hold_hours",
        "hold_time_days",
        "max_rate",
        "min_rate",
        "payback_hours",
        "pnl_usd",
        "profit_abs",
        "profit_ratio",
        "rr",
        "sell_reason",
        "stop_loss_ratio",
        "time_to_payback_days",
        "trade_duration",
    }
)
"""Names that exist only once a trade is under way: as scope they would leak the outcome."""


_AFTER_ENTRY_WORDS = (
    *("exit", "close", "sell", "profit", "pnl", "rpnl", "hold", "duration"),
    *("max_rate", "min_rate", "max_profit", "max_loss", "max_drawdown", "realized", "realised"),
)
"""What names begin with that say something of the end or the course of a trade."""


@lru_cache(4096)
def is_known_after_entry(name: str) -> bool:
    """Whether a dimension of this name can only be known once the trade is under way."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return plain in KNOWN_AFTER_ENTRY or plain.startswith(_AFTER_ENTRY_WORDS)


def normalise_value(value: object) -> str | None:
    """The canonical text of a scope value, or None where it is absent.

    Strings, integers and booleans are values; `1`, `1.0` and `"1"` are the same one, so are
    `True` and `"true"`. None, NaN and blank text mean absent.

    Raises:
        TypeError: for a value that is none of these (a list, an object, …).
    """
    if type(value) is str:
        return _normalise_text(value)
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(float(value))
    if not isinstance(value, (str, int)):
        raise TypeError(f"a scope value is text, a number or a boolean, not {type(value).__name__}")
    return _normalise_text(str(value))


@lru_cache(65536)
def _normalise_text(raw: str) -> str | None:
    text = raw.strip()
    if text.lower() in {"true", "false"}:
        return text.lower()
    return text or None


_TEXT = frozenset({str})


def is_text(raw: Mapping[str, object]) -> TypeGuard[Mapping[str, str]]:
    """Whether all values are text and nothing else."""
    return _TEXT.issuperset(map(type, raw.values()))


def normalise_scope(raw: Mapping[str, object]) -> dict[str, str]:
    """`raw` with canonical values, absent ones left out, dimensions in alphabetical order.

    Raises:
        TypeError: for a value that is no scope value; the message names the dimension.
    """
    if is_text(raw):
        return {d: text for d in sorted(raw) if (text := _normalise_text(raw[d]))}
    scope: dict[str, str] = {}
    for dimension in sorted(raw):
        try:
            value = normalise_value(raw[dimension])
        except TypeError as error:
            raise TypeError(f"scope dimension {dimension!r}: {error}") from None
        if value is not None:
            scope[dimension] = value
    return scope


def subset(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> ScopeSubset:
    """The pairs as a subset: a tuple sorted by dimension."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    return tuple(sorted(items))


def signature(scope_subset: ScopeSubset) -> str:
    """Readable key of a subset, e.g. `chain=solana|mcap_bucket=micro`; `*` for the empty one."""
    return "|".join(f"{dim}={value}" for dim, value in scope_subset) or EVERYWHERE


def matches(scope_subset: ScopeSubset, scope: Scope) -> bool:
    """Whether `scope` contains every pair of the subset. The empty subset matches every scope."""
    return all(scope.get(dim) == value for dim, value in scope_subset)
