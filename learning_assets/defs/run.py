"""The main job in this process: events, lessons of dm and pm, overrides, each a run of its own.

What the command line says about it is in `cli.run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import dagster as dg

from learning_assets.defs.build import build_definitions
from learning_assets.defs.instance import instance_of
from learning_assets.defs.launcher import process_tags
from learning_assets.defs.resources import BookResource
from learning_assets.errors import UserError
from learning_assets.store.settings import Settings

Progress = Callable[[str], AbstractContextManager[None]]
"""Shows that a step is under way; called with what it is."""

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_RANGE_START, _RANGE_END = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))


@dataclass(frozen=True, slots=True)
class MainJob:
    """The main job of one book, with the seconds that each asset took."""

    settings: Settings
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    progress: Progress
    seconds: dict[str, float]

    def take_in(self, first: date, last: date) -> None:
        """Materialize the events of these days as one run.

        Raises:
            UserError: when the source cannot be read.
        """
        tags = {_RANGE_START: first.isoformat(), _RANGE_END: last.isoformat()}
        asset = "pattern_trade_events"
        self._run("events", asset, {asset: {"whole_source": True}}, tags=tags)

    def learn(self, module: str, as_of: datetime) -> None:
        """Materialize the lessons of a module."""
        self._run("lessons", "learning_lessons", _as_of(as_of, "learning_lessons"), module)

    def learn_about_lessons(self, first: datetime, last: datetime) -> None:
        """Materialize the edge history of all these weeks, half-lives and factors of the last."""
        start, end = first.date().isoformat(), last.date().isoformat()
        tags = {_RANGE_START: start, _RANGE_END: end}
        self._run("edge_history", "learning_edge_history", {}, tags=tags)
        self._run("half_lives", "lesson_half_lives", {}, end)
        self._run("factors", "learning_latent_factors", {}, end)

    def learn_about_regimes(self, day: date) -> None:
        """Materialize the regime weights as of the end of this day."""
        self._run("regime_weights", "learning_regime_weights", {}, day.isoformat())

    def judge_past(self, first: datetime, last: datetime, as_of: datetime) -> None:
        """Materialize the walk-forward of these weeks."""
        tags = {_RANGE_START: first.date().isoformat(), _RANGE_END: last.date().isoformat()}
        asset = "override_effectiveness"
        self._run("effectiveness", asset, _as_of(as_of, asset), tags=tags)

    def publish(self, as_of: datetime, *, force: bool) -> None:
        """Materialize the overrides; with `force` however many of them change at once."""
        config = {"as_of": as_of.isoformat(), "force": force}
        self._run("overrides", "pm_overrides", {"pm_overrides": config})

    def _run(
        self,
        job: str,
        asset: str,
        config: dict[str, dict[str, Any]],
        partition: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        began = time.perf_counter()
        what = f"{asset} ({partition})" if partition else asset
        with self.progress(what), _plain_errors():
            self.definitions.resolve_job_def(job).execute_in_process(
                instance=self.instance,
                partition_key=partition,
                tags={**process_tags(), **(tags or {})},
                run_config={
                    "ops": {name: {"config": values} for name, values in config.items()},
                    **_QUIET,
                },
            )
        self.seconds[asset] = self.seconds.get(asset, 0.0) + time.perf_counter() - began


def _as_of(as_of: datetime, asset: str) -> dict[str, dict[str, Any]]:
    return {asset: {"as_of": as_of.isoformat()}}


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Bad input that an asset met, as the sentence that it is."""
    try:
        yield
    except dg.DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None
    except dg.Failure as failure:
        if isinstance(failure.__cause__, UserError):
            raise failure.__cause__ from None
        raise


@contextmanager
def main_job(settings: Settings, progress: Progress) -> Iterator[MainJob]:
    """The main job of a book whose database is up and migrated."""
    definitions = build_definitions(resources={"book": BookResource(name=settings.book)})
    with instance_of(settings) as instance:
        yield MainJob(settings, instance, definitions, progress, {})
