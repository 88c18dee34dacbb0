"""Dagster's storage of a book: dagster-postgres at the address that suits the book.

`learning` sets the address (DAGSTER_PG_URL). Whoever starts Dagster by hand has not: then the
book's database is started and prepared here, so that a plain `dagster dev` works too.
"""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack
from typing import Any

from dagster._serdes import ConfigurableClassData  # no public name for it
from dagster_postgres import DagsterPostgresStorage

from learning_assets.defs.resources import BOOK_VARIABLE
from learning_assets.errors import UserError
from learning_assets.store import server
from learning_assets.store.history import prepare_history
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import MAIN_BOOK, settings

ADDRESS_VARIABLE = "DAGSTER_PG_URL"

_held = ExitStack()
atexit.register(_held.close)


class BookStorage(DagsterPostgresStorage):
    """PostgreSQL storage that finds its address by itself."""

    @classmethod
    def config_type(cls) -> Any:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> BookStorage:
        """The storage of the book; ends the process with one sentence where there is none."""
        try:
            return cls(postgres_url=_address(), inst_data=inst_data)
        except UserError as error:
            raise SystemExit(f"learning: {error}") from None


def _address() -> str:
    given = os.environ.get(ADDRESS_VARIABLE)
    if not given:
        chosen = settings(os.environ, os.environ.get(BOOK_VARIABLE) or MAIN_BOOK)
        _held.enter_context(server.running(chosen))
        migrate(chosen)
        # The processes that this one starts inherit it.
        given = os.environ[ADDRESS_VARIABLE] = prepare_history(chosen)
    return given
