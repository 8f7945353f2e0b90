"""The WebSocket door: subscribe and unsubscribe dialogue, the venue's rules for it, and the end of connections."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import WSMsgType, web
from msgspec import Struct

from sim import frames
from sim.auth import Verifier
from sim.connection import Connection
from sim.hub import Hub
from sim.limits import Buckets
from sim.settings import Settings
from sim.venue import Venue

CHANNELS = frozenset({"level2", "market_trades", "ticker", "ticker_batch", "candles", "status", "heartbeats", "user"})
UNAUTHENTICATED_PER_SECOND = 8  # messages, per address
MESSAGE_BYTES = 1024 * 1024
HANG_CHECK_SECONDS = 0.05  # between two looks whether a client that gets no answer has gone
AUTHENTICATION = "authentication failure"  # answers an unknown channel too


class ClientMessage(Struct):
    """What a client sends. Other fields (an older kind of signature, for one) are ignored."""

    type: str
    channel: str = ""
    product_ids: list[str] = []
    jwt: str = ""


_decode = msgspec.json.Decoder(ClientMessage).decode


class Sockets:
    """Serves WebSocket on any path; market and user channels alike."""

    def __init__(self, venue: Venue, hub: Hub, verifier: Verifier, settings: Settings) -> None:
        self._venue = venue
        self._hub = hub
        self._verifier = verifier
        self._patience = settings.first_subscribe_seconds
        self._limited = settings.rate_limits
        self._messages = Buckets(UNAUTHENTICATED_PER_SECOND)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One connection from upgrade to end."""
        while self._venue.faults.faults.half_open_sockets and request.transport is not None:
            await self._venue.clock.sleep(HANG_CHECK_SECONDS)
        if request.transport is None:
            return web.Response()  # the client gave up
        socket = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES, timeout=1.0)
        await socket.prepare(request)
        connection = Connection(socket, self._venue, request, request.transport)
        self._hub.connections[connection] = None
        writer = asyncio.create_task(connection.write())
        try:
            await self._read(socket, connection)
        finally:
            del self._hub.connections[connection]
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _read(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                message = await socket.receive(timeout=None if connection.greeted else max(left, 0.001))
            except TimeoutError:
                await socket.close()  # no subscription in the first seconds
                return
            if message.type is not WSMsgType.TEXT:
                if message.type is not WSMsgType.BINARY:
                    return  # closed, or broken beyond what the library answers
                connection.put(frames.error_frame("failure to parse message"))
                continue
            self._answer(connection, message.data)

    def _answer(self, connection: Connection, text: str) -> None:
        try:
            message = _decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            connection.put(frames.error_frame("failure to parse message"))
            return
        if self._limited and self._too_many(connection, message):
            connection.put(frames.error_frame("rate limit exceeded"))
        elif message.type not in ("subscribe", "unsubscribe"):
            connection.put(frames.error_frame(f"unknown message type {message.type[:40]}"))
        elif message.channel not in CHANNELS:
            connection.put(frames.error_frame(AUTHENTICATION))
        elif message.type == "unsubscribe":
            self._unsubscribe(connection, message)
        else:
            self._subscribe(connection, message)

    def _too_many(self, connection: Connection, message: ClientMessage) -> bool:
        """Messages without a valid token are limited by address."""
        if message.jwt and self._verifier.accepts(message.jwt, self._venue.wall()):
            return False
        return not self._messages.allows(connection.address, self._venue.clock.monotonic())

    def _subscribe(self, connection: Connection, message: ClientMessage) -> None:
        if self._venue.faults.strikes("error_instead_of_ack"):
            connection.put(frames.error_frame("failure to subscribe"))
            return
        if message.channel == "user" and not self._verifier.accepts(message.jwt, self._venue.wall()):
            connection.put(frames.error_frame(AUTHENTICATION))
            return
        products = self._products(message)
        if products is None:
            connection.put(frames.error_frame("failure to subscribe"))
            return
        if message.channel == "user":
            connection.user = True
        connection.greeted = True
        self._hub.snapshot(connection, message.channel, products)
        had = connection.subscribed.get(message.channel, [])
        connection.subscribed[message.channel] = list(dict.fromkeys((*had, *products)))
        self._acknowledge(connection)

    def _products(self, message: ClientMessage) -> list[str] | None:
        """The products that a subscription names; None when it names unknown ones, or none where it must."""
        listed = self._venue.exchange.products
        match message.channel:
            case "heartbeats":
                return []
            case "user":
                return list(dict.fromkeys(message.product_ids))
            case "status" if not message.product_ids:
                return list(listed)
        known = message.product_ids and all(product_id in listed for product_id in message.product_ids)
        return list(dict.fromkeys(message.product_ids)) if known else None

    def _unsubscribe(self, connection: Connection, message: ClientMessage) -> None:
        """Without product ids the whole channel goes."""
        left = [name for name in connection.subscribed.get(message.channel, []) if name not in message.product_ids]
        if left and message.product_ids:
            connection.subscribed[message.channel] = left
        else:
            connection.subscribed.pop(message.channel, None)
        self._acknowledge(connection)

    def _acknowledge(self, connection: Connection) -> None:
        """All that is subscribed now, not the change."""
        named = {
            channel: {"heartbeats": ["heartbeats"], "user": [self._venue.user_id]}.get(channel, products)
            for channel, products in connection.subscribed.items()
        }
        connection.send("subscriptions", frames.encode([frames.subscriptions_event(named)]), self._venue.market_time())
