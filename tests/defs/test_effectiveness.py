"""The walk-forward in a book: weeks are learned once, and its gain reaches overrides and people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from learning_assets.cli import main
from learning_assets.core.combine import clip_multiplier
from learning_assets.core.config import LearningConfig
from learning_assets.core.gain import gains_of
from learning_assets.core.history import WEEK
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.override_effectiveness import override_effectiveness
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.assets.pm_overrides import pm_overrides
from learning_assets.defs.build import build_definitions
from learning_assets.defs.opening import DEMO
from learning_assets.defs.options import AsOfConfig, EventsConfig, LessonsConfig, OverridesConfig
from learning_assets.defs.resources import BookResource
from learning_assets.sources.demo import MarketSettings, simulate, write_strands
from learning_assets.store import ingestion, overrides
from learning_assets.store.connection import Conn
from learning_assets.store.effectiveness import results
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source

START = datetime(2026, 1, 5, tzinfo=UTC)
MARKET = MarketSettings(
    seed=3, n_trades=1500, n_patterns=2, start=START, span_days=40, n_dims=4, n_regime_dims=3,
    n_effects=1, n_dm_effects=1, effect_range_r=(1.5, 1.5), share_decaying=0.0, share_regime=0.0,
    share_overlapping=0.0, min_support=150,
)  # fmt: skip
WEEKS = [START + k * WEEK for k in range(5)]
LAST_DAY = (MARKET.end - timedelta(days=1)).date().isoformat()
RANGE_START, RANGE_END = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))


class PastBook(BookResource):
    """A book whose clock stands at the end of the market, and that calibrates quickly."""

    @property
    def config(self) -> LearningConfig:
        return LearningConfig(rotations=39)

    def now(self) -> datetime:
        return MARKET.end


@pytest.fixture
def filled(
    conn: Conn, book: Settings, server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> PastBook:
    """A book with the trades of the market and nothing learned."""
    for name in ("LEARNING_DATABASE_URL", "LEARNING_DAGSTER_URL", "LEARNING_STRANDS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server_env.items():
        monkeypatch.setenv(name, value)
    write_strands(conn, simulate(MARKET), book.schema)
    remember_source(conn, BookSource(DEMO, "simulated market"))
    resource = PastBook(name=book.book)
    days = dg.PartitionKeyRange(START.date().isoformat(), LAST_DAY)
    context = dg.build_asset_context(partition_key_range=days)
    pattern_trade_events(context, EventsConfig(), resource)
    return resource


def _judged(book: PastBook, first: int = 0, last: int = 4) -> tuple[int, int]:
    """Materialize these weeks; how many were learned, and how many had not changed."""
    ends = (WEEKS[k].date().isoformat() for k in (first, last))
    context = dg.build_asset_context(partition_key_range=dg.PartitionKeyRange(*ends))
    metadata = override_effectiveness(context, AsOfConfig(), book).metadata
    assert metadata is not None
    return metadata["weeks learned"], metadata["weeks unchanged"]


def test_every_week_has_a_row_and_is_learned_once(conn: Conn, filled: PastBook) -> None:
    assert _judged(filled) == (5, 0)
    first = results(conn)
    assert [r.week for r in first] == WEEKS
    assert first[0].n_overrides == 0
    assert first[-1].n_overrides > 0
    assert sum(r.n_matched for r in first) > 100
    query = "SELECT set_id, as_of, live_from, replay FROM pm_override_sets ORDER BY as_of"
    sets = conn.execute(query).fetchall()
    assert [row[1:] for row in sets] == [(week, None, True) for week in WEEKS]
    assert _judged(filled) == (0, 5)
    assert results(conn) == first
    assert conn.execute(query).fetchall() == sets
    assert overrides.live(conn) is None


def test_one_week_after_the_other_is_what_all_at_once_are(conn: Conn, filled: PastBook) -> None:
    _judged(filled)
    once = results(conn)
    conn.execute("DELETE FROM override_effectiveness")
    assert [_judged(filled, k, k) for k in range(5)] == [(1, 0)] * 5
    assert results(conn) == once


def test_weeks_whose_past_changed_are_learned_again(conn: Conn, filled: PastBook) -> None:
    _judged(filled)
    before = results(conn)
    sets = dict(conn.execute("SELECT ts, set_id FROM override_effectiveness").fetchall())
    [(source,)] = conn.execute("SELECT DISTINCT source FROM pattern_trade_events").fetchall()
    gone = (WEEKS[2] + WEEK / 7).date()
    assert ingestion.ingest(conn, source, gone, gone, [], complete=True).removed > 0
    assert _judged(filled) == (2, 3)
    again = dict(conn.execute("SELECT ts, set_id FROM override_effectiveness").fetchall())
    assert [week for week in WEEKS if again[week] != sets[week]] == WEEKS[3:]
    after = results(conn)
    # The third week's set is the same, but what happened to its trades is not.
    assert after[2].n_trades < before[2].n_trades
    assert len(after) == len(before)
    (n_sets,) = conn.execute("SELECT count(*) FROM pm_override_sets").fetchone() or (None,)
    assert n_sets == 5


def test_other_settings_are_learned_with_again(conn: Conn, filled: PastBook) -> None:
    _judged(filled)

    class Careful(PastBook):
        @property
        def config(self) -> LearningConfig:
            return LearningConfig(rotations=39, prior_gain=0.2)

    assert _judged(Careful(name=filled.name)) == (5, 0)
    assert results(conn)[0].modules["pm"].gain == 0.2


def test_the_learned_gain_is_in_every_override(conn: Conn, filled: PastBook) -> None:
    for module in ("dm", "pm"):
        learning_lessons(dg.build_asset_context(partition_key=module), LessonsConfig(), filled)
    pm_overrides(OverridesConfig(force=True), filled)
    before = overrides.live(conn)
    _judged(filled)
    pm_overrides(OverridesConfig(force=True), filled)
    after = overrides.live(conn)
    assert before is not None
    assert after is not None
    assert {o.parts["gain"] for o in before.content.overrides} == {0.5}
    gains = gains_of(results(conn), filled.config, MARKET.end)
    assert gains["pm"].slope is not None
    assert gains["pm"].value != 0.5
    assert after.content.overrides
    for made in after.content.overrides:
        assert made.parts["gain"] == gains[made.group.module].value
        assert made.parts["gain_rests_on"] == gains[made.group.module].why
        adjusted = made.parts["gain"] * made.parts["size_scale"] * made.adjusted_edge_r
        assert made.multiplier == pytest.approx(clip_multiplier(made.group.module, 1 + adjusted))


# --- what a run of many partitions stores ----------------------------------------------------


def _by_partition(instance: dg.DagsterInstance, asset: str) -> dict[str, Mapping[str, object]]:
    """The metadata of the newest materialization of each partition."""
    found = instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
    return {
        str(record.partition_key): record.asset_materialization.metadata
        for record in reversed(found)
        if record.asset_materialization is not None
    }


def test_only_the_newest_partition_of_a_range_has_pictures_and_tables(filled: PastBook) -> None:
    jobs = build_definitions(resources={"book": filled}).resolve_job_def
    weeks = (WEEKS[0].date().isoformat(), WEEKS[-1].date().isoformat())
    ran = (
        ("events", "pattern_trade_events", ("2026-02-09", LAST_DAY), "trades in the book"),
        ("edge_history", "learning_edge_history", weeks, "weeks"),
        ("half_lives", "lesson_half_lives", weeks, "stable"),
        ("factors", "learning_latent_factors", weeks, "lessons"),
        ("regime_weights", "learning_regime_weights", ("2026-02-09", LAST_DAY), "with evidence"),
        ("effectiveness", "override_effectiveness", weeks, "weeks learned"),
    )
    large = dg.MarkdownMetadataValue | dg.TableMetadataValue
    with dg.DagsterInstance.ephemeral() as instance:
        for job, asset, (start, end), small in ran:
            tags = {RANGE_START: start, RANGE_END: end}
            jobs(job).execute_in_process(instance=instance, tags=tags)
            stored = _by_partition(instance, asset)
            assert len(stored) == 5
            assert all(small in metadata for metadata in stored.values())
            assert {"picture"} <= stored[end].keys()
            assert any(isinstance(x, dg.TableMetadataValue) for x in stored[end].values())
            kept = [x for key, metadata in stored.items() if key != end for x in metadata.values()]
            assert not any(isinstance(x, large) for x in kept)
            jobs(job).execute_in_process(instance=instance, partition_key=start)
            assert "picture" in _by_partition(instance, asset)[start]


# --- the commands ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """The command, in this process, with what it prints."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        printed = self.capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, printed.out, printed.err


