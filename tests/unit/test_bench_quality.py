"""The bench against peers: their formulas by hand, what is measured, and the summary."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import ablation
import factor_cases
import meta_learners
import peers
import quality

from learning_assets.core.records import DecayState, Override
from learning_assets.core.scope import subset
from learning_assets.sources.demo import simulate

SHARES = (
    *("wins_over_gbm", "near_gbm", "wins_over_replaced"),
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
    assert summary.pop("wins_over_lasso") is None
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


def test_factors_of_near_copies_are_the_causes_and_of_distant_ones_not() -> None:
    near = factor_cases.factor_row("copies that overlap by 0.82", seed=1)
    assert (near.adjusted_rand, near.factors, near.ids_kept) == (1.0, near.causes, 1.0)
    far = factor_cases.factor_row("by 0.57, under the cut", seed=1)
    assert far.overlap < 0.6
    assert far.adjusted_rand < 0.5
    assert far.factors > far.causes


@pytest.mark.parametrize("name", factor_cases.CASES)
def test_a_case_is_drawn_as_it_says(name: str) -> None:
    case = factor_cases.CASES[name]
    planned = factor_cases.Planned.of(case, np.random.default_rng(1))
    inside, labels = planned.draw(np.random.default_rng(2)), planned.labels
    assert inside.shape == (len(labels), factor_cases.TRADES)
    assert (labels == factor_cases.NOBODY).sum() == (factor_cases.PAIRS if case.bridged else 0)
    copies = np.bincount(labels[labels >= 0])[: 2 * factor_cases.PAIRS]
    assert case.copies[0] <= copies.min() <= copies.max() <= case.copies[1]
    assert (np.bincount(labels[labels >= 0])[2 * factor_cases.PAIRS :] == 1).all()
    low, high = case.share
    sizes = inside.mean(axis=1)
    assert 0.4 * low <= sizes.min() <= sizes.max() <= 1.2 * high
    mean = factor_cases.summary_of([factor_cases.factor_row(name, 1)])[0]["adjusted_rand"]
    assert isinstance(mean, float)
    assert 0 <= mean <= 1


def test_half_lives_have_a_row_for_each_seed_and_a_summary_of_all() -> None:
    part = meta_learners.half_lives_part((1, 2))
    assert [row["half_life_hours"] for row in part["summary"]] == [200.0, 500.0, 1500.0]
    assert [(row["seed"], row["fits"]) for row in part["rows"]] == [(1, 20), (2, 20)] * 3
    assert all(row["fits"] == 40 for row in part["summary"])
    assert all(row["median_error"] < 0.6 for row in part["summary"])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small markets: 2,500 trades, few dimensions, 39 rotations."""
    changes = {"n_trades": 2500, "n_dims": 3, "n_regime_dims": 3, "min_support": 200}
    monkeypatch.setattr(ablation, "ALONE", replace(ablation.ALONE, **changes))
    fast = ablation.CONFIG.model_copy(update={"rotations": 39, "max_scope_dims": 1})
    monkeypatch.setattr(ablation, "CONFIG", fast)


def test_an_echo_is_counted_twice_without_factors(quick: None) -> None:
    lasting = {row.learner: row for row in ablation.rows_of("lasting", 1)}
    echo = {row.learner: row for row in ablation.rows_of("echo", 1)}
    assert lasting.keys() == ablation.LEARNERS.keys()
    assert not any(row.planted for row in lasting.values())
    factors = echo["factors"]
    assert factors.planted
    assert factors.on.squared_error == pytest.approx(lasting["factors"].on.squared_error, rel=0.05)
    assert factors.off.squared_error > 3 * factors.on.squared_error
    assert factors.off.calibration_slope == pytest.approx(0.5, abs=0.1)
    lines = ablation.summary_of([factors, lasting["factors"]])
    assert [(line["market"], line["planted"]) for line in lines] == [
        ("echo", True), (ablation.ALL_OF_THEM, True),
        ("lasting", False), (ablation.ALL_OF_THEM, False),
    ]  # fmt: skip
    assert [line["changed"] for line in lines] == [1, 1, 0, 0]
    assert lines[0]["squared_error"]["mean"] < 0  # type: ignore[index]


