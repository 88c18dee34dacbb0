from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.execution.context.asset_execution_context import AssetExecutionContext

from learning_assets.core.config import LearningConfig
from learning_assets.core.records import LessonStatus, Reason
from learning_assets.defs.assets.learning_lessons import AsOfConfig, learning_lessons
from learning_assets.defs.assets.pattern_trade_events import EventsConfig, pattern_trade_events
from learning_assets.defs.assets.pm_overrides import pm_overrides
from learning_assets.defs.build import build_definitions
from learning_assets.defs.opening import DEMO
from learning_assets.defs.resources import BookResource
from learning_assets.sources.demo import Market, MarketSettings, simulate, write_strands
from learning_assets.store import books, events, lessons, overrides
from learning_assets.store.connection import Conn
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source

START = datetime(2026, 1, 5, tzinfo=UTC)

SMALL = MarketSettings(
    seed=3,
    n_trades=1500,
    n_patterns=2,
    start=START,
    span_days=40,
    n_dims=4,
    n_regime_dims=3,
    n_effects=1,
    n_dm_effects=1,
    effect_range_r=(1.5, 1.5),
    share_decaying=0.0,
    share_regime=0.0,
    share_overlapping=0.0,
    min_support=150,
)


class TestBook(BookResource):
    """A book whose clock stands at the end of the market, and that calibrates quickly."""

    __test__ = False

    @property
    def config(self) -> LearningConfig:
        return LearningConfig(rotations=39)

    def now(self) -> datetime:
        return SMALL.end


def fill(conn: Conn, book: Settings) -> Market:
    """Write the small market's strands into the book and make them its source."""
    market = simulate(SMALL)
    write_strands(conn, market, book.schema)
    remember_source(conn, BookSource(DEMO, "simulated market"))
    return market


ALL_DAYS = dg.PartitionKeyRange(
    SMALL.start.date().isoformat(), (SMALL.end.date() - timedelta(days=1)).isoformat()
)


