"""Taking in: closed trades written into the book so that order and repetition do not matter.

What a row means was decided by its source; what is learned from it is the business of `core`.

For each trade the rows are gone through in order, the stored one first: a trade row takes over
unless its version is lower than that of the row before it (a missing version is never lower), a
rejected row always does. The unit is the trade: its events are replaced together, and only where
its content differs.

Rows are taken in by batches: while PostgreSQL writes one, the source makes the next. Since what an
earlier batch wrote is stored for a later one, it does not matter where they are cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import NamedTuple, TypeVar

from learning_assets.core.records import ClosedTrade, Reason, RejectedRow
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.event_lines import EVENT_COLUMNS, TradeLines, trade_lines
from learning_assets.store.events import DAY_ROWS
from learning_assets.store.rows import clean_text, copy_cell, copy_rows, copying, to_jsonb
from learning_assets.store.tables import PATTERN_TRADE_EVENTS

BATCH_ROWS = 2_000
ROWS_PER_PAUSE = 10
_LOOKED_UP_PER_MADE = 10  # trades that PostgreSQL looks up while one is made

Row = ClosedTrade | RejectedRow
_AnyRow = TypeVar("_AnyRow", ClosedTrade, RejectedRow)

_SEEN_COLUMNS = (
    "trade_id",
    "old_digest",
    "is_usable",
    "is_rejected",
    "digest",
    "n_events",
    "day",
    "rr",
)
_REJECTED_COLUMNS = (
    "row_id",
    "trade_id",
    "reason",
    "detail",
    "payload",
    "closed_at",
    "source",
    "version",
)

# What an ingestion has spoken of so far, and what came of it.
_SEEN = f"""
CREATE TEMP TABLE seen_trades (trade_id text PRIMARY KEY, old_digest text, is_usable boolean,
    is_rejected boolean, digest text, n_events integer, day date,
    rr double precision) ON COMMIT DROP;
CREATE TEMP TABLE seen_rejected (row_id text PRIMARY KEY) ON COMMIT DROP;
CREATE TEMP TABLE new_rejected ON COMMIT DROP AS
    SELECT {", ".join(_REJECTED_COLUMNS)} FROM rejected_strands WITH NO DATA;
"""
# Several ingestions may share one transaction, and then nothing is dropped by a commit.
_DROP_SEEN = "DROP TABLE seen_trades, seen_rejected, new_rejected"

# What is stored of the trades of a batch; those of which nothing is known are left out. Looked up
# one by one, by index: while a table grows in one transaction, nothing is known of its values.
_KNOWN = """
SELECT given.trade_id, stored.trade_digest, stored.version, stored.closed_at, kept.n, kept.version,
    seen.trade_id IS NOT NULL, seen.old_digest, seen.is_usable, seen.is_rejected, seen.digest,
    seen.n_events, seen.day, seen.rr
FROM unnest(%s::text[]) AS given (trade_id)
LEFT JOIN LATERAL (
    SELECT trade_digest, version, closed_at FROM pattern_trade_events
    WHERE trade_id = given.trade_id LIMIT 1) AS stored ON true
LEFT JOIN LATERAL (
    SELECT count(*) AS n, max(version) AS version FROM rejected_strands
    WHERE trade_id = given.trade_id) AS kept ON true
LEFT JOIN seen_trades AS seen ON seen.trade_id = given.trade_id
WHERE stored.trade_digest IS NOT NULL OR kept.n > 0 OR seen.trade_id IS NOT NULL
"""

_DELETE_EVENTS = "DELETE FROM pattern_trade_events WHERE trade_id = ANY(%s)"
_UPDATE_VERSIONS = """
UPDATE pattern_trade_events AS events SET version = given.version
FROM unnest(%s::text[], %s::timestamptz[]) AS given (trade_id, version)
WHERE events.trade_id = given.trade_id
"""
_FORGET_REJECTED = "DELETE FROM rejected_strands WHERE trade_id = ANY(%s)"
_FORGET_SEEN = "DELETE FROM seen_trades WHERE trade_id = ANY(%s)"
_SEE_REJECTED = """
INSERT INTO seen_rejected SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING
"""

_INSERT_REJECTED = f"""
INSERT INTO rejected_strands AS kept ({", ".join(_REJECTED_COLUMNS)})
    SELECT {", ".join(_REJECTED_COLUMNS)} FROM new_rejected
ON CONFLICT (row_id) DO UPDATE SET (trade_id, reason, detail, payload, closed_at, source, version)
    = (excluded.trade_id, excluded.reason, excluded.detail, excluded.payload, excluded.closed_at,
       excluded.source, excluded.version)
    WHERE (kept.trade_id, kept.reason, kept.detail, kept.payload, kept.closed_at, kept.source,
           kept.version)
        IS DISTINCT FROM
        (excluded.trade_id, excluded.reason, excluded.detail, excluded.payload,
         excluded.closed_at, excluded.source, excluded.version)
