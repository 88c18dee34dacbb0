"""Pictures of what was learned, one function for each: records in, a drawing out.

Used by the assets' metadata and by the report. Nothing is learned here, and how a page is put
together is in `report`. Figures are made without pyplot, so that nothing is shared between runs;
colours are those of Okabe & Ito (2008), which the colour-blind can tell apart.
"""

from __future__ import annotations

import base64
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from io import BytesIO
from itertools import groupby, islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray
from PIL import Image
from scipy import stats

from learning_assets.core.combine import BOUNDS, clip_multiplier
from learning_assets.core.events import instant
from learning_assets.core.factors import Factor
from learning_assets.core.gain import ModuleGain
from learning_assets.core.halflife import HalfLife
from learning_assets.core.history import WEEK, EdgePoint
from learning_assets.core.learn import DetectionLimit
from learning_assets.core.records import (
    DayOutcome,
    GroupKey,
    Lesson,
    LessonStatus,
    Override,
)
from learning_assets.core.regime_weights import EVERY, RegimeEdge, RegimeWeights
from learning_assets.core.scope import EVERYWHERE, signature
from learning_assets.core.vetoes import why_vetoed
from learning_assets.core.walkforward import WeekResult

Floats = NDArray[np.float64]

WIDTH_PX = 900
DPI = 100
Z90 = float(stats.norm.ppf(0.95))
"""Half a 90 % interval, in standard errors."""

MOST_BARS, MOST_PANELS, MOST_MATRICES, MOST_MEMBERS = 30, 8, 6, 10
MOST_REGIMES, MOST_GROUPS, MOST_DIMS = 20, 12, 6
MOST_DAYS = 365

