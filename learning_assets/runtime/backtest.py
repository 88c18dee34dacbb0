"""The sets of their time for a backtest, from those that `learning replay` made.

A set must not be tried on the trades that it was learned from: what it says of them is what it saw.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from learning_assets.core.records import GroupKey, Status
from learning_assets.runtime.sets import Answer, LiveSet, answered, unusable

Applying = Callable[[Answer, str | None], Answer]
"""Makes of an answer what is to be applied to a trade of that id."""

_DAY = timedelta(days=1)


class InSampleError(ValueError):
    """A backtest asks for sets that would have been learned from its own trades."""


class Backtest:
    """Answers with the set that would have been live at a time. Made by `OverrideBook.backtest`."""

    def __init__(
        self, replays: Sequence[LiveSet], in_sample: LiveSet | None, applied: Applying
    ) -> None:
        self._replays, self._in_sample, self._applied = replays, in_sample, applied
        self._starts = [one.live_from for one in replays]

    def lookup(
        self,
        pattern_key: str,
        action_category: str,
        scope: Mapping[str, object],
        at: datetime,
        module: str = "pm",
        trade_id: str | None = None,
    ) -> Answer:
        """As `OverrideBook.lookup` at a time (with a time zone). Never raises."""
        try:
            group = GroupKey(module, pattern_key, action_category)
            return self._applied(self._at(group, scope, at), trade_id)
        except Exception as error:  # noqa: BLE001  # as in the bot's own path
            return unusable(error)

    def _at(self, group: GroupKey, scope: Mapping[str, object], at: datetime) -> Answer:
        if self._in_sample is not None:
            known = self._in_sample
            why = f"in sample: set {known.set_id} was learned as of {_date(known.as_of)}"
            return answered(known, group, scope, known.published_at, why)
        place = bisect_right(self._starts, at) - 1
        found = self._replays[place] if place >= 0 else None
        if found is None or found.live_to is None or at >= found.live_to:
            reason = f"no replay was made for {at.isoformat()}"
            return Answer(1.0, 1.0, Status.NO_OVERRIDES, reason)
        return answered(found, group, scope, at)


def check_covered(replays: Sequence[LiveSet], since: datetime, until: datetime) -> None:
    """Nothing, where every moment from `since` to `until` has a set that was learned before it.

    Raises:
        InSampleError: where one has none; the message says which and what to do.
    """
    covered = since
    for one in replays:
        if one.live_from > covered:
            break
        covered = max(covered, one.live_to or until)
    if covered < until:
        raise InSampleError(
            f"no set that was learned before {covered.astimezone(UTC):%Y-%m-%d %H:%M} UTC is there "
            "for the trades from then on, and one that was learned later has seen them: make the "
            f"sets of their time with `learning replay --from {_date(since)} --to "
            f"{_date(until + _DAY)}`"
        )


def _date(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"
