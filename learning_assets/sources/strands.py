"""The source `strands`: closed trades from the table `ad_strands` of a running trading system.

Reads only, in one read-only transaction per call; what the fields of a row mean in general is in
`sources.parse`, writing a simulated table in `sources.demo`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import tuple_row
from pydantic_core import from_json, to_json

from learning_assets.core.records import (
    APPLIED,
    Action,
    ClosedTrade,
    Reason,
    RegimeReading,
    RejectedRow,
)
from learning_assets.core.scope import is_known_after_entry, normalise_value
from learning_assets.errors import DatabaseAwayError, UserError
from learning_assets.sources import parse
from learning_assets.sources.applied import AppliedReader
from learning_assets.sources.base import Changes, SourceSummary
from learning_assets.sources.parse import RowError

TABLE = "ad_strands"
COLUMNS = ("id", "kind", "trade_id", "content", "regime_context", "created_at", "updated_at")
"""The columns that are read; the table may have more."""

CLOSED, PM_ACTION, DECISION = "position_closed", "pm_action", "decision_lowcap"

SYNONYMS: Mapping[str, str] = {
    "curator_id": "curator",
    "token_chain": "chain",
    "bucket": "mcap_bucket",
}
"""Other names of scope dimensions; where both are given, the proper one counts."""

_ROWS_AT_ONCE = 200
_TABLE_KINDS = ("r", "p", "m")
_CONNECT_TIMEOUT_SECONDS = 10
_EXCERPT_CHARACTERS = 2000
_MOST_LEVELS = 64
_DRIVERS = ("btc", "alt", "bucket", "btcd", "usdtd")
_HORIZONS = ("macro", "meso", "micro")
_REGIME_STATES = tuple(f"{d}_{h}" for d in _DRIVERS for h in _HORIZONS)
_NESTING = frozenset((*_DRIVERS, *_HORIZONS))

# Only texts that certainly are timestamps are filtered by the database, by their date alone and
# with a day to spare for zones; all others come along and are judged here, so none gets lost and
# no text can make a cast fail.
_SAFE_TIMESTAMP = (
    r"^[12]\d{3}-((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
    r"([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?(Z|[+-](0\d|1[0-4]):[0-5]\d)?)?$"
)

# The day alone orders the trades: taken in so, the days of the events lie side by side. Sorted is
# where the rows are, and then they are looked up: to sort them whole would take ten times the room.
# OFFSET 0 keeps the planner from joining them in another way.
_OPEN = sql.SQL("""
DECLARE strands NO SCROLL CURSOR FOR
WITH closings AS (
  SELECT id, tableoid, ctid, {key} AS key, {version} AS version, {closed_at} AS closed_at
  FROM {table} AS s WHERE kind = 'position_closed'
), newest AS (
  SELECT DISTINCT ON (key COLLATE "C", CASE WHEN key IS NULL THEN id END COLLATE "C")
    key, id, tableoid, ctid,
    CASE WHEN closed_at ~ {safe} THEN left(closed_at, 10)::date END AS day
  FROM closings
  ORDER BY key COLLATE "C", CASE WHEN key IS NULL THEN id END COLLATE "C",
    version DESC NULLS LAST, id COLLATE "C" DESC
), chosen AS MATERIALIZED (
  SELECT * FROM newest WHERE day IS NULL OR day BETWEEN {first}::date AND {last}::date
), found AS (
  SELECT day, key, id, tableoid, ctid FROM chosen
  UNION ALL
  SELECT chosen.day, chosen.key, s.id, s.tableoid, s.ctid
  FROM chosen JOIN {table} AS s ON chosen.key = {key}
  WHERE s.kind IN ('pm_action', 'decision_lowcap')
)
SELECT found.key, found.id, row.*
FROM (SELECT * FROM found ORDER BY day, key COLLATE "C", id COLLATE "C") AS found
CROSS JOIN LATERAL (
  SELECT kind, {version}, content::text,
    CASE WHEN kind <> 'position_closed' THEN regime_context::text END FROM {table} AS s
  WHERE s.ctid = found.ctid AND s.tableoid = found.tableoid OFFSET 0
) AS row
ORDER BY day, key COLLATE "C", found.id COLLATE "C"
""")
_NEXT = sql.SQL("FETCH FORWARD {} FROM strands")

# Without statistics of the expressions the planner expects one trade, or sorts all rows twice.
_PLANNED = """
SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off;
SET LOCAL work_mem = '64MB'
"""

# A time that Python cannot hold (infinity, before Christ) orders nothing.
_IN_RANGE = "CASE WHEN s.{0}::timestamptz BETWEEN '1970-01-02Z' AND '9999-01-01Z' THEN s.{0} END"
_CREATED = sql.SQL(_IN_RANGE.format("created_at") + "::timestamptz")
_VERSION = sql.SQL(
    f"coalesce({_IN_RANGE.format('updated_at')}, {_IN_RANGE.format('created_at')})::timestamptz"
)
_INNER_KEY = "btrim(s.content ->> 'trade_id')"
_UUID = "'^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'"
_KEY = sql.SQL(
    "coalesce(nullif(btrim(s.trade_id::text), ''),"
    f" CASE WHEN {_INNER_KEY} ~ {_UUID} THEN lower({_INNER_KEY}) ELSE nullif({_INNER_KEY}, '') END)"
)
_CLOSED_AT = sql.SQL("(s.content #>> '{trade_summary,exit_timestamp}')")

_REGIME = sql.SQL("""
SELECT regime_context::text, {created} AS at FROM {table} AS s
WHERE jsonb_typeof(regime_context) = 'object' AND regime_context <> '{{}}'
ORDER BY at DESC NULLS LAST, id COLLATE "C" DESC LIMIT 100
""")

# A timestamp misses what commits late; the transactions that an earlier snapshot did not see do
# not. Row versions hold the lower half of their transaction's number; the upper half is that of
# the newest number below the present one. Joins, since a list of a hundred thousand changed keys
# outgrows the memory of IN, which then compares each row with each key.
_SNAPSHOT = "SELECT pg_current_snapshot()::text, pg_snapshot_xmax(pg_current_snapshot())::text"
_CHANGED = sql.SQL("""
WITH changed AS MATERIALIZED (
  SELECT {key} AS key, CASE WHEN kind = 'position_closed' THEN id END AS id FROM {table} AS s
  WHERE kind IN ('position_closed', 'pm_action', 'decision_lowcap')
    AND NOT pg_visible_in_snapshot(
      ({now} - (({now} - s.xmin::text::bigint) & 4294967295))::text::xid8, {since}::pg_snapshot)
)
SELECT {closed_at} FROM {table} AS s
JOIN (SELECT DISTINCT key FROM changed) AS changed ON changed.key = {key}
WHERE kind = 'position_closed'
UNION
SELECT {closed_at} FROM {table} AS s JOIN changed USING (id) WHERE kind = 'position_closed'
""")

Connect = Callable[[], AbstractContextManager[Connection[Any]]]


class _Row(NamedTuple):
    """A strand, its JSON loaded; `key` is its trade id, None where it has none.

    `regime` are the states of its regime context, not to be changed: rows share them. That of a
    closing is not read: it was unknown when the actions fired.
    """

    key: str | None
    row_id: str
    kind: str
    version: datetime | None
    content: object
    regime: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StrandsSource:
    """Closed trades from `<schema>.ad_strands`; see the protocol `sources.base.Source`.

    `connect` is a libpq address or a function that gives a connection of its own for each call.
    Of several closing rows of one trade the newest counts (updated_at, else created_at; then id).
    A trade's version is the newest of the rows that it was read from. One bad action among good
    ones is rejected alone, without the trade's id, since the trade itself stays.
    """

    connect: Connect | str
    schema: str = "public"

    @property
    def is_live(self) -> bool:
        """Trades keep coming."""
        return True

    @property
    def location(self) -> str:
        """The table's name, without address or password."""
        return f"{self.schema}.{TABLE}"

    def exists(self) -> bool:
        """Whether there is such a table, readable or not.

        Raises:
            UserError: when the database does not answer.
        """
        with self._asking() as conn:
            return bool(_columns(conn, self._quoted_name(conn)))

    def check(self) -> None:
        """Nothing, when the table can be read.

        Raises:
            UserError: no answer, no such table, columns missing, or no permission to read it.
        """
        with self._asking() as conn:
            self._check(conn)

    def summary(self) -> SourceSummary:
        """What the table holds; reads all of it, in bounded memory."""
        days: set[date] = set()
        counts = {ClosedTrade: 0, RejectedRow: 0}
        reader = _Reader(date.min, date.max)
        for found in self._read(reader):
            counts[type(found)] += 1
            if isinstance(found, ClosedTrade):
                days.add(found.closed_at.date())
        return SourceSummary(
            kind="strands",
            location=self.location,
            n_trades=counts[ClosedTrade],
            n_rejected=counts[RejectedRow],
            days=sorted(days),
            notes=reader.notes(),
        )

    def read(self, first: date, last: date) -> Iterator[ClosedTrade | RejectedRow]:
        """Trades and rejected rows that closed on the UTC days first … last, in any order.

        Rows whose closing time is unknown come with every window. Memory is bounded: rows are
        streamed from a server-side cursor, in one read-only snapshot.

        Raises:
            UserError: when the table cannot be read.
        """
        return self._read(_Reader(first, last))

    def regime(self) -> RegimeReading | None:
        """The newest regime_context that names a state, with the time at which it was written."""
        with self._asking() as conn:
            self._check(conn)
            query = _REGIME.format(created=_CREATED, table=self._table)
            rows = conn.cursor(row_factory=tuple_row).execute(query).fetchall()
        for text, at in rows:
            states = _regime_states(_loaded(text))
            if states and at is not None:
                return RegimeReading(states, at.astimezone(UTC))
        return None

    def changes(self, since: str | None) -> Changes:
        """The closing days of trades whose strands were committed after the snapshot `since`.

        A trade whose closing time cannot be read counts for no day: it comes with every window.
        Reads every row's header, and the content of those that changed.
        """
        with self._asking() as conn:
            self._check(conn)
            [(seen, now)] = conn.cursor(row_factory=tuple_row).execute(_SNAPSHOT).fetchall()
            query = _CHANGED.format(
                table=self._table,
                key=_KEY,
                closed_at=_CLOSED_AT,
                now=sql.Literal(int(now)),
                since=sql.Literal(since if _is_before(since, int(now)) else _NOTHING_SEEN),
            )
            found = conn.cursor(row_factory=tuple_row).execute(query).fetchall()
        return Changes(seen, sorted({day for (text,) in found for day in _closing_day(text)}))

    @property
    def _table(self) -> sql.Composable:
        return sql.Identifier(self.schema, TABLE)

    def _quoted_name(self, conn: Connection[Any]) -> str:
        """The quoted name of the table, as PostgreSQL's to_regclass wants it."""
        return self._table.as_string(conn)

    def _check(self, conn: Connection[Any]) -> None:
        name = self._quoted_name(conn)
        found = _columns(conn, name)
        if not found:
            raise UserError(
                f"there is no table {self.location} in the strands database: name the database"
                " that holds it in LEARNING_STRANDS_URL, or use another source"
            )
        missing = [column for column in COLUMNS if column not in found]
        if missing:
            raise UserError(
                f"the table {self.location} has no column {', '.join(missing)}; it has"
                f" {', '.join(found)}: point LEARNING_STRANDS_URL at"
                " the table of the trading system"
            )
        query = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)"
        [(kind,)] = conn.cursor(row_factory=tuple_row).execute(query, [name]).fetchall()
        if kind not in _TABLE_KINDS:
            raise UserError(
                f"{self.location} is a view or a foreign table, whose rows have no place of their"
                " own: name the database and schema of the table behind it in LEARNING_STRANDS_URL"
            )
        query = "SELECT has_table_privilege(to_regclass(%s), 'SELECT')"
        if not conn.cursor(row_factory=tuple_row).execute(query, [name]).fetchall()[0][0]:
            raise UserError(self._not_permitted())

    def _not_permitted(self) -> str:
        return (
            f"the user of the strands database may not read {self.location}:"
            f" grant it SELECT on that table and USAGE on the schema {self.schema}"
        )

    def _read(self, reader: _Reader) -> Iterator[ClosedTrade | RejectedRow]:
        with self._asking() as conn:
            self._check(conn)
            conn.execute(_PLANNED)
            conn.execute(self._query(reader.first, reader.last))
            with contextlib.closing(_ahead(conn)) as found:
                for key, strands in groupby(map(_row, found), key=attrgetter("key")):
                    # A row without a trade id stands alone.
                    for rows in [list(strands)] if key else ([row] for row in strands):
                        yield from reader.trade(rows)

    def _query(self, first: date, last: date) -> sql.Composed:
        day = timedelta(days=1)
        return _OPEN.format(
            table=self._table,
            key=_KEY,
            version=_VERSION,
            closed_at=_CLOSED_AT,
            safe=sql.Literal(_SAFE_TIMESTAMP),
            first=sql.Literal((first - day if first > date.min else first).isoformat()),
            last=sql.Literal((last + day if last < date.max else last).isoformat()),
        )

    @contextmanager
    def _asking(self) -> Iterator[Connection[Any]]:
        """A connection in a read-only snapshot; what goes wrong becomes one sentence."""
        try:
            with self._connection() as conn, conn.transaction():
                conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                conn.execute("SET LOCAL TIME ZONE 'UTC'")
                yield conn
        except psycopg.errors.InsufficientPrivilege:
            raise UserError(self._not_permitted()) from None
        except psycopg.OperationalError as error:
            raise DatabaseAwayError(self._unreadable(error)) from None
        except psycopg.Error as error:
            raise UserError(self._unreadable(error)) from None

    def _unreadable(self, error: psycopg.Error) -> str:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return (
            f"the strands in {self.location} cannot be read ({reason}): check the database"
            " in LEARNING_STRANDS_URL and the table"
        )

    def _connection(self) -> AbstractContextManager[Connection[Any]]:
        if not isinstance(self.connect, str):
            return self.connect()
        return psycopg.connect(
            self.connect,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        )


