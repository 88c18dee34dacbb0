"""The tables of a book, declared once: migrations, bulk writes and checks all read them here.

A table or column names the migration that brings it (`revision`), so that a later one adds to
what an earlier one made. Reading and writing rows is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

FIRST = "0001"
META = "0002"
FEEDBACK = "0003"
OLDER = "0004"
DAYS = "0005"
PINS = "0007"
VETOES = "0008"
APPLIED = "0009"
MEANS = "0011"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: PostgreSQL type, whether null is allowed, and what it holds."""

    name: str
    type: str
    description: str
    nullable: bool = False
    default: str | None = None
    check: str | None = None
    revision: str = FIRST

    @property
    def ddl(self) -> str:
        """The column as CREATE TABLE and ADD COLUMN want it."""
        parts = [self.name, self.type]
        parts += [f"DEFAULT {self.default}"] if self.default else []
        parts += [] if self.nullable else ["NOT NULL"]
        parts += [f"CHECK ({self.check})"] if self.check else []
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns, key and indexes (what follows the table's name in CREATE INDEX)."""

    name: str
    description: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[str, ...] = ()
    unique_indexes: tuple[str, ...] = ()
    revision: str = FIRST

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name.

        Raises:
            KeyError: names the columns that there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name} has no column {name}, only {', '.join(self.column_names)}")


_GROUP = (
    Column("module", "text", "pm or dm", check="module IN ('pm', 'dm')"),
    Column("pattern_key", "text", "pattern in dotted form"),
    Column("action_category", "text", "entry, add, trim, exit or allocation"),
)

_META_GROUP = tuple(replace(column, revision=META) for column in _GROUP)


def _since(revision: str, name: str, description: str) -> Column:
    """A number that is null where nothing was measured."""
    return Column(name, "double precision", description, nullable=True, revision=revision)


_measured = partial(_since, META)


PATTERN_TRADE_EVENTS = Table(
    "pattern_trade_events",
    "One row per action of a closed trade.",
    (
        Column("event_id", "text", "trade_id:action_id"),
        Column("trade_id", "text", "the trade that the action belongs to"),
        Column("source", "text", "the source that the trade was last taken from"),
        *_GROUP,
        Column("scope", "jsonb", "the context in which the action fired"),
        Column("rr", "double precision", "outcome of the trade, in R", check="abs(rr) <= 33"),
        Column("closed_at", "timestamptz", "when the trade closed: the time of the event"),
        Column("opened_at", "timestamptz", "when the trade opened", nullable=True),
        Column("pnl_usd", "double precision", "profit in US dollars", nullable=True),
        Column("payback_hours", "double precision", "hours to payback", nullable=True),
        Column("hold_hours", "double precision", "hours from opening to closing", nullable=True),
        Column("version", "timestamptz", "orders corrections of a trade", nullable=True),
        Column("trade_digest", "text", "digest of the trade's content"),
        Column("ingested_at", "timestamptz", "when the row was written", default="now()"),
        Column(
            "applied_overrides",
            "jsonb",
            "the multiplier that a bot was answered and applied",
            nullable=True,
            revision=APPLIED,
        ),
    ),
    ("event_id",),
    ("(closed_at)", "(trade_id)"),
)

EVENT_DAYS = Table(
    "event_days",
    "One row per UTC closing day with events: what tells whether its events have changed.",
    (
        Column("day", "date", "the UTC day on which the trades closed", revision=DAYS),
        Column("n_trades", "integer", "trades with events", revision=DAYS),
        Column("n_events", "integer", "their events", revision=DAYS),
        Column(
            "digest", "text", "digest of the content of these trades, in any order", revision=DAYS
        ),
        Column("mean_rr", "double precision", "their mean outcome, in R", revision=MEANS),
    ),
    ("day",),
    revision=DAYS,
)

