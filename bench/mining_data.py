"""Trades of any number for the benches of speed, made as columns: no object per trade.

One pattern and category over 180 days, in the dimensions of the simulated market
(`learning_assets.sources.demo`): 13 categorical ones whose values are skewed, and 15 regime
states that all trades share and that last, macro for weeks, meso for days, micro for hours.
Outcomes are skewed and have a daily shock; effects may be planted. What a market with a known
truth, several patterns and wear should look like is in `demo`: this one is for its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning_assets.core.events import EventTable
from learning_assets.core.records import GroupKey
from learning_assets.core.scope import ScopeSubset, subset
from learning_assets.sources.demo import DIMENSIONS, REGIME_DIMENSIONS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GROUP = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
START = datetime(2026, 1, 5, tzinfo=UTC)
SPAN_DAYS = 180
END = START + timedelta(days=SPAN_DAYS)
"""Every trade closed before it."""

STATES = ("S0", "S1", "S2", "S3")
REGIME_HOURS = {"macro": 21 * 24.0, "meso": 3 * 24.0, "micro": 5.0}
"""How long a state lasts on average."""

_OWN_OF_ACTION = ("A_mode", "E_mode")  # the other categorical dimensions are the trade's
_SKEW = (0.8, 1.8)  # the k-th most common value has weight k^-skew, the skew between these
_HOUR = np.timedelta64(1, "h")
_BEFORE_HOURS = 240  # trades that close at the start of the span have opened earlier
_MEDIAN_HOLD_HOURS, _MOST_HOLD_HOURS, _HOLD_SIGMA = 10.0, 200.0, 1.0
_NIGHT, _DAY_SHARE, _SHOCK_PHI = 0.3, 0.05, 0.9
_LOSERS, _WIN_SIGMA, _EFFECT_R = 0.7, 0.6, 0.6
# Streams of random numbers, so that more of one thing does not change another.
_TIMES, _OUTCOMES, _OPENED, _EFFECTS, _FIRST_DIM = range(5)


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of what: `trades` with `actions` each in `dims` (2–28) of the dimensions.

    `effects` of them are planted (see `planted`); the rest of the outcome is noise. The same
    seed gives the same trades with fewer or more dimensions or effects.
    """

    trades: int
    actions: int = 1
    dims: int = 28
    effects: int = 0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Effect:
    """What a trade earns more (R) when its first action has this scope."""

    scope_subset: ScopeSubset
    effect_r: float


def names(shape: Shape) -> tuple[str, ...]:
    """The dimensions in alphabetical order: categorical ones and regime states as they come."""
    known = sorted((*DIMENSIONS, *REGIME_DIMENSIONS))
    at = np.linspace(0, len(known) - 1, shape.dims).round().astype(int)
    return tuple(known[k] for k in at)


def values_of(dim: str) -> tuple[str, ...]:
    """The values of a dimension in alphabetical order."""
    return STATES if dim in REGIME_DIMENSIONS else tuple(sorted(DIMENSIONS[dim]))


def events_of(shape: Shape) -> EventTable:
    """The trades of a shape, in closing order, each with its actions."""
    closed, opened = _times(shape)
    at = _action_hours(shape, closed, opened)
    codes = np.stack([_codes(shape, dim, at) for dim in names(shape)])
    n_actions = shape.trades * shape.actions
    return EventTable(
        _ids(shape.trades),
        _stamps(closed),
        _stamps(opened),
        _outcomes(shape, closed, codes),
        0.5 * (closed - opened),
        closed - opened,
        np.repeat(np.arange(shape.trades), shape.actions),
        np.zeros(n_actions, np.int64),
        (GROUP,),
        names(shape),
        tuple(values_of(dim) for dim in names(shape)),
        codes,
    )


def _ids(n: int) -> Any:
    return np.arange(n).astype(np.dtypes.StringDType())


def _stamps(hours: Floats) -> NDArray[np.datetime64]:
    start = np.datetime64(START.replace(tzinfo=None), "us")
    return start + (hours * 3.6e9).astype(np.int64).astype("timedelta64[us]")


def _rng(shape: Shape, stream: int) -> np.random.Generator:
    return np.random.default_rng([shape.seed, stream])


def _times(shape: Shape) -> tuple[Floats, Floats]:
    """Closing (ascending) and opening of each trade, in hours from the start of the span."""
    rng = _rng(shape, _TIMES)
    hour = np.arange(SPAN_DAYS * 24)
    weight = _NIGHT + 1.0 + np.sin(2 * np.pi * (hour % 24 - 9) / 24)
    at = np.searchsorted(np.cumsum(weight / weight.sum()), rng.random(shape.trades))
    closed = np.sort(np.minimum(at, hour[-1]) + rng.random(shape.trades))
    hold = _MEDIAN_HOLD_HOURS * rng.lognormal(0.0, _HOLD_SIGMA, shape.trades)
    return closed, closed - np.minimum(hold, _MOST_HOLD_HOURS)


