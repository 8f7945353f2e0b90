"""Frames, answers, and a bench that feeds a core the way its shell does."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

from libs.common import messages as m
from libs.common.settings import GRANULARITY_SECONDS
from services.marketdata.config import Config
from services.marketdata.core import MarketDataCore
from services.marketdata.facts import (
    Connected,
    Disconnected,
    FetchCandles,
    Fetched,
    FetchProduct,
    FetchTrades,
    FrameReceived,
    Pulse,
    Trouble,
)
from services.marketdata.wire import (
    CHANNELS,
    HEARTBEATS,
    MARKET_TRADES,
    SUBSCRIPTIONS,
    TICKER,
    Bucket,
    Event,
    Frame,
    Heartbeat,
    Subscriptions,
    Ticker,
    Tickers,
    Trade,
    Trades,
)

BTC, ETH = "BTC-USD", "ETH-USD"
T0 = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
M = TypeVar("M", bound=m.Message)


def at(seconds: float) -> datetime:
    """Market time, counted from noon."""
    return T0 + timedelta(seconds=seconds)


def only(kind: type[M], outputs: Iterable[m.Message]) -> list[M]:
    return [output for output in outputs if isinstance(output, kind)]


def trade(trade_id: int, seconds: float, price: str = "100", size: str = "1", product: str = BTC) -> Trade:
    return Trade(trade_id, product, Decimal(price), Decimal(size), at(seconds))


def ticker(
    bid: str = "99", ask: str = "101", last: str = "100", product: str = BTC, sizes: tuple[str, str] = ("2", "3")
) -> Ticker:
    return Ticker(product, Decimal(last), Decimal(bid), Decimal(ask), *map(Decimal, sizes))


def rules(product: str = BTC) -> m.Product:
    return m.Product(
        id="rules",
        product_id=product,
        base_currency=product.split("-")[0],
        quote_currency="USD",
        base_increment=Decimal("0.00000001"),
        quote_increment=Decimal("0.01"),
        price_increment=Decimal("0.01"),
        base_min_size=Decimal("0.00000001"),
        base_max_size=Decimal(3400),
        quote_min_size=Decimal(1),
        quote_max_size=Decimal(150000000),
    )


def venue_candle(seconds: float, close: str = "100", volume: str = "1") -> Bucket:
    price = Decimal(close)
    return Bucket(int(at(seconds).timestamp()), price, price, price, price, Decimal(volume))


def make_core(
    products: tuple[str, ...] = (BTC,), granularity: str = "1m", replay: bool = False, warmup: int = 0
) -> MarketDataCore:
    config = Config(warmup_candles=warmup)
    return MarketDataCore(products, granularity, GRANULARITY_SECONDS[granularity], config, replay)


class Bench:
    """Numbers frames and keeps both clocks. Market time equals the time of the last frame unless `now` is set."""

    def __init__(self, core: MarketDataCore, products: tuple[str, ...] = (BTC,)) -> None:
        self.core = core
        self.products = products
        self.now = T0
        self.monotonic = 1000.0
        self.connection = 0
        self.sequence = 0
        self.beat = 100

    def feed(self, message: m.Message) -> list[m.Message]:
        return self.core.on_message(message, self.now)

    def recover(self) -> list[m.Message]:
        return self.feed(m.Recovered(id="recovered", at=self.now))

    def connect(self) -> list[m.Message]:
        self.connection += 1
        self.sequence = 0
        return self.feed(Connected(id="connected", at=self.now, connection=self.connection))

    def lose(self, connection: int | None = None, trouble: Trouble = Trouble.CONNECTION_LOST) -> list[m.Message]:
        number = self.connection if connection is None else connection
        return self.feed(Disconnected(id="lost", connection=number, trouble=trouble, detail="closed"))

    def frame(self, seconds: float, channel: str, *events: Event, sequence: int | None = None) -> list[m.Message]:
        number = self.sequence if sequence is None else sequence
        self.sequence = number + 1
        return self.raw(Frame(channel, at(seconds), number, events))

    def raw(self, frame: Frame, connection: int | None = None) -> list[m.Message]:
        self.now = max(self.now, frame.timestamp)
        return self.feed(
            FrameReceived(
                id="frame",
                at=frame.timestamp,
                connection=self.connection if connection is None else connection,
                frame=frame,
                received_at=frame.timestamp + timedelta(milliseconds=20),
            )
        )

    def error(self, text: str) -> list[m.Message]:
        return self.raw(Frame("error", m.EPOCH, -1, error=text))

    def quote(self, seconds: float, *tickers: Ticker) -> list[m.Message]:
        return self.frame(seconds, TICKER, Tickers(tickers or tuple(ticker(product=p) for p in self.products)))

    def trades(self, seconds: float, *trades: Trade, snapshot: bool = False) -> list[m.Message]:
        newest_first = tuple(sorted(trades, key=lambda trade: -trade.trade_id))
        return self.frame(seconds, MARKET_TRADES, Trades(snapshot, newest_first))

    def heartbeat(self, seconds: float, counter: int | None = None) -> list[m.Message]:
        self.beat = self.beat + 1 if counter is None else counter
        return self.frame(seconds, HEARTBEATS, Heartbeat(self.beat))

    def ack(self, seconds: float, *channels: str) -> list[m.Message]:
        subscribed = {name: ("heartbeats",) if name == HEARTBEATS else self.products for name in channels or CHANNELS}
        return self.frame(seconds, SUBSCRIPTIONS, Subscriptions(subscribed))

    def subscribe(self, seconds: float, *recent: Trade) -> list[m.Message]:
        """A whole new connection: snapshots and acknowledgements."""
        out = [*self.connect(), *self.quote(seconds)]
        if recent:
            out += self.trades(seconds, *recent, snapshot=True)
        return out + self.ack(seconds)

    def pulse(
        self, passed: float = 0.25, silent: float = 0.0, connected: float = 0.0, bus: bool = True
    ) -> list[m.Message]:
        self.monotonic += passed
        return self.feed(
            Pulse(
                id="pulse",
                at=self.now,
                monotonic=self.monotonic,
                connection=self.connection,
                connected_seconds=connected,
                silent_seconds=silent,
                bus_connected=bus,
            )
        )

    def tick(self, seconds: float) -> list[m.Message]:
        self.now = at(seconds)
        return self.feed(m.Tick(id="tick", at=self.now))

    def give_rules(self) -> list[m.Message]:
        requests = [FetchProduct(id="fetch", product_id=product) for product in self.products]
        fetched = [Fetched(id="rules", request=request, product=rules(request.product_id)) for request in requests]
        return [message for answer in fetched for message in self.feed(answer)]

    def answer_candles(self, request: m.Message, *candles: Bucket) -> list[m.Message]:
        assert isinstance(request, FetchCandles)
        newest_first = tuple(sorted(candles, key=lambda candle: -candle.start))
        return self.feed(Fetched(id="answer", request=request, candles=newest_first))

    def answer_trades(self, request: m.Message, *trades: Trade) -> list[m.Message]:
        assert isinstance(request, FetchTrades)
        newest_first = tuple(sorted(trades, key=lambda trade: -trade.trade_id))
        return self.feed(Fetched(id="answer", request=request, trades=newest_first))


def live_bench(products: tuple[str, ...] = (BTC,), granularity: str = "1m", replay: bool = False) -> Bench:
    """Recovered, rules known, connected at noon with a trade snapshot that reaches back to the minute before."""
    bench = Bench(make_core(products, granularity, replay), products)
    bench.recover()
    bench.pulse()
    bench.give_rules()
    bench.subscribe(0, *(trade(1, -70, product=product) for product in products))
    return bench
