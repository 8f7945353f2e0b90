"""A venue and a bus by hand, for tools that meet odd answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal

from msgspec.structs import replace

from cli.account import Account
from cli.coinbase import Cancels, Fills, Previews
from cli.place import OrderBus
from libs.common import messages as m
from libs.common.errors import BusDown, PerpsError, Rejected
from services.execution.inputs import AccountParts, Preview, VenueFill, VenueOrder
from tests.cli.builders import PRODUCT

OURS = m.client_order_id("s1")
STATUS = {"OPEN": m.OrderStatus.ACCEPTED, "PENDING": m.OrderStatus.ACCEPTED, "CANCELLED": m.OrderStatus.CANCELED}
STATUS |= {"CANCEL_QUEUED": m.OrderStatus.PENDING_CANCEL, "FILLED": m.OrderStatus.FILLED}


def venue_order(name: str = "v1", client_order_id: str = OURS, word: str = "OPEN") -> VenueOrder:
    return VenueOrder(
        venue_order_id=name,
        client_order_id=client_order_id,
        product_id=PRODUCT,
        side=m.Side.BUY,
        status=STATUS[word],
        status_word=word,
        filled_qty=Decimal(0),
        order_type=m.OrderType.LIMIT,
        time_in_force=m.TimeInForce.GTC,
        quantity=Decimal("0.5"),
        limit_price=Decimal(90),
    )


def venue_fill(entry: str, price: str, size: str, fee: str) -> VenueFill:
    return VenueFill(
        entry_id=entry,
        trade_id=f"trade-{entry}",
        venue_order_id="v1",
        product_id=PRODUCT,
        side=m.Side.BUY,
        price=Decimal(price),
        size=Decimal(size),
        fee=Decimal(fee),
        liquidity="TAKER",
        trade_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


class MemoryVenue:
    """Orders in memory. `silent` holds errors that the next calls of a name raise; `refuses` is the venue's reason per
    order; with `queues` a cancelled order is CANCEL_QUEUED for as many looks."""

    def __init__(self, *orders: VenueOrder) -> None:
        self.book = {order.venue_order_id: order for order in orders}
        self.fills_of: dict[str, list[VenueFill]] = {}
        self.refuses: dict[str, str] = {}
        self.silent: dict[str, list[PerpsError]] = {}
        self.queues = 0
        self.asked: list[list[str]] = []
        self.previewed: list[m.ApprovedOrder] = []
        self.parts = AccountParts(balances={})
        self.arrives: list[VenueOrder] = []  # one more with every cancellation

    def _speak(self, name: str) -> None:
        if self.silent.get(name):
            raise self.silent[name].pop(0)

    async def order(self, venue_order_id: str) -> tuple[VenueOrder, list[VenueFill]]:
        self._speak("order")
        order = self.book.get(venue_order_id)
        if order is None:
            raise Rejected("HTTP_404", "not found")
        self._age(order)
        return order, self.fills_of.get(venue_order_id, [])

    def _age(self, order: VenueOrder) -> None:
        if order.status is m.OrderStatus.PENDING_CANCEL:
            self.queues -= 1
            if self.queues <= 0:
                self._put(order, "CANCELLED")

    def _put(self, order: VenueOrder, word: str) -> None:
        self.book[order.venue_order_id] = replace(order, status=STATUS[word], status_word=word)

    async def orders(
        self, *, product_id: str = "", open_only: bool = False, since: datetime | None = None
    ) -> AsyncIterator[list[VenueOrder]]:
        for order in list(self.book.values()):
            self._speak("orders")
            if product_id in ("", order.product_id) and (not open_only or order.status_word == "OPEN"):
                yield [order]
                self._age(order)

    async def fills(
        self, *, order_id: str = "", product_id: str = "", since: datetime | None = None
    ) -> AsyncIterator[list[VenueFill]]:
        for key, found in self.fills_of.items():
            if order_id in ("", key):
                yield found

    async def cancel(self, venue_order_ids: list[str]) -> dict[str, str]:
        self.asked.append(venue_order_ids)
        for order in (self.book[name] for name in venue_order_ids if name not in self.refuses):
            self._put(order, "CANCEL_QUEUED" if self.queues else "CANCELLED")
        for order in self.arrives[:1]:
            self.book[order.venue_order_id] = order
        self.arrives = self.arrives[1:]
        self._speak("cancel")
        return {name: reason for name, reason in self.refuses.items() if name in venue_order_ids}

    async def preview(self, order: m.ApprovedOrder) -> Preview:
        self.previewed.append(order)
        zero = Decimal(0)
        return Preview(
            order_total=zero,
            commission_total=zero,
            quote_size=zero,
            base_size=order.quantity,
            best_bid=None,
            best_ask=None,
            slippage=None,
            errors=(),
        )

    async def preview_edit(self, venue_order_id: str, wanted: m.ApprovedOrder) -> Preview:
        return await self.preview(wanted)

    async def account(self) -> AccountParts:
        return self.parts


class MemoryBus:
    """The bus as an order needs it: `happens` is what the ledger holds once risk has answered."""

    def __init__(self, *happens: m.OrderEvent, reply: m.Reply | None = None) -> None:
        data = {"signal_id": "s1", "client_order_id": OURS, "reason": "approved"}
        self.reply = reply or m.Reply(ok=True, detail="approved", data=data)
        self.happens = list(happens)
        self.later: list[m.OrderEvent] = []  # told after the ledger was read
        self.lost: dict[str, int] = {}  # answers that never come, by command
        self.requests: list[m.OrderRequest | None] = []
        self._handler: Callable[[m.Message], None] = lambda message: None

    async def request(self, service: str, command: str, body: m.Command, timeout_seconds: float) -> m.Reply:
        assert service == "risk"
        if self.lost.get(command, 0):
            self.lost[command] -= 1
            raise BusDown(f"{service} does not answer {command}: timeout")
        if command == "order":
            self.requests.append(body.order)
        return self.reply

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None:
        assert kind is m.OrderEvent
        self._handler = handler

    async def order_events(self, client_order_id: str) -> list[m.Message]:
        for event in self.later:
            self._handler(event)
        return [event for event in self.happens if event.client_order_id == client_order_id]


def _are_what_they_stand_for() -> tuple[Cancels, Fills, Previews, Account, OrderBus]:
    venue = MemoryVenue()
    return venue, venue, venue, venue, MemoryBus()