"""

_HOLDS_EVENTS = """
SELECT EXISTS (SELECT FROM pattern_trade_events
    WHERE closed_at >= %(first)s AND closed_at < %(end)s)
"""

# What the source no longer yields, where it yields everything of the window. (Not with NOT IN,
# which compares each with each once the list outgrows its memory.)
_DELETE_GONE = """
WITH gone AS (
    DELETE FROM pattern_trade_events AS events
    WHERE source = %(source)s AND closed_at >= %(first)s AND closed_at < %(end)s
        AND NOT EXISTS (SELECT FROM seen_trades AS seen WHERE seen.trade_id = events.trade_id)
    RETURNING trade_id, closed_at
)
SELECT (closed_at AT TIME ZONE 'UTC')::date, count(DISTINCT trade_id) FROM gone GROUP BY 1
"""
_FORGET_REJECTED_GONE = """
DELETE FROM rejected_strands AS kept
    WHERE source = %(source)s
        AND (closed_at IS NULL OR (closed_at >= %(first)s AND closed_at < %(end)s))
        AND NOT EXISTS (SELECT FROM seen_rejected AS seen WHERE seen.row_id = kept.row_id)
"""

# Of a day that had no events before, all are among those of this ingestion.
_FORGET_DAYS = "DELETE FROM event_days WHERE day = ANY(%s) RETURNING day"
_INSERT_NEW_DAYS = """
INSERT INTO event_days
    SELECT day, count(*), sum(n_events), md5(string_agg(digest, '' ORDER BY digest)), avg(rr)
    FROM seen_trades WHERE day = ANY(%s) GROUP BY day
"""
_CHANGED = """
    JOIN unnest(%s::date[]) AS changed (day)
        ON closed_at >= changed.day::timestamp AT TIME ZONE 'UTC'
        AND closed_at < (changed.day + 1)::timestamp AT TIME ZONE 'UTC'"""
_INSERT_CHANGED_DAYS = f"INSERT INTO event_days {DAY_ROWS.format(_CHANGED)}"

_COUNTS = """
SELECT count(*) FILTER (WHERE is_usable), coalesce(sum(n_events), 0),
    count(*) FILTER (WHERE digest = old_digest), count(*) FILTER (WHERE digest <> old_digest),
    count(*) FILTER (WHERE is_usable AND digest IS NULL),
    count(*) FILTER (WHERE is_rejected AND old_digest IS NOT NULL)
FROM seen_trades
"""
_REJECTED_COUNTS = """
SELECT reason, count(*) FROM rejected_strands JOIN seen_rejected USING (row_id)
GROUP BY reason ORDER BY reason
"""


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What an ingestion did, in distinct trades unless said otherwise.

    `trades` were yielded as usable; of these `unchanged` were stored already with this content,
    `replaced` with another; `outdated` lost to a higher version or to a later rejected row.
    `removed` stored trades are gone (rejected now, or no longer yielded). `events` counts the
    actions of the trades that stand, `rejected` the rows of each reason.
    """

    trades: int
    events: int
    unchanged: int
    replaced: int
    outdated: int
    removed: int
    rejected: dict[Reason, int] = field(default_factory=dict)


def ingest(
    conn: Conn, source: str, first: date, last: date, rows: Iterable[Row], *, complete: bool = False
) -> IngestResult:
    """Write what a source yields for the UTC days first … last, in one transaction.

    With `complete`, `rows` is all that the source has for these days: its stored trades and
    rejected rows of the window that are not among them are removed. A trade without actions is
    stored as rejected. `rows` may not use `conn`: they are made while it writes.
    """
    window = {"source": source, "first": _midnight(first), "end": _midnight(last, days=1)}
    with conn.transaction():
        table_lock(conn, PATTERN_TRADE_EVENTS.name)
        [(holds_events,)] = conn.execute(_HOLDS_EVENTS, window)
        conn.execute(_SEEN)
        taken = _Ingestion(conn, source)
        with _by_index(conn):
            _write_batches(taken, rows)
        n_gone = 0
        if complete:
            if holds_events:
                n_gone = taken.remove_gone(window)
            conn.execute(_FORGET_REJECTED_GONE, window)
        taken.renew_days()
        result = taken.result(n_gone)
        conn.execute(_DROP_SEEN)
    return result


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


def _midnight(day: date, days: int = 0) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(days=days)


@contextmanager
def _by_index(conn: Conn) -> Iterator[None]:
    conn.execute("SET LOCAL enable_seqscan = off")
    yield
    conn.execute("SET LOCAL enable_seqscan TO DEFAULT")


