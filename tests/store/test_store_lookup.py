"""The look-up in the database: the function for SQL and the client of the bot answer the same."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.core.scope import subset
from learning_assets.core.vetoes import Veto, with_vetoes
from learning_assets.runtime import OverrideBook, Status
from learning_assets.store.connection import Conn
from learning_assets.store.overrides import live_document, pin, publish, renew
from learning_assets.store.rows import finite
from learning_assets.store.settings import Settings

NOW = datetime.now(UTC).replace(microsecond=0)
GROUPS = (
    GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry"),
    GroupKey("pm", "pm.uptrend.S1.buy_flag", "add"),
    GroupKey("dm", "dm.lowcap.S1.allocate", "allocation"),
)
DIMS = tuple(f"d{k}" for k in range(8))
TEXTS = ("a", "b", "true", "1", "0.5", "ü")
VALUES = (
    "a",
    " a\t",
    "\u00a0a\u2003",
    "\u001c\u0085b",
    "\u3000",
    1.5e-300,
    10**30,
    "b",
    True,
    "TRUE",
    False,
    1,
    1.0,
    "1",
    0.5,
    None,
    "",
    " ",
    "ü",
    [1],
    {"a": 1},
)


def override(group: GroupKey, scope: dict[str, str], multiplier: float) -> Override:
    scope_subset = subset(scope)
    return Override(
        group, scope_subset, multiplier, 0.1, 0.9, DecayState.STABLE, None, 50, 0.01, {"gain": 1}
    )


def random_set(rng: random.Random, n: int, published: datetime = NOW) -> OverrideSet:
    chosen = {}
    for _ in range(n):
        group, size = rng.choice(GROUPS), rng.randrange(4)
        scope = {dim: rng.choice(TEXTS) for dim in rng.sample(DIMS, size)}
        low, high = (0.7, 1.3) if group.module == "dm" else (0.3, 3.0)
        chosen[(group, subset(scope))] = override(group, scope, rng.uniform(low, high))
    return OverrideSet(
        published, published, published + timedelta(hours=6), tuple(chosen.values()), {}
    )


def test_sql_and_the_client_agree_on_random_scopes(conn: Conn, book: Settings) -> None:
    rng = random.Random(7)
    made = random_set(rng, 400)
    veto = Veto(1, "not here", NOW, action_category="add")
    publish(conn, replace(made, overrides=with_vetoes(made.overrides, [veto], NOW)))
    asked = []
    for k in range(10_000):
        scope = {dim: rng.choice(VALUES) for dim in rng.sample(DIMS, rng.randrange(9))}
        asked.append([k, *GROUPS[k % 3], scope])
    rows = conn.execute(
        "SELECT (q ->> 0)::int, l.* FROM jsonb_array_elements(%s::jsonb) AS q, "
        "LATERAL lookup(q ->> 2, q ->> 3, q -> 4, q ->> 1) AS l ORDER BY 1",
        [json.dumps(asked)],
    ).fetchall()
    n_matched = n_vetoed = 0
    with OverrideBook.from_database(book.learning_url, schema=book.schema) as client:
        for (k, multiplier, status, set_id, published, expires, matched), one in zip(
            rows, asked, strict=True
        ):
            module, pattern, category = GROUPS[k % 3]
            answer = client.lookup(pattern, category, one[4], module)
            assert multiplier == pytest.approx(answer.multiplier, abs=1e-12)
            assert (status, set_id) == (answer.status, answer.set_id)
            assert (published, expires) == (answer.published_at, answer.expires_at)
            assert {m["lesson_id"]: (m["multiplier"], m["veto"]) for m in matched} == {
                m.lesson_id: (m.multiplier, m.veto) for m in answer.matched
            }
            n_matched += len(matched)
            n_vetoed += sum(m["veto"] is not None for m in matched)
    assert n_matched > 10_000
    assert n_vetoed > 100


@pytest.mark.parametrize("number", ["1e400", "1.5e-400", "1e-307", "-1.5e-320", "1e23", "0.1"])
def test_no_number_makes_the_function_fail(conn: Conn, number: str) -> None:
    publish(conn, random_set(random.Random(1), 50))
    rows = conn.execute(
        "SELECT status FROM lookup(%s, %s, %s)", [*GROUPS[0][1:], f'{{"d0": {number}}}']
    )
    assert rows.fetchall()[0][0] in {"ok", "no_match"}


def test_a_client_that_stays_open_sees_a_held_set_renewed(conn: Conn, book: Settings) -> None:
    group, began = GROUPS[0], NOW - timedelta(hours=5.999)
    made = OverrideSet(began, began, began + timedelta(hours=6), (override(group, {}, 1.5),), {})
    first = publish(conn, made)
    pin(conn, first, began, timedelta(hours=6))
    with OverrideBook.from_database(book.learning_url, schema=book.schema) as client:
        assert client.lookup(*group[1:], {}).status in {"ok", "stale"}
        renewed = renew(conn, NOW, NOW + timedelta(hours=6))
        assert renewed is not None
        client.refresh()
        answer = client.lookup(*group[1:], {})
        assert (answer.multiplier, answer.status, answer.set_id) == (1.5, "ok", renewed.set_id)
        assert answer.expires_at == renewed.content.expires_at
    assert (renewed.copy_of, renewed.pinned_at) == (first, began)
    # An expiry that is changed in place is seen too.
    with OverrideBook.from_database(book.learning_url, schema=book.schema) as client:
        later = NOW + timedelta(hours=9)
        conn.execute("UPDATE pm_override_sets SET expires_at = %s WHERE live_to IS NULL", [later])
        client.refresh()
        assert client.lookup(*group[1:], {}).expires_at == later


def test_sql_and_the_client_agree_where_nothing_applies(conn: Conn, book: Settings) -> None:
    pattern, category = GROUPS[0][1:]

    def both() -> list[tuple[float, str]]:
        [(multiplier, status)] = conn.execute(
            "SELECT multiplier, status FROM lookup(%s, %s, '{}')", [pattern, category]
        )
        with OverrideBook.from_database(book.learning_url, schema=book.schema) as client:
            answer = client.lookup(pattern, category, {})
        return [(multiplier, status), (answer.multiplier, answer.status)]

    assert both() == [(1.0, "no_overrides")] * 2
    publish(conn, random_set(random.Random(1), 0))
    assert both() == [(1.0, "no_match")] * 2
    old = random_set(random.Random(1), 300, NOW - timedelta(hours=7))
    publish(conn, old)
    assert both() == [(1.0, "stale")] * 2


def test_the_client_sees_a_new_set_and_those_of_the_past(conn: Conn, book: Settings) -> None:
    group = GROUPS[0]

    def made(multiplier: float, hours: int) -> OverrideSet:
        at = NOW - timedelta(hours=hours)
        return OverrideSet(
            at, at, at + timedelta(hours=6), (override(group, {}, multiplier),), {}
        )  # fmt: skip

    first = publish(conn, made(1.5, 4))
    with OverrideBook.from_database(book.learning_url, schema=book.schema) as client:
        assert client.lookup(*group[1:], {}).set_id == first
        second = publish(conn, made(0.5, 1))
        client.refresh()
        answer = client.lookup(*group[1:], {})
        assert (answer.set_id, answer.multiplier) == (second, 0.5)
        then = client.lookup(*group[1:], {}, at=NOW - timedelta(hours=2))
        assert (then.set_id, then.multiplier) == (first, 1.5)
        assert client.lookup(*group[1:], {}, at=NOW - timedelta(hours=9)).status == "no_overrides"


def test_a_damaged_row_leaves_the_last_good_set(conn: Conn, book: Settings) -> None:
    publish(conn, random_set(random.Random(1), 300))
    with OverrideBook.from_database(book.learning_url, schema=book.schema) as client:
        before = client.lookup(*GROUPS[0][1:], {"d0": "a"})
        set_id = publish(conn, random_set(random.Random(2), 300))
        conn.execute(
            "UPDATE pm_override_sets SET overrides = jsonb_set(overrides, '{3,multiplier}', "
            "'\"x\"') WHERE set_id = %s",
            [set_id],
        )
        client.refresh()
        after = client.lookup(*GROUPS[0][1:], {"d0": "a"})
        assert after.set_id == before.set_id != set_id
        assert after.multiplier == before.multiplier
        assert after.reason.startswith(f"set {set_id} is damaged (")


def test_a_server_that_is_away_is_no_error() -> None:
    url = "postgresql://bot:secret@127.0.0.1:1/none"
    with OverrideBook.from_database(url) as client:
        answer = client.lookup(*GROUPS[0][1:], {})
    assert (answer.multiplier, answer.status) == (1.0, Status.NO_OVERRIDES)
    assert "the database cannot be read" in answer.reason
    assert "secret" not in answer.reason


def test_the_exported_file_gives_the_same_answers(
    conn: Conn, book: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(3)
    publish(conn, random_set(rng, 200))
    path = tmp_path_factory.mktemp("export") / "overrides.json"
    path.write_text(json.dumps(finite(live_document(conn))))
    with (
        OverrideBook.from_database(book.learning_url, schema=book.schema) as client,
        OverrideBook.from_file(path) as file,
    ):
        for k in range(500):
            scope = {dim: rng.choice(VALUES) for dim in rng.sample(DIMS, 6)}
            module, pattern, category = GROUPS[k % 3]
            assert file.lookup(pattern, category, scope, module) == client.lookup(
                pattern, category, scope, module
            )
