"""Closed trades from freqtrade: backtest exports (`.json`, `.zip`) and a live `tradesv3.sqlite`.

rr = profit_ratio ÷ risk. freqtrade gives profit ratios *and* stop ratios on the trader's own
stake, leverage included (a stop of 10 % at 10x is a price move of 1 %), so their quotient is the
R-multiple at any leverage. The risk of a trade is its initial stop loss, else the strategy's; a
stop of 50 % or more is an emergency stop, and then the risk is the one that the user named, else
the mean loss of the strategy's losing trades in the same export.

Which file is an export at all is decided in `sources.detect`.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from learning_assets.core.freqtrade_entry import (
    action_name,
    action_scope,
    entry_pattern,
    quote_currency,
    side_of,
)
from learning_assets.core.freqtrade_entry import trade_id as entry_id
from learning_assets.core.records import APPLIED, Action, Applied, ClosedTrade, Reason, RejectedRow
from learning_assets.errors import UserError
from learning_assets.sources.applied import AppliedReader, json_object
from learning_assets.sources.parse import (
    EMERGENCY_STOP,
    Batch,
    BatchSource,
    RiskMeasure,
    Row,
    RowError,
    batch,
    check_closed_at,
    check_order,
    checked_risk,
    counted,
    is_absent,
    measured_risk,
    optional_number,
    own_risk,
    pattern_key,
    payload,
    read_bytes,
    rejected,
    rr,
    scope,
    usable_stop,
    utc,
)

SQLITE_SUFFIXES: Final = frozenset({".sqlite", ".sqlite3", ".db"})
"""Names under which a live bot keeps its database."""

_DOLLARS: Final = frozenset({"USD", "USDT", "USDC", "BUSD", "FDUSD", "TUSD", "DAI"})
_COMPANIONS: Final = ("_config.json", ".meta.json", ".last_result.json")
_FILE_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)")


@dataclass(frozen=True, slots=True)
class _Run:
    """The trades of one strategy in one file, in the words of the backtest export.

    `applied` counts what cannot be read of what a bot applied.
    """

    file: str
    strategy: str
    timeframe: object
    stoploss: float | None
    version: datetime | None
    rows: Sequence[Mapping[str, Any]]
    applied: AppliedReader = field(default_factory=AppliedReader)

    @property
    def closed(self) -> list[Mapping[str, Any]]:
        """The rows of trades that are over."""
        return [row for row in self.rows if not row.get("is_open")]


@dataclass(frozen=True, slots=True)
class _Order:
    """A filled order of a trade."""

    is_entry: bool
    filled_at: datetime


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A closed trade before its risk is known. Ratios are fractions of the stake."""

    trade: ClosedTrade
    profit_ratio: float
    stop: float | None
    excursion: float | None
    entry: tuple[str, str, datetime]


@dataclass(frozen=True, slots=True)
class _Found:
    """A usable or rejected trade with what orders its copies and what the notes count."""

    row: Row
    version: datetime | None
    strategy: str
    entry: tuple[str, str, datetime] | None = None
    measure: RiskMeasure | None = None
    risk: float | None = None


class FreqtradeSource(BatchSource):
    """Trades of one or more freqtrade files; a trade in several of them is one.

    Of the copies of a trade the one of the newest backtest run (or, live, with the newest order)
    counts, among equals that of the last file.
    """

    kind = "freqtrade"

    def __init__(self, location: Path, paths: Sequence[Path], *, risk: float | None = None) -> None:
        super().__init__(location, paths)
        self._risk = checked_risk(risk)

    @property
    def is_live(self) -> bool:
        """True for a bot's database, False for backtest exports."""
        return any(is_sqlite(path) for path in self._paths)

    def _load(self) -> Batch:
        runs = [run for path in self._paths for run in _runs(path)]
        found = [item for run in runs for item in _trades(run, self._risk)]
        kept = _newest(found)
        n_copies = sum(len(run.closed) for run in runs) - len(kept)
        notes = [*_risk_notes(kept), *_copy_notes(n_copies, kept), *_open_notes(runs)]
        notes += [note for run in runs for note in run.applied.notes()]
        return batch((item.row for item in kept), notes)


def is_sqlite(path: Path) -> bool:
    """Whether the name is that of a bot's database."""
    return path.suffix.lower() in SQLITE_SUFFIXES


def is_companion(name: str) -> bool:
    """Whether freqtrade writes such a file beside an export (configuration, metadata)."""
    return name.endswith(_COMPANIONS)