def _row(found: tuple[Any, ...]) -> _Row:
    key, row_id, kind, version, content, regime_context = found
    return _Row(key, row_id, kind, version, _loaded(content), _regime_of(regime_context))


def _ahead(conn: Connection[Any]) -> Generator[tuple[Any, ...]]:
    """The rows of the cursor; the server finds the next few while these are worked on.

    In one thread: two would take turns at the interpreter, which costs more than it brings.
    """
    fetch = _NEXT.format(sql.Literal(_ROWS_AT_ONCE))
    with conn.pipeline():
        coming = conn.cursor(row_factory=tuple_row).execute(fetch)
        while rows := coming.fetchall():
            coming = conn.cursor(row_factory=tuple_row).execute(fetch)
            yield from rows


_NOTHING_SEEN = "1:1:"


def _is_before(since: str | None, now: int) -> bool:
    """Whether a snapshot can be one of this server: one from the future is of another."""
    return since is not None and int(since.split(":")[1]) <= now


def _closing_day(text: str | None) -> Iterator[date]:
    """The UTC day of a closing time as a strand writes it; nothing where it cannot be read."""
    try:
        yield parse.utc(text).date()
    except RowError:
        return


def _columns(conn: Connection[Any], name: str) -> list[str]:
    rows = conn.cursor(row_factory=tuple_row).execute(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(%s)"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [name],
    )
    return [column for (column,) in rows]


