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
PRICES_KEPT_SECONDS = 30.0


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
    def versions(self) -> list[tuple[Decimal, Decimal]]:
        """Reservation and quantity of what the order is, and of what it is to become while an edit is under way."""
        if self.verdict is None or self.verdict.order is None:
            return []
        now = (self.verdict.reserved, self.verdict.order.quantity)
        for edit in self.edits:
            assert edit.order is not None, "only approved edits are kept"
            ends = [
                e for e in self.events if e.edit_id == edit.signal_id and e.status is not m.OrderStatus.PENDING_UPDATE
            ]
            wanted = (edit.reserved, edit.order.quantity)
            if not ends:
                return [now, wanted]
            now = wanted if ends[0].order == edit.order else now
        return [now]

    @property
    def left(self) -> Decimal:
        """Quote currency that an open buy may still spend, as it was reserved."""
        if self.approved is None or self.verdict is None:
            return ZERO
        if self.approved.quote_size is not None:
            return max(ZERO, self.verdict.reserved - self.spent)
        return max(reserved * max(ZERO, size - self.filled) / size for reserved, size in self.versions)

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
        self.account_told = False  # balances, since the start or since all last values were lost
        self.prices: dict[str, deque[tuple[float, Decimal]]] = {}  # of the market, since when
        self.midnight_prices: dict[str, Decimal] = {}
        self.adjusted: list[tuple[int, dict[str, Decimal]]] = []  # by ledger sequence
        self.flows = ZERO  # quote currency that operators say was moved by hand
        self._midnight_changes: dict[str, Decimal] = {}
        self._midnight_flows = ZERO
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

    def most_held(self, product_id: str, since: int) -> Decimal:
        """The most of a product that was held at any time after that ledger sequence."""
        first = max(0, bisect_right(self._sequences, since) - 1)
        return max(state.get(product_id, ZERO) for state in self._held[first:])

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
                self.adjusted.append((sequence, dict(message.flows)))
                self.flows += message.flows.get("USD", ZERO)
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

    def forget_told(self) -> None:
        """The last values are gone: what was told before counts no more."""
        self.marks.clear()
        self.account_told = False

    def mids(self, product_id: str) -> list[Decimal]:
        """Of the last seconds, oldest first; empty where none was ever told."""
        return [mark.mid for _, mark in self.marks.get(product_id, ())]

    def trading_since(self, moment: float) -> list[m.TradingState | None]:
        """Every stored state that was in force at some time since then."""
        later = [state for at, state in self.trading if at > moment]
        before = [state for at, state in self.trading if at <= moment]
        return [*before[-1:], *later]

    def trade(self, now: float, product_id: str, price: Decimal) -> None:
        """The market's price from now on."""
        kept = self.prices.setdefault(product_id, deque())
        kept.append((now, price))
        while len(kept) > 1 and kept[1][0] < now - PRICES_KEPT_SECONDS:
            kept.popleft()

    def priced(self, product_id: str, start: float, end: float) -> list[Decimal]:
        """Every price that held at some time from `start` to `end`."""
        kept = self.prices.get(product_id, ())
        before = [price for at, price in kept if at <= start]
        return [*before[-1:], *(price for at, price in kept if start < at <= end)]

    def begin_day(self) -> None:
        """00:00 UTC: what is lost counts from here."""
        self._midnight_changes = dict(self.changes(self.last_sequence))
        self._midnight_flows = self.flows
        self.midnight_prices = {name: mids[-1] for name in self.marks if (mids := self.mids(name))}

    def least_loss(self) -> Decimal | None:
        """The smallest daily loss that any price of the last seconds makes of the ledger; None without a price."""
        now, start = self.changes(self.last_sequence), self._midnight_changes
        flows = self.flows - self._midnight_flows
        result = now.get("USD", ZERO) - start.get("USD", ZERO) - flows
        for product_id in self.position:
            base, _ = currencies(product_id)
            size, size_then, mids = now.get(base, ZERO), start.get(base, ZERO), self.mids(product_id)
            if not mids and (size or size_then):
                return None
            then = self.midnight_prices.get(product_id, ZERO)
            result += (size * max(mids) if mids else ZERO) - size_then * then
        return max(ZERO, -result)

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
