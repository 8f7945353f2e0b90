"""A bus in memory, and a small venue on real sockets that does exactly what a test scripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import msgspec
from aiohttp import web
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from libs.common import messages as m
from libs.common.bus import Delivery, Entry
from libs.common.clock import AsyncioTasks, SystemClock
from libs.common.errors import Rejected, Retryable
from libs.common.settings import Market
from libs.common.subjects import INSTALLATION_KEY, STATE_BUCKET
from services.marketdata.app import App
from services.marketdata.config import Config
from services.marketdata.facts import Fetch, Fetched
from services.marketdata.metrics import MarketDataMetrics
from services.marketdata.venue import BASE_PATH, CoinbaseMarket, MarketConnection
from tests.marketdata.builders import BTC, T0

RULES = {
    "product_id": BTC,
    "base_currency_id": "BTC",
    "quote_currency_id": "USD",
    "base_increment": "0.00000001",
    "quote_increment": "0.01",
    "base_min_size": "0.00000001",
    "base_max_size": "3400",
    "quote_min_size": "1",
    "quote_max_size": "150000000",
    "status": "online",
}


class EmptyLedger:
    position = 0

    async def catch_up(self) -> list[Delivery]:
        return []

    async def read(self) -> list[Delivery]:
        return []

    async def acknowledge(self, sequence: int) -> None:
        return None

    async def append(self, message: m.Message, over: str = "") -> int:
        raise AssertionError("marketdata has no business with the ledger")


class MemoryBus:
    """Keeps what was published and what was stored."""

    def __init__(self) -> None:
        self.connected = True
        self.published: list[m.Message] = []
        self.stored = {(STATE_BUCKET, INSTALLATION_KEY): msgspec.json.encode(m.Installation(id="test"))}

    async def publish(self, message: m.Message) -> None:
        self.published.append(message)

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None:
        raise AssertionError("marketdata reads nothing from the bus")

    async def watch_trading(self, handler: Callable[[Entry | None], None]) -> None:
        raise AssertionError("marketdata does not care for the trading state")

    async def last(self, kind: type[m.Message]) -> list[m.Message]:
        return []

    async def since(self, kind: type[m.Message], moment: datetime | None) -> list[m.Message]:
        return []

    async def candles(self, product_id: str, granularity: str) -> list[m.Message]:
        return []

    def ledger(self, position: int) -> EmptyLedger:
        return EmptyLedger()

    async def load(self, bucket: str, key: str) -> Entry | None:
        value = self.stored.get((bucket, key))
        return None if value is None else Entry(value, 1)

    async def store(self, bucket: str, key: str, value: bytes, revision: int | None) -> int:
        self.stored[bucket, key] = value
        return 1

    async def serve(self, command: str, handler: Callable[[m.Command], Awaitable[m.Reply]]) -> None:
        return None

    async def hold_lease(self, key: str) -> int:
        raise AssertionError("marketdata holds no lease")

    @property
    def holds_lease(self) -> bool:
        raise AssertionError("marketdata holds no lease")


class Talk:
    """The venue's side of one connection: numbers what it sends."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.subscribed: list[dict[str, object]] = []
        self._sequence = 0
        self._beat = 50

    async def send(self, channel: str, *events: object) -> None:
        body = {
            "channel": channel,
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "sequence_num": self._sequence,
            "events": events,
        }
        self._sequence += 1
        await self.socket.send(json.dumps(body))

    async def quote(self, price: str = "100") -> None:
        line = {"type": "ticker", "product_id": BTC, "price": price, "best_bid": price, "best_ask": price}
        await self.send("ticker", {"type": "update", "tickers": [line]})

    async def beat(self) -> None:
        self._beat += 1
        await self.send("heartbeats", {"current_time": "now", "heartbeat_counter": self._beat})

    async def welcome(self) -> None:
        """Read the subscriptions and answer them as the venue does."""
        for _ in range(3):
            self.subscribed.append(json.loads(await self.socket.recv()))
        await self.quote()
        channels = {"heartbeats": ["heartbeats"], "ticker": [BTC], "market_trades": [BTC]}
        await self.send("subscriptions", {"subscriptions": channels})

    async def beat_on(self) -> None:
        """Stay alive until the other side leaves."""
        while True:
            await self.beat()
            await asyncio.sleep(0.02)


Script = Callable[[Talk], Awaitable[None]]
Answer = Callable[[web.Request], web.Response]


