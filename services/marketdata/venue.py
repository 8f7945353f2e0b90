"""Coinbase Advanced Trade: the public market WebSocket and the public REST paths. No keys are used here.

Every failure leaves as Retryable (transport, 429, 5xx) or Rejected (any other 4xx, an answer that cannot be read).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from libs.common.errors import Rejected, Retryable
from services.marketdata.candles import PAGE_CANDLES
from services.marketdata.facts import Fetch, FetchCandles, Fetched, FetchProduct, FetchTrades
from services.marketdata.wire import CHANNELS, HEARTBEATS, parse_candles, parse_product, parse_trades

BASE_PATH = "/api/v3/brokerage"
FRAME_BYTES_MAX = 64 * 1024 * 1024  # snapshots come as one message of several MB
OPEN_SECONDS = 10.0
CLOSE_SECONDS = 1.0
REST_SECONDS = 10.0
# The public paths allow 10 requests a second; two at a time stay near that without a clock.
REST_CONNECTIONS = 2
TRADES_MAX = 1000
NAMES = {
    "1m": "ONE_MINUTE",
    "5m": "FIVE_MINUTE",
    "15m": "FIFTEEN_MINUTE",
    "30m": "THIRTY_MINUTE",
    "1h": "ONE_HOUR",
    "2h": "TWO_HOUR",
    "6h": "SIX_HOUR",
    "1d": "ONE_DAY",
}


class MarketConnection(Protocol):
    """One open connection on which every channel has been asked for."""

    async def read(self) -> bytes | str:
        """The next message. Raises Retryable once the connection is over."""

    def abort(self) -> None:
        """End it at once, without a farewell that a silent peer would not answer. `read` raises then."""

    async def close(self) -> None:
        """End it politely. Does not raise."""


class MarketVenue(Protocol):
    """What marketdata needs of a venue. Both methods raise Retryable or Rejected."""

    async def connect(self) -> MarketConnection: ...
    async def fetch(self, request: Fetch) -> Fetched: ...


class Answer(Protocol):
    """What is read of an `httpx.Response`."""

    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    @property
    def text(self) -> str: ...


class Http(Protocol):
    """What is used of an `httpx.AsyncClient`, bound to the venue's address; the simulation hands in its own."""

    async def get(self, url: str, *, params: Mapping[str, str]) -> Answer: ...
    async def aclose(self) -> None: ...


class Transport(Protocol):
    def abort(self) -> None: ...


class Wire(Protocol):
    """What is used of a connection of `websockets`."""

    @property
    def transport(self) -> Transport: ...
    async def send(self, message: str) -> None: ...
    async def recv(self, *, decode: Literal[False]) -> bytes: ...
    async def close(self) -> None: ...


Dial = Callable[..., Awaitable[Wire]]  # as `websockets.connect`


class Socket:
    """A MarketConnection over `websockets`."""

    def __init__(self, connection: Wire) -> None:
        self._connection = connection

    async def subscribe(self, products: Iterable[str]) -> None:
        """One message per channel, at once: the venue hangs up on a client that is silent for 5 s."""
        for channel in CHANNELS:
            body: dict[str, object] = {"type": "subscribe", "channel": channel}
            if channel != HEARTBEATS:
                body["product_ids"] = list(products)
            await self._connection.send(msgspec.json.encode(body).decode())

    async def read(self) -> bytes | str:
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as error:
            raise Retryable(str(error)) from None

    def abort(self) -> None:
        self._connection.transport.abort()

    async def close(self) -> None:
        await self._connection.close()


class CoinbaseMarket:
    """The MarketVenue of Coinbase, real or simulated. Opens nothing before it is used. `http` (None: real sockets) and
    `dial` are what the simulation has in place of sockets."""

    def __init__(
        self,
        rest_url: str,
        ws_url: str,
        products: tuple[str, ...],
        *,
        http: Http | None = None,
        dial: Dial = connect,
    ) -> None:
        self._ws_url = ws_url
        self._products = products
        self._http: Http = http or public_client(rest_url)
        self._dial = dial

    async def close(self) -> None:
        await self._http.aclose()

    async def connect(self) -> MarketConnection:
        try:
            connection = await self._dial(
                self._ws_url,
                max_size=FRAME_BYTES_MAX,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                ping_interval=None,  # the heartbeats channel tells more, and sooner
                compression=None,  # small frames: inflating costs more than it saves
                proxy=None if is_local(self._ws_url) else True,
            )
            socket = Socket(connection)
            await socket.subscribe(self._products)
        except (OSError, WebSocketException) as error:
            raise Retryable(f"{type(error).__name__}: {error}") from None
        return socket

    async def fetch(self, request: Fetch) -> Fetched:
        label, path = f"answer-{request.id}", f"/market/products/{request.product_id}"
        match request:
            case FetchCandles():
                start, end = int(request.start.timestamp()), int(request.end.timestamp())
                query = {
                    "start": str(start),
                    # A second before the end: the same buckets, whether the venue counts the end in or not.
                    "end": str(end - 1),
                    "granularity": NAMES[request.granularity],
                    "limit": str(PAGE_CANDLES),
                }
                candles = parse_candles(await self._get(f"{path}/candles", query))
                return Fetched(id=label, request=request, candles=candles)
            case FetchTrades():
                start, end = math.floor(request.start.timestamp()), math.ceil(request.end.timestamp())
                query = {"limit": str(TRADES_MAX), "start": str(start), "end": str(end)}
                trades = parse_trades(await self._get(f"{path}/ticker", query))
                return Fetched(id=label, request=request, trades=trades)
            case FetchProduct():
                product = parse_product(await self._get(path, {}))
                if product.product_id != request.product_id:
                    raise Rejected("wrong_product", f"asked for {request.product_id}, got {product.product_id}")
                return Fetched(id=label, request=request, product=product)

    async def _get(self, path: str, query: dict[str, str]) -> bytes:
        try:
            answer = await self._http.get(BASE_PATH + path, params=query)
        except httpx.HTTPError as error:
            raise Retryable(f"{type(error).__name__}: {error}") from None
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Retryable(f"HTTP {answer.status_code}")
        if answer.status_code != 200:
            raise Rejected(f"http_{answer.status_code}", answer.text[:200])
        return answer.content


def public_client(rest_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=rest_url.rstrip("/"),
        timeout=httpx.Timeout(REST_SECONDS, pool=None),
        limits=httpx.Limits(max_connections=REST_CONNECTIONS),
        # Public answers are cached for about a second otherwise.
        headers={"cache-control": "no-cache"},
        trust_env=not is_local(rest_url),
    )


def is_local(url: str) -> bool:
    """The simulated venue on this machine, which no proxy of the environment can reach."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
