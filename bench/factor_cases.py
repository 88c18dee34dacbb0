"""Are latent factors the planted causes, and do their ids stay? From easy cases to hard ones.

A cause is a set of trades; a copy of it misses a share of them and has as many others, a bridge
takes each trade from one of two causes at random. Judged are the adjusted Rand index of the factors
against the causes (Hubert & Arabie 1985; bridges belong to nobody and do not count) and what stays
of the ids when 10 % of the trades are others and the evidence of every lesson is another.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import half_life
import numpy as np
from honesty import measured_on, seeds_of
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from learning_assets.core.events import EventTable
from learning_assets.core.factors import Factor, latent_factors
from learning_assets.core.records import GroupKey, Lesson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Range = tuple[float, float]

PAIRS, TRADES = 6, 4000
CHANGED_SHARE = 0.1
ENOUGH = 0.85
GROUP = GroupKey("pm", "pm.planted.S1.x", "entry")
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Case:
    """Six pairs of causes and what is learned of them; ranges are drawn from evenly, shares 0–1.

    `missed` of a cause's trades by a copy (one number per copy), `share` of all trades that are in
    a cause (one per pair, evenly on a log scale), `between` the overlap of the two causes of a
    pair (0: independent), `copies` of each cause, lessons `alone` besides, and one bridge per pair
    if `bridged`.
    """

    missed: Range = (0.1, 0.1)
    share: Range = (0.15, 0.15)
    between: Range = (0.0, 0.0)
    copies: tuple[int, int] = (4, 4)
    alone: int = 0
    bridged: bool = False


def _missing(share: float) -> Case:
    return Case(missed=(share, share))


CASES: Mapping[str, Case] = {
    "copies that overlap by 0.82": _missing(0.05),
    "by 0.68": _missing(0.1),
    "by 0.64": _missing(0.12),
    "by 0.61": _missing(0.13),
    "by 0.59, under the cut": _missing(0.14),
    "by 0.57, under the cut": _missing(0.15),
    "causes that overlap by 0.2-0.5": Case(between=(0.2, 0.5)),
    "unequal causes, 2-30 % of the trades": Case(share=(0.02, 0.3)),
    "1-6 copies, and 24 lessons alone": Case(copies=(1, 6), alone=24),
    "a bridge between causes that overlap by 0.45": Case(
        missed=(0.05, 0.05), between=(0.45, 0.45), bridged=True
    ),
    "33-60 trades": Case(share=(33 / TRADES, 60 / TRADES)),
    "all of it": Case((0.05, 0.13), (33 / TRADES, 0.3), (0.0, 0.5), (1, 6), 24, bridged=True),
}


@dataclass(frozen=True, slots=True)
class Planned:
    """A case with its numbers drawn: per slice its cause (a number, `NOBODY` for a bridge).

    `share` and `between` are per pair, `missed` per slice.
    """

    share: Floats
    between: Floats
    cause: Ints
    missed: Floats
    bridges: int
    alone: Floats

    @classmethod
    def of(cls, case: Case, rng: np.random.Generator) -> Planned:
        """Draw the numbers of a case."""
        copies = rng.integers(case.copies[0], case.copies[1] + 1, 2 * PAIRS)
        cause = np.repeat(np.arange(2 * PAIRS), copies)
        return cls(
            _log_uniform(rng, case.share, PAIRS),
            rng.uniform(*case.between, PAIRS),
            cause,
            rng.uniform(*case.missed, len(cause)),
            PAIRS if case.bridged else 0,
            _log_uniform(rng, case.share, case.alone),
        )

    @property
    def labels(self) -> Ints:
        """The cause of every slice: copies, bridges, then those alone, each its own."""
        alone = 2 * PAIRS + np.arange(len(self.alone))
        return np.concatenate([self.cause, np.full(self.bridges, NOBODY), alone])

    def draw(self, rng: np.random.Generator) -> Mask:
        """Slices × trades: which trades are in which slice."""
        causes = self._causes(rng)
        mine = causes[self.cause]
        share = np.repeat(self.share, 2)[self.cause]
        strange = share * self.missed / (1 - share)
        copies = rng.random(mine.shape) < np.where(mine, 1 - self.missed[:, None], strange[:, None])
        first, second = causes[0 : 2 * self.bridges : 2], causes[1 : 2 * self.bridges : 2]
        bridges = np.where(rng.random(first.shape) < 0.5, first, second)
        alone = rng.random((len(self.alone), TRADES)) < self.alone[:, None]
        return np.concatenate([copies, bridges, alone])

    def _causes(self, rng: np.random.Generator) -> Mask:
        """Both causes of every pair have its share of the trades, and overlap as planned."""
        share, common = self.share[:, None], 2 * self.between / (1 + self.between)
        common = np.where(self.between > 0, common, self.share)[:, None]
        first = rng.random((PAIRS, TRADES)) < share
        chance = np.where(first, common, share * (1 - common) / (1 - share))
        second = rng.random((PAIRS, TRADES)) < chance
        return np.stack([first, second], axis=1).reshape(2 * PAIRS, TRADES)


def _log_uniform(rng: np.random.Generator, between: Range, n: int) -> Floats:
    low, high = between
    return np.exp(rng.uniform(math.log(low), math.log(high), n))


@dataclass(frozen=True, slots=True)
class FactorRow:
    """One draw of a case: what the factors are worth, and what stays after the change.

    `overlap` is the median of the copies of one cause with each other, `ids_kept` the share of
    the lessons of factors with several that are then in a factor of the same id, None where there
    is no such factor.
    """

    case: str
    seed: int
    overlap: float
    causes: int
    factors: int
    adjusted_rand: float
    ids_kept: float | None


def factor_row(case: str, seed: int) -> FactorRow:
    """The factors of one draw, before and after 10 % of the trades have changed."""
    planned = Planned.of(CASES[case], np.random.default_rng([seed, 1]))
    rng = np.random.default_rng([seed, 2])
    inside, labels = planned.draw(rng), planned.labels
    before = _factors(inside, rng, ())
    overlap = _median_overlap(inside, labels)
    changed = rng.choice(TRADES, round(CHANGED_SHARE * TRADES), replace=False)
    names = [_name(f"d{k:03d}") for k in range(len(inside))]
    found = _factor_of(before)
    counted = labels != NOBODY
    inside[:, changed] = planned.draw(rng)[:, changed]
    return FactorRow(
        case,
        seed,
        overlap,
        len(set(labels[counted].tolist())),
        len(before),
        float(adjusted_rand_score(labels[counted], [found[n] for n in np.array(names)[counted]])),
        _kept(before, _factor_of(_factors(inside, rng, before))),
    )


def _factors(
    inside: Mask, rng: np.random.Generator, previous: Sequence[Factor]
) -> tuple[Factor, ...]:
    lessons = [_lesson(k, z) for k, z in enumerate(rng.uniform(3, 9, len(inside)).tolist())]
    return latent_factors(_events(inside), lessons, previous=previous, known=lessons)


def _lesson(k: int, evidence: float) -> Lesson:
    plain = half_life.lesson(GROUP)
    stats = replace(plain.stats, evidence=evidence)
    return replace(plain, scope_subset=((f"d{k:03d}", "yes"),), stats=stats)


def _name(dim: str) -> str:
    return replace(half_life.lesson(GROUP), scope_subset=((dim, "yes"),)).lesson_id


def _events(inside: Mask) -> EventTable:
    slices, n = inside.shape
    hours = np.arange(n, dtype="timedelta64[h]").astype("timedelta64[us]")
    closed = np.datetime64("2026-01-05", "us") + hours
    unknown, index = np.full(n, np.nan), np.arange(n)
    return EventTable(
        index.astype(object), closed, closed, np.zeros(n), unknown, unknown, index,
        np.zeros(n, np.int64), (GROUP,), tuple(f"d{k:03d}" for k in range(slices)),
        (("yes",),) * slices, inside.astype(np.int32),
    )  # fmt: skip


def _factor_of(factors: Sequence[Factor]) -> dict[str, str]:
    return {name: f.factor_id for f in factors for name in f.member_ids}


def _median_overlap(inside: Mask, labels: Ints) -> float:
    overlaps = [
        (inside[i] & inside[j]).sum() / (inside[i] | inside[j]).sum()
        for i in range(len(labels))
        for j in range(i)
        if labels[i] == labels[j] != NOBODY
    ]
    return float(statistics.median(overlaps))


def _kept(before: Sequence[Factor], after: Mapping[str, str]) -> float | None:
    several = [(f.factor_id, name) for f in before if len(f.members) > 1 for name in f.member_ids]
    same = Counter(after.get(name) == factor_id for factor_id, name in several)
    return same[True] / len(several) if several else None


def summary_of(rows: Sequence[FactorRow]) -> list[dict[str, object]]:
    """A line for each case: means over the seeds, the least index, and how many are enough."""
    lines: list[dict[str, object]] = []
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        index = [row.adjusted_rand for row in mine]
        kept = [row.ids_kept for row in mine if row.ids_kept is not None]
        lines.append(
            {
                "case": case,
                "draws": len(mine),
                "overlap": statistics.fmean(row.overlap for row in mine),
                "adjusted_rand": statistics.fmean(index),
                "least": min(index),
                "enough_share": sum(i >= ENOUGH for i in index) / len(index),
                "ids_kept": statistics.fmean(kept) if kept else None,
            }
        )
    return lines


def main() -> None:
    """Run all cases and print a line for each, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("831-850"), help="A-B")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [factor_row(case, seed) for case in CASES for seed in args.seeds]
    summary = summary_of(rows)
    if args.json:
        found = {"summary": summary, "rows": [asdict(row) for row in rows]}
        print(json.dumps({**measured_on(), **found}, indent=2))
    else:
        for line in summary:
            print(line)


if __name__ == "__main__":
    main()
