"""`learning lessons`, `learning overrides` and `learning lookup`: what was learned, read only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from learning_assets.cli.book import existing_book, settings_of
from learning_assets.cli.effectiveness import gain_sentence, gains_now
from learning_assets.cli.output import (
    BookOption,
    JsonOption,
    SliceTable,
    check_writable,
    edge_text,
    print_json,
    terminal,
    to_json,
    write_whole,
)
from learning_assets.core.records import GroupKey, LessonStatus, Override, Status
from learning_assets.core.scope import Scope, normalise_scope, signature, subset
from learning_assets.core.vetoes import why_vetoed
from learning_assets.errors import UserError
from learning_assets.runtime.sets import Answer, LiveSet, answered
from learning_assets.sources import parse
from learning_assets.store import lessons as stored_lessons
from learning_assets.store import overrides as stored_overrides
from learning_assets.store.connection import Conn
from learning_assets.store.overrides import PublishedSet

_STATISTICS = (
    "avg_rr",
    "variance",
    "delta_rr",
    "se",
    "z",
    "p_value",
    "q_value",
    "edge_raw",
    "joint_edge_r",
    "joint_se_r",
    "aliases",
)
_SHOWN_LESSONS = 30


def override_rows(conn: Conn) -> list[dict[str, Any]]:
    """The live overrides with the statistics of their lessons (null where one is gone)."""
    lessons_by_id = {row["lesson_id"]: row for row in stored_lessons.lesson_rows(conn)}
    rows = stored_overrides.override_rows(conn)
    for row in rows:
        lesson = lessons_by_id.get(row["lesson_id"], {})
        row |= {name: row.get(name, lesson.get(name)) for name in _STATISTICS}
    return sorted(rows, key=lambda row: -abs(row["multiplier"] - 1))


def overrides(
    book: BookOption = None,
    public_view: Annotated[
        bool | None,
        typer.Option(
            "--public-view/--no-public-view",
            help="Make the view public.pm_overrides of them for older readers, or remove it.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the live set to a file, for a bot without a database."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the live overrides."""
    if export is not None:
        check_writable("--export", export, "overrides.json")
    with existing_book(settings_of(book)) as conn:
        if export is not None:
            write_whole(export, to_json(stored_overrides.live_document(conn)))
        if public_view is not None:
            change = stored_overrides.publish_public_view
            (change if public_view else stored_overrides.withdraw_public_view)(conn)
        rows, gains = override_rows(conn), gains_now(conn)
    if as_json:
        print_json(rows)
    else:
        print_overrides(rows, gain_sentence(gains))


def print_overrides(rows: list[dict[str, Any]], gain: str) -> None:
    """The overrides as a table for people, and the gain of each module."""
    console = terminal()
    console.print(f"gain {gain}")
    if not rows:
        console.print("no overrides: sizes stay as they are")
        return
    console.print(overrides_table(rows, console.width))
    for row in rows:
        veto = row["parts"].get("veto")
        if veto is not None:
            without = f"× {row['parts']['without_veto']:.2f} without the veto"
            said = f"vetoed: {row['lesson_id']} ({without}): {veto['reason']}"
            console.print(said, markup=False, soft_wrap=True)


def overrides_table(rows: Sequence[Mapping[str, Any]], width: int) -> Table:
    """The overrides for people; with half-lives where an edge is wearing out."""
    wear = _WEAR if any(row["half_life_hours"] is not None for row in rows) else ()
    made = SliceTable.of("Overrides", width, "n", "edge (R)", *wear, "×")
    for row in rows:
        edge = edge_text(row["joint_edge_r"], row["joint_se_r"])
        cells = _wear_cells(row) if wear else ()
        made.add(row, f"{row['n']:,}", edge, *cells, f"{row['multiplier']:.2f}")
    return made.table


_WEAR = ("½-life", "left")


def _wear_cells(row: Mapping[str, Any]) -> tuple[str, str]:
    """Half-life and share of the edge that is left; a dash where it does not wear out."""
    if row["half_life_hours"] is None:
        return "–", "–"
    return f"{row['half_life_hours']:,.0f} h", f"{row['parts'].get('remaining_share', 1.0):.0%}"


