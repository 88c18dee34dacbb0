from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from frames import events_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learning_assets.core.records import Action, ClosedTrade, DayOutcome, Reason, RejectedRow
from learning_assets.store import events, ingestion
from learning_assets.store.connection import Conn, connect
from learning_assets.store.event_lines import trade_lines
from learning_assets.store.settings import Settings
from learning_assets.store.tables import TABLES

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
FIRST, LAST = date(2024, 3, 1), date(2024, 3, 9)
LATER = datetime(2030, 1, 1, tzinfo=UTC)

Row = ClosedTrade | RejectedRow


def _trade(
    trade_id: str = "t1",
    rr: float = 1.0,
    version: int | None = None,
    day: int = 0,
    actions: int = 2,
) -> ClosedTrade:
    return ClosedTrade(
        trade_id=trade_id,
        rr=rr,
        closed_at=NOON + timedelta(days=day),
        actions=tuple(
            Action(f"a{i}", "pm", "pm.uptrend.S1.buy_flag", "entry", {"chain": "base", "i": str(i)})
            for i in range(actions)
        ),
        opened_at=NOON - timedelta(hours=6),
        version=None if version is None else NOON + timedelta(minutes=version),
    )


def _rejected(trade_id: str | None = "t1", row_id: str = "r1", day: int | None = 0) -> RejectedRow:
    closed_at = None if day is None else NOON + timedelta(days=day)
    return RejectedRow(row_id, Reason.BAD_RR, "rr is abc", {"rr": "abc"}, trade_id, closed_at)


def _digest(trade: ClosedTrade) -> str:
    return trade_lines(trade, "strands").digest


def _ingest(conn: Conn, *rows: Row, complete: bool = False) -> ingestion.IngestResult:
    return ingestion.ingest(conn, "strands", FIRST, LAST, rows, complete=complete)


def test_the_outcome_of_a_day_counts_each_trade_once(conn: Conn) -> None:
    _ingest(
        conn, _trade("t1", 1.0, actions=3), _trade("t2", -0.5, actions=1), _trade("t3", 2.0, day=3)
    )
    first = DayOutcome(FIRST, 2, 0.25)
    newest = DayOutcome(date(2024, 3, 4), 1, 2.0)
    assert events.day_outcomes(conn, 365) == [first, newest]
    assert events.day_outcomes(conn, 4) == [first, newest]
    assert events.day_outcomes(conn, 3) == [newest]


def test_without_events_there_is_no_day(conn: Conn) -> None:
    assert events.day_outcomes(conn, 365) == []


def _stored(conn: Conn) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """What the tables hold, bookkeeping left out."""
    kept = conn.execute(
        "SELECT event_id, trade_id, module, pattern_key, action_category, scope, rr, closed_at, "
        "opened_at, pnl_usd, payback_hours, hold_hours FROM pattern_trade_events ORDER BY event_id"
    ).fetchall()
    rejected = conn.execute(
        "SELECT row_id, trade_id, reason, detail, payload, closed_at FROM rejected_strands "
        "ORDER BY row_id"
    ).fetchall()
    return kept, rejected


def _outcomes(conn: Conn) -> dict[str, float]:
    return dict(conn.execute("SELECT DISTINCT trade_id, rr FROM pattern_trade_events").fetchall())


def test_a_trade_becomes_one_event_per_action(conn: Conn) -> None:
    result = _ingest(conn, _trade()._replace(pnl_usd=12.5, payback_hours=math.nan), _trade("t2"))
    assert result == ingestion.IngestResult(2, 4, 0, 0, 0, 0, {})
    frame = events_frame(conn, LATER)
    assert list(frame["event_id"]) == ["t1:a0", "t1:a1", "t2:a0", "t2:a1"]
    row = frame.iloc[0]
    assert row["scope"] == {"chain": "base", "i": "0"}
    assert (row["rr"], row["pnl_usd"], row["hold_hours"]) == (1.0, 12.5, 6.0)
    assert row["closed_at"] == NOON
    assert row["source"] == "strands"
    assert math.isnan(row["payback_hours"])


def test_the_frame_has_its_columns_and_types_without_events(conn: Conn) -> None:
    empty = events_frame(conn, LATER)
    _ingest(conn, _trade())
    filled = events_frame(conn, LATER)
    assert len(empty) == 0
    assert list(empty.columns) == list(filled.columns)
    for column in ("rr", "closed_at", "version", "payback_hours"):
        assert empty[column].dtype == filled[column].dtype


