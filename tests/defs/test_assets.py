from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.context.asset_execution_context import AssetExecutionContext
from frames import events_frame

from learning_assets.core.config import LearningConfig
from learning_assets.core.events import from_frame
from learning_assets.core.records import (
    Action,
    ClosedTrade,
    DecayState,
    LessonStatus,
    Override,
    Reason,
)
from learning_assets.core.regimes import regime_in_force
from learning_assets.defs.assets.learning_edge_history import learning_edge_history
from learning_assets.defs.assets.learning_latent_factors import learning_latent_factors
from learning_assets.defs.assets.learning_lessons import learning_lessons
from learning_assets.defs.assets.learning_regime_weights import learning_regime_weights
from learning_assets.defs.assets.lesson_half_lives import lesson_half_lives
from learning_assets.defs.assets.override_effectiveness import override_effectiveness
from learning_assets.defs.assets.pattern_trade_events import pattern_trade_events
from learning_assets.defs.assets.pm_overrides import pm_overrides
from learning_assets.defs.build import build_definitions
from learning_assets.defs.opening import DEMO
from learning_assets.defs.options import EventsConfig, LessonsConfig, OverridesConfig
from learning_assets.defs.regime import regime_now
from learning_assets.defs.resources import BookResource
from learning_assets.sources.demo import Market, MarketSettings, simulate, write_strands
from learning_assets.store import (
    books,
    checks,
    edge_history,
    events,
    factors,
    half_lives,
    ingestion,
    lessons,
    overrides,
    regime_weights,
)
from learning_assets.store.connection import Conn
from learning_assets.store.settings import Settings
from learning_assets.store.sources import BookSource, remember_source
from learning_assets.store.tables import TABLES

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
        result = learning_lessons(context, LessonsConfig(), resource)
        assert result.metadata is not None
        assert result.metadata["slices tested"] > 0
        assert "R in a slice of" in result.metadata["detection limit"]
        assert result.metadata["strongest lessons"].records
        state = lessons.module_state(conn, module)
        assert state is not None
        assert state.as_of == SMALL.end
        assert {key.module for key in lessons.calibrations(conn, module)} == {module}
    result = pm_overrides(OverridesConfig(), resource)
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
    learning_lessons(context, LessonsConfig(as_of=early.isoformat()), resource)
    state = lessons.module_state(conn, "pm")
    assert state is not None
    assert state.as_of == early
    seen = events_frame(conn, early)
    assert state.summary["n_trades"] == seen[seen.module == "pm"].trade_id.nunique()


# --- edge history, half-lives and factors ----------------------------------------------------

FADING = replace(
    SMALL, span_days=98, n_trades=3000, share_decaying=1.0, half_life_range_hours=(450.0, 451.0)
)
LAST_WEEK = "2026-04-06"


class FadingBook(TestBook):
    """A book whose planted edges wear out."""

    def now(self) -> datetime:
        return FADING.end


@pytest.fixture
def fading(conn: Conn, book: Settings) -> FadingBook:
    """A book of fading edges, with its trades and lessons."""
    resource = FadingBook(name=book.book)
    write_strands(conn, simulate(FADING), book.schema)
    remember_source(conn, BookSource(DEMO, "simulated market"))
    days = dg.PartitionKeyRange("2026-01-05", (FADING.end.date() - timedelta(days=1)).isoformat())
    pattern_trade_events(_of_days(days), EventsConfig(), resource)
    for module in ("dm", "pm"):
        learning_lessons(dg.build_asset_context(partition_key=module), LessonsConfig(), resource)
    return resource


def _live(conn: Conn) -> tuple[Override, ...]:
    live = overrides.live(conn)
    assert live is not None
    return live.content.overrides


def _week(key: str = LAST_WEEK) -> AssetExecutionContext:
    return dg.build_asset_context(partition_key=key)


def _day(key: str = "2026-04-12") -> AssetExecutionContext:
    return dg.build_asset_context(partition_key=key)


def _learn_about_lessons(book: TestBook) -> None:
    learning_edge_history(_week(), book)
    lesson_half_lives(_week(), book)
    learning_latent_factors(_week(), book)


