"""What a bot was answered for an action and applied to it, as every source holds it: as JSON.

Such a document is `runtime.Answer.document()`. What cannot be read as one is left out and said, and
the trade is taken in. Where a source keeps it is in the module of the source.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from learning_assets.core.records import APPLIED, Applied, AppliedOverride, Reason, Status
from learning_assets.sources.parse import RowError, counted, is_absent

_MOST_MULTIPLIED = 100.0


def json_object(raw: object, name: str) -> Mapping[str, Any]:
    """The object itself or in JSON text; RowError BAD_PAYLOAD for anything else."""
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise RowError(Reason.BAD_PAYLOAD, f"{name} is no JSON") from None
    if not isinstance(raw, Mapping):
        raise RowError(Reason.BAD_PAYLOAD, f"{name} is {raw!r:.40}, no object")
    return raw


def applied(raw: object) -> Applied | None:
    """What a bot was answered for an action and applied to it: an object, or its JSON text.

    None where it is absent; RowError BAD_PAYLOAD where it is no such answer.
    """
    if is_absent(raw):
        return None
    document = json_object(raw, APPLIED)
    status, multiplier = _status(document.get("status")), _multiplier(document, "multiplier")
    if status is not Status.OK and multiplier != 1.0:
        raise RowError(Reason.BAD_PAYLOAD, f"the status is {status}, yet the size was changed")
    set_id, overrides = document.get("set_id"), document.get("overrides")
    if set_id is not None and type(set_id) is not int:
        raise RowError(Reason.BAD_PAYLOAD, f"set_id is {set_id!r:.40}, no whole number")
    if not isinstance(overrides, list | None):
        raise RowError(Reason.BAD_PAYLOAD, f"overrides is {overrides!r:.40}, no list")
    return Applied(
        multiplier,
        _multiplier(document, "suggested"),
        status,
        set_id,
        tuple(map(_applied_override, overrides or ())),
    )


def _status(raw: object) -> Status:
    try:
        return Status(raw)  # type: ignore[arg-type]  # what is no status is refused
    except ValueError:
        known = ", ".join(Status)
        raise RowError(Reason.BAD_PAYLOAD, f"the status is {raw!r:.40}, not of {known}") from None


def _multiplier(document: Mapping[str, Any], name: str) -> float:
    raw = document.get(name)
    if isinstance(raw, int | float) and not isinstance(raw, bool) and 0 <= raw <= _MOST_MULTIPLIED:
        return float(raw)
    raise RowError(
        Reason.BAD_PAYLOAD, f"{name} is {raw!r:.40}, no number from 0 to {_MOST_MULTIPLIED:g}"
    )


def _applied_override(raw: object) -> AppliedOverride:
    document = json_object(raw, "an override")
    name = document.get("lesson_id")
    if not isinstance(name, str) or not name.strip():
        raise RowError(Reason.BAD_PAYLOAD, f"lesson_id is {name!r:.40}, no name of a lesson")
    return AppliedOverride(name, _multiplier(document, "multiplier"))


@dataclass(slots=True)
class AppliedReader:
    """Reads what bots applied. What cannot be read is left out and counted; its trade stays."""

    n_unread: int = 0
    first: str = ""

    def read(self, raw: object, where: str) -> Applied | None:
        """The answer; None where it is absent or cannot be read. `where` is for a person."""
        try:
            return applied(raw)
        except RowError as error:
            self.refuse(error, where)
            return None

    def refuse(self, error: RowError, where: str) -> None:
        """Count what cannot be read."""
        self.n_unread += 1
        self.first = self.first or f"{where}: {error.detail}"

    def notes(self) -> Iterator[str]:
        """A sentence about what was left out; none where nothing was."""
        if self.n_unread:
            yield (
                f"{APPLIED} of {counted(self.n_unread, 'action')} cannot be read and is left out, "
                f"the trade is taken in; {'' if self.n_unread == 1 else 'the first, '}{self.first}."
            )
