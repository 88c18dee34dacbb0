"""Getting at a book: its settings, a connection to one that exists, and emptying it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Annotated

import typer

from learning_assets.cli.output import BookOption, terminal
from learning_assets.defs.keeping import KEEP_VARIABLE, keep_days
from learning_assets.defs.opening import DEMO_BOOK
from learning_assets.defs.owners import owners_of
from learning_assets.defs.plans import chosen_plan
from learning_assets.defs.webhook import webhook_of
from learning_assets.errors import UserError
from learning_assets.store import books, events, server
from learning_assets.store.connection import Conn, connect, open_database
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import MAIN_BOOK, Settings, settings


def settings_of(book: str | None) -> Settings:
    """Where the book lives, main by default.

    Raises:
        UserError: for a name or an address that cannot be one.
    """
    return settings(os.environ, MAIN_BOOK if book is None else book)


def check_variables() -> None:
    """Nothing, when the variables that say how a book runs by itself can be understood.

    Raises:
        UserError: for the one that cannot.
    """
    chosen_plan(os.environ)
    webhook_of(os.environ)
    owners_of(os.environ)
    keep_days(os.environ.get(KEEP_VARIABLE))


def check_addresses(chosen: Settings) -> None:
    """Nothing, when the databases that the user named answer.

    Raises:
        UserError: for the one that does not.
    """
    named = {
        "LEARNING_DATABASE_URL": chosen.database_url,
        "LEARNING_DAGSTER_URL": chosen.dagster_url,
    }
    for name, url in named.items():
        if url is not None:
            open_database(url, name).close()


@contextmanager
def tables_up(chosen: Settings) -> Iterator[None]:
    """Have the database with the book's tables up; the embedded server only where it is that."""
    with server.running(chosen) if chosen.database_url is None else nullcontext():
        yield


@contextmanager
def existing_book(chosen: Settings) -> Iterator[Conn]:
    """A connection to a book that has been used.

    Raises:
        UserError: where it has not; nothing is made then.
    """
    if not books.has_database(chosen):
        raise nothing_yet(chosen)
    with tables_up(chosen):
        if books.recorded_revision(chosen) is None:
            raise nothing_yet(chosen)
        migrate(chosen)
        with connect(chosen) as conn:
            yield conn


def nothing_yet(chosen: Settings) -> UserError:
    """The book was never used."""
    is_main = chosen.book == MAIN_BOOK
    book = "" if is_main else f" --book {chosen.book}"
    return UserError(
        f"the book {chosen.book} holds nothing yet: fill it with `learning run{book} --trades PATH`"
        + (f"; the simulated market is another one, `--book {DEMO_BOOK}`" if is_main else "")
    )


def reset(
    book: BookOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Empty a book: trades, lessons, overrides and its memory of sources."""
    chosen = settings_of(book)
    with existing_book(chosen) as conn:
        n = books.size(conn).n_trades
        question = f"Delete all {n:,} trades of the book {chosen.book} and what was learned?"
        if not yes and not typer.confirm(question, err=True):
            terminal(to_stderr=True).print("nothing was deleted")
            return
        events.reset(conn)
    terminal(to_stderr=True).print(f"the book {chosen.book} is empty; Dagster's history is kept")
