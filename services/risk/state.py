"""What risk keeps over a restart: all that follows from the ledger. Every message may come twice and counts once."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct, field

from libs.common.messages import Fill, OrderEvent, Verdict
from services.risk.answers import Answers
from services.risk.books import ZERO, Books
from services.risk.knowledge import Knowledge
from services.risk.reservations import Reservations


class State(Struct):
    """`drift` is venue less books, of the currencies that differ; None until they were compared."""

    books: Books = field(default_factory=Books)
    reservations: Reservations = field(default_factory=Reservations)
    answers: Answers = field(default_factory=Answers)
    drift: dict[str, Decimal] | None = None
    moved_at: datetime | None = None  # the latest order event or fill, by execution's clock
    ledger_sequence: int = 0

    def verdict(self, verdict: Verdict) -> None:
        order = verdict.order
        if self.answers.add(verdict.signal_id, verdict.reason, verdict.at, order is not None) and order:
            self.reservations.approve(order, verdict.reserved)

    def move(self, fact: OrderEvent | Fill) -> bool:
        """False when it cannot be true. It then releases and books nothing, and the difference shows as drift."""
        if not (_sound_event(fact) if isinstance(fact, OrderEvent) else _sound_fill(fact)):
            return False
        if isinstance(fact, OrderEvent):
            self.reservations.step(fact)
        elif self.books.book(fact):
            self.reservations.fill(fact)
        self.moved_at = max(fact.at, self.moved_at or fact.at)
        return True

    def compare(self, known: Knowledge) -> None:
        """Venue less books, where the two can be compared: balances that were read with no order in flight, and after
        everything that the books know. The times of order events, fills and accounts are all execution's."""
        account = known.account
        if account is None or known.opening is None or not account.settled or self.reservations.orders:
            return
        if self.moved_at is not None and account.at <= self.moved_at:
            return
        drift = {}
        for currency, booked in self.books.balances(known.opening, known.currencies).items():
            balance = account.balances.get(currency)
            venue = balance.available + balance.hold if balance else ZERO
            if venue != booked:
                drift[currency] = venue - booked
        self.drift = drift

    def equity(self, known: Knowledge) -> Decimal | None:
        return None if known.opening is None else self.books.equity(known.quote_currency, known.opening, known.prices)

    def balances(self, known: Knowledge) -> dict[str, Decimal]:
        """What we hold per currency; empty while the opening balances are not known."""
        return {} if known.opening is None else self.books.balances(known.opening, known.currencies)


def _sound_event(event: OrderEvent) -> bool:
    return event.filled_qty.is_finite() and event.filled_qty >= 0


def _sound_fill(fill: Fill) -> bool:
    numbers = (fill.price, fill.size, fill.fee)
    return all(number.is_finite() for number in numbers) and fill.price > 0 and fill.size > 0
