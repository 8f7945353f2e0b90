"""The life of an order as one table, and what we remember of each."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct, field

from libs.common.messages import (
    EPOCH,
    TERMINAL,
    ApprovedOrder,
    Fill,
    OrderEvent,
    OrderStatus,
    Side,
    TimeInForce,
)

S = OrderStatus
OPEN = (S.ACCEPTED, S.PARTIALLY_FILLED, S.PENDING_CANCEL)
ENDED_BY_VENUE = (S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED)

# From the row's status an order may go to these. None is "approved, nothing done yet".
TRANSITIONS: dict[OrderStatus | None, tuple[OrderStatus, ...]] = {
    None: (S.SUBMITTING, S.DENIED),
    # DENIED after SUBMITTING: the last check before the POST said no, or the request provably never left.
    S.SUBMITTING: (S.ACCEPTED, S.UNKNOWN, S.REJECTED, S.DENIED),
    # UNKNOWN ends by the venue's word only.
    S.UNKNOWN: (S.ACCEPTED, S.REJECTED),
    S.ACCEPTED: (S.PARTIALLY_FILLED, S.PENDING_CANCEL, *ENDED_BY_VENUE),
    S.PARTIALLY_FILLED: (S.PARTIALLY_FILLED, S.PENDING_CANCEL, *ENDED_BY_VENUE),
    S.PENDING_CANCEL: (S.PARTIALLY_FILLED, *ENDED_BY_VENUE),
    **{status: () for status in TERMINAL},
}

# The venue's words (user channel and REST alike). Any other word is no answer, and shows as such.
VENUE_STATUS = {
    "PENDING": S.ACCEPTED,
    "QUEUED": S.ACCEPTED,
    "OPEN": S.ACCEPTED,
    "EDIT_QUEUED": S.ACCEPTED,
    "CANCEL_QUEUED": S.PENDING_CANCEL,
    "FILLED": S.FILLED,
    "CANCELLED": S.CANCELED,
    "EXPIRED": S.EXPIRED,
    "FAILED": S.REJECTED,
}


class Order(Struct, kw_only=True):
    """One order of ours, as the ledger tells it."""

    order: ApprovedOrder
    signal_id: str
    trading_revision: int
    expires_at: datetime
    approved_at: datetime
    status: OrderStatus | None = None
    revision: int = 0
    venue_order_id: str = ""
    filled_qty: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    entry_ids: list[str] = field(default_factory=list)
    # Settling an unknown outcome; wall time, relearned after a restart.
    token_expires_at: datetime = EPOCH
    listings_without: int = 0
    questions: int = 0  # in a row without news, for the backoff

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def resting(self) -> bool:
        return self.status in OPEN and self.order.time_in_force is TimeInForce.GTC

    @property
    def open_quantity(self) -> Decimal:
        """What may still fill; nothing once terminal."""
        return Decimal(0) if self.terminal else max(Decimal(0), self.order.quantity - self.filled_qty)

    def apply(self, event: OrderEvent) -> bool:
        """Take one step; False for a step that is already known. A step that the table does not have is a defect."""
        if event.revision <= self.revision:
            return False
        if event.status not in TRANSITIONS[self.status]:
            raise AssertionError(f"order {event.client_order_id}: {self.status} cannot become {event.status}")
        self.revision = event.revision
        self.status = event.status
        self.order = event.order
        self.venue_order_id = event.venue_order_id or self.venue_order_id
        self.questions = 0
        return True

    def book(self, fill: Fill) -> bool:
        """Count one fill; False if it has been counted."""
        if fill.id in self.entry_ids:
            return False
        self.entry_ids.append(fill.id)
        self.filled_qty += fill.size
        self.filled_value += fill.price * fill.size
        self.fees += fill.fee
        return True


def signed(side: Side, quantity: Decimal) -> Decimal:
    return quantity if side is Side.BUY else -quantity
