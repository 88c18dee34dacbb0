"""Which source a path is: freqtrade exports and databases, CSV and Parquet, or a folder of them.

Reading a particular format is in the module of that format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from learning_assets.errors import UserError
from learning_assets.sources.base import Source
from learning_assets.sources.files import FileSource, load_mapping
from learning_assets.sources.freqtrade import (
    SQLITE_SUFFIXES,
    FreqtradeSource,
    is_companion,
    is_export,
    is_sqlite,
    read_json,
)
from learning_assets.sources.parse import read_bytes

_FREQTRADE: Final = frozenset({".json", ".zip", *SQLITE_SUFFIXES})
_TABLES: Final = (".csv", ".csv.gz", ".parquet", ".pq")
_KNOWN: Final = (
    "freqtrade backtest exports (.json, .zip), freqtrade databases "
    f"({', '.join(sorted(SQLITE_SUFFIXES))}) and tables ({', '.join(_TABLES)})"
)


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where a file source is and how it is read, so that a book can remember it.

    `risk` is a fraction of the stake; paths are text, as JSON has no other.
    """

    path: str
    risk: float | None = None
    mapping: str | None = None
    force_scope: bool = False

    def to_json(self) -> dict[str, Any]:
        """The options as a plain JSON object."""
        return {
            "path": self.path,
            "risk": self.risk,
            "mapping": self.mapping,
            "force_scope": self.force_scope,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SourceOptions:
        """The options that `to_json` gave; absent ones have their defaults."""
        risk, mapping = document.get("risk"), document.get("mapping")
        return cls(
            path=str(document["path"]),
            risk=None if risk is None else float(risk),
            mapping=None if mapping is None else str(mapping),
            force_scope=bool(document.get("force_scope", False)),
        )

    @classmethod
    def of(
        cls,
        path: Path,
        *,
        risk: float | None = None,
        mapping: Path | None = None,
        force_scope: bool = False,
    ) -> SourceOptions:
        """Options with absolute paths, which hold wherever the next run starts."""
        where = None if mapping is None else str(mapping.expanduser().resolve())
        return cls(str(path.expanduser().resolve()), risk, where, force_scope)

    def open(self) -> Source:
        """The source; errors as `open_source`."""
        mapping = None if self.mapping is None else Path(self.mapping)
        return open_source(
            Path(self.path), risk=self.risk, mapping=mapping, force_scope=self.force_scope
        )


def open_source(
    path: Path,
    *,
    risk: float | None = None,
    mapping: Path | None = None,
    force_scope: bool = False,
) -> Source:
    """The source at `path`, read once, so that what cannot be read is said here.

    Args:
        path: A file, or a folder whose recognised files are one source (each trade once).
        risk: The risk of a trade as a fraction of the stake, for trades without a usable stop.
        mapping: A mapping file for CSV and Parquet.
        force_scope: Let scope dimensions through that are known only after the entry.

    Raises:
        UserError: when there is nothing there, it cannot be read, or it is no known format;
            MappingNeededError, with a proposed mapping, when the columns do not fit.
    """
    path = path.expanduser()
    paths = _files(path)
    if all(_is_freqtrade(file) for file in paths):
        _refuse_table_options(path, mapping, force_scope)
        source: Source = FreqtradeSource(path, paths, risk=risk)
    else:
        columns = None if mapping is None else load_mapping(mapping.expanduser())
        source = FileSource(path, paths, mapping=columns, risk=risk, force_scope=force_scope)
    source.summary()
    return source


def _refuse_table_options(path: Path, mapping: Path | None, force_scope: bool) -> None:
    name = "--mapping" if mapping is not None else "--force-scope" if force_scope else None
    if name is not None:
        raise UserError(f"{name} is for CSV and Parquet files, and {path} is freqtrade's: omit it")


def _files(path: Path) -> list[Path]:
    """The files that make the source, never none, all of one family."""
    try:
        if path.is_dir():
            return _of_folder(path)
        if not path.exists():
            raise UserError(f"{path} does not exist: give the path of a file or folder of trades")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if not (_is_freqtrade(path) or _is_table(path)):
        raise UserError(
            f"{path} is of an unknown kind ({path.suffix or 'no extension'}): known are {_KNOWN}"
        )
    return [path]


def _of_folder(path: Path) -> list[Path]:
    files = sorted(file for file in path.iterdir() if file.is_file())
    exports = [file for file in files if _is_freqtrade(file) and _holds_trades(file)]
    tables = [file for file in files if _is_table(file)]
    if exports and tables:
        raise UserError(
            f"the folder {path} holds both freqtrade files and tables, e.g. {exports[0].name} and "
            f"{tables[0].name}: give one of them, or a folder of one kind"
        )
    if not exports and not tables:
        raise UserError(f"the folder {path} holds {_nothing_known(files)}: known are {_KNOWN}")
    return exports or tables


def _nothing_known(files: Sequence[Path]) -> str:
    names = ", ".join(file.name for file in files[:8])
    return f"no file of trades, but {names}" if names else "no files"


def _is_freqtrade(path: Path) -> bool:
    return path.suffix.lower() in _FREQTRADE


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith(_TABLES)


def _holds_trades(path: Path) -> bool:
    """Whether a file of a folder is an export: other JSON (settings, metadata) lies there too.

    A damaged zip, database or export is not passed over: reading it says what is wrong.
    """
    if is_sqlite(path) or path.suffix.lower() == ".zip":
        return True
    return not is_companion(path.name) and is_export(read_json(read_bytes(path), str(path)))