REJECTED_STRANDS = Table(
    "rejected_strands",
    "Rows of a source that could not be used, with the reason.",
    (
        Column("row_id", "text", "the row's name in its source"),
        Column("trade_id", "text", "the trade that it would have been", nullable=True),
        Column("reason", "text", "why it could not be used, one word"),
        Column("detail", "text", "why, in words"),
        Column("payload", "jsonb", "the row as it was"),
        Column("closed_at", "timestamptz", "when the trade closed, if known", nullable=True),
        Column("source", "text", "the source of the row"),
        Column("version", "timestamptz", "version of the events it displaced", nullable=True),
        Column("rejected_at", "timestamptz", "when the row was written", default="now()"),
    ),
    ("row_id",),
    ("(trade_id)",),
)

LEARNING_LESSONS = Table(
    "learning_lessons",
    "What was learned about each slice.",
    (
        Column("lesson_id", "text", "pattern_key/action_category/scope_signature"),
        *_GROUP,
        Column("scope_subset", "jsonb", "the scope of the slice"),
        Column("scope_signature", "text", "the scope as text, * for everywhere"),
        Column("n", "integer", "distinct trades in the slice"),
        Column("stats", "jsonb", "statistics, multipliers, edges, aliases"),
        Column("lesson_type", "text", "pm_strength or dm_alloc"),
        Column("status", "text", "active, redundant, candidate or deprecated"),
        Column("reason", "text", "why it has this status"),
        Column("as_of", "timestamptz", "only trades closed before it were seen"),
        Column("updated_at", "timestamptz", "when the row was written", default="now()"),
        Column("decay_halflife_hours", "double precision", "half-life, in hours", nullable=True),
        Column("latent_factor_id", "text", "the factor that it belongs to", nullable=True),
    ),
    ("lesson_id",),
    ("(module, status)",),
)

LEARNING_CALIBRATIONS = Table(
    "learning_calibrations",
    "Cached cut-offs of each group.",
    (
        *_GROUP,
        Column("calibrated_at", "timestamptz", "as_of of the calibration"),
        Column("n_trades", "integer", "distinct trades of the group then"),
        Column("cutoffs", "double precision[]", "least |evidence| by number of dimensions"),
        Column("noise_variance", "double precision", "in R²"),
        Column("day_variance", "double precision", "of the common daily shock, in R²"),
        Column("day_autocorrelation", "double precision", "of the common daily shock"),
        Column("settings", "text", "digest of the configuration that it was made with"),
    ),
    ("module", "pattern_key", "action_category"),
)

LEARNING_STATE = Table(
    "learning_state",
    "What the lessons of each module were learned from.",
    (
        Column("module", "text", "pm or dm"),
        Column("events_digest", "text", "digest of the events that were seen"),
        Column("as_of", "timestamptz", "only trades closed before it were seen"),
        Column("slices_tested", "bigint", "slices that were tested"),
        Column("redundant_total", "bigint", "redundant slices, those not kept included"),
        Column("summary", "jsonb", "further numbers for reports"),
    ),
    ("module",),
)

PM_OVERRIDE_SETS = Table(
    "pm_override_sets",
    "Every set of overrides that was ever published or replayed.",
    (
        Column("set_id", "bigserial", "number of the set"),
        Column("as_of", "timestamptz", "only trades closed before it were seen"),
        Column("published_at", "timestamptz", "when it was published"),
        Column("expires_at", "timestamptz", "when it is no longer to be used"),
        Column("live_from", "timestamptz", "null for a replay", nullable=True),
        Column("live_to", "timestamptz", "null while it is live", nullable=True),
        Column("replay", "boolean", "whether it was a replay, which is never live"),
        Column("expected", "jsonb", "expected effect over the look-back"),
        Column("overrides", "jsonb", "the overrides"),
        Column(
            "pinned_at", "timestamptz", "since when a person holds it", nullable=True, revision=PINS
        ),
        Column("copy_of", "bigint", "the set that it repeats", nullable=True, revision=PINS),
        Column("changes", "jsonb", "what it changed, and why", nullable=True, revision=VETOES),
    ),
    ("set_id",),
    unique_indexes=("((true)) WHERE live_from IS NOT NULL AND live_to IS NULL",),
)

