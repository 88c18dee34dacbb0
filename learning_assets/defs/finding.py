"""What a look at a book came to, for `learning doctor`. No Dagster here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a look came to; `failed` needs a person, `skipped` was not judged."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    check: str
    state: State
    detail: str
