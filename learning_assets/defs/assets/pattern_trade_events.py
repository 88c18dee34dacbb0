"""The asset `pattern_trade_events`: what the source holds for its days, stored by action."""

from collections.abc import Iterable, Iterator
from datetime import date, datetime

import dagster as dg

from learning_assets import pictures
from learning_assets.core.records import ClosedTrade, RejectedRow
from learning_assets.defs.assets.closed_trades import closed_trades
from learning_assets.defs.metadata import column_schema, materialized, of_ingestion, pictured
from learning_assets.defs.opening import open_source, source_name
from learning_assets.defs.options import EventsConfig
from learning_assets.defs.partitions import DAYS
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.sources.parse import START, RowError, check_closed_at, rejected
from learning_assets.store import books, events, ingestion
from learning_assets.store.tables import PATTERN_TRADE_EVENTS

Row = ClosedTrade | RejectedRow


@dg.asset(
    deps=[closed_trades],
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="trades",
    kinds={"postgres"},
    pool="learning_events",
    metadata=column_schema(PATTERN_TRADE_EVENTS),
    description=(
        "What is learned from: one row per action of a closed trade, by the UTC day on which the "
        "trade closed. Rows that cannot be used are kept with their reason, in `rejected_strands`, "
        "and tried again when they change."
    ),
)
def pattern_trade_events(
    context: dg.AssetExecutionContext, config: EventsConfig, book: BookResource
) -> dg.MaterializeResult[None]:
    """Take in the trades that closed on the days of the partitions, in one transaction."""
    first, last = _days(context.partition_keys)
    now = book.now()
    with clear_failures(), book.connect() as conn:
        remembered = book.source(conn)
        window = _window(first, last, now, everything=config.whole_source)
        rows = without_future(open_source(book.settings, remembered).read(*window), now)
        result = ingestion.ingest(conn, source_name(remembered), first, last, rows, complete=True)
        size, by_reason = books.size(conn), events.rejected_counts(conn)
        outcomes = events.day_outcomes(conn, pictures.MOST_DAYS)
    drawn = pictured(pictures.events(outcomes, sum(by_reason.values())))
    return materialized(context, {**drawn, **of_ingestion(result, size, by_reason)})


def _days(keys: Iterable[str]) -> tuple[date, date]:
    days = [date.fromisoformat(key) for key in keys]
    return min(days), max(days)


def _window(first: date, last: date, now: datetime, *, everything: bool) -> tuple[date, date]:
    """What is read for the days: the first and the newest partition take what lies beyond them."""
    before = everything or first <= START.date()
    after = everything or last >= now.date()
    return date.min if before else first, date.max if after else last


def without_future(rows: Iterable[Row], now: datetime) -> Iterator[Row]:
    """The rows; a trade that closes after `now` is rejected, until its time has come."""
    for row in rows:
        yield row if isinstance(row, RejectedRow) else _unless_future(row, now)


def _unless_future(trade: ClosedTrade, now: datetime) -> Row:
    try:
        check_closed_at(trade.closed_at, now=now)
    except RowError as error:
        raw = {"trade_id": trade.trade_id, "rr": trade.rr}
        return rejected(trade.trade_id, error, raw, trade=trade.trade_id, closed_at=trade.closed_at)
    return trade
