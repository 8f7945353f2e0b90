"""What the connection is worth: sequence, acknowledgements, marks and their confirmation. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from libs.common.messages import EPOCH, Feed, FeedState, Mark, Product
from services.marketdata.candles import Candles
from services.marketdata.facts import Trouble
from services.marketdata.wire import CHANNELS, HEARTBEATS, Frame, Heartbeat, Subscriptions, Ticker

# Heartbeats come every second, give or take: each of them confirms, a burst of them does so once.
CONFIRM_SPACING = timedelta(seconds=0.9)


class Link:
    """One connection to the venue. `broken`: given up, or not there; nothing that still arrives on it counts."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.broken = number == 0
        self.sequence: int | None = None
        self._heartbeat: int | None = None
        self._subscribed: dict[str, tuple[str, ...]] = {}

    def is_old(self, frame: Frame) -> bool:
        """Out of order: what it says was overtaken."""
        return self.sequence is not None and frame.sequence <= self.sequence

    def follow(self, frame: Frame) -> tuple[Trouble, str] | None:
        """Count the frame in; gives what is wrong with it. The first frame may bear any number."""
        expected = frame.sequence if self.sequence is None else self.sequence + 1
        if frame.sequence != expected:
            return Trouble.SEQUENCE_GAP, f"expected message {expected}, got {frame.sequence}"
        self.sequence = frame.sequence
        for event in frame.events:
            if isinstance(event, Heartbeat):
                # The counter belongs to the server's process: one that stands still or begins anew is no loss.
                if self._heartbeat is not None and event.counter > self._heartbeat + 1:
                    return Trouble.HEARTBEAT_GAP, f"expected heartbeat {self._heartbeat + 1}, got {event.counter}"
                self._heartbeat = event.counter
            elif isinstance(event, Subscriptions):
                self._subscribed = event.channels
        return None

    def subscribed(self, channel: str, product_id: str) -> bool:
        return channel in self._subscribed and (channel == HEARTBEATS or product_id in self._subscribed[channel])

    def missing(self, products: Iterable[str]) -> list[str]:
        """Channels that the venue has not confirmed for every product."""
        wanted = list(products)
        return [channel for channel in CHANNELS if not all(self.subscribed(channel, product) for product in wanted)]


class Line:
    """One product: its last mark, its feed state, its rules, its candles."""

    def __init__(self, product_id: str, candles: Candles) -> None:
        self.product_id = product_id
        self.candles = candles
        self.mark: Mark | None = None
        self.marks = 0  # published
        self.quoted = False  # this connection gave a price
        self.state = Feed.RECONNECTING
        self.reason = Trouble.START.value
        self.since = EPOCH
        self.rules: Product | None = None
        self.rules_due: float | None = 0.0  # monotonic; None while the answer is awaited
        self._heartbeat_at = EPOCH

    def quote(self, ticker: Ticker, frame: Frame, received_at: datetime) -> Mark | str:
        """The mark of a ticker message, or why it gives none."""
        if not (ticker.bid > 0 and ticker.ask > 0 and ticker.price > 0):
            return "non_positive"
        if ticker.bid > ticker.ask:
            return "crossed"
        before = self.mark
        moved = before is None or (before.bid, before.ask, before.last) != (ticker.bid, ticker.ask, ticker.price)
        self.quoted = True
        self.marks += 1
        self.mark = Mark(
            id=mark_id(self.product_id, frame.timestamp, frame.sequence),
            at=frame.timestamp,
            product_id=self.product_id,
            bid=ticker.bid,
            ask=ticker.ask,
            last=ticker.price,
            mid=(ticker.bid + ticker.ask) / Decimal(2),
            price_time=frame.timestamp if moved or before is None else before.price_time,
            sequence=frame.sequence,
            received_at=received_at,
            bid_size=ticker.bid_size,
            ask_size=ticker.ask_size,
        )
        return self.mark

    def confirm(self, at: datetime, received_at: datetime) -> Mark | None:
        """The last mark once more, known to hold at `at`; None where it says nothing new.

        `received_at` becomes that of the confirming heartbeat, so that a cycle is measured from the message that
        started it; how old the price is, `price_time` tells.
        """
        mark = self.mark
        if mark is None or at <= mark.at or at - self._heartbeat_at < CONFIRM_SPACING:
            return None
        self._heartbeat_at = at
        label = mark_id(self.product_id, at, mark.sequence)
        self.marks += 1
        self.mark = msgspec.structs.replace(mark, id=label, at=at, received_at=received_at)
        return self.mark

    def age(self, now: datetime) -> timedelta:
        """Market time since the last confirmation; endless before the first."""
        return timedelta.max if self.mark is None else now - self.mark.at

    def turn(self, state: Feed, reason: str, now: datetime) -> list[FeedState]:
        """Enter a state; gives the message if that is news."""
        if (state, reason) == (self.state, self.reason):
            return []
        if state is not self.state:
            self.since = now
        self.state, self.reason = state, reason
        return [self.feed_state(now)]

    def feed_state(self, now: datetime) -> FeedState:
        label, product = f"feed-{self.product_id}-{self.state}-{now.isoformat()}", self.product_id
        return FeedState(id=label, at=now, product_id=product, state=self.state, reason=self.reason, since=self.since)

    def lacks(self) -> str:
        """What it still needs to serve anybody; empty when nothing."""
        wants = [] if self.state is Feed.LIVE else [f"feed {self.state} ({self.reason})"]
        if self.rules is None:
            wants.append("product rules unknown")
        if not self.candles.warm:
            wants.append("warm-up unfinished")
        return f"{self.product_id}: {', '.join(wants)}" if wants else ""


def mark_id(product_id: str, at: datetime, sequence: int) -> str:
    """Derived from product and confirmation time; the sequence parts two messages of the same microsecond."""
    return f"mark-{product_id}-{at.isoformat()}-{sequence}"
