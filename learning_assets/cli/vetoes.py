"""The owner's hand: forbidding a pattern, a scope or an override, and seeing what is forbidden."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.output import BookOption, JsonOption, print_json, terminal
from learning_assets.cli.show import asked_group, asked_scope
from learning_assets.core.scope import signature, subset
from learning_assets.core.vetoes import Veto, why_vetoed
from learning_assets.defs.opening import parse_time
from learning_assets.errors import UserError
from learning_assets.sources import parse
from learning_assets.store import overrides as stored
from learning_assets.store import vetoes as stored_vetoes
from learning_assets.store.connection import Conn
from learning_assets.store.overrides import PublishedSet
from learning_assets.store.vetoes import StoredVeto


def veto(
    reason: Annotated[str, typer.Option(help="Why; shown wherever the override is.")],
    override: Annotated[
        str | None,
        typer.Option(metavar="LESSON", help="One override, as `learning overrides` names it."),
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="All overrides of a pattern.")] = None,
    category: Annotated[
        str | None, typer.Option(help="Of the pattern only entry, add, trim, exit or allocation.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(help='Those whose scope has all of it, e.g. \'{"chain": "base"}\'.'),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends (UTC); never, if not given.")
    ] = None,
    book: BookOption = None,
) -> None:
    """Forbid overrides: they stay in the sets and are shown, but change no size.

    It takes effect at once, also on a set that is held live, and on all later ones.
    """
    now = datetime.now(UTC)
    made = _asked(reason, override, pattern, category, scope, now)
    made = replace(made, until=_end(until, now))
    with existing_book(settings_of(book)) as conn:
        if override is not None:
            _refuse_unknown(conn, override)
        with conn.transaction():
            number = stored_vetoes.add(conn, made)
            live = stored.apply_vetoes(conn, now)
    console = terminal()
    console.print(f"veto {number}: {_effect(live, number)}", soft_wrap=True)


def _asked(
    reason: str,
    override: str | None,
    pattern: str | None,
    category: str | None,
    scope: str | None,
    now: datetime,
) -> Veto:
    if not reason.strip():
        raise UserError("--reason is empty: say why, in a few words")
    if override is None and pattern is None and scope is None:
        raise UserError("say what is meant: --override LESSON, --pattern PATTERN or --scope JSON")
    if override is not None and (pattern, category, scope) != (None, None, None):
        raise UserError("--override names one override: leave out --pattern, --category, --scope")
    if category is not None and pattern is None:
        raise UserError("--category narrows a pattern: add --pattern")
    key, kind = _pattern(pattern, category)
    pairs = () if scope is None else subset(asked_scope(scope))
    if scope is not None and not pairs:
        raise UserError("--scope is empty: name at least one dimension with its value")
    return Veto(0, reason.strip(), now, None, override, key, kind, pairs)


def _pattern(pattern: str | None, category: str | None) -> tuple[str | None, str | None]:
    if pattern is None:
        return None, None
    if category is not None:
        group = asked_group(pattern, category)
        return group.pattern_key, group.action_category
    try:
        return parse.pattern_key(pattern, None)[1], None
    except parse.RowError as error:
        raise UserError(f"{error.detail}: give a pattern like pm.uptrend.S1.buy_flag") from None


def _end(until: str | None, now: datetime) -> datetime | None:
    if until is None:
        return None
    end = parse_time(until, "--until")
    if end <= now:
        raise UserError(f"--until {end:%Y-%m-%d %H:%M} UTC is over: give a later time, or none")
    return end


def _refuse_unknown(conn: Conn, lesson: str) -> None:
    live = stored.live(conn)
    names = [] if live is None else [o.lesson_id for o in live.content.overrides]
    if lesson not in names:
        known = ", ".join(sorted(names)[:3]) or "none"
        raise UserError(
            f"the live set has no override {lesson}: it has {known}"
            + (f" and {len(names) - 3} more" * (len(names) > 3))
            + ", see `learning overrides --json`"
        )


def _effect(live: PublishedSet | None, number: int) -> str:
    if live is None:
        return "nothing has been published yet; it counts from the first set on"
    mine = [o for o in live.content.overrides if o.parts.get("veto", {}).get("veto_id") == number]
    if not mine:
        return f"no override of set {live.set_id} is meant; it counts for later sets"
    some = ", ".join(sorted(o.lesson_id for o in mine)[:3]) + ", …" * (len(mine) > 3)
    count = f"{len(mine)} override{'s' * (len(mine) != 1)}"
    return f"set {live.set_id} is live now, with {count} without effect ({some})"


def vetoes(book: BookOption = None, as_json: JsonOption = False) -> None:
    """List the vetoes, those that have ended too, and what each one holds back now."""
    now = datetime.now(UTC)
    with existing_book(settings_of(book)) as conn:
        found, live = stored_vetoes.every(conn), stored.live(conn)
    rows = [_row(one, live, now) for one in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        terminal().print("there are no vetoes")
        return
    table = Table(title="Vetoes", title_justify="left", title_style="bold", box=None)
    for name in ("no.", "what", "reason", "state"):
        table.add_column(name, overflow="fold")
    table.add_column("holds back", justify="right")
    for row in rows:
        number, held = str(row["veto_id"]), f"{len(row['holds_back']):,}"
        table.add_row(*map(Text, (number, row["what"], row["reason"], row["state"], held)))
    terminal().print(table)


def _row(one: StoredVeto, live: PublishedSet | None, now: datetime) -> Mapping[str, Any]:
    found = one.veto
    held = () if live is None else live.content.overrides
    return {
        "veto_id": found.veto_id,
        "what": _what(found),
        "lesson_id": found.lesson_id,
        "pattern_key": found.pattern_key,
        "action_category": found.action_category,
        "scope_subset": dict(found.scope_subset),
        "reason": found.reason,
        "since": found.since,
        "until": found.until,
        "lifted_at": one.lifted_at,
        "in_force": one.holds(now),
        "state": _state(one, now),
        "holds_back": [
            o.lesson_id
            for o in held
            if why_vetoed(o) is not None and o.parts["veto"]["veto_id"] == found.veto_id
        ],
    }


def _what(found: Veto) -> str:
    if found.lesson_id is not None:
        return found.lesson_id
    named = [found.pattern_key or "any pattern", found.action_category or "any category"]
    return "/".join([*named, signature(found.scope_subset)])


def _state(one: StoredVeto, now: datetime) -> str:
    if one.lifted_at is not None:
        return f"lifted {one.lifted_at:%Y-%m-%d %H:%M}"
    until = one.veto.until
    if until is None:
        return "in force"
    return f"{'until' if now < until else 'ended'} {until:%Y-%m-%d %H:%M}"


def unveto(
    veto_id: Annotated[int, typer.Argument(metavar="NO", help="Number, see `learning vetoes`.")],
    book: BookOption = None,
) -> None:
    """Lift a veto: what it held back counts again at once."""
    now = datetime.now(UTC)
    with existing_book(settings_of(book)) as conn, conn.transaction():
        lifted = stored_vetoes.lift(conn, veto_id, now)
        before = stored.live(conn)
        live = stored.apply_vetoes(conn, now)
    is_new = live is not None and before is not None and live.set_id != before.set_id
    what = f"set {live.set_id} is live now" if live and is_new else "the live set is as before"
    terminal().print(f"veto {veto_id} ({_what(lifted.veto)}) is lifted: {what}", soft_wrap=True)
