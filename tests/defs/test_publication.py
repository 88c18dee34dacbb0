"""What a set says of its changes, and that vetoes and pins outlast a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import dagster as dg
import pytest
from test_effectiveness import MARKET, PastBook, filled

from learning_assets.core.changes import Changed
from learning_assets.core.publication import Problem
from learning_assets.core.vetoes import Veto, why_vetoed
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.pm_overrides import pm_overrides
from learning_assets.defs.options import LessonsConfig, OverridesConfig
from learning_assets.store import overrides, vetoes
from learning_assets.store.connection import Conn, connect
from learning_assets.store.overrides import PublishedSet

__all__ = ["filled"]


@pytest.fixture
def learned(filled: PastBook) -> PastBook:
    """A book with lessons and a live set."""
    for module in ("dm", "pm"):
        learning_lessons(dg.build_asset_context(partition_key=module), LessonsConfig(), filled)
    _publish(filled)
    return filled


def _publish(book: PastBook) -> dict[str, object]:
    metadata = pm_overrides(OverridesConfig(force=True), book).metadata
    assert metadata is not None
    return dict(metadata)


def _live(conn: Conn) -> PublishedSet:
    found = overrides.live(conn)
    assert found is not None
    return found


def _changes(conn: Conn) -> tuple[Changed, ...]:
    said = _live(conn).changes
    assert said is not None
    return said


def test_the_first_set_has_new_lessons_and_the_next_nothing(conn: Conn, learned: PastBook) -> None:
    first = _changes(conn)
    assert {c.lesson_id for c in first} == {o.lesson_id for o in _live(conn).content.overrides}
    assert {c.why for c in first} == {"new lesson"}
    assert len(first) > 1
    assert _publish(learned)["changed"] == "nothing"
    assert _changes(conn) == ()


def test_a_lesson_that_is_gone_says_why_and_is_back_again_later(
    conn: Conn, learned: PastBook
) -> None:
    name = _live(conn).content.overrides[0].lesson_id
    to = "UPDATE learning_lessons SET status = %s, reason = %s WHERE lesson_id = %s"
    conn.execute(to, ["deprecated", "no longer kept: explained by another", name])
    assert _publish(learned)["changed"] == "1 × deprecated"
    [gone] = [c for c in _changes(conn) if c.lesson_id == name]
    assert (gone.new, gone.detail) == (None, "no longer kept: explained by another")
    conn.execute(to, ["active", "", name])
    assert _publish(learned)["changed"] == "1 × back again"


def test_an_edge_that_is_learned_again(conn: Conn, learned: PastBook) -> None:
    before = _live(conn).content.overrides[0]
    conn.execute(
        "UPDATE learning_lessons SET stats = jsonb_set(stats, '{joint_edge_r}', "
        "to_jsonb((stats ->> 'joint_edge_r')::float / 10)) WHERE lesson_id = %s",
        [before.lesson_id],
    )
    _publish(learned)
    [moved] = [c for c in _changes(conn) if c.lesson_id == before.lesson_id]
    assert moved.why == "learned again"
    assert moved.detail.startswith("edge ")


def test_a_run_leaves_a_veto_in_force_and_ends_one_that_is_over(
    conn: Conn, learned: PastBook
) -> None:
    now = learned.now()
    name = _live(conn).content.overrides[0].lesson_id
    vetoes.add(conn, Veto(0, "no", now - timedelta(hours=1), now + timedelta(hours=1), name))
    _publish(learned)
    [held] = [o for o in _live(conn).content.overrides if o.lesson_id == name]
    assert (held.multiplier, why_vetoed(held)) == (1.0, "no")
    query = "SELECT multiplier FROM pm_overrides WHERE lesson_id = %s"
    assert conn.execute(query, [name]).fetchone() == (1.0,)
    conn.execute("UPDATE override_vetoes SET until = %s", [now])
    _publish(learned)
    [ended] = [c for c in _changes(conn) if c.lesson_id == name]
    assert (ended.old, ended.why) == (1.0, "veto ended")
    assert ended.new is not None
    assert ended.new != 1.0


def test_a_veto_counts_on_a_set_that_is_held_and_ends_there_too(
    conn: Conn, learned: PastBook
) -> None:
    now = learned.now()
    first = _live(conn)
    overrides.pin(conn, first.set_id, now, timedelta(hours=6))
    number = vetoes.add(conn, Veto(0, "no", now, lesson_id=first.content.overrides[0].lesson_id))
    _publish(learned)
    held = _live(conn)
    assert held.pinned_at is not None
    assert [o.multiplier for o in held.content.overrides].count(1.0) == 1
    vetoes.lift(conn, number, now)
    _publish(learned)
    again = _live(conn)
    assert again.pinned_at is not None
    assert again.content.overrides == first.content.overrides
    assert again.content.expires_at > MARKET.end


def _while_a_run_is_under_way(conn: Conn, book: PastBook, act: Callable[[], object]) -> object:
    """Do something after a run has made its set, and before it can publish it."""
    with ThreadPoolExecutor(1) as pool:
        with overrides.alone(conn):
            run = pool.submit(pm_overrides, OverridesConfig(force=True), book)
            with connect(book.settings) as other:
                _until_one_waits(other)
            act()
        return run.result(60)


def _until_one_waits(conn: Conn) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    end = time.monotonic() + 60
    while conn.execute(query).fetchone() == (0,):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_pin_that_is_set_while_a_run_is_under_way_holds(conn: Conn, learned: PastBook) -> None:
    first = _live(conn)
    lasts = timedelta(hours=6)
    _while_a_run_is_under_way(
        conn, learned, lambda: overrides.pin(conn, first.set_id, learned.now(), lasts)
    )
    held = _live(conn)
    assert held.pinned_at is not None
    assert (held.copy_of or held.set_id) == first.set_id
    assert overrides.held_back(conn)


def test_a_veto_that_is_set_while_a_run_is_under_way_holds(conn: Conn, learned: PastBook) -> None:
    name = _live(conn).content.overrides[0].lesson_id

    def forbid() -> None:
        vetoes.add(conn, Veto(0, "no", learned.now(), lesson_id=name))
        overrides.apply_vetoes(conn, learned.now())

    _while_a_run_is_under_way(conn, learned, forbid)
    [held] = [o for o in _live(conn).content.overrides if o.lesson_id == name]
    assert (held.multiplier, why_vetoed(held)) == (1.0, "no")
    assert not [c for c in _changes(conn) if c.lesson_id == name]


def test_a_held_set_is_renewed_although_the_new_one_is_unsound(
    conn: Conn, learned: PastBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _live(conn)
    overrides.pin(conn, first.set_id, learned.now() - timedelta(hours=5), timedelta(hours=6))
    wrong = [Problem("in_bounds", "it is not")]
    monkeypatch.setattr("learning_assets.defs.assets.pm_overrides.problems", lambda *_: wrong)
    _publish(learned)
    held = _live(conn)
    assert held.pinned_at is not None
    assert held.content.overrides == first.content.overrides
    assert held.content.expires_at == learned.now() + timedelta(hours=6)
    assert overrides.held_back(conn) == []
