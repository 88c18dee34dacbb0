"""The events of a book as coded columns: each closing day is read once and kept as a file.

The table `pattern_trade_events` is the one source of truth. A file holds one closing day as the
table had it under a digest that `event_days` names; it is made anew where it is absent, damaged
or of another digest, and may be deleted at any time. No event and no scope becomes a Python
object on the way: PostgreSQL takes the scopes apart, Arrow reads what it writes.
"""

from __future__ import annotations

import io
import logging
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import mkstemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray
from psycopg import sql
from psycopg.pq import TransactionStatus
from pyarrow import csv

from learning_assets.core.events import EventTable, instant
from learning_assets.core.records import GroupKey
from learning_assets.errors import UserError
from learning_assets.store.connection import Conn

Ints = NDArray[np.int64]

_LOG = logging.getLogger(__name__)

_EVENTS_AT_ONCE = 200_000
_ABANDONED_SECONDS = 3600
_DAY_MICROSECONDS = 86_400_000_000
_SUFFIX = ".days"
_CHECKED = 8  # bytes before the Arrow file: the checksum of it
_MOST_DIMS = 1600  # PostgreSQL returns no more than 1,664 columns
_GROUP = ("module", "pattern_key", "action_category")
_TRADE = ("trade_id", "closed_at", "opened_at", "rr", "payback_hours", "hold_hours")
_WORD = pa.dictionary(pa.int32(), pa.string())
_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(_GROUP, _WORD),
    "trade_id": pa.string(),
    "closed_at": pa.int64(),
    "opened_at": pa.int64(),
    **dict.fromkeys(("rr", "payback_hours", "hold_hours"), pa.float64()),
}
_DIM = "scope."
"""What the columns of scope dimensions begin with."""

_CLOSED, _OPENED = (f"(extract(epoch FROM {name}) * 1000000)::bigint" for name in _TRADE[1:3])
_DIMS = """
SELECT DISTINCT key FROM pattern_trade_events, jsonb_object_keys(scope) AS key
WHERE closed_at >= %s AND closed_at < %s ORDER BY key
"""
# In the order that the engine wants: by the code points of the names, whatever the collation.
_ROWS = f"""
COPY (SELECT {", ".join(_GROUP)}, trade_id, {_CLOSED}, {_OPENED}, rr, payback_hours, hold_hours{{}}
FROM pattern_trade_events WHERE closed_at >= {{}} AND closed_at < {{}}
ORDER BY closed_at, trade_id COLLATE "C", event_id COLLATE "C") TO STDOUT (FORMAT csv)
"""


@dataclass(frozen=True, slots=True)
class _Day:
    """A closing day with trades: how many events it has, and the digest of its content."""

    day: date
    n_events: int
    digest: str

    @property
    def file_name(self) -> str:
        return f"{self.day}-{self.digest}{_SUFFIX}"


def event_table(
    conn: Conn, folder: Path | None, before: datetime, since: datetime | None = None
) -> EventTable:
    """The events that closed before `before` (and not before `since`), as the engine wants them.

    Days that `folder` holds are not read from the database; those that it lacks are read in
    bounded memory, in one snapshot, and kept there. A folder that is None or cannot be written
    only costs time.

    Raises:
        RuntimeError: inside a transaction, which has a snapshot of its own.
        UserError: where a day has more than 1,600 scope dimensions.
    """
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise RuntimeError("events are read in a transaction of their own")
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        days = _days(conn, before, since)
        kept = _Kept(folder)
        tables = {day: table for day in days if (table := kept.load(day)) is not None}
        for batch in _batches([day for day in days if day not in tables]):
            for day, table in _read(conn, batch):
                tables[day] = table
                kept.store(day, table)
    kept.forget_older(days)
    return _assembled([tables[day] for day in days], before, since)


def _days(conn: Conn, before: datetime, since: datetime | None) -> list[_Day]:
    query = (
        "SELECT day, n_events, digest FROM event_days WHERE day <= %s AND day >= %s ORDER BY day"
    )
    first = since.astimezone(UTC).date() if since else date.min
    rows = conn.execute(query, [before.astimezone(UTC).date(), first])
    return [_Day(*row) for row in rows]


def _batches(days: Sequence[_Day]) -> Iterator[list[_Day]]:
    """Days that are read together: neighbours with not too many events."""
    batch: list[_Day] = []
    size = 0
    for day in days:
        if batch and size + day.n_events > _EVENTS_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(day)
        size += day.n_events
    if batch:
        yield batch


# --- the files -----------------------------------------------------------------------------