class Venue:
    """Connection n plays script n, the last script again and again; REST answers come from `answers` by path end."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.talks: list[Talk] = []
        self.requests: list[web.Request] = []
        self.answers: dict[str, Answer] = {
            BTC: lambda _: web.json_response(RULES),
            "candles": lambda _: web.json_response({"candles": []}),
            "ticker": lambda _: web.json_response({"trades": []}),
        }
        self.ws_url = ""
        self.rest_url = ""

    async def talk(self, socket: ServerConnection) -> None:
        talk = Talk(socket)
        self.talks.append(talk)
        with suppress(ConnectionClosed):
            await self.scripts[min(len(self.talks), len(self.scripts)) - 1](talk)

    async def rest(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return self.answers[request.path.rsplit("/", 1)[1]](request)


@asynccontextmanager
async def open_venue(*scripts: Script) -> AsyncIterator[Venue]:
    venue = Venue(*scripts)
    application = web.Application()
    application.router.add_get(f"{BASE_PATH}/{{tail:.*}}", venue.rest)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Server
    async with serve(venue.talk, "127.0.0.1", 0, max_size=None, ping_interval=None, close_timeout=0.1) as server:
        venue.ws_url = f"ws://127.0.0.1:{port_of(server.sockets[0])}/ws"
        venue.rest_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield venue
        finally:
            await runner.cleanup()


def port_of(listener: object) -> int:
    assert hasattr(listener, "getsockname")
    return int(listener.getsockname()[1])


class Service:
    """The running service, with everything it was handed."""

    def __init__(self, app: App, bus: MemoryBus, metrics: MarketDataMetrics) -> None:
        self.app = app
        self.bus = bus
        self.metrics = metrics
        self.failures: list[BaseException] = []

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"perps_marketdata_{name}", labels) or 0.0

    def feed(self) -> m.Feed:
        return self.app.core.lines[BTC].state

    async def until(self, condition: Callable[[], object], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                assert not self.failures, self.failures
                await asyncio.sleep(0.005)


@asynccontextmanager
async def run_service(venue: Venue, granularity: str = "1m", **settings: float) -> AsyncIterator[Service]:
    """The service over real sockets, until the block ends. Its waits are short and without chance."""
    config = msgspec.convert(
        {"reconnect_seconds_min": 0.01, "reconnect_seconds_max": 0.05, "warmup_candles": 0} | settings, Config
    )
    market = Market(products=(BTC,), granularity=granularity)
    bus, metrics, clock = MemoryBus(), MarketDataMetrics(), SystemClock()
    client = CoinbaseMarket(venue.rest_url, venue.ws_url, market.products)
    failures: list[BaseException] = []
    tasks = AsyncioTasks(failures.append)
    app = App(
        "test",
        market,
        config,
        bus=bus,
        clock=clock,
        tasks=tasks,
        venue=client,
        jitter=lambda: 0.0,
        metrics=metrics,
    )
    service = Service(app, bus, metrics)
    service.failures = failures
    tasks.spawn(app.shell.run(), "shell")
    try:
        yield service
    finally:
        await tasks.close()
        await app.shell.close()
        await client.close()
    assert not failures


# -- without sockets


class HandClock:
    """Set by hand; market time is wall time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wall(self) -> datetime:
        return T0 + timedelta(seconds=self.seconds)

    def market(self) -> datetime:
        return self.wall()

    def monotonic(self) -> float:
        return self.seconds

    def observe(self, market_time: datetime) -> None:
        return None


class RecordingTasks(AsyncioTasks):
    """Sleeps take no time; they are noted under the name of the task that slept."""

    def __init__(self) -> None:
        super().__init__(lambda error: None)
        self.waits: dict[str, list[float]] = {}

    async def sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.waits.setdefault(task.get_name(), []).append(seconds)
        await asyncio.sleep(0)


class ShortLivedVenue:
    """Connection n lives so many seconds; None means that it does not come about. Then nothing happens any more."""

    def __init__(self, clock: HandClock, lifetimes: list[float | None]) -> None:
        self.used_up = asyncio.Event()
        self._clock = clock
        self._lifetimes = lifetimes

    async def connect(self) -> MarketConnection:
        if not self._lifetimes:
            self.used_up.set()
            await asyncio.Event().wait()
        lifetime = self._lifetimes.pop(0)
        if lifetime is None:
            raise Retryable("refused")
        return ShortLivedConnection(self._clock, lifetime)

    async def fetch(self, request: Fetch) -> Fetched:
        raise Rejected("not_here")


class ShortLivedConnection:
    def __init__(self, clock: HandClock, lifetime: float) -> None:
        self._clock = clock
        self._lifetime = lifetime

    async def read(self) -> bytes | str:
        self._clock.seconds += self._lifetime
        raise Retryable("closed")

    def abort(self) -> None:
        return None

    async def close(self) -> None:
        return None
