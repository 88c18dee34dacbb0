"""Pictures: what is in them is what was given, and nothing sticks out, whatever it is called."""

from __future__ import annotations

import base64
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from learning_assets import pictures
from learning_assets.core.factors import Factor
from learning_assets.core.gain import ModuleGain
from learning_assets.core.halflife import HalfLife
from learning_assets.core.history import WEEK, EdgePoint
from learning_assets.core.learn import DetectionLimit
from learning_assets.core.records import (
    DayOutcome,
    DecayState,
    GroupKey,
    Lesson,
    LessonStatus,
    Multipliers,
    Override,
    SliceStats,
)
from learning_assets.core.regime_weights import EVERY, RegimeEdge, RegimeWeights
from learning_assets.core.scope import ScopeSubset
from learning_assets.core.walkforward import WeekResult
from learning_assets.pictures import Picture

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
PM = GroupKey("pm", "pm.uptrend.S1.buy_flag", "entry")
DM = GroupKey("dm", "dm.lowcap.S1.allocate", "allocation")
LONG = GroupKey("pm", f"pm.{'W' * 90}.$S1$.{'_x' * 60}", "entry")
LONG_SCOPE = tuple((f"dimension_{'n' * 40}_{i}", "$value^" + "W" * 40) for i in range(4))


def lesson(
    scope: ScopeSubset = (), edge_r: float = 0.6, key: GroupKey = PM, se_r: float | None = 0.1,
    status: LessonStatus = LessonStatus.ACTIVE,
) -> Lesson:  # fmt: skip
    stats = SliceStats(120, 0.1, 1.0, 0.3, 0.1, 3.0, 0.003, 0.02, 3.5, 3.0)
    known = Multipliers(0.7, 0.8, 0.9, 0.5, 0.4, 1.0, 3, 0.5)
    return Lesson(key, scope, status, stats, known, 0.1, edge_r, se_r)


def override(
    scope: ScopeSubset = (), edge_r: float = 0.6, key: GroupKey = PM, remaining: float = 0.8
) -> Override:
    low, high = (0.3, 3.0) if key.module == "pm" else (0.7, 1.3)
    parts = {
        "joint_edge_r": edge_r, "joint_se_r": 0.1, "remaining_share": remaining, "share": 0.5,
        "gain": 0.5, "size_scale": 0.9, "notes": [],
    }  # fmt: skip
    adjusted = edge_r * remaining * 0.5
    multiplier = min(max(1 + 0.5 * 0.9 * adjusted, low), high)
    return Override(
        key, scope, multiplier, adjusted, 0.97, DecayState.DECAYING, 900.0, 120, 0.01, parts
    )


def scopes(n: int) -> list[ScopeSubset]:
    return [(("chain", f"c{i:02d}"),) for i in range(n)]


def axes_of(picture: Picture) -> list[Axes]:
    """The axes of a picture that was drawn."""
    assert picture.figure is not None
    FigureCanvasAgg(picture.figure).draw()
    return picture.figure.axes


def texts(picture: Picture) -> list[str]:
    assert picture.figure is not None
    return [text.get_text() for text in visible_texts(picture.figure)]


def visible_texts(figure: Figure) -> list[Text]:
    found = figure.findobj(lambda a: isinstance(a, Text) and a.get_visible() and a.get_text())
    return [text for text in found if isinstance(text, Text)]


def outside(picture: Picture) -> list[str]:
    """The texts that stick out of the canvas once it is drawn."""
    assert picture.figure is not None
    canvas = FigureCanvasAgg(picture.figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent()) for text in _drawn_texts(picture.figure)]
    return [
        text for text, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]  # fmt: skip


def _drawn_texts(figure: Figure) -> list[Text]:
    """Without the ticks that lie beyond the limits of their axis, which are not drawn."""
    beyond = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            drawn = {id(tick) for tick in axis._update_ticks()}
            ticks = (*axis.get_major_ticks(), *axis.get_minor_ticks())
            beyond |= {
                id(label) for tick in ticks if id(tick) not in drawn
                for label in (tick.label1, tick.label2)
            }  # fmt: skip
    return [text for text in visible_texts(figure) if id(text) not in beyond]


def bars(axes: Axes) -> list[Rectangle]:
    return [bar for container in axes.containers if not isinstance(container, ErrorbarContainer)
            for bar in container]  # fmt: skip


def error_bars(axes: Axes) -> list[ErrorbarContainer]:
    return [c for c in axes.containers if isinstance(c, ErrorbarContainer)]