def test_the_frame_ends_before_as_of_and_is_sorted(conn: Conn) -> None:
    _ingest(conn, _trade("b", day=1), _trade("a", day=1), _trade("z"), _trade("y", day=2))
    frame = events_frame(conn, NOON + timedelta(days=2))
    assert list(frame["trade_id"].unique()) == ["z", "a", "b"]
    later = events_frame(conn, LATER, since=NOON + timedelta(days=1))
    assert list(later["trade_id"].unique()) == ["a", "b", "y"]


def test_ingesting_again_changes_nothing(conn: Conn) -> None:
    rows = [_trade(), _trade("t2", version=1), _rejected("t3"), _rejected(None, "r2", None)]
    _ingest(conn, *rows)
    tables = ("pattern_trade_events", "rejected_strands")
    before = [conn.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]
    again = _ingest(conn, *rows, complete=True)
    assert [conn.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables] == (
        before
    )
    assert again == ingestion.IngestResult(2, 4, 2, 0, 0, 0, {Reason.BAD_RR: 2})


def test_a_correction_replaces_all_events_of_the_trade(conn: Conn) -> None:
    _ingest(conn, _trade(actions=3), _trade("t2"))
    result = _ingest(conn, _trade(rr=-1.0, actions=1))
    assert (result.replaced, result.unchanged, result.events) == (1, 0, 1)
    assert _outcomes(conn) == {"t1": -1.0, "t2": 1.0}
    assert len(events_frame(conn, LATER)) == 3


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("versions", "winner"),
    [
        ((1, 2), 2),
        ((2, 1), 1),
        ((1, 1), 2),
        ((None, None), 2),
        ((2, None), 2),
        ((None, 1), 2),
        ((2, None, 1), 3),
        ((2, 1, 3), 3),
        ((3, 1, 2), 1),
    ],
)
def test_the_higher_version_wins_else_the_last(
    conn: Conn, versions: Sequence[int | None], winner: int, apart: bool
) -> None:
    rows = [_trade(rr=float(i), version=v) for i, v in enumerate(versions, start=1)]
    for batch in [[row] for row in rows] if apart else [rows]:
        _ingest(conn, *batch)
    assert _outcomes(conn) == {"t1": float(winner)}


def test_a_newer_version_counts_though_its_content_is_the_same(conn: Conn) -> None:
    _ingest(conn, _trade(version=1))
    assert _ingest(conn, _trade(version=3)).unchanged == 1
    assert _ingest(conn, _trade(rr=2.0, version=2)).outdated == 1
    assert _outcomes(conn) == {"t1": 1.0}


def test_a_rejected_row_takes_the_trade_away_and_a_fine_one_brings_it_back(conn: Conn) -> None:
    _ingest(conn, _trade(version=2))
    assert _ingest(conn, _rejected()).removed == 1
    assert _outcomes(conn) == {}
    assert events.rejected_counts(conn) == {Reason.BAD_RR: 1}
    assert _ingest(conn, _trade(rr=9.0, version=1)).outdated == 1  # late, from before
    assert _outcomes(conn) == {}
    _ingest(conn, _trade(rr=3.0, version=3))
    assert _outcomes(conn) == {"t1": 3.0}
    assert events.rejected_counts(conn) == {}


def test_order_decides_inside_one_ingestion_too(conn: Conn) -> None:
    result = _ingest(conn, _rejected("t1"), _trade("t1"), _trade("t2"), _rejected("t2", "r2"))
    assert _outcomes(conn) == {"t1": 1.0}
    assert result.rejected == {Reason.BAD_RR: 1} == events.rejected_counts(conn)
    assert (result.trades, result.outdated) == (2, 1)


def test_a_row_without_a_trade_is_kept_once(conn: Conn) -> None:
    for detail in ("first", "second"):
        _ingest(conn, _rejected(None)._replace(detail=detail))
    assert conn.execute("SELECT row_id, detail FROM rejected_strands").fetchall() == [
        ("r1", "second")
    ]


def test_a_trade_without_actions_is_not_lost(conn: Conn) -> None:
    assert _ingest(conn, _trade(actions=0)).rejected == {Reason.NO_ACTIONS: 1}
    assert events.rejected_counts(conn) == {Reason.NO_ACTIONS: 1}


def test_a_trade_whose_closing_day_moved_is_on_the_new_day_only(conn: Conn) -> None:
    one, two = FIRST, FIRST + timedelta(days=1)
    for windows in ([one, two], [two, one]):
        events.reset(conn)
        ingestion.ingest(conn, "strands", one, one, [_trade(version=1)], complete=True)
        for day in windows:
            rows = [_trade(version=2, day=1)] if day == two else []
            ingestion.ingest(conn, "strands", day, day, rows, complete=True)
        assert events.days(conn) == [two]
        assert len(events_frame(conn, LATER)) == 2


