"""The whole account against our orders: what the venue lists, what we know, and what is not ours. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct, field

from libs.common import messages as m
from services.execution.inputs import Listing, VenueFill, VenueOrder
from services.execution.orders import OPEN, Order

# The venue lists an order or a fill a moment after it happened, and stamps it by its own clock.
MARGIN = timedelta(minutes=1)


class Watermark(Struct):
    """Up to where every fill of the account has been seen. It is kept with the state; without it the reading begins
    anew at the oldest open order, which costs requests and nothing else."""

    seen_until: datetime | None = None
    foreign_fills: int = 0
    recent: dict[str, datetime] = field(default_factory=dict)  # entry ids of foreign fills that may be listed again

    def since(self, orders: list[Order], now: datetime) -> datetime:
        """From when on to list: no order or fill of an open order is older."""
        known = [now, self.seen_until or now, *(order.approved_at for order in orders if not order.terminal)]
        return min(known) - MARGIN

    def foreign(self, fill: VenueFill) -> bool:
        """Count a fill that is not ours; False when it has been counted."""
        if fill.entry_id in self.recent:
            return False
        self.recent[fill.entry_id] = fill.trade_time
        self.foreign_fills += 1
        return True

    def advance(self, until: datetime) -> None:
        """Everything up to then has been seen."""
        self.seen_until = until if self.seen_until is None else max(self.seen_until, until)
        self.recent = {key: at for key, at in self.recent.items() if at >= self.seen_until - 2 * MARGIN}


class Findings(Struct):
    """What a listing has to say."""

    mentioned: list[VenueOrder] = field(default_factory=list)  # of ours
    ask: list[Order] = field(default_factory=list)  # open ones that are not listed, or have fills that we do not know
    late: list[tuple[Order, VenueFill]] = field(default_factory=list)  # fills of ours that came after the end
    foreign_orders: list[m.ForeignOrder] = field(default_factory=list)  # open ones
    foreign_fills: list[VenueFill] = field(default_factory=list)


def compare(listing: Listing, orders: dict[str, Order]) -> Findings:
    """Our open orders, and every order and fill that the venue lists."""
    found = Findings()
    by_venue_id = {order.venue_order_id: order for order in orders.values() if order.venue_order_id}
    listed = {told.venue_order_id: told for told in listing.orders}
    for told in listed.values():
        if told.client_order_id in orders or told.venue_order_id in by_venue_id:
            found.mentioned.append(told)
        elif told.status not in m.TERMINAL:
            found.foreign_orders.append(_foreign(told))
    for fill in {fill.entry_id: fill for fill in listing.fills}.values():  # pages may overlap
        order = by_venue_id.get(fill.venue_order_id)
        if order is None:
            owner = listed.get(fill.venue_order_id)
            if owner is None or owner.client_order_id not in orders:
                found.foreign_fills.append(fill)
        elif fill.entry_id not in order.entry_ids:
            if order.terminal:
                found.late.append((order, fill))
            else:
                found.ask.append(order)
    found.ask += [
        order for order in by_venue_id.values() if order.status in OPEN and order.venue_order_id not in listed
    ]
    return found


def _foreign(told: VenueOrder) -> m.ForeignOrder:
    return m.ForeignOrder(
        venue_order_id=told.venue_order_id,
        client_order_id=told.client_order_id,
        product_id=told.product_id,
        side=told.side,
        status=told.status_word,
        quantity=told.quantity,
        filled_qty=told.filled_qty,
        limit_price=told.limit_price,
    )