def test_what_wears_out_is_measured_and_used(conn: Conn, fading: FadingBook) -> None:
    pm_overrides(OverridesConfig(), fading)
    before = {o.lesson_id: o for o in _live(conn)}
    assert {note for o in before.values() for note in o.parts["notes"]} == {
        "half-life: not measured yet; taken as lasting",
        "factor: not measured yet; taken as a cause of its own",
        "regime weights: not measured yet; taken as 1",
    }
    _learn_about_lessons(fading)
    learning_regime_weights(_day(), fading)
    result = pm_overrides(OverridesConfig(), fading)
    after = {o.lesson_id: o for o in _live(conn)}
    measured = half_lives.half_lives(conn, FADING.end)
    assert measured is not None
    worn = {
        name for name, x in measured.by_lesson.items() if x.status is DecayState.DECAYING
    } & before.keys()
    assert worn
    assert result.metadata is not None
    listed = getattr(result.metadata.get("withheld"), "records", ())
    withheld = {r.data["lesson"]: r.data["reason"] for r in listed}
    for name in worn:
        joint = before[name].adjusted_edge_r
        if name in after:
            assert abs(after[name].adjusted_edge_r) < abs(joint)
            assert after[name].decay_state is DecayState.DECAYING
        else:
            assert withheld[name].startswith("worn out")
    assert all(o.parts["factor_id"] and not o.parts["notes"] for o in after.values())


