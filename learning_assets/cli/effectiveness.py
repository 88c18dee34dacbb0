"""`learning effectiveness`: does learning pay, week by week, and which overrides do not? Read only.

The figures are made in `core.judge`, `core.gain` and `core.feedback`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.output import BookOption, JsonOption, print_json, terminal
from learning_assets.core.config import LearningConfig
from learning_assets.core.feedback import ALL, AppliedFeedback, Effect
from learning_assets.core.gain import MODULES, ModuleGain, gains_of
from learning_assets.core.judge import Difference, OverrideTotal, total_of, totals_by_override
from learning_assets.core.walkforward import WeekResult
from learning_assets.store.connection import Conn
from learning_assets.store.effectiveness import results
from learning_assets.store.feedback import newest
from learning_assets.store.overrides import live

_SHOWN_OVERRIDES = 10


def effectiveness(book: BookOption = None, as_json: JsonOption = False) -> None:
    """Show what past overrides did to the trades that followed, week by week."""
    with existing_book(settings_of(book)) as conn:
        weeks, gains, applied = results(conn), gains_now(conn), newest(conn)
    total = total_of(weeks, LearningConfig())
    paid = _Paid(weeks, total, totals_by_override(weeks), gains, applied)
    if as_json:
        print_json(paid.to_json())
    else:
        _print(paid, terminal())


def gains_now(conn: Conn) -> Mapping[str, ModuleGain]:
    """The gains as of the live set: a book of a file may have ended long ago."""
    published = live(conn)
    as_of = published.content.as_of if published else datetime.now(UTC)
    return gains_of(results(conn, as_of), LearningConfig(), as_of)


def gain_sentence(gains: Mapping[str, ModuleGain]) -> str:
    """The gain of each module and what it rests on, in one line."""
    return ", ".join(f"{m} {gain.value:.2f} ({gain.why})" for m, gain in gains.items())


def gain_document(gains: Mapping[str, ModuleGain]) -> Mapping[str, Any]:
    """The gain of each module for programs."""
    return {m: asdict(gain) for m, gain in gains.items()}


@dataclass(frozen=True, slots=True)
class _Paid:
    """What is printed: the weeks, all of them together, each lesson's overrides, the gains.

    `applied` is what bots applied, None where no trade says so.
    """

    weeks: Sequence[WeekResult]
    total: Difference
    by_override: Sequence[OverrideTotal]
    gains: Mapping[str, ModuleGain]
    applied: AppliedFeedback | None

    def to_json(self) -> Mapping[str, Any]:
        """The figures for programs."""
        return {
            "total": asdict(self.total),
            "gain": gain_document(self.gains),
            "weeks": [_week(r) for r in self.weeks],
            "overrides": [asdict(x) for x in self.by_override],
            "applied": None if self.applied is None else asdict(self.applied),
        }


def _week(r: WeekResult) -> Mapping[str, Any]:
    fields = {name: value for name, value in asdict(r).items() if name != "modules"}
    return {**fields, "gain": {m: x.gain for m, x in r.modules.items()}}


# --- for people ------------------------------------------------------------------------------


def _print(paid: _Paid, console: Console) -> None:
    if not paid.total.n_trades:
        console.print("no past week has been judged yet: `learning run` does it")
        return
    console.print(_weeks_table(paid.weeks))
    console.print(_total_sentence(len(paid.weeks), paid.total))
    console.print(f"gain {gain_sentence(paid.gains)}")
    hurting = [x for x in paid.by_override if x.effect_r < 0][:_SHOWN_OVERRIDES]
    if hurting:
        console.print(_overrides_table(hurting))
    if paid.applied is not None:
        console.print(_applied_table(paid.applied))
        console.print(_applied_sentence(paid.applied))


def _weeks_table(weeks: Sequence[WeekResult]) -> Table:
    columns = ("trades", "matched", "mean R", "difference (R)", "90 %")
    made = _table("Week by week", "week", *columns, *(f"gain {m}" for m in MODULES))
    for r in weeks:
        gains = (f"{r.modules[m].gain:.2f}" for m in MODULES)
        made.add_row(
            *(f"{r.week:%Y-%m-%d}", f"{r.n_trades:,}", f"{r.n_matched:,}"),
            *(_signed(r.mean_rr), _signed(r.difference), _interval(r.low, r.high), *gains),
        )
    return made


def _overrides_table(totals: Sequence[OverrideTotal]) -> Table:
    columns = ("weeks", "trades", "predicted (R)", "realised (R)", "effect (R)")
    made = _table("Overrides that cost most", "lesson", *columns)
    for x in totals:
        made.add_row(
            *(Text(x.lesson_id), f"{x.n_weeks:,}", f"{x.n_trades:,}"),
            *(_signed(x.predicted_r), _signed(x.realised_r), f"{x.effect_r:+.4f}"),
        )
    return made


def _applied_table(found: AppliedFeedback) -> Table:
    columns = ("applied", "held out", "R applied", "R held out", "multiplier", "effect (R)", "90 %")
    made = _table("What bots applied, against the hold-out", "lesson", *columns)
    for x in (found.total, *found.overrides[:_SHOWN_OVERRIDES]):
        multiplier = "–" if x.mean_multiplier is None else f"×{x.mean_multiplier:.2f}"
        made.add_row(
            Text("all together" if x.lesson_id == ALL else x.lesson_id),
            *(f"{x.applied.n_trades:,}", f"{x.held_out.n_trades:,}"),
            *(_signed(x.applied.mean_rr), _signed(x.held_out.mean_rr), multiplier),
            *(_signed(x.effect_r), _interval(x.low, x.high)),
        )
    return made


def _applied_sentence(found: AppliedFeedback) -> str:
    total, days = found.total, (found.as_of - found.since).days
    watched = f", {total.n_shadow:,} only watched" if total.n_shadow else ""
    mixed = f", {total.n_mixed:,} treated in two ways and not counted" if total.n_mixed else ""
    told = (
        f"Overrides were applied to {total.applied.n_trades:,} trades of the {days} days before "
        f"{found.as_of:%Y-%m-%d %H:%M} UTC and held out from {total.held_out.n_trades:,}"
        f"{watched}{mixed}"
    )
    return f"{told}: {_applied_verdict(total)}."


def _applied_verdict(x: Effect) -> str:
    if x.effect_r is None or x.low is None or x.high is None:
        return f"no effect can be told, since {x.reason}"
    verdict = "they pay" if x.low > 0 else "they cost" if x.high < 0 else "no effect can be told"
    return f"{x.effect_r:+.3f} R per trade ({_interval(x.low, x.high)}), {verdict}"


def _table(title: str, first: str, *numbers: str) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=None)
    made.add_column(first, overflow="fold")
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def _total_sentence(n_weeks: int, total: Difference) -> str:
    low, high = total.low, total.high
    verdict = "too few weeks to say"
    if low is not None and high is not None:
        verdict = "it pays" if low > 0 else "it costs" if high < 0 else "no difference can be told"
    return (
        f"All {n_weeks} weeks, {total.n_trades:,} trades: {_signed(total.mean_rr)} R without "
        f"and {_signed(total.mean_rr_with)} R with overrides per unit of size, "
        f"{_signed(total.difference)} R ({_interval(low, high)}): {verdict}."
    )


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:+.3f} … {high:+.3f}"
