"""Is a message fit to be calculated with? What comes from outside may be typed well and still be no price."""

from __future__ import annotations

from decimal import Decimal

from libs.common.messages import Candle, Fill, Mark

LIMIT = Decimal(10) ** 15  # beyond any price or size, and far from the edge of Decimal's range
LEAST = 1 / LIMIT


def timed_mark(mark: Mark) -> bool:
    """Its times can be compared with ours."""
    return mark.at.tzinfo is not None and mark.received_at.tzinfo is not None


def sound_mark(mark: Mark) -> bool:
    """It is a price."""
    return _positive(mark.bid, mark.ask, mark.mid) and mark.bid <= mark.ask


def sound_candle(candle: Candle) -> bool:
    if candle.start.tzinfo is None or not _positive(candle.open, candle.high, candle.low, candle.close):
        return False
    if not (candle.volume.is_finite() and 0 <= candle.volume < LIMIT):
        return False
    return candle.low <= min(candle.open, candle.close) and max(candle.open, candle.close) <= candle.high


def sound_fill(fill: Fill) -> bool:
    return fill.trade_time.tzinfo is not None and _positive(fill.price, fill.size)


def _positive(*values: Decimal) -> bool:
    return all(value.is_finite() and LEAST < value < LIMIT for value in values)
