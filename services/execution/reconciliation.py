"""The whole account against our orders: what the venue lists, what we know, and what is not ours. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct, field

from libs.common import messages as m
from services.execution.inputs import Listing, VenueFill, VenueOrder
from services.execution.orders import IN_FLIGHT, OPEN, REFUSED, Order

# The venue lists an order or a fill a moment after it happened, and stamps it by its own clock.
MARGIN = timedelta(minutes=1)


class Watermark(Struct):
    """Up to where every fill of the account has been seen; kept with the state."""

    seen_until: datetime | None = None
    foreign_fills: int = 0
    recent: dict[str, datetime] = field(default_factory=dict)  # entry ids of foreign fills that may be listed again

    def since(self, orders: list[Order], now: datetime) -> datetime:
        """From when on to list: nothing that was not seen is older. Open orders are listed however old they are."""
        in_flight = (order.approved_at for order in orders if order.status in IN_FLIGHT)
        return min([now, self.seen_until or now, *in_flight]) - MARGIN

    def foreign(self, fill: VenueFill) -> bool:
        """Count a fill that is not ours; False when it has been counted, or is as old as what was."""
        if fill.entry_id in self.recent or (self.seen_until and fill.trade_time < self.seen_until - MARGIN):
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
    denied: int = 0  # orders that the venue refused, and has all the same


def compare(listing: Listing, orders: dict[str, Order]) -> Findings:
    """Our open orders, and every order and fill that the venue lists."""
    found = Findings()
    by_venue_id = {order.venue_order_id: order for order in orders.values() if order.venue_order_id}
    listed = {told.venue_order_id: told for told in listing.orders}
    for told in listed.values():
        ours = orders.get(told.client_order_id)
        if ours is not None:
            found.mentioned.append(told)
        denied = ours is not None and ours.status in REFUSED and told.status not in REFUSED
        found.denied += denied
        if (ours is None or denied) and told.status not in m.TERMINAL:
            found.foreign_orders.append(_foreign(told))
    for fill in {fill.entry_id: fill for fill in listing.fills}.values():  # pages may overlap
        owner = listed.get(fill.venue_order_id)
        order = by_venue_id.get(fill.venue_order_id) or (orders.get(owner.client_order_id) if owner else None)
        if order is None:
            # One of ours that we have forgotten ended with every fill of it booked.
            if owner is None or not m.is_ours(owner.client_order_id):
                found.foreign_fills.append(fill)
        elif fill.entry_id not in order.entry_ids:
            if order.terminal:
                found.late.append((order, fill))
            elif order.status in OPEN:
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
