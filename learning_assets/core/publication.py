"""Whether a new set of overrides may go live: is it sound, and does it not change too much at once?

change = (overrides added, dropped, or moved by more than 0.2 or across 1) ÷ (all that either set
has). What an override should be is decided in `core.overrides`, storing is in `store.overrides`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from learning_assets.core.combine import BOUNDS
from learning_assets.core.config import LearningConfig
from learning_assets.core.records import Override, OverrideSet

TICKS_THAT_AGREE = 3
"""Sets in a row that agree with each other, the new one included, and are then believed."""

FEWEST_CHANGES = 3
"""Fewer overrides than this may always change: a share of so few says nothing."""

_MOVED = 0.2
_INTERVALS_TO_EXPIRY = 3


def lasting(config: LearningConfig, interval: timedelta) -> timedelta:
    """How long a set lasts: three intervals between publications, or the hours of the settings."""
    return max(timedelta(hours=config.expiry_hours), _INTERVALS_TO_EXPIRY * interval)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a set: the check that it failed, and a sentence."""

    check: str
    detail: str


def problems(override_set: OverrideSet, expected: Collection[str], now: datetime) -> list[Problem]:
    """What keeps a set from going live, in the order of the checks; empty for a sound one.

    `expected` are the ids of the lessons that must have an override.
    """
    found = [*_out_of_bounds(override_set), *_twice(override_set)]
    if override_set.expires_at <= now:
        found.append(Problem("not_expired", f"it expired at {override_set.expires_at.isoformat()}"))
    missing = set(expected) ^ {o.lesson_id for o in override_set.overrides}
    if missing:
        some = ", ".join(sorted(missing)[:3])
        found.append(Problem("complete", f"{len(missing)} lessons too few or too many: {some}"))
    return found


def _out_of_bounds(override_set: OverrideSet) -> Iterator[Problem]:
    for override in override_set.overrides:
        low, high = BOUNDS[override.group.module]
        numbers = (override.multiplier, override.adjusted_edge_r, override.confidence_score)
        if not all(map(math.isfinite, numbers)) or not low <= override.multiplier <= high:
            detail = f"{override.lesson_id} has the multiplier {override.multiplier:g}"
            yield Problem("in_bounds", f"{detail}, not within {low:g} to {high:g}")


def _twice(override_set: OverrideSet) -> Iterator[Problem]:
    """A lesson with two overrides, or two factors that claim one lesson."""
    count = Counter(o.lesson_id for o in override_set.overrides)
    yield from (Problem("once", f"{name} is there {n} times") for name, n in count.items() if n > 1)
    claimed: dict[str, object] = {}
    for override in override_set.overrides:
        factor = override.parts.get("factor_id")
        for member in override.parts.get("factor_members", ()):
            if claimed.setdefault(member, factor) != factor:
                yield Problem("once", f"{member} is in the factors {claimed[member]} and {factor}")


# --- how much changes ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """What a set changes against another: lesson ids."""

    added: tuple[str, ...]
    dropped: tuple[str, ...]
    moved: tuple[str, ...]
    n_all: int

    @property
    def n(self) -> int:
        """How many overrides change."""
        return len(self.added) + len(self.dropped) + len(self.moved)

    @property
    def share(self) -> float:
        """The share of all overrides of both sets that change; 0 where neither has any."""
        return self.n / self.n_all if self.n_all else 0.0


def change(old: OverrideSet, new: OverrideSet) -> Change:
    """What `new` changes against `old`."""
    before, after = _by_lesson(old), _by_lesson(new)
    both = sorted(before.keys() & after.keys())
    return Change(
        tuple(sorted(after.keys() - before.keys())),
        tuple(sorted(before.keys() - after.keys())),
        tuple(name for name in both if _has_moved(before[name], after[name])),
        len(before.keys() | after.keys()),
    )


def _by_lesson(override_set: OverrideSet) -> Mapping[str, Override]:
    return {override.lesson_id: override for override in override_set.overrides}


def _has_moved(old: Override, new: Override) -> bool:
    crossed = (old.multiplier - 1.0) * (new.multiplier - 1.0) < 0
    return crossed or abs(old.multiplier - new.multiplier) > _MOVED


def why_hold_back(
    new: OverrideSet, live: OverrideSet | None, held: Sequence[OverrideSet], most_changed: float
) -> str:
    """Why a set must wait; empty where it may go live.

    `held` are the sets held back since `live` was published, the newest last. A first set is
    exempt, and one that agrees with those before it is believed at the third tick in a row.
    """
    if live is None or not _is_much(change(live, new), most_changed):
        return ""
    agreeing = 1
    for earlier in reversed(held):
        if _is_much(change(earlier, new), most_changed):
            break
        agreeing += 1
    if agreeing >= TICKS_THAT_AGREE:
        return ""
    changed = change(live, new)
    return (
        f"{changed.n} of {changed.n_all} overrides would change at once "
        f"({len(changed.added)} new, {len(changed.dropped)} gone, {len(changed.moved)} moved), "
        f"more than {most_changed:.0%}: held back until {TICKS_THAT_AGREE} ticks in a row agree "
        f"(this is number {agreeing})"
    )


def _is_much(changed: Change, most: float) -> bool:
    return changed.n >= FEWEST_CHANGES and changed.share > most
