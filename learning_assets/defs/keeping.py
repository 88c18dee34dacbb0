"""For how long Dagster's runs are kept. No Dagster here, since the command line asks first."""

from __future__ import annotations

from learning_assets.errors import UserError

KEEP_VARIABLE = "LEARNING_KEEP_RUNS_DAYS"
DEFAULT_KEEP_DAYS = 14


def keep_days(given: str | None) -> int:
    """For how many days runs are kept: `LEARNING_KEEP_RUNS_DAYS`, 14 by default.

    Raises:
        UserError: for what is no number of days.
    """
    if not given:
        return DEFAULT_KEEP_DAYS
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{KEEP_VARIABLE}={given} is no number of days: give a whole one from 1 on")
    return int(given)
