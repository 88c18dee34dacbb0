"""The sources that a book remembers: all that were added, and the one that scheduled runs read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import to_jsonb
from learning_assets.store.tables import BOOK_SOURCES


@dataclass(frozen=True, slots=True)
class BookSource:
    """Where trades of a book come from: kind, path or name, and how to read it."""

    kind: str
    location: str
    options: Mapping[str, Any] = field(default_factory=dict)


def remember_source(conn: Conn, source: BookSource) -> None:
    """Add a source to the book and make it the one of scheduled runs, in one transaction."""
    with conn.transaction():
        table_lock(conn, BOOK_SOURCES.name)
        conn.execute("UPDATE book_sources SET is_current = false WHERE is_current")
        conn.execute(
            "INSERT INTO book_sources (kind, location, options, is_current) "
            "VALUES (%s, %s, %s, true) ON CONFLICT (kind, location) DO UPDATE "
            "SET options = excluded.options, added_at = now(), is_current = true",
            [source.kind, source.location, to_jsonb(source.options)],
        )


def current_source(conn: Conn) -> BookSource | None:
    """The source of scheduled runs, None where the book has no source yet."""
    return next(iter(_select(conn, "WHERE is_current")), None)


def book_sources(conn: Conn) -> list[BookSource]:
    """All sources of the book, the one added last first."""
    return _select(conn, "ORDER BY added_at DESC, kind, location")


def _select(conn: Conn, clause: str) -> list[BookSource]:
    rows = conn.execute(f"SELECT kind, location, options FROM book_sources {clause}")
    return [BookSource(*row) for row in rows]
