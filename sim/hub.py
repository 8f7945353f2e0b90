"""What goes to which connection: market and user events as frames, each encoded once for all that want it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from sim import frames
from sim.connection import Connection
from sim.events import BookChanged, Event, OrderChanged, Ticked
from sim.history import Bar
from sim.orders import Order
from sim.ticks import Tick
from sim.venue import Venue
from sim.wire import Json

CANDLE_SECONDS = 300
SNAPSHOT_TRADES = 100
SNAPSHOT_CANDLES = 100
BATCH_SECONDS = 5


def _later(seconds: float, work: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, work)


class Hub:
    """All connections of one venue."""

    def __init__(self, venue: Venue) -> None:
        self.connections: dict[Connection, None] = {}
        self.later: Callable[[float, Callable[[], None]], None] = _later
        self._venue = venue
        self._shown: dict[str, frames.Sides] = {}  # the book that level2 subscribers have
        self._held_back: Order | None = None  # an order's state that is told after the next one
        self._candles_sent: dict[str, tuple[int, Any]] = {}
        self._started = venue.clock.monotonic()
        self._seconds = 0

    def publish(self, events: Sequence[Event]) -> None:
        """Tell everyone; a tick's trade goes before its ticker, since clients build candles before they look at it."""
        for event in events:
            match event:
                case Ticked(tick):
                    self._trade(tick)
                    self._book(tick.product_id)
                    self._ticker(tick.product_id)
                case BookChanged(product_id):
                    self._book(product_id)
                    self._ticker(product_id)
                case OrderChanged(order):
                    self._order(order)

    def send(self, channel: str, product_id: str, events: Sequence[Json], named: str = "") -> None:
        """Send events to the subscribers of a channel; frames may be named otherwise than their channel."""
        wanting = self._wanting(channel, product_id)
        if wanting:
            encoded, at = frames.encode(events), self._venue.market_time()
            for connection in wanting:
                connection.send(named or channel, encoded, at)

    def snapshot(self, connection: Connection, channel: str, product_ids: Sequence[str]) -> None:
        """What a new subscriber gets before its acknowledgement; heartbeats have none."""
        venue, at = self._venue, self._venue.market_time()
        if channel == "user":
            for page in self._user_pages(product_ids):
                connection.send("user", frames.encode([page]), at)
        elif channel == "status":
            products = [venue.exchange.products[name] for name in product_ids]
            connection.send("status", frames.encode([frames.status_event("snapshot", products)]), at)
        elif channel != "heartbeats":
            events = [self._snapshot_event(channel, product_id) for product_id in product_ids]
            connection.send("l2_data" if channel == "level2" else channel, frames.encode(events), at)

    async def flushed(self) -> None:
        """Wait until every client's frames have been handed to its socket (slow clients excepted)."""
        for connection in list(self.connections):
            await connection.flushed()

    def every_second(self) -> None:
        """Once a second of wall time: heartbeats, candles, now and then ticker_batch."""
        self._seconds += 1
        uptime = self._venue.clock.monotonic() - self._started
        self.send("heartbeats", "", [frames.heartbeat_event(self._venue.market_time(), uptime, self._seconds)])
        for product_id in self._venue.exchange.products:
            self._candle(product_id)
            if self._seconds % BATCH_SECONDS == 0:
                self.send("ticker_batch", product_id, [self._ticker_event("update", product_id, batch=True)])
        self._close_idle()
        if self._venue.faults.faults.extra_fields:
            for connection in self.connections:
                connection.send("x_unannounced", b'[{"type":"update"}]', self._venue.market_time())

    def _close_idle(self) -> None:
        """The venue closes sockets that got nothing for long, so that clients subscribe to heartbeats too."""
        patience = self._venue.faults.faults.idle_close_seconds
        at = self._venue.clock.monotonic()
        for connection in list(self.connections):
            if patience and at - connection.last_frame_at >= patience:
                connection.hang_up()

    def products_changed(self) -> None:
        """Trading flags moved."""
        for product_id, product in self._venue.exchange.products.items():
            self.send("status", product_id, [frames.status_event("update", [product])])

    def stop_reading(self) -> None:
        """Leave every connection as it is after its client has vanished from the network, or we have."""
        for connection in self.connections:
            connection.stop_reading()

    def hang_up(self) -> None:
        """Cut every connection, as a dropped network would."""
        for connection in list(self.connections):
            connection.hang_up()

    def _wanting(self, channel: str, product_id: str) -> list[Connection]:
        found = []
        for connection in self.connections:
            products = connection.subscribed.get(channel)
            if products is not None and (not product_id or product_id in products):
                found.append(connection)
        return found

    def _trade(self, tick: Tick) -> None:
        if tick.is_trade and self._wanting("market_trades", tick.product_id):
            self.send("market_trades", tick.product_id, [frames.trades_event("update", [tick])])

    def _ticker(self, product_id: str) -> None:
        if self._wanting("ticker", product_id):
            self.send("ticker", product_id, [self._ticker_event("update", product_id)])

    def _ticker_event(self, kind: str, product_id: str, batch: bool = False) -> Json:
        day = self._venue.histories[product_id].day()
        return frames.ticker_event(kind, product_id, day, self._venue.exchange.book(product_id), batch)

    def _book(self, product_id: str) -> None:
        if not self._wanting("level2", product_id):
            self._shown.pop(product_id, None)  # the next subscriber starts from a snapshot
            return
        book = self._venue.exchange.book(product_id)
        before, after = self._shown.get(product_id), frames.sides(book)
        self._shown[product_id] = after
        if before is None or book is None:
            return
        if update := frames.book_update(product_id, before, after, book.at):
            self.send("level2", product_id, [update], named="l2_data")

    def _candle(self, product_id: str) -> None:
        """The running 5-minute candle; in a replay, whose time may stand still, only when it has changed."""
        bars = self._bars(product_id, 1)
        if bars and self._wanting("candles", product_id):
            state = (bars[0].start, bars[0].volume)
            if self._venue.live or self._candles_sent.get(product_id) != state:
                self._candles_sent[product_id] = state
                self.send("candles", product_id, [frames.candles_event("update", product_id, bars)])

    def _bars(self, product_id: str, count: int) -> list[Bar]:
        return self._venue.histories[product_id].candles(CANDLE_SECONDS, None, None, count)

    def _snapshot_event(self, channel: str, product_id: str) -> Json:
        venue = self._venue
        match channel:
            case "level2":
                book = venue.exchange.book(product_id)
                self._shown[product_id] = frames.sides(book)
                far = venue.faults.faults.big_level2_snapshot
                return frames.book_snapshot(venue.exchange.products[product_id], book, far)
            case "market_trades":
                return frames.trades_event("snapshot", venue.histories[product_id].trades(SNAPSHOT_TRADES))
            case "ticker" | "ticker_batch":
                return self._ticker_event("snapshot", product_id, channel == "ticker_batch")
            case "candles":
                return frames.candles_event("snapshot", product_id, self._bars(product_id, SNAPSHOT_CANDLES))
        raise AssertionError(f"channel {channel} has no snapshot")

    def _order(self, order: Order) -> None:
        """Tell an order's new state: as it comes, or late, twice, after the next one, or not at all."""
        box = self._venue.faults
        if not self._users_of(order) or box.strikes("user_drop"):
            return
        if self._held_back is None and box.strikes("user_reorder"):
            self._held_back = order
            return
        states = [order, order] if box.strikes("user_duplicate") else [order]
        if self._held_back is not None:
            states.append(self._held_back)
            self._held_back = None
        for state in states:
            if delay := box.faults.user_delay_seconds:
                self.later(delay, partial(self._tell_order, state))
            else:
                self._tell_order(state)

    def _users_of(self, order: Order) -> list[Connection]:
        found = []
        for connection in self.connections:
            products = connection.subscribed.get("user")
            if products is not None and (not products or order.product_id in products):
                found.append(connection)
        return found

    def _tell_order(self, order: Order) -> None:
        event = frames.encode([frames.user_event("update", [self._user_order(order)])])
        for connection in self._users_of(order):
            connection.send("user", event, self._venue.market_time())

    def _user_order(self, order: Order) -> Json:
        faults = self._venue.faults.faults
        return frames.user_order(
            order, self._venue.portfolio_id, faults.zero_leaves_on_cancel, faults.reject_reason_key
        )

    def _user_pages(self, product_ids: Sequence[str]) -> Iterable[Json]:
        """Open orders by fifties. A page with fewer is the last one, so a full one is followed by another."""
        orders = [
            self._user_order(order)
            for order in self._venue.exchange.open_orders()
            if not product_ids or order.product_id in product_ids
        ]
        for start in range(0, len(orders) + 1, frames.USER_PAGE):
            yield frames.user_event("snapshot", orders[start : start + frames.USER_PAGE])
