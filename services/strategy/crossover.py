"""Enter when the short mean of closes crosses above the long one and every filter agrees; exit at the opposite cross.

A cross happens at one candle, and only there are the filters asked: an entry that they block is not made up for
later. The RSI filter blocks a market that is already overbought. (Asking for an oversold one at the moment of a cross
upwards asks for a rise in a falling market: such a rule hardly ever trades.)
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

# A filter says how many candles it needs, and why it blocks an entry at the last of those it is shown.


class TrendFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The long mean must rise by at least `min_slope` (a fraction, per candle, over `window` candles)."""

    min_slope: Decimal
    window: int = 1

    def __post_init__(self) -> None:
        require(self.min_slope.is_finite() and abs(self.min_slope) < 1, "trend.min_slope must lie between -1 and 1")
        require(0 < self.window <= 100, "trend.window must be from 1 to 100 candles")

    def needs(self, long: int) -> int:
        return long + self.window

    def refusal(self, candles: list[Candle], long: int) -> Why | None:
        closes = [candle.close for candle in candles]
        before = indicators.mean(closes[-long - self.window : -self.window])
        steepness = indicators.slope(before, indicators.mean(closes[-long:]), self.window)
        return Why.TREND_FILTER_BLOCKED if steepness < self.min_slope else None


class RsiFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The RSI over `window` candles must lie below `overbought`."""

    window: int = 14
    overbought: Decimal = Decimal(70)

    def __post_init__(self) -> None:
        require(2 <= self.window <= 50, "rsi.window must be from 2 to 50 candles")
        require(self.overbought.is_finite() and 0 < self.overbought <= 100, "rsi.overbought must be in (0, 100]")

    def needs(self, long: int) -> int:
        return indicators.smoothed_candles(self.window)

    def refusal(self, candles: list[Candle], long: int) -> Why | None:
        strength = indicators.rsi([candle.close for candle in candles], self.window)
        if strength is None:
            return Why.INDICATOR_DATA_UNAVAILABLE
        return Why.RSI_FILTER_BLOCKED if strength >= self.overbought else None


class VolatilityFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The average true range over `window` candles, as a fraction of the close, must lie within [min, max]."""

    min: Decimal
    max: Decimal
    window: int = 14

    def __post_init__(self) -> None:
        require(2 <= self.window <= 50, "volatility.window must be from 2 to 50 candles")
        require(self.min.is_finite() and self.max.is_finite(), "volatility.min and max must be numbers")
        require(0 <= self.min < self.max, "volatility.min must be at least 0 and less than max")

    def needs(self, long: int) -> int:
        return indicators.smoothed_candles(self.window)

    def refusal(self, candles: list[Candle], long: int) -> Why | None:
        swing = indicators.average_true_range(candles, self.window) / candles[-1].close
        return None if self.min <= swing <= self.max else Why.VOLATILITY_FILTER_BLOCKED


class VolumeFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The candle's volume must be at least `factor` times the mean of the `window` candles before it."""

    factor: Decimal
    window: int = 10

    def __post_init__(self) -> None:
        require(0 < self.window <= 200, "volume.window must be from 1 to 200 candles")
        require(self.factor.is_finite() and self.factor > 0, "volume.factor must be positive")

    def needs(self, long: int) -> int:
        return self.window + 1

    def refusal(self, candles: list[Candle], long: int) -> Why | None:
        ratio = indicators.volume_ratio([candle.volume for candle in candles], self.window)
        if ratio is None:
            return Why.INDICATOR_DATA_UNAVAILABLE
        return Why.VOLUME_FILTER_BLOCKED if ratio < self.factor else None


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`short` and `long` in candles. A filter that is not given is off."""

    short: int
    long: int
    trend: TrendFilter | None = None
    rsi: RsiFilter | None = None
    volatility: VolatilityFilter | None = None
    volume: VolumeFilter | None = None

    def __post_init__(self) -> None:
        require(0 < self.short < self.long <= 250, "short and long must be candles with 0 < short < long <= 250")


class Crossover:
    """See `services.strategy.plugin.Strategy`."""

    Parameters: TypeAlias = Parameters

    def __init__(self, rules: Parameters) -> None:
        self._short, self._long = rules.short, rules.long
        self._filters = [rule for rule in (rules.volume, rules.rsi, rules.trend, rules.volatility) if rule is not None]
        # A cross takes one candle more than the long mean.
        self.warmup_candles = max([self._long + 1, *(rule.needs(self._long) for rule in self._filters)])
        self._candles: deque[Candle] = deque(maxlen=self.warmup_candles)

    def on_candle(self, candle: Candle, held: bool) -> Intent:
        self._candles.append(candle)
        if len(self._candles) < self.warmup_candles:
            return Intent(Action.HOLD, Why.WARMING_UP)
        candles = list(self._candles)
        closes = [known.close for known in candles]
        before, after = self._gap(closes[:-1]), self._gap(closes)
        if held:
            return Intent(Action.EXIT, Why.CROSSED_DOWN) if after < 0 <= before else Intent(Action.HOLD, Why.HOLDING)
        if not before <= 0 < after:
            return Intent(Action.HOLD, Why.NO_SIGNAL)
        for rule in self._filters:
            if why := rule.refusal(candles, self._long):
                return Intent(Action.HOLD, why)
        return Intent(Action.ENTER, Why.CROSSED_UP)

    def _gap(self, closes: list[Decimal]) -> Decimal:
        """How far the short mean stands above the long one."""
        return indicators.mean(closes[-self._short :]) - indicators.mean(closes[-self._long :])