def test_weights_of_a_day_are_stored_and_shown(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    fill(conn, book)
    _take_in(resource)
    learning_lessons(dg.build_asset_context(partition_key="pm"), LessonsConfig(), resource)
    result = learning_regime_weights(_day(ALL_DAYS.end), resource)
    found = regime_weights.regime_weights(conn, SMALL.end)
    assert found is not None
    assert found.as_of == SMALL.end
    assert {row.group.module for row in found.rows} == {"dm", "pm"}
    assert result.metadata is not None
    assert result.metadata["dagster/partition_row_count"] == len(found.rows)
    assert result.metadata["regime from"] == "read from the source"
    assert len(result.metadata["weights"].records) == len(found.rows)
    assert result.metadata["edge by regime, the strongest"].records
    learning_regime_weights(_day(ALL_DAYS.end), resource)
    assert regime_weights.regime_weights(conn, SMALL.end) == found


def test_the_regime_is_that_of_the_events_where_the_source_cannot_be_read(
    conn: Conn, book: Settings, resource: TestBook, tmp_path: Path
) -> None:
    fill(conn, book)
    _take_in(resource)
    known = from_frame(events_frame(conn, SMALL.end))
    read = regime_now(resource, conn, known, SMALL.end)
    assert read.whence == "read from the source"
    remember_source(conn, BookSource("files", "gone", {"path": str(tmp_path / "gone.json")}))
    found = regime_now(resource, conn, known, SMALL.end)
    assert found.whence.startswith("scope of the newest event; the source cannot be read: ")
    expected = regime_in_force(None, known, resource.config.regime_dims, SMALL.end)
    assert (found.signature, found.at) == (expected.signature, expected.at)
    assert found.signature is not None


def test_a_book_without_a_source_knows_no_regime(conn: Conn, resource: TestBook) -> None:
    empty = from_frame(events_frame(conn, SMALL.end))
    found = regime_now(resource, conn, empty, SMALL.end)
    assert found.signature is None
    assert found.whence == "no regime was ever seen; the book has no source"


def test_one_week_fills_in_the_past_of_every_lesson(conn: Conn, fading: FadingBook) -> None:
    result = learning_edge_history(_week(), fading)
    stored = edge_history.edge_history(conn, FADING.end)
    assert {p.week for p in stored} == {START + timedelta(weeks=w) for w in range(14)}
    active = {lesson.lesson_id for lesson in lessons.lessons(conn, status=LessonStatus.ACTIVE)}
    assert {p.lesson_id for p in stored} == active
    assert result.metadata is not None
    assert result.metadata["rows of these weeks"] == sum(p.week == stored[-1].week for p in stored)
    assert result.metadata["rows filled in for other weeks"] > 0
    assert result.metadata["strongest in the newest week"].records


def test_all_weeks_in_one_run_are_what_each_week_alone_is(conn: Conn, fading: FadingBook) -> None:
    whole = dg.build_asset_context(
        partition_key_range=dg.PartitionKeyRange("2026-01-05", LAST_WEEK)
    )
    learning_edge_history(whole, fading)
    once = edge_history.edge_history(conn, FADING.end)
    learning_edge_history(_week("2026-02-02"), fading)
    assert edge_history.edge_history(conn, FADING.end) == once


def test_nothing_that_closed_later_is_seen(conn: Conn, fading: FadingBook) -> None:
    key, as_of = "2026-02-23", datetime(2026, 3, 2, tzinfo=UTC)
    for asset in (learning_edge_history, lesson_half_lives, learning_latent_factors):
        asset(_week(key), fading)
    early = edge_history.edge_history(conn, as_of)
    wear, found = half_lives.half_lives(conn, as_of), factors.factors(conn, as_of)
    conn.execute("DELETE FROM pattern_trade_events WHERE closed_at >= %s", [as_of])
    conn.execute("DELETE FROM event_days WHERE day >= %s", [as_of.date()])
    for asset in (learning_edge_history, lesson_half_lives, learning_latent_factors):
        asset(_week(key), fading)
    assert edge_history.edge_history(conn, as_of) == early
    assert half_lives.half_lives(conn, as_of) == wear
    again = factors.factors(conn, as_of)
    assert (again and again.factors) == (found and found.factors)
    assert wear is not None
    assert wear.as_of == as_of


def test_rebuilt_lessons_keep_half_lives_and_factors(conn: Conn, fading: FadingBook) -> None:
    _learn_about_lessons(fading)
    query = "SELECT lesson_id, decay_halflife_hours, latent_factor_id FROM learning_lessons"
    before = {name: (hours, factor) for name, hours, factor in conn.execute(query)}
    for module in ("dm", "pm"):
        learning_lessons(dg.build_asset_context(partition_key=module), LessonsConfig(), fading)
    after = {name: (hours, factor) for name, hours, factor in conn.execute(query)}
    kept = before.keys() & after.keys()
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert any(after[name][0] for name in kept)
    assert any(after[name][1] for name in kept)


def test_results_of_long_ago_are_neutral(conn: Conn, fading: FadingBook) -> None:
    for asset in (learning_edge_history, lesson_half_lives, learning_latent_factors):
        asset(_week("2026-03-02"), fading)
    result = pm_overrides(OverridesConfig(), fading)
    assert result.metadata is not None
    said = [r.data["what"] for r in result.metadata["neutral"].records]
    assert len(said) == 3
    assert said.pop() == "regime weights: not measured yet; taken as 1"
    assert all("measured as of 2026-03-09, over 2 weeks ago" in what for what in said)
    assert {o.decay_state for o in _live(conn)} == {DecayState.INSUFFICIENT}


def test_an_empty_book_has_no_edges_and_no_factors(conn: Conn, resource: TestBook) -> None:
    for asset in (learning_edge_history, lesson_half_lives, learning_latent_factors):
        assert asset(_week("2026-01-05"), resource).metadata is not None
    assert half_lives.half_lives(conn, SMALL.end) is None
    assert factors.factors(conn, SMALL.end) is None


def test_an_empty_book_publishes_an_empty_set(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    for module in ("dm", "pm"):
        learning_lessons(dg.build_asset_context(partition_key=module), LessonsConfig(), resource)
    result = pm_overrides(OverridesConfig(), resource)
    assert result.metadata is not None
    assert result.metadata["dagster/row_count"] == 0
    assert overrides.live(conn) is not None


def test_a_book_without_a_source_fails_with_one_sentence(
    book: Settings, resource: TestBook
) -> None:
    with pytest.raises(dg.Failure, match="has no source yet") as failure:
        _take_in(resource)
    assert failure.value.allow_retries is False


PICTURED = (
    *("pattern_trade_events", "learning_lessons", "learning_edge_history", "lesson_half_lives"),
    *("learning_latent_factors", "pm_overrides"),
)


def _picture(instance: dg.DagsterInstance, asset: str) -> str:
    """What the newest materialization of the asset shows."""
    found = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert found is not None
    assert found.asset_materialization is not None
    return str(found.asset_materialization.metadata["picture"].value)


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
        weeks = {
            "dagster/asset_partition_range_start": "2026-01-05",
            "dagster/asset_partition_range_end": "2026-02-02",
        }
        for job in ("edge_history", "half_lives", "factors"):
            jobs(job).execute_in_process(instance=instance, tags=weeks)
        last_days = {
            "dagster/asset_partition_range_start": "2026-02-11",
            "dagster/asset_partition_range_end": ALL_DAYS.end,
        }
        jobs("regime_weights").execute_in_process(instance=instance, tags=last_days)
        jobs("overrides").execute_in_process(instance=instance)
        days = instance.get_materialized_partitions(dg.AssetKey("pattern_trade_events"))
        assert len(days) == SMALL.span_days
        modules = instance.get_materialized_partitions(dg.AssetKey("learning_lessons"))
        assert modules == {"pm", "dm"}
        for name in ("learning_edge_history", "lesson_half_lives", "learning_latent_factors"):
            assert len(instance.get_materialized_partitions(dg.AssetKey(name))) == 5
        weighed = instance.get_materialized_partitions(dg.AssetKey("learning_regime_weights"))
        assert len(weighed) == 3
        assert instance.get_latest_materialization_event(dg.AssetKey("pm_overrides")) is not None
        drawn = {asset: _picture(instance, asset) for asset in PICTURED}
    assert all(len(text) < 100_000 for text in drawn.values())
    assert [name for name, text in drawn.items() if "](data:image/png;base64," not in text] == [
        name for name in ("learning_latent_factors",) if drawn[name].endswith(".")
    ]
    assert [o.parts["notes"] for o in _live(conn)] == [[]] * len(_live(conn))


def test_a_tick_without_news_mines_nothing_and_says_so(
    conn: Conn, book: Settings, resource: TestBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(conn, book)
    _take_in(resource)
    context = dg.build_asset_context(partition_key="dm")
    learning_lessons(context, LessonsConfig(), resource)
    before = lessons.lessons(conn)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("mined")

    monkeypatch.setattr("learning_assets.defs.assets.learning_lessons.learn_module", never)
    result = learning_lessons(context, LessonsConfig(), resource)
    end = dg.MetadataValue.timestamp(SMALL.end)
    assert result.metadata == {"unchanged": True, "as of": end, "learned as of": end}
    assert lessons.lessons(conn) == before
    with pytest.raises(AssertionError, match="mined"):
        learning_lessons(context, LessonsConfig(anew=True), resource)
    [changed] = conn.execute(
        "SELECT trade_id, closed_at FROM pattern_trade_events ORDER BY closed_at LIMIT 1"
    ).fetchall()
    action = Action("a", "dm", "dm.lowcap.S1.allocate", "allocation", {"chain": "base"})
    trade = ClosedTrade(changed[0], -0.5, changed[1], (action,))
    ingestion.ingest(conn, "strands", changed[1].date(), changed[1].date(), [trade])
    with pytest.raises(AssertionError, match="mined"):
        learning_lessons(context, LessonsConfig(), resource)


def test_lessons_are_not_learned_from_events_that_offend_their_checks(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    fill(conn, book)
    _take_in(resource)
    conn.execute("UPDATE pattern_trade_events SET rr = 0.123 WHERE event_id = "
                 "(SELECT min(event_id) FROM pattern_trade_events)")  # fmt: skip
    with pytest.raises(dg.Failure, match="one_outcome_per_trade"):
        learning_lessons(dg.build_asset_context(partition_key="dm"), LessonsConfig(), resource)


@pytest.mark.parametrize(
    ("asset", "key"),
    [
        (learning_edge_history, "2026-01-05"),
        (learning_latent_factors, "2026-01-05"),
        (learning_regime_weights, "2026-01-05"),
        (override_effectiveness, "2026-01-05"),
        (pm_overrides, None),
    ],
)
def test_nothing_is_built_on_events_that_offend_their_checks(
    conn: Conn, book: Settings, resource: TestBook, asset: dg.AssetsDefinition, key: str | None
) -> None:
    fill(conn, book)
    _take_in(resource)
    conn.execute("UPDATE pattern_trade_events SET rr = 0.123 WHERE event_id = "
                 "(SELECT min(event_id) FROM pattern_trade_events)")  # fmt: skip
    before = _rows(conn)
    with pytest.raises(dg.Failure, match="one_outcome_per_trade"):
        dg.materialize([asset], partition_key=key, resources={"book": resource})
    assert _rows(conn) == before


def _rows(conn: Conn) -> list[list[tuple[object, ...]]]:
    return [conn.execute(f"SELECT * FROM {table.name}").fetchall() for table in TABLES]


def test_a_set_that_changes_too_much_waits_and_the_live_one_stays(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    fill(conn, book)
    _take_in(resource)
    for module in ("dm", "pm"):
        learning_lessons(dg.build_asset_context(partition_key=module), LessonsConfig(), resource)
    first = pm_overrides(OverridesConfig(), resource)
    assert all(r.passed for r in first.check_results)
    good = overrides.live(conn)
    assert good is not None
    assert good.content.overrides
    other = [
        replace(o, scope_subset=(("chain", f"{o.lesson_id}{k}"),))
        for k in range(2)
        for o in good.content.overrides
    ]
    strange = overrides.publish(conn, replace(good.content, overrides=tuple(other)))
    for tick in (1, 2):
        held = pm_overrides(OverridesConfig(), resource)
        failed = [r.check_name for r in held.check_results if not r.passed]
        assert failed == ["not_too_much_at_once"]
        assert f"number {tick}" in held.metadata["held back"]
        now = overrides.live(conn)
        assert now is not None
        assert now.set_id == strange
    third = pm_overrides(OverridesConfig(), resource)
    assert all(r.passed for r in third.check_results)
    again = overrides.publish(conn, replace(good.content, overrides=tuple(other)))
    forced = pm_overrides(OverridesConfig(force=True), resource)
    assert all(r.passed for r in forced.check_results)
    now = overrides.live(conn)
    assert now is not None
    assert now.set_id > again


HELD = timedelta(hours=6)


def test_a_set_that_a_person_holds_stays_live_whatever_runs(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    _publish(conn, book, resource)
    good = overrides.live(conn)
    assert good is not None
    pm_overrides(OverridesConfig(), resource)
    again = overrides.pin(conn, good.set_id, resource.now() - timedelta(hours=3), HELD)
    assert again.content.overrides == good.content.overrides
    assert again.copy_of == good.set_id
    for force in (False, True):
        waits = pm_overrides(OverridesConfig(force=force), resource)
        assert [r.check_name for r in waits.check_results if not r.passed] == ["not_pinned"]
        live = overrides.live(conn)
        assert live is not None
        assert (live.copy_of, live.pinned_at) == (again.copy_of, again.pinned_at)
        assert live.content.overrides == again.content.overrides
        assert live.content.expires_at > again.content.expires_at
        expiry = conn.execute("SELECT DISTINCT expires_at FROM pm_overrides").fetchall()
        assert expiry == [(live.content.expires_at,)]
    overrides.unpin(conn)
    published = pm_overrides(OverridesConfig(), resource)
    assert all(r.passed for r in published.check_results)
    live = overrides.live(conn)
    assert live is not None
    assert live.set_id > again.set_id


# --- runs on demand --------------------------------------------------------------------------


def _learn(resource: TestBook, module: str = "pm", **options: object) -> dg.MaterializeResult:
    context = dg.build_asset_context(partition_key=module)
    return learning_lessons(context, LessonsConfig.model_validate(options), resource)


def _publish(conn: Conn, book: Settings, resource: TestBook) -> None:
    """Make the small market's first overrides live."""
    fill(conn, book)
    _take_in(resource)
    for module in ("dm", "pm"):
        _learn(resource, module)
    pm_overrides(OverridesConfig(), resource)


def test_thresholds_of_one_run_change_what_is_learned_and_leave_nothing_behind(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    fill(conn, book)
    _take_in(resource)
    _learn(resource)
    usual = _learn(resource, anew=True)
    before, cached = lessons.lessons(conn, "pm"), lessons.calibrations(conn)
    assert usual.metadata["thresholds"] == "those of the book"
    tried = _learn(resource, n_min=20, max_scope_dims=1, family_wise_error=0.9)
    assert tried.metadata["thresholds"] == "family_wise_error 0.9, max_scope_dims 1, n_min 20"
    found = lessons.lessons(conn, "pm")
    assert all(len(x.scope_subset) <= 1 for x in found if x.status is not LessonStatus.DEPRECATED)
    assert 20 <= min(x.stats.n for x in found) < resource.config.n_min
    active = {x.lesson_id for x in found if x.status is LessonStatus.ACTIVE}
    assert active - {x.lesson_id for x in before if x.status is LessonStatus.ACTIVE}
    assert _offended(conn, resource) == []
    assert lessons.calibrations(conn) == cached
    again = _learn(resource)
    assert "unchanged" not in again.metadata
    assert {x.lesson_id: repr(x) for x in lessons.lessons(conn, "pm")} == {
        x.lesson_id: repr(x) for x in before
    }
    assert lessons.calibrations(conn) == cached
    assert _learn(resource).metadata["unchanged"]


def _offended(conn: Conn, resource: TestBook) -> list[str]:
    asked = (checks.look(conn, c, resource.config, resource.now()) for c in checks.CHECKS)
    return [found.check.name for found in asked if not found.passed]


def test_a_look_back_of_one_run_is_obeyed(conn: Conn, book: Settings, resource: TestBook) -> None:
    fill(conn, book)
    _take_in(resource)
    _learn(resource, look_back_days=10)
    state = lessons.module_state(conn, "pm")
    assert state is not None
    seen = events_frame(conn, SMALL.end, SMALL.end - timedelta(days=10))
    assert state.summary["n_trades"] == seen[seen.module == "pm"].trade_id.nunique() > 0


def test_overrides_of_a_trial_wait_for_a_person(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    _publish(conn, book, resource)
    live = overrides.live(conn)
    assert live is not None
    _learn(resource, n_min=30)
    for _ in range(3):
        held = pm_overrides(OverridesConfig(), resource)
        assert [r.check_name for r in held.check_results if not r.passed] == [
            "settings_of_the_book"
        ]
        assert "the lessons of pm with n_min 30" in held.metadata["held back"]
        assert overrides.live(conn) == live
    forced = pm_overrides(OverridesConfig(force=True), resource)
    assert all(r.passed for r in forced.check_results)
    assert overrides.live(conn) != live
    _learn(resource)
    assert all(r.passed for r in pm_overrides(OverridesConfig(), resource).check_results)


def test_thresholds_of_one_run_change_the_overrides(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    _publish(conn, book, resource)
    edges = sorted(abs(o.adjusted_edge_r) for o in _live(conn))
    least = edges[-1] - 1e-9
    few = pm_overrides(OverridesConfig(min_edge_r=least, force=True), resource)
    assert 0 < len(_live(conn)) < len(edges)
    assert few.metadata["thresholds"] == f"min_edge_r {least}"
    pm_overrides(OverridesConfig(max_size_change=0.0001, force=True), resource)
    live = overrides.live(conn)
    assert live is not None
    assert abs(live.content.expected["total_size"]) <= 0.00011


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"as_of": "yesterday"}, "as_of 'yesterday' is no time: write it like"),
        ({"as_of": "2199-01-01"}, "as_of 2199-01-01T00:00:00.00:00 lies in the future"),
        ({"n_min": 4}, "n_min 4 is out of bounds: it must be at least 5"),
        ({"max_scope_dims": 5}, "max_scope_dims 5 is out of bounds: .* at least 1 and at most 4"),
        ({"family_wise_error": 1.0}, "it must be above 0 and below 1"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    conn: Conn, book: Settings, resource: TestBook, options: dict[str, object], said: str
) -> None:
    fill(conn, book)
    with pytest.raises(dg.Failure, match=said) as failed:
        _learn(resource, **options)
    assert failed.value.allow_retries is False


def test_overrides_do_not_go_back_in_time_by_mistake(
    conn: Conn, book: Settings, resource: TestBook
) -> None:
    _publish(conn, book, resource)
    early = OverridesConfig(as_of="2026-01-25")
    with pytest.raises(dg.Failure, match="is live as of 2026-02-14 00:00 UTC"):
        pm_overrides(early, resource)
    pm_overrides(OverridesConfig(as_of="2026-01-25", force=True), resource)
    live = overrides.live(conn)
    assert live is not None
    assert live.content.as_of == datetime(2026, 1, 25, tzinfo=UTC)
