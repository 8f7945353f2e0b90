"""One product's trades become closed candles: each once, in rising order, holes filled by REST. Pure.

Buckets are settled strictly in order. A bucket is *whole* when the trade stream of the present connection covers all
of it; any other closed bucket is asked for by REST, and what comes after it waits. The warm-up at the start is nothing
but such a hole.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from libs.common.messages import Candle, Message
from services.marketdata.facts import FetchCandles, Fetched, FetchTrades
from services.marketdata.wire import Bucket, Trade

PAGE_CANDLES = 350  # the venue gives no more at once
VENUE_SECONDS_MIN = 60  # the venue has no candles below a minute: those are made of its trades


class Timing(Struct, frozen=True):
    """Market seconds. A replay has neither late trades nor a cache in front of the venue: no grace, no delay."""

    granularity: str
    seconds: int
    grace: float
    rest_delay: float
    warmup_candles: int

    def floor(self, at: float) -> int:
        """Start of the bucket that holds this time, in unix seconds."""
        return int(at // self.seconds) * self.seconds

    def after(self, at: datetime) -> int:
        """Start of the first bucket that begins after this time: at the very moment, more may have happened."""
        return self.floor(at.timestamp()) + self.seconds


class Hole(Struct):
    """Closed buckets being asked for: [start, end) in unix seconds. Trades are read backwards, down from `until`."""

    start: int
    end: int
    until: datetime
    trades: dict[int, Trade] = {}
    retry_at: float | None = None  # monotonic; None while the answer is awaited


class Candles:
    """`published` is the start of the last candle given out; it outlives the process."""

    def __init__(self, product_id: str, timing: Timing) -> None:
        self.product_id = product_id
        self.published: int | None = None
        self.warm = False  # everything that was closed has been given out once
        self.late = 0  # trades that came after their candle
        self.hole: Hole | None = None  # what is asked for at present
        self._timing = timing
        self._buckets: dict[int, Bucket] = {}  # by start, each of trades added by rising id
        self._time = 0.0
        self._next: int | None = None  # the first bucket that is not settled
        self._covered = False
        self._whole_from: int | None = None  # the first bucket that the trade stream covers from its beginning
        self._last_id = 0
        self._held = False

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
                start = self._timing.floor(trade.time.timestamp())
                if self._next is None or start >= self._next:
                    add(self._buckets, start, trade)
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
        self._time = at
        return self._settle()

    def _settle(self) -> list[Message]:
        if not self._covered or self._whole_from is None or self.hole is not None or self._held:
            return []
        closed = self._timing.floor(self._time - self._timing.grace)
        if self._next is None:
            self._next = self._first(closed)
        if self._next < min(closed, self._whole_from):
            return self._ask(self._next, self._whole_from)
        self.warm = True
        if self._next >= closed:
            return []
        pop_before(self._buckets, self._next)
        self._next = closed
        return [self._candle(bucket) for bucket in pop_before(self._buckets, closed)]

    def _first(self, closed: int) -> int:
        first = closed - self._timing.warmup_candles * self._timing.seconds
        return first if self.published is None else max(first, self.published + self._timing.seconds)

    def _candle(self, bucket: Bucket) -> Candle:
        self.published = bucket.start
        return Candle(
            id=f"candle-{self.product_id}-{self._timing.granularity}-{bucket.start}",
            # When it is known to be closed: after an outage long after its end, and nobody may act as if it were not.
            at=moment(max(bucket.start + self._timing.seconds, self._time)),
            product_id=self.product_id,
            granularity=self._timing.granularity,
            start=moment(bucket.start),
            open=bucket.open,
            high=bucket.high,
            low=bucket.low,
            close=bucket.close,
            volume=bucket.volume,
        )

    # -- holes

    def _ask(self, start: int, end: int) -> list[Message]:
        end = min(end, self._timing.floor(self._time - self._timing.rest_delay))
        if end <= start:
            self.warm = True  # the last closed bucket is too fresh to be asked for, the rest is there
            return []
        end = min(end, start + PAGE_CANDLES * self._timing.seconds)
        self.hole = Hole(start, end, moment(end))
        return [self._request(self.hole)]

    def _request(self, hole: Hole) -> FetchCandles | FetchTrades:
        product, start = self.product_id, moment(hole.start)
        if self._timing.seconds < VENUE_SECONDS_MIN:
            label = f"fetch-trades-{product}-{hole.start}-{hole.until.isoformat()}"
            return FetchTrades(id=label, product_id=product, start=start, end=hole.until)
        label, granularity = f"fetch-candles-{product}-{hole.start}-{hole.end}", self._timing.granularity
        return FetchCandles(id=label, product_id=product, granularity=granularity, start=start, end=moment(hole.end))

    def on_answer(self, answer: Fetched) -> list[Message]:
        hole = self.hole
        if hole is None or answer.request != self._request(hole):
            return []
        if isinstance(answer.request, FetchTrades):
            return self._on_trades(answer.trades, hole)
        return self._filled(hole, {b.start: b for b in answer.candles if b.start % self._timing.seconds == 0})

    def _on_trades(self, trades: Iterable[Trade], hole: Hole) -> list[Message]:
        """Read on backwards until an answer brings nothing new: how many trades one answer holds is not told.

        A single second with more trades than one answer holds cannot be read in full.
        """
        new = {trade.trade_id: trade for trade in trades if trade.trade_id not in hole.trades}
        hole.trades |= new
        oldest = min((trade.time for trade in new.values()), default=None)
        if oldest is not None and oldest >= moment(hole.start):
            hole.until = oldest
            return [self._request(hole)]
        buckets: dict[int, Bucket] = {}
        for _, trade in sorted(hole.trades.items()):
            add(buckets, self._timing.floor(trade.time.timestamp()), trade)
        return self._filled(hole, buckets)

    def _filled(self, hole: Hole, found: dict[int, Bucket]) -> list[Message]:
        """Take the venue's word for a hole; what lies outside of it (the open bucket) is dropped."""
        if self._held:
            hole.retry_at = 0.0
            return []
        self.hole = None
        self._next = hole.end
        pop_before(found, hole.start)
        return [*map(self._candle, pop_before(found, hole.end)), *self._settle()]

    def on_pulse(self, monotonic: float, bus_connected: bool) -> list[Message]:
        """Ask again where a request failed. Candles wait while the bus is away: it would drop them."""
        self._held = not bus_connected
        hole = self.hole
        if self._held:
            return []
        if hole is not None and hole.retry_at is not None and monotonic >= hole.retry_at:
            hole.retry_at = None
            return [self._request(hole)]
        return self._settle()


def add(buckets: dict[int, Bucket], start: int, trade: Trade) -> None:
    price = trade.price
    bucket = buckets.get(start)
    if bucket is None:
        buckets[start] = Bucket(start, price, price, price, price, trade.size)
        return
    bucket.high = max(bucket.high, price)
    bucket.low = min(bucket.low, price)
    bucket.close = price
    bucket.volume += trade.size


def pop_before(buckets: dict[int, Bucket], end: int) -> list[Bucket]:
    """Take out every bucket that starts before `end`, oldest first."""
    return [buckets.pop(start) for start in sorted(buckets) if start < end]


def moment(seconds: float) -> datetime:
    """Unix seconds as an aware UTC time."""
    return datetime.fromtimestamp(seconds, UTC)
