"""Freshness: the policy of each asset in each plan, and what turns red and green when."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness import CronFreshnessPolicy, FreshnessState
from dagster._core.definitions.freshness_evaluator import CronFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.test_utils import environ, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.schedules import cron_string_iterator

from learning_assets.defs.build import ASSETS, JOBS, build_definitions
from learning_assets.defs.freshness import (
    deadline,
    dues_at,
    grace,
    last_materialized,
    late,
    policy_of,
    schedule_starts,
    sentence,
    watched_assets,
)
from learning_assets.defs.plans import PLANS, Of, Plan, Planned
from learning_assets.defs.resources import BookResource
from learning_assets.store.settings import Settings

HOURLY = {
    "pattern_trade_events": ("*/5 * * * *", 5),
    "learning_lessons": ("38 * * * *", 30),
    "pm_overrides": ("40 * * * *", 30),
}
META = {
    "learning_regime_weights": ("30 1 * * *", 30),
    "learning_edge_history": ("30 2 * * 1", 30),
    "lesson_half_lives": ("30 2 * * 1", 30),
    "learning_latent_factors": ("30 3 * * 1", 30),
    "override_effectiveness": ("30 4 * * 1", 30),
}
EXPECTED = {
    "current": HOURLY,
    "hybrid": HOURLY | META,
    "v5": {
        "pattern_trade_events": ("30 */2 * * *", 30),
        "learning_lessons": ("38 */6 * * *", 30),
        "pm_overrides": ("40 */2 * * *", 30),
    }
    | META,
}
PLANS_AND_OFF = [*((PLANS[name], EXPECTED[name]) for name in PLANS)] + [
    (PLANS[name].without_meta(), {k: v for k, v in EXPECTED[name].items() if k not in META})
    for name in PLANS
]
MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
SATURDAY = MONDAY - timedelta(days=2)


def policies(definitions: dg.Definitions) -> dict[str, tuple[str, float]]:
    graph = definitions.resolve_asset_graph()
    found = {
        key.to_user_string(): graph.get(key).freshness_policy for key in graph.get_all_asset_keys()
    }
    return {
        name: (policy.deadline_cron, policy.lower_bound_delta.total_seconds() / 60)
        for name, policy in found.items()
        if isinstance(policy, CronFreshnessPolicy)
    }


@pytest.mark.parametrize(("plan", "expected"), PLANS_AND_OFF)
def test_every_asset_has_the_policy_of_its_cron(
    plan: Plan, expected: Mapping[str, tuple[str, float]]
) -> None:
    assert policies(build_definitions(plan=plan)) == dict(expected)


def test_the_plan_of_the_environment_changes_the_policies() -> None:
    with environ({"LEARNING_PLAN": "v5", "LEARNING_META_LEARNERS": "off"}):
        assert set(policies(build_definitions())) == set(HOURLY)


@pytest.mark.parametrize(
    "planned", {p.name + p.cron: p for x in PLANS.values() for p in x.schedules}.values()
)
def test_a_deadline_is_the_tick_and_its_grace(planned: Planned) -> None:
    def moments(cron: str) -> list[datetime]:
        found = cron_string_iterator(MONDAY.timestamp(), cron, "UTC")
        return [at.astimezone(UTC) for at in itertools.islice(found, 50)]

    late = {at + grace(planned) for at in moments(planned.cron)}
    deadlines = [at for at in moments(deadline(planned)) if at >= min(late)]
    assert deadlines[:40] == sorted(late)[:40]


def planned(cron: str) -> Planned:
    return Planned("x", "x", cron, timedelta(hours=1), Of.WHOLE, "")


def test_a_grace_that_ends_in_the_next_hour() -> None:
    assert deadline(planned("45 * * * *")) == "15 * * * *"
    assert deadline(planned("45 3 * * 1")) == "15 4 * * 1"
    assert deadline(planned("40 */6 * * *")) == "10 1-23/6 * * *"
    for cron in ("45 23 * * *", "45 1,2 * * *", "*/7 * * * *"):
        with pytest.raises(ValueError, match=r"hours|invalid literal"):
            deadline(planned(cron))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def report(instance: dg.DagsterInstance, asset: str, at: datetime, key: str | None = None) -> None:
    """A materialization at a moment."""
    with freeze_time(at):
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))


def state(instance: dg.DagsterInstance, asset: str, plan: Plan, at: datetime) -> FreshnessState:
    """What Dagster's own evaluation says at a moment."""
    node = build_definitions(plan=plan).resolve_asset_graph().get(dg.AssetKey(asset))
    with freeze_time(at):
        evaluated = CronFreshnessPolicyEvaluator().evaluate_freshness(
            LoadingContextForTest(instance), node
        )
        return asyncio.run(evaluated)


