"""Looking at the daemon of a book from outside: is it there, did its schedules and sensors tick?

Everything is read from Dagster's storage and the book's tables; nothing is started or written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain, islice

import dagster as dg
from dagster._core.scheduler.instigation import (  # no public names for these
    InstigatorState,
    InstigatorTick,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickStatus,
)
from dagster._utils.schedules import get_latest_completed_cron_tick, get_next_cron_tick

from learning_assets.core.records import ClosedTrade
from learning_assets.defs.alerts import alerts
from learning_assets.defs.build import ASSETS, JOBS
from learning_assets.defs.failures import error_line
from learning_assets.defs.finding import Finding, State
from learning_assets.defs.freshness import (
    counted_dues,
    grace,
    last_materialized,
    late,
    sentence,
    watched_assets,
)
from learning_assets.defs.opening import is_live, open_source
from learning_assets.defs.plans import UPKEEP, Plan, Planned
from learning_assets.defs.sensors import closings, cursor_of, ranges
from learning_assets.defs.webhook import ALERT_VARIABLE
from learning_assets.errors import UserError
from learning_assets.sources.base import Source
from learning_assets.store import events
from learning_assets.store.connection import connect
from learning_assets.store.settings import Settings
from learning_assets.store.sources import current_source

GONE_AFTER = timedelta(minutes=2)
"""A daemon gives a sign every half minute."""

HANGS_AFTER = timedelta(minutes=10)
"""One of its parts may be busy for so long."""

BEHIND_AFTER = timedelta(minutes=5)
"""Closings are taken in within a minute."""

MOST_READ = 20_000
"""Trades of the source that are compared with the events."""

_SCHEDULE_TAG = "dagster/schedule_name"


@dataclass(frozen=True, slots=True)
class Watch:
    """A book's Dagster at a moment; `live` says that trades keep coming from its source."""

    settings: Settings
    instance: dg.DagsterInstance
    plan: Plan
    now: datetime
    live: bool

    @property
    def last_sign(self) -> datetime | None:
        """When the daemon gave its last sign, None if it never ran."""
        signs = [sign.timestamp for sign in self.instance.get_daemon_heartbeats().values()]
        return datetime.fromtimestamp(max(signs), UTC) if signs else None

    @property
    def is_on(self) -> bool:
        """Whether the daemon runs."""
        return self.last_sign is not None and self.now - self.last_sign <= GONE_AFTER

    def state(self, name: str) -> InstigatorState | None:
        """What Dagster keeps of a schedule or sensor, None where the daemon never saw it."""
        found = [x for x in self.instance.all_instigator_state() if x.instigator_name == name]
        return found[-1] if found else None

    def last_tick(self, state: InstigatorState) -> InstigatorTick | None:
        """The newest tick of a schedule or sensor."""
        ticks = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        return next(iter(ticks), None)


def is_live_book(settings: Settings) -> bool:
    """Whether trades keep coming from the source of the book."""
    with connect(settings) as conn:
        remembered = current_source(conn)
    return remembered is not None and is_live(remembered)


def look(watch: Watch) -> Iterator[Finding]:
    """The daemon, and what it is to do: judged where it runs, or should run for a live source."""
    yield daemon(watch)
    if not watch.is_on and not watch.live:
        for name in ("schedules", "freshness", "sensors"):
            yield Finding(name, State.SKIPPED, "off with the daemon")
        return
    for planned in (*watch.plan.schedules, *UPKEEP):
        yield Finding(f"schedule.{planned.name}", *_schedule(watch, planned))
    for asset, schedules in watched_assets(watch.plan, JOBS, ASSETS).items():
        yield Finding(f"freshness.{asset.to_user_string()}", *_freshness(watch, asset, schedules))
    yield Finding(f"sensor.{closings.name}", *_closings(watch))
    yield Finding(f"sensor.{alerts.name}", *_alerts(watch))


def daemon(watch: Watch) -> Finding:
    """Whether the daemon runs: a fault where trades keep coming, else its owner's business."""
    sign, how = watch.last_sign, f"`learning ui --book {watch.settings.book}` starts it"
    absent = State.FAILED if watch.live else State.SKIPPED
    if sign is None:
        return Finding("daemon", absent, f"never ran: {how}")
    if not watch.is_on:
        return Finding("daemon", absent, f"off since {_time(sign)}: {how}")
    wrong = "; ".join(_ill_parts(watch))
    if wrong:
        return Finding("daemon", State.FAILED, wrong)
    seconds = (watch.now - sign).total_seconds()
    said = f"runs the plan {watch.plan.name}, its last sign {max(seconds, 0):.0f} s ago"
    return Finding("daemon", State.OK, said)


def _ill_parts(watch: Watch) -> Iterator[str]:
    signs = watch.instance.get_daemon_heartbeats()
    for name in watch.instance.get_required_daemon_types():
        if name not in signs:
            continue
        at, errors = datetime.fromtimestamp(signs[name].timestamp, UTC), signs[name].errors
        if watch.now - at > HANGS_AFTER:
            yield f"its part {name} has given no sign since {_time(at)}"
        elif errors:
            yield f"its part {name}: {error_line(errors[0])}"


def _schedule(watch: Watch, planned: Planned) -> tuple[State, str]:
    state = watch.state(planned.name)
    if state is None:
        return State.SKIPPED, "the daemon has not seen it yet"
    if not state.is_running:
        return State.SKIPPED, "switched off in Dagster"
    tick, following = watch.last_tick(state), get_next_cron_tick(planned.cron, watch.now, "UTC")
    missed = _missed(planned, state, tick, watch.now)
    if missed is not None:
        last = f", the last one was {_time(_at(tick))}" if tick else ""
        return State.FAILED, f"the tick of {_time(missed)} was missed{last}"
    if tick is None:
        return State.OK, f"no tick yet, the first is {_time(following)}"
    if tick.status is TickStatus.FAILURE:
        return State.FAILED, f"the tick of {_time(_at(tick))} failed: {error_line(tick.error)}"
    if tick.status is TickStatus.SKIPPED:
        return State.OK, f"the tick of {_time(_at(tick))} did nothing: {tick.skip_reason}"
    ended = _last_run(watch, planned)
    state_of = State.FAILED if ended == "failed" else State.OK
    return state_of, f"the tick of {_time(_at(tick))}, its run {ended}"


