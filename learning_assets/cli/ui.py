"""`learning ui`: Dagster's web server and daemon on a book, until it is stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from learning_assets.cli.book import check_addresses, check_variables, settings_of, tables_up
from learning_assets.cli.output import BookOption, terminal
from learning_assets.defs.opening import DEMO_BOOK
from learning_assets.store import books
from learning_assets.store.settings import MAIN_BOOK, Settings


def ui(
    book: BookOption = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 3000,
) -> None:
    """Open the Dagster UI of a book on 127.0.0.1; Ctrl-C ends it."""
    check_variables()
    chosen = settings_of(book)
    check_addresses(chosen)
    if book is None and not _is_used(chosen):
        chosen = settings_of(DEMO_BOOK)
    from learning_assets.defs.launch import serve

    serve(chosen, port, terminal(to_stderr=True).print)


def _is_used(chosen: Settings) -> bool:
    assert chosen.book == MAIN_BOOK
    if not books.has_database(chosen):
        return False
    with tables_up(chosen):
        return books.recorded_revision(chosen) is not None