class _Kept:
    """The files of closed days in a folder; without a folder nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, day: _Day) -> pa.Table | None:
        """The table of a day; None where there is no such file, or none that can be read."""
        if self.folder is None:
            return None
        try:
            with pa.memory_map(str(self.folder / day.file_name)) as file:
                content = file.read_buffer()
        except OSError:
            return None
        if len(content) <= _CHECKED:
            return None
        arrow = content.slice(_CHECKED)
        if content.slice(0, _CHECKED).to_pybytes() != _checksum(arrow):
            return None
        table = pa.ipc.open_file(arrow).read_all()
        return table if table.num_rows == day.n_events else None

    def store(self, day: _Day, table: pa.Table) -> None:
        """Keep the table of a day, whole or not at all."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            arrow = sink.getvalue()
            handle, part = mkstemp(dir=self.folder)
            with os.fdopen(handle, "wb") as file:
                file.write(_checksum(arrow))
                file.write(arrow)
            Path(part).replace(self.folder / day.file_name)
        except OSError as error:
            _LOG.warning("days are not kept as columns, but read each time anew: %s", error)
            self.folder = None

    def forget_older(self, days: Sequence[_Day]) -> None:
        """Delete the files of these days that are of another digest, and what was left half."""
        if self.folder is None or not self.folder.is_dir():
            return
        names = {str(day.day): day.file_name for day in days}
        for path in self.folder.iterdir():
            day = path.name[: len("2000-01-01")]
            is_old = day in names and path.name != names[day]
            if is_old or (path.suffix != _SUFFIX and _is_abandoned(path)):
                path.unlink(missing_ok=True)


def _checksum(content: pa.Buffer) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKED, "little")


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    except FileNotFoundError:
        return False


# --- reading days from PostgreSQL ------------------------------------------------------------


def _read(conn: Conn, batch: Sequence[_Day]) -> Iterator[tuple[_Day, pa.Table]]:
    """The tables of days that follow each other, from the rows of the database."""
    window = [_midnight(batch[0].day), _midnight(batch[-1].day + timedelta(days=1))]
    dims = [name for (name,) in conn.execute(_DIMS, window)]
    if len(dims) > _MOST_DIMS:
        if len(batch) > 1:
            yield from (found for day in batch for found in _read(conn, [day]))
            return
        raise UserError(
            f"the trades that closed on {batch[0].day} have {len(dims):,} scope dimensions, more "
            f"than {_MOST_DIMS:,}: leave out those that say the same or differ in each trade"
        )
    names = [*_GROUP, *_TRADE, *(f"{_DIM}{dim}" for dim in dims)]
    scopes = [sql.SQL(", scope ->> {}").format(sql.Literal(dim)) for dim in dims]
    query = sql.SQL(_ROWS).format(sql.Composed(scopes), *map(sql.Literal, window))
    with conn.cursor() as cursor, cursor.copy(query) as copy:
        written = b"".join(copy)
    table = _parsed(written, names)
    day_of = table["closed_at"].to_numpy() // _DAY_MICROSECONDS
    for day in batch:
        number = (day.day - date(1970, 1, 1)).days
        first, end = np.searchsorted(day_of, [number, number + 1])
        yield day, _small(table.slice(first, end - first))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


