"""The assets, one file each: load, call one function of the core, store, say what was done."""

from __future__ import annotations

import warnings

import dagster as dg

# Taking many days in as one run is in beta in name only, and nobody can act on the warning.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)
