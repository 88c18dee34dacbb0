"""The main job as the command line runs it: the source looked at first, then everything once.

Everything about the source is looked at before anything is written. The materialization itself
is in `defs.run`, what is printed in `cli.summary`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from learning_assets.cli import demo
from learning_assets.cli.book import check_addresses, existing_book, tables_up
from learning_assets.cli.output import terminal
from learning_assets.cli.request import Request
from learning_assets.cli.summary import RunReport, report_of
from learning_assets.core.history import WEEK
from learning_assets.defs.opening import (
    DEMO,
    STRANDS,
    is_live,
    learned_as_of,
    open_source,
    remembered_file,
    remembered_strands,
    strands_of,
    window_of,
)
from learning_assets.errors import UserError
from learning_assets.sources.base import SourceSummary
from learning_assets.sources.demo import Market
from learning_assets.sources.detect import SourceOptions
from learning_assets.store import books, events, overrides, server
from learning_assets.store.connection import connect
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, current_source, remember_source


@dataclass(frozen=True, slots=True)
class Chosen:
    """A source that can be read: what the book will remember of it, and what it holds."""

    remembered: BookSource
    summary: SourceSummary
    market: Market | None = None


# --- the source, before anything is written ------------------------------------------------


def run_main_job(request: Request, settings: Settings, now: datetime) -> RunReport:
    """Take in, learn, publish, and report.

    Raises:
        UserError: for bad input; then nothing was written.
    """
    file = None if request.trades is None else _file(request, request.trades)
    check_addresses(settings)
    chosen = file or _without_file(request, settings, now)
    _refuse_nothing(chosen)
    with server.running(settings):
        if request.as_of is not None:
            _refuse_wrong_moment(request.as_of, request, settings, chosen)
        migrate(settings)
        return _materialize(request, settings, chosen, now)


def _file(request: Request, path: Path) -> Chosen:
    options = SourceOptions.of(
        path, risk=request.risk, mapping=request.mapping, force_scope=request.force_scope
    )
    source = options.open()
    return Chosen(remembered_file(options, source), source.summary())


def _without_file(request: Request, settings: Settings, now: datetime) -> Chosen:
    if request.is_demo:
        market = demo.market_before(now)
        days = demo.days_of(market)
        summary = SourceSummary(DEMO, "simulated market", len(market.trades), 0, days)
        return Chosen(BookSource(DEMO, "simulated market"), summary, market)
    return _strands(settings) if request.source == STRANDS else _remembered(settings)


def _strands(settings: Settings) -> Chosen:
    if settings.strands_url is None and not books.has_database(settings):
        raise UserError(
            "there is no database with ad_strands yet: name the one of the trading system in "
            "LEARNING_STRANDS_URL"
        )
    with tables_up(settings) if settings.strands_url is None else nullcontext():
        return Chosen(remembered_strands(settings), strands_of(settings).summary())


def _remembered(settings: Settings) -> Chosen:
    with existing_book(settings) as conn:
        remembered = current_source(conn)
        if remembered is None:
            raise UserError(
                f"the book {settings.book} has no source yet: give it one with "
                f"`learning run --book {settings.book} --trades PATH`"
            )
        return Chosen(remembered, open_source(settings, remembered).summary())


def _refuse_nothing(chosen: Chosen) -> None:
    """Raise where a file holds no usable trade: most likely it is not what was meant."""
    found = chosen.summary
    if found.n_trades == 0 and not is_live(chosen.remembered):
        raise UserError(
            f"no trade of {found.location} can be used ({found.n_rejected} rows rejected): look "
            "at its outcomes, times and pattern keys, or name another file"
        )


def _refuse_wrong_moment(
    as_of: datetime, request: Request, settings: Settings, chosen: Chosen
) -> None:
    """Raise where an as_of would take the live set back in time, or sees no trade."""
    days, live = list(chosen.summary.days), None
    if books.recorded_revision(settings) is not None:
        with connect(settings) as conn:
            days, live = [*days, *events.days(conn)], overrides.live(conn)
    if live is not None and live.content.as_of > as_of and not request.is_demo:
        raise UserError(
            f"the book {settings.book} is live as of {live.content.as_of:%Y-%m-%d %H:%M} UTC and "
            "its bot would get an older set: look into the past in a book of its own, "
            f"--book {settings.book}_past"
        )
    if days and min(days) >= as_of.date():
        raise UserError(
            f"no trade closed before {as_of:%Y-%m-%d %H:%M} UTC: the first one closed on "
            f"{min(days)}, so give a later --as-of"
        )


# --- the job ---------------------------------------------------------------------------------


def _materialize(request: Request, settings: Settings, chosen: Chosen, now: datetime) -> RunReport:
    if chosen.market is not None:
        demo.write(settings, chosen.market)
    live = is_live(chosen.remembered)
    with connect(settings) as conn:
        remember_source(conn, chosen.remembered)
        stored = [] if live else events.days(conn)
    window = window_of([*chosen.summary.days, *stored], now.date(), live=live)
    with progress_on(terminal(to_stderr=True)) as progress:
        # Dagster takes a second to import.
        from learning_assets.defs.partitions import last_full_day, weeks_between
        from learning_assets.defs.run import main_job

        with main_job(settings, progress) as job:
            job.take_in(*window)
            as_of = request.as_of or _as_of(settings, chosen, now, live=live)
            for module in ("dm", "pm"):
                job.learn(module, as_of)
            weeks = weeks_between(first_close(settings, as_of), min(as_of, now))
            if weeks is not None:
                job.learn_about_lessons(*weeks)
            day = last_full_day(min(as_of, now))
            if day is not None:
                job.learn_about_regimes(day)
            if weeks is not None and request.weeks > 0:
                first, last = weeks
                job.judge_past(max(first, last - (request.weeks - 1) * WEEK), last, as_of)
            job.publish(as_of, force=_is_meant(request))
    with connect(settings) as conn:
        return report_of(conn, settings.book, chosen.summary, as_of, job.seconds, chosen.market)


def _is_meant(request: Request) -> bool:
    """Whether a large change is meant: by order, in another market, as of a chosen moment."""
    return request.force or request.is_demo or request.as_of is not None


def _as_of(settings: Settings, chosen: Chosen, now: datetime, *, live: bool) -> datetime:
    if chosen.market is not None:
        return chosen.market.settings.end
    with connect(settings) as conn:
        days: list[date] = events.days(conn)
    return learned_as_of(days, now, live=live)


def first_close(settings: Settings, as_of: datetime) -> datetime:
    """The first day with a closed trade; `as_of` where there is none."""
    with connect(settings) as conn:
        first = events.days(conn)[:1]
    return datetime.combine(first[0], datetime.min.time(), UTC) if first else as_of


@contextmanager
def progress_on(console: Console) -> Iterator[Callable[[str], AbstractContextManager[None]]]:
    """A line per step with its time; where there is no terminal, once it is done."""
    if not console.is_terminal:
        yield partial(_timed, console)
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as shown:
        yield partial(_spinning, shown)


@contextmanager
def _timed(console: Console, what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    console.print(f"{what}: {time.perf_counter() - began:.1f} s")


@contextmanager
def _spinning(shown: Progress, what: str) -> Iterator[None]:
    task = shown.add_task(what, total=1)
    yield
    shown.update(task, completed=1)
