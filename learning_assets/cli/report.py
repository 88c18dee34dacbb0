"""`learning report`: reads a book and writes the page, which `learning_assets.report` lays out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from learning_assets.cli.book import existing_book, nothing_yet, settings_of
from learning_assets.cli.output import BookOption, check_writable, terminal, write_whole
from learning_assets.store import (
    books,
    edge_history,
    effectiveness,
    events,
    factors,
    feedback,
    half_lives,
    lessons,
    overrides,
    regime_weights,
    sources,
)
from learning_assets.store.connection import Conn
from learning_assets.store.settings import Settings

if TYPE_CHECKING:
    from learning_assets.core.events import EventTable
    from learning_assets.core.records import Lesson, OverrideSet
    from learning_assets.report import Contents, Feedback

_MODULES = ("pm", "dm")


def report(
    book: BookOption = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The HTML file to write; replaced if there.")
    ] = Path("report.html"),
) -> None:
    """Write what was learned as one HTML page with pictures."""
    chosen, now = settings_of(book), datetime.now(UTC)
    check_writable("--out", out, "report.html")
    with existing_book(chosen) as conn:
        contents = _contents(conn, chosen, now)
    from learning_assets.report import page

    write_whole(out, page(contents))
    terminal().print(f"the report on the book {chosen.book} is in {out.resolve()}", soft_wrap=True)


# --- what the page is made of ----------------------------------------------------------------


def _contents(conn: Conn, chosen: Settings, now: datetime) -> Contents:
    # The engine and the drawing take a second to import, and the other commands do without.
    from learning_assets.core.config import LearningConfig
    from learning_assets.core.learn import DetectionLimit
    from learning_assets.pictures import MOST_DAYS
    from learning_assets.report import Contents
    from learning_assets.store.columns import event_table

    size, live, known = books.size(conn), overrides.live(conn), lessons.lessons(conn)
    if live is None and not size.n_trades:
        raise nothing_yet(chosen)
    published = live.content if live else None
    as_of = published.as_of if published else now
    config = LearningConfig.model_validate({})
    since = as_of - timedelta(days=config.look_back_days)
    window = event_table(conn, chosen.columns_folder, as_of, since)
    states = {m: state for m in _MODULES if (state := lessons.module_state(conn, m)) is not None}
    limits = {m: state.summary.get("detection_limit") for m, state in states.items()}
    return Contents(
        book=chosen.book,
        made_at=now,
        source=_source(conn),
        n_trades=size.n_trades,
        n_events=size.n_events,
        rejected={str(reason): n for reason, n in events.rejected_counts(conn).items()},
        days=events.day_outcomes(conn, MOST_DAYS),
        published=published,
        lessons=known,
        slices_tested={m: state.slices_tested for m, state in states.items()},
        limits={m: DetectionLimit(**limit) if limit else None for m, limit in limits.items()},
        history=edge_history.edge_history(conn, as_of),
        half_lives=half_lives.half_lives(conn, as_of),
        factors=factors.factors(conn, as_of),
        withheld=_withheld(conn, known, published, window) if published else (),
        feedback=_feedback(conn, as_of, published, window),
    )


def _source(conn: Conn) -> str:
    found = sources.current_source(conn)
    return "none" if found is None else f"{found.kind}: {found.location}"


def _withheld(
    conn: Conn, known: Sequence[Lesson], published: OverrideSet, window: EventTable
) -> list[tuple[str, str]]:
    """The active lessons (ids) without an override in the live set, with the reasons."""
    from learning_assets.core.adjust import MetaResults, adjusted_edges
    from learning_assets.core.config import LearningConfig
    from learning_assets.core.regimes import Regime

    config, as_of = LearningConfig.model_validate({}), published.as_of
    meta = MetaResults(
        half_lives.half_lives(conn, as_of),
        factors.factors(conn, as_of),
        regime_weights.regime_weights(conn, as_of),
        Regime(_regime(published), as_of, "the live set"),
    )
    live = {override.lesson_id for override in published.overrides}
    return [
        (e.lesson.lesson_id, e.why_withheld(config.min_edge_r) or "learned after this set")
        for e in adjusted_edges(known, window, config, as_of, meta)
        if e.lesson.lesson_id not in live
    ]


def _regime(published: OverrideSet | None) -> str | None:
    """The signature of the regime that the live set was made for; None where it is unknown."""
    overrides = published.overrides if published else ()
    return next((o.parts.get("regime_signature") for o in overrides), None)


def _feedback(
    conn: Conn, as_of: datetime, published: OverrideSet | None, window: EventTable
) -> Feedback:
    """What the regimes and the walk-forward taught up to that moment."""
    from learning_assets.core.config import LearningConfig
    from learning_assets.core.gain import gain_history
    from learning_assets.core.regime_weights import edges_by_regime
    from learning_assets.report import Feedback

    config = LearningConfig.model_validate({})
    weights = regime_weights.regime_weights(conn, as_of)
    weeks = effectiveness.results(conn, as_of)
    return Feedback(
        regime=_regime(published),
        weights=weights.rows if weights else (),
        edges=edges_by_regime(window, config, as_of),
        weeks=weeks,
        gains=gain_history(weeks, config),
        applied=feedback.newest(conn),
    )
