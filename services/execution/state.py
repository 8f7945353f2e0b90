"""What execution remembers over a restart: orders, positions, and what of the venue's account has been seen. Pure."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct, field

from libs.common.messages import Adjustment, Fill
from services.execution.orders import REFUSED, Order, signed
from services.execution.reconciliation import Watermark

CLOSED_KEPT = 200


class State(Struct, forbid_unknown_fields=True):
    """Everything but `opening` can be rebuilt from the ledger, so another version's is refused. `positions` are base
    currency by product: what our fills and the operator's adjustments have made of them."""

    orders: dict[str, Order] = field(default_factory=dict)
    positions: dict[str, Decimal] = field(default_factory=dict)
    opening: dict[str, Decimal] | None = None
    watermark: Watermark = field(default_factory=Watermark)
    adjustment_ids: list[str] = field(default_factory=list)  # each counts once, for ever

    def book(self, fill: Fill) -> bool:
        """False for a fill that has been counted, or whose order is not known."""
        order = self.orders.get(fill.client_order_id)
        if order is None or not order.book(fill):
            return False
        self._move(fill.product_id, signed(fill.side, fill.size))
        return True

    def adjust(self, adjustment: Adjustment) -> bool:
        """Holdings that were handed over may be sold, those that are gone may not. False for one that has been
        counted. `flows` are of the account, not of what we hold."""
        if adjustment.id in self.adjustment_ids:
            return False
        self.adjustment_ids.append(adjustment.id)
        if adjustment.size:
            self._move(adjustment.product_id, adjustment.size)
        return True

    def end(self, order: Order) -> None:
        """Ended orders are kept in the order of their ends; those that traded or rested do not give way to refused
        ones."""
        self.orders[order.order.client_order_id] = self.orders.pop(order.order.client_order_id)
        for refused in (False, True):
            of_kind = [k for k, o in self.orders.items() if o.terminal and (o.status in REFUSED) is refused]
            for key in of_kind[:-CLOSED_KEPT]:
                del self.orders[key]

    def _move(self, product_id: str, size: Decimal) -> None:
        self.positions[product_id] = self.positions.get(product_id, Decimal(0)) + size
