"""Fields that mean the same in every source."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_assets.core.records import ClosedTrade, Reason, RejectedRow
from learning_assets.errors import UserError
from learning_assets.sources import parse
from learning_assets.sources.parse import RiskMeasure, RowError

NOON = datetime(2024, 5, 4, 12, 0, tzinfo=UTC)


def _reason(function, *args):
    with pytest.raises(RowError) as caught:
        function(*args)
    assert caught.value.detail == str(caught.value) != ""
    return caught.value.reason


@pytest.mark.parametrize(
    ("raw", "module", "expected"),
    [
        ("pm.uptrend.S1.buy_flag", None, ("pm", "pm.uptrend.S1.buy_flag")),
        ("module=pm|pattern_key=uptrend.S1.buy_flag", None, ("pm", "pm.uptrend.S1.buy_flag")),
        ("pattern_key=pm.uptrend.S1.buy_flag|module=PM", "pm", ("pm", "pm.uptrend.S1.buy_flag")),
        ("uptrend.S1.buy_flag", "pm", ("pm", "pm.uptrend.S1.buy_flag")),
        (" DM.curator.any ", "dm", ("dm", "dm.curator.any")),
        ("pm.Break Out.S1", None, ("pm", "pm.Break Out.S1")),
        ("single", "pm", ("pm", "pm.single")),
    ],
)
def test_forms_of_a_pattern_key(raw, module, expected):
    assert parse.pattern_key(raw, module) == expected


@pytest.mark.parametrize(
    ("raw", "module", "reason"),
    [
        (None, "pm", Reason.NO_PATTERN_KEY),
        ("  ", "pm", Reason.NO_PATTERN_KEY),
        (float("nan"), "pm", Reason.NO_PATTERN_KEY),
        (5, "pm", Reason.BAD_PATTERN_KEY),
        ("uptrend.S1", None, Reason.BAD_PATTERN_KEY),
        ("pm.", None, Reason.BAD_PATTERN_KEY),
        ("pm..S1", None, Reason.BAD_PATTERN_KEY),
        ("pm.a.\x00", None, Reason.BAD_PATTERN_KEY),
        ("module=pm|key=a.b", None, Reason.BAD_PATTERN_KEY),
        ("module=pm|pattern_key=a|x=1", None, Reason.BAD_PATTERN_KEY),
        ("pm.a.b", "dm", Reason.BAD_MODULE),
        ("module=dm|pattern_key=pm.a", None, Reason.BAD_MODULE),
        ("a.b", "risk", Reason.BAD_MODULE),
    ],
)
def test_pattern_keys_that_are_none(raw, module, reason):
    assert _reason(parse.pattern_key, raw, module) is reason


words = st.text("abcXYZ012_-", min_size=1, max_size=6)


@given(st.sampled_from(["pm", "dm"]), st.lists(words, min_size=1, max_size=4))
def test_all_forms_of_a_key_are_the_same_key(module, parts):
    rest = ".".join(parts)
    dotted = parse.pattern_key(f"{module}.{rest}")
    assert dotted == (module, f"{module}.{rest}")
    assert parse.pattern_key(f"module={module}|pattern_key={rest}") == dotted
    assert parse.pattern_key(dotted[1], module) == dotted


@given(st.text())
def test_a_part_of_a_key_is_one_part(text):
    part = parse.key_part(text)
    assert part
    assert not set(part) & set(" .|=/\t\n")


def test_categories_belong_to_their_module():
    assert parse.category(" Entry", "pm") == "entry"
    assert parse.category("allocation", "dm") == "allocation"
    for raw, module in [("allocation", "pm"), ("entry", "dm"), (None, "pm"), ("buy", "pm")]:
        assert _reason(parse.category, raw, module) is Reason.BAD_CATEGORY


@pytest.mark.parametrize(
    "raw",
    [
        "2024-05-04 12:00:00+00:00",
        "2024-05-04T12:00:00Z",
        "2024-05-04 12:00",
        "2024-05-04T14:00:00+0200",
        "2024-05-04 12:00:00 UTC",
        1714824000,
        1714824000.0,
        1714824000000,
        1714824000000000000,
        "1714824000",
        "1714824000000",
        np.int64(1714824000000),
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=-7))),
        pd.Timestamp("2024-05-04 12:00"),
        pd.Timestamp("2024-05-04 12:00", tz="UTC"),
        np.datetime64("2024-05-04T12:00"),
    ],
)
def test_moments(raw):
    found = parse.utc(raw)
    assert found == NOON
    assert found.utcoffset() == timedelta(0)
    assert type(found) is datetime


def test_days_are_their_midnight():
    midnight = datetime(2024, 5, 4, tzinfo=UTC)
    assert [parse.utc(raw) for raw in ("2024-05-04", "20240504", date(2024, 5, 4))] == [
        midnight
    ] * 3


@pytest.mark.parametrize(
    "raw",
    [None, "", "nan", pd.NaT, "soon", "2024-13-01", True, 1e40, math.inf, [], b"2024", "1e30"],
)
def test_what_is_no_moment(raw):
    assert _reason(parse.utc, raw) is Reason.BAD_TIMESTAMP


@given(st.datetimes(datetime(1973, 6, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_a_moment_survives_its_texts_and_epochs(moment):
    assert parse.utc(moment.isoformat()) == moment
    assert parse.utc(moment.replace(tzinfo=None).isoformat(" ")) == moment
    whole = moment.replace(microsecond=0)
    seconds = int(whole.timestamp())
    assert parse.utc(seconds) == parse.utc(seconds * 1000) == whole


def test_zones_are_seen():
    zoneless = ["2024-05-04", "2024-05-04 12:00:00", "20240504", NOON.replace(tzinfo=None)]
    zoned = ["2024-05-04T12:00Z", "2024-05-04 12:00-05", "1714824000", 1714824000, NOON, "", None]
    assert all(parse.names_no_zone(raw) for raw in zoneless)
    assert not any(parse.names_no_zone(raw) for raw in zoned)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rr_is_clipped_and_nothing_else(value):
    found = parse.rr(value)
    assert found == parse.rr(repr(value)) == min(33.0, max(-33.0, value))


@pytest.mark.parametrize(
    "raw", [None, "", "abc", math.nan, math.inf, "-inf", True, [1.0], "1_0", b"1"]
)
def test_rr_that_is_none(raw):
    assert _reason(parse.rr, raw) is Reason.BAD_RR


def test_optional_numbers():
    assert parse.optional_number("1.5") == 1.5
    assert parse.optional_number(0) == 0.0
    assert [parse.optional_number(raw) for raw in (None, "", "none", math.nan, math.inf)] == [
        None
    ] * 5
    assert _reason(parse.optional_number, "abc") is Reason.BAD_PAYLOAD


def test_closings_out_of_range():
    parse.check_closed_at(parse.START)
    parse.check_closed_at(NOON, now=NOON)
    early = parse.START - timedelta(seconds=1)
    assert _reason(parse.check_closed_at, early) is Reason.BEFORE_START
    late = (NOON, parse.START, NOON - timedelta(seconds=1))
    assert _reason(parse.check_closed_at, *late) is Reason.IN_THE_FUTURE
    assert _reason(parse.check_order, NOON, NOON - timedelta(hours=1)) is Reason.BAD_TIMESTAMP
    parse.check_order(None, NOON)


def test_scopes():
    raw = {"b": np.int64(1), "a": "x", "none": pd.NA, "flag": np.True_}
    assert parse.scope(raw) == {"a": "x", "b": "1", "flag": "true"}
    assert _reason(parse.scope, {"a": [1]}) is Reason.BAD_SCOPE
    assert _reason(parse.scope, {"a": "\x00"}) is Reason.BAD_SCOPE
    assert _reason(parse.scope, {"a": "\ud800"}) is Reason.BAD_SCOPE


def test_trade_ids():
    assert parse.trade_id(" 17 ") == parse.trade_id(17) == "17"
    assert _reason(parse.trade_id, None) is Reason.NO_TRADE_ID
    assert _reason(parse.trade_id, "a\x00b") is Reason.NO_TRADE_ID


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_like, max_size=4))
def test_a_payload_is_json_that_postgresql_takes(raw):
    text = json.dumps(parse.payload(raw), allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in text
    text.encode("utf-8")


def test_a_payload_keeps_what_was_there():
    raw = {"rr": math.nan, "at": NOON, "n": np.float64(1.5), "text": "a\x00", "list": [(1, "x")]}
    assert parse.payload(raw) == {
        "rr": "nan",
        "at": "2024-05-04T12:00:00+00:00",
        "n": 1.5,
        "text": "a�",
        "list": [[1, "x"]],
    }


def test_the_risk_is_the_stop_then_the_named_then_the_losses():
    own = (0.02, RiskMeasure.MEAN_LOSS)
    assert parse.measured_risk(0.1, 0.05, own) == (0.1, RiskMeasure.STOP)
    assert parse.measured_risk(None, 0.05, own) == (0.05, RiskMeasure.NAMED)
    assert parse.measured_risk(None, None, own) == own
    with pytest.raises(RowError, match="--risk") as caught:
        parse.measured_risk(None, None, None)
    assert caught.value.reason is Reason.NO_RISK


def test_an_emergency_stop_is_no_measure():
    assert parse.usable_stop(-0.15, -0.3) == 0.15
    assert parse.usable_stop(-0.5, -0.3) == 0.3
    assert parse.usable_stop(None, -0.499) == 0.499
    assert parse.usable_stop(-0.99, 0.0, None) is None


def test_few_losers_give_way_to_the_adverse_excursion():
    few = [0.1] * parse.MANY_TRADES + [-0.002]
    many = [0.1] * parse.MANY_TRADES + [-0.02] * parse.FEWEST_LOSERS
    excursions = [0.03, 0.01, None]
    assert parse.own_risk(few, excursions) == (pytest.approx(0.02), RiskMeasure.EXCURSION)
    assert parse.own_risk(many, excursions) == (pytest.approx(0.02), RiskMeasure.MEAN_LOSS)
    assert parse.own_risk(few, [None]) is None
    assert parse.own_risk(few[-5:], excursions) == (pytest.approx(0.002), RiskMeasure.MEAN_LOSS)
    assert parse.own_risk([0.1], [0.0]) is None


def test_the_mean_loss_counts_losers_only():
    assert parse.mean_loss([0.5, -0.1, 0.0, -0.3]) == pytest.approx(0.2)
    assert parse.mean_loss([0.5, 0.0]) is None


@pytest.mark.parametrize("risk", [0.0, -0.05, 5.0, math.nan])
def test_a_risk_is_a_fraction(risk):
    with pytest.raises(UserError, match="fraction"):
        parse.checked_risk(risk)


def test_a_batch_serves_by_closing_day_and_never_loses_the_undated():
    def trade(name, at):
        return ClosedTrade(name, 1.0, at, ())

    lost = RejectedRow("r1", Reason.BAD_TIMESTAMP, "", {})
    dated = RejectedRow("r2", Reason.BAD_RR, "", {}, "c", NOON + timedelta(days=1))
    later = trade("b", NOON + timedelta(days=2))
    found = parse.batch([later, dated, lost, trade("a", NOON)])
    day = NOON.date()
    assert list(found.between(day, day)) == [lost, trade("a", NOON)]
    assert list(found.between(day + timedelta(days=1), date.max)) == [lost, dated, later]
    assert list(found.between(date.min, date(2000, 1, 1))) == [lost]
    assert found.trades == [trade("a", NOON), later]
    assert found.rejected == [lost, dated]
