"""The events of a book: what is asked of the closed trades that were taken in.

Writing them is the business of `ingestion`, reading them into columns that of `columns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time

from learning_assets.core.records import DayOutcome, Reason
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.tables import TABLES

DAY_ROWS = """
SELECT day, count(*), sum(n_events), md5(string_agg(trade_digest, '' ORDER BY trade_digest)),
    avg(rr)
FROM (
    SELECT (closed_at AT TIME ZONE 'UTC')::date AS day, trade_id,
        min(trade_digest) AS trade_digest, count(*) AS n_events, min(rr) AS rr
    FROM pattern_trade_events AS events{} GROUP BY 1, 2) AS trades GROUP BY day
"""
"""The rows of event_days, of the events that are put in."""

FILL_DAYS = f"INSERT INTO event_days {DAY_ROWS.format('')}"
"""Fills the empty table of days from all events."""

APPLIED_INDEX = (
    "CREATE INDEX ON pattern_trade_events (closed_at) WHERE applied_overrides IS NOT NULL"
)
"""Few rows or none say what was applied, and only those are read for it."""


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
    midnight = datetime.combine(day, time(), UTC)
    last = DAY_ROWS.format(" WHERE closed_at >= %(midnight)s AND closed_at < %(before)s")
    query = (
        f"WITH known AS (SELECT day, digest FROM event_days WHERE day < %(day)s "
        f"UNION ALL SELECT day, md5 FROM ({last}) AS last) "
        "SELECT md5(coalesce(string_agg(day || digest, '' ORDER BY day), '')) FROM known"
    )
    moments = {"day": day, "midnight": midnight, "before": before}
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
        SELECT day, n_trades, mean_rr FROM event_days
        WHERE day > (SELECT max(day) FROM event_days) - %s ORDER BY day
    """
    return [DayOutcome(*row) for row in conn.execute(query, [newest_days])]


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
