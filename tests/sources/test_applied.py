"""What bots applied, read from each source; damaged, it never loses its trade."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from learning_assets.core.records import Applied, AppliedOverride, ClosedTrade
from learning_assets.runtime import Answer, Matched, Status
from learning_assets.sources.applied import AppliedReader, applied
from learning_assets.sources.detect import open_source
from learning_assets.sources.parse import RowError
from learning_assets.sources.strands import CLOSED, DECISION, PM_ACTION, _Reader, _Row

DOCUMENT: Mapping[str, Any] = {
    "multiplier": 1.3,
    "suggested": 1.3,
    "status": "ok",
    "reason": "",
    "set_id": 12,
    "overrides": [{"lesson_id": "pm.up.S1.flag/entry/*", "multiplier": 1.3}],
}
ANSWER = Applied(1.3, 1.3, Status.OK, 12, (AppliedOverride("pm.up.S1.flag/entry/*", 1.3),))
HELD_OUT = {**DOCUMENT, "multiplier": 1.0, "status": "held_out"}
NAN = '{"multiplier": NaN, "suggested": 1.0, "status": "ok"}'
LEFT_OUT = "cannot be read and is left out, the trade is taken in"


@pytest.mark.parametrize("status", [Status.OK, Status.HELD_OUT, Status.SHADOW])
def test_what_the_runtime_gives_to_keep_is_read(status: Status) -> None:
    multiplier = 1.3 if status == Status.OK else 1.0
    matched = (Matched("pm.up.S1.flag/entry/*", (), 1.3),)
    kept = Answer(multiplier, 1.3, status, "", matched, 12).document()
    answer = applied(json.dumps(kept))
    assert answer == Applied(multiplier, 1.3, status, 12, ANSWER.overrides)
    nothing = Answer(1.0, 1.0, Status.NO_OVERRIDES, "nothing has been published yet").document()
    assert applied(nothing) == Applied(1.0, 1.0, Status.NO_OVERRIDES)


@pytest.mark.parametrize("raw", [DOCUMENT, json.dumps(DOCUMENT)])
def test_an_answer_is_an_object_or_its_text(raw: object) -> None:
    assert applied(raw) == ANSWER


@pytest.mark.parametrize("raw", [None, "", "  ", "null", float("nan")])
def test_where_nobody_asked_there_is_none(raw: object) -> None:
    assert applied(raw) is None


def test_whole_numbers_and_no_set_will_do() -> None:
    found = applied({"multiplier": 1, "suggested": 2, "status": "shadow", "overrides": None})
    assert found == Applied(1.0, 2.0, Status.SHADOW)


DAMAGED = {
    "{": "is no JSON",
    "[1]": "no object",
    "[" * 100_000: "is no JSON",
    NAN: "multiplier is nan",
    "{}": "the status is None, not of ok, no_match",
}
WRONG: Mapping[str, tuple[Any, str]] = {
    "multiplier": ("1.3", "no number from 0 to 100"),
    "suggested": (True, "no number from 0 to 100"),
    "status": (["ok"], "not of ok"),
    "set_id": (12.5, "no whole number"),
    "overrides": ("pm.up", "no list"),
}


@pytest.mark.parametrize(("raw", "why"), [*DAMAGED.items(), (5, "no object"), (b"{}", "no object")])
def test_what_is_no_answer_says_why(raw: object, why: str) -> None:
    with pytest.raises(RowError, match=why):
        applied(raw)


@pytest.mark.parametrize("name", WRONG)
def test_fields_of_a_wrong_kind_say_why(name: str) -> None:
    value, why = WRONG[name]
    with pytest.raises(RowError, match=why):
        applied({**DOCUMENT, name: value})


@pytest.mark.parametrize("number", [-0.1, 100.1, float("inf"), float("nan"), 10**400, None])
def test_a_multiplier_is_a_number_that_can_be(number: object) -> None:
    for document in (
        {**DOCUMENT, "multiplier": number},
        {**DOCUMENT, "overrides": [{"lesson_id": "x", "multiplier": number}]},
    ):
        with pytest.raises(RowError, match="no number from 0 to 100"):
            applied(document)


@pytest.mark.parametrize("override", [3, {}, {"lesson_id": " ", "multiplier": 1.0}])
def test_an_override_has_a_lesson(override: object) -> None:
    with pytest.raises(RowError, match=r"no object|no name of a lesson"):
        applied({**DOCUMENT, "overrides": [override]})


def test_an_answer_that_contradicts_itself_is_none() -> None:
    with pytest.raises(RowError, match="the status is held_out, yet the size was changed"):
        applied({**DOCUMENT, "status": "held_out"})


def test_what_was_left_out_is_counted_and_the_first_is_named() -> None:
    reader = AppliedReader()
    assert list(reader.notes()) == []
    assert reader.read(DOCUMENT, "here") == ANSWER
    assert reader.read("{", "row 3") is None
    assert list(reader.notes()) == [
        f"applied_overrides of 1 action {LEFT_OUT}; row 3: applied_overrides is no JSON."
    ]
    reader.read(7, "row 9")
    [note] = reader.notes()
    assert "2 actions" in note
    assert "the first, row 3" in note


# --- strands ---------------------------------------------------------------------------------


def strand(row_id: str, kind: str, content: Any) -> _Row:
    return _Row("t", row_id, kind, None, content, {})


def closing_strand(**content: Any) -> _Row:
    summary = {"rr": 1.5, "exit_timestamp": "2026-03-05T12:00:00+00:00"}
    return strand("c", CLOSED, {"trade_summary": summary, **content})


def action(answer: object, category: str = "entry") -> dict[str, Any]:
    said = {"pattern_key": "up.S1.flag", "action_category": category, "scope": {}}
    return {**said, "applied_overrides": answer}


def of_strands(*rows: _Row) -> tuple[ClosedTrade, tuple[str, ...]]:
    reader = _Reader(date.min, date.max)
    [trade] = reader.trade(list(rows))
    assert isinstance(trade, ClosedTrade)
    return trade, reader.notes()


def test_strands_of_actions_and_allocations_say_what_was_applied() -> None:
    trade, notes = of_strands(
        closing_strand(),
        strand("entry", PM_ACTION, action(DOCUMENT)),
        strand("more", PM_ACTION, action(None, "add")),
        strand("alloc", DECISION, action(HELD_OUT, "allocation")),
    )
    found = {a.action_id: a.applied_overrides for a in trade.actions}
    assert found["entry"] == ANSWER
    assert found["more"] is None
    assert found["alloc"] is not None
    assert found["alloc"].status == Status.HELD_OUT
    assert notes == ()


def test_actions_inside_the_closing_strand_do_so_too() -> None:
    completed = [{"actions": [{"id": "a", **action(DOCUMENT)}, {"id": "b", **action(None)}]}]
    trade, _ = of_strands(closing_strand(completed_trades=completed))
    assert [a.applied_overrides for a in trade.actions] == [ANSWER, None]


@pytest.mark.parametrize("damaged", [{}, [], "{", 3, True, {**DOCUMENT, "multiplier": None}])
def test_a_damaged_answer_in_a_strand_loses_no_trade(damaged: object) -> None:
    trade, [note] = of_strands(closing_strand(), strand("entry", PM_ACTION, action(damaged)))
    assert trade.actions[0].applied_overrides is None
    assert f"1 action {LEFT_OUT}; entry: " in note


# --- files -----------------------------------------------------------------------------------

HEADER = "trade_id;closed_at;rr;pattern_key;action_category;applied_overrides"


def of_file(path: Path) -> tuple[list[Applied | None], tuple[str, ...]]:
    source = open_source(path)
    rows = list(source.read(date.min, date.max))
    assert all(isinstance(row, ClosedTrade) for row in rows)
    answers = [a.applied_overrides for r in rows if isinstance(r, ClosedTrade) for a in r.actions]
    return answers, source.summary().notes


def csv_of(tmp_path: Path, *answers: str) -> Path:
    path = tmp_path / "trades.csv"
    quoted = ('"{}"'.format(answer.replace('"', '""')) for answer in answers)
    rows = [
        f"t{k};2024-05-04T10:00:00Z;1.5;pm.up.S1.flag;entry;{answer}"
        for k, answer in enumerate(quoted)
    ]
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_column_of_a_file_says_what_was_applied(tmp_path: Path) -> None:
    answers, notes = of_file(csv_of(tmp_path, json.dumps(DOCUMENT), ""))
    assert answers == [ANSWER, None]
    assert notes == ()


def test_damaged_answers_in_a_file_lose_no_trade(tmp_path: Path) -> None:
    answers, [note] = of_file(csv_of(tmp_path, "{", json.dumps(DOCUMENT), NAN, "3"))
    assert answers == [None, ANSWER, None, None]
    assert f"3 actions {LEFT_OUT}; the first, row 2 of trades.csv: " in note


def test_what_was_applied_is_no_part_of_the_name_of_an_action(tmp_path: Path) -> None:
    names = []
    for answer in ("", json.dumps(DOCUMENT)):
        [trade] = open_source(csv_of(tmp_path, answer)).read(date.min, date.max)
        assert isinstance(trade, ClosedTrade)
        names.append(trade.actions[0].action_id)
    assert names[0] == names[1]


@pytest.mark.parametrize("as_text", [True, False])
def test_parquet_may_hold_text_or_objects(tmp_path: Path, as_text: bool) -> None:
    column = {
        "trade_id": ["t"], "closed_at": ["2024-05-04T10:00:00Z"], "rr": [1.5],
        "pattern_key": ["pm.up.S1.flag"], "action_category": ["entry"],
        "applied_overrides": [json.dumps(DOCUMENT) if as_text else dict(DOCUMENT)],
    }  # fmt: skip
    pa.parquet.write_table(pa.table(column), tmp_path / "trades.parquet")
    assert of_file(tmp_path / "trades.parquet") == ([ANSWER], ())


# --- freqtrade -------------------------------------------------------------------------------

CUSTOM_DATA = (
    "CREATE TABLE trade_custom_data (id INTEGER PRIMARY KEY, ft_trade_id INTEGER, "
    "cd_key VARCHAR(255), cd_type VARCHAR(25), cd_value TEXT, created_at DATETIME, "
    "updated_at DATETIME)"
)


def bot(path: Path, custom: Mapping[str, str]) -> Path:
    """A bot's database with a trade of an entry, an add and a trim, and its custom data."""
    trade = (1, "Daily", "BTC/USDT", 0, 0, "2024-05-04 08:25:00", "2024-05-04 10:25:00")
    orders = [("buy", "08:25"), ("buy", "09:00"), ("sell", "09:30"), ("sell", "10:25")]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE trades (id, strategy, pair, is_open, is_short, open_date, close_date, "
            "close_profit, initial_stop_loss_pct)"
        )
        database.execute(
            "CREATE TABLE orders "
            "(ft_trade_id, ft_order_side, ft_is_open, filled, order_filled_date)"
        )
        database.execute(CUSTOM_DATA)
        database.execute("INSERT INTO trades VALUES (?, ?, ?, ?, ?, ?, ?, 0.03, -0.1)", trade)
        database.executemany(
            "INSERT INTO orders VALUES (1, ?, 0, 1.0, ?)",
            [(side, f"2024-05-04 {clock}:00") for side, clock in orders],
        )
        database.executemany(
            "INSERT INTO trade_custom_data (ft_trade_id, cd_key, cd_type, cd_value) "
            "VALUES (1, ?, 'dict', ?)",
            custom.items(),
        )
    return path


