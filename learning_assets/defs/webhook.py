"""Posting JSON to the webhook of `LEARNING_ALERT_URL`.

The address is a secret, since whoever knows it may post: no sentence, representation or log of
ours holds any of it.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from learning_assets.errors import UserError

ALERT_VARIABLE = "LEARNING_ALERT_URL"
TIMEOUT_SECONDS = 10.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET, and its answer would look like success."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow nothing."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where to post, and how long to wait for an answer."""

    url: str = field(repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS

    def post(self, document: Mapping[str, Any]) -> None:
        """Post the document; it has arrived when this returns.

        Raises:
            UserError: where nobody answers in time, or with anything but 2xx.
        """
        request = urllib.request.Request(
            self.url,
            json.dumps(document, allow_nan=False).encode(),
            {"Content-Type": "application/json", "User-Agent": "learning-assets"},
        )
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            opener.open(request, timeout=self.timeout_seconds).close()
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"the webhook of {ALERT_VARIABLE} {_why(error)}") from None


def webhook_of(env: Mapping[str, str]) -> Webhook | None:
    """The webhook that the environment names, None where it names none.

    Raises:
        UserError: for what is no address of a webhook; without quoting it.
    """
    url = env.get(ALERT_VARIABLE, "").strip()
    if not url:
        return None
    if not _is_address(url):
        raise UserError(
            f"{ALERT_VARIABLE} is no address of a webhook: write it as https://host/path, without "
            "spaces and without user:password@"
        )
    return Webhook(url)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        return False
    return (
        known
        and "@" not in parts.netloc
        and url.isascii()
        and url.isprintable()
        and (" " not in url)
    )


def _why(error: Exception) -> str:
    """What went wrong, in words that hold nothing of the address."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"refuses (HTTP {error.code}): check the address, or wait until it works again"
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        said = "no answer in time"
    elif isinstance(reason, ssl.SSLError):
        said = "its certificate is not accepted"
    elif isinstance(reason, OSError) and reason.strerror:
        said = reason.strerror
    else:
        said = type(reason).__name__
    return f"does not answer ({said}): check the address, or wait until it works again"