OVERRIDE_VETOES = Table(
    "override_vetoes",
    "What a person has forbidden; what is null or empty may be anything.",
    (
        Column("veto_id", "bigserial", "number of the veto", revision=VETOES),
        Column("lesson_id", "text", "the override", nullable=True, revision=VETOES),
        Column("pattern_key", "text", "the pattern", nullable=True, revision=VETOES),
        Column("action_category", "text", "the category", nullable=True, revision=VETOES),
        Column("scope_subset", "jsonb", "pairs that its scope has", revision=VETOES),
        Column("reason", "text", "why, in the words of the person", revision=VETOES),
        Column("since", "timestamptz", "from when on it counts", revision=VETOES),
        Column("until", "timestamptz", "when it ends by itself", nullable=True, revision=VETOES),
        Column("lifted_at", "timestamptz", "when it was lifted", nullable=True, revision=VETOES),
    ),
    ("veto_id",),
    revision=VETOES,
)

PM_OVERRIDES = Table(
    "pm_overrides",
    "The live set of overrides, of both modules.",
    (
        *_GROUP,
        Column("scope_subset", "jsonb", "the override is for scopes with all these pairs"),
        Column("multiplier", "double precision", "what to multiply the size by"),
        Column("confidence_score", "double precision", "probability that the sign is right"),
        Column("decay_state", "text", "insufficient, stable, decaying or improving"),
        Column("last_updated_at", "timestamptz", "when the set was published"),
        Column("set_id", "bigint", "the set that it belongs to"),
        Column("lesson_id", "text", "the lesson that it was made from"),
        Column("n", "integer", "distinct trades in the slice"),
        Column("half_life_hours", "double precision", "half-life, in hours", nullable=True),
        Column("adjusted_edge_r", "double precision", "the edge behind it, in R"),
        Column("q_value", "double precision", "false discovery rate, for reading"),
        Column("parts", "jsonb", "what the edge was made from"),
        Column("published_at", "timestamptz", "when the set was published"),
        Column("expires_at", "timestamptz", "when it is no longer to be used"),
    ),
    ("lesson_id",),
)

LEARNING_EDGE_HISTORY = Table(
    "learning_edge_history",
    "The edge of each lesson that was ever active, week by week.",
    (
        Column("lesson_id", "text", "the lesson", revision=META),
        *_META_GROUP,
        Column("scope_signature", "text", "the scope as text, * for everywhere", revision=META),
        Column("ts", "timestamptz", "the week: its Monday 00:00 UTC", revision=META),
        Column("n", "integer", "distinct trades of the slice in the week", revision=META),
        Column("delta_rr", "double precision", "slice minus complement, in R", revision=META),
        Column("se", "double precision", "standard error of delta_rr, in R", revision=META),
        Column("edge_raw", "double precision", "comparable score, in R", revision=META),
    ),
    ("lesson_id", "ts"),
    ("(ts)",),
    revision=META,
)

LEARNING_HALF_LIVES = Table(
    "learning_half_lives",
    "How fast the edge of each lesson wears out; the newest as_of counts.",
    (
        Column("as_of", "timestamptz", "only weeks that had ended were seen", revision=META),
        Column("lesson_id", "text", "the lesson", revision=META),
        Column("status", "text", "insufficient, stable, decaying or improving", revision=META),
        _measured("half_life_hours", "half-life where decaying, in hours"),
        _measured("low", "lower end of its 90-percent interval, in hours"),
        _measured("high", "upper end of its 90-percent interval, in hours"),
        _measured("e0", "fitted edge in the first week, in R"),
        Column("n_windows", "integer", "weeks with trades", revision=META),
        _measured("p_value", "of the edge being constant"),
        _measured("decay_per_hour", "rate of the fitted curve, negative where improving"),
    ),
    ("as_of", "lesson_id"),
    revision=META,
)

