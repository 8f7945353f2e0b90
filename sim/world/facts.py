"""What is durable on the bus and true at the venue, folded by code that shares nothing with the services."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from decimal import Decimal

from msgspec import Struct, field

from libs.common import messages as m
from sim import orders as venue

ZERO = Decimal(0)
MARKS_KEPT_SECONDS = 5.0


def currencies(product_id: str) -> tuple[str, str]:
    base, _, quote = product_id.rpartition("-")
    return base, quote


class OrderFacts(Struct):
    """One client order id: what the ledger says of it and what the venue has of it."""

    verdict: m.Verdict | None = None
    edits: list[m.Verdict] = field(default_factory=list)  # approved ones
    events: list[m.OrderEvent] = field(default_factory=list)
    filled: Decimal = ZERO  # by the fills of the ledger
    spent: Decimal = ZERO  # quote currency, fees included, by the same
    venue: dict[str, venue.Order] = field(default_factory=dict)  # the latest by the venue's order id
    sent: int = 0  # requests that left execution
    acted: int = 0  # requests on which the venue acted

    @property
    def status(self) -> m.OrderStatus | None:
        return self.events[-1].status if self.events else None

    @property
    def terminal(self) -> bool:
        return self.status in m.TERMINAL

    @property
    def approved(self) -> m.ApprovedOrder | None:
        return self.verdict.order if self.verdict else None

    @property
    def most(self) -> Decimal:
        """Base currency that was ever approved for it."""
        orders = [verdict.order for verdict in (self.verdict, *self.edits) if verdict is not None]
        return max((order.quantity for order in orders if order is not None), default=ZERO)


class Facts:
    """`changes` are the sums of all fills and adjustments per currency and `held` those per product, as of each ledger
    sequence that moved them."""

    def __init__(self, opening: dict[str, Decimal]) -> None:
        self.opening = opening
        self.orders: dict[str, OrderFacts] = {}
        self.answered: dict[str, m.Verdict] = {}  # by signal id
        self.fills: dict[str, m.Fill] = {}
        self.venue_fills: dict[str, venue.Fill] = {}
        self.last_sequence = 0
        self.trading: list[tuple[float, m.TradingState | None]] = []  # as stored; None: gone or unreadable
        self.marks: dict[str, deque[tuple[float, m.Mark]]] = {}
        self.midnight_prices: dict[str, Decimal] = {}
        self._sequences = [0]
        self._changes: list[dict[str, Decimal]] = [{}]
        self._held: list[dict[str, Decimal]] = [{}]

    def order(self, client_order_id: str) -> OrderFacts:
        return self.orders.setdefault(client_order_id, OrderFacts())

    def changes(self, sequence: int) -> dict[str, Decimal]:
        """Per currency, up to and including that ledger sequence."""
        return self._changes[bisect_right(self._sequences, sequence) - 1]

    def held(self, sequence: int) -> dict[str, Decimal]:
        """Base currency per product that the bot has bought and not sold, up to and including that sequence."""
        return self._held[bisect_right(self._sequences, sequence) - 1]

    @property
    def position(self) -> dict[str, Decimal]:
        return self._held[-1]

    def take(self, sequence: int, message: m.Message) -> None:
        """One message of the ledger."""
        self.last_sequence = sequence
        match message:
            case m.Verdict(order=approved) if approved is not None:
                order = self.order(approved.client_order_id)
                if message.edits:
                    order.edits.append(message)
                else:
                    order.verdict = message
            case m.OrderEvent():
                self.order(message.client_order_id).events.append(message)
            case m.Fill():
                self._fill(sequence, message)
            case m.Adjustment():
                self._move(sequence, dict(message.flows), {})
                if message.size:
                    base, quote = currencies(message.product_id)
                    value = message.size * message.price
                    self._move(sequence, {base: message.size, quote: -value}, {message.product_id: message.size})
        if isinstance(message, m.Verdict):
            self.answered[message.signal_id] = message

    def see(self, now: float, mark: m.Mark) -> None:
        kept = self.marks.setdefault(mark.product_id, deque())
        kept.append((now, mark))
        while kept[0][0] < now - MARKS_KEPT_SECONDS and len(kept) > 1:
            kept.popleft()

    def mids(self, product_id: str) -> list[Decimal]:
        """Of the last seconds, oldest first; empty where none was ever told."""
        return [mark.mid for _, mark in self.marks.get(product_id, ())]

    def trading_since(self, moment: float) -> list[m.TradingState | None]:
        """Every stored state that was in force at some time since then."""
        later = [state for at, state in self.trading if at > moment]
        before = [state for at, state in self.trading if at <= moment]
        return [*before[-1:], *later]

    def open_orders(self) -> list[OrderFacts]:
        """Approved and not at their end."""
        return [order for order in self.orders.values() if order.verdict is not None and not order.terminal]

    def _fill(self, sequence: int, fill: m.Fill) -> None:
        order = self.order(fill.client_order_id)
        order.filled += fill.size
        order.spent += fill.quote_value + fill.fee
        self.fills[fill.id] = fill
        base, quote = currencies(fill.product_id)
        sign = 1 if fill.side is m.Side.BUY else -1
        flows = {base: sign * fill.size, quote: -sign * fill.quote_value - fill.fee}
        self._move(sequence, flows, {fill.product_id: sign * fill.size})

    def _move(self, sequence: int, flows: dict[str, Decimal], sizes: dict[str, Decimal]) -> None:
        self._sequences.append(sequence)
        self._changes.append(_added(self._changes[-1], flows))
        self._held.append(_added(self._held[-1], sizes))


def _added(sums: dict[str, Decimal], more: dict[str, Decimal]) -> dict[str, Decimal]:
    return {**sums, **{name: sums.get(name, ZERO) + amount for name, amount in more.items()}}
