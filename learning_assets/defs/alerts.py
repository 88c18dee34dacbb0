"""The sensor that tells failures to a webhook: each one once, several of a look in one post.

Runs that go on failing as they did are collected, and told together every hour.

It reads the event log up to the newest event of its last look, so that an event that was numbered
first and written last is not passed over. What it has told moves on only when the post arrived.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from learning_assets.defs.checks import NO_DAY_MISSING
from learning_assets.defs.failures import (
    Kind,
    News,
    events_between,
    missing_checks,
    newest_event,
    of_location,
)
from learning_assets.defs.freshness import IN_TIME
from learning_assets.defs.resources import BookResource
from learning_assets.defs.webhook import ALERT_VARIABLE, webhook_of
from learning_assets.errors import UserError

INTERVAL_SECONDS = 30
MOST_EVENTS = 200
"""Events of a kind in one look; what is beyond waits for the next one."""

REPEATED_AFTER = timedelta(hours=1)
"""Runs that fail as those of the last post did are told when it is so old."""

LONGEST_TEXT = 1900
"""Discord takes 2,000 characters."""

BY_THEMSELVES = (NO_DAY_MISSING.name, IN_TIME)
"""Checks with schedules of their own, which no materialization brings along."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the sensor remembers.

    `told` and `newest` are numbers of events: up to where everything was told, and the newest at
    the last look. `since` is the first look. `failing` and `missing` are checks that were told,
    `runs` how the runs of the post at `posted` failed.
    """

    told: int
    newest: int
    since: str
    failing: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    posted: str | None = None

    def is_repeated(self, news: Sequence[News], now: datetime) -> bool:
        """Whether these tell nothing that a recent post did not tell."""
        return (
            self.posted is not None
            and now - datetime.fromisoformat(self.posted) < REPEATED_AFTER
            and all(item.kind is Kind.RUN and item.subject in self.runs for item in news)
        )

    def to_text(self) -> str:
        """The cursor as Dagster keeps it."""
        return json.dumps(asdict(self))


def cursor_of(text: str) -> Cursor:
    """The cursor that Dagster kept."""
    kept = json.loads(text)
    lists = {name: tuple(kept.get(name, ())) for name in ("failing", "missing", "runs")}
    return Cursor(**{**kept, **lists})


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells failed runs, failed checks and checks that were not executed to the webhook of "
        "LEARNING_ALERT_URL, each once; silent without one."
    ),
)
def alerts(context: dg.SensorEvaluationContext, book: BookResource) -> dg.SensorResult:
    """Post what went wrong since the last look."""
    instance, now = context.instance, book.now()
    try:
        webhook = webhook_of(os.environ)
    except UserError as error:
        return _quiet(str(error))
    newest = newest_event(instance)
    if webhook is None or not context.cursor:
        # Whoever sets the variable later does not want to read the failures of a year.
        said = "from now on failures are told" if webhook else f"{ALERT_VARIABLE} is not set"
        return _quiet(said, Cursor(newest, newest, now.isoformat()))
    cursor = cursor_of(context.cursor)
    news, after = _look(context, cursor, newest, now)
    if not news:
        return _quiet("nothing went wrong", after)
    if after.told == cursor.newest and cursor.is_repeated(news, now):
        return _quiet(f"{len(news)} runs failed as before", replace(cursor, newest=newest))
    try:
        webhook.post(message(book.name, news))
    except UserError as error:
        return _quiet(f"{error}; {len(news)} to tell")
    runs = tuple(sorted({item.subject for item in news if item.kind is Kind.RUN}))
    return _quiet(f"told {len(news)}", replace(after, runs=runs, posted=now.isoformat()))


def _quiet(why: str, cursor: Cursor | None = None) -> dg.SensorResult:
    text = cursor.to_text() if cursor else None
    return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=text)


def _look(
    context: dg.SensorEvaluationContext, cursor: Cursor, newest: int, now: datetime
) -> tuple[list[News], Cursor]:
    """What is to be told, and what to remember once it has been."""
    instance, repository = context.instance, context.repository_def
    assert repository is not None  # Dagster gives it to every sensor that it evaluates
    keys = repository.asset_graph.asset_check_keys
    origin = context.code_location_origin
    read, told = events_between(instance, cursor.told, cursor.newest, MOST_EVENTS)
    ours = of_location(
        instance, read, repository.job_names, origin.location_name if origin else None
    )
    news, failing = changes(
        [n for n in ours if n.kind is Kind.RUN or n.subject in _subjects(keys)], cursor.failing
    )
    expected = [key for key in keys if key.name not in BY_THEMSELVES]
    gone = list(missing_checks(instance, expected, datetime.fromisoformat(cursor.since), now))
    news += [n for n in gone if n.subject not in cursor.missing]
    missing = tuple(sorted(n.subject for n in gone))
    return news, replace(cursor, told=told, newest=newest, failing=failing, missing=missing)


def _subjects(keys: Iterable[dg.AssetCheckKey]) -> set[str]:
    return {f"{key.asset_key.to_user_string()}.{key.name}" for key in keys}


def changes(news: Iterable[News], failing: Collection[str]) -> tuple[list[News], tuple[str, ...]]:
    """What of these (in order) is new, and which checks fail after it.

    A check that goes on failing, or goes on holding, is nothing new.
    """
    found, now_failing = [], set(failing)
    for item in news:
        if item.kind is Kind.RUN:
            found.append(item)
        elif item.passed == (item.subject in now_failing):
            found.append(item)
            now_failing ^= {item.subject}
    return found, tuple(sorted(now_failing))


def message(book: str, news: Sequence[News]) -> dict[str, Any]:
    """The document of a post: `text` for Slack and Mattermost, `content` for Discord, and the rest.

    `id` is the same when the same news is posted again, which happens if the daemon dies between
    a post and the record of it.
    """
    text = _text(book, news)
    wrong, right = ([n for n in news if n.passed is passed] for passed in (False, True))
    return {
        "text": text,
        "content": text,
        "id": f"{book} {max(n.event or 0 for n in news)} {min(n.at for n in news).isoformat()}",
        "book": book,
        "failures": [_document(book, n) for n in wrong],
        "recovered": [_document(book, n) for n in right],
    }


def _document(book: str, news: News) -> dict[str, Any]:
    return {
        "book": book,
        "kind": news.kind.value,
        "job": news.job,
        "run_id": news.run_id,
        "asset": news.asset,
        "check": news.check,
        "partition": news.partition,
        "error": news.error,
        "time": news.at.isoformat(),
    }


def _text(book: str, news: Sequence[News]) -> str:
    """The news in lines, of what repeats the newest and how often."""
    newest = {_words(item): item for item in news}
    times = Counter(map(_words, news))
    lines = [f"learning, book {book}:"]
    for i, (words, item) in enumerate(newest.items()):
        often = f" ({times[words]} times)" if times[words] > 1 else ""
        line = f"• {item.at:%Y-%m-%d %H:%M} UTC {words}{often}"
        if sum(map(len, lines)) + len(lines) + len(line) > LONGEST_TEXT:
            return "\n".join([*lines, f"… and {len(newest) - i} more"])
        lines.append(line)
    return "\n".join(lines)


def _words(news: News) -> str:
    of = f" ({news.partition})" if news.partition else ""
    if news.kind is Kind.RUN:
        return f"the run of {news.job}{of} failed: {news.error}"
    what = f"the check {news.check} of {news.asset}"
    if news.passed:
        return f"{what} holds again"
    fails = "fails" if news.kind is Kind.CHECK else "is missing"
    return f"{what}{of} {fails}: {news.error}"
