"""Sets of overrides: published whole or not at all, the live one in a table of its own.

What an override should be is the business of `core`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from learning_assets.core.changes import Changed, Reason, Why, because, changes
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.core.scope import subset
from learning_assets.core.vetoes import with_vetoes
from learning_assets.errors import UserError
from learning_assets.store import vetoes
from learning_assets.store.connection import Conn, table_lock
from learning_assets.store.rows import copy_rows, finite, number, optional_number, to_jsonb
from learning_assets.store.tables import PM_OVERRIDES

_EVER = datetime(1970, 1, 1, tzinfo=UTC)

VIEW_COMMENT = "learning-assets: the live set of overrides"


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """A stored set: its number, since when and until when it was live, and what is in it.

    `live_from` is None for a replay and for a set that was held back, `live_to` as long as the
    set is live. `pinned_at` tells since when a person holds it live, `copy_of` which earlier set it
    repeats, `changes` what it changed and why (None where that was not worked out).
    """

    set_id: int
    live_from: datetime | None
    live_to: datetime | None
    content: OverrideSet
    pinned_at: datetime | None = None
    copy_of: int | None = None
    changes: tuple[Changed, ...] | None = None


def publish(conn: Conn, override_set: OverrideSet, changed: Sequence[Changed] | None = None) -> int:
    """Store a set and make it the live one, in one transaction; return its number.

    The set that was live until now ends at `published_at`. A replay is stored beside the others
    and leaves the live set alone. Readers see the old set or the new one, whole. `changed` is what
    it changes against the live one, and why.
    """
    with alone(conn):
        if override_set.replay:
            return _insert_set(conn, override_set, changed, None)
        ended = conn.execute(
            "UPDATE pm_override_sets SET live_to = greatest(live_from, %s) "
            "WHERE live_from IS NOT NULL AND live_to IS NULL RETURNING live_to",
            [override_set.published_at],
        ).fetchone()
        live_from = override_set.published_at if ended is None else ended[0]
        set_id = _insert_set(conn, override_set, changed, live_from)
        conn.execute("DELETE FROM pm_overrides")
        rows = (_row(set_id, override_set, item) for item in override_set.overrides)
        copy_rows(conn, PM_OVERRIDES.name, PM_OVERRIDES.column_names, rows)
    return set_id


@contextmanager
def alone(conn: Conn) -> Iterator[None]:
    """A transaction in which nobody else publishes, holds or goes back to a set."""
    with conn.transaction():
        table_lock(conn, PM_OVERRIDES.name)
        yield


def hold_back(
    conn: Conn, override_set: OverrideSet, changed: Sequence[Changed] | None = None
) -> int:
    """Store a set that must wait beside the others, and leave the live one; return its number."""
    with alone(conn):
        return _insert_set(conn, override_set, changed, None)


def pin(conn: Conn, set_id: int, now: datetime, lasts: timedelta) -> PublishedSet:
    """Hold a set live until `unpin`, whatever runs meanwhile; return it.

    It lasts so long from now on, until `renew` says otherwise. A set that is not live, or has
    expired, is published anew, with the vetoes that are in force.

    Raises:
        UserError: for a number that no set has, and for a replay, which saw other trades than were
            known at the time.
    """
    with alone(conn):
        wanted, current = existing_set(conn, set_id), live(conn)
        if wanted.content.replay:
            raise UserError(f"set {set_id} is a replay, made for backtests: it never goes live")
        is_live = current is not None and current.set_id == set_id
        if not is_live or wanted.content.expires_at <= now:
            again = with_vetoes_of(conn, wanted.content, now)
            again = replace(again, published_at=now, expires_at=now + lasts)
            before = current.content.overrides if current else ()
            reason = Reason(Why.GONE_BACK, f"to set {set_id}, by a person")
            number = publish(conn, again, because(changes(before, again.overrides), reason))
            _mark(conn, number, copy_of=wanted.copy_of or set_id)
            set_id = number
        _mark(conn, set_id, pinned_at=now)
        return existing_set(conn, set_id)


def apply_vetoes(conn: Conn, now: datetime) -> PublishedSet | None:
    """Publish the live set with the vetoes in force, if that is not what it is already.

    It stays held if it was, and expires when it would have. What it would have done to the
    look-back is not known before the next run. Returns the set that is live then.
    """
    with alone(conn):
        current = live(conn)
        if current is None:
            return None
        again = with_vetoes_of(conn, current.content, now)
        changed = changes(current.content.overrides, again.overrides)
        if not changed:
            return current
        published_at = max(now, current.content.published_at)
        again = replace(again, published_at=published_at, expected={})
        number = publish(conn, again, changed)
        _mark(conn, number, pinned_at=current.pinned_at, copy_of=current.copy_of)
        return existing_set(conn, number)


def with_vetoes_of(conn: Conn, content: OverrideSet, now: datetime) -> OverrideSet:
    """A set with the vetoes of the book that are in force, and no others."""
    held = with_vetoes(content.overrides, vetoes.in_force(conn, now), now)
    return replace(content, overrides=held)


def _mark(
    conn: Conn, set_id: int, *, pinned_at: datetime | None = None, copy_of: int | None = None
) -> None:
    conn.execute(
        "UPDATE pm_override_sets SET pinned_at = coalesce(pinned_at, %s), "
        "copy_of = coalesce(copy_of, %s) WHERE set_id = %s",
        [pinned_at, copy_of, set_id],
    )


def unpin(conn: Conn) -> PublishedSet | None:
    """Let the next set go live again; return the set that was held, None where none was."""
    with alone(conn):
        current = live(conn)
        if current is None or current.pinned_at is None:
            return None
        conn.execute(
            "UPDATE pm_override_sets SET pinned_at = NULL WHERE set_id = %s", [current.set_id]
        )
        return current


def before_live(conn: Conn) -> int | None:
    """The newest set that was live before the live one and says something else; None without one.

    Before what it repeats, where the live one is a copy. Vetoes make no difference.
    """
    current = live(conn)
    if current is None:
        return None
    query = _SELECT_SETS + "WHERE live_from IS NOT NULL AND set_id < %s ORDER BY set_id DESC"
    known = _said(current)
    for row in conn.execute(query, [current.copy_of or current.set_id]):
        earlier = _published(*row)
        if _said(earlier) != known:
            return earlier.set_id
    return None


def _said(one: PublishedSet) -> dict[str, float]:
    return {o.lesson_id: o.multiplier for o in with_vetoes(one.content.overrides, (), _EVER)}


def renew(conn: Conn, now: datetime, expires_at: datetime) -> PublishedSet | None:
    """Publish the set that is held live anew, so that it does not expire; return the live set.

    A set of its own each time, so that what was known at a moment stays known.
    """
    with alone(conn):
        current = live(conn)
        if current is None or current.pinned_at is None:
            return current
        again = replace(current.content, published_at=now, expires_at=expires_at)
        number = publish(conn, again, ())
        copied = current.copy_of or current.set_id
        _mark(conn, number, pinned_at=current.pinned_at, copy_of=copied)
        return existing_set(conn, number)


def gone_before(conn: Conn, lesson_ids: Collection[str]) -> set[str]:
    """Which of these lessons had an override in a set that was live, and lost it."""
    rows = conn.execute(
        "SELECT DISTINCT change ->> 'lesson_id' FROM pm_override_sets, "
        "jsonb_array_elements(changes) AS change WHERE live_from IS NOT NULL "
        "AND change ->> 'new' IS NULL AND change ->> 'lesson_id' = ANY(%s)",
        [list(lesson_ids)],
    )
    return {name for (name,) in rows}


def why_lost(conn: Conn, old: int, new: int) -> dict[str, Reason]:
    """Why lessons lost their override, as the sets after `old` up to `new` said it last."""
    rows = conn.execute(
        "SELECT change ->> 'lesson_id', change ->> 'why', change ->> 'detail' "
        "FROM pm_override_sets, jsonb_array_elements(changes) AS change "
        "WHERE set_id > %s AND set_id <= %s AND change ->> 'new' IS NULL ORDER BY set_id",
        [old, new],
    )
    return {name: Reason(Why(why), detail) for name, why, detail in rows}


def held_back(conn: Conn) -> list[PublishedSet]:
    """The sets held back since the live one was published, the newest last."""
    query = _SELECT_SETS + (
        "WHERE live_from IS NULL AND NOT replay AND set_id > (SELECT coalesce(max(set_id), 0) "
        "FROM pm_override_sets WHERE live_from IS NOT NULL) ORDER BY set_id"
    )
    return [_published(*row) for row in conn.execute(query)]


def _insert_set(
    conn: Conn,
    override_set: OverrideSet,
    changed: Sequence[Changed] | None,
    live_from: datetime | None,
) -> int:
    row = conn.execute(
        "INSERT INTO pm_override_sets "
        "(as_of, published_at, expires_at, live_from, replay, expected, overrides, changes) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING set_id",
        [
            override_set.as_of,
            override_set.published_at,
            override_set.expires_at,
            live_from,
            override_set.replay,
            to_jsonb(override_set.expected),
            to_jsonb([_document(item) for item in override_set.overrides]),
            None if changed is None else to_jsonb([asdict(change) for change in changed]),
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])


def _document(override: Override) -> dict[str, object]:
    return {f.name: getattr(override, f.name) for f in fields(Override)} | {
        "group": list(override.group),
        "scope_subset": dict(override.scope_subset),
        "decay_state": override.decay_state.value,
    }


def _row(set_id: int, override_set: OverrideSet, override: Override) -> tuple[object, ...]:
    document = _document(override)
    group = document.pop("group")
    assert isinstance(group, list)
    values = document | {
        **dict(zip(GroupKey._fields, group, strict=True)),
        "scope_subset": to_jsonb(document["scope_subset"]),
        "parts": to_jsonb(override.parts),
        "set_id": set_id,
        "lesson_id": override.lesson_id,
        "last_updated_at": override_set.published_at,
        "published_at": override_set.published_at,
        "expires_at": override_set.expires_at,
    }
    return tuple(values[column] for column in PM_OVERRIDES.column_names)


_SELECT_SETS = (
    "SELECT set_id, live_from, live_to, as_of, published_at, expires_at, replay, expected, "
    "overrides, pinned_at, copy_of, changes FROM pm_override_sets "
)


def live(conn: Conn) -> PublishedSet | None:
    """The set that is live, None before the first one. An empty set can be live."""
    query = _SELECT_SETS + "WHERE live_from IS NOT NULL AND live_to IS NULL"
    row = conn.execute(query).fetchone()
    return None if row is None else _published(*row)


def published_set(conn: Conn, set_id: int) -> PublishedSet | None:
    """The set of that number, None where there is none."""
    row = conn.execute(_SELECT_SETS + "WHERE set_id = %s", [set_id]).fetchone()
    return None if row is None else _published(*row)


def existing_set(conn: Conn, set_id: int) -> PublishedSet:
    """The set of that number.

    Raises:
        UserError: where there is none.
    """
    found = published_set(conn, set_id)
    if found is None:
        raise UserError(f"there is no set {set_id}: `learning sets` lists those that there are")
    return found


def newest_sets(conn: Conn, count: int, *, replays: bool) -> list[PublishedSet]:
    """So many of the newest sets, the newest first, with or without replays."""
    query = _SELECT_SETS + "WHERE %s OR NOT replay ORDER BY set_id DESC LIMIT %s"
    return [_published(*row) for row in conn.execute(query, [replays, count])]


def live_sets(conn: Conn, since: datetime, until: datetime) -> list[PublishedSet]:
    """The sets that were live at some time in since … until (its end not included), in order."""
    query = _SELECT_SETS + (
        "WHERE live_from < %s AND coalesce(live_to, 'infinity') > %s ORDER BY live_from, set_id"
    )
    return [_published(*row) for row in conn.execute(query, [until, since])]


def _published(
    set_id: int,
    live_from: datetime | None,
    live_to: datetime | None,
    as_of: datetime,
    published_at: datetime,
    expires_at: datetime,
    replay: bool,
    expected: dict[str, Any],
    documents: list[dict[str, Any]],
    pinned_at: datetime | None,
    copy_of: int | None,
    changed: list[dict[str, Any]] | None,
) -> PublishedSet:
    content = OverrideSet(
        as_of=as_of,
        published_at=published_at,
        expires_at=expires_at,
        overrides=tuple(_override(document) for document in documents),
        expected={name: number(value) for name, value in expected.items()},
        replay=replay,
    )
    said = None if changed is None else tuple(Changed(**one) for one in changed)
    return PublishedSet(set_id, live_from, live_to, content, pinned_at, copy_of, said)


def _override(document: Mapping[str, Any]) -> Override:
    return Override(
        group=GroupKey(*document["group"]),
        scope_subset=subset(document["scope_subset"]),
        multiplier=number(document["multiplier"]),
        adjusted_edge_r=number(document["adjusted_edge_r"]),
        confidence_score=number(document["confidence_score"]),
        decay_state=DecayState(document["decay_state"]),
        half_life_hours=optional_number(document["half_life_hours"]),
        n=document["n"],
        q_value=number(document["q_value"]),
        parts=document["parts"],
    )


def override_rows(conn: Conn) -> list[dict[str, Any]]:
    """The live overrides as rows for JSON, by pattern, category and scope.

    The columns of `pm_overrides`; `scope_subset` and `parts` are objects, times are ISO text,
    numbers that are not finite are None.
    """
    columns = PM_OVERRIDES.column_names
    query = f"SELECT {', '.join(columns)} FROM pm_overrides ORDER BY lesson_id"
    return [
        {name: finite(value) for name, value in zip(columns, row, strict=True)}
        for row in conn.execute(query)
    ]


def document_of(one: PublishedSet) -> dict[str, Any]:
    """A set as `runtime.sets.LiveSet` and, as JSON, `OverrideBook.from_file` read it."""
    content = one.content
    return {
        "set_id": one.set_id,
        "live_from": one.live_from,
        "live_to": one.live_to,
        "as_of": content.as_of,
        "published_at": content.published_at,
        "expires_at": content.expires_at,
        "replay": content.replay,
        "overrides": [_document(override) for override in content.overrides],
    }


def live_document(conn: Conn) -> dict[str, Any]:
    """The live set as `runtime.OverrideBook.from_file` reads it; no set before the first one."""
    current = live(conn)
    return {"sets": [] if current is None else [document_of(current)]}


def replays(conn: Conn, first: datetime, last: datetime) -> list[PublishedSet]:
    """The replays of the weeks from `first` to `last`, both included, in order."""
    query = _SELECT_SETS + "WHERE replay AND as_of BETWEEN %s AND %s ORDER BY as_of"
    return [_published(*row) for row in conn.execute(query, [first, last])]


def publish_public_view(conn: Conn) -> None:
    """Make the view `public.pm_overrides` of the live set, for readers of the older system.

    The view can only be read, and only by users who may read the table behind it. Ours may be
    there already.

    Raises:
        UserError: in another book than main, where something else of that name exists, or
            where the user of the database may not make it. Nothing is changed then.
    """
    with conn.transaction():
        table_lock(conn, "public.pm_overrides")
        _refuse_foreign(conn)
        try:
            conn.execute(_view(conn))
        except psycopg.errors.InsufficientPrivilege:
            raise UserError(
                "the user of the database may not make the view public.pm_overrides: let an "
                "administrator grant CREATE on the schema public to this user"
            ) from None


def withdraw_public_view(conn: Conn) -> None:
    """Remove the view that `publish_public_view` made; nothing happens where there is none.

    Raises:
        UserError: in another book than main, or where what has that name is not ours.
    """
    with conn.transaction():
        table_lock(conn, "public.pm_overrides")
        _refuse_foreign(conn)
        conn.execute("DROP VIEW IF EXISTS public.pm_overrides")


def _refuse_foreign(conn: Conn) -> None:
    if conn.execute("SELECT current_schema()").fetchone() != ("learning",):
        raise UserError("the view public.pm_overrides is for the book main only: leave out --book")
    found = conn.execute(
        "SELECT obj_description(oid, 'pg_class') FROM pg_class "
        "WHERE relname = 'pm_overrides' AND relnamespace = 'public'::regnamespace"
    ).fetchone()
    if found not in (None, (VIEW_COMMENT,)):
        raise UserError(
            "public.pm_overrides exists already and is not ours: rename or drop it first, or read "
            "learning.pm_overrides instead"
        )


def _view(conn: Conn) -> sql.Composed:
    # Its readers may know no expiry. A simple view could be written through, and would show the
    # table to whoever may see the view: OFFSET rules out the first, security_invoker the second
    # (PostgreSQL 15 and later).
    invoker = "WITH (security_invoker = true)" if conn.info.server_version >= 150_000 else ""
    return sql.SQL(
        "CREATE OR REPLACE VIEW public.pm_overrides {} AS SELECT {} FROM pm_overrides "
        "WHERE expires_at > now() OFFSET 0; "
        "COMMENT ON VIEW public.pm_overrides IS {}"
    ).format(
        sql.SQL(invoker),
        sql.SQL(", ").join(map(sql.Identifier, PM_OVERRIDES.column_names)),
        sql.Literal(VIEW_COMMENT),
    )
