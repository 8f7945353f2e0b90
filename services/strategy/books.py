"""What is kept per product, and how the ledger changes it. Everything here survives a restart."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct, field

from libs.common import messages as m

ZERO = Decimal(0)
ANSWERS_KEPT = 32  # per product; only those that have come to their end are forgotten
UNTOLD_KEPT = 4
FILLS_KEPT = 100  # ids per product: the ledger counts each once, this guards against being told twice
# Refusals of an exit that mean: what is left is not for sale.
RESIDUE = (m.Reason.DUST, m.Reason.NOTHING_TO_REDUCE)
# Refusals of an exit that end with the trading state they were made under.
BY_STATE = (m.Reason.TRADING_HALTED, m.Reason.TRADING_STATE_UNKNOWN, m.Reason.TRADING_STATE_CHANGED)

LedgerMessage = m.Verdict | m.OrderEvent | m.Fill | m.Adjustment


class Answer(Struct):
    """What the ledger says of one signal. `at` is when it was approved, and in the end when it came to its end."""

    at: datetime
    side: m.Side | None = None  # of the approved order, None for a denial
    ended: bool = False
    told: Decimal = ZERO  # filled, by the order's last event
    filled: Decimal = ZERO  # filled, by the fills seen
    by_state: bool = False  # the trading state refused it

    @property
    def over(self) -> bool:
        """Nothing more can come of it: denied, or the order is terminal and its fills have all been seen."""
        return self.ended and self.filled >= self.told


class Book(Struct):
    """One product: position, trailing stop, and what is under way. Quantities in the base currency."""

    quantity: Decimal = ZERO
    opened_at: datetime | None = None  # time of the fill or adjustment that opened the position, None without one
    opened_by: str = ""  # and its id
    average: Decimal = ZERO  # entry price in quote currency, without fees
    peak: Decimal = ZERO  # highest price since the entry
    residue: str = ""  # why what is left cannot be sold: it then counts as flat
    verdicts: int = 0  # since the position was opened: no exit of it has had more attempts
    wanted: m.Signal | None = None  # given and not settled; an exit stays until its position is gone
    leaving: str = ""  # `opened_by` of the position that a wanted exit leaves
    given_under: int = 0  # revision of the trading state that was known when the wanted signal was given
    last_decided_start: datetime = m.EPOCH  # of the newest candle that needs no more decision
    answers: dict[str, Answer] = field(default_factory=dict)  # by client order id, oldest first
    fills: list[str] = field(default_factory=list)  # and adjustments, by id
    untold: list[m.Signal] = field(default_factory=list)  # that no Decision has shown yet

    @property
    def held(self) -> bool:
        return self.quantity > 0 and not self.residue

    @property
    def answer(self) -> Answer | None:
        """What the ledger says of the wanted signal."""
        return self.answers.get(m.client_order_id(self.wanted.id)) if self.wanted else None

    @property
    def in_flight(self) -> bool:
        """A signal waits for its verdict, or an order for its end."""
        unanswered = self.wanted is not None and self.answer is None
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
        if self.wanted is not None and self.wanted.side is m.Side.BUY:
            return self.wanted.at
        return next((a.at for a in self.answers.values() if a.side is m.Side.BUY and not a.over), None)

    def raise_peak(self, price: Decimal, since: datetime) -> None:
        """Take a price seen at `since` or later. One that may be older than the entry says nothing about its peak."""
        if self.opened_at is not None and since >= self.opened_at:
            self.peak = max(self.peak, price)

    def give(self, signal: m.Signal, trading_revision: int) -> m.Signal:
        """Want it, and let the next Decision show it. Where no marks come, only the newest wait to be shown."""
        self.wanted, self.leaving, self.given_under = signal, self.opened_by, trading_revision
        self.untold = [*self.untold[-UNTOLD_KEPT + 1 :], signal]
        return signal

    def apply(self, message: LedgerMessage) -> None:
        """Take a message of the ledger, once however often it comes."""
        match message:
            case m.Fill():
                self._on_fill(message)
                self.settle()
            case m.Adjustment():
                # Holdings that were handed over, or traded by hand: a position like any other from now on.
                self._trade(message.id, message.size, message.price, message.at)
                self.settle()
            case m.Verdict():
                self.settle(self._on_verdict(message))
            case m.OrderEvent():
                self.settle(self._on_order(message))

    def settle(self, reason: str = "") -> None:
        """An entry gets one attempt. An exit is over with its position, or with what risk will not sell: `reason` is
        why the wanted signal has just been refused."""
        if self.wanted is None or self.answer is None or not self.answer.over:
            return
        if self.wanted.side is m.Side.BUY or self.opened_by != self.leaving:
            self.wanted = None
        elif reason in RESIDUE:
            self.residue, self.wanted = reason, None

    def _on_fill(self, fill: m.Fill) -> None:
        size = fill.size if fill.side is m.Side.BUY else -fill.size
        answer = self.answers.get(fill.client_order_id)
        if self._trade(fill.id, size, fill.price, fill.trade_time) and answer:
            answer.filled += fill.size

    def _trade(self, key: str, size: Decimal, price: Decimal, at: datetime) -> bool:
        """Change the position; `size` is negative where it was sold. False when `key` was told before."""
        if key in self.fills:
            return False
        self.fills = [*self.fills[-FILLS_KEPT + 1 :], key]
        if size > 0:
            if not self.held:
                self.opened_at, self.opened_by, self.peak, self.verdicts = at, key, ZERO, 0
            cost = self.average * self.quantity + price * size
            self.quantity += size
            self.average = cost / self.quantity
            self.peak = max(self.peak, self.average)
        elif -size < self.quantity:
            self.quantity += size
        else:
            # Also where more was sold than bought: the rest came out of the opening balance, not ours to trade.
            self.quantity, self.opened_at, self.opened_by = ZERO, None, ""
        self.residue = ""
        return True

    def _on_verdict(self, verdict: m.Verdict) -> str:
        """The reason, where the wanted signal is denied."""
        key, order = m.client_order_id(verdict.signal_id), verdict.order
        if key in self.answers:
            return ""
        self.verdicts += 1
        if order is not None and order.time_in_force is not m.TimeInForce.IOC:
            return ""  # an operator's order that may rest for days: nothing waits for it
        over = [known for known, answer in self.answers.items() if answer.over and answer is not self.answer]
        for known in over[: max(len(self.answers) - ANSWERS_KEPT + 1, 0)]:
            del self.answers[known]
        by_state = order is None and verdict.reason in BY_STATE
        side = order.side if order else None
        answer = self.answers[key] = Answer(verdict.at, side, ended=order is None, by_state=by_state)
        return verdict.reason if answer.ended and answer is self.answer else ""

    def _on_order(self, event: m.OrderEvent) -> str:
        """The reason, where the order of the wanted signal has ended."""
        answer = self.answers.get(event.client_order_id)
        if event.status not in m.TERMINAL or (answer and answer.ended):
            return ""
        if answer:
            answer.at, answer.ended, answer.told = event.at, True, event.filled_qty
            answer.by_state = event.reason in BY_STATE
        if event.order.side is m.Side.SELL and self.residue == m.Reason.NOTHING_TO_REDUCE:
            self.residue = ""  # what that order had reserved is for sale again
        return event.reason if answer is self.answer else ""


class State(Struct, forbid_unknown_fields=True):
    """All products that the ledger ever named, also those no longer traded. Another version's snapshot is refused."""

    books: dict[str, Book] = field(default_factory=dict)

    def book(self, product_id: str) -> Book:
        return self.books.setdefault(product_id, Book())
