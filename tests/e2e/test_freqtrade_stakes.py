"""The real freqtrade, of its own environment, whose stakes follow what was learned from its trades.

The round trip of `docs/freqtrade.md`: backtest, `learning run --trades`, `learning replay`,
backtest with the sets of their time. On candles in which one pair earns after the signal. Skipped
only where the package index cannot be reached, unless LEARNING_TEST_BROWSER says `required`, as CI
does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from learning_assets.core.records import APPLIED, ClosedTrade
from learning_assets.runtime import OverrideBook
from learning_assets.sources.detect import open_source
from learning_assets.store import server
from learning_assets.store.settings import settings

ROOT = Path(__file__).parents[2]
BOT = Path(__file__).parent / "freqtrade_bot"
EXAMPLE = ROOT / "examples" / "freqtrade"
LEARNING = Path(sys.executable).with_name("learning")
PAIRS = ("AAA/USDT", "BBB/USDT", "CCC/USDT", "DDD/USDT", "EEE/USDT", "FFF/USDT")
EARNS = PAIRS[0]
PATTERN = "pm.LearnedExample.long.volume"
BEGIN, WEEKS = datetime(2025, 1, 6, tzinfo=UTC), 10
END = BEGIN + timedelta(weeks=WEEKS)
STAKE = 100.0
OFFLINE = ("connection", "retrying", "no matching distribution", "name resolution", "timed out")


def run(*command: object, seconds: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        env={**os.environ, **env},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def done(*command: object, seconds: float = 300, **env: str) -> str:
    finished = run(*command, seconds=seconds, **env)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


# The bot's environment


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of freqtrade's environment, which is kept until its lock changes."""
    lock = BOT / "requirements.lock"
    name = f"freqtrade-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    kept = ROOT / ".venv" / name
    if not kept.exists():
        fresh = kept.with_name(f"{name}.{os.getpid()}")
        try:
            _install(fresh, lock)
            for old in kept.parent.glob("freqtrade-????????????"):
                shutil.rmtree(old, ignore_errors=True)
            fresh.rename(kept)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return kept / "bin" / "python"


def _install(folder: Path, lock: Path) -> None:
    done(sys.executable, "-m", "venv", folder)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile")
    options = ("--disable-pip-version-check", "--retries", "1", "--require-hashes", "-r", lock)
    installed = run(*pip, *options, seconds=600)
    if installed.returncode == 0:
        return
    is_offline = any(word in installed.stderr.lower() for word in OFFLINE)
    if is_offline and os.environ.get("LEARNING_TEST_BROWSER") != "required":
        pytest.skip(f"freqtrade cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
    pytest.fail(installed.stderr)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # pytest's own folders are too deep for the address of a socket.
    made = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@dataclass(frozen=True)
class Bot:
    """freqtrade with the example strategy and our package, but none of what that needs."""

    python: Path
    folder: Path
    exported: dict[str, Path]

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.folder / "package"), "NO_COLOR": "1", "COLUMNS": "1000"}

    def config(self, **learning: Any) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((EXAMPLE / "config.json").read_text())
        config["exchange"]["pair_whitelist"] = list(PAIRS)
        config["strategy_path"] = str(EXAMPLE)
        config["user_data_dir"] = str(self.folder / "user_data")
        return {**config, "learning": learning}

    def backtest(
        self, name: str, end: datetime = END, env: Mapping[str, str] | None = None, **learning: Any
    ) -> subprocess.CompletedProcess[str]:
        path = self.folder / f"{name}.config.json"
        path.write_text(json.dumps(self.config(**learning)))
        finished = run(
            *(self.python, BOT / "offline.py", ",".join(PAIRS), self.custom_data(name)),
            *("backtesting", "--config", path, "--export", "trades"),
            *("--timerange", f"{BEGIN:%Y%m%d}-{end:%Y%m%d}"),
            *("--datadir", self.folder / "candles"),
            **{**self.env, **(env or {})},
        )
        if finished.returncode == 0:
            results = self.folder / "user_data" / "backtest_results"
            latest = json.loads((results / ".last_result.json").read_text())["latest_backtest"]
            self.exported[name] = results / latest
        return finished

    def custom_data(self, name: str) -> Path:
        return self.folder / f"{name}.custom_data.json"

    def trades(self, name: str) -> list[dict[str, Any]]:
        path = self.exported[name]
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read(f"{path.stem}.json"))
        trades: list[dict[str, Any]] = document["strategy"]["LearnedExample"]["trades"]
        return trades


