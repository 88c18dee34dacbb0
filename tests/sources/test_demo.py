"""The simulated market: its truth holds, its noise is what it says, every setting matters."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learning_assets.core.events import from_frame
from learning_assets.core.records import ClosedTrade, GroupKey
from learning_assets.core.scope import matches, normalise_scope
from learning_assets.errors import UserError
from learning_assets.sources.demo import (
    PM_CATEGORIES,
    Market,
    MarketSettings,
    _day_shocks,
    frame_of,
    simulate,
)

PLAIN = MarketSettings(seed=3)
QUIET = MarketSettings(seed=3, n_trades=1500, n_effects=0, n_dm_effects=0)


@pytest.fixture(scope="module")
def market() -> Market:
    return simulate(PLAIN)


def noise_of(market: Market) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([t.rr - market.truth.expected_rr[t.trade_id] for t in market.trades])


def entry_of(trade: ClosedTrade) -> Any:
    return next(a for a in trade.actions if a.action_category == "entry")


def test_the_same_settings_give_the_same_market() -> None:
    assert simulate(QUIET) == simulate(QUIET)


def test_trades_stand_in_closing_order_within_the_span(market: Market) -> None:
    order = [(t.closed_at, t.trade_id) for t in market.trades]
    assert order == sorted(order)
    assert len({t.trade_id for t in market.trades}) == PLAIN.n_trades
    assert all(PLAIN.start <= t.closed_at < PLAIN.end for t in market.trades)
    assert all(t.opened_at is not None and t.opened_at < t.closed_at for t in market.trades)


def test_the_market_ends_in_the_past_and_fits_the_look_back(market: Market) -> None:
    assert PLAIN.end - PLAIN.start <= timedelta(days=180)
    assert market.trades[-1].closed_at.date() == (PLAIN.end - timedelta(days=1)).date()
    assert datetime(2026, 7, 5, tzinfo=UTC) > PLAIN.end


def test_every_action_has_a_normalised_scope_of_all_dimensions(market: Market) -> None:
    for trade in market.trades[::50]:
        for action in trade.actions:
            assert len(action.scope) == 28
            assert normalise_scope(action.scope) == action.scope


def test_actions_of_one_trade_share_what_is_fixed_and_differ_in_regime(market: Market) -> None:
    differs = 0
    for trade in market.trades:
        entry, last = entry_of(trade).scope, trade.actions[-1].scope
        assert entry["chain"] == last["chain"]
        differs += entry != last
    assert differs > 0.3 * len(market.trades)


def test_trims_happen_to_winners(market: Market) -> None:
    categories = Counter(a.action_category for t in market.trades for a in t.actions)
    trimmed = [t.rr for t in market.trades if any(a.action_category == "trim" for a in t.actions)]
    assert categories["entry"] == categories["exit"] == PLAIN.n_trades
    assert 0.2 < categories["add"] / PLAIN.n_trades < 0.3
    assert np.mean(trimmed) > np.mean([t.rr for t in market.trades]) + 0.5


def test_payback_is_known_for_winners_alone_and_within_the_hold(market: Market) -> None:
    for trade in market.trades:
        assert (trade.payback_hours is not None) == (trade.rr > 0)
        if trade.payback_hours is not None and trade.hold_hours is not None:
            assert 0 <= trade.payback_hours <= trade.hold_hours + 0.01


def test_the_expected_rr_is_the_base_plus_the_effects_that_touch_the_trade(market: Market) -> None:
    for trade in market.trades[::7]:
        expected = PLAIN.base_rr + market.truth.effect_at(trade)
        assert market.truth.expected_rr[trade.trade_id] == pytest.approx(expected, abs=1e-9)


def test_effects_are_planted_as_asked(market: Market) -> None:
    effects = market.truth.effects
    pm = [e for e in effects if e.module == "pm"]
    assert (len(pm), len(effects) - len(pm)) == (8, 2)
    assert {e.action_category for e in pm} == {"entry"}
    assert all(1 <= len(e.scope_subset) <= 3 and 0.3 <= abs(e.e0) <= 0.9 for e in effects)
    assert sum(e.e0 < 0 for e in pm) == 4
    assert sum(e.half_life_hours is not None for e in pm) == 2
    assert (
        sum(
            any("_m" in d for d, _ in e.scope_subset if d.endswith(("macro", "meso", "micro")))
            for e in pm
        )
        >= 2
    )
    assert any(set(a.scope_subset) < set(b.scope_subset) for a in pm for b in pm)


def test_support_counts_the_trades_and_is_at_least_the_minimum(market: Market) -> None:
    for effect in market.truth.effects:
        assert effect.n_trades == sum(map(effect.touches, market.trades)) >= PLAIN.min_support


def test_what_is_left_of_a_decaying_effect_halves_with_its_half_life(market: Market) -> None:
    effect = next(e for e in market.truth.effects if e.half_life_hours)
    assert effect.at(PLAIN.start) == effect.e0
    later = PLAIN.start + timedelta(hours=effect.half_life_hours or 0)
    assert effect.at(later) == pytest.approx(effect.e0 / 2)
    assert effect.effect_r == pytest.approx(effect.at(PLAIN.end))
    assert effect.alive == (abs(effect.effect_r) >= 0.05)


def test_the_truth_of_an_earlier_moment_counts_only_what_was_closed(market: Market) -> None:
    middle = PLAIN.start + timedelta(days=90)
    early = market.truth_as_of(middle)
    for before, after in zip(early.effects, market.truth.effects, strict=True):
        assert before.scope_subset == after.scope_subset
        assert before.n_trades < after.n_trades
        assert before.effect_r == pytest.approx(after.at(middle))


def test_the_true_edge_of_a_lone_effect_is_that_effect() -> None:
    market = simulate(MarketSettings(seed=5, n_effects=1, n_dm_effects=0, share_decaying=0))
    (effect,) = market.truth.effects
    edge = market.true_edge_r(effect.group, effect.scope_subset)
    assert edge == pytest.approx(effect.e0)
    elsewhere = GroupKey("dm", "dm.lowcap.S1.allocate", "allocation")
    assert market.true_edge_r(elsewhere, ()) is None
    assert market.true_edge_r(effect.group, (("chain", "nowhere"),)) is None


def test_a_market_without_effects_expects_the_base_of_every_trade() -> None:
    market = simulate(replace(QUIET, base_rr=0.1))
    assert market.truth.effects == ()
    assert set(market.truth.expected_rr.values()) == {0.1}


@pytest.mark.parametrize("noise", ["light", "bursty"])
def test_noise_has_mean_zero_and_the_asked_spread(noise: Any) -> None:
    own = noise_of(simulate(replace(QUIET, n_trades=40_000, noise=noise, day_share=0.0)))
    assert abs(own.mean()) < 0.03
    assert own.std() == pytest.approx(1.2, abs=0.03)


def test_bursty_noise_is_skewed_with_losers_near_minus_one() -> None:
    own = noise_of(simulate(replace(QUIET, n_trades=40_000, day_share=0.0)))
    losers = own[own < 0]
    assert len(losers) / len(own) == pytest.approx(0.7, abs=0.02)
    assert -1.05 < np.median(losers) < -0.7
    assert ((own / own.std()) ** 3).mean() > 1.2


def test_days_share_a_persistent_shock() -> None:
    shocks = _day_shocks(np.random.default_rng(1), replace(QUIET, span_days=100_000))
    assert shocks.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(shocks[1:], shocks[:-1])[0, 1] == pytest.approx(0.9, abs=0.01)
    many = simulate(replace(QUIET, n_trades=40_000))
    days = np.array([t.closed_at.toordinal() for t in many.trades])
    means = [noise_of(many)[days == day].mean() for day in np.unique(days)]
    assert 0.15 < np.std(means) < 0.42


def test_other_noise_leaves_scopes_and_effects_alone(market: Market) -> None:
    other = simulate(replace(PLAIN, noise="light"))
    assert other.truth == market.truth
    ours, theirs = ([(t.trade_id, entry_of(t).scope) for t in m.trades] for m in (market, other))
    assert ours == theirs


def test_regimes_persist_by_their_horizon(market: Market) -> None:
    by_opening = sorted(market.trades, key=lambda t: t.opened_at or t.closed_at)
    changes = {}
    for horizon in ("macro", "meso", "micro"):
        states = [entry_of(t).scope[f"btc_{horizon}"] for t in by_opening]
        changes[horizon] = sum(a != b for a, b in itertools.pairwise(states))
    assert 1 <= changes["macro"] < changes["meso"] < changes["micro"] < 400


def test_flipped_effects_change_sign_in_the_middle() -> None:
    flipped = simulate(replace(PLAIN, flip_halfway=True))
    for effect in flipped.truth.effects:
        assert effect.at(PLAIN.start) == effect.e0
        assert effect.effect_r * effect.e0 < 0
    for trade in flipped.trades[::50]:
        expected = flipped.truth.effect_at(trade)
        assert flipped.truth.expected_rr[trade.trade_id] == pytest.approx(expected, abs=1e-9)


CHANGES: dict[str, Any] = {
    "seed": 4,
    "n_trades": 5000,
    "start": datetime(2025, 1, 6, tzinfo=UTC),
    "span_days": 90,
    "n_dims": 15,
    "n_regime_dims": 10,
    "dependence": 0.5,
    "n_patterns": 2,
    "categories": ("entry",),
    "allocation_share": 0.5,
    "n_effects": 4,
    "n_dm_effects": 1,
    "effect_range_r": (0.1, 0.2),
    "min_support": 300,
    "max_support_share": 0.2,
    "share_decaying": 1.0,
    "half_life_range_hours": (100.0, 200.0),
    "share_regime": 0.0,
    "share_overlapping": 0.0,
    "flip_halfway": True,
    "regime_days": (60.0, 20.0, 5.0),
    "base_rr": 0.2,
    "noise": "light",
    "noise_sd": 2.0,
    "day_share": 0.5,
    "day_autocorrelation": 0.1,
    "loser_share": 0.5,
    "win_sigma": 1.0,
    "median_hold_hours": 2.0,
    "add_share": 0.9,
}
OF_STRANDS = {"late_share", "duplicate_share", "broken_share", "embedded_share"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_market(market: Market, name: str) -> None:
    changed = simulate(replace(PLAIN, **{name: CHANGES[name]}))
    assert (changed.trades, changed.truth) != (market.trades, market.truth)


def test_every_setting_is_tested() -> None:
    assert set(CHANGES) | OF_STRANDS == set(MarketSettings.__slots__)


def test_a_market_of_entries_alone() -> None:
    market = simulate(replace(QUIET, categories=("entry",), allocation_share=0.0))
    assert {len(t.actions) for t in market.trades} == {1}
    assert PM_CATEGORIES[0] == market.trades[0].actions[0].action_category


def test_dependent_dimensions_are_dependent() -> None:
    def association(market: Market) -> float:
        pairs = Counter(
            (entry_of(t).scope["chain"], entry_of(t).scope["intent"]) for t in market.trades
        )
        table = np.array(
            [[pairs[a, b] for b in {p[1] for p in pairs}] for a in {p[0] for p in pairs}],
            dtype=float,
        )
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        return float(((table - expected) ** 2 / expected).sum())

    assert association(simulate(replace(QUIET, dependence=0.5))) > 5 * association(simulate(QUIET))


def test_too_many_effects_for_too_few_trades_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="raise n_trades, or lower n_effects or min_support"):
        simulate(MarketSettings(n_trades=400))


def test_the_frame_has_a_row_per_action_in_order(market: Market) -> None:
    frame = market.frame()
    assert list(frame.columns) == [
        *("event_id", "trade_id", "module", "pattern_key", "action_category", "scope", "rr"),
        *("closed_at", "opened_at", "pnl_usd", "payback_hours", "hold_hours"),
    ]
    assert len(frame) == sum(len(t.actions) for t in market.trades)
    assert frame["event_id"].is_unique
    order = ["closed_at", "trade_id", "event_id"]
    assert frame[order].equals(frame.sort_values(order, kind="stable")[order])
    table = from_frame(frame)
    assert table.rr.tolist() == [t.rr for t in market.trades]
    assert np.isnan(table.payback_hours).sum() == sum(
        t.payback_hours is None for t in market.trades
    )


def test_the_frame_of_no_trades_is_empty_with_the_same_columns(market: Market) -> None:
    empty = frame_of([])
    assert empty.empty
    assert list(empty.columns) == list(market.frame().columns)
    assert from_frame(empty).n_trades == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 2**32),
    st.integers(1, 300),
    st.integers(1, 20),
    st.integers(0, 15),
    st.sampled_from(["light", "bursty"]),
)
def test_any_market_is_well_formed(seed: int, n: int, dims: int, regimes: int, noise: Any) -> None:
    shape = MarketSettings(
        *(seed, n), n_dims=dims, n_regime_dims=regimes, noise=noise, n_effects=0, n_dm_effects=0
    )
    market = simulate(shape)
    assert len(market.trades) == len(market.truth.expected_rr) == n
    for trade in market.trades:
        assert abs(trade.rr) <= 33
        assert {"entry", "exit"} <= {a.action_category for a in trade.actions}
        assert all(len(a.scope) == dims + regimes for a in trade.actions)
        assert matches((), trade.actions[0].scope)
