"""The partitions: days for events, modules for lessons."""

from __future__ import annotations

import dagster as dg

from learning_assets.sources.parse import START

DAYS = dg.DailyPartitionsDefinition(
    start_date=START.date().isoformat(), timezone="UTC", end_offset=1
)
"""One partition per UTC day of closing, today included."""

MODULES = dg.StaticPartitionsDefinition(["pm", "dm"])
"""One partition per module."""
