"""Days of events as columns: what a naive reading of all rows gives, without reading them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from frames import events_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.records import Action, ClosedTrade, Reason, RejectedRow
from learning_assets.errors import UserError
from learning_assets.store import columns, events, ingestion
from learning_assets.store.columns import event_table
from learning_assets.store.connection import Conn, connect
from learning_assets.store.settings import Settings

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
FIRST, LAST = date(2024, 2, 1), date(2024, 4, 30)
LATER = datetime(2030, 1, 1, tzinfo=UTC)

STRANGE = [
    "plain", "with, comma", 'a "quote"', "back\\slash", "new\nline", "tab\there", "\\N", "NULL",
    "null", "", " ", "été", "émoji 🦊", "0", "1.5", "true", "nan", "a=b|c", "'", "\r\n", "{}", "∑",
]  # fmt: skip
WORDS = st.sampled_from([word for word in STRANGE if word.strip()])
NAMES = st.sampled_from(["chain", "a.b", 'od"d', "été", "scope.x", "100%", "{}", "new\nline", "%s"])
TRADES = st.builds(
    lambda name, hours, rr, scopes, key, category, payback: ClosedTrade(
        trade_id=name,
        rr=rr,
        closed_at=NOON + timedelta(hours=hours, microseconds=hours * 7),
        actions=tuple(
            Action(f"a{k}", "pm", key, category, scope) for k, scope in enumerate(scopes)
        ),
        opened_at=NOON - timedelta(hours=100) if hours % 2 else None,
        payback_hours=payback,
    ),
    st.sampled_from([f"t{k}" for k in range(12)] + STRANGE[:9] + ["Z", "a", "Ä"]),
    st.integers(-48, 200),
    st.floats(-33, 33, allow_nan=False),
    st.lists(st.dictionaries(NAMES, WORDS, max_size=4), min_size=1, max_size=3),
    st.sampled_from(["pm.a.S1.x", "pm.b.S1.y"]),
    st.sampled_from(["entry", "add", "exit"]),
    st.none() | st.floats(0, 1e6),
)
REJECTED = st.builds(
    lambda name: RejectedRow(f"r{name}", Reason.BAD_RR, "rr is abc", {}, name, NOON),
    st.sampled_from([f"t{k}" for k in range(12)]),
)
SOME = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def trade(name: str, day: int = 0, rr: float = 1.0, **scope: str) -> ClosedTrade:
    action = Action("a", "pm", "pm.a.S1.x", "entry", scope or {"chain": "base"})
    return ClosedTrade(name, rr, NOON + timedelta(days=day), (action,))


def ingest(conn: Conn, *rows: ClosedTrade | RejectedRow, complete: bool = False) -> None:
    ingestion.ingest(conn, "strands", FIRST, LAST, rows, complete=complete)


def assert_same(one: EventTable, other: EventTable) -> None:
    for field in fields(EventTable):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            assert field.name == "codes" or a.dtype == b.dtype, field.name
        else:
            assert a == b, field.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "columns"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[date]:
    """The days that are read from the database."""
    seen: list[date] = []
    real: Callable[..., Any] = columns._read

    def read(conn: Conn, batch: Any) -> Any:
        seen.extend(day.day for day in batch)
        return real(conn, batch)

    monkeypatch.setattr(columns, "_read", read)
    return seen


@SOME
@given(
    st.lists(st.lists(TRADES | REJECTED, max_size=12), min_size=1, max_size=3),
    st.integers(-60, 220),
    st.none() | st.integers(-80, 150),
    st.booleans(),
)
def test_columns_are_what_a_frame_of_all_rows_gives(
    conn: Conn,
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[ClosedTrade | RejectedRow]],
    before: int,
    since: int | None,
    complete: bool,
) -> None:
    folder = tmp_path_factory.mktemp("columns")
    events.reset(conn)
    for batch in batches:
        ingest(conn, *batch, complete=complete)
        end = NOON + timedelta(hours=before)
        start = None if since is None else NOON + timedelta(hours=since)
        expected = from_frame(events_frame(conn, end, start))
        for _ in range(2):
            assert_same(event_table(conn, folder, end, start), expected)
        assert_same(event_table(conn, None, LATER), from_frame(events_frame(conn, LATER)))


def test_no_events_give_an_empty_table(conn: Conn, folder: Path) -> None:
    assert_same(event_table(conn, folder, LATER), from_frame(events_frame(conn, LATER)))


def test_what_has_not_changed_is_not_read_again(
    conn: Conn, folder: Path, reads: list[date]
) -> None:
    ingest(conn, trade("t1"), trade("t2", 1), trade("t3", 2))
    event_table(conn, folder, LATER)
    assert len(reads) == 3
    reads.clear()
    event_table(conn, folder, LATER)
    event_table(conn, folder, NOON + timedelta(days=1, hours=1), NOON)
    assert reads == []
    ingest(conn, trade("t4", 2), trade("t2", 1))
    assert_same(event_table(conn, folder, LATER), from_frame(events_frame(conn, LATER)))
    assert reads == [date(2024, 3, 3)]
    assert len(list(folder.iterdir())) == 3


def test_a_trade_that_moves_to_another_day_is_read_where_it_was_and_is(
    conn: Conn, folder: Path, reads: list[date]
) -> None:
    ingest(conn, trade("t1"), trade("t2"), trade("t3", 5))
    event_table(conn, folder, LATER)
    reads.clear()
    ingest(conn, trade("t1", 2))
    assert_same(event_table(conn, folder, LATER), from_frame(events_frame(conn, LATER)))
    assert reads == [date(2024, 3, 1), date(2024, 3, 3)]


def test_many_days_are_read_in_parts(
    conn: Conn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_EVENTS_AT_ONCE", 3)
    ingest(conn, *(trade(f"t{k}", k % 7, chain=f"c{k}") for k in range(20)))
    assert_same(event_table(conn, folder, LATER), from_frame(events_frame(conn, LATER)))


@pytest.mark.parametrize("content", [b"", b"ARROW1 and then nothing", b"\x00" * 4096])
def test_a_damaged_file_is_made_anew(
    conn: Conn, folder: Path, reads: list[date], content: bytes
) -> None:
    ingest(conn, trade("t1"), trade("t2", 1))
    event_table(conn, folder, LATER)
    [first, second] = sorted(folder.iterdir())
    whole = first.read_bytes()
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-40])
    reads.clear()
    assert_same(event_table(conn, folder, LATER), from_frame(events_frame(conn, LATER)))
    assert len(reads) == 2
    assert first.read_bytes() == whole


def test_a_file_with_one_wrong_bit_is_made_anew(
    conn: Conn, folder: Path, reads: list[date]
) -> None:
    ingest(conn, trade("t1"))
    event_table(conn, folder, LATER)
    [file] = folder.iterdir()
    whole = file.read_bytes()
    for at in range(0, len(whole), 97):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        reads.clear()
        assert_same(event_table(conn, folder, LATER), from_frame(events_frame(conn, LATER)))
        assert len(reads) == 1
        assert file.read_bytes() == whole


def test_more_dimensions_than_can_be_read_at_once(
    conn: Conn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(conn, trade("t1", 0, a="1", b="1"), trade("t2", 1, c="1", d="1"))
    monkeypatch.setattr(columns, "_MOST_DIMS", 2)
    assert_same(event_table(conn, folder, LATER), from_frame(events_frame(conn, LATER)))
    monkeypatch.setattr(columns, "_MOST_DIMS", 1)
    with pytest.raises(UserError, match="on 2024-03-01 have 2 scope dimensions, more than 1"):
        event_table(conn, None, LATER)


def test_a_folder_that_cannot_be_written_only_costs_time(
    conn: Conn, tmp_path: Path, reads: list[date], caplog: pytest.LogCaptureFixture
) -> None:
    ingest(conn, trade("t1"), trade("t2", 1))
    (tmp_path / "taken").write_text("a file, no folder")
    for _ in range(2):
        found = event_table(conn, tmp_path / "taken", LATER)
        assert_same(found, from_frame(events_frame(conn, LATER)))
    assert len(reads) == 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_inside_a_transaction_events_are_not_read(conn: Conn) -> None:
    with conn.transaction(), pytest.raises(RuntimeError, match="transaction of their own"):
        event_table(conn, None, LATER)


def test_two_read_at_once(book: Settings, conn: Conn, folder: Path) -> None:
    ingest(conn, *(trade(f"t{k}", k % 7, chain=f"c{k % 3}") for k in range(50)))
    expected, found = from_frame(events_frame(conn, LATER)), []

    def read() -> None:
        with connect(book) as own:
            found.append(event_table(own, folder, LATER))

    threads = [Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for table in found:
        assert_same(table, expected)


NAIVE_DAYS = """
SELECT (closed_at AT TIME ZONE 'UTC')::date AS day, count(DISTINCT trade_id), count(*)
FROM pattern_trade_events GROUP BY 1 ORDER BY 1
"""


@SOME
@given(st.lists(st.lists(TRADES | REJECTED, max_size=10), min_size=1, max_size=4), st.booleans())
def test_days_are_those_of_the_rows_and_their_digests_follow_the_content(
    conn: Conn, batches: list[list[ClosedTrade | RejectedRow]], complete: bool
) -> None:
    events.reset(conn)
    for batch in batches:
        ingest(conn, *batch, complete=complete)
        kept = conn.execute("SELECT day, n_trades, n_events FROM event_days ORDER BY day")
        assert kept.fetchall() == conn.execute(NAIVE_DAYS).fetchall()
    stored = "SELECT day, digest, round(mean_rr::numeric, 12) FROM event_days ORDER BY day"
    rows = conn.execute(stored).fetchall()
    conn.execute("DELETE FROM event_days")
    conn.execute(events.FILL_DAYS)
    assert conn.execute(stored).fetchall() == rows
