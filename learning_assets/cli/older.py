"""`learning import`: what an older scheduler had learned, kept and compared. Nothing is applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.output import BookOption, JsonOption, SliceTable, print_json, terminal
from learning_assets.core.comparison import (
    ComparedLesson,
    ComparedOverride,
    compare_lessons,
    compare_overrides,
)
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset
from learning_assets.sources.older import EDGES, LESSONS, OVERRIDES, OlderTables, read_older
from learning_assets.store import events, imported, lessons, overrides
from learning_assets.store.connection import Conn, database_name, open_database
from learning_assets.store.settings import Settings, checked_address

_SHOWN = 15


@dataclass(frozen=True, slots=True)
class _Report:
    """What was read, and how it compares."""

    read: OlderTables
    first_day: date | None
    lessons: tuple[ComparedLesson, ...]
    overrides: tuple[ComparedOverride, ...]

    @property
    def before_first_day(self) -> int:
        """Points of the edge history from before the first trade of the book."""
        first = self.first_day
        return sum(first is None or edge.ts.date() < first for edge in self.read.edges)


def import_older(
    address: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL", help="The older scheduler's database; by default the strands'."
        ),
    ] = None,
    schema: Annotated[str, typer.Option(help="The schema of its tables there.")] = "public",
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the lessons and edges of an older scheduler, and compare them with what is learned here.

    They become no lessons and no overrides. Again, it brings both up to date.
    """
    chosen = settings_of(book)
    url, named = _address(chosen, address)
    with existing_book(chosen) as conn:
        with open_database(url, named) as older:
            read = read_older(older, schema)
        imported.keep(conn, read.lessons, read.edges, datetime.now(UTC))
        report = _report(conn, read)
    if as_json:
        print_json(_document(report))
    else:
        _print(report)


def _address(chosen: Settings, given: str | None) -> tuple[str, str]:
    if given is not None:
        return checked_address(given.strip(), "--from"), "--from"
    named = "LEARNING_STRANDS_URL" if chosen.strands_url else database_name(chosen)
    return chosen.strands_source_url, named


def _report(conn: Conn, read: OlderTables) -> _Report:
    live = overrides.live(conn)
    return _Report(
        read,
        next(iter(events.days(conn)), None),
        compare_lessons(read.lessons, lessons.lessons(conn)),
        compare_overrides(read.overrides, live.content.overrides if live else ()),
    )


def _document(report: _Report) -> dict[str, Any]:
    return {
        "missing": list(report.read.missing),
        "left_out": {table: dict(reasons) for table, reasons in report.read.left_out.items()},
        "edge_history": {
            "n": len(report.read.edges),
            "before_first_trade": report.before_first_day,
        },
        "lessons": [
            _slice(c.older.group, c.older.scope_subset)
            | {name: getattr(c.older, name) for name in ("n", "edge_raw", "status")}
            | {"here": {n: v for n, v in asdict(c).items() if n != "older"}}
            for c in report.lessons
        ],
        "overrides": [
            _slice(c.older.group, c.older.scope_subset)
            | {"multiplier": c.older.multiplier, "ours": c.ours, "agreement": c.agreement.value}
            for c in report.overrides
        ],
    }


def _slice(group: GroupKey, scope_subset: ScopeSubset) -> dict[str, Any]:
    return {**group._asdict(), "scope_subset": dict(scope_subset)}


def _print(report: _Report) -> None:
    console = terminal()
    for line in _lines(report):
        console.print(line, markup=False)
    if report.overrides:
        console.print(_overrides_table(report.overrides[:_SHOWN], console.width))
    if report.lessons:
        console.print(_lessons_table(report.lessons[:_SHOWN], console.width))
    if max(len(report.overrides), len(report.lessons)) > _SHOWN:
        console.print("--json prints all")


def _lines(report: _Report) -> Iterable[str]:
    read = report.read
    yield f"lessons       {_counts(read, LESSONS, len(read.lessons))}"
    if report.lessons:
        yield f"  here        {_tally(c.found for c in report.lessons)}"
    yield f"overrides     {_counts(read, OVERRIDES, len(read.overrides))}"
    if report.overrides:
        yield f"  here        {_tally(c.agreement for c in report.overrides)}"
    yield f"edge history  {_counts(read, EDGES, len(read.edges))}{_span(report)}"


def _counts(read: OlderTables, table: str, n: int) -> str:
    if table in read.missing:
        return f"no table {table}"
    reasons = read.left_out.get(table, Counter())
    if not reasons:
        return f"{n:,} read"
    return f"{n:,} read, {reasons.total():,} left out ({reasons.most_common(1)[0][0]})"


def _tally(words: Iterable[str]) -> str:
    return ", ".join(f"{n:,} {word}" for word, n in Counter(words).most_common())


def _span(report: _Report) -> str:
    if not report.read.edges:
        return ""
    times = [edge.ts for edge in report.read.edges]
    return (
        f", {min(times):%Y-%m-%d} … {max(times):%Y-%m-%d}, {report.before_first_day:,} of them "
        "before the first trade here"
    )


def _overrides_table(rows: Sequence[ComparedOverride], width: int) -> Table:
    made = SliceTable.of("Overrides, the widest apart first", width, "older ×", "ours ×", last="")
    for c in rows:
        row = _slice(c.older.group, c.older.scope_subset)
        older = "null" if c.older.multiplier is None else f"{c.older.multiplier:.2f}"
        made.add(row, older, f"{c.ours:.2f}", c.agreement)
    return made.table


def _lessons_table(rows: Sequence[ComparedLesson], width: int) -> Table:
    columns = ("older n", "edge", "our n", "edge (R)")
    made = SliceTable.of("Lessons, those of most trades first", width, *columns, last="here")
    for c in rows:
        row: Mapping[str, Any] = _slice(c.older.group, c.older.scope_subset)
        made.add(row, _n(c.older.n), _edge(c.older.edge_raw), _n(c.n), _edge(c.edge_r), c.found)
    return made.table


def _n(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _edge(edge_r: float | None) -> str:
    return "–" if edge_r is None else f"{edge_r:+.2f}"
