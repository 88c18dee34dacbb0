"""The vetoes of a book. What one means is the business of `core.vetoes`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from learning_assets.core.scope import subset
from learning_assets.core.vetoes import Veto
from learning_assets.errors import UserError
from learning_assets.store.connection import Conn
from learning_assets.store.rows import to_jsonb

_COLUMNS = (
    *("veto_id", "reason", "since", "until", "lesson_id", "pattern_key", "action_category"),
    *("scope_subset", "lifted_at"),
)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM override_vetoes "


@dataclass(frozen=True, slots=True)
class StoredVeto:
    """A veto, and when a person lifted it; None where nobody has."""

    veto: Veto
    lifted_at: datetime | None

    def holds(self, at: datetime) -> bool:
        """Whether it is in force at a moment."""
        return self.lifted_at is None and self.veto.holds(at)


def add(conn: Conn, veto: Veto) -> int:
    """Store a veto; return the number that it gets."""
    row = conn.execute(
        "INSERT INTO override_vetoes "
        "(lesson_id, pattern_key, action_category, scope_subset, reason, since, until) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING veto_id",
        [
            veto.lesson_id,
            veto.pattern_key,
            veto.action_category,
            to_jsonb(dict(veto.scope_subset)),
            veto.reason,
            veto.since,
            veto.until,
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])


def lift(conn: Conn, veto_id: int, now: datetime) -> StoredVeto:
    """End a veto; return it as it was.

    Raises:
        UserError: for a number that no veto has, and for one that has ended already.
    """
    found = next((one for one in every(conn) if one.veto.veto_id == veto_id), None)
    if found is None:
        raise UserError(f"there is no veto {veto_id}: `learning vetoes` lists those that there are")
    if not found.holds(now):
        raise UserError(f"the veto {veto_id} has ended already: see `learning vetoes`")
    conn.execute("UPDATE override_vetoes SET lifted_at = %s WHERE veto_id = %s", [now, veto_id])
    return found


def every(conn: Conn) -> list[StoredVeto]:
    """All vetoes there ever were, the newest first."""
    return [_stored(*row) for row in conn.execute(_SELECT + "ORDER BY veto_id DESC")]


def in_force(conn: Conn, now: datetime) -> list[Veto]:
    """The vetoes that hold now, the newest first."""
    return [one.veto for one in every(conn) if one.holds(now)]


def _stored(
    veto_id: int,
    reason: str,
    since: datetime,
    until: datetime | None,
    lesson_id: str | None,
    pattern_key: str | None,
    action_category: str | None,
    scope_subset: dict[str, str],
    lifted_at: datetime | None,
) -> StoredVeto:
    pairs = subset(scope_subset)
    veto = Veto(veto_id, reason, since, until, lesson_id, pattern_key, action_category, pairs)
    return StoredVeto(veto, lifted_at)