BLUE, ORANGE, PALE, GREY, INK = "#0072B2", "#D55E00", "#9cc4dd", "#8a8a8a", "#222222"
_COLOUR = {"pm": BLUE, "dm": ORANGE}
_HATCH = {"pm": "", "dm": "///"}
_MARKER = {"pm": "o", "dm": "s"}
_SMALL, _NORMAL, _LARGE = 7.0, 8.0, 10.0
_LABEL_PX, _TITLE_PX, _REGIME_PX = 300.0, 380.0, 330.0
_FONT = "DejaVu Sans"
_PALETTE = 128


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing with the words that say what it shows.

    Without anything to draw there is no figure, and the words say why.
    """

    words: str
    figure: Figure | None = None

    def png(self, scale: int = 1) -> bytes:
        """The drawing as PNG, `scale` times 900 px wide.

        Raises:
            ValueError: where there is no figure.
        """
        if self.figure is None:
            raise ValueError(f"there is nothing to draw: {self.words}")
        raw, out = BytesIO(), BytesIO()
        self.figure.savefig(raw, format="png", dpi=scale * DPI)
        with Image.open(raw) as drawn:
            # A palette makes it a third of the size, and metadata are kept with every run.
            drawn.convert("RGB").quantize(_PALETTE).save(out, "PNG", optimize=True)
        return out.getvalue()

    def data_uri(self, scale: int = 1) -> str:
        """The drawing as an address that holds it.

        Raises:
            ValueError: where there is no figure.
        """
        return f"data:image/png;base64,{base64.b64encode(self.png(scale)).decode()}"

    def markdown(self) -> str:
        """The drawing for a page in Markdown; the words alone where there is none."""
        if self.figure is None:
            return self.words
        return f"![{self.words.translate(_NO_BRACKETS)}]({self.data_uri()})"


_NO_BRACKETS = str.maketrans("[]\n", "() ")


# --- lessons, overrides ----------------------------------------------------------------------


def lessons(found: Sequence[Lesson], limits: Mapping[str, DetectionLimit | None]) -> Picture:
    """The joint edges of the active lessons with their 90 % intervals, the strongest first.

    `limits` are the detection limits by module, None where nothing could be tested.
    """
    active = [x for x in found if x.status is LessonStatus.ACTIVE and _known(x.joint_edge_r)]
    would = " ".join(_limit_words(module, limit) for module, limit in limits.items())
    if not active:
        return Picture(f"No lesson is active, so there is no edge to show. {would}".strip())
    ranked = sorted(active, key=lambda x: (-abs(x.joint_edge_r or 0.0), x.lesson_id))[:MOST_BARS]
    title = f"Active lessons: joint edge with 90 % interval{_of_all(len(ranked), len(active))}"
    figure, axes = _ranked(len(ranked), f"{title}\n{would}")
    axes.xaxis.label.set_fontsize(_NORMAL)
    for module in ("pm", "dm"):
        _forest(axes, ranked, module)
    for module, limit in limits.items():
        for edge in () if limit is None else (-limit.edge_r, limit.edge_r):
            axes.axvline(edge, color=_COLOUR[module], ls=":", lw=1)
    _name_rows(axes, [_slice_label(x.group, signature(x.scope_subset), x.stats.n) for x in ranked])
    axes.axvline(0, color=INK, lw=1)
    axes.set_xlabel("joint edge (R); dotted: smallest edge that would have been found")
    _legend(axes)
    return Picture(_plain(title), figure)


def _limit_words(module: str, limit: DetectionLimit | None) -> str:
    if limit is None:
        return f"{module}: too few trades to test any slice."
    return f"{module}: {limit.edge_r:.2f} R in {limit.n:,} trades would have been found."


def _forest(axes: Axes, ranked: Sequence[Lesson], module: str) -> None:
    rows = [i for i, x in enumerate(ranked) if x.group.module == module]
    if rows:
        edges = [ranked[i].joint_edge_r or 0.0 for i in rows]
        errors = [Z90 * (ranked[i].joint_se_r or 0.0) for i in rows]
        axes.errorbar(
            edges, rows, xerr=_finite(errors), fmt=_MARKER[module], color=_COLOUR[module],
            ms=5, lw=1.5, capsize=2, label=module,
        )  # fmt: skip


def overrides(published: Sequence[Override]) -> Picture:
    """The multipliers as bars from 1, the largest change first, with their 90 % intervals."""
    if not published:
        return Picture("There are no overrides: sizes stay as they are.")
    ranked = sorted(published, key=lambda o: (-abs(o.multiplier - 1), o.lesson_id))[:MOST_BARS]
    title = f"Overrides: multiplier with 90 % interval{_of_all(len(ranked), len(published))}"
    figure, axes = _ranked(len(ranked), title)
    for module in ("pm", "dm"):
        _bars(axes, ranked, module)
    lows, highs = zip(*map(override_interval, ranked), strict=True)
    rows = range(len(ranked))
    axes.hlines(rows, lows, highs, color=INK, lw=1.2)
    for row, override, high in zip(rows, ranked, highs, strict=True):
        axes.annotate(
            _multiplier_words(override), (max(high, override.multiplier, 1.0), row),
            xytext=(4, 0), textcoords="offset points", va="center", size=_NORMAL,
        )  # fmt: skip
    _name_rows(axes, [_slice_label(o.group, signature(o.scope_subset), o.n) for o in ranked])
    axes.axvline(1, color=INK, lw=1)
    axes.margins(x=0.15)
    axes.set_xlabel("× size (of a trim or exit: × fraction sold); 1 leaves it as it is")
    _legend(axes)
    return Picture(_plain(title), figure)


def _multiplier_words(override: Override) -> str:
    if why_vetoed(override) is not None:
        return "vetoed"
    is_bounded = override.multiplier in BOUNDS[override.group.module]
    return f"×{override.multiplier:.2f}{' (bound)' if is_bounded else ''}"


def override_interval(override: Override) -> tuple[float, float]:
    """The 90 % interval of the multiplier, from the joint edge's error, within the bounds.

    Everything that scaled the joint edge scales its error; without an error the interval is the
    multiplier alone; that of a vetoed override is too.
    """
    parts, module = override.parts, override.group.module
    joint, se = parts.get("joint_edge_r"), parts.get("joint_se_r")
    if not joint or not _known(se) or why_vetoed(override) is not None:
        return override.multiplier, override.multiplier
    scale = parts["gain"] * parts["size_scale"]
    centre = 1.0 + scale * override.adjusted_edge_r
    half = Z90 * scale * se * override.adjusted_edge_r / joint
    return clip_multiplier(module, centre - half), clip_multiplier(module, centre + half)


def _bars(axes: Axes, ranked: Sequence[Override], module: str) -> None:
    rows = [i for i, o in enumerate(ranked) if o.group.module == module]
    if rows:
        axes.barh(
            rows, [ranked[i].multiplier - 1 for i in rows], left=1, height=0.6, label=module,
            color=_COLOUR[module], alpha=0.75, hatch=_HATCH[module], edgecolor="white",
        )  # fmt: skip


# --- edges through time ----------------------------------------------------------------------


def edge_history(
    points: Sequence[EdgePoint], half_lives: Mapping[str, HalfLife], ranked: Sequence[Lesson]
) -> Picture:
    """The weekly edges of the strongest active lessons of `ranked`, with their fitted wear.

    The curve is e0·exp(−λt); its band covers the half-lives of the 90 % interval, each with the
    e0 that fits it best.
    """
    by_lesson = {name: list(own) for name, own in groupby(points, key=lambda p: p.lesson_id)}
    active = [x for x in ranked if x.status is LessonStatus.ACTIVE and x.lesson_id in by_lesson]
    if not active:
        return Picture("No active lesson has a week of history yet, so there is no curve to show.")
    active.sort(key=lambda x: (-abs(x.joint_edge_r or 0.0), x.lesson_id))
    shown = active[:MOST_PANELS]
    title = f"Edge by week, with its 90 % interval{_of_all(len(shown), len(active))}"
    note = "line: fitted wear; band: 90 % interval of its half-life; dotted: zero"
    figure, panels = _panels(len(shown), 2, 2.0, f"{title}\n{note}", share_x=True)
    for axes, lesson in zip(panels, shown, strict=True):
        own, found = by_lesson[lesson.lesson_id], half_lives.get(lesson.lesson_id)
        _history(axes, own, found)
        lines = _slice_lines(lesson.group, signature(lesson.scope_subset), _TITLE_PX, _SMALL)
        below = f"{_wear_words(found)}, n {sum(p.n for p in own):,} in {_count(len(own), 'week')}"
        axes.set_title("\n".join([*lines, below]), loc="left", size=_SMALL)
    return Picture(_plain(title), figure)


def _wear_words(found: HalfLife | None) -> str:
    if found is None:
        return "wear not measured"
    if found.half_life_hours is None:
        return str(found.status)
    return f"half-life {found.half_life_hours:,.0f} h ({found.low:,.0f}–{found.high:,.0f})"


def _history(axes: Axes, points: Sequence[EdgePoint], found: HalfLife | None) -> None:
    weeks, edges = _times(p.week for p in points), np.array([p.delta_rr for p in points])
    errors = Z90 * np.array(_finite([p.se for p in points]))
    axes.axhline(0, color=GREY, ls=":", lw=1)
    axes.errorbar(
        weeks, edges, yerr=errors, fmt="o", color=BLUE, ecolor=PALE, ms=3.5, lw=1,
        label="edge of the week",
    )  # fmt: skip
    lowest, highest = _sure_range(edges, errors)
    if found is not None and found.decay_per_hour is not None:
        curve = _draw_wear(axes, points, found)
        lowest, highest = min(lowest, curve.min()), max(highest, curve.max())
    room = 0.08 * (highest - lowest) or 0.1
    axes.set_ylim(lowest - room, highest + room)
    axes.set_ylabel("edge (R)", size=_SMALL)
    _dates(axes)


def _sure_range(edges: Floats, errors: Floats) -> tuple[float, float]:
    """What the axis must show: all edges, and the errors of the surer half; 0 as well."""
    sure = errors <= np.median(errors)
    low, high = edges[sure] - errors[sure], edges[sure] + errors[sure]
    return min(0.0, edges.min(), low.min()), max(0.0, edges.max(), high.max())


def _draw_wear(axes: Axes, points: Sequence[EdgePoint], found: HalfLife) -> Floats:
    """Draw the fitted curve with its band; return the curve (R)."""
    hours = np.linspace(0, (points[-1].week - points[0].week) / timedelta(hours=1), 100)
    weeks = _times(points[0].week + timedelta(hours=float(h)) for h in hours)
    curve = (found.e0 or 0.0) * np.exp(-(found.decay_per_hour or 0.0) * hours)
    axes.plot(weeks, curve, color=ORANGE, lw=1.8, label="fitted wear")
    if found.low and found.high:
        rates = math.log(2) / np.geomspace(found.low, found.high, 41)
        curves = np.array([_best_e0(points, rate) * np.exp(-rate * hours) for rate in rates])
        low, high = curves.min(axis=0), curves.max(axis=0)
        axes.fill_between(weeks, low, high, color=ORANGE, alpha=0.2, lw=0)
    return np.asarray(curve)


def _best_e0(points: Sequence[EdgePoint], rate: float) -> float:
    """e0 = Σ w·e·c ÷ Σ w·c² with c = exp(−rate·t) and w = 1/se²: weighted least squares."""
    hours = np.array([(p.week - points[0].week) / timedelta(hours=1) for p in points])
    weight = 1.0 / np.array([p.se for p in points]) ** 2
    curve, edge = np.exp(-rate * hours), np.array([p.delta_rr for p in points])
    return float((weight * edge * curve).sum() / (weight * curve**2).sum())


def walk_forward(results: Sequence[WeekResult], gains: Sequence[ModuleGain]) -> Picture:
    """What the overrides did week by week and in sum, and the gain that they earned below."""
    weeks = [r for r in results if r.difference is not None]
    if not weeks:
        return Picture("No week has been walked forward yet, so there is no result to show.")
    total = sum((r.difference or 0.0) * r.n_trades for r in weeks)
    title = f"Walk-forward: {_count(len(weeks), 'week')} with overrides learned before"
    note = f"in sum {total:+,.1f} R at one unit of size per trade; intervals 90 %"
    figure, (weekly, running, gain) = _panels(3, 1, 1.8, f"{title}\n{note}", share_x=True)
    _draw_weeks(weekly, weeks)
    sums = np.cumsum([(r.difference or 0.0) * r.n_trades for r in weeks])
    running.step(
        _times(r.week + WEEK for r in weeks), sums, where="post", color=BLUE, marker="o", ms=3
    )
    running.axhline(0, color=GREY, ls=":", lw=1)
    running.set_ylabel("sum (R)")
    _draw_gains(gain, gains)
    _dates(gain)
    return Picture(_plain(title), figure)


def _draw_weeks(axes: Axes, weeks: Sequence[WeekResult]) -> None:
    differences = np.array([r.difference for r in weeks], dtype=float)
    below = [d - (d if r.low is None else r.low) for d, r in zip(differences, weeks, strict=True)]
    above = [(d if r.high is None else r.high) - d for d, r in zip(differences, weeks, strict=True)]
    axes.axhline(0, color=GREY, ls=":", lw=1)
    errors = [np.maximum(below, 0), np.maximum(above, 0)]
    axes.errorbar(
        _times(r.week for r in weeks), differences, yerr=errors, fmt="o", color=BLUE,
        ecolor=PALE, ms=4, lw=1.2,
    )  # fmt: skip
    axes.set_ylabel("difference\nper trade (R)")


def _draw_gains(axes: Axes, gains: Sequence[ModuleGain]) -> None:
    for module in ("pm", "dm"):
        own = sorted((g for g in gains if g.module == module), key=lambda g: g.as_of)
        if own:
            when, value = _times(g.as_of for g in own), np.array([g.value for g in own])
            half = Z90 * np.array([_gain_error(g) for g in own])
            low, high = np.clip(value - half, 0, 1), np.clip(value + half, 0, 1)
            axes.plot(
                when, value, color=_COLOUR[module], marker=_MARKER[module], ms=3, label=module
            )
            axes.fill_between(when, low, high, color=_COLOUR[module], alpha=0.15, lw=0)
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel("gain (0–1)")
    if gains:
        _legend(axes)
    else:
        axes.text(0.5, 0.5, "no gain measured yet", ha="center", transform=axes.transAxes)


def _gain_error(gain: ModuleGain) -> float:
    """Standard error of the slope once it is combined with the prior of 0.5 ± 0.5."""
    return 1.0 / math.sqrt(4.0 + (1.0 / gain.se**2 if gain.se else 0.0))


def events(days: Sequence[DayOutcome], n_rejected: int) -> Picture:
    """Closed trades by day and their mean outcome; `days` in order."""
    rejected = f"{n_rejected:,} rows rejected" if n_rejected else "no row rejected"
    if not days:
        return Picture(f"No trade has closed yet ({rejected}), so there is no day to show.")
    total = sum(d.n_trades for d in days)
    title = (
        f"Closed trades: {total:,} on {_count(len(days), 'day')} up to {days[-1].day}, {rejected}"
    )
    figure, (counts, means) = _panels(2, 1, 1.9, title, share_x=True)
    dates = np.array([d.day for d in days], dtype="datetime64[D]")
    n, mean = np.array([d.n_trades for d in days]), np.array([d.mean_rr for d in days])
    counts.bar(dates, n, color=BLUE, width=1.0)
    counts.set_ylabel("trades per day")
    means.axhline(0, color=GREY, ls=":", lw=1)
    means.plot(dates, mean, ".", color=PALE, ms=4, label="day")
    means.plot(dates, _four_weeks(days), color=ORANGE, lw=1.8, label="last 28 days")
    means.set_ylabel("mean outcome (R)")
    _legend(means)
    _dates(means)
    return Picture(_plain(title), figure)


def _four_weeks(days: Sequence[DayOutcome]) -> list[float]:
    """Mean R over the trades of the 28 days up to each day."""
    ordinal = np.array([d.day.toordinal() for d in days])
    n = np.cumsum([0, *(d.n_trades for d in days)])
    total = np.cumsum([0.0, *(d.n_trades * d.mean_rr for d in days)])
    first = np.searchsorted(ordinal, ordinal - 27)
    last = np.arange(1, len(days) + 1)
    return list((total[last] - total[first]) / (n[last] - n[first]))


# --- regimes ---------------------------------------------------------------------------------

_MULTIPLIERS = ("time", "field", "recurrence", "variance")


def regime_weights(rows: Sequence[RegimeWeights], regime: str | None) -> Picture:
    """The weights of the multipliers by regime as a heat map, the regime in force marked.

    The weights of whole modules come first, then those with most samples; None is an unknown
    regime.
    """
    measured = [r for r in rows if r.n_samples > 0]
    in_force = f"in force: {_spaced(regime)}" if regime else "regime unknown: all count as 1"
    if not measured:
        return Picture("No multiplier has evidence in any regime yet: all weights are 1.")
    ranked = sorted(measured, key=lambda r: (r.group.pattern_key != EVERY, -r.n_samples))
    shown = sorted(ranked[:MOST_REGIMES], key=_by_regime)
    title = "Regime weights of the multipliers (1 is neutral)"
    most = f", {len(shown)} of {len(measured):,} shown" if len(shown) < len(measured) else ""
    figure = _figure(1.1 + 0.52 * len(shown), f"{title}{most}\n{in_force}")
    axes = figure.subplots()
    _draw_weights(axes, shown)
    axes.set_xticks(range(len(_MULTIPLIERS)), _MULTIPLIERS)
    _name_rows(axes, [_regime_label(r, r.regime_signature == regime) for r in shown])
    for label, row in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if row.regime_signature == regime else "normal")
    return Picture(_plain(f"{title}; {in_force}"), figure)


def _by_regime(row: RegimeWeights) -> tuple[bool, GroupKey, str]:
    return row.group.pattern_key != EVERY, row.group, row.regime_signature


def _draw_weights(axes: Axes, rows: Sequence[RegimeWeights]) -> None:
    values = np.array([[getattr(r, name) for name in _MULTIPLIERS] for r in rows])
    norm = TwoSlopeNorm(1.0, 0.3, 1.7)
    axes.imshow(values, cmap="RdBu", norm=norm, aspect="auto")
    for (i, j), weight in np.ndenumerate(values):
        is_dark = abs(weight - 1.0) > 0.42
        axes.text(
            j, i, f"{weight:.2f}\nn {rows[i].n_samples:,}", ha="center", va="center", size=_SMALL,
            color="white" if is_dark else INK,
        )  # fmt: skip


def _regime_label(row: RegimeWeights, is_in_force: bool) -> str:
    whole = row.group.pattern_key == EVERY
    who = (
        f"{row.group.module}, all patterns"
        if whole
        else _group_name(row.group, _REGIME_PX, _NORMAL)
    )
    where = "any regime" if row.regime_signature == EVERY else _spaced(row.regime_signature)
    mark = "▶ " if is_in_force else ""
    return f"{mark}{who}\n{_label(where, _REGIME_PX)}"


def _spaced(text: str) -> str:
    return text.replace("|", ", ")


def regime_edges(rows: Sequence[RegimeEdge]) -> Picture:
    """Each group's edge in the states of the regime dimensions as heat maps with n.

    Bold where the 90 % interval leaves out 0.
    """
    if not rows:
        return Picture("No pattern has been measured by regime yet.")
    strongest: dict[GroupKey, float] = defaultdict(float)
    for row in rows:
        strongest[row.group] = max(strongest[row.group], _sureness(row))
    groups = sorted(sorted(strongest, key=lambda g: -strongest[g])[:MOST_GROUPS])
    dims = list(dict.fromkeys(r.dim for r in rows))[:MOST_DIMS]
    limit = max(0.1, float(np.quantile([abs(r.edge_r) for r in rows], 0.95)))
    title = f"Edge of each pattern by regime state{_of_all(len(groups), len(strongest))}"
    n_across = min(3, len(dims))
    n_down = math.ceil(len(dims) / n_across)
    figure = _figure(
        0.9 + n_down * (0.8 + 0.42 * len(groups)),
        f"{title}\nedge (R), n; bold: the 90 % interval leaves out 0",
    )
    panels = figure.subplots(n_down, n_across, squeeze=False, sharey=True).ravel()
    for axes, dim in zip(panels, dims, strict=False):
        _draw_states(axes, [r for r in rows if r.dim == dim], groups, limit)
        axes.set_title(_label(dim, 180), size=_NORMAL)
    for axes in panels[len(dims) :]:
        axes.remove()
    for axes in panels[::n_across]:
        axes.set_yticks(range(len(groups)), [_group_label(g) for g in groups], size=_SMALL)
    return Picture(_plain(title), figure)


def _sureness(row: RegimeEdge) -> float:
    half = (row.high - row.low) / 2
    return abs(row.edge_r) / half if half > 0 else 0.0


def _group_label(group: GroupKey) -> str:
    return f"{_label(group.pattern_key, 165, _SMALL)}\n{_label(group.action_category, 165, _SMALL)}"


def _draw_states(
    axes: Axes, rows: Sequence[RegimeEdge], groups: Sequence[GroupKey], limit: float
) -> None:
    states = sorted({r.state for r in rows})
    values = np.full((len(groups), len(states)), np.nan)
    for row in rows:
        if row.group in groups:
            at = groups.index(row.group), states.index(row.state)
            values[at] = row.edge_r
            shade = abs(row.edge_r) > 0.75 * limit
            axes.text(
                at[1], at[0], f"{row.edge_r:+.2f}\nn {row.n:,}", ha="center", va="center",
                size=6.5, color="white" if shade else INK,
                weight="bold" if row.low > 0 or row.high < 0 else "normal",
            )  # fmt: skip
    axes.imshow(values, cmap="RdBu", norm=TwoSlopeNorm(0.0, -limit, limit), aspect="auto")
    axes.set_xticks(range(len(states)), [_label(s, 60, _SMALL) for s in states], size=_SMALL)


# --- factors ---------------------------------------------------------------------------------


def factors(found: Sequence[Factor]) -> Picture:
    """How much the members of the largest factors overlap, as heat maps."""
    several = [f for f in found if len(f.members) > 1]
    n_lessons = sum(len(f.members) for f in found)
    if not several:
        return Picture(
            f"Nothing overlaps: each of the {n_lessons:,} lessons is a factor of its own."
            if found
            else "No lesson is significant, so there is no factor to show."
        )
    ranked = sorted(several, key=lambda f: (-len(f.pattern_keys), -len(f.members), f.factor_id))
    shown = ranked[:MOST_MATRICES]
    title = (
        f"Latent factors: {n_lessons:,} lessons in {len(found):,} factors, {len(several):,} of "
        "several lessons"
    )
    note = (
        f"correlation of the members' trades (phi), first {MOST_MEMBERS} members; those of several "
        f"patterns first, then the largest, {len(shown)} of {len(several):,}"
    )
    figure, panels = _panels(len(shown), 2, 2.5, f"{title}\n{note}")
    for axes, factor in zip(panels, shown, strict=True):
        _draw_factor(axes, factor)
    return Picture(_plain(title), figure)


def _draw_factor(axes: Axes, factor: Factor) -> None:
    names = [name for name, _ in islice(factor.members, MOST_MEMBERS)]
    matrix = np.array([row[: len(names)] for row in factor.matrix[: len(names)]])
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(matrix):
        axes.text(
            j, i, f"{value:.2f}".replace("0.", "."), ha="center", va="center", size=5.5,
            color="white" if value > 0.6 else INK,
        )  # fmt: skip
    labels = [_member_label(name, factor) for name in names]
    axes.set_yticks(range(len(names)), labels, size=6)
    axes.set_xticks([])
    n, patterns = len(factor.members), len(factor.pattern_keys)
    count = f"{_count(n, 'lesson')}, {_count(patterns, 'pattern')}"
    axes.set_title(
        f"{_label(factor.factor_id, 250, _SMALL)}\n{count}",
        loc="right", size=_SMALL,
    )  # fmt: skip


def _member_label(lesson_id: str, factor: Factor) -> str:
    pattern, _, scope = lesson_id.partition(f"/{factor.action_category}/")
    where = "everywhere" if scope == EVERYWHERE else _spaced(scope)
    text = where if len(factor.pattern_keys) == 1 else f"{pattern}, {where}"
    return _label(text, 220, 6)


# --- common parts ----------------------------------------------------------------------------


def _figure(height_inches: float, title: str) -> Figure:
    figure = Figure(
        figsize=(WIDTH_PX / DPI, height_inches), dpi=DPI, layout="constrained", facecolor="white"
    )
    lines = [
        _escaped(_fitted(_printable(line), WIDTH_PX - 20.0, _LARGE)) for line in title.splitlines()
    ]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", size=_LARGE, color=INK)
    return figure


def _ranked(n_rows: int, title: str) -> tuple[Figure, Axes]:
    """A figure for rows from the top, as high as they need."""
    figure = _figure(1.2 + 0.44 * n_rows, title)
    axes = figure.subplots()
    axes.set_ylim(n_rows - 0.5, -0.5)
    axes.grid(axis="x", color="#e5e5e5", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _panels(
    n: int, n_across: int, row_inches: float, title: str, *, share_x: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with `n` panels, `n_across` in a row; places that are left over stay empty."""
    n_across = min(n, n_across)
    n_down = math.ceil(n / n_across)
    figure = _figure(0.7 + row_inches * n_down, title)
    every = list(figure.subplots(n_down, n_across, squeeze=False, sharex=share_x).ravel())
    for axes in every[n:]:
        axes.remove()
    for i, axes in enumerate(every[:n]):
        is_lowest = i + n_across >= n
        axes.tick_params(labelsize=_SMALL, labelbottom=is_lowest or not share_x)
        axes.xaxis.get_offset_text().set_visible(is_lowest or not share_x)
        axes.yaxis.label.set_fontsize(_NORMAL)
    return figure, every[:n]


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, size=_NORMAL)


