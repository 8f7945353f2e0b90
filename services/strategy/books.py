"""What is kept per product, and how the ledger changes it. Everything here survives a restart."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import Struct, field

from libs.common.messages import (
    TERMINAL,
    Fill,
    OrderEvent,
    Reason,
    Side,
    Signal,
    TimeInForce,
    Verdict,
    client_order_id,
)

ZERO = Decimal(0)
ANSWERS_KEPT = 32  # per product; only those that have come to their end are forgotten
UNTOLD_KEPT = 4
FILLS_KEPT = 100  # ids per product: the ledger counts each once, this guards against being told twice
# Refusals of an exit that mean: what is left is not for sale.
RESIDUE = (Reason.DUST, Reason.NOTHING_TO_REDUCE)


class Answer(Struct):
    """What the ledger says of one signal. `at` is when it was approved, and in the end when it came to its end."""

    at: datetime
    side: Side | None = None  # of the approved order, None for a denial
    ended: bool = False
    told: Decimal = ZERO  # filled, by the order's last event
    filled: Decimal = ZERO  # filled, by the fills seen

    @property
    def over(self) -> bool:
        """Nothing more can come of it: denied, or the order is terminal and its fills have all been seen."""
        return self.ended and self.filled >= self.told


class Wanted(Struct):
    """A signal that was given and is not settled. An exit stays wanted, attempt by attempt, until its position is
    gone; `retry_at` is the earliest market time of its next attempt."""

    signal: Signal
    opened_by: str
    retry_at: datetime | None = None

    @property
    def key(self) -> str:
        return client_order_id(self.signal.id)


class Told(Struct, frozen=True):
    """A signal that no Decision has shown yet."""

    action: str
    reason: str
    signal_id: str


class Book(Struct):
    """One product: position, trailing stop, and what is under way. Quantities in the base currency."""

    quantity: Decimal = ZERO
    average: Decimal | None = None  # entry price in quote currency, without fees
    opened_at: datetime | None = None  # trade time of the fill that opened the position
    opened_by: str = ""  # and its id
    peak: Decimal | None = None  # highest price since the entry
    residue: str = ""  # why what is left cannot be sold: it then counts as flat
    verdicts: int = 0  # since the position was opened: no exit of it has had more attempts
    wanted: Wanted | None = None
    last_decided_start: datetime | None = None  # of the newest candle that needs no more decision
    answers: dict[str, Answer] = field(default_factory=dict)  # by client order id, oldest first
    fills: list[str] = field(default_factory=list)
    untold: list[Told] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return self.quantity > 0 and not self.residue

    @property
    def in_flight(self) -> bool:
        """A signal waits for its verdict, or an order for its end."""
        unanswered = self.wanted is not None and self.wanted.key not in self.answers
        return unanswered or any(not answer.over for answer in self.answers.values())

    @property
    def free(self) -> bool:
        """Nothing is under way: a new signal may be given."""
        return self.wanted is None and not self.in_flight

    @property
    def held_since(self) -> datetime | None:
        """Start of the position, or of the entry under way."""
        if self.held:
            return self.opened_at
        if self.wanted is not None and self.wanted.signal.side is Side.BUY:
            return self.wanted.signal.at
        return next((a.at for a in self.answers.values() if a.side is Side.BUY and not a.over), None)

    def raise_peak(self, price: Decimal, since: datetime) -> None:
        """Take a price seen at `since` or later. One that may be older than the entry says nothing about its peak."""
        if self.peak is not None and self.opened_at is not None and since >= self.opened_at:
            self.peak = max(self.peak, price)

    def apply(self, message: Verdict | OrderEvent | Fill, retry_after: timedelta) -> bool:
        """Take a message of the ledger, once however often it comes. True when it opened a position."""
        if isinstance(message, Fill):
            opened, key, reason = self._on_fill(message), message.client_order_id, ""
        elif isinstance(message, Verdict):
            opened, key, reason = False, client_order_id(message.signal_id), self._on_verdict(message)
        else:
            opened, key, reason = False, message.client_order_id, self._on_order(message)
        if self.wanted is not None:
            self._settle(self.wanted, reason if key == self.wanted.key else "", retry_after)
        return opened

    def adopt_answer(self, retry_after: timedelta) -> None:
        """The wanted signal was answered before it was known here (again): an exit goes on after that answer."""
        if self.wanted is not None:
            self._settle(self.wanted, "", retry_after)

    def tell(self, told: Told) -> None:
        """Let the next Decision show this signal. Where no marks come, only the newest are kept."""
        self.untold = [*self.untold[-UNTOLD_KEPT + 1 :], told]

    def _on_fill(self, fill: Fill) -> bool:
        if fill.id in self.fills:
            return False
        self.fills = [*self.fills[-FILLS_KEPT + 1 :], fill.id]
        if answer := self.answers.get(fill.client_order_id):
            answer.filled += fill.size
        opened = fill.side is Side.BUY and not self.held
        self.residue = ""
        if opened:
            self.opened_at, self.opened_by, self.peak, self.verdicts = fill.trade_time, fill.id, ZERO, 0
        if fill.side is Side.BUY:
            cost = (self.average or ZERO) * self.quantity + fill.price * fill.size
            self.quantity += fill.size
            self.average = cost / self.quantity
            self.peak = max(self.peak or ZERO, self.average)
        elif fill.size < self.quantity:
            self.quantity -= fill.size
        else:
            # Also where more was sold than bought: the rest came out of the opening balance, not ours to trade.
            self.quantity, self.average, self.opened_at, self.opened_by, self.peak = ZERO, None, None, "", None
        return opened

    def _on_verdict(self, verdict: Verdict) -> str:
        """The reason of a denial."""
        key, order = client_order_id(verdict.signal_id), verdict.order
        if key in self.answers:
            return ""
        self.verdicts += 1
        if order is not None and order.time_in_force is not TimeInForce.IOC:
            return ""  # an operator's order that may rest for days: nothing waits for it
        self._forget()
        self.answers[key] = Answer(verdict.at, order.side if order else None, ended=order is None)
        return "" if order else verdict.reason

    def _on_order(self, event: OrderEvent) -> str:
        """The reason of an order's end."""
        answer = self.answers.get(event.client_order_id)
        if event.status not in TERMINAL or (answer and answer.ended):
            return ""
        if answer:
            answer.at, answer.ended, answer.told = event.at, True, event.filled_qty
        if event.order.side is Side.SELL and self.residue == Reason.NOTHING_TO_REDUCE:
            self.residue = ""  # what that order had reserved is for sale again
        return event.reason

    def _settle(self, wanted: Wanted, reason: str, retry_after: timedelta) -> None:
        """An entry gets one attempt. An exit is over with its position, or with what risk will not sell."""
        answer = self.answers.get(wanted.key)
        if answer is None or not answer.over:
            return
        if wanted.signal.side is Side.BUY or self.opened_by != wanted.opened_by:
            self.wanted = None
        elif reason in RESIDUE:
            self.residue, self.wanted = reason, None
        else:
            wanted.retry_at = wanted.retry_at or answer.at + retry_after

    def _forget(self) -> None:
        while len(self.answers) >= ANSWERS_KEPT:
            kept = self.wanted.key if self.wanted is not None else ""
            oldest = next((key for key, answer in self.answers.items() if answer.over and key != kept), None)
            if oldest is None:
                return
            del self.answers[oldest]


class State(Struct):
    """All products that the ledger ever named, also those no longer traded."""

    books: dict[str, Book] = field(default_factory=dict)

    def book(self, product_id: str) -> Book:
        return self.books.setdefault(product_id, Book())
