"""Events as columns: their order, what is absent, and where a window begins and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ONE, START, TWO, Chaos, Plan, chaos, market, row, to_frame

from learning_assets.core.events import ABSENT, EventTable, from_frame, instant


def scopes_of(events: EventTable) -> list[dict[str, str]]:
    return [
        {
            dim: events.values[d][code - 1]
            for d, dim in enumerate(events.dims)
            if (code := events.codes[d, a]) != ABSENT
        }
        for a in range(events.n_events)
    ]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(0, 25))
def test_columns_hold_every_action_of_the_frame(seed: int, n_trades: int) -> None:
    frame = chaos(Chaos(seed=seed, n_trades=n_trades)) if n_trades else to_frame([])
    events = from_frame(frame)
    rows = frame.sort_values(["closed_at", "trade_id", "event_id"])
    assert events.n_trades == frame["trade_id"].nunique()
    assert events.n_events == len(frame)
    assert events.trade_ids[events.trade].tolist() == rows["trade_id"].tolist()
    assert scopes_of(events) == rows["scope"].tolist()
    assert (np.diff(events.trade) >= 0).all()
    np.testing.assert_array_equal(events.rr[events.trade], rows["rr"].to_numpy(dtype=float))


def same(one: EventTable, other: EventTable) -> None:
    for name in EventTable.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    frame = market(Plan(n_trades=40, allocated=True))
    same(from_frame(frame), from_frame(frame.sample(frac=1.0, random_state=seed)))


def test_trades_stand_in_closing_order_then_by_id() -> None:
    later = START + timedelta(hours=1)
    frame = to_frame([row("b", START, {}, 1.0), row("z", later, {}, 2.0), row("a", START, {}, 3.0)])
    assert from_frame(frame).trade_ids.tolist() == ["a", "b", "z"]
    assert from_frame(frame).rr.tolist() == [3.0, 1.0, 2.0]


def test_groups_are_sorted_and_actions_point_at_them() -> None:
    frame = to_frame(
        [row("a", START, {}, 1.0, TWO), row("a", START, {}, 1.0, ONE), row("b", START, {}, 1.0)]
    )
    events = from_frame(frame)
    assert events.groups == (ONE, TWO)
    assert [events.groups[g] for g in events.group] == [ONE, TWO, ONE]


def test_days_are_utc_days() -> None:
    zone = timezone(timedelta(hours=5))
    frame = to_frame([row("a", datetime(2026, 1, 6, 4, 59, tzinfo=zone), {}, 1.0)])
    events = from_frame(frame)
    assert events.closed_at[0] == np.datetime64("2026-01-05T23:59", "us")
    assert events.day.tolist() == [(datetime(2026, 1, 5) - datetime(1970, 1, 1)).days]


def test_unknown_times_and_hours_stay_unknown() -> None:
    frame = to_frame([row("a", START, {}, 1.0, hold_hours=np.nan)])
    frame["opened_at"] = pd.Series([None], dtype=object)
    events = from_frame(frame)
    assert np.isnat(events.opened_at[0])
    assert np.isnan([events.payback_hours[0], events.hold_hours[0]]).all()


def test_an_empty_frame_gives_an_empty_table() -> None:
    events = from_frame(to_frame([]))
    assert (events.n_trades, events.n_events, events.groups, events.dims) == (0, 0, (), ())
    assert events.window(START, 180).n_trades == 0
    assert events.day.shape == (0,)


def moments(*at: datetime) -> EventTable:
    return from_frame(to_frame([row(f"t{i}", t, {"d": "v"}, float(i)) for i, t in enumerate(at)]))


def test_a_window_holds_its_beginning_and_not_its_end() -> None:
    tick, as_of = timedelta(microseconds=1), START + timedelta(days=30)
    first = as_of - timedelta(days=10)
    events = moments(first - tick, first, as_of - tick, as_of, as_of + tick)
    assert events.window(as_of, 10).trade_ids.tolist() == ["t1", "t2"]


def test_a_window_may_be_a_part_of_a_day() -> None:
    as_of = START + timedelta(days=1)
    events = moments(START, START + timedelta(hours=12), START + timedelta(hours=13))
    assert events.window(as_of, 0.5).trade_ids.tolist() == ["t1", "t2"]


def test_the_zone_of_as_of_does_not_matter() -> None:
    events = moments(START, START + timedelta(hours=2))
    as_of = (START + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-7)))
    assert instant(as_of) == np.datetime64("2026-01-05T01:00", "us")
    assert events.window(as_of, 5).trade_ids.tolist() == ["t0"]


def test_some_trades_keep_their_actions() -> None:
    events = from_frame(chaos(Chaos(seed=3, n_trades=30)))
    keep = np.random.default_rng(1).random(30) < 0.5
    part = events.where(keep)
    actions = keep[events.trade]
    assert part.trade_ids.tolist() == events.trade_ids[keep].tolist()
    assert part.trade_ids[part.trade].tolist() == events.trade_ids[events.trade[actions]].tolist()
    np.testing.assert_array_equal(part.codes, events.codes[:, actions])
    np.testing.assert_array_equal(part.group, events.group[actions])
    same(events.where(np.ones(30, dtype=bool)), events)
    assert events.where(np.zeros(30, dtype=bool)).n_events == 0


def test_other_outcomes_leave_the_rest() -> None:
    events = from_frame(chaos(Chaos(n_trades=10)))
    other = events.with_rr(np.arange(10.0))
    assert other.rr.tolist() == list(range(10))
    same(other.with_rr(events.rr), events)


def test_instants_are_naive_utc() -> None:
    assert instant(datetime(2026, 1, 5, 3, 4, 5, 6, tzinfo=UTC)) == np.datetime64(
        "2026-01-05T03:04:05.000006", "us"
    )
