"""The page of `learning report`: every section, nothing from outside, and well-formed."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from learning_assets.cli import main
from learning_assets.core.adjust import MeasuredFactors, MeasuredHalfLives
from learning_assets.core.factors import Factor
from learning_assets.core.gain import ModuleGain
from learning_assets.core.halflife import HalfLife
from learning_assets.core.history import WEEK, EdgePoint
from learning_assets.core.learn import DetectionLimit
from learning_assets.core.records import (
    DayOutcome,
    DecayState,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    Override,
    OverrideSet,
    SliceStats,
)
from learning_assets.core.regime_weights import EVERY, RegimeEdge, RegimeWeights
from learning_assets.core.walkforward import ModuleResult, Replay, WeekResult
from learning_assets.report import Contents, Feedback, page, sum_in_words
from learning_assets.store import effectiveness, overrides, regime_weights
from learning_assets.store.connection import connect
from learning_assets.store.settings import Settings

NOW = datetime(2026, 3, 2, tzinfo=UTC)
KEY = GroupKey("pm", "pm.<b>$x</b>.S1.buy&flag", "entry")
SECTIONS = (
    "overrides", "lessons", "edges", "half-lives", "factors", "regimes", "walk-forward", "trades",
    "neutral", "words",
)  # fmt: skip
VOID = frozenset({"meta", "img", "wbr", "br"})


class Page(HTMLParser):
    """Reads a page and remembers its sections, addresses and words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.pictures: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.sections.append(given["id"])
        if tag == "img":
            self.pictures.append(given["alt"])
        self.addresses += [given[name] for name in ("src", "href") if name in given]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data


def read(text: str) -> Page:
    """The page, once it is found to be well-formed and to hold all it needs."""
    found = Page(text)
    assert found.open == []
    assert found.sections == list(SECTIONS)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in found.addresses)
    assert {address[1:] for address in found.addresses if address[0] == "#"} == set(SECTIONS)
    assert not re.search(r"@import|url\(|<script|<link", text)
    return found


LESSON = Lesson(
    KEY,
    (("chain", "solana"),),
    LessonStatus.ACTIVE,
    SliceStats(120, 0.1, 1.0, 0.7, 0.1, 3.0, 0.003, 0.02, 3.5, 3.0),
    Multipliers(0.7, 0.8, 0.9, 0.5, 0.4, 1.0, 3, 0.5),
    0.1,
    0.62,
    0.1,
)
WEAK = replace(LESSON, scope_subset=(("chain", "base"),), joint_edge_r=0.04)
PARTS = {
    "joint_edge_r": 0.62,
    "joint_se_r": 0.1,
    "remaining_share": 0.83,
    "share": 1.0,
    "regime_factor": 1.1,
    "gain": 0.5,
    "size_scale": 1.0,
    "notes": ["factor: none for this lesson; taken as a cause of its own"],
}


def override(scale: float = 1.0, edge_r: float = 0.62, multiplier: float | None = None) -> Override:
    adjusted = edge_r * 0.83 * 1.1
    parts = {**PARTS, "joint_edge_r": edge_r, "size_scale": scale}
    made = 1 + 0.5 * scale * adjusted if multiplier is None else multiplier
    state = DecayState.DECAYING
    return Override(
        KEY, LESSON.scope_subset, made, adjusted, 0.99999, state, 900.0, 120, 0.01, parts
    )


EXPECTED = {"total_size": 0.031, "volatility": -0.12, "drawdown": -0.4, "mean_rr": 0.137}
SET = OverrideSet(NOW, NOW, NOW + timedelta(hours=6), (override(),), EXPECTED)
EMPTY = Contents(
    "main", NOW, "none", 0, 0, {}, (), None, (), {}, {}, (), None, None, (), Feedback()
)  # fmt: skip