def _times(moments: Iterable[datetime]) -> NDArray[np.datetime64]:
    return np.array([instant(at) for at in moments])


def _dates(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]  # has none
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # same
    axes.xaxis.get_offset_text().set_fontsize(_SMALL)


def _legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=_SMALL, frameon=False,
        borderaxespad=0.1,
    )  # fmt: skip


def _of_all(n_shown: int, n_all: int) -> str:
    return f", the strongest {n_shown} of {n_all:,}" if n_shown < n_all else ""


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _finite(values: Iterable[float]) -> list[float]:
    return [value if math.isfinite(value) else 0.0 for value in values]


# --- words that fit --------------------------------------------------------------------------


def _group_name(group: GroupKey, width_px: float, size: float) -> str:
    """Pattern and category; where both are too long the pattern is cut."""
    category = f" {_printable(group.action_category)}"
    left = width_px - _width(category, size)
    return _escaped(_fitted(_printable(group.pattern_key), left, size) + category)


def _slice_label(group: GroupKey, scope: str, n: int) -> str:
    """A slice beside its row: pattern, category and n, its scope on up to two lines."""
    head, *where, last = _slice_lines(group, scope, _LABEL_PX, _NORMAL)
    return "\n".join([head, *where, f"{last}  (n {n:,})"])