@pytest.fixture
def learning(
    filled: PastBook, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    for name in ("DAGSTER_HOME", "DAGSTER_PG_URL", "LEARNING_BOOK", "DAGSTER_EVENT_BATCH_SIZE"):
        # Set before it is deleted, so that it is put back whatever the command does to it.
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")
    return Command(capsys)


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON number")


def test_effectiveness_prints_weeks_and_gains(learning: Command, filled: PastBook) -> None:
    code, out, _ = learning("effectiveness", "--book", filled.name)
    assert code == 0
    assert "no past week has been judged yet" in out
    code, out, _ = learning("effectiveness", "--book", filled.name, "--json")
    assert code == 0
    assert json.loads(out, parse_constant=_refuse)["weeks"] == []
    _judged(filled)
    code, out, _ = learning("effectiveness", "--book", filled.name)
    assert code == 0
    assert all(f"{week:%Y-%m-%d}" in out for week in WEEKS)
    assert "All 5 weeks" in out
    assert "gain pm" in out


def test_effectiveness_as_json_is_one_document(
    conn: Conn, learning: Command, filled: PastBook
) -> None:
    _judged(filled)
    code, out, _ = learning("effectiveness", "--book", filled.name, "--json")
    document = json.loads(out, parse_constant=_refuse)
    assert code == 0
    stored = results(conn)
    assert [week["n_trades"] for week in document["weeks"]] == [r.n_trades for r in stored]
    assert document["total"]["n_trades"] == sum(r.n_trades for r in stored)
    assert document["gain"].keys() == {"pm", "dm"}
    assert {x["lesson_id"] for x in document["overrides"]} <= {
        x.lesson_id for r in stored for x in r.overrides
    }


def test_a_book_that_was_never_used_has_nothing_to_judge(learning: Command) -> None:
    for options in ((), ("--json",)):
        code, out, err = learning("effectiveness", "--book", "never_used", *options)
        assert (code, out) == (2, "")
        assert "the book never_used holds nothing yet" in err
