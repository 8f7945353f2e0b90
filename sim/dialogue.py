"""What a WebSocket client may say, and what it hears: subscribe and unsubscribe, with the venue's rules for them."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from sim import frames
from sim.connection import Connection
from sim.desk import Verifies
from sim.hub import Hub
from sim.limits import Buckets
from sim.venue import Venue

CHANNELS = frozenset({"level2", "market_trades", "ticker", "ticker_batch", "candles", "status", "heartbeats", "user"})
UNAUTHENTICATED_PER_SECOND = 8  # messages, per address
AUTHENTICATION = "authentication failure"  # answers an unknown channel too


class ClientMessage(Struct):
    """What a client sends. Other fields (an older kind of signature, for one) are ignored."""

    type: str
    channel: str = ""
    product_ids: list[str] = []
    jwt: str = ""


_decode = msgspec.json.Decoder(ClientMessage).decode


class Dialogue:
    """Serves market and user channels alike, whatever the connection's path."""

    def __init__(self, venue: Venue, hub: Hub, verifier: Verifies, rate_limits: bool) -> None:
        self._venue = venue
        self._hub = hub
        self._verifier = verifier
        self._limited = rate_limits
        self._messages = Buckets(UNAUTHENTICATED_PER_SECOND)

    def not_understood(self, connection: Connection) -> None:
        connection.put(frames.error_frame("failure to parse message"))

    def hear(self, connection: Connection, text: str) -> None:
        """One message of the client."""
        try:
            message = _decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self.not_understood(connection)
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
