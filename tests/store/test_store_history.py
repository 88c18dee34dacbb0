from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import yaml

from learning_assets.store.connection import open_database
from learning_assets.store.history import prepare_history
from learning_assets.store.settings import Settings, settings


@dg.asset
def answer() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"value": 42})


def _instance(url: str, folder: Path) -> dg.DagsterInstance:
    config = {
        "storage": {"postgres": {"postgres_url": url}},
        "telemetry": {"enabled": False},
        "local_artifact_storage": {
            "module": "dagster.core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": str(folder)},
        },
    }
    folder.mkdir()
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    return dg.DagsterInstance.from_config(str(folder))


def _tables(chosen: Settings, schema: str) -> set[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
    with open_database(chosen.history_url, "test") as conn:
        return {name for (name,) in conn.execute(query, [schema])}


def test_two_books_keep_their_dagster_history_apart(
    server_env: Mapping[str, str], tmp_path: Path
) -> None:
    one, two = settings(server_env, "one"), settings(server_env, "two")
    with (
        _instance(prepare_history(one), tmp_path / "one") as first,
        _instance(prepare_history(two), tmp_path / "two") as second,
    ):
        assert dg.materialize([answer], instance=first).success
        assert len(first.get_runs()) == 1
        assert first.get_latest_materialization_event(answer.key) is not None
        assert second.get_runs() == []
        assert second.get_latest_materialization_event(answer.key) is None
        second.optimize_for_webserver(statement_timeout=5000, pool_recycle=3600, max_overflow=1)
        assert second.get_runs() == []
    for chosen in (one, two):
        tables = _tables(chosen, chosen.dagster_schema)
        assert {"runs", "event_logs", "jobs", "alembic_version"} <= tables
    assert _tables(one, "public") == set()


def test_preparing_again_changes_nothing(server_env: Mapping[str, str], tmp_path: Path) -> None:
    chosen = settings(server_env, "again")
    assert prepare_history(chosen) == prepare_history(chosen) == chosen.dagster_storage_url
