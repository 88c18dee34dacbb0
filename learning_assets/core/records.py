"""The records that cross boundaries: sources → store → core → store → runtime.

Frozen and slotted or, where a source yields millions, named tuples, which are made faster; no
behaviour beyond what a record says about itself. Arrays of events, which the engine works on, are
in `core.events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from learning_assets.core.scope import ScopeSubset, signature

RR_LIMIT = 33.0
"""R-multiples are clipped to [−33, 33]."""


class Reason(StrEnum):
    """Why a row of a source could not be used."""

    NO_ACTIONS = "no_actions"
    NO_TRADE_ID = "no_trade_id"
    NO_PATTERN_KEY = "no_pattern_key"
    BAD_PATTERN_KEY = "bad_pattern_key"
    BAD_CATEGORY = "bad_category"
    BAD_MODULE = "bad_module"
    BAD_SCOPE = "bad_scope"
    BAD_RR = "bad_rr"
    NO_RISK = "no_risk"
    BAD_TIMESTAMP = "bad_timestamp"
    BEFORE_START = "before_start"
    IN_THE_FUTURE = "in_the_future"
    STILL_OPEN = "still_open"
    CONFLICTING_ROWS = "conflicting_rows"
    BAD_PAYLOAD = "bad_payload"


APPLIED: Final = "applied_overrides"
"""The name under which sources and bots keep with an action what was applied to it."""


class Status(StrEnum):
    """What an answer to a bot rests on; all but `ok` leave the size as it is."""

    OK = "ok"
    NO_MATCH = "no_match"
    STALE = "stale"
    NO_OVERRIDES = "no_overrides"
    SHADOW = "shadow"
    HELD_OUT = "held_out"


class AppliedOverride(NamedTuple):
    """An override that matched an action, with its own multiplier."""

    lesson_id: str
    multiplier: float


@dataclass(frozen=True, slots=True)
class Applied:
    """What a bot was answered for an action, and applied to it.

    `multiplier` is what the size was multiplied by, `suggested` what the overrides said: another
    number only in shadow mode and for a trade that was held out. Both are finite and not negative.
    """

    multiplier: float
    suggested: float
    status: Status
    set_id: int | None = None
    overrides: tuple[AppliedOverride, ...] = ()


class Action(NamedTuple):
    """One action of a trade: which pattern fired, as what, in which (normalised) scope.

    `applied_overrides` is None where nobody asked for a multiplier, or it is not known.
    """

    action_id: str
    module: str
    pattern_key: str
    action_category: str
    scope: Mapping[str, str]
    applied_overrides: Applied | None = None


class ClosedTrade(NamedTuple):
    """A closed trade with its actions, as a source yields it. Times are aware and UTC.

    `rr` is in R, finite and clipped. `version` orders corrections of the same trade (the newer
    one wins); where a source knows none, the one ingested last wins.
    """

    trade_id: str
    rr: float
    closed_at: datetime
    actions: tuple[Action, ...]
    opened_at: datetime | None = None
    pnl_usd: float | None = None
    payback_hours: float | None = None
    version: datetime | None = None

    @property
    def hold_hours(self) -> float | None:
        """Hours between opening and closing, None where the opening is unknown."""
        if self.opened_at is None:
            return None
        return (self.closed_at - self.opened_at).total_seconds() / 3600


class RejectedRow(NamedTuple):
    """A row of a source that could not be used, kept with its reason and payload.

    `trade_id` is the trade that it would have been, None where even that is unknown: a trade
    whose newest row is rejected loses the events of the older one.
    """

    row_id: str
    reason: Reason
    detail: str
    payload: Mapping[str, Any]
    trade_id: str | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RegimeReading:
    """The newest regime states (dimension → state) that a source knows, and when it read them."""

    states: Mapping[str, str]
    at: datetime


@dataclass(frozen=True, slots=True)
class DayOutcome:
    """The distinct trades that closed on a UTC day, at least one, and their mean rr in R."""

    day: date
    n_trades: int
    mean_rr: float


class GroupKey(NamedTuple):
    """A group: the slices of one pattern and category of one module are compared in it."""

    module: str
    pattern_key: str
    action_category: str


class LessonStatus(StrEnum):
    """What became of a slice."""

    ACTIVE = "active"
    REDUNDANT = "redundant"
    CANDIDATE = "candidate"
    DEPRECATED = "deprecated"


class DecayState(StrEnum):
    """What is known of an edge's wear."""

    INSUFFICIENT = "insufficient"
    STABLE = "stable"
    DECAYING = "decaying"
    IMPROVING = "improving"