def _missed(
    planned: Planned, state: InstigatorState, tick: InstigatorTick | None, now: datetime
) -> datetime | None:
    """The last tick that is over and did not happen though the daemon knew the schedule."""
    due = get_latest_completed_cron_tick(planned.cron, now - grace(planned), "UTC")
    data = state.instigator_data
    assert isinstance(data, ScheduleInstigatorData)
    done = tick is not None and tick.timestamp >= due.timestamp()
    return None if done or due.timestamp() <= (data.start_timestamp or 0.0) else due


def _last_run(watch: Watch, planned: Planned) -> str:
    """What became of the newest run of a schedule."""
    wanted = dg.RunsFilter(tags={_SCHEDULE_TAG: planned.name})
    run = next(iter(watch.instance.get_runs(wanted, limit=1)), None)
    if run is None:
        return "has not begun"
    if run.is_complete_and_waiting_to_retry:
        return "failed and will be tried again"
    if not run.is_finished:
        return "is under way"
    return {
        dg.DagsterRunStatus.SUCCESS: "succeeded",
        dg.DagsterRunStatus.CANCELED: "was cancelled",
    }.get(run.status, "failed")


def _freshness(watch: Watch, asset: dg.AssetKey, schedules: Sequence[Planned]) -> tuple[State, str]:
    found = list(late(watch.instance, asset, schedules, watch.now))
    if found:
        return State.FAILED, "; ".join(sentence(*item) for item in found)
    keys = dict.fromkeys(
        due.partition for due in counted_dues(watch.instance, schedules, watch.now)
    )
    said = [
        f"{key + ' ' if key else ''}at {_time(last)}"
        for key in keys
        if (last := last_materialized(watch.instance, asset, key)) is not None
    ]
    return State.OK, ", ".join(said) or "not due yet"


def _closings(watch: Watch) -> tuple[State, str]:
    state = watch.state(closings.name)
    looked, said = _looked(watch, state)
    if state is None or looked is State.SKIPPED:
        return looked, said
    data = state.instigator_data
    seen = cursor_of(data.cursor if isinstance(data, SensorInstigatorData) else None).seen
    if seen is None:
        return looked, f"{said}, the first closings are being taken in"
    try:
        waiting = _waiting(watch.settings, seen)
    except UserError as error:
        return State.FAILED, str(error)
    if not waiting:
        return looked, f"{said}, nothing waits"
    age = watch.now - min(waiting)
    said = f"{said}, {_count(len(waiting))} closings wait, the oldest for {_age(age)}"
    return State.FAILED if age > BEHIND_AFTER else looked, said


def _looked(watch: Watch, state: InstigatorState | None) -> tuple[State, str]:
    """When a sensor looked last; a fault where that is long ago or failed."""
    if state is None:
        return State.SKIPPED, "the daemon has not seen it yet"
    if not state.is_running:
        return State.SKIPPED, "switched off in Dagster"
    tick = watch.last_tick(state)
    if tick is None:
        return State.SKIPPED, "has not looked yet"
    age = watch.now - _at(tick)
    if tick.status is TickStatus.FAILURE:
        return State.FAILED, f"its look of {_time(_at(tick))} failed: {error_line(tick.error)}"
    if age > BEHIND_AFTER:
        return State.FAILED, f"has not looked since {_time(_at(tick))}"
    return State.OK, f"looked {_age(age)} ago"


def _waiting(settings: Settings, seen: str) -> list[datetime]:
    """Since when each trade waits that was committed after the last look and is no event yet."""
    with connect(settings) as conn:
        remembered = current_source(conn)
        if remembered is None:
            return []
        trades = _changed(open_source(settings, remembered), seen)
        since = {trade.trade_id: trade.version or trade.closed_at for trade in trades}
        return [since[name] for name in events.unknown_trades(conn, list(since))]


def _changed(source: Source, seen: str) -> Iterator[ClosedTrade]:
    """The trades of the days that changed, at most so many."""
    spans = ranges([day.isoformat() for day in source.changes(seen).days])
    days = ((date.fromisoformat(first), date.fromisoformat(last)) for first, last in spans)
    rows = chain.from_iterable(source.read(first, last) for first, last in days)
    return islice((row for row in rows if isinstance(row, ClosedTrade)), MOST_READ)


def _alerts(watch: Watch) -> tuple[State, str]:
    state = watch.state(alerts.name)
    looked = _looked(watch, state)
    tick = watch.last_tick(state) if state else None
    if looked[0] is not State.OK or tick is None:
        return looked
    said = tick.skip_reason or ""
    if said.startswith(f"{ALERT_VARIABLE} is not set"):
        return State.SKIPPED, f"{ALERT_VARIABLE} is not set: failures are told to nobody"
    wrong = ALERT_VARIABLE in said
    return State.FAILED if wrong else State.OK, f"{looked[1]}: {said}"


def _count(n: int) -> str:
    return f"{n:,} or more" if n >= MOST_READ else f"{n:,}"


def _at(tick: InstigatorTick | None) -> datetime:
    assert tick is not None
    return datetime.fromtimestamp(tick.timestamp, UTC)


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _age(age: timedelta) -> str:
    seconds = max(age.total_seconds(), 0.0)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
