from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from learning_assets.core.records import (
    Calibration,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    SliceStats,
)
from learning_assets.store.connection import Conn
from learning_assets.store.lessons import (
    ModuleState,
    calibrations,
    lesson_rows,
    lessons,
    module_state,
    replace_lessons,
    save_calibrations,
)
from learning_assets.store.tables import LEARNING_LESSONS

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
GROUP = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
STATE = ModuleState("d41d8", AS_OF, 120_000, 7_000, {"least_edge_r": 0.21, "groups": ["a"]})
STATS = SliceStats(
    n=50,
    avg_rr=0.45,
    variance=1.44,
    delta_rr=0.1 + 0.2,
    se=0.1,
    z=4.5,
    p_value=5e-324,
    q_value=1.0,
    evidence=4.4,
    cutoff=3.9,
)
LESSON = Lesson(
    group=GROUP,
    scope_subset=(("chain", "solana"), ("mcap_bucket", "micro")),
    status=LessonStatus.ACTIVE,
    stats=STATS,
    multipliers=Multipliers(0.71, 0.8, 0.9, 0.4, 0.42, 0.67, 5, -0.8),
    edge_raw=0.05541,
    joint_edge_r=0.4,
    joint_se_r=0.09,
    aliases=((("curator", "x"),), (("A_mode", "on"), ("chain", "solana"))),
    explained_by=("pm.a.S1.b/entry/*", "pm.a.S1.b/entry/chain=base"),
    reason="kept",
)
PLAIN = Lesson(
    group=GROUP,
    scope_subset=(),
    status=LessonStatus.CANDIDATE,
    stats=replace(STATS, cutoff=math.inf, evidence=-math.inf, delta_rr=-0.1),
    multipliers=Multipliers(0.7, 0.7, 0.7, 0.7, None, None, 0, None),
    edge_raw=-0.01,
)


def _store(conn: Conn, found: Sequence[Lesson], module: str = "pm") -> None:
    replace_lessons(conn, module, AS_OF, found, STATE)


def test_lessons_come_back_as_they_were(conn: Conn) -> None:
    _store(conn, [LESSON, PLAIN])
    assert lessons(conn) == [PLAIN, LESSON]
    assert module_state(conn, "pm") == STATE
    assert module_state(conn, "dm") is None


def test_nan_comes_back_as_nan(conn: Conn) -> None:
    nan = math.nan
    odd = replace(PLAIN, edge_raw=nan, joint_edge_r=nan, stats=replace(STATS, se=nan, z=nan))
    _store(conn, [odd])
    (back,) = lessons(conn)
    assert math.isnan(back.edge_raw)
    assert math.isnan(back.stats.se)
    assert back.stats.n == 50
    assert back.joint_edge_r is None


def test_lessons_of_a_module_or_a_status(conn: Conn) -> None:
    dm = replace(LESSON, group=GroupKey("dm", "dm.a.S1.b", "allocation"))
    _store(conn, [LESSON, PLAIN])
    _store(conn, [dm], "dm")
    assert lessons(conn, "dm") == [dm]
    assert lessons(conn, status=LessonStatus.CANDIDATE) == [PLAIN]
    assert lessons(conn, "dm", LessonStatus.CANDIDATE) == []
    assert [row["lesson_type"] for row in lesson_rows(conn, "dm")] == ["dm_alloc"]


def test_lessons_that_stay_keep_what_others_wrote(conn: Conn) -> None:
    dm = replace(LESSON, group=GroupKey("dm", "dm.a.S1.b", "allocation"))
    _store(conn, [LESSON, PLAIN])
    _store(conn, [dm], "dm")
    conn.execute("UPDATE learning_lessons SET decay_halflife_hours = 12, latent_factor_id = 'lf'")
    changed = replace(LESSON, status=LessonStatus.DEPRECATED, reason="worn out")
    new = replace(PLAIN, scope_subset=(("chain", "base"),))
    _store(conn, [changed, new])
    assert set(lessons(conn, "pm")) == {changed, new}
    query = "SELECT lesson_id, decay_halflife_hours, latent_factor_id FROM learning_lessons"
    assert set(conn.execute(query).fetchall()) == {
        (changed.lesson_id, 12.0, "lf"),
        (new.lesson_id, None, None),
        (dm.lesson_id, 12.0, "lf"),
    }


def test_no_lessons_is_a_result_too(conn: Conn) -> None:
    _store(conn, [LESSON])
    _store(conn, [])
    assert lessons(conn) == []
    assert module_state(conn, "pm") == STATE


def test_a_failure_leaves_the_old_lessons(conn: Conn) -> None:
    _store(conn, [LESSON])
    wrong = replace(PLAIN, group=GroupKey("xx", "xx.a", "entry"))
    with pytest.raises(Exception, match="module"):
        replace_lessons(conn, "pm", AS_OF, [wrong], replace(STATE, events_digest="new"))
    assert lessons(conn) == [LESSON]
    assert module_state(conn, "pm") == STATE


def test_rows_for_json_are_flat_and_finite(conn: Conn) -> None:
    _store(conn, [PLAIN, LESSON])
    rows = lesson_rows(conn)
    text = json.dumps(rows, allow_nan=False)
    assert [row["status"] for row in json.loads(text)] == ["active", "candidate"]
    active, candidate = rows
    for name in set(LEARNING_LESSONS.column_names) - {"stats"}:
        assert name in active
    for name in ("avg_rr", "variance", "delta_rr", "se", "p_value", "q_value", "edge_raw"):
        assert isinstance(active[name], float)
    assert active["n"] == 50
    assert active["variance"] == 1.44
    assert active["multiplier_variance"] == 0.4
    assert active["joint_edge_r"] == 0.4
    assert active["as_of"] == "2024-06-01T00:00:00+00:00"
    assert active["scope_subset"] == {"chain": "solana", "mcap_bucket": "micro"}
    assert active["aliases"] == [{"curator": "x"}, {"A_mode": "on", "chain": "solana"}]
    assert (candidate["cutoff"], candidate["joint_edge_r"]) == (None, None)
    assert candidate["scope_signature"] == "*"


def test_calibrations_come_back_as_they_were(conn: Conn) -> None:
    one = Calibration(GROUP, AS_OF, 6_000, (2.5, 3.75, 0.1 + 0.2, math.inf), 1.4, 0.07, 0.9, "k1")
    two = replace(one, group=GROUP._replace(action_category="add"), cutoffs=())
    dm = replace(one, group=GroupKey("dm", "dm.a.S1.b", "allocation"))
    save_calibrations(conn, [one, two])
    save_calibrations(conn, [dm])
    assert calibrations(conn) == {c.group: c for c in (one, two, dm)}
    newer = replace(one, calibrated_at=AS_OF + timedelta(days=7))
    save_calibrations(conn, [newer, dm])
    assert calibrations(conn, "pm") == {GROUP: newer, two.group: two}
    assert calibrations(conn, "dm") == {dm.group: dm}
