"""What `learning run` reports: read back from the book, then printed for people or programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from learning_assets.cli.demo import ALIAS, FOUND, Comparison, compare
from learning_assets.cli.effectiveness import gain_document, gain_sentence
from learning_assets.cli.output import SliceTable
from learning_assets.cli.show import override_rows, overrides_table
from learning_assets.core.config import LearningConfig
from learning_assets.core.gain import ModuleGain, gains_of
from learning_assets.core.judge import Difference, total_of
from learning_assets.core.publication import why_hold_back
from learning_assets.core.records import LessonStatus
from learning_assets.sources.base import SourceSummary
from learning_assets.sources.demo import Market
from learning_assets.store import books, effectiveness, events, lessons, overrides
from learning_assets.store.connection import Conn

MODULES = ("pm", "dm")


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run left in the book. `limits` are the detection limits by module, where known."""

    book: str
    source: SourceSummary
    as_of: datetime
    n_trades: int
    n_events: int
    rejected: Mapping[str, int]
    slices_tested: Mapping[str, int]
    limits: Mapping[str, Mapping[str, Any] | None]
    lessons: Mapping[str, int]
    overrides: Sequence[Mapping[str, Any]]
    expected: Mapping[str, float]
    gains: Mapping[str, ModuleGain]
    walk_forward: Difference
    seconds: Mapping[str, float]
    comparison: Comparison | None
    held_back: str = ""

    def to_json(self) -> Mapping[str, Any]:
        """The report for programs; `truth` only for the simulated market."""
        document = {
            "book": self.book,
            "source": {
                "kind": self.source.kind,
                "location": self.source.location,
                "notes": self.source.notes,
            },
            "as_of": self.as_of,
            "trades": self.n_trades,
            "events": self.n_events,
            "rejected": self.rejected,
            "slices_tested": self.slices_tested,
            "detection_limit": self.limits,
            "lessons": self.lessons,
            "overrides": self.overrides,
            "expected": self.expected,
            "gain": gain_document(self.gains),
            "walk_forward": asdict(self.walk_forward),
            "held_back": self.held_back or None,
            "seconds": self.seconds,
        }
        truth = self.comparison
        return document if truth is None else {**document, "truth": truth.to_json()}


def report_of(
    conn: Conn,
    book: str,
    source: SourceSummary,
    as_of: datetime,
    seconds: Mapping[str, float],
    market: Market | None,
) -> RunReport:
    """The report on a book after a run."""
    size = books.size(conn)
    states = {module: lessons.module_state(conn, module) for module in MODULES}
    stored = lessons.lessons(conn)
    live = overrides.live(conn)
    published = live.content.overrides if live else ()
    judged, config = effectiveness.results(conn, as_of), LearningConfig()
    return RunReport(
        book,
        source,
        as_of,
        size.n_trades,
        size.n_events,
        {str(reason): n for reason, n in events.rejected_counts(conn).items()},
        {m: state.slices_tested if state else 0 for m, state in states.items()},
        {m: state.summary.get("detection_limit") if state else None for m, state in states.items()},
        {str(status): sum(x.status is status for x in stored) for status in LessonStatus},
        override_rows(conn),
        live.content.expected if live else {},
        gains_of(judged, config, as_of),
        total_of(judged, config),
        {asset: round(s, 3) for asset, s in seconds.items()},
        None if market is None else compare(market, as_of, stored, published),
        _held_back(conn, config),
    )


def _held_back(conn: Conn, config: LearningConfig) -> str:
    """Why the newest set waits; empty where it is live."""
    live, held = overrides.live(conn), [x.content for x in overrides.held_back(conn)]
    if live is None or not held:
        return ""
    if live.pinned_at is not None:
        return f"set {live.set_id} is held live by a person: new sets wait until `learning unpin`"
    much = why_hold_back(held[-1], live.content, held[:-1], config.most_changed_share)
    return much and f"{much}; --force publishes"


# --- for people ------------------------------------------------------------------------------