def segments(container: ErrorbarContainer) -> list[np.ndarray]:
    (lines,) = container.lines[2]
    return list(lines.get_segments())


# --- a picture -------------------------------------------------------------------------------


def test_a_picture_is_a_small_png_900_px_wide() -> None:
    drawn = pictures.overrides([override(s) for s in scopes(40)])
    with Image.open(BytesIO(drawn.png())) as image:
        assert image.format == "PNG"
        assert image.width == 900
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    with Image.open(BytesIO(drawn.png(2))) as image:
        assert image.width == 1800


def test_markdown_holds_the_picture_and_says_what_it_shows() -> None:
    drawn = pictures.lessons([lesson()], {})
    text = drawn.markdown()
    head, _, encoded = text.partition("](data:image/png;base64,")
    assert head == "![Active lessons: joint edge with 90 % interval."
    assert base64.b64decode(encoded.removesuffix(")")) == drawn.png()


def test_what_a_picture_shows_cannot_end_its_markdown_early() -> None:
    drawn = replace(pictures.lessons([lesson()], {}), words="a]b[\nc")
    assert drawn.markdown().startswith("![a)b( c](data:")


def test_without_a_figure_the_words_stand_alone() -> None:
    nothing = Picture("Nothing to see.")
    assert nothing.markdown() == "Nothing to see."
    with pytest.raises(ValueError, match="Nothing to see"):
        nothing.png()


@pytest.mark.parametrize(
    "picture",
    [
        pictures.lessons([], {}),
        pictures.lessons([lesson(status=LessonStatus.CANDIDATE)], {"pm": None}),
        pictures.overrides([]),
        pictures.edge_history([], {}, [lesson()]),
        pictures.walk_forward([], []),
        pictures.events([], 3),
        pictures.regime_weights([], None),
        pictures.regime_edges([]),
        pictures.factors([]),
    ],
)
def test_where_there_is_nothing_to_show_there_is_a_sentence(picture: Picture) -> None:
    assert picture.figure is None
    assert picture.words.endswith(".")
    assert len(picture.words) > 20


# --- lessons ---------------------------------------------------------------------------------


def test_lessons_are_ranked_with_their_intervals() -> None:
    shown = [lesson(s, e) for s, e in zip(scopes(3), (0.2, -0.9, 0.5), strict=True)]
    drawn = pictures.lessons([*shown, lesson((), 0.4, DM, 0.2)], {})
    (axes,) = axes_of(drawn)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    where = [label.split("\n")[1].split()[0] for label in labels]
    assert where == ["chain=c01", "chain=c02", "everywhere", "chain=c00"]
    pm, dm = error_bars(axes)
    assert [pm.get_label(), dm.get_label()] == ["pm", "dm"]
    assert len(segments(pm)) == 3
    (low, _), (high, _) = segments(dm)[0]
    assert (low, high) == pytest.approx((0.4 - 1.645 * 0.2, 0.4 + 1.645 * 0.2), abs=1e-3)
    assert "n 120" in labels[0]


def test_the_smallest_edge_that_would_have_been_found_is_noted() -> None:
    limits = {"pm": DetectionLimit(0.25, 1234), "dm": None}
    drawn = pictures.lessons([lesson()], limits)
    (axes,) = axes_of(drawn)
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert sorted(line.get_xdata()[0] for line in dotted) == [-0.25, 0.25]
    assert any("0.25 R in 1,234 trades" in text for text in texts(drawn))
    nothing = pictures.lessons([], limits)
    assert "0.25 R in 1,234 trades" in nothing.words
    assert "dm: too few trades" in nothing.words


def test_a_lesson_without_an_error_has_no_interval() -> None:
    (axes,) = axes_of(pictures.lessons([lesson(se_r=None), lesson(scopes(1)[0], se_r=np.nan)], {}))
    for (low, _), (high, _) in segments(error_bars(axes)[0]):
        assert low == high == 0.6


# --- overrides -------------------------------------------------------------------------------


def test_the_bars_are_the_multipliers_ranked() -> None:
    given = [override(s, e) for s, e in zip(scopes(4), (0.3, -1.2, 0.8, 2.0), strict=True)]
    given.append(override((), -0.4, DM))
    (axes,) = axes_of(pictures.overrides(given))
    by_row = sorted(bars(axes), key=lambda bar: bar.get_y())
    ranked = sorted((o.multiplier for o in given), key=lambda m: -abs(m - 1))
    assert [bar.get_x() for bar in by_row] == [1.0] * 5
    assert [1 + bar.get_width() for bar in by_row] == pytest.approx(ranked)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0].startswith("pm.uptrend.S1.buy_flag entry\nchain=c03")
    assert "(n 120)" in labels[0]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top