def _action_hours(shape: Shape, closed: Floats, opened: Floats) -> Floats:
    """When each action (trades · actions) fired: the first opens the trade."""
    share = np.sort(_rng(shape, _OPENED).random((shape.trades, shape.actions)), axis=1)
    share[:, 0] = 0.0
    at: Floats = (opened[:, None] + share * (closed - opened)[:, None]).reshape(-1)
    return at


def _codes(shape: Shape, dim: str, at: Floats) -> NDArray[np.int32]:
    """The value of each action, from 1."""
    rng = _rng(shape, _FIRST_DIM + sorted((*DIMENSIONS, *REGIME_DIMENSIONS)).index(dim))
    if dim in REGIME_DIMENSIONS:
        hour = np.floor(at).astype(np.int64) + _BEFORE_HOURS
        return regime(rng, REGIME_HOURS[dim.rpartition("_")[2]])[hour]
    weight = np.arange(1.0, len(values_of(dim)) + 1) ** -rng.uniform(*_SKEW)
    order = rng.permutation(len(weight))
    repeats = 1 if dim in _OWN_OF_ACTION else shape.actions
    drawn = rng.random(len(at) // repeats)
    rank = np.searchsorted(np.cumsum(weight / weight.sum())[:-1], drawn)
    return np.repeat(order[rank] + 1, repeats).astype(np.int32)


def regime(rng: np.random.Generator, lasts_hours: float) -> NDArray[np.int32]:
    """The state (1–4) of each hour from 240 before the span to its end."""
    hours = _BEFORE_HOURS + SPAN_DAYS * 24
    changes = rng.random(hours) < 1.0 / lasts_hours
    steps = changes * rng.integers(1, len(STATES), hours)
    return (np.cumsum(steps) % len(STATES) + 1).astype(np.int32)


def planted(shape: Shape) -> tuple[Effect, ...]:
    """The effects of a shape, on pairs of a categorical value and a regime state."""
    rng = _rng(shape, _EFFECTS)
    kinds = [[d for d in names(shape) if (d in DIMENSIONS) == own] for own in (True, False)]
    effects = []
    for k in range(shape.effects):
        dims = [kind[int(rng.integers(len(kind)))] for kind in kinds]
        pairs = [(d, values_of(d)[int(rng.integers(len(values_of(d))))]) for d in dims]
        effects.append(Effect(subset(pairs), _EFFECT_R if k % 2 == 0 else -_EFFECT_R))
    return tuple(effects)


def _outcomes(shape: Shape, closed: Floats, codes: NDArray[np.int32]) -> Floats:
    """R of each trade: losers near −1, lognormal wins, the day's shock and what is planted."""
    rng = _rng(shape, _OUTCOMES)
    shock = _shocks(rng)
    loser = rng.random(shape.trades) < _LOSERS
    loss = np.minimum(rng.normal(-1.0, 0.1, shape.trades), 0.0)
    win = 2.0 * rng.lognormal(0.0, _WIN_SIGMA, shape.trades)
    rr = np.where(loser, loss, win) + shock[(closed // 24).astype(np.int64)]
    first, dims = codes[:, :: shape.actions], names(shape)
    for effect in planted(shape):
        inside = np.ones(shape.trades, dtype=bool)
        for dim, value in effect.scope_subset:
            inside &= first[dims.index(dim)] == values_of(dim).index(value) + 1
        rr += effect.effect_r * inside
    return np.clip(rr, -33.0, 33.0)


def _shocks(rng: np.random.Generator) -> Floats:
    """The common shock (R) of each day, a first-order autoregression."""
    steps = rng.normal(0.0, np.sqrt(1 - _SHOCK_PHI**2), SPAN_DAYS)
    steps[0] /= np.sqrt(1 - _SHOCK_PHI**2)
    lags = np.subtract.outer(np.arange(SPAN_DAYS), np.arange(SPAN_DAYS))
    kernel = np.where(lags >= 0, _SHOCK_PHI ** np.maximum(lags, 0), 0.0)
    spread = np.sqrt(_DAY_SHARE / (1 - _DAY_SHARE)) * _noise_sd()
    shocks: Floats = spread * (kernel @ steps)
    return shocks


def _noise_sd() -> float:
    """Standard deviation (R) of an outcome without shock and effects."""
    mean_win = 2.0 * np.exp(_WIN_SIGMA**2 / 2)
    square_win = 4.0 * np.exp(2 * _WIN_SIGMA**2)
    mean = (1 - _LOSERS) * mean_win - _LOSERS
    return float(np.sqrt((1 - _LOSERS) * square_win + _LOSERS * 1.01 - mean**2))
