"""The asset `closed_trades`: the source, which lives outside and is only read."""

from __future__ import annotations

import dagster as dg

from learning_assets.defs.about import code_of
from learning_assets.sources import base

_COLUMNS = {
    "trade_id": ("string", "the same trade in several places is one"),
    "closed_at": ("timestamp", "when the outcome was known; without a zone it is UTC"),
    "rr": ("float", "outcome in R: profit in units of the risk taken at entry"),
    "pattern_key": ("string", "which pattern fired, e.g. pm.uptrend.S1.buy_flag"),
    "action_category": ("string", "entry, add, trim, exit or allocation"),
    "module": ("string", "pm or dm; by default that of the pattern"),
    "opened_at": ("timestamp", "when the trade opened, if known"),
    "pnl_usd": ("float", "profit in US dollars, if known"),
    "payback_hours": ("float", "hours until the trade had earned its risk back, if known"),
    "scope.<dimension>": ("string", "the context in which it fired, one column each"),
}

closed_trades = dg.AssetSpec(
    "closed_trades",
    description=(
        "The trades that your system closed, where it keeps them: the table `ad_strands`, "
        "freqtrade exports and databases, CSV or Parquet files, or the simulated market. They are "
        "read, never written. The columns are those that every source is brought to."
    ),
    group_name="trades",
    kinds={"source"},
    metadata={
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, kind, what) for name, (kind, what) in _COLUMNS.items()]
        ),
        **code_of(base),
    },
)