LEARNING_LATENT_FACTORS = Table(
    "learning_latent_factors",
    "Lessons that mean much the same trades; the newest as_of counts.",
    (
        Column("as_of", "timestamptz", "only trades closed before it were seen", revision=META),
        Column("factor_id", "text", "readable name, the same from week to week", revision=META),
        Column("module", "text", "pm or dm", check="module IN ('pm', 'dm')", revision=META),
        Column("action_category", "text", "entry, add, trim, exit or allocation", revision=META),
        Column("pattern_keys", "text[]", "the patterns of its members", revision=META),
        Column("representative_pattern", "text", "pattern of the strongest member", revision=META),
        Column("representative_lesson", "text", "its strongest active member", revision=META),
        Column("members", "jsonb", "lessons with their overlap with it", revision=META),
        Column("correlation_matrix", "jsonb", "of the first 100 members", revision=META),
    ),
    ("as_of", "factor_id"),
    revision=META,
)

LEARNING_REGIME_WEIGHTS = Table(
    "learning_regime_weights",
    "How much each multiplier tells about an edge in a market regime; the newest as_of counts.",
    (
        Column("as_of", "timestamptz", "only trades closed before it were seen", revision=FEEDBACK),
        *(replace(column, revision=FEEDBACK) for column in _GROUP),
        Column("regime_signature", "text", "the regime, * for any", revision=FEEDBACK),
        Column("weights", "jsonb", "time, field, recurrence, variance", revision=FEEDBACK),
        Column("n_samples", "integer", "pairs of a factor and a regime", revision=FEEDBACK),
        Column("confidence", "double precision", "n ÷ (n + 20)", revision=FEEDBACK),
    ),
    ("as_of", "module", "pattern_key", "action_category", "regime_signature"),
    revision=FEEDBACK,
)

OVERRIDE_EFFECTIVENESS = Table(
    "override_effectiveness",
    "What overrides learned before each week did to the trades opened in it.",
    (
        Column("ts", "timestamptz", "the week: its Monday 00:00 UTC", revision=FEEDBACK),
        Column("set_id", "bigint", "the replayed set", nullable=True, revision=FEEDBACK),
        Column("n_trades", "integer", "trades opened in it that have closed", revision=FEEDBACK),
        Column("n_overrides", "integer", "overrides of the set", revision=FEEDBACK),
        Column("n_matched", "integer", "trades that an override matched", revision=FEEDBACK),
        _since(FEEDBACK, "mean_rr", "mean R without overrides"),
        _since(FEEDBACK, "mean_rr_with", "mean R per unit of size with them"),
        _since(FEEDBACK, "difference", "mean_rr_with − mean_rr, in R"),
        _since(FEEDBACK, "low", "lower end of its 90-percent interval"),
        _since(FEEDBACK, "high", "upper end of its 90-percent interval"),
        _since(FEEDBACK, "total_size", "mean size of a trade, 1 without overrides"),
        Column("modules", "jsonb", "gain and calibration by module", revision=FEEDBACK),
        Column("overrides", "jsonb", "what each override did", revision=FEEDBACK),
        Column("evaluated_at", "timestamptz", "trades closed before it count", revision=FEEDBACK),
        Column("learned_from", "text", "digest of what the set was made of", revision=FEEDBACK),
        Column(
            "applied",
            "jsonb",
            "what bots applied over the look-back; in the newest week",
            nullable=True,
            revision=APPLIED,
        ),
    ),
    ("ts",),
    revision=FEEDBACK,
)

_OLDER_GROUP = tuple(replace(column, revision=OLDER) for column in _GROUP)

IMPORTED_LESSONS = Table(
    "imported_lessons",
    "Lessons of an older scheduler, for comparison; nothing is learned from them.",
    (
        Column("lesson_id", "text", "the id that it would have here", revision=OLDER),
        *_OLDER_GROUP,
        Column("scope_subset", "jsonb", "the scope of the slice", revision=OLDER),
        Column("n", "integer", "trades, as the older one counts", nullable=True, revision=OLDER),
        _since(OLDER, "edge_raw", "edge by the older formula, in R"),
        Column("stats", "jsonb", "its statistics as they were", revision=OLDER),
        Column("lesson_type", "text", "its type", nullable=True, revision=OLDER),
        _since(OLDER, "decay_halflife_hours", "its half-life, in hours"),
        Column("latent_factor_id", "text", "its factor", nullable=True, revision=OLDER),
        Column("status", "text", "its status", nullable=True, revision=OLDER),
        Column("imported_at", "timestamptz", "when it was last read", revision=OLDER),
    ),
    ("lesson_id",),
    revision=OLDER,
)