def test_pm_and_dm_differ_by_more_than_their_colour() -> None:
    (axes,) = axes_of(pictures.overrides([override(), override((), 0.5, DM)]))
    pm, dm = bars(axes)
    assert pm.get_facecolor() != dm.get_facecolor()
    assert (pm.get_hatch(), dm.get_hatch()) == ("", "///")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["pm", "dm"]


def test_the_interval_is_scaled_like_the_multiplier() -> None:
    given = override(edge_r=0.6, remaining=0.8)
    low, high = pictures.override_interval(given)
    half = 1.6449 * 0.1 * 0.5 * 0.9 * 0.8 * 0.5
    assert (low, high) == pytest.approx(
        (given.multiplier - half, given.multiplier + half), abs=1e-5
    )
    (axes,) = axes_of(pictures.overrides([given]))
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    assert lines.get_segments()[0][:, 0] == pytest.approx((low, high))


def test_the_interval_of_a_losing_scope_has_its_lower_end_first() -> None:
    low, high = pictures.override_interval(override(edge_r=-0.6))
    assert low < override(edge_r=-0.6).multiplier < high


def test_the_interval_keeps_within_the_bounds() -> None:
    strong = override(edge_r=9.0, key=DM)
    assert strong.multiplier == 1.3
    assert pictures.override_interval(strong) == (1.3, 1.3)
    assert "×1.30 (bound)" in texts(pictures.overrides([strong]))
    assert "×1.11" in texts(pictures.overrides([override()]))


@pytest.mark.parametrize("parts", [{}, {"joint_edge_r": 0.3, "joint_se_r": None}])
def test_without_an_error_the_interval_is_the_multiplier(parts: dict[str, object]) -> None:
    given = replace(override(), parts=parts)
    assert pictures.override_interval(given) == (given.multiplier, given.multiplier)


def test_of_many_overrides_the_strongest_are_shown_and_the_rest_is_counted() -> None:
    given = [override(s, 0.1 + 0.01 * i) for i, s in enumerate(scopes(45))]
    drawn = pictures.overrides(given)
    (axes,) = axes_of(drawn)
    assert len(bars(axes)) == pictures.MOST_BARS == 30
    assert "the strongest 30 of 45" in drawn.words
    assert "c44" in axes.get_yticklabels()[0].get_text()


# --- edges through time ----------------------------------------------------------------------


def history(of: Lesson, n_weeks: int = 10, half_life_weeks: float = 4.0) -> list[EdgePoint]:
    return [
        EdgePoint(of.lesson_id, of.group, "", MONDAY + w * WEEK, 0.8 * 0.5 ** (w / half_life_weeks),
                  0.2, 12, 0.1)
        for w in range(n_weeks)
    ]  # fmt: skip


DECAYING = HalfLife(DecayState.DECAYING, 672.0, 400.0, 1200.0, 0.8, 10, 0.01, np.log(2) / 672)
STABLE = HalfLife(DecayState.STABLE, None, None, None, 0.5, 10, 0.4, 0.0)


def test_a_fading_edge_has_its_curve_and_band() -> None:
    one = lesson()
    drawn = pictures.edge_history(history(one), {one.lesson_id: DECAYING}, [one])
    (axes,) = axes_of(drawn)
    (weekly,) = error_bars(axes)
    assert segments(weekly)[0][:, 1].tolist() == pytest.approx(
        [0.8 - 1.645 * 0.2, 0.8 + 1.645 * 0.2], abs=1e-3
    )
    (curve,) = (line for line in axes.lines if line.get_label() == "fitted wear")
    values = np.asarray(curve.get_ydata())
    assert values[0] == pytest.approx(0.8)
    assert values[-1] == pytest.approx(0.8 * 0.5 ** (9 / 4))
    (band,) = (c for c in axes.collections if c.get_alpha() == 0.2)
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() < values.min()
    assert corners[:, 1].max() > values.max()
    title = axes.get_title(loc="left")
    assert "half-life 672 h (400–1,200), n 120 in 10 weeks" in title
    assert title.startswith("pm.uptrend.S1.buy_flag entry\neverywhere")
    assert axes.get_ylabel() == "edge (R)"
    assert any(line.get_linestyle() == ":" and line.get_ydata()[0] == 0 for line in axes.lines)


