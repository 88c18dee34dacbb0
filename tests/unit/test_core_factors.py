"""Latent factors: clusters against a naive twin, ids that last, and how edges are shared."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from small_market import ONE, TWO, lesson, random_table, table

from learning_assets.core.events import EventTable
from learning_assets.core.factors import (
    Factor,
    clusters_of,
    latent_factors,
    share_divisors,
)
from learning_assets.core.overlap import common_counts, jaccard, pairs_at_least
from learning_assets.core.records import GroupKey, Lesson, LessonStatus

SETS = st.lists(st.sets(st.integers(0, 70), min_size=1), min_size=1, max_size=12)


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def naive_clusters(sets: list[set[int]]) -> list[list[int]]:
    """Join the two clusters of the largest mean overlap until it is under 0.6."""
    clusters = [[i] for i in range(len(sets))]
    while len(clusters) > 1:
        means = {
            (x, y): np.mean([_jaccard(sets[i], sets[j]) for i in clusters[x] for j in clusters[y]])
            for x in range(len(clusters))
            for y in range(x + 1, len(clusters))
        }
        (x, y), best = max(means.items(), key=lambda pair: pair[1])
        if best < 0.6 - 1e-9:
            break
        clusters = [c for k, c in enumerate(clusters) if k not in (x, y)] + [
            sorted(clusters[x] + clusters[y])
        ]
    return sorted(clusters)


def _arrays(sets: list[set[int]]) -> list[np.ndarray]:
    return [np.array(sorted(s), dtype=np.int64) for s in sets]


@settings(max_examples=60, deadline=None)
@given(SETS, st.floats(0.05, 1.0))
def test_overlaps_are_jaccard_indices(sets: list[set[int]], cut: float) -> None:
    overlap = jaccard(common_counts(_arrays(sets)))
    naive = np.array([[_jaccard(a, b) for b in sets] for a in sets])
    assert overlap == pytest.approx(naive)
    found = {
        (min(i, j), max(i, j)): o
        for i, j, o in zip(*pairs_at_least(_arrays(sets), 71, cut), strict=True)
    }
    close = [(i, j) for i in range(len(sets)) for j in range(i + 1, len(sets))]
    assert found.keys() == {pair for pair in close if naive[pair] >= cut - 1e-12}
    assert all(o == pytest.approx(naive[pair]) for pair, o in found.items())


@pytest.mark.parametrize("seed", range(12))
def test_clusters_are_those_of_average_linkage(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bases = [rng.random(400) < 0.3 for _ in range(4)]
    sets = [
        set(np.flatnonzero(bases[rng.integers(4)] ^ (rng.random(400) < rng.uniform(0, 0.15))))
        for _ in range(14)
    ]
    assert clusters_of(_arrays(sets), 400) == naive_clusters(sets)


def test_the_users_example_is_one_factor() -> None:
    # A = {T1…T5}, B = {T2, T3, T4}: an overlap of 3/5. T6 is neither's.
    codes = np.array([[1, 1, 1, 1, 1, 2], [2, 1, 1, 1, 2, 2]])
    events = table(np.arange(6.0), np.ones(6), codes)
    events = replace(
        events, dims=("chain", "mcap_bucket"), values=(("solana", "base"), ("micro", "mid"))
    )
    a = lesson({"chain": "solana"}, evidence=5.0)
    b = lesson({"chain": "solana", "mcap_bucket": "micro"}, evidence=9.0)
    [factor] = latent_factors(events, [a, b])
    assert factor.factor_id == "lf_solana_micro_uptrend_s1"
    assert factor.representative == b.lesson_id
    assert factor.members == ((b.lesson_id, 1.0), (a.lesson_id, pytest.approx(0.6)))
    assert factor.pattern_keys == (ONE.pattern_key,)
    assert factor.matrix[0][1] == pytest.approx(
        np.corrcoef([0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0])[0, 1]
    )
    assert factor.matrix[0][0] == factor.matrix[1][1] == 1.0


def test_ids_are_readable_and_differ() -> None:
    events = random_table(1)
    events = replace(
        events,
        dims=("btc_macro", "vol_bucket", "d2"),
        values=(
            ("S1", "S2", "S3", "S4"),
            ("<100k", "0.5-1", ">2m", "x y"),
            ("true", "false", "3", "4"),
        ),
    )
    lessons = [
        lesson({"btc_macro": "S1", "vol_bucket": "<100k"}),
        lesson({"vol_bucket": "x y"}),
        lesson({"vol_bucket": "x y"}, key=TWO),
        lesson({"d2": "true"}),
        lesson({}),
    ]
    ids = [f.factor_id for f in latent_factors(events, lessons)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"lf_[0-9a-z_]+", name) for name in ids)
    assert {
        "lf_btc_macro_s1_under_100k_uptrend_s1",
        "lf_d2_true_uptrend_s1",
        "lf_all_uptrend_s1",
    } <= set(ids)


def test_lessons_without_trades_have_no_factor() -> None:
    assert latent_factors(random_table(1), [lesson({"d0": "zz"})]) == ()
    assert latent_factors(random_table(1), []) == ()


def test_the_strongest_active_member_represents() -> None:
    codes = np.ones((3, 20), dtype=int)
    events = table(np.arange(20.0), np.ones(20), codes)
    lessons = [
        lesson({"d0": "a"}, evidence=9.0, status=LessonStatus.REDUNDANT),
        lesson({"d1": "a"}, evidence=-6.0),
        lesson({"d2": "a"}, evidence=5.0),
    ]
    [factor] = latent_factors(events, lessons)
    assert factor.representative == lessons[1].lesson_id
    assert len(factor.members) == 3


# --- planted groups --------------------------------------------------------------------------


def _planted(
    seed: int, n_factors: int = 30, per_factor: int = 5, n_trades: int = 4000
) -> tuple[EventTable, list[Lesson], list[int]]:
    """Each lesson is a dimension of its own, the value `a` of which copies its factor's trades."""
    rng = np.random.default_rng(seed)
    codes, truth = [], []
    for f in range(n_factors):
        base = rng.random(n_trades) < rng.uniform(0.02, 0.3)
        for _ in range(per_factor):
            kept = base & (rng.random(n_trades) < 0.93)
            added = rng.random(n_trades) < 0.05 * base.mean()
            codes.append(np.where(kept | added, 1, 2))
            truth.append(f)
    events = table(
        np.sort(rng.uniform(0, 4000, n_trades)), rng.standard_normal(n_trades), np.array(codes)
    )
    lessons = [lesson({f"d{i}": "a"}, evidence=4 + rng.random()) for i in range(len(codes))]
    return events, lessons, truth