def test_what_a_live_source_no_longer_yields_goes(conn: Conn) -> None:
    outside = FIRST + timedelta(days=5)
    _ingest(conn, _trade("gone"), _trade("kept"), _rejected(None, "r1"), _rejected(None, "r2"))
    ingestion.ingest(conn, "file.csv", FIRST, LAST, [_trade("other"), _rejected("x", "r3")])
    ingestion.ingest(conn, "strands", outside, outside, [_trade("outside", day=5)])
    result = ingestion.ingest(
        conn, "strands", FIRST, FIRST, [_trade("kept"), _rejected(None, "r2")], complete=True
    )
    assert result.removed == 1
    assert set(_outcomes(conn)) == {"kept", "other", "outside"}
    assert {row[0] for row in _stored(conn)[1]} == {"r2", "r3"}


def test_files_add_up(conn: Conn) -> None:
    ingestion.ingest(conn, "a.json", FIRST, LAST, [_trade("t1"), _trade("both")])
    result = ingestion.ingest(conn, "b.json", FIRST, LAST, [_trade("t2"), _trade("both")])
    assert (result.trades, result.unchanged, result.removed) == (2, 1, 0)
    assert set(_outcomes(conn)) == {"t1", "t2", "both"}


def test_what_postgresql_cannot_store_does_not_stop_it(conn: Conn) -> None:
    odd = {"a\x00b": float("inf"), "when": NOON, "n": [float("nan"), "\ud800"]}
    row = _rejected()._replace(payload=odd, detail="nul \x00 here")
    _ingest(conn, row, _trade("t\x002")._replace(actions=_trade().actions))
    payload = conn.execute("SELECT payload FROM rejected_strands").fetchone()
    assert payload == ({"a�b": "Infinity", "when": str(NOON), "n": [None, "?"]},)
    assert set(_outcomes(conn)) == {"t�2"}


def test_a_source_that_breaks_off_leaves_nothing(conn: Conn) -> None:
    def broken() -> Iterable[Row]:
        yield _trade()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        ingestion.ingest(conn, "strands", FIRST, LAST, broken())
    assert _stored(conn) == ([], [])
    assert _ingest(conn, _trade()).trades == 1


def test_several_ingestions_can_be_one_transaction(conn: Conn) -> None:
    with conn.transaction(force_rollback=True):
        _ingest(conn, _trade())
        assert _ingest(conn, _trade("t2")).trades == 1
        assert set(_outcomes(conn)) == {"t1", "t2"}
    assert _stored(conn) == ([], [])


def test_more_rows_than_a_batch(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingestion, "BATCH_ROWS", 3)
    result = _ingest(conn, *(_trade(f"t{i % 7}", rr=float(i)) for i in range(20)))
    assert result.trades == 7
    assert _outcomes(conn) == {f"t{i % 7}": float(i) for i in range(20)}


def test_a_source_that_breaks_off_while_a_batch_is_written_leaves_nothing(
    conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "BATCH_ROWS", 30)

    def broken() -> Iterable[Row]:
        yield from (_trade(f"t{i}") for i in range(35))
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        ingestion.ingest(conn, "strands", FIRST, LAST, broken())
    assert _stored(conn) == ([], [])
    assert _ingest(conn, _trade()).trades == 1


def test_looking_up_by_index_ends_with_the_batches(conn: Conn) -> None:
    with conn.transaction(force_rollback=True):
        _ingest(conn, _trade())
        assert conn.execute("SHOW enable_seqscan").fetchone() == ("on",)


def test_the_digest_is_of_content_before_as_of(conn: Conn) -> None:
    empty = events.events_digest(conn, LATER)
    _ingest(conn, _trade("a"), _trade("b", day=3))
    both = events.events_digest(conn, LATER)
    early = events.events_digest(conn, NOON + timedelta(days=1))
    assert len({empty, both, early}) == 3
    _ingest(conn, _trade("b", version=9, day=3), _trade("a"))
    assert events.events_digest(conn, LATER) == both
    _ingest(conn, _trade("b", rr=0.5, day=3))
    assert events.events_digest(conn, LATER) != both
    assert events.events_digest(conn, NOON + timedelta(days=1)) == early