@pytest.fixture(scope="module")
def bot(python: Path, folder: Path) -> Bot:
    wheel = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    done(*wheel, "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    pip = (python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    done(*pip, "--target", folder / "package", built)
    done(python, BOT / "make_candles.py", folder / "candles", ",".join(PAIRS), WEEKS)
    (folder / "user_data").mkdir()
    return Bot(python, folder, {})


# The round trip


@pytest.fixture(scope="module")
def home(folder: Path) -> dict[str, str]:
    return {"LEARNING_HOME": str(folder / "home")}


@pytest.fixture(scope="module")
def first(bot: Bot) -> list[dict[str, Any]]:
    """The trades before anything is learned."""
    off = {"FREQTRADE__LEARNING__ENABLED": "false"}
    finished = bot.backtest("first", env=off, url="postgresql://bot@127.0.0.1/learning")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return bot.trades("first")


@pytest.fixture(scope="module")
def sets(bot: Bot, first: list[dict[str, Any]], home: dict[str, str]) -> Path:
    """The replays of all weeks, learned from these trades; beside it `live.json`, the live set."""
    path = bot.folder / "sets.json"
    done(LEARNING, "run", "--trades", bot.exported["first"], "--weeks", "1", **home)
    between = ("--from", f"{BEGIN:%Y-%m-%d}", "--to", f"{END:%Y-%m-%d}")
    done(LEARNING, "replay", *between, "--export", path, **home)
    done(LEARNING, "overrides", "--export", path.with_name("live.json"), **home)
    return path


@pytest.fixture(scope="module")
def second(bot: Bot, sets: Path) -> list[dict[str, Any]]:
    """The same backtest with the sets of their time."""
    finished = bot.backtest("second", file=str(sets))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"Stakes follow the sets of their time from {sets}" in finished.stdout + finished.stderr
    return bot.trades("second")


def opened_at(trade: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(trade["open_date"])


def orders(trade: Mapping[str, Any], *, is_entry: bool) -> list[Mapping[str, Any]]:
    return [order for order in trade["orders"] if order["ft_is_entry"] == is_entry]


def stake_of(order: Mapping[str, Any]) -> float:
    return float(order["amount"] * order["safe_price"])


def entry_stake(trade: Mapping[str, Any]) -> float:
    return stake_of(orders(trade, is_entry=True)[0])


def imported(path: Path) -> dict[tuple[str, datetime], ClosedTrade]:
    rows = open_source(path).read(BEGIN.date(), END.date())
    trades = [row for row in rows if isinstance(row, ClosedTrade)]
    return {(t.actions[0].scope["pair"], t.opened_at or BEGIN): t for t in trades}


def test_before_anything_is_learned_all_stakes_are_as_proposed(
    bot: Bot, first: list[dict[str, Any]]
) -> None:
    assert len(first) > 800
    assert all(entry_stake(trade) == pytest.approx(STAKE, rel=1e-5) for trade in first)
    assert json.loads(bot.custom_data("first").read_text()) == []


def test_the_stakes_of_a_backtest_follow_the_sets_of_their_time(
    bot: Bot, first: list[dict[str, Any]], sets: Path, second: list[dict[str, Any]]
) -> None:
    assert [(t["pair"], t["open_date"]) for t in second] == [
        (t["pair"], t["open_date"]) for t in first
    ]
    known = imported(bot.exported["second"])
    with OverrideBook.from_file(sets) as book:
        replayed = book.backtest(BEGIN, END)
    for trade in second:
        entry = known[trade["pair"], opened_at(trade)].actions[0]
        answer = replayed.lookup(entry.pattern_key, "entry", entry.scope, opened_at(trade))
        assert entry.pattern_key == PATTERN
        assert entry_stake(trade) == pytest.approx(STAKE * answer.multiplier, rel=1e-5)
    early = [t for t in second if opened_at(t) < BEGIN + timedelta(weeks=2)]
    late = [t for t in second if opened_at(t) >= BEGIN + timedelta(weeks=3)]
    assert len(early) > 100
    assert {round(entry_stake(t), 2) for t in early} == {STAKE}
    earning = [entry_stake(t) for t in late if t["pair"] == EARNS]
    assert len(earning) > 50
    assert min(earning) > 1.1 * STAKE
    others = [entry_stake(t) for t in late if t["pair"] != EARNS]
    assert sum(stake > 1.01 * STAKE for stake in others) < 0.2 * len(others)


def test_adds_and_trims_are_multiplied_too(sets: Path, second: list[dict[str, Any]]) -> None:
    with OverrideBook.from_file(sets) as book:
        replayed = book.backtest(BEGIN, END)

    def multiplier(trade: Mapping[str, Any], order: Mapping[str, Any], category: str) -> float:
        at = datetime.fromtimestamp(order["order_filled_timestamp"] / 1000, UTC)
        base, quote = trade["pair"].split("/")
        scope = {"pair": trade["pair"], "base": base, "quote": quote, "timeframe": "1h"}
        session = "asia" if at.hour < 8 else "europe" if at.hour < 16 else "us"
        scope |= {"direction": "long", "leverage_bucket": "1x", "session": session}
        scope["weekday"] = at.strftime("%a").lower()
        return replayed.lookup(PATTERN, category, scope, at).multiplier

    n_adds = n_trims = 0
    for trade in second:
        bought, sold = orders(trade, is_entry=True), orders(trade, is_entry=False)
        for add in bought[1:]:
            expected = entry_stake(trade) / 2 * multiplier(trade, add, "add")
            assert stake_of(add) == pytest.approx(expected, rel=1e-4)
            n_adds += 1
        for trim in sold[:-1]:
            part = min(multiplier(trade, trim, "trim"), 1.5) / 2
            assert trim["amount"] / sum(o["amount"] for o in bought) == pytest.approx(
                part, rel=1e-4
            )
            n_trims += 1
    assert min(n_adds, n_trims) > 20


def test_what_was_applied_is_in_the_custom_data_of_each_trade(
    bot: Bot, sets: Path, second: list[dict[str, Any]]
) -> None:
    kept = json.loads(bot.custom_data("second").read_text())
    assert {entry["key"] for entry in kept} == {APPLIED}
    of_trade = {
        (entry["pair"], datetime.fromisoformat(entry["open_date"])): entry["value"]
        for entry in kept
    }
    assert len(of_trade) == len(kept) == len(second)
    known = imported(bot.exported["second"])
    for trade in second:
        key = trade["pair"], opened_at(trade)
        names = {action.action_id.rpartition("/")[2] for action in known[key].actions}
        assert set(of_trade[key]) == names
        applied = of_trade[key]["entry"]
        assert entry_stake(trade) == pytest.approx(STAKE * applied["multiplier"], rel=1e-5)
        assert (applied["status"] == "ok") == bool(applied["overrides"])


def test_a_database_answers_as_its_export_does(
    bot: Bot, home: dict[str, str], second: list[dict[str, Any]]
) -> None:
    end = BEGIN + timedelta(weeks=5)
    book = settings(home)
    with server.running(book):
        finished = bot.backtest("database", end, url=book.learning_url, schema=book.schema)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    stakes = {(t["pair"], t["open_date"]): entry_stake(t) for t in second}
    trades = bot.trades("database")
    assert len(trades) > 300
    for trade in trades:
        assert entry_stake(trade) == pytest.approx(stakes[trade["pair"], trade["open_date"]])


def test_a_backtest_over_trades_that_the_set_was_learned_from_is_refused_unless_forced(
    bot: Bot, sets: Path, second: list[dict[str, Any]]
) -> None:
    # The file of the second backtest now holds the live set: freqtrade, which sees the same
    # strategy and configuration again, must not show its earlier result.
    kept = sets.read_text()
    try:
        shutil.copy(sets.with_name("live.json"), sets)
        refused = bot.backtest("second", file=str(sets))
        forced = bot.backtest("forced", file=str(sets), in_sample=True)
    finally:
        sets.write_text(kept)
    said = refused.stdout + refused.stderr
    assert refused.returncode == 2, said
    assert "no set that was learned before 2025-01-06 00:00 UTC is there" in said
    assert "learning replay --from 2025-01-06 --to 2025-03-18" in said
    assert '"in_sample": true' in said
    assert "Traceback" not in refused.stdout
    assert forced.returncode == 0, forced.stdout + forced.stderr
    earning = [entry_stake(t) for t in bot.trades("forced") if t["pair"] == EARNS]
    assert min(earning) > 1.1 * STAKE


def test_a_bad_setting_stops_freqtrade_with_one_sentence(bot: Bot) -> None:
    finished = bot.backtest("bad", fil="sets.json")
    errors = [line for line in (finished.stdout + finished.stderr).splitlines() if "ERROR" in line]
    assert finished.returncode == 2
    assert len(errors) == 1
    assert "learning.fil is no setting" in errors[0]


def test_a_bot_that_trades_dry_keeps_in_its_database_what_it_applied(bot: Bot) -> None:
    live, database = bot.folder / "dry.json", bot.folder / "tradesv3.sqlite"
    live.write_text(json.dumps({"sets": [_live_set()]}))
    config = {**bot.config(file=str(live)), "db_url": f"sqlite:///{database}"}
    path = bot.folder / "dry.config.json"
    path.write_text(json.dumps(config))
    done(bot.python, BOT / "dry_run.py", path, **bot.env)
    with closing(sqlite3.connect(database)) as connection:
        query = "SELECT cd_key, cd_value FROM trade_custom_data ORDER BY ft_trade_id"
        kept = connection.execute(query).fetchall()
        query = "SELECT amount * price FROM orders WHERE side = 'buy' ORDER BY id"
        bought = [amount for (amount,) in connection.execute(query)]
    assert bought == [pytest.approx(stake) for stake in (150.0, 25.0, 100.0, 25.0)]
    assert [key for key, _ in kept] == [APPLIED] * 2
    applied = [
        {
            name: (answer["multiplier"], answer["status"])
            for name, answer in json.loads(text).items()
        }
        for _, text in kept
    ]
    assert applied == [
        {"entry": (1.5, "ok"), "add1": (0.5, "ok"), "trim1": (0.8, "ok")},
        {"entry": (1.0, "no_match"), "add1": (0.5, "ok"), "trim1": (1.0, "no_match")},
    ]
    now = datetime.now(UTC).date()
    rows = open_source(database).read(now - timedelta(days=1), now)
    trades = [row for row in rows if isinstance(row, ClosedTrade)]
    learned = [
        {
            action.action_id.rpartition("/")[2]: (known.multiplier, known.status)
            for action in trade.actions
            if (known := action.applied_overrides) is not None
        }
        for trade in sorted(trades, key=lambda trade: trade.trade_id)
    ]
    assert learned == applied


def _live_set() -> dict[str, Any]:
    def override(category: str, multiplier: float, **scope: str) -> dict[str, Any]:
        group = ["pm", PATTERN, category]
        return {"group": group, "scope_subset": scope, "multiplier": multiplier}

    begin, end = BEGIN.isoformat(), datetime(2999, 1, 1, tzinfo=UTC).isoformat()
    made = [override("entry", 1.5, base="AAA"), override("add", 0.5)]
    return {
        "set_id": 7,
        "replay": False,
        "as_of": begin,
        "live_from": begin,
        "live_to": None,
        "published_at": begin,
        "expires_at": end,
        "overrides": [*made, override("trim", 0.8, pair="AAA/USDT")],
    }
