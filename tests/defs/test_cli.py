from __future__ import annotations

import itertools
import json
import math
import os
import random
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from learning_assets.cli import main
from learning_assets.cli.show import overrides_table
from learning_assets.core.changes import Reason, Why, changes
from learning_assets.core.records import DecayState, GroupKey, Override, OverrideSet
from learning_assets.runtime import InSampleError, OverrideBook
from learning_assets.sources.demo import MarketSettings, simulate, write_strands
from learning_assets.store.books import recorded_revision
from learning_assets.store.connection import connect, open_database
from learning_assets.store.migrations import migrate
from learning_assets.store.overrides import hold_back, live, publish
from learning_assets.store.settings import Settings, settings

CSV_HEAD = "trade_id,closed_at,rr,pattern_key,action_category,scope.chain\n"
VARIABLES = ("LEARNING_DATABASE_URL", "LEARNING_DAGSTER_URL", "LEARNING_STRANDS_URL")
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
NOBODY = "postgresql://u:secret@127.0.0.1:1/x"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is no JSON number")

        return json.loads(self.out, parse_constant=refuse)


Learning = Callable[..., Outcome]


@pytest.fixture
def learning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Learning:
    """The command, in this process, with a home that does not exist yet."""
    for name in (*VARIABLES, "LEARNING_DEBUG", "DAGSTER_HOME", "DAGSTER_PG_URL", "LEARNING_BOOK"):
        # Set before it is deleted, so that it is put back whatever the command does to it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("DAGSTER_EVENT_BATCH_SIZE", "DAGSTER_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("LEARNING_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, captured.out, captured.err)

    return call


