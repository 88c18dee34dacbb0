"""The tables of an older scheduler: its lessons, edge history and overrides, read as they are.

Reads only, in one read-only snapshot. What they are compared with is in `core.comparison`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from learning_assets.core.comparison import OlderEdge, OlderLesson, OlderOverride
from learning_assets.core.records import GroupKey, Reason
from learning_assets.core.scope import ScopeSubset, signature, subset
from learning_assets.errors import UserError
from learning_assets.sources import parse
from learning_assets.sources.parse import RowError

LESSONS, EDGES, OVERRIDES = "learning_lessons", "learning_edge_history", "pm_overrides"

_T = TypeVar("_T")
_Row = Mapping[str, Any]

_SLICE = ("pattern_key", "action_category", "scope_subset")
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    LESSONS: (
        *("module", *_SLICE, "n", "stats", "lesson_type"),
        *("decay_halflife_hours", "latent_factor_id", "status"),
    ),
    EDGES: ("pattern_key", "action_category", "scope_signature", "edge_raw", "ts", "n"),
    OVERRIDES: (*_SLICE, "multiplier"),
}
_OURS = {
    LESSONS: {"lesson_id", "reason"},
    EDGES: {"lesson_id", "se"},
    OVERRIDES: {"lesson_id", "adjusted_edge_r"},
}
"""Columns by which a table of this software is known: those names it shares with the older one."""

_LARGEST_N = 2**31 - 1
_FIRST_WORDS = 200


@dataclass(frozen=True, slots=True)
class OlderTables:
    """What was read. `missing` names tables that are not there, `left_out` why rows are not."""

    lessons: tuple[OlderLesson, ...]
    edges: tuple[OlderEdge, ...]
    overrides: tuple[OlderOverride, ...]
    missing: tuple[str, ...]
    left_out: Mapping[str, Counter[str]]


def read_older(conn: psycopg.Connection[Any], schema: str) -> OlderTables:
    """All that the tables of a schema hold, in one snapshot.

    A row that cannot be used is counted under its reason. Of several rows of one slice the one
    with the most trades counts.

    Raises:
        UserError: where none of the tables is there, one lacks a column or may not be read, or
            none of its rows can be used.
    """
    try:
        with conn.transaction():
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            present = [table for table in _COLUMNS if _is_there(conn, schema, table)]
            if not present:
                raise UserError(
                    f"the schema {schema} holds none of the older scheduler's tables "
                    f"{', '.join(_COLUMNS)}: name its database with --from and its schema with "
                    "--schema"
                )
            return _read(conn, schema, present)
    except psycopg.Error as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"the older scheduler's tables in {schema} cannot be read ({reason}): check the "
            "database, and grant SELECT on them to its user"
        ) from None


def _is_there(conn: psycopg.Connection[Any], schema: str, table: str) -> bool:
    """Whether there is such a table of the older scheduler; one of ours is none."""
    name = sql.Identifier(schema, table).as_string(conn)
    query = (
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 "
        "AND NOT attisdropped ORDER BY attnum"
    )
    found = [column for (column,) in conn.cursor(row_factory=tuple_row).execute(query, [name])]
    missing = [column for column in _COLUMNS[table] if column not in found]
    if not found or _OURS[table] <= set(found):
        return False
    if missing:
        raise UserError(
            f"the table {schema}.{table} has no column {', '.join(missing)}; it has "
            f"{', '.join(found)}: name the older scheduler's schema with --schema"
        )
    return True


def _read(conn: psycopg.Connection[Any], schema: str, present: Sequence[str]) -> OlderTables:
    left_out: dict[str, Counter[str]] = {}

    def rows(table: str, parsed: Callable[[_Row], _T]) -> list[_T]:
        if table not in present:
            return []
        reasons = left_out[table] = Counter()
        made = list(_parsed(_rows(conn, schema, table), parsed, reasons))
        if reasons and not made:
            raise UserError(
                f"no row of {schema}.{table} can be used ({reasons.most_common(1)[0][0]}): "
                "name the older scheduler's schema with --schema"
            )
        return made

    lessons = {}
    for lesson in sorted(rows(LESSONS, _lesson), key=lambda row: row.n or 0):
        lessons[lesson.lesson_id] = lesson
    edges = {
        (e.pattern_key, e.action_category, e.scope_signature, e.ts): e for e in rows(EDGES, _edge)
    }
    overrides = {(o.group, o.scope_subset): o for o in rows(OVERRIDES, _override)}
    return OlderTables(
        tuple(lessons.values()),
        tuple(edges.values()),
        tuple(overrides.values()),
        tuple(table for table in _COLUMNS if table not in present),
        {table: reasons for table, reasons in left_out.items() if reasons},
    )


def _rows(conn: psycopg.Connection[Any], schema: str, table: str) -> Iterator[_Row]:
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS[table]))
    query = sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(schema, table))
    with conn.cursor(name=f"older_{table}", row_factory=dict_row) as cursor:
        yield from cursor.execute(query)


def _parsed(
    rows: Iterator[_Row], parsed: Callable[[_Row], _T], reasons: Counter[str]
) -> Iterator[_T]:
    for row in rows:
        try:
            yield parsed(row)
        except RowError as error:
            reasons[error.detail[:_FIRST_WORDS]] += 1


def _lesson(row: _Row) -> OlderLesson:
    stats = row["stats"] if isinstance(row["stats"], dict) else {}
    return OlderLesson(
        _group(row),
        _scope(row["scope_subset"]),
        _count(row["n"]),
        _number(stats.get("edge_raw"), "edge_raw"),
        parse.payload(stats),
        _text(row["lesson_type"]),
        _number(row["decay_halflife_hours"], "decay_halflife_hours"),
        _text(row["latent_factor_id"]),
        _text(row["status"]),
    )


def _edge(row: _Row) -> OlderEdge:
    _, pattern_key, category = _group(row)
    edge_raw = _number(row["edge_raw"], "edge_raw")
    if edge_raw is None:
        raise _bad("there is no edge_raw")
    return OlderEdge(
        pattern_key,
        category,
        _signature(row["scope_signature"]),
        parse.utc(row["ts"]),
        edge_raw,
        _count(row["n"]),
    )


def _override(row: _Row) -> OlderOverride:
    multiplier = _number(row["multiplier"], "multiplier")
    return OlderOverride(_group(row), _scope(row["scope_subset"]), multiplier)


def _group(row: _Row) -> GroupKey:
    """The group; where nothing names the module, the category does."""
    category = row["action_category"]
    module = row.get("module")
    if parse.is_absent(module) and not _names_module(row["pattern_key"]):
        module = "dm" if str(category).strip().lower() in parse.CATEGORIES["dm"] else "pm"
    found, key = parse.pattern_key(row["pattern_key"], module)
    return GroupKey(found, key, parse.category(category, found))


def _names_module(key: object) -> bool:
    return str(key).lower().startswith((*(f"{m}." for m in parse.CATEGORIES), "module="))


def _scope(raw: object) -> ScopeSubset:
    if parse.is_absent(raw):
        return ()
    if not isinstance(raw, dict):
        raise _bad(f"the scope_subset {raw!r} is no JSON object")
    return subset(parse.scope(raw))


def _signature(raw: object) -> str:
    """The signature as ours are written, where it is of the form dim=value|…; else as it is."""
    text = "" if parse.is_absent(raw) else str(raw).strip()
    pairs = [part.partition("=") for part in text.split("|") if part]
    if not all(equals for _, equals, _ in pairs):
        return text.replace("\x00", "\ufffd")
    return signature(subset(parse.scope({name.strip(): value for name, _, value in pairs})))


def _count(raw: object) -> int | None:
    number = _number(raw, "n")
    if number is None:
        return None
    if not number.is_integer() or not 0 <= number <= _LARGEST_N:
        raise _bad(f"n is {raw!r}, which is no number of trades")
    return int(number)


def _number(raw: object, name: str) -> float | None:
    try:
        return parse.optional_number(raw)
    except RowError as error:
        raise _bad(f"{name}: {error.detail}") from None


def _text(raw: object) -> str | None:
    return None if parse.is_absent(raw) else str(raw).strip()


def _bad(detail: str) -> RowError:
    return RowError(Reason.BAD_PAYLOAD, detail)