def print_report(report: RunReport, console: Console) -> None:
    """The summary of a run on a terminal of 80 columns or more."""
    console.print()
    console.print(_facts(report))
    for note in report.source.notes:
        console.print(f"  note: {note}", markup=False, style="dim")
    console.print()
    if report.overrides:
        console.print(overrides_table(report.overrides, console.width))
        console.print(_expected(report.expected))
    else:
        console.print("No overrides: sizes stay as they are.")
        for sentence in _limits(report):
            console.print(sentence)
    if report.comparison is not None:
        console.print()
        console.print(_truth(report.comparison, console.width))
        console.print(_verdicts(report.comparison))


def _facts(report: RunReport) -> Table:
    rejected = ", ".join(f"{n} {reason}" for reason, n in report.rejected.items())
    total = sum(report.rejected.values())
    tested = " and ".join(f"{n:,} of {m}" for m, n in report.slices_tested.items())
    shown = {
        "book": report.book,
        "source": f"{report.source.kind}: {report.source.location}",
        "as of": f"{report.as_of:%Y-%m-%d %H:%M} UTC",
        "trades": f"{report.n_trades:,} with {report.n_events:,} events",
        "rejected": f"{total:,} ({rejected})" if total else "none",
        "slices tested": tested,
        "lessons": ", ".join(f"{n:,} {status}" for status, n in report.lessons.items()),
        "gain": gain_sentence(report.gains),
        "walk-forward": _walk_forward(report.walk_forward),
        **({"held back": report.held_back} if report.held_back else {}),
        "took": f"{sum(report.seconds.values()):.1f} s",
    }
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in shown.items():
        facts.add_row(f"[bold]{name}[/bold]", value)
    return facts


def _walk_forward(found: Difference) -> str:
    """What past overrides did to the trades that followed."""
    if found.difference is None:
        return "no past week to judge yet"
    said = f"{found.difference:+.3f} R per unit of size over {found.n_trades:,} trades"
    return said if found.low is None else f"{said} ({found.low:+.3f} … {found.high:+.3f})"


def _expected(expected: Mapping[str, float]) -> str:
    return (
        "Over the look-back they would have changed the size by "
        f"{expected.get('total_size', 0):+.1%}, the volatility by "
        f"{expected.get('volatility', 0):+.1%}, the drawdown by "
        f"{expected.get('drawdown', 0):+.1%} and the mean R by {expected.get('mean_rr', 0):+.3f}."
    )


def _limits(report: RunReport) -> list[str]:
    known = {module: limit for module, limit in report.limits.items() if limit is not None}
    return [
        f"{module}: an edge of at least {limit['edge_r']:.2f} R in a slice of {limit['n']:,} "
        "trades would have been found"
        for module, limit in known.items()
    ] or ["There are too few trades to test any slice."]


def _truth(comparison: Comparison, width: int) -> Table:
    title = "What was planted"
    made = SliceTable.of(title, width, "n", "true (R)", "found (R)", last="outcome")
    for compared in comparison.effects:
        effect, override = compared.effect, compared.override
        made.add(
            {**effect.group._asdict(), "scope_subset": dict(effect.scope_subset)},
            f"{effect.n_trades:,}",
            f"{effect.effect_r:+.2f}",
            "–" if override is None else f"{override.adjusted_edge_r:+.2f}",
            compared.outcome,
        )
    return made.table


def _verdicts(comparison: Comparison) -> str:
    alive = [c for c in comparison.effects if c.effect.alive]
    found = sum(c.outcome in (FOUND, ALIAS) for c in alive)
    wrong = [judged.verdict for judged in comparison.overrides if judged.verdict != "right"]
    extra = f", {len(wrong)} not ({', '.join(wrong)})" if wrong else ""
    right = len(comparison.overrides) - len(wrong)
    return (
        f"{found} of {len(alive)} planted effects that are alive were found; the true edge has "
        f"the sign of {right} of {len(comparison.overrides)} overrides{extra}."
    )