def full() -> Contents:
    weeks = [NOW - (10 - w) * WEEK for w in range(10)]
    points = [EdgePoint(LESSON.lesson_id, KEY, "x", w, 0.6, 0.2, 12, 0.1) for w in weeks]
    wear = HalfLife(DecayState.DECAYING, 900.0, 500.0, 2000.0, 0.7, 10, 0.01, 0.00077)
    names = (LESSON.lesson_id, WEAK.lesson_id)
    pair = Factor("lf_solana", "pm", "entry", (KEY.pattern_key,), names[0],
                  ((names[0], 1.0), (names[1], 0.64)), ((1.0, 0.7), (0.7, 1.0)))  # fmt: skip
    whole = GroupKey("pm", EVERY, EVERY)
    result = WeekResult(weeks[0], 40, 3, 12, 0.1, 0.15, 0.05, -0.02, 0.12, 1.01, {}, (), NOW)
    feedback = Feedback(
        "btc_macro=S1",
        [RegimeWeights(whole, "btc_macro=S1", 1.15, 0.9, 1.0, 1.1, 34, 0.63)],
        [RegimeEdge(KEY, "btc_macro", "S1", 77, 0.31, 0.12, 0.5)],
        [result],
        [ModuleGain("pm", weeks[0], 0.5, None, None, 0, 0),
         ModuleGain("pm", weeks[1], 0.66, 0.71, 0.2, 1, 40)],
    )  # fmt: skip
    return Contents(
        "main", NOW, "files: trades.csv", 6000, 20050, {"bad_rr": 7},
        [DayOutcome(NOW.date(), 3, 0.2)], SET, [LESSON, WEAK],
        {"pm": 1234}, {"pm": DetectionLimit(0.13, 3038)}, points,
        MeasuredHalfLives(NOW, {LESSON.lesson_id: wear}), MeasuredFactors(NOW, [pair]),
        [(WEAK.lesson_id, "its edge of +0.040 R is under 0.05 R")], feedback,
    )  # fmt: skip


def test_a_full_book_has_every_picture_and_number() -> None:
    text = page(full())
    found = read(text)
    assert len(found.pictures) == 8
    for words in (
        "pm.<b>$x</b>.S1.buy&flag", "files: trades.csv", "6,000 closed trades with 20,050 actions",
        "1 + gain 0.50 × edge +0.62 R × left 0.83 × share 1.00 × regime 1.10 = ×1.28",
        "> 99.9%", "+0.62 ± 0.16",
        "+3.1%", "+0.137 R", "1,234 slices of pm", "2 active", "900 h", "500 to 2,000", "lf_solana",
        "0.64", "pm, all patterns", "1.15", "btc_macro=S1", "0.12 to 0.50", "+0.05", "0.66",
        "bad_rr", "taken as a cause of its own", "its edge of +0.040 R is under 0.05 R",
        "Nothing is missing.",
    ):  # fmt: skip
        assert words in found.words, words
    assert "<b>$x" not in text


def test_only_the_newest_gain_is_in_the_table() -> None:
    words = Page(page(replace(EMPTY, feedback=Feedback(gains=full().feedback.gains)))).words
    assert "2025-12-29" in words
    assert "2025-12-22" not in words


def test_an_empty_book_says_what_is_missing() -> None:
    found = read(page(EMPTY))
    assert found.pictures == []
    for words in (
        "Nothing has been published yet", "No lesson is active", "no day to show",
        "No half-life has been measured yet", "Factors have not been looked for yet",
        "Regime weights are not measured", "No week has been walked forward",
    ):  # fmt: skip
        assert words in found.words, words


def test_a_set_that_has_expired_is_marked() -> None:
    assert "expired" not in Page(page(full())).words.partition("Overrides")[0]
    late = replace(full(), made_at=SET.expires_at)
    assert "2026-03-02 06:00 UTC: expired" in Page(page(late)).words


def test_long_tables_end_with_a_count() -> None:
    many = [(f"lesson {i}", "worn out") for i in range(45)]
    words = Page(page(replace(EMPTY, withheld=many))).words
    assert "lesson 39" in words
    assert "lesson 40" not in words
    assert "… and 5 more" in words


def test_the_sum_of_a_multiplier_in_words() -> None:
    scaled = sum_in_words(override(scale=0.5))
    product = "gain 0.50 × edge +0.62 R × left 0.83 × share 1.00 × regime 1.10 × scale 0.50"
    assert scaled == f"1 + {product} = ×1.14"
    bound = sum_in_words(override(edge_r=6.0, multiplier=3.0))
    assert bound.endswith("= ×3.74, held at the bound ×3.00")
    assert "parts are not known" in sum_in_words(replace(override(), parts={}))


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("scale", [0.25, 1.0])
@pytest.mark.parametrize("regime", [0.5, 1.0, 1.5])
def test_the_sum_in_words_multiplies_out(regime: float, scale: float, share: float) -> None:
    parts = {**PARTS, "size_scale": scale, "regime_factor": regime, "share": share}
    adjusted = 0.62 * 0.83 * share * regime
    made = replace(
        override(), multiplier=1 + 0.5 * scale * adjusted, adjusted_edge_r=adjusted, parts=parts
    )
    said = sum_in_words(made)
    terms, _, whole = said.removeprefix("1 + ").partition(" = ×")
    product = math.prod(float(re.findall(r"[+\d.]+", term)[0]) for term in terms.split(" × "))
    assert float(whole) == pytest.approx(1 + product, abs=0.005)
    assert "held" not in said


