"""The sensor for failures, against a real webhook on the loopback: what arrives, and how often."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from learning_assets.defs import alerts as alerts_module
from learning_assets.defs.alerts import LONGEST_TEXT, alerts, cursor_of, message
from learning_assets.defs.failures import Kind, News
from learning_assets.defs.resources import BookResource
from learning_assets.defs.webhook import Webhook, webhook_of
from learning_assets.errors import UserError

SECRET = "T0K3N-of-the-hook"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Hook:
    """A webhook that keeps what it gets and answers as it is told."""

    server: ThreadingHTTPServer
    posts: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    gets: int = 0
    patience: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/{SECRET}"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == f"/{SECRET}"
            assert self.headers["Content-Type"] == "application/json"
            if made.status == 200:
                made.posts.append(document)
            if made.status == 0:
                made.patience.wait(10)
            self.send_response(made.status or 200)
            if made.status == 302:
                self.send_header("Location", made.url)
            self.end_headers()

        def do_GET(self) -> None:
            made.gets += 1
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Hook(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("LEARNING_ALERT_URL", made.url)
    yield made
    made.patience.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class World:
    """What the checks of the small definitions find."""

    holds: bool = True
    is_away: bool = False


WORLD = World()


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["pm", "dm"]))
def lessons() -> None:
    if WORLD.is_away:
        raise dg.Failure(
            "the database of LEARNING_DATABASE_URL does not answer", allow_retries=False
        )


@dg.asset
def broken() -> None:
    raise ValueError("no such thing\nand a second line")


@dg.asset_check(asset=lessons)
def enough() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=WORLD.holds, description="3 of 5 lessons")


DEFINITIONS = dg.Definitions(
    assets=[lessons, broken],
    asset_checks=[enough],
    jobs=[dg.define_asset_job("learn", [lessons]), dg.define_asset_job("smash", [broken])],
    executor=dg.in_process_executor,
)


class Clock(BookResource):
    """A book with a clock that can be ahead."""

    minutes_later: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=self.minutes_later)


@dataclass
class Daemon:
    """Evaluates the sensor as Dagster's daemon does, keeping its cursor."""

    instance: dg.DagsterInstance
    cursor: str | None = None
    minutes_later: float = 0.0

    def tick(self) -> str:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=DEFINITIONS
        )
        found = alerts(context, book=Clock(minutes_later=self.minutes_later))
        assert isinstance(found, dg.SensorResult)
        self.cursor = found.cursor or self.cursor
        assert isinstance(found.skip_reason, dg.SkipReason)
        said = found.skip_reason.skip_message or ""
        assert SECRET not in said
        assert "127.0.0.1" not in said
        return said

    def ticks(self, n: int = 2) -> list[str]:
        return [self.tick() for _ in range(n)]

    def run(self, job: str, partition: str | None = None) -> None:
        DEFINITIONS.resolve_job_def(job).execute_in_process(
            instance=self.instance, raise_on_error=False, partition_key=partition, run_config=QUIET
        )


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    WORLD.holds, WORLD.is_away = True, False
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(instance)


def test_a_failed_run_is_told_once(hook: Hook, daemon: Daemon) -> None:
    assert daemon.tick() == "from now on failures are told"
    WORLD.is_away = True
    daemon.run("learn", "pm")
    assert "told 1" in daemon.ticks()
    assert daemon.ticks(3) == ["nothing went wrong"] * 3
    [post] = hook.posts
    [failure] = post["failures"]
    assert {k: failure[k] for k in ("book", "kind", "job", "asset", "check", "partition")} == {
        "book": "main", "kind": "run", "job": "learn", "asset": "lessons", "check": None,
        "partition": "pm",
    }  # fmt: skip
    assert failure["error"] == "the database of LEARNING_DATABASE_URL does not answer"
    assert daemon.instance.get_run_by_id(failure["run_id"]) is not None
    assert datetime.now(UTC) - datetime.fromisoformat(failure["time"]) < timedelta(minutes=1)
    assert post["text"] == post["content"]
    assert "the run of learn (pm) failed: the database of LEARNING_DATABASE_URL" in post["text"]


def test_any_other_error_is_its_first_line(hook: Hook, daemon: Daemon) -> None:
    daemon.tick()
    daemon.run("smash")
    daemon.ticks()
    [failure] = hook.posts[0]["failures"]
    assert failure["error"] == "ValueError: no such thing"


