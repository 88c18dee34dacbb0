"""Half-lives as they were measured, week after week; the newest are those of the lessons.

How they are fitted is the business of `core.halflife`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from learning_assets.core.adjust import MeasuredHalfLives
from learning_assets.core.halflife import HalfLife
from learning_assets.core.records import DecayState
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows
from learning_assets.store.tables import LEARNING_HALF_LIVES, LEARNING_LESSONS

_COLUMNS = LEARNING_HALF_LIVES.column_names


def replace_half_lives(conn: Conn, as_of: datetime, measured: Mapping[str, HalfLife]) -> None:
    """Make `measured` (by lesson id) the half-lives as of that moment, in one transaction.

    Those of other moments stay. `decay_halflife_hours` of the lessons follows the newest ones.
    """
    with conn.transaction():
        table_lock(conn, LEARNING_LESSONS.name)
        table_lock(conn, LEARNING_HALF_LIVES.name)
        conn.execute("DELETE FROM learning_half_lives WHERE as_of = %s", [as_of])
        rows = (_row(as_of, name, found) for name, found in measured.items())
        copy_rows(conn, LEARNING_HALF_LIVES.name, _COLUMNS, rows)
        conn.execute(_TELL_LESSONS)


# A lesson that was not measured the last time has no half-life: its old one may be long gone.
_TELL_LESSONS = """
UPDATE learning_lessons SET decay_halflife_hours = told.half_life_hours
FROM learning_lessons AS lessons LEFT JOIN learning_half_lives AS told
    ON told.lesson_id = lessons.lesson_id
        AND told.as_of = (SELECT max(as_of) FROM learning_half_lives)
WHERE learning_lessons.lesson_id = lessons.lesson_id
    AND learning_lessons.decay_halflife_hours IS DISTINCT FROM told.half_life_hours
"""


def _row(as_of: datetime, lesson_id: str, found: HalfLife) -> tuple[object, ...]:
    return (
        as_of,
        lesson_id,
        found.status.value,
        found.half_life_hours,
        found.low,
        found.high,
        found.e0,
        found.n_windows,
        found.p_value,
        found.decay_per_hour,
    )


def half_lives(conn: Conn, as_of: datetime) -> MeasuredHalfLives | None:
    """The newest half-lives not later than `as_of`; None where there are none."""
    rows = conn.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM learning_half_lives WHERE as_of = "
        "(SELECT max(as_of) FROM learning_half_lives WHERE as_of <= %s) ORDER BY lesson_id",
        [as_of],
    ).fetchall()
    if not rows:
        return None
    found = {name: HalfLife(DecayState(status), *numbers) for _, name, status, *numbers in rows}
    return MeasuredHalfLives(rows[0][0], found)
