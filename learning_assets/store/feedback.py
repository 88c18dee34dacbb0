"""What bots applied: the actions that say so, and what became of it.

The result stands in the newest row of `override_effectiveness`; it is made in `core.feedback`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from learning_assets.core.feedback import AppliedAction, AppliedFeedback, Arm, Effect
from learning_assets.core.records import Applied, AppliedOverride, Status
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import to_jsonb
from learning_assets.store.tables import OVERRIDE_EFFECTIVENESS


def applied_actions(conn: Conn, since: datetime, before: datetime) -> list[AppliedAction]:
    """The actions that say what was applied, of trades closed in since … before, in order."""
    rows = conn.execute(
        "SELECT trade_id, rr, closed_at, module, action_category, applied_overrides "
        "FROM pattern_trade_events WHERE applied_overrides IS NOT NULL "
        'AND closed_at >= %s AND closed_at < %s ORDER BY closed_at, trade_id COLLATE "C", event_id',
        [since, before],
    )
    return [
        AppliedAction(trade_id, rr, closed_at, module, category, _applied(document))
        for trade_id, rr, closed_at, module, category, document in rows
    ]


def _applied(document: Mapping[str, Any]) -> Applied:
    return Applied(
        float(document["multiplier"]),
        float(document["suggested"]),
        Status(document["status"]),
        document["set_id"],
        tuple(AppliedOverride(x["lesson_id"], x["multiplier"]) for x in document["overrides"]),
    )


def save(conn: Conn, week: datetime, found: AppliedFeedback | None) -> None:
    """Write what was found into the row of a week, where no later week has a row.

    Writes in one transaction; no other row has it then.
    """
    with conn.transaction():
        table_lock(conn, OVERRIDE_EFFECTIVENESS.name)
        (newest,) = conn.execute("SELECT max(ts) FROM override_effectiveness").fetchone() or (None,)
        if newest != week:
            return
        conn.execute("UPDATE override_effectiveness SET applied = NULL WHERE applied IS NOT NULL")
        document = None if found is None else to_jsonb(asdict(found))
        conn.execute(
            "UPDATE override_effectiveness SET applied = %s WHERE ts = %s", [document, week]
        )


def newest(conn: Conn) -> AppliedFeedback | None:
    """What was found last; None where no trade says what was applied to it."""
    query = "SELECT applied FROM override_effectiveness WHERE applied IS NOT NULL ORDER BY ts DESC"
    row = conn.execute(query + " LIMIT 1").fetchone()
    return None if row is None else _feedback(row[0])


def _feedback(document: Mapping[str, Any]) -> AppliedFeedback:
    since, as_of = (datetime.fromisoformat(document[name]) for name in ("since", "as_of"))
    overrides = tuple(_effect(x) for x in document["overrides"])
    return AppliedFeedback(since, as_of, _effect(document["total"]), overrides)


def _effect(document: Mapping[str, Any]) -> Effect:
    arms = {name: Arm(**document[name]) for name in ("applied", "held_out")}
    return Effect(**{**document, **arms})
