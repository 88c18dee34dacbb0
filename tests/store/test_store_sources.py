from __future__ import annotations

from learning_assets.store.connection import Conn
from learning_assets.store.sources import (
    BookSource,
    book_sources,
    current_source,
    remember_source,
)

STRANDS = BookSource("strands", "ad_strands")
FILE = BookSource("files", "/data/trades.csv", {"risk": 0.05})


def test_a_book_remembers_its_sources_and_reads_the_newest(conn: Conn) -> None:
    assert current_source(conn) is None
    remember_source(conn, STRANDS)
    remember_source(conn, FILE)
    assert current_source(conn) == FILE
    assert book_sources(conn) == [FILE, STRANDS]


def test_a_source_that_is_added_again_is_one_source_with_its_new_options(conn: Conn) -> None:
    changed = BookSource(FILE.kind, FILE.location, {"risk": 0.1})
    for source in (FILE, STRANDS, changed):
        remember_source(conn, source)
    assert current_source(conn) == changed
    assert book_sources(conn) == [changed, STRANDS]
