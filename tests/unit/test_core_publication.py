"""Whether a set of overrides may go live: soundness, and not too much at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning_assets.core.publication import (
    FEWEST_CHANGES,
    Problem,
    change,
    problems,
    why_hold_back,
)
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HALF = 0.5


def override(name: str, multiplier: float = 1.2, module: str = "pm", **parts: object) -> Override:
    group = GroupKey(module, f"{module}.a.S1.b", "entry" if module == "pm" else "allocation")
    return Override(
        group, (("chain", name),), multiplier, 0.4, 0.99, DecayState.STABLE, None, 100, 0.01, parts
    )


def made(*overrides: Override) -> OverrideSet:
    return OverrideSet(NOW, NOW, NOW + timedelta(hours=6), overrides, {})


def named(names: Sequence[str], multiplier: float = 1.2) -> OverrideSet:
    return made(*(override(name, multiplier) for name in names))


def ids(override_set: OverrideSet) -> list[str]:
    return [o.lesson_id for o in override_set.overrides]


def checks(found: Sequence[Problem]) -> set[str]:
    return {problem.check for problem in found}


def test_a_sound_set_has_no_problems() -> None:
    sound = made(override("a", 3.0), override("b", 0.3), override("c", 1.3, "dm"))
    assert problems(sound, ids(sound), NOW) == []
    assert problems(made(), [], NOW) == []


@pytest.mark.parametrize(
    ("module", "multiplier"),
    [("pm", 3.01), ("pm", 0.29), ("pm", float("nan")), ("dm", 1.31), ("dm", 0.69)],
)
def test_a_multiplier_out_of_bounds(module: str, multiplier: float) -> None:
    bad = made(override("a", multiplier, module))
    assert checks(problems(bad, ids(bad), NOW)) == {"in_bounds"}


def test_an_expired_set_a_double_and_an_incomplete_one() -> None:
    one = named("ab")
    assert checks(problems(one, ids(one), one.expires_at)) == {"not_expired"}
    double = named("aa")
    assert checks(problems(double, ids(double), NOW)) == {"once"}
    assert checks(problems(one, [*ids(one), "more"], NOW)) == {"complete"}
    assert checks(problems(one, ids(one)[:1], NOW)) == {"complete"}


def test_a_lesson_that_two_factors_claim() -> None:
    a, b = override("a"), override("b")
    members = [a.lesson_id, b.lesson_id]
    first = replace(a, parts={"factor_id": "lf_1", "factor_members": members})
    same = made(first, replace(b, parts={"factor_id": "lf_1", "factor_members": members}))
    other = made(first, replace(b, parts={"factor_id": "lf_2", "factor_members": members}))
    assert problems(same, ids(same), NOW) == []
    assert checks(problems(other, ids(other), NOW)) == {"once"}


def test_what_changes() -> None:
    old = made(override("a"), override("b"), override("c", 1.05), override("d"))
    new = made(override("a", 1.35), override("b", 1.45), override("c", 0.95), override("e"))
    found = change(old, new)
    assert [len(part) for part in (found.added, found.dropped, found.moved)] == [1, 1, 2]
    assert (found.n, found.n_all, found.share) == (4, 5, 0.8)


def test_a_first_set_and_a_small_change_go_live() -> None:
    old = named("abcdefgh")
    assert why_hold_back(named("ijkl"), None, [], HALF) == ""
    assert why_hold_back(named("abcdefgi"), old, [], HALF) == ""
    assert why_hold_back(named("cd"), named("ab"), [], HALF) != ""
    assert why_hold_back(named("b"), named("a"), [], HALF) == ""
    assert FEWEST_CHANGES == 3


def test_much_at_once_waits_for_three_ticks_in_a_row() -> None:
    old, new = named("abcdef"), named("ghijkl")
    assert "12 of 12" in why_hold_back(new, old, [], HALF)
    assert "number 2" in why_hold_back(new, old, [new], HALF)
    assert why_hold_back(new, old, [new, new], HALF) == ""
    assert "number 1" in why_hold_back(new, old, [new, new, named("mnopqr")], HALF)
    assert "number 2" in why_hold_back(new, old, [new, named("mnopqr"), new], HALF)


def test_nothing_at_all_is_much_too() -> None:
    assert "6 gone" in why_hold_back(made(), named("abcdef"), [], HALF)


names = st.sets(st.sampled_from("abcdefghij")).map(sorted)


@given(names, names)
def test_a_change_is_the_same_both_ways_and_nothing_for_itself(
    one: list[str], other: list[str]
) -> None:
    there, back = change(named(one), named(other)), change(named(other), named(one))
    assert (there.n, there.n_all, there.added) == (back.n, back.n_all, back.dropped)
    assert change(named(one), named(one)).n == 0
    assert 0.0 <= there.share <= 1.0
