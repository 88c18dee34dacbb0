"""The market regime in force, as the source of a book and its events show it.

What follows from it is in `core.regime_weights`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from learning_assets.core.events import EventTable
from learning_assets.core.records import RegimeReading
from learning_assets.core.regimes import Regime, regime_in_force
from learning_assets.defs.opening import open_source
from learning_assets.defs.resources import BookResource
from learning_assets.errors import UserError
from learning_assets.store.connection import Conn
from learning_assets.store.sources import current_source


def regime_now(book: BookResource, conn: Conn, known: EventTable, as_of: datetime) -> Regime:
    """The regime at `as_of`; from the events alone where the source cannot be read."""
    reading, trouble = _reading(book, conn)
    found = regime_in_force(reading, known, book.config.regime_dims, as_of)
    return replace(found, whence=f"{found.whence}; {trouble}") if trouble else found


def _reading(book: BookResource, conn: Conn) -> tuple[RegimeReading | None, str]:
    """What the source reads, and why it cannot be asked."""
    remembered = current_source(conn)
    if remembered is None:
        return None, "the book has no source"
    try:
        return open_source(book.settings, remembered).regime(), ""
    except UserError as error:
        return None, f"the source cannot be read: {error}"
