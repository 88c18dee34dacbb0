"""From events to lessons: what counts, against what it is judged, and what is never seen."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import twins
from worlds import ALLOCATION, DIMS, ONE, START, TWO, Edge, Plan, events_of, market, row, to_frame

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.learn import (
    ALL_PATTERNS,
    ModuleLearning,
    Searched,
    learn_module,
    search,
)
from learning_assets.core.records import GroupKey, Lesson, LessonStatus
from learning_assets.core.scope import ScopeSubset

FAST = LearningConfig(rotations=39, family_wise_error=0.03)
EVERYTHING = FAST.model_copy(update={"max_redundant": 100_000, "max_candidates": 100_000})
SOLANA: ScopeSubset = (("chain", "solana"),)
EDGE = Edge(ONE, dict(SOLANA), 0.8)
PLAN = Plan(seed=2, edges=(EDGE,))


def learned(
    frame: pd.DataFrame, plan: Plan = PLAN, config: LearningConfig = FAST, module: str = "pm",
    previous: tuple[Lesson, ...] = (),
) -> ModuleLearning:  # fmt: skip
    return learn_module(from_frame(frame), module, config, plan.end, previous=previous)


def of_status(learning: ModuleLearning, status: LessonStatus) -> list[Lesson]:
    return [lesson for lesson in learning.lessons if lesson.status is status]


def active(learning: ModuleLearning) -> dict[str, Lesson]:
    return {lesson.lesson_id: lesson for lesson in of_status(learning, LessonStatus.ACTIVE)}


def by_id(learning: ModuleLearning) -> dict[str, Lesson]:
    lessons = {lesson.lesson_id: lesson for lesson in learning.lessons}
    assert len(lessons) == len(learning.lessons)
    return lessons


# --- what a lesson says -------------------------------------------------------------------


@pytest.mark.parametrize("further", [(), ("age",), ("age", "mood")])
def test_of_two_slices_that_are_all_of_a_group_one_is_found(further: tuple[str, ...]) -> None:
    rng = np.random.default_rng(4)
    rows = []
    for k in range(600):
        side = ("long", "short")[rng.integers(2)]
        scope = {"direction": side} | {dim: f"v{rng.integers(2)}" for dim in further}
        at = START + timedelta(hours=3.0 * k)
        rows.append(row(f"t{k}", at, scope, rng.normal() + (side == "long")))
    made = learn_module(from_frame(to_frame(rows)), "pm", FAST, START + timedelta(days=90))
    [found] = [lesson for lesson in made.lessons if lesson.status is LessonStatus.ACTIVE]
    assert [dim for dim, _ in found.scope_subset] == ["direction"]
    assert found.joint_edge_r is not None
    assert abs(found.joint_edge_r) == pytest.approx(1.0, abs=0.3)
    assert math.isfinite(found.stats.cutoff)


def test_a_planted_edge_becomes_the_active_lesson() -> None:
    learning = learned(market(PLAN))
    lesson = active(learning)["pm.one.S1.flag/entry/chain=solana"]
    assert lesson.joint_edge_r == pytest.approx(0.8, abs=0.15)
    assert abs(lesson.stats.evidence) > lesson.stats.cutoff
    assert lesson.joint_se_r is not None
    assert 0.02 < lesson.joint_se_r < 0.2
    assert learning.n_trades == PLAN.n_trades


def test_statistics_equal_those_of_the_trades() -> None:
    frame = market(Plan(seed=3))
    for lesson in learned(frame, config=EVERYTHING).lessons:
        mine = frame[frame["pattern_key"] == lesson.group.pattern_key]
        inside = mine["scope"].map(
            lambda s, lesson=lesson: dict(lesson.scope_subset).items() <= s.items()
        )
        rr = mine[inside]["rr"]
        others = mine[~inside] if lesson.scope_subset else frame.drop(mine.index)
        assert lesson.stats.n == len(rr)
        assert lesson.stats.avg_rr == pytest.approx(rr.mean())
        assert lesson.stats.variance == pytest.approx(rr.var(ddof=1))
        assert lesson.stats.delta_rr == pytest.approx(rr.mean() - others["rr"].mean())


@pytest.mark.parametrize("seed", [2, 3])
def test_the_average_is_that_of_the_trades_also_where_edges_were_found(seed: int) -> None:
    frame = market(
        replace(
            PLAN, seed=seed, allocated=True, edges=(EDGE, Edge(ALLOCATION, {"chain": "base"}, 0.7))
        )
    )
    frame_pm = frame[frame["module"] == "pm"]
    for lesson in learned(frame).lessons:
        mine = frame_pm[frame_pm["pattern_key"] == lesson.group.pattern_key]
        inside = mine["scope"].map(
            lambda s, lesson=lesson: dict(lesson.scope_subset).items() <= s.items()
        )
        assert lesson.stats.avg_rr == pytest.approx(mine[inside]["rr"].mean()), lesson.lesson_id


def test_z_and_p_follow_from_the_edge_and_its_error() -> None:
    for lesson in learned(market(PLAN)).lessons:
        s = lesson.stats
        assert s.z == pytest.approx(s.delta_rr / s.se)
        assert s.p_value == pytest.approx(math.erfc(abs(s.z) / math.sqrt(2)), rel=1e-6)


def test_q_values_equal_plain_benjamini_hochberg() -> None:
    learning = learned(market(PLAN), config=EVERYTHING)
    assert len(learning.lessons) == learning.slices_tested
    q = twins.benjamini_hochberg([lesson.stats.p_value for lesson in learning.lessons])
    assert [lesson.stats.q_value for lesson in learning.lessons] == pytest.approx(q)


def test_q_values_are_those_of_the_whole_module_however_few_are_kept() -> None:
    every = by_id(learned(market(PLAN), config=EVERYTHING))
    for name, lesson in by_id(learned(market(PLAN))).items():
        assert lesson.stats == every[name].stats


def repeated(frame: pd.DataFrame, times: int) -> pd.DataFrame:
    parts = [frame.assign(event_id=frame["event_id"] + f"/{k}") for k in range(times)]
    return pd.concat(parts)


def test_a_trade_counts_once_however_many_of_its_actions_match() -> None:
    assert learned(repeated(market(PLAN), 4)).lessons == learned(market(PLAN)).lessons


def test_some_trades_with_many_actions_weigh_no_more_than_others() -> None:
    frame = market(PLAN)
    some = frame[frame["rr"] > 0.5]
    assert learned(pd.concat([frame, repeated(some, 3)])).lessons == learned(frame).lessons


# --- the baseline and the complement ------------------------------------------------------


def with_trims(frame: pd.DataFrame) -> pd.DataFrame:
    """Winners are trimmed, in the scopes of their entries."""
    winners = frame[(frame["rr"] > 0) & (frame["module"] == "pm")]
    trims = winners.assign(action_category="trim", event_id=winners["event_id"] + "/trim")
    return pd.concat([frame, trims])


def searched(frame: pd.DataFrame, plan: Plan) -> Searched:
    return search(from_frame(frame), ("pm", "dm"), FAST, plan.end, {})


def test_the_baseline_is_that_of_the_category() -> None:
    plan = Plan(seed=4, allocated=True)
    frame = with_trims(market(plan))
    once = frame.drop_duplicates(["trade_id", "module", "action_category"])
    means = once.groupby(["module", "action_category"])["rr"].mean()
    found = searched(frame, plan)
    assert len(found.groups) == 5
    for part in (*found.groups, *found.patterns):
        taken_out = found.events.rr[part.group.trades] - part.search.y
        key = part.group.key
        assert taken_out == pytest.approx(means[key.module, key.action_category])


def test_a_trim_is_not_judged_against_entries() -> None:
    plan = Plan(seed=4, n_trades=800)
    learning = learned(with_trims(market(plan)), plan)
    trims = [lesson for lesson in learning.lessons if lesson.group.action_category == "trim"]
    assert any(lesson.scope_subset == () for lesson in trims)
    assert all(lesson.status is not LessonStatus.ACTIVE for lesson in trims)
    assert np.mean([lesson.stats.avg_rr for lesson in trims]) > 0.2


def test_the_complement_of_the_empty_subset_are_the_other_patterns() -> None:
    keys = (ONE, TWO, GroupKey("pm", "pm.three.S1.flag", "entry"))
    plan = Plan(seed=5, n_trades=900, patterns=keys, edges=(Edge(TWO, {}, 0.6),))
    frame = market(plan)
    lessons = by_id(learned(frame, plan))
    for key in keys:
        mine = frame["pattern_key"] == key.pattern_key
        lesson = lessons[f"{key.pattern_key}/entry/*"]
        assert lesson.stats.n == mine.sum()
        expected = frame[mine]["rr"].mean() - frame[~mine]["rr"].mean()
        assert lesson.stats.delta_rr == pytest.approx(expected)
    assert lessons["pm.two.S1.flag/entry/*"].status is LessonStatus.ACTIVE
    assert all(lesson.group.pattern_key != ALL_PATTERNS for lesson in lessons.values())


def test_a_single_pattern_has_nothing_to_be_compared_with() -> None:
    plan = Plan(seed=5, patterns=(ONE,))
    assert all(lesson.scope_subset for lesson in learned(market(plan), plan).lessons)


# --- statuses -----------------------------------------------------------------------------


def test_redundant_lessons_name_an_active_one() -> None:
    learning = learned(market(PLAN))
    redundant = of_status(learning, LessonStatus.REDUNDANT)
    assert redundant
    assert learning.redundant_total >= len(redundant)
    for lesson in redundant:
        assert lesson.explained_by
        assert set(lesson.explained_by) <= set(active(learning))
        if lesson.scope_subset:
            assert all(n.startswith(lesson.group.pattern_key) for n in lesson.explained_by)
        assert abs(lesson.stats.evidence) > lesson.stats.cutoff


def test_only_active_lessons_have_joint_edges_and_only_redundant_ones_are_explained() -> None:
    for lesson in learned(market(PLAN)).lessons:
        assert (lesson.joint_edge_r is not None) == (lesson.status is LessonStatus.ACTIVE)
        assert bool(lesson.explained_by) == (lesson.status is LessonStatus.REDUNDANT)


def test_the_limits_keep_the_strongest_and_the_number_of_all() -> None:
    assert (LearningConfig().max_redundant, LearningConfig().max_candidates) == (500, 200)
    limits = FAST.model_copy(update={"max_redundant": 2, "max_candidates": 3})
    every, few = learned(market(PLAN), config=EVERYTHING), learned(market(PLAN), config=limits)
    assert few.redundant_total == every.redundant_total > 2
    for status, limit in ((LessonStatus.REDUNDANT, 2), (LessonStatus.CANDIDATE, 3)):
        for key in (ONE, TWO):
            kept, all_of = (
                sorted(
                    (
                        beyond(x)
                        for x in of_status(found, status)
                        if x.group == key and x.scope_subset
                    ),
                    reverse=True,
                )
                for found in (few, every)
            )
            assert kept == pytest.approx(all_of[:limit])
    assert active(few).keys() == active(every).keys()


def beyond(lesson: Lesson) -> float:
    s = lesson.stats
    return s.evidence**2 - s.cutoff**2 if math.isfinite(s.cutoff) else -math.inf


def test_equal_sets_of_trades_are_one_lesson_with_aliases() -> None:
    frame = market(PLAN)
    frame["scope"] = [{**s, "venue": s["chain"].upper()} for s in frame["scope"]]
    lessons = by_id(learned(frame, config=EVERYTHING))
    lesson = lessons["pm.one.S1.flag/entry/chain=solana"]
    assert lesson.status is LessonStatus.ACTIVE
    assert set(lesson.aliases) == {
        (("venue", "SOLANA"),),
        (("chain", "solana"), ("venue", "SOLANA")),
    }
    assert not any("venue" in name for name in lessons)


QUIET = replace(PLAN, edges=())


def test_what_is_no_longer_kept_is_deprecated_and_says_so() -> None:
    was = tuple(active(learned(market(PLAN))).values())
    now = by_id(learned(market(QUIET), config=EVERYTHING, previous=was))
    for lesson in was:
        gone = now[lesson.lesson_id]
        assert gone.status is LessonStatus.DEPRECATED
        assert gone.reason.startswith("no longer kept")
        assert gone.joint_edge_r is None
        assert gone.stats.n > 0


def test_a_slice_with_too_few_trades_left_is_deprecated_and_says_so() -> None:
    was = tuple(active(learned(market(PLAN))).values())
    frame = market(PLAN)
    solana = frame[frame["scope"].map(lambda s: s["chain"] == "solana")].head(20)
    rest = frame[frame["scope"].map(lambda s: s["chain"] != "solana")]
    now = by_id(learned(pd.concat([rest, solana]), previous=was))
    gone = now["pm.one.S1.flag/entry/chain=solana"]
    n = int((solana["pattern_key"] == ONE.pattern_key).sum())
    assert gone.status is LessonStatus.DEPRECATED
    assert gone.reason == f"no longer kept: {n} trades left"
    assert (gone.stats.n, gone.joint_edge_r, gone.joint_se_r) == (n, None, None)


def test_a_slice_without_trades_is_deprecated_and_says_so() -> None:
    was = tuple(active(learned(market(PLAN))).values())
    assert was
    for frame in (to_frame([]), market(replace(PLAN, patterns=(TWO,), edges=()))):
        now = by_id(learned(frame, previous=was))
        gone = now["pm.one.S1.flag/entry/chain=solana"]
        assert gone.status is LessonStatus.DEPRECATED
        assert gone.reason == "no trades in the look-back"
        assert gone.stats.n == 0


def test_a_deprecated_lesson_can_come_back() -> None:
    first = learned(market(PLAN))
    gone = learned(market(QUIET), config=EVERYTHING, previous=first.lessons)
    still_gone = learned(market(QUIET), config=EVERYTHING, previous=gone.lessons)
    name = "pm.one.S1.flag/entry/chain=solana"
    assert by_id(gone)[name].status is by_id(still_gone)[name].status is LessonStatus.DEPRECATED
    back = learned(market(PLAN), previous=still_gone.lessons)
    assert by_id(back)[name] == by_id(first)[name]


def test_candidates_are_forgotten_without_a_word() -> None:
    candidates = tuple(of_status(learned(market(PLAN)), LessonStatus.CANDIDATE))
    assert candidates
    assert learned(to_frame([]), previous=candidates).lessons == ()


def test_deprecated_lessons_stand_in_an_order_that_does_not_depend_on_hashing() -> None:
    template = next(iter(active(learned(market(PLAN))).values()))
    was = tuple(replace(template, scope_subset=(("chain", f"c{k:02d}"),)) for k in range(20))
    names = [lesson.lesson_id for lesson in learned(to_frame([]), previous=was).lessons]
    assert names == [lesson.lesson_id for lesson in was]


def test_an_edge_under_the_least_worth_an_override_is_worn_out() -> None:
    names = active(learned(market(PLAN)))
    picky = FAST.model_copy(update={"min_edge_r": 5.0})
    learning = learned(market(PLAN), config=picky)
    assert names
    assert not active(learning)
    for name in names:
        assert by_id(learning)[name].status is LessonStatus.DEPRECATED
        assert by_id(learning)[name].reason.startswith("worn out: ")


# --- little data --------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["pm", "dm"])
def test_no_events_give_no_lessons(module: str) -> None:
    learning = learned(to_frame([]), module=module)
    assert learning == ModuleLearning(module, (), (), 0, 0, 0, None)


@pytest.mark.parametrize("n_trades", [1, 2, 32, 33])
def test_too_few_trades_give_no_lessons(n_trades: int) -> None:
    plan = Plan(n_trades=n_trades, patterns=(ONE,))
    learning = learned(market(plan), plan)
    assert (learning.lessons, learning.detection_limit) == ((), None)
    assert learning.n_trades == n_trades


@pytest.mark.parametrize("allocated", [False, True])
def test_outcomes_without_noise_are_learned_too(allocated: bool) -> None:
    edges = (Edge(ALLOCATION if allocated else ONE, dict(SOLANA), 1.0),)
    plan = replace(PLAN, noise_sd=0.0, allocated=allocated, edges=edges)
    frame = with_trims(market(plan)) if allocated else market(plan)
    module = "dm" if allocated else "pm"
    found = active(learned(frame, plan, module=module))
    assert [lesson.scope_subset for lesson in found.values()] == [tuple(SOLANA)]
    [lesson] = found.values()
    assert lesson.joint_edge_r == pytest.approx(1.0, rel=1e-3)
    learned(frame, plan)  # what is left for pm has no variance: no error


def test_equal_outcomes_give_no_lessons() -> None:
    learning = learned(market(Plan(noise_sd=0.0)))
    assert (learning.lessons, learning.detection_limit) == ((), None)


def test_an_edge_without_noise_is_no_error() -> None:
    plan = Plan(noise_sd=0.0, edges=(Edge(ONE, {"chain": "solana"}, 1.0),), patterns=(ONE,))
    assert "pm.one.S1.flag/entry/chain=solana" in by_id(learned(market(plan), plan))


def test_actions_without_scope_leave_only_the_patterns() -> None:
    frame = market(replace(PLAN, edges=(Edge(ONE, {}, 0.5),)))
    frame["scope"] = [{} for _ in range(len(frame))]
    assert {lesson.scope_subset for lesson in learned(frame).lessons} == {()}


def test_trades_of_a_single_day_say_nothing_of_the_error() -> None:
    plan = Plan(seed=6, n_trades=400, n_days=1, patterns=(ONE,))
    learning = learned(market(plan), plan, EVERYTHING)
    assert learning.lessons
    assert not any(lesson.stats.p_value < 1e-9 for lesson in learning.lessons)


@pytest.mark.parametrize("n_days", [2, 60, 400])
@pytest.mark.parametrize("edge_r", [0.0, 0.8])
def test_numbers_are_numbers(n_days: int, edge_r: float) -> None:
    plan = replace(PLAN, n_days=n_days, edges=(replace(EDGE, edge_r=edge_r),))
    lessons = learned(market(plan), plan).lessons
    assert lessons
    for lesson in lessons:
        assert np.isfinite(list(asdict(lesson.stats).values())[:-1]).all()
        assert math.isfinite(lesson.edge_raw)


# --- the detection limit ------------------------------------------------------------------


def test_the_detection_limit_is_the_smallest_edge_that_would_have_been_found() -> None:
    learning = learned(market(QUIET), QUIET)
    limit = learning.detection_limit
    assert limit is not None
    assert limit.n >= FAST.n_min
    assert 0.15 < limit.edge_r < 0.6
    strong, weak = (replace(PLAN, edges=(Edge(ONE, dict(SOLANA), e),)) for e in (1.0, 0.02))
    assert active(learned(market(strong)))
    assert not active(learned(market(weak)))


def test_more_trades_and_less_noise_lower_the_detection_limit() -> None:
    few, many, loud = (
        learned(market(plan), plan).detection_limit
        for plan in (QUIET, replace(QUIET, n_trades=2000), replace(QUIET, noise_sd=1.0))
    )
    assert few is not None
    assert many is not None
    assert loud is not None
    assert many.edge_r < 0.7 * few.edge_r
    assert loud.edge_r == pytest.approx(2 * few.edge_r, rel=0.01)


# --- what does not matter -----------------------------------------------------------------


def test_learning_twice_gives_the_same() -> None:
    assert learned(market(PLAN)) == learned(market(PLAN))


def test_the_order_of_rows_does_not_matter() -> None:
    frame = market(replace(PLAN, allocated=True))
    assert learned(frame.sample(frac=1.0, random_state=3)) == learned(frame)


def test_the_scale_of_outcomes_does_not_matter_to_what_is_found() -> None:
    frame = market(PLAN)
    one, four = by_id(learned(frame)), by_id(learned(frame.assign(rr=4 * frame["rr"])))
    assert one.keys() == four.keys()
    for name, lesson in one.items():
        other = four[name]
        assert other.status is lesson.status
        assert other.stats.evidence == pytest.approx(lesson.stats.evidence)
        assert other.stats.cutoff == pytest.approx(lesson.stats.cutoff)
        assert other.stats.delta_rr == pytest.approx(4 * lesson.stats.delta_rr)
        if lesson.joint_edge_r is not None:
            assert other.joint_edge_r == pytest.approx(4 * lesson.joint_edge_r)


def test_a_constant_added_to_all_outcomes_moves_the_averages_alone() -> None:
    frame = market(PLAN)
    one, other = by_id(learned(frame)), by_id(learned(frame.assign(rr=frame["rr"] + 2.0)))
    assert one.keys() == other.keys()
    for name, lesson in one.items():
        assert other[name].stats.avg_rr == pytest.approx(lesson.stats.avg_rr + 2.0)
        assert other[name].stats.evidence == pytest.approx(lesson.stats.evidence)


def shifted(frame: pd.DataFrame, days: int) -> pd.DataFrame:
    by = pd.Timedelta(days=days)
    return frame.assign(closed_at=frame["closed_at"] + by, opened_at=frame["opened_at"] + by)


@pytest.mark.parametrize("days", [3, 7, -14])
def test_whole_days_do_not_matter_and_whole_weeks_not_even_to_recurrence(days: int) -> None:
    frame = market(PLAN)
    later = replace(PLAN, start=PLAN.start + timedelta(days=days))
    one, other = by_id(learned(frame)), by_id(learned(shifted(frame, days), later))
    assert {n: (x.status, x.stats) for n, x in one.items()} == {
        n: (x.status, x.stats) for n, x in other.items()
    }
    if days % 7 == 0:
        assert one == other


def test_the_names_of_values_do_not_matter() -> None:
    frame = market(PLAN)
    label = {v: f"{'zyx'[i]}{v}" for values in DIMS.values() for i, v in enumerate(values)}
    other = frame.assign(scope=[{d: label[v] for d, v in s.items()} for s in frame["scope"]])

    def named(lesson: Lesson) -> tuple[GroupKey, ScopeSubset]:
        return lesson.group, tuple((d, label[v]) for d, v in lesson.scope_subset)

    found = {(x.group, x.scope_subset): x.joint_edge_r for x in active(learned(other)).values()}
    assert found == {named(x): x.joint_edge_r for x in active(learned(frame)).values()}


# --- nothing from the future --------------------------------------------------------------


def future(plan: Plan, key: GroupKey, scope: dict[str, str], n: int = 60) -> pd.DataFrame:
    """Absurd trades that close at as_of and later."""
    return to_frame(
        [row(f"f{i:03d}", plan.end + timedelta(hours=i), scope, 33.0, key) for i in range(n)]
    )


def test_nothing_closed_at_or_after_as_of_is_seen() -> None:
    frame = market(PLAN)
    scope = {dim: values[0] for dim, values in DIMS.items()}
    assert learned(pd.concat([frame, future(PLAN, ONE, scope)])) == learned(frame)


@pytest.mark.parametrize(
    ("key", "scope"),
    [
        (GroupKey("pm", "pm.new.S1.flag", "entry"), {"chain": "solana"}),
        (GroupKey("pm", "pm.one.S1.flag", "trim"), {"chain": "solana"}),
        (ONE, {"chain": "aaa"}),
        (ONE, {"a_new_dimension": "x"}),
    ],
)
def test_not_even_the_names_of_the_future_are_seen(key: GroupKey, scope: dict[str, str]) -> None:
    frame = market(PLAN)
    assert learned(pd.concat([frame, future(PLAN, key, scope)])) == learned(frame)


def test_nothing_before_the_look_back_is_seen() -> None:
    frame = market(PLAN)
    config = FAST.model_copy(update={"look_back_days": PLAN.n_days})
    old = shifted(future(PLAN, ONE, {"chain": "solana"}), -PLAN.n_days - 30)
    assert learned(pd.concat([old, frame]), config=config) == learned(frame, config=config)


# --- cached calibrations ------------------------------------------------------------------


def again(
    plan: Plan, first: ModuleLearning, later_days: float, frame: pd.DataFrame,
    config: LearningConfig = FAST,
) -> ModuleLearning:  # fmt: skip
    cached = {c.group: c for c in first.calibrations}
    as_of = plan.end + timedelta(days=later_days)
    return learn_module(from_frame(frame), "pm", config, as_of, calibrations=cached)


def test_a_cached_calibration_gives_the_same_slices() -> None:
    edges = (EDGE, Edge(TWO, {"timeframe": "1h"}, -0.7))
    plan = Plan(seed=2, n_trades=800, edges=edges)
    first = learned(market(plan), plan)
    later = again(plan, first, 1.0, market(plan))
    assert later.calibrations == first.calibrations
    assert active(later).keys() == active(first).keys()
    for name, lesson in active(later).items():
        assert lesson.joint_edge_r == pytest.approx(active(first)[name].joint_edge_r)
        assert lesson.stats == active(first)[name].stats


def calibrated_at(learning: ModuleLearning) -> set[float]:
    return {(c.calibrated_at - PLAN.end) / timedelta(days=1) for c in learning.calibrations}


@pytest.mark.parametrize(
    ("age_days", "expires"), [(0.0, False), (6.99, False), (7.0, True), (-1.0, True)]
)
def test_a_calibration_expires_by_age(age_days: float, expires: bool) -> None:
    config = LearningConfig(rotations=39, look_back_days=400)
    first = learned(market(PLAN), config=config)
    frame = market(replace(PLAN, n_days=50)) if age_days < 0 else market(PLAN)
    later = again(PLAN, first, age_days, frame, config)
    assert calibrated_at(later) == {age_days if expires else 0.0}


@pytest.mark.parametrize(
    ("share", "expires"), [(0.97, False), (0.93, True), (1.03, False), (1.08, True)]
)
def test_a_calibration_expires_by_growth(share: float, expires: bool) -> None:
    plan = replace(PLAN, patterns=(ONE,))
    base = market(replace(plan, n_trades=600))
    first = learned(base[base["trade_id"] < "t00500"], plan)
    grown = base[base["trade_id"] < f"t{round(500 * share):05d}"]
    assert calibrated_at(again(plan, first, 1.0, grown)) == {1.0 if expires else 0.0}


@pytest.mark.parametrize(
    "changed",
    [
        {"n_min": 30}, {"max_scope_dims": 2}, {"family_wise_error": 0.1}, {"rotations": 45},
        {"winsor": 0.02}, {"look_back_days": 100}, {"seed": 7},
    ],
)  # fmt: skip
def test_a_calibration_expires_by_settings(changed: dict[str, float]) -> None:
    first = learned(market(PLAN))
    later = again(PLAN, first, 1.0, market(PLAN), FAST.model_copy(update=changed))
    assert calibrated_at(later) == {1.0}


def test_a_calibration_outlives_settings_that_do_not_concern_it() -> None:
    first = learned(market(PLAN))
    changed = FAST.model_copy(update={"max_candidates": 1, "min_edge_r": 0.2, "prior_gain": 1.0})
    assert calibrated_at(again(PLAN, first, 1.0, market(PLAN), changed)) == {0.0}


def test_calibrations_of_other_groups_do_not_matter() -> None:
    first = learned(market(PLAN))
    strangers = {
        GroupKey("pm", f"pm.other{i}.S1.x", "entry"): replace(c, calibrated_at=START)
        for i, c in enumerate(first.calibrations)
    }
    events: EventTable = events_of(PLAN)
    assert learn_module(events, "pm", FAST, PLAN.end, calibrations=strangers) == first


def test_every_searched_group_has_a_calibration() -> None:
    learning = learned(market(PLAN))
    assert {c.group for c in learning.calibrations} == {
        ONE, TWO, GroupKey("pm", ALL_PATTERNS, "entry"),
    }  # fmt: skip
    for one, other in itertools.pairwise(learning.calibrations):
        shared, _, _spread = one.settings.rpartition(",")
        assert other.settings.startswith(f"{shared},")
        assert one.calibrated_at == PLAN.end


def test_rescaled_outcomes_of_nothing_find_nothing_with_cached_cutoffs() -> None:
    plan = Plan(seed=9, n_trades=900)
    first = learned(market(plan), plan)
    loud = market(plan).assign(rr=lambda frame: 5 * frame["rr"])
    fresh = learned(loud, plan)
    assert active(again(plan, first, 0.0, loud, FAST)).keys() == active(fresh).keys()
    near = market(plan).assign(rr=lambda frame: 1.05 * frame["rr"])
    assert active(again(plan, first, 0.0, near, FAST)).keys() == active(first).keys()
