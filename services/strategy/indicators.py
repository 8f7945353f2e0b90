"""Indicators over windows of closed candles, oldest first. Decimal throughout.

Each is a function of its window and of nothing older, so that a restarted service, fed the same candles, finds the
same figures. None says that there is no such figure (no movement, no volume): never zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

from libs.common.messages import Candle

ZERO = Decimal(0)
# Wilder's smoothing never forgets its seed. It is seeded with a plain mean and smoothed over four more windows, after
# which the seed weighs (1 - 1/n)^4n, less than 2 %.
SMOOTHING_WINDOWS = 5


def smoothed_candles(window: int) -> int:
    """How many candles `rsi` and `average_true_range` look back over."""
    return SMOOTHING_WINDOWS * window + 1


def mean(values: Sequence[Decimal]) -> Decimal:
    """Simple moving average: the plain mean of the window."""
    return sum(values, ZERO) / len(values)


def standard_deviation(values: Sequence[Decimal]) -> Decimal:
    """Of the population, as in Bollinger's bands (J. Bollinger, "Bollinger on Bollinger Bands", 2001)."""
    middle = mean(values)
    return mean([(value - middle) ** 2 for value in values]).sqrt()


def slope(before: Decimal, after: Decimal, candles: int) -> Decimal:
    """Relative change per candle of a figure that went from `before` to `after` within so many candles."""
    return (after / before - 1) / candles


def rsi(closes: Sequence[Decimal], window: int) -> Decimal | None:
    """Relative strength index, 0 to 100: 100 x gain / (gain + loss), the averages of ups and downs smoothed by
    1/window (J. W. Wilder, "New Concepts in Technical Trading Systems", 1978). None where nothing moved."""
    closes = closes[-smoothed_candles(window) :]
    changes = [after - before for before, after in pairwise(closes)]
    gain = _wilder([max(change, ZERO) for change in changes], window)
    loss = _wilder([max(-change, ZERO) for change in changes], window)
    return 100 * gain / (gain + loss) if gain + loss else None


def average_true_range(candles: Sequence[Candle], window: int) -> Decimal:
    """Average true range in quote currency: the largest of high - low and of the distances of both from the close
    before, smoothed by 1/window (Wilder, 1978)."""
    candles = candles[-smoothed_candles(window) :]
    ranges = [max(candle.high, before.close) - min(candle.low, before.close) for before, candle in pairwise(candles)]
    return _wilder(ranges, window)


def volume_ratio(volumes: Sequence[Decimal], window: int) -> Decimal | None:
    """The last volume over the mean of the `window` before it. None where nothing was traded in them."""
    before = mean(volumes[-window - 1 : -1])
    return volumes[-1] / before if before else None


def _wilder(values: Sequence[Decimal], window: int) -> Decimal:
    average = mean(values[:window])
    for value in values[window:]:
        average += (value - average) / window
    return average
