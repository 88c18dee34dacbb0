"""`learning plan`: which job runs when, and what the plans would have cost and changed. Read only.

The plans are in `defs.plans`; how they are compared is said in `core.plan_costs` and
`defs.plan_comparison`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.output import BookOption, JsonOption, print_json, terminal
from learning_assets.core.plan_costs import JobCost, PlanCost, Role
from learning_assets.defs.opening import is_live, learned_as_of
from learning_assets.defs.plans import (
    META_VARIABLE,
    PLAN_VARIABLE,
    PLANS,
    UPKEEP,
    Plan,
    chosen_plan,
    meta_learners_on,
)
from learning_assets.errors import UserError
from learning_assets.store import events, server
from learning_assets.store.connection import Conn
from learning_assets.store.housekeeping import history
from learning_assets.store.overrides import live_sets
from learning_assets.store.run_times import run_times
from learning_assets.store.settings import Settings
from learning_assets.store.sources import current_source

if TYPE_CHECKING:
    from learning_assets.defs.plan_comparison import Past

_MINUTE, _HOUR = 60.0, 3600.0


def plan(
    compare: Annotated[
        bool, typer.Option("--compare", help="What each plan would have cost and changed.")
    ] = False,
    weeks: Annotated[
        int, typer.Option(min=1, max=520, help="With --compare: newest weeks to look at.")
    ] = 4,
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the chosen plan, or compare the plans on a book's own history."""
    chosen, now = chosen_plan(os.environ), datetime.now(UTC)
    if not compare:
        document = _document(chosen, now)
        print_json(document) if as_json else _print_plan(document, terminal())
        return
    found = _compare(settings_of(book), now, timedelta(weeks=weeks))
    print_json(found.to_json()) if as_json else _print_comparison(found, terminal())


# --- the chosen plan -------------------------------------------------------------------------


def _document(chosen: Plan, now: datetime) -> Mapping[str, Any]:
    # Dagster takes a second to import.
    from learning_assets.defs.plan_comparison import next_tick

    return {
        "plan": chosen.name,
        "description": chosen.description,
        "meta_learners": meta_learners_on(os.environ),
        "schedules": [
            {
                "schedule": x.name,
                "job": x.job,
                "cron": x.cron,
                "next": next_tick(x, now),
                "description": x.description,
            }
            for x in (*chosen.schedules, *UPKEEP)
        ],
        "other_plans": {x.name: x.description for x in PLANS.values() if x.name != chosen.name},
    }


def _print_plan(document: Mapping[str, Any], console: Console) -> None:
    console.print(f"[bold]{document['plan']}[/]  {document['description']}")
    if not document["meta_learners"]:
        console.print(f"The meta-learners are off ({META_VARIABLE}=off).")
    table = _table("schedule", "cron (UTC)", "next (UTC)", "what it does")
    for x in document["schedules"]:
        table.add_row(x["schedule"], x["cron"], f"{x['next']:%a %d %H:%M}", x["description"])
    console.print(table)
    for name, description in document["other_plans"].items():
        console.print(f"{PLAN_VARIABLE}={name}  {description}")


def _table(*columns: str, numbers: Sequence[str] = ()) -> Table:
    made = Table(box=None)
    for name in columns:
        made.add_column(name, no_wrap=name != "what it does")
    for name in numbers:
        made.add_column(name, justify="right")
    return made


# --- the comparison --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What each plan would have cost, and on what that rests."""

    past: Past
    costs: Mapping[str, PlanCost]

    @property
    def not_measured(self) -> Sequence[str]:
        """The schedules of whose jobs the history holds no successful run."""
        jobs = [job for cost in self.costs.values() for job in cost.jobs]
        return sorted({job.name for job in jobs if job.seconds is None})

    def to_json(self) -> Mapping[str, Any]:
        """The figures for programs: seconds, and shares of 1."""
        return {
            "since": self.past.since,
            "until": self.past.until,
            "trades": len(self.past.arrivals),
            "not_measured": self.not_measured,
            "plans": {
                name: {
                    **_figures(cost),
                    "delay_median_seconds": cost.delay_median,
                    "delay_p95_seconds": cost.delay_p95,
                    "meta_learners": _figures(cost.of(Role.META)),
                    "override_ticks_told_by_sets": cost.told_by_sets,
                    "schedules": [asdict(job) for job in cost.jobs],
                }
                for name, cost in self.costs.items()
            },
        }


