"""`perps-bot orders place` and `orders edit`: ask risk, then wait on the bus for what becomes of the order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from cli.coinbase import Orders
from cli.errors import OutcomePending, Refused
from cli.order_flags import amount
from cli.orders import must_find
from cli.output import Json
from libs.common import messages as m
from libs.common.errors import BadConfig, BusDown
from services.execution.inputs import VenueOrder

ASK_SECONDS = 5.0  # risk answers once its verdict is durable
RETRY_SECONDS = 0.2
NEVER_SENT = (m.OrderStatus.DENIED, m.OrderStatus.REJECTED)


class OrderBus(Protocol):
    """The part of `libs.common.nats_bus.NatsBus` that an order needs."""

    async def request(self, service: str, command: str, body: m.Command, timeout_seconds: float) -> m.Reply: ...

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None: ...

    async def order_events(self, client_order_id: str) -> list[m.Message]: ...


class Placing:
    """One request on its way. `repeat` is the command line that asks for the very same order again."""

    def __init__(self, bus: OrderBus, body: m.Command, repeat: str) -> None:
        assert body.order is not None
        self._bus = bus
        self._body = body
        self._request = body.order
        self._repeat = repeat
        self._client_order_id = ""
        self._signal_id = ""
        self.steps: dict[int, m.OrderEvent] = {}  # by revision
        self.risk_said = ""
        self._news = asyncio.Event()

    async def run(self, wait_seconds: float) -> None:
        """Until the order, or the edit, has come to an end or rests in the book.

        Raises Refused with risk's or the venue's reason, BusDown where nothing was sent, OutcomePending where it was.
        """
        await self._bus.subscribe(m.OrderEvent, self._hear)
        await self._bus.request("risk", "sync", m.Command(), ASK_SECONDS)  # raises before anything is asked for
        try:
            async with asyncio.timeout(wait_seconds):
                await self._settle()
        except (TimeoutError, BusDown):
            state = f"the order is {self.last.status}; " if self.last else ""
            raise OutcomePending(state + self._how_to_look()) from None
        except asyncio.CancelledError:
            raise OutcomePending(f"interrupted; {self._how_to_look()}") from None
        last = self.last
        assert last is not None
        if last.status in NEVER_SENT:
            raise Refused(f"{last.status.lower()}: {last.reason}")
        if self._request.edits and not self._taken(last):
            raise Refused(f"not edited, the order is {last.status}: {last.reason or 'it had ended'}")

    async def _settle(self) -> None:
        reply = await self._ask()
        self.risk_said = reply.detail
        self._client_order_id = reply.data.get("client_order_id", "")
        self._signal_id = reply.data.get("signal_id", "")  # empty where it could not even be judged
        if not reply.ok:
            rules = f"; every rule: `perps-bot risk explain {self._signal_id}`" if self._signal_id else ""
            raise Refused(f"denied by risk: {reply.detail}{rules}")
        for step in await self._bus.order_events(self._client_order_id):
            self._hear(step)  # those before the answer, and all of them where the same was asked for before
        while not self._settled():
            self._news.clear()
            await self._news.wait()

    async def _ask(self) -> m.Reply:
        """Again until risk answers: the same request id is the same order."""
        while True:
            try:
                return await self._bus.request("risk", "order", self._body, ASK_SECONDS)
            except BusDown:
                await asyncio.sleep(RETRY_SECONDS)

    def _hear(self, message: m.Message) -> None:
        if isinstance(message, m.OrderEvent) and message.client_order_id == self._client_order_id:
            self.steps[message.revision] = message
            self._news.set()

    @property
    def last(self) -> m.OrderEvent | None:
        return self.steps[max(self.steps)] if self.steps else None

    def _settled(self) -> bool:
        last = self.last
        if last is None:
            return False
        if last.status in m.TERMINAL:
            return True
        if self._request.edits:
            return any(self._ends_edit(step) for step in self.steps.values())
        accepted = last.status in (m.OrderStatus.ACCEPTED, m.OrderStatus.PARTIALLY_FILLED)
        return accepted and last.order.time_in_force.rests

    def _ends_edit(self, step: m.OrderEvent) -> bool:
        return step.edit_id == self._signal_id and step.status is not m.OrderStatus.PENDING_UPDATE

    def _taken(self, last: m.OrderEvent) -> bool:
        """The order has become what the edit asked for."""
        wanted = [step.wanted for step in self.steps.values() if step.edit_id == self._signal_id and step.wanted]
        return bool(wanted) and last.order == wanted[0]

    def _how_to_look(self) -> str:
        if self._client_order_id:
            return f"the outcome is not known yet: look with `perps-bot orders show {self._client_order_id}`"
        return f"it is not known whether the order was taken: the same one is asked for again with `{self._repeat}`"

    def show(self) -> Json:
        last = self.last
        found: Json = {
            "request_id": self._request.request_id,
            "client_order_id": self._client_order_id,
            "signal_id": self._signal_id,
            "risk": self.risk_said,
            "status": last.status if last else None,
        }
        if last is None:
            return found
        average = last.filled_value / last.filled_qty if last.filled_qty else None
        return {
            **found,
            "reason": last.reason,
            "venue_order_id": last.venue_order_id,
            "product_id": last.product_id,
            "side": last.order.side,
            "order_type": last.order.order_type,
            "time_in_force": last.order.time_in_force,
            "quantity": last.order.quantity,
            "limit_price": last.order.limit_price,
            "filled_qty": last.filled_qty,
            "average_price": average,
            "fees": last.fees,
        }


async def edit_of(
    venue: Orders, order_id: str, qty: str, price: str, request_id: str
) -> tuple[m.OrderRequest, VenueOrder]:
    """The request that gives an open order of ours another quantity or price; the other stays as the venue shows it."""
    quantity, limit_price = amount(qty, "--qty"), amount(price, "--price")
    if quantity is None and limit_price is None:
        raise BadConfig("--qty or --price is missing: the new total quantity, the new limit price, or both")
    found = await must_find(venue, order_id)
    if not m.is_ours(found.client_order_id):
        raise Refused(f"order {order_id} was not made by this bot: it may be cancelled, not edited")
    if found.status in m.TERMINAL:
        raise Refused(f"order {order_id} has ended: {found.status_word}")
    request = m.OrderRequest(
        request_id=request_id,
        product_id=found.product_id,
        side=found.side,
        order_type=found.order_type or m.OrderType.LIMIT,
        time_in_force=found.time_in_force or m.TimeInForce.GTC,
        quantity=quantity or _shown(found.quantity, "--qty"),
        limit_price=limit_price or _shown(found.limit_price, "--price"),
        edits=found.client_order_id,
    )
    return request, found


def _shown(value: Decimal | None, flag: str) -> Decimal:
    if value is None:
        raise Refused(f"the venue does not show what {flag} is now: give it")
    return value
