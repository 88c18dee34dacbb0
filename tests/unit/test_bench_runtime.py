"""The bench of the bot's look-ups: what it asks, and what it says of a set."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import runtime


def test_a_row_is_of_the_set_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LOOKUPS", 200)
    [row, larger] = runtime.rows_of([runtime.Case(100), runtime.Case(300)])
    assert (larger["overrides"], larger["groups"]) == (300, 30)
    assert (row["overrides"], row["groups"]) == (100, 10)
    assert 0 < row["p50_us"] <= row["p99_us"]
    assert 0 < row["matches"] <= row["most_matches"] <= 3


def test_the_worst_case_has_all_overrides_in_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LOOKUPS", 20)
    [row] = runtime.rows_of([runtime.Case(500, 500, None)])
    assert row["groups"] == 1
    assert row["most_matches"] > 3


def test_overrides_are_each_of_another_scope_and_the_scopes_have_all_dimensions() -> None:
    rng = random.Random(1)
    made = runtime.overrides_of(rng, 300, 10)
    names = {(tuple(o["group"]), tuple(sorted(o["scope_subset"].items()))) for o in made}
    assert len(names) == 300
    assert len({tuple(o["group"]) for o in made}) == 30
    assert len(runtime.scope_of(rng)) == 28
