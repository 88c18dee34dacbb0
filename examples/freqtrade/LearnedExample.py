"""A small strategy whose stakes follow what was learned from its own closed trades.

It buys after a candle of unusual volume and sells after four hours. An example of how the parts
fit together, not of a way to make money.
"""

from datetime import datetime, timedelta

from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame

from learning_assets.runtime.freqtrade import LearnedStakes


class LearnedExample(LearnedStakes, IStrategy):
    """Stakes, adds and trims are multiplied by what was learned for their pair, hour and side."""

    INTERFACE_VERSION = 3
    timeframe = "1h"
    startup_candle_count = 24
    stoploss = -0.05
    minimal_roi = {"240": -1}  # noqa: RUF012  # sells after so many minutes, whatever the profit
    position_adjustment_enable = True
    process_only_new_candles = True

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Volume against that of the day before."""
        usual = dataframe["volume"].rolling(24).mean().shift()
        dataframe["unusual_volume"] = dataframe["volume"] / usual
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """The tag is a part of the name under which is learned."""
        dataframe.loc[dataframe["unusual_volume"] > 2, ["enter_long", "enter_tag"]] = (1, "volume")
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Only time and the stop loss end a trade."""
        return dataframe

    def adjust_trade_position(
        self,
        trade: Trade,
        current_time: datetime,
        current_rate: float,
        current_profit: float,
        min_stake: float | None,
        max_stake: float,
        **kwargs,
    ) -> float | None:
        """After an hour adds half to a trade that gains, after two sells half of one that loses.

        Once each. More than 1.5 halves would leave too little to be sold.
        """
        hours = (current_time - trade.open_date_utc) / timedelta(hours=1)
        half = trade.stake_amount / 2
        if 1 <= hours < 2 and current_profit > 0.01 and trade.nr_of_successful_entries == 1:
            return half * self.learned_multiplier(trade, current_time)
        if hours >= 2 and current_profit < -0.01 and trade.nr_of_successful_exits == 0:
            part = self.learned_multiplier(trade, current_time, category="trim")
            return -half * min(part, 1.5)
        return None
