"""The definitions in a Dagster of the user's own: beside other code locations, and merged."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import environ
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from learning_assets.defs.build import build_definitions
from learning_assets.store.books import recorded_revision
from learning_assets.store.migrations import latest_revision
from learning_assets.store.settings import Settings, settings

OURS = "from learning_assets.defs.build import build_definitions\n\ndefs = build_definitions()\n"
THEIRS = """
import dagster as dg

@dg.asset
def prices() -> int:
    return 1

@dg.schedule(cron_schedule="0 5 * * *", target=[prices])
def events():
    return dg.RunRequest()

defs = dg.Definitions(
    assets=[prices], schedules=[events], resources={"book": 1}, executor=dg.multiprocess_executor
)
"""
WORKSPACE = """
load_from:
  - python_file: {relative_path: theirs.py, location_name: theirs}
  - python_file: {relative_path: ours.py, location_name: ours}
"""
VARIABLES = ("LEARNING_HOME", "LEARNING_DATABASE_URL", "LEARNING_BOOK", "DAGSTER_PG_URL")
_numbers = itertools.count(1)


@dg.asset
def prices() -> int:
    return 1


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with Dagster's own storage, as somebody may have it already."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


@pytest.fixture
def new_book(server_env: Mapping[str, str]) -> Iterator[Settings]:
    """A book without tables, on a server that is known by its address alone."""
    name = f"elsewhere{next(_numbers)}"
    url = settings(server_env).learning_url
    env = {"LEARNING_HOME": "/nowhere", "LEARNING_DATABASE_URL": url}
    with environ({**dict.fromkeys(VARIABLES), **env, "LEARNING_BOOK": name}):
        yield settings(env, name)


def test_a_second_code_location_is_one_line(
    instance: dg.DagsterInstance, tmp_path: Path, new_book: Settings
) -> None:
    for name, text in (("theirs", THEIRS), ("ours", OURS)):
        (tmp_path / f"{name}.py").write_text(text)
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    target = WorkspaceFileTarget([str(workspace)])
    with WorkspaceProcessContext(instance, target) as process:
        request = process.create_request_context()
        errors = {
            e.origin.location_name: e.load_error
            for e in request.get_code_location_entries().values()
        }
        assert errors == {"theirs": None, "ours": None}
        keys = {key.to_user_string() for key in request.asset_graph.get_all_asset_keys()}
        assert {"prices", "learning_lessons", "pm_overrides"} <= keys
        repository = request.get_code_location("ours").get_repository("__repository__")
        assert {"events", "lessons_pm", "overrides"} <= {s.name for s in repository.get_schedules()}
    assert recorded_revision(new_book) is None


def test_merged_with_other_definitions(instance: dg.DagsterInstance, new_book: Settings) -> None:
    merged = dg.Definitions.merge(
        dg.Definitions(assets=[prices], executor=dg.multiprocess_executor),
        build_definitions(executor=None),
    )
    dg.Definitions.validate_loadable(merged)
    job = merged.resolve_job_def("lessons")
    assert job.execute_in_process(instance=instance, partition_key="pm").success
    assert recorded_revision(new_book) == latest_revision()


def test_a_resource_of_the_same_name_is_told(new_book: Settings) -> None:
    with pytest.raises(dg.DagsterInvariantViolationError, match="same key 'book'"):
        dg.Definitions.merge(dg.Definitions(resources={"book": 1}), build_definitions())


def test_old_runs_of_somebody_else_stay(instance: dg.DagsterInstance, new_book: Settings) -> None:
    definitions = build_definitions()
    lessons = definitions.resolve_job_def("lessons")
    lessons.execute_in_process(instance=instance, partition_key="pm")
    job = definitions.resolve_job_def("housekeeping")
    assert job.execute_in_process(instance=instance).success
    assert len(instance.get_runs()) == 2


def test_without_a_source_a_run_says_what_to_do(
    instance: dg.DagsterInstance, new_book: Settings
) -> None:
    job = build_definitions().resolve_job_def("events")
    with pytest.raises(dg.Failure, match="has no source yet: give it one with `learning run"):
        job.execute_in_process(instance=instance, partition_key="2026-01-05")


def test_without_a_database_a_run_says_what_to_do(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with environ({**dict.fromkeys(VARIABLES), "LEARNING_HOME": str(tmp_path / "h")}):
        job = build_definitions().resolve_job_def("lessons")
        with pytest.raises(dg.Failure, match=r"does not answer.*set LEARNING_DATABASE_URL"):
            job.execute_in_process(instance=instance, partition_key="pm")