def _labels(factors: tuple[Factor, ...], lessons: list[Lesson]) -> list[str]:
    of = {name: f.factor_id for f in factors for name in f.member_ids}
    return [of[x.lesson_id] for x in lessons]


@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_are_recovered(seed: int) -> None:
    events, lessons, truth = _planted(seed)
    assert adjusted_rand_score(truth, _labels(latent_factors(events, lessons), lessons)) >= 0.85


@pytest.mark.parametrize("seed", range(3))
def test_ids_last_while_a_tenth_of_the_trades_changes_every_week(seed: int) -> None:
    events, lessons, _ = _planted(seed)
    rng = np.random.default_rng(seed)
    first = latent_factors(events, lessons)
    factors = first
    for _ in range(4):
        changed = events.codes.copy()
        new = rng.choice(events.n_trades, events.n_trades // 10, replace=False)
        changed[:, new] = changed[:, rng.permutation(new)]
        events = replace(events, codes=changed)
        lessons = [replace(x, stats=replace(x.stats, evidence=4 + rng.random())) for x in lessons]
        factors = latent_factors(events, lessons, previous=factors)
    same = np.mean(
        [a == b for a, b in zip(_labels(first, lessons), _labels(factors, lessons), strict=True)]
    )
    assert same >= 0.95


def test_a_factor_keeps_its_id_while_most_members_stay() -> None:
    events, lessons, _ = _planted(1, n_factors=2, per_factor=5)
    before = latent_factors(events, lessons)
    assert [f.factor_id for f in latent_factors(events, lessons[2:], previous=before)] == [
        f.factor_id for f in before
    ]
    of_first = next(f for f in before if lessons[0].lesson_id in f.member_ids)
    weakest = of_first.members[-1][0]
    others = [x for x in lessons if x.lesson_id not in of_first.member_ids - {weakest}]
    few = latent_factors(events, others, previous=before)
    alone = next(f for f in few if weakest in f.member_ids)
    assert len(alone.members) == 1
    assert alone.factor_id not in {f.factor_id for f in before}


def test_members_that_are_gone_count_by_their_trades() -> None:
    events, lessons, _ = _planted(1, n_factors=1, per_factor=4)
    [before] = latent_factors(events, lessons[:2])
    named = replace(before, factor_id="lf_a_name_of_old")
    [without] = latent_factors(events, lessons[2:], previous=[named])
    assert without.factor_id != named.factor_id
    [after] = latent_factors(events, lessons[2:], previous=[named], known=lessons)
    assert after.factor_id == named.factor_id


# --- use -------------------------------------------------------------------------------------


def test_patterns_of_one_factor_share_the_edge() -> None:
    # 100 trades meet both patterns in d0 = a, 10 more the first only; 50 others meet neither.
    trade = np.concatenate([np.arange(160), np.arange(100)])
    codes = np.where(trade < 110, 1, 2)[None, :]
    group = np.concatenate([np.zeros(160, int), np.ones(100, int)])
    events = table(np.arange(160.0), np.zeros(160), codes, group, (ONE, TWO), trade)
    lessons = [lesson({"d0": "a"}, 0.5), lesson({"d0": "a"}, 0.5, TWO), lesson({"d0": "b"}, 0.1)]
    factors = latent_factors(events, lessons)
    divisors = share_divisors(events, lessons, factors)
    assert divisors[lessons[0].lesson_id] == pytest.approx(210 / 110)
    assert divisors[lessons[1].lesson_id] == pytest.approx(210 / 110)
    assert divisors[lessons[2].lesson_id] == 1.0
    assert share_divisors(events, lessons[:1], factors) == {lessons[0].lesson_id: 1.0}


def test_categories_and_modules_do_not_mix() -> None:
    trade = np.concatenate([np.arange(50), np.arange(50)])
    keys = (ONE, GroupKey("pm", ONE.pattern_key, "exit"))
    group = np.repeat([0, 1], 50)
    events = table(np.arange(50.0), np.zeros(50), np.ones((1, 100), int), group, keys, trade)
    lessons = [lesson({"d0": "a"}), lesson({"d0": "a"}, key=keys[1])]
    factors = latent_factors(events, lessons)
    assert [len(f.members) for f in factors] == [1, 1]
    assert len({f.factor_id for f in factors}) == 2


def test_five_thousand_lessons_on_a_hundred_thousand_trades_take_seconds() -> None:
    rng = np.random.default_rng(0)
    n, sets = 100_000, []
    for _ in range(1000):
        base = rng.choice(n, int(np.exp(rng.uniform(np.log(33), np.log(20_000)))), replace=False)
        sets += [np.sort(base[rng.random(len(base)) < 0.95]) for _ in range(5)]
    sets = [s if len(s) else np.array([0]) for s in sets]
    clusters_of(sets[:5], n)
    start = time.process_time()
    clusters = clusters_of(sets, n)
    assert time.process_time() - start < 10
    assert (
        adjusted_rand_score(
            np.repeat(np.arange(1000), 5),
            np.concatenate([np.full(len(c), k) for k, c in enumerate(clusters)])[
                np.argsort(np.concatenate(clusters))
            ],
        )
        > 0.99
    )
