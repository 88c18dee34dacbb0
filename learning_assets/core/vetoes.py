"""What a person has forbidden: overrides that a veto names stay in the set and change nothing.

A vetoed override has the multiplier 1, which adds nothing wherever sets are read, and says in its
parts who forbade what and what it would have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from learning_assets.core.records import Override
from learning_assets.core.scope import ScopeSubset

_PARTS = ("veto", "without_veto")


@dataclass(frozen=True, slots=True)
class Veto:
    """A veto: an override is meant if it is all that is named here.

    `lesson_id` names one override, the pattern (and category) all of it, `scope_subset` those
    whose scope has all these pairs. It counts from `since` until `until` (None for ever).
    """

    veto_id: int
    reason: str
    since: datetime
    until: datetime | None = None
    lesson_id: str | None = None
    pattern_key: str | None = None
    action_category: str | None = None
    scope_subset: ScopeSubset = ()

    def means(self, override: Override) -> bool:
        """Whether the veto is about this override."""
        named = (
            (self.lesson_id, override.lesson_id),
            (self.pattern_key, override.group.pattern_key),
            (self.action_category, override.group.action_category),
        )
        return all(wanted in (None, found) for wanted, found in named) and set(
            self.scope_subset
        ) <= set(override.scope_subset)

    def holds(self, at: datetime) -> bool:
        """Whether the veto is in force at a moment."""
        return self.since <= at and (self.until is None or at < self.until)


def with_vetoes(
    overrides: Iterable[Override], vetoes: Sequence[Veto], at: datetime
) -> tuple[Override, ...]:
    """The overrides with the vetoes that are in force at a moment, and no others."""
    holding = [veto for veto in vetoes if veto.holds(at)]
    return tuple(_with_veto(_without_veto(o), holding) for o in overrides)


def why_vetoed(override: Override) -> str | None:
    """The reason of the veto on an override, None where there is none."""
    veto = override.parts.get("veto")
    return None if veto is None else str(veto["reason"])


def _without_veto(override: Override) -> Override:
    if "veto" not in override.parts:
        return override
    parts = {name: value for name, value in override.parts.items() if name not in _PARTS}
    return replace(override, multiplier=float(override.parts["without_veto"]), parts=parts)


def _with_veto(override: Override, holding: Sequence[Veto]) -> Override:
    veto = next((veto for veto in holding if veto.means(override)), None)
    if veto is None:
        return override
    until = None if veto.until is None else veto.until.isoformat()
    said = {"veto_id": veto.veto_id, "reason": veto.reason, "until": until}
    parts = {**override.parts, "veto": said, "without_veto": override.multiplier}
    return replace(override, multiplier=1.0, parts=parts)
