"""The matching core: accounts, holds, fees, books and the life of an order. Pure: time and ids come from outside.

Every operation returns the events it caused, in order. The market's path is given: our own orders consume the shown
depth until the next tick, yet print no trade of their own, so that a replay's candles stay those of its file.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from msgspec.structs import replace

from sim.account import Account, Balance
from sim.book import Book, book_at
from sim.edits import EditRefusal, edit_refusal, edited_order, remaining_hold, triggered_order
from sim.events import BookChanged, Estimate, Event, FillMade, Ledger, OrderChanged, Placement, Ticked
from sim.matching import NOTHING, Take, first_part, limit_base_size, take, want_of
from sim.money import ZERO, exact, floor_to
from sim.orders import (
    Edit,
    Fill,
    Kind,
    Liquidity,
    NewOrder,
    Order,
    Status,
    StopDirection,
    TimeInForce,
    Trigger,
)
from sim.products import Product
from sim.rules import (
    DUPLICATE,
    STOPPED,
    UNKNOWN_PRODUCT,
    Question,
    Refusal,
    VenueRules,
    hold_fee_rate,
    hold_for,
    refusal_of,
)
from sim.ticks import Side, Tick


class Exchange:
    """One venue with one account. `seed` names the ids: equal seeds and calls give equal ids."""

    def __init__(
        self, products: Iterable[Product], rules: VenueRules, balances: Mapping[str, Decimal], seed: str
    ) -> None:
        self.products = {product.product_id: product for product in products}
        self.rules = rules
        self.fills: list[Fill] = []
        self.orders: dict[str, Order] = {}
        currencies = [currency for product in self.products.values() for currency in (product.base, product.quote)]
        self._account = Account({**dict.fromkeys(currencies, ZERO), **balances})
        self._namespace = uuid.uuid5(uuid.NAMESPACE_OID, f"perps-bot simulated venue {seed}")
        self._open: dict[str, dict[str, None]] = {}
        self._by_client_id: dict[str, str] = {}
        self._books: dict[str, Book] = {}
        self._orders_made = 0
        self._fills_made = 0
        self._events: list[Event] = []

    def restore(self, ledger: Ledger, orders: Iterable[Order], fills: Iterable[Fill]) -> None:
        """Take up a stored state (orders and fills oldest first); open orders hold and rest again."""
        self._account = Account({**self._account.totals, **ledger.totals})
        self._orders_made, self._fills_made = ledger.orders_made, ledger.fills_made
        self.fills = list(fills)
        for order in orders:
            self._keep(order)
            if order.hold:
                self._account.hold(order.hold_currency, order.hold)

    @property
    def ledger(self) -> Ledger:
        return Ledger(dict(self._account.totals), self._orders_made, self._fills_made)

    def identity(self, what: str) -> str:
        """A uuid that belongs to this venue and depends on its seed only."""
        return str(uuid.uuid5(self._namespace, what))

    def balances(self) -> dict[str, Balance]:
        return self._account.balances()

    def book(self, product_id: str) -> Book | None:
        return self._books.get(product_id)

    def open_orders(self) -> list[Order]:
        """All orders that have not ended, oldest first."""
        found = (self.orders[order_id] for ids in self._open.values() for order_id in ids)
        return sorted(found, key=lambda order: order.sequence)

    @exact
    def prime(self, tick: Tick) -> None:
        """Know a price before the market moves: nothing is traded, nothing fills."""
        self._books[tick.product_id] = book_at(self.products[tick.product_id], tick, self.rules.depth)

    @exact
    def on_tick(self, tick: Tick) -> list[Event]:
        """Move the market: what is due comes first, then resting orders fill as maker, then stops trigger."""
        self._advance(tick.at)
        self.prime(tick)
        self._events.append(Ticked(tick))
        self._fill_resting(tick)
        self._trigger_stops(tick)
        return self._take_events()

    @exact
    def advance(self, now: datetime) -> list[Event]:
        """Let market time pass: orders past their end time expire, delayed ones reach the book."""
        self._advance(now)
        return self._take_events()

    @exact
    def place(self, request: NewOrder, now: datetime) -> Placement:
        """Accept or refuse. A known client order id answers with the order it already has, by default."""
        if known := self._by_client_id.get(request.client_order_id):
            if self.rules.duplicates == "refuses":
                return Placement(None, DUPLICATE, [])
            return Placement(self.orders[known], None, [])
        if refusal := self._refusal(request, now):
            return Placement(None, refusal, [])
        order = self._accept(request, now)
        if order.status is Status.OPEN and not order.dormant:
            self._match(order, now)
        return Placement(self.orders[order.order_id], None, self._take_events())

    @exact
    def preview(self, request: NewOrder, now: datetime) -> Estimate:
        """What `place` would do now, without doing it."""
        refusal = self._refusal(request, now)
        product, book = self.products.get(request.product_id), self._books.get(request.product_id)
        if product is None or book is None:
            return Estimate(refusal, ZERO, ZERO, ZERO, None)
        size = limit_base_size(request, product.base_increment)
        want = want_of(replace(request, base_size=size), product.base_increment, self.rules.taker_fee, None)
        if size is None:
            want = replace(want, budget=request.quote_size)
        taken = take(book.against(request.side), want)
        commission = taken.value * self.rules.taker_fee
        rest = (size or ZERO) - taken.size if request.limit_price is not None else ZERO
        resting = rest * (request.limit_price or ZERO)
        worst = taken.slices[-1].price if taken.slices else None
        commission += resting * self.rules.maker_fee
        return Estimate(refusal, taken.size + rest, taken.value + resting, commission, worst)

    @exact
    def cancel(self, order_id: str, now: datetime) -> tuple[str, list[Event]]:
        """Cancel by id: the venue's failure reason ("" = cancelled) and the events."""
        order = self.orders.get(order_id)
        if order is None or order.status in (Status.CANCELLED, Status.EXPIRED):
            return "UNKNOWN_CANCEL_ORDER", []
        if order.status is Status.FILLED:
            return "ORDER_IS_FULLY_FILLED", []
        if self.rules.cancel_queued:
            order = self._put(replace(order, status=Status.CANCEL_QUEUED))
        self._end(order, Status.CANCELLED, "User requested cancel")
        return "", self._take_events()

    @exact
    def edit(
        self, order_id: str, price: Decimal | None, size: Decimal | None, now: datetime, commit: bool = True
    ) -> tuple[EditRefusal | None, list[Event]]:
        """Change price and total size of a resting GTC limit order; `commit=False` only checks."""
        order = self.orders.get(order_id)
        if order is None:
            return EditRefusal("ORDER_NOT_FOUND"), []
        product, book = self.products.get(order.product_id), self._books.get(order.product_id)
        if product is None or book is None:
            return EditRefusal("ORDER_NOT_FOUND"), []
        edited = edited_order(
            order, order.limit_price if price is None else price, order.base_size if size is None else size
        )
        free = self._account.available(order.hold_currency) + order.hold
        if refusal := edit_refusal(order, edited, product, book, free):
            return refusal, []
        if not commit:
            return None, []
        assert edited.limit_price is not None  # checked by edit_refusal, like the size
        assert edited.base_size is not None
        self._account.hold(order.hold_currency, edited.hold - order.hold)
        entry = Edit(edited.limit_price, edited.base_size, now)
        self._match(self._put(replace(edited, edits=(*order.edits, entry))), now)
        return None, self._take_events()

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _refusal(self, request: NewOrder, now: datetime) -> Refusal | None:
        product = self.products.get(request.product_id)
        if product is None:
            return UNKNOWN_PRODUCT
        book = self._books.get(request.product_id)
        return refusal_of(Question(request, product, book, self._account, self.rules, now))

    def _accept(self, request: NewOrder, now: datetime) -> Order:
        product = self.products[request.product_id]
        self._orders_made += 1
        delayed = bool(self.rules.latency)
        order = Order(
            order_id=self.identity(f"order {self._orders_made}"),
            sequence=self._orders_made,
            client_order_id=request.client_order_id,
            product_id=request.product_id,
            side=request.side,
            kind=request.kind,
            time_in_force=request.time_in_force,
            configuration=request.configuration,
            created_at=now,
            active_at=now + self.rules.latency,
            status=Status.PENDING if delayed else Status.OPEN,
            hold_currency=product.quote if request.side is Side.BUY else product.base,
            hold=hold_for(request, product, self._books.get(request.product_id), self.rules),
            hold_fee_rate=hold_fee_rate(request, self.rules),
            base_size=limit_base_size(request, product.base_increment),
            quote_size=request.quote_size,
            limit_price=request.limit_price,
            stop_price=request.stop_price,
            stop_direction=request.stop_direction,
            end_time=request.end_time,
            post_only=request.post_only,
            trigger=Trigger.PENDING if request.kind in STOPPED else Trigger.NONE,
        )
        self._account.hold(order.hold_currency, order.hold)
        return self._put(order)

    def _put(self, order: Order) -> Order:
        self._keep(order)
        self._events.append(OrderChanged(order))
        return order

    def _keep(self, order: Order) -> None:
        self.orders[order.order_id] = order
        self._by_client_id[order.client_order_id] = order.order_id
        open_ids = self._open.setdefault(order.product_id, {})
        if order.ended:
            open_ids.pop(order.order_id, None)
        else:
            open_ids[order.order_id] = None

    def _end(self, order: Order, status: Status, message: str = "") -> Order:
        """Release exactly what the order still holds and report its last state."""
        self._account.hold(order.hold_currency, -order.hold)
        return self._put(replace(order, status=status, hold=ZERO, cancel_message=message))

    def _live(self, product_id: str, status: Status) -> list[Order]:
        found = (self.orders[order_id] for order_id in self._open.get(product_id, ()))
        return [order for order in found if order.status is status]

    def _advance(self, now: datetime) -> None:
        for product_id in self._open:
            for order in self._live(product_id, Status.PENDING):
                if order.active_at <= now:
                    self._activate(self._put(replace(order, status=Status.OPEN)), now)
            for order in self._live(product_id, Status.OPEN):
                if order.end_time is not None and order.end_time <= now:
                    self._end(order, Status.EXPIRED)

    def _activate(self, order: Order, now: datetime) -> None:
        book = self._books.get(order.product_id)
        crosses = book is not None and order.limit_price is not None and book.crosses(order.side, order.limit_price)
        if order.post_only and crosses:
            self._end(order, Status.CANCELLED, "Post only order would take")
        elif not order.dormant:
            self._match(order, now)

    def _match(self, order: Order, now: datetime) -> None:
        """Take what the book offers; then the order is filled, rests, or its remainder is cancelled."""
        book = self._books.get(order.product_id)
        fill_or_kill = order.time_in_force is TimeInForce.FOK
        taken = self._takeable(order, book)
        if fill_or_kill and not taken.complete:
            taken = NOTHING
        for price, size in taken.slices:
            assert book is not None  # nothing is takeable without one
            book.consume(order.side, size)
            order = self._fill(order, price, size, Liquidity.TAKER, now)
        if taken.slices:
            self._events.append(BookChanged(order.product_id))
        if taken.complete and taken.slices:
            self._end(order, Status.FILLED)
        elif fill_or_kill or order.time_in_force is TimeInForce.IOC:
            self._end(order, Status.CANCELLED, "No more liquidity at the order's price")
        elif taken.slices:
            self._put(order)

    def _takeable(self, order: Order, book: Book | None) -> Take:
        if book is None:
            return NOTHING
        budget = None
        if order.kind is Kind.MARKET and order.side is Side.BUY:
            budget = order.hold + (self._account.available(order.hold_currency) if order.base_size else ZERO)
        increment = self.products[order.product_id].base_increment
        taken = take(book.against(order.side), want_of(order, increment, self.rules.taker_fee, budget))
        most = floor_to((order.base_size or taken.size) * self.rules.take_at_most_fraction, increment)
        return first_part(taken, most)

    def _fill(self, order: Order, price: Decimal, size: Decimal, liquidity: Liquidity, now: datetime) -> Order:
        """Book one execution: money, hold and the order's sums. The caller reports the order afterwards."""
        now = max(now, order.active_at)  # live, a tick stamped just before an order may be delivered just after it
        product = self.products[order.product_id]
        rate = self.rules.maker_fee if liquidity is Liquidity.MAKER else self.rules.taker_fee
        rate = min(rate, order.hold_fee_rate)  # a rate raised at a restart would exceed what the order holds
        value = price * size
        fee = value * rate
        filled = replace(
            order,
            filled_size=order.filled_size + size,
            filled_value=order.filled_value + value,
            fees=order.fees + fee,
            fills=order.fills + 1,
            last_fill_at=now,
        )
        filled = replace(filled, hold=remaining_hold(filled, value + fee))
        self._account.hold(order.hold_currency, filled.hold - order.hold)
        sign = 1 if order.side is Side.BUY else -1
        self._account.add(product.base, sign * size)
        self._account.add(product.quote, -sign * value - fee)
        self._record(filled, price, size, fee, liquidity, now)
        return filled

    def _record(
        self, order: Order, price: Decimal, size: Decimal, fee: Decimal, liquidity: Liquidity, now: datetime
    ) -> None:
        self._fills_made += 1
        name = f"fill {self._fills_made}"
        fill = Fill(
            entry_id=hashlib.sha256(self.identity(name).encode()).hexdigest(),  # 64 hex digits, as recorded
            trade_id=self.identity(f"{name} trade"),
            sequence=self._fills_made,
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            product_id=order.product_id,
            side=order.side,
            price=price,
            size=size,
            fee=fee,
            liquidity=liquidity,
            at=now,
        )
        self.fills.append(fill)
        self._events.append(FillMade(fill))

    def _fill_resting(self, tick: Tick) -> None:
        """Fill what the market traded at or through, best price first, bounded by what was traded."""
        traded, quoted = tick.size, {Side.BUY: ZERO, Side.SELL: ZERO}
        for order in sorted(self._live(tick.product_id, Status.OPEN), key=_priority):
            if order.dormant or order.limit_price is None:
                continue
            offered = self._quoted_for(order, tick) - quoted[order.side] if tick.bid is not None else ZERO
            available = max(traded if _reached(order, tick.price) else ZERO, offered)
            size = min(order.remaining, available)
            if size <= 0:
                continue
            traded = max(traded - size, ZERO)
            quoted[order.side] += size
            filled = self._fill(order, order.limit_price, size, Liquidity.MAKER, tick.at)
            if filled.remaining == 0:
                self._end(filled, Status.FILLED)
            else:
                self._put(filled)

    def _quoted_for(self, order: Order, tick: Tick) -> Decimal:
        """The size quoted at or through a resting order's price: the quote would have met it on its way."""
        levels = self._books[tick.product_id].against(order.side)
        return sum((level.size for level in levels if _reached(order, level.price)), ZERO)

    def _trigger_stops(self, tick: Tick) -> None:
        for order in self._live(tick.product_id, Status.OPEN):
            if order.trigger is not Trigger.PENDING or order.stop_price is None:
                continue
            up = order.stop_direction is StopDirection.UP
            if tick.price >= order.stop_price if up else tick.price <= order.stop_price:
                step = self.products[order.product_id].price_increment
                self._match(self._put(triggered_order(order, step)), tick.at)


def _priority(order: Order) -> tuple[Decimal, int]:
    price = order.limit_price or ZERO
    return (-price if order.side is Side.BUY else price, order.sequence)


def _reached(order: Order, price: Decimal) -> bool:
    """Whether a market price meets a resting order's limit."""
    limit = order.limit_price or ZERO
    return price <= limit if order.side is Side.BUY else price >= limit
