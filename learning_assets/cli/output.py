"""How things are printed: tables for people on a terminal, JSON for programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from learning_assets.core.scope import EVERYWHERE
from learning_assets.errors import UserError

BookOption = Annotated[
    str | None, typer.Option("--book", metavar="NAME", help="The trading system; main by default.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document and nothing else.")
]

_NARROWEST = 60


def terminal(*, to_stderr: bool = False) -> Console:
    """A console; where there is no terminal its width is COLUMNS, else 100."""
    stream = sys.stderr if to_stderr else sys.stdout
    if stream.isatty():
        return Console(file=stream, highlight=False)
    columns = os.environ.get("COLUMNS", "")
    width = max(int(columns), _NARROWEST) if columns.isdigit() else 100
    return Console(file=stream, highlight=False, width=width)


def print_json(document: object) -> None:
    """One JSON document on standard output; numbers that are not finite become null."""
    sys.stdout.write(to_json(document))


def to_json(document: object) -> str:
    """The document as text; numbers that are not finite become null."""
    return json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_writable(option: str, out: Path, example: str) -> None:
    """Nothing, when the file of an option can be written; `example` is a name for it."""
    if out.is_dir():
        raise UserError(f"{option} {out} is a folder: name a file in it, e.g. {out / example}")
    if not out.parent.is_dir():
        raise UserError(f"{option} {out}: the folder {out.parent} does not exist, so make it first")


def write_whole(out: Path, text: str) -> None:
    """Readers see the old file or the new one, whole."""
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(out)
    finally:
        fresh.unlink(missing_ok=True)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat else value


def edge_text(edge_r: float | None, se_r: float | None) -> str:
    """An edge with its error, in R."""
    if edge_r is None:
        return "–"
    return f"{edge_r:+.2f}" if se_r is None else f"{edge_r:+.2f} ± {se_r:.2f}"


WIDE = 116
"""From this width on a slice is three columns of a table, else one with its scope below."""


@dataclass(frozen=True, slots=True)
class SliceTable:
    """A table whose rows are slices, laid out for the width of a terminal."""

    table: Table
    is_wide: bool

    @classmethod
    def of(cls, title: str, width: int, *numbers: str, last: str | None = None) -> SliceTable:
        """An empty table with columns of numbers after the slice, and perhaps one of words."""
        made = Table(title=title, title_justify="left", title_style="bold", box=None)
        is_wide = width >= WIDE
        for name in ("pattern", "category", "scope") if is_wide else ("slice",):
            made.add_column(name, overflow="fold")
        for name in numbers:
            made.add_column(name, justify="right", no_wrap=True)
        if last is not None:
            made.add_column(last, no_wrap=True)
        return cls(made, is_wide)

    def add(self, row: Mapping[str, Any], *cells: str) -> None:
        """Add the slice of a row of lessons, overrides or effects."""
        pairs = [f"{dim}={value}" for dim, value in sorted(row["scope_subset"].items())]
        pattern, category = row["pattern_key"], row["action_category"]
        slice_cells = [pattern, category, "\n".join(pairs) or EVERYWHERE]
        if not self.is_wide:
            below = [f"  {pair}" for pair in pairs or ["everywhere"]]
            slice_cells = ["\n".join([f"{pattern} {category}", *below])]
        self.table.add_row(*map(Text, (*slice_cells, *cells)))
