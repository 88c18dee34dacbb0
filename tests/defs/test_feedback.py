"""What bots applied, from strands to the row of the newest week and to what people see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from statistics import fmean

import dagster as dg
import pytest

from learning_assets.cli import main
from learning_assets.core.config import LearningConfig
from learning_assets.core.feedback import ALL
from learning_assets.core.history import WEEK
from learning_assets.defs.assets.override_effectiveness import override_effectiveness
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.opening import DEMO
from learning_assets.defs.options import AsOfConfig, EventsConfig
from learning_assets.defs.resources import BookResource
from learning_assets.runtime.book import is_held_out
from learning_assets.sources.demo import MarketSettings, simulate, write_strands
from learning_assets.store.connection import Conn
from learning_assets.store.feedback import newest
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source

START = datetime(2026, 1, 5, tzinfo=UTC)
MARKET = MarketSettings(
    seed=3, n_trades=240, n_patterns=1, start=START, span_days=14, n_dims=3, n_regime_dims=3,
    n_effects=0, n_dm_effects=0, embedded_share=0.0, duplicate_share=0.0, broken_share=0.0,
)  # fmt: skip
LESSON, MULTIPLIER, HOLD_OUT = "pm.some.S1.flag/entry/*", 1.4, 0.3


class PastBook(BookResource):
    """A book whose clock stands at the end of the market, and that calibrates quickly."""

    @property
    def config(self) -> LearningConfig:
        return LearningConfig(rotations=39)

    def now(self) -> datetime:
        return MARKET.end + timedelta(days=1)


@pytest.fixture
def market_book(
    conn: Conn, book: Settings, server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> PastBook:
    """A book whose source is a market; none of its trades is taken in yet."""
    for name in ("LEARNING_DATABASE_URL", "LEARNING_DAGSTER_URL", "LEARNING_STRANDS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("DAGSTER_HOME", "DAGSTER_PG_URL", "LEARNING_BOOK", "DAGSTER_EVENT_BATCH_SIZE"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    for name, value in {**server_env, "COLUMNS": "140"}.items():
        monkeypatch.setenv(name, value)
    write_strands(conn, simulate(MARKET), book.schema)
    remember_source(conn, BookSource(DEMO, "simulated market"))
    return PastBook(name=book.book)


def apply(conn: Conn, book: Settings) -> dict[str, bool]:
    """Write into the strands what a bot with a hold-out would have; by trade whether it held out.

    One entry has a damaged document.
    """
    rows = conn.execute(
        f"SELECT id, trade_id::text FROM {book.schema}.ad_strands WHERE kind = 'pm_action' "
        "AND content ->> 'action_category' = 'entry' ORDER BY id"
    ).fetchall()
    treated: dict[str, bool] = {}
    for k, (row_id, trade_id) in enumerate(rows):
        held_out = is_held_out(trade_id, HOLD_OUT)
        document: object = {
            "multiplier": 1.0 if held_out else MULTIPLIER,
            "suggested": MULTIPLIER,
            "status": "held_out" if held_out else "ok",
            "reason": "",
            "set_id": 1,
            "overrides": [{"lesson_id": LESSON, "multiplier": MULTIPLIER}],
        }
        if k == 0:
            document = {"multiplier": "much"}
        else:
            treated[trade_id] = held_out
        conn.execute(
            f"UPDATE {book.schema}.ad_strands SET content = content || "
            "jsonb_build_object('applied_overrides', %s::jsonb) WHERE id = %s",
            [json.dumps(document), row_id],
        )
    return treated


def run(book: PastBook, weeks: int = 2) -> Mapping[str, object]:
    """Take everything in, judge the first so many weeks, and give the metadata."""
    days = dg.PartitionKeyRange(START.date().isoformat(), MARKET.end.date().isoformat())
    pattern_trade_events(dg.build_asset_context(partition_key_range=days), EventsConfig(), book)
    keys = dg.PartitionKeyRange(
        START.date().isoformat(), (START + (weeks - 1) * WEEK).date().isoformat()
    )
    context = dg.build_asset_context(partition_key_range=keys)
    metadata = override_effectiveness(context, AsOfConfig(), book).metadata
    assert metadata is not None
    return metadata


def outcomes(conn: Conn) -> dict[str, float]:
    return dict(conn.execute("SELECT DISTINCT trade_id, rr FROM pattern_trade_events").fetchall())


def learning(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def applied(
    conn: Conn, book: Settings, market_book: PastBook
) -> tuple[PastBook, dict[str, bool], Mapping[str, object]]:
    """The book with what was applied, which trades were held out, and the metadata of the run."""
    treated = apply(conn, book)
    return market_book, treated, run(market_book)


def test_the_newest_week_has_both_arms(
    conn: Conn, applied: tuple[PastBook, dict[str, bool], Mapping[str, object]]
) -> None:
    _, treated, metadata = applied
    rr = outcomes(conn)
    assert len(treated) == len(rr) - 1
    with_it = [rr[trade] for trade, held_out in treated.items() if not held_out]
    without = [rr[trade] for trade, held_out in treated.items() if held_out]
    found = newest(conn)
    assert found is not None
    assert [x.lesson_id for x in (found.total, *found.overrides)] == [ALL, LESSON]
    [effect] = found.overrides
    assert (effect.applied.n_trades, effect.held_out.n_trades) == (len(with_it), len(without))
    assert effect.effect_r == pytest.approx(MULTIPLIER * fmean(with_it) - fmean(without))
    assert effect.low is not None
    assert effect.high is not None
    assert effect.low < effect.effect_r < effect.high
    assert effect.mean_multiplier == pytest.approx(MULTIPLIER)
    more = (MULTIPLIER - 1.0) * sum(r - fmean(rr.values()) for r in with_it)
    assert effect.gained_r == pytest.approx(more)
    table = metadata["applied"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["lesson"] for record in table.records] == ["all together", LESSON]
    assert table.records[1].data["held out"] == len(without)
    assert str(metadata["effect of all applied (R)"]).startswith(f"{effect.effect_r:+.3f} (")
    rows = conn.execute(
        "SELECT ts FROM override_effectiveness WHERE applied IS NOT NULL"
    ).fetchall()
    assert rows == [(START + WEEK,)]


def test_people_and_programs_are_told(
    applied: tuple[PastBook, dict[str, bool], Mapping[str, object]],
    conn: Conn,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    book, _, _ = applied
    found = newest(conn)
    assert found is not None
    [effect] = found.overrides
    out = learning(capsys, "effectiveness", "--book", book.name)
    assert "What bots applied, against the hold-out" in out
    assert LESSON in out
    assert f"held out from {effect.held_out.n_trades:,}" in out
    document = json.loads(learning(capsys, "effectiveness", "--book", book.name, "--json"))
    assert document["applied"]["overrides"][0]["effect_r"] == effect.effect_r
    assert document["applied"]["total"]["held_out"]["n_trades"] == effect.held_out.n_trades
    page = tmp_path_factory.mktemp("page") / "report.html"
    learning(capsys, "report", "--book", book.name, "--out", str(page))
    html = page.read_text("utf-8")
    assert "What bots applied, against the hold-out" in html
    assert f"{effect.effect_r:+.2f}" in html


def test_where_no_trade_says_what_was_applied_nothing_is_shown(
    conn: Conn, market_book: PastBook, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not {"applied", "applied as of"} & run(market_book).keys()
    assert newest(conn) is None
    assert "applied" not in learning(capsys, "effectiveness", "--book", market_book.name)
    out = learning(capsys, "effectiveness", "--book", market_book.name, "--json")
    assert json.loads(out)["applied"] is None
