"""A set of overrides, indexed for look-up, and what a look-up answers.

The overrides of a group are a tree: below each node the dimensions that come next, and below each
of these the values. A look-up goes down where the scope has the value, so that what does not match
costs nothing but the dimensions that it shares with what does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern
from typing import Any, NamedTuple

from learning_assets.core.combine import BOUNDS, combine
from learning_assets.core.records import GroupKey, Status, lesson_id
from learning_assets.core.scope import ScopeSubset, normalise_value, subset


class Matched(NamedTuple):
    """An override that matched; `veto` is why a person forbade it, and then it changes nothing."""

    lesson_id: str
    scope_subset: ScopeSubset
    multiplier: float
    veto: str | None = None

    @property
    def part(self) -> float:
        """Multiplier − 1: what it adds to 1, before the bounds."""
        return self.multiplier - 1.0


class Answer(NamedTuple):
    """What to multiply a size by, and why.

    `multiplier` is to be applied. `suggested` is what the overrides say, which is another number
    in shadow mode and for a trade that is held out. The set is None where none is known.
    """

    multiplier: float
    suggested: float
    status: Status
    reason: str
    matched: tuple[Matched, ...] = ()
    set_id: int | None = None
    published_at: datetime | None = None
    expires_at: datetime | None = None

    def document(self) -> dict[str, Any]:
        """What is kept with a trade, as JSON: what was applied and which overrides said so.

        Vetoed ones said nothing.
        """
        return {
            "multiplier": self.multiplier,
            "suggested": self.suggested,
            "status": self.status.value,
            "reason": self.reason,
            "set_id": self.set_id,
            "overrides": [
                {"lesson_id": matched.lesson_id, "multiplier": matched.multiplier}
                for matched in self.matched
                if matched.veto is None
            ],
        }


class _Node(NamedTuple):
    """Overrides whose pairs are all gone through, and which dimensions may come next.

    For each dimension its value and what is below, or None and what is below by value. Flat
    tuples, so that a look-up among thousands of groups touches little memory.
    """

    here: tuple[tuple[int, Matched], ...]
    dims: tuple[str, ...]
    values: tuple[str | None, ...]
    below: tuple[Any, ...]


class _Growing:
    """A node while the overrides come in."""

    def __init__(self) -> None:
        self.here: list[tuple[int, Matched]] = []
        self.later: dict[str, dict[str, _Growing]] = {}

    def frozen(self) -> _Node:
        values: list[str | None] = []
        below: list[Any] = []
        for by_value in self.later.values():
            grown = {value: node.frozen() for value, node in by_value.items()}
            is_one = len(grown) == 1
            values.append(next(iter(grown)) if is_one else None)
            below.append(next(iter(grown.values())) if is_one else grown)
        return _Node(tuple(self.here), tuple(self.later), tuple(values), tuple(below))


@dataclass(frozen=True, slots=True)
class LiveSet:
    """A set: when it was live (`live_to` None for ever), and its overrides by group.

    A replay was never live; it counts from its as_of until it expires.
    """

    set_id: int
    as_of: datetime
    live_from: datetime
    live_to: datetime | None
    published_at: datetime
    expires_at: datetime
    groups: Mapping[GroupKey, _Node]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> LiveSet:
        """The set of a row of `pm_override_sets`, or of a file.

        Raises:
            ValueError: where something is missing or is no number, time or scope, or a
                multiplier is out of its bounds; the message says what.
        """
        try:
            is_replay = document.get("replay", False) is True
            live_to = document["expires_at"] if is_replay else document.get("live_to")
            return cls(
                int(document["set_id"]),
                _time(document["as_of"]),
                _time(document["as_of" if is_replay else "live_from"]),
                None if live_to is None else _time(live_to),
                _time(document["published_at"]),
                _time(document["expires_at"]),
                _indexed(document["overrides"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def matched(self, group: GroupKey, scope: Mapping[str, object]) -> tuple[Matched, ...]:
        """The overrides of a group whose scope is part of `scope`, in the order of the set."""
        root = self.groups.get(group)
        if root is None:
            return ()
        found: list[tuple[int, Matched]] = []
        _descend(root, scope, found)
        if len(found) > 1:
            found.sort(key=_position)
        return tuple(matched for _, matched in found)


def _descend(node: _Node, scope: Mapping[str, object], found: list[tuple[int, Matched]]) -> None:
    here, dims, values, below = node
    found += here
    for dim, value, then in zip(dims, values, below, strict=True):
        given = scope.get(dim)
        given = _text(given) if type(given) is str else _canonical(given)
        if value is None:
            then = then.get(given)
        elif given != value:
            continue
        if then is not None:
            _descend(then, scope, found)


@lru_cache(65536)
def _text(value: str) -> str | None:
    return normalise_value(value)


def _canonical(value: object) -> str | None:
    """The text of a scope value; None for a list, an object or anything else that is none."""
    if hasattr(value, "item"):
        value = value.item()  # a number of numpy
    return normalise_value(value) if isinstance(value, (str, int, float)) else None


def _position(item: tuple[int, Matched]) -> int:
    return item[0]


def _indexed(overrides: Iterable[Mapping[str, Any]]) -> dict[GroupKey, _Node]:
    groups: dict[GroupKey, _Growing] = {}
    for position, (group, matched) in enumerate(map(_override, overrides)):
        node = groups.setdefault(group, _Growing())
        for dim, value in matched.scope_subset:
            node = node.later.setdefault(dim, {}).setdefault(value, _Growing())
        node.here.append((position, matched))
    return {group: grown.frozen() for group, grown in groups.items()}


def _override(document: Mapping[str, Any]) -> tuple[GroupKey, Matched]:
    group = GroupKey(*document["group"])
    pairs = tuple((intern(d), intern(v)) for d, v in subset(document["scope_subset"]))
    name = lesson_id(group, pairs)
    if any(normalise_value(value) != value for _, value in pairs):
        raise ValueError(f"the scope of {name} is not normalised")
    if group.module not in BOUNDS:
        raise ValueError(f"{name} is of the module {group.module}")
    multiplier = float(document["multiplier"])
    low, high = BOUNDS[group.module]
    if not low <= multiplier <= high:
        raise ValueError(f"{name} has the multiplier {multiplier:g}")
    return group, Matched(name, pairs, multiplier, _veto(document))


def _veto(document: Mapping[str, Any]) -> str | None:
    veto = (document.get("parts") or {}).get("veto")
    return None if veto is None else str(veto["reason"])


def _time(value: object) -> datetime:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ValueError(f"{value!r} is no time with a time zone")
    return time.astimezone(UTC)


def answered(
    live: LiveSet, group: GroupKey, scope: Mapping[str, object], now: datetime, problem: str = ""
) -> Answer:
    """The answer of a set at a moment; `problem` is why it may not be the newest."""
    about = live.set_id, live.published_at, live.expires_at
    if live.expires_at <= now:
        why = f"set {live.set_id} expired at {live.expires_at:%Y-%m-%d %H:%M} UTC"
        return Answer(1.0, 1.0, Status.STALE, f"{why}; {problem}" if problem else why, (), *about)
    matched = live.matched(group, scope)
    if not matched:
        return Answer(1.0, 1.0, Status.NO_MATCH, problem, (), *about)
    multiplier = combine(group[0], (m.multiplier for m in matched))
    return Answer(multiplier, multiplier, Status.OK, problem, matched, *about)


def unusable(error: Exception) -> Answer:
    """The answer to a question that makes no sense."""
    why = f"the question cannot be used ({type(error).__name__}: {error})"
    return Answer(1.0, 1.0, Status.NO_MATCH, why)


def live_at(sets: Iterable[LiveSet], at: datetime) -> LiveSet | None:
    """The set that was live at a moment."""
    found: Iterator[LiveSet] = (
        s for s in sets if s.live_from <= at and (s.live_to is None or at < s.live_to)
    )
    return next(found, None)
