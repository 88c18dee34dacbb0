"""What the meta-learners are worth: half-lives, factors, and each switched off in turn.

`half_life` is the bench of that name. `factors`: slices that are noisy copies of planted causes;
adjusted Rand index (Hubert & Arabie 1985) of the factors found, and the share of their ids that
stay when 10 % of the trades change. `ablation`: markets in which what a learner measures is
planted, and others in which it is not, with the learner and without.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import half_life
import numpy as np
import pandas as pd
from honesty import CONFIG, seeds_of
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from learning_assets.core.adjust import MetaResults
from learning_assets.core.events import EventTable, from_frame
from learning_assets.core.factors import Factor, latent_factors
from learning_assets.core.learn import learn_module
from learning_assets.core.meta import meta_results
from learning_assets.core.mining import group_of
from learning_assets.core.overrides import build_overrides
from learning_assets.core.records import GroupKey, Lesson, Override
from learning_assets.sources.demo import MarketSettings, simulate

Floats = NDArray[np.float64]

CAUSES, COPIES, TRADES = 12, 4, 4000
CAUSE_SHARE, CHANGED_SHARE = 0.15, 0.1
MISSES = (0.05, 0.1, 0.12)
"""Share of a cause's trades that a copy misses: pairs of copies overlap by 0.82, 0.69, 0.64."""
TEST_DAYS = 28
GROUP = GroupKey("pm", "pm.planted.S1.x", "entry")
ECHO = "pm.echo.S1.x"


# --- factors ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FactorRow:
    """Factors of planted causes: the adjusted Rand index (at most 1), the share of ids kept."""

    seed: int
    missed_share: float
    factors: int
    causes: int
    adjusted_rand: float
    ids_kept: float


def factor_row(seed: int, missed_share: float) -> FactorRow:
    """Factors of noisy copies of causes, before and after 10 % of the trades have changed."""
    rng = np.random.default_rng([seed, round(1000 * missed_share)])
    inside = copies(rng, missed_share)
    lessons = [_lesson(k) for k in range(len(inside))]
    before = latent_factors(_events(inside), lessons)
    changed = rng.choice(TRADES, round(CHANGED_SHARE * TRADES), replace=False)
    inside[:, changed] = copies(rng, missed_share)[:, changed]
    after = latent_factors(_events(inside), lessons, previous=before, known=lessons)
    labels = _labels(before, lessons)
    planted = np.repeat(np.arange(CAUSES), COPIES)
    kept = {f.factor_id for f in before} & {f.factor_id for f in after}
    return FactorRow(
        seed,
        missed_share,
        len(before),
        CAUSES,
        float(adjusted_rand_score(planted, labels)),
        len(kept) / len(before),
    )


def copies(rng: np.random.Generator, missed_share: float) -> NDArray[np.bool_]:
    """Slices × trades: each copy misses some trades of its cause and has as many others."""
    cause = np.repeat(rng.random((CAUSES, TRADES)) < CAUSE_SHARE, COPIES, axis=0)
    strange = CAUSE_SHARE * missed_share / (1 - CAUSE_SHARE)
    chance = np.where(cause, 1 - missed_share, strange)
    inside: NDArray[np.bool_] = rng.random(chance.shape) < chance
    return inside


def _lesson(k: int) -> Lesson:
    return replace(half_life.lesson(GROUP), scope_subset=((f"d{k:02d}", "yes"),))


def _events(inside: NDArray[np.bool_]) -> EventTable:
    slices, n = inside.shape
    hours = np.arange(n, dtype="timedelta64[h]").astype("timedelta64[us]")
    closed = np.datetime64("2026-01-05", "us") + hours
    unknown, index = np.full(n, np.nan), np.arange(n)
    return EventTable(
        index.astype(object), closed, closed, np.zeros(n), unknown, unknown, index,
        np.zeros(n, np.int64), (GROUP,), tuple(f"d{k:02d}" for k in range(slices)),
        (("yes",),) * slices, inside.astype(np.int32),
    )  # fmt: skip


def _labels(factors: Sequence[Factor], lessons: Sequence[Lesson]) -> list[str]:
    factor_of = {name: f.factor_id for f in factors for name in f.member_ids}
    return [factor_of[lesson.lesson_id] for lesson in lessons]


# --- each learner switched off ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """Overrides against the truth of the next four weeks.

    `rmse_r` of the predicted edge (both without their mean, R), `calibration_slope` of the true
    edge on it (None for a constant prediction).
    """

    rmse_r: float
    calibration_slope: float | None
    overrides: int


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One market: with all learners, and without the one that is asked about."""

    learner: str
    planted: bool
    seed: int
    on: Judged
    off: Judged


Without = Callable[[MetaResults], MetaResults]


@dataclass(frozen=True, slots=True)
class Ablation:
    """A learner: what it is without, and the markets in which its effect is planted or not."""

    without: Without
    settings: Mapping[bool, Mapping[str, object]]
    echo: bool = False


