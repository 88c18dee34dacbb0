"""The bench against peers: their formulas by hand, what is measured, and the summary."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import meta_learners
import peers
import quality

from learning_assets.core.records import DecayState, Override
from learning_assets.core.scope import subset

SHARES = (
    *("wins_over_gbm", "near_gbm", "wins_over_replaced", "wins_over_lasso"),
    *("null_or_wrong_share", "exact_share", "exact_share_of_all", "clear_share"),
)


@pytest.fixture(scope="module")
def problem() -> quality.Problem:
    return quality.problem_of(quality.settings_of(seed=3, noise="light", n_trades=1200))


@pytest.fixture(scope="module")
def slices(problem: quality.Problem) -> peers.Slices:
    return peers.slices_of(problem.learn, problem.learn_events.rr)


def test_the_replaced_formula_by_hand() -> None:
    n, avg_rr, variance, mean_rr = 50, 0.45, 1.44, 0.0
    reliability = 1 / (1 + 1.44 + 0.005)
    bracket = (1 - math.exp(-1)) + 1 / (1 + math.exp(-0.45)) + 1 + 1 / 2.44
    found = peers.replaced_edge(np.array([n]), np.array([avg_rr]), np.array([variance]), mean_rr)
    assert found[0] == pytest.approx(0.45 * reliability * bracket, abs=1e-12)
    assert found[0] == pytest.approx(0.488208, abs=1e-6)


def test_matching_multipliers_of_the_replaced_system_are_multiplied(
    problem: quality.Problem, slices: peers.Slices
) -> None:
    made = peers.replaced(slices, problem.test)
    t, group = slices.table, slices.group
    assert (np.abs(made.edge) >= 0.05).all()
    for trade in (0, 17):
        product = 1.0
        for row, edge in zip(made.slices, made.edge, strict=True):
            dims, codes = t.dims[row], t.codes[row]
            pairs = [(d, c) for d, c in zip(dims, codes, strict=True) if d >= 0]
            if all(problem.test.codes[d, trade] == c for d, c in pairs):
                product *= min(max(1 + edge, 0.3), 3.0)
        assert made.prediction[trade] == pytest.approx(math.log(product), abs=1e-9)
        assert made.sizes[trade] == pytest.approx(min(max(product, 0.3), 3.0), rel=1e-9)
    assert group.dims == problem.test.dims


def test_true_edges_are_those_of_the_market(problem: quality.Problem, slices: peers.Slices) -> None:
    true = peers.true_edges(slices, problem.learn_true_r)
    group, t = slices.group, slices.table
    for row in range(0, len(t), len(t) // 7):
        dims, codes = t.dims[row], t.codes[row]
        name = group.name(dims[dims >= 0].tolist(), codes[codes >= 0].tolist())
        expected = problem.market.true_edge_r(group.key, name, problem.as_of)
        assert true[row] == pytest.approx(expected, abs=1e-9)


def test_no_screened_slice_is_weak_and_none_comes_twice(slices: peers.Slices) -> None:
    rows = peers.screened(slices)
    z = np.abs(slices.table.delta[rows] / slices.table.se[rows])
    assert 0 < len(rows) <= peers.LASSO_SLICES
    assert z.min() > 2.5758
    assert len(np.unique(slices.table.key[rows])) == len(rows)
    columns = peers.indicators(slices, rows[:5], slices.group)
    assert columns.sum(axis=0).tolist() == slices.table.n[rows[:5]].tolist()


def test_peers_learn_something_and_nothing_from_noise(
    problem: quality.Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TREE_GRID", peers.TREE_GRID[:1])
    monkeypatch.setattr(peers, "TREE_ROUNDS", 60)
    monkeypatch.setattr(peers, "LASSO_SLICES", 200)
    rng = np.random.default_rng(0)
    clear = peers.slices_of(problem.learn, problem.learn_true_r * 3)
    noise = peers.slices_of(problem.learn, rng.standard_normal(problem.learn.n_trades))
    truth = problem.test_true_r
    for peer in (peers.trees, peers.lasso):
        assert np.corrcoef(peer(clear, problem.test).prediction, truth)[0, 1] > 0.8
        assert np.ptp(peer(noise, problem.test).prediction) < 0.5


def test_slope_and_information_ratio_by_hand() -> None:
    assert quality.slope(np.array([1.0, 3.0, 5.0]), np.array([0.0, 1.0, 2.0])) == 2.0
    rr, day = np.array([1.0, -1.0, 2.0, 0.0]), np.array([5, 5, 6, 6])
    sizes = np.array([1.0, 0.0, 2.0, 1.0])
    # active results: day 5: 0·1 + (−1)·(−1) = 1, day 6: 1·2 + 0 = 2
    assert quality.information_ratio(sizes, rr, day) == pytest.approx(3.0 * math.sqrt(365))
    assert quality.information_ratio(np.ones(4), rr, day) == 0.0


def test_the_oracle_of_a_light_market_is_least_squares(problem: quality.Problem) -> None:
    effects = problem.market.truth.effects
    X = np.column_stack(
        [np.ones(problem.learn.n_trades)] + [problem.learn.members(e.scope_subset) for e in effects]
    )
    sd = problem.market.settings.noise_sd * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))[1:]
    expected = np.abs([e.e0 for e in effects]) / sd
    assert quality.oracle_z(problem) == pytest.approx(expected, rel=1e-9)


def test_true_r_is_the_sum_of_the_effects(problem: quality.Problem) -> None:
    effects = problem.market.truth.effects
    total = sum(e.e0 * problem.test.members(e.scope_subset) for e in effects)
    assert problem.test_true_r == pytest.approx(total, abs=1e-9)
    assert problem.learn.n_trades + problem.test.n_trades == 1200


def test_rows_and_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = quality.CONFIG.model_copy(update={"rotations": 39, "max_scope_dims": 2})
    monkeypatch.setattr(quality, "CONFIG", fast)
    monkeypatch.setattr(peers, "TREE_GRID", peers.TREE_GRID[:1])
    settings = quality.settings_of(seed=3, noise="bursty", n_trades=1200)
    row = quality.row_of(settings, ("no_overrides", "replaced", "trees"))
    summary = asdict(quality.summary_of([row]))
    assert row.methods["no_overrides"].correlation is None
    assert row.methods["no_overrides"].mean_rr == pytest.approx(
        quality.problem_of(settings).test_events.rr.mean()
    )
    assert len(row.effects) == 8
    for name in SHARES:
        assert 0.0 <= summary[name] <= 1.0, name
    assert {"calibration_slope_median", "overrides_per_planted", "methods"} <= summary.keys()
    assert summary["overrides_per_planted"] == row.methods["ours"].overrides / 8
    assert set(summary["methods"]) == {"ours", "no_overrides", "replaced", "trees"}


def test_noise_changes_the_outcomes_and_not_the_truth() -> None:
    light, bursty = (
        quality.problem_of(quality.settings_of(5, noise, n_trades=800)) for noise in quality.NOISES
    )
    assert light.learn_true_r.tolist() == bursty.learn_true_r.tolist()
    assert light.learn_events.rr.tolist() != bursty.learn_events.rr.tolist()


def test_factors_of_exact_copies_are_the_causes() -> None:
    row = meta_learners.factor_row(seed=1, missed_share=0.05)
    assert row.adjusted_rand == 1.0
    assert row.factors == meta_learners.CAUSES
    assert row.ids_kept == 1.0


def test_prediction_adds_the_edges_of_all_matching_actions(problem: quality.Problem) -> None:
    key = problem.learn.key
    first = subset([("chain", "solana")])
    made = [
        Override(key, s, 1.0 + edge / 2, edge, 0.9, DecayState.STABLE, None, 100, 0.01)
        for s, edge in ((first, 0.4), (subset([("timeframe", "1h")]), -0.1))
    ]
    expected = 0.4 * problem.test.members(first)
    expected = expected - 0.1 * problem.test.members(subset([("timeframe", "1h")]))
    assert meta_learners.predicted(made, problem.test_events).tolist() == expected.tolist()