def test_an_echo_is_the_share_of_the_entries_that_it_says() -> None:
    frame = simulate(replace(ablation.ALONE, seed=1, n_trades=1500, min_support=50)).frame()
    echo = ablation.with_echo(frame, 0.75, 1)
    fired = echo[echo["pattern_key"] == ablation.ECHO]
    assert len(fired) == pytest.approx(0.75 * 1500, rel=0.05)
    assert echo["event_id"].is_unique
    assert set(fired["trade_id"]) < set(frame["trade_id"])
    assert len(ablation.with_echo(frame, 0.0, 1)) == len(frame)


def test_every_market_and_learner_of_the_ablation_is_known() -> None:
    for learner in ablation.LEARNERS.values():
        assert {*learner.planted, *learner.absent} <= set(ablation.MARKETS)
        assert not {*learner.planted} & {*learner.absent}
    asked = {m for x in ablation.LEARNERS.values() for m in (*x.planted, *x.absent)}
    assert asked == set(ablation.MARKETS)


def test_paired_differences_have_students_interval() -> None:
    found = ablation.paired([1.0, 2.0, 3.0, 6.0])
    half = 2.353363 * math.sqrt(14 / 3) / 2
    assert (found.n, found.mean) == (4, 3.0)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-5)
    assert ablation.paired([1.0]).low is None
    assert ablation.paired([]) == ablation.Paired(0, 0.0, None, None)


def test_a_churning_market_turns_its_effects_and_not_its_noise() -> None:
    settings = replace(ablation.WALKED, seed=2)
    market, (churning, end) = simulate(settings), ablation._churning(2)
    assert end == settings.end
    rr = dict(zip(churning.trade_ids, churning.rr, strict=True))
    turned = 0
    for trade in market.trades:
        effect = market.truth.expected_rr[trade.trade_id] - market.truth.base_rr
        weeks = (trade.closed_at - settings.start).days // 7
        sign = -1 if weeks // ablation.CHURN_WEEKS % 2 else 1
        noise = trade.rr - market.truth.expected_rr[trade.trade_id]
        assert rr[trade.trade_id] == pytest.approx(market.truth.base_rr + sign * effect + noise)
        turned += sign < 0 and effect != 0
    assert turned > 200


def test_a_gain_that_is_learned_lies_between_the_other_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a market that keeps its word, more trust pays more."""
    small = replace(ablation.WALKED, n_trades=1200, span_days=140, n_dims=2, n_regime_dims=0)
    small = replace(small, share_regime=0.0, n_effects=2, noise="light", effect_range_r=(0.8, 0.9))
    monkeypatch.setattr(ablation, "WALKED", small)
    row = ablation.gain_row("stable", 1)
    worth = [getattr(row, name).mean_rr for name in ("prior", "learned", "full")]
    assert worth == sorted(worth)
    assert 0.02 < worth[0] < worth[2]
    assert row.gain > 0.7
    assert row.learned.squared_error < row.prior.squared_error < 0
    line = ablation.gain_summary([row, row])[0]
    assert line["planted"] is True
    less = line["mean_rr"]["less_prior"]  # type: ignore[index]
    assert less["mean"] == pytest.approx(worth[1] - worth[0])


def test_prediction_adds_the_edges_of_all_matching_actions(problem: quality.Problem) -> None:
    key = problem.learn.key
    first = subset([("chain", "solana")])
    made = [
        Override(key, s, 1.0 + edge / 2, edge, 0.9, DecayState.STABLE, None, 100, 0.01)
        for s, edge in ((first, 0.4), (subset([("timeframe", "1h")]), -0.1))
    ]
    expected = 0.4 * problem.test.members(first)
    expected = expected - 0.1 * problem.test.members(subset([("timeframe", "1h")]))
    assert quality.predicted(made, problem.test_events).tolist() == expected.tolist()
