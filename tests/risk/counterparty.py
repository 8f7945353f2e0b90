"""What risk deals with, and a bystander who counts along: orders at a venue, books by hand, the stored state.

It counts what is held and promised by itself, from what was told, so that it can judge risk's word. It only does what
can happen: nothing is filled beyond its order.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import msgspec

from libs.common import messages as m
from libs.common.messages import OrderStatus, OrderType, Side, TimeInForce
from services.risk.core import RiskCore
from tests.risk.bookkeeping import Fact
from tests.risk.builders import PRODUCTS, SECOND, D, Desk, account, fill, installation, mark, tick, trading

ZERO = Decimal(0)
LOT = D("0.001")
STORED_MAX = 10  # changes of the state in a row
BASES = {product_id: product_id.removesuffix("-USD") for product_id in PRODUCTS}
Version = tuple[m.ApprovedOrder, Decimal]  # and what its verdict has reserved for all of it


class Sent:
    """An approved order. `filled` and `spent` (fees included) are what was told of its fills; `late` was filled before
    the end, and is told after it."""

    def __init__(self, verdict: m.Verdict) -> None:
        assert verdict.order is not None
        self.verdict = verdict
        self.order = verdict.order
        self.reserved = verdict.reserved
        self.edit: m.Verdict | None = None
        self.status: OrderStatus | None = None
        self.revision = 0
        self.filled = self.spent = self.late = self.late_price = ZERO
        self.ended = False

    @property
    def buys(self) -> bool:
        return self.order.side is Side.BUY

    @property
    def editable(self) -> bool:
        limit = (self.order.order_type, self.order.time_in_force) == (OrderType.LIMIT, TimeInForce.GTC)
        return limit and not self.ended

    @property
    def versions(self) -> list[Version]:
        """What it is, and what it may be by now."""
        found = [(self.order, self.reserved)]
        if self.edit is not None and self.edit.order is not None:
            found.append((self.edit.order, self.edit.reserved))
        return found

    def _left(self, quantity: Decimal) -> Decimal:
        return self.late if self.ended else max(ZERO, quantity - self.filled)

    @property
    def base(self) -> Decimal:
        """Base currency that it may still trade."""
        return max(self._left(order.quantity) for order, _ in self.versions)

    @property
    def quote(self) -> Decimal:
        """Quote currency that a buy may still spend."""
        if not self.buys:
            return ZERO
        if self.order.quote_size is not None:
            return self.reserved - self.spent
        return max(reserved * self._left(order.quantity) / order.quantity for order, reserved in self.versions)

    def settle_edit(self, wanted: bool) -> str:
        """The venue has taken the edit, or not; what has been filled already leaves it no choice. Gives its id."""
        assert self.edit is not None
        edit, self.edit = self.edit, None
        assert edit.order is not None
        fits = [edit.order.quantity >= self.filled + self.late, self.order.quantity >= self.filled + self.late]
        if (wanted and fits[0]) or not fits[1]:
            self.order, self.reserved = edit.order, edit.reserved
        return edit.signal_id


class Counterparty:
    """`moving` prices or a market that stands still at 100; `lazy`: a state may wait while other things happen, before
    it is stored; `late`: facts may be told after a midnight that they came before. `judge` sees each approval."""

    def __init__(
        self,
        desk: Desk,
        *,
        moving: bool = False,
        lazy: bool = False,
        late: bool = False,
        fee: str = "0",
        judge: Callable[[m.Verdict], None] = lambda verdict: None,
    ) -> None:
        self.desk = desk
        self.moving, self.lazy, self.late = moving, lazy, late
        self.fee = D(fee)
        self.judge = judge
        assert desk.core.known.opening is not None
        self.books = dict(desk.core.known.opening)  # per currency, as fills and adjustments have left them
        self.outside = dict.fromkeys(self.books, ZERO)  # what the account has beside that, and nobody has explained
        self.held = dict.fromkeys(PRODUCTS, ZERO)
        self.prices = dict.fromkeys(PRODUCTS, D(100))
        self.orders: dict[str, Sent] = {}
        self.facts: list[Fact] = [mark(p, at=desk.now) for p in PRODUCTS]
        self.stored = trading()
        self.revision = 1
        self.count = 0

    # -- what a bystander knows

    def open(self, product_id: str = "", side: Side | None = None) -> list[Sent]:
        return [
            o for o in self.orders.values() if product_id in ("", o.order.product_id) and side in (None, o.order.side)
        ]

    def promised(self, product_id: str = "") -> Decimal:
        """Quote currency that open buys may still spend: of one product, or all."""
        return sum((o.quote for o in self.open(product_id, Side.BUY)), ZERO)

    def selling(self, product_id: str) -> Decimal:
        """Base currency that open sells may still take."""
        return sum((o.base for o in self.open(product_id, Side.SELL)), ZERO)

    def worth(self, product_id: str) -> Decimal:
        return self.held[product_id] * self.prices[product_id]

    def venue(self, currency: str) -> Decimal:
        return self.books[currency] + self.outside[currency]

    # -- telling risk

    def tell(self, *messages: m.Message) -> list[m.Message]:
        """Facts that are new: they go into the ledger first."""
        found = []
        for message in messages:
            if isinstance(message, m.OrderEvent | m.Fill):
                self.desk.ledger.append(message)
            if isinstance(message, m.Fill | m.Mark):
                self.facts.append(message)
            found += self.tell_again(message)
        return found

    def tell_again(self, message: m.Message) -> list[m.Message]:
        found = self.desk.feed(message)
        for answer in found:
            if isinstance(answer, m.Verdict) and answer.order is not None:
                self._approved(answer)
            elif isinstance(answer, m.Adjustment):
                self._adjusted(answer)
        return found

    def settle(self) -> list[m.Message]:
        """What was proposed is stored, where it replaces what is; a shell does that before it goes on."""
        found: list[m.Message] = []
        for _ in range(STORED_MAX):
            if not self.desk.storing:
                return found
            state = self.desk.storing.pop(0)
            found += self.store(state) if state.revision == self.stored.revision else self.tell(self.stored)
        raise AssertionError("the state is changed again and again")

    def store(self, state: m.TradingState) -> list[m.Message]:
        self.revision += 1
        self.stored = msgspec.structs.replace(state, revision=self.revision)
        return self.tell(self.stored)

    def _approved(self, verdict: m.Verdict) -> None:
        assert verdict.order is not None
        if verdict.edits:
            self.orders[verdict.order.client_order_id].edit = verdict
        else:
            assert verdict.order.client_order_id not in self.orders, "an order was approved twice"
            self.orders[verdict.order.client_order_id] = Sent(verdict)
        self.judge(verdict)

    def _adjusted(self, made: m.Adjustment) -> None:
        self.facts.append(made)
        moved = dict(made.flows)
        if made.size:
            self.held[made.product_id] += made.size
            base = BASES[made.product_id]
            moved[base] = moved.get(base, ZERO) + made.size
            moved["USD"] = moved.get("USD", ZERO) - made.size * made.price
        for currency, amount in moved.items():
            self.books[currency] += amount
            self.outside[currency] -= amount

    # -- the venue

    def event(self, sent: Sent, status: OrderStatus, **changes: object) -> list[m.Message]:
        """One more step in its life."""
        sent.status = status
        sent.revision += 1
        edit_id = sent.edit.signal_id if sent.edit and status is OrderStatus.PENDING_UPDATE else ""
        fields: dict[str, object] = {
            "id": f"{sent.order.client_order_id}-{sent.revision}",
            "at": self.desk.now,
            "product_id": sent.order.product_id,
            "client_order_id": sent.order.client_order_id,
            "signal_id": sent.verdict.signal_id,
            "revision": sent.revision,
            "status": status,
            "reason": "",
            "order": sent.order,
            "filled_qty": sent.filled,
            "edit_id": edit_id,
        }
        return self.tell(m.OrderEvent(**(fields | changes)))  # type: ignore[arg-type]

    def price(self, sent: Sent) -> Decimal:
        """At which it trades, if it does."""
        now, limits = self.prices[sent.order.product_id], [o.limit_price for o, _ in sent.versions if o.limit_price]
        if sent.order.order_type is not OrderType.LIMIT or not limits:
            slip = D("0.0005") * (1 if sent.buys else -1)
            return (now * (1 + slip)).quantize(D("0.01"))
        return min(max(limits), now) if sent.buys else max(min(limits), now)

    def fillable(self, sent: Sent) -> Decimal:
        """Base currency that the venue may trade now. Where the market stands still, nobody comes to a limit away from
        it; an order whose edit is under way may be either version."""
        now, order = self.prices[sent.order.product_id], sent.order
        if order.quote_size is not None:
            return ((order.quote_size - sent.spent) / (self.price(sent) * (1 + self.fee)) // LOT) * LOT
        if order.order_type is not OrderType.LIMIT:
            return sent.base
        reached = [
            o.quantity - sent.filled
            for o, _ in sent.versions
            if self.moving
            or (o.limit_price is not None and (o.limit_price >= now if sent.buys else o.limit_price <= now))
        ]
        return max([ZERO, *reached])

    def book(self, sent: Sent, part: Decimal, which: int = 0) -> list[m.Message]:
        """A fill is told."""
        now, order = self.desk.now, sent.order
        price = sent.late_price if sent.ended else self.price(sent)
        fee = part * price * self.fee
        sent.filled += part
        sent.spent += part * price + fee
        sent.late = ZERO
        sign = 1 if sent.buys else -1
        self.held[order.product_id] += sign * part
        self.books[BASES[order.product_id]] += sign * part
        self.books["USD"] -= sign * part * price + fee
        told = fill(
            f"f{self.count}-{len(self.facts)}",
            order.side,
            str(part),
            str(price),
            str(fee),
            now,
            order.client_order_id,
            order.product_id,
        )
        if sent.ended:
            del self.orders[order.client_order_id]
        return self.tell(msgspec.structs.replace(told, trade_time=now - timedelta(seconds=which if self.late else 0)))

    def end(self, sent: Sent, status: OrderStatus, late: Decimal = ZERO) -> list[m.Message]:
        """The order is over; what was filled last is told later."""
        sent.late, sent.late_price = late, self.price(sent)
        if sent.edit is not None:
            sent.settle_edit(bool(late))
        sent.ended = True
        if not late:
            del self.orders[sent.order.client_order_id]
        return self.event(sent, status, filled_qty=sent.filled + late)

    # -- time, account, crashes

    def pass_time(self, seconds: float, *, silent: bool = False) -> list[m.Message]:
        """The market confirms its prices, unless it is silent."""
        self.desk.now += timedelta(seconds=seconds)
        found = [] if silent else self.quote(*PRODUCTS)
        return found + self.tell(tick(self.desk.now))

    def quote(self, *products: str) -> list[m.Message]:
        return self.tell(*(mark(p, str(self.prices[p]), self.desk.now) for p in products))

    def poll(self, settled: bool = False) -> list[m.Message]:
        """Execution reads the balances; they are comparable where nothing is in flight."""
        self.desk.now += SECOND
        holds = {"USD": min(self.promised(), self.venue("USD"))}
        holds |= {BASES[p]: min(self.selling(p), self.venue(BASES[p])) for p in PRODUCTS}
        free = {currency: self.venue(currency) - holds[currency] for currency in self.books}
        resting = (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED)
        settled = settled or all(o.status in resting and not o.late for o in self.open())
        return self.tell(account(free, self.desk.now, settled, str(self.fee), holds))

    def restart(self, raw: bytes | None, since: int) -> list[m.Message]:
        """A new process, from a snapshot or without one and the ledger from there on; what was not stored is lost."""
        desk, old = self.desk, self.desk.core
        desk.storing.clear()
        desk.core = RiskCore(desk.limits, PRODUCTS, "USD")
        if raw is not None:
            desk.core.restore(raw)
        last: list[m.Message | None] = [installation(old.known.opening), *desk.ledger[since:], self.stored]
        last += [*old.known.marks.values(), *old.known.feeds.values(), *old.known.rules.values(), old.known.account]
        for message in last:
            if message is not None:
                desk.core.on_message(message, desk.now)
        return self.tell(m.Recovered(id="recovered", at=desk.now))