def _write_batches(taken: _Ingestion, rows: Iterable[Row]) -> None:
    """Write all rows; while PostgreSQL writes a batch, the next one is made.

    Both in one thread: two would take turns at the interpreter, which costs more than it brings.
    """
    usable = (_usable(row, taken.source) for row in rows)
    batch = list(islice(usable, BATCH_ROWS))
    while batch:
        coming = islice(usable, BATCH_ROWS)
        following: list[TradeLines | RejectedRow] = []
        with closing(taken.write(batch)) as pauses:
            for _ in pauses:
                following.extend(islice(coming, ROWS_PER_PAUSE))
        following.extend(coming)
        batch = following


def _usable(row: Row, source: str) -> TradeLines | RejectedRow:
    """What is to be written, under a name that PostgreSQL can hold."""
    if isinstance(row, RejectedRow):
        return _named(row)
    if row.actions:
        return trade_lines(_named(row), source)
    return _named(
        RejectedRow(
            row_id=row.trade_id,
            reason=Reason.NO_ACTIONS,
            detail="the trade has no actions",
            payload={"trade_id": row.trade_id, "rr": row.rr},
            trade_id=row.trade_id,
            closed_at=row.closed_at,
        )
    )


def _named(row: _AnyRow) -> _AnyRow:
    name = row.trade_id and clean_text(row.trade_id)
    return row if name == row.trade_id else row._replace(trade_id=name)


_Rejected = tuple[RejectedRow, datetime | None]
"""A rejected row, and the version of the events that it displaced."""


class _Seen(NamedTuple):
    """What this ingestion made of a trade: a row of `seen_trades` without its name."""

    old_digest: str | None
    is_usable: bool
    is_rejected: bool
    digest: str | None
    n_events: int | None
    day: date | None
    rr: float | None


_NOTHING = (None, None, None, None)


@dataclass(slots=True)
class _Trade:
    """A trade of a batch: what is stored of it, and what its rows have come to so far."""

    old_digest: str | None = None
    old_version: datetime | None = None
    old_closed_at: datetime | None = None
    seen: _Seen | None = None
    has_rejected: bool = False
    least_version: datetime | None = None
    is_usable: bool = False
    is_rejected: bool = False
    is_accepted: bool = False
    winner: TradeLines | None = None
    rejected: list[_Rejected] = field(default_factory=list)

    def accept(self, row: TradeLines) -> None:
        """Let the row take over, unless its version is too low."""
        self.is_usable = True
        too_low = row.version and self.least_version and row.version < self.least_version
        if too_low:
            return
        self.least_version = row.version
        self.winner, self.is_rejected, self.is_accepted = row, False, True
        self.rejected.clear()

    def reject(self, row: RejectedRow) -> None:
        """Let the row take the trade away."""
        self.winner, self.is_rejected = None, True
        self.rejected.append((row, self.least_version))

    @property
    def is_new(self) -> bool:
        """Whether there are events to be written."""
        return self.winner is not None and self.winner.digest != self.old_digest

    @property
    def falls(self) -> bool:
        """Whether the stored events have to go."""
        return self.old_digest is not None and (self.is_rejected or self.is_new)

    def outcome(self) -> _Seen:
        """What is to be remembered of it for the rest of the ingestion."""
        before = self.seen or _Seen(self.old_digest, False, False, *_NOTHING)
        is_usable = before.is_usable or self.is_usable
        if self.winner is not None:
            won = self.winner
            made = (won.digest, won.n_events, _day(won.closed_at), won.rr)
            return _Seen(before.old_digest, is_usable, False, *made)
        if self.is_rejected:
            return _Seen(before.old_digest, is_usable, True, *_NOTHING)
        return before._replace(is_usable=is_usable)