def minutes(n: float) -> timedelta:
    return timedelta(minutes=n)


def test_dagster_turns_an_asset_red_after_its_grace_and_green_again(
    instance: dg.DagsterInstance,
) -> None:
    plan, asset = PLANS["hybrid"], "pm_overrides"
    assert state(instance, asset, plan, MONDAY) is FreshnessState.UNKNOWN
    report(instance, asset, MONDAY + minutes(10.5))
    assert state(instance, asset, plan, MONDAY + minutes(99)) is FreshnessState.PASS
    assert state(instance, asset, plan, MONDAY + minutes(101)) is FreshnessState.FAIL
    report(instance, asset, MONDAY + minutes(102))
    assert state(instance, asset, plan, MONDAY + minutes(103)) is FreshnessState.PASS
    assert state(instance, asset, plan.without_meta(), MONDAY + minutes(161)) is FreshnessState.FAIL


def test_a_tick_every_five_minutes_may_miss_one_beat(instance: dg.DagsterInstance) -> None:
    plan, asset = PLANS["hybrid"], "pattern_trade_events"
    report(instance, asset, MONDAY + minutes(0.1), "2026-06-01")
    assert state(instance, asset, plan, MONDAY + minutes(9.9)) is FreshnessState.PASS
    assert state(instance, asset, plan, MONDAY + minutes(10.1)) is FreshnessState.FAIL


class Clock(BookResource):
    """A book whose time stands still."""

    at: str

    def now(self) -> datetime:
        return datetime.fromisoformat(self.at)


Look = Callable[..., tuple[bool, str]]


@pytest.fixture
def look(instance: dg.DagsterInstance) -> Look:
    """The check `in_time` of an asset, really executed by the job that the schedule starts."""

    def at_moment(asset: str, at: datetime, plan: Plan = PLANS["hybrid"]) -> tuple[bool, str]:
        book = Clock(at=at.isoformat())
        definitions = build_definitions(plan=plan, resources={"book": book})
        job = definitions.resolve_job_def("freshness")
        done = job.execute_in_process(instance=instance)
        [found] = [
            e for e in done.get_asset_check_evaluations() if e.asset_key == dg.AssetKey(asset)
        ]
        return found.passed, found.description or ""

    return at_moment


def test_a_module_that_stopped_is_seen_though_the_other_goes_on(
    instance: dg.DagsterInstance, look: Look
) -> None:
    asset = "learning_lessons"
    report(instance, asset, MONDAY + minutes(9.2), "dm")
    for hour in range(1, 5):
        report(instance, asset, MONDAY + minutes(60 * hour + 8.2), "pm")
    at = MONDAY + minutes(4 * 60 + 45)
    assert state(instance, asset, PLANS["hybrid"], at) is FreshnessState.PASS
    passed, said = look(asset, at)
    assert not passed
    assert said == "dm is of 2026-06-01 00:09 UTC, the tick of lessons_dm was 2026-06-01 04:09 UTC"
    report(instance, asset, at, "dm")
    assert look(asset, at + minutes(1)) == (True, "holds")


def test_an_old_day_that_is_backfilled_makes_nothing_newer(
    instance: dg.DagsterInstance, look: Look
) -> None:
    at = MONDAY + timedelta(hours=5)
    report(instance, "learning_regime_weights", at, "2026-03-01")
    assert state(instance, "learning_regime_weights", PLANS["hybrid"], at) is FreshnessState.PASS
    passed, said = look("learning_regime_weights", at)
    assert not passed
    assert said.startswith("2026-05-31 was never materialized")
    report(instance, "learning_regime_weights", at, "2026-05-31")
    assert look("learning_regime_weights", at)[0]


