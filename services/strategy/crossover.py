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
from services.strategy.plugin import Action, Intent, Why

HUNDRED = Decimal(100)


def _require(holds: bool, line: str) -> None:
    if not holds:
        raise ValueError(line)


class TrendFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The long mean must rise by at least `min_slope` (a fraction, per candle, over `window` candles)."""

    min_slope: Decimal
    window: int = 1

    def __post_init__(self) -> None:
        _require(self.min_slope.is_finite() and abs(self.min_slope) < 1, "trend.min_slope must lie between -1 and 1")
        _require(0 < self.window <= 100, "trend.window must be from 1 to 100 candles")


class RsiFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The RSI over `window` candles must lie below `overbought`."""

    window: int = 14
    overbought: Decimal = Decimal(70)

    def __post_init__(self) -> None:
        _require(2 <= self.window <= 50, "rsi.window must be from 2 to 50 candles")
        _require(self.overbought.is_finite() and 0 < self.overbought <= HUNDRED, "rsi.overbought must be in (0, 100]")


class VolatilityFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The average true range over `window` candles, as a fraction of the close, must lie within [min, max]."""

    min: Decimal
    max: Decimal
    window: int = 14

    def __post_init__(self) -> None:
        _require(2 <= self.window <= 50, "volatility.window must be from 2 to 50 candles")
        _require(self.min.is_finite() and self.max.is_finite(), "volatility.min and max must be numbers")
        _require(0 <= self.min < self.max, "volatility.min must be at least 0 and less than max")


class VolumeFilter(Struct, frozen=True, forbid_unknown_fields=True):
    """The candle's volume must be at least `factor` times the mean of the `window` candles before it."""

    factor: Decimal
    window: int = 10

    def __post_init__(self) -> None:
        _require(0 < self.window <= 200, "volume.window must be from 1 to 200 candles")
        _require(self.factor.is_finite() and self.factor > 0, "volume.factor must be positive")


class Parameters(Struct, frozen=True, forbid_unknown_fields=True):
    """`short` and `long` in candles. A filter that is not given is off."""

    short: int
    long: int
    trend: TrendFilter | None = None
    rsi: RsiFilter | None = None
    volatility: VolatilityFilter | None = None
    volume: VolumeFilter | None = None

    def __post_init__(self) -> None:
        _require(0 < self.short < self.long <= 250, "short and long must be candles with 0 < short < long <= 250")

    @property
    def warmup_candles(self) -> int:
        """What the hungriest rule needs to see: a cross takes one candle more than the long mean."""
        needs = [self.long + 1]
        if self.trend:
            needs.append(self.long + self.trend.window)
        if self.rsi:
            needs.append(indicators.smoothed_candles(self.rsi.window))
        if self.volatility:
            needs.append(indicators.smoothed_candles(self.volatility.window))
        if self.volume:
            needs.append(self.volume.window + 1)
        return max(needs)


class Crossover:
    """See `services.strategy.plugin.Strategy`."""

    Parameters: TypeAlias = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self._rules = parameters
        self.warmup_candles = parameters.warmup_candles
        self._candles: deque[Candle] = deque(maxlen=self.warmup_candles)

    def on_candle(self, candle: Candle, held: bool) -> Intent:
        self._candles.append(candle)
        if len(self._candles) < self.warmup_candles:
            return Intent(Action.HOLD, Why.WARMING_UP)
        candles = list(self._candles)
        closes = [known.close for known in candles]
        before, after = self._gap(closes[:-1]), self._gap(closes)
        if held:
            crossed = after < 0 <= before
            return Intent(Action.EXIT, Why.CROSSED_DOWN) if crossed else Intent(Action.HOLD, Why.HOLDING)
        if not before <= 0 < after:
            return Intent(Action.HOLD, Why.NO_SIGNAL)
        refusal = (
            self._volume(candles) or self._rsi(closes) or self._trend(closes) or self._volatility(candles, candle.close)
        )
        return Intent(Action.HOLD, refusal) if refusal else Intent(Action.ENTER, Why.CROSSED_UP)

    def _gap(self, closes: list[Decimal]) -> Decimal:
        """How far the short mean stands above the long one."""
        return indicators.mean(closes[-self._rules.short :]) - indicators.mean(closes[-self._rules.long :])

    def _volume(self, candles: list[Candle]) -> Why | None:
        rule = self._rules.volume
        if rule is None:
            return None
        ratio = indicators.volume_ratio([candle.volume for candle in candles], rule.window)
        if ratio is None:
            return Why.INDICATOR_DATA_UNAVAILABLE
        return Why.VOLUME_FILTER_BLOCKED if ratio < rule.factor else None

    def _rsi(self, closes: list[Decimal]) -> Why | None:
        rule = self._rules.rsi
        if rule is None:
            return None
        strength = indicators.rsi(closes, rule.window)
        if strength is None:
            return Why.INDICATOR_DATA_UNAVAILABLE
        return Why.RSI_FILTER_BLOCKED if strength >= rule.overbought else None

    def _trend(self, closes: list[Decimal]) -> Why | None:
        rule = self._rules.trend
        if rule is None:
            return None
        before = indicators.mean(closes[-self._rules.long - rule.window : -rule.window])
        steepness = indicators.slope(before, indicators.mean(closes[-self._rules.long :]), rule.window)
        return Why.TREND_FILTER_BLOCKED if steepness < rule.min_slope else None

    def _volatility(self, candles: list[Candle], close: Decimal) -> Why | None:
        rule = self._rules.volatility
        if rule is None:
            return None
        swing = indicators.average_true_range(candles, rule.window) / close
        return None if rule.min <= swing <= rule.max else Why.VOLATILITY_FILTER_BLOCKED