def lessons(
    book: BookOption = None,
    module: Annotated[str | None, typer.Option(help="pm or dm only.")] = None,
    status: Annotated[
        LessonStatus | None, typer.Option(help="Lessons of this status only.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was learned about each slice, the strongest first."""
    if module not in (None, "pm", "dm"):
        raise UserError(f"--module {module} is no module: it is pm or dm")
    with existing_book(settings_of(book)) as conn:
        rows = stored_lessons.lesson_rows(conn, module, status)
    if as_json:
        print_json(rows)
    else:
        _print_lessons(rows)


def _print_lessons(rows: list[dict[str, Any]]) -> None:
    console = terminal()
    if not rows:
        console.print("no lessons")
        return
    made = SliceTable.of("Lessons", console.width, "n", "delta (R)", "joint (R)", last="status")
    for row in rows[:_SHOWN_LESSONS]:
        delta = edge_text(row["delta_rr"], row["se"])
        joint = edge_text(row["joint_edge_r"], None)
        made.add(row, f"{row['n']:,}", delta, joint, row["status"])
    console.print(made.table)
    if len(rows) > _SHOWN_LESSONS:
        console.print(f"… and {len(rows) - _SHOWN_LESSONS:,} more: --json prints all")


def lookup(
    pattern: Annotated[str, typer.Argument(help="For example pm.uptrend.S1.buy_flag.")],
    category: Annotated[str, typer.Argument(help="entry, add, trim, exit or allocation.")],
    scope: Annotated[str, typer.Option(help='A JSON object, e.g. \'{"chain": "solana"}\'.')] = "{}",
    book: BookOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask what to multiply the size of an action by."""
    group, given = asked_group(pattern, category), asked_scope(scope)
    with existing_book(settings_of(book)) as conn:
        published = stored_overrides.live(conn)
    answer = _answer(published, group, given, datetime.now(UTC))
    if as_json:
        print_json(answer)
    else:
        _print_answer(answer)


def asked_group(pattern: str, category: str) -> GroupKey:
    """The group that a person means.

    Raises:
        UserError: for a pattern or a category that is none.
    """
    try:
        by_category = "dm" if category.strip().lower() == "allocation" else "pm"
        names_module = "=" in pattern or pattern.strip().lower().startswith(("pm.", "dm."))
        module, key = parse.pattern_key(pattern, None if names_module else by_category)
        return GroupKey(module, key, parse.category(category, module))
    except parse.RowError as error:
        raise UserError(
            f"{error.detail}: give a pattern like pm.uptrend.S1.buy_flag and a category of its "
            "module (pm: entry, add, trim, exit; dm: allocation)"
        ) from None


def asked_scope(text: str) -> Scope:
    """The scope that a person wrote as JSON.

    Raises:
        UserError: for what is none.
    """
    example = 'write it like --scope \'{"chain": "solana"}\''
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise UserError(f"--scope is no JSON ({error}): {example}") from None
    if not isinstance(raw, dict):
        raise UserError(f"--scope is no JSON object: {example}")
    try:
        return normalise_scope(raw)
    except TypeError as error:
        raise UserError(f"--scope cannot be used ({error}): {example}") from None


def _answer(
    published: PublishedSet | None, group: GroupKey, scope: Scope, now: datetime
) -> Mapping[str, Any]:
    """The answer as a bot gets it, with what is known of the overrides that matched."""
    answer = Answer(1.0, 1.0, Status.NO_OVERRIDES, "nothing has been published yet")
    by_id: Mapping[str, Override] = {}
    if published is not None:
        answer = answered(LiveSet.of(stored_overrides.document_of(published)), group, scope, now)
        by_id = {o.lesson_id: o for o in published.content.overrides}
    return {
        "status": answer.status.value,
        "reason": answer.reason,
        "multiplier": answer.multiplier,
        **group._asdict(),
        "scope": dict(scope),
        "matched": [_matched(by_id[one.lesson_id]) for one in answer.matched],
        "set_id": answer.set_id,
        "as_of": published and published.content.as_of,
        "published_at": answer.published_at,
        "expires_at": answer.expires_at,
    }


def _matched(override: Override) -> Mapping[str, Any]:
    return {
        "lesson_id": override.lesson_id,
        "scope_subset": dict(override.scope_subset),
        "multiplier": override.multiplier,
        "adjusted_edge_r": override.adjusted_edge_r,
        "confidence_score": override.confidence_score,
        "n": override.n,
        "q_value": override.q_value,
        "decay_state": override.decay_state.value,
        "half_life_hours": override.half_life_hours,
        "veto": why_vetoed(override),
        "parts": dict(override.parts),
    }


_SENTENCES = {
    "ok": "from {matched} of set {set_id}",
    "no_match": "no override of set {set_id} matches",
    "stale": "set {set_id} expired at {expires_at:%Y-%m-%d %H:%M} UTC, so it is not applied",
    "no_overrides": "nothing has been published yet",
}


def _print_answer(answer: Mapping[str, Any]) -> None:
    console = terminal()
    count = f"{len(answer['matched'])} override{'s' * (len(answer['matched']) != 1)}"
    why = _SENTENCES[answer["status"]].format(**{**answer, "matched": count})
    console.print(f"× {answer['multiplier']:.3f}  ({why})")
    for row in answer["matched"]:
        scope = signature(subset(row["scope_subset"]))
        veto = "" if row["veto"] is None else f", vetoed: {row['veto']}"
        console.print(
            f"  × {row['multiplier']:.3f}  {scope}  edge {row['adjusted_edge_r']:+.2f} R, "
            f"n {row['n']:,}, sign right with {row['confidence_score']:.1%}{veto}",
            markup=False,
            soft_wrap=True,
        )
