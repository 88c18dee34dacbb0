"""What a set changes and why, and what a veto does to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from learning_assets.core.changes import (
    Changed,
    Reason,
    Why,
    because,
    changes,
    counted_reasons,
)
from learning_assets.core.records import DecayState, GroupKey, Override
from learning_assets.core.scope import subset
from learning_assets.core.vetoes import Veto, why_vetoed, with_vetoes

NOW = datetime(2026, 3, 2, tzinfo=UTC)
PARTS = {
    "joint_edge_r": 0.5, "remaining_share": 1.0, "share": 1.0, "regime_factor": 1.0,
    "gain": 0.8, "size_scale": 1.0,
}  # fmt: skip


def made(pattern: str = "pm.a.b", scope: dict[str, str] | None = None, **parts: Any) -> Override:
    known = {**PARTS, **parts}
    product = 1.0
    for value in known.values():
        product *= value
    return Override(
        GroupKey("pm", pattern, "entry"), subset(scope or {}), 1.0 + product, product, 0.99,
        DecayState.STABLE, None, 1200, 0.01, known,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("moved", "why"),
    [
        ({"joint_edge_r": 0.6}, Why.LEARNED_AGAIN),
        ({"remaining_share": 0.7}, Why.DECAYED),
        ({"remaining_share": 0.7, "gain": 0.85}, Why.DECAYED),
        ({"remaining_share": 0.95, "regime_factor": 1.4}, Why.REGIME),
        ({"share": 0.5}, Why.FACTOR),
        ({"gain": 0.4}, Why.GAIN),
        ({"size_scale": 0.9}, Why.SCALE),
        ({"joint_edge_r": -0.5, "gain": 0.1}, Why.LEARNED_AGAIN),
        ({"gain": 0.0, "joint_edge_r": 0.9}, Why.GAIN),
    ],
)
def test_the_part_that_moved_most_is_the_reason(moved: dict[str, float], why: Why) -> None:
    [change] = changes([made()], [made(**moved)])
    assert change.why == why
    assert (change.old, change.new) == (pytest.approx(1.4), made(**moved).multiplier)
    assert change.detail.count("→") == len(moved)
    assert changes([made()], [made()]) == ()


def test_an_edge_that_wears_out_more_slowly_than_thought() -> None:
    [change] = changes([made(remaining_share=0.5)], [made(remaining_share=0.8)])
    assert (change.why, change.detail) == (Why.LESS_DECAYED, "left of it 0.50 → 0.80")


def test_new_back_and_gone() -> None:
    old = [made("pm.gone.x"), made("pm.lost.x")]
    new = [made("pm.new.x"), made("pm.back.x", gain=0.2)]
    reason = Reason(Why.REGIME, "it counts half")
    found = changes(old, new, {"pm.gone.x/entry/*": reason}, {"pm.back.x/entry/*"})
    by_name = {c.lesson_id: (c.old is None, c.new is None, c.why, c.detail) for c in found}
    assert by_name == {
        "pm.gone.x/entry/*": (False, True, Why.REGIME, "it counts half"),
        "pm.lost.x/entry/*": (False, True, Why.GONE, "the other set has none for it"),
        "pm.new.x/entry/*": (True, False, Why.NEW_LESSON, "+0.40 R in 1,200 trades"),
        "pm.back.x/entry/*": (True, False, Why.BACK, "again +0.10 R in 1,200 trades"),
    }
    assert [c.size for c in found] == pytest.approx([0.4, 0.4, 0.4, 0.1])
    assert counted_reasons(found).startswith("1 × ")
    assert counted_reasons(()) == "nothing"
    again = because(found, Reason(Why.GONE_BACK, "to set 3, by a person"))
    assert counted_reasons(again) == "4 × gone back to an earlier set"
    assert [c.lesson_id for c in again] == [c.lesson_id for c in found]


def test_a_vetoed_override_stays_and_changes_nothing() -> None:
    plain, other = made(scope={"chain": "sol"}), made("pm.a.c")
    veto = Veto(7, "too thin", NOW, NOW + timedelta(days=1), scope_subset=(("chain", "sol"),))
    held, kept = with_vetoes([plain, other], [veto], NOW)
    assert (held.multiplier, why_vetoed(held)) == (1.0, "too thin")
    assert held.parts["without_veto"] == plain.multiplier
    assert held.adjusted_edge_r == plain.adjusted_edge_r
    assert kept == other
    assert with_vetoes([held], [veto], NOW) == (held,)
    for vetoes, at in (([], NOW), ([veto], NOW + timedelta(days=1)), ([veto], NOW - timedelta(1))):
        assert with_vetoes([held], vetoes, at) == (plain,)


def test_a_veto_is_a_reason_and_its_end_is_too() -> None:
    veto = Veto(1, "no", NOW, lesson_id="pm.a.b/entry/*")
    plain = made()
    [held] = with_vetoes([plain], [veto], NOW)
    [change] = changes([plain], [held])
    assert (change.new, change.why, change.detail) == (1.0, Why.VETOED, "no")
    [change] = changes([held], [plain])
    assert (change.old, change.why, change.detail) == (1.0, Why.VETO_ENDED, "no")
    [change] = changes([], [held])
    assert (change.why, change.detail) == (Why.VETOED, "no")
    other = replace(held, parts={**held.parts, "joint_edge_r": 0.9, "without_veto": 1.7})
    assert changes([held], [other]) == ()


@pytest.mark.parametrize(
    ("named", "is_meant"),
    [
        ({"pattern_key": "pm.a.b"}, True),
        ({"pattern_key": "pm.a.b", "action_category": "add"}, False),
        ({"pattern_key": "pm.a"}, False),
        ({"scope_subset": (("chain", "sol"), ("tf", "1h"))}, True),
        ({"scope_subset": (("chain", "base"),)}, False),
        ({"lesson_id": "pm.a.b/entry/chain=sol|mood=up|tf=1h"}, True),
        ({"lesson_id": "pm.a.b/entry/chain=sol"}, False),
    ],
)
def test_what_a_veto_means(named: dict[str, Any], is_meant: bool) -> None:
    override = made(scope={"tf": "1h", "chain": "sol", "mood": "up"})
    assert Veto(1, "no", NOW, **named).means(override) is is_meant


def test_a_change_of_nothing_is_none() -> None:
    assert Changed("x", None, 1.0, Why.NEW_LESSON, "").size == 0.0