def is_export(document: object) -> bool:
    """Whether a JSON document has the shape of a backtest export."""
    strategies = document.get("strategy") if isinstance(document, dict) else None
    return isinstance(strategies, dict) and all(
        isinstance(result, dict) and isinstance(result.get("trades"), list)
        for result in strategies.values()
    )


# Files → runs


def _runs(path: Path) -> list[_Run]:
    if is_sqlite(path):
        return _database_runs(path)
    documents = _zipped(path) if path.suffix.lower() == ".zip" else [read_export(path)]
    return [run for document in documents for run in _export_runs(path, document)]


def read_json(text: bytes, name: str) -> Any:
    """The document in `text`; UserError naming `name` where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{name} is not valid JSON ({error}): give a freqtrade backtest export"
        ) from None


def read_export(path: Path) -> Mapping[str, Any]:
    """The backtest export in a `.json` file.

    Raises:
        UserError: when the file cannot be read or is no export; it says what was found.
    """
    document = read_json(read_bytes(path), str(path))
    if not is_export(document):
        raise UserError(_no_export(path, document))
    return dict(document)


def _no_export(path: Path, document: object) -> str:
    if isinstance(document, dict):
        keys = ", ".join(sorted(map(str, document))[:12]) or "none"
        found = f"its top-level keys are: {keys}"
    else:
        found = f"it holds a {type(document).__name__}"
    return (
        f"{path} is no freqtrade backtest export: expected the key 'strategy' with the trades of "
        f"each strategy, but {found}"
    )


def _zipped(path: Path) -> list[Mapping[str, Any]]:
    """The exports in a zip, which also holds configuration, parameters and candles."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
            names = archive.namelist()
            texts = {name: archive.read(name) for name in names if _may_be_export(name)}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(
            f"{path} is a damaged or encrypted zip ({error}): export the backtest again"
        ) from None
    documents = [read_json(text, f"{name} in {path}") for name, text in texts.items()]
    exports = [document for document in documents if is_export(document)]
    if not exports:
        raise UserError(
            f"{path} holds no freqtrade backtest export; it holds: {', '.join(names[:12]) or '-'}"
        )
    return exports


def _may_be_export(name: str) -> bool:
    return name.lower().endswith(".json") and not is_companion(name)


def _export_runs(path: Path, document: Mapping[str, Any]) -> Iterator[_Run]:
    for strategy, result in document["strategy"].items():
        yield _Run(
            path.name,
            strategy,
            result.get("timeframe"),
            _number_or_none(result.get("stoploss")),
            _started_at(path, result),
            [row if isinstance(row, dict) else {"trade": row} for row in result["trades"]],
        )


def _number_or_none(raw: object) -> float | None:
    try:
        return optional_number(raw)
    except RowError:
        return None


def _started_at(path: Path, result: Mapping[str, Any]) -> datetime | None:
    """When the backtest ran: what the export says, else what its file name says."""
    try:
        return utc(result.get("backtest_run_start_ts"))
    except RowError:
        stamp = _FILE_TIME.search(path.name)
    return utc("{}T{}:{}:{}".format(*stamp.groups())) if stamp else None


def _database_runs(path: Path) -> list[_Run]:
    try:
        with closing(_connect(path)) as database:
            trades, orders = _tables(path, database)
            applied = _applied_texts(database)
    except sqlite3.Error as error:
        raise UserError(
            f"{path} cannot be read as a freqtrade database ({error}): "
            "give the bot's tradesv3.sqlite, or try again when it is not locked"
        ) from None
    return _by_strategy(
        path, [{**row, APPLIED: applied.get(row.get("id"))} for row in trades], orders
    )


def _connect(path: Path) -> sqlite3.Connection:
    # Read-only: the bot owns this file. One transaction, so that trades and orders fit together.
    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    database = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)
    database.row_factory = sqlite3.Row
    return database


