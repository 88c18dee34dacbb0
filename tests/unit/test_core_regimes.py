"""The regime's signature, what it falls back on, and which regime is in force."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from small_market import ONE, START, table

from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey, RegimeReading
from learning_assets.core.regimes import (
    MOST_HOURS_OLD,
    Regime,
    fallbacks,
    regime_in_force,
    regime_signature,
)

DIMS = ("d1", "d0")
EXIT = GroupKey("pm", ONE.pattern_key, "exit")
HOUR = timedelta(hours=1)
NOON = START + 12 * HOUR


def market() -> EventTable:
    """Three trades closing after 1, 5 and 9 hours; the newest knows no state of d1."""
    codes = np.array([[1, 2, 3], [1, 2, 0], [1, 1, 1]])
    return table(np.array([1.0, 5.0, 9.0]), np.zeros(3), codes)


def test_a_signature_names_the_states_in_the_order_of_the_dimensions() -> None:
    states = {"alt_macro": "S2", "btc_macro": "S1", "chain": "solana"}
    dims = ("btc_macro", "alt_macro", "bucket_macro")
    assert regime_signature(states, dims) == "btc_macro=S1|alt_macro=S2|bucket_macro=?"
    assert regime_signature({}, dims) == "btc_macro=?|alt_macro=?|bucket_macro=?"
    assert regime_signature(states, ()) == "*"


def test_dimensions_are_dropped_from_the_right() -> None:
    assert fallbacks("a=1|b=?|c=2") == ("a=1|b=?|c=2", "a=1|b=?", "a=1", "*")
    assert fallbacks("*") == ("*",)


def test_a_reading_counts_before_newer_events() -> None:
    found = regime_in_force(RegimeReading({"d0": "h"}, START), market(), DIMS, NOON)
    assert found == Regime("d1=?|d0=h", START, "read from the source")


@pytest.mark.parametrize("reading", [None, RegimeReading({"other": "S1"}, NOON)])
def test_without_a_reading_the_newest_event_counts(reading: RegimeReading | None) -> None:
    found = regime_in_force(reading, market(), DIMS, NOON)
    assert found == Regime("d1=?|d0=c", START + 9 * HOUR, "scope of the newest event")


def test_an_event_without_any_state_is_passed_over() -> None:
    assert regime_in_force(None, market(), ("d1",), NOON).signature == "d1=b"


def test_a_trade_shows_the_market_at_its_opening_and_its_exit_at_its_closing() -> None:
    codes = np.array([[1, 2, 3]])
    two = table(np.array([4.0, 8.0]), np.zeros(2), codes, np.array([0, 1, 0]), [ONE, EXIT],
                np.array([0, 0, 1]))  # fmt: skip
    events = replace(two, opened_at=two.closed_at - np.array([3, 6]) * np.timedelta64(1, "h"))
    found = regime_in_force(None, events, ("d0",), NOON)
    assert (found.signature, found.at) == ("d0=b", START + 4 * HOUR)
    unknown = replace(two, opened_at=np.full(2, np.datetime64("NaT"), "datetime64[us]"))
    assert regime_in_force(None, unknown, ("d0",), NOON).at == START + 8 * HOUR


def test_trades_that_close_later_are_not_seen() -> None:
    found = regime_in_force(None, market(), DIMS, START + 9 * HOUR)
    assert (found.signature, found.at) == ("d1=b|d0=b", START + 5 * HOUR)


@pytest.mark.parametrize(
    ("as_of", "is_seen"),
    [
        (NOON, True),
        (NOON - timedelta(seconds=1), False),
        (NOON + MOST_HOURS_OLD * HOUR, True),
        (NOON + MOST_HOURS_OLD * HOUR + timedelta(seconds=1), False),
    ],
)
def test_a_reading_counts_for_a_day_and_not_before_it_was_made(
    as_of: datetime, is_seen: bool
) -> None:
    empty = market().where(np.zeros(3, dtype=bool))
    found = regime_in_force(RegimeReading({"d0": "h"}, NOON), empty, DIMS, as_of)
    assert found.signature == ("d1=?|d0=h" if is_seen else None)
    if not is_seen:
        assert found == Regime(None, None, "none seen in the 24 hours before")


def test_an_event_counts_for_a_day() -> None:
    seen = START + 9 * HOUR
    for seconds, signature in ((0, "d1=?|d0=c"), (1, None)):
        as_of = seen + MOST_HOURS_OLD * HOUR + timedelta(seconds=seconds)
        assert regime_in_force(None, market(), DIMS, as_of).signature == signature


@pytest.mark.parametrize("at", [NOON + HOUR, NOON - 25 * HOUR])
def test_a_reading_that_is_old_or_later_leaves_it_to_the_events(at: datetime) -> None:
    found = regime_in_force(RegimeReading({"d0": "h"}, at), market(), DIMS, NOON)
    assert found.whence == "scope of the newest event"


def test_where_nothing_was_seen_it_is_unknown() -> None:
    assert regime_in_force(None, market(), ("x",), NOON) == Regime(
        None, None, "no regime was ever seen"
    )
    assert regime_in_force(None, market(), (), NOON).signature is None
