"""How far the learning has earned to be trusted: the gain of each module.

gain = clip((4·prior + s/e²) / (4 + 1/e²), 0, 1): the walk-forward calibration slope s of the
newest weeks combined with a prior of ± 0.5 (normal means: Gelman et al. 2013, ch. 2). Both
modules predict the same trades, so their slopes are fitted together, within weeks; the error e is
the jackknife over closing days (Tukey 1958; Cameron & Miller 2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.combine import BOUNDS
from learning_assets.core.config import LearningConfig
from learning_assets.core.history import WEEK
from learning_assets.core.walkforward import WeekResult

Floats = NDArray[np.float64]

MODULES = tuple(BOUNDS)

_PRIOR_PRECISION = 4.0
_FEWEST_DAYS = 10
"""An error from fewer closing days with predictions says nothing."""


@dataclass(frozen=True, slots=True)
class ModuleGain:
    """The gain of a module as of a moment, in [0, 1], and what it rests on.

    `slope` (realised on predicted) and its error `se` are None while nothing has been measured;
    `n_weeks` and `n_trades` count what they were measured on.
    """

    module: str
    as_of: datetime
    value: float
    slope: float | None
    se: float | None
    n_weeks: int
    n_trades: int

    @property
    def why(self) -> str:
        """What it rests on, in words."""
        if self.slope is None or self.se is None:
            return "not measured yet"
        return f"slope {self.slope:.2f} ± {self.se:.2f} over {self.n_weeks} weeks"


def gains_of(
    results: Sequence[WeekResult], config: LearningConfig, as_of: datetime
) -> Mapping[str, ModuleGain]:
    """The gain of each module as of a moment.

    Of the weeks that had ended by `as_of` and were judged by then, the newest
    `config.gain_weeks` of the calendar count, in any order. With predictions on fewer than ten
    closing days a module has not been measured, and its gain is `config.prior_gain`.
    """
    first = as_of - config.gain_weeks * WEEK - WEEK
    known = [r for r in results if first < r.week <= as_of - WEEK and r.evaluated_at <= as_of]
    days = _days(known)
    measured = [m for i, m in enumerate(MODULES) if (days.n[:, i] > 0).sum() >= _FEWEST_DAYS]
    slopes = days.slopes([MODULES.index(m) for m in measured])
    by_module = dict(zip(measured, slopes, strict=True))
    return {m: _gain(m, known, config, as_of, by_module.get(m)) for m in MODULES}


def gain_history(results: Sequence[WeekResult], config: LearningConfig) -> list[ModuleGain]:
    """The gains as of the end of each week, from what is known of it and earlier ones today."""
    ends = sorted(result.week + WEEK for result in results)
    return [
        gain
        for end in ends
        for gain in gains_of([replace(r, evaluated_at=end) for r in results], config, end).values()
    ]


def combined_gain(prior: float, slope: float, se: float) -> float:
    """The slope (error `se` ≥ 0) combined with the prior ± 0.5, within [0, 1]."""
    loose = _PRIOR_PRECISION * se**2
    return min(max((prior * loose + slope) / (loose + 1.0), 0.0), 1.0)


def _gain(
    module: str,
    known: Sequence[WeekResult],
    config: LearningConfig,
    as_of: datetime,
    measured: tuple[float, float] | None,
) -> ModuleGain:
    used = [r for r in known if r.modules[module].n_matched]
    n_trades = sum(r.modules[module].n_matched for r in used)
    if measured is None:
        return ModuleGain(module, as_of, config.prior_gain, None, None, len(used), n_trades)
    value = combined_gain(config.prior_gain, *measured)
    return ModuleGain(module, as_of, value, *measured, len(used), n_trades)


# --- the regression --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Days:
    """Per closing day: trades with a prediction (days × modules), X'X and X'y."""

    n: Floats
    xx: Floats
    xy: Floats

    def slopes(self, modules: Sequence[int]) -> list[tuple[float, float]]:
        """Slope and error of each of these modules, fitted together."""
        if not modules:
            return []
        xx, xy = self.xx[:, modules][:, :, modules], self.xy[:, modules]
        slope = _solve(xx.sum(axis=0), xy.sum(axis=0))
        without = _solve(xx.sum(axis=0) - xx, xy.sum(axis=0) - xy)
        around = without - without.mean(axis=0)
        se = np.sqrt((1 - 1 / len(xx)) * (around**2).sum(axis=0))
        return list(zip(slope.tolist(), se.tolist(), strict=True))


def _solve(xx: Floats, xy: Floats) -> Floats:
    """Least squares from normal equations; of predictions that coincide each has its share."""
    slope: Floats = (np.linalg.pinv(xx, hermitian=True) @ xy[..., None])[..., 0]
    return slope


def _days(results: Sequence[WeekResult]) -> _Days:
    """The sums by closing day; a day on which trades of several weeks closed is one."""
    place: dict[date, int] = {}
    rows = [
        (place.setdefault(day.day, len(place)), i, day)
        for result in results
        for i, module in enumerate(MODULES)
        for day in result.modules[module].days
    ]
    k = len(MODULES)
    n, xx, xy = (np.zeros((len(place), *shape)) for shape in ((k,), (k, k), (k,)))
    for d, i, day in rows:
        n[d, i] += day.n
        xx[d, i, i] += day.xx
        xx[d, i, 1 - i] += day.xz
        xy[d, i] += day.xy
    return _Days(n, xx, xy)
