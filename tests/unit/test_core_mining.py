"""Mining against naive recursion over frames and dense generalised least squares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import twins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from worlds import ONE, START, Chaos, chaos, row, to_frame

from learning_assets.core import cubes, lattice, mining, walk
from learning_assets.core.dayshock import DayShock
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.lattice import Weighted, lattice_of, strongest
from learning_assets.core.mining import (
    Group,
    SliceTable,
    describe,
    group_of,
    name_slices,
)
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset

Floats = NDArray[np.float64]

MANY = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
WORLDS = st.builds(
    Chaos,
    seed=st.integers(0, 10**6),
    n_trades=st.integers(12, 90),
    n_days=st.sampled_from([1, 2, 9, 40]),
    n_dims=st.integers(1, 4),
    n_values=st.integers(2, 4),
    most_actions=st.integers(1, 4),
    absent=st.sampled_from([0.0, 0.2, 0.6]),
    constant_dim=st.booleans(),
)
SHOCKS = st.sampled_from(
    [
        DayShock(1.0, 0.0, 0.0),
        DayShock(0.7, 0.4, 0.0),
        DayShock(1.3, 0.05, 0.9),
        DayShock(0.2, 2.0, 0.98),
        DayShock(2.0, 0.0, 0.5),
    ]
)


def group_and_events(frame: pd.DataFrame, key: GroupKey = ONE) -> tuple[Group, EventTable]:
    events = from_frame(frame)
    return group_of(events, key), events


def inside_of(group: Group, events: EventTable, trades: frozenset[str]) -> NDArray[np.bool_]:
    return np.array([events.trade_ids[t] in trades for t in group.trades])


def subset_of(group: Group, dims: NDArray[np.int64], codes: NDArray[np.int64]) -> ScopeSubset:
    return group.name(dims[dims >= 0].tolist(), codes[codes >= 0].tolist())


def by_subset(group: Group, table: SliceTable) -> dict[ScopeSubset, int]:
    names = [subset_of(group, table.dims[i], table.codes[i]) for i in range(len(table))]
    assert len(set(names)) == len(names)
    return {name: i for i, name in enumerate(names)}


def outcomes(group: Group, seed: int, columns: int = 2) -> Floats:
    y = np.random.default_rng(seed).standard_t(4, (group.n_trades, columns))
    return np.asarray(y - 0.3, dtype=np.float64)


def assert_table_equals_twin(frame: pd.DataFrame, shock: DayShock, n_min: int, depth: int) -> None:
    group, events = group_and_events(frame)
    y, ranked = outcomes(group, 7).T
    table = describe(group, y, ranked, shock, n_min, depth)
    found = twins.slices(frame, n_min, depth)
    rows = by_subset(group, table)
    assert rows.keys() == found.keys()
    inverse = np.linalg.inv(twins.covariance(group.day, shock))
    for name, i in rows.items():
        expected = twins.statistics(
            inside_of(group, events, found[name].trades), y, ranked, group.day, inverse
        )
        assert table.level[i] == len(name)
        assert table.n[i] == expected.n
        for column in ("mean", "variance", "delta", "evidence"):
            assert getattr(table, column)[i] == pytest.approx(
                getattr(expected, column), rel=1e-9, abs=1e-9, nan_ok=True
            ), (name, column)
        # The root of a sum that cancels (all trades on one day) has half of the digits.
        assert table.se[i] ** 2 == pytest.approx(expected.se**2, rel=1e-9, abs=1e-12, nan_ok=True)


@MANY
@given(WORLDS, SHOCKS, st.integers(2, 12), st.integers(1, 4))
def test_describe_equals_recursion_and_dense_least_squares(
    world: Chaos, shock: DayShock, n_min: int, depth: int
) -> None:
    frame = chaos(world)
    if world.n_trades >= max(n_min, 2):
        assert_table_equals_twin(frame, shock, n_min, depth)


@pytest.mark.parametrize("n_days", [1, 2, 200, 3000])
def test_describe_equals_its_twin_on_one_day_and_on_sparse_ones(n_days: int) -> None:
    frame = chaos(Chaos(seed=5, n_days=n_days, n_trades=70))
    assert_table_equals_twin(frame, DayShock(1.0, 0.3, 0.95), 5, 3)


def with_states(world: Chaos) -> pd.DataFrame:
    """The event frame of a random world whose scopes have the month and, in turn, the week."""
    frame = chaos(world)
    months = frame["closed_at"].dt.strftime("%m")
    weeks = frame["closed_at"].dt.strftime("%W").astype(int) % 3
    frame["scope"] = [
        {**scope, "month": month, "week": str(week)}
        for scope, month, week in zip(frame["scope"], months, weeks, strict=True)
    ]
    return frame


PHIS = (0.0, 1e-9, 0.001, 0.02, 0.5, 0.98)


@pytest.mark.parametrize("phi", PHIS)
@pytest.mark.parametrize("most_actions", [1, 2])
@pytest.mark.parametrize(("day_variance", "n_days"), [(0.02, 150), (50.0, 150), (50.0, 400)])
def test_describe_equals_its_twin_over_many_days_with_states_that_last(
    phi: float, day_variance: float, n_days: int, most_actions: int
) -> None:
    world = Chaos(seed=6, n_days=n_days, n_trades=500, n_dims=2, most_actions=most_actions)
    assert_table_equals_twin(with_states(world), DayShock(1.0, day_variance, phi), 8, 3)


@pytest.mark.parametrize("most_actions", [1, 2])
def test_describe_equals_its_twin_where_a_node_takes_several_chunks(most_actions: int) -> None:
    world = Chaos(seed=8, n_days=120, n_trades=2600, n_dims=2, most_actions=most_actions)
    assert_table_equals_twin(with_states(world), DayShock(1.0, 0.3, 0.5), 100, 2)


@pytest.mark.parametrize("phi", PHIS)
def test_information_is_the_same_from_counts_by_day_and_from_a_walk(
    phi: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, _ = group_and_events(with_states(Chaos(seed=9, n_days=400, n_trades=500, n_dims=2)))
    y, shock = outcomes(group, 3)[:, 0], DayShock(1.0, 5.0, phi)
    counted = Weighted.of(lattice_of(group, y, shock, 8, 3), shock)
    monkeypatch.setattr(lattice, "_MOST_COUNTS", 0)
    walked = Weighted.of(lattice_of(group, y, shock, 8, 3), shock)
    assert (counted.lattice.has_days, walked.lattice.has_days) == (True, False)
    np.testing.assert_allclose(counted.information, walked.information, rtol=1e-9)


def test_a_joined_table_has_aligned_columns_also_without_rows() -> None:
    group, _ = group_and_events(chaos(Chaos(seed=5)))
    y = outcomes(group, 1)[:, 0]
    tables = [describe(group, y, y, DayShock(1.0, 0.1, 0.5), n, 3) for n in (4, 10**6)]
    assert len(tables[0]) > 0
    assert len(tables[1]) == 0
    for table in tables:
        columns = [getattr(table, name) for name in table.__slots__]
        assert all(column.flags.aligned for column in columns)
        assert [column.dtype for column in columns] == [
            np.int8, np.int16, np.int32, np.int32, *[np.float64] * 5, np.uint64
        ]  # fmt: skip


def test_more_slices_than_the_first_buffer_holds_are_all_there() -> None:
    world = Chaos(seed=2, n_trades=300, n_dims=12, n_values=6, most_actions=4, absent=0.0)
    frame = chaos(world)
    group, _ = group_and_events(frame)
    y = outcomes(group, 1)[:, 0]
    table = describe(group, y, y, DayShock(1.0, 0.1, 0.5), 2, 3)
    first = np.bincount(table.dims[:, 0])
    assert first.max() > 4096
    assert len(by_subset(group, table)) == len(table)
    assert np.isfinite(table.mean).all()


def test_a_slice_of_all_trades_has_no_complement() -> None:
    frame = chaos(Chaos(seed=3, constant_dim=True))
    group, _ = group_and_events(frame)
    y = outcomes(group, 1)[:, 0]
    table = describe(group, y, y, DayShock(1.0, 0.1, 0.5), 5, 2)
    i = by_subset(group, table)[(("everywhere", "yes"),)]
    assert table.n[i] == group.n_trades
    assert table.mean[i] == pytest.approx(y.mean())
    assert np.isnan([table.delta[i], table.se[i], table.evidence[i]]).all()


@pytest.mark.parametrize("n_trades", [0, 1, 4])
def test_too_few_trades_give_an_empty_table(n_trades: int) -> None:
    group, _ = group_and_events(chaos(Chaos(n_trades=n_trades)) if n_trades else to_frame([]))
    y = np.zeros(group.n_trades)
    assert len(describe(group, y, y, DayShock(1.0, 0.1, 0.5), 5, 3)) == 0
    found = strongest(group, y[:, None], DayShock(1.0, 0.1, 0.5), 5, 3)
    assert (found.score == -1).all()
    assert (found.dims == -1).all()


def test_a_group_without_dimensions_has_no_slices() -> None:
    frame = chaos(Chaos())
    frame["scope"] = [{} for _ in range(len(frame))]
    group, _ = group_and_events(frame)
    y = outcomes(group, 1)
    for depth in (0, 1, 3):
        assert len(describe(group, y[:, 0], y[:, 1], DayShock(1.0, 0.1, 0.5), 5, depth)) == 0
        assert (strongest(group, y, DayShock(1.0, 0.1, 0.5), 5, depth).score == -1).all()


def test_outcomes_without_variance_give_no_slices() -> None:
    group, _ = group_and_events(chaos(Chaos()))
    y = np.zeros(group.n_trades)
    assert len(describe(group, y, y, DayShock(0.0, 0.0, 0.0), 5, 3)) == 0
    assert (strongest(group, y[:, None], DayShock(0.0, 0.0, 0.0), 5, 3).score == -1).all()


# --- strongest ----------------------------------------------------------------------------


def twin_maxima(
    frame: pd.DataFrame, y: Floats, shock: DayShock, n_min: int, depth: int
) -> tuple[list[Floats], list[dict[ScopeSubset, float]]]:
    """Per column the largest evidence² of each cell, and every subset's evidence.

    Two bounds: over the subsets that no simpler one with the same actions replaces, and over all.
    """
    group, events = group_and_events(frame)
    inverse = np.linalg.inv(twins.covariance(group.day, shock))
    found = twins.slices(frame, n_min, depth)
    low, high = (np.full((y.shape[1], 2 * depth), -1.0) for _ in range(2))
    scores: list[dict[ScopeSubset, float]] = [{} for _ in range(y.shape[1])]
    for name, one in found.items():
        if group.n_trades - len(one.trades) < n_min:
            continue
        x = inside_of(group, events, one.trades).astype(float)
        for b in range(y.shape[1]):
            z = scores[b][name] = twins.evidence(x, y[:, b], inverse)
            k = mining.cell(len(name), z)
            high[b, k] = max(high[b, k], z * z)
            if not twins.is_reducible(name, found, len(frame)):
                low[b, k] = max(low[b, k], z * z)
    return [low, high], scores


@MANY
@given(WORLDS, SHOCKS, st.integers(2, 12), st.integers(1, 3))
def test_strongest_finds_the_maximum_of_each_cell(
    world: Chaos, shock: DayShock, n_min: int, depth: int
) -> None:
    frame = chaos(world)
    if world.n_trades <= n_min:
        return
    group, _ = group_and_events(frame)
    y = outcomes(group, 3, columns=4)
    found = strongest(group, y, shock, n_min, depth)
    [low, high], scores = twin_maxima(frame, y, shock, n_min, depth)
    assert (found.score >= low - 1e-9 * (1 + np.abs(low))).all()
    assert (found.score <= high + 1e-9 * (1 + np.abs(high))).all()
    for b, k in np.argwhere(found.score >= 0).tolist():
        name = subset_of(group, found.dims[b, k], found.codes[b, k])
        assert mining.cell(len(name), scores[b][name]) == k
        assert found.score[b, k] == pytest.approx(scores[b][name] ** 2, rel=1e-9, abs=1e-9)


def test_the_maxima_are_exact_where_no_subset_repeats_another() -> None:
    frame = chaos(Chaos(seed=11, n_trades=400, n_dims=3, n_values=2, absent=0.1))
    group, _ = group_and_events(frame)
    y = outcomes(group, 3, columns=5)
    shock = DayShock(1.0, 0.2, 0.8)
    [low, high], _ = twin_maxima(frame, y, shock, 20, 3)
    assert low == pytest.approx(high)
    assert (low >= 0).all()
    assert strongest(group, y, shock, 20, 3).score == pytest.approx(low, rel=1e-9)


@pytest.mark.parametrize("shock", [DayShock(1.0, 0.2, 0.8), DayShock(1.0, 0.0, 0.0)])
def test_evidence_beside_given_slices_is_that_of_least_squares(shock: DayShock) -> None:
    frame = chaos(Chaos(seed=12, n_trades=300, n_dims=3, n_values=3))
    group, _ = group_and_events(frame)
    y = outcomes(group, 3, columns=2)
    table = describe(group, y[:, 0], y[:, 0], shock, 20, 2)
    names = list(by_subset(group, table))
    given = np.column_stack([group.members(names[k]) for k in (0, 5)]).astype(float)
    found = strongest(group, y, shock, 20, 2, given)
    inverse = np.linalg.inv(twins.covariance(group.day, shock))
    known = np.column_stack([np.ones(group.n_trades), given])
    best = np.full((2, 4), -1.0)
    for name in names:
        x = group.members(name).astype(float)
        if not 20 <= x.sum() <= group.n_trades - 20:
            continue
        alone, beside = (twins.residual_of(x, k, inverse) for k in (known[:, :1], known))
        left = beside @ inverse @ beside
        if 2 * x.sum() * left < 20 * (alone @ inverse @ alone):
            continue
        for b in range(2):
            z = beside @ inverse @ y[:, b] / np.sqrt(left)
            k = mining.cell(len(name), z)
            best[b, k] = max(best[b, k], z * z)
    assert found.score == pytest.approx(best, rel=1e-9)


@MANY
@given(WORLDS, st.integers(2, 8), st.integers(1, 4))
def test_tables_of_several_dimensions_sum_up_what_a_walk_does(
    world: Chaos, n_min: int, depth: int
) -> None:
    group, _ = group_and_events(chaos(world))
    y, shock = outcomes(group, 3, 11), DayShock(1.3, 0.05, 0.9)
    some = np.arange(group.n_trades) % 3 == 0
    walked = lattice_of(group, y[:, 0], shock, n_min, depth)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cubes, "_FEWEST_TRADES", 0)
        patch.setattr(cubes, "_TRADES_PER_CELL", 1 / 16)
        made = lattice_of(group, y[:, 0], shock, n_min, depth)
    for only in (None, some):
        columns = y if only is None else y * only[:, None]
        found, expected = made.sums(columns, only), walked.sums(columns, only)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_strongest_by_tables_are_those_of_a_walk() -> None:
    group, _ = group_and_events(chaos(Chaos(seed=4)))
    y, shock = outcomes(group, 5, columns=3), DayShock(1.0, 0.2, 0.8)
    walked = strongest(group, y, shock, 5, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cubes, "_FEWEST_TRADES", 0)
        patch.setattr(cubes, "_TRADES_PER_CELL", 1 / 16)
        made = strongest(group, y, shock, 5, 3)
    np.testing.assert_allclose(made.score, walked.score, rtol=1e-12)
    np.testing.assert_array_equal(made.codes, walked.codes)


def test_tables_give_way_to_a_walk_where_a_trade_has_very_many_different_actions() -> None:
    rows = [
        row(f"t{k:02}", START, {"chain": str(a), "step": str(k % 3)}, 1.0, event=str(a))
        for k in range(40)
        for a in range(8 if k >= 30 else 2)
    ]
    group, _ = group_and_events(to_frame(rows))
    y, shock = outcomes(group, 4), DayShock(1.0, 0.0, 0.0)
    walked = lattice_of(group, y[:, 0], shock, 3, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cubes, "_FEWEST_TRADES", 0)
        made = lattice_of(group, y[:, 0], shock, 3, 2)
    np.testing.assert_array_equal(made.sums(y), walked.sums(y))


def test_columns_do_not_touch_each_other() -> None:
    group, _ = group_and_events(chaos(Chaos(seed=4)))
    y = outcomes(group, 5, columns=3)
    shock = DayShock(1.0, 0.2, 0.8)
    together = strongest(group, y, shock, 5, 3)
    for b in range(3):
        alone = strongest(group, y[:, [b]], shock, 5, 3)
        np.testing.assert_allclose(alone.score[0], together.score[b], rtol=1e-12)
        np.testing.assert_array_equal(alone.codes[0], together.codes[b])


def test_evidence_of_describe_is_that_of_strongest() -> None:
    group, _ = group_and_events(chaos(Chaos(seed=6, n_trades=200)))
    y, shock = outcomes(group, 5)[:, 0], DayShock(1.0, 0.2, 0.8)
    table = describe(group, y, y, shock, 8, 3)
    found = strongest(group, y[:, None], shock, 8, 3)
    rows = by_subset(group, table)
    for k in np.flatnonzero(found.score[0] >= 0):
        name = subset_of(group, found.dims[0, k], found.codes[0, k])
        assert table.evidence[rows[name]] ** 2 == pytest.approx(found.score[0, k], rel=1e-9)


# --- equal sets of trades are one slice, but their children are not ----------------------


def trap() -> pd.DataFrame:
    """A=a and A=a∧B=b match the same 40 trades by different actions; so do their children not.

    The early action of a trade has A=a alone, the later one A=a and B=b, each with a C of its
    own. Trades outside A=a have B=b and C=x too, so that no simpler subset stands in.
    """
    rows = []
    for t in range(40):
        early, late = "x" if t % 4 == 3 else "y", "y" if t % 2 else "x"
        closed = START + pd.Timedelta(hours=7 * t)
        rr = 2.0 if late == "x" else 0.0
        rows.append(row(f"in{t:02d}", closed, {"A": "a", "C": early}, rr, event="0"))
        rows.append(row(f"in{t:02d}", closed, {"A": "a", "B": "b", "C": late}, rr, event="1"))
    for t in range(40):
        closed = START + pd.Timedelta(hours=7 * t + 3)
        scope = {"A": "o", "B": "b", "C": "x" if t % 2 else "y"}
        rows.append(row(f"out{t:02d}", closed, scope, 0.0))
    return to_frame(rows)


CHILD = (("A", "a"), ("B", "b"), ("C", "x"))
COUSIN = (("A", "a"), ("C", "x"))


def test_the_trap_is_one() -> None:
    found = twins.slices(trap(), 5, 3)
    parent, same = found[(("A", "a"),)], found[(("A", "a"), ("B", "b"))]
    assert parent.trades == same.trades
    assert parent.rows != same.rows
    assert found[CHILD].trades < found[COUSIN].trades


def test_describe_keeps_the_children_of_equal_sets_of_trades() -> None:
    assert_table_equals_twin(trap(), DayShock(1.0, 0.1, 0.5), 5, 3)
    group, _ = group_and_events(trap())
    y = outcomes(group, 1)[:, 0]
    table = describe(group, y, y, DayShock(1.0, 0.0, 0.0), 5, 3)
    rows = by_subset(group, table)
    assert table.n[rows[CHILD]] == 20
    assert table.n[rows[COUSIN]] == 30
    assert table.key[rows[CHILD]] != table.key[rows[COUSIN]]


def test_strongest_descends_into_equal_sets_of_trades() -> None:
    group, events = group_and_events(trap())
    y = events.rr[group.trades][:, None]
    found = strongest(group, y, DayShock(1.0, 0.0, 0.0), 5, 3)
    best = mining.cell(3, 1.0)
    assert subset_of(group, found.dims[0, best], found.codes[0, best]) == CHILD
    assert found.score[0, best] == found.score.max()


def test_equal_sets_of_trades_are_one_slice_with_the_simplest_name() -> None:
    group, _ = group_and_events(trap())
    y = outcomes(group, 1)[:, 0]
    table = describe(group, y, y, DayShock(1.0, 0.0, 0.0), 5, 3)
    names, aliases = name_slices(table)
    called = {subset_of(group, table.dims[i], table.codes[i]): i for i in names.tolist()}
    owner = called[(("A", "a"),)]
    others = {subset_of(group, table.dims[i], table.codes[i]) for i in aliases[owner].tolist()}
    assert others == {(("A", "a"), ("B", "b")), (("A", "a"), ("C", "y"))}
    assert CHILD in called
    assert COUSIN in called


@MANY
@given(WORLDS, st.integers(2, 8))
def test_naming_equals_grouping_by_sets_of_trades(world: Chaos, n_min: int) -> None:
    frame = chaos(world)
    group, _ = group_and_events(frame)
    y = outcomes(group, 1)[:, 0]
    table = describe(group, y, y, DayShock(1.0, 0.0, 0.0), n_min, 3)
    names, aliases = name_slices(table)
    subsets = [subset_of(group, table.dims[i], table.codes[i]) for i in range(len(table))]
    families: dict[frozenset[str], list[ScopeSubset]] = {}
    for name, one in twins.slices(frame, n_min, 3).items() if len(table) else ():
        families.setdefault(one.trades, []).append(name)
    expected = {}
    for family in families.values():
        first, *rest = sorted(family, key=naming_order)
        expected[first] = set(rest)
    assert {
        subsets[i]: {subsets[a] for a in aliases.get(i, ())} for i in names.tolist()
    } == expected
    assert [subsets[i] for i in names.tolist()] == sorted(expected, key=naming_order)


def naming_order(name: ScopeSubset) -> Any:
    return len(name), [dim for dim, _ in name], [value for _, value in name]


# --- invariance ---------------------------------------------------------------------------


def full_table(frame: pd.DataFrame, scale: float = 1.0) -> dict[ScopeSubset, list[float]]:
    group, events = group_and_events(frame)
    y = scale * events.rr[group.trades]
    shock = DayShock(scale**2, 0.2 * scale**2, 0.8)
    table = describe(group, y, y, shock, 6, 3)
    return {
        name: [
            float(getattr(table, column)[i])
            for column in ("n", "mean", "variance", "delta", "se", "evidence")
        ]
        for name, i in by_subset(group, table).items()
    }


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    frame = chaos(Chaos(seed=seed))
    assert full_table(frame) == full_table(frame.sample(frac=1.0, random_state=seed + 1))


@pytest.mark.parametrize("threads", [1, 5])
def test_the_number_of_threads_does_not_matter(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = chaos(Chaos(seed=8, n_trades=150))
    group, _ = group_and_events(frame)
    y, shock = outcomes(group, 2, 3), DayShock(1.0, 0.2, 0.7)
    before = describe(group, y[:, 0], y[:, 1], shock, 6, 3), strongest(group, y, shock, 6, 3)
    monkeypatch.setattr(walk, "_THREADS", threads)
    after = describe(group, y[:, 0], y[:, 1], shock, 6, 3), strongest(group, y, shock, 6, 3)
    for one, other in zip(before, after, strict=True):
        for name in one.__slots__:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def renamed(frame: pd.DataFrame, dims: dict[str, str], values: dict[str, str]) -> pd.DataFrame:
    scopes = [
        {dims.get(d, d): values.get(v, v) for d, v in scope.items()} for scope in frame["scope"]
    ]
    return frame.assign(scope=scopes)


def assert_alike(
    one: dict[ScopeSubset, list[float]], other: dict[ScopeSubset, list[float]]
) -> None:
    """The same slices; their sums may have been added up in another order."""
    assert one.keys() == other.keys()
    for name, values in other.items():
        assert one[name] == pytest.approx(values, rel=1e-12, abs=1e-12)


def test_the_labels_of_values_do_not_matter() -> None:
    frame = chaos(Chaos(seed=9))
    label = {"a": "z", "b": "y", "c": "k"}
    other = full_table(renamed(frame, {}, label))
    expected = {tuple((d, label[v]) for d, v in s): x for s, x in full_table(frame).items()}
    assert_alike(other, expected)


def test_the_labels_of_dimensions_do_not_matter_to_describe() -> None:
    frame = chaos(Chaos(seed=9))
    label = {"d0": "z", "d1": "y", "d2": "k", "d3": "a"}
    other = full_table(renamed(frame, label, {}))
    expected = {tuple(sorted((label[d], v) for d, v in s)): x for s, x in full_table(frame).items()}
    assert_alike(other, expected)


def test_the_names_of_dimensions_do_not_matter_to_the_strongest_of_either_sign() -> None:
    """B=b holds wherever A=a and C=c do: a third dimension that says nothing."""
    rng = np.random.default_rng(1)
    rows = []
    for t in range(80):
        a, c = "ao"[rng.integers(2)], "co"[rng.integers(2)]
        b = "b" if (a, c) == ("a", "c") else "bo"[rng.integers(2)]
        rows.append(row(f"t{t:02d}", START + pd.Timedelta(hours=t), {"A": a, "B": b, "C": c}, 0.0))
    frame, shock = to_frame(rows), DayShock(1.0, 0.0, 0.0)
    group, _ = group_and_events(frame)
    other, _ = group_and_events(renamed(frame, {"B": "Z"}, {}))
    y = (group.members((("A", "a"), ("C", "c"))) * 1.0)[:, None]
    one = strongest(group, y, shock, 5, 3).score.reshape(3, 2)
    renamed_one = strongest(other, y, shock, 5, 3).score.reshape(3, 2)
    np.testing.assert_allclose(renamed_one.max(axis=0), one.max(axis=0))


def test_edges_scale_with_outcomes_and_evidence_does_not() -> None:
    frame = chaos(Chaos(seed=10))
    one, three = full_table(frame), full_table(frame, scale=3.0)
    factors = np.array([1.0, 3.0, 9.0, 3.0, 3.0, 1.0])
    for name, values in one.items():
        assert three[name] == pytest.approx(values * factors, rel=1e-9, abs=1e-9, nan_ok=True)


def test_whole_days_do_not_matter() -> None:
    frame = chaos(Chaos(seed=12))
    later = frame.assign(
        closed_at=frame["closed_at"] + pd.Timedelta(days=3),
        opened_at=frame["opened_at"] + pd.Timedelta(days=3),
    )
    assert full_table(later) == full_table(frame)


def test_members_equal_the_twin_and_know_unknown_pairs() -> None:
    frame = chaos(Chaos(seed=13))
    group, events = group_and_events(frame)
    for name, one in twins.slices(frame, 1, 2).items():
        np.testing.assert_array_equal(group.members(name), inside_of(group, events, one.trades))
    assert group.members(()).all()
    assert not group.members((("d0", "never seen"),)).any()
    assert not group.members((("never", "seen"),)).any()


def test_a_group_that_is_not_there_is_empty() -> None:
    group, _ = group_and_events(chaos(Chaos()), GroupKey("pm", "pm.other.S1.x", "entry"))
    assert group.n_trades == 0
    assert not group.members(()).any()
