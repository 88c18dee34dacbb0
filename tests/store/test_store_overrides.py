from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.errors import UserError
from learning_assets.store.connection import Conn, connect, open_database
from learning_assets.store.migrations import migrate
from learning_assets.store.overrides import (
    held_back,
    hold_back,
    live,
    override_rows,
    publish,
    publish_public_view,
    published_set,
    withdraw_public_view,
)
from learning_assets.store.settings import Settings, settings
from learning_assets.store.tables import PM_OVERRIDES

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _override(i: int = 0, multiplier: float = 1.4) -> Override:
    return Override(
        group=GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry"),
        scope_subset=(("chain", "solana"), ("i", str(i))),
        multiplier=multiplier,
        adjusted_edge_r=0.1 + 0.2,
        confidence_score=0.97,
        decay_state=DecayState.DECAYING,
        half_life_hours=1536.0,
        n=412,
        q_value=1e-9,
        parts={"joint_edge_r": 0.4, "gain": 0.5, "factor_id": None, "regime": {"time": 1.15}},
    )


def _set(*overrides: Override, hours: int = 0, replay: bool = False) -> OverrideSet:
    published_at = NOON + timedelta(hours=hours)
    return OverrideSet(
        as_of=published_at - timedelta(minutes=1),
        published_at=published_at,
        expires_at=published_at + timedelta(hours=6),
        overrides=overrides,
        expected={"size_change": 0.03, "drawdown_change": -0.1},
        replay=replay,
    )


def test_a_set_comes_back_as_it_was(conn: Conn) -> None:
    assert live(conn) is None
    assert override_rows(conn) == []
    plain = Override(
        GroupKey("dm", "dm.a.S1.b", "allocation"),
        (),
        0.9,
        -0.2,
        0.8,
        DecayState.STABLE,
        None,
        40,
        1.0,
    )
    given = _set(_override(), plain)
    set_id = publish(conn, given)
    found = live(conn)
    assert found is not None
    assert (found.set_id, found.live_from, found.live_to) == (set_id, NOON, None)
    assert found.content == given
    assert published_set(conn, set_id) == found
    assert published_set(conn, set_id + 1) is None


def test_the_live_set_is_replaced_whole_and_the_old_one_kept(conn: Conn) -> None:
    first = publish(conn, _set(_override(1), _override(2)))
    second = publish(conn, _set(_override(2, 0.8), hours=1))
    assert second > first
    assert [(row["set_id"], row["multiplier"]) for row in override_rows(conn)] == [(second, 0.8)]
    old, new = published_set(conn, first), published_set(conn, second)
    assert old is not None
    assert new is not None
    assert old.live_to == new.live_from == NOON + timedelta(hours=1)
    assert old.content == _set(_override(1), _override(2))
    assert live(conn) == new


def test_an_empty_set_can_be_live(conn: Conn) -> None:
    publish(conn, _set(_override()))
    set_id = publish(conn, _set(hours=1))
    found = live(conn)
    assert found is not None
    assert (found.set_id, found.content.overrides) == (set_id, ())
    assert override_rows(conn) == []


def test_a_replay_is_kept_but_never_live(conn: Conn) -> None:
    first = publish(conn, _set(_override(1)))
    replayed = publish(conn, _set(_override(2), hours=-999, replay=True))
    found, kept = live(conn), published_set(conn, replayed)
    assert found is not None
    assert found.set_id == first
    assert {row["set_id"] for row in override_rows(conn)} == {first}
    assert kept is not None
    assert kept.live_from is None
    assert kept.content.replay


def test_a_failure_leaves_the_old_set(conn: Conn) -> None:
    first = publish(conn, _set(_override(1)))
    twice = _set(_override(2), _override(2), hours=1)
    with pytest.raises(psycopg.errors.UniqueViolation):
        publish(conn, twice)
    found = live(conn)
    assert found is not None
    assert (found.set_id, found.live_to) == (first, None)
    assert len(override_rows(conn)) == 1


def test_rows_for_json(conn: Conn) -> None:
    publish(conn, _set(_override()))
    (row,) = json.loads(json.dumps(override_rows(conn), allow_nan=False))
    assert set(row) == set(PM_OVERRIDES.column_names)
    assert row["scope_subset"] == {"chain": "solana", "i": "0"}
    assert row["lesson_id"] == _override().lesson_id
    assert (row["multiplier"], row["n"], row["decay_state"]) == (1.4, 412, "decaying")
    assert row["expires_at"] == "2024-06-01T18:00:00+00:00"
    assert row["parts"]["regime"] == {"time": 1.15}


def test_a_reader_sees_one_set_and_all_of_it(book: Settings) -> None:
    stop = threading.Event()
    reads: list[int | None] = []
    torn: list[list[tuple[int, int]]] = []

    def read() -> None:
        with connect(book) as reader:
            while not stop.is_set():
                rows = reader.execute("SELECT set_id, count(*) FROM pm_overrides GROUP BY 1")
                seen = rows.fetchall()
                if len(seen) != 1 or seen[0][1] != 100 + seen[0][0] % 2:
                    torn.append(seen)
                reads.append(seen[0][0] if seen else None)

    with connect(book) as writer:
        publish(writer, _set(*map(_override, range(101))))
        thread = threading.Thread(target=read)
        thread.start()
        for hour in range(2, 27):
            set_id = publish(writer, _set(*map(_override, range(100 + hour % 2)), hours=hour))
            assert set_id == hour
        stop.set()
        thread.join()
    assert torn == []
    assert len(set(reads)) > 3