@pytest.mark.parametrize(
    ("found", "words", "n_curves"),
    [
        (STABLE, "stable", 1),
        (replace(STABLE, status=DecayState.IMPROVING, decay_per_hour=-0.001), "improving", 1),
        (HalfLife(DecayState.INSUFFICIENT, *[None] * 4, 2, None, None), "insufficient", 0),
        (None, "wear not measured", 0),
    ],
)
def test_an_edge_that_does_not_fade_has_no_band(
    found: HalfLife | None, words: str, n_curves: int
) -> None:
    one = lesson()
    known = {} if found is None else {one.lesson_id: found}
    (axes,) = axes_of(pictures.edge_history(history(one), known, [one]))
    assert words in axes.get_title(loc="left")
    assert sum(line.get_label() == "fitted wear" for line in axes.lines) == n_curves
    assert not [c for c in axes.collections if c.get_alpha() == 0.2]


def test_the_strongest_active_lessons_are_shown() -> None:
    many = [lesson(s, 0.1 + 0.05 * i) for i, s in enumerate(scopes(12))]
    gone = lesson((("chain", "gone"),), 5.0, status=LessonStatus.DEPRECATED)
    points = [p for x in sorted([*many, gone], key=lambda x: x.lesson_id) for p in history(x)]
    drawn = pictures.edge_history(points, {}, [*many, gone])
    shown = [axes.get_title(loc="left") for axes in axes_of(drawn)]
    assert len(shown) == pictures.MOST_PANELS
    assert "c11" in shown[0]
    assert not any("gone" in title for title in shown)
    assert "the strongest 8 of 12" in drawn.words


def test_one_week_and_a_wild_week_can_be_drawn() -> None:
    one, two = lesson(), lesson(scopes(1)[0], 0.3)
    wild = replace(history(two)[0], delta_rr=-30.0, se=float("nan"))
    points = [history(one)[0], *sorted([wild, *history(two)[1:]], key=lambda p: p.week)]
    drawn = pictures.edge_history(points, {}, [one, two])
    assert len(axes_of(drawn)) == 2
    assert drawn.png()


def week(i: int, difference: float | None, n: int = 100) -> WeekResult:
    ends = (None, None) if difference is None else (difference - 0.1, difference + 0.2)
    return WeekResult(
        MONDAY + i * WEEK, n, 5, 40, 0.1, None, difference, *ends, 1.0, {}, (), MONDAY
    )


def gain(module: str, i: int, value: float = 0.6, se: float | None = 0.2) -> ModuleGain:
    return ModuleGain(module, MONDAY + i * WEEK, value, se and 0.7, se, i, 100 * i)


def test_the_walk_forward_shows_weeks_sum_and_gain() -> None:
    weeks = [week(0, 0.1), week(1, None, 0), week(2, -0.05, 200)]
    gains = [gain(m, i) for i in range(3) for m in ("pm", "dm")]
    weekly, running, below = axes_of(pictures.walk_forward(weeks, gains))
    ends = [seg[:, 1].tolist() for seg in segments(error_bars(weekly)[0])]
    assert ends == [pytest.approx([0.0, 0.3]), pytest.approx([-0.15, 0.15])]
    (steps,) = (line for line in running.lines if line.get_linestyle() == "-")
    assert np.asarray(steps.get_ydata()) == pytest.approx([10.0, 0.0])
    assert [line.get_label() for line in below.lines] == ["pm", "dm"]
    corners = below.collections[0].get_paths()[0].vertices[:, 1]
    half = 1.6449 / np.sqrt(4 + 25)
    assert (corners.min(), corners.max()) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-4)
    assert all(axes.get_ylabel() for axes in (weekly, running, below))


def test_a_gain_that_was_not_measured_has_the_band_of_the_prior() -> None:
    *_, below = axes_of(
        pictures.walk_forward([week(0, 0.1)], [gain("pm", i, 0.5, None) for i in (0, 1)])
    )
    corners = below.collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (0.0, 1.0)
    without = pictures.walk_forward([week(0, 0.1)], [])
    assert "no gain measured yet" in texts(without)
    assert without.words.startswith("Walk-forward: 1 week with")