def test_a_failing_check_is_told_once_until_it_holds_again(hook: Hook, daemon: Daemon) -> None:
    daemon.tick()
    WORLD.holds = False
    daemon.run("learn", "dm")
    daemon.ticks()
    [post] = hook.posts
    [failure] = post["failures"]
    assert (failure["asset"], failure["check"]) == ("lessons", "enough")
    assert (failure["partition"], failure["error"]) == ("dm", "3 of 5 lessons")
    assert "the check enough of lessons (dm) fails: 3 of 5 lessons" in post["text"]
    daemon.run("learn", "dm")
    daemon.ticks()
    assert len(hook.posts) == 1
    WORLD.holds = True
    daemon.run("learn", "dm")
    daemon.ticks()
    [_, again] = hook.posts
    assert (again["failures"], again["recovered"][0]["check"]) == ([], "enough")
    assert "holds again" in again["text"]
    daemon.run("learn", "dm")
    assert daemon.ticks() == ["nothing went wrong"] * 2


def test_a_check_that_failed_and_held_between_two_looks_is_told(hook: Hook, daemon: Daemon) -> None:
    daemon.tick()
    WORLD.holds = False
    daemon.run("learn", "dm")
    WORLD.holds = True
    daemon.run("learn", "dm")
    daemon.ticks()
    [post] = hook.posts
    assert (len(post["failures"]), len(post["recovered"])) == (1, 1)


def test_while_the_hook_is_away_nothing_is_lost_and_nothing_piles_up(
    hook: Hook, daemon: Daemon
) -> None:
    daemon.tick()
    hook.status = 503
    for _ in range(3):
        daemon.run("smash")
        said = daemon.ticks(3)[-1]
    assert "LEARNING_ALERT_URL refuses (HTTP 503)" in said
    assert hook.posts == []
    hook.status = 200
    daemon.ticks(2)
    daemon.minutes_later = 61
    daemon.ticks(2)
    assert [len(post["failures"]) for post in hook.posts] == [1, 2]
    assert len({f["run_id"] for post in hook.posts for f in post["failures"]}) == 3
    assert daemon.ticks() == ["nothing went wrong"] * 2


def test_runs_that_go_on_failing_are_told_together_every_hour(hook: Hook, daemon: Daemon) -> None:
    daemon.tick()
    daemon.run("smash")
    daemon.ticks()
    for _ in range(3):
        daemon.run("smash")
        daemon.minutes_later += 10
        daemon.ticks()
    assert daemon.tick() == "3 runs failed as before"
    assert [len(post["failures"]) for post in hook.posts] == [1]
    WORLD.is_away = True
    daemon.run("learn", "pm")
    daemon.ticks()
    assert [len(post["failures"]) for post in hook.posts] == [1, 4]
    assert "the run of smash failed: ValueError: no such thing (3 times)" in hook.posts[1]["text"]
    daemon.run("smash")
    assert daemon.ticks()[-1] == "1 runs failed as before"
    daemon.minutes_later += 60
    daemon.ticks()
    assert [len(post["failures"]) for post in hook.posts] == [1, 4, 1]
    assert len({f["run_id"] for post in hook.posts for f in post["failures"]}) == 6


def test_what_waits_is_told_in_bounded_posts(
    hook: Hook, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts_module, "MOST_EVENTS", 4)
    daemon.tick()
    for _ in range(9):
        daemon.run("smash")
    for _ in range(6):
        daemon.minutes_later += 61
        daemon.tick()
    assert [len(post["failures"]) for post in hook.posts] == [4, 4, 1]
    assert len({f["run_id"] for post in hook.posts for f in post["failures"]}) == 9


def test_an_event_that_was_numbered_first_and_written_last_is_not_passed_over(
    hook: Hook, daemon: Daemon
) -> None:
    """The newest event of a look is read in the next one, when what came before it is there."""
    daemon.tick()
    daemon.run("smash")
    assert daemon.tick() == "nothing went wrong"
    assert daemon.tick() == "told 1"


def test_a_hook_that_does_not_answer_is_given_up_in_time(hook: Hook) -> None:
    hook.status = 0
    with pytest.raises(UserError, match="does not answer"):
        Webhook(hook.url, timeout_seconds=0.2).post({})


def test_a_redirect_is_no_success(hook: Hook) -> None:
    hook.status = 302
    with pytest.raises(UserError, match="HTTP 302"):
        Webhook(hook.url).post({})
    assert hook.gets == 0


