"""The events of a book: closed trades written so that order and repetition do not matter.

Rows are staged by COPY, and a handful of set-based statements work out what they change. What a
row means was decided by its source; what is learned from it is the business of `core`.

For each trade the rows are gone through in order, the stored one first: a trade row takes over
unless its version is lower than that of the row before it (a missing version is never lower), a
rejected row always does. The unit is the trade: its events are replaced together, and only where
its content differs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice

from learning_assets.core.records import (
    Action,
    Applied,
    ClosedTrade,
    DayOutcome,
    Reason,
    RejectedRow,
)
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows, to_jsonb, words_jsonb
from learning_assets.store.tables import PATTERN_TRADE_EVENTS, TABLES

BATCH_ROWS = 5_000

Row = ClosedTrade | RejectedRow

_TRADES = ("seq", "trade_id", "rr", "closed_at", "opened_at", "pnl_usd", "payback_hours")
_TRADE_COLUMNS = (*_TRADES, "hold_hours", "version", "trade_digest")
_ACTIONS = ("seq", "event_id", "module", "pattern_key", "action_category", "scope")
_ACTION_COLUMNS = (*_ACTIONS, "applied_overrides")
_REJECTED_COLUMNS = ("seq", "row_id", "trade_id", "reason", "detail", "payload", "closed_at")

_STAGE = """
CREATE TEMP TABLE staged_trades (seq bigint, trade_id text, rr double precision,
    closed_at timestamptz, opened_at timestamptz, pnl_usd double precision,
    payback_hours double precision, hold_hours double precision, version timestamptz,
    trade_digest text) ON COMMIT DROP;
CREATE TEMP TABLE staged_actions (seq bigint, event_id text, module text, pattern_key text,
    action_category text, scope jsonb, applied_overrides jsonb) ON COMMIT DROP;
CREATE TEMP TABLE staged_rejected (seq bigint, row_id text, trade_id text, reason text,
    detail text, payload jsonb, closed_at timestamptz) ON COMMIT DROP;
"""

# Every row that speaks of a staged trade, the stored ones as number 0. Nothing before the last
# row without a version counts for the comparison of versions; `floor_version` is the highest one
# before a row, and a rejected row keeps it for those that come later.
_DECIDE = """
CREATE TEMP TABLE stored_trades ON COMMIT DROP AS
    SELECT DISTINCT ON (trade_id) trade_id, version, trade_digest, closed_at, source
    FROM pattern_trade_events
    WHERE trade_id IN (SELECT trade_id FROM staged_trades
                       UNION SELECT trade_id FROM staged_rejected)
    ORDER BY trade_id, event_id;