ABLATIONS: Mapping[str, Ablation] = {
    "half_lives": Ablation(
        lambda meta: replace(meta, half_lives=None),
        {True: {"n_patterns": 1, "share_decaying": 1.0}, False: {"n_patterns": 1}},
    ),
    "factors": Ablation(
        lambda meta: replace(meta, factors=None),
        {True: {"n_patterns": 1}, False: {"n_patterns": 2}},
        echo=True,
    ),
}


def ablation_row(learner: str, planted: bool, seed: int) -> AblationRow:
    """Learn one market, and publish with the learner and without it."""
    ablation = ABLATIONS[learner]
    settings = _market(seed, ablation.settings[planted])
    market = simulate(settings)
    frame = market.frame()
    events = from_frame(_with_echo(frame) if ablation.echo and planted else frame)
    as_of = settings.start + timedelta(days=settings.span_days / 2)
    known = events.window(as_of, CONFIG.look_back_days)
    after = events.window(as_of + timedelta(days=TEST_DAYS), TEST_DAYS)
    truth = np.array([market.truth.expected_rr[t] for t in after.trade_ids])
    lessons = learn_module(known, "pm", CONFIG, as_of).lessons
    meta = meta_results(lessons, known, CONFIG, as_of)
    on, off = (
        _judged(_published(lessons, known, as_of, m), after, truth)
        for m in (meta, ablation.without(meta))
    )
    return AblationRow(learner, planted, seed, on, off)


def _market(seed: int, changes: Mapping[str, object]) -> MarketSettings:
    base = MarketSettings(
        seed=seed,
        n_trades=12_000,
        span_days=360,
        n_patterns=1,
        categories=("entry",),
        allocation_share=0.0,
        n_dm_effects=0,
        share_decaying=0.0,
        min_support=300,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # mypy cannot type ** of a mapping


def _with_echo(frame: pd.DataFrame) -> pd.DataFrame:
    """Every entry fires a second pattern in the same scope: one cause, learned twice."""
    echo = frame.assign(pattern_key=ECHO, event_id=frame["event_id"] + "-echo")
    return pd.concat([frame, echo], ignore_index=True)


def _published(
    lessons: Sequence[Lesson], events: EventTable, as_of: datetime, meta: MetaResults
) -> Sequence[Override]:
    hour = timedelta(hours=1)
    return build_overrides(lessons, events, CONFIG, as_of, as_of, hour, meta=meta).overrides


def _judged(overrides: Sequence[Override], events: EventTable, truth: Floats) -> Judged:
    prediction = predicted(overrides, events)
    x, y = prediction - prediction.mean(), truth - truth.mean()
    slope = float(x @ y / (x @ x)) if np.ptp(x) > 0 else None
    return Judged(math.sqrt(float(np.square(y - x).mean())), slope, len(overrides))


def predicted(overrides: Sequence[Override], events: EventTable) -> Floats:
    """Sum of the adjusted edges (R) of the overrides that match a trade's actions."""
    total = np.zeros(events.n_trades)
    for override in overrides:
        group = group_of(events, override.group)
        total[group.trades[group.members(override.scope_subset)]] += override.adjusted_edge_r
    return total


def ablation_summary(rows: Sequence[AblationRow]) -> list[dict[str, object]]:
    """Medians over the seeds, by learner and whether its effect is planted."""
    kinds = sorted({(row.learner, row.planted) for row in rows})
    return [
        {
            "learner": learner,
            "planted": planted,
            **{
                f"{name}_{side}": statistics.median(
                    getattr(getattr(row, side), name) or 0.0
                    for row in rows
                    if (row.learner, row.planted) == (learner, planted)
                )
                for name in ("rmse_r", "calibration_slope", "overrides")
                for side in ("on", "off")
            },
        }
        for learner, planted in kinds
    ]


# --- parts -----------------------------------------------------------------------------------


def half_lives_part(seeds: Sequence[int]) -> list[dict[str, object]]:
    """Error and coverage of planted half-lives, one run per seed's markets."""
    return [
        asdict(half_life.planted(hours, len(seeds), seeds[0]))
        for hours in half_life.HALF_LIVES_HOURS
    ]


def factors_part(seeds: Sequence[int]) -> list[dict[str, object]]:
    """A row for each seed and overlap."""
    return [asdict(factor_row(seed, missed)) for missed in MISSES for seed in seeds]


def ablation_part(seeds: Sequence[int]) -> list[dict[str, object]]:
    """Medians with and without each learner."""
    rows = [
        ablation_row(learner, planted, seed)
        for learner in ABLATIONS
        for planted in (True, False)
        for seed in seeds
    ]
    return ablation_summary(rows)


PARTS: Mapping[str, Callable[[Sequence[int]], list[dict[str, object]]]] = {
    "half_lives": half_lives_part,
    "factors": factors_part,
    "ablation": ablation_part,
}


def main() -> None:
    """Run the chosen parts and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-3"), help="A-B")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    args = parser.parse_args()
    print(json.dumps({name: PARTS[name](args.seeds) for name in args.parts}, indent=2))


if __name__ == "__main__":
    main()
