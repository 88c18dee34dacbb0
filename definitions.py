"""What Dagster loads when it is started in this folder."""

from __future__ import annotations

from learning_assets.defs.build import build_definitions

defs = build_definitions()