@pytest.mark.parametrize(
    "change",
    [
        {"rr": 0.5},
        {"closed_at": NOON + timedelta(seconds=1)},
        {"opened_at": None},
        {"pnl_usd": 1.0},
        {"payback_hours": 2.0},
        {"actions": ()},
        {"actions": _trade(actions=1).actions},
        {"trade_id": "t2"},
    ],
)
def test_every_part_of_a_trade_is_in_its_digest(change: Mapping[str, object]) -> None:
    changed = _trade()._replace(**change)  # type: ignore[arg-type]
    assert _digest(changed) != _digest(_trade())


def test_version_and_order_of_actions_are_not_in_the_digest() -> None:
    trade = _trade()
    other = trade._replace(version=NOON, actions=trade.actions[::-1])
    assert _digest(other) == _digest(trade)


def test_days_are_utc(conn: Conn) -> None:
    late = _trade()._replace(closed_at=datetime(2024, 3, 1, 23, 59, 59, tzinfo=UTC))
    _ingest(conn, late, _trade("t2", day=2))
    assert events.days(conn) == [date(2024, 3, 1), date(2024, 3, 3)]


def test_reset_empties_every_table(conn: Conn, book: Settings) -> None:
    _ingest(conn, _trade(), _rejected("t2"))
    conn.execute("INSERT INTO learning_state VALUES ('pm', '', now(), 1, 1, '{}')")
    events.reset(conn)
    for table in TABLES:
        assert conn.execute(f"SELECT count(*) FROM {table.name}").fetchone() == (0,)


# -- properties ------------------------------------------------------------------------------

_few = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_ids = st.sampled_from(["t1", "t2", "t3"])
_trades = st.builds(
    _trade,
    trade_id=_ids,
    rr=st.sampled_from([-1.0, 0.5, 2.0]),
    version=st.none() | st.integers(0, 3),
    day=st.integers(0, 2),
    actions=st.integers(0, 3),
)
_rejects = st.builds(
    _rejected,
    trade_id=st.none() | _ids,
    row_id=st.sampled_from(["r1", "r2", "r3"]),
    day=st.none() | st.integers(0, 2),
)
_rows = st.lists(st.one_of(_trades, _trades, _rejects), max_size=8)


def _by_hand(rows: Iterable[Row]) -> tuple[dict[str, ClosedTrade], dict[str, Row]]:
    """One row after the other, in plain Python: the twin of the set-based statements."""
    trades: dict[str, ClosedTrade] = {}
    rejected: dict[str, Row] = {}
    floors: dict[str, datetime | None] = {}
    for row in rows:
        if isinstance(row, RejectedRow) or not row.actions:
            rejected[row.row_id if isinstance(row, RejectedRow) else row.trade_id] = row
            if row.trade_id is not None:
                trades.pop(row.trade_id, None)
            continue
        floor = floors.get(row.trade_id)
        if row.version is not None and floor is not None and row.version < floor:
            continue
        trades[row.trade_id], floors[row.trade_id] = row, row.version
        rejected = {key: r for key, r in rejected.items() if r.trade_id != row.trade_id}
    return trades, rejected


def _named(rows: Iterable[Row]) -> list[Row]:
    """The rows, each name of one trade only, as in every source."""
    return [
        row._replace(row_id=f"{row.row_id}/{row.trade_id}") if isinstance(row, RejectedRow) else row
        for row in rows
    ]


def _seen(conn: Conn) -> tuple[dict[str, tuple[float, datetime, int]], dict[str, str | None]]:
    query = "SELECT trade_id, rr, closed_at, count(*) FROM pattern_trade_events GROUP BY 1, 2, 3"
    trades = {key: (rr, closed, n) for key, rr, closed, n in conn.execute(query)}
    rejected = conn.execute("SELECT row_id, trade_id FROM rejected_strands").fetchall()
    return trades, dict(rejected)


def _cut(rows: Sequence[Row], cuts: Iterable[int]) -> list[Sequence[Row]]:
    edges = [0, *sorted(cuts), len(rows)]
    return [rows[a:b] for a, b in itertools.pairwise(edges)]


@_few
@given(rows=_rows, cuts=st.lists(st.integers(0, 8), max_size=3))
def test_however_cut_into_batches_it_ends_as_row_by_row(
    conn: Conn, rows: list[Row], cuts: list[int]
) -> None:
    rows = _named(rows)
    events.reset(conn)
    for batch in _cut(rows, cuts):
        _ingest(conn, *batch)
    trades, rejected = _by_hand(rows)
    assert _seen(conn) == (
        {key: (t.rr, t.closed_at, len(t.actions)) for key, t in trades.items()},
        {key: row.trade_id for key, row in rejected.items()},
    )


