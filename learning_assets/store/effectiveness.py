"""The walk-forward, week by week: what replayed sets did, and the sets themselves.

A replayed set stands among the others in `pm_override_sets` and is never live. How it is judged
is the business of `core.judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from learning_assets.core.history import WEEK
from learning_assets.core.walkforward import (
    DaySums,
    ModuleResult,
    OverrideResult,
    Replay,
    WeekResult,
)
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.overrides import publish, published_set
from learning_assets.store.rows import copy_rows, to_jsonb
from learning_assets.store.tables import OVERRIDE_EFFECTIVENESS

# What bots applied is written by `store.feedback`.
_COLUMNS = tuple(name for name in OVERRIDE_EFFECTIVENESS.column_names if name != "applied")
_COUNTS = ("n_trades", "n_overrides", "n_matched")
_NUMBERS = ("mean_rr", "mean_rr_with", "difference", "low", "high", "total_size")


@dataclass(frozen=True, slots=True)
class StoredReplay:
    """A replay with its number and the digest of what it was learned from."""

    set_id: int
    replay: Replay
    learned_from: str


def save_replays(
    conn: Conn, replays: Sequence[Replay], learned_from: Mapping[datetime, str]
) -> list[StoredReplay]:
    """Store the sets of these weeks, each in place of an older replay of its week.

    Writes in one transaction, and leaves the live set alone. `learned_from` is by week.
    """
    with conn.transaction():
        weeks = [replay.week for replay in replays]
        conn.execute("DELETE FROM pm_override_sets WHERE replay AND as_of = ANY(%s)", [weeks])
        return [StoredReplay(publish(conn, x.content), x, learned_from[x.week]) for x in replays]


def replace_results(
    conn: Conn, results: Sequence[WeekResult], replays: Sequence[StoredReplay]
) -> None:
    """Write the rows of these weeks in place of what is there, in one transaction.

    `replays` are the sets that the results are about, one for each week.
    """
    by_week = {stored.replay.week: stored for stored in replays}
    with conn.transaction():
        table_lock(conn, OVERRIDE_EFFECTIVENESS.name)
        forget(conn, list(by_week))
        rows = (_row(result, by_week[result.week]) for result in results)
        copy_rows(conn, OVERRIDE_EFFECTIVENESS.name, _COLUMNS, rows)


def forget(conn: Conn, weeks: Sequence[datetime]) -> None:
    """Delete the rows of these weeks; their sets stay."""
    conn.execute("DELETE FROM override_effectiveness WHERE ts = ANY(%s)", [list(weeks)])


def _row(result: WeekResult, stored: StoredReplay) -> tuple[object, ...]:
    values = {
        **{name: getattr(result, name) for name in (*_COUNTS, *_NUMBERS)},
        "ts": result.week,
        "set_id": stored.set_id,
        "modules": to_jsonb({m: _module_document(x) for m, x in result.modules.items()}),
        "overrides": to_jsonb([asdict(x) for x in result.overrides]),
        "evaluated_at": result.evaluated_at,
        "learned_from": stored.learned_from,
    }
    return tuple(values[name] for name in _COLUMNS)


def _module_document(result: ModuleResult) -> dict[str, Any]:
    days = [{**asdict(x), "day": x.day.isoformat()} for x in result.days]
    return {"gain": result.gain, "n_matched": result.n_matched, "days": days}


def results(conn: Conn, as_of: datetime | None = None) -> list[WeekResult]:
    """The results of all weeks, in order.

    With `as_of`, only those of weeks that had ended by then, judged by what had closed by then.
    """
    columns = ("ts", *_COUNTS, *_NUMBERS, "modules", "overrides", "evaluated_at")
    rows = conn.execute(
        f"SELECT {', '.join(columns)} FROM override_effectiveness "
        "WHERE %(as_of)s::timestamptz IS NULL OR (evaluated_at <= %(as_of)s AND ts <= %(last)s) "
        "ORDER BY ts",
        {"as_of": as_of, "last": None if as_of is None else as_of - WEEK},
    )
    return [_result(dict(zip(columns, row, strict=True))) for row in rows]


def _result(row: dict[str, Any]) -> WeekResult:
    return WeekResult(
        week=row["ts"],
        **{name: row[name] for name in (*_COUNTS, *_NUMBERS)},
        modules={m: _module(x) for m, x in row["modules"].items()},
        overrides=tuple(OverrideResult(**x) for x in row["overrides"]),
        evaluated_at=row["evaluated_at"],
    )


def _module(document: dict[str, Any]) -> ModuleResult:
    days = [DaySums(**{**x, "day": date.fromisoformat(x["day"])}) for x in document["days"]]
    return ModuleResult(float(document["gain"]), document["n_matched"], tuple(days))


def weeks(conn: Conn) -> list[datetime]:
    """The Mondays of the weeks with a result, in order."""
    return [ts for (ts,) in conn.execute("SELECT ts FROM override_effectiveness ORDER BY ts")]


def stored_replays(conn: Conn, first: datetime, last: datetime) -> list[StoredReplay]:
    """The stored sets of the weeks from `first` to `last`, both included, in order."""
    rows = conn.execute(
        "SELECT set_id, modules, learned_from FROM override_effectiveness "
        "WHERE ts BETWEEN %s AND %s AND set_id IS NOT NULL ORDER BY ts",
        [first, last],
    ).fetchall()
    found = []
    for set_id, modules, learned_from in rows:
        stored = published_set(conn, set_id)
        if stored is not None:
            gains = {m: float(x["gain"]) for m, x in modules.items()}
            found.append(StoredReplay(set_id, Replay(stored.content, gains), learned_from))
    return found
