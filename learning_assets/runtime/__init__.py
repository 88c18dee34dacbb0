"""What a trading bot imports: the multiplier of an action, from the live set of overrides.

    from learning_assets.runtime import OverrideBook

    book = OverrideBook.from_database("postgresql://bot@localhost/learning")
    answer = book.lookup("pm.uptrend.S1.buy_flag", "entry", {"chain": "solana"})
    size *= answer.multiplier

Nothing here imports Dagster, numpy or pandas, and nothing raises once the book is made.
"""

from learning_assets.core.records import Status
from learning_assets.runtime.backtest import Backtest, InSampleError
from learning_assets.runtime.book import OverrideBook
from learning_assets.runtime.sets import Answer, Matched

__all__ = ["Answer", "Backtest", "InSampleError", "Matched", "OverrideBook", "Status"]
