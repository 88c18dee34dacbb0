"""What `learning run` was asked for; whether it goes together is checked in `cli.run`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from learning_assets.defs.opening import DEMO_BOOK


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    book: str
    trades: Path | None
    risk: float | None
    mapping: Path | None
    force_scope: bool
    source: str | None
    as_of: datetime | None
    force: bool = False
    weeks: int = 0

    @property
    def is_demo(self) -> bool:
        """Whether the simulated market is meant."""
        return self.book == DEMO_BOOK
