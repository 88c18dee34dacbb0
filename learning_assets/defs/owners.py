"""Who owns the assets: `LEARNING_OWNERS`. No Dagster here, since the command line asks first."""

from __future__ import annotations

import re
from collections.abc import Mapping

from learning_assets.errors import UserError

OWNERS_VARIABLE = "LEARNING_OWNERS"
DEFAULT_OWNERS = ("team:trading",)

# No looser than Dagster, which would fail on it with a traceback.
_OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")


def owners_of(env: Mapping[str, str]) -> tuple[str, ...]:
    """Who owns the assets: the names in `LEARNING_OWNERS`, with commas between them.

    Raises:
        UserError: for a name that is neither an e-mail address nor a team.
    """
    given = env.get(OWNERS_VARIABLE) or ",".join(DEFAULT_OWNERS)
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        if not _OWNER.fullmatch(name):
            raise UserError(
                f"{OWNERS_VARIABLE}={given}: {name!r} is no owner; name e-mail addresses or teams "
                "such as team:trading, with commas between them"
            )
    return names
