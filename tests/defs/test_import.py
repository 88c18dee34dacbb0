"""`learning import`, from the command line to the tables."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from learning_assets.cli import main
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.store import lessons, overrides
from learning_assets.store.connection import Conn, connect
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import Settings, settings

NOW = datetime.now(UTC)
ENTRY = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Import = Callable[..., Outcome]


@pytest.fixture
def chosen(server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A fresh book with one live override, on the tests' server."""
    for name in ("LEARNING_DATABASE_URL", "LEARNING_DAGSTER_URL", "LEARNING_STRANDS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server_env.items():
        monkeypatch.setenv(name, value)
    made = settings(server_env, f"import{next(_numbers)}")
    migrate(made)
    with connect(made) as conn:
        override = Override(ENTRY, (), 1.2, 0.2, 0.9, DecayState.STABLE, None, 50, 0.01)
        until = NOW + timedelta(hours=6)
        overrides.publish(conn, OverrideSet(NOW, NOW, until, (override,), {}))
    return made


@pytest.fixture
def run_import(chosen: Settings, capsys: pytest.CaptureFixture[str]) -> Import:
    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as end:
            main(["import", "--book", chosen.book, *arguments])
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def older(chosen: Settings) -> Iterator[str]:
    """The schema of an older scheduler, beside the book."""
    name = f"before_{chosen.book}"
    with connect(chosen) as conn:
        conn.execute(f"CREATE SCHEMA {name}")
        conn.execute(
            f"CREATE TABLE {name}.learning_lessons (module text, pattern_key text, "
            "action_category text, scope_subset jsonb, n int, stats jsonb, lesson_type text, "
            "decay_halflife_hours float, latent_factor_id text, status text)"
        )
        conn.execute(
            f"INSERT INTO {name}.learning_lessons VALUES ('pm', 'pm.uptrend.S1.buy_flag', 'entry', "
            """'{"chain": "solana"}', 44, '{"edge_raw": 0.4}', null, 168, null, 'active'), """
            "('pm', null, 'entry', '{}', 44, '{}', null, null, null, null)"
        )
        conn.execute(
            f"CREATE TABLE {name}.pm_overrides (pattern_key text, action_category text, "
            "scope_subset jsonb, multiplier float)"
        )
        conn.execute(
            f"INSERT INTO {name}.pm_overrides VALUES "
            """('pm.uptrend.S1.buy_flag', 'entry', '{"chain": "solana"}', 0.7), """
            "('pm.uptrend.S1.buy_flag', 'entry', '{}', null)"
        )
    yield name
    with connect(chosen) as conn:
        conn.execute(f"DROP SCHEMA {name} CASCADE")


def _kept(conn: Conn) -> tuple[Any, ...] | None:
    return conn.execute(
        "SELECT (SELECT count(*) FROM imported_lessons), (SELECT count(*) FROM "
        "imported_edge_history)"
    ).fetchone()


def test_what_was_learned_before_is_kept_and_compared(
    run_import: Import, older: str, chosen: Settings
) -> None:
    with connect(chosen) as conn:
        conn.execute(
            f"CREATE TABLE {older}.learning_edge_history (pattern_key text, action_category text, "
            "scope_signature text, edge_raw float, ts timestamptz, n int)"
        )
        conn.execute(
            f"INSERT INTO {older}.learning_edge_history VALUES "
            "('pm.uptrend.S1.buy_flag', 'entry', 'chain=solana', 0.85, '2025-06-02Z', 40)"
        )
    for _ in range(2):
        outcome = run_import("--schema", older)
        assert (outcome.code, outcome.err) == (0, "")
        assert "1 read, 1 left out (there is no pattern key)" in outcome.out
        assert "1 not found" in outcome.out
        assert "1 opposite, 1 only ours" in outcome.out
        assert "2025-06-02 … 2025-06-02, 1 of them before the first trade" in outcome.out
        with connect(chosen) as conn:
            assert _kept(conn) == (1, 1)
            assert lessons.lessons(conn) == []
            assert [row["multiplier"] for row in overrides.override_rows(conn)] == [1.2]


def test_the_whole_comparison_as_json(run_import: Import, older: str) -> None:
    document = json.loads(run_import("--schema", older, "--json").out)
    assert document["missing"] == ["learning_edge_history"]
    assert document["left_out"] == {"learning_lessons": {"there is no pattern key": 1}}
    assert document["edge_history"] == {"n": 0, "before_first_trade": 0}
    [lesson] = document["lessons"]
    assert (lesson["n"], lesson["edge_raw"], lesson["here"]["found"]) == (44, 0.4, "not found")
    assert [(o["multiplier"], o["ours"], o["agreement"]) for o in document["overrides"]] == [
        (0.7, 1.2, "opposite"),
        (None, 1.2, "only ours"),
    ]


def test_older_tables_in_another_database(run_import: Import, older: str, chosen: Settings) -> None:
    outcome = run_import("--from", chosen.learning_url, "--schema", older)
    assert outcome.code == 0
    assert "no table learning_edge_history" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--from", "mysql://u:secret@h/d"), "--from is no PostgreSQL address"),
        (("--from", ""), "--from is no PostgreSQL address"),
        (("--from", "postgresql://u:secret@127.0.0.1:1/x"), "of --from at 127.0.0.1:1/x does not"),
        (("--schema", "nowhere"), "nowhere holds none of the older"),
        (("--schema", 'a"b'), "holds none of the older"),
    ],
)
def test_bad_input_is_one_sentence(
    run_import: Import, chosen: Settings, arguments: tuple[str, ...], expected: str
) -> None:
    outcome = run_import(*arguments)
    assert outcome.code == 2
    assert expected in outcome.err
    assert outcome.err.count("\n") == 1
    assert "secret" not in outcome.err
    with connect(chosen) as conn:
        assert _kept(conn) == (0, 0)


def test_nothing_is_kept_where_one_table_is_unfit(
    run_import: Import, older: str, chosen: Settings
) -> None:
    with connect(chosen) as conn:
        conn.execute(f"ALTER TABLE {older}.pm_overrides DROP COLUMN multiplier")
    outcome = run_import("--schema", older)
    assert outcome.code == 2
    assert "pm_overrides has no column multiplier" in outcome.err
    with connect(chosen) as conn:
        assert _kept(conn) == (0, 0)
