"""How values get into PostgreSQL and back: bulk writes by COPY, JSON without NaN, text without NUL.

What the rows mean is the business of the module of each table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pydantic_core
from psycopg import Connection, Copy, sql

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


def clean_text(text: str) -> str:
    """`text` without what PostgreSQL cannot store (NUL characters, lone surrogates)."""
    if text.isascii() and "\x00" not in text:
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def to_json(value: object) -> Json:
    """`value` as JSON can hold it: NaN becomes null, an infinity the word PostgreSQL casts from."""
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, Mapping):
        return {clean_text(str(key)): to_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(inner) for inner in value]
    return clean_text(str(value))


def _number(value: float) -> Json:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def to_jsonb(value: object) -> str:
    """`value` as the text of a jsonb column."""
    try:
        text = _dump(value)
        text.encode()
    except (TypeError, ValueError):  # no JSON, NaN, or a lone surrogate
        return _dump(to_json(value))
    return _dump(to_json(value)) if "\\u0000" in text else text


def words_jsonb(words: Mapping[str, str] | Sequence[object]) -> str:
    """`to_jsonb` of what holds words and no numbers, faster."""
    try:
        text = pydantic_core.to_json(words).decode()
    except pydantic_core.PydanticSerializationError:  # a lone surrogate
        return to_jsonb(words)
    return to_jsonb(words) if "\\u0000" in text else text


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def number(value: Any) -> float:
    """A number that `to_json` wrote; null is NaN again."""
    return math.nan if value is None else float(value)


def optional_number(value: Any) -> float | None:
    """A number that `to_json` wrote, where null means that it is not known."""
    return None if value is None else float(value)


def finite(value: object) -> object:
    """`value` for JSON that people and programs read: no NaN, no infinity, times as ISO text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value in ("Infinity", "-Infinity"):
        return None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat else value


def copy_rows(
    conn: Connection[Any], table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write `rows` into `table` by COPY. Text is cleaned; jsonb columns take text."""
    with copying(conn, table, columns) as copy:
        for row in rows:
            copy.write_row([clean_text(cell) if isinstance(cell, str) else cell for cell in row])


@contextmanager
def copying(conn: Connection[Any], table: str, columns: Sequence[str]) -> Iterator[Copy]:
    """A COPY into these columns of `table`, of rows or of lines made of `copy_cell`."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        yield copy


_IN_COPY = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_cell(value: object) -> str:
    """`value` (text, a number, a time or None) as a cell of the text that COPY takes."""
    if value is None:
        return "\\N"
    text = clean_text(str(value))
    if "\\" in text or "\t" in text or "\n" in text or "\r" in text:
        return text.translate(_IN_COPY)
    return text
