"""What a new set of overrides changes against the one before, and why.

The multiplier of an override is 1 + the product of its parts, so the part whose size changed most
is the reason of a change. Why a lesson has no override any more is said by `core.adjust.why_gone`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from learning_assets.core.records import Override
from learning_assets.core.vetoes import why_vetoed

LEAST_CHANGE = 0.0005
"""Multipliers that differ by less look the same in print, and are taken for the same."""

_LEAST_RATIO = 0.005


class Why(StrEnum):
    """Why a multiplier is another one."""

    NEW_LESSON = "new lesson"
    BACK = "back again"
    LEARNED_AGAIN = "learned again"
    DECAYED = "decayed"
    LESS_DECAYED = "decays more slowly"
    REGIME = "regime changed"
    FACTOR = "factor changed"
    GAIN = "gain changed"
    SCALE = "total size kept in bounds"
    DEPRECATED = "deprecated"
    GONE = "gone"
    VETOED = "vetoed"
    VETO_ENDED = "veto ended"
    GONE_BACK = "gone back to an earlier set"


class Reason(NamedTuple):
    """Why, in one of the words and in a sentence."""

    why: Why
    detail: str


@dataclass(frozen=True, slots=True)
class Changed:
    """An override whose multiplier is another one; None where there is none."""

    lesson_id: str
    old: float | None
    new: float | None
    why: str
    detail: str

    @property
    def size(self) -> float:
        """How far the size of a trade moves; no override counts as 1."""
        return abs(
            (1.0 if self.new is None else self.new) - (1.0 if self.old is None else self.old)
        )


def changes(
    old: Iterable[Override],
    new: Iterable[Override],
    gone: Mapping[str, Reason] | None = None,
    seen_before: Collection[str] = (),
) -> tuple[Changed, ...]:
    """What is different in `new`, the largest change first.

    `gone` says why a lesson may have no override any more, `seen_before` which lessons had one
    before the old set.
    """
    before = {o.lesson_id: o for o in old}
    after = {o.lesson_id: o for o in new}
    found = [
        _changed(name, before.get(name), after.get(name), gone or {}, seen_before)
        for name in sorted(before.keys() | after.keys())
    ]
    return tuple(sorted((c for c in found if c is not None), key=lambda c: -c.size))


def because(found: Sequence[Changed], reason: Reason) -> tuple[Changed, ...]:
    """The same changes, all for one reason."""
    return tuple(Changed(c.lesson_id, c.old, c.new, *reason) for c in found)


def counted_reasons(found: Sequence[Changed]) -> str:
    """How many changed for which reason: `2 × new lesson, 1 × decayed`, or `nothing`."""
    counted = Counter(str(c.why) for c in found).most_common()
    return ", ".join(f"{n} × {why}" for why, n in counted) or "nothing"


def _changed(
    name: str,
    old: Override | None,
    new: Override | None,
    gone: Mapping[str, Reason],
    seen_before: Collection[str],
) -> Changed | None:
    if new is None:
        assert old is not None
        unknown = Reason(Why.GONE, "the other set has none for it")
        return Changed(name, old.multiplier, None, *gone.get(name, unknown))
    if old is None:
        return Changed(name, None, new.multiplier, *_why_new(new, name in seen_before))
    if (vetoes := (why_vetoed(old), why_vetoed(new))) != (None, None):
        return _vetoed(name, old, new, *vetoes)
    if abs(old.multiplier - new.multiplier) < LEAST_CHANGE:
        return None
    return Changed(name, old.multiplier, new.multiplier, *_why_moved(old, new))


def _why_new(new: Override, was_seen: bool) -> Reason:
    reason = why_vetoed(new)
    if reason is not None:
        return Reason(Why.VETOED, reason)
    found = f"{new.adjusted_edge_r:+.2f} R in {new.n:,} trades"
    return Reason(Why.BACK, f"again {found}") if was_seen else Reason(Why.NEW_LESSON, found)


def _vetoed(
    name: str, old: Override, new: Override, before: str | None, now: str | None
) -> Changed | None:
    if before == now:
        return None
    reason = Reason(Why.VETO_ENDED, before or "") if now is None else Reason(Why.VETOED, now)
    return Changed(name, old.multiplier, new.multiplier, *reason)


# --- which part moved ------------------------------------------------------------------------

_PARTS = {
    "joint_edge_r": ("edge", Why.LEARNED_AGAIN, Why.LEARNED_AGAIN),
    "remaining_share": ("left of it", Why.DECAYED, Why.LESS_DECAYED),
    "share": ("share of its factor", Why.FACTOR, Why.FACTOR),
    "regime_factor": ("regime factor", Why.REGIME, Why.REGIME),
    "gain": ("gain", Why.GAIN, Why.GAIN),
    "size_scale": ("scale", Why.SCALE, Why.SCALE),
}
"""Part → its name, and why a multiplier moved where it fell and where it rose."""


def _why_moved(old: Override, new: Override) -> Reason:
    """The part that moved most, by the logarithm of its ratio, and all that moved."""
    moved = [
        (_ratio(float(old.parts[name]), float(new.parts[name])), name)
        for name in _PARTS
        if name in old.parts and name in new.parts
    ]
    large = sorted((m for m in moved if abs(m[0]) >= _LEAST_RATIO), key=lambda m: -abs(m[0]))
    if not large:
        return Reason(Why.LEARNED_AGAIN, f"×{old.multiplier:.3f} → ×{new.multiplier:.3f}")
    ratio, first = large[0]
    _, fell, rose = _PARTS[first]
    detail = ", ".join(
        f"{_PARTS[name][0]} {old.parts[name]:.2f} → {new.parts[name]:.2f}" for _, name in large
    )
    return Reason(fell if ratio < 0 else rose, detail)


def _ratio(old: float, new: float) -> float:
    """log |new ÷ old|; infinite where one is zero or the sign is another."""
    if old == new:
        return 0.0
    if old * new <= 0.0:
        return math.inf if abs(new) > abs(old) else -math.inf
    return math.log(new / old)
