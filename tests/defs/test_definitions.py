from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import environ

from learning_assets.core.config import LearningConfig
from learning_assets.defs.build import ASSETS, LEARNED, build_definitions
from learning_assets.defs.options import LessonsConfig, OverridesConfig, bounds_of
from learning_assets.defs.owners import owners_of
from learning_assets.defs.partitions import (
    FIRST_WEEK,
    WEEKS,
    day_ends,
    last_full_day,
    weeks_between,
    weeks_of,
)
from learning_assets.defs.plans import Plan
from learning_assets.defs.resources import BookResource
from learning_assets.errors import UserError
from learning_assets.sources.parse import START
from learning_assets.store.tables import (
    LEARNING_EDGE_HISTORY,
    LEARNING_HALF_LIVES,
    LEARNING_LATENT_FACTORS,
    LEARNING_LESSONS,
    LEARNING_REGIME_WEIGHTS,
    OVERRIDE_EFFECTIVENESS,
    PATTERN_TRADE_EVENTS,
    PM_OVERRIDES,
)


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions()


def test_the_definitions_hold_what_they_should(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    keys = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    snapshot = {
        name: (
            node.group_name,
            node.is_materializable,
            type(node.partitions_def).__name__,
            sorted(parent.to_user_string() for parent in node.parent_keys),
        )
        for name, node in sorted(keys.items())
    }
    assert snapshot == {
        "closed_trades": ("trades", False, "NoneType", []),
        "learning_edge_history": (
            "meta_learners",
            True,
            "WeeklyPartitionsDefinition",
            ["learning_lessons", "pattern_trade_events"],
        ),
        "learning_latent_factors": (
            "meta_learners",
            True,
            "WeeklyPartitionsDefinition",
            ["learning_lessons", "pattern_trade_events"],
        ),
        "learning_lessons": (
            "lessons",
            True,
            "StaticPartitionsDefinition",
            ["pattern_trade_events"],
        ),
        "learning_regime_weights": (
            "meta_learners",
            True,
            "DailyPartitionsDefinition",
            ["learning_latent_factors", "learning_lessons", "pattern_trade_events"],
        ),
        "lesson_half_lives": (
            "meta_learners",
            True,
            "WeeklyPartitionsDefinition",
            ["learning_edge_history"],
        ),
        "override_effectiveness": (
            "meta_learners",
            True,
            "WeeklyPartitionsDefinition",
            ["pattern_trade_events"],
        ),
        "pattern_trade_events": (
            "trades",
            True,
            "DailyPartitionsDefinition",
            ["closed_trades"],
        ),
        "pm_overrides": (
            "overrides",
            True,
            "NoneType",
            [
                *("learning_latent_factors", "learning_lessons", "learning_regime_weights"),
                *("lesson_half_lives", "override_effectiveness"),
            ],
        ),
    }
    jobs = {job.name for job in definitions.resolve_all_job_defs()} - {"__ASSET_JOB"}
    assert jobs == {
        *("events", "lessons", "edge_history", "half_lives", "factors", "regime_weights"),
        *("effectiveness", "missing_days", "freshness", "housekeeping"),
        *("overrides", "main"),
    }


def test_the_checks_schedules_and_sensors(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    checks = {
        f"{key.asset_key.to_user_string()}.{key.name}": graph.get(key).blocking
        for key in graph.asset_check_keys
    }
    assert checks == {
        "pattern_trade_events.one_outcome_per_trade": True,
        "pattern_trade_events.outcomes_in_range": True,
        "pattern_trade_events.few_rejected": False,
        "pattern_trade_events.no_day_missing": False,
        "learning_lessons.enough_trades": True,
        "learning_lessons.finite_statistics": True,
        "learning_lessons.redundancy_is_explained": True,
        "learning_edge_history.no_future_weeks": True,
        "lesson_half_lives.half_lives_in_range": True,
        "learning_regime_weights.weights_in_range": True,
        "learning_latent_factors.one_factor_per_lesson": True,
        "override_effectiveness.only_weeks_that_ended": True,
        "pm_overrides.in_bounds": True,
        "pm_overrides.once": True,
        "pm_overrides.not_expired": True,
        "pm_overrides.complete": True,
        "pm_overrides.not_too_much_at_once": False,
        **{f"{key.to_user_string()}.in_time": False for key in LEARNED},
        "pm_overrides.settings_of_the_book": False,
        "pm_overrides.not_pinned": False,
    }
    schedules = {s.name: s.cron_schedule for s in definitions.schedules or ()}
    assert schedules == {
        "events": "*/5 * * * *",
        "lessons_pm": "8 * * * *",
        "lessons_dm": "9 * * * *",
        "overrides": "10 * * * *",
        "regime_weights": "0 1 * * *",
        "half_lives": "0 2 * * 1",
        "factors": "0 3 * * 1",
        "walk_forward": "0 4 * * 1",
        "missing_days": "30 0 * * *",
        "freshness": "45 * * * *",
        "housekeeping": "45 0 * * *",
    }
    assert [s.name for s in definitions.sensors or ()] == ["closings", "alerts"]


def test_the_definitions_load(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_loading_warns_of_nothing() -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore');"
        "import dagster, dagster_postgres;"
        "warnings.resetwarnings(); warnings.simplefilter('error');"
        "warnings.filterwarnings('ignore', module='(numba|scipy|pandas|sqlalchemy)');"
        "from learning_assets.defs import build, run, storage;"
        "d = build.build_definitions(); dagster.Definitions.validate_loadable(d);"
        "[d.resolve_job_def(job.name) for job in build.JOBS]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_days_go_on_to_today_and_the_newest_one_feeds_every_module(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_asset_graph()
    lessons, events = (
        graph.get(dg.AssetKey(name)) for name in ("learning_lessons", "pattern_trade_events")
    )
    assert events.partitions_def is not None
    newest = events.partitions_def.get_last_partition_key()
    assert newest == datetime.now(UTC).date().isoformat()
    mapping = graph.get_partition_mapping(lessons.key, events.key)
    assert isinstance(mapping, dg.LastPartitionMapping)


@pytest.mark.parametrize(
    ("asset", "parent", "expected"),
    [
        ("learning_edge_history", "pattern_trade_events", dg.TimeWindowPartitionMapping),
        ("learning_edge_history", "learning_lessons", dg.AllPartitionMapping),
        ("lesson_half_lives", "learning_edge_history", dg.TimeWindowPartitionMapping),
        ("learning_latent_factors", "pattern_trade_events", dg.TimeWindowPartitionMapping),
        ("learning_latent_factors", "learning_lessons", dg.AllPartitionMapping),
        ("learning_regime_weights", "pattern_trade_events", dg.TimeWindowPartitionMapping),
        ("learning_regime_weights", "learning_lessons", dg.AllPartitionMapping),
        ("learning_regime_weights", "learning_latent_factors", dg.LastPartitionMapping),
        ("pm_overrides", "learning_regime_weights", dg.LastPartitionMapping),
        ("pm_overrides", "learning_lessons", dg.AllPartitionMapping),
        ("pm_overrides", "lesson_half_lives", dg.LastPartitionMapping),
        ("pm_overrides", "learning_latent_factors", dg.LastPartitionMapping),
        ("pm_overrides", "override_effectiveness", dg.LastPartitionMapping),
        ("override_effectiveness", "pattern_trade_events", dg.TimeWindowPartitionMapping),
    ],
)
def test_what_an_asset_reads_is_mapped(
    definitions: dg.Definitions, asset: str, parent: str, expected: type
) -> None:
    graph = definitions.resolve_asset_graph()
    mapping = graph.get_partition_mapping(dg.AssetKey(asset), dg.AssetKey(parent))
    assert isinstance(mapping, expected)


def test_weeks_begin_on_monday_and_the_running_one_is_not_over() -> None:
    keys = WEEKS.get_partition_keys(current_time=datetime(2026, 6, 3, tzinfo=UTC))
    assert (keys[0], keys[-1]) == (FIRST_WEEK.date().isoformat(), "2026-05-25")
    assert all(week.weekday() == 0 and week.tzinfo is UTC for week in weeks_of(keys))
    on_monday = WEEKS.get_partition_keys(current_time=datetime(2026, 6, 8, tzinfo=UTC))
    assert on_monday[-1] == "2026-06-01"


def test_a_day_ends_at_midnight_and_the_running_one_is_not_over() -> None:
    ends = day_ends(["2026-06-02", "2026-06-01"])
    assert ends == [datetime(2026, 6, 2, tzinfo=UTC), datetime(2026, 6, 3, tzinfo=UTC)]
    for at, day in (
        (datetime(2026, 6, 3, tzinfo=UTC), date(2026, 6, 2)),
        (datetime(2026, 6, 3, 23, 59, tzinfo=UTC), date(2026, 6, 2)),
        (datetime(2026, 6, 3, 1, tzinfo=timezone(timedelta(hours=2))), date(2026, 6, 1)),
    ):
        assert last_full_day(at) == day
    assert last_full_day(START) is None


def test_whole_weeks_between_two_moments() -> None:
    wednesday, monday = datetime(2026, 6, 3, 7, tzinfo=UTC), datetime(2026, 6, 15, tzinfo=UTC)
    first = datetime(2026, 6, 1, tzinfo=UTC)
    assert weeks_between(wednesday, monday) == (first, datetime(2026, 6, 8, tzinfo=UTC))
    assert weeks_between(wednesday, datetime(2026, 6, 14, 23, tzinfo=UTC)) == (first, first)
    assert weeks_between(wednesday, datetime(2026, 6, 7, tzinfo=UTC)) is None
    assert weeks_between(datetime(2000, 1, 1, tzinfo=UTC), monday) == (
        FIRST_WEEK,
        datetime(2026, 6, 8, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("asset", "table"),
    [
        ("pattern_trade_events", PATTERN_TRADE_EVENTS),
        ("learning_lessons", LEARNING_LESSONS),
        ("learning_edge_history", LEARNING_EDGE_HISTORY),
        ("lesson_half_lives", LEARNING_HALF_LIVES),
        ("learning_latent_factors", LEARNING_LATENT_FACTORS),
        ("learning_regime_weights", LEARNING_REGIME_WEIGHTS),
        ("override_effectiveness", OVERRIDE_EFFECTIVENESS),
        ("pm_overrides", PM_OVERRIDES),
    ],
)
def test_an_asset_shows_the_columns_of_its_table(
    definitions: dg.Definitions, asset: str, table: object
) -> None:
    node = definitions.resolve_asset_graph().get(dg.AssetKey(asset))
    schema = node.metadata["dagster/column_schema"]
    value = getattr(schema, "schema", schema)
    assert [c.name for c in value.columns] == list(table.column_names)  # type: ignore[attr-defined]


def test_every_asset_says_what_it_is_who_owns_it_and_where_its_code_is(
    definitions: dg.Definitions,
) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert len(node.description or "") > 60
        assert tuple(node.owners) == ("team:trading",)
        assert node.kinds
        assert node.metadata["dagster/column_schema"]
        [code] = node.metadata["dagster/code_references"].code_references
        text = Path(code.file_path).read_text()
        assert key.to_user_string() in text or key.to_user_string() == "closed_trades"
        assert 1 <= code.line_number <= len(text.splitlines())


def test_owners_come_from_the_environment() -> None:
    with environ({"LEARNING_OWNERS": "team:desk, ann@example.com"}):
        graph = build_definitions().resolve_asset_graph()
    assert {tuple(graph.get(key).owners) for key in graph.get_all_asset_keys()} == {
        ("team:desk", "ann@example.com")
    }
    assert owners_of({"LEARNING_OWNERS": ""}) == ("team:trading",)
    for wrong in ("ann", "team:", "a@b", "team:desk ann@example.com"):
        with pytest.raises(UserError, match="is no owner"):
            owners_of({"LEARNING_OWNERS": wrong})


def test_jobs_schedules_and_sensors_have_a_description(definitions: dg.Definitions) -> None:
    jobs = [job for job in definitions.resolve_all_job_defs() if job.name != "__ASSET_JOB"]
    for named in (*jobs, *(definitions.schedules or ()), *(definitions.sensors or ())):
        assert len(named.description or "") > 20, named.name


@pytest.mark.parametrize(
    ("asset", "options"), [("learning_lessons", LessonsConfig), ("pm_overrides", OverridesConfig)]
)
def test_the_launchpad_shows_every_option_with_its_bounds(
    definitions: dg.Definitions, asset: str, options: type[dg.Config]
) -> None:
    job = definitions.resolve_job_def("main")
    shown = job.run_config_schema.config_type.fields["ops"].config_type.fields[asset]
    fields = shown.config_type.fields["config"].config_type.fields
    assert fields.keys() == options.model_fields.keys()
    for name in fields.keys() & LearningConfig.model_fields.keys():
        said = fields[name].description
        assert bounds_of(name) in said
        assert fields[name].default_value == LearningConfig.model_fields[name].default


def test_any_part_can_be_replaced() -> None:
    other = build_definitions(
        assets=ASSETS[:1],
        jobs=(),
        checks=(),
        plan=Plan("none", "", ()),
        upkeep=(),
        sensors=(),
        resources={},
    )
    assert len(other.resolve_asset_graph().get_all_asset_keys()) == 1


@pytest.mark.parametrize(("given", "name"), [(None, "main"), ("other", "other"), ("", "main")])
def test_the_book_comes_from_the_environment(given: str | None, name: str) -> None:
    with environ({"LEARNING_BOOK": given}):
        book = (build_definitions().resources or {})["book"]
    assert isinstance(book, BookResource)
    assert book.name == name