IMPORTED_EDGE_HISTORY = Table(
    "imported_edge_history",
    "Edge history of an older scheduler, for comparison; no half-life is fitted to it.",
    (
        Column("pattern_key", "text", "pattern in dotted form", revision=OLDER),
        Column("action_category", "text", "entry, add, trim, exit, allocation", revision=OLDER),
        Column("scope_signature", "text", "the scope as text, * for everywhere", revision=OLDER),
        Column("ts", "timestamptz", "when the older one measured it", revision=OLDER),
        Column("edge_raw", "double precision", "by the older formula, in R", revision=OLDER),
        Column("n", "integer", "trades, as the older one counts", nullable=True, revision=OLDER),
        Column("imported_at", "timestamptz", "when it was last read", revision=OLDER),
    ),
    ("pattern_key", "action_category", "scope_signature", "ts"),
    revision=OLDER,
)

BOOK_SOURCES = Table(
    "book_sources",
    "Where the trades of the book come from; the current one is the source of scheduled runs.",
    (
        Column("kind", "text", "kind of the source"),
        Column("location", "text", "path or name"),
        Column("options", "jsonb", "how to read it"),
        Column("added_at", "timestamptz", "when it was last added", default="now()"),
        Column("is_current", "boolean", "whether scheduled runs read it"),
    ),
    ("kind", "location"),
    unique_indexes=("((true)) WHERE is_current",),
)

TABLES = (
    PATTERN_TRADE_EVENTS,
    EVENT_DAYS,
    REJECTED_STRANDS,
    LEARNING_LESSONS,
    LEARNING_CALIBRATIONS,
    LEARNING_STATE,
    LEARNING_EDGE_HISTORY,
    LEARNING_HALF_LIVES,
    LEARNING_LATENT_FACTORS,
    LEARNING_REGIME_WEIGHTS,
    OVERRIDE_EFFECTIVENESS,
    PM_OVERRIDE_SETS,
    PM_OVERRIDES,
    OVERRIDE_VETOES,
    BOOK_SOURCES,
    IMPORTED_LESSONS,
    IMPORTED_EDGE_HISTORY,
)


def statements(revision: str) -> list[str]:
    """The statements that bring the tables and columns of one revision."""
    return [
        statement
        for table in TABLES
        for statement in (
            _create(table) if table.revision == revision else _extend(table, revision)
        )
    ]


def _create(table: Table) -> list[str]:
    columns = [column for column in table.columns if column.revision == table.revision]
    body = [column.ddl for column in columns] + [f"PRIMARY KEY ({', '.join(table.primary_key)})"]
    return [
        f"CREATE TABLE {table.name} ({', '.join(body)})",
        _comment("TABLE", table.name, table.description),
        *(f"CREATE INDEX ON {table.name} {index}" for index in table.indexes),
        *(f"CREATE UNIQUE INDEX ON {table.name} {index}" for index in table.unique_indexes),
        *(_comment_on(table, column) for column in columns),
    ]


def _extend(table: Table, revision: str) -> list[str]:
    columns = [column for column in table.columns if column.revision == revision]
    added = [f"ALTER TABLE {table.name} ADD COLUMN {column.ddl}" for column in columns]
    return added + [_comment_on(table, column) for column in columns]


def _comment_on(table: Table, column: Column) -> str:
    return _comment("COLUMN", f"{table.name}.{column.name}", column.description)


def _comment(kind: str, name: str, text: str) -> str:
    quoted = text.replace("'", "''")
    return f"COMMENT ON {kind} {name} IS '{quoted}'"
