"""Regime weights as they were learned, day after day; the newest are those that count.

How they are learned is the business of `core.regime_weights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from learning_assets.core.adjust import MeasuredWeights
from learning_assets.core.records import GroupKey
from learning_assets.core.regime_weights import RegimeWeights, by_multiplier
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows, to_jsonb
from learning_assets.store.tables import LEARNING_REGIME_WEIGHTS

_COLUMNS = LEARNING_REGIME_WEIGHTS.column_names


def replace_regime_weights(conn: Conn, as_of: datetime, rows: Sequence[RegimeWeights]) -> None:
    """Make `rows` the weights as of that moment, in one transaction; those of others stay."""
    with conn.transaction():
        table_lock(conn, LEARNING_REGIME_WEIGHTS.name)
        conn.execute("DELETE FROM learning_regime_weights WHERE as_of = %s", [as_of])
        copy_rows(conn, LEARNING_REGIME_WEIGHTS.name, _COLUMNS, (_row(as_of, row) for row in rows))


def _row(as_of: datetime, row: RegimeWeights) -> tuple[object, ...]:
    weights = to_jsonb(by_multiplier(row.four))
    return as_of, *row.group, row.regime_signature, weights, row.n_samples, row.confidence


def regime_weights(conn: Conn, as_of: datetime) -> MeasuredWeights | None:
    """The newest weights not later than `as_of`, by group and signature; None without any."""
    rows = conn.execute(
        f"SELECT {', '.join(_COLUMNS)} FROM learning_regime_weights WHERE as_of = "
        "(SELECT max(as_of) FROM learning_regime_weights WHERE as_of <= %s) "
        "ORDER BY module, pattern_key, action_category, regime_signature",
        [as_of],
    ).fetchall()
    if not rows:
        return None
    found = [
        RegimeWeights(GroupKey(*group), signature, **weights, n_samples=n, confidence=confidence)
        for _, *group, signature, weights, n, confidence in rows
    ]
    return MeasuredWeights(rows[0][0], found)
