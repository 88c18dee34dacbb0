"""Sets of overrides: what was live when, what changed, going back, and holding one live."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.output import BookOption, JsonOption, print_json, terminal
from learning_assets.core.publication import change
from learning_assets.core.records import Override
from learning_assets.errors import UserError
from learning_assets.store import overrides as stored
from learning_assets.store.overrides import PublishedSet

_SHOWN = 20


def sets(
    last: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = _SHOWN,
    replays: Annotated[
        bool, typer.Option("--replays", help="Also those that were made to judge the past.")
    ] = False,
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the sets of overrides: when each was live, and what it changed."""
    with existing_book(settings_of(book)) as conn:
        found = stored.newest_sets(conn, last, replays=replays)
    rows = [_row(one, _before(found[k + 1 :])) for k, one in enumerate(found[:last])]
    if as_json:
        print_json(rows)
        return
    if not rows:
        terminal().print("nothing has been published yet")
        return
    table = Table(title="Sets", title_justify="left", title_style="bold", box=None)
    for name in ("set", "state", "live from", "to"):
        table.add_column(name, no_wrap=True)
    for name in ("overrides", "new", "gone", "moved"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        times = (_moment(row["live_from"]), _moment(row["live_to"]))
        numbers = (row["overrides"], row["added"], row["dropped"], row["moved"])
        cells = (str(row["set_id"]), row["state"], *times, *map(_count, numbers))
        table.add_row(*map(Text, cells))
    terminal().print(table)


def _before(older: list[PublishedSet]) -> PublishedSet | None:
    """The set that was live before, as far as it is among these."""
    return next((one for one in older if one.live_from is not None), None)


def _row(one: PublishedSet, before: PublishedSet | None) -> Mapping[str, Any]:
    changed = None if before is None else change(before.content, one.content)
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
        "compared_with": before and before.set_id,
        "added": None if changed is None else len(changed.added),
        "dropped": None if changed is None else len(changed.dropped),
        "moved": None if changed is None else len(changed.moved),
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


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def diff(
    old: Annotated[int, typer.Argument(help="Number of a set, see `learning sets`.")],
    new: Annotated[int, typer.Argument(help="Number of another.")],
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what one set of overrides changes against another."""
    with existing_book(settings_of(book)) as conn:
        before, after = stored.existing_set(conn, old), stored.existing_set(conn, new)
    rows = _changes(before, after)
    if as_json:
        print_json(rows)
        return
    console = terminal()
    same = len({o.lesson_id for o in before.content.overrides} - {r["lesson_id"] for r in rows})
    console.print(f"from set {old} to set {new}: {len(rows)} changed, {same} as before")
    for row in rows:
        console.print(_sentence(row), markup=False, soft_wrap=True)


def _changes(before: PublishedSet, after: PublishedSet) -> list[Mapping[str, Any]]:
    """Every override whose multiplier is not the same, the largest change first."""
    old = {o.lesson_id: o for o in before.content.overrides}
    new = {o.lesson_id: o for o in after.content.overrides}
    rows = [
        {
            "lesson_id": name,
            "old": _multiplier(old.get(name)),
            "new": _multiplier(new.get(name)),
            "difference": (_multiplier(new.get(name)) or 1.0) - (_multiplier(old.get(name)) or 1.0),
        }
        for name in sorted(old.keys() | new.keys())
    ]
    changed = [row for row in rows if row["old"] != row["new"]]
    return sorted(changed, key=lambda row: -abs(row["difference"]))


def _multiplier(override: Override | None) -> float | None:
    return None if override is None else override.multiplier


def _sentence(row: Mapping[str, Any]) -> str:
    if row["old"] is None:
        return f"  new    × {row['new']:.3f}            {row['lesson_id']}"
    if row["new"] is None:
        return f"  gone   × {row['old']:.3f}            {row['lesson_id']}"
    return f"  moved  × {row['old']:.3f} → × {row['new']:.3f}  {row['lesson_id']}"


def rollback(
    set_id: Annotated[
        int | None, typer.Argument(metavar="[SET]", help="The one before the live one, if none.")
    ] = None,
    book: BookOption = None,
) -> None:
    """Go back to an earlier set, and hold it live until `learning unpin`."""
    with existing_book(settings_of(book)) as conn:
        wanted = stored.before_live(conn) if set_id is None else set_id
        if wanted is None:
            raise UserError("there is no earlier set to go back to: see `learning sets`")
        _say_pinned(stored.pin(conn, wanted, datetime.now(UTC)))


def pin(
    set_id: Annotated[
        int | None, typer.Argument(metavar="[SET]", help="The live one, if none.")
    ] = None,
    book: BookOption = None,
) -> None:
    """Hold a set live until `learning unpin`: new sets wait meanwhile, and it does not expire."""
    with existing_book(settings_of(book)) as conn:
        live = stored.live(conn)
        wanted = live.set_id if set_id is None and live is not None else set_id
        if wanted is None:
            raise UserError("nothing has been published yet, so there is nothing to hold")
        _say_pinned(stored.pin(conn, wanted, datetime.now(UTC)))


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
