"""What risk keeps over a restart: all that follows from the ledger. Every message may come twice and counts once."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct, field

from libs.common.messages import (
    EPOCH,
    TERMINAL,
    Adjustment,
    ApprovedOrder,
    Baseline,
    Fill,
    OrderEvent,
    OrderStatus,
    Reason,
    Side,
    Verdict,
)
from services.risk.books import ZERO, Books, Worth, currencies, share
from services.risk.config import PERCENT, RiskConfig
from services.risk.guards import Watch
from services.risk.knowledge import Knowledge

MEMORY = timedelta(hours=24)
ANSWERS_MAX = 10_000  # bounds the snapshot; reached only by a strategy that signals every nine seconds, all day
MINUTE = timedelta(minutes=1)
# The venue rounds what it tells in the quote currency; nothing that can be traded is as small.
NO_DRIFT = Decimal("1E-8")


class Answers(Struct):
    """Which signals are answered: each id gets one verdict, for ever.

    Ids are remembered for a day of market time. What is older may have been answered and forgotten, so it is not
    answered at all. `given` is the time of the verdict per signal id, oldest first; `forgotten` the latest that left.
    A request of an operator carries no time that could tell its age: `asked` keeps the reason that each got for ever.
    """

    given: dict[str, datetime] = field(default_factory=dict)
    forgotten: datetime | None = None
    approvals: list[datetime] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # verdicts by reason, since installation
    asked: dict[str, Reason] = field(default_factory=dict)

    def known(self, signal_id: str) -> bool:
        return signal_id in self.given or signal_id in self.asked

    def add(self, verdict: Verdict) -> bool:
        """False when the signal is answered already."""
        if self.known(verdict.signal_id):
            return False
        if verdict.operator and not verdict.flatten:  # the attempts of a closing are numbered: see Closing
            self.asked[verdict.signal_id] = verdict.reason
        self.given[verdict.signal_id] = verdict.at
        self.counts[verdict.reason] = self.counts.get(verdict.reason, 0) + 1
        if verdict.order is not None:
            self.approvals = [*self.recent(verdict.at), verdict.at]
        while len(self.given) > ANSWERS_MAX or verdict.at - next(iter(self.given.values())) > MEMORY:
            gone = self.given.pop(next(iter(self.given)))
            self.forgotten = max(gone, self.forgotten or gone)
        return True

    def recent(self, now: datetime) -> list[datetime]:
        """Approvals of the last minute; the one exactly a minute ago is not among them."""
        return [at for at in self.approvals if at > now - MINUTE]


class OpenOrder(Struct):
    """Approved and not yet at its end. A fill turns its part of the reservation into a position; what is left is
    released by a terminal order event and by nothing else. `reserved` is the verdict's, for the whole quantity.

    While an edit is under way (`edit_id`, from its verdict to the event that ends it) the order may be either version.
    """

    order: ApprovedOrder
    reserved: Decimal
    operator: bool = False  # asked for by an operator, not by the strategy
    booked: Decimal = ZERO  # by fills that we have seen
    spent: Decimal = ZERO  # quote currency, fees included, by the same fills
    revision: int = 0
    status: OrderStatus | None = None
    final: Decimal | None = None  # what the venue says was filled, at the end
    wanted: ApprovedOrder | None = None
    wanted_reserved: Decimal = ZERO
    edit_id: str = ""

    def _left(self, quantity: Decimal) -> Decimal:
        """Base currency that may still come. At the end: fills that the order event tells of and we have not seen."""
        return max(ZERO, (quantity if self.final is None else self.final) - self.booked)

    @property
    def _versions(self) -> list[tuple[Decimal, Decimal]]:
        """Quantity and reservation of what the order is, and of what it may be by now."""
        now = (self.order.quantity, self.reserved)
        return [now] if self.wanted is None else [now, (self.wanted.quantity, self.wanted_reserved)]

    @property
    def outstanding(self) -> Decimal:
        """Base currency that may still come."""
        return max(self._left(quantity) for quantity, _ in self._versions)

    @property
    def quote(self) -> Decimal:
        """Quote currency that is still reserved."""
        if self.order.side is Side.SELL:
            return ZERO
        if self.order.quote_size is not None:
            return max(ZERO, self.reserved - self.spent)
        return max(share(reserved, self._left(quantity), quantity) for quantity, reserved in self._versions)

    def edit(self, edit_id: str, wanted: ApprovedOrder, reserved: Decimal) -> None:
        """An edit is approved. One that is told after the end of the order has nothing to change."""
        if self.final is None:
            self.edit_id, self.wanted, self.wanted_reserved = edit_id, wanted, reserved

    def book(self, fill: Fill) -> None:
        self.booked += fill.size
        self.spent += fill.quote_value + fill.fee

    def step(self, event: OrderEvent) -> None:
        """One step of its life. The end of an edit, or of the order, says in `order` which version it was."""
        self.revision, self.status, self.order = event.revision, event.status, event.order
        self.final = event.filled_qty if event.status in TERMINAL else self.final
        ended = event.edit_id == self.edit_id and event.status is not OrderStatus.PENDING_UPDATE
        if self.wanted is not None and (ended or self.final is not None):
            self.reserved = self.wanted_reserved if event.order == self.wanted else self.reserved
            self.edit_id, self.wanted, self.wanted_reserved = "", None, ZERO


class Closing(Struct):
    """How far `flatten` has come with one product."""

    flatten: str
    attempts: int = 0
    sold: Decimal = ZERO
    at: datetime = EPOCH  # of the last answer or end
    detail: str = ""  # why the last attempt sold nothing, or not all


class Standing(NamedTuple):
    """What all of it comes to at the marks: reckoned once for all who ask about one moment. None where not known."""

    worth: Worth | None
    balances: dict[str, Decimal]  # what we hold per currency
    equity: Decimal | None  # cash in the quote currency and our positions

    @property
    def equity_day_start(self) -> Decimal | None:
        """Equity at 00:00 UTC at the prices of then, with what was paid in or out since."""
        return None if self.worth is None or self.equity is None else self.equity - self.worth.day_result

    def daily_loss_limit(self, config: RiskConfig) -> Decimal | None:
        """Quote currency; None where the percentage cannot be told. With nothing at the start of the day the amount
        alone is the limit."""
        start = self.equity_day_start
        if start is None:
            return None
        share_of_start = start * config.daily_loss_percent_max / PERCENT
        return min(config.daily_loss_limit, share_of_start) if start > 0 else config.daily_loss_limit


class State(Struct, forbid_unknown_fields=True):
    """`orders` are the open ones by client order id; `drift` is venue less books, of the currencies that differ, and
    None until they were compared; `flows` is what operators say was paid in and out, per currency. Another version's
    snapshot is refused: the ledger has everything."""

    books: Books = field(default_factory=Books)
    orders: dict[str, OpenOrder] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    drift: dict[str, Decimal] | None = None
    moved_at: datetime | None = None  # the latest order event or fill, by execution's clock
    ledger_sequence: int = 0
    watch: Watch = field(default_factory=Watch)
    flows: dict[str, Decimal] = field(default_factory=dict)
    adjusted: dict[str, str] = field(default_factory=dict)  # ids of adjustments by request id, for ever
    closings: dict[str, Closing] = field(default_factory=dict)  # by product, of the last flatten
    day_begun: datetime = EPOCH  # midnight of the last baseline
    resumed_at: datetime | None = None

    def answer(self, verdict: Verdict) -> None:
        order = verdict.order
        if not self.answers.add(verdict):
            return
        if verdict.flatten:
            self._attempted(verdict)
        if order is None:
            return
        if not verdict.edits:
            self.orders[order.client_order_id] = OpenOrder(order, verdict.reserved, verdict.operator)
        elif edited := self.orders.get(order.client_order_id):
            edited.edit(verdict.signal_id, order, verdict.reserved)

    def _attempted(self, verdict: Verdict) -> None:
        known = self.closings.get(verdict.product_id)
        if known is None or known.flatten != verdict.flatten:
            known = self.closings[verdict.product_id] = Closing(verdict.flatten)
        known.attempts, known.at = known.attempts + 1, verdict.at
        known.detail = "" if verdict.order else f"{verdict.reason}: {verdict.detail}"

    def move(self, fact: OrderEvent | Fill) -> None:
        order = self.orders.get(fact.client_order_id)
        closing = self.closings.get(fact.product_id) if order is not None and order.order.flatten else None
        if isinstance(fact, Fill):
            if self.books.book(fact) and order is not None:
                order.book(fact)
                if closing is not None:
                    closing.sold += fact.size
        elif order is not None and fact.revision > order.revision:
            order.step(fact)
            self.watch.on_order(fact)
            if closing is not None and fact.status in TERMINAL:
                closing.at, closing.detail = fact.at, f"{fact.status}: {fact.reason}"
        if order is not None and order.final is not None and not order.outstanding:
            del self.orders[fact.client_order_id]
        self.moved_at = max(fact.at, self.moved_at or fact.at)

    def adjust(self, adjustment: Adjustment, quote_currency: str) -> None:
        """Take what an operator says of the account, once. What is paid in is no gain, and paid out no drawdown."""
        if adjustment.request_id in self.adjusted:
            return
        self.adjusted[adjustment.request_id] = adjustment.id
        for currency, flow in adjustment.flows.items():
            self.flows[currency] = self.flows.get(currency, ZERO) + flow
        if adjustment.size:
            self.books.adjust(adjustment)
        if self.watch.peak_equity is not None:
            self.watch.peak_equity += adjustment.flows.get(quote_currency, ZERO)

    def start_day(self, baseline: Baseline) -> None:
        if baseline.midnight <= self.day_begun:
            return
        self.day_begun = baseline.midnight
        self.books.start_day(baseline)
        if baseline.resumed_at != self.resumed_at:
            self.resumed_at = baseline.resumed_at
            self.watch.rebase(baseline.peak_equity, baseline.resumed_at)
        elif baseline.peak_equity is not None:
            self.watch.on_equity(baseline.peak_equity)

    def selling(self, product_id: str) -> Decimal:
        """Base currency that open sells may still take."""
        ours = (o for o in self.orders.values() if o.order.product_id == product_id)
        return sum((o.outstanding for o in ours if o.order.side is Side.SELL), ZERO)

    def reserved(self, product_id: str | None = None) -> Decimal:
        """Quote currency that open buys may still spend: those of one product, or all."""
        return sum((o.quote for o in self.orders.values() if product_id in (None, o.order.product_id)), ZERO)

    def compare(self, known: Knowledge) -> None:
        """Venue less books, where the two can be compared: balances that were read with no order in flight and every
        fill of the resting ones booked, and after everything that the books know, which is everything that execution
        knew. The times of order events, fills and accounts are all execution's."""
        account = known.account
        if account is None or known.opening is None or not account.settled:
            return
        if account.ledger_sequence > self.ledger_sequence:
            return
        if self.moved_at is not None and account.at <= self.moved_at:
            return
        self.drift = {}
        for currency, booked in self.balances(known).items():
            balance = account.balances.get(currency)
            venue = balance.available + balance.hold if balance else ZERO
            if abs(venue - booked) > NO_DRIFT:
                self.drift[currency] = venue - booked

    def balances(self, known: Knowledge) -> dict[str, Decimal]:
        """What we hold per currency: opening balance + fills; empty while the opening balances are not known. What the
        venue did not list at the opening was empty."""
        if known.opening is None:
            return {}
        found = {currency: known.opening.get(currency, ZERO) for currency in known.currencies}

        def add(currency: str, flow: Decimal, opening: dict[str, Decimal] = known.opening) -> None:
            found[currency] = found.get(currency, opening.get(currency, ZERO)) + flow

        for product_id, holding in self.books.holdings.items():
            base, quote = currencies(product_id)
            add(base, holding.quantity)
            add(quote, holding.cash)
        for currency, flow in self.flows.items():
            add(currency, flow)
        return dict(sorted(found.items()))

    def equity(self, known: Knowledge) -> Decimal | None:
        """Cash in the quote currency and our positions at the marks; what was there before us is not ours."""
        return self.standing(known).equity

    def daily_loss_limit(self, config: RiskConfig, known: Knowledge) -> Decimal | None:
        return self.standing(known).daily_loss_limit(config)

    def standing(self, known: Knowledge) -> Standing:
        worth, balances = self.books.worth(known.prices), self.balances(known)
        cash = balances.get(known.quote_currency)
        equity = None if worth is None or cash is None else cash + worth.value
        return Standing(worth, balances, equity)
