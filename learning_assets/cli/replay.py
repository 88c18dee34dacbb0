"""`learning replay`: the weekly sets that would have been live, for a backtest with them.

Weeks that are over are materialized as in the walk-forward, which judges them too. The running
week, where it is asked for, is no partition yet: only its set is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.output import (
    BookOption,
    JsonOption,
    check_writable,
    print_json,
    terminal,
    to_json,
    write_whole,
)
from learning_assets.core.history import WEEK, last_full_week, monday
from learning_assets.defs.opening import parse_as_of
from learning_assets.errors import UserError
from learning_assets.store import overrides as stored
from learning_assets.store.connection import Conn
from learning_assets.store.overrides import PublishedSet
from learning_assets.store.settings import Settings

_WEEKS_AT_ONCE = 13
"""Weeks that are stored together: what is done stays done if the rest is interrupted."""


def replay(
    since: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Begin of the backtest (UTC).")
    ],
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Its end; now, if none.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the sets to a file, for a backtest elsewhere.")
    ] = None,
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the weekly sets that would have been live, each from what was known at its time.

    They are marked as replays and never go live.
    """
    now = datetime.now(UTC)
    first, last = _weeks(since, until, now)
    if export is not None:
        check_writable("--export", export, "sets.json")
    chosen = settings_of(book)
    with existing_book(chosen) as conn:
        _make(conn, chosen, first, last, now)
        found = stored.replays(conn, first, last)
    if export is not None:
        write_whole(export, to_json({"sets": [stored.document_of(one) for one in found]}))
    rows = [_row(one) for one in found]
    if as_json:
        print_json(rows)
    else:
        _print(rows, export)


def _weeks(since: str, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    """The Mondays of the first and the last week that touch the time asked for."""
    from learning_assets.defs.partitions import FIRST_WEEK

    begin = parse_as_of(since, now, "--from")
    end = now if until is None else min(parse_as_of(until, now, "--to"), now)
    if begin >= end:
        raise UserError(
            f"--from {begin:%Y-%m-%d %H:%M} is not before --to {end:%Y-%m-%d %H:%M} UTC: give the "
            "begin and the end of the backtest"
        )
    last = monday(end)
    return max(monday(begin), FIRST_WEEK), last - WEEK if last == end else last


def _make(conn: Conn, chosen: Settings, first: datetime, last: datetime, now: datetime) -> None:
    # Dagster takes a second to import.
    from learning_assets.cli.main_job import first_close, progress_on
    from learning_assets.core.config import LearningConfig
    from learning_assets.defs.assets.override_effectiveness import replay_running_week
    from learning_assets.defs.resources import BookResource
    from learning_assets.defs.run import main_job

    resource = BookResource(name=chosen.book)
    as_of = resource.as_of(conn, "")
    # What a set's gain rests on are the weeks before it.
    earliest = max(monday(first_close(chosen, as_of)), first - LearningConfig().gain_weeks * WEEK)
    begin, last_ended = min(first, earliest), min(last, last_full_week(now))
    with progress_on(terminal(to_stderr=True)) as progress:
        if begin <= last_ended:
            with main_job(chosen, progress) as job:
                for week in range((last_ended - begin) // WEEK + 1)[::_WEEKS_AT_ONCE]:
                    start = begin + week * WEEK
                    end = min(start + (_WEEKS_AT_ONCE - 1) * WEEK, last_ended)
                    job.judge_past(start, end, as_of)
        if last > last_ended:
            with progress(f"the running week ({last:%Y-%m-%d})"):
                replay_running_week(conn, resource, last)


def _row(one: PublishedSet) -> Mapping[str, Any]:
    return {
        "set_id": one.set_id,
        "week": one.content.as_of,
        "until": one.content.expires_at,
        "overrides": len(one.content.overrides),
    }


def _print(rows: Sequence[Mapping[str, Any]], export: Path | None) -> None:
    table = Table(title="Replays", title_justify="left", title_style="bold", box=None)
    table.add_column("week", no_wrap=True)
    for name in ("set", "overrides"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(f"{row['week']:%Y-%m-%d}", str(row["set_id"]), f"{row['overrides']:,}")
    console = terminal()
    console.print(table)
    where = f"written to {export}" if export else "`OverrideBook.backtest` answers with them"
    console.print(f"{len(rows)} sets, each learned from what had closed before its week: {where}")
