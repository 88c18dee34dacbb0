"""CSV and Parquet files, mappings and their proposals, and what kind of source a path is."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learning_assets.core.records import RR_LIMIT, ClosedTrade, Reason
from learning_assets.errors import UserError
from learning_assets.sources.detect import SourceOptions, open_source
from learning_assets.sources.files import (
    MappingNeededError,
    load_mapping,
    propose_mapping,
    read_table,
)

GENETRADER = Path(__file__).parents[2].parent / "shared" / "data" / "genetrader-trades.csv.gz"
HEADER = "trade_id,closed_at,rr,pattern_key,action_category,scope.chain,scope.n"
ROW = "t1,2024-05-04T10:00:00Z,1.5,pm.up.S1.flag,entry,solana,3"


def _text(*lines):
    return "\n".join(lines) + "\n"


def _csv(tmp_path, *lines, name="trades.csv"):
    path = tmp_path / name
    path.write_text(_text(*lines), encoding="utf-8")
    return path


def _rows(source):
    return list(source.read(date.min, date.max))


def _read(tmp_path, *lines, **options):
    return _rows(open_source(_csv(tmp_path, *lines), **options))


def _mapping(tmp_path, text, name="mapping.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_canonical_columns_need_no_mapping(tmp_path):
    header = HEADER + ",module,opened_at,pnl_usd,payback_hours"
    source = open_source(_csv(tmp_path, header, ROW + ",pm,2024-05-03T10:00:00Z,12.5,7"))
    (trade,) = _rows(source)
    assert (trade.trade_id, trade.rr) == ("t1", 1.5)
    assert trade.closed_at == datetime(2024, 5, 4, 10, tzinfo=UTC)
    assert (trade.hold_hours, trade.pnl_usd, trade.payback_hours) == (24.0, 12.5, 7.0)
    (action,) = trade.actions
    assert (action.module, action.pattern_key) == ("pm", "pm.up.S1.flag")
    assert (action.action_category, action.scope) == ("entry", {"chain": "solana", "n": "3"})
    summary = source.summary()
    assert (summary.kind, summary.n_trades, summary.n_rejected) == ("files", 1, 0)
    assert (list(summary.days), summary.notes) == ([date(2024, 5, 4)], ())
    assert not source.is_live
    assert source.regime() is None


def test_rows_of_one_trade_are_its_actions(tmp_path):
    (trade,) = _read(tmp_path, HEADER, ROW, ROW.replace("entry", "trim").replace("solana", "base"))
    kinds = [(action.action_category, action.scope["chain"]) for action in trade.actions]
    assert kinds == [("entry", "solana"), ("trim", "base")]
    assert len({action.action_id for action in trade.actions}) == 2


def test_rows_that_repeat_count_once(tmp_path):
    source = open_source(_csv(tmp_path, HEADER, ROW, ROW))
    (trade,) = _rows(source)
    assert len(trade.actions) == 1
    assert source.summary().notes == (
        "1 row of trades.csv left out: exactly the same as another row.",
    )


@pytest.mark.parametrize("change", [("1.5", "1.6"), ("10:00", "11:00")])
def test_rows_that_disagree_are_a_conflict(tmp_path, change):
    other = ROW.replace(*change).replace("entry", "exit")
    torn, good = _read(tmp_path, HEADER, ROW, other, ROW.replace("t1", "t2"))
    if isinstance(torn, ClosedTrade):
        torn, good = good, torn
    assert (torn.reason, torn.trade_id) == (Reason.CONFLICTING_ROWS, "t1")
    assert "(2, 3)" in torn.detail
    assert [row["action_category"] for row in torn.payload["rows"]] == ["entry", "exit"]
    assert good.trade_id == "t2"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("1.5", "abc", Reason.BAD_RR),
        ("1.5", "", Reason.BAD_RR),
        ("1.5", "inf", Reason.BAD_RR),
        ("2024-05-04T10:00:00Z", "soon", Reason.BAD_TIMESTAMP),
        ("2024-05-04T10:00:00Z", "1999-05-04", Reason.BEFORE_START),
        ("t1", " ", Reason.NO_TRADE_ID),
        ("pm.up.S1.flag", "", Reason.NO_PATTERN_KEY),
        ("pm.up.S1.flag", "up.S1.flag", Reason.BAD_PATTERN_KEY),
        ("entry", "buy", Reason.BAD_CATEGORY),
        ("solana", "\x00", Reason.BAD_SCOPE),
        ("solana", "solana,extra", Reason.BAD_PAYLOAD),
        (",solana,3", "", Reason.BAD_PAYLOAD),
    ],
)
def test_one_bad_row_is_rejected_and_the_rest_goes_on(tmp_path, old, new, reason):
    good = [ROW.replace("t1", f"g{n}") for n in range(200)]
    rows = _read(tmp_path, HEADER, *good, ROW.replace(old, new))
    (bad,) = [row for row in rows if not isinstance(row, ClosedTrade)]
    assert bad.reason is reason
    assert bad.detail.startswith("row 202 of trades.csv: ")
    assert len(rows) == 201
    assert bad.trade_id == (None if reason in {Reason.NO_TRADE_ID, Reason.BAD_PAYLOAD} else "t1")
    json.dumps(dict(bad.payload), allow_nan=False)


def test_a_bad_action_does_not_take_its_trade_along(tmp_path):
    rows = _read(tmp_path, HEADER, ROW, ROW.replace("entry", "buy"))
    (trade,) = [row for row in rows if isinstance(row, ClosedTrade)]
    (bad,) = [row for row in rows if not isinstance(row, ClosedTrade)]
    assert len(trade.actions) == 1
    assert (bad.reason, bad.trade_id, bad.row_id) == (
        Reason.BAD_CATEGORY,
        None,
        f"{tmp_path / 'trades.csv'}:t1:2",
    )


def test_blank_lines_are_nothing(tmp_path):
    assert len(_read(tmp_path, HEADER, "", ROW, ",,,,,,", "")) == 1


def test_a_missing_zone_is_said_once(tmp_path):
    zoneless = ROW.replace("Z", "")
    source = open_source(_csv(tmp_path, HEADER, zoneless, zoneless.replace("t1", "t2")))
    assert source.summary().notes == ("Times without a zone (closed_at) are read as UTC.",)
    assert _rows(source)[0].closed_at == datetime(2024, 5, 4, 10, tzinfo=UTC)


def test_columns_that_are_not_used_are_named(tmp_path):
    source = open_source(_csv(tmp_path, HEADER + ",colour", ROW + ",red"))
    assert source.summary().notes == ("Columns not used: colour.",)


def test_missing_rr_names_the_column_and_what_was_there(tmp_path):
    text = [line.replace("rr,", "").replace("1.5,", "") for line in (HEADER, ROW)]
    with pytest.raises(MappingNeededError) as caught:
        open_source(_csv(tmp_path, *text))
    message = str(caught.value)
    assert "has no column rr (nor profit_ratio" in message
    assert "trade_id, closed_at, pattern_key" in message
    assert "\n" not in message
    assert '# rr = "…"' in caught.value.proposal


@pytest.mark.parametrize("dimension", ["exit_reason", "Duration", "max_rate"])
def test_dimensions_known_only_after_entry_are_refused(tmp_path, dimension):
    path = _csv(tmp_path, f"{HEADER},scope.{dimension}", ROW + ",x")
    with pytest.raises(UserError, match="known only after the entry"):
        open_source(path)
    forced = open_source(path, force_scope=True)
    assert _rows(forced)[0].actions[0].scope[dimension] == "x"


def test_a_leak_under_another_name_is_refused(tmp_path):
    path = _csv(tmp_path, HEADER + ",exit_reason", ROW + ",roi")
    mapping = _mapping(tmp_path, '[scope]\nwhy = "exit_reason"')
    with pytest.raises(UserError, match="'exit_reason' cannot be a scope dimension"):
        open_source(path, mapping=mapping)
    forced = open_source(path, mapping=mapping, force_scope=True)
    assert _rows(forced)[0].actions[0].scope["why"] == "roi"


# Files that are none


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", HEADER.encode(), "a header but no rows"),
        ("a.csv", b"\n\n", "no header"),
        ("a.csv", b"\x89PNG\x00\x00", "not a CSV file"),
        ("a.csv", HEADER.encode() + b"\x00\n" + ROW.encode(), "not a CSV file"),
        ("a.csv", "prüfung".encode("latin-1"), "not a CSV file"),
        ("a.csv.gz", b"not gzip", "not a CSV file"),
        ("a.csv.gz", gzip.compress(HEADER.encode(), mtime=0)[:-9], "not a CSV file"),
        ("a.csv", b"rr,rr\n1,2\n", "two columns of the name 'rr'"),
        ("a.parquet", b"PAR1 and nothing", "not a readable Parquet file"),
        ("a.xlsx", b"x", r"unknown kind \(\.xlsx\): known are .*\.csv"),
        ("a", b"x", "no extension"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_paths_that_are_nothing(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_source(tmp_path / "nowhere.csv")
    with pytest.raises(UserError, match="holds no files"):
        open_source(tmp_path)
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(UserError, match=r"no file of trades, but readme\.txt"):
        open_source(tmp_path)
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(UserError, match="holds no files"):
        open_source(tmp_path / "a.csv")


def test_a_folder_of_both_kinds_is_refused(tmp_path):
    _csv(tmp_path, HEADER, ROW)
    (tmp_path / "b.json").write_text('{"strategy": {"S": {"trades": []}}}')
    with pytest.raises(UserError, match=r"both freqtrade files and tables, e\.g\. b\.json"):
        open_source(tmp_path)


def test_a_folder_of_tables_is_one_source(tmp_path):
    _csv(tmp_path, HEADER, ROW, ROW.replace("t1", "t2"), name="a.csv")
    _csv(tmp_path, HEADER, ROW.replace("1.5", "2.5"), name="b.csv")
    rows = _rows(open_source(tmp_path))
    assert {row.trade_id: row.rr for row in rows} == {"t1": 2.5, "t2": 1.5}


# Formats


def test_all_formats_say_the_same(tmp_path):
    plain = open_source(_csv(tmp_path, HEADER, ROW))
    zipped = tmp_path / "trades.csv.gz"
    zipped.write_bytes(gzip.compress(_text(HEADER, ROW).encode()))
    marked = tmp_path / "bom.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + _text(HEADER, ROW).replace("\n", "\r\n").encode())
    european = _csv(tmp_path, HEADER.replace(",", ";"), ROW.replace(",", ";"), name="semi.csv")
    columns = {
        "trade_id": ["t1"],
        "closed_at": [datetime(2024, 5, 4, 10, tzinfo=UTC)],
        "rr": [1.5],
        "pattern_key": ["pm.up.S1.flag"],
        "action_category": ["entry"],
        "scope.chain": ["solana"],
        "scope.n": pa.array([3], pa.int64()),
    }
    parquet = tmp_path / "trades.parquet"
    pyarrow.parquet.write_table(pa.table(columns), parquet)
    for path in (zipped, marked, european, parquet):
        assert _rows(open_source(path)) == _rows(plain), path.name


def test_parquet_rows_are_judged_one_by_one(tmp_path):
    columns = {
        "trade_id": [1, 2, None, 4],
        "closed_at": [datetime(2024, 5, 4, 10), None, datetime(2024, 5, 4), datetime(2024, 5, 5)],
        "rr": [1.5, 1.0, 1.0, float("nan")],
        "pattern_key": ["pm.a.b"] * 4,
        "action_category": ["entry"] * 4,
        "scope.list": [None, ["a"], None, None],
    }
    path = tmp_path / "trades.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    source = open_source(path)
    rows = _rows(source)
    assert [row.trade_id for row in rows if isinstance(row, ClosedTrade)] == ["1"]
    assert sorted(row.reason for row in rows if not isinstance(row, ClosedTrade)) == [
        Reason.BAD_RR,
        Reason.BAD_TIMESTAMP,
        Reason.NO_TRADE_ID,
    ]
    assert "Times without a zone (closed_at) are read as UTC." in source.summary().notes


# Mappings

OTHER = "No,Coin,When,Profit,Stop,Colour"
OTHER_ROWS = ("1,SOL,2024-05-04T10:00Z,0.03,-0.1,red", "2,ETH,2024-05-05T10:00Z,-0.02,-0.6,blue")
OTHER_MAPPING = """
scope = ["Coin"]
[columns]
trade_id = ["No", "Coin"]
closed_at = "When"
profit_ratio = "Profit"
risk = "Stop"
[constants]
pattern_key = "pm.mine.long.entry"
action_category = "entry"
"""


def test_a_mapping_fits_other_columns(tmp_path):
    source = open_source(
        _csv(tmp_path, OTHER, *OTHER_ROWS), mapping=_mapping(tmp_path, OTHER_MAPPING)
    )
    first, second = _rows(source)
    assert (first.trade_id, first.rr) == ("1:SOL", pytest.approx(0.3))
    assert first.actions[0].scope == {"Coin": "SOL"}
    assert second.rr == pytest.approx(-1.0)  # an emergency stop: the mean loss
    assert source.summary().notes[:2] == (
        "rr is profit ÷ stop loss in 1 trade.",
        "rr is profit ÷ the mean loss of the pattern's losing trades (since a stop of 50% or more, "
        "or none, measures nothing; --risk names a better one) in 1 trade.",
    )


def test_the_named_risk_comes_from_the_command_line_then_the_mapping(tmp_path):
    path = _csv(tmp_path, OTHER, *OTHER_ROWS)
    mapping = _mapping(tmp_path, OTHER_MAPPING + "risk = 0.04\n")
    assert [row.rr for row in _rows(open_source(path, mapping=mapping))] == pytest.approx(
        [0.3, -0.5]
    )
    named = open_source(path, mapping=mapping, risk=0.01)
    assert [row.rr for row in _rows(named)] == pytest.approx([0.3, -2.0])


def test_without_stop_and_losers_there_is_no_r(tmp_path):
    path = _csv(tmp_path, OTHER, OTHER_ROWS[0].replace("-0.1", ""))
    (row,) = _rows(open_source(path, mapping=_mapping(tmp_path, OTHER_MAPPING)))
    assert (row.reason, row.trade_id) == (Reason.NO_RISK, "1:SOL")
    assert "--risk" in row.detail


def test_json_mappings_scope_tables_and_joined_keys(tmp_path):
    document = {
        "scope": {"coin": "Coin", "scope.colour": "Colour"},
        "columns": {
            "trade_id": "No",
            "closed_at": "When",
            "rr": "Profit",
            "pattern_key": ["Coin", "Colour"],
        },
        "constants": {"module": "pm", "action_category": "entry"},
    }
    mapping = _mapping(tmp_path, json.dumps(document), "mapping.json")
    rows = _rows(open_source(_csv(tmp_path, OTHER, OTHER_ROWS[0]), mapping=mapping))
    (action,) = rows[0].actions
    assert action.pattern_key == "pm.SOL.red"
    assert action.scope == {"coin": "SOL", "colour": "red"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("x = [", "not valid toml"),
        ("rows = 1", "unknown key 'rows'"),
        ("columns = 1", "must be a table"),
        ('[columns]\nprofit = "Profit"', "unknown field 'profit'"),
        ("[columns]\nrr = 1", "must name a column"),
        ('[columns]\nrr = ["a", "b"]', "must be one column"),
        ('[constants]\nrr = "1"', "unknown constant 'rr'"),
        ('[constants]\nrisk = "1"', "must be a number"),
        ("[constants]\nmodule = 1", "must be text"),
        ("[constants]\nrisk = 5", "no fraction"),
        ("scope = 1", "must list columns"),
        ("scope = [1]", "must list columns"),
        ('[columns]\nrr = "Win"', "names the column 'Win'.*columns are: No, Coin"),
        ('scope = ["Win"]', "names the column 'Win'"),
    ],
)
def test_mappings_that_are_none(tmp_path, text, message):
    path = _csv(tmp_path, OTHER, *OTHER_ROWS)
    with pytest.raises(UserError, match=message):
        open_source(path, mapping=_mapping(tmp_path, text))


def test_mapping_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_mapping(tmp_path / "nowhere.toml")
    with pytest.raises(UserError, match=r"must be a \.toml or \.json file"):
        load_mapping(_mapping(tmp_path, "x", "mapping.yaml"))
    with pytest.raises(UserError, match="must be an object"):
        load_mapping(_mapping(tmp_path, "[1]", "mapping.json"))


# Proposals


def test_a_proposal_fits_what_it_was_made_for(tmp_path):
    header = "Deal ID,Symbol,Direction,Open Date,Close Date,R-Multiple,Exit Reason,Chain,Fee"
    rows = [
        f"{n},S{n % 3},long,2024-05-{n % 9 + 1:02} 08:00,2024-05-{n % 9 + 1:02} 09:00,"
        f"{n / 7:.3f},roi,{('base', 'sol')[n % 2]},0.1"
        for n in range(40)
    ]
    path = _csv(tmp_path, header, *rows)
    with pytest.raises(MappingNeededError) as caught:
        open_source(path)
    source = open_source(path, mapping=_mapping(tmp_path, caught.value.proposal))
    trades = _rows(source)
    assert len(trades) == 40
    assert {row.trade_id for row in trades} == {str(n) for n in range(40)}
    assert trades[0].actions[0].pattern_key == "pm.long"
    assert set(trades[0].actions[0].scope) == {"Symbol", "Chain"}
    assert '"Exit Reason"' in caught.value.proposal.split("scope =")[0]


@given(
    st.lists(st.text(max_size=12), max_size=8, unique_by=str.strip),
    st.lists(st.lists(st.text(max_size=5) | st.none(), max_size=8), max_size=3),
)
@example(["", "\x7f"], [["", "0"]])
def test_a_proposal_is_always_a_mapping(tmp_path_factory, columns, sample):
    text = propose_mapping(columns, sample)
    encodable = text.encode("utf-8", "replace").decode("utf-8")
    load_mapping(_mapping(tmp_path_factory.mktemp("p"), encodable))


# What a book remembers


@given(
    st.text(min_size=1),
    st.none() | st.floats(0.001, 1),
    st.none() | st.text(min_size=1),
    st.booleans(),
)
def test_options_survive_json(path, risk, mapping, force_scope):
    options = SourceOptions(path, risk, mapping, force_scope)
    assert SourceOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_options_hold_from_anywhere(tmp_path, monkeypatch):
    _csv(tmp_path, OTHER, *OTHER_ROWS)
    _mapping(tmp_path, OTHER_MAPPING)
    monkeypatch.chdir(tmp_path)
    options = SourceOptions.of(Path("trades.csv"), risk=0.01, mapping=Path("mapping.toml"))
    monkeypatch.chdir("/")
    assert [row.rr for row in _rows(options.open())] == pytest.approx([0.3, -2.0])
    assert SourceOptions.from_json({"path": "x"}) == SourceOptions("x")


# Regimes


def test_the_newest_regime_is_that_of_the_newest_row(tmp_path):
    header = (
        "trade_id,closed_at,rr,pattern_key,action_category,scope.btc_macro,scope.alt_meso,opened_at"
    )
    rows = [
        "a,2024-05-04T10:00Z,1,pm.a.b,entry,S1,S2,2024-05-03T10:00Z",
        "b,2024-05-06T10:00Z,1,pm.a.b,entry,S3,,2024-05-05T10:00Z",
        "c,2024-05-07T10:00Z,1,pm.a.b,entry,,,2024-05-06T10:00Z",
    ]
    reading = open_source(_csv(tmp_path, header, *rows)).regime()
    assert reading.states == {"btc_macro": "S3"}
    assert reading.at == datetime(2024, 5, 5, 10, tzinfo=UTC)


# At size, and the real file


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(-5, 5)), min_size=1), st.randoms())
def test_the_order_of_rows_does_not_matter(tmp_path_factory, found, random):
    folder = tmp_path_factory.mktemp("order")
    rows = list(
        {
            n: f"t{n},2024-05-{n % 28 + 1:02}T10:00Z,{r},pm.a.b,entry,x,{n}" for n, r in found
        }.values()
    )
    first = _read(folder, HEADER, *rows)
    random.shuffle(rows)
    assert _read(folder, HEADER, *rows) == first
    assert len(first) == len(rows)


def test_a_large_file_is_whole(tmp_path):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(HEADER.split(","))
    for n in range(20_000):
        bad = "abc" if n % 1000 == 7 else n % 7 - 3.0
        writer.writerow([n // 2, f"2024-05-{n // 2 % 28 + 1:02}", bad, "pm.a.b", "entry", "x", n])
    source = open_source(_csv(tmp_path, text.getvalue().rstrip()))
    rejected = [row for row in _rows(source) if not isinstance(row, ClosedTrade)]
    conflicts = [row for row in rejected if row.reason is Reason.CONFLICTING_ROWS]
    assert sum(row.reason is Reason.BAD_RR for row in rejected) == 20
    assert source.summary().n_trades + len(conflicts) == 10_000


@pytest.mark.skipif(not GENETRADER.is_file(), reason=f"the real file is not at {GENETRADER}")
def test_the_real_file_is_usable_as_proposed(tmp_path):
    with pytest.raises(MappingNeededError) as caught:
        open_source(GENETRADER)
    source = open_source(GENETRADER, mapping=_mapping(tmp_path, caught.value.proposal))
    rows = _rows(source)
    trades = [row for row in rows if isinstance(row, ClosedTrade)]
    rejected = [row for row in rows if not isinstance(row, ClosedTrade)]
    conflicts = [row for row in rejected if row.reason is Reason.CONFLICTING_ROWS]
    no_risk = [row for row in rejected if row.reason is Reason.NO_RISK]
    assert len(conflicts) + len(no_risk) == len(rejected)
    n_rows = len(trades) + len(no_risk) + sum(len(row.payload["rows"]) for row in conflicts)
    assert n_rows == len(read_table(GENETRADER).rows) == 12_585
    assert max(abs(trade.rr) for trade in trades) < RR_LIMIT
    named = open_source(GENETRADER, mapping=_mapping(tmp_path, caught.value.proposal), risk=0.05)
    used = [row for row in _rows(named) if isinstance(row, ClosedTrade)]
    assert len({trade.actions[0].pattern_key for trade in used}) == 31
