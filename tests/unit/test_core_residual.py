"""Residual mining: the joint fit against dense algebra, and planted edges found and kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import twins
from numpy.typing import NDArray
from worlds import ALLOCATION, DIMS, ONE, TWO, Edge, Plan, events_of

from learning_assets.core import cubes, lattice, residual
from learning_assets.core.config import LearningConfig
from learning_assets.core.dayshock import DayShock
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.learn import GroupSearch, search
from learning_assets.core.mining import cell, group_of
from learning_assets.core.records import GroupKey
from learning_assets.core.residual import (
    Cutoffs,
    Memory,
    Search,
    best_beside,
    calibrate,
    described,
    drop_weak,
    exchange,
    fit_jointly,
    regroup,
    winsorised,
)
from learning_assets.core.scope import ScopeSubset
from learning_assets.sources.demo import MarketSettings, simulate

Floats = NDArray[np.float64]

FAST = LearningConfig(rotations=39)
SHOCK = DayShock(0.3, 0.05, 0.8)
SOLANA: ScopeSubset = (("chain", "solana"),)
MICRO: ScopeSubset = (("mcap_bucket", "micro"),)
BOTH: ScopeSubset = (*SOLANA, *MICRO)
BASE_1H: ScopeSubset = (("chain", "base"), ("timeframe", "1h"))


def a_search(plan: Plan, winsor: float = 0.01, key: GroupKey = ONE) -> Search:
    events = events_of(plan)
    group = group_of(events, key)
    return Search(group, events.rr[group.trades] - 0.2, 15, 3, winsor, Memory(events.rr))


def one_pattern(*edges: tuple[ScopeSubset, float], seed: int = 1, n_trades: int = 400) -> Plan:
    planted = tuple(Edge(ONE, dict(scope), size) for scope, size in edges)
    return Plan(seed=seed, n_trades=n_trades, edges=planted, patterns=(ONE,))


def level_cut(height: float, shock: DayShock = SHOCK) -> Cutoffs:
    return Cutoffs((height,) * 6, shock)


# --- the joint fit ------------------------------------------------------------------------


@pytest.mark.parametrize("slices", [(SOLANA,), (SOLANA, BOTH), (SOLANA, MICRO, BASE_1H)])
@pytest.mark.parametrize("winsor", [0.0, 0.05])
@pytest.mark.parametrize("shock", [SHOCK, DayShock(0.3, 0.0, 0.0)])
@pytest.mark.parametrize("size", [0.0, 0.4])
def test_the_joint_fit_equals_dense_ridge(
    slices: Sequence[ScopeSubset], winsor: float, shock: DayShock, size: float
) -> None:
    task = a_search(one_pattern((SOLANA, size), n_trades=150), winsor)
    X = np.column_stack([task.group.members(s) for s in slices]).astype(float)
    expected = twins.joint_fit(X, task.y, task.group.day, shock, winsor)
    fit = fit_jointly(task, slices, shock)
    for name in ("edge_r", "evidence", "se_r", "intercept_r", "residual"):
        np.testing.assert_allclose(
            getattr(fit, name), getattr(expected, name), rtol=1e-7, atol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("seed", range(20))
def test_the_penalty_of_many_slices_on_few_trades_equals_dense_ridge(seed: int) -> None:
    task = a_search(one_pattern((SOLANA, 0.3), seed=seed, n_trades=18), 0.0)
    slices = [
        ((d, v),) for d, values in DIMS.items() for v in values[:2]
    ]  # the last value of a dimension is what the others leave
    X = np.column_stack([task.group.members(s) for s in slices]).astype(float)
    expected = twins.joint_fit(X, task.y, task.group.day, SHOCK, 0.0)
    np.testing.assert_allclose(fit_jointly(task, slices, SHOCK).edge_r, expected.edge_r, rtol=1e-7)


def test_noise_is_shrunk_and_an_edge_hardly() -> None:
    wide, flat = [SOLANA, MICRO, BASE_1H], DayShock(0.3, 0.0, 0.0)
    for size, least, most in ((0.0, 0.0, 0.9), (2.0, 0.97, 1.0)):
        task = a_search(one_pattern((SOLANA, size), n_trades=300), winsor=0.0)
        X = np.column_stack([np.ones(300), task.design(wide)])
        plain = np.linalg.lstsq(X, task.y, rcond=None)[0][1:]
        ratio = np.linalg.norm(fit_jointly(task, wide, flat).edge_r) / np.linalg.norm(plain)
        assert least <= ratio <= most


def test_no_slices_leave_the_centred_outcome() -> None:
    task = a_search(one_pattern(), winsor=0.02)
    fit = fit_jointly(task, [], SHOCK)
    assert fit.edge_r.shape == fit.se_r.shape == fit.evidence.shape == (0,)
    assert fit.intercept_r == pytest.approx(task.y.mean())
    tamed = winsorised(task.y, 0.02)
    np.testing.assert_allclose(fit.residual, tamed - tamed.mean())


def test_the_same_slice_twice_shares_its_edge() -> None:
    task = a_search(one_pattern((SOLANA, 0.5)), winsor=0.0)
    once = fit_jointly(task, [SOLANA], SHOCK)
    twice = fit_jointly(task, [SOLANA, SOLANA], SHOCK)
    assert twice.edge_r.sum() == pytest.approx(once.edge_r[0], rel=0.01)
    assert twice.edge_r[0] == pytest.approx(twice.edge_r[1])


def test_winsorising_clips_a_share_at_either_end() -> None:
    y = np.arange(101.0)
    tamed = winsorised(y, 0.05)
    np.testing.assert_allclose(tamed, np.clip(y, 5, 95))
    np.testing.assert_array_equal(winsorised(y, 0.0), y)


def test_the_joint_fit_scales_with_outcomes() -> None:
    task = a_search(one_pattern((SOLANA, 0.4)))
    one = fit_jointly(task, [SOLANA, MICRO], SHOCK)
    eight = DayShock(64 * SHOCK.noise_variance, 64 * SHOCK.day_variance, SHOCK.day_autocorrelation)
    other = fit_jointly(replace(task, y=8 * task.y), [SOLANA, MICRO], eight)
    np.testing.assert_allclose(other.edge_r, 8 * one.edge_r)
    np.testing.assert_allclose(other.se_r, 8 * one.se_r)
    np.testing.assert_allclose(other.evidence, one.evidence)


# --- forward, exchange, backward ----------------------------------------------------------


def test_the_best_slice_is_the_one_furthest_beyond_its_cutoff() -> None:
    task = a_search(one_pattern((BOTH, 0.8)))
    name, beyond = best_beside(task, [], level_cut(3.0))
    assert name == BOTH
    z = fit_jointly(task, [BOTH], SHOCK).evidence[0]
    assert beyond == pytest.approx(z**2 - 9.0, rel=0.1)
    dear_pairs = Cutoffs((3.0, 3.0, np.inf, np.inf, np.inf, np.inf), SHOCK)
    simpler, _ = best_beside(task, [], dear_pairs)
    assert simpler in (SOLANA, MICRO)


def test_nothing_beyond_the_cutoffs_is_no_slice() -> None:
    task = a_search(one_pattern())
    name, beyond = best_beside(task, [], level_cut(50.0))
    assert name is None
    assert beyond < 0


def test_either_sign_has_its_own_cutoff() -> None:
    task = a_search(one_pattern((SOLANA, -0.8)))
    by_cell = [50.0] * 6
    by_cell[cell(1, -1.0)] = 3.0
    assert best_beside(task, [], Cutoffs(tuple(by_cell), SHOCK))[0] == SOLANA
    by_cell[cell(1, -1.0)], by_cell[cell(1, 1.0)] = 50.0, 3.0
    assert best_beside(task, [], Cutoffs(tuple(by_cell), SHOCK))[0] != SOLANA


def test_a_part_is_compared_with_the_rest_of_the_slice_that_holds_it() -> None:
    task = a_search(one_pattern((SOLANA, 0.8), (BOTH, -0.8), n_trades=600))
    name, beyond = best_beside(task, [SOLANA], level_cut(3.0))
    assert name == BOTH
    joint = fit_jointly(task, [SOLANA, BOTH], SHOCK).evidence[1]
    assert beyond == pytest.approx(joint**2 - 9.0, rel=0.1)


def test_regroup_says_parts_by_their_parent_and_an_exception() -> None:
    plan = one_pattern((SOLANA, -0.8), (BOTH, 0.8), (BASE_1H, 0.7), n_trades=900)
    parts = [(*SOLANA, ("mcap_bucket", v)) for v in DIMS["mcap_bucket"] if v != "micro"]
    cut = Cutoffs((3.0, 3.0, 4.0, 4.0, 5.0, 5.0), SHOCK)
    assert set(regroup(a_search(plan), [*parts, BASE_1H], cut)) == {SOLANA, BOTH, BASE_1H}
    assert regroup(a_search(plan), [SOLANA, BOTH], cut) == [SOLANA, BOTH]
    assert regroup(a_search(plan), [], cut) == []


def test_regroup_keeps_a_part_whose_siblings_have_no_effect() -> None:
    task = a_search(one_pattern((BOTH, 0.9), n_trades=900))
    assert regroup(task, [BOTH], level_cut(3.0)) == [BOTH]


def test_exchange_replaces_a_wrong_slice() -> None:
    task = a_search(one_pattern((BOTH, 0.9), n_trades=600))
    assert exchange(task, [SOLANA], level_cut(3.0)) == [BOTH]


def test_exchange_leaves_what_is_right() -> None:
    plan = one_pattern((SOLANA, 0.7), (BASE_1H, -0.9), n_trades=600)
    taken = exchange(a_search(plan), [SOLANA, BASE_1H], level_cut(3.0))
    assert set(taken) == {SOLANA, BASE_1H}
    assert exchange(a_search(plan), [], level_cut(3.0)) == []


def test_backward_drops_the_weak_and_keeps_the_strong() -> None:
    task = a_search(one_pattern((SOLANA, 0.7)))
    taken = [MICRO, SOLANA, BASE_1H]
    assert drop_weak(task, taken, level_cut(3.5)) == [SOLANA]
    assert drop_weak(task, taken, level_cut(1e-9)) == taken
    assert drop_weak(task, taken, level_cut(np.inf)) == []
    assert drop_weak(task, [], level_cut(3.5)) == []


@pytest.mark.parametrize(("factor", "kept"), [(0.999, [MICRO]), (1.001, [])])
def test_backward_draws_the_line_at_the_cutoff(factor: float, kept: list[ScopeSubset]) -> None:
    task = a_search(one_pattern())
    z = abs(fit_jointly(task, [MICRO], SHOCK).evidence[0])
    assert drop_weak(task, [MICRO], level_cut(factor * z)) == kept


def test_backward_judges_in_the_joint_fit() -> None:
    """solana stands out alone only because of solana + micro."""
    task = a_search(one_pattern((BOTH, 1.0), n_trades=600))
    alone = fit_jointly(task, [SOLANA], SHOCK).evidence[0]
    assert alone > 4
    assert drop_weak(task, [SOLANA, BOTH], level_cut(3.5)) == [BOTH]


def test_calibration_on_the_residual_is_lower_than_on_the_edges() -> None:
    task = a_search(one_pattern((SOLANA, 1.5), (BASE_1H, -1.5)))
    first, second = (
        calibrate(task, taken, rotated=40, tail=0.01, rng=np.random.default_rng(1))
        for taken in ([], [SOLANA, BASE_1H])
    )
    assert second.shock.noise_variance < 0.5 * first.shock.noise_variance
    residual = fit_jointly(task, [SOLANA, BASE_1H], second.shock).residual
    assert second.shock.noise_variance + second.shock.day_variance == pytest.approx(
        residual.var(ddof=1)
    )


# --- searches -----------------------------------------------------------------------------


def searched(
    events: EventTable, plan: Plan, config: LearningConfig = FAST
) -> dict[GroupKey, GroupSearch]:
    found = search(events, ("pm", "dm"), config, plan.end, {})
    return {f.group.key: f for f in found.groups}


def taken_of(found: GroupSearch) -> dict[ScopeSubset, float]:
    return dict(zip(found.fit.slices, found.fit.edge_r.tolist(), strict=True))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_edges_are_recovered(seed: int) -> None:
    plan = Plan(
        seed=seed, n_trades=1000, patterns=(ONE,),
        edges=(Edge(ONE, dict(SOLANA), 0.5), Edge(ONE, dict(BASE_1H), -0.7)),
    )  # fmt: skip
    edges = taken_of(searched(events_of(plan), plan)[ONE])
    assert edges.keys() == {SOLANA, BASE_1H}
    assert edges[SOLANA] == pytest.approx(0.5, abs=0.15)
    assert edges[BASE_1H] == pytest.approx(-0.7, abs=0.2)


def test_a_parent_and_its_refinement_are_told_apart() -> None:
    plan = one_pattern((SOLANA, 0.5), (BOTH, 0.8), n_trades=1500)
    edges = taken_of(searched(events_of(plan), plan)[ONE])
    assert edges.keys() == {SOLANA, BOTH}
    assert edges[SOLANA] == pytest.approx(0.5, abs=0.15)
    assert edges[BOTH] == pytest.approx(0.8, abs=0.2)


def test_a_simulated_market_gives_back_what_was_planted() -> None:
    market = simulate(
        MarketSettings(
            seed=4, n_trades=1500, n_dims=4, n_regime_dims=0, n_effects=2, n_dm_effects=0,
            n_patterns=1, noise="light", noise_sd=0.5, span_days=90, share_decaying=0.0,
            share_overlapping=0.0, share_regime=0.0, categories=("entry",), allocation_share=0.0,
        )
    )  # fmt: skip
    found = search(from_frame(market.frame()), ("pm",), FAST, market.settings.end, {})
    [group] = found.groups
    edges = taken_of(group)
    truth = {e.scope_subset: e.effect_r for e in market.truth.effects}
    assert edges.keys() == truth.keys()
    for scope, effect in truth.items():
        assert edges[scope] == pytest.approx(effect, abs=0.15)


def test_noise_gives_nothing() -> None:
    kept = 0
    for seed in range(10):
        plan = Plan(seed=100 + seed, n_trades=300)
        kept += sum(len(f.fit.slices) for f in searched(events_of(plan), plan).values())
    assert kept <= 2


# --- whose edge is it? --------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_edge_of_one_pattern_is_not_credited_to_the_allocation(seed: int) -> None:
    plan = Plan(seed=seed, n_trades=900, allocated=True, edges=(Edge(ONE, dict(SOLANA), 0.8),))
    found = searched(events_of(plan), plan)
    assert taken_of(found[ONE]).keys() == {SOLANA}
    assert taken_of(found[ONE])[SOLANA] == pytest.approx(0.8, abs=0.15)
    assert taken_of(found[TWO]) == {}
    assert taken_of(found[ALLOCATION]) == {}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_edge_of_the_allocation_is_not_credited_to_the_patterns(seed: int) -> None:
    plan = Plan(
        seed=seed, n_trades=900, allocated=True, edges=(Edge(ALLOCATION, dict(SOLANA), 0.8),)
    )
    found = searched(events_of(plan), plan)
    assert taken_of(found[ALLOCATION]).keys() == {SOLANA}
    assert taken_of(found[ALLOCATION])[SOLANA] == pytest.approx(0.8, abs=0.15)
    assert taken_of(found[ONE]) == taken_of(found[TWO]) == {}


def test_edges_of_both_modules_stay_with_their_own() -> None:
    edges = (Edge(ALLOCATION, dict(SOLANA), 0.6), Edge(ONE, dict(BASE_1H), -0.9))
    plan = Plan(seed=5, n_trades=1500, allocated=True, edges=edges)
    found = searched(events_of(plan), plan)
    assert taken_of(found[ALLOCATION]) == {SOLANA: pytest.approx(0.6, abs=0.15)}
    assert taken_of(found[ONE]) == {BASE_1H: pytest.approx(-0.9, abs=0.2)}
    assert taken_of(found[TWO]) == {}


def with_exits(events: EventTable) -> EventTable:
    """Every entry again as an exit of the same trade and scope."""
    names = {name: getattr(events, name) for name in EventTable.__slots__}
    keys = (*events.groups, *(k._replace(action_category="exit") for k in (ONE, TWO)))
    doubled = np.isin(events.group, [events.groups.index(k) for k in (ONE, TWO)])
    added = np.array(
        [keys.index(keys[g]._replace(action_category="exit")) for g in events.group[doubled]]
    )
    trade = np.concatenate([events.trade, events.trade[doubled]])
    order = np.argsort(trade, kind="stable")
    return EventTable(
        **{
            **names,
            "trade": trade[order],
            "group": np.concatenate([events.group, added])[order],
            "groups": keys,
            "codes": np.hstack([events.codes, events.codes[:, doubled]])[:, order],
        }
    )


def test_a_module_is_learned_alike_alone_and_with_the_other() -> None:
    edges = (Edge(ALLOCATION, dict(SOLANA), 0.6), Edge(ONE, dict(BASE_1H), -0.9))
    plan = Plan(seed=5, n_trades=1200, allocated=True, edges=edges)
    events = with_exits(events_of(plan))
    both = search(events, ("pm", "dm"), FAST, plan.end, {})
    for module in ("dm", "pm"):
        alone = search(events, (module,), FAST, plan.end, {})
        for one, other in zip(both.of(module).groups, alone.of(module).groups, strict=True):
            assert one.group.key == other.group.key
            assert one.fit.slices == other.fit.slices
            np.testing.assert_allclose(one.search.y, other.search.y, atol=1e-12)
            np.testing.assert_allclose(one.fit.edge_r, other.fit.edge_r)


def test_the_allocations_edges_are_taken_out_of_the_exits() -> None:
    plan = Plan(seed=7, n_trades=900, allocated=True, edges=(Edge(ALLOCATION, dict(SOLANA), 0.8),))
    events = with_exits(events_of(plan))
    found = {f.group.key: f for f in search(events, ("pm",), FAST, plan.end, {}).groups}
    assert found[ONE._replace(action_category="exit")].fit.slices == ()


# --- what is remembered --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "bound"),
    [
        (lattice, "_MOST_COUNTS"),
        (residual, "_MOST_BYTES"),
        (residual, "_MOST_SUMS"),
        (cubes, "_FEWEST_TRADES"),
    ],
)
def test_what_is_found_does_not_depend_on_what_is_remembered(
    module: ModuleType, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = simulate(
        MarketSettings(
            seed=4, n_trades=1500, n_dims=5, n_regime_dims=1, n_effects=2, n_dm_effects=1,
            n_patterns=2, noise="light", span_days=90, min_support=60, share_overlapping=0.0,
        )
    )  # fmt: skip
    events, end = from_frame(market.frame()), market.settings.end
    before = search(events, ("pm", "dm"), FAST, end, {})
    monkeypatch.setattr(module, bound, 1 if bound == "_MOST_SUMS" else 0)
    after = search(events, ("pm", "dm"), FAST, end, {})
    assert any(found.fit.slices for found in before.groups)
    for one, other in zip(before.groups, after.groups, strict=True):
        assert one.fit.slices == other.fit.slices
        np.testing.assert_allclose(one.fit.edge_r, other.fit.edge_r, rtol=1e-9)
        np.testing.assert_allclose(one.cut.by_cell, other.cut.by_cell, rtol=1e-9)
        tables = [described(f.search, f.cut.shock) for f in (one, other)]
        for name in ("n", "mean", "variance", "delta", "se", "evidence"):
            values = [getattr(table, name) for table in tables]
            np.testing.assert_allclose(*values, rtol=1e-7, atol=1e-9, err_msg=name)
