"""The four multipliers and edge_raw: the reference's numbers, and loops over frames."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import twins
from hypothesis import given, settings
from hypothesis import strategies as st

from learning_assets.core.multipliers import (
    Measured,
    Outcomes,
    age_of_week,
    edge_raw,
    field_coherence,
    field_multiplier,
    measure,
    multipliers_of,
    recurrence,
    recurrence_multiplier,
    support,
    time_efficiency,
    time_multiplier,
    variance_multiplier,
    week_of,
)

VECTOR = (
    time_multiplier(0.42),
    field_multiplier(0.67, 5),
    recurrence_multiplier(0.8),
    variance_multiplier(1.44, 50),
)
EPOCH = pd.Timestamp("1970-01-01", tz="UTC")


def test_edge_raw_equals_the_reference() -> None:
    assert edge_raw(0.45, 50, VECTOR) == pytest.approx(0.0554100, abs=1e-6)
    weights = (1.15, 0.92, 1.0, 1.0)
    assert edge_raw(0.45, 50, VECTOR, weights) == pytest.approx(0.0535501, abs=1e-6)


def test_each_multiplier_equals_its_formula() -> None:
    assert time_multiplier(0.42) == pytest.approx(0.71)
    assert field_multiplier(0.67, 5) == pytest.approx(
        (0.5 + 0.5 * 0.67) * (0.5 + 0.5 * math.tanh(5 / 3))
    )
    assert recurrence_multiplier(-0.8) == pytest.approx(0.5 - 0.5 * math.tanh(0.8))
    assert variance_multiplier(1.44, 50) == pytest.approx(1 / (1 + 1.44 + 0.005))
    assert support(50) == pytest.approx(1 - math.exp(-1))


@given(
    st.floats(0, 1), st.floats(0, 1), st.integers(1, 60), st.floats(0, 1089), st.integers(1, 10**6)
)
def test_multipliers_lie_between_0_and_1(
    te: float, phi: float, segments: int, variance: float, n: int
) -> None:
    for m in (
        time_multiplier(te),
        field_multiplier(phi, segments),
        variance_multiplier(variance, n),
    ):
        assert 0 < m <= 1


@given(st.floats(-66, 66))
def test_recurrence_lies_between_0_and_1(signed_rho: float) -> None:
    assert 0 < recurrence_multiplier(signed_rho) <= 1


@given(st.floats(-20, 20), st.integers(1, 1000), st.floats(0.01, 1), st.floats(0.3, 1.7))
def test_edge_raw_has_the_sign_of_the_edge_and_is_smaller(
    delta: float, n: int, m: float, w: float
) -> None:
    score = edge_raw(delta, n, (m, m, 1.0, 1.0), (w, 1.0, 1.0, 1.0))
    assert score * delta >= 0
    assert abs(score) <= abs(delta)
    assert edge_raw(-delta, n, (m, m, 1.0, 1.0), (w, 1.0, 1.0, 1.0)) == -score


def test_edge_raw_needs_a_weight_for_every_multiplier() -> None:
    with pytest.raises(ValueError, match="zip"):
        edge_raw(0.5, 50, VECTOR, (1.0, 1.0))


def test_weeks_begin_on_monday() -> None:
    days = np.arange(20_000, 20_030)
    weekday = [(EPOCH + pd.Timedelta(days=int(d))).weekday() for d in days]
    changes = np.flatnonzero(np.diff(week_of(days))) + 1
    assert [weekday[i] for i in changes] == [0] * len(changes)
    assert np.diff(changes).tolist() == [7] * (len(changes) - 1)


def test_the_age_of_a_week_is_counted_from_its_middle() -> None:
    monday = 20_000 - (EPOCH + pd.Timedelta(days=20_000)).weekday()
    week = week_of(np.array([monday, monday + 7]))
    assert age_of_week(week, monday + 7.0).tolist() == [3.5, 0.0]
    assert age_of_week(week, monday + 21.0).tolist() == [17.5, 10.5]


def test_time_efficiency_is_the_mean_of_the_known() -> None:
    assert time_efficiency(np.array([0.0, 1.0, np.nan, 3.0])) == pytest.approx(1.75 / 3)
    assert time_efficiency(np.array([np.nan, np.nan])) is None
    assert time_efficiency(np.array([])) is None
    assert time_efficiency(np.array([-5.0])) == 1.0


# --- recurrence and field coherence against loops -----------------------------------------


def random_trades(seed: int, n: int, n_segments: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    days = np.sort(rng.uniform(20_000, 20_070, n))
    segment = rng.integers(-1, n_segments, n)
    return pd.DataFrame(
        {
            "closed_at": EPOCH + pd.to_timedelta(days, unit="D"),
            "day": np.floor(days).astype(np.int64),
            "rr": rng.standard_normal(n),
            "inside": rng.random(n) < 0.4,
            "segment": pd.Series(segment).where(segment >= 0),
        }
    )


def outcomes_of(trades: pd.DataFrame, as_of_day: float) -> Outcomes:
    week = week_of(trades["day"].to_numpy())
    return Outcomes(
        trades["rr"].to_numpy(),
        np.full(len(trades), 2.0),
        trades["segment"].fillna(-1).to_numpy(dtype=np.int64),
        week,
        age_of_week(week, as_of_day),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 200), st.sampled_from([3.0, 30.0, 400.0]))
def test_recurrence_equals_a_loop_over_weeks(seed: int, n: int, tau: float) -> None:
    trades = random_trades(seed, n)
    as_of = EPOCH + pd.Timedelta(days=20_071)
    got = recurrence(trades["inside"].to_numpy(), outcomes_of(trades, 20_071.0), tau)
    expected = twins.recurrence(trades, as_of, tau)
    assert (got is None) == (expected is None)
    assert expected is None or got == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(2, 15), st.sampled_from([-1, 0.3]))
def test_coherence_equals_a_loop_over_segments(seed: int, n: int, n_min: int, delta: float) -> None:
    trades = random_trades(seed, n)
    if trades["inside"].all():
        return
    got = field_coherence(trades["inside"].to_numpy(), outcomes_of(trades, 0.0), delta, n_min)
    expected = twins.coherence(trades, delta, n_min)
    assert got == (expected[0] if expected[0] is None else pytest.approx(expected[0]), expected[1])


def test_a_slice_of_everything_has_neither_recurrence_nor_coherence() -> None:
    trades = random_trades(1, 50)
    outcomes, everything = outcomes_of(trades, 20_071.0), np.ones(50, dtype=bool)
    assert recurrence(everything, outcomes, 30.0) is None
    assert field_coherence(everything, outcomes, 0.5, 2) == (None, 0)


def test_newer_weeks_weigh_more() -> None:
    trades = pd.DataFrame(
        {
            "day": [20_000, 20_000, 20_070, 20_070],
            "rr": [-1.0, 0.0, 1.0, 0.0],
            "inside": [True, False, True, False],
            "segment": [0, 0, 0, 0],
        }
    )
    rho = [
        recurrence(trades["inside"].to_numpy(), outcomes_of(trades, 20_080.0), tau)
        for tau in (10.0, 1e9)
    ]
    assert rho[0] == pytest.approx(math.tanh(3.5), rel=1e-6)
    assert rho[1] == pytest.approx(0.0, abs=1e-6)


def test_a_slice_is_measured_whole() -> None:
    trades = random_trades(3, 150)
    inside, outcomes = trades["inside"].to_numpy(), outcomes_of(trades, 20_071.0)
    got = measure(inside, outcomes, -0.2, 1.1, 5, 30.0)
    phi, segments = twins.coherence(trades, -0.2, 5)
    rho = twins.recurrence(trades, EPOCH + pd.Timedelta(days=20_071), 30.0)
    assert (got.te, got.segments, got.n) == (pytest.approx(1 / 3), segments, int(inside.sum()))
    assert (got.phi, got.rho) == (pytest.approx(phi), pytest.approx(rho))
    assert (got.variance, got.sign) == (1.1, -1.0)


# --- what is unknown takes the group's median ---------------------------------------------


def measured(te: float | None, phi: float | None, rho: float | None, sign: float = 1.0) -> Measured:
    return Measured(te, phi, 3 if phi is not None else 0, rho, 1.0, 50, sign)


def test_unknown_multipliers_take_the_median_of_the_group() -> None:
    known = [measured(0.1, 0.2, 0.5), measured(0.5, 0.9, -0.5), measured(0.9, 1.0, 2.0, -1.0)]
    *made, unknown = multipliers_of([*known, measured(None, None, None)])
    assert unknown.time == sorted(m.time for m in made)[1] == time_multiplier(0.5)
    assert unknown.field == sorted(m.field for m in made)[1] == field_multiplier(0.9, 3)
    assert (
        unknown.recurrence == sorted(m.recurrence for m in made)[1] == recurrence_multiplier(-0.5)
    )
    assert unknown.variance == variance_multiplier(1.0, 50)
    assert (unknown.te, unknown.phi, unknown.rho) == (None, None, None)


def test_where_none_is_known_they_are_1() -> None:
    [one] = multipliers_of([measured(None, None, None)])
    assert (one.time, one.field, one.recurrence) == (1.0, 1.0, 1.0)
    assert multipliers_of([]) == []


def test_recurrence_is_judged_in_the_direction_of_the_edge() -> None:
    up, down = multipliers_of([measured(0.5, 0.5, 0.7), measured(0.5, 0.5, -0.7, -1.0)])
    assert up.recurrence == down.recurrence > 0.5
