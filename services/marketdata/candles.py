"""One product's trades become closed candles: each once, in rising order, holes filled by REST. Pure.

Buckets are settled strictly in order. A bucket is *whole* when the trade stream of the present connection covers all
of it; any other closed bucket is asked for by REST, and what comes after it waits. The warm-up at the start is nothing
but such a hole.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import Struct

from libs.common.messages import Candle, Message
from services.marketdata.answers import VenueCandle
from services.marketdata.facts import CandlesFetched, FetchCandles, FetchTrades, TradesFetched
from services.marketdata.frames import Trade

PAGE_CANDLES = 350  # the venue gives no more at once
VENUE_SECONDS_MIN = 60  # the venue has no candles below a minute: those are made of its trades
RETRY_SECONDS = 5.0  # wall, after a request that the shell gave up
# The venue's public answers are cached for about a second: a bucket asked for right after its end may lack its last
# trades.
REST_DELAY_SECONDS = 2.0


class Timing(Struct, frozen=True):
    """Market seconds."""

    granularity: str
    seconds: int
    grace: float
    rest_delay: float
    warmup_candles: int

    @classmethod
    def of(cls, granularity: str, seconds: int, grace: float, warmup_candles: int, replay: bool) -> Timing:
        """A replay has neither late trades nor a cache in front of the venue."""
        if replay:
            return cls(granularity, seconds, 0.0, 0.0, warmup_candles)
        return cls(granularity, seconds, grace, REST_DELAY_SECONDS, warmup_candles)

    def floor(self, at: float) -> int:
        """Start of the bucket that holds this time, in unix seconds."""
        return int(at // self.seconds) * self.seconds

    def after(self, at: datetime) -> int:
        """Start of the first bucket that begins after this time: at the very moment, more may have happened."""
        return self.floor(at.timestamp()) + self.seconds


class Bucket(Struct):
    """A candle under construction."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal

    @classmethod
    def of(cls, trade: Trade) -> Bucket:
        return cls(trade.price, trade.price, trade.price, trade.price, trade.size)

    def add(self, trade: Trade) -> None:
        self.high = max(self.high, trade.price)
        self.low = min(self.low, trade.price)
        self.close = trade.price
        self.volume += trade.size


