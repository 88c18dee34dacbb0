"""Scopes and records: one value has one text, and a slice has one name."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_assets.core import records
from learning_assets.core.records import (
    Action,
    ClosedTrade,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    Override,
    SliceStats,
    lesson_id,
)
from learning_assets.core.scope import (
    EVERYWHERE,
    KNOWN_AFTER_ENTRY,
    matches,
    normalise_scope,
    normalise_value,
    signature,
    subset,
)

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["TRUE", " true ", "False", "", "  ", "1", "1.0", "nan", "None"]),
)  # fmt: skip
TEXTS = st.text("abc", min_size=1, max_size=2)
SCOPES = st.dictionaries(st.sampled_from("pqrst"), TEXTS, max_size=5)


@given(VALUES)
def test_normalising_again_changes_nothing(value: object) -> None:
    once = normalise_value(value)
    assert normalise_value(once) == once
    assert once is None or (once and once == once.strip())


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=6))
def test_a_normalised_scope_stays_as_it_is(raw: dict[str, object]) -> None:
    once = normalise_scope(raw)
    assert normalise_scope(once) == once
    assert list(once) == sorted(once)
    assert once.keys() == {d for d, v in raw.items() if normalise_value(v) is not None}


@given(st.integers(-(2**53), 2**53))
def test_a_number_has_one_text(number: int) -> None:
    assert normalise_value(number) == normalise_value(float(number)) == str(number)
    assert normalise_value(str(number)) == str(number)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"), (1.0, "1"), ("1", "1"), (" 1 ", "1"), (-0.0, "0"), (0, "0"), (2.5, "2.5"),
        (True, "true"), ("True", "true"), ("TRUE", "true"), (False, "false"), ("false", "false"),
        ("solana", "solana"), ("Solana", "Solana"), (LessonStatus.ACTIVE, "active"),
    ],
)  # fmt: skip
def test_values_and_their_texts(value: object, text: str) -> None:
    assert normalise_value(value) == text


@pytest.mark.parametrize("value", [None, math.nan, "", "   ", "\t\n", np.nan])
def test_absent_values(value: object) -> None:
    assert normalise_value(value) is None


@pytest.mark.parametrize("number", [2.0, 0.5, 1e-7])
def test_numbers_of_numpy_read_like_pythons(number: float) -> None:
    assert normalise_value(np.float64(number)) == normalise_value(number)


@pytest.mark.parametrize("value", [[], ["a"], {"a": 1}, ("a",), object(), b"a"])
def test_other_values_are_refused_and_their_dimension_named(value: object) -> None:
    with pytest.raises(TypeError, match="a scope value is text, a number or a boolean"):
        normalise_value(value)
    with pytest.raises(TypeError, match="scope dimension 'chain'"):
        normalise_scope({"chain": value})


def test_infinity_is_a_value() -> None:
    assert normalise_value(math.inf) == "inf"


@given(SCOPES)
def test_a_scope_matches_its_parts_and_nothing_else(scope: dict[str, str]) -> None:
    assert matches((), scope)
    assert matches(subset(scope), scope)
    for dim, value in scope.items():
        assert matches(((dim, value),), scope)
        assert not matches(((dim, value + "!"),), scope)
        assert not matches(subset(scope), {d: v for d, v in scope.items() if d != dim})


@given(SCOPES, SCOPES)
def test_matching_is_containing(part: dict[str, str], scope: dict[str, str]) -> None:
    assert matches(subset(part), scope) == (part.items() <= scope.items())


@given(SCOPES)
def test_a_subset_is_sorted_and_signs_as_one(scope: dict[str, str]) -> None:
    pairs = subset(scope)
    assert list(pairs) == sorted(scope.items())
    assert subset(reversed(pairs)) == pairs
    assert signature(pairs) == ("|".join(f"{d}={v}" for d, v in pairs) or EVERYWHERE)


def test_what_is_known_after_entry_names_the_outcome() -> None:
    assert {"rr", "exit_reason", "duration", "max_rate", "min_rate"} <= KNOWN_AFTER_ENTRY
    assert not {"chain", "timeframe", "mcap_bucket"} & KNOWN_AFTER_ENTRY


# --- records ------------------------------------------------------------------------------

GROUP = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
STATS = SliceStats(40, 0.5, 1.0, 0.4, 0.1, 4.0, 1e-4, 1e-3, 4.2, 3.9)
NONE_KNOWN = Multipliers(1.0, 1.0, 1.0, 1.0, None, None, 0, None)
LESSON = Lesson(GROUP, (("chain", "solana"),), LessonStatus.ACTIVE, STATS, NONE_KNOWN, 0.1)


def test_a_lesson_is_named_by_group_and_scope() -> None:
    assert LESSON.lesson_id == "pm.uptrend.S1.buy_flag/entry/chain=solana"
    assert lesson_id(GROUP, ()) == "pm.uptrend.S1.buy_flag/entry/*"
    assert LESSON.lesson_type == "pm_strength"
    allocation = replace(LESSON, group=GroupKey("dm", "dm.lowcap.S1.allocate", "allocation"))
    assert allocation.lesson_type == "dm_alloc"


def test_an_override_names_its_lesson() -> None:
    override = Override(
        *(GROUP, LESSON.scope_subset, 1.2, 0.4, 0.9),
        *(records.DecayState.STABLE, None, 40, 0.01),
    )
    assert override.lesson_id == LESSON.lesson_id


def test_hold_hours_are_those_between_opening_and_closing() -> None:
    closed = datetime(2026, 1, 5, tzinfo=UTC)
    action = Action("a", "pm", "pm.x.S1.y", "entry", {})
    trade = ClosedTrade("t", 1.0, closed, (action,), opened_at=closed - timedelta(hours=36))
    assert trade.hold_hours == 36.0
    assert trade._replace(opened_at=None).hold_hours is None


def test_records_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        LESSON.edge_raw = 2.0  # type: ignore[misc]
