"""What the assets of the meta-learners say about themselves, for a person who reads it in the UI.

Turns results into Dagster's metadata, as `defs.metadata` does for the main job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from learning_assets import pictures
from learning_assets.core.factors import Factor
from learning_assets.core.halflife import HalfLife
from learning_assets.core.history import EdgePoint
from learning_assets.core.records import DecayState
from learning_assets.core.regime_weights import RegimeEdge, RegimeWeights
from learning_assets.core.regimes import Regime
from learning_assets.defs.metadata import (
    TOP_ROWS,
    Cell,
    Metadata,
    pictured,
    rounded,
    table_value,
)

_EDGE_COLUMNS = {
    "week": "string",
    "delta_rr (R)": "float",
    "± (R)": "float",
    "n": "int",
    "lesson": "string",
    "edge_raw (R)": "float",
}


def of_edge_history(
    points: Sequence[EdgePoint], weeks: Sequence[datetime], written: int
) -> Metadata:
    """The edges of these weeks; `written` counts the rows that were filled in elsewhere too."""
    there = [p for p in points if weeks[0] <= p.week <= weeks[-1]]
    newest = max((p.week for p in there), default=None)
    strongest = sorted((p for p in there if p.week == newest), key=lambda p: -abs(p.edge_raw))
    rows = [
        (
            p.week.date().isoformat(),
            rounded(p.delta_rr),
            rounded(p.se),
            p.n,
            p.lesson_id,
            rounded(p.edge_raw),
        )
        for p in strongest[:TOP_ROWS]
    ]
    return {
        "rows of these weeks": len(there),
        "rows filled in for other weeks": written - len(there),
        "lessons": len({p.lesson_id for p in there}),
        "weeks": len(weeks),
        "strongest in the newest week": table_value(_EDGE_COLUMNS, rows),
    }


_HALF_LIFE_COLUMNS = {
    "status": "string",
    "half-life (h)": "float",
    "from (h)": "float",
    "to (h)": "float",
    "lesson": "string",
    "e0 (R)": "float",
    "p": "float",
    "weeks": "int",
}


def of_half_lives(found: Mapping[str, HalfLife], as_of: datetime) -> Metadata:
    """How many edges wear out, and how fast: the fastest first."""
    ranked = sorted(found.items(), key=lambda item: _by_wear(item[1]))
    rows = [
        (
            str(x.status),
            *map(rounded, (x.half_life_hours, x.low, x.high)),
            name,
            *map(rounded, (x.e0, x.p_value)),
            x.n_windows,
        )
        for name, x in ranked[:TOP_ROWS]
    ]
    return {
        "dagster/partition_row_count": len(found),
        "as of": dg.MetadataValue.timestamp(as_of),
        **{str(state): sum(x.status is state for x in found.values()) for state in DecayState},
        "half-lives": table_value(_HALF_LIFE_COLUMNS, rows),
    }


def _by_wear(x: HalfLife) -> tuple[bool, float, float]:
    return x.half_life_hours is None, x.half_life_hours or 0.0, -abs(x.e0 or 0.0)


_FACTOR_COLUMNS = {
    "members": "int",
    "patterns": "int",
    "least overlap": "float",
    "factor": "string",
    "module": "string",
    "category": "string",
    "representative": "string",
}


def of_factors(found: Sequence[Factor], as_of: datetime) -> Metadata:
    """How many factors there are: those of several patterns first, then the largest."""
    ranked = sorted(found, key=lambda f: (-len(f.pattern_keys), -len(f.members), f.factor_id))
    rows = [
        (
            len(f.members),
            len(f.pattern_keys),
            rounded(min(overlap for _, overlap in f.members)),
            f.factor_id,
            f.module,
            f.action_category,
            f.representative,
        )
        for f in ranked[:TOP_ROWS]
    ]
    return {
        "dagster/partition_row_count": len(found),
        "as of": dg.MetadataValue.timestamp(as_of),
        "lessons": sum(len(f.members) for f in found),
        "factors of several lessons": sum(len(f.members) > 1 for f in found),
        "factors of several patterns": sum(len(f.pattern_keys) > 1 for f in found),
        "factors": table_value(_FACTOR_COLUMNS, rows),
    }


_WEIGHT_COLUMNS = {
    "time": "float",
    "field": "float",
    "recurrence": "float",
    "variance": "float",
    "samples": "int",
    "pattern": "string",
    "category": "string",
    "regime": "string",
    "confidence": "float",
}

_REGIME_EDGE_COLUMNS = {
    "edge (R)": "float",
    "from (R)": "float",
    "to (R)": "float",
    "n": "int",
    "regime": "string",
    "pattern": "string",
    "category": "string",
}


def of_regime_weights(
    found: Sequence[RegimeWeights], edges: Sequence[RegimeEdge], regime: Regime, as_of: datetime
) -> Metadata:
    """The weights that say most, each pattern's edge by regime state, and the regime in force."""
    ranked = sorted(found, key=lambda row: -max(abs(w - 1) for w in row.four))
    weights = [
        (
            *map(rounded, row.four),
            row.n_samples,
            f"{row.group.module} *" if row.group.pattern_key == "*" else row.group.pattern_key,
            row.group.action_category,
            row.regime_signature,
            rounded(row.confidence),
        )
        for row in ranked[:TOP_ROWS]
    ]
    return {
        **pictured(pictures.regime_weights(found, regime.signature)),
        **pictured(pictures.regime_edges(edges), "picture of edges"),
        "dagster/partition_row_count": len(found),
        "as of": dg.MetadataValue.timestamp(as_of),
        "regime in force": regime.signature or "unknown",
        "regime seen": f"{regime.at:%Y-%m-%d %H:%M} UTC" if regime.at else "never",
        "regime from": regime.whence,
        "with evidence": sum(any(w != 1 for w in row.four) for row in found),
        "weights": table_value(_WEIGHT_COLUMNS, weights),
        "edge by regime, the strongest": table_value(
            _REGIME_EDGE_COLUMNS, [_regime_edge(e) for e in _strongest(edges)]
        ),
    }


def _strongest(edges: Sequence[RegimeEdge]) -> list[RegimeEdge]:
    """The edges that are furthest from 0 in units of their interval."""
    return sorted(edges, key=_sureness, reverse=True)[:TOP_ROWS]


def _sureness(edge: RegimeEdge) -> float:
    width = edge.high - edge.low
    return abs(edge.edge_r) / width if width > 0 else 0.0


def _regime_edge(edge: RegimeEdge) -> Sequence[Cell]:
    numbers = map(rounded, (edge.edge_r, edge.low, edge.high))
    key = edge.group
    return *numbers, edge.n, f"{edge.dim}={edge.state}", key.pattern_key, key.action_category
