"""Coinbase Advanced Trade: the public market WebSocket and the public REST paths. No keys are used here.

Every failure leaves as Retryable (transport, 429, 5xx) or Rejected (any other 4xx, an answer that cannot be read).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from libs.common.errors import Rejected, Retryable
from libs.common.messages import Product
from services.marketdata.answers import VenueCandle, parse_candles, parse_product, parse_trades
from services.marketdata.candles import PAGE_CANDLES
from services.marketdata.frames import CHANNELS, HEARTBEATS, Trade

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
        ...

    def abort(self) -> None:
        """End it at once, without a farewell that a silent peer would not answer. `read` raises then."""
        ...

    async def close(self) -> None:
        """End it politely. Does not raise."""
        ...


class MarketVenue(Protocol):
    """What marketdata needs of a venue. Every method raises Retryable or Rejected."""

    async def connect(self) -> MarketConnection: ...
    async def product(self, product_id: str) -> Product: ...

    async def candles(
        self, product_id: str, granularity: str, start: datetime, end: datetime
    ) -> tuple[VenueCandle, ...]:
        """At least the buckets with `start <= bucket < end` that had trades, in any order."""
        ...

    async def trades(self, product_id: str, start: datetime, end: datetime) -> tuple[Trade, ...]:
        """The newest trades of `start <= time <= end` that one answer holds, in any order."""
        ...


class Socket:
    """A MarketConnection over `websockets`."""

    def __init__(self, connection: ClientConnection) -> None:
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
    """The MarketVenue of Coinbase, real or simulated. Opens nothing before it is used."""

    def __init__(self, rest_url: str, ws_url: str, products: tuple[str, ...]) -> None:
        self._ws_url = ws_url
        self._products = products
        self._http = httpx.AsyncClient(
            base_url=rest_url.rstrip("/") + BASE_PATH,
            timeout=httpx.Timeout(REST_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=REST_CONNECTIONS),
            # Public answers are cached for about a second otherwise.
            headers={"cache-control": "no-cache"},
            trust_env=not is_local(rest_url),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def connect(self) -> MarketConnection:
        try:
            connection = await connect(
                self._ws_url,
                max_size=FRAME_BYTES_MAX,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                ping_interval=None,  # the heartbeats channel tells more, and sooner
                compression=None,  # small frames: inflating costs more than it saves
                proxy=None if is_local(self._ws_url) else True,
            )
        except (OSError, WebSocketException) as error:
            raise Retryable(f"{type(error).__name__}: {error}") from None
        socket = Socket(connection)
        try:
            await socket.subscribe(self._products)
        except ConnectionClosed as error:
            raise Retryable(str(error)) from None
        return socket

    async def product(self, product_id: str) -> Product:
        product = parse_product(await self._get(f"/market/products/{product_id}", {}))
        if product.product_id != product_id:
            raise Rejected("wrong_product", f"asked for {product_id}, got {product.product_id}")
        return product

    async def candles(
        self, product_id: str, granularity: str, start: datetime, end: datetime
    ) -> tuple[VenueCandle, ...]:
        query = {
            "start": str(int(start.timestamp())),
            # A second before the end: the same buckets, whether the venue counts the end in or not.
            "end": str(int(end.timestamp()) - 1),
            "granularity": NAMES[granularity],
            "limit": str(PAGE_CANDLES),
        }
        return parse_candles(await self._get(f"/market/products/{product_id}/candles", query))

    async def trades(self, product_id: str, start: datetime, end: datetime) -> tuple[Trade, ...]:
        query = {
            "limit": str(TRADES_MAX),
            "start": str(math.floor(start.timestamp())),
            "end": str(math.ceil(end.timestamp())),
        }
        return parse_trades(await self._get(f"/market/products/{product_id}/ticker", query))

    async def _get(self, path: str, query: dict[str, str]) -> bytes:
        try:
            answer = await self._http.get(path, params=query)
        except httpx.HTTPError as error:
            raise Retryable(f"{type(error).__name__}: {error}") from None
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Retryable(f"HTTP {answer.status_code}")
        if answer.status_code != 200:
            raise Rejected(f"http_{answer.status_code}", answer.text[:200])
        return answer.content


def is_local(url: str) -> bool:
    """The simulated venue on this machine, which no proxy of the environment can reach."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
