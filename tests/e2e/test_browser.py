"""The page as its owner sees it: started as `learning ui` does, in Chromium without a window.

Screenshots are kept in `artifacts/`. Without Chromium this is skipped, unless
LEARNING_TEST_BROWSER says `required`, as CI does.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from learning_assets.defs.build import ASSETS, SENSORS
from learning_assets.defs.opening import DEMO
from learning_assets.defs.plans import PLANS, UPKEEP
from learning_assets.sources.demo import MarketSettings, simulate, write_strands
from learning_assets.store import server
from learning_assets.store.connection import connect
from learning_assets.store.migrations import migrate
from learning_assets.store.settings import settings
from learning_assets.store.sources import BookSource, remember_source

LEARNING = Path(sys.executable).with_name("learning")
SHOTS = Path(__file__).parents[2] / "artifacts"
BOOK = "small"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WINDOW: ViewportSize = {"width": 1600, "height": 1000}
PATIENCE_MS = 240_000
PATIENCE_SECONDS = 120
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("LEARNING_TEST_BROWSER") != "required",
    reason="there is no Chromium here: install the package chromium",
)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """The home of a small book that has learned once."""
    # pytest's own folders are too deep for the address of a socket.
    made = Path(tempfile.mkdtemp(prefix="la", dir="/tmp"))
    try:
        _prepare({"LEARNING_HOME": str(made / "home")})
        yield made / "home"
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _prepare(env: dict[str, str]) -> None:
    """A market of 40 days that ended yesterday, taken in and learned from.

    All assets are made: the page asks before it builds on one that never was.
    """
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    market = MarketSettings(
        seed=3,
        n_trades=1000,
        n_patterns=2,
        start=midnight - timedelta(days=40),
        span_days=40,
        n_dims=4,
        n_regime_dims=3,
        categories=("entry", "exit"),
        n_effects=2,
        n_dm_effects=1,
        effect_range_r=(1.2, 1.5),
        share_decaying=0.0,
        share_regime=0.0,
        share_overlapping=0.0,
        min_support=100,
    )
    book = settings(env, BOOK)
    with server.running(book):
        migrate(book)
        with connect(book) as conn:
            write_strands(conn, simulate(market), book.schema)
            remember_source(conn, BookSource(DEMO, "simulated market"))
        done = subprocess.run(
            [str(LEARNING), "run", "--book", BOOK, "--weeks", "1"],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    """Where `learning ui` answers, which runs meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [str(LEARNING), "ui", "--book", BOOK, "--port", str(port)],
        env={**os.environ, "LEARNING_HOME": str(home), "COLUMNS": "200"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = f"http://127.0.0.1:{port}"
        assert address in process.stderr.readline()
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    assert CHROMIUM is not None, "there is no Chromium here: install the package chromium"
    SHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        opened = browser.new_page(viewport=WINDOW)
        opened.set_default_timeout(PATIENCE_MS)
        try:
            yield opened
        finally:
            started = _browsers()
            browser.close()
    assert started
    _, left = psutil.wait_procs(started, timeout=20)
    assert not left


def _browsers() -> list[psutil.Process]:
    """The browser processes that come from this one."""
    mine = psutil.Process().children(recursive=True)
    return [process for process in mine if "chrom" in process.name()]


@pytest.fixture(autouse=True)
def _bounded_waits() -> None:
    expect.set_options(timeout=PATIENCE_MS)


def _shoot(page: Page, name: str) -> None:
    page.screenshot(path=SHOTS / f"{name}.png", animations="disabled")


def test_the_graph_reads_from_trades_to_overrides(url: str, page: Page) -> None:
    groups = ("trades", "lessons", "meta_learners", "overrides")
    page.goto(f"{url}/asset-groups")
    left_edges = []
    for group in groups:
        box = page.locator("foreignObject, svg").get_by_text(group, exact=True).last
        expect(box).to_be_visible()
        left_edges.append(box.evaluate("element => element.getBoundingClientRect().left"))
    assert left_edges == sorted(left_edges)
    _shoot(page, "groups")
    # Names are whole from a certain size of the window on.
    page.set_viewport_size({"width": 2600, "height": 1500})
    opened = ",".join(f"global@global:{group}" for group in groups)
    page.goto(f"{url}/asset-groups?expanded={opened}")
    for asset in ASSETS:
        name = asset.key.to_user_string()
        expect(page.locator("svg").get_by_text(name, exact=True).first).to_be_visible()
    _shoot(page, "graph")
    page.set_viewport_size(WINDOW)


def test_an_asset_is_materialized_through_its_page(url: str, page: Page) -> None:
    page.goto(f"{url}/assets/pm_overrides?view=events")
    seen = page.get_by_text(re.compile("Materialized in run"))
    expect(seen.first).to_be_visible()
    page.get_by_role("button").filter(has_text=re.compile("^Materialize$")).click()
    page.get_by_role("link", name="View", exact=True).click()
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()
    _shoot(page, "run")
    run = re.search(r"/runs/([0-9a-f]{8})", page.url)
    assert run is not None
    page.goto(f"{url}/assets/pm_overrides?view=events")
    expect(page.get_by_role("link", name=run[1], exact=True)).to_be_visible()
    page.goto(f"{url}/assets/pm_overrides?view=overview")
    expect(page.get_by_text("trading", exact=True)).to_be_visible()
    _shoot(page, "overrides")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.get_by_role("img", name=re.compile("multiplier with 90 % interval"))
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 900
    _shoot(page, "picture")
    page.keyboard.press("Escape")


def test_the_checks_of_an_asset_hold(url: str, page: Page) -> None:
    page.goto(f"{url}/assets/pm_overrides?view=checks")
    for name in ("complete", "in_bounds", "once", "not_expired", "not_too_much_at_once"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    # These, in_time, settings_of_the_book and not_pinned.
    expect(page.get_by_text("Succeeded")).to_have_count(8)
    _shoot(page, "checks")


def test_the_schedules_of_the_plan_are_on(url: str, page: Page) -> None:
    page.goto(f"{url}/automation")
    schedules = (*PLANS["hybrid"].schedules, *UPKEEP)
    for planned in schedules:
        expect(page.get_by_text(planned.name, exact=True).first).to_be_visible()
    expect(page.get_by_text("closings", exact=True)).to_be_visible()
    switches = page.get_by_role("checkbox", checked=True)
    expect(switches).to_have_count(len(schedules) + len(SENSORS))
    _shoot(page, "automation")


def test_the_launchpad_shows_the_thresholds(url: str, page: Page) -> None:
    page.goto(f"{url}/locations/learning_assets/jobs/lessons/playground")
    for name in ("as_of", "n_min", "max_scope_dims", "family_wise_error"):
        expect(page.get_by_text(re.compile(rf"\b{name}\b")).first).to_be_visible()
    page.get_by_text(re.compile(r"\bn_min\b")).first.click()
    shown = page.get_by_text("Fewest distinct trades of a slice: at least 5.", exact=True)
    expect(shown.first).to_be_visible()
    _shoot(page, "launchpad")