# ---- the strands of one trade → a trade or rejected rows --------------------------------------


class _Closing(NamedTuple):
    """What a closing row says of its trade, besides the actions."""

    trade_id: str
    rr: float
    opened_at: datetime | None
    pnl_usd: float | None
    payback_hours: float | None
    context: dict[str, str]


@dataclass(slots=True)
class _Reader:
    """Turns the strands of one trade after the other into records, for one window of days."""

    first: date
    last: date
    left_out: set[str] = field(default_factory=set)
    applied: AppliedReader = field(default_factory=AppliedReader)

    def trade(self, rows: list[_Row]) -> Iterator[ClosedTrade | RejectedRow]:
        """The trade with its bad actions beside it, or one rejected row, or nothing.

        Nothing, where it closed outside the window.
        """
        [closing_row] = [row for row in rows if row.kind == CLOSED]
        closed_at: datetime | None = None
        try:
            content = _content(closing_row)
            summary = _mapping(content, "trade_summary")
            closed_at = parse.utc(summary.get("exit_timestamp"))
            if not self.first <= closed_at.date() <= self.last:
                return
            parse.check_closed_at(closed_at)
            closing = self._closing(closing_row, content, summary, closed_at)
            actions, bad = self._actions(closing, content, rows)
            if not actions:
                raise _without_actions(bad)
        except RowError as error:
            yield _rejected(closing_row, rows, error, closed_at)
            return
        yield _closed_trade(closing, actions, closed_at, rows)
        for row, reason in bad:
            yield _rejected_action(row, reason, closing.trade_id, closed_at)

    def notes(self) -> tuple[str, ...]:
        """What a person should know about the rows that were read."""
        notes = list(self.applied.notes())
        if self.left_out:
            names = ", ".join(sorted(self.left_out))
            notes.append(f"left out of the scopes, since only known after entry: {names}")
        return tuple(notes)

    def _closing(
        self,
        row: _Row,
        content: Mapping[str, Any],
        summary: Mapping[str, Any],
        closed_at: datetime,
    ) -> _Closing:
        payback_days = parse.optional_number(summary.get("time_to_payback_days"))
        # Below zero is how some write "never".
        is_known = payback_days is not None and payback_days >= 0
        return _Closing(
            trade_id=parse.trade_id(row.key),
            rr=parse.rr(summary.get("rr")),
            opened_at=_opened_at(summary, closed_at),
            pnl_usd=_first_number(summary, ("pnl_usd", "rpnl_usd", "total_pnl_usd")),
            payback_hours=payback_days * 24 if is_known and payback_days is not None else None,
            context=self._scope(content.get("entry_context"), "entry_context"),
        )

    def _actions(
        self, closing: _Closing, content: Mapping[str, Any], rows: list[_Row]
    ) -> tuple[list[Action], list[tuple[_Row, RowError]]]:
        """The usable actions, by id, and the others with what is wrong with them."""
        own = [row for row in rows if row.kind != CLOSED]
        if PM_ACTION not in [row.kind for row in own]:
            own += _embedded(closing.trade_id, content, {row.row_id for row in own})
        actions: dict[str, Action] = {}
        bad: list[tuple[_Row, RowError]] = []
        for row in own:
            try:
                actions[row.row_id] = self._action(row, closing.context)
            except RowError as error:
                bad.append((row, error))
        return [actions[name] for name in sorted(actions)], bad

    def _action(self, row: _Row, context: Mapping[str, str]) -> Action:
        content = _content(row)
        said = [content.get(name) for name in _SAID_OF_ACTIONS]
        fired = _fired(row.kind == DECISION, to_json(said, inf_nan_mode="constants"))
        if fired.left_out:
            self.left_out |= fired.left_out
        scope = {**row.regime, **context, **fired.scope}
        answer = content.get(APPLIED)
        applied = None if answer is None else self.applied.read(answer, row.row_id)
        return Action(row.row_id, fired.module, fired.pattern_key, fired.category, scope, applied)

    def _scope(self, raw: object, name: str) -> dict[str, str]:
        scope, left_out = _own_scope(raw, name)
        self.left_out |= left_out
        return scope


