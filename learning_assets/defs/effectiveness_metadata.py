"""What the walk-forward says about itself in the UI: does it pay, and which overrides do not?

Turns results into Dagster's metadata, as `defs.metadata` does for the main job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from learning_assets import pictures
from learning_assets.core.config import LearningConfig
from learning_assets.core.gain import MODULES, ModuleGain, gain_history, gains_of
from learning_assets.core.judge import OverrideTotal, total_of, totals_by_override
from learning_assets.core.walkforward import WeekResult
from learning_assets.defs.metadata import TOP_ROWS, Cell, Metadata, pictured, rounded, table_value

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
    "lesson": "string",
    "weeks": "int",
    "trades": "int",
    "predicted (R)": "float",
    "realised (R)": "float",
    "effect (R, all trades)": "float",
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
        "dagster/partition_row_count": len(weeks),
        "as of": dg.MetadataValue.timestamp(as_of),
        "weeks learned": n_learned,
        "weeks unchanged": len(weeks) - n_learned,
        "weeks in all": len(known),
        "trades in all": total.n_trades,
        "difference in all (R)": rounded(total.difference),
        "from (R)": rounded(total.low),
        "to (R)": rounded(total.high),
        **of_gains(gains_of(known, settings, as_of)),
        **pictured(pictures.walk_forward(known, gain_history(known, settings))),
        "by week": table_value(_WEEK_COLUMNS, [_week_row(r) for r in reversed(known)]),
        "helped most": _overrides([x for x in reversed(by_effect) if x.effect_r > 0]),
        "hurt most": _overrides([x for x in by_effect if x.effect_r < 0]),
    }


def of_gains(gains: Mapping[str, ModuleGain]) -> Metadata:
    """The gain of each module, and what it rests on."""
    return {f"gain {m}": f"{gain.value:.2f} ({gain.why})" for m, gain in gains.items()}


def _week_row(r: WeekResult) -> list[Cell]:
    numbers = (r.mean_rr, r.difference, r.low, r.high, *(r.modules[m].gain for m in MODULES))
    return [
        *(r.week.date().isoformat(), r.n_trades, r.n_overrides, r.n_matched),
        *map(rounded, numbers),
    ]


def _overrides(totals: Sequence[OverrideTotal]) -> dg.TableMetadataValue:
    rows = [
        (
            x.lesson_id,
            x.n_weeks,
            x.n_trades,
            *map(rounded, (x.predicted_r, x.realised_r, x.effect_r)),
        )
        for x in totals[:TOP_ROWS]
    ]
    return table_value(_OVERRIDE_COLUMNS, rows)
