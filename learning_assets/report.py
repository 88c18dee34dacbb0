"""The page of `learning report`: one HTML file that holds all it shows, its pictures included.

What is in a book goes in, text comes out; nothing is learned or read from the store here. How
pictures are drawn is in `pictures`, the frame of the page in `report.html`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from learning_assets import pictures
from learning_assets.core.adjust import MeasuredFactors, MeasuredHalfLives
from learning_assets.core.feedback import ALL, AppliedFeedback, Effect
from learning_assets.core.gain import ModuleGain
from learning_assets.core.history import EdgePoint
from learning_assets.core.learn import DetectionLimit
from learning_assets.core.records import DayOutcome, Lesson, LessonStatus, Override, OverrideSet
from learning_assets.core.regime_weights import EVERY, RegimeEdge, RegimeWeights
from learning_assets.core.scope import ScopeSubset, signature
from learning_assets.core.vetoes import why_vetoed
from learning_assets.core.walkforward import WeekResult

MOST_ROWS, MOST_FACTORS = 40, 15
"""Rows of a table; what is beyond is counted."""

_PAGE = Path(__file__).with_suffix(".html")
_SHARP = 2
"""Pixels of a picture for one of the page, so that it is sharp in print."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the regimes and the walk-forward taught; empty where nothing was measured.

    `regime` is the signature of the regime in force, None where it is unknown; `applied` is what
    bots applied, None where no trade says so.
    """

    regime: str | None = None
    weights: Sequence[RegimeWeights] = ()
    edges: Sequence[RegimeEdge] = ()
    weeks: Sequence[WeekResult] = ()
    gains: Sequence[ModuleGain] = ()
    applied: AppliedFeedback | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a book holds. None and empty where there is nothing yet.

    `limits` are the detection limits and `slices_tested` the slices by module, `withheld` the
    active lessons (ids) without an override with the reasons, `history` the weekly edges.
    """

    book: str
    made_at: datetime
    source: str
    n_trades: int
    n_events: int
    rejected: Mapping[str, int]
    days: Sequence[DayOutcome]
    published: OverrideSet | None
    lessons: Sequence[Lesson]
    slices_tested: Mapping[str, int]
    limits: Mapping[str, DetectionLimit | None]
    history: Sequence[EdgePoint]
    half_lives: MeasuredHalfLives | None
    factors: MeasuredFactors | None
    withheld: Sequence[tuple[str, str]]
    feedback: Feedback


def page(contents: Contents) -> str:
    """The report as HTML, without anything from outside."""
    sections = (
        _overrides(contents),
        _lessons(contents),
        _edges(contents),
        _half_lives(contents),
        _factors(contents),
        _regimes(contents.feedback),
        _walk_forward(contents.feedback),
        _trades(contents),
        _neutral(contents),
        _words(),
    )
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"What was learned: {contents.book}"),
        facts=_facts(contents),
        links=" ".join(f'<a href="#{x.name}">{escape(x.title)}</a>' for x in sections),
        sections="\n".join(x.html() for x in sections),
    )


# --- parts of a page -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    title: str
    parts: tuple[str, ...]

    def html(self) -> str:
        body = "\n".join(self.parts)
        return f'<section id="{self.name}">\n<h2>{escape(self.title)}</h2>\n{body}\n</section>'


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def _figure(picture: pictures.Picture) -> str:
    """The picture; its words where there is nothing to draw."""
    if picture.figure is None:
        return _paragraph(picture.words)
    uri = picture.data_uri(_SHARP)
    return f'<figure><img src="{uri}" alt="{escape(picture.words)}"></figure>'


def _table(
    words: Sequence[str],
    numbers: Sequence[str],
    rows: Sequence[Sequence[str]],
    most: int = MOST_ROWS,
) -> str:
    """A table: columns of words, then columns of numbers; nothing without rows."""
    if not rows:
        return ""
    kinds = ["", *[""] * (len(words) - 1), *[' class="number"'] * len(numbers)]
    head = _row("th", kinds, [*words, *numbers])
    body = "\n".join(_row("td", kinds, row) for row in rows[:most])
    more = f'<p class="soft">… and {len(rows) - most:,} more</p>'
    return (
        f'<div class="scroll"><table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table>'
        f"{more if len(rows) > most else ''}</div>"
    )