@dataclass(slots=True)
class _Ingestion:
    """One ingestion under way: batches are written in order, then what is gone, then the days."""

    conn: Conn
    source: str
    touched: set[date] = field(default_factory=set)

    def write(self, batch: Sequence[TradeLines | RejectedRow]) -> Generator[None]:
        """Write what a batch of rows changes, with pauses while PostgreSQL is at work."""
        names = dict.fromkeys(row.trade_id for row in batch if row.trade_id is not None)
        trades = yield from self._known(list(names))
        rejected = self._go_through(trades, batch)
        self._delete(_DELETE_EVENTS, (name for name, trade in trades.items() if trade.falls))
        new = [trade.winner for trade in trades.values() if trade.winner and trade.is_new]
        with copying(self.conn, PATTERN_TRADE_EVENTS.name, EVENT_COLUMNS) as copy:
            for first in range(0, len(new), ROWS_PER_PAUSE):
                copy.write("".join(trade.events for trade in new[first : first + ROWS_PER_PAUSE]))
                yield
        self._renew_versions(trades.values())
        self._keep_rejected(trades, rejected)
        self._delete(_FORGET_SEEN, (name for name, trade in trades.items() if trade.seen))
        with copying(self.conn, "seen_trades", _SEEN_COLUMNS) as copy:
            seen = ((name, *trade.outcome()) for name, trade in trades.items())
            copy.write("".join("\t".join(map(copy_cell, row)) + "\n" for row in seen))
        left = (trade.old_closed_at for trade in trades.values() if trade.falls)
        self.touched.update(_day(at) for at in left if at is not None)
        self.touched.update(_day(trade.closed_at) for trade in new)

    def _go_through(
        self, trades: Mapping[str, _Trade], batch: Sequence[TradeLines | RejectedRow]
    ) -> list[_Rejected]:
        """Tell the trades of their rows; the rejected rows that name no trade."""
        nameless: list[_Rejected] = []
        for row in batch:
            if isinstance(row, TradeLines):
                trades[row.trade_id].accept(row)
            elif row.trade_id is None:
                nameless.append((row, None))
            else:
                trades[row.trade_id].reject(row)
        names = [clean_text(row.row_id) for row in batch if isinstance(row, RejectedRow)]
        if names:
            self.conn.execute(_SEE_REJECTED, [names])
        return nameless

    def _known(self, names: list[str]) -> Generator[None, None, dict[str, _Trade]]:
        trades = {name: _Trade() for name in names}
        with self.conn.pipeline():
            asked = self.conn.execute(_KNOWN, [names])
            for _ in range(len(names) // ROWS_PER_PAUSE // _LOOKED_UP_PER_MADE):
                yield
            found = asked.fetchall()
        for row in found:
            name, digest, version, closed_at, n_rejected, rejected_version, is_seen, *seen = row
            least = [at for at in (version, rejected_version) if at is not None]
            trades[name] = _Trade(
                old_digest=digest,
                old_version=version,
                old_closed_at=closed_at,
                seen=_Seen(*seen) if is_seen else None,
                has_rejected=n_rejected > 0,
                least_version=max(least, default=None),
            )
        return trades

    def _delete(self, statement: str, of: Iterable[str]) -> None:
        if names := list(of):
            self.conn.execute(statement, [names])

    def _renew_versions(self, trades: Iterable[_Trade]) -> None:
        newer = [
            (trade.winner.trade_id, trade.winner.version)
            for trade in trades
            if trade.winner is not None
            and not trade.is_new
            and trade.winner.version != trade.old_version
        ]
        if newer:
            self.conn.execute(
                _UPDATE_VERSIONS, [list(column) for column in zip(*newer, strict=True)]
            )

    def _keep_rejected(self, trades: Mapping[str, _Trade], nameless: list[_Rejected]) -> None:
        """Forget the rejected rows of accepted trades, and keep those that stand."""
        forgiven = (n for n, trade in trades.items() if trade.is_accepted and trade.has_rejected)
        self._delete(_FORGET_REJECTED, forgiven)
        standing = [*nameless, *(kept for trade in trades.values() for kept in trade.rejected)]
        last = {clean_text(row.row_id): (row, version) for row, version in standing}
        if last:
            lines = (self._rejected_row(*kept) for kept in last.values())
            copy_rows(self.conn, "new_rejected", _REJECTED_COLUMNS, lines)
            self.conn.execute(_INSERT_REJECTED)
            self.conn.execute("TRUNCATE new_rejected")

    def _rejected_row(self, row: RejectedRow, version: datetime | None) -> tuple[object, ...]:
        head = (row.row_id, row.trade_id, row.reason.value, row.detail, to_jsonb(row.payload))
        return (*head, row.closed_at, self.source, version)

    def remove_gone(self, window: dict[str, object]) -> int:
        """Remove the stored trades of the window that no row spoke of; how many these were."""
        gone = self.conn.execute(_DELETE_GONE, window).fetchall()
        self.touched.update(day for day, _ in gone)
        return sum(n for _, n in gone)

    def renew_days(self) -> None:
        """Sum up anew the days whose events have changed."""
        changed = {day for (day,) in self.conn.execute(_FORGET_DAYS, [list(self.touched)])}
        if changed:
            self.conn.execute(_INSERT_CHANGED_DAYS, [list(changed)])
        self.conn.execute(_INSERT_NEW_DAYS, [list(self.touched - changed)])

    def result(self, n_gone: int) -> IngestResult:
        """What came of it all."""
        row = self.conn.execute(_COUNTS).fetchone()
        assert row is not None
        trades, events, unchanged, replaced, outdated, removed = row
        rejected = {Reason(reason): n for reason, n in self.conn.execute(_REJECTED_COUNTS)}
        return IngestResult(
            trades, events, unchanged, replaced, outdated, removed + n_gone, rejected
        )
