"""The overrides as a bot sees them: looked up in memory, refreshed in the background."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from learning_assets.core.records import GroupKey, Status
from learning_assets.runtime.backtest import Backtest, InSampleError, check_covered
from learning_assets.runtime.sets import Answer, LiveSet, answered, live_at, unusable
from learning_assets.runtime.source import Database, File, Source, UnavailableError

REFRESH_SECONDS = 20.0
_REMEMBERED = 64  # past sets
_FIRST_SECONDS = 5.0  # that whoever makes a book waits for the first reading
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _State:
    """What is known now. It is replaced whole, so that an answer never mixes two sets."""

    live: LiveSet | None = None
    problem: str = ""


class OverrideBook:
    """Answers what to multiply a size by. Safe for threads; look-ups do no input or output.

    The live set is read when the book is made (which waits for it five seconds at most) and then
    every `refresh_seconds` by a thread of its own. Where it cannot be read, the last good set
    counts until it expires, and the reason is in every answer. In `shadow` mode all sizes stay as
    they are, and `suggested` tells what would have been. `hold_out` is the share (0–1) of trades,
    by a hash of their id, whose sizes stay as they are, so that the effect of the overrides can be
    told from the rest.

    Raises:
        ValueError: for a share outside 0 to 1, or a time to refresh that is not above 0.
    """

    def __init__(
        self,
        source: Source,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        shadow: bool = False,
        hold_out: float = 0.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not 0.0 <= hold_out <= 1.0:
            raise ValueError(f"hold_out is a share from 0 to 1, not {hold_out}")
        if not refresh_seconds > 0:
            raise ValueError(f"refresh_seconds is above 0, not {refresh_seconds}")
        self._source, self._clock = source, clock
        self._shadow, self._hold_out = shadow, hold_out
        self._state = _State()
        self._past: tuple[LiveSet, ...] = ()
        self._reading = threading.Lock()
        self._closed, first = threading.Event(), threading.Event()
        threading.Thread(
            target=self._keep_fresh, args=(refresh_seconds, first), name="overrides", daemon=True
        ).start()
        first.wait(_FIRST_SECONDS)

    @classmethod
    def from_database(
        cls,
        url: str,
        *,
        schema: str = "learning",
        refresh_seconds: float = REFRESH_SECONDS,
        shadow: bool = False,
        hold_out: float = 0.0,
    ) -> OverrideBook:
        """The book behind a PostgreSQL address; `schema` is `learning`, or `learning_<book>`.

        Raises:
            ValueError: for an address that is none. A server that is away is no error.
        """
        source = Database(url, schema)
        return cls(source, refresh_seconds=refresh_seconds, shadow=shadow, hold_out=hold_out)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        shadow: bool = False,
        hold_out: float = 0.0,
    ) -> OverrideBook:
        """The book of a file from `learning overrides --export`, which may be replaced any time.

        A file that is absent or damaged is no error.
        """
        source = File(Path(path))
        return cls(source, refresh_seconds=refresh_seconds, shadow=shadow, hold_out=hold_out)

    def lookup(
        self,
        pattern_key: str,
        action_category: str,
        scope: Mapping[str, object],
        module: str = "pm",
        at: datetime | None = None,
        trade_id: str | None = None,
    ) -> Answer:
        """The multiplier for an action in a scope; 1.0 with the reason where there is none.

        With `at` (with a time zone) the set that was live then answers, as of then: the first
        time in each set that reads the source, so in asyncio call it in a thread. `trade_id` is
        what the hold-out goes by. Never raises.
        """
        try:
            group = GroupKey(module, pattern_key, action_category)
            answer = self._now(group, scope) if at is None else self._at(group, scope, at)
            return self._applied(answer, trade_id)
        except Exception as error:  # noqa: BLE001  # a bot goes on whatever it asks
            return unusable(error)

    def backtest(self, since: datetime, until: datetime, *, force: bool = False) -> Backtest:
        """Look-ups with the sets of their time, which `learning replay` made, for a backtest.

        Reads them once. With `force` the newest set answers at all times, although it was learned
        from trades of the backtest; each answer then says so.

        Raises:
            InSampleError: where some moment from `since` to `until` has no set that was learned
                before it, and where the source cannot be read or, forced, has no set at all.
            TypeError: for times without a time zone.
        """
        if force:
            self.refresh()
            known = self._state.live
            if known is None:
                raise InSampleError(self._state.problem or "nothing has been published yet")
            return Backtest((), known, self._applied)
        if since.tzinfo is None or until.tzinfo is None:
            raise TypeError(f"{since} and {until} need a time zone")
        try:
            replays = self._source.replays(since, until)
        except UnavailableError as error:
            raise InSampleError(str(error)) from None
        check_covered(replays, since, until)
        return Backtest(replays, None, self._applied)

    def _now(self, group: GroupKey, scope: Mapping[str, object]) -> Answer:
        state = self._state
        if state.live is None:
            reason = state.problem or "nothing has been published yet"
            return Answer(1.0, 1.0, Status.NO_OVERRIDES, reason)
        return answered(state.live, group, scope, self._clock(), state.problem)

    def _at(self, group: GroupKey, scope: Mapping[str, object], at: datetime) -> Answer:
        state = self._state
        known = self._past if state.live is None else (state.live, *self._past)
        found, problem = live_at(known, at), ""
        if found is None:
            found, problem = self._read(lambda: self._source.at(at))
        if found is None:
            reason = problem or f"no set was live at {at.isoformat()}"
            return Answer(1.0, 1.0, Status.NO_OVERRIDES, reason)
        if found.live_to is not None and found not in self._past:
            self._past = (found, *self._past)[:_REMEMBERED]
        return answered(found, group, scope, at)

    def _applied(self, answer: Answer, trade_id: str | None) -> Answer:
        if answer.status != Status.OK:
            return answer
        if self._shadow:
            reason = answer.reason or "shadow mode"
            return answer._replace(multiplier=1.0, status=Status.SHADOW, reason=reason)
        if trade_id is not None and self._hold_out and is_held_out(trade_id, self._hold_out):
            reason = answer.reason or "this trade is held out"
            return answer._replace(multiplier=1.0, status=Status.HELD_OUT, reason=reason)
        return answer

    def refresh(self) -> None:
        """Read the live set now. Never raises; what goes wrong is in the next answers."""
        with self._reading:
            known = self._state.live
            found, problem = self._read(lambda: self._source.newest(known))
            self._state = _State(known if problem else found, problem)

    def _read(self, read: Callable[[], LiveSet | None]) -> tuple[LiveSet | None, str]:
        """What the source says, or why it says nothing."""
        try:
            return read(), ""
        except UnavailableError as error:
            return None, str(error)
        except Exception as error:  # noqa: BLE001  # a bot and the thread that refreshes go on
            _LOG.exception("the overrides could not be read")
            return None, f"the overrides could not be read ({type(error).__name__})"

    def _keep_fresh(self, seconds: float, first: threading.Event) -> None:
        self.refresh()
        first.set()
        while not self._closed.wait(seconds):
            self.refresh()

    def close(self) -> None:
        """Stop refreshing; look-ups go on with what is known."""
        self._closed.set()

    def __enter__(self) -> OverrideBook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_held_out(trade_id: str, share: float) -> bool:
    """Whether a trade is in the hold-out of so large a share; the same for ever and everywhere."""
    digest = hashlib.sha256(trade_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2.0**64
