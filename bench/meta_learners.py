"""What the meta-learners know, measured against what was planted: the parts of `quality`.

`half_lives` (error and coverage), `factors` (adjusted Rand index by case), `weights` (on which side
of 1, and the squared error of what they adjust) and `ablation` (each learner switched off in turn);
each is a bench of its own, of which this runs one size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import ablation
import factor_cases
import half_life
import regime_weights
from honesty import measured_on, seeds_of

Part = Mapping[str, Sequence[Mapping[str, object]]]
"""Rows, one for each market, and their summary."""


def half_lives_part(seeds: Sequence[int]) -> Part:
    """A row for each seed and planted half-life: 20 slices each."""
    rows, summary = [], []
    for hours in half_life.HALF_LIVES_HOURS:
        found = {seed: half_life.fits(hours, 1, seed) for seed in seeds}
        rows += [{"seed": s, **asdict(half_life.planted_row(hours, f))} for s, f in found.items()]
        every = [fit for fits in found.values() for fit in fits]
        summary.append(asdict(half_life.planted_row(hours, every)))
    return {"summary": summary, "rows": rows}


def factors_part(seeds: Sequence[int]) -> Part:
    """A row for each seed and case."""
    rows = [factor_cases.factor_row(case, seed) for case in factor_cases.CASES for seed in seeds]
    return {"summary": factor_cases.summary_of(rows), "rows": [asdict(row) for row in rows]}


def weights_part(seeds: Sequence[int]) -> Part:
    """A row for each seed and kind of world."""
    rows = [
        regime_weights.judge(regime_weights.learn(regime_weights.World(seed, kind)))
        for kind in regime_weights.KINDS
        for seed in seeds
    ]
    summary = [
        {"kind": kind, **regime_weights.summary_of([row for row in rows if row.kind == kind])}
        for kind in regime_weights.KINDS
    ]
    return {"summary": summary, "rows": [asdict(row) for row in rows]}


def ablation_part(seeds: Sequence[int]) -> Part:
    """A row for each seed, kind of market and learner."""
    return ablation.measured(ablation.MARKETS, ablation.GAIN_MARKETS, seeds)


PARTS: Mapping[str, Callable[[Sequence[int]], Part]] = {
    "half_lives": half_lives_part,
    "factors": factors_part,
    "weights": weights_part,
    "ablation": ablation_part,
}


def main() -> None:
    """Run the chosen parts and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-3"), help="A-B")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    args = parser.parse_args()
    parts = {name: PARTS[name](args.seeds) for name in args.parts}
    print(json.dumps({**measured_on(), "parts": parts}, indent=2, allow_nan=False))


if __name__ == "__main__":
    main()