def test_custom_data_of_a_bot_says_what_was_applied(tmp_path: Path) -> None:
    kept = {"entry": DOCUMENT, "trim1": HELD_OUT, "add9": DOCUMENT}
    custom = {"applied_overrides": json.dumps(kept), "something": "{"}
    answers, notes = of_file(bot(tmp_path / "tradesv3.sqlite", custom))
    assert [answers[0], answers[1]] == [ANSWER, None]
    assert answers[2] is not None
    assert answers[2].status == Status.HELD_OUT
    assert not any("applied_overrides" in note for note in notes)


@pytest.mark.parametrize(
    ("value", "n_unread"),
    [
        ("{", 1),
        ("[]", 1),
        ('"words"', 1),
        (json.dumps({"entry": 3, "add1": DOCUMENT}), 1),
        (f'{{"entry": {NAN}, "add1": {json.dumps(DOCUMENT)}, "trim1": []}}', 2),
    ],
)
def test_damaged_custom_data_loses_no_trade(tmp_path: Path, value: str, n_unread: int) -> None:
    answers, notes = of_file(bot(tmp_path / "tradesv3.sqlite", {"applied_overrides": value}))
    assert len(answers) == 3
    assert answers[0] is None
    assert answers[1] == (ANSWER if "add1" in value else None)
    [note] = [note for note in notes if "applied_overrides" in note]
    assert f"of {n_unread} action" in note
    assert "BTC/USDT opened at 2024-05-04 08:25:00" in note


@pytest.mark.parametrize("blob", ["x'ff7b'", "NULL", "7"])
def test_custom_data_that_is_no_text_loses_no_trade(tmp_path: Path, blob: str) -> None:
    path = bot(tmp_path / "tradesv3.sqlite", {"applied_overrides": "{}"})
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE trade_custom_data SET cd_value = CAST({blob} AS TEXT)")
    answers, notes = of_file(path)
    assert answers == [None] * 3
    assert any("applied_overrides" in note for note in notes) == (blob != "NULL")


def test_what_a_bot_keeps_later_replaces_what_it_kept(tmp_path: Path) -> None:
    path = bot(tmp_path / "tradesv3.sqlite", {})
    source = open_source(path)
    [before] = source.read(date.min, date.max)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "INSERT INTO trade_custom_data (ft_trade_id, cd_key, cd_type, cd_value) VALUES "
            "(1, 'Applied_Overrides', 'dict', ?)",
            [json.dumps({"entry": DOCUMENT})],
        )
    [after] = source.read(date.min, date.max)
    assert isinstance(before, ClosedTrade)
    assert isinstance(after, ClosedTrade)
    assert before.actions[0].applied_overrides is None
    assert after.actions[0].applied_overrides == ANSWER