@dataclass(frozen=True, slots=True)
class SliceStats:
    """The evidence on one slice. Edges in R; `n` counts distinct trades.

    `se` is clustered by UTC closing day, `z` = delta_rr / se, `p_value` two-sided from a normal
    table and `q_value` (Benjamini–Hochberg over the module) are for reading. What decides is
    `evidence` (z under the day-shock model) against the calibrated `cutoff`: of an active lesson
    in the joint fit, of any other of the slice alone.
    """

    n: int
    avg_rr: float
    variance: float
    delta_rr: float
    se: float
    z: float
    p_value: float
    q_value: float
    evidence: float
    cutoff: float


@dataclass(frozen=True, slots=True)
class Multipliers:
    """The four multipliers of a slice, each in (0, 1], and what they were made from."""

    time: float
    field: float
    recurrence: float
    variance: float
    te: float | None
    phi: float | None
    segments: int
    rho: float | None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was learned about a slice."""

    group: GroupKey
    scope_subset: ScopeSubset
    status: LessonStatus
    stats: SliceStats
    multipliers: Multipliers
    edge_raw: float
    joint_edge_r: float | None = None
    joint_se_r: float | None = None
    aliases: tuple[ScopeSubset, ...] = ()
    explained_by: tuple[str, ...] = ()
    reason: str = ""

    @property
    def lesson_id(self) -> str:
        """Stable key: module, pattern, category and scope signature."""
        return lesson_id(self.group, self.scope_subset)

    @property
    def lesson_type(self) -> str:
        """`pm_strength` or `dm_alloc`."""
        return "dm_alloc" if self.group.module == "dm" else "pm_strength"


def lesson_id(group: GroupKey, scope_subset: ScopeSubset) -> str:
    """Stable key of a slice, e.g. `pm.uptrend.S1.buy_flag/entry/chain=solana`."""
    return f"{group.pattern_key}/{group.action_category}/{signature(scope_subset)}"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The cut-offs of one group, cached until it grows by 5 % or a week passes.

    `cutoffs` holds the smallest |evidence| that counts by number of dimensions and sign (−1, +1,
    −2, +2, …; inf where none could be tested). A pattern_key of `*` compares the patterns of a
    category with each other. `day_variance` (R²) and `day_autocorrelation` (0–1) describe the
    common daily shock, `noise_variance` (R²) the rest.
    """

    group: GroupKey
    calibrated_at: datetime
    n_trades: int
    cutoffs: tuple[float, ...]
    noise_variance: float
    day_variance: float
    day_autocorrelation: float
    settings: str


@dataclass(frozen=True, slots=True)
class Override:
    """What the trading system should do about a lesson: multiply its size."""

    group: GroupKey
    scope_subset: ScopeSubset
    multiplier: float
    adjusted_edge_r: float
    confidence_score: float
    decay_state: DecayState
    half_life_hours: float | None
    n: int
    q_value: float
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lesson_id(self) -> str:
        """The lesson that it was made from."""
        return lesson_id(self.group, self.scope_subset)


@dataclass(frozen=True, slots=True)
class OverrideSet:
    """A whole set of overrides, published together or not at all."""

    as_of: datetime
    published_at: datetime
    expires_at: datetime
    overrides: tuple[Override, ...]
    expected: Mapping[str, float]
    replay: bool = False
