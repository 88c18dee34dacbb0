from __future__ import annotations

import pytest

from learning_assets.core.comparison import (
    NOT_FOUND,
    Agreement,
    OlderLesson,
    OlderOverride,
    compare_lessons,
    compare_overrides,
)
from learning_assets.core.records import (
    DecayState,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    Override,
    SliceStats,
)
from learning_assets.core.scope import ScopeSubset

ENTRY = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
SOLANA: ScopeSubset = (("chain", "solana"),)
MICRO: ScopeSubset = (("chain", "solana"), ("mcap_bucket", "micro"))


def _older(scope: ScopeSubset, n: int | None = 50, group: GroupKey = ENTRY) -> OlderLesson:
    return OlderLesson(group, scope, n, 0.1, {}, None, None, None, "active")


def _ours(scope: ScopeSubset, joint: float | None = None, *aliases: ScopeSubset) -> Lesson:
    return Lesson(
        ENTRY,
        scope,
        LessonStatus.ACTIVE if joint is not None else LessonStatus.REDUNDANT,
        SliceStats(120, 0.5, 1.0, 0.4, 0.1, 4.0, 0.0, 0.0, 4.0, 3.0),
        Multipliers(1, 1, 1, 1, None, None, 0, None),
        0.3,
        joint,
        aliases=aliases,
        explained_by=() if joint is not None else ("pm.a/entry/*",),
    )


def _override(scope: ScopeSubset, multiplier: float) -> Override:
    return Override(ENTRY, scope, multiplier, 0.1, 0.9, DecayState.STABLE, None, 50, 0.01)


def test_a_lesson_is_found_by_its_slice() -> None:
    [found] = compare_lessons([_older(SOLANA)], [_ours(SOLANA, 0.25)])
    assert (found.found, found.n, found.edge_r) == ("active", 120, 0.25)


def test_a_lesson_without_a_joint_edge_shows_its_own() -> None:
    [found] = compare_lessons([_older(SOLANA)], [_ours(SOLANA)])
    assert (found.found, found.edge_r) == ("redundant", 0.4)
    assert found.explained_by == ("pm.a/entry/*",)


def test_another_name_of_the_same_trades_is_the_same_slice() -> None:
    [found] = compare_lessons([_older(MICRO)], [_ours(SOLANA, 0.25, MICRO)])
    assert found.found == "active"


def test_a_lesson_of_that_very_slice_comes_before_an_alias() -> None:
    ours = [_ours(MICRO), _ours(SOLANA, 0.25, MICRO)]
    [found] = compare_lessons([_older(MICRO)], ours)
    assert found.found == "redundant"


@pytest.mark.parametrize(
    "older", [_older(MICRO), _older(SOLANA, group=ENTRY._replace(action_category="exit"))]
)
def test_another_scope_or_group_is_not_found(older: OlderLesson) -> None:
    [found] = compare_lessons([older], [_ours(SOLANA, 0.25)])
    assert (found.found, found.n, found.edge_r) == (NOT_FOUND, None, None)


def test_lessons_of_most_trades_come_first() -> None:
    found = compare_lessons([_older((), None), _older(SOLANA, 3), _older(MICRO, 9)], [])
    assert [c.older.n for c in found] == [9, 3, None]


@pytest.mark.parametrize(
    ("older", "ours", "expected"),
    [
        (1.4, 1.2, Agreement.SAME),
        (0.6, 0.9, Agreement.SAME),
        (1.4, 0.9, Agreement.OPPOSITE),
        (1.4, 1.0, Agreement.ONLY_OLDER),
        (None, 1.2, Agreement.ONLY_OURS),
        (1.0, 0.8, Agreement.ONLY_OURS),
        (None, 1.0, Agreement.NEITHER),
    ],
)
def test_directions_are_compared(older: float | None, ours: float, expected: Agreement) -> None:
    [found] = compare_overrides([OlderOverride(ENTRY, SOLANA, older)], [_override(SOLANA, ours)])
    assert found.agreement is expected
    assert found.ours == pytest.approx(ours)


def test_all_of_ours_that_match_the_older_scope_add_up() -> None:
    ours = [_override((), 1.1), _override(SOLANA, 1.2), _override((("chain", "base"),), 2.0)]
    [found] = compare_overrides([OlderOverride(ENTRY, MICRO, 1.5)], ours)
    assert found.ours == pytest.approx(1.3)


def test_overrides_that_are_widest_apart_come_first() -> None:
    older = [
        OlderOverride(ENTRY, scope, m) for scope, m in (((), 1.1), (SOLANA, 3.0), (MICRO, None))
    ]
    assert [c.older.multiplier for c in compare_overrides(older, [])] == [3.0, 1.1, None]
