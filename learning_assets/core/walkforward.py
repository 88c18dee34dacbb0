"""What the overrides that were learned before a week did to the trades opened in it: the records.

They are made in `core.replay` and `core.judge`; what the learning's trust is earned by is in
`core.gain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from learning_assets.core.records import OverrideSet


@dataclass(frozen=True, slots=True)
class DaySums:
    """Sums of one UTC closing day for the regression of realised on predicted edges.

    Over the trades of a week that closed on `day`, after the week's means were taken out: `xx` =
    Σ x², `xy` = Σ x·y and `xz` = Σ x·z, where x is the module's predicted edge before gain, z the
    other module's and y = rr, in R². `n` of the trades have a prediction of the module.
    """

    day: date
    n: int
    xx: float
    xy: float
    xz: float


@dataclass(frozen=True, slots=True)
class ModuleResult:
    """A module's part in a week: the gain that its set had, and the sums of its closing days."""

    gain: float
    n_matched: int
    days: tuple[DaySums, ...]


@dataclass(frozen=True, slots=True)
class OverrideResult:
    """What happened to the trades that one override matched in a week.

    `predicted_r` is the edge before gain that it was made from, `realised_r` the mean of
    rr − baseline of its `n_trades` trades (None without any), `effect_r` what its share of the
    sizes changed, as Σ (multiplier − 1)·(rr − baseline) ÷ all trades of the week, in R. The
    baseline is the week's mean over the trades of the module and category.
    """

    lesson_id: str
    module: str
    multiplier: float
    predicted_r: float
    n_trades: int
    realised_r: float | None
    effect_r: float


@dataclass(frozen=True, slots=True)
class WeekResult:
    """A week of the walk-forward (`week`: its Monday 00:00 UTC, the as_of of the set).

    `mean_rr` is the mean R of its trades, `mean_rr_with` per unit of size with the overrides,
    `difference` the latter less the former, from `low` to `high` with 90 % (block bootstrap over
    closing days; None with fewer than four); None without trades. `total_size` is the mean size
    of a trade. Only trades opened in the week and closed before `evaluated_at` count;
    `overrides` are those of sizing categories, which alone change a size.
    """

    week: datetime
    n_trades: int
    n_overrides: int
    n_matched: int
    mean_rr: float | None
    mean_rr_with: float | None
    difference: float | None
    low: float | None
    high: float | None
    total_size: float | None
    modules: Mapping[str, ModuleResult]
    overrides: tuple[OverrideResult, ...]
    evaluated_at: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """The set that would have been published at the start of a week, and the gains it had.

    The week is the as_of of the set, a Monday 00:00 UTC; `gains` are by module.
    """

    content: OverrideSet
    gains: Mapping[str, float]

    @property
    def week(self) -> datetime:
        """The week that the set is for."""
        return self.content.as_of
