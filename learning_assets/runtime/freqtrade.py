"""Stakes by what was learned, for a strategy of freqtrade.

    from learning_assets.runtime.freqtrade import LearnedStakes

    class MyStrategy(LearnedStakes, IStrategy): ...

stake = proposed × multiplier, within the least and the greatest stake. What was applied is kept
in the trade's custom data. The question is put in the importer's words (`core.freqtrade_entry`).
Of freqtrade nothing is imported, so that this is loaded in any environment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from learning_assets.core.freqtrade_entry import (
    action_name,
    action_scope,
    entry_pattern,
    side_of,
    trade_id,
)
from learning_assets.core.records import APPLIED, Status
from learning_assets.runtime.backtest import Backtest, InSampleError
from learning_assets.runtime.book import OverrideBook
from learning_assets.runtime.freqtrade_settings import (
    LearnedSettings,
    Mode,
    is_hyperopt,
    mode_of,
    timerange_of,
)
from learning_assets.runtime.sets import Answer, unusable

_LOG = logging.getLogger(__name__)
_REMEMBERED = 4096  # answers whose orders have not filled yet
_MINUTES_OF = {"m": 1, "h": 60, "d": 1440, "w": 10080}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACING = timedelta(minutes=1)  # an order is placed after its stake was asked for
_WHOLE = 1 - 1e-6  # sums of amounts are not exact

if TYPE_CHECKING:

    class _Strategy:
        """What `IStrategy` has and this uses."""

        config: dict[str, Any]
        timeframe: str

        def __init__(self, config: dict[str, Any]) -> None: ...
        def bot_start(self, **kwargs: Any) -> None: ...
        def ft_bot_cleanup(self) -> None: ...
        def get_strategy_name(self) -> str: ...
        def order_filled(self, *args: Any, **kwargs: Any) -> None: ...
        def custom_stake_amount(self, *args: Any, **kwargs: Any) -> float: ...
else:
    # Hyperopt sends the modules of all bases to other processes, up to a base of this name. Without
    # one it would come to `object`, and fail to send Python itself.
    _Strategy = type("IStrategy", (), {})


class LearnedStakes(_Strategy):
    """Comes before `IStrategy`, or before a strategy, in the bases of a strategy.

    Settings are in the section `learning` of the configuration (`LearnedSettings`). A strategy
    with stakes of its own passes them on as `proposed_stake` to `super().custom_stake_amount`; one
    that has `bot_start` or `order_filled` calls those of `super()`.
    """

    _learned: _Learned | None = None
    _was_started = False

    def __init__(self, config: dict[str, Any]) -> None:
        if mode_of(config.get("runmode")) is Mode.BACKTEST:
            # freqtrade shows an earlier result again while strategy and configuration are the
            # same, but the sets may be others.
            config["learning_opened_at"] = datetime.now(UTC).isoformat()
        super().__init__(config)

    def bot_start(self, **kwargs: Any) -> None:
        """Opens the book.

        Raises:
            ValueError: for bad settings.
            InSampleError: where a backtest would try sets on trades that they were learned from.
        """
        super().bot_start(**kwargs)
        self._was_started = True
        mode = mode_of(self.config.get("runmode"))
        if mode is not Mode.OFF:
            settings = LearnedSettings.of(self.config)
            self._learned = _Learned(self, settings, mode) if settings.enabled else None

    def ft_bot_cleanup(self) -> None:
        """Stops refreshing, then as freqtrade does."""
        if self._learned is not None:
            self._learned.close()
        super().ft_bot_cleanup()

    def custom_stake_amount(
        self,
        pair: str,
        current_time: datetime,
        current_rate: float,
        proposed_stake: float,
        min_stake: float | None,
        max_stake: float,
        leverage: float,
        entry_tag: str | None,
        side: str,
        **kwargs: Any,
    ) -> float:
        """The stake of the strategy × multiplier, within `min_stake` and `max_stake`."""
        stake = super().custom_stake_amount(
            pair=pair,
            current_time=current_time,
            current_rate=current_rate,
            proposed_stake=proposed_stake,
            min_stake=min_stake,
            max_stake=max_stake,
            leverage=leverage,
            entry_tag=entry_tag,
            side=side,
            **kwargs,
        )
        if self._learned is None:
            self._warn_unless_started()
            return stake
        action = _Action(pair, side, entry_tag, leverage, current_time)
        answer = self._learned.ask(action, "entry", current_time)
        return resized(stake, answer.multiplier, min_stake, max_stake)

    def _warn_unless_started(self) -> None:
        if not self._was_started:
            self._was_started = True
            _LOG.warning("Stakes are as proposed: bot_start must call super().bot_start().")

    def learned_multiplier(
        self, trade: Any, current_time: datetime, category: str = "add"
    ) -> float:
        """What to multiply an add to a trade by, or with `category="trim"` a part of it to sell.

        For `adjust_trade_position`, which decides these itself. 1.0 where nothing is known; never
        raises.
        """
        if self._learned is None:
            return 1.0
        return self._learned.ask(_action_of(trade), category, current_time).multiplier

    def order_filled(
        self, pair: str, trade: Any, order: Any, current_time: datetime, **kwargs: Any
    ) -> None:
        """Keeps what was applied in the custom data of the trade, by action name."""
        super().order_filled(
            pair=pair, trade=trade, order=order, current_time=current_time, **kwargs
        )
        if self._learned is not None:
            self._learned.keep(trade, order)


def resized(
    stake: float, multiplier: float, min_stake: float | None, max_stake: float | None
) -> float:
    """`stake` × `multiplier`, never moved out of the bounds.

    A stake that is none, or out of the bounds already, is the strategy's and freqtrade's affair:
    it is not moved further out, and not into them.
    """
    if multiplier == 1.0 or not isinstance(stake, (int, float)) or not stake > 0:
        return stake
    wanted = stake * multiplier
    if wanted < stake:
        return wanted if min_stake is None else max(wanted, min(stake, min_stake))
    return wanted if max_stake is None else min(wanted, max(stake, max_stake))


class _Action(NamedTuple):
    """An action of a trade, as far as it is known before there is a trade."""

    pair: str
    side: str
    tag: object
    leverage: float | None
    opened_at: datetime


def _action_of(trade: Any) -> _Action:
    side = side_of(trade.is_short)
    return _Action(trade.pair, side, trade.enter_tag, trade.leverage, trade.open_date_utc)


class _Learned:
    """Asks the book in the importer's words, and remembers answers until their orders fill."""

    def __init__(self, strategy: _Strategy, settings: LearnedSettings, mode: Mode) -> None:
        self._settings, self._mode = settings, mode
        self._strategy, self._timeframe = strategy.get_strategy_name(), strategy.timeframe
        self._range = self._range_of(strategy.config)
        self._keeps = not is_hyperopt(strategy.config.get("runmode"))  # which nobody can read
        self._answers: dict[tuple[str, str], Answer] = {}
        self._said = ""
        self._source: OverrideBook | Backtest | None = self._opened()
        where = self._settings.file or f"schema {self._settings.schema}"
        _LOG.info("Stakes follow %s from %s.", mode.value, where)

    def __getstate__(self) -> Mapping[str, Any]:
        # Hyperopt sends the strategy to other processes; a book with its thread cannot go along.
        return {**self.__dict__, "_source": None}

    def _range_of(self, config: Mapping[str, Any]) -> tuple[datetime, datetime]:
        now = datetime.now(UTC)
        if self._mode is not Mode.BACKTEST or self._settings.in_sample:
            return now, now
        return timerange_of(config, now)

    def _opened(self) -> OverrideBook | Backtest:
        book = self._settings.opened()
        if self._mode is Mode.LIVE:
            return book
        with book:
            try:
                return book.backtest(*self._range, force=self._settings.in_sample)
            except InSampleError as error:
                raise InSampleError(
                    f'{error}, or force it ("in_sample": true in the section "learning") and know '
                    "that it proves nothing"
                ) from None

    def close(self) -> None:
        """Stop refreshing."""
        if isinstance(self._source, OverrideBook):
            self._source.close()

    def ask(self, action: _Action, category: str, at: datetime) -> Answer:
        """The answer for an action of a category at a time; kept until its order fills."""
        try:
            at = at.astimezone(UTC)
            key = self._trade(action, action.opened_at), category
            answer = self._looked_up(action, category, at, key[0])
        except Exception as error:  # noqa: BLE001  # a bot goes on whatever it is given
            _LOG.exception("A stake is as proposed: the question to the overrides failed.")
            return unusable(error)
        self._answers.pop(key, None)
        self._answers[key] = answer
        if len(self._answers) > _REMEMBERED:
            del self._answers[next(iter(self._answers))]
        return answer

    def _looked_up(self, action: _Action, category: str, at: datetime, name: str) -> Answer:
        source = self._source = self._source or self._opened()
        pattern = entry_pattern(self._strategy, action.side, action.tag)
        scope = action_scope(action.pair, action.side, self._timeframe, action.leverage, at)
        if isinstance(source, Backtest):
            return source.lookup(pattern, category, scope, at, trade_id=name)
        answer = source.lookup(pattern, category, scope, trade_id=name)
        self._say(answer)
        return answer

    def _say(self, answer: Answer) -> None:
        """Says why stakes are as proposed, or that they are no more, once each time it changes."""
        why = answer.reason if answer.status in {Status.STALE, Status.NO_OVERRIDES} else ""
        if why != self._said:
            self._said = why
            _LOG.warning(
                "Stakes %s", f"are as proposed: {why}" if why else "follow overrides again"
            )

    def _trade(self, action: _Action, opened_at: datetime) -> str:
        """The importer's id of a trade, of the candle in which it was opened.

        A live trade is opened a moment after its stake was asked for.
        """
        opened = _candle(opened_at.astimezone(UTC), self._timeframe)
        return trade_id(self._strategy, action.pair, action.side, opened)

    def keep(self, trade: Any, order: Any) -> None:
        """Writes the answer that an order which filled was sized by to its trade, if it was."""
        try:
            filled = _filled(trade, order)
            if filled is None:
                return
            category, n = filled
            answer = self._taken(_action_of(trade), category)
            if answer is not None and self._keeps:
                kept = trade.get_custom_data(APPLIED, default={})
                name = action_name(category, n)
                trade.set_custom_data(APPLIED, {**kept, name: answer.document()})
        except Exception:  # noqa: BLE001  # an order has filled whatever becomes of the note
            _LOG.exception("What was applied to a trade could not be kept.")

    def _taken(self, action: _Action, category: str) -> Answer | None:
        moments = (action.opened_at, action.opened_at - _PLACING)
        keys = [(self._trade(action, moment), category) for moment in moments]
        return next((self._answers.pop(key) for key in keys if key in self._answers), None)


def _filled(trade: Any, order: Any) -> tuple[str, int] | None:
    """Category and number of the action whose order filled; None for the last exit."""
    if order.ft_order_side == trade.entry_side:
        n_entries = trade.nr_of_successful_entries
        return ("entry", 1) if n_entries == 1 else ("add", n_entries - 1)
    sides = trade.entry_side, trade.exit_side
    bought, sold = (
        sum(filled.safe_amount_after_fee for filled in trade.select_filled_orders(side))
        for side in sides
    )
    if not trade.is_open or sold >= bought * _WHOLE:
        return None
    return "trim", trade.nr_of_successful_exits


def _candle(at: datetime, timeframe: str) -> datetime:
    """The begin of the candle that a moment is in; of its minute for a timeframe like `1M`."""
    minutes = _MINUTES_OF.get(timeframe[-1:], 0) * int(timeframe[:-1] or 0)
    return at - (at - _EPOCH) % timedelta(minutes=minutes or 1)