def _slice_lines(group: GroupKey, scope: str, width_px: float, size: float) -> list[str]:
    """Pattern and category, then the scope on one line or two."""
    where = ["everywhere"] if scope == EVERYWHERE else _folded(scope.split("|"), width_px, size)
    return [_group_name(group, width_px, size), *map(_escaped, where)]


def _folded(pairs: Sequence[str], width_px: float, size: float) -> list[str]:
    """The pairs on one line where they fit, else on two; what is too long is cut."""
    lines: list[str] = []
    for pair in map(_printable, pairs):
        longer = f"{lines[-1]}, {pair}" if lines else pair
        if len(lines) == 2 or (lines and _width(longer, size) <= width_px):
            lines[-1] = longer
        else:
            lines.append(pair)
    return [_fitted(line, width_px, size) for line in lines]


def _label(text: str, width_px: float, size: float = _NORMAL) -> str:
    """One line of a name that somebody else gave, cut where it is wider than that."""
    return _escaped(_fitted(_printable(text), width_px, size))


def _plain(title: str) -> str:
    return f"{title}."


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _escaped(text: str) -> str:
    """A dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def _fitted(text: str, width_px: float, size: float) -> str:
    if _width(text, size) <= width_px:
        return text
    fitting = bisect_left(
        range(len(text)), True, key=lambda n: _width(f"{text[: n + 1]}…", size) > width_px
    )
    return f"{text[:fitting]}…"


def _width(text: str, size: float) -> float:
    """Width in px at the resolution of the pictures."""
    font = get_font(_font_file())  # that of this thread: a font is not for several
    font.set_size(size, DPI)
    font.set_text(text, 0.0)
    return font.get_width_height()[0] / 64


@cache
def _font_file() -> str:
    return findfont(FontProperties(family=_FONT))
