"""Enter when the close falls `deviations` standard deviations below its mean; exit at the mean, or after `max_candles`.

The opposite bet of a crossover: it buys weakness and sells the recovery, and gives up on one that does not come.
"""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TypeAlias

from msgspec import Struct

from libs.common.messages import Candle
from services.strategy import indicators
from services.strategy.config import require
from services.strategy.plugin import Action, Intent, Why


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`window` candles make the mean and the deviation; a position is kept for at most `max_candles`."""

    window: int = 20
    deviations: Decimal = Decimal(2)
    max_candles: int = 20

    def __post_init__(self) -> None:
        require(2 <= self.window <= 250, "window must be from 2 to 250 candles")
        require(self.deviations.is_finite() and 0 < self.deviations <= 10, "deviations must be in (0, 10]")
        require(0 < self.max_candles <= 250, "max_candles must be from 1 to 250 candles")


class MeanReversion:
    """See `services.strategy.plugin.Strategy`."""

    Parameters: TypeAlias = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self._rules = parameters
        # The candles since the entry are counted again after a restart: the warm-up reaches back over all of them.
        self.warmup_candles = max(parameters.window, parameters.max_candles + 1)
        self._closes: deque[Decimal] = deque(maxlen=self.warmup_candles)
        self._held_candles = 0

    def on_candle(self, candle: Candle, held: bool) -> Intent:
        self._closes.append(candle.close)
        self._held_candles = self._held_candles + 1 if held else 0
        if len(self._closes) < self.warmup_candles:
            return Intent(Action.HOLD, Why.WARMING_UP)
        closes = list(self._closes)[-self._rules.window :]
        mean = indicators.mean(closes)
        if held:
            if candle.close >= mean:
                return Intent(Action.EXIT, Why.MEAN_REACHED)
            if self._held_candles >= self._rules.max_candles:
                return Intent(Action.EXIT, Why.HELD_TOO_LONG)
            return Intent(Action.HOLD, Why.HOLDING)
        band = mean - self._rules.deviations * indicators.standard_deviation(closes)
        # A market that does not move has a band of no width and nothing to return from.
        if candle.close <= band < mean:
            return Intent(Action.ENTER, Why.BELOW_BAND)
        return Intent(Action.HOLD, Why.NO_SIGNAL)
