"""The bench of the mining: its data, its naive twin, what it says of rows, and its chart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import twins
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import mining
import mining_chart
import mining_data
import mining_peers
import mining_twin
import side_by_side
from mining import Case, Pass
from mining_data import Shape, events_of

from learning_assets.core.dayshock import DayShock
from learning_assets.core.events import EventTable
from learning_assets.core.mining import SliceTable, describe, group_of

PROMISED = ("trades", "dims", "depth", "slices", "seconds", "peak_mib")
SHOCK = DayShock(1.5, 0.2, 0.8)
SMALL = Case(300, dims=4)


def frame_of(events: EventTable) -> pd.DataFrame:
    """One row per action, as the twins of the tests take them."""
    scopes = [
        {d: v[c - 1] for d, v, c in zip(events.dims, events.values, column, strict=True) if c}
        for column in events.codes.T
    ]
    return pd.DataFrame({"trade_id": events.trade_ids[events.trade].tolist(), "scope": scopes})


# --- the data --------------------------------------------------------------------------------


def test_there_are_thirteen_skewed_dimensions_and_fifteen_regimes() -> None:
    events = events_of(Shape(20_000))
    assert events.dims == tuple(sorted(events.dims))
    assert len(events.dims) == 28
    regimes = [d for d in events.dims if d in mining_data.REGIME_DIMENSIONS]
    assert len(regimes) == 15
    for dim, known, codes in zip(events.dims, events.values, events.codes, strict=True):
        assert codes.min() >= 1
        assert codes.max() <= len(known)
        if dim in regimes:
            assert len(known) == 4
        else:
            assert 3 <= len(known) <= 12
            counts = np.bincount(codes, minlength=len(known) + 1)[1:]
            assert counts.max() > 1.3 * counts.mean()


@pytest.mark.parametrize(("horizon", "least", "most"), [("macro", 7, 60), ("meso", 2, 5)])
def test_regimes_persist_for_weeks_and_days(horizon: str, least: float, most: float) -> None:
    hours = mining_data.REGIME_HOURS[horizon]
    states = np.stack([mining_data.regime(np.random.default_rng(k), hours) for k in range(20)])
    runs = 20 + (np.diff(states, axis=1) != 0).sum()
    assert least * 24 < states.size / runs < most * 24
    assert set(np.unique(states)) == {1, 2, 3, 4}


def test_micro_regimes_persist_for_hours() -> None:
    states = mining_data.regime(np.random.default_rng(1), mining_data.REGIME_HOURS["micro"])
    assert 3 < len(states) / (1 + (np.diff(states) != 0).sum()) < 8


def test_trades_close_in_order_within_the_span_and_more_by_day() -> None:
    events = events_of(Shape(5000))
    assert (np.diff(events.closed_at) >= np.timedelta64(0)).all()
    assert len(np.unique(events.day)) == mining_data.SPAN_DAYS
    assert events.closed_at.max() < np.datetime64(mining_data.END.replace(tzinfo=None))
    assert (events.opened_at < events.closed_at).all()
    hours = (events.closed_at - events.closed_at.astype("datetime64[D]")) // np.timedelta64(1, "h")
    counts = np.bincount(hours.astype(int), minlength=24)
    assert counts.max() > 3 * counts.min()


def test_three_actions_share_most_of_the_scope_and_have_regimes_of_their_own_time() -> None:
    events = events_of(Shape(2000, actions=3))
    np.testing.assert_array_equal(events.trade, np.repeat(np.arange(2000), 3))
    first, *later = (events.codes[:, k::3] for k in range(3))
    same = np.mean([(first == other).mean(axis=1) for other in later], axis=0)
    for dim, share in zip(events.dims, same, strict=True):
        if dim in ("A_mode", "E_mode") or dim.endswith("_micro"):
            assert share < 0.75, dim
        elif dim.endswith("_macro"):
            assert 0.95 < share < 1, dim
        elif dim not in mining_data.REGIME_DIMENSIONS:
            assert share == 1, dim
    np.testing.assert_array_equal(events.rr, events_of(Shape(2000)).rr)


def test_fewer_dimensions_are_some_of_all() -> None:
    every, some = events_of(Shape(500)), events_of(Shape(500, dims=7))
    assert len(some.dims) == 7
    for dim, codes in zip(some.dims, some.codes, strict=True):
        np.testing.assert_array_equal(codes, every.codes[every.dims.index(dim)])


def test_outcomes_are_skewed_with_a_shock_of_the_day_and_effects_where_planted() -> None:
    shape = Shape(40_000, effects=2)
    plain, events = events_of(replace(shape, effects=0)), events_of(shape)
    assert stats.skew(plain.rr) > 1
    assert np.median(plain.rr) < -0.5 < abs(plain.rr.mean())
    days = pd.Series(plain.rr).groupby(plain.day)
    assert days.mean().var() > 2 * (days.var() / days.size()).mean()
    group = group_of(events, mining_data.GROUP)
    effects = mining_data.planted(shape)
    inside = np.array([group.members(one.scope_subset) for one in effects], dtype=float)
    planted = np.array([one.effect_r for one in effects]) @ inside
    np.testing.assert_allclose(events.rr, np.clip(plain.rr + planted, -33, 33), atol=1e-9)
    assert inside.any(axis=1).all()


def test_the_same_seed_gives_the_same_trades_without_objects() -> None:
    one, same, other = (events_of(Shape(200, seed=seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.codes, same.codes)
    np.testing.assert_array_equal(one.rr, same.rr)
    assert (one.rr != other.rr).any()
    assert one.trade_ids.dtype != object
    assert len(set(one.trade_ids.tolist())) == 200


# --- the naive twin --------------------------------------------------------------------------


@pytest.mark.parametrize("actions", [1, 3])
def test_the_naive_twin_equals_the_twins_of_the_tests(actions: int) -> None:
    events = events_of(Shape(150, actions, dims=6))
    naive = mining_twin.naive_of(events, SHOCK, 12, 3)
    found = {one.scope_subset: one for one in mining_twin.slices(naive)}
    expected = twins.slices(frame_of(events), 12, 3)
    assert found.keys() == expected.keys()
    inverse = np.linalg.inv(twins.covariance(events.day, SHOCK))
    for name, one in found.items():
        inside = np.isin(np.arange(150), list(one.trades))
        assert expected[name].trades == {events.trade_ids[t] for t in one.trades}
        twin = twins.statistics(inside, events.rr, events.rr, events.day, inverse)
        assert one.n == twin.n
        for column in mining.STATISTICS:
            assert getattr(one, column) == pytest.approx(
                getattr(twin, column), rel=1e-9, abs=1e-9, nan_ok=True
            ), (name, column)


def test_a_slice_of_all_trades_has_no_complement_for_the_naive_twin() -> None:
    events = events_of(Shape(60, dims=2))
    constant = replace(events, codes=np.ones_like(events.codes))
    found = list(mining_twin.slices(mining_twin.naive_of(constant, SHOCK, 5, 2)))
    assert [one.n for one in found] == [60, 60, 60]
    assert np.isnan([[one.delta, one.se, one.evidence] for one in found]).all()


@pytest.mark.parametrize("depth", [2, 3])
def test_the_sampled_subtrees_are_parts_of_the_whole(depth: int) -> None:
    naive = mining_twin.naive_of(events_of(Shape(200, 3, dims=6)), SHOCK, 15, depth)
    whole = {one.scope_subset: one for one in mining_twin.slices(naive)}
    roots = mining_twin.sampled_roots(naive, 5, seed=1)
    assert len(set(roots)) == 5
    assert roots == mining_twin.sampled_roots(naive, 5, seed=1)
    found = list(mining_twin.slices_from(naive, roots))
    assert {one.scope_subset for one in found} == {
        name for name in whole if name[: depth - 1] in roots
    }
    assert found == [whole[one.scope_subset] for one in found]


# --- rows ------------------------------------------------------------------------------------


def in_this_process(
    things: Mapping[str, tuple[Callable[[], side_by_side.Thing], int]],
) -> dict[str, side_by_side.Measured]:
    found = {}
    for name, (make, times) in things.items():
        thing = make()
        seen = thing.look(thing.run())
        seconds = tuple(0.5 + k for k in range(times))
        found[name] = side_by_side.Measured(thing.algorithm, seconds, seen, 100.0)
    return found


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "measure", in_this_process)
    monkeypatch.setattr(mining, "reading", lambda threads: side_by_side.idle())


def with_peers(monkeypatch: pytest.MonkeyPatch, slices: int) -> None:
    way = mining_peers.Way("fast", lambda: None, lambda _: slices, lambda _: {})
    monkeypatch.setattr(mining, "is_installed", lambda _: True)
    monkeypatch.setattr(mining, "ways_of", lambda *_: (way,))


@pytest.mark.usefixtures("here")
def test_a_row_has_what_was_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    with_peers(monkeypatch, 17)
    case = replace(SMALL, others=("naive_whole", *mining.PEERS), repeats=7)
    document = mining.document_of([case], [Pass("strongest", 300), Pass("calibration", 300, 3)])
    [row] = json.loads(json.dumps(document, allow_nan=False))["rows"]
    assert row.keys() >= {*PROMISED, "ratio_naive", "ratio_pysubgroup", "ratio_pyfim"}
    assert (row["trades"], row["dims"], row["depth"], row["repeats"]) == (300, 4, 3, 15)
    assert row["slices"] == row["naive_slices"] == len(mining.Problem.of(SMALL).describe())
    assert row["naive_scaled"] is False
    assert (row["seconds"], row["seconds_naive"]) == (7.5, 3.5)
    assert row["ratio_naive"] == row["ratio_pysubgroup"] == pytest.approx(3.5 / 7.5)
    assert (row["repeats_pyfim"], row["ratio_pyfim"]) == (15, 1.0)
    assert row["algorithm_pyfim"] == "fast"
    assert row["times_least"] == pytest.approx(row["seconds"] / row["least_seconds"])
    assert document.keys() >= {"machine", "date", "processor", "bandwidth_gib_per_second"}
    assert [one["columns"] for one in document["passes"]] == [1, mining.CONFIG.rotations]
    text = mining.line_of(row)
    assert "17" not in text
    assert "naive × 0.467" in text
    assert mining.disagreements([row]) == [
        f"300 trades, 4 dimensions, depth 3: {name} found 17 slices, ours {row['slices']}"
        for name in mining.PEERS
    ]


@pytest.mark.usefixtures("here")
def test_who_is_not_installed_has_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "is_installed", lambda _: False)
    row = mining.row_of(replace(SMALL, others=("naive", *mining.PEERS)), 10.0)
    assert not any(name in key for key in row for name in mining.PEERS)
    assert mining.disagreements([row]) == []


@pytest.mark.usefixtures("here")
def test_a_sample_is_scaled_by_the_number_of_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "SAMPLED", 10)
    row = mining.row_of(replace(SMALL, others=("naive",)), 10.0)
    assert row["naive_scaled"] is True
    assert row["naive_slices"] == 10
    assert row["seconds_naive"] == pytest.approx(2.5 * row["slices"] / 10)


def test_the_least_bytes_by_hand() -> None:
    events = events_of(Shape(200, dims=3))
    group = group_of(events, mining_data.GROUP)
    table = describe(group, events.rr, events.rr, SHOCK, 20, 3)
    expected = 3 * 200
    for level, dims, n in zip(table.level, table.dims, table.n, strict=True):
        if level == 1:
            expected += (2 - int(dims[0])) * int(n)
        elif level == 2 and tuple(dims[:2]) == (0, 1):
            expected += int(n)
    assert mining.least_bytes(table, group) == expected
    # Of many trades the sum does not fit 32 bits.
    many = replace(table, n=(table.n * 10**7).astype(table.n.dtype))
    own = group.n_trades * len(group.dims)
    assert mining.least_bytes(many, group) - own == (expected - own) * 10**7


@pytest.mark.parametrize("actions", [1, 3])
def test_ours_agrees_with_the_naive_twin(actions: int) -> None:
    assert mining.differences(replace(SMALL, actions=actions)) == []


def wrong_table(change: Callable[[SliceTable], dict[str, Any]]) -> Callable[..., SliceTable]:
    def wrong(*args: Any) -> SliceTable:
        table = describe(*args)
        return replace(table, **change(table))

    return wrong


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {"se": t.se * (1 + 1e-7)}, "se differs"),
        (lambda t: {"evidence": t.evidence + 1e-7}, "evidence differs"),
        (lambda t: {"n": t.n + 1}, "n differs"),
        (lambda t: {"key": np.zeros_like(t.key)}, "not the same slice"),
        (lambda t: {"codes": np.where(t.codes > 0, 1, -1)}, "naive has"),
    ],
)
def test_what_differs_is_said(
    change: Callable[[SliceTable], dict[str, Any]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mining, "describe", wrong_table(change))
    monkeypatch.setattr(mining, "is_installed", lambda _: False)
    assert any(said in text for text in mining.differences(SMALL))


@pytest.mark.parametrize("wrong", [[], ["n differs from naive"]])
def test_one_document_and_an_end_with_1_where_results_differ(
    wrong: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(mining, "differences", lambda case: wrong if case.actions == 1 else [])
    monkeypatch.setattr(mining, "document_of", lambda *_: made_up())
    chart = tmp_path / "chart.svg"
    monkeypatch.setattr(sys, "argv", ["mining.py", "--json", "--chart", str(chart)])
    assert mining.main() == len(wrong)
    assert json.loads(capsys.readouterr().out)["wrong"] == wrong
    assert chart.exists() == (not wrong)


def test_the_default_and_the_full_run_have_what_was_asked_for() -> None:
    for actions in (1, 3):
        described = {c.trades for c in mining.CASES if c.actions == actions and c.depth == 3}
        assert described >= {1_000, 10_000, 100_000}
        assert any(c.actions == actions and c.trades == 10**6 for c in mining.FULL_CASES)
    assert {(p.name, p.trades) for p in mining.PASSES} == {
        ("strongest", 20_000), ("calibration", 20_000)
    }  # fmt: skip
    assert {p.trades for p in mining.FULL_PASSES} == {10**6}


# --- children and peers ----------------------------------------------------------------------


def test_children_take_turns_and_know_their_own_peak() -> None:
    things = {"nothing": (side_by_side.idle, 2), "reading": (partial(side_by_side.reading, 2), 1)}
    found = side_by_side.measure(things)
    assert [len(found[name].all_seconds) for name in things] == [2, 1]
    assert found["reading"].peak_mib > found["nothing"].peak_mib + 900
    assert 0.5 < side_by_side.bandwidth_gib(found["reading"]) < 5000


def test_a_child_that_fails_is_an_error() -> None:
    with pytest.raises(ChildProcessError, match="broken ended with 1"):
        side_by_side.measure({"broken": (partial(side_by_side.reading, 0), 1)})


def test_transactions_leave_out_what_is_absent() -> None:
    events = events_of(Shape(50, dims=3))
    rows, pairs = mining_peers.transactions(events)
    assert all(len(row) == 3 for row in rows)
    events.codes[1, 7] = 0
    rows, _ = mining_peers.transactions(events)
    assert [pairs[item] for item in rows[7]] == [
        (events.dims[d], events.values[d][events.codes[d, 7] - 1]) for d in (0, 2)
    ]
    assert len(rows[8]) == 3


# --- the chart -------------------------------------------------------------------------------


def made_up() -> dict[str, Any]:
    def row(trades: int, actions: int = 1, **others: Any) -> dict[str, Any]:
        base = {
            "trades": trades,
            "actions": actions,
            "dims": 28,
            "depth": 3,
            "seconds": trades / 1e5,
        }
        return {**base, "slices": 5, "peak_mib": 300.0, "times_least": 9.0, **others}

    return {
        "processor": "2 × Some Processor", "threads": 2, "date": "2026-01-05", "n_min": 33,
        "rows": [
            row(5000, seconds_naive=200.0, ratio_naive=9.0, naive_scaled=False),
            row(1000, seconds_pyfim=0.02, seconds_pysubgroup=3.0),
            row(5000, seconds_naive=250.0, ratio_naive=9.0, naive_scaled=True),
            row(1000, actions=3), {**row(1000), "dims": 6, "seconds": 99.0}, row(1_000_000),
        ],
        "passes": [],
    }  # fmt: skip


def test_the_chart_has_a_line_for_each_with_what_was_measured_whole() -> None:
    by_key = {
        (line.key, line.actions): mining_chart.points_of(line, made_up())
        for line in mining_chart.LINES
    }
    assert by_key["seconds_naive", 1] == [(5000, 200.0)]
    assert by_key["seconds", 1] == [(1000, 0.01), (5000, 0.05), (1_000_000, 10.0)]
    assert by_key["seconds", 3] == [(1000, 0.01)]
    figure = mining_chart.figure_of(made_up())
    [axes] = figure.axes
    assert len(axes.lines) == len(mining_chart.LINES)
    assert [text.get_text() for text in axes.texts] == [
        line.label
        for line in sorted(mining_chart.LINES, key=lambda one: by_key[one.key, one.actions][-1][1])
    ]
    heights = [text.xyann[1] for text in axes.texts]
    assert (np.diff(np.log(heights)) > 0.5).all()


def test_the_small_print_says_on_what_and_when_and_the_file_is_the_same_again(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    for path in (one, two):
        mining_chart.draw(made_up(), path)
    assert one.read_bytes() == two.read_bytes()
    text = one.read_text()
    for said in ("2 × Some Processor", "2 threads", "2026-01-05", "scaled", "pyfim, counts alone"):
        assert said in text
