"""The market regime: its signature, and which one is in force.

A signature names the state of each regime dimension in the order of the configuration, e.g.
`btc_macro=S1|alt_macro=?|bucket_macro=S2`. What is learned about regimes is in
`core.regime_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.events import EventTable, instant, moment
from learning_assets.core.records import RegimeReading
from learning_assets.core.scope import EVERYWHERE

Times = NDArray[np.datetime64]

UNKNOWN_STATE = "?"
"""State of a dimension that is missing."""

MOST_HOURS_OLD = 24
"""A regime that was seen longer ago says nothing about now."""

_AT_CLOSING = "exit"


@dataclass(frozen=True, slots=True)
class Regime:
    """The regime in force: its signature, when it was seen and where.

    `signature` is None where it is unknown; `whence` then says why.
    """

    signature: str | None
    at: datetime | None
    whence: str


def regime_signature(states: Mapping[str, str], dims: Sequence[str]) -> str:
    """The signature of a scope or a reading; a missing dimension is `?`, no dimensions give `*`."""
    known = [f"{dim}={states.get(dim, UNKNOWN_STATE)}" for dim in dims]
    return "|".join(known) or EVERYWHERE


def fallbacks(signature: str) -> tuple[str, ...]:
    """The signature, then without its dimensions one by one from the right, in the end `*`."""
    parts = signature.split("|") if signature != EVERYWHERE else []
    return (*("|".join(parts[:k]) for k in range(len(parts), 0, -1)), EVERYWHERE)


def regime_in_force(
    reading: RegimeReading | None, events: EventTable, dims: Sequence[str], as_of: datetime
) -> Regime:
    """The regime at `as_of`, from what was seen in the 24 hours before it.

    The `reading` of the source counts first, then the newest action in `events` whose scope names
    a state of `dims`: a trade's exits show the market at its closing, its other actions at its
    opening. Later readings, and trades that closed later, are not seen.
    """
    seen = [_of_reading(reading, dims), _of_events(events, dims, as_of)]
    known = [regime for regime in seen if regime is not None]
    for regime in known:
        if regime.at is not None and _is_recent(regime.at, as_of):
            return regime
    if not known:
        return Regime(None, None, "no regime was ever seen")
    return Regime(None, None, f"none seen in the {MOST_HOURS_OLD} hours before")


def _is_recent(at: datetime, as_of: datetime) -> bool:
    return timedelta(0) <= as_of - at <= timedelta(hours=MOST_HOURS_OLD)


def _of_reading(reading: RegimeReading | None, dims: Sequence[str]) -> Regime | None:
    if reading is None or not any(dim in reading.states for dim in dims):
        return None
    return Regime(regime_signature(reading.states, dims), reading.at, "read from the source")


def _of_events(events: EventTable, dims: Sequence[str], as_of: datetime) -> Regime | None:
    places = {dim: events.dims.index(dim) for dim in dims if dim in events.dims}
    codes = events.codes[list(places.values())]
    closed = events.closed_at[events.trade] < instant(as_of)
    rows = np.flatnonzero(codes.any(axis=0) & closed)
    if not len(rows):
        return None
    seen = _seen_at(events)[rows]
    newest = rows[len(seen) - 1 - int(np.argmax(seen[::-1]))]
    states = {
        dim: events.values[d][code - 1]
        for dim, d in places.items()
        if (code := int(events.codes[d, newest]))
    }
    return Regime(regime_signature(states, dims), moment(seen.max()), "scope of the newest event")


def _seen_at(events: EventTable) -> Times:
    """When each action (length A) saw the market; never later than it did."""
    opened, closed = events.opened_at[events.trade], events.closed_at[events.trade]
    exits = np.array([key.action_category == _AT_CLOSING for key in events.groups], dtype=bool)
    at_closing = exits[events.group] | np.isnat(opened)
    seen: Times = np.where(at_closing, closed, opened)
    return seen