def test_events_are_counted_by_day() -> None:
    days = [DayOutcome(date(2026, 1, 1) + timedelta(days=d), d + 1, 0.1 * d) for d in range(40)]
    drawn = pictures.events(days, 1234)
    counts, means = axes_of(drawn)
    assert [bar.get_height() for bar in bars(counts)] == [d.n_trades for d in days]
    (mean,) = (line for line in means.lines if line.get_label() == "last 28 days")
    newest = days[-28:]
    expected = sum(d.n_trades * d.mean_rr for d in newest) / sum(d.n_trades for d in newest)
    assert np.asarray(mean.get_ydata())[-1] == pytest.approx(expected)
    assert np.asarray(mean.get_ydata())[0] == 0.0
    assert "1,234 rows rejected" in drawn.words
    assert "no row rejected" in pictures.events(days[:1], 0).words


# --- regimes, factors ------------------------------------------------------------------------

REGIME = "btc_macro=S1|alt_macro=S2|bucket_macro=S1"
WHOLE = GroupKey("pm", EVERY, EVERY)


def weights(group: GroupKey, regime: str, n: int = 30) -> RegimeWeights:
    return RegimeWeights(group, regime, 1.15, 0.4, 1.0, 1.7, n, n / (n + 20))


def test_regime_weights_are_written_in_their_cells_with_n() -> None:
    rows = [weights(PM, REGIME), weights(WHOLE, EVERY, 52), weights(WHOLE, "btc_macro=S9", 0)]
    drawn = pictures.regime_weights(rows, REGIME)
    (axes,) = axes_of(drawn)
    (image,) = axes.images
    assert np.asarray(image.get_array()).tolist() == [[1.15, 0.4, 1.0, 1.7]] * 2
    cells = [text.get_text() for text in axes.texts]
    assert cells[:4] == ["1.15\nn 52", "0.40\nn 52", "1.00\nn 52", "1.70\nn 52"]
    whole, own = axes.get_yticklabels()
    assert whole.get_text() == "pm, all patterns\nany regime"
    assert own.get_text().startswith("▶ ")
    assert (whole.get_fontweight(), own.get_fontweight()) == ("normal", "bold")
    assert image.norm(1.0) == 0.5
    assert "in force: btc_macro=S1, alt_macro=S2" in drawn.words
    assert "regime unknown" in pictures.regime_weights(rows, None).words


def test_weights_without_evidence_are_no_picture() -> None:
    assert pictures.regime_weights([weights(PM, REGIME, 0)], REGIME).figure is None


def edge(group: GroupKey, dim: str, state: str, edge_r: float, half: float = 0.1) -> RegimeEdge:
    return RegimeEdge(group, dim, state, 250, edge_r, edge_r - half, edge_r + half)


def test_edges_by_regime_stand_in_the_row_of_their_pattern() -> None:
    rows = [
        edge(PM, "btc_macro", "S0", 0.3), edge(PM, "btc_macro", "S2", 0.05),
        edge(DM, "btc_macro", "S2", -0.4), edge(DM, "alt_macro", "S1", 0.01),
    ]  # fmt: skip
    btc, alt = axes_of(pictures.regime_edges(rows))
    values = np.ma.filled(np.ma.asarray(btc.images[0].get_array(), dtype=float), np.nan)
    assert values[0].tolist() == pytest.approx([np.nan, -0.4], nan_ok=True)
    assert values[1].tolist() == pytest.approx([0.3, 0.05])
    assert btc.get_title() == "btc_macro"
    assert alt.get_title() == "alt_macro"
    bold = {text.get_text() for text in btc.texts if text.get_fontweight() == "bold"}
    assert bold == {"+0.30\nn 250", "-0.40\nn 250"}


def factor(n: int, name: str = "lf_a", keys: Sequence[str] = ("pm.a.b.c",)) -> Factor:
    members = tuple(
        (f"{keys[i % len(keys)]}/entry/chain=c{i}", 1.0 if i == 0 else 0.9) for i in range(n)
    )
    matrix = tuple(
        tuple(1.0 if i == j else 0.7 for j in range(min(n, 100))) for i in range(min(n, 100))
    )
    return Factor(name, "pm", "entry", tuple(keys), members[0][0], members, matrix)


def test_one_factor_of_one_lesson_is_a_sentence() -> None:
    assert pictures.factors([factor(1)]).words == (
        "Nothing overlaps: each of the 1 lessons is a factor of its own."
    )


