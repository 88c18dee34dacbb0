from __future__ import annotations

import json
import math
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from learning_assets.store.rows import (
    clean_text,
    finite,
    number,
    optional_number,
    to_json,
    to_jsonb,
)

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(_values)
def test_both_ways_to_jsonb_agree(value: object) -> None:
    text = to_jsonb(value)
    assert json.loads(text, parse_constant=lambda _: 1 / 0) == to_json(value)
    assert "\\u0000" not in text.replace("\\\\", "")


@given(st.floats())
def test_numbers_come_back(value: float) -> None:
    back = number(json.loads(to_jsonb([value]))[0])
    assert back == value or (math.isnan(back) and math.isnan(value))


@given(_values)
def test_finite_is_json_for_everybody(value: object) -> None:
    json.dumps(finite(value), allow_nan=False)


def test_what_is_no_json_becomes_text() -> None:
    when = datetime(2024, 1, 1, tzinfo=UTC)
    assert to_json({1: when, "s": {1.5}}) == {"1": str(when), "s": [1.5]}
    assert finite({"at": when, "x": ["Infinity", math.nan]}) == {
        "at": "2024-01-01T00:00:00+00:00",
        "x": [None, None],
    }


def test_optional_numbers_stay_unknown() -> None:
    assert optional_number(None) is None
    assert optional_number("Infinity") == math.inf


def test_text_is_made_storable() -> None:
    assert clean_text("a\x00b\ud800é") == "a�b?é"
