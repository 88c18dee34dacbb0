"""The runtime client: matching, bounds, expiry, refreshing, and that nothing raises."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learning_assets.core.combine import look_up
from learning_assets.core.records import DecayState, GroupKey, Override
from learning_assets.core.scope import normalise_scope, subset
from learning_assets.runtime import InSampleError, OverrideBook, Status
from learning_assets.runtime.book import is_held_out
from learning_assets.runtime.sets import LiveSet
from learning_assets.runtime.source import UnavailableError

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PATTERN = "pm.uptrend.S1.buy_flag"


def one(multiplier: float, pattern: str = PATTERN, **scope: str) -> dict[str, Any]:
    module = pattern.partition(".")[0]
    category = "allocation" if module == "dm" else "entry"
    return {
        "group": [module, pattern, category], "scope_subset": scope, "multiplier": multiplier
    }  # fmt: skip


def document(
    *overrides: Mapping[str, Any], number: int = 1, hours: float = 6, ended: datetime | None = None
) -> dict[str, Any]:
    return {
        "set_id": number,
        "as_of": NOON.isoformat(),
        "live_from": NOON.isoformat(),
        "live_to": ended and ended.isoformat(),
        "published_at": NOON.isoformat(),
        "expires_at": (NOON + timedelta(hours=hours)).isoformat(),
        "overrides": list(overrides),
    }


class Given:
    """A source that says what it is told to, or fails."""

    def __init__(self, live: LiveSet | None) -> None:
        self.live: LiveSet | Exception | None = live
        self.past: dict[datetime, LiveSet] = {}
        self.asked = 0

    def newest(self, known: LiveSet | None) -> LiveSet | None:
        if isinstance(self.live, Exception):
            raise self.live
        return self.live

    def at(self, moment: datetime) -> LiveSet | None:
        self.asked += 1
        found = [s for s in self.past.values() if s.live_from <= moment]
        return found[-1] if found else None

    def replays(self, since: datetime, until: datetime) -> list[LiveSet]:
        if isinstance(self.live, Exception):
            raise self.live
        return [s for s in self.past.values() if s.live_from < until and s.expires_at > since]


def given(*overrides: Mapping[str, Any], **options: Any) -> tuple[OverrideBook, Given]:
    source = Given(LiveSet.of(document(*overrides)))
    book = OverrideBook(source, refresh_seconds=3600, clock=lambda: NOON, **options)
    return book, source


def test_multipliers_that_match_are_added_and_kept_within_bounds() -> None:
    book, _ = given(
        one(1.2, chain="solana"), one(0.9), one(1.5, chain="base"), one(2.9, chain="bsc"),
        one(1.3, pattern="dm.a.S1.b"), one(1.25, pattern="dm.a.S1.b", chain="solana"),
    )  # fmt: skip
    answer = book.lookup(PATTERN, "entry", {"chain": " solana ", "extra": None})
    assert answer.multiplier == pytest.approx(1.1)
    assert [(m.lesson_id, m.part) for m in answer.matched] == [
        (f"{PATTERN}/entry/chain=solana", pytest.approx(0.2)),
        (f"{PATTERN}/entry/*", pytest.approx(-0.1)),
    ]
    assert (answer.status, answer.reason, answer.set_id) == (Status.OK, "", 1)
    assert (answer.published_at, answer.expires_at) == (NOON, NOON + timedelta(hours=6))
    dm = book.lookup("dm.a.S1.b", "allocation", {"chain": "solana"}, module="dm")
    assert dm.multiplier == 1.3
    assert book.lookup("dm.a.S1.b", "allocation", {}).status == Status.NO_MATCH
    assert book.lookup(PATTERN, "add", {}).multiplier == 1.0


def test_a_lookup_equals_the_core_on_random_sets() -> None:
    rng = random.Random(1)
    dims = [f"d{k}" for k in range(6)]
    texts = ["a", "b", "true", "1"]
    pairs = [
        (subset({d: rng.choice(texts) for d in rng.sample(dims, rng.randrange(4))}), k)
        for k in range(300)
    ]
    chosen = {scope: 0.5 + (k % 16) / 10 for scope, k in pairs}
    book, _ = given(*(one(m, **dict(scope)) for scope, m in chosen.items()))
    group = GroupKey("pm", PATTERN, "entry")
    core = [
        Override(group, scope, m, 0.1, 0.9, DecayState.STABLE, None, 50, 0.01)
        for scope, m in chosen.items()
    ]
    raw = ["a", " b", "b", True, "TRUE", 1, 1.0, "1", None, "", float("nan")]
    matched = 0
    for _ in range(2000):
        scope = {d: rng.choice(raw) for d in rng.sample(dims, rng.randrange(7))}
        expected = look_up(core, group, normalise_scope(scope))
        answer = book.lookup(PATTERN, "entry", scope)
        assert answer.multiplier == expected.multiplier
        assert [m.lesson_id for m in answer.matched] == [o.lesson_id for o in expected.matched]
        matched += len(answer.matched)
    assert matched > 5000


def test_what_is_no_scope_value_is_taken_as_absent() -> None:
    book, _ = given(one(1.2, chain="solana"), one(1.3, chain="base"), one(1.1, d="1"))
    for odd in (["solana"], {"solana": 1}, object(), np.array([1, 2]), float("nan"), None, b"1"):
        assert book.lookup(PATTERN, "entry", {"chain": odd, "d": odd}).status == Status.NO_MATCH
    assert book.lookup(PATTERN, "entry", {"d": np.float64(1.0)}).multiplier == 1.1


def test_a_question_that_makes_no_sense_is_answered_too() -> None:
    book, _ = given(one(1.2, chain="solana"))
    strange: Any = [(PATTERN, "entry", None), ([PATTERN], "entry", {}), (PATTERN, "entry", 7)]
    for question in strange:
        answer = book.lookup(*question)
        assert (answer.multiplier, answer.status) == (1.0, Status.NO_MATCH)
    for moment in ("yesterday", 3):
        odd: Any = moment
        assert book.lookup(PATTERN, "entry", {}, at=odd).reason.startswith("the question cannot")


def test_a_set_that_expired_is_not_applied_and_says_why() -> None:
    book, source = given(one(1.2))
    late = NOON + timedelta(hours=6)
    book._clock = lambda: late  # type: ignore[method-assign]
    source.live = UnavailableError("the database cannot be read (away)")
    book.refresh()
    answer = book.lookup(PATTERN, "entry", {})
    assert (answer.multiplier, answer.status) == (1.0, Status.STALE)
    assert answer.reason == (
        "set 1 expired at 2026-03-02 18:00 UTC; the database cannot be read (away)"
    )


def test_the_last_good_set_counts_while_the_source_is_away() -> None:
    book, source = given(one(1.2))
    for trouble in (UnavailableError("gone"), RuntimeError("of any kind")):
        source.live = trouble
        book.refresh()
        answer = book.lookup(PATTERN, "entry", {})
        assert (answer.multiplier, answer.status) == (pytest.approx(1.2), Status.OK)
        assert answer.reason
    source.live = LiveSet.of(document(one(0.8), number=2))
    book.refresh()
    assert book.lookup(PATTERN, "entry", {}).reason == ""
    assert book.lookup(PATTERN, "entry", {}).set_id == 2


def test_before_the_first_set_sizes_stay_as_they_are() -> None:
    book = OverrideBook(Given(None), clock=lambda: NOON)
    answer = book.lookup(PATTERN, "entry", {})
    assert (answer.multiplier, answer.status, answer.set_id) == (1.0, Status.NO_OVERRIDES, None)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("expires_at"),
        lambda d: d.update(expires_at="2026-03-02T12:00:00"),
        lambda d: d.update(expires_at="soon"),
        lambda d: d.update(overrides=None),
        lambda d: d["overrides"].append(None),
        lambda d: d["overrides"][0].update(multiplier="much"),
        lambda d: d["overrides"][0].update(multiplier=float("nan")),
        lambda d: d["overrides"][0].update(multiplier=30),
        lambda d: d["overrides"][0].update(scope_subset={"chain": 1}),
        lambda d: d["overrides"][0].update(scope_subset=[1]),
        lambda d: d["overrides"][0].update(scope_subset={"chain": " solana"}),
        lambda d: d["overrides"][0].update(scope_subset={"chain": ""}),
        lambda d: d["overrides"][0].update(group=["xx", PATTERN, "entry"]),
        lambda d: d["overrides"][0].pop("group"),
    ],
)
def test_a_damaged_file_leaves_the_last_good_set(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    path = tmp_path / "overrides.json"
    path.write_text(json.dumps({"sets": [document(one(1.2), hours=1e6)]}))
    with OverrideBook.from_file(path) as book:
        damaged = document(one(1.4), one(1.5, chain="base"), number=2, hours=1e6)
        spoil(damaged)
        path.write_text(json.dumps({"sets": [damaged]}))
        book.refresh()
        answer = book.lookup(PATTERN, "entry", {})
        assert (answer.multiplier, answer.set_id) == (pytest.approx(1.2), 1)
        assert answer.reason.startswith(f"{path} is damaged (")
        path.write_text(json.dumps({"sets": [document(one(1.4), number=3, hours=1e6)]}))
        book.refresh()
        assert book.lookup(PATTERN, "entry", {}).set_id == 3


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"[]", b'{"sets": [1]}'])
def test_a_file_that_is_none_is_no_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "overrides.json"
    if content is not None:
        path.write_bytes(content)
    with OverrideBook.from_file(path) as book:
        answer = book.lookup(PATTERN, "entry", {})
    assert (answer.multiplier, answer.status) == (1.0, Status.NO_OVERRIDES)
    assert str(path) in answer.reason


def test_a_past_moment_is_answered_by_the_set_of_its_time_and_read_once() -> None:
    book, source = given(one(1.2))
    ended = NOON - timedelta(days=1)
    old = document(one(0.7), number=0, ended=ended)
    old |= {"live_from": (NOON - timedelta(days=2)).isoformat(), "expires_at": ended.isoformat()}
    source.past[NOON] = LiveSet.of(old)
    for hours in (30, 36):
        then = book.lookup(PATTERN, "entry", {}, at=NOON - timedelta(hours=hours))
        assert (then.multiplier, then.set_id) == (pytest.approx(0.7), 0)
    assert source.asked == 1
    before = book.lookup(PATTERN, "entry", {}, at=NOON - timedelta(days=3))
    assert (before.multiplier, before.status) == (1.0, Status.NO_OVERRIDES)
    assert book.lookup(PATTERN, "entry", {}, at=datetime(2026, 3, 1)).multiplier == 1.0


def test_shadow_mode_and_the_hold_out_leave_sizes_and_say_what_would_have_been() -> None:
    shadow, _ = given(one(1.2), shadow=True)
    answer = shadow.lookup(PATTERN, "entry", {})
    assert (answer.multiplier, answer.suggested) == (1.0, pytest.approx(1.2))
    assert (answer.status, len(answer.matched)) == (Status.SHADOW, 1)
    book, _ = given(one(1.2), hold_out=0.25)
    answers = [book.lookup(PATTERN, "entry", {}, trade_id=f"t{k}") for k in range(4000)]
    held = [a.status == Status.HELD_OUT for a in answers]
    assert held == [is_held_out(f"t{k}", 0.25) for k in range(4000)]
    assert 900 < sum(held) < 1100
    assert {a.multiplier for a, out in zip(answers, held, strict=True) if out} == {1.0}
    assert all(a.suggested == pytest.approx(1.2) for a in answers)
    with pytest.raises(ValueError, match="share from 0 to 1"):
        given(one(1.2), hold_out=1.5)


def test_threads_never_see_two_sets_in_one_answer() -> None:
    sets = [
        LiveSet.of(document(*(one(m, chain="a", d=str(k)) for k in range(9)), one(m), number=n))
        for n, m in ((1, 1.1), (2, 0.9))
    ]
    source = Given(sets[0])
    book = OverrideBook(source, refresh_seconds=3600, clock=lambda: NOON)
    wrong: list[object] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            answer = book.lookup(PATTERN, "entry", {"chain": "a", "d": "3"})
            expected = {1: 1.2, 2: 0.8}[answer.set_id or 0]
            if abs(answer.multiplier - expected) > 1e-9 or len(answer.matched) != 2:
                wrong.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for k in range(300):
        source.live = sets[k % 2]
        book.refresh()
        time.sleep(0.001)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_importing_it_brings_nothing_heavy() -> None:
    code = (
        "import sys, learning_assets.runtime\n"
        "kinds = {'dagster', 'numpy', 'pandas', 'numba', 'psycopg', 'pydantic'}\n"
        "heavy = kinds & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- backtests ---------------------------------------------------------------------------------

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
SEVEN_DAYS = timedelta(days=7)


def replayed(*multipliers: float | None) -> OverrideBook:
    """A live set, and the replays of as many weeks; None where one was not made."""
    book, source = given(one(2.0))
    for k, multiplier in enumerate(multipliers):
        if multiplier is not None:
            week = MONDAY + k * SEVEN_DAYS
            source.past[week] = LiveSet.of(replay(week, multiplier, number=10 + k))
    return book


def replay(week: datetime, multiplier: float, number: int = 10) -> dict[str, Any]:
    return {
        "set_id": number,
        "as_of": week.isoformat(),
        "live_from": None,
        "live_to": None,
        "published_at": week.isoformat(),
        "expires_at": (week + SEVEN_DAYS).isoformat(),
        "replay": True,
        "overrides": [one(multiplier)],
    }


def test_a_backtest_answers_with_the_set_of_the_time() -> None:
    made = replayed(1.1, 1.2, 1.3).backtest(MONDAY, MONDAY + 3 * SEVEN_DAYS)
    for k, expected in enumerate((1.1, 1.2, 1.3)):
        begin = MONDAY + k * SEVEN_DAYS
        for at in (begin, begin + SEVEN_DAYS - timedelta(microseconds=1)):
            answer = made.lookup(PATTERN, "entry", {}, at)
            assert (answer.multiplier, answer.status) == (pytest.approx(expected), Status.OK)
            assert answer.set_id == 10 + k
    outside = made.lookup(PATTERN, "entry", {}, MONDAY + 3 * SEVEN_DAYS)
    assert (outside.multiplier, outside.status) == (1.0, Status.NO_OVERRIDES)
    assert made.lookup(PATTERN, "entry", {}, MONDAY - timedelta(seconds=1)).multiplier == 1.0
    assert made.lookup(PATTERN, "entry", {}, "yesterday").status == Status.NO_MATCH  # type: ignore[arg-type]


@pytest.mark.parametrize("made", [(), (None, 1.2, 1.3), (1.1, None, 1.3), (1.1, 1.2, None)])
def test_a_backtest_with_a_time_that_no_earlier_set_covers_is_refused(
    made: tuple[float | None, ...],
) -> None:
    book, until = replayed(*made), MONDAY + 3 * SEVEN_DAYS
    with pytest.raises(InSampleError, match="learning replay --from 2026-01-05 --to 2026-01-27"):
        book.backtest(MONDAY, until)
    forced = book.backtest(MONDAY, until, force=True).lookup(PATTERN, "entry", {}, MONDAY)
    assert (forced.multiplier, forced.set_id) == (2.0, 1)
    assert forced.reason == "in sample: set 1 was learned as of 2026-03-02"


def test_a_backtest_without_a_source_or_a_time_zone_is_refused() -> None:
    book, source = given(one(1.2))
    with pytest.raises(TypeError, match="time zone"):
        book.backtest(MONDAY.replace(tzinfo=None), NOON)
    source.live = UnavailableError("the database is away")
    with pytest.raises(InSampleError, match="the database is away"):
        book.backtest(MONDAY, NOON)
    empty = OverrideBook(Given(None), refresh_seconds=3600)
    with pytest.raises(InSampleError, match="nothing has been published yet"):
        empty.backtest(MONDAY, NOON, force=True)


def test_shadow_mode_and_hold_out_hold_in_a_backtest_too() -> None:
    source = Given(None)
    source.past[MONDAY] = LiveSet.of(replay(MONDAY, 1.5))
    for options, status in (
        ({"shadow": True}, Status.SHADOW),
        ({"hold_out": 1.0}, Status.HELD_OUT),
    ):
        book = OverrideBook(source, refresh_seconds=3600, **options)  # type: ignore[arg-type]
        made = book.backtest(MONDAY, MONDAY + SEVEN_DAYS)
        answer = made.lookup(PATTERN, "entry", {}, MONDAY, trade_id="t1")
        assert (answer.multiplier, answer.suggested, answer.status) == (1.0, 1.5, status)


def test_a_file_holds_replays_beside_a_live_set(tmp_path: Path) -> None:
    path = tmp_path / "sets.json"
    weeks = [MONDAY, MONDAY + SEVEN_DAYS]
    sets = [document(one(1.3)), *(replay(week, 1.1 + k / 10) for k, week in enumerate(weeks))]
    path.write_text(json.dumps({"sets": sets[::-1]}))
    book = OverrideBook.from_file(path)
    made = book.backtest(MONDAY, MONDAY + 2 * SEVEN_DAYS)
    assert [made.lookup(PATTERN, "entry", {}, w).multiplier for w in weeks] == pytest.approx(
        [1.1, 1.2]
    )
    book.close()


def test_an_address_that_is_none_is_said_without_the_address() -> None:
    with pytest.raises(ValueError, match="no address of a PostgreSQL database") as error:
        OverrideBook.from_database("postgresql://u:secret@[")
    assert "secret" not in str(error.value)