def _figures(cost: PlanCost) -> Mapping[str, Any]:
    return {"runs": cost.runs, "seconds": cost.seconds, "changed_share": cost.changed_share}


def _compare(chosen: Settings, now: datetime, length: timedelta) -> _Comparison:
    with existing_book(chosen) as conn, server.running(chosen):
        past = _past(conn, chosen, now, length)
    from learning_assets.defs.plan_comparison import compared

    return _Comparison(past, compared(past))


def _past(conn: Conn, chosen: Settings, now: datetime, length: timedelta) -> Past:
    """The window that ends now, or with the source where nothing follows.

    Raises:
        UserError: where no trade closed in it.
    """
    from learning_assets.defs.plan_comparison import Past, arrival_of

    source, days = current_source(conn), events.days(conn)
    live = source is not None and is_live(source)
    until = learned_as_of(days, now, live=live)
    since = until - length
    closed = events.closings(conn, since, until)
    if not closed:
        raise UserError(
            f"no trade of the book {chosen.book} closed in the {length.days // 7} weeks before "
            f"{until:%Y-%m-%d %H:%M} UTC, so that plans cannot be compared: give more --weeks, or "
            "more trades with `learning run`"
        )
    with history(chosen) as dagster:
        times = run_times(dagster)
    sets = [(x.live_from, x.content) for x in live_sets(conn, since, until) if x.live_from]
    return Past(since, until, [arrival_of(*row) for row in closed], sets, times)


def _print_comparison(found: _Comparison, console: Console) -> None:
    past = found.past
    days = (past.until - past.since) / timedelta(days=1)
    console.print(
        f"{len(past.arrivals):,} trades that closed from {past.since:%Y-%m-%d} to "
        f"{past.until:%Y-%m-%d %H:%M} UTC, each plan replayed over them; a day has"
    )
    console.print(_plans_table(found.costs, days))
    console.print(_jobs_table(found.costs, days))
    console.print(
        "Seconds are of the runs themselves, medians of this book's history; the sensor's runs are "
        "the same in each plan and left out. Live after: from closing to published overrides."
    )
    if found.not_measured:
        console.print(f"Not measured, since never run: {', '.join(found.not_measured)}.")


def _plans_table(costs: Mapping[str, PlanCost], days: float) -> Table:
    columns = ("runs", "seconds", "changed", "of meta-learners", "live after", "95 % within")
    made = _table("plan", numbers=columns)
    for name, cost in costs.items():
        meta = cost.of(Role.META)
        made.add_row(
            name,
            f"{cost.runs / days:.1f}",
            f"{cost.seconds / days:,.0f}",
            _share(cost.changed_share),
            f"{meta.runs / days:.1f} runs, {meta.seconds / days:,.0f} s",
            _duration(cost.delay_median),
            _duration(cost.delay_p95),
        )
    return made


def _jobs_table(costs: Mapping[str, PlanCost], days: float) -> Table:
    made = _table("schedule", numbers=[f"{name}: runs, seconds, changed" for name in costs])
    names = dict.fromkeys(job.name for cost in costs.values() for job in cost.jobs)
    by_plan = [{job.name: job for job in cost.jobs} for cost in costs.values()]
    for name in names:
        made.add_row(name, *(_job(jobs.get(name), days) for jobs in by_plan))
    return made


def _job(job: JobCost | None, days: float) -> str:
    if job is None:
        return "–"
    seconds = "not measured" if job.seconds is None else f"{job.seconds / days:,.1f} s"
    share = job.changed / job.runs if job.runs else None
    return f"{job.runs / days:.1f}, {seconds}, {_share(share)}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR / _MINUTE:02.0f} min"