def test_of_the_weekly_assets_the_last_week_must_be_there(
    instance: dg.DagsterInstance, look: Look
) -> None:
    asset = "override_effectiveness"
    report(instance, asset, MONDAY - timedelta(days=6), "2026-05-18")
    assert look(asset, MONDAY + timedelta(hours=4))[0]
    assert not look(asset, MONDAY + timedelta(hours=5))[0]
    # Before the tick, by hand: the week is over and there, so that nothing is late.
    report(instance, asset, MONDAY + timedelta(hours=1), "2026-05-25")
    assert look(asset, MONDAY + timedelta(hours=5))[0]
    assert look(asset, MONDAY + timedelta(days=6))[0]
    assert not look(asset, MONDAY + timedelta(days=7, hours=5))[0]


def test_an_asset_that_no_schedule_runs_is_never_late(look: Look) -> None:
    plan = PLANS["hybrid"].without_meta()
    found = look("lesson_half_lives", MONDAY, plan)
    assert found == (True, "no schedule of the plan asks for it")


def test_a_quiet_weekend_stays_green(instance: dg.DagsterInstance, look: Look) -> None:
    for hour in range(48):
        for minute, key in ((8.2, "pm"), (9.2, "dm")):
            report(instance, "learning_lessons", SATURDAY + minutes(60 * hour + minute), key)
    at = MONDAY + minutes(5)
    assert state(instance, "learning_lessons", PLANS["hybrid"], at) is FreshnessState.PASS
    assert look("learning_lessons", at)[0]


def test_a_tick_without_news_materializes_all_the_same(
    instance: dg.DagsterInstance, book: Settings, server_env: Mapping[str, str]
) -> None:
    job = build_definitions(resources={"book": BookResource(name=book.book)}).resolve_job_def(
        "lessons"
    )
    asset, times = dg.AssetKey("learning_lessons"), []
    with environ(dict(server_env)):
        for _ in range(2):
            done = job.execute_in_process(instance=instance, partition_key="dm")
            times.append(last_materialized(instance, asset, "dm"))
    [made] = done.asset_materializations_for_node("learning_lessons")
    assert made.metadata["unchanged"].value is True
    first, second = times
    assert first is not None
    assert second is not None
    assert first < second
    often = Planned("often", "lessons", "* * * * *", minutes(1), Of.DM, "")
    assert list(late(instance, asset, [often], second + minutes(1))) == []
    assert list(late(instance, asset, [often], second + minutes(3)))


def test_the_first_tick_of_a_day_asks_for_the_day_before_too() -> None:
    [events] = [x for x in PLANS["hybrid"].schedules if x.name == "events"]
    keys = [due.partition for due in dues_at([events], MONDAY + minutes(6))]
    assert keys == ["2026-05-31", "2026-06-01"]


def test_ticks_before_the_daemon_knew_the_schedule_are_not_missed() -> None:
    key, at = dg.AssetKey("pm_overrides"), MONDAY + minutes(45)
    mine = [x for x in PLANS["hybrid"].schedules if x.name == "overrides"]
    with dg.DagsterInstance.local_temp() as instance:  # the ephemeral one keeps no schedules
        [(due, last)] = late(instance, key, mine, at)
        assert sentence(due, last) == (
            "was never materialized, the tick of overrides was 2026-06-01 00:10 UTC"
        )
        instance.add_instigator_state(_known_since("overrides", MONDAY + minutes(20)))
        assert schedule_starts(instance) == {"overrides": MONDAY + minutes(20)}
        assert list(late(instance, key, mine, at)) == []
        assert list(late(instance, key, mine, at + minutes(60)))


def _known_since(name: str, at: datetime) -> InstigatorState:
    data = ScheduleInstigatorData("10 * * * *", at.timestamp())
    kind, status = InstigatorType.SCHEDULE, InstigatorStatus.DECLARED_IN_CODE
    return InstigatorState(_origin(name), kind, status, data)


def _origin(name: str) -> RemoteInstigatorOrigin:
    target = LoadableTargetOrigin(module_name="learning_assets.defs.location")
    location = InProcessCodeLocationOrigin(target, location_name="learning_assets")
    return RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)


def test_of_several_schedules_the_one_that_ticks_most_often_counts() -> None:
    watched = watched_assets(PLANS["hybrid"], JOBS, ASSETS)
    lessons = watched[dg.AssetKey("learning_lessons")]
    assert [x.name for x in lessons] == ["lessons_pm", "lessons_dm"]
    rare = Planned("rare", "lessons", "0 0 * * *", timedelta(days=1), Of.PM, "")
    assert policy_of([rare, *lessons]) == policy_of(lessons)
