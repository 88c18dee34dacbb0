"""One small market with a fixed seed, learned to the digit: `golden_market.json` beside this file.

A difference is either a mistake or a decision. After a decision, write the file anew and read
the difference before keeping it:

    .venv/bin/python tests/unit/test_core_golden.py
"""

from __future__ import annotations

import json
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import from_frame
from learning_assets.core.learn import ModuleLearning, learn_module
from learning_assets.core.overrides import build_overrides
from learning_assets.core.records import Lesson, LessonStatus, Override
from learning_assets.core.scope import signature
from learning_assets.sources.demo import MarketSettings, simulate

GOLDEN = Path(__file__).with_name("golden_market.json")
MARKET = MarketSettings(
    seed=9, n_trades=1500, n_dims=5, n_regime_dims=2, n_patterns=2, n_effects=4, n_dm_effects=1,
    min_support=60, noise_sd=0.6, span_days=90, effect_range_r=(0.5, 0.9),
)  # fmt: skip
CONFIG = LearningConfig(
    rotations=39, family_wise_error=0.03, winsor=0.01, max_redundant=10, max_candidates=10
)
COMPARED = ("active", "redundant", "candidate")


@lru_cache
def result() -> dict[str, Any]:
    """Everything that is compared, as JSON."""
    events, as_of = from_frame(simulate(MARKET).frame()), MARKET.end
    learned = [learn_module(events, module, CONFIG, as_of) for module in ("pm", "dm")]
    lessons = [lesson for learning in learned for lesson in learning.lessons]
    made = build_overrides(lessons, events, CONFIG, as_of, as_of, timedelta(hours=1))
    return {
        "modules": {learning.module: _module(learning) for learning in learned},
        "lessons": {lesson.lesson_id: _lesson(lesson) for lesson in lessons},
        "overrides": {o.lesson_id: _override(o) for o in made.overrides},
        "expected": dict(made.expected),
    }


def _module(learning: ModuleLearning) -> dict[str, Any]:
    limit = learning.detection_limit
    return {
        "n_trades": learning.n_trades,
        "slices_tested": learning.slices_tested,
        "redundant_total": learning.redundant_total,
        "detection_limit": None if limit is None else [limit.edge_r, limit.n],
        "day_shocks": {
            "/".join(c.group): [c.noise_variance, c.day_variance, c.day_autocorrelation]
            for c in learning.calibrations
        },
    }


def _lesson(lesson: Lesson) -> dict[str, Any]:
    s, m = lesson.stats, lesson.multipliers
    return {
        "status": str(lesson.status),
        "n": s.n,
        "stats": [s.avg_rr, s.variance, s.delta_rr, s.se, s.p_value, s.q_value],
        "evidence": [s.evidence, s.cutoff],
        "multipliers": [m.time, m.field, m.recurrence, m.variance],
        "edge_raw": lesson.edge_raw,
        "joint": [lesson.joint_edge_r, lesson.joint_se_r],
        "aliases": [signature(a) for a in lesson.aliases],
        "explained_by": list(lesson.explained_by),
    }


def _override(o: Override) -> dict[str, Any]:
    return {
        "multiplier": o.multiplier,
        "adjusted_edge_r": o.adjusted_edge_r,
        "confidence_score": o.confidence_score,
        "n": o.n,
    }


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested JSON as one level of path → leaf."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, part in items for k, v in flat(part, f"{name} {key}").items()}
    return {name: value}


def test_the_small_market_is_learned_as_before() -> None:
    expected, got = flat(json.loads(GOLDEN.read_text(encoding="utf-8"))), flat(result())
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        exact = not isinstance(value, float)
        assert got[name] == (value if exact else pytest.approx(value, rel=1e-5, abs=1e-12)), name


def test_the_golden_market_holds_something_to_compare() -> None:
    statuses = [lesson["status"] for lesson in result()["lessons"].values()]
    assert all(statuses.count(LessonStatus(status)) >= 2 for status in COMPARED)
    assert {o.partition(".")[0] for o in result()["overrides"]} == {"pm", "dm"}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(result(), indent=1) + "\n", encoding="utf-8")
