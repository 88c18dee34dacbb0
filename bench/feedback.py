"""Does the interval of an applied override's effect cover the truth as often as it says, 90 %?

Trades of one override, a share of them held out, on busy and quiet days with a common shock that
lasts (autocorrelation 0.5). R-multiples as they come: 70 % losers near −1, lognormal wins, mean
0.3 R. The true effect of the multiplier 1.3 is 0.09 R per trade.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from honesty import measured_on
from numpy.typing import NDArray

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.feedback import AppliedAction, Effect, feedback
from learning_assets.core.records import Applied, AppliedOverride, Status

Floats = NDArray[np.float64]

START = datetime(2026, 1, 5, tzinfo=UTC)
CONFIG = LearningConfig()
MEAN_R, MULTIPLIER = 0.3, 1.3
EFFECT_R = MEAN_R * (MULTIPLIER - 1.0)
LESSON = (AppliedOverride("pm.one.S1.flag/entry/*", MULTIPLIER),)
APPLIED = Applied(MULTIPLIER, MULTIPLIER, Status.OK, 1, LESSON)
HELD_OUT = Applied(1.0, MULTIPLIER, Status.HELD_OUT, 1, LESSON)
_LOSERS, _WIN_MU, _WIN_SIGMA = 0.7, 0.9, 0.6
_LASTING = 0.5
_NO_EVENTS: EventTable = from_frame(
    pd.DataFrame(
        columns=[
            *("event_id", "trade_id", "module", "pattern_key", "action_category", "scope", "rr"),
            *("closed_at", "opened_at", "payback_hours", "hold_hours"),
        ]
    )
)


@dataclass(frozen=True, slots=True)
class World:
    """Trades over days, the share that is held out, and the standard deviation of a day (R)."""

    n_trades: int
    n_days: int
    hold_out: float
    shock_r: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often an interval was told and covered the truth (shares), and its mean width (R)."""

    world: World
    told: float
    covered: float
    width_r: float


WORLDS = tuple(
    World(n, days, hold_out, shock)
    for n, days, hold_out in (
        *((30, 20, 0.3), (60, 25, 0.5), (60, 30, 0.1)),
        *((300, 60, 0.1), (300, 120, 0.2), (2000, 150, 0.1)),
    )
    for shock in (0.0, 0.6)
)


def coverage(world: World, draws: int, seed: int) -> Coverage:
    """Simulate a world so many times."""
    rng = np.random.default_rng([seed, world.n_trades, world.n_days, int(10 * world.shock_r)])
    bounds = [(x.low, x.high) for x in (_effect(rng, world) for _ in range(draws))]
    told = [(low, high) for low, high in bounds if low is not None and high is not None]
    covered = sum(low <= EFFECT_R <= high for low, high in told)
    width = float(np.mean([high - low for low, high in told]))
    return Coverage(world, len(told) / draws, covered / len(told), width)


def _effect(rng: np.random.Generator, world: World) -> Effect:
    busy = rng.gamma(0.7, 1.0, world.n_days)
    day = rng.choice(world.n_days, world.n_trades, p=busy / busy.sum())
    rr = world.shock_r * _shocks(rng, world.n_days)[day] + _outcomes(rng, world.n_trades)
    held_out = rng.random(world.n_trades) < world.hold_out
    columns = zip(rr.tolist(), day.tolist(), held_out.tolist(), strict=True)
    actions = [
        AppliedAction(
            *(str(k), r, START + timedelta(days=d), "pm", "entry"), HELD_OUT if held else APPLIED
        )
        for k, (r, d, held) in enumerate(columns)
    ]
    found = feedback(actions, _NO_EVENTS, START + timedelta(days=world.n_days), CONFIG)
    assert found is not None
    return found.overrides[0]


def _shocks(rng: np.random.Generator, n_days: int) -> Floats:
    shock: Floats = rng.standard_normal(n_days)
    for d in range(1, n_days):
        shock[d] = _LASTING * shock[d - 1] + math.sqrt(1.0 - _LASTING**2) * shock[d]
    return shock


def _outcomes(rng: np.random.Generator, n: int) -> Floats:
    losses = -1.0 + 0.15 * rng.standard_normal(n)
    values = np.where(rng.random(n) < _LOSERS, losses, rng.lognormal(_WIN_MU, _WIN_SIGMA, n))
    mean = -_LOSERS + (1.0 - _LOSERS) * math.exp(_WIN_MU + _WIN_SIGMA**2 / 2.0)
    centred: Floats = values - mean + MEAN_R
    return centred


def main() -> None:
    """Simulate all worlds and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="simulations of each world")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [coverage(world, args.draws, args.seed) for world in WORLDS]
    if args.json:
        document = {**measured_on(), "rows": [asdict(row) for row in rows]}
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    print("trades  days  held out  shock (R)   told  covered  width (R)")
    for row in rows:
        w = row.world
        print(
            f"{w.n_trades:6}  {w.n_days:4}  {w.hold_out:8.0%}  {w.shock_r:9.1f}  {row.told:5.2f}"
            f"  {row.covered:7.3f}  {row.width_r:9.2f}"
        )


if __name__ == "__main__":
    main()
