"""freqtrade without an exchange: `offline.py <pairs> <custom data> <freqtrade's own arguments>`.

What strategies left in the custom data of trades, which a backtest forgets, is written to a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from freqtrade.main import main
from freqtrade.persistence import LocalTrade
from freqtrade.persistence.custom_data import CustomDataWrapper
from given_markets import give_markets


def custom_data() -> list[dict[str, Any]]:
    trades = {trade.id: trade for trade in LocalTrade.bt_trades}
    return [
        {
            "pair": trades[entry.ft_trade_id].pair,
            "open_date": trades[entry.ft_trade_id].open_date_utc.isoformat(),
            "key": entry.cd_key,
            "value": json.loads(entry.cd_value),
        }
        for entry in CustomDataWrapper.custom_data
    ]


if __name__ == "__main__":  # hyperopt's processes import this file
    give_markets(sys.argv[1].split(","))
    try:
        main(sys.argv[3:])
    finally:
        Path(sys.argv[2]).write_text(json.dumps(custom_data()))
