"""The nightly job that keeps Dagster's own history small: it deletes old runs and their events.

What must stay is decided in `store.housekeeping`; ticks are purged by the daemon, as `retention`
of `dagster.yaml` says.
"""

import os
from datetime import datetime, timedelta

import dagster as dg
from pydantic import Field

from learning_assets.defs.keeping import KEEP_VARIABLE, keep_days
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.defs.storage import BookStorage
from learning_assets.store.housekeeping import forget_checks, history, history_bytes, old_runs

MOST_OF_JOB = 500
"""Runs of one job beyond this number go however young they are: some sensors start thousands."""

MOST_RUNS, RUNS_AT_ONCE = 10_000, 200


class HousekeepingConfig(dg.Config):
    """Options of one run."""

    keep_days: int | None = Field(
        default=None, ge=1, description="Days for which runs are kept; by default as configured."
    )


@dg.op(description="Deletes old runs that no state of an asset or check rests on.")
def delete_old_runs(
    context: dg.OpExecutionContext, config: HousekeepingConfig, book: BookResource
) -> None:
    """Delete them, some at a time and at most `MOST_RUNS`; what is left waits for tomorrow.

    In an instance with a storage of its own nothing is deleted: its runs are not ours alone.
    """
    if not keeps_history_of_book(context.instance):
        context.add_output_metadata({"runs deleted": 0, "why": "this instance has its own storage"})
        return
    with clear_failures():
        days = config.keep_days or keep_days(os.environ.get(KEEP_VARIABLE))
        deleted = delete_runs(context.instance, book, book.now() - timedelta(days=days))
        with history(book.settings) as conn:
            size = history_bytes(conn)
    context.add_output_metadata({"runs deleted": deleted, "days kept": days, "bytes now": size})


def keeps_history_of_book(instance: dg.DagsterInstance) -> bool:
    """Whether an instance keeps its history where the book's is, by our storage class."""
    storage = instance.get_ref().storage_data if instance.is_persistent else None
    return storage is not None and storage.class_name == BookStorage.__name__


def delete_runs(instance: dg.DagsterInstance, book: BookResource, before: datetime) -> int:
    """Delete runs that ended before a moment, and surplus ones of a job; return how many."""
    with history(book.settings) as conn:
        found = old_runs(conn, before, MOST_OF_JOB, MOST_RUNS)
        for at in range(0, len(found), RUNS_AT_ONCE):
            some = found[at : at + RUNS_AT_ONCE]
            # In this order: a run that is still there is found again tomorrow.
            forget_checks(conn, some)
            for name in some:
                instance.compute_log_manager.delete_logs(prefix=[name])
                instance.delete_run(name)
    return len(found)


@dg.job(
    description="Delete old runs from Dagster's history, so that a year of ticks stays small.",
    executor_def=dg.in_process_executor,
)
def housekeeping() -> None:
    """The nightly job."""
    delete_old_runs()
