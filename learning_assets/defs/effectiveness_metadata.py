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
from learning_assets.core.feedback import ALL, AppliedFeedback, Effect
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
_APPLIED_COLUMNS = {
    "effect (R)": "float",
    "from (R)": "float",
    "to (R)": "float",
    "applied": "int",
    "held out": "int",
    "lesson": "string",
    "mean R applied": "float",
    "mean R held out": "float",
    "mean multiplier": "float",
    "gained (R)": "float",
    "days applied": "int",
    "days held out": "int",
    "only watched": "int",
    "treated in two ways": "int",
    "why no effect": "string",
}


def of_effectiveness(
    results: Sequence[WeekResult],
    weeks: Sequence[datetime],
    settings: LearningConfig,
    as_of: datetime,
    n_learned: int,
    applied: AppliedFeedback | None,
) -> Metadata:
    """All weeks up to the newest of `weeks`; `n_learned` of `weeks` had to be learned.

    `applied` is what bots applied, None where no trade says so.
    """
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
        **(of_applied(applied) if applied else {}),
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


def of_applied(found: AppliedFeedback) -> Metadata:
    """What happened with the overrides applied, against the hold-out."""
    shown = (found.total, *found.overrides[:TOP_ROWS])
    return {
        "applied as of": dg.MetadataValue.timestamp(found.as_of),
        "effect of all applied (R)": _effect_text(found.total),
        "applied": table_value(_APPLIED_COLUMNS, [_applied_row(x) for x in shown]),
    }


def _effect_text(x: Effect) -> str:
    """The effect with its interval, or why there is none."""
    if x.effect_r is None or x.low is None or x.high is None:
        return x.reason
    return f"{x.effect_r:+.3f} ({x.low:+.3f} to {x.high:+.3f})"


def _applied_row(x: Effect) -> list[Cell]:
    with_it, without = x.applied, x.held_out
    means = (with_it.mean_rr, without.mean_rr, x.mean_multiplier, x.gained_r)
    return [
        *map(rounded, (x.effect_r, x.low, x.high)),
        *(with_it.n_trades, without.n_trades),
        "all together" if x.lesson_id == ALL else x.lesson_id,
        *map(rounded, means),
        *(with_it.n_days, without.n_days, x.n_shadow, x.n_mixed, x.reason),
    ]


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