def _parsed(written: bytes, names: Sequence[str]) -> pa.Table:
    """What COPY wrote as CSV; only what stands there without quotes and is empty is null."""
    if not written:
        return pa.table({name: pa.array([], _TYPES.get(name, _WORD)) for name in names})
    table = csv.read_csv(
        io.BytesIO(written),
        read_options=csv.ReadOptions(column_names=list(names), use_threads=False),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={name: _TYPES.get(name, _WORD) for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    return table.unify_dictionaries().combine_chunks()


def _small(table: pa.Table) -> pa.Table:
    """The rows of one day without words and dimensions that none of them has."""
    columns = {}
    for name, column in zip(table.column_names, table.combine_chunks().columns, strict=True):
        whole = column.combine_chunks()
        if not pa.types.is_dictionary(column.type):
            columns[name] = whole
        elif whole.null_count < len(whole) or not name.startswith(_DIM):
            columns[name] = _with_its_words(whole)
    return pa.table(columns)


def _with_its_words(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """A column whose words all stand in it."""
    indices = _indices(column)
    used = np.unique(indices[indices >= 0])
    kinds = (np.int8, np.int16, np.int32)
    kind = next(k for k in kinds if len(used) <= np.iinfo(k).max)
    numbers = pa.array(np.searchsorted(used, indices).astype(kind), mask=indices < 0)
    return pa.DictionaryArray.from_arrays(numbers, column.dictionary.take(pa.array(used)))


# --- from days to one table --------------------------------------------------------------------


def _assembled(tables: Sequence[pa.Table], before: datetime, since: datetime | None) -> EventTable:
    """All days as one; days at either end are cut to the moments."""
    tables = [_within(table, before, since) for table in tables]
    tables = [table for table in tables if table.num_rows]
    starts = np.concatenate([[0], np.cumsum([table.num_rows for table in tables])]).astype(np.int64)
    first, trade = _trades(tables, starts)
    group, groups = _groups(tables)
    dims, values, codes = _scopes(tables, starts)
    of_trades = {name: _of_trades(tables, name, first) for name in _TRADE}
    trade_ids = of_trades.pop("trade_id")
    return EventTable(
        trade_ids=trade_ids,
        **of_trades,
        trade=trade,
        group=group,
        groups=groups,
        dims=dims,
        values=values,
        codes=codes,
    )


def _within(table: pa.Table, before: datetime, since: datetime | None) -> pa.Table:
    closed_at = table["closed_at"].to_numpy()
    end = np.searchsorted(closed_at, instant(before).astype(np.int64))
    first = np.searchsorted(closed_at, instant(since).astype(np.int64)) if since else 0
    return table.slice(first, max(end - first, 0))


def _trades(tables: Sequence[pa.Table], starts: Ints) -> tuple[list[Ints], Ints]:
    """The first row of each trade, by day, and the trade of each row; no trade is in two days."""
    trade, firsts, n_trades = np.empty(starts[-1], np.int64), [], 0
    for table, start in zip(tables, starts, strict=False):
        ids = table["trade_id"].combine_chunks()
        new = np.ones(len(ids), bool)
        new[1:] = pa.compute.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
        firsts.append(np.flatnonzero(new))
        trade[start : start + len(ids)] = n_trades - 1 + np.cumsum(new)
        n_trades += len(firsts[-1])
    return firsts, trade


def _of_trades(tables: Sequence[pa.Table], name: str, firsts: Sequence[Ints]) -> NDArray[Any]:
    """A column with a value for each trade."""
    kind = {"trade_id": object, "closed_at": "datetime64[us]", "opened_at": "datetime64[us]"}
    parts = [t[name].take(pa.array(f)) for t, f in zip(tables, firsts, strict=True)]
    column = pa.chunked_array(parts, _TYPES[name])
    if name in ("closed_at", "opened_at"):
        column = column.cast(pa.timestamp("us"))
    numbers: NDArray[Any] = column.to_numpy().astype(kind.get(name, np.float64), copy=False)
    return numbers


def _groups(tables: Sequence[pa.Table]) -> tuple[Ints, tuple[GroupKey, ...]]:
    codes = [_coded(tables, name) for name in _GROUP]
    if not tables:
        return np.empty(0, np.int64), ()
    words, numbers = zip(*codes, strict=True)
    sizes = [len(known) + 1 for known in words]
    mixed = np.ravel_multi_index([n.astype(np.int64) for n in numbers], sizes)
    used, group = np.unique(mixed, return_inverse=True)
    keys = zip(*np.unravel_index(used, sizes), strict=True)
    groups = (GroupKey(*(w[i - 1] for w, i in zip(words, key, strict=True))) for key in keys)
    return group.reshape(-1).astype(np.int64), tuple(groups)


def _scopes(
    tables: Sequence[pa.Table], starts: Ints
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...], NDArray[np.integer[Any]]]:
    names = sorted({n for table in tables for n in table.column_names if n.startswith(_DIM)})
    found = {name.removeprefix(_DIM): _coded(tables, name) for name in names}
    known = {dim: (words, codes) for dim, (words, codes) in found.items() if words}
    width = max((len(words) for words, _ in known.values()), default=0)
    kind = np.uint8 if width < 256 else np.uint16 if width < 65536 else np.int32
    out = np.zeros((len(known), starts[-1]), kind)
    for d, (_, codes) in enumerate(known.values()):
        out[d] = codes
    return tuple(known), tuple(words for words, _ in known.values()), out


def _coded(tables: Sequence[pa.Table], name: str) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The words that stand in a column, sorted, and the number of each row's, from 1; 0 is null."""
    columns = [
        table[name].combine_chunks() if name in table.column_names else None for table in tables
    ]
    used = [_used(column) for column in columns]
    words = tuple(sorted(set().union(*(known.values() for known in used))))
    number = {word: k for k, word in enumerate(words, start=1)}
    parts = []
    for table, column, known in zip(tables, columns, used, strict=True):
        if column is None:
            parts.append(np.zeros(table.num_rows, np.int32))
            continue
        translate = np.zeros(len(column.dictionary) + 1, np.int32)
        translate[[k + 1 for k in known]] = [number[word] for word in known.values()]
        parts.append(translate[_indices(column) + 1])
    return words, np.concatenate([np.empty(0, np.int32), *parts])


def _used(column: pa.DictionaryArray | None) -> dict[int, str]:
    """The words that stand in a column, by their index there."""
    if column is None:
        return {}
    words = column.dictionary.to_pylist()
    return {int(k): words[k] for k in np.unique(_indices(column)) if k >= 0}


def _indices(column: pa.DictionaryArray) -> Ints:
    """The index of each row, −1 for null."""
    numbers: Ints = column.indices.fill_null(-1).to_numpy().astype(np.int64)
    return numbers
