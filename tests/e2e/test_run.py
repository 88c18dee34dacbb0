"""`learning run` from outside: on the simulated market, and on real exports where there are any."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXPORTS = ROOT.parent / "shared" / "data" / "freqtrade-backtests"
LEARNING = Path(sys.executable).with_name("learning")

needs_exports = pytest.mark.skipif(
    not EXPORTS.is_dir(), reason="the real exports are not beside this checkout"
)


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    # pytest's own folders are too deep for the address of a socket.
    home = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    yield {**os.environ, "LEARNING_HOME": str(home / "home")}
    shutil.rmtree(home, ignore_errors=True)


def _learning(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LEARNING), *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _document(env: dict[str, str], *arguments: str) -> Any:
    done = _learning(env, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def report(env: dict[str, str]) -> Any:
    before = _tracked_folders()
    found = _document(env, "run", "--weeks", "2")
    assert _tracked_folders() == before
    return found


def _tracked_folders() -> set[Path]:
    # Another test may take its screenshots meanwhile.
    caches = {".git", ".venv", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache"}
    caches.add("artifacts")
    found = (path for top in ROOT.iterdir() if top.name not in caches for path in [top])
    files = {p for top in found for p in ([top, *top.rglob("*")] if top.is_dir() else [top])}
    return {p for p in files if "__pycache__" not in p.parts}


def test_what_was_planted_is_found(report: Any) -> None:
    effects = report["truth"]["effects"]
    sure = [e for e in effects if abs(e["effect_r"]) >= 0.5 and e["n_trades"] >= 400]
    assert len(sure) >= 2
    assert all(effect["found"] for effect in sure)
    verdicts = [o["verdict"] for o in report["truth"]["overrides"]]
    assert len(verdicts) == len(report["overrides"]) > 0
    assert sum(verdict != "right" for verdict in verdicts) <= 1


def test_every_trade_is_accounted_for(report: Any) -> None:
    assert report["trades"] == report["truth"]["expected_rr"]["n"] == 6000
    assert report["events"] > report["trades"]
    assert report["rejected"]
    assert min(report["slices_tested"].values()) > 1000


def test_what_was_published_can_be_looked_up(env: dict[str, str], report: Any) -> None:
    strongest = report["overrides"][0]
    answer = _document(
        env,
        *("lookup", strongest["pattern_key"], strongest["action_category"]),
        *("--scope", json.dumps(strongest["scope_subset"]), "--book", "demo"),
    )
    assert answer["status"] == "ok"
    assert strongest["lesson_id"] in [o["lesson_id"] for o in answer["matched"]]
    rows = _document(env, "overrides", "--book", "demo")
    assert rows == report["overrides"]
    active = _document(env, "lessons", "--book", "demo", "--status", "active")
    assert len(active) == report["lessons"]["active"]


def test_the_runs_are_in_dagsters_history(env: dict[str, str], report: Any) -> None:
    findings = {f["check"]: f["detail"] for f in _document(env, "doctor", "--book", "demo")}
    assert "9 runs" in findings["history"]


@needs_exports
def test_a_real_export_is_accounted_for(env: dict[str, str]) -> None:
    path = EXPORTS / "backtest-result-2024-09-07_10-49-41.json"
    found = _document(env, "run", "--trades", str(path))
    assert found["trades"] + sum(found["rejected"].values()) == 557


@needs_exports
def test_five_real_exports_in_one_book_give_each_trade_once(env: dict[str, str]) -> None:
    whole = _document(env, "run", "--trades", str(EXPORTS), "--book", "five")
    one = sorted(EXPORTS.glob("*.json"))[-1]
    again = _document(env, "run", "--trades", str(one), "--book", "five")
    assert again["trades"] == whole["trades"] > 1000