class Buckets:
    """Trades of one product, added by rising trade id, by bucket."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._open: dict[int, Bucket] = {}

    def add(self, start: int, trade: Trade) -> None:
        bucket = self._open.get(start)
        if bucket is None:
            self._open[start] = Bucket.of(trade)
        else:
            bucket.add(trade)

    def pop_before(self, end: int) -> list[tuple[int, Bucket]]:
        """Take out every bucket that starts before `end`, oldest first."""
        starts = sorted(start for start in self._open if start < end)
        return [(start, self._open.pop(start)) for start in starts]

    def clear(self) -> None:
        self._open.clear()


class Hole(Struct):
    """Closed buckets being asked for: [start, end) in unix seconds. Trades are read backwards, down from `until`."""

    start: int
    end: int
    until: datetime
    trades: dict[int, Trade]
    retry_at: float | None = None  # monotonic; None while the answer is awaited


class Candles:
    """`published` is the start of the last candle given out; it outlives the process."""

    def __init__(self, product_id: str, timing: Timing) -> None:
        self.product_id = product_id
        self.published: int | None = None
        self.warm = False  # everything that was closed has been given out once
        self.late = 0  # trades that came after their candle
        self._timing = timing
        self._buckets = Buckets(timing)
        self._time = 0.0
        self._next: int | None = None  # the first bucket that is not settled
        self._covered = False
        self._whole_from: int | None = None  # the first bucket that the trade stream covers from its beginning
        self._last_id = 0
        self._hole: Hole | None = None
        self._held = False

    @property
    def busy(self) -> bool:
        return self._hole is not None

    # -- coverage

    def lose(self) -> None:
        """Trades may be missing from here on."""
        self._covered = False

    def acknowledge(self, at: datetime) -> None:
        """The venue sends every trade after `at`. Without effect where a snapshot told more."""
        if not self._covered:
            self._restart(self._timing.after(at))

    def take(self, trades: Iterable[Trade], snapshot: bool) -> None:
        """Trades of this product, in any order."""
        rising = sorted(trades, key=lambda trade: trade.trade_id)
        if snapshot and not self._covered:
            self._resume(rising[0])
        elif not self._covered:
            return  # before the snapshot, which holds them too
        for trade in rising:
            if trade.trade_id > self._last_id:
                self._last_id = trade.trade_id
                self._add(trade, snapshot)

    def _add(self, trade: Trade, snapshot: bool) -> None:
        start = self._timing.floor(trade.time.timestamp())
        if self._next is None or start >= self._next:
            self._buckets.add(start, trade)
        elif not snapshot:
            self.late += 1

    def _resume(self, oldest: Trade) -> None:
        """Go on where the connection before stopped, if the snapshot reaches back to there; else start from it."""
        whole_from = self._timing.after(oldest.time)
        if self._whole_from is None or whole_from <= self._whole_from or oldest.trade_id > self._last_id:
            self._restart(whole_from)
            self._last_id = 0
        self._covered = True

    def _restart(self, whole_from: int) -> None:
        self._covered = True
        self._whole_from = whole_from
        self._buckets.clear()

    # -- settling

    def advance(self, at: float) -> list[Message]:
        """The venue's time has come to `at` (unix seconds), and every trade before has been taken."""
        self._time = max(self._time, at)
        return self._settle()

    def _settle(self) -> list[Message]:
        if not self._covered or self._whole_from is None or self._hole is not None or self._held:
            return []
        closed = self._timing.floor(self._time - self._timing.grace)
        if self._next is None:
            self._next = self._first(closed)
        if self._next < min(closed, self._whole_from):
            return self._ask(
                self._next, min(self._whole_from, self._timing.floor(self._time - self._timing.rest_delay))
            )
        self.warm = True
        if self._next >= closed:
            return []
        self._buckets.pop_before(self._next)
        self._next = closed
        return [self._candle(start, bucket) for start, bucket in self._buckets.pop_before(closed)]

    def _first(self, closed: int) -> int:
        first = closed - self._timing.warmup_candles * self._timing.seconds
        return first if self.published is None else max(first, self.published + self._timing.seconds)

    def _candle(self, start: int, bucket: Bucket | VenueCandle) -> Candle:
        self.published = start
        return Candle(
            id=f"candle-{self.product_id}-{self._timing.granularity}-{start}",
            at=moment(start + self._timing.seconds),
            product_id=self.product_id,
            granularity=self._timing.granularity,
            start=moment(start),
            open=bucket.open,
            high=bucket.high,
            low=bucket.low,
            close=bucket.close,
            volume=bucket.volume,
        )

    # -- holes

    def _ask(self, start: int, end: int) -> list[Message]:
        if end <= start:
            self.warm = True  # the last closed bucket is too fresh to be asked for, the rest is there
            return []
        end = min(end, start + PAGE_CANDLES * self._timing.seconds)
        self._hole = Hole(start, end, moment(end), {})
        return [self._request(self._hole)]

    def _request(self, hole: Hole) -> FetchCandles | FetchTrades:
        hole.retry_at = None
        start, end = moment(hole.start), moment(hole.end)
        if self._timing.seconds < VENUE_SECONDS_MIN:
            label = f"fetch-trades-{self.product_id}-{hole.start}-{hole.until.isoformat()}"
            return FetchTrades(id=label, product_id=self.product_id, start=start, end=hole.until)
        label = f"fetch-candles-{self.product_id}-{hole.start}-{hole.end}"
        return FetchCandles(
            id=label, product_id=self.product_id, granularity=self._timing.granularity, start=start, end=end
        )

    def on_candles(self, answer: CandlesFetched) -> list[Message]:
        """Take the venue's word for a hole; what lies outside of it (the open bucket) is dropped."""
        hole = self._hole
        if hole is None or (answer.start, answer.end) != (moment(hole.start), moment(hole.end)):
            return []
        found = {
            candle.start: candle
            for candle in answer.candles
            if hole.start <= candle.start < hole.end and candle.start % self._timing.seconds == 0
        }
        return self._filled(hole, sorted(found.items()))

    def on_trades(self, answer: TradesFetched) -> list[Message]:
        """Read on backwards until an answer brings nothing new: how many trades one answer holds is not told.

        A single second with more trades than one answer holds cannot be read in full.
        """
        hole = self._hole
        if hole is None or (answer.start, answer.end) != (moment(hole.start), hole.until):
            return []
        new = [trade for trade in answer.trades if trade.trade_id not in hole.trades]
        hole.trades.update((trade.trade_id, trade) for trade in new)
        oldest = min((trade.time for trade in new), default=None)
        if oldest is not None and oldest >= moment(hole.start):
            hole.until = min(oldest, hole.until)
            return [self._request(hole)]
        buckets = Buckets(self._timing)
        for _, trade in sorted(hole.trades.items()):
            buckets.add(self._timing.floor(trade.time.timestamp()), trade)
        buckets.pop_before(hole.start)
        return self._filled(hole, buckets.pop_before(hole.end))

    def on_failed(self, monotonic: float) -> None:
        if self._hole is not None:
            self._hole.retry_at = monotonic + RETRY_SECONDS

    def _filled(self, hole: Hole, found: Iterable[tuple[int, Bucket | VenueCandle]]) -> list[Message]:
        if self._held:
            hole.retry_at = 0.0
            return []
        self._hole = None
        self._next = hole.end
        return [*(self._candle(start, bucket) for start, bucket in found), *self._settle()]

    def on_pulse(self, monotonic: float, bus_connected: bool) -> list[Message]:
        """Ask again where a request failed. Candles wait while the bus is away: it would drop them."""
        self._held = not bus_connected
        hole = self._hole
        if self._held:
            return []
        if hole is not None and hole.retry_at is not None and monotonic >= hole.retry_at:
            return [self._request(hole)]
        return self._settle()


def moment(seconds: float) -> datetime:
    """Unix seconds as an aware UTC time."""
    return datetime.fromtimestamp(seconds, UTC)
