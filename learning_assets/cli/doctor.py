"""`learning doctor`: whether a book works, one line for each thing looked at. Makes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import typer

from learning_assets.cli.book import check_addresses, check_variables, nothing_yet, settings_of
from learning_assets.cli.output import BookOption, JsonOption, print_json, terminal
from learning_assets.defs.finding import Finding, State
from learning_assets.defs.opening import open_source
from learning_assets.defs.plans import chosen_plan
from learning_assets.errors import UserError
from learning_assets.sources.strands import StrandsSource
from learning_assets.store import books, events, overrides, server
from learning_assets.store.connection import connect, database_name, open_database
from learning_assets.store.migrations import latest_revision
from learning_assets.store.settings import Settings
from learning_assets.store.sources import current_source

Check = Callable[[Settings], str]


def doctor(book: BookOption = None, as_json: JsonOption = False) -> None:
    """Look whether a book works; ends with 1 when something needs a person."""
    settings = settings_of(book)
    check_variables()
    check_addresses(settings)
    found = _findings(settings)
    if as_json:
        print_json([{"check": f.check, "state": f.state, "detail": f.detail} for f in found])
    else:
        console = terminal()
        colours = {State.OK: "green", State.FAILED: "red", State.SKIPPED: "dim"}
        width = max(len(f.check) for f in found)
        for f in found:
            console.print(f"[{colours[f.state]}]{f.state:8}[/] {f.check:{width}}", end=" ")
            console.print(f.detail, markup=False)
    if any(f.state is State.FAILED for f in found):
        raise typer.Exit(1)


def _findings(settings: Settings) -> list[Finding]:
    if not books.has_database(settings):
        return [Finding("database", State.FAILED, str(nothing_yet(settings)))]
    found: list[Finding] = []
    try:
        with server.running(settings):
            found += [_finding(check, settings) for check in (_database, _migrations, _history)]
            usable = all(f.state is State.OK for f in found[:2])
            look = partial(_finding, settings=settings) if usable else _skipped
            found += map(look, (_source, _events, _rejected, _overrides, _held_back))
            if all(f.state is State.OK for f in found[:3]):
                found += _running(settings)
    except UserError as error:
        found.append(Finding("server", State.FAILED, str(error)))
    return found


def _running(settings: Settings) -> list[Finding]:
    """What is seen of the daemon; Dagster is loaded only here."""
    from learning_assets.defs.instance import instance_of
    from learning_assets.defs.watch import Watch, is_live_book, look

    live, plan = is_live_book(settings), chosen_plan(os.environ)
    with instance_of(settings) as instance:
        return list(look(Watch(settings, instance, plan, datetime.now(UTC), live)))


def _name(check: Check) -> str:
    return check.__name__.strip("_")


def _skipped(check: Check) -> Finding:
    return Finding(_name(check), State.SKIPPED, "not looked at, since the tables are not there")


def _finding(check: Check, settings: Settings) -> Finding:
    try:
        return Finding(_name(check), State.OK, check(settings))
    except UserError as error:
        return Finding(_name(check), State.FAILED, str(error))


def _database(settings: Settings) -> str:
    with open_database(settings.learning_url, database_name(settings)) as conn:
        version = conn.info.server_version
    return f"PostgreSQL {version // 10_000}.{version % 10_000}, {database_name(settings)}"


def _migrations(settings: Settings) -> str:
    recorded, latest = books.recorded_revision(settings), latest_revision()
    if recorded is None:
        raise nothing_yet(settings)
    if recorded != latest:
        raise UserError(
            f"the tables are at revision {recorded}, this version wants {latest}: "
            f"`learning run --book {settings.book}` brings them up to date"
        )
    return f"schema {settings.schema} at revision {recorded}"


def _history(settings: Settings) -> str:
    named = "LEARNING_DAGSTER_URL" if settings.dagster_url else "the embedded server"
    with open_database(settings.history_url, named) as conn:
        table = f"{settings.dagster_schema}.runs"
        there = conn.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,)
        runs = conn.execute(f"SELECT count(*) FROM {table}").fetchone() if there else None
    if runs is None:
        raise UserError(f"Dagster has no history yet: `learning run --book {settings.book}`")
    return f"Dagster's history holds {runs[0]:,} runs, {named}"


def _source(settings: Settings) -> str:
    with connect(settings) as conn:
        remembered = current_source(conn)
    if remembered is None:
        raise nothing_yet(settings)
    source = open_source(settings, remembered)
    if isinstance(source, StrandsSource):
        # Counting its trades means reading them all, which takes long in a large table.
        days = source.changes(None).days
        newest = f", the newest {max(days)}" if days else ""
        return f"strands: {source.location} has closings on {len(days):,} days{newest}"
    held = source.summary()
    return f"{held.kind}: {held.location} holds {held.n_trades:,} closed trades"


def _events(settings: Settings) -> str:
    with connect(settings) as conn:
        size = books.size(conn)
    if size.newest_closed_at is None:
        raise UserError(f"the book {settings.book} holds no trades: look at the rejected rows")
    return (
        f"{size.n_trades:,} trades with {size.n_events:,} events, the newest closed "
        f"{size.newest_closed_at:%Y-%m-%d %H:%M} UTC"
    )


def _rejected(settings: Settings) -> str:
    with connect(settings) as conn:
        counts = events.rejected_counts(conn)
    return ", ".join(f"{n} {reason}" for reason, n in counts.items()) or "none"


def _overrides(settings: Settings) -> str:
    with connect(settings) as conn:
        live = overrides.live(conn)
    if live is None:
        raise UserError(f"nothing was published yet: `learning run --book {settings.book}`")
    now, content = datetime.now(UTC), live.content
    hours = (now - content.published_at).total_seconds() / 3600
    text = f"set {live.set_id} with {len(content.overrides)} overrides, {hours:.1f} hours old"
    if content.expires_at <= now:
        raise UserError(
            f"{text}, expired {content.expires_at:%Y-%m-%d %H:%M} UTC: "
            f"`learning run --book {settings.book}` or `learning ui --book {settings.book}`"
        )
    held = "" if live.pinned_at is None else ", held live by a person (`learning unpin` ends it)"
    return f"{text}, expires {content.expires_at:%Y-%m-%d %H:%M} UTC{held}"


def _held_back(settings: Settings) -> str:
    with connect(settings) as conn:
        waiting, live = overrides.held_back(conn), overrides.live(conn)
    if live is not None and live.pinned_at is not None:
        return f"new sets wait, since set {live.set_id} is held live by a person"
    if not waiting:
        return "no set waits"
    newest = waiting[-1]
    raise UserError(
        f"{len(waiting)} sets wait since the live one, the newest is {newest.set_id} of "
        f"{newest.content.published_at:%Y-%m-%d %H:%M} UTC: too much changes at once, and it goes "
        "live when three ticks agree, or its lessons are those of a run with other thresholds, and "
        f"wait to be learned again; `learning run --book {settings.book} --force` publishes anew"
    )