@dataclass(frozen=True, slots=True)
class _Fired:
    """What an action says of itself: the pattern that fired, as what, and its own scope."""

    module: str
    pattern_key: str
    category: str
    scope: Mapping[str, str]
    left_out: frozenset[str]


_SAID_OF_ACTIONS = ("pattern_key", "action_category", "scope")


@lru_cache(16384)
def _fired(is_decision: bool, said: bytes) -> _Fired:
    """What was said as JSON: many actions say the same, and JSON tells 1 from true and from "1"."""
    raw_key, category, raw_scope = from_json(said)
    if is_decision and parse.is_absent(category):
        category = "allocation"
    is_dm = is_decision or str(category).strip().lower() == "allocation"
    module, key = parse.pattern_key(raw_key, "dm" if is_dm else "pm")
    scope, left_out = _own_scope(raw_scope, "scope")
    return _Fired(module, key, parse.category(category, module), scope, left_out)


def _own_scope(raw: object, name: str) -> tuple[dict[str, str], frozenset[str]]:
    """The normalised scope, synonyms resolved, and the names in it only known after entry.

    These are left out of the scope.
    """
    if raw is None:
        return {}, frozenset()
    if not isinstance(raw, dict):
        raise RowError(Reason.BAD_SCOPE, f"{name} is {_kind(raw)}, not an object")
    scope = parse.scope(raw)
    for synonym, dimension in SYNONYMS.items():
        if synonym in scope:
            scope.setdefault(dimension, scope.pop(synonym))
    leaking = _known_after_entry(tuple(scope))
    if leaking:
        scope = {d: v for d, v in scope.items() if d not in leaking}
    return scope, leaking