@pytest.fixture(autouse=True)
def _environment(server_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEARNING_DATABASE_URL", "LEARNING_DAGSTER_URL", "LEARNING_STRANDS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in server_env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def resource(book: Settings) -> TestBook:
    return TestBook(name=book.book)


def _of_days(days: dg.PartitionKeyRange) -> AssetExecutionContext:
    return dg.build_asset_context(partition_key_range=days)


def _take_in(resource: TestBook, config: EventsConfig | None = None) -> dg.MaterializeResult:
    return pattern_trade_events(_of_days(ALL_DAYS), config or EventsConfig(), resource)


def test_all_trades_are_taken_in_and_the_rest_is_rejected_with_its_reason(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    market = fill(conn, book)
    result = _take_in(resource)
    assert result.metadata is not None
    assert result.metadata["trades"] == len(market.trades) == books.size(conn).n_trades
    assert result.metadata["events"] == sum(len(t.actions) for t in market.trades)
    rejected = events.rejected_counts(conn)
    assert result.metadata["rejected"] == sum(rejected.values()) > 0
    shown = {
        r.data["reason"]: r.data["rows"] for r in result.metadata["rejected by reason"].records
    }
    assert shown == {str(reason): n for reason, n in rejected.items()}


def test_taking_in_twice_changes_nothing(conn: Conn, book: Settings, resource: TestBook) -> None:
    fill(conn, book)
    _take_in(resource)
    before = events.events_digest(conn, SMALL.end)
    result = _take_in(resource, EventsConfig(whole_source=True))
    assert result.metadata is not None
    assert result.metadata["unchanged"] == result.metadata["trades"]
    assert events.events_digest(conn, SMALL.end) == before


def test_a_day_takes_in_its_own_trades_only(conn: Conn, book: Settings, resource: TestBook) -> None:
    market = fill(conn, book)
    day = date(2026, 1, 20)
    context = dg.build_asset_context(partition_key=day.isoformat())
    pattern_trade_events(context, EventsConfig(), resource)
    mine = sum(trade.closed_at.date() == day for trade in market.trades)
    assert books.size(conn).n_trades == mine > 0
    assert events.days(conn) == [day]


def test_a_closing_in_the_future_is_rejected_until_its_time_has_come(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    fill(conn, book)
    half = SMALL.start + timedelta(days=20)

    class Earlier(TestBook):
        def now(self) -> datetime:
            return half

    _take_in(Earlier(name=book.book), EventsConfig(whole_source=True))
    assert books.size(conn).newest_closed_at < half  # type: ignore[operator]
    assert events.rejected_counts(conn)[Reason.IN_THE_FUTURE] > 0
    _take_in(resource)
    assert Reason.IN_THE_FUTURE not in events.rejected_counts(conn)


def test_lessons_and_overrides_find_what_was_planted(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    market = fill(conn, book)
    _take_in(resource)
    for module in ("dm", "pm"):
        context = dg.build_asset_context(partition_key=module)
        result = learning_lessons(context, AsOfConfig(), resource)
        assert result.metadata is not None
        assert result.metadata["slices tested"] > 0
        assert "R in a slice of" in result.metadata["detection limit"]
        assert result.metadata["strongest lessons"].records
        state = lessons.module_state(conn, module)
        assert state is not None
        assert state.as_of == SMALL.end
        assert {key.module for key in lessons.calibrations(conn, module)} == {module}
    result = pm_overrides(AsOfConfig(), resource)
    assert result.metadata is not None
    live = overrides.live(conn)
    assert live is not None
    assert result.metadata["set"] == live.set_id
    assert live.content.published_at == SMALL.end
    found = {(o.group, o.scope_subset) for o in live.content.overrides}
    aliases = {
        (lesson.group, alias)
        for lesson in lessons.lessons(conn, status=LessonStatus.ACTIVE)
        for alias in lesson.aliases
    }
    for effect in market.truth.effects:
        assert (effect.group, effect.scope_subset) in found | aliases


def test_lessons_learn_as_of_the_given_moment(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    fill(conn, book)
    _take_in(resource)
    early = datetime(2026, 1, 25, tzinfo=UTC)
    context = dg.build_asset_context(partition_key="pm")
    learning_lessons(context, AsOfConfig(as_of=early.isoformat()), resource)
    state = lessons.module_state(conn, "pm")
    assert state is not None
    assert state.as_of == early
    seen = events.events_frame(conn, early)
    assert state.summary["n_trades"] == seen[seen.module == "pm"].trade_id.nunique()


def test_an_empty_book_publishes_an_empty_set(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    for module in ("dm", "pm"):
        learning_lessons(dg.build_asset_context(partition_key=module), AsOfConfig(), resource)
    result = pm_overrides(AsOfConfig(), resource)
    assert result.metadata is not None
    assert result.metadata["dagster/row_count"] == 0
    assert overrides.live(conn) is not None


def test_a_book_without_a_source_fails_with_one_sentence(
    book: Settings, resource: TestBook
) -> None:
    with pytest.raises(dg.Failure, match="has no source yet") as failure:
        _take_in(resource)
    assert failure.value.allow_retries is False


def test_the_chain_materializes_in_process(conn: Conn, book: Settings, resource: TestBook) -> None:
    fill(conn, book)
    definitions = build_definitions(resources={"book": resource})
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {
            "dagster/asset_partition_range_start": ALL_DAYS.start,
            "dagster/asset_partition_range_end": ALL_DAYS.end,
        }
        jobs = definitions.resolve_job_def
        jobs("events").execute_in_process(instance=instance, tags=tags)
        jobs("lessons").execute_in_process(instance=instance, partition_key="dm")
        jobs("main").execute_in_process(instance=instance, partition_key="pm")
        days = instance.get_materialized_partitions(dg.AssetKey("pattern_trade_events"))
        assert len(days) == SMALL.span_days
        modules = instance.get_materialized_partitions(dg.AssetKey("learning_lessons"))
        assert modules == {"pm", "dm"}
        assert instance.get_latest_materialization_event(dg.AssetKey("pm_overrides")) is not None