CREATE TEMP TABLE steps ON COMMIT DROP AS
    WITH rows AS (
        SELECT 0::bigint AS seq, trade_id, version, false AS rejected FROM stored_trades
        UNION ALL
        SELECT 0, trade_id, max(version), true FROM rejected_strands
            WHERE trade_id IN (SELECT trade_id FROM staged_trades
                               UNION SELECT trade_id FROM staged_rejected)
            GROUP BY trade_id
        UNION ALL SELECT seq, trade_id, version, false FROM staged_trades
        UNION ALL SELECT seq, trade_id, NULL, true FROM staged_rejected WHERE trade_id IS NOT NULL
    ), cut AS (
        SELECT *, max(seq) FILTER (WHERE version IS NULL AND NOT rejected)
            OVER (PARTITION BY trade_id) AS last_unversioned
        FROM rows
    ), floors AS (
        SELECT *, max(version) OVER (PARTITION BY trade_id ORDER BY seq
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS floor_version
        FROM cut WHERE last_unversioned IS NULL OR seq >= last_unversioned
    )
    SELECT seq, trade_id, rejected, version, floor_version FROM floors
    WHERE rejected OR version IS NULL OR floor_version IS NULL OR version >= floor_version;
CREATE TEMP TABLE outcomes ON COMMIT DROP AS
    SELECT trade_id, max(seq) AS seq, max(seq) FILTER (WHERE NOT rejected) AS accepted_seq
    FROM steps GROUP BY trade_id;
CREATE TEMP TABLE winners ON COMMIT DROP AS
    SELECT staged.*, stored.trade_digest AS old_digest, stored.version AS old_version
    FROM outcomes JOIN staged_trades AS staged USING (seq)
    LEFT JOIN stored_trades AS stored ON stored.trade_id = staged.trade_id;
CREATE TEMP TABLE fallen ON COMMIT DROP AS
    SELECT stored_trades.trade_id FROM stored_trades JOIN outcomes USING (trade_id)
    JOIN staged_rejected AS staged ON staged.seq = outcomes.seq;
"""

# A trade that the source no longer yields, where it yields everything of the window. (Not with NOT
# IN, which compares each with each once the list outgrows its memory.)
_FIND_GONE = """
INSERT INTO fallen
    SELECT DISTINCT trade_id FROM pattern_trade_events AS events
    WHERE source = %(source)s AND closed_at >= %(first)s AND closed_at < %(end)s
        AND NOT EXISTS (
            SELECT FROM staged_trades AS staged WHERE staged.trade_id = events.trade_id)
        AND NOT EXISTS (
            SELECT FROM staged_rejected AS staged WHERE staged.trade_id = events.trade_id)
"""

_FORGET_REJECTED_GONE = """
DELETE FROM rejected_strands AS kept
    WHERE source = %(source)s
        AND (closed_at IS NULL OR (closed_at >= %(first)s AND closed_at < %(end)s))
        AND NOT EXISTS (SELECT FROM staged_rejected AS staged WHERE staged.row_id = kept.row_id)
"""

_DELETE_EVENTS = """
DELETE FROM pattern_trade_events WHERE trade_id IN (
    SELECT trade_id FROM fallen
    UNION SELECT trade_id FROM winners WHERE old_digest <> trade_digest)
"""

_INSERT_EVENTS = """
INSERT INTO pattern_trade_events (event_id, trade_id, source, module, pattern_key,
    action_category, scope, rr, closed_at, opened_at, pnl_usd, payback_hours, hold_hours,
    version, trade_digest, applied_overrides)
    SELECT event_id, trade_id, %(source)s, module, pattern_key, action_category, scope, rr,
        closed_at, opened_at, pnl_usd, payback_hours, hold_hours, version, trade_digest,
        applied_overrides
    FROM winners JOIN staged_actions USING (seq)
    WHERE old_digest IS DISTINCT FROM trade_digest
"""

_UPDATE_VERSIONS = """
UPDATE pattern_trade_events AS events SET version = winners.version FROM winners
    WHERE events.trade_id = winners.trade_id AND winners.old_digest = winners.trade_digest
        AND winners.version IS DISTINCT FROM winners.old_version
"""

_FORGET_REJECTED = """
DELETE FROM rejected_strands WHERE trade_id IN (
    SELECT trade_id FROM outcomes WHERE accepted_seq > 0)
"""

_INSERT_REJECTED = """
INSERT INTO rejected_strands AS kept (row_id, trade_id, reason, detail, payload, closed_at,
    source, version)
    SELECT DISTINCT ON (row_id) row_id, staged.trade_id, reason, detail, payload, closed_at,
        %(source)s, floor_version
    FROM staged_rejected AS staged
    LEFT JOIN steps USING (seq)
    LEFT JOIN outcomes ON outcomes.trade_id = staged.trade_id
    WHERE outcomes.accepted_seq IS NULL OR staged.seq > outcomes.accepted_seq
    ORDER BY row_id, staged.seq DESC
ON CONFLICT (row_id) DO UPDATE SET (trade_id, reason, detail, payload, closed_at, source, version)
    = (excluded.trade_id, excluded.reason, excluded.detail, excluded.payload, excluded.closed_at,
       excluded.source, excluded.version)
    WHERE (kept.trade_id, kept.reason, kept.detail, kept.payload, kept.closed_at, kept.source,
           kept.version)
        IS DISTINCT FROM
        (excluded.trade_id, excluded.reason, excluded.detail, excluded.payload,
         excluded.closed_at, excluded.source, excluded.version)
"""

# Days whose events change: of trades that go or are replaced, and of those that come.
_FIND_TOUCHED = """
CREATE TEMP TABLE touched ON COMMIT DROP AS
    SELECT DISTINCT (closed_at AT TIME ZONE 'UTC')::date AS day FROM pattern_trade_events
    WHERE trade_id IN (
        SELECT trade_id FROM fallen
        UNION SELECT trade_id FROM winners WHERE old_digest <> trade_digest)
    UNION SELECT (closed_at AT TIME ZONE 'UTC')::date FROM winners
    WHERE old_digest IS DISTINCT FROM trade_digest
"""

_DAY_ROWS = """
SELECT day, count(*), sum(n_events), md5(string_agg(trade_digest, '' ORDER BY trade_digest)) FROM (
    SELECT (closed_at AT TIME ZONE 'UTC')::date AS day, trade_id,
        min(trade_digest) AS trade_digest, count(*) AS n_events
    FROM pattern_trade_events AS events{} GROUP BY 1, 2) AS trades GROUP BY day
"""

FILL_DAYS = f"INSERT INTO event_days {_DAY_ROWS.format('')}"
"""Fills the empty table of days from all events."""

APPLIED_INDEX = (
    "CREATE INDEX ON pattern_trade_events (closed_at) WHERE applied_overrides IS NOT NULL"
)
"""Few rows or none say what was applied, and only those are read for it."""

_FORGET_DAYS = "DELETE FROM event_days WHERE day IN (SELECT day FROM touched)"
_TOUCHED_ROWS = """
    JOIN touched ON closed_at >= touched.day::timestamp AT TIME ZONE 'UTC'
        AND closed_at < (touched.day + 1)::timestamp AT TIME ZONE 'UTC'"""
_INSERT_DAYS = f"INSERT INTO event_days {_DAY_ROWS.format(_TOUCHED_ROWS)}"

_COUNTS = """
SELECT (SELECT count(DISTINCT trade_id) FROM staged_trades),
    (SELECT count(*) FROM winners),
    (SELECT count(*) FROM winners WHERE old_digest = trade_digest),
    (SELECT count(*) FROM winners WHERE old_digest <> trade_digest),
    (SELECT count(*) FROM fallen),
    (SELECT count(*) FROM staged_actions JOIN winners USING (seq))
"""

_REJECTED_COUNTS = """
SELECT reason, count(DISTINCT row_id) FROM staged_rejected AS staged
    LEFT JOIN outcomes USING (trade_id)
    WHERE outcomes.accepted_seq IS NULL OR staged.seq > outcomes.accepted_seq
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
    stored as rejected.
    """
    window = {"source": source, "first": _midnight(first), "end": _midnight(last, days=1)}
    with conn.transaction():
        table_lock(conn, PATTERN_TRADE_EVENTS.name)
        conn.execute(_STAGE)
        _stage(conn, rows)
        conn.execute("ANALYZE staged_trades, staged_actions, staged_rejected")
        conn.execute(_DECIDE)
        if complete:
            conn.execute(_FIND_GONE, window)
            conn.execute(_FORGET_REJECTED_GONE, window)
        conn.execute(_FIND_TOUCHED)
        for statement in (_DELETE_EVENTS, _INSERT_EVENTS, _UPDATE_VERSIONS, _FORGET_REJECTED):
            conn.execute(statement, window if statement is _INSERT_EVENTS else None)
        conn.execute(_FORGET_DAYS)
        conn.execute(_INSERT_DAYS)
        conn.execute(_INSERT_REJECTED, window)
        result = _result(conn)
        _drop_stage(conn)
    return result


def _midnight(day: date, days: int = 0) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(days=days)


def _drop_stage(conn: Conn) -> None:
    # Several ingestions may share one transaction, and then nothing is dropped by a commit.
    conn.execute(
        "DROP TABLE staged_trades, staged_actions, staged_rejected, stored_trades, steps, "
        "outcomes, winners, fallen, touched"
    )


def _result(conn: Conn) -> IngestResult:
    row = conn.execute(_COUNTS).fetchone()
    assert row is not None
    trades, standing, unchanged, replaced, removed, events = row
    rejected = {Reason(reason): n for reason, n in conn.execute(_REJECTED_COUNTS)}
    return IngestResult(trades, events, unchanged, replaced, trades - standing, removed, rejected)


def _stage(conn: Conn, rows: Iterable[Row]) -> None:
    numbered = iter(enumerate(map(_usable, rows), start=1))
    while batch := list(islice(numbered, BATCH_ROWS)):
        trades = [(seq, row) for seq, row in batch if isinstance(row, ClosedTrade)]
        rejected = [(seq, row) for seq, row in batch if isinstance(row, RejectedRow)]
        copy_rows(conn, "staged_trades", _TRADE_COLUMNS, (_trade_row(*item) for item in trades))
        actions = (line for item in trades for line in _action_rows(*item))
        copy_rows(conn, "staged_actions", _ACTION_COLUMNS, actions)
        lines = (_rejected_row(*item) for item in rejected)
        copy_rows(conn, "staged_rejected", _REJECTED_COLUMNS, lines)


def _usable(row: Row) -> Row:
    if isinstance(row, RejectedRow) or row.actions:
        return row
    return RejectedRow(
        row_id=row.trade_id,
        reason=Reason.NO_ACTIONS,
        detail="the trade has no actions",
        payload={"trade_id": row.trade_id, "rr": row.rr},
        trade_id=row.trade_id,
        closed_at=row.closed_at,
    )


def _trade_row(seq: int, trade: ClosedTrade) -> tuple[object, ...]:
    return (
        seq,
        trade.trade_id,
        trade.rr,
        trade.closed_at,
        trade.opened_at,
        _known(trade.pnl_usd),
        _known(trade.payback_hours),
        trade.hold_hours,
        trade.version,
        trade_digest(trade),
    )


def _action_rows(seq: int, trade: ClosedTrade) -> Iterator[tuple[object, ...]]:
    # Of two actions with one name the later one counts.
    for action in {action.action_id: action for action in trade.actions}.values():
        yield (
            seq,
            f"{trade.trade_id}:{action.action_id}",
            action.module,
            action.pattern_key,
            action.action_category,
            words_jsonb(action.scope),
            None if action.applied_overrides is None else _applied_text(action.applied_overrides),
        )


def _applied_text(applied: Applied) -> str:
    return to_jsonb(
        {
            "multiplier": applied.multiplier,
            "suggested": applied.suggested,
            "status": applied.status.value,
            "set_id": applied.set_id,
            "overrides": [x._asdict() for x in applied.overrides],
        }
    )


def _rejected_row(seq: int, row: RejectedRow) -> tuple[object, ...]:
    head = (seq, row.row_id, row.trade_id, row.reason.value, row.detail)
    return (*head, to_jsonb(row.payload), row.closed_at)


def trade_digest(trade: ClosedTrade) -> str:
    """Digest of the content of a trade; its version and the order of its actions are not part."""
    numbers = (trade.rr, _known(trade.pnl_usd), _known(trade.payback_hours))
    content = [
        trade.trade_id,
        *map(repr, numbers),
        _instant(trade.closed_at),
        _instant(trade.opened_at),
        sorted(_action_content(action) for action in trade.actions),
    ]
    return hashlib.sha256(words_jsonb(content).encode()).hexdigest()[:32]


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _instant(moment: datetime | None) -> str | None:
    return None if moment is None else str(moment.astimezone(UTC))


def _action_content(action: Action) -> tuple[object, ...]:
    scope = sorted(action.scope.items())
    content = action.action_id, action.module, action.pattern_key, action.action_category, scope
    if action.applied_overrides is None:  # as digests were before there was such a thing
        return content
    return (*content, _applied_text(action.applied_overrides))


def closings(conn: Conn, since: datetime, until: datetime) -> list[tuple[str, datetime, datetime]]:
    """Module, closing time and time of writing of each trade with actions of the module.

    Those that closed in since … until (its end not included), in order of closing.
    """
    query = (
        "SELECT module, closed_at, min(ingested_at) FROM pattern_trade_events "
        "WHERE closed_at >= %s AND closed_at < %s GROUP BY trade_id, module, closed_at "
        "ORDER BY closed_at, trade_id, module"
    )
    return list(conn.execute(query, [since, until]))


def events_digest(conn: Conn, before: datetime) -> str:
    """Digest of the content of all trades that closed before `before`, however they came in.

    Reads a row per closing day, and the rows of the day of `before` alone.
    """
    day = before.astimezone(UTC).date()
    last = _DAY_ROWS.format(" WHERE closed_at >= %(midnight)s AND closed_at < %(before)s")
    query = (
        f"WITH known AS (SELECT day, digest FROM event_days WHERE day < %(day)s "
        f"UNION ALL SELECT day, md5 FROM ({last}) AS last) "
        "SELECT md5(coalesce(string_agg(day || digest, '' ORDER BY day), '')) FROM known"
    )
    moments = {"day": day, "midnight": _midnight(day), "before": before}
    row = conn.execute(query, moments).fetchone()
    assert row is not None
    return str(row[0])


def days(conn: Conn) -> list[date]:
    """The UTC days on which stored trades closed, in order."""
    return [day for (day,) in conn.execute("SELECT day FROM event_days ORDER BY day")]


def rejected_days(conn: Conn) -> list[date]:
    """The UTC days on which rejected rows closed, as far as known, in order."""
    query = (
        "SELECT DISTINCT (closed_at AT TIME ZONE 'UTC')::date AS day FROM rejected_strands "
        "WHERE closed_at IS NOT NULL ORDER BY day"
    )
    return [day for (day,) in conn.execute(query)]


def day_outcomes(conn: Conn, newest_days: int) -> list[DayOutcome]:
    """What the trades of each UTC day brought, for days with trades among the newest ones.

    The newest `newest_days` end with the day of the last close.
    """
    query = """
        WITH trades AS (
            SELECT DISTINCT trade_id, (closed_at AT TIME ZONE 'UTC')::date AS day, rr
            FROM pattern_trade_events
            WHERE closed_at >= (SELECT max(closed_at) FROM pattern_trade_events)
                - make_interval(days => %s)
        )
        SELECT day, count(*), avg(rr) FROM trades
        WHERE day > (SELECT max(day) FROM trades) - %s GROUP BY day ORDER BY day
    """
    return [DayOutcome(*row) for row in conn.execute(query, [newest_days, newest_days])]


def unknown_trades(conn: Conn, trade_ids: Sequence[str]) -> list[str]:
    """Those of these trades that are neither events nor rejected."""
    query = """
        SELECT given.trade_id FROM unnest(%s::text[]) AS given (trade_id)
        WHERE NOT EXISTS (SELECT FROM pattern_trade_events WHERE trade_id = given.trade_id)
        AND NOT EXISTS (SELECT FROM rejected_strands WHERE trade_id = given.trade_id)
    """
    return [name for (name,) in conn.execute(query, [list(trade_ids)])]


def rejected_counts(conn: Conn) -> dict[Reason, int]:
    """How many rows are rejected now, by reason."""
    query = "SELECT reason, count(*) FROM rejected_strands GROUP BY reason ORDER BY reason"
    return {Reason(reason): n for reason, n in conn.execute(query)}


def reset(conn: Conn) -> None:
    """Empty every table of the book, in one transaction. Readers see all of it or nothing."""
    with conn.transaction():
        for table in TABLES:
            table_lock(conn, table.name)
            conn.execute(f"DELETE FROM {table.name}")
