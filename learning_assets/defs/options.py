"""Options of runs on demand, as the launchpad shows them.

What may be set, its bounds and its default are those of `core.config`: nothing is said twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from learning_assets.core.config import LearningConfig
from learning_assets.errors import UserError

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def threshold(name: str) -> Any:
    """The field of an option that replaces this setting of the book for one run.

    Its bounds are looked at in `settings_of_run`, which says what is wrong in one sentence.
    """
    setting = LearningConfig.model_fields[name]
    return Field(setting.default, description=f"{setting.description}: {bounds_of(name)}.")


def bounds_of(name: str) -> str:
    """What a setting must be, in words."""
    limits = LearningConfig.model_fields[name].metadata
    return " and ".join(
        f"{words} {getattr(limit, side):g}"
        for limit in limits
        for side, words in _BOUNDS.items()
        if hasattr(limit, side)
    )


class AsOfConfig(dg.Config):
    """Options of one run."""

    as_of: str = Field(
        "",
        description=(
            "Only trades that closed before this time are seen, e.g. 2026-07-01 or "
            "2026-07-01T12:00+00:00; without a zone it is UTC. Empty: now where trades keep "
            "coming, else the end of the source."
        ),
    )


class EventsConfig(dg.Config):
    """Options of one run."""

    whole_source: bool = Field(
        False,
        description=(
            "Read all that the source has: rejected rows may lie on days without a usable trade. "
            "true or false."
        ),
    )


class LessonsConfig(AsOfConfig):
    """Options of one run; a threshold at its default is the book's."""

    anew: bool = Field(
        False, description="Learn even where nothing came in since the last time: true or false."
    )
    look_back_days: int = threshold("look_back_days")
    n_min: int = threshold("n_min")
    max_scope_dims: int = threshold("max_scope_dims")
    family_wise_error: float = threshold("family_wise_error")
    rotations: int = threshold("rotations")
    min_edge_r: float = threshold("min_edge_r")


class OverridesConfig(AsOfConfig):
    """Options of one run; a threshold at its default is the book's."""

    force: bool = Field(
        False,
        description=(
            "Publish however much changes at once, and whatever the lessons were learned with: "
            "true or false."
        ),
    )
    min_edge_r: float = threshold("min_edge_r")
    max_size_change: float = threshold("max_size_change")


def settings_of_run(config: AsOfConfig, of_book: LearningConfig) -> LearningConfig:
    """The settings of the book with the thresholds of the run in their place.

    Raises:
        UserError: for a threshold that is out of bounds.
    """
    fields = LearningConfig.model_fields
    asked = {name: value for name, value in dict(config).items() if name in fields}
    given = {name: value for name, value in asked.items() if value != fields[name].default}
    try:
        return LearningConfig.model_validate({**of_book.model_dump(), **given})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise UserError(
            f"{name} {given[name]} is out of bounds: it must be {bounds_of(name)}"
        ) from None


def thresholds_of_run(settings: LearningConfig, of_book: LearningConfig) -> Mapping[str, Any]:
    """The settings of a run that are not the book's, by name."""
    usual = of_book.model_dump()
    return {name: value for name, value in settings.model_dump().items() if value != usual[name]}


def in_words(thresholds: Mapping[str, Any]) -> str:
    """Thresholds of a run for a person to read."""
    return ", ".join(f"{name} {value}" for name, value in sorted(thresholds.items()))
