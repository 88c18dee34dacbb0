"""What an asset says about itself, for a person who reads it in the UI.

Turns results into Dagster's metadata; nothing is computed beyond counting and ordering.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from learning_assets.core.adjust import AdjustedEdge
from learning_assets.core.changes import Changed, counted_reasons
from learning_assets.core.learn import DetectionLimit, ModuleLearning
from learning_assets.core.records import Lesson, LessonStatus, OverrideSet, Reason
from learning_assets.core.scope import signature
from learning_assets.core.vetoes import why_vetoed
from learning_assets.defs.options import in_words
from learning_assets.pictures import Picture
from learning_assets.store.books import BookSize
from learning_assets.store.ingestion import IngestResult
from learning_assets.store.tables import Table

TOP_ROWS = 20

Metadata = Mapping[str, Any]
Cell = str | int | float | bool | None


def column_schema(table: Table) -> Metadata:
    """The columns of a stored table, as the UI shows them."""
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            column.description,
            dg.TableColumnConstraints(
                nullable=column.nullable, unique=table.primary_key == (column.name,)
            ),
        )
        for column in table.columns
    ]
    return {"dagster/column_schema": dg.TableSchema(columns)}


def table_value(
    columns: Mapping[str, str], rows: Sequence[Sequence[Cell]]
) -> dg.TableMetadataValue:
    """A small table: `columns` are name → type, `rows` in the same order.

    The page shows some 70 characters of a row before it scrolls: numbers come first.
    """
    schema = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()])
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    return dg.MetadataValue.table(records, schema)


def listed(name: str, columns: Mapping[str, str], rows: Sequence[Sequence[Cell]]) -> Metadata:
    """A table of what may be missing: nothing where it is."""
    return {name: table_value(columns, rows)} if rows else {}


def pictured(picture: Picture, name: str = "picture") -> Metadata:
    """A picture, as the UI shows it; words where there is nothing to draw."""
    return {name: dg.MetadataValue.md(picture.markdown())}


def materialized(
    context: dg.AssetExecutionContext, metadata: Metadata
) -> dg.MaterializeResult[None]:
    """The result of a run of one or more partitions, with what it says about itself.

    Dagster stores the metadata once for each partition, so that of a range only the newest one
    carries the pictures and tables.
    """
    newest = context.partition_keys[-1]
    large = {name: x for name, x in metadata.items() if isinstance(x, _LARGE)}
    if len(context.partition_keys) == 1 or _is_called_directly(context):
        return dg.MaterializeResult(metadata=metadata)
    context.add_asset_metadata(large, partition_key=newest)
    return dg.MaterializeResult(
        metadata={name: x for name, x in metadata.items() if name not in large}
    )


_LARGE = (dg.MarkdownMetadataValue, dg.TableMetadataValue)


def _is_called_directly(context: dg.AssetExecutionContext) -> bool:
    """Whether there is no run, in which case metadata cannot be added to a partition."""
    try:
        context.op_execution_context.get_step_execution_context()
    except dg.DagsterError:
        return True
    return False


def limit_sentence(limit: DetectionLimit | None, *, found: bool) -> str:
    """Which edge would have been found at least."""
    if limit is None:
        return "too few trades to test any slice"
    would = f"an edge of at least {limit.edge_r:.2f} R in a slice of {limit.n:,} trades would have"
    return f"{would} been found" if found else f"nothing found; {would} been found"


def of_thresholds(thresholds: Mapping[str, Any]) -> Metadata:
    """What a run had in place of the settings of the book."""
    return {"thresholds": in_words(thresholds) or "those of the book"}


def of_ingestion(
    result: IngestResult, size: BookSize, n_rejected: Mapping[Reason, int]
) -> Metadata:
    """What an ingestion did; `size` and `n_rejected` are of the whole book."""
    rows = [(str(reason), result.rejected[reason]) for reason in sorted(result.rejected)]
    return {
        "dagster/row_count": size.n_events,
        "dagster/partition_row_count": result.events,
        "trades": result.trades,
        "events": result.events,
        "unchanged": result.unchanged,
        "replaced": result.replaced,
        "outdated": result.outdated,
        "removed": result.removed,
        "rejected": sum(result.rejected.values()),
        **listed("rejected by reason", {"reason": "string", "rows": "int"}, rows),
        "trades in the book": size.n_trades,
        "rejected in the book": sum(n_rejected.values()),
    }


_LESSON_COLUMNS = {
    "status": "string",
    "joint edge (R)": "float",
    "± (R)": "float",
    "n": "int",
    "pattern": "string",
    "category": "string",
    "scope": "string",
    "delta_rr (R)": "float",
    "q": "float",
}


def of_lessons(learning: ModuleLearning) -> Metadata:
    """What was learned about a module."""
    count = status_counts(learning.lessons)
    return {
        "dagster/partition_row_count": len(learning.lessons),
        "trades": learning.n_trades,
        "slices tested": learning.slices_tested,
        **{str(status): n for status, n in count.items()},
        "redundant, those not kept included": learning.redundant_total,
        "detection limit": limit_sentence(
            learning.detection_limit, found=count[LessonStatus.ACTIVE] > 0
        ),
        "strongest lessons": table_value(
            _LESSON_COLUMNS, [_lesson_row(lesson) for lesson in _strongest(learning.lessons)]
        ),
    }


def of_unchanged(as_of: datetime, learned_as_of: datetime) -> Metadata:
    """A tick with nothing new to learn from since `learned_as_of`."""
    return {
        "unchanged": True,
        "as of": dg.MetadataValue.timestamp(as_of),
        "learned as of": dg.MetadataValue.timestamp(learned_as_of),
    }


def status_counts(lessons: Sequence[Lesson]) -> dict[LessonStatus, int]:
    """How many lessons there are of each status."""
    return {status: sum(x.status is status for x in lessons) for status in LessonStatus}


def _strongest(lessons: Sequence[Lesson]) -> list[Lesson]:
    order = list(LessonStatus)
    ranked = sorted(lessons, key=lambda x: (order.index(x.status), -abs(x.edge_raw)))
    return ranked[:TOP_ROWS]


def _lesson_row(lesson: Lesson) -> list[Cell]:
    return [
        str(lesson.status),
        rounded(lesson.joint_edge_r),
        rounded(lesson.joint_se_r),
        lesson.stats.n,
        lesson.group.pattern_key,
        lesson.group.action_category,
        signature(lesson.scope_subset),
        rounded(lesson.stats.delta_rr),
        rounded(lesson.stats.q_value),
    ]


def rounded(value: float | None) -> float | None:
    """Three digits after the point; None stays, and so does what is not finite as None."""
    return None if value is None or value - value != 0 else round(value, 3)


_OVERRIDE_COLUMNS = {
    "multiplier": "float",
    "confidence": "float",
    "n": "int",
    "pattern": "string",
    "category": "string",
    "scope": "string",
    "edge (R)": "float",
    "of joint edge (R)": "float",
    "half-life (h)": "float",
    "factor": "string",
}

_VETO_COLUMNS = {"lesson": "string", "without it": "float", "reason": "string"}

_EXPECTED = {
    "total_size": "expected change of total size (%)",
    "volatility": "expected change of volatility (%)",
    "drawdown": "expected change of the largest drawdown (%)",
    "mean_rr": "expected change of the mean outcome (R per unit of size)",
    "n_trades": "expected over so many trades",
}


def of_overrides(published: OverrideSet, set_id: int | None, why_wait: str = "") -> Metadata:
    """What was published, or why it was not: None is a set that is not sound."""
    ranked = sorted(published.overrides, key=lambda o: -abs(o.multiplier - 1))
    rows = [
        (
            rounded(o.multiplier),
            rounded(o.confidence_score),
            o.n,
            o.group.pattern_key,
            o.group.action_category,
            signature(o.scope_subset),
            rounded(o.adjusted_edge_r),
            rounded(o.parts["joint_edge_r"]),
            rounded(o.half_life_hours),
            o.parts["factor_id"],
        )
        for o in ranked[:TOP_ROWS]
    ]
    vetoed = [
        (o.lesson_id, rounded(o.parts["without_veto"]), reason)
        for o in ranked
        if (reason := why_vetoed(o)) is not None
    ]
    return {
        "dagster/row_count": len(published.overrides),
        "set": set_id or "not published, since it is not sound",
        "held back": why_wait or "no",
        "as of": dg.MetadataValue.timestamp(published.as_of),
        "expires": dg.MetadataValue.timestamp(published.expires_at),
        "overrides": table_value(_OVERRIDE_COLUMNS, rows),
        **listed("vetoed", _VETO_COLUMNS, vetoed),
        **{
            _EXPECTED[name]: rounded(value * 100 if _EXPECTED[name].endswith("(%)") else value)
            for name, value in published.expected.items()
        },
    }


def of_changes(changed: Sequence[Changed]) -> Metadata:
    """What the set changes against the live one, and why."""
    rows = [(c.lesson_id, rounded(c.old), rounded(c.new), str(c.why), c.detail) for c in changed]
    columns = {"lesson": "string", "from": "float", "to": "float", "why": "string"}
    return {
        "changed": counted_reasons(changed),
        **listed("changes", {**columns, "in detail": "string"}, rows),
    }


def of_withheld(edges: Sequence[AdjustedEdge], least_r: float) -> Metadata:
    """The active lessons without an override, and what counted as neutral, with the reasons."""
    reasons = [(e.lesson.lesson_id, e.why_withheld(least_r)) for e in edges]
    withheld = [(name, reason) for name, reason in reasons if reason]
    notes = Counter(note for e in edges for note in e.notes)
    return {
        "active lessons without an override": len(withheld),
        **listed("withheld", {"lesson": "string", "reason": "string"}, withheld),
        **listed("neutral", {"what": "string", "lessons": "int"}, sorted(notes.items())),
    }
