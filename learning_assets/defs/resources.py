"""The book as a Dagster resource: connections, the source it remembers, and the clock.

Where a book lives is worked out in `store.settings`, how a source is opened in `defs.opening`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import dagster as dg

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable
from learning_assets.defs.opening import is_live, learned_as_of, parse_as_of
from learning_assets.defs.plans import Plan, chosen_plan, meta_learners_on
from learning_assets.errors import DatabaseAwayError, UserError
from learning_assets.store import connection
from learning_assets.store.columns import event_table
from learning_assets.store.connection import Conn
from learning_assets.store.events import days
from learning_assets.store.migrations import bring_up_to_date
from learning_assets.store.settings import MAIN_BOOK, Settings, settings
from learning_assets.store.sources import BookSource, current_source

BOOK_VARIABLE = "LEARNING_BOOK"

RETRIES = dg.RetryPolicy(
    max_retries=4, delay=4, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""How often a run tries again when a database is away: after about 4, 12, 28 and 60 seconds."""


class BookResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # generic in the value given
    """One book. Addresses come from the environment, so that no secret shows in the UI."""

    name: str = MAIN_BOOK

    @property
    def settings(self) -> Settings:
        """Where the book lives."""
        return settings(os.environ, self.name)

    @property
    def config(self) -> LearningConfig:
        """The settings of the learning; tests have others."""
        return LearningConfig.model_validate({})

    @property
    def plan(self) -> Plan:
        """Which job runs when."""
        return chosen_plan(os.environ)

    @property
    def meta_learners_on(self) -> bool:
        """Whether what the meta-learners found counts."""
        return meta_learners_on(os.environ)

    @contextmanager
    def connect(self) -> Iterator[Conn]:
        """A connection to the tables of the book, which are made or brought up to date before.

        Raises:
            UserError: where the database does not answer or the tables cannot be made.
        """
        with connection.connect(self.settings) as conn:
            bring_up_to_date(conn, self.settings)
            yield conn

    def events(self, before: datetime, since: datetime | None = None) -> EventTable:
        """The events that closed before `before` (and not before `since`), of one moment."""
        with self.connect() as conn:
            return event_table(conn, self.settings.columns_folder, before, since)

    def source(self, conn: Conn) -> BookSource:
        """The source that scheduled runs read.

        Raises:
            UserError: where the book has none yet.
        """
        found = current_source(conn)
        if found is None:
            raise UserError(
                f"the book {self.name} has no source yet: give it one with "
                f"`learning run --book {self.name} --trades PATH` or `--source strands`"
            )
        return found

    def as_of(self, conn: Conn, given: str) -> datetime:
        """The moment of learning: `given` by a person; where empty, what suits the source.

        Raises:
            UserError: where what is given is no time, or a wrong one.
        """
        if given:
            return parse_as_of(given, self.now(), "as_of")
        return learned_as_of(days(conn), self.now(), live=self._is_live(conn))

    def _is_live(self, conn: Conn) -> bool:
        found = current_source(conn)
        return found is not None and is_live(found)

    def now(self) -> datetime:
        """The time; tests have another."""
        return datetime.now(UTC)


def book_from_environment() -> BookResource:
    """The book that `LEARNING_BOOK` names, else main."""
    return BookResource(name=dg.EnvVar(BOOK_VARIABLE).get_value() or MAIN_BOOK)


@contextmanager
def clear_failures() -> Iterator[None]:
    """Turn bad input into a failure with one sentence, which nobody retries.

    A database that is away is waited for, by `RETRIES`, before it is such a failure. A policy on
    the assets themselves would do the same for mistakes in the code, which no waiting mends.
    """
    try:
        yield
    except DatabaseAwayError as error:
        tried = _tries_before()
        if tried is not None and tried < RETRIES.max_retries:
            wait = RETRIES.calculate_delay(tried + 1)
            raise dg.RetryRequested(RETRIES.max_retries, wait) from error
        raise dg.Failure(description=str(error), allow_retries=False) from error
    except UserError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def _tries_before() -> int | None:
    """How often the step under way was tried before; None outside a run."""
    try:
        return dg.OpExecutionContext.get().retry_number
    except dg.DagsterError:
        return None
