"""Dagster's asset checks: made from those of the tables, so that they cannot drift from them.

What must hold is in `store.checks`; what must hold of a set of overrides before it goes live is
in `core.publication`, and the asset itself reports on it.
"""

from __future__ import annotations

import dagster as dg

from learning_assets.defs.opening import open_source
from learning_assets.defs.resources import BookResource, clear_failures
from learning_assets.store import checks, events

NO_DAY_MISSING = dg.AssetCheckKey(dg.AssetKey("pattern_trade_events"), "no_day_missing")
"""Reads the whole source, and is therefore no part of the job that runs every few minutes."""


def asset_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of all stored tables."""
    return [*map(_asset_check, checks.CHECKS), no_day_missing]


def _asset_check(check: checks.Check) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=check.asset,
        name=check.name,
        description=check.description,
        blocking=check.is_blocking,
    )
    def run(book: BookResource) -> dg.AssetCheckResult:
        with clear_failures(), book.connect() as conn:
            found = checks.look(conn, check, book.config, book.now())
        return dg.AssetCheckResult(
            passed=found.passed,
            severity=_severity(check.is_blocking),
            description=found.detail,
            metadata={"offenders": found.offenders},
        )

    return run


def _severity(is_blocking: bool) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if is_blocking else dg.AssetCheckSeverity.WARN


@dg.asset_check(
    asset=NO_DAY_MISSING.asset_key,
    name=NO_DAY_MISSING.name,
    description="Every day on which the source has a closing has events or rejected rows.",
)
def no_day_missing(book: BookResource) -> dg.AssetCheckResult:
    """Compare the closing days of the source with those taken in."""
    with clear_failures(), book.connect() as conn:
        there = open_source(book.settings, book.source(conn)).changes(None).days
        known = {*events.days(conn), *events.rejected_days(conn)}
    missing = [day.isoformat() for day in there if day not in known]
    return dg.AssetCheckResult(
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"missing: {', '.join(missing[:10])}" if missing else "holds",
        metadata={"days of the source": len(there), "missing": len(missing)},
    )