@lru_cache(4096)
def _known_after_entry(dims: tuple[str, ...]) -> frozenset[str]:
    return frozenset(filter(is_known_after_entry, dims))


def _closed_trade(
    closing: _Closing, actions: list[Action], closed_at: datetime, rows: list[_Row]
) -> ClosedTrade:
    versions = [row.version for row in rows if row.version is not None]
    return ClosedTrade(
        trade_id=closing.trade_id,
        rr=closing.rr,
        closed_at=closed_at,
        actions=tuple(actions),
        opened_at=closing.opened_at,
        pnl_usd=closing.pnl_usd,
        payback_hours=closing.payback_hours,
        version=max(versions).astimezone(UTC) if versions else None,
    )


def _without_actions(bad: list[tuple[_Row, RowError]]) -> RowError:
    if not bad:
        return RowError(
            Reason.NO_ACTIONS, "no pm_action row, allocation or completed_trades action names it"
        )
    row, error = bad[0]
    return RowError(
        error.reason, f"none of its {len(bad)} actions can be used: {row.row_id}: {error.detail}"
    )


def _embedded(trade_id: str, content: Mapping[str, Any], decisions: set[str]) -> list[_Row]:
    """The actions inside the closing row; its allocations only where no decision row has them."""
    rows, taken = [], set(decisions)
    for k, raw in enumerate(_raw_embedded(content.get("completed_trades"))):
        action = raw if isinstance(raw, dict) else {}
        if decisions and str(action.get("action_category")).strip().lower() == "allocation":
            continue
        name = str(action.get("id") or f"{trade_id}#{k}")
        name = f"{name}#{k}" if name in taken else name
        taken.add(name)
        regime = _regime_states(action.get("regime_context"))
        rows.append(_Row(trade_id, name, PM_ACTION, None, raw, regime))
    return rows


