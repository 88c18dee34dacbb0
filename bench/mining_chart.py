"""The chart of mining: seconds against trades, both by powers of ten, one line for each.

Only rows of all 28 dimensions at depth 3 are in it; measuring is the business of `mining`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

DIMS, DEPTH = 28, 3
_GREY = "#8a8a8a"
_LEAST_GAP = 1.7  # labels of lines that end closer than by this factor are moved apart


@dataclass(frozen=True, slots=True)
class Line:
    """One line: where its figures are in a row, of how many actions a trade, and how it looks."""

    label: str
    key: str
    actions: int
    colour: str
    marker: str
    dashes: str = "-"


LINES = (
    Line("ours, all statistics", "seconds", 1, "#0072B2", "o"),
    Line("ours, three actions a trade", "seconds", 3, "#0072B2", "s", "--"),
    Line("pandas, the same statistics", "seconds_naive", 1, "#D55E00", "^"),
    Line("pysubgroup, counts and means", "seconds_pysubgroup", 1, "#CC79A7", "D"),
    Line("pyfim, counts alone", "seconds_pyfim", 1, "#009E73", "v"),
)


def points_of(line: Line, document: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Trades and seconds of a line; what was measured whole goes before what was scaled."""
    rows = [
        row
        for row in document["rows"]
        if (row["dims"], row["depth"], row["actions"]) == (DIMS, DEPTH, line.actions)
        and line.key in row
    ]
    scaled_first = sorted(rows, key=lambda row: not row.get("naive_scaled", False))
    return sorted({row["trades"]: row[line.key] for row in scaled_first}.items())


def small_print(document: Mapping[str, Any]) -> str:
    """On what, when and how."""
    scaled = any(row.get("naive_scaled") for row in document["rows"])
    return (
        f"{document['processor']}, {document['threads']} threads (ours), "
        f"{document['date']}, bench/mining.py. {DIMS} dimensions, up to {DEPTH} at once, at "
        f"least {document['n_min']} trades. Medians; compiling not counted."
        + (" Pandas: a sample of the slices, scaled." if scaled else "")
    )


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the chart of a document of `mining` to a file of the kind that its name says."""
    # Text stays text, and the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "mining", "font.size": 10}):
        figure = figure_of(document)
        dated = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, metadata=dated)


def figure_of(document: Mapping[str, Any]) -> Figure:
    """The chart."""
    figure = Figure(figsize=(8.6, 5.2), facecolor="white")
    axes = figure.add_axes((0.09, 0.17, 0.6, 0.72))
    ends = []
    for line in LINES:
        points = points_of(line, document)
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, line.dashes, color=line.colour, marker=line.marker, ms=5, lw=1.6)
            ends.append((y[-1], x[-1], line))
    _furnish(axes)
    _label(axes, ends)
    axes.set_title("Mining all slices of one group: seconds by number of trades", loc="left")
    figure.text(0.02, 0.02, _wrapped(small_print(document)), fontsize=7, color=_GREY)
    return figure


def _wrapped(text: str) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 125:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(line.rstrip() for line in lines)


def _furnish(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([10**k for k in range(3, 7)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("trades")
    axes.set_ylabel("seconds")
    axes.grid(color="#e4e4e4", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _label(axes: Axes, ends: list[tuple[float, int, Line]]) -> None:
    """Each line's name at the right edge, at the height of its end or as near as there is room."""
    right, below = axes.get_xlim()[1], 0.0
    for seconds, trades, line in sorted(ends, key=lambda end: end[0]):
        at = max(seconds, below * _LEAST_GAP)
        below = at
        axes.annotate(
            line.label,
            xy=(trades, seconds),
            xytext=(right * 1.08, at),
            color=line.colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.colour, "lw": 0.6, "ls": ":"},
        )
