"""What the market did so far: recent trades, candles of every length, 24 hours' figures. Bounded and pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from sim.money import ZERO, average
from sim.ticks import Tick

GRANULARITIES = {
    "ONE_MINUTE": 60,
    "FIVE_MINUTE": 300,
    "FIFTEEN_MINUTE": 900,
    "THIRTY_MINUTE": 1800,
    "ONE_HOUR": 3600,
    "TWO_HOUR": 7200,
    "SIX_HOUR": 21600,
    "ONE_DAY": 86400,
}
TRADES_KEPT = 20_000
CANDLES_KEPT = 5_000  # of each length
DAY_BUCKETS = 24
HOUR = 3600
HUNDRED = Decimal(100)


class Bar:
    """A candle under construction; `start` in unix seconds."""

    __slots__ = ("close", "high", "low", "open", "start", "volume")

    def __init__(self, start: int, price: Decimal, size: Decimal) -> None:
        self.start = start
        self.open = self.high = self.low = self.close = price
        self.volume = size

    def add(self, price: Decimal, size: Decimal) -> None:
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.volume += size


class Day(Struct, frozen=True):
    """The last 24 hours (to the full hour), and the extremes of all that was seen."""

    volume: Decimal
    low: Decimal
    high: Decimal
    change_percent: Decimal
    lowest: Decimal
    highest: Decimal


class History:
    """One product's past, fed tick by tick in rising time."""

    def __init__(self) -> None:
        self.last: Tick | None = None
        self._trades: deque[Tick] = deque(maxlen=TRADES_KEPT)
        self._bars: dict[int, deque[Bar]] = {seconds: deque(maxlen=CANDLES_KEPT) for seconds in GRANULARITIES.values()}
        self._lowest = self._highest = ZERO

    def add(self, tick: Tick) -> None:
        """Take in a tick; one that only quotes leaves no trade and no candle."""
        self.last = tick
        if not tick.is_trade:
            return
        self._trades.append(tick)
        now, price, size = int(tick.at.timestamp()), tick.price, tick.size
        for seconds, bars in self._bars.items():
            if bars and now < bars[-1].start + seconds:
                bars[-1].add(price, size)
            else:
                bars.append(Bar(now - now % seconds, price, size))
        self._highest = max(self._highest, price)
        self._lowest = min(self._lowest, price) if self._lowest else price

    def trades(self, limit: int, start: int | None = None, end: int | None = None) -> list[Tick]:
        """Newest first, start <= time < end + 1 (unix seconds)."""
        found = []
        for tick in reversed(self._trades):
            at = tick.at.timestamp()
            if start is not None and at < start:
                break
            if end is None or at < end + 1:
                found.append(tick)
                if len(found) == limit:
                    break
        return found

    def candles(self, seconds: int, start: int | None, end: int | None, limit: int) -> list[Bar]:
        """Newest first, start <= bucket <= end (unix seconds); buckets without a trade do not exist."""
        return list(_first(limit, self._between(seconds, start, end)))

    def _between(self, seconds: int, start: int | None, end: int | None) -> Iterator[Bar]:
        for bar in reversed(self._bars[seconds]):
            if start is not None and bar.start < start - start % seconds:
                return
            if end is None or bar.start <= end:
                yield bar

    def day(self) -> Day:
        """Zeros before the first trade."""
        bars = self._bars[HOUR]
        if not bars:
            return Day(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO)
        oldest = bars[-1].start - (DAY_BUCKETS - 1) * HOUR
        recent = list(_first(DAY_BUCKETS, (bar for bar in reversed(bars) if bar.start >= oldest)))
        opening, close = recent[-1].open, bars[-1].close
        return Day(
            volume=sum((bar.volume for bar in recent), ZERO),
            low=min(bar.low for bar in recent),
            high=max(bar.high for bar in recent),
            change_percent=average((close - opening) * HUNDRED, opening),
            lowest=self._lowest,
            highest=self._highest,
        )


def _first(limit: int, bars: Iterable[Bar]) -> Iterator[Bar]:
    for count, bar in enumerate(bars):
        if count == limit:
            return
        yield bar


def unix(at: datetime) -> int:
    """Whole unix seconds."""
    return int(at.timestamp())
