"""The life of an order as one table, and what we remember of each."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct, field

from libs.common.messages import (
    TERMINAL,
    ApprovedOrder,
    Fill,
    OrderEvent,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from services.execution.inputs import VenueFill

S = OrderStatus
OPEN = (S.ACCEPTED, S.PARTIALLY_FILLED, S.PENDING_UPDATE, S.PENDING_CANCEL)
IN_FLIGHT = (None, S.SUBMITTING, S.UNKNOWN)  # the venue may have it under an id that we do not know
REFUSED = (S.REJECTED, S.DENIED)
ENDED_BY_VENUE = (S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED)

# From the row's status an order may go to these. None is "approved, nothing done yet".
TRANSITIONS: dict[OrderStatus | None, tuple[OrderStatus, ...]] = {
    None: (S.SUBMITTING, S.DENIED),
    # DENIED after SUBMITTING: the last check before the POST said no, or the request provably never left.
    S.SUBMITTING: (S.ACCEPTED, S.UNKNOWN, S.REJECTED, S.DENIED),
    # UNKNOWN ends by the venue's word only.
    S.UNKNOWN: (S.ACCEPTED, S.REJECTED),
    # A status that repeats itself tells of an edit that was not sent, or of another fill.
    S.ACCEPTED: (S.ACCEPTED, S.PARTIALLY_FILLED, S.PENDING_UPDATE, S.PENDING_CANCEL, *ENDED_BY_VENUE),
    S.PARTIALLY_FILLED: (S.PARTIALLY_FILLED, S.PENDING_UPDATE, S.PENDING_CANCEL, *ENDED_BY_VENUE),
    # PENDING_UPDATE ends by the venue's word only, like UNKNOWN; fills leave it as it is.
    S.PENDING_UPDATE: (S.PENDING_UPDATE, S.ACCEPTED, S.PARTIALLY_FILLED, *ENDED_BY_VENUE),
    S.PENDING_CANCEL: (S.PENDING_CANCEL, S.PARTIALLY_FILLED, *ENDED_BY_VENUE),
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


class PendingEdit(Struct, frozen=True, kw_only=True):
    """An approved edit, from its verdict until its end."""

    id: str  # signal id
    wanted: ApprovedOrder
    trading_revision: int
    expires_at: datetime


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
    edit: PendingEdit | None = None
    shown: Decimal = Decimal(0)  # quantity of the order as the venue showed it last

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def resting(self) -> bool:
        return self.status in OPEN and self.order.time_in_force.rests

    @property
    def quantity(self) -> Decimal:
        """The most that may come of it: while an edit is under way the larger of both, and what the venue shows."""
        wanted = self.edit.wanted.quantity if self.edit else Decimal(0)
        return max(self.order.quantity, wanted, self.shown)

    @property
    def open_quantity(self) -> Decimal:
        """What may still fill; nothing once terminal."""
        return Decimal(0) if self.terminal else max(Decimal(0), self.quantity - self.filled_qty)

    @property
    def editable(self) -> bool:
        """The venue edits open limit orders that are good till canceled, and nothing else."""
        gtc = self.order.order_type is OrderType.LIMIT and self.order.time_in_force is TimeInForce.GTC
        return gtc and self.status in (S.ACCEPTED, S.PARTIALLY_FILLED)

    def overfilled(self, quantity: Decimal, value: Decimal) -> bool:
        """More came than was asked for."""
        budget = self.order.quote_size
        return quantity > self.quantity if budget is None else value > budget

    def apply(self, event: OrderEvent) -> bool:
        """Take one step of the ledger, also one that the table does not have: it is a fact, and refusing it would stop
        every start for ever. False for a step that is already known."""
        if event.revision <= self.revision:
            return False
        self.revision = event.revision
        self.status = event.status
        self.order = event.order
        ended = event.edit_id and event.status is not S.PENDING_UPDATE
        if self.edit and (self.terminal or (ended and event.edit_id == self.edit.id)):
            self.edit = None
        self.venue_order_id = event.venue_order_id or self.venue_order_id
        return True

    def book(self, fill: Fill) -> bool:
        """Count one fill; False if it has been counted."""
        if fill.id in self.entry_ids:
            return False
        self.entry_ids.append(fill.id)
        self.filled_qty += fill.size
        self.filled_value += fill.quote_value
        self.fees += fill.fee
        return True

    def event(self, status: OrderStatus, reason: str, now: datetime, venue_order_id: str = "") -> OrderEvent:
        """The next step, for the ledger; the order itself moves when it comes back from there."""
        key = self.order.client_order_id
        if status not in TRANSITIONS[self.status]:
            raise AssertionError(f"order {key}: {self.status} cannot become {status}")
        edit = self.edit if status is S.PENDING_UPDATE else None
        return OrderEvent(
            id=f"{key}-{self.revision + 1}",
            cause=self.signal_id,
            at=now,
            product_id=self.order.product_id,
            client_order_id=key,
            signal_id=self.signal_id,
            revision=self.revision + 1,
            status=status,
            reason=str(reason),
            order=self.order,
            venue_order_id=venue_order_id or self.venue_order_id,
            filled_qty=self.filled_qty,
            filled_value=self.filled_value,
            fees=self.fees,
            edit_id=edit.id if edit else "",
            wanted=edit.wanted if edit else None,
        )

    def edited(self, taken: bool, reason: str, now: datetime) -> OrderEvent:
        """The end of the edit, begun or not: the order is now what was wanted, or stays what it was."""
        assert self.edit is not None, "no edit is under way"
        assert self.status is not None, "only an open order is edited"
        back = S.PARTIALLY_FILLED if self.filled_qty else S.ACCEPTED
        event = self.event(back if self.status is S.PENDING_UPDATE else self.status, reason, now)
        order = self.edit.wanted if taken else self.order
        return msgspec.structs.replace(event, edit_id=self.edit.id, order=order)

    def progress(self, status: OrderStatus, reason: str, new: list[VenueFill], now: datetime) -> OrderEvent:
        """The next step, with totals that include the fills booked right before it."""
        event = self.event(status, reason, now)
        return msgspec.structs.replace(
            event,
            filled_qty=event.filled_qty + sum((fill.size for fill in new), Decimal(0)),
            filled_value=event.filled_value + sum((fill.quote_value for fill in new), Decimal(0)),
            fees=event.fees + sum((fill.fee for fill in new), Decimal(0)),
        )

    def fill_of(self, fill: VenueFill, now: datetime) -> Fill:
        """One of the venue's fills as ours, for the ledger."""
        return Fill(
            id=fill.entry_id,
            cause=f"{self.order.client_order_id}-{self.revision}",
            at=now,
            product_id=self.order.product_id,
            client_order_id=self.order.client_order_id,
            venue_order_id=fill.venue_order_id,
            trade_id=fill.trade_id,
            side=self.order.side,
            price=fill.price,
            size=fill.size,
            fee=fill.fee,
            liquidity=fill.liquidity,
            trade_time=fill.trade_time,
            value=fill.value,
        )


def signed(side: Side, quantity: Decimal) -> Decimal:
    return quantity if side is Side.BUY else -quantity
