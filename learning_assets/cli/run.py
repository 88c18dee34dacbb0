"""`learning run`: its options, and whether they go together. The job is in `cli.main_job`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from learning_assets.cli.book import check_variables, settings_of
from learning_assets.cli.output import BookOption, JsonOption, print_json, terminal
from learning_assets.cli.request import Request
from learning_assets.defs.opening import DEMO_BOOK, STRANDS, parse_as_of
from learning_assets.errors import UserError
from learning_assets.store.settings import MAIN_BOOK


def run(
    trades: Annotated[
        Path | None,
        typer.Option(help="A freqtrade export or database, CSV or Parquet, or a folder of them."),
    ] = None,
    risk: Annotated[
        float | None, typer.Option(help="Risk of a trade as a fraction of the stake, e.g. 0.05.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="A mapping file for the columns of CSV and Parquet.")
    ] = None,
    force_scope: Annotated[
        bool, typer.Option("--force-scope", help="Let dimensions through known only after entry.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="strands: the table ad_strands of the trading system.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="TIME", help="Learn from trades closed before it (UTC).")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish however many overrides change at once.")
    ] = False,
    weeks: Annotated[
        int,
        typer.Option(
            min=0, max=520, help="Newest weeks of the past to judge; the gain rests on up to 26."
        ),
    ] = 8,
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take in closed trades, learn from them and publish overrides.

    Without arguments: on a simulated market, with the planted truth beside what was found.
    """
    now = datetime.now(UTC)
    when = None if as_of is None else parse_as_of(as_of, now)
    unnamed = DEMO_BOOK if trades is None and source is None else MAIN_BOOK
    request = Request(
        unnamed if book is None else book,
        trades,
        risk,
        mapping,
        force_scope,
        source,
        when,
        force,
        weeks,
    )
    _check(request)
    # What follows takes seconds to import, and the other commands do without it.
    from learning_assets.cli.main_job import run_main_job
    from learning_assets.cli.summary import print_report

    report = run_main_job(request, settings_of(request.book), now)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report, terminal())


def _check(request: Request) -> None:
    """Nothing, when the options go together, and plan and owners are such."""
    check_variables()
    given = request.trades is not None or request.source is not None
    if request.trades is not None and request.source is not None:
        raise UserError("--trades and --source are two sources: give one of them")
    if request.source not in (None, STRANDS):
        raise UserError(
            f"--source {request.source} is unknown: it is strands; for files use --trades PATH"
        )
    if request.trades is None and (
        request.risk is not None or request.mapping is not None or request.force_scope
    ):
        raise UserError("--risk, --mapping and --force-scope belong to --trades: add --trades PATH")
    if request.is_demo and given:
        raise UserError(
            "the book demo is for the simulated market: name another one with --book, or none"
        )