def test_nobody_there(hook: Hook, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.tick()
    daemon.run("smash")
    monkeypatch.setenv("LEARNING_ALERT_URL", f"http://127.0.0.1:1/{SECRET}")
    assert "does not answer (Connection refused)" in daemon.ticks()[-1]
    monkeypatch.setenv("LEARNING_ALERT_URL", hook.url)
    daemon.tick()
    assert len(hook.posts) == 1


def test_without_an_address_it_is_silent_and_tells_no_old_failures_later(
    hook: Hook, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEARNING_ALERT_URL")
    daemon.run("smash")
    assert daemon.ticks() == ["LEARNING_ALERT_URL is not set"] * 2
    monkeypatch.setenv("LEARNING_ALERT_URL", hook.url)
    assert daemon.ticks(3) == ["nothing went wrong"] * 3
    assert hook.posts == []


def test_what_others_do_on_the_same_instance_is_not_told(hook: Hook, daemon: Daemon) -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("theirs", asset="foreign")])
    def foreign() -> dg.MaterializeResult:  # type: ignore[type-arg]
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False)])

    @dg.op
    def fails() -> None:
        raise ValueError("not ours")

    @dg.job
    def elsewhere() -> None:
        fails()

    daemon.tick()
    dg.materialize([foreign], instance=daemon.instance, run_config=QUIET)
    elsewhere.execute_in_process(instance=daemon.instance, raise_on_error=False, run_config=QUIET)
    assert daemon.ticks(3) == ["nothing went wrong"] * 3
    assert hook.posts == []


def test_a_check_that_was_not_executed_is_told_once(hook: Hook, daemon: Daemon) -> None:
    daemon.tick()
    daemon.run("learn", "pm")
    daemon.minutes_later = 20.0
    assert daemon.ticks() == ["nothing went wrong"] * 2
    daemon.instance.report_runless_asset_event(dg.AssetMaterialization("lessons", partition="pm"))
    daemon.minutes_later = 10.0
    assert daemon.ticks() == ["nothing went wrong"] * 2
    daemon.minutes_later = 20.0
    assert "told 1" in daemon.ticks(3)
    assert daemon.ticks() == ["nothing went wrong"] * 2
    [post] = hook.posts
    [failure] = post["failures"]
    assert (failure["kind"], failure["check"]) == ("missing_check", "enough")
    assert "is missing: not executed since the materialization of" in post["text"]
    daemon.run("learn", "pm")
    daemon.instance.report_runless_asset_event(dg.AssetMaterialization("lessons", partition="pm"))
    daemon.ticks()
    assert len(hook.posts) == 1
    assert cursor_of(daemon.cursor or "").missing == ("lessons.enough",)


@pytest.mark.parametrize(
    "url",
    [
        f"hooks.example.com/{SECRET}",
        f"ftp://hooks.example.com/{SECRET}",
        f"https:///{SECRET}",
        f"https://u:{SECRET}@hooks.example.com/x",
        f"https://hooks.example.com:{SECRET}/x",
        f"https://hooks.example.com/{SECRET} x",
        f"https://hooks.example.com/{SECRET}\nx",
        f"https://hooks.example.com/{SECRET}ü",
    ],
)
def test_a_wrong_address_is_one_sentence_without_it(url: str) -> None:
    with pytest.raises(UserError, match="LEARNING_ALERT_URL is no address of a webhook") as error:
        webhook_of({"LEARNING_ALERT_URL": url})
    assert SECRET not in str(error.value)


def test_a_wrong_address_is_the_reason_of_the_tick(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEARNING_ALERT_URL", f"hooks.example.com/{SECRET}")
    assert daemon.tick().startswith("LEARNING_ALERT_URL is no address of a webhook: write it as")


def test_the_address_is_in_no_representation() -> None:
    assert SECRET not in repr(webhook_of({"LEARNING_ALERT_URL": f"https://x.example/{SECRET}"}))
    assert webhook_of({"LEARNING_ALERT_URL": " "}) is None


def test_a_long_message_is_cut_and_the_document_is_whole() -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    news = [News(Kind.RUN, at, event=i, job="learn", error=f"{i} " * 60) for i in range(50)]
    made = message("main", news)
    assert len(made["text"]) <= LONGEST_TEXT + 20
    assert made["text"].endswith("more")
    assert len(made["failures"]) == 50