def test_the_largest_factors_are_shown_with_their_members() -> None:
    both = factor(3, "lf_both", ("pm.a.b.c", "pm.d.e.f"))
    found = [*(factor(1 + i % 20, f"lf_{i:02d}") for i in range(60)), both, factor(113, "lf_large")]
    drawn = pictures.factors(found)
    panels = axes_of(drawn)
    assert len(panels) == pictures.MOST_MATRICES
    assert panels[0].get_title(loc="right") == "lf_both\n3 lessons, 2 patterns"
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == [
        "pm.a.b.c, chain=c0", "pm.d.e.f, chain=c1", "pm.a.b.c, chain=c2",
    ]  # fmt: skip
    assert np.asarray(panels[0].images[0].get_array())[0].tolist() == [1.0, 0.7, 0.7]
    assert panels[1].get_title(loc="right").startswith("lf_large\n113 lessons, 1 pattern")
    assert panels[1].get_yticklabels()[0].get_text() == "chain=c0"
    assert np.asarray(panels[1].images[0].get_array()).shape == (10, 10)
    assert "62 factors" in drawn.words


# --- nothing sticks out ----------------------------------------------------------------------


def everything(key: GroupKey, scope: ScopeSubset, n: int) -> dict[str, Picture]:
    """Every picture, of `n` things with that name."""
    named = [(*scope, ("z", str(i))) for i in range(n)]
    found = [lesson(s, 0.3 + 0.1 * i, key) for i, s in enumerate(named)]
    points = [p for x in sorted(found, key=lambda x: x.lesson_id) for p in history(x)]
    fits = {x.lesson_id: DECAYING for x in found}
    regimes = ["|".join(f"{dim}={value}" for dim, value in s) for s in named]
    sized = [
        replace(factor(12, key.pattern_key + str(i)), pattern_keys=(key.pattern_key, "b"))
        for i in range(n)
    ]
    dim = scope[0][0] if scope else "d"
    states = [
        edge(key._replace(action_category=str(i)), f"{dim}{d}", f"S{s}", 0.2)
        for i in range(n) for d in range(3) for s in range(5)
    ]  # fmt: skip
    return {
        "lessons": pictures.lessons(found, {"pm": DetectionLimit(0.2, 100), "dm": None}),
        "overrides": pictures.overrides([override(s, 0.5 + i, key) for i, s in enumerate(named)]),
        "history": pictures.edge_history(points, fits, found),
        "weights": pictures.regime_weights([weights(key, r) for r in regimes], regimes[0]),
        "states": pictures.regime_edges(states),
        "factors": pictures.factors(sized),
        "walk": pictures.walk_forward(
            [week(i, 0.1) for i in range(n)], [gain("pm", i) for i in range(n)]
        ),
        "events": pictures.events(
            [DayOutcome(date(2026, 1, 1) + timedelta(days=d), 3, 0.1) for d in range(n)], 5
        ),
    }


@pytest.mark.parametrize(
    ("key", "scope", "n"), [(PM, (), 1), (LONG, LONG_SCOPE, 3), (LONG, LONG_SCOPE, 40)]
)
def test_no_text_sticks_out_and_each_picture_is_small(
    key: GroupKey, scope: ScopeSubset, n: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, picture in everything(key, scope, n).items():
            assert outside(picture) == [], name
            assert len(picture.markdown()) < 100_000, name


def test_what_sticks_out_is_noticed() -> None:
    drawn = pictures.overrides([override()])
    assert drawn.figure is not None
    drawn.figure.text(0.95, 0.5, "too far to the right")
    assert outside(drawn) == ["too far to the right"]


def test_names_are_shown_as_they_are_and_cut_where_they_are_too_long() -> None:
    odd = GroupKey("pm", "pm.$x$.a_b^2.\n\tc", "entry")
    (axes,) = axes_of(pictures.lessons([lesson((("d", r"\frac{1}$"),), key=odd)], {}))
    label = axes.get_yticklabels()[0].get_text()
    assert label.replace("\\$", "$") == "pm.$x$.a_b^2.  c entry\n" + r"d=\frac{1}$  (n 120)"
    (axes,) = axes_of(pictures.lessons([lesson(LONG_SCOPE, key=LONG)], {}))
    lines = axes.get_yticklabels()[0].get_text().split("\n")
    assert lines[0].endswith("… entry")
    assert len(lines) == 3


def test_drawing_leaves_nothing_behind() -> None:
    pictures.overrides([override()]).png()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
    again = [pictures.lessons([lesson()], {}).png() for _ in range(2)]
    assert again[0] == again[1]


def test_threads_may_draw_at_the_same_time() -> None:
    def draw(_: int) -> bytes:
        found = [lesson(scope, key=LONG) for scope in scopes(pictures.MOST_BARS)]
        return pictures.lessons(found, {"pm": None}).png()

    alone = draw(0)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(draw, range(16))) == {alone}
