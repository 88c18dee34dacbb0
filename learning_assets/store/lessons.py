"""The lessons of each module, the cut-offs behind them, and what they were learned from.

Deciding what is a lesson is the business of `core`; half-lives and factors have writers of their
own, and nothing here touches their columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from learning_assets.core.records import (
    Calibration,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    SliceStats,
)
from learning_assets.core.scope import ScopeSubset, signature, subset
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows, finite, number, optional_number, to_jsonb
from learning_assets.store.tables import LEARNING_CALIBRATIONS, LEARNING_LESSONS, LEARNING_STATE

_OF_OTHER_WRITERS = ("updated_at", "decay_halflife_hours", "latent_factor_id")
_WRITTEN = tuple(c for c in LEARNING_LESSONS.column_names if c not in _OF_OTHER_WRITERS)
_CALIBRATION_COLUMNS = LEARNING_CALIBRATIONS.column_names


@dataclass(frozen=True, slots=True)
class ModuleState:
    """What the lessons of a module were learned from, and how much was tried.

    `redundant_total` counts the redundant slices that were found, those not kept included.
    `summary` holds further numbers for reports; NaN comes back as None.
    """

    events_digest: str
    as_of: datetime
    slices_tested: int
    redundant_total: int
    summary: Mapping[str, Any] = field(default_factory=dict)


def replace_lessons(
    conn: Conn, module: str, as_of: datetime, lessons: Sequence[Lesson], state: ModuleState
) -> None:
    """Make `lessons` the lessons of the module, in one transaction.

    Lessons that are not among them are deleted; those that stay keep their half-life and factor.
    """
    with conn.transaction():
        table_lock(conn, LEARNING_LESSONS.name)
        conn.execute(
            "CREATE TEMP TABLE new_lessons (LIKE learning_lessons INCLUDING DEFAULTS) "
            "ON COMMIT DROP"
        )
        copy_rows(conn, "new_lessons", _WRITTEN, (_row(lesson, as_of) for lesson in lessons))
        conn.execute(
            "DELETE FROM learning_lessons WHERE module = %s "
            "AND lesson_id NOT IN (SELECT lesson_id FROM new_lessons)",
            [module],
        )
        conn.execute(_UPSERT)
        conn.execute("DROP TABLE new_lessons")
        _save_state(conn, module, state)


_UPSERT = (
    f"INSERT INTO learning_lessons ({', '.join(_WRITTEN)}) "
    f"SELECT {', '.join(_WRITTEN)} FROM new_lessons "
    "ON CONFLICT (lesson_id) DO UPDATE SET updated_at = now(), "
    + ", ".join(f"{column} = excluded.{column}" for column in _WRITTEN if column != "lesson_id")
)


def _save_state(conn: Conn, module: str, state: ModuleState) -> None:
    columns = LEARNING_STATE.column_names
    conn.execute("DELETE FROM learning_state WHERE module = %s", [module])
    conn.execute(
        f"INSERT INTO learning_state ({', '.join(columns)}) VALUES (%s, %s, %s, %s, %s, %s)",
        [
            module,
            state.events_digest,
            state.as_of,
            state.slices_tested,
            state.redundant_total,
            to_jsonb(state.summary),
        ],
    )


def module_state(conn: Conn, module: str) -> ModuleState | None:
    """What the lessons of the module were learned from; None where nothing was learned yet."""
    row = conn.execute(
        "SELECT events_digest, as_of, slices_tested, redundant_total, summary "
        "FROM learning_state WHERE module = %s",
        [module],
    ).fetchone()
    return None if row is None else ModuleState(*row)


@dataclass(frozen=True, slots=True)
class Trial:
    """The thresholds that one run had in place of the book's, and what the book remembers.

    `remembered` are the ids of the lessons that had been active by then: nobody should remember
    those that were active for the length of a trial.
    """

    thresholds: Mapping[str, Any]
    remembered: tuple[str, ...]


def trial(thresholds: Mapping[str, Any], previous: Sequence[Lesson]) -> Trial:
    """The trial of these thresholds in a book that had these lessons."""
    decided = (LessonStatus.ACTIVE, LessonStatus.DEPRECATED)
    return Trial(thresholds, tuple(x.lesson_id for x in previous if x.status in decided))


def trial_of(state: ModuleState) -> Trial | None:
    """The trial that the lessons come from; None where they were learned as the book wants it."""
    kept = state.summary.get("trial")
    return None if kept is None else Trial(kept["thresholds"], tuple(kept["remembered"]))


def _row(lesson: Lesson, as_of: datetime) -> tuple[object, ...]:
    values = {
        "lesson_id": lesson.lesson_id,
        "module": lesson.group.module,
        "pattern_key": lesson.group.pattern_key,
        "action_category": lesson.group.action_category,
        "scope_subset": to_jsonb(dict(lesson.scope_subset)),
        "scope_signature": signature(lesson.scope_subset),
        "n": lesson.stats.n,
        "stats": to_jsonb(_stats_document(lesson)),
        "lesson_type": lesson.lesson_type,
        "status": lesson.status.value,
        "reason": lesson.reason,
        "as_of": as_of,
    }
    return tuple(values[column] for column in _WRITTEN)


def _stats_document(lesson: Lesson) -> dict[str, object]:
    return {
        **asdict(lesson.stats),
        "multipliers": asdict(lesson.multipliers),
        "edge_raw": lesson.edge_raw,
        "joint_edge_r": lesson.joint_edge_r,
        "joint_se_r": lesson.joint_se_r,
        "aliases": [dict(alias) for alias in lesson.aliases],
        "explained_by": list(lesson.explained_by),
    }


def lessons(
    conn: Conn, module: str | None = None, status: LessonStatus | None = None
) -> list[Lesson]:
    """The stored lessons, of one module or status if given, in the order of their ids."""
    return [_lesson(*row) for row in _select(conn, _LESSON_COLUMNS, module, status)]


_LESSON_COLUMNS = (
    "module",
    "pattern_key",
    "action_category",
    "scope_subset",
    "status",
    "reason",
    "stats",
)


def _select(
    conn: Conn, columns: Sequence[str], module: str | None, status: LessonStatus | None
) -> list[tuple[Any, ...]]:
    return conn.execute(
        f"SELECT {', '.join(columns)} FROM learning_lessons "
        "WHERE module = coalesce(%s, module) AND status = coalesce(%s, status) "
        "ORDER BY lesson_id",
        [module, None if status is None else status.value],
    ).fetchall()


def _lesson(
    module: str,
    pattern_key: str,
    action_category: str,
    scope_subset: dict[str, str],
    status: str,
    reason: str,
    stats: dict[str, Any],
) -> Lesson:
    return Lesson(
        group=GroupKey(module, pattern_key, action_category),
        scope_subset=subset(scope_subset),
        status=LessonStatus(status),
        stats=_slice_stats(stats),
        multipliers=_multipliers(stats["multipliers"]),
        edge_raw=number(stats["edge_raw"]),
        joint_edge_r=optional_number(stats["joint_edge_r"]),
        joint_se_r=optional_number(stats["joint_se_r"]),
        aliases=_aliases(stats["aliases"]),
        explained_by=tuple(stats["explained_by"]),
        reason=reason,
    )


def _aliases(documents: Sequence[dict[str, str]]) -> tuple[ScopeSubset, ...]:
    return tuple(subset(document) for document in documents)


def _slice_stats(document: dict[str, Any]) -> SliceStats:
    values = {f.name: number(document[f.name]) for f in fields(SliceStats) if f.name != "n"}
    return SliceStats(n=document["n"], **values)


def _multipliers(document: dict[str, Any]) -> Multipliers:
    return Multipliers(
        time=number(document["time"]),
        field=number(document["field"]),
        recurrence=number(document["recurrence"]),
        variance=number(document["variance"]),
        te=optional_number(document["te"]),
        phi=optional_number(document["phi"]),
        segments=document["segments"],
        rho=optional_number(document["rho"]),
    )


def lesson_rows(
    conn: Conn, module: str | None = None, status: LessonStatus | None = None
) -> list[dict[str, Any]]:
    """The lessons as rows for JSON: the table's columns, then the statistics again by name.

    The four multipliers and what they were made from are called `multiplier_time`, `…_field`
    and so on. Numbers that are not finite are None, times are ISO text. Active lessons come
    first, in each status the strongest first.
    """
    columns = LEARNING_LESSONS.column_names
    rows = [
        _flat(dict(zip(columns, row, strict=True)))
        for row in _select(conn, columns, module, status)
    ]
    order = list(LessonStatus)
    return sorted(rows, key=lambda row: (order.index(row["status"]), -abs(row["edge_raw"] or 0.0)))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    stats: dict[str, Any] = row.pop("stats")
    multipliers: dict[str, Any] = stats.pop("multipliers")
    row |= {"stats": {name: finite(value) for name, value in stats.items()}, **stats}
    row |= {f"multiplier_{name}": value for name, value in multipliers.items()}
    return {name: finite(value) for name, value in row.items()}


def save_calibrations(conn: Conn, calibrations: Sequence[Calibration]) -> None:
    """Make `calibrations` the cached cut-offs of their groups, in one transaction.

    Those of other groups stay: a search of one module calibrates some groups of the other too.
    """
    with conn.transaction():
        table_lock(conn, LEARNING_CALIBRATIONS.name)
        for group in {calibration.group for calibration in calibrations}:
            conn.execute(
                "DELETE FROM learning_calibrations "
                "WHERE (module, pattern_key, action_category) = (%s, %s, %s)",
                group,
            )
        rows = (_calibration_row(calibration) for calibration in calibrations)
        copy_rows(conn, LEARNING_CALIBRATIONS.name, _CALIBRATION_COLUMNS, rows)


def _calibration_row(calibration: Calibration) -> tuple[object, ...]:
    return (
        *calibration.group,
        calibration.calibrated_at,
        calibration.n_trades,
        [float(cutoff) for cutoff in calibration.cutoffs],
        calibration.noise_variance,
        calibration.day_variance,
        calibration.day_autocorrelation,
        calibration.settings,
    )


def calibrations(conn: Conn, module: str | None = None) -> dict[GroupKey, Calibration]:
    """The cached cut-offs by group, of one module if given."""
    rows = conn.execute(
        f"SELECT {', '.join(_CALIBRATION_COLUMNS)} FROM learning_calibrations "
        "WHERE module = coalesce(%s, module)",
        [module],
    )
    found = (_calibration(GroupKey(*row[:3]), *row[3:]) for row in rows)
    return {calibration.group: calibration for calibration in found}


def _calibration(
    group: GroupKey, calibrated_at: datetime, n_trades: int, cutoffs: list[float], *rest: Any
) -> Calibration:
    return Calibration(group, calibrated_at, n_trades, tuple(cutoffs), *rest)
