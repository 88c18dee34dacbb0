"""Sets of overrides: what was live when, what changed, going back, and holding one live."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.output import BookOption, JsonOption, print_json, terminal
from learning_assets.core.changes import Changed, changes, counted_reasons
from learning_assets.core.config import LearningConfig
from learning_assets.core.publication import lasting
from learning_assets.defs.plans import chosen_plan
from learning_assets.errors import UserError
from learning_assets.store import overrides as stored
from learning_assets.store.overrides import PublishedSet

_SHOWN = 20


def sets(
    last: Annotated[
        int, typer.Option(min=1, max=100_000, help="How many, the newest first.")
    ] = _SHOWN,
    replays: Annotated[
        bool, typer.Option("--replays", help="Also those that were made to judge the past.")
    ] = False,
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the sets of overrides: when each was live, what it changed, and why."""
    with existing_book(settings_of(book)) as conn:
        found = stored.newest_sets(conn, last, replays=replays)
    rows = [_row(one) for one in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        terminal().print("nothing has been published yet")
        return
    table = Table(title="Sets", title_justify="left", title_style="bold", box=None)
    for name in ("set", "state", "live from", "to"):
        table.add_column(name, no_wrap=True)
    table.add_column("overrides", justify="right", no_wrap=True)
    table.add_column("what it changed", overflow="fold")
    for row in rows:
        times = (_moment(row["live_from"]), _moment(row["live_to"]))
        count, why = f"{row['overrides']:,}", row["changed"] or "–"
        table.add_row(*map(Text, (str(row["set_id"]), row["state"], *times, count, why)))
    terminal().print(table)


def _row(one: PublishedSet) -> Mapping[str, Any]:
    changed = one.changes
    return {
        "set_id": one.set_id,
        "state": _state(one),
        "as_of": one.content.as_of,
        "published_at": one.content.published_at,
        "expires_at": one.content.expires_at,
        "live_from": one.live_from,
        "live_to": one.live_to,
        "pinned_at": one.pinned_at,
        "copy_of": one.copy_of,
        "overrides": len(one.content.overrides),
        "changed": None if changed is None else counted_reasons(changed),
        "changes": None if changed is None else [asdict(change) for change in changed],
    }


def _state(one: PublishedSet) -> str:
    if one.content.replay:
        return "replay"
    if one.live_from is None:
        return "held back"
    if one.live_to is not None:
        return "past"
    return "live" if one.pinned_at is None else "live, pinned"


def _moment(value: datetime | None) -> str:
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M}"


def diff(
    old: Annotated[int, typer.Argument(help="Number of a set, see `learning sets`.")],
    new: Annotated[int, typer.Argument(help="Number of another.")],
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what one set of overrides changes against another, and why."""
    with existing_book(settings_of(book)) as conn:
        before, after = stored.existing_set(conn, old), stored.existing_set(conn, new)
        lost = stored.why_lost(conn, old, new)
    found = changes(before.content.overrides, after.content.overrides, lost)
    if as_json:
        print_json([asdict(change) for change in found])
        return
    console = terminal()
    same = len({o.lesson_id for o in before.content.overrides} - {c.lesson_id for c in found})
    console.print(f"from set {old} to set {new}: {len(found)} changed, {same} as before")
    for change in found:
        console.print(_sentence(change), markup=False, soft_wrap=True)


def _sentence(change: Changed) -> str:
    old, new = ("–" if m is None else f"×{m:.3f}" for m in (change.old, change.new))
    return f"  {old:>6} → {new:>6}  {change.lesson_id}: {change.why} ({change.detail})"


def rollback(
    set_id: Annotated[
        int | None,
        typer.Argument(metavar="[SET]", help="The last that said otherwise, if none."),
    ] = None,
    book: BookOption = None,
) -> None:
    """Go back to an earlier set, and hold it live until `learning unpin`."""
    with existing_book(settings_of(book)) as conn:
        wanted = stored.before_live(conn) if set_id is None else set_id
        if wanted is None:
            raise UserError("there is no earlier set to go back to: see `learning sets`")
        _say_pinned(stored.pin(conn, wanted, datetime.now(UTC), _lasts()))


def pin(
    set_id: Annotated[
        int | None, typer.Argument(metavar="[SET]", help="The live one, if none.")
    ] = None,
    book: BookOption = None,
) -> None:
    """Hold a set live until `learning unpin`: new sets wait meanwhile, and each run renews it."""
    with existing_book(settings_of(book)) as conn:
        live = stored.live(conn)
        wanted = live.set_id if set_id is None and live is not None else set_id
        if wanted is None:
            raise UserError("nothing has been published yet, so there is nothing to hold")
        _say_pinned(stored.pin(conn, wanted, datetime.now(UTC), _lasts()))


def _lasts() -> timedelta:
    """How long a set lasts by the plan."""
    interval = chosen_plan(os.environ).interval("overrides") or timedelta(hours=1)
    return lasting(LearningConfig.model_validate({}), interval)


def unpin(book: BookOption = None) -> None:
    """Let the next set go live again."""
    with existing_book(settings_of(book)) as conn:
        held = stored.unpin(conn)
    if held is None:
        raise UserError("no set is held live: see `learning sets`")
    terminal().print(
        f"set {held.set_id} is no longer held: it stays live until the next run publishes one"
    )


def _say_pinned(held: PublishedSet) -> None:
    what = f" (set {held.copy_of} again)" if held.copy_of else ""
    count = len(held.content.overrides)
    terminal().print(
        f"set {held.set_id}{what} with {count:,} overrides is live and held: new sets wait until "
        "`learning unpin`",
        soft_wrap=True,
    )