def _raw_embedded(completed: object) -> Iterator[object]:
    for trade in completed if isinstance(completed, list) else []:
        actions = trade.get("actions") if isinstance(trade, dict) else None
        yield from actions if isinstance(actions, list) else []


def _opened_at(summary: Mapping[str, Any], closed_at: datetime) -> datetime | None:
    """When the trade opened: as it says, else the closing less the time that it was held."""
    opened_at = parse.optional_utc(summary.get("entry_timestamp"))
    if opened_at is None:
        days = parse.optional_number(summary.get("hold_time_days"))
        hours = parse.optional_number(summary.get("duration_hours"))
        if days is None and hours is None:
            return None
        opened_at = _earlier(closed_at, days * 24 if days is not None else hours or 0.0)
    if opened_at > closed_at:
        raise RowError(
            Reason.BAD_TIMESTAMP,
            f"opened at {opened_at.isoformat()}, after it closed at {closed_at.isoformat()}",
        )
    return opened_at


def _earlier(at: datetime, hours: float) -> datetime:
    try:
        return at - timedelta(hours=hours)
    except OverflowError:
        raise RowError(Reason.BAD_TIMESTAMP, f"held for {hours} hours, which cannot be") from None


def _first_number(summary: Mapping[str, Any], names: Iterable[str]) -> float | None:
    numbers = (parse.optional_number(summary.get(name)) for name in names)
    return next((number for number in numbers if number is not None), None)