def _tables(
    path: Path, database: sqlite3.Connection
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    database.execute("BEGIN")
    names = {row["name"] for row in database.execute("SELECT name FROM sqlite_master")}
    if "trades" not in names:
        raise UserError(
            f"{path} is no freqtrade database: it has no table trades, "
            f"but: {', '.join(sorted(names)) or 'none'}"
        )
    trades = [dict(row) for row in database.execute("SELECT * FROM trades")]
    query = "SELECT * FROM orders" if "orders" in names else "SELECT 1 WHERE 0"
    return trades, [dict(row) for row in database.execute(query)]


def _applied_texts(database: sqlite3.Connection) -> dict[object, object]:
    """By trade (its id in the database) what the strategy kept of the multipliers it applied."""
    columns = {row["name"] for row in database.execute("PRAGMA table_info(trade_custom_data)")}
    if not {"ft_trade_id", "cd_key", "cd_value"} <= columns:  # freqtrade before 2024.2
        return {}
    # As bytes: text that is no UTF-8 would make the whole database unreadable.
    query = (
        "SELECT ft_trade_id AS trade, CAST(coalesce(cd_value, '') AS BLOB) AS value "
        "FROM trade_custom_data WHERE lower(cd_key) = ?"
    )
    rows = database.execute(query, [APPLIED])
    return {row["trade"]: row["value"].decode("utf-8", "replace") for row in rows}


def _by_strategy(
    path: Path, trades: Iterable[Mapping[str, Any]], orders: Iterable[Mapping[str, Any]]
) -> list[_Run]:
    of_trade: dict[object, list[Mapping[str, Any]]] = {}
    for order in orders:
        of_trade.setdefault(order.get("ft_trade_id"), []).append(order)
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for row in trades:
        exported = _as_exported(row, of_trade.get(row.get("id"), []))
        runs.setdefault(str(row.get("strategy") or ""), []).append(exported)
    return [_Run(path.name, name, None, None, None, rows) for name, rows in runs.items()]


def _as_exported(row: Mapping[str, Any], orders: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A row of the table trades in the words of the backtest export."""
    entry_side = "sell" if row.get("is_short") else "buy"
    filled = [order for order in orders if not order.get("ft_is_open") and order.get("filled")]
    return {
        **row,
        "profit_ratio": row.get("close_profit"),
        "profit_abs": row.get("close_profit_abs"),
        "initial_stop_loss_ratio": row.get("initial_stop_loss_pct"),
        "orders": [
            {
                "ft_is_entry": order.get("ft_order_side") == entry_side,
                "order_filled_timestamp": order.get("order_filled_date") or order.get("order_date"),
            }
            for order in filled
        ],
    }


# Runs → trades


def _trades(run: _Run, named: float | None) -> list[_Found]:
    """The closed trades of a run, each usable or rejected; one of each trade id."""
    found = [_parsed(run, number, row) for number, row in enumerate(run.closed)]
    trades = [item for item, _ in found if isinstance(item, _Parsed)]
    own = own_risk([t.profit_ratio for t in trades], [t.excursion for t in trades])
    priced = [_priced(run, item, raw, named, own) for item, raw in found]
    return _without_conflicts(priced)


def _parsed(
    run: _Run, number: int, row: Mapping[str, Any]
) -> tuple[_Parsed | _Found, Mapping[str, Any]]:
    trade_id: str | None = None
    closed_at: datetime | None = None
    try:
        entry = _entry(row)
        trade_id = entry_id(run.strategy, *entry)
        at = utc(_first(row, "close_date", "close_timestamp"))
        check_closed_at(at)
        closed_at = at
        return _parsed_trade(run, row, trade_id, entry, at), row
    except RowError as error:
        row_id = trade_id or f"{run.file}:{run.strategy}:{number}"
        refused = rejected(row_id, error, row, trade=trade_id, closed_at=closed_at, where=run.file)
        return _Found(refused, run.version, run.strategy), row


def _entry(row: Mapping[str, Any]) -> tuple[str, str, datetime]:
    """Pair, side and opening time: the market entry."""
    pair = row.get("pair")
    if is_absent(pair):
        raise RowError(Reason.NO_TRADE_ID, "the trade has no pair to make its id from")
    return str(pair), side_of(row.get("is_short")), utc(_first(row, "open_date", "open_timestamp"))


def _first(row: Mapping[str, Any], *names: str) -> object:
    return next((row[name] for name in names if not is_absent(row.get(name))), None)


def _parsed_trade(
    run: _Run,
    row: Mapping[str, Any],
    trade_id: str,
    entry: tuple[str, str, datetime],
    closed_at: datetime,
) -> _Parsed:
    pair, _, opened_at = entry
    check_order(opened_at, closed_at)
    orders = _filled_orders(row)
    profit = optional_number(row.get("profit_abs"))
    trade = ClosedTrade(
        trade_id,
        rr=0.0,  # until the risk is known
        closed_at=closed_at,
        actions=_actions(run, row, trade_id, entry, orders),
        opened_at=opened_at,
        pnl_usd=profit if quote_currency(pair) in _DOLLARS else None,
        version=run.version or max([closed_at, *(order.filled_at for order in orders)]),
    )
    stop = usable_stop(optional_number(row.get("initial_stop_loss_ratio")), run.stoploss)
    return _Parsed(trade, _profit_ratio(row), stop, _excursion(row), entry)


def _excursion(row: Mapping[str, Any]) -> float | None:
    """How far the price went against the trade, as a fraction of the stake; None if unknown."""
    against = "max_rate" if row.get("is_short") else "min_rate"
    opened, worst = (_number_or_none(row.get(name)) for name in ("open_rate", against))
    if not opened or not worst:
        return None
    leverage = optional_number(row.get("leverage")) or 1.0
    return max(0.0, (worst - opened if row.get("is_short") else opened - worst) / opened * leverage)


def _profit_ratio(row: Mapping[str, Any]) -> float:
    value = _number_or_none(row.get("profit_ratio"))
    if value is None:
        raise RowError(Reason.BAD_RR, f"profit_ratio is {row.get('profit_ratio')!r}, no number")
    return value


def _pattern(run: _Run, row: Mapping[str, Any], side: str) -> str:
    if not run.strategy:
        raise RowError(Reason.NO_PATTERN_KEY, "the trade has no strategy")
    tag = _first(row, "enter_tag", "buy_tag")
    return pattern_key(entry_pattern(run.strategy, side, tag))[1]


def _filled_orders(row: Mapping[str, Any]) -> list[_Order]:
    """The filled orders in time; an order that never filled has no time in an export."""
    orders = row.get("orders") or []
    if not isinstance(orders, list) or not all(isinstance(order, dict) for order in orders):
        raise RowError(Reason.BAD_PAYLOAD, "orders is no list of orders")
    filled = (order for order in orders if not is_absent(order.get("order_filled_timestamp")))
    found = [
        _Order(bool(order.get("ft_is_entry")), utc(order["order_filled_timestamp"]))
        for order in filled
    ]
    return sorted(found, key=lambda order: order.filled_at)


def _actions(
    run: _Run,
    row: Mapping[str, Any],
    trade_id: str,
    entry: tuple[str, str, datetime],
    orders: Sequence[_Order],
) -> tuple[Action, ...]:
    """Entry, adds and trims; the last exit closes the trade and decides nothing about size."""
    pair, side, opened_at = entry
    key = _pattern(run, row, side)
    timeframe = row.get("timeframe") or run.timeframe
    leverage = optional_number(row.get("leverage"))
    applied = _applied(row, run.applied)
    return tuple(
        Action(
            f"{trade_id}/{action_name(category, n)}",
            *("pm", key, category),
            scope(action_scope(pair, side, timeframe, leverage, at)),
            applied.get(action_name(category, n)),
        )
        for category, n, at in _moments(opened_at, orders)
    )


def _applied(row: Mapping[str, Any], reader: AppliedReader) -> dict[str, Applied]:
    """What was applied, by the name of the action; what cannot be read is the reader's to count."""
    raw = row.get(APPLIED)
    if is_absent(raw):
        return {}
    where = f"{row.get('pair')} opened at {_first(row, 'open_date', 'open_timestamp')}"
    try:
        documents = json_object(raw, APPLIED)
    except RowError as error:
        reader.refuse(error, where)
        return {}
    found = {
        name: reader.read(document, f"{name!r:.20} of {where}")
        for name, document in documents.items()
    }
    return {name: applied for name, applied in found.items() if applied is not None}


def _moments(opened_at: datetime, orders: Sequence[_Order]) -> Iterator[tuple[str, int, datetime]]:
    """Category, number from 1 and time of each action."""
    yield "entry", 1, opened_at
    adds = [order.filled_at for order in orders if order.is_entry][1:]
    trims = [order.filled_at for order in orders if not order.is_entry][:-1]
    for category, times in (("add", adds), ("trim", trims)):
        yield from ((category, n, at) for n, at in enumerate(times, 1))


def _priced(
    run: _Run,
    item: _Parsed | _Found,
    raw: Mapping[str, Any],
    named: float | None,
    own: tuple[float, RiskMeasure] | None,
) -> _Found:
    """The trade with its R-multiple, or rejected because nothing measures its risk."""
    if isinstance(item, _Found):
        return item
    trade = item.trade
    try:
        risk, measure = measured_risk(item.stop, named, own)
    except RowError as error:
        refused = rejected(
            trade.trade_id,
            error,
            raw,
            trade=trade.trade_id,
            closed_at=trade.closed_at,
            where=run.file,
        )
        return _Found(refused, trade.version, run.strategy)
    priced = trade._replace(rr=rr(item.profit_ratio / risk))
    return _Found(priced, trade.version, run.strategy, item.entry, measure, risk)


# Copies of one trade


def _without_conflicts(found: Sequence[_Found]) -> list[_Found]:
    """One of each trade id of a run; copies that disagree are rejected together."""
    copies: dict[str, list[_Found]] = {}
    for item in found:
        copies.setdefault(_identity(item.row), []).append(item)
    return [_agreed(items) for items in copies.values()]


def _identity(row: Row) -> str:
    return row.trade_id or (row.row_id if isinstance(row, RejectedRow) else "")


def _agreed(items: Sequence[_Found]) -> _Found:
    trades = [item.row for item in items if isinstance(item.row, ClosedTrade)]
    if len({(trade.rr, trade.closed_at) for trade in trades}) < 2:
        return next((item for item in items if isinstance(item.row, ClosedTrade)), items[0])
    error = RowError(
        Reason.CONFLICTING_ROWS, f"{len(trades)} trades of one export share this id and disagree"
    )
    outcomes = [payload({"rr": trade.rr, "closed_at": trade.closed_at}) for trade in trades]
    name = trades[0].trade_id
    return replace(
        items[0],
        row=rejected(name, error, {"trades": outcomes}, trade=name),
        entry=None,
        measure=None,
    )


def _newest(found: Iterable[_Found]) -> list[_Found]:
    """Of the copies of a trade the one with the newest version, among equals the last."""
    kept: dict[str, _Found] = {}
    for item in found:
        before = kept.setdefault(_identity(item.row), item)
        if not _is_older(item.version, before.version):
            kept[_identity(item.row)] = item
    return list(kept.values())


def _is_older(version: datetime | None, than: datetime | None) -> bool:
    if than is None:
        return False
    return version is None or version < than


# Notes


def _risk_notes(kept: Iterable[_Found]) -> Iterator[str]:
    of_measure: dict[tuple[str, RiskMeasure], list[_Found]] = {}
    for item in kept:
        if item.measure is not None:
            of_measure.setdefault((item.strategy, item.measure), []).append(item)
    for (strategy, measure), items in sorted(of_measure.items()):
        trades = counted(len(items), "trade")
        yield f"{strategy}: rr is profit ÷ {_measure_text(measure, items)} in {trades}."


def _measure_text(measure: RiskMeasure, items: Sequence[_Found]) -> str:
    if measure in (RiskMeasure.STOP, RiskMeasure.NAMED):
        return "stop loss" if measure is RiskMeasure.STOP else "the risk named with --risk"
    risks = sorted({f"{item.risk:.4f}" for item in items if item.risk is not None})
    n_losers = sum(isinstance(item.row, ClosedTrade) and item.row.rr < 0 for item in items)
    losers = counted(n_losers, "losing trade")
    what = f"mean loss of {losers}"
    if measure is RiskMeasure.EXCURSION:
        what = f"mean adverse excursion, since only {n_losers} of {len(items)} lost"
    return (
        f"{' or '.join(risks)} of the stake (the {what}, "
        f"and a stop of {EMERGENCY_STOP:.0%} or more, or none, measures nothing; "
        "--risk names a better one)"
    )


def _copy_notes(n_copies: int, kept: Sequence[_Found]) -> Iterator[str]:
    if n_copies:
        yield (
            f"{counted(n_copies, 'duplicate')} of trades (same strategy, pair, side and opening "
            "time) left out: each trade counts once, as the newest backtest run has it."
        )
    entries = Counter(item.entry for item in kept if item.entry is not None)
    n_trades = sum(entries.values())
    if len(entries) < n_trades:
        yield (
            f"{n_trades} trades come from only {len(entries)} different market entries (pair, "
            "side and opening time): several strategies took the same one, so they are not "
            "independent."
        )


def _open_notes(runs: Iterable[_Run]) -> Iterator[str]:
    n_open = sum(len(run.rows) - len(run.closed) for run in runs)
    if n_open:
        yield f"{counted(n_open, 'trade')} still open: to be counted once closed."
