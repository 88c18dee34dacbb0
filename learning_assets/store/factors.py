"""Latent factors as they were found, week after week; the newest are those of the lessons.

What a factor is, is the business of `core.factors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from learning_assets.core.adjust import MeasuredFactors
from learning_assets.core.factors import Factor
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows, to_jsonb
from learning_assets.store.tables import LEARNING_LATENT_FACTORS, LEARNING_LESSONS

_COLUMNS = LEARNING_LATENT_FACTORS.column_names


def replace_factors(conn: Conn, as_of: datetime, factors: Sequence[Factor]) -> None:
    """Make `factors` those as of that moment, in one transaction; those of other moments stay.

    `latent_factor_id` of the lessons follows the newest ones.
    """
    with conn.transaction():
        table_lock(conn, LEARNING_LESSONS.name)
        table_lock(conn, LEARNING_LATENT_FACTORS.name)
        conn.execute("DELETE FROM learning_latent_factors WHERE as_of = %s", [as_of])
        rows = (_row(as_of, factor) for factor in factors)
        copy_rows(conn, LEARNING_LATENT_FACTORS.name, _COLUMNS, rows)
        conn.execute(_TELL_LESSONS)


_TELL_LESSONS = """
WITH told AS (
    SELECT member ->> 'lesson_id' AS lesson_id, factor_id
    FROM learning_latent_factors, jsonb_array_elements(members) AS member
    WHERE as_of = (SELECT max(as_of) FROM learning_latent_factors)
)
UPDATE learning_lessons SET latent_factor_id = told.factor_id
FROM learning_lessons AS lessons LEFT JOIN told ON told.lesson_id = lessons.lesson_id
WHERE learning_lessons.lesson_id = lessons.lesson_id
    AND learning_lessons.latent_factor_id IS DISTINCT FROM told.factor_id
"""


def _row(as_of: datetime, factor: Factor) -> tuple[object, ...]:
    members = [{"lesson_id": name, "overlap": overlap} for name, overlap in factor.members]
    return (
        as_of,
        factor.factor_id,
        factor.module,
        factor.action_category,
        list(factor.pattern_keys),
        _representative_pattern(factor),
        factor.representative,
        to_jsonb(members),
        to_jsonb([list(row) for row in factor.matrix]),
    )


def _representative_pattern(factor: Factor) -> str:
    """The pattern at the head of the representative's id; a pattern may hold a slash itself."""
    category = factor.action_category
    return next(
        key for key in factor.pattern_keys if factor.representative.startswith(f"{key}/{category}/")
    )


def factors(conn: Conn, as_of: datetime) -> MeasuredFactors | None:
    """The newest factors not later than `as_of`, by id; None where there are none."""
    rows = conn.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM learning_latent_factors WHERE as_of = "
        "(SELECT max(as_of) FROM learning_latent_factors WHERE as_of <= %s) ORDER BY factor_id",
        [as_of],
    ).fetchall()
    return MeasuredFactors(rows[0][0], [_factor(*row[1:]) for row in rows]) if rows else None


def _factor(
    factor_id: str,
    module: str,
    action_category: str,
    pattern_keys: list[str],
    _: str,
    representative: str,
    members: list[dict[str, Any]],
    matrix: list[list[float]],
) -> Factor:
    return Factor(
        factor_id,
        module,
        action_category,
        tuple(pattern_keys),
        representative,
        tuple((member["lesson_id"], float(member["overlap"])) for member in members),
        tuple(tuple(map(float, row)) for row in matrix),
    )
