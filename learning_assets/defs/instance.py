"""The state folder of a book's Dagster instance, outside the project, and the instance on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from learning_assets.store.history import prepare_history
from learning_assets.store.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

_CONFIG = Path(__file__).with_name("dagster.yaml")


def dagster_home(settings: Settings) -> Path:
    """The folder of the book's instance, made and up to date."""
    home = settings.home / "dagster" / settings.book
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = home / f"dagster.yaml.{os.getpid()}"
    shutil.copyfile(_CONFIG, fresh)
    fresh.replace(home / "dagster.yaml")
    return home


def environment(settings: Settings) -> Mapping[str, str]:
    """The variables that a Dagster process of the book needs. Makes the schema of its history.

    Raises:
        UserError: where the database of the history does not answer.
    """
    return {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "DAGSTER_PG_URL": prepare_history(settings),
        "LEARNING_BOOK": settings.book,
        "LEARNING_HOME": str(settings.home),
        # A run over many days writes an event for each; one by one they take most of its time.
        "DAGSTER_EVENT_BATCH_SIZE": "500",
        # A look at a source in which everything is new may take longer than the usual minute.
        "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "300",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


@contextmanager
def instance_of(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The book's instance for runs in this process, whose output stays on the terminal."""
    os.environ.update(environment(settings))
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef

    no_capture = {
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        }
    }
    ref = InstanceRef.from_dir(os.environ["DAGSTER_HOME"], overrides=no_capture)
    with DagsterInstance.from_ref(ref) as instance:
        # Keeps its connection, where the default opens a new one for each event.
        instance.optimize_for_webserver(statement_timeout=60_000, pool_recycle=3600, max_overflow=5)
        yield instance
