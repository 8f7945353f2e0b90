"""Paper trading: the prices of a public Coinbase feed, the fills of our own matching core.

While the feed is lost, the venue does not look alive: no heartbeat, no price, no new order, and market sockets are
refused; orders rest untouched until there are new prices. The past (candles, trades over REST) is the feed's own.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from sim.errors import ApiError, html_unavailable
from sim.feed import CHANNELS, HEARTBEATS, Beat, Fact, FeedBroken, Link, Past, Unreadable, products_of
from sim.hub import Hub
from sim.rest import CANCEL, PREFIX
from sim.settings import Settings
from sim.ticks import Tick
from sim.venue import Venue

log = logging.getLogger("sim.paper")
FRAME_BYTES_MAX = 32 * 1024 * 1024
OPEN_SECONDS = 10.0
CLOSE_SECONDS = 1.0
REST_SECONDS = 10.0
READY_SECONDS = 5.0  # for the acknowledgements and first prices of a connection
PRODUCT_SECONDS = 60.0  # flags and increments change while the venue runs
STEADY_SECONDS = 5.0  # a connection that lasted so long starts the pauses anew
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.25, 30.0
MARKET_PATHS = ("/market/", "/products", "/product_book", "/best_bid_ask")


class Paper:
    """Moves the market of a venue as the feed's market moves."""

    def __init__(self, settings: Settings, venue: Venue, hub: Hub) -> None:
        self._settings = settings
        self._venue = venue
        self._hub = hub
        self._product_ids = settings.products
        self._last_trade: dict[str, int] = {}
        self._rules_known = False
        self._http = httpx.AsyncClient(
            base_url=settings.feed_rest_url.rstrip("/") + PREFIX,
            timeout=REST_SECONDS,
            headers={"cache-control": "no-cache"},  # public answers are cached for about a second otherwise
            trust_env=not is_local(settings.feed_rest_url),
        )
        venue.trouble = "the feed is not connected yet"

    async def run(self) -> None:
        """Follow the feed for ever; whatever ends a connection, there is a next one."""
        pauses, loop = _pauses(), asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self._follow()
            except FeedBroken as error:
                self._lose(str(error))
            if loop.time() - began > STEADY_SECONDS:
                pauses = _pauses()
            await asyncio.sleep(next(pauses))

    async def keep_products(self) -> None:
        """Renew the products' rules and trading flags, for ever."""
        while True:
            await asyncio.sleep(PRODUCT_SECONDS)
            try:
                await self._list_products()
            except FeedBroken as error:
                log.warning("products were not renewed: %s", error)

    async def close(self) -> None:
        await self._http.aclose()

    # -- what the venue's doors ask

    def refuses(self, method: str, path: str) -> bool:
        """Whether a REST path cannot be served now. Accounts, orders as they stand and cancels always can."""
        path = path.removeprefix(PREFIX)
        trades = method == "POST" and path.startswith("/orders") and path != CANCEL
        return bool(self._venue.trouble) and (trades or path.startswith(MARKET_PATHS))

    async def past(self, path: str, query: str) -> bytes:
        """The feed's own answer about candles or trades. Raises ApiError."""
        public = path.removeprefix(PREFIX).removeprefix("/market")
        try:
            answer = await self._http.get(f"/market{public}?{query}")
        except httpx.HTTPError:
            raise html_unavailable() from None
        if answer.status_code != 200:
            raise ApiError(answer.status_code, answer.content, answer.headers.get("content-type", "").split(";")[0])
        return answer.content

    # -- the feed

    async def _follow(self) -> None:
        """One connection, until it is over. Raises FeedBroken."""
        if not self._rules_known:
            await self._list_products()
        async with self._connected() as socket:
            try:
                await self._listen(socket)
            except FeedBroken as error:
                self._lose(str(error))  # before the farewell, which may take its time
                raise

    async def _listen(self, socket: ClientConnection) -> None:
        link, loop = Link(self._product_ids), asyncio.get_running_loop()
        ready_by = loop.time() + READY_SECONDS
        while True:
            self._take(link, await self._next(socket))
            if not self._venue.trouble:
                continue
            if not (lacks := link.lacks()):
                self._gain(link)
            elif loop.time() > ready_by:
                raise FeedBroken(f"the feed does not give {lacks}")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[ClientConnection]:
        address = self._settings.feed_ws_url
        try:
            async with connect(
                address,
                max_size=FRAME_BYTES_MAX,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                ping_interval=None,  # the heartbeats channel tells more
                proxy=None if is_local(address) else True,
            ) as socket:
                for channel in CHANNELS:
                    named = {} if channel == HEARTBEATS else {"product_ids": self._product_ids}
                    await socket.send(msgspec.json.encode({"type": "subscribe", "channel": channel, **named}).decode())
                yield socket
        except (OSError, WebSocketException) as error:
            raise FeedBroken(f"{address}: {type(error).__name__}: {error}") from None

    async def _next(self, socket: ClientConnection) -> bytes | str:
        try:
            async with asyncio.timeout(self._settings.feed_silent_seconds):
                return await socket.recv(decode=False)
        except ConnectionClosed as error:
            raise FeedBroken(f"the feed hung up: {error}") from None
        except TimeoutError:
            socket.transport.abort()  # a silent peer would not answer a farewell either
            raise FeedBroken(f"the feed says nothing for {self._settings.feed_silent_seconds:g} s") from None

    async def _list_products(self) -> None:
        try:
            answer = await self._http.get("/market/products", params={"product_ids": list(self._product_ids)})
        except httpx.HTTPError as error:
            raise FeedBroken(f"{self._settings.feed_rest_url}: {type(error).__name__}: {error}") from None
        if answer.status_code != 200:
            raise FeedBroken(f"{self._settings.feed_rest_url}: HTTP {answer.status_code}")
        if self._venue.list_products(products_of(answer.content, self._product_ids)):
            self._hub.products_changed()
        self._rules_known = True

    # -- what it means for the venue

    def _take(self, link: Link, data: bytes | str) -> None:
        try:
            facts = link.read(data)
        except Unreadable as error:
            log.warning("unreadable message of the feed: %s", error)
            return
        for fact in facts:
            self._happen(fact)

    def _happen(self, fact: Fact) -> None:
        venue = self._venue
        match fact:
            case Beat():
                if not venue.trouble:
                    self._hub.every_second()
            case Past(tick):
                if self._is_new(tick):
                    venue.remember(tick)
            case Tick() as tick:
                if not tick.is_trade or self._is_new(tick):
                    (venue.remember if venue.trouble else venue.deliver)(tick)

    def _is_new(self, tick: Tick) -> bool:
        """Each trade counts once: a new connection begins with trades that the old one told."""
        new = tick.trade_id > self._last_trade.get(tick.product_id, -1)
        if new:
            self._last_trade[tick.product_id] = tick.trade_id
        return new

    def _gain(self, link: Link) -> None:
        """Prices again: the venue opens at them."""
        log.info("the feed is there, with %s", ", ".join(self._product_ids))
        self._venue.reopen(link.quotes.values())

    def _lose(self, why: str) -> None:
        """Those who listen to the market are cut off, as the feed has cut us off; the account's user keeps hearing."""
        if why != self._venue.trouble:
            log.warning("the feed is lost: %s", why)
        self._venue.trouble = why
        for connection in list(self._hub.connections):
            if not connection.user:
                connection.hang_up()


def _pauses() -> Iterator[float]:
    """Seconds before the next try: doubling up to a bound, each between half and the whole of it."""
    bound = PAUSE_SECONDS_MIN
    while True:
        yield bound * (0.5 + random.random() / 2)
        bound = min(2 * bound, PAUSE_SECONDS_MAX)


def is_local(url: str) -> bool:
    """On this machine, which no proxy of the environment can reach."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