@_few
@given(before=_rows, rows=_rows, size=st.integers(1, 4), complete=st.booleans())
def test_the_size_of_a_batch_changes_nothing(
    conn: Conn, before: list[Row], rows: list[Row], size: int, complete: bool
) -> None:
    found = []
    for n in (1_000, size):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ingestion, "BATCH_ROWS", n)
            patch.setattr(ingestion, "ROWS_PER_PAUSE", 1)
            events.reset(conn)
            _ingest(conn, *_named(before))
            result = _ingest(conn, *_named(rows), complete=complete)
        days = conn.execute("SELECT * FROM event_days ORDER BY day").fetchall()
        found.append((result, _stored(conn), days))
    assert found[0] == found[1]


def _history(pieces: Sequence[tuple[str, float, int, int]]) -> list[ClosedTrade]:
    """Corrections of trades with a version each, in order."""
    return [
        _trade(trade_id, rr, version=i, day=day, actions=actions)
        for i, (trade_id, rr, day, actions) in enumerate(pieces)
    ]


_pieces = st.tuples(_ids, st.sampled_from([-1.0, 0.5, 2.0]), st.integers(0, 2), st.integers(1, 3))


@_few
@given(
    history=st.lists(_pieces, max_size=7).map(_history),
    data=st.data(),
    cuts=st.lists(st.integers(0, 14), max_size=3),
)
def test_twice_late_or_out_of_order_ends_as_once_in_order(
    conn: Conn, history: list[ClosedTrade], data: st.DataObject, cuts: list[int]
) -> None:
    events.reset(conn)
    _ingest(conn, *history)
    once = _stored(conn)
    digest = events.events_digest(conn, LATER)
    events.reset(conn)
    again = data.draw(st.lists(st.sampled_from(history), max_size=5)) if history else []
    for batch in _cut(data.draw(st.permutations(history + again)), cuts):
        _ingest(conn, *batch)
    assert _stored(conn) == once
    assert events.events_digest(conn, LATER) == digest


@_few
@given(
    states=st.lists(
        st.dictionaries(_ids, st.one_of(_trades, _rejects), max_size=3), min_size=1, max_size=3
    )
)
def test_a_live_source_read_day_by_day_ends_as_read_once(
    conn: Conn, states: list[dict[str, Row]]
) -> None:
    """Whatever was there before, reading every day of a source in any order gives its state."""
    sources = [
        [
            row._replace(trade_id=key, version=NOON + timedelta(hours=i))
            if isinstance(row, ClosedTrade)
            else row._replace(trade_id=key, row_id=f"row of {key}")
            for key, row in state.items()
        ]
        for i, state in enumerate(states)
    ]
    events.reset(conn)
    for rows in sources:
        _read_day_by_day(conn, rows)
    stepwise = _stored(conn)
    events.reset(conn)
    _ingest(conn, *sources[-1], complete=True)
    assert stepwise == _stored(conn)


def _read_day_by_day(conn: Conn, rows: Sequence[Row]) -> None:
    for offset in (2, 0, 1):
        day = FIRST + timedelta(days=offset)
        of_day = [row for row in rows if row.closed_at is None or row.closed_at.date() == day]
        ingestion.ingest(conn, "strands", day, day, of_day, complete=True)


def test_two_ingestions_at_once_wait_for_each_other(book: Settings) -> None:
    with connect(book) as one, connect(book) as two:
        two.execute("SET lock_timeout = '50ms'")
        with one.transaction():
            _ingest(one, _trade())
            with pytest.raises(Exception, match="lock timeout"):
                _ingest(two, _trade("t2"))
        _ingest(two, _trade("t2"))
        assert set(_outcomes(one)) == {"t1", "t2"}


@pytest.mark.parametrize("statement", ["_DELETE_GONE", "_FORGET_REJECTED_GONE"])
def test_what_is_gone_is_found_without_comparing_each_with_each(conn: Conn, statement: str) -> None:
    window = {"source": "x", "first": datetime(2026, 1, 1, tzinfo=UTC), "end": datetime.now(UTC)}
    with conn.transaction():
        conn.execute(ingestion._SEEN)
        plan = conn.execute(f"EXPLAIN {getattr(ingestion, statement)}", window).fetchall()
    # A list that is compared row by row is a sub-plan; a join is none.
    assert "Anti Join" in str(plan)
    assert "SubPlan" not in str(plan)
