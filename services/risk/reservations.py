"""Orders that are approved and not yet at their end: what they may still spend or sell.

A fill turns a reservation into a position; what is left is released by a terminal order event and by nothing else.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct, field

from libs.common.messages import TERMINAL, ApprovedOrder, Fill, OrderEvent, OrderStatus, Side
from services.risk.books import ZERO, share


class OpenOrder(Struct):
    """`reserved` is the verdict's, for the whole quantity. `final` is what the venue says was filled, at the end."""

    product_id: str
    side: Side
    quantity: Decimal
    reserved: Decimal
    booked: Decimal = ZERO  # by fills that we have seen
    status: OrderStatus | None = None
    revision: int = 0
    final: Decimal | None = None

    @property
    def outstanding(self) -> Decimal:
        """Base currency that may still come. At the end: fills that the order event tells of and we have not seen."""
        whole = self.quantity if self.final is None else self.final
        return max(ZERO, whole - self.booked)

    @property
    def quote(self) -> Decimal:
        """Quote currency that is still reserved."""
        return share(self.reserved, self.outstanding, self.quantity) if self.side is Side.BUY else ZERO


class Reservations(Struct):
    """Open orders by client order id."""

    orders: dict[str, OpenOrder] = field(default_factory=dict)

    def approve(self, order: ApprovedOrder, reserved: Decimal) -> None:
        self.orders[order.client_order_id] = OpenOrder(
            product_id=order.product_id, side=order.side, quantity=order.quantity, reserved=reserved
        )

    def step(self, event: OrderEvent) -> None:
        """Take a step in an order's life; a step already taken changes nothing."""
        order = self.orders.get(event.client_order_id)
        if order is None or event.revision <= order.revision:
            return
        order.status, order.revision = event.status, event.revision
        if event.status in TERMINAL:
            order.final = event.filled_qty
        self._close(event.client_order_id, order)

    def fill(self, fill: Fill) -> None:
        order = self.orders.get(fill.client_order_id)
        if order is not None:
            order.booked += fill.size
            self._close(fill.client_order_id, order)

    def _close(self, client_order_id: str, order: OpenOrder) -> None:
        if order.final is not None and not order.outstanding:
            del self.orders[client_order_id]

    def selling(self, product_id: str) -> Decimal:
        """Base currency that open sells may still take."""
        return sum((o.outstanding for o in self._of(product_id) if o.side is Side.SELL), ZERO)

    def buying(self, product_id: str) -> Decimal:
        """Quote currency that open buys of this product may still spend."""
        return sum((o.quote for o in self._of(product_id)), ZERO)

    def total(self) -> Decimal:
        return sum((o.quote for o in self.orders.values()), ZERO)

    def _of(self, product_id: str) -> list[OpenOrder]:
        return [order for order in self.orders.values() if order.product_id == product_id]
