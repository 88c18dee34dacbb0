"""Every setting of the learning, in one frozen record with its bounds.

Where data lives and when jobs run is not learning: see `store.settings` and `defs`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(gt=0, lt=1)]


class LearningConfig(BaseModel):
    """Settings of the learning; `LearningConfig()` holds the defaults that the docs describe.

    Raises:
        pydantic.ValidationError: for a value out of bounds or an unknown setting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    look_back_days: int = Field(
        180, ge=7, le=3650, description="Days of closed trades learned from"
    )
    n_min: int = Field(33, ge=5, description="Fewest distinct trades of a slice")
    max_scope_dims: int = Field(3, ge=1, le=4, description="Most dimensions of a slice")
    family_wise_error: Share = Field(
        0.02, description="Chance, per module, that anything is found where nothing is there"
    )
    rotations: int = Field(199, ge=39, le=999, description="Rotations that calibrate a cut-off")
    winsor: float = Field(
        0.01, ge=0, lt=0.25, description="Share of the residuals clipped at either end for ranking"
    )
    seed: int = Field(20240101, ge=0, description="Seed of the random offsets of the rotations")
    calibration_growth: Share = Field(0.05, description="Growth of a group that ends a calibration")
    calibration_days: float = Field(7.0, gt=0, description="Age in days that ends a calibration")
    min_edge_r: float = Field(0.05, ge=0, description="Smallest edge worth an override, in R")
    max_redundant: int = Field(500, ge=0, description="Redundant lessons kept per group")
    max_candidates: int = Field(200, ge=0, description="Candidate lessons kept per group")
    segment_dims: tuple[str, str] = Field(
        ("timeframe", "mcap_bucket"), description="Dimensions whose values make the segments"
    )
    segment_n_min: int = Field(10, ge=2, description="Fewest trades of a segment")
    recurrence_tau_days: float = Field(30.0, gt=0, description="Time constant of the recurrence")
    max_size_change: Share = Field(0.25, description="Most that a set may change the total size")
    prior_gain: float = Field(0.5, ge=0, le=1, description="Gain while nothing has been measured")
    gain_weeks: int = Field(26, ge=1, le=520, description="Newest weeks that the gain rests on")
    regime_dims: tuple[str, ...] = Field(
        ("btc_macro", "alt_macro", "bucket_macro"),
        description="Dimensions of the regime signature, the one that is dropped first last",
    )
    most_changed_share: Share = Field(
        0.5, description="Share of the overrides that may change at once without waiting"
    )
    expiry_hours: float = Field(6.0, gt=0, description="Hours after which a set is stale at least")
