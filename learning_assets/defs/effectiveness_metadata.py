"""What the walk-forward says about itself in the UI: does it pay, and which overrides do not?

Turns results into Dagster's metadata, as `defs.metadata` does for the main job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice

import dagster as dg

from learning_assets import pictures
from learning_assets.core.config import LearningConfig
from learning_assets.core.gain import MODULES, ModuleGain, gain_history, gains_of
from learning_assets.core.judge import OverrideTotal, total_of, totals_by_override
from learning_assets.core.walkforward import WeekResult
from learning_assets.defs.metadata import (
    TOP_ROWS,
    Cell,
    Metadata,
    listed,
    pictured,
    rounded,
    table_value,
)

_WEEK_COLUMNS = {
    "week": "string",
    "trades": "int",
    "overrides": "int",
    "matched": "int",
    "mean R": "float",
    "difference (R)": "float",
    "from (R)": "float",
    "to (R)": "float",
    **{f"gain {module}": "float" for module in MODULES},
}
_OVERRIDE_COLUMNS = {
    "effect (R, all trades)": "float",
    "predicted (R)": "float",
    "realised (R)": "float",
    "trades": "int",
    "lesson": "string",
    "weeks": "int",
}


def of_effectiveness(
    results: Sequence[WeekResult],
    weeks: Sequence[datetime],
    settings: LearningConfig,
    as_of: datetime,
    n_learned: int,
) -> Metadata:
    """All weeks up to the newest of `weeks`; `n_learned` of `weeks` had to be learned."""
    known = [r for r in results if r.week <= weeks[-1]]
    total = total_of(known, settings)
    by_effect = totals_by_override(known)
    return {
        **pictured(pictures.walk_forward(known, gain_history(known, settings))),
        "dagster/partition_row_count": len(weeks),
        "as of": dg.MetadataValue.timestamp(as_of),
        "weeks learned": n_learned,
        "weeks unchanged": len(weeks) - n_learned,
        "weeks in all": len(known),
        "trades in all": total.n_trades,
        "difference in all (R)": rounded(total.difference),
        "90 % interval (R)": _interval(total.low, total.high),
        **of_gains(gains_of(known, settings, as_of)),
        "by week": table_value(_WEEK_COLUMNS, [_week_row(r) for r in reversed(known)]),
        **listed(
            "helped most",
            _OVERRIDE_COLUMNS,
            _rows(x for x in reversed(by_effect) if x.effect_r > 0),
        ),
        **listed("hurt most", _OVERRIDE_COLUMNS, _rows(x for x in by_effect if x.effect_r < 0)),
    }


def _interval(low: float | None, high: float | None) -> str:
    bounds = rounded(low), rounded(high)
    return "too few days" if None in bounds else "{:+.3f} to {:+.3f}".format(*bounds)


def of_gains(gains: Mapping[str, ModuleGain]) -> Metadata:
    """The gain of each module, and what it rests on."""
    return {f"gain {m}": f"{gain.value:.2f} ({gain.why})" for m, gain in gains.items()}


def _week_row(r: WeekResult) -> list[Cell]:
    numbers = (r.mean_rr, r.difference, r.low, r.high, *(r.modules[m].gain for m in MODULES))
    return [
        *(r.week.date().isoformat(), r.n_trades, r.n_overrides, r.n_matched),
        *map(rounded, numbers),
    ]


def _rows(totals: Iterable[OverrideTotal]) -> list[Sequence[Cell]]:
    return [
        (
            *map(rounded, (x.effect_r, x.predicted_r, x.realised_r)),
            x.n_trades,
            x.lesson_id,
            x.n_weeks,
        )
        for x in islice(totals, TOP_ROWS)
    ]
