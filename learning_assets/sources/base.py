"""What every source offers: closed trades by closing day, and what a run should say about it.

Reading a particular format is in the module of that format.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from learning_assets.core.records import ClosedTrade, RegimeReading, RejectedRow


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What a source holds, for the summary of a run.

    `days` are the UTC days on which usable trades closed, in order (for a source without any:
    empty). `notes` are sentences that a person should read (which risk was used, time zones,
    the same entry taken by several variants, …).
    """

    kind: str
    location: str
    n_trades: int
    n_rejected: int
    days: Sequence[date]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed in a source since an earlier look: the closing days (UTC) to take in again.

    `seen` is what to give the next time, in place of `since`.
    """

    seen: str
    days: Sequence[date]


class Source(Protocol):
    """A source of closed trades. Reading has no side effects and may be repeated."""

    @property
    def is_live(self) -> bool:
        """Whether trades keep coming: then as_of is now, else the midnight after the last close."""
        ...

    def summary(self) -> SourceSummary:
        """What the source holds.

        Raises:
            UserError: when the source cannot be read at all.
        """
        ...

    def read(self, first: date, last: date) -> Iterator[ClosedTrade | RejectedRow]:
        """Trades and rejected rows that closed on the UTC days first … last, both included.

        A row whose closing time is unknown belongs to every window: it must not get lost.
        """
        ...

    def regime(self) -> RegimeReading | None:
        """The newest regime reading of the source, None where it keeps none."""
        ...

    def changes(self, since: str | None) -> Changes:
        """What was committed after the look that gave `since`; None means everything.

        Nothing that is committed later is missed, whatever its timestamps say. It may name days
        without a change, never leave out one with a change.

        Raises:
            UserError: when the source cannot be read.
        """
        ...