# --- the command -----------------------------------------------------------------------------


def _learning(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.fixture
def filled(
    book: Settings, server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Settings:
    """A book with six trades, and the place to write to."""
    for name in ("LEARNING_DATABASE_URL", "LEARNING_DAGSTER_URL", "LEARNING_STRANDS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DAGSTER_HOME", "DAGSTER_PG_URL", "LEARNING_BOOK", "DAGSTER_EVENT_BATCH_SIZE"):
        # Set before it is deleted, so that it is put back whatever the command does to it.
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    for name, value in server_env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    head = "trade_id,closed_at,rr,pattern_key,action_category,scope.chain\n"
    rows = (f"t{i},2026-07-0{1 + i}T10:00Z,{0.5 * i - 1},pm.a.b.c,entry,solana\n" for i in range(6))
    (tmp_path / "trades.csv").write_text(head + "".join(rows))
    assert _learning("run", "--trades", "trades.csv", "--book", book.book) == 0
    return book


def test_the_report_of_a_small_book_is_written_whole(
    filled: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert _learning("report", "--book", filled.book) == 0
    written = tmp_path / "report.html"
    assert capsys.readouterr().out == f"the report on the book {filled.book} is in {written}\n"
    found = read(written.read_text(encoding="utf-8"))
    assert "6 closed trades with 6 actions" in found.words
    assert "too few trades to test any slice" in found.words
    assert [alt.partition(":")[0] for alt in found.pictures] == ["Walk-forward", "Closed trades"]
    written.write_text("old")
    assert _learning("report", "--book", filled.book, "--out", str(written)) == 0
    assert written.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "trades.csv"}


def _section(text: str, name: str) -> str:
    """The words of one section."""
    head, _, rest = text.partition(f'<section id="{name}"')
    assert head != text
    return Page(rest.partition(">")[2].partition("</section>")[0]).words


def test_the_report_of_a_book_holds_its_walk_forward_and_weights(
    filled: Settings, tmp_path: Path
) -> None:
    whole = GroupKey("pm", EVERY, EVERY)
    with connect(filled) as conn:
        live = overrides.live(conn)
        assert live is not None
        as_of = live.content.as_of
        weights = [RegimeWeights(whole, "btc_macro=S1", 1.15, 0.9, 1.0, 1.07, 34, 0.63)]
        regime_weights.replace_regime_weights(conn, as_of, weights)
        week = datetime(2026, 6, 22, tzinfo=UTC)
        content = OverrideSet(week, week, week + WEEK, (), {}, replay=True)
        stored = effectiveness.save_replays(conn, [Replay(content, {})], {week: "d"})
        none = {m: ModuleResult(0.5, 0, ()) for m in ("pm", "dm")}
        judged = WeekResult(week, 44, 3, 12, 0.1, 0.17, 0.07, -0.02, 0.12, 1.01, none, (), as_of)
        effectiveness.replace_results(conn, [judged], stored)
    assert _learning("report", "--book", filled.book) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(read(text).pictures) == 3
    walked, regimes = _section(text, "walk-forward"), _section(text, "regimes")
    for words in ("2026-06-22", "2026-06-29", "44", "+0.07", "-0.02 to 0.12", "1.01", "0.50"):
        assert words in walked, words
    for words in ("pm, all patterns", "btc_macro=S1", "1.15", "1.07", "34"):
        assert words in regimes, words


def test_a_place_that_cannot_be_written_to_is_refused(
    filled: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert _learning("report", "--book", filled.book, "--out", "missing/report.html") == 2
    assert "the folder missing does not exist" in capsys.readouterr().err
    assert _learning("report", "--book", filled.book, "--out", str(tmp_path)) == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["trades.csv"]


def test_a_book_without_trades_has_no_report(
    filled: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _learning("report", "--book", "never_used") == 2
    assert "the book never_used holds nothing yet" in capsys.readouterr().err
    assert _learning("reset", "--book", filled.book, "--yes") == 0
    assert _learning("report", "--book", filled.book) == 2
    assert "holds nothing yet" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_other_commands_do_not_wait_for_the_pictures() -> None:
    code = "import sys, learning_assets.cli; print('matplotlib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "False"
