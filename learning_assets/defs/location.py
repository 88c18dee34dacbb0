"""The code location that Dagster's processes load."""

from __future__ import annotations

from learning_assets.defs.build import build_definitions

defs = build_definitions()