def _row(tag: str, kinds: Sequence[str], cells: Sequence[str]) -> str:
    pairs = zip(kinds, cells, strict=True)
    return f"<tr>{''.join(f'<{tag}{kind}>{_cell(cell)}</{tag}>' for kind, cell in pairs)}</tr>"


def _cell(text: str) -> str:
    """The text; the ids of lessons may be broken between their parts."""
    return escape(text).replace("/", "/<wbr>").replace("|", "|<wbr>")


def _list(facts: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f"<dl>{items}</dl>"


def _where(scope_subset: ScopeSubset) -> str:
    return ", ".join(signature(scope_subset).split("|")) if scope_subset else "everywhere"


def _edge(edge_r: float | None, se_r: float | None = None) -> str:
    if edge_r is None:
        return "–"
    return f"{edge_r:+.2f}" if se_r is None else f"{edge_r:+.2f} ± {pictures.Z90 * se_r:.2f}"


def _sureness(share: float) -> str:
    return f"{share:.1%}" if share < 0.9995 else "> 99.9%"


def _hours(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} h"


def _between(low: float | None, high: float | None, digits: int) -> str:
    return "–" if low is None or high is None else f"{low:,.{digits}f} to {high:,.{digits}f}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


# --- sections --------------------------------------------------------------------------------


def _facts(contents: Contents) -> str:
    live = contents.published
    stale = live is not None and live.expires_at <= contents.made_at
    n_rejected = sum(contents.rejected.values())
    facts = {
        "source": contents.source,
        "trades": f"{contents.n_trades:,} closed trades with {contents.n_events:,} actions",
        "rejected rows": f"{n_rejected:,}" if n_rejected else "none",
        "learned as of": _moment(live.as_of) if live else "nothing published yet",
        "published": _moment(live.published_at) if live else "–",
        "expires": "–" if live is None else _moment(live.expires_at),
        "this page": f"made {_moment(contents.made_at)}",
    }
    if stale:
        facts["expires"] += ": expired, so a bot leaves its sizes as they are"
    return _list(facts.items())


def _overrides(contents: Contents) -> _Section:
    title = "Overrides"
    if contents.published is None:
        return _Section("overrides", title, (_paragraph("Nothing has been published yet."),))
    ranked = sorted(contents.published.overrides, key=lambda o: -abs(o.multiplier - 1))
    rows = [
        (
            o.group.pattern_key, o.group.action_category, _where(o.scope_subset),
            _multiplier(o), _between(*pictures.override_interval(o), digits=2),
            f"{o.n:,}", _edge(o.parts.get("joint_edge_r"), o.parts.get("joint_se_r")),
            f"{o.adjusted_edge_r:+.2f}", _sureness(o.confidence_score),
        )
        for o in ranked
    ]  # fmt: skip
    numbers = ("multiplier", "90 %", "n", "edge (R, 90 %)", "left (R)", "sign right")
    sums = [(o.lesson_id, sum_in_words(o)) for o in ranked]
    parts = (
        _paragraph(
            "What the trading system multiplies its size by when a pattern fires in a scope. Where "
            "several match, add what each is above or below 1. For trim and exit it is the "
            "fraction sold, and those edges are associations: winners get trimmed."
        ),
        _figure(pictures.overrides(ranked)),
        _table(("pattern", "category", "scope"), numbers, rows),
        _expected(contents.published) if ranked else "",
        _heading("How each multiplier comes about") if ranked else "",
        _table(("lesson", "sum"), (), sums),
    )
    return _Section("overrides", title, parts)


def _multiplier(override: Override) -> str:
    return "vetoed" if why_vetoed(override) is not None else f"×{override.multiplier:.2f}"


def _expected(published: OverrideSet) -> str:
    """What the set would have done to the look-back."""
    kinds = {"total_size": "total size", "volatility": "volatility", "drawdown": "drawdown"}
    heading = _heading("What they would have changed over the look-back")
    if not published.expected:
        return heading + _paragraph("Not known: vetoes have changed the set, the next run tells.")
    rows = [(word, f"{published.expected.get(name, 0.0):+.1%}") for name, word in kinds.items()]
    rows.append(("mean R per unit of size", f"{published.expected.get('mean_rr', 0.0):+.3f} R"))
    return heading + _table(("of",), ("by",), rows)


_TERMS = {
    "gain": "gain {:.2f}",
    "joint_edge_r": "edge {:+.2f} R",
    "remaining_share": "left {:.2f}",
    "share": "share {:.2f}",
    "regime_factor": "regime {:.2f}",
}
"""The parts of an override in the order of the product; the common scale only where it is not 1."""


def sum_in_words(override: Override) -> str:
    """The sum behind a multiplier, e.g. `1 + gain 0.50 × edge +0.62 R × … = ×1.26`."""
    parts = override.parts
    if (reason := why_vetoed(override)) is not None:
        return f"×1, vetoed: {reason} (without the veto ×{parts['without_veto']:.2f})"
    if not _TERMS.keys() <= parts.keys():
        return f"×{override.multiplier:.2f}, of which the parts are not known"
    terms = [words.format(parts[name]) for name, words in _TERMS.items()]
    if parts["size_scale"] != 1:
        terms.append(f"scale {parts['size_scale']:.2f}")
    whole = 1.0 + parts["gain"] * parts["size_scale"] * override.adjusted_edge_r
    held = abs(whole - override.multiplier) > 1e-9
    end = f", held at the bound ×{override.multiplier:.2f}" if held else ""
    return f"1 + {' × '.join(terms)} = ×{whole:.2f}{end}"


def _lessons(contents: Contents) -> _Section:
    counts = Counter(x.status for x in contents.lessons)
    tested = ", ".join(f"{n:,} slices of {m}" for m, n in contents.slices_tested.items()) or "none"
    shown = [
        x
        for status in (LessonStatus.ACTIVE, LessonStatus.DEPRECATED)
        for x in sorted(contents.lessons, key=_by_strength)
        if x.status is status
    ]
    rows = [
        (
            x.group.pattern_key, x.group.action_category, _where(x.scope_subset), str(x.status),
            x.reason, f"{x.stats.n:,}", _edge(x.joint_edge_r, x.joint_se_r),
            _edge(x.stats.delta_rr, x.stats.se),
        )
        for x in shown
    ]  # fmt: skip
    parts = (
        _paragraph(
            f"Tested: {tested}. Lessons: "
            + (", ".join(f"{counts[s]:,} {s}" for s in LessonStatus if counts[s]) or "none")
            + ". The joint edge is what remains of a scope's edge once the other active ones are "
            "taken out; the plain difference counts what overlaps twice."
        ),
        _figure(pictures.lessons(contents.lessons, contents.limits)),
        _table(
            ("pattern", "category", "scope", "status", "reason"),
            ("n", "joint edge (R, 90 %)", "plain difference (R, 90 %)"),
            rows,
        ),
    )
    return _Section("lessons", "Lessons", parts)


def _by_strength(lesson: Lesson) -> tuple[float, str]:
    return -abs(lesson.joint_edge_r or lesson.stats.delta_rr), lesson.lesson_id


def _edges(contents: Contents) -> _Section:
    wear = contents.half_lives.by_lesson if contents.half_lives else {}
    drawn = pictures.edge_history(contents.history, wear, contents.lessons)
    return _Section("edges", "Edge history", (_figure(drawn),))


def _half_lives(contents: Contents) -> _Section:
    title, measured = "Half-lives", contents.half_lives
    if measured is None:
        words = "No half-life has been measured yet: every edge counts as lasting."
        return _Section("half-lives", title, (_paragraph(words),))
    active = [x for x in contents.lessons if x.status is LessonStatus.ACTIVE]
    found = [(x, measured.by_lesson.get(x.lesson_id)) for x in sorted(active, key=_by_strength)]
    rows = [
        (
            x.group.pattern_key, x.group.action_category, _where(x.scope_subset), str(h.status),
            _hours(h.half_life_hours), _between(h.low, h.high, 0), _edge(h.e0),
            "–" if h.p_value is None else f"{h.p_value:.3f}", f"{h.n_windows:,}",
        )
        for x, h in found if h is not None
    ]  # fmt: skip
    head = ("half-life", "90 % (h)", "first edge (R)", "p of lasting", "weeks")
    told = f"Of the active lessons, measured as of {_moment(measured.as_of)}."
    table = _table(("pattern", "category", "scope", "wear"), head, rows)
    none = _paragraph("No active lesson is among those that were measured.")
    return _Section("half-lives", title, (_paragraph(told), table or none))


def _factors(contents: Contents) -> _Section:
    title, measured = "Latent factors", contents.factors
    if measured is None:
        words = "Factors have not been looked for yet: every lesson counts as a cause of its own."
        return _Section("factors", title, (_paragraph(words),))
    several = [f for f in measured.factors if len(f.members) > 1]
    several.sort(key=lambda f: (-len(f.pattern_keys), -len(f.members), f.factor_id))
    rows = [
        (
            f.factor_id, f.representative, f"{len(f.members):,}", f"{len(f.pattern_keys):,}",
            f"{min(overlap for _, overlap in f.members):.2f}",
        )
        for f in several
    ]  # fmt: skip
    told = (
        f"Lessons of much the same trades, found as of {_moment(measured.as_of)}. Members of "
        "different patterns share their edge, so that a trade is not adjusted twice for one cause."
    )
    head = ("lessons", "patterns", "least overlap")
    table = _table(("factor", "represented by"), head, rows, MOST_FACTORS)
    parts = (_paragraph(told), _figure(pictures.factors(measured.factors)), table)
    return _Section("factors", title, parts)


def _regimes(feedback: Feedback) -> _Section:
    weights = [
        (
            _who(w.group.module, w.group.pattern_key, w.group.action_category),
            "any" if w.regime_signature == EVERY else w.regime_signature.replace("|", ", "),
            *(f"{x:.2f}" for x in (w.time, w.field, w.recurrence, w.variance)),
            f"{w.n_samples:,}", f"{w.confidence:.2f}",
        )
        for w in feedback.weights if w.n_samples
    ]  # fmt: skip
    edges = [
        (
            e.group.pattern_key, e.group.action_category, f"{e.dim}={e.state}",
            f"{e.edge_r:+.2f}", _between(e.low, e.high, 2), f"{e.n:,}",
        )
        for e in sorted(feedback.edges, key=lambda e: -abs(e.edge_r))
    ]  # fmt: skip
    names = ("time", "field", "recurrence", "variance", "n", "confidence")
    parts = (
        _figure(pictures.regime_weights(feedback.weights, feedback.regime)),
        _table(("of", "regime"), names, weights),
        _heading("Edge by regime state"),
        _figure(pictures.regime_edges(feedback.edges)),
        _table(("pattern", "category", "state"), ("edge (R)", "90 % (R)", "n"), edges),
    )
    return _Section("regimes", "Regimes", parts)


def _who(module: str, pattern_key: str, category: str) -> str:
    return f"{module}, all patterns" if pattern_key == EVERY else f"{pattern_key} {category}"


def _walk_forward(feedback: Feedback) -> _Section:
    weeks = [
        (
            f"{w.week:%Y-%m-%d}", f"{w.n_trades:,}", f"{w.n_overrides:,}", f"{w.n_matched:,}",
            _edge(w.mean_rr), _edge(w.mean_rr_with), _edge(w.difference),
            _between(w.low, w.high, 2), "–" if w.total_size is None else f"{w.total_size:.2f}",
        )
        for w in reversed(feedback.weeks)
    ]  # fmt: skip
    gains = [
        (
            g.module, f"{g.as_of:%Y-%m-%d}", f"{g.value:.2f}", _edge(g.slope, g.se),
            f"{g.n_weeks:,}", f"{g.n_trades:,}",
        )
        for g in _newest(feedback.gains)
    ]  # fmt: skip
    head = (
        *("trades", "overrides", "matched", "mean R", "with them (R)", "difference (R)"),
        *("90 % (R)", "mean size"),
    )
    parts = (
        _paragraph(
            "For each week: the overrides that could be learned before it, applied to the trades "
            "opened in it."
        ),
        _figure(pictures.walk_forward(feedback.weeks, feedback.gains)),
        _table(("module", "as of"), ("gain", "slope (90 %)", "weeks", "trades"), gains),
        _table(("week from",), head, weeks),
        *(_applied(feedback.applied) if feedback.applied else ()),
    )
    return _Section("walk-forward", "Walk-forward", parts)


def _applied(found: AppliedFeedback) -> Iterator[str]:
    """What happened with the overrides applied, against the hold-out."""
    yield _heading("What bots applied, against the hold-out")
    yield _paragraph(
        f"Of the trades that closed from {_moment(found.since)} to {_moment(found.as_of)}. Effect: "
        "mean of size × R where the override was applied, less the mean R of the trades that it "
        "matched and that were held out, per trade at base size. A trade may count for several."
    )
    head = (
        *("applied", "held out", "watched", "mean R applied", "mean R held out"),
        *("multiplier", "effect (R)", "90 % (R)"),
    )
    rows = [_applied_row(x) for x in (found.total, *found.overrides)]
    yield _table(("lesson", "why no effect"), head, rows)


def _applied_row(x: Effect) -> tuple[str, ...]:
    return (
        *("all together" if x.lesson_id == ALL else x.lesson_id, x.reason),
        *(f"{n:,}" for n in (x.applied.n_trades, x.held_out.n_trades, x.n_shadow)),
        *(_edge(x.applied.mean_rr), _edge(x.held_out.mean_rr)),
        "–" if x.mean_multiplier is None else f"×{x.mean_multiplier:.2f}",
        *(_edge(x.effect_r), _between(x.low, x.high, 2)),
    )


def _newest(gains: Sequence[ModuleGain]) -> list[ModuleGain]:
    return list({g.module: g for g in sorted(gains, key=lambda g: g.as_of)}.values())


def _trades(contents: Contents) -> _Section:
    n_rejected = sum(contents.rejected.values())
    rows = [(reason, f"{n:,}") for reason, n in contents.rejected.items()]
    parts = (
        _figure(pictures.events(contents.days, n_rejected)),
        _table(("rejected because",), ("rows",), rows),
    )
    return _Section("trades", "Trades", parts)


def _neutral(contents: Contents) -> _Section:
    published = contents.published.overrides if contents.published else ()
    notes = Counter(note for o in published for note in o.parts.get("notes", ()))
    missing = [_paragraph(sentence) for sentence in _missing(contents)]
    parts = (
        _paragraph("What is unknown counts as neutral, and what is worn out is left alone."),
        *missing,
        _table(("counted as neutral",), ("overrides",), [(x, f"{n:,}") for x, n in notes.items()]),
        _heading("Active lessons without an override") if contents.withheld else "",
        _table(("lesson", "reason"), (), contents.withheld),
    )
    return _Section("neutral", "Missing or neutral", parts)


def _missing(contents: Contents) -> list[str]:
    feedback = contents.feedback
    sentences = {
        "Half-lives are not measured: edges count as lasting.": contents.half_lives,
        "Factors are not measured: every lesson counts as a cause of its own.": contents.factors,
        "Regime weights are not measured: all of them count as 1.": feedback.weights,
        "No week has been walked forward: the gain is its prior.": feedback.weeks,
    }
    found = [sentence for sentence, there in sentences.items() if not there]
    return found or ["Nothing is missing."]


_GLOSSARY = {
    "R": "Profit of a trade divided by the risk taken at entry.",
    "n": "Distinct trades; a trade counts once, however many of its actions match.",
    "pm, dm": "Portfolio manager (entry, add, trim, exit) and decision maker (allocation).",
    "scope": "The context in which an action fired: chain, timeframe, market regime, …",
    "slice": "One pattern, one category, one scope: the trades that match all three.",
    "lesson": "What was learned about a slice.",
    "active": "Beyond its cut-off together with all other active lessons; it becomes an override.",
    "redundant": "Beyond its cut-off alone, but explained by active lessons.",
    "candidate": "The best of the rest, for a person to look at; it changes nothing.",
    "deprecated": "Was active and is not any more; the reason says why.",
    "joint edge": (
        "What a slice earns above the rest of its group, in R, the other active lessons taken out."
    ),
    "90 % interval": "Where the true value lies in nine of ten such cases.",
    "half-life": (
        "Hours in which a fading edge halves. stable: no wear to be told from noise; improving: it "
        "grows; insufficient: fewer than four weeks."
    ),
    "left": "The share of the joint edge that has not worn out by now.",
    "latent factor": "Lessons whose trades overlap so much that they have one cause.",
    "share": "What a lesson keeps where lessons of several patterns have one cause.",
    "gain": (
        "How far the learning has earned to be trusted, from 0 to 1, by how much of what it "
        "predicted came true; 0.5 before anything was measured."
    ),
    "scale": "Below 1 where all adjustments together would change the total size by too much.",
    "override": "The multiplier that the trading system applies to its size; 1 changes nothing.",
    "regime weight": (
        "How much more (above 1) or less a multiplier tells about an edge in a market regime."
    ),
    "held out": "Left at its size by chance, so that what overrides do can be told.",
    "walk-forward": "Learning as of each past week, judged on the trades opened after it.",
    "smallest edge that would have been found": (
        "With it, a slice of that many trades is found in eight of ten cases."
    ),
}


def _words() -> _Section:
    return _Section("words", "What the words mean", (_list(_GLOSSARY.items()),))
