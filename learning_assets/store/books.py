"""Whether a book exists and how much it holds, without making anything.

What is in the rows is the business of the module of each table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from learning_assets.store import migrations
from learning_assets.store.connection import Conn, connect
from learning_assets.store.settings import Settings


@dataclass(frozen=True, slots=True)
class BookSize:
    """How much a book holds: distinct trades, events (actions), and the newest closing time."""

    n_trades: int
    n_events: int
    newest_closed_at: datetime | None


def has_database(settings: Settings) -> bool:
    """Whether there is a database to ask: the user's own, or an embedded one made before."""
    return settings.database_url is not None or (settings.data_folder / "PG_VERSION").exists()


def recorded_revision(settings: Settings) -> str | None:
    """The revision of the book's tables, None where the book has none. The server must be up.

    Raises:
        UserError: where the database does not answer.
    """
    with connect(settings) as conn:
        return migrations.recorded_revision(conn)


def size(conn: Conn) -> BookSize:
    """How much the book holds."""
    row = conn.execute(
        "SELECT coalesce(sum(n_trades), 0), coalesce(sum(n_events), 0), "
        "(SELECT max(closed_at) FROM pattern_trade_events) FROM event_days"
    ).fetchone()
    assert row is not None
    return BookSize(*row)
