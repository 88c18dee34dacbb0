"""Writes candles in freqtrade's format: `make_candles.py <data folder> <pairs> <weeks>`.

Prices are random walks. Now and then an hour has an unusual volume; after it the first of the pairs
rises for the four hours that the strategy holds, the others go on at random.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from freqtrade.data.history.datahandlers import get_datahandler
from freqtrade.enums import CandleType

BEGIN = pd.Timestamp("2025-01-05", tz="UTC")  # a day before the first week: the start-up candles
SPIKES = 0.15  # a share of the hours
RISE = 0.012  # per hour after a spike


def candles(n: int, rise: float, rng: np.random.Generator) -> pd.DataFrame:
    spike = rng.random(n) < SPIKES
    after = sum(np.roll(spike, k).astype(float) for k in range(1, 5))
    steps = rng.normal(0, 0.006, n) + rise * np.minimum(after, 1)
    steps -= rise * np.minimum(after, 1).mean()  # the pair as a whole does not rise
    close = 100 * np.exp(np.cumsum(steps))
    begin = np.concatenate([[100.0], close[:-1]])
    wick = np.abs(rng.normal(0, 0.001, (2, n)))
    return pd.DataFrame(
        {
            "date": pd.date_range(BEGIN, periods=n, freq="1h"),
            "open": begin,
            "high": np.maximum(begin, close) * (1 + wick[0]),
            "low": np.minimum(begin, close) * (1 - wick[1]),
            "close": close,
            "volume": np.where(spike, 8000.0, 1000.0),
        }
    ).round(dict.fromkeys(("open", "high", "low", "close"), 6))


def main() -> None:
    folder, pairs, weeks = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    handler = get_datahandler(folder, "feather")
    for k, pair in enumerate(pairs):
        made = candles(24 + weeks * 168, RISE if k == 0 else 0.0, np.random.default_rng(k))
        handler.ohlcv_store(pair, "1h", made, CandleType.SPOT)


main()
