"""The asset `closed_trades`: the source, which lives outside and is only read."""

from __future__ import annotations

import dagster as dg

closed_trades = dg.AssetSpec(
    "closed_trades",
    description=(
        "The closed trades of the trading system: strands, freqtrade exports, tables or the "
        "simulated market, whichever the book remembers."
    ),
    group_name="source",
    kinds={"source"},
)