def test_two_publishers_at_once_wait_for_each_other(book: Settings) -> None:
    def work(start: int) -> None:
        with connect(book) as own:
            for i in range(8):
                publish(own, _set(*map(_override, range(20)), hours=start + i))

    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect(book) as conn:
        query = "SELECT count(*), count(live_to), bool_and(coalesce(live_to >= live_from, true)) "
        counts = conn.execute(query + "FROM pm_override_sets").fetchone()
        assert counts == (16, 15, True)
        assert len({row["set_id"] for row in override_rows(conn)}) == 1


@pytest.fixture
def main_book(server_env: Mapping[str, str]) -> Iterator[Conn]:
    """The tables of the book main, in a database of their own."""
    server_url = settings(server_env).embedded_url("postgres")
    with open_database(server_url, "test") as admin:
        admin.execute("DROP DATABASE IF EXISTS for_views WITH (FORCE)")
        admin.execute("CREATE DATABASE for_views")
    url = settings(server_env).embedded_url("for_views")
    chosen = settings({**server_env, "LEARNING_DATABASE_URL": url})
    migrate(chosen)
    with connect(chosen) as conn:
        yield conn


def test_the_public_view_shows_the_live_set(main_book: Conn) -> None:
    publish_public_view(main_book)
    publish_public_view(main_book)  # ours may be there already
    publish(main_book, replace(_set(_override()), expires_at=datetime.now(UTC) + HOUR))
    seen = main_book.execute(
        "SELECT pattern_key, action_category, scope_subset, multiplier, confidence_score, "
        "decay_state, last_updated_at FROM public.pm_overrides"
    ).fetchall()
    scope = {"chain": "solana", "i": "0"}
    head = ("pm.uptrend.S1.buy_flag", "entry", scope)
    assert seen == [(*head, 1.4, 0.97, "decaying", NOON)]


def test_the_public_view_shows_no_set_that_has_expired(main_book: Conn) -> None:
    publish_public_view(main_book)
    publish(main_book, _set(_override()))
    assert main_book.execute("SELECT count(*) FROM pm_overrides").fetchone() == (1,)
    assert main_book.execute("SELECT count(*) FROM public.pm_overrides").fetchone() == (0,)


def test_the_public_view_is_for_reading_by_those_who_may(main_book: Conn) -> None:
    publish_public_view(main_book)
    publish(main_book, _set(_override()))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        main_book.execute("UPDATE public.pm_overrides SET multiplier = 3")
    main_book.execute("DROP ROLE IF EXISTS visitor")
    main_book.execute("CREATE ROLE visitor")
    main_book.execute("GRANT ALL ON public.pm_overrides TO visitor")
    main_book.execute("SET ROLE visitor")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        main_book.execute("SELECT * FROM public.pm_overrides")
    main_book.execute("RESET ROLE")
    main_book.execute("DROP OWNED BY visitor")


@pytest.mark.parametrize(
    "made", ["TABLE public.pm_overrides (x int)", "VIEW public.pm_overrides AS SELECT 1 AS x"]
)
def test_what_is_not_ours_stays(main_book: Conn, made: str) -> None:
    main_book.execute(f"CREATE {made}")
    with pytest.raises(UserError, match="not ours"):
        publish_public_view(main_book)
    assert main_book.execute("SELECT count(x) FROM public.pm_overrides").fetchone() is not None


def test_the_public_view_can_be_removed_again(main_book: Conn) -> None:
    withdraw_public_view(main_book)  # there is none yet
    publish_public_view(main_book)
    withdraw_public_view(main_book)
    assert main_book.execute("SELECT to_regclass('public.pm_overrides')").fetchone() == (None,)
    main_book.execute("CREATE TABLE public.pm_overrides (x int)")
    with pytest.raises(UserError, match="not ours"):
        withdraw_public_view(main_book)
    assert main_book.execute("SELECT count(x) FROM public.pm_overrides").fetchone() == (0,)


def test_the_public_view_is_for_the_main_book_only(conn: Conn) -> None:
    with pytest.raises(UserError, match="main only"):
        publish_public_view(conn)


def test_a_set_that_is_held_back_waits_beside_the_live_one(conn: Conn) -> None:
    first = publish(conn, _set(_override()))
    held = hold_back(conn, _set(_override()))
    found = live(conn)
    assert found is not None
    assert found.set_id == first
    assert [x.set_id for x in held_back(conn)] == [held]
    publish(conn, _set(_override(), replay=True))
    assert [x.set_id for x in held_back(conn)] == [held]
    publish(conn, _set(_override()))
    assert held_back(conn) == []
