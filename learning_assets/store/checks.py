"""What must hold of the tables of a book before anybody builds on them, one query for each thing.

Whether a set of overrides may go live is decided in `core.publication`. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from learning_assets.core.config import LearningConfig
from learning_assets.core.records import RR_LIMIT
from learning_assets.errors import UserError
from learning_assets.store.connection import Conn

MOST_REJECTED = 0.2
"""Share of a book's rows that may be rejected."""

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: its asset, its name, what it says, and how to find offenders.

    The query gives a text for every offender and may use `%(now)s`, `%(n_min)s`, `%(rr_limit)s`
    and `%(most_rejected)s`. Nothing is built on a table that offends a blocking one.
    """

    asset: str
    name: str
    description: str
    query: LiteralString
    is_blocking: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """How often a check was offended, and a sentence about it."""

    check: Check
    offenders: int
    detail: str

    @property
    def passed(self) -> bool:
        """Whether the check holds."""
        return self.offenders == 0


CHECKS = (
    Check(
        "pattern_trade_events",
        "one_outcome_per_trade",
        "All events of a trade have the same outcome and the same time.",
        """SELECT trade_id FROM pattern_trade_events GROUP BY trade_id
        HAVING min(rr) <> max(rr) OR min(closed_at) <> max(closed_at)""",
    ),
    Check(
        "pattern_trade_events",
        "outcomes_in_range",
        "Every outcome is a finite number of R within its limit, and none closes in the future.",
        """SELECT DISTINCT trade_id FROM pattern_trade_events WHERE rr IS NULL OR rr = 'NaN'
        OR abs(rr) > %(rr_limit)s OR closed_at > %(now)s OR closed_at < opened_at""",
    ),
    Check(
        "pattern_trade_events",
        "few_rejected",
        f"At most {MOST_REJECTED:.0%} of the rows of the source are rejected.",
        """SELECT rejected || ' of ' || rejected + trades || ' rows are rejected' FROM
        (SELECT (SELECT count(*) FROM rejected_strands) AS rejected,
                (SELECT count(DISTINCT trade_id) FROM pattern_trade_events) AS trades) AS counts
        WHERE rejected > %(most_rejected)s * (rejected + trades)""",
        is_blocking=False,  # what is left is right, though less of it
    ),
    Check(
        "learning_lessons",
        "enough_trades",
        "Every lesson in force rests on the fewest trades that it was learned with.",
        """SELECT lesson_id FROM learning_lessons LEFT JOIN learning_state USING (module)
        WHERE status <> 'deprecated' AND n < coalesce(
        (summary -> 'trial' -> 'thresholds' ->> 'n_min')::integer, %(n_min)s)""",
    ),
    Check(
        "learning_lessons",
        "finite_statistics",
        "Every active lesson has finite statistics and a joint edge.",
        """SELECT lesson_id FROM learning_lessons WHERE status = 'active' AND EXISTS (
        SELECT 1 FROM unnest(ARRAY['avg_rr', 'variance', 'delta_rr', 'se', 'joint_edge_r']) AS name
        WHERE jsonb_typeof(stats -> name) IS DISTINCT FROM 'number')""",
    ),
    Check(
        "learning_lessons",
        "redundancy_is_explained",
        "Every redundant lesson names one that explains it: active, or worn out since.",
        """SELECT lesson_id FROM learning_lessons AS l WHERE status = 'redundant' AND NOT EXISTS (
        SELECT 1 FROM jsonb_array_elements_text(l.stats -> 'explained_by') AS named
        JOIN learning_lessons AS other ON other.lesson_id = named
        WHERE other.status IN ('active', 'deprecated'))""",
    ),
    Check(
        "learning_edge_history",
        "no_future_weeks",
        "No week that has not ended, no week without trades, and an error for every edge.",
        """SELECT lesson_id || ' ' || ts::date FROM learning_edge_history
        WHERE ts + interval '7 days' > %(now)s OR n < 1 OR NOT se > 0 OR se = 'Infinity'
        OR delta_rr = 'NaN' OR extract(isodow FROM ts AT TIME ZONE 'UTC') <> 1""",
    ),
    Check(
        "lesson_half_lives",
        "half_lives_in_range",
        "A half-life where an edge decays, from an hour to a year, within its own interval.",
        """SELECT lesson_id FROM learning_half_lives
        WHERE as_of = (SELECT max(as_of) FROM learning_half_lives) AND (
        (status = 'decaying') <> (half_life_hours IS NOT NULL)
        OR half_life_hours NOT BETWEEN 1 AND 8760
        OR low > half_life_hours OR high < half_life_hours)""",
    ),
    Check(
        "learning_regime_weights",
        "weights_in_range",
        "Every weight is from 0.3 to 1.7, and exactly 1 where there is no evidence.",
        """SELECT pattern_key || ' ' || regime_signature || ' ' || name
        FROM learning_regime_weights, jsonb_each_text(weights) AS weight(name, value)
        WHERE as_of = (SELECT max(as_of) FROM learning_regime_weights) AND (
        value IS NULL OR value::float8 NOT BETWEEN 0.3 AND 1.7
        OR (n_samples = 0 AND value::float8 <> 1))""",
    ),
    Check(
        "learning_latent_factors",
        "one_factor_per_lesson",
        "No lesson is in two factors, and every factor has the lesson that represents it.",
        """SELECT lesson_id FROM (
            SELECT member ->> 'lesson_id' AS lesson_id
            FROM learning_latent_factors, jsonb_array_elements(members) AS member
            WHERE as_of = (SELECT max(as_of) FROM learning_latent_factors)) AS members
        GROUP BY lesson_id HAVING count(*) > 1
        UNION ALL SELECT factor_id FROM learning_latent_factors AS f
        WHERE as_of = (SELECT max(as_of) FROM learning_latent_factors) AND NOT EXISTS (
            SELECT 1 FROM jsonb_array_elements(f.members) AS member
            WHERE member ->> 'lesson_id' = f.representative_lesson)""",
    ),
    Check(
        "override_effectiveness",
        "only_weeks_that_ended",
        "Every week had ended when it was judged, and the gains are from 0 to 1.",
        """SELECT ts::date::text FROM override_effectiveness WHERE ts + interval '7 days' > %(now)s
        OR EXISTS (SELECT 1 FROM jsonb_each(modules) AS m(name, module)
                   WHERE (module ->> 'gain')::float8 NOT BETWEEN 0 AND 1)""",
    ),
)
"""All checks of stored tables, by asset in the order of the flow."""


def of_asset(asset: str) -> tuple[Check, ...]:
    """The checks of one asset."""
    return tuple(check for check in CHECKS if check.asset == asset)


def look(conn: Conn, check: Check, config: LearningConfig, now: datetime) -> Finding:
    """Whether a check holds now."""
    values: Mapping[str, object] = {
        "now": now,
        "n_min": config.n_min,
        "rr_limit": RR_LIMIT,
        "most_rejected": MOST_REJECTED,
    }
    offenders = [str(text) for (text,) in conn.execute(check.query, values)]
    named = ", ".join(sorted(offenders)[:_MOST_NAMED])
    more = f" and {len(offenders) - _MOST_NAMED} more" if len(offenders) > _MOST_NAMED else ""
    return Finding(check, len(offenders), f"{named}{more}" if offenders else "holds")


def refuse_unsound(
    conn: Conn, assets: Collection[str], config: LearningConfig, now: datetime
) -> None:
    """Nothing, where all blocking checks of these assets hold.

    Raises:
        UserError: names the first check that does not.
    """
    for check in CHECKS:
        if check.is_blocking and check.asset in assets:
            found = look(conn, check, config, now)
            if not found.passed:
                raise UserError(
                    f"{check.asset} offends its check {check.name} ({found.detail}): nothing is "
                    "built on it, and what is live stays live; materialize it again, or look at "
                    "the rows"
                )