def _regime_states(raw: object) -> dict[str, str]:
    """The known regime states of a context: flat (`btc_macro`) or nested in either order."""
    if not isinstance(raw, dict):
        return {}
    given = raw if _NESTING.isdisjoint(raw) else {**_flattened(raw), **raw}
    states = {}
    for name in _REGIME_STATES:
        value = given.get(name)
        if isinstance(value, (str, int)) and (text := normalise_value(value)):
            states[name] = text
    return states


@lru_cache(4096)
def _regime_of(text: str | None) -> Mapping[str, str]:
    """The states of a regime context as it is written: many rows have the same."""
    return _regime_states(_loaded(text))


def _flattened(raw: Mapping[str, object]) -> dict[str, object]:
    found = {}
    for driver in _DRIVERS:
        for horizon in _HORIZONS:
            nested = (_member(raw.get(driver), horizon), _member(raw.get(horizon), driver))
            found[f"{driver}_{horizon}"] = next((v for v in nested if v is not None), None)
    return found


def _member(raw: object, name: str) -> object:
    return raw.get(name) if isinstance(raw, dict) else None


def _content(row: _Row) -> Mapping[str, Any]:
    if not isinstance(row.content, dict):
        raise RowError(Reason.BAD_PAYLOAD, f"the content is {_kind(row.content)}, not an object")
    return row.content


def _mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = content.get(name)
    if not isinstance(found, dict):
        raise RowError(Reason.BAD_PAYLOAD, f"{name} is {_kind(found)}, not an object")
    return found


def _kind(raw: object) -> str:
    if raw is None:
        return "missing"
    names = {str: "text", list: "a list", bool: "a boolean", _Unreadable: "unreadable JSON"}
    return names.get(type(raw), "a number")


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """JSON that PostgreSQL holds and Python does not: nested too deeply, endless numbers."""

    excerpt: str


def _loaded(text: str | None) -> object:
    if text is None:
        return None
    try:
        value = from_json(text)
    except (ValueError, RecursionError):
        return _Unreadable(text[:_EXCERPT_CHARACTERS])
    if text.count("[") + text.count("{") > _MOST_LEVELS and _is_too_deep(value):
        return _Unreadable(text[:_EXCERPT_CHARACTERS])
    return value


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(parent: object) -> Iterable[object]:
    if isinstance(parent, dict):
        return parent.values()
    return parent if isinstance(parent, list) else ()


# ---- rejected rows ----------------------------------------------------------------------------


def _rejected(
    closing: _Row, rows: list[_Row], error: RowError, closed_at: datetime | None
) -> RejectedRow:
    actions = [row for row in rows if row.kind != CLOSED]
    raw = {**_payload(closing), "actions": [_payload(row) for row in actions]}
    return parse.rejected(closing.row_id, error, raw, trade=closing.key, closed_at=closed_at)


def _rejected_action(row: _Row, error: RowError, trade: str, at: datetime) -> RejectedRow:
    where = f"an action of trade {trade}"
    return parse.rejected(row.row_id, error, _payload(row), closed_at=at, where=where)


def _payload(row: _Row) -> dict[str, Any]:
    """The row as it was, an excerpt of its content where that could not be loaded."""
    content = row.content.excerpt if isinstance(row.content, _Unreadable) else row.content
    return {"id": row.row_id, "kind": row.kind, "trade_id": row.key, "content": content}