@pytest.fixture
def book(learning: Learning, server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a book that does not exist yet, on the tests' server."""
    for name, value in server_env.items():
        monkeypatch.setenv(name, value)
    return f"cli{next(_numbers)}"


def _csv(path: Path, n: int = 6, head: str = CSV_HEAD, bad: str = "") -> Path:
    rows = [f"t{i},2026-01-{i + 1:02d}T12:00Z,{i % 3 - 1}.5,pm.a.b,entry,sol" for i in range(n)]
    path.write_text(head + "\n".join(rows) + "\n" + bad)
    return path


def _write(name: str, text: str = "") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def _nothing(folder: Path) -> None:
    pass


def _leaking(folder: Path) -> None:
    _csv(folder / "x.csv", head=CSV_HEAD.replace("chain", "exit_reason"))


def _late(folder: Path) -> None:
    _csv(folder / "x.csv", head=CSV_HEAD.replace("chain", "Exit Price"))


def _useless(folder: Path) -> None:
    _csv(folder / "x.csv", n=0, bad="bad,2026-01-03,abc,pm.a.b,entry,sol\n")


def _fine(folder: Path) -> None:
    _csv(folder / "x.csv")


BAD: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "no such path": (_nothing, ("run", "--trades", "gone.json"), "does not exist"),
    "empty csv": (_write("x.csv"), ("run", "--trades", "x.csv"), "is empty"),
    "empty json": (_write("x.json"), ("run", "--trades", "x.json"), "is empty"),
    "json of another kind": (_write("x.json", '{"a": 1}'), ("run", "--trades", "x.json"), "export"),
    "broken json": (_write("x.json", '{"a": '), ("run", "--trades", "x.json"), "x.json"),
    "unknown kind": (_write("x.doc", "a"), ("run", "--trades", "x.doc"), "unknown kind"),
    "after entry": (_leaking, ("run", "--trades", "x.csv"), "known only after the entry"),
    "unknown option": (_nothing, ("run", "--bogus"), "No such option: --bogus"),
    "unknown command": (_nothing, ("bogus",), "No such command"),
    "no value": (_nothing, ("run", "--trades"), "requires an argument"),
    "no number": (_fine, ("run", "--trades", "x.csv", "--risk", "much"), "--risk"),
    "bad time": (_nothing, ("run", "--as-of", "yesterday"), "is no time"),
    "future": (_nothing, ("run", "--as-of", "2999-01-01"), "lies in the future"),
    "two sources": (_fine, ("run", "--trades", "x.csv", "--source", "strands"), "two sources"),
    "unknown source": (_nothing, ("run", "--source", "sheets"), "is unknown"),
    "risk of nothing": (_nothing, ("run", "--risk", "0.1"), "belong to --trades"),
    "strands of nobody": (_nothing, ("run", "--source", "strands"), "LEARNING_STRANDS_URL"),
    "nothing usable": (_useless, ("run", "--trades", "x.csv"), "no trade of"),
    "no late name": (_late, ("run", "--trades", "x.csv"), "known only after the entry"),
    "empty book": (_fine, ("run", "--trades", "x.csv", "--book", ""), "not allowed"),
    "bad book": (_fine, ("run", "--trades", "x.csv", "--book", "My Book"), "not allowed"),
    "real into demo": (_fine, ("run", "--trades", "x.csv", "--book", "demo"), "simulated market"),
    "no source": (_nothing, ("run", "--book", "other"), "holds nothing yet"),
    "nothing to show": (
        _nothing,
        ("overrides",),
        "holds nothing yet: fill it with `learning run --trades PATH`; the simulated market is "
        "another one, `--book demo`",
    ),
    "bad status": (_nothing, ("lessons", "--status", "good"), "--status"),
    "bad module": (_nothing, ("lessons", "--module", "xy"), "no module"),
    "bad pattern": (_nothing, ("lookup", "pm.", "entry"), "pattern"),
    "bad category": (_nothing, ("lookup", "pm.a.b", "allocation"), "category"),
    "bad scope": (_nothing, ("lookup", "pm.a.b", "entry", "--scope", "{"), "no JSON"),
    "scope a list": (_nothing, ("lookup", "pm.a.b", "entry", "--scope", "[]"), "no JSON object"),
    "scope of lists": (_nothing, ("lookup", "a.b", "entry", "--scope", '{"a": []}'), "scope"),
    "nothing to import into": (_nothing, ("import",), "holds nothing yet"),
    "nothing to reset": (_nothing, ("reset", "--yes"), "holds nothing yet"),
    "bad port": (_nothing, ("ui", "--port", "0"), "--port"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_bad_input_ends_with_one_sentence_and_writes_nothing(
    learning: Learning, tmp_path: Path, case: str
) -> None:
    prepare, arguments, expected = BAD[case]
    prepare(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = learning(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("learning: ")
    assert outcome.err.count("\n") == 1
    assert expected in outcome.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_database_that_does_not_answer(
    learning: Learning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, NOBODY)
    what = ["--source", "strands"]
    if variable != "LEARNING_STRANDS_URL":
        what = ["--trades", str(_csv(tmp_path / "x.csv"))]
    outcome = learning("run", *what)
    assert outcome.code == 2
    assert variable in outcome.err
    assert outcome.err.count("\n") == 1
    assert "secret" not in outcome.err
    assert not (tmp_path / "home").exists()


def test_debug_shows_the_traceback(learning: Learning) -> None:
    outcome = learning("--debug", "run", "--trades", "gone.json")
    assert outcome.code == 2
    assert "Traceback" in outcome.err


def test_columns_that_do_not_fit_give_a_mapping_to_send_to_a_file(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("id,when,R,setup\n1,2026-01-01,0.5,flag\n2,2026-01-02,-1,flag\n")
    outcome = learning("run", "--trades", str(path), "--book", book)
    assert outcome.code == 2
    assert "--mapping" in outcome.err
    proposal = tomllib.loads(outcome.out)
    assert {"columns", "constants"} <= proposal.keys()


def test_a_bad_row_is_rejected_and_the_rest_goes_on(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    path = _csv(tmp_path / "x.csv", bad="bad,2026-01-03,abc,pm.a.b,entry,sol\n")
    outcome = learning("run", "--trades", str(path), "--book", book, "--json")
    assert outcome.code == 0
    report = outcome.document
    assert report["trades"] == report["events"] == 6
    assert report["rejected"] == {"bad_rr": 1}
    assert report["as_of"] == "2026-01-07T00:00:00+00:00"
    assert report["slices_tested"].keys() == {"pm", "dm"}
    assert report["lessons"] == {"active": 0, "redundant": 0, "candidate": 0, "deprecated": 0}
    assert report["overrides"] == []
    assert list(report["seconds"]) == [
        *("pattern_trade_events", "learning_lessons", "learning_edge_history"),
        *("lesson_half_lives", "learning_latent_factors", "learning_regime_weights"),
        *("override_effectiveness", "pm_overrides"),
    ]
    assert "truth" not in report


def test_the_live_set_is_not_taken_back_in_time(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    options = ("run", "--trades", str(_csv(tmp_path / "x.csv")), "--book", book)
    assert learning(*options, "--as-of", "2026-01-05").code == 0
    assert learning(*options).code == 0
    live = learning("lookup", "pm.a.b", "entry", "--book", book, "--json").document
    back = learning(*options, "--as-of", "2026-01-05")
    assert back.code == 2
    assert "is live as of 2026-01-07" in back.err
    again = learning("lookup", "pm.a.b", "entry", "--book", book, "--json").document
    assert again["set_id"] == live["set_id"]


def test_a_set_that_is_held_back_is_told_and_forced(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    options = ("run", "--trades", str(_csv(tmp_path / "x.csv")), "--book", book)
    assert learning(*options, "--json").document["held_back"] is None
    with connect(settings(os.environ, book)) as conn:
        now = live(conn)
        assert now is not None
        strange = tuple(_override(k) for k in range(4))
        publish(conn, replace(now.content, overrides=strange))
    told = learning(*options)
    assert told.code == 0
    assert "held back" in told.out
    assert "4 of 4 overrides would change" in " ".join(told.out.split())
    forced = learning(*options, "--force", "--json").document
    assert forced["held_back"] is None
    assert forced["overrides"] == []


def _override(k: int) -> Override:
    key = GroupKey("pm", "pm.a.b", "entry")
    state = DecayState.STABLE
    return Override(key, (("k", str(k)),), 1.4, 0.8, 0.99, state, None, 50, 0.01, {})


def test_an_unknown_plan_or_owner_is_one_sentence_and_nothing_is_written(
    learning: Learning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _csv(tmp_path / "x.csv")
    for variable, wrong in (
        ("LEARNING_PLAN", "is unknown"),
        ("LEARNING_META_LEARNERS", "is unknown"),
        ("LEARNING_KEEP_RUNS_DAYS", "is no number of days"),
        ("LEARNING_OWNERS", "'hourly' is no owner"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "hourly")
            for command in (("run", "--trades", str(path)), ("ui",)):
                outcome = learning(*command)
                assert outcome.code == 2
                assert f"{variable}=hourly" in outcome.err
                assert wrong in outcome.err
                assert outcome.err.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_a_moment_before_the_first_trade_is_refused(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    options = ("run", "--trades", str(_csv(tmp_path / "x.csv")), "--book", book)
    outcome = learning(*options, "--as-of", "2020-01-01")
    assert outcome.code == 2
    assert "the first one closed on 2026-01-01" in outcome.err
    assert recorded_revision(settings(os.environ, book)) is None


def test_rejected_rows_of_files_of_one_name_are_kept_apart(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = _csv(tmp_path / folder / "x.csv", bad=",2026-01-03,1,pm.a.b,entry,sol\n")
        report = learning("run", "--trades", str(path), "--book", book, "--json").document
    assert report["rejected"] == {"no_trade_id": 2}


def test_a_book_remembers_its_source_and_takes_each_trade_once(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    first, second = _csv(tmp_path / "a.csv", 4), _csv(tmp_path / "b.csv", 6)
    for path in (first, second):
        assert learning("run", "--trades", str(path), "--book", book).code == 0
    _csv(second, 8)
    again = learning("run", "--book", book, "--json").document
    assert again["trades"] == 8
    assert again["source"]["location"] == str(second)


def test_strands_are_read_up_to_now(
    learning: Learning,
    server_env: Mapping[str, str],
    book: str,
) -> None:
    chosen = settings(server_env, book)
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    market = simulate(
        MarketSettings(
            n_trades=120,
            start=start - timedelta(days=10),
            span_days=10,
            n_effects=0,
            n_dm_effects=0,
        )
    )
    nowhere = learning("run", "--source", "strands", "--book", book)
    assert nowhere.code == 2
    assert "ad_strands" in nowhere.err
    assert not exists(chosen)
    with open_database(chosen.learning_url, "the tests") as conn:
        written = write_strands(conn, market, "public")
        try:
            report = learning("run", "--source", "strands", "--book", book, "--json").document
        finally:
            conn.execute("DROP TABLE public.ad_strands")
    assert report["trades"] == 120
    assert report["rejected"] == {str(reason): n for reason, n in written.rejected.items()}
    assert report["source"] == {"kind": "strands", "location": "public.ad_strands", "notes": []}
    age = datetime.now(UTC) - datetime.fromisoformat(report["as_of"])
    assert timedelta(0) <= age < timedelta(minutes=5)


def exists(chosen: Settings) -> bool:
    return recorded_revision(chosen) is not None


def test_the_summary_says_what_could_have_been_found_and_fits_a_narrow_terminal(
    learning: Learning, tmp_path: Path, book: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        f"t{i},2026-01-{1 + i % 28:02d},{(i * 7) % 5 - 2},pm.a.b,entry,{'sol' if i % 2 else 'eth'}"
        for i in range(120)
    ]
    path = tmp_path / "x.csv"
    path.write_text(CSV_HEAD + "\n".join(rows) + "\n")
    outcome = learning("run", "--trades", str(path), "--book", book)
    assert outcome.code == 0
    assert "pm: an edge of at least" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def _publish(book: str, server_env: Mapping[str, str], age: timedelta) -> OverrideSet:
    chosen = settings(server_env, book)
    migrate(chosen)
    at = datetime.now(UTC) - age
    override = Override(
        GroupKey("pm", "pm.a.b", "entry"),
        (("chain", "sol"),),
        1.4,
        0.8,
        0.99,
        DecayState.INSUFFICIENT,
        None,
        200,
        math.nan,
        {"joint_edge_r": 0.8},
    )
    published = OverrideSet(at, at, at + timedelta(hours=6), (override,), {"total_size": 0.0})
    with connect(chosen) as conn:
        publish(conn, published)
    return published


@pytest.mark.parametrize(
    ("age_hours", "scope", "status", "multiplier"),
    [
        (0, '{"chain": "sol", "tf": 1}', "ok", 1.4),
        (0, '{"chain": "eth"}', "no_match", 1.0),
        (7, '{"chain": "sol"}', "stale", 1.0),
    ],
)
def test_lookup(
    learning: Learning,
    server_env: Mapping[str, str],
    book: str,
    age_hours: float,
    scope: str,
    status: str,
    multiplier: float,
) -> None:
    _publish(book, server_env, timedelta(hours=age_hours))
    ask = ("lookup", "pm.a.b", "entry", "--scope", scope, "--book", book)
    answer = learning(*ask, "--json").document
    assert (answer["status"], answer["multiplier"]) == (status, multiplier)
    assert answer["set_id"] == 1
    assert len(answer["matched"]) == (status == "ok")
    shown = learning(*ask)
    assert shown.code == 0
    assert f"× {multiplier:.3f}" in shown.out


def test_both_forms_of_a_pattern_are_the_same(
    learning: Learning, server_env: Mapping[str, str], book: str
) -> None:
    _publish(book, server_env, timedelta())
    for pattern in ("pm.a.b", "a.b", "module=pm|pattern_key=a.b"):
        ask = ("lookup", pattern, "entry", "--scope", '{"chain": "sol"}', "--book", book)
        assert learning(*ask, "--json").document["status"] == "ok"


def test_lookup_before_anything_was_published(
    learning: Learning, server_env: Mapping[str, str], book: str
) -> None:
    migrate(settings(server_env, book))
    answer = learning("lookup", "pm.a.b", "entry", "--book", book, "--json").document
    assert (answer["status"], answer["multiplier"], answer["set_id"]) == ("no_overrides", 1.0, None)


def test_overrides_and_lessons_print_rows(
    learning: Learning, server_env: Mapping[str, str], book: str
) -> None:
    _publish(book, server_env, timedelta())
    [row] = learning("overrides", "--book", book, "--json").document
    assert row["q_value"] is None
    assert row["multiplier"] == 1.4
    statistics = {"n", "avg_rr", "variance", "delta_rr", "se", "p_value", "edge_raw"}
    assert statistics | {"joint_edge_r", "scope_subset", "expires_at"} <= row.keys()
    assert learning("lessons", "--book", book, "--json").document == []
    assert "chain=sol" in learning("overrides", "--book", book).out


def test_sets_and_what_they_change(
    learning: Learning, server_env: Mapping[str, str], book: str
) -> None:
    first = _publish(book, server_env, timedelta(hours=2))
    [kept] = first.overrides
    another = replace(kept, scope_subset=(), multiplier=0.8)
    at = first.published_at + timedelta(hours=1)
    again = replace(first, published_at=at, overrides=(replace(kept, multiplier=1.9), another))
    nothing = replace(first, overrides=())
    gone = {kept.lesson_id: Reason(Why.DEPRECATED, "no longer kept: explained by another")}
    with connect(settings(server_env, book)) as conn:
        publish(conn, again, changes(first.overrides, again.overrides))
        hold_back(conn, nothing, changes(again.overrides, (), gone))
        publish(conn, replace(again, replay=True))
    rows = learning("sets", "--replays", "--book", book, "--json").document
    assert [(row["set_id"], row["state"]) for row in rows] == [
        (4, "replay"), (3, "held back"), (2, "live"), (1, "past"),
    ]  # fmt: skip
    assert [row["changed"] for row in rows] == [
        None, "1 × deprecated, 1 × gone", "1 × learned again, 1 × new lesson", None,
    ]  # fmt: skip
    assert [change["detail"] for change in rows[1]["changes"]] == [
        "no longer kept: explained by another", "the other set has none for it",
    ]  # fmt: skip
    assert rows[3]["live_to"] == rows[2]["live_from"] == at.isoformat()
    few = learning("sets", "--last", "2", "--book", book, "--json").document
    assert [row["set_id"] for row in few] == [3, 2]
    different = learning("diff", "1", "2", "--book", book, "--json").document
    assert [(c["lesson_id"], c["old"], c["new"], c["why"]) for c in different] == [
        ("pm.a.b/entry/chain=sol", 1.4, 1.9, "learned again"),
        ("pm.a.b/entry/*", None, 0.8, "new lesson"),
    ]
    shown = learning("diff", "2", "3", "--book", book).out
    assert "×1.900 →      –  pm.a.b/entry/chain=sol: deprecated (no longer kept: " in shown
    assert "×0.800 →      –  pm.a.b/entry/*" in shown
    assert "2 changed, 0 as before" in shown
    listed = learning("sets", "--book", book).out
    assert "held back" in listed
    assert "1 × new lesson" in " ".join(listed.split())
    refused = learning("diff", "1", "99", "--book", book)
    assert refused.code == 2
    assert "there is no set 99" in refused.err


def test_a_veto_holds_until_it_is_lifted(
    learning: Learning, server_env: Mapping[str, str], book: str
) -> None:
    published = _publish(book, server_env, timedelta(hours=1))
    name = published.overrides[0].lesson_id
    asked = ("lookup", "pm.a.b", "entry", "--scope", '{"chain": "sol"}', "--book", book)
    said = learning("veto", "--override", name, "--reason", "too thin", "--book", book)
    assert said.code == 0
    assert f"veto 1: set 2 is live now, with 1 override without effect ({name})" in said.out
    answer = learning(*asked, "--json").document
    assert (answer["status"], answer["multiplier"]) == ("ok", 1.0)
    assert [one["veto"] for one in answer["matched"]] == ["too thin"]
    assert "vetoed: too thin" in learning(*asked).out
    assert f"vetoed: {name} (× 1.40 without the veto): too thin" in learning(
        "overrides", "--book", book).out  # fmt: skip
    [row] = learning("vetoes", "--book", book, "--json").document
    assert (row["state"], row["in_force"], row["holds_back"]) == ("in force", True, [name])
    [live_row, _] = learning("sets", "--book", book, "--json").document
    assert (live_row["changed"], live_row["changes"][0]["detail"]) == ("1 × vetoed", "too thin")
    assert live_row["expires_at"] == published.expires_at.isoformat()
    # Going back to a set of before the veto does not undo it, and neither does holding one.
    assert learning("rollback", "1", "--book", book).code == 0
    assert learning(*asked, "--json").document["multiplier"] == 1.0
    assert "is lifted: set 4 is live now" in learning("unveto", "1", "--book", book).out
    assert learning(*asked, "--json").document["multiplier"] == 1.4
    with connect(settings(server_env, book)) as conn:
        current = live(conn)
    assert current is not None
    assert (current.pinned_at is not None, current.copy_of) == (True, 1)
    [row] = learning("vetoes", "--book", book, "--json").document
    assert (row["in_force"], row["holds_back"]) == (False, [])
    assert "has ended already" in learning("unveto", "1", "--book", book).err


@pytest.mark.parametrize(
    ("words", "multiplier"),
    [
        (("--pattern", "pm.a.b"), 1.0),
        (("--pattern", "module=pm|pattern_key=a.b", "--category", "entry"), 1.0),
        (("--pattern", "pm.a.b", "--category", "add"), 1.4),
        (("--pattern", "pm.a.c"), 1.4),
        (("--scope", '{"chain": "sol"}'), 1.0),
        (("--scope", '{"chain": "sol", "tf": 1}'), 1.4),
        (("--scope", '{"chain": "sol"}', "--pattern", "pm.a.c"), 1.4),
        (("--scope", '{"chain": "sol"}', "--until", "2999-01-01"), 1.0),
    ],
)
def test_what_a_veto_means(
    learning: Learning,
    server_env: Mapping[str, str],
    book: str,
    words: tuple[str, ...],
    multiplier: float,
) -> None:
    _publish(book, server_env, timedelta())
    assert learning("veto", *words, "--reason", "no", "--book", book).code == 0
    ask = ("lookup", "pm.a.b", "entry", "--scope", '{"chain": "sol", "tf": 2}', "--book", book)
    assert learning(*ask, "--json").document["multiplier"] == multiplier


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "say what is meant"),
        (("--override", "x", "--pattern", "pm.a.b"), "leave out --pattern"),
        (("--override", "pm.a.b/entry/chain=eth"), "the live set has no override"),
        (("--category", "entry", "--scope", '{"chain": "sol"}'), "add --pattern"),
        (("--pattern", "pm.a.b", "--category", "allocation"), "category"),
        (("--pattern", ""), "give a pattern like"),
        (("--scope", "{}"), "--scope is empty"),
        (("--scope", "chain"), "--scope is no JSON"),
        (("--pattern", "pm.a.b", "--until", "2020-01-01"), "is over"),
        (("--pattern", "pm.a.b", "--until", "soon"), "is no time"),
        (("--pattern", "pm.a.b", "--reason", " "), "--reason is empty"),
    ],
)
def test_a_veto_that_makes_no_sense_changes_nothing(
    learning: Learning,
    server_env: Mapping[str, str],
    book: str,
    words: tuple[str, ...],
    sentence: str,
) -> None:
    _publish(book, server_env, timedelta())
    refused = learning("veto", "--reason", "no", *words, "--book", book)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert sentence in refused.err
    assert learning("vetoes", "--book", book, "--json").document == []
    assert "there are no vetoes" in learning("vetoes", "--book", book).out


def _paying(path: Path, weeks: int) -> Path:
    """Ten trades a day, of which those on sol earn 2 R more."""
    rng, rows = random.Random(5), []
    for k in range(weeks * 70):
        closed = MONDAY + timedelta(hours=k * 2.4)
        chain = rng.choice(("sol", "eth"))
        outcome = rng.gauss(0, 1) + 2 * (chain == "sol")
        opened = closed - timedelta(hours=1)
        rows.append(f"t{k},{opened:%FT%TZ},{closed:%FT%TZ},{outcome:.2f},pm.a.b,entry,{chain}")
    head = "trade_id,opened_at,closed_at,rr,pattern_key,action_category,scope.chain\n"
    path.write_text(head + "\n".join(rows) + "\n")
    return path


def test_replay_makes_the_sets_of_their_time(
    learning: Learning, server_env: Mapping[str, str], book: str, tmp_path: Path
) -> None:
    trades = str(_paying(tmp_path / "x.csv", 5))
    assert learning("run", "--trades", trades, "--book", book, "--weeks", "1").code == 0
    live_before = learning("overrides", "--book", book, "--json").document
    period = ("--from", "2026-01-14", "--to", "2026-02-09", "--book", book)
    rows = learning("replay", *period, "--export", "sets.json", "--json").document
    assert [row["week"][:10] for row in rows] == [
        "2026-01-12", "2026-01-19", "2026-01-26", "2026-02-02",
    ]  # fmt: skip
    assert rows[-1]["overrides"] > 0
    assert learning("overrides", "--book", book, "--json").document == live_before

    chosen, begin = settings(server_env, book), datetime(2026, 1, 14, tzinfo=UTC)
    until = datetime(2026, 2, 9, tzinfo=UTC)
    with (
        OverrideBook.from_database(chosen.learning_url, schema=chosen.schema) as stored,
        OverrideBook.from_file("sets.json") as exported,
    ):
        first, second = (one.backtest(begin, until) for one in (stored, exported))
        for day in range(26):
            at = begin + timedelta(days=day)
            answers = [
                one.lookup("pm.a.b", "entry", {"chain": "sol"}, at) for one in (first, second)
            ]
            assert answers[0] == answers[1]
            week = next(row for row in rows if row["week"] <= at.isoformat() < row["until"])
            assert answers[0].set_id == week["set_id"]
        worse = first.lookup("pm.a.b", "entry", {"chain": "eth"}, at)
        assert answers[0].multiplier > worse.multiplier
        with pytest.raises(InSampleError, match="learning replay --from 2026-01-04"):
            stored.backtest(MONDAY - timedelta(days=1), until)

    # Once made they stay, unless more of the weeks are known that their gains rest on.
    again = learning("replay", *period, "--json").document
    assert again == rows
    earlier = learning("replay", "--from", "2026-01-01", "--to", "2026-02-09", "--book", book)
    assert "6 sets, each learned from what had closed before its week" in earlier.out
    anew = learning("replay", *period, "--json").document
    assert [row | {"set_id": 0} for row in anew] == [row | {"set_id": 0} for row in rows]


def test_the_running_week_is_replayed_too_and_replaced_when_it_is_over(
    learning: Learning, server_env: Mapping[str, str], book: str, tmp_path: Path
) -> None:
    learning("run", "--trades", str(_paying(tmp_path / "x.csv", 2)), "--book", book, "--weeks", "0")
    week = datetime.now(UTC) - timedelta(days=datetime.now(UTC).weekday())
    asked = ("replay", "--from", f"{week:%F}", "--book", book, "--json")
    [row] = learning(*asked).document
    assert row["week"][:10] == f"{week:%F}"
    [again] = learning(*asked).document
    assert again["week"] == row["week"]
    with connect(settings(server_env, book)) as conn:
        query = "SELECT count(*) FROM pm_override_sets WHERE replay AND as_of = %s"
        assert conn.execute(query, [row["week"]]).fetchone() == (1,)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--from", "2026-02-01", "--to", "2026-01-01"), "is not before --to"),
        (("--from", "soon"), "--from 'soon' is no time"),
        (("--from", "2999-01-01"), "lies in the future"),
        (("--from", "2026-01-01", "--export", "no/such/folder.json"), "--export"),
        (("--from", "2026-01-01"), "holds nothing yet"),
        ((), "--from"),
    ],
)
def test_a_replay_that_makes_no_sense(
    learning: Learning, book: str, words: tuple[str, ...], sentence: str
) -> None:
    refused = learning("replay", *words, "--book", book)
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert sentence in refused.err


def test_going_back_and_holding_a_set(
    learning: Learning, server_env: Mapping[str, str], book: str
) -> None:
    migrate(settings(server_env, book))
    for words in (("rollback",), ("pin",), ("unpin",), ("rollback", "7"), ("pin", "7")):
        refused = learning(*words, "--book", book)
        assert refused.code == 2
        assert len(refused.err.splitlines()) == 1

    def live_now() -> tuple[int, int | None, bool, float]:
        with connect(settings(server_env, book)) as conn:
            found = live(conn)
        assert found is not None
        [override] = found.content.overrides
        return found.set_id, found.copy_of, found.pinned_at is not None, override.multiplier

    first = _publish(book, server_env, timedelta(hours=3))
    for hours, multiplier in ((2, 1.5), (1, 1.6)):
        at = first.published_at + timedelta(hours=3 - hours)
        made = replace(first, published_at=at, overrides=(
            replace(first.overrides[0], multiplier=multiplier),))  # fmt: skip
        with connect(settings(server_env, book)) as conn:
            publish(conn, made)
    with connect(settings(server_env, book)) as conn:
        replay = publish(conn, replace(first, replay=True))
    assert "never goes live" in learning("pin", str(replay), "--book", book).err
    assert live_now() == (3, None, False, 1.6)
    assert "set 5 (set 2 again)" in learning("rollback", "--book", book).out
    assert "held live by a person" in learning("doctor", "--book", book).out
    assert live_now() == (5, 2, True, 1.5)
    asked = ("lookup", "pm.a.b", "entry", "--scope", '{"chain": "sol"}', "--book", book, "--json")
    assert learning(*asked).document["status"] == "ok"
    assert learning("rollback", "--book", book).code == 0
    assert live_now() == (6, 1, True, 1.4)
    assert "no earlier set" in learning("rollback", "--book", book).err
    assert learning("sets", "--book", book, "--json").document[0]["state"] == "live, pinned"
    assert learning("unpin", "--book", book).code == 0
    assert live_now() == (6, 1, False, 1.4)
    assert learning("pin", "--book", book).code == 0
    assert live_now() == (6, 1, True, 1.4)
    assert learning("pin", "3", "--book", book).code == 0
    assert live_now() == (7, 3, True, 1.6)


def test_the_live_set_is_exported_for_a_bot_without_a_database(
    learning: Learning, server_env: Mapping[str, str], tmp_path: Path, book: str
) -> None:
    _publish(book, server_env, timedelta())
    out = tmp_path / "overrides.json"
    assert learning("overrides", "--export", str(out), "--book", book).code == 0
    asked = learning("lookup", "pm.a.b", "entry", "--scope", '{"chain": "sol"}', "--book", book,
                     "--json").document  # fmt: skip
    with OverrideBook.from_file(out) as client:
        answer = client.lookup(asked["pattern_key"], asked["action_category"], {"chain": "sol"})
    assert (answer.multiplier, answer.set_id) == (asked["multiplier"], asked["set_id"])
    assert answer.status == asked["status"]
    for wrong, said in ((tmp_path, "is a folder"), (tmp_path / "no" / "x.json", "does not exist")):
        refused = learning("overrides", "--export", str(wrong), "--book", book)
        assert refused.code == 2
        assert said in refused.err


def test_the_public_view_is_for_the_book_main(
    learning: Learning, tmp_path: Path, book: str
) -> None:
    learning("run", "--trades", str(_csv(tmp_path / "x.csv")), "--book", book)
    refused = learning("overrides", "--public-view", "--book", book)
    assert refused.code == 2
    assert "for the book main only" in refused.err


def test_doctor(learning: Learning, tmp_path: Path, book: str) -> None:
    ill = learning("doctor", "--book", book)
    assert ill.code == 1
    learning("run", "--trades", str(_csv(tmp_path / "x.csv")), "--book", book)
    well = learning("doctor", "--book", book, "--json")
    states = {finding["check"]: finding["state"] for finding in well.document}
    assert well.code == 0
    names = "database", "migrations", "history", "source", "events", "rejected", "overrides"
    by_the_daemon = "daemon", "schedules", "freshness", "sensors"
    assert states == {
        **dict.fromkeys((*names, "held_back"), "ok"),
        **dict.fromkeys(by_the_daemon, "skipped"),
    }
    (tmp_path / "x.csv").unlink()
    gone = learning("doctor", "--book", book)
    assert gone.code == 1
    assert "does not exist" in gone.out


def test_doctor_tells_of_a_set_that_waits(learning: Learning, tmp_path: Path, book: str) -> None:
    learning("run", "--trades", str(_csv(tmp_path / "x.csv")), "--book", book)
    with connect(settings(os.environ, book)) as conn:
        live_set = live(conn)
        assert live_set is not None
        hold_back(conn, live_set.content)
    ill = learning("doctor", "--book", book)
    assert ill.code == 1
    assert f"`learning run --book {book} --force`" in " ".join(ill.out.split())


@pytest.mark.parametrize("command", ["doctor", "ui"])
def test_a_wrong_address_for_alerts_is_bad_input(
    learning: Learning, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("LEARNING_ALERT_URL", "hooks.example.com/secret")
    wrong = learning(command)
    assert wrong.code == 2
    assert wrong.err.startswith("learning: LEARNING_ALERT_URL is no address of a webhook")
    assert "secret" not in wrong.err + wrong.out


def test_who_interrupts_is_told_that_it_has_stopped(
    learning: Learning, book: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(settings(os.environ, book))

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("learning_assets.store.vetoes.every", interrupted)
    stopped = learning("vetoes", "--book", book)
    assert (stopped.code, stopped.err) == (130, "learning: stopped\n")


def test_doctor_makes_nothing(learning: Learning, tmp_path: Path) -> None:
    assert learning("doctor").code == 1
    assert list(tmp_path.iterdir()) == []


def test_reset(
    learning: Learning, tmp_path: Path, book: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning("run", "--trades", str(_csv(tmp_path / "x.csv")), "--book", book)
    monkeypatch.setattr("typer.confirm", lambda *_args, **_options: False)
    assert learning("reset", "--book", book).code == 0
    assert "6 trades" in learning("doctor", "--book", book).out
    assert learning("reset", "--book", book, "--yes").code == 0
    after = learning("run", "--book", book)
    assert after.code == 2
    assert "has no source yet" in after.err


# --- the table of overrides ------------------------------------------------------------------


def _row(half_life_hours: float | None) -> dict[str, Any]:
    return {
        "pattern_key": "pm.uptrend.S1.buy_flag",
        "action_category": "allocation",
        "scope_subset": {"mcap_vol_ratio_bucket": "0.5-1", "bucket_rank_position": "3"},
        "n": 12_345,
        "joint_edge_r": -0.87,
        "joint_se_r": 0.13,
        "multiplier": 0.57,
        "half_life_hours": half_life_hours,
        "parts": {"remaining_share": 0.42},
    }


def _lines(*rows: dict[str, Any]) -> list[str]:
    console = Console(width=80, record=True, file=StringIO())
    console.print(overrides_table(rows, 80))
    return console.export_text().splitlines()


def test_half_lives_fit_80_columns() -> None:
    lines = _lines(_row(1234.5), _row(None))
    assert max(map(len, lines)) <= 80
    first, second = (line for line in lines if "12,345" in line)
    assert first.split()[-5:] == ["0.13", "1,234", "h", "42%", "0.57"]
    assert "-0.87 ± 0.13" in first
    assert second.split()[-3:] == ["–", "–", "0.57"]


def test_without_wear_there_is_no_column_for_it() -> None:
    assert not any("½-life" in line for line in _lines(_row(None)))
