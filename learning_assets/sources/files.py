"""Closed trades from CSV and Parquet files, by canonical columns or through a small mapping.

One row is a closed trade or one action of it; the rows of a trade share its id and must agree on
rr and closing time. What a field may hold is decided in `sources.parse`.

A mapping file (TOML or JSON) says which columns hold what:

    scope = ["pair", "timeframe"]          # or a table: dimension = column

    [columns]
    trade_id = ["pair", "open_date"]       # several columns: joined
    closed_at = "close_date"
    profit_ratio = "profit_ratio"          # rr = profit_ratio ÷ risk, or give rr itself
    risk = "initial_stop_loss_ratio"

    [constants]                            # the same in every row
    pattern_key = "pm.breakout.long.entry"
    action_category = "entry"
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import re
import tomllib
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeGuard, TypeVar

import pyarrow as pa
import pyarrow.parquet

from learning_assets.core.records import (
    APPLIED,
    Action,
    ClosedTrade,
    Reason,
    RegimeReading,
    RejectedRow,
)
from learning_assets.core.scope import is_known_after_entry, normalise_scope
from learning_assets.errors import UserError
from learning_assets.sources.applied import AppliedReader
from learning_assets.sources.parse import (
    EMERGENCY_STOP,
    Batch,
    BatchSource,
    RiskMeasure,
    Row,
    RowError,
    batch,
    category,
    check_closed_at,
    check_order,
    checked_risk,
    counted,
    is_absent,
    key_part,
    measured_risk,
    names_no_zone,
    optional_number,
    optional_utc,
    own_risk,
    pattern_key,
    payload,
    read_bytes,
    rejected,
    rr,
    scope,
    trade_id,
    usable_stop,
    utc,
)

FIELDS: Final = (
    "trade_id",
    "closed_at",
    "rr",
    "pattern_key",
    "action_category",
    "module",
    "opened_at",
    "pnl_usd",
    "payback_hours",
    "profit_ratio",
    "risk",
    APPLIED,
)
"""What a column can hold, besides scope dimensions."""

REGIME_DIMENSIONS: Final = frozenset(
    f"{market}_{horizon}"
    for market in ("btc", "alt", "bucket", "btcd", "usdtd")
    for horizon in ("macro", "meso", "micro")
)
"""Scope dimensions that say in which regime the market was."""

SCOPE_PREFIX: Final = "scope."

_CONSTANTS: Final = frozenset({"module", "pattern_key", "action_category", "risk"})
_JOINED: Final = frozenset({"trade_id", "pattern_key"})
_SEPARATORS: Final = ",;\t"
_LISTED_COLUMNS: Final = 40
_SAMPLE_ROWS: Final = 1000
_SHOWN_CONFLICTS: Final = 10

_T = TypeVar("_T")


class MappingNeededError(UserError):
    """The columns do not fit; `proposal` is the text of a mapping file (TOML) to start from."""

    def __init__(self, message: str, proposal: str) -> None:
        super().__init__(message)
        self.proposal = proposal


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Which columns hold what.

    `columns`: field → column names (several are joined), `constants`: field → the value of every
    row, `scope`: dimension → column.
    """

    columns: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, object]
    scope: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Table:
    """A file as read. `first_row` is the number that a person sees at its first row of data."""

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    first_row: int

    @property
    def name(self) -> str:
        """The file's name, for sentences."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class _Line:
    """A usable row: an action and the trade that it belongs to. `outcome` is rr, or a ratio."""

    number: int
    trade_id: str
    closed_at: datetime
    opened_at: datetime | None
    pnl_usd: float | None
    payback_hours: float | None
    outcome: float
    stop: float | None
    action: Action
    values: Sequence[object]


@dataclass(frozen=True, slots=True)
class _Trade:
    """A trade before its R-multiple is known, with its first row (as read) for a rejection."""

    trade: ClosedTrade
    outcome: float
    stop: float | None
    raw: Mapping[str, object]


class FileSource(BatchSource):
    """Trades of one or more CSV or Parquet files; of a trade in several the last file counts.

    `risk` (a fraction of the stake) is used where rr is derived from profit ratios and a row has
    no usable stop. `force_scope` lets dimensions through that are known only after entry.
    """

    kind = "files"

    def __init__(
        self,
        location: Path,
        paths: Sequence[Path],
        *,
        mapping: ColumnMapping | None = None,
        risk: float | None = None,
        force_scope: bool = False,
    ) -> None:
        super().__init__(location, paths)
        self._mapping = mapping or ColumnMapping({}, {}, {})
        self._risk = checked_risk(risk)
        self._force_scope = force_scope

    @property
    def is_live(self) -> bool:
        """False: a file is what it is."""
        return False

    def _load(self) -> Batch:
        kept: dict[str, Row] = {}
        notes: dict[str, None] = {}
        for path in self._paths:
            rows, said = self._file(path)
            kept.update({_identity(row): row for row in rows})
            notes.update(dict.fromkeys(said))
        trades = [row for row in kept.values() if isinstance(row, ClosedTrade)]
        return batch(kept.values(), list(notes), _newest_regime(trades))

    def _file(self, path: Path) -> tuple[list[Row], list[str]]:
        table = read_table(path)
        mapping = _fitted(table, self._mapping, path)
        if not self._force_scope:
            _refuse_leaks(mapping, path)
        reader = _Reader(table, mapping)
        lines, refused = reader.lines()
        whole, conflicting, n_repeated = _whole_trades(table, lines)
        named = self._risk if self._risk is not None else _named_risk(mapping)
        derived = "rr" not in mapping.columns
        priced, measures = _priced(whole, derived, named)
        rows = [*priced, *conflicting, *_kept_apart(refused, priced)]
        notes = [*_notes(table, mapping, n_repeated, measures), *reader.applied.notes()]
        return rows, notes


def _identity(row: Row) -> str:
    # A refused row beside a usable trade has no trade id of its own and must not replace it.
    return row.trade_id if isinstance(row, ClosedTrade) else row.trade_id or f"row {row.row_id}"


# Files → tables


def read_table(path: Path) -> _Table:
    """A `.csv`, `.csv.gz` or `.parquet` file, whole.

    Raises:
        UserError: when it cannot be read, is empty, has no rows, or is not of its format.
    """
    content = read_bytes(path)
    name = path.name.lower()
    table = _parquet(path, content) if name.endswith((".parquet", ".pq")) else _csv(path, content)
    if not table.rows:
        raise UserError(f"{path} has a header but no rows: give a file with closed trades")
    twice = [column for column, count in Counter(table.columns).items() if column and count > 1]
    if twice:
        raise UserError(f"{path} has two columns of the name {twice[0]!r}: rename one")
    return table


def _parquet(path: Path, content: bytes) -> _Table:
    try:
        found = pyarrow.parquet.read_table(io.BytesIO(content))
        columns = [column.to_pylist() for column in found.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a readable Parquet file ({reason})") from None
    names = tuple(name.strip() for name in found.column_names)
    return _Table(path, names, list(zip(*columns, strict=True)), first_row=1)


def _csv(path: Path, content: bytes) -> _Table:
    try:
        plain = gzip.decompress(content) if path.name.lower().endswith(".gz") else content
        text = plain.decode("utf-8-sig")
        if "\x00" in text[:4096]:
            raise UnicodeError("it holds binary data")
        header, *rows = _records(text) or [[]]
    except (OSError, EOFError, zlib.error, UnicodeError, csv.Error) as error:
        raise UserError(
            f"{path} is not a CSV file in UTF-8 ({error}): export it as CSV again"
        ) from None
    columns = tuple(column.strip() for column in header)
    if not any(columns):
        raise UserError(f"{path} has no header: its first line must name the columns")
    return _Table(path, columns, rows if any(rows) else [], first_row=2)


def _records(text: str) -> list[list[str]]:
    head = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=head.count)
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


# Mappings


def load_mapping(path: Path) -> ColumnMapping:
    """The mapping in a `.toml` or `.json` file (see the head of this module).

    Raises:
        UserError: when it cannot be read or holds anything that is not part of a mapping.
    """
    document = _mapping_document(path)
    unknown = sorted(set(document) - {"columns", "constants", "scope"})
    if unknown:
        raise UserError(
            f"the mapping {path} has the unknown key {unknown[0]!r}: "
            "known are columns, constants and scope"
        )
    return ColumnMapping(
        _mapped_columns(path, _section(path, document, "columns")),
        _checked_constants(path, _section(path, document, "constants")),
        _mapped_scope(path, document.get("scope", [])),
    )


def _mapping_document(path: Path) -> Mapping[str, Any]:
    content = read_bytes(path)
    if path.suffix.lower() not in {".toml", ".json"}:
        raise UserError(f"the mapping {path} must be a .toml or .json file")
    try:
        text = content.decode("utf-8-sig")
        document = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the mapping {path} is not valid {path.suffix[1:]}: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"the mapping {path} must be an object with columns, constants and scope")
    return document


def _section(path: Path, document: Mapping[str, Any], name: str) -> Mapping[str, object]:
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise UserError(f"{name} of the mapping {path} must be a table of field = value")
    return section


def _mapped_columns(path: Path, section: Mapping[str, object]) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for field, raw in section.items():
        if field not in FIELDS:
            raise UserError(
                f"the mapping {path} names the unknown field {field!r}: "
                f"known are {', '.join(FIELDS)}"
            )
        listed = raw if isinstance(raw, list) else [raw]
        names = tuple(name for name in listed if isinstance(name, str))
        if not names or len(names) < len(listed):
            raise UserError(f"columns.{field} of the mapping {path} must name a column")
        if len(names) > 1 and field not in _JOINED:
            raise UserError(
                f"columns.{field} of the mapping {path} must be one column: "
                f"only {' and '.join(sorted(_JOINED))} can be joined from several"
            )
        found[field] = names
    return found


def _checked_constants(path: Path, section: Mapping[str, object]) -> Mapping[str, object]:
    for field, value in section.items():
        if field not in _CONSTANTS:
            raise UserError(
                f"the mapping {path} has the unknown constant {field!r}: "
                f"known are {', '.join(sorted(_CONSTANTS))}"
            )
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number if field != "risk" else not is_number:
            kind = "a number" if field == "risk" else "text"
            raise UserError(f"constants.{field} of the mapping {path} must be {kind}")
    _named_risk(ColumnMapping({}, section, {}))
    return section


def _mapped_scope(path: Path, section: object) -> Mapping[str, str]:
    named: dict[str, str] | None = None
    if _all_text(section):
        named = {name: name for name in section}
    elif isinstance(section, dict) and _all_text(list(section.values())):
        named = section
    if named is None:
        raise UserError(
            f"scope of the mapping {path} must list columns, or be a table of dimension = column"
        )
    return {name.removeprefix(SCOPE_PREFIX): column for name, column in named.items()}


def _all_text(values: object) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _named_risk(mapping: ColumnMapping) -> float | None:
    return checked_risk(optional_number(mapping.constants.get("risk")))


def _fitted(table: _Table, mapping: ColumnMapping, path: Path) -> ColumnMapping:
    """The mapping with the canonical columns filled in beneath it, checked against the table."""
    columns: dict[str, tuple[str, ...]] = {
        name: (name,) for name in FIELDS if name in table.columns and name not in mapping.constants
    }
    columns.update(mapping.columns)
    dimensions = {
        name.removeprefix(SCOPE_PREFIX): name
        for name in table.columns
        if name.startswith(SCOPE_PREFIX) and len(name) > len(SCOPE_PREFIX)
    }
    fitted = ColumnMapping(columns, mapping.constants, {**dimensions, **mapping.scope})
    _check_columns_exist(table, fitted, path)
    _check_complete(table, fitted, path)
    return fitted


def _check_columns_exist(table: _Table, mapping: ColumnMapping, path: Path) -> None:
    wanted = [name for names in mapping.columns.values() for name in names]
    missing = [name for name in (*wanted, *mapping.scope.values()) if name not in table.columns]
    if missing:
        raise UserError(
            f"the mapping names the column {missing[0]!r}, which {path} does not have; "
            f"its columns are: {_listed(table.columns)}"
        )


def _check_complete(table: _Table, mapping: ColumnMapping, path: Path) -> None:
    known = {*mapping.columns, *mapping.constants}
    missing = [name for name in ("trade_id", "closed_at") if name not in known]
    if not known & {"rr", "profit_ratio"}:
        missing.append("rr")
    missing += [name for name in ("pattern_key", "action_category") if name not in known]
    if missing:
        what = "column" if len(missing) == 1 else "columns"
        derive = " (nor profit_ratio, to derive rr from)" if "rr" in missing else ""
        raise MappingNeededError(
            f"{path} has no {what} {', '.join(missing)}{derive}; its columns are: "
            f"{_listed(table.columns)}; say which holds what in a mapping file (--mapping PATH)",
            propose_mapping(table.columns, table.rows[:_SAMPLE_ROWS]),
        )


def _listed(columns: Sequence[str]) -> str:
    names = [name[:_LISTED_COLUMNS] for name in columns[:_LISTED_COLUMNS] if name]
    return ", ".join(names) + (", …" if len(columns) > _LISTED_COLUMNS else "")


def _refuse_leaks(mapping: ColumnMapping, path: Path) -> None:
    for dimension, column in mapping.scope.items():
        for name in (dimension, column.removeprefix(SCOPE_PREFIX)):
            if is_known_after_entry(name):
                raise UserError(
                    f"{name!r} cannot be a scope dimension of {path}: it is known only after the "
                    "entry, so what is learned from it cannot be used at the next one; "
                    "leave it out, or force it with --force-scope"
                )


# Rows → lines


def _action_id(
    trade: str, key: str, kind: str, scope: Mapping[str, str], seen: Counter[str]
) -> str:
    """An id that says what the action is, not where its row stood; repeats are counted."""
    content = "|".join([key, kind, *(f"{dim}={value}" for dim, value in sorted(scope.items()))])
    name = f"{trade}/{kind}-{zlib.crc32(content.encode()):08x}"
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}-{seen[name]}"


class _Reader:
    """Reads the rows of a table; texts that come again are not parsed again."""

    def __init__(self, table: _Table, mapping: ColumnMapping) -> None:
        self._table = table
        self._constants = mapping.constants
        place = {name: index for index, name in enumerate(table.columns)}
        self._places = {
            field: tuple(place[name] for name in names) for field, names in mapping.columns.items()
        }
        self._dimensions = tuple(mapping.scope)
        self._scope_places = tuple(place[name] for name in mapping.scope.values())
        self._utc = _remembering(utc)
        self._optional_utc = _remembering(optional_utc)
        self._pattern = _remembering(pattern_key)
        self._category = _remembering(category)
        self._scope = _remembering(self._scope_of)
        self.applied = AppliedReader()

    def lines(self) -> tuple[list[_Line], list[RejectedRow]]:
        """The usable rows and the refused ones."""
        good: list[_Line] = []
        refused: list[RejectedRow] = []
        ordinals: Counter[str] = Counter()
        for number, values in enumerate(self._table.rows, self._table.first_row):
            if not any(values):  # a blank line, or one of separators alone
                continue
            found = self._line(number, values, ordinals)
            if isinstance(found, _Line):
                good.append(found)
            else:
                refused.append(found)
        return good, refused

    def _line(
        self, number: int, values: Sequence[object], ordinals: Counter[str]
    ) -> _Line | RejectedRow:
        name: str | None = None
        closed_at: datetime | None = None
        try:
            self._check_width(values)
            name = self._trade_id(values)
            ordinals[name] += 1
            at = self._utc(self._value("closed_at", values))
            check_closed_at(at)
            closed_at = at
            return self._usable(number, values, name, at, ordinals)
        except RowError as error:
            # By id and ordinal where they are known: row numbers shift when rows are inserted.
            place = f"row {number}" if name is None else f"{name}:{ordinals[name]}"
            row_id = f"{self._table.path}:{place}"
            raw, where = _raw(self._table, values), f"row {number} of {self._table.name}"
            return rejected(row_id, error, raw, trade=name, closed_at=closed_at, where=where)

    def _usable(
        self, number: int, values: Sequence[object], name: str, at: datetime, ordinals: Counter[str]
    ) -> _Line:
        opened_at = self._optional_utc(self._value("opened_at", values))
        check_order(opened_at, at)
        key_text = self._pattern_text(values)
        module, key = self._pattern(key_text, self._value("module", values))
        kind = self._category(self._value("action_category", values), module)
        in_scope = self._scope(*(values[place] for place in self._scope_places))
        action_id = _action_id(name, key, kind, in_scope, ordinals)
        where = f"row {number} of {self._table.name}"
        applied = self.applied.read(self._value(APPLIED, values), where)
        return _Line(
            number,
            name,
            at,
            opened_at,
            self._number("pnl_usd", values),
            self._number("payback_hours", values),
            self._outcome(values),
            self._stop(values),
            Action(action_id, module, key, kind, in_scope, applied),
            values,
        )

    def _check_width(self, values: Sequence[object]) -> None:
        if len(values) != len(self._table.columns):
            raise RowError(
                Reason.BAD_PAYLOAD,
                f"{len(values)} fields where the header has {len(self._table.columns)}",
            )

    def _value(self, field: str, values: Sequence[object]) -> object:
        places = self._places.get(field)
        return values[places[0]] if places else self._constants.get(field)

    def _trade_id(self, values: Sequence[object]) -> str:
        return ":".join(trade_id(values[place]) for place in self._places["trade_id"])

    def _pattern_text(self, values: Sequence[object]) -> object:
        places = self._places.get("pattern_key", ())
        if len(places) < 2:
            return self._value("pattern_key", values)
        parts = [values[place] for place in places]
        return ".".join("none" if is_absent(part) else key_part(part) for part in parts)

    def _number(self, field: str, values: Sequence[object]) -> float | None:
        try:
            return optional_number(self._value(field, values))
        except RowError as error:
            raise RowError(error.reason, f"{field}: {error.detail}") from None

    def _outcome(self, values: Sequence[object]) -> float:
        if "rr" in self._places:
            return rr(self._value("rr", values))
        raw = self._value("profit_ratio", values)
        try:
            ratio = optional_number(raw)
        except RowError:
            ratio = None
        if ratio is None:
            raise RowError(Reason.BAD_RR, f"profit_ratio is {raw!r}, which is no finite number")
        return ratio

    def _stop(self, values: Sequence[object]) -> float | None:
        """The usable stop of the row's own column; a constant risk is the user's, not a stop."""
        if "rr" in self._places or "risk" not in self._places:
            return None
        return usable_stop(self._number("risk", values))

    def _scope_of(self, *values: object) -> Mapping[str, str]:
        return scope(dict(zip(self._dimensions, values, strict=True)))


def _remembering(function: Callable[..., _T]) -> Callable[..., _T]:
    """`function` with a memory; values that cannot be remembered (lists) are computed again."""
    memory = lru_cache(maxsize=100_000, typed=True)(function)

    def remembered(*args: Any) -> _T:
        try:
            return memory(*args)
        except TypeError:
            return function(*args)

    return remembered


def _raw(table: _Table, values: Sequence[object]) -> dict[str, object]:
    names = [*table.columns, *(f"field {n}" for n in range(len(table.columns), len(values)))]
    return dict(zip(names, values, strict=False))


# Lines → trades


def _whole_trades(
    table: _Table, lines: Sequence[_Line]
) -> tuple[list[_Trade], list[RejectedRow], int]:
    """Trades from their rows, rejections of those whose rows disagree, number of repeated rows."""
    unlike = {(line.trade_id, repr(line.values)): line for line in lines}
    of_trade: defaultdict[str, list[_Line]] = defaultdict(list)
    for line in unlike.values():
        of_trade[line.trade_id].append(line)
    whole: list[_Trade] = []
    conflicting: list[RejectedRow] = []
    for same in of_trade.values():
        if len({(line.closed_at, line.outcome, line.stop) for line in same}) == 1:
            whole.append(_one_trade(table, same))
        else:
            conflicting.append(_conflict(table, same))
    return whole, conflicting, len(lines) - len(unlike)


def _one_trade(table: _Table, lines: Sequence[_Line]) -> _Trade:
    first = lines[0]
    trade = ClosedTrade(
        first.trade_id,
        rr=0.0,  # until the risk is known
        closed_at=first.closed_at,
        actions=tuple(line.action for line in lines),
        opened_at=min((line.opened_at for line in lines if line.opened_at), default=None),
        pnl_usd=_first_known(line.pnl_usd for line in lines),
        payback_hours=_first_known(line.payback_hours for line in lines),
    )
    return _Trade(trade, first.outcome, first.stop, _raw(table, first.values))


def _first_known(values: Iterable[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)


def _conflict(table: _Table, lines: Sequence[_Line]) -> RejectedRow:
    shown = lines[:_SHOWN_CONFLICTS]
    numbers = ", ".join(str(line.number) for line in shown)
    error = RowError(
        Reason.CONFLICTING_ROWS,
        f"{len(lines)} rows of {table.name} ({numbers}{', …' if len(shown) < len(lines) else ''}) "
        "disagree on the outcome or closed_at",
    )
    times = {line.closed_at for line in lines}
    return rejected(
        f"{table.path}:{lines[0].trade_id}",
        error,
        {"rows": [payload(_raw(table, line.values)) for line in shown]},
        trade=lines[0].trade_id,
        closed_at=times.pop() if len(times) == 1 else None,
    )


def _priced(
    trades: Sequence[_Trade], derived: bool, named: float | None
) -> tuple[list[Row], Counter[RiskMeasure]]:
    """The trades with their R-multiples; those whose risk nothing measures are rejected."""
    if not derived:
        return [item.trade._replace(rr=item.outcome) for item in trades], Counter()
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    for item in trades:
        ratios[_pattern_of(item)].append(item.outcome)
    own = {key: own_risk(values, ()) for key, values in ratios.items()}
    measures: Counter[RiskMeasure] = Counter()
    rows = [_priced_trade(item, named, own[_pattern_of(item)], measures) for item in trades]
    return rows, measures


def _pattern_of(item: _Trade) -> str:
    return item.trade.actions[0].pattern_key


def _priced_trade(
    item: _Trade,
    named: float | None,
    own: tuple[float, RiskMeasure] | None,
    measures: Counter[RiskMeasure],
) -> Row:
    trade = item.trade
    try:
        risk, measure = measured_risk(item.stop, named, own)
    except RowError as error:
        name = trade.trade_id
        return rejected(name, error, item.raw, trade=name, closed_at=trade.closed_at)
    measures[measure] += 1
    return trade._replace(rr=rr(item.outcome / risk))


def _kept_apart(refused: Iterable[RejectedRow], rows: Iterable[Row]) -> Iterator[RejectedRow]:
    """The refused rows, without the id of a trade that its other rows make usable."""
    usable = {row.trade_id for row in rows if isinstance(row, ClosedTrade)}
    for row in refused:
        yield row._replace(trade_id=None) if row.trade_id in usable else row


# What a run should say


def _notes(
    table: _Table, mapping: ColumnMapping, n_repeated: int, measures: Counter[RiskMeasure]
) -> Iterator[str]:
    zoneless = [name for name in ("closed_at", "opened_at") if _is_zoneless(table, mapping, name)]
    if zoneless:
        yield f"Times without a zone ({', '.join(zoneless)}) are read as UTC."
    if n_repeated:
        rows = counted(n_repeated, "row")
        yield f"{rows} of {table.name} left out: exactly the same as another row."
    for measure, n_trades in sorted(measures.items()):
        yield f"rr is profit ÷ {_measure_text(measure)} in {counted(n_trades, 'trade')}."
    used = {
        *mapping.scope.values(),
        *(name for names in mapping.columns.values() for name in names),
    }
    unused = [name for name in table.columns if name and name not in used]
    if unused:
        yield f"Columns not used: {_listed(unused)}."


def _is_zoneless(table: _Table, mapping: ColumnMapping, field: str) -> bool:
    if field not in mapping.columns:
        return False
    place = table.columns.index(mapping.columns[field][0])
    return any(len(row) > place and names_no_zone(row[place]) for row in table.rows)


def _measure_text(measure: RiskMeasure) -> str:
    if measure is RiskMeasure.STOP:
        return "stop loss"
    if measure is RiskMeasure.NAMED:
        return "the named risk"
    return (
        "the mean loss of the pattern's losing trades (since a stop of "
        f"{EMERGENCY_STOP:.0%} or more, or none, measures nothing; --risk names a better one)"
    )


def _newest_regime(trades: Iterable[ClosedTrade]) -> RegimeReading | None:
    """The regime states of the newest action that has any; seen when its trade was opened."""
    newest: RegimeReading | None = None
    for trade in trades:
        at = trade.opened_at or trade.closed_at
        if newest is not None and at <= newest.at:
            continue
        states = [_regime_states(action.scope) for action in trade.actions]
        if any(states):
            newest = RegimeReading(next(found for found in states if found), at)
    return newest


def _regime_states(in_scope: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in in_scope.items() if name in REGIME_DIMENSIONS}


# Proposals

_KNOWN_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "trade_id": ("trade_id", "id", "position_id", "deal_id", "ticket", "trade_no", "trade"),
    "closed_at": (
        "closed_at", "close_date", "close_time", "exit_date", "exit_time", "exit_timestamp",
        "close_timestamp", "date_closed", "sell_date", "closed",
    ),
    "opened_at": (
        "opened_at", "open_date", "open_time", "entry_date", "entry_time", "entry_timestamp",
        "open_timestamp", "date_opened", "buy_date", "opened",
    ),
    "rr": ("rr", "r", "r_multiple", "r_mult", "r_value", "reward_risk", "result_r"),
    "profit_ratio": ("profit_ratio", "close_profit", "return", "return_ratio", "ret"),
    "risk": (
        "risk", "initial_stop_loss_ratio", "initial_stop_loss_pct", "stop_ratio", "risk_ratio",
        "stop_loss_pct",
    ),
    "pattern_key": ("pattern_key", "pattern", "setup", "signal"),
    "action_category": ("action_category", "category", "action"),
    "module": ("module",),
    "pnl_usd": ("pnl_usd", "profit_abs", "pnl", "net_profit", "profit_usd"),
    "payback_hours": ("payback_hours",),
    APPLIED: (APPLIED,),
}  # fmt: skip
_PATTERN_PARTS: Final = (("strategy",), ("side", "direction"), ("enter_tag", "buy_tag", "tag"))
_ID_PARTS: Final = (("strategy",), ("pair", "symbol", "ticker", "asset"), ("side", "direction"))
_NO_CONTEXT_WORDS: Final = ("id", "uuid", "file", "comment", "note", "notes")
_SIMILAR: Final = 0.85
_MAX_SCOPE_VALUES: Final = 200


def propose_mapping(columns: Sequence[str], sample: Sequence[Sequence[object]]) -> str:
    """The text of a mapping file (TOML) for these columns, from their names and some rows.

    A guess to be read and corrected: what could not be guessed is a comment. `sample` holds rows
    in the order of `columns`; from it come the columns that look like scope dimensions.
    """
    guessed = _guessed_columns(columns)
    lines = ["# A guess: check every line, then give it with --mapping PATH.", ""]
    lines += _proposed_scope(columns, sample, guessed)
    lines += ["", "[columns]"]
    lines += [f"{field} = {_toml(names)}" for field, names in guessed.items()]
    if not {"rr", "profit_ratio"} & set(guessed):
        lines.append('# rr = "…"  # the column with profit ÷ risk; none was found')
    if "closed_at" not in guessed:
        lines.append('# closed_at = "…"  # the column with the closing time; none was found')
    if "trade_id" not in guessed:
        lines.append('# trade_id = ["…", "…"]  # the columns that together name a trade')
    lines += ["", "[constants]", *_proposed_constants(guessed)]
    return "\n".join(lines) + "\n"


def _guessed_columns(columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    by_name = {_plain_name(name): name for name in reversed(columns) if name}
    found: dict[str, tuple[str, ...]] = {}
    for field, names in _KNOWN_NAMES.items():
        column = next((by_name[name] for name in names if name in by_name), None)
        if column is not None and (column,) not in found.values():
            found[field] = (column,)
    _add_similar(found, by_name)
    if "rr" in found:
        found.pop("profit_ratio", None)
        found.pop("risk", None)
    _add_joined(found, by_name)
    return {field: found[field] for field in FIELDS if field in found}


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def _add_similar(found: dict[str, tuple[str, ...]], by_name: Mapping[str, str]) -> None:
    for field, names in _KNOWN_NAMES.items():
        taken = {name for held in found.values() for name in held}
        free = [name for name, column in by_name.items() if column not in taken]
        close = (difflib.get_close_matches(name, free, 1, _SIMILAR) for name in names)
        match = next((hit[0] for hit in close if hit), None)
        if field not in found and match is not None:
            found[field] = (by_name[match],)


def _add_joined(found: dict[str, tuple[str, ...]], by_name: Mapping[str, str]) -> None:
    """Composes the pattern key and the trade id from columns that usually make them."""
    pattern = _present(_PATTERN_PARTS, by_name)
    if "pattern_key" not in found and pattern:
        found["pattern_key"] = pattern
    when = found.get("opened_at") or found.get("closed_at") or ()
    parts = _present(_ID_PARTS, by_name)
    if "trade_id" not in found and parts and when:
        found["trade_id"] = (*parts, *when)


def _present(parts: Iterable[Sequence[str]], by_name: Mapping[str, str]) -> tuple[str, ...]:
    hits = (next((by_name[name] for name in names if name in by_name), None) for names in parts)
    return tuple(hit for hit in hits if hit is not None)


def _proposed_scope(
    columns: Sequence[str],
    sample: Sequence[Sequence[object]],
    guessed: Mapping[str, tuple[str, ...]],
) -> list[str]:
    held = {names[0] for names in guessed.values() if len(names) == 1}
    held |= {*guessed.get("pattern_key", ())}  # the pattern is learned as such
    free = [name for name in columns if name and name not in held]
    late = [name for name in free if is_known_after_entry(name)]
    dimensions = [
        name
        for place, name in enumerate(columns)
        if name in free
        and name not in late
        and not name.startswith(SCOPE_PREFIX)
        and not set(_plain_name(name).split("_")) & set(_NO_CONTEXT_WORDS)
        and _looks_like_dimension([row[place] for row in sample if len(row) > place])
    ]
    lines = ["# Scope: only what was known when the action fired."]
    if late:
        lines.append(f"# Left out, known only after the entry: {', '.join(map(_toml, late))}")
    return [*lines, f"scope = {_toml(dimensions)}"]


def _looks_like_dimension(values: Sequence[object]) -> bool:
    """Whether the values are a few repeated words, rather than measurements or names of rows."""
    try:
        found = {normalise_scope({"": value}).get("") for value in values} - {None}
    except TypeError:
        return False
    words = [text for text in found if text is not None and not _is_fraction(text)]
    few = 1 < len(found) <= min(_MAX_SCOPE_VALUES, max(2, len(values) // 2))
    return few and len(words) == len(found)


def _is_fraction(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", text) is not None


def _proposed_constants(guessed: Mapping[str, tuple[str, ...]]) -> list[str]:
    lines = []
    if "module" not in guessed:
        lines.append('module = "pm"')
    if "pattern_key" not in guessed:
        lines.append('pattern_key = "pm.trades.all.entry"')
    if "action_category" not in guessed:
        lines.append('action_category = "entry"')
    if "profit_ratio" in guessed and "risk" not in guessed:
        lines.append("# risk = 0.05  # the risk of a trade as a fraction of the stake")
    return lines


def _toml(value: str | Sequence[str]) -> str:
    """Text or a list of texts as TOML; JSON's strings are also TOML's, but for DEL as it is."""
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
