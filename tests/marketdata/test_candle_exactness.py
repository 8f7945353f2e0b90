"""However trades are cut into messages, lost, sent again or asked for by REST: the candles are those of all trades."""

from __future__ import annotations

from collections import Counter, deque
from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.messages import Candle, Message
from services.marketdata.facts import FetchCandles, Fetched, FetchFailed, FetchTrades
from services.marketdata.wire import Trade
from tests.marketdata.builders import Bench, at, make_core, only, trade, venue_candle

STEPS = ("deliver", "deliver", "deliver", "beat", "lose", "drop", "connect", "answer", "answer", "refuse", "restart")
Step = tuple[str, int]


class World:
    """A venue with a fixed list of trades, of which the first `happened` are in the past, and one client."""

    def __init__(self, trades: list[Trade], granularity: str, seconds: int, page: int) -> None:
        self.trades = trades
        self.granularity = granularity
        self.seconds = seconds
        self.page = page
        self.happened = 0
        self.delivered = 0
        self.time = 0.0
        self.connected = False
        self.requests: deque[FetchCandles | FetchTrades] = deque()
        self.candles: list[Candle] = []
        self.bench = self.start(b"")

    def start(self, state: bytes) -> Bench:
        core = make_core(granularity=self.granularity, replay=True, warmup=300)
        if state:
            core.restore(state)
        bench = Bench(core)
        bench.recover()
        return bench

    def take(self, outputs: list[Message]) -> None:
        self.candles += only(Candle, outputs)
        self.requests.extend(o for o in outputs if isinstance(o, FetchCandles | FetchTrades))

    def happen(self, count: int) -> None:
        self.happened = min(len(self.trades), self.happened + count)
        if self.happened:
            self.time = max(self.time, (self.trades[self.happened - 1].time - at(0)).total_seconds())

    def deliver(self, count: int) -> None:
        self.happen(count)
        if self.connected and self.delivered < self.happened:
            self.take(self.bench.trades(self.time, *self.trades[self.delivered : self.happened]))
            self.delivered = self.happened

    def beat(self, count: int) -> None:
        """Time passes up to the next trade, at most."""
        next_at = (
            (self.trades[self.happened].time - at(0)).total_seconds()
            if self.happened < len(self.trades)
            else self.time + count
        )
        self.time = min(self.time + count, max(next_at, self.time))
        if self.connected and self.delivered == self.happened:
            self.take(self.bench.heartbeat(self.time))

    def lose(self, count: int) -> None:
        self.connected = False
        self.take(self.bench.lose())
        self.happen(count)

    def drop(self, count: int) -> None:
        """Messages are lost, and the next one shows it."""
        self.happen(count)
        if self.connected:
            self.bench.sequence += 1
            self.happen(1)
            self.take(self.bench.trades(self.time, *self.trades[max(0, self.happened - 1) : self.happened]))
            self.lose(0)

    def connect(self, count: int) -> None:
        """`count` recent trades come with the snapshot; none at all for 0."""
        if not self.connected:
            self.connected = True
            self.delivered = self.happened
            recent = self.trades[max(0, self.happened - count) : self.happened]
            self.take(self.bench.subscribe(self.time, *recent))

    def restart(self, count: int) -> None:
        state = self.bench.core.dump()
        self.connected = False
        self.requests.clear()
        self.bench = self.start(state)
        self.happen(count)

    def refuse(self, count: int) -> None:
        if self.requests:
            request = self.requests.popleft()
            self.take(self.bench.feed(FetchFailed(id="failed", request=request, reason="HTTP 503")))
            self.take(self.bench.pulse(60))

    def answer(self, count: int) -> None:
        if self.requests:
            request = self.requests.popleft()
            reply = self.candles_for(request) if isinstance(request, FetchCandles) else self.trades_for(request)
            self.take(self.bench.feed(reply))

    def candles_for(self, request: FetchCandles) -> Fetched:
        """Newest first, with the open bucket, as far as time has come."""
        known = aggregate(self.trades[: self.happened], self.seconds)
        found = [
            msgspec.structs.replace(
                venue_candle(start), open=row[0], high=row[1], low=row[2], close=row[3], volume=row[4]
            )
            for start, row in sorted(known.items(), reverse=True)
        ]
        return Fetched(id="answer", request=request, candles=tuple(found))

    def trades_for(self, request: FetchTrades) -> Fetched:
        """The newest page up to the end, whole seconds as the venue takes them."""
        known = [t for t in self.trades[: self.happened] if request.start <= t.time <= request.end]
        page = tuple(reversed(known[-self.page :]))
        return Fetched(id="answer", request=request, trades=page)

    def settle(self) -> None:
        """Everything comes to its end: the last bucket is closed, every question answered."""
        self.happen(len(self.trades))
        self.connect(5)
        self.deliver(0)
        self.time += 3 * self.seconds
        self.take(self.bench.heartbeat(self.time))
        while self.requests:
            self.answer(0)
        self.take(self.bench.heartbeat(self.time))


Row = tuple[Decimal, Decimal, Decimal, Decimal, Decimal]


def aggregate(trades: list[Trade], seconds: int) -> dict[float, Row]:
    """Open, high, low, close and volume by bucket, in seconds from noon: the plain definition."""
    by_bucket: dict[float, list[Trade]] = {}
    for one in trades:
        by_bucket.setdefault((one.time - at(0)).total_seconds() // seconds * seconds, []).append(one)
    return {
        start: (
            bucket[0].price,
            max(t.price for t in bucket),
            min(t.price for t in bucket),
            bucket[-1].price,
            sum((t.size for t in bucket), Decimal(0)),
        )
        for start, bucket in by_bucket.items()
    }


@st.composite
def markets(draw: st.DrawFn, seconds: int) -> list[Trade]:
    """Rising ids and times; steps of quarter seconds, so that buckets' edges and equal times are met often."""
    quarter, trade_id, trades = 0, 0, []
    for _ in range(draw(st.integers(1, 40))):
        quarter += draw(st.sampled_from((0, 1, 1, 2, 4, seconds, 4 * seconds)))
        trade_id += draw(st.integers(1, 3))
        price = str(draw(st.integers(90, 110)))
        trades.append(trade(trade_id, quarter / 4, price, draw(st.sampled_from(("0.00000001", "1", "2.5")))))
    return trades


def check(trades: list[Trade], steps: list[Step], granularity: str, seconds: int, page: int) -> None:
    world = World(trades, granularity, seconds, page)
    for name, count in steps:
        getattr(world, name)(count)
    world.settle()
    got = [((c.start - at(0)).total_seconds(), (c.open, c.high, c.low, c.close, c.volume)) for c in world.candles]
    assert got == sorted(aggregate(trades, seconds).items())
    assert all(world.bench.core.lines[c.product_id].candles.late == 0 for c in world.candles)


steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 6)), max_size=40)


@settings(max_examples=100, deadline=None)
@given(markets(60), steps)
def test_minute_candles_equal_the_aggregate_of_all_trades(trades: list[Trade], steps: list[Step]) -> None:
    check(trades, steps, "1m", 60, 0)


@settings(max_examples=100, deadline=None)
@given(markets(2), steps, st.integers(1, 5))
def test_two_second_candles_equal_the_aggregate_of_all_trades(
    trades: list[Trade], steps: list[Step], more: int
) -> None:
    at_once = max(Counter(one.time for one in trades).values())  # a page holds more than one moment brings
    check(trades, steps, "2s", 2, at_once + more)
