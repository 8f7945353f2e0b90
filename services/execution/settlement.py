"""What an answer about one order means: the fills that are new, and whether the order is at its end. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct, field

from libs.common import messages as m
from libs.common.messages import OrderStatus
from services.execution.inputs import OrderSeen, VenueOrder
from services.execution.orders import ENDED_BY_VENUE, Order

CENT_PART = Decimal("1E-8")  # the venue rounds its sums; below this two figures are the same


class Settlement(Struct):
    """`facts` for the ledger; `news`: ask again at once; `odd`: contradictions to show."""

    facts: list[m.Message] = field(default_factory=list)
    ended: bool = False
    news: bool = False
    odd: int = 0


def settle(order: Order, answer: OrderSeen, now: datetime) -> Settlement:
    """Book what is new, and end the order only when every fill that the venue counts is booked."""
    told, found = answer.order, Settlement()
    new = list({fill.entry_id: fill for fill in answer.fills if fill.entry_id not in order.entry_ids}.values())
    found.facts += [order.fill_of(fill, now) for fill in new]
    filled = order.filled_qty + sum((fill.size for fill in new), Decimal(0))
    value = order.filled_value + sum((fill.quote_value for fill in new), Decimal(0))
    status = told.status
    empty = status is OrderStatus.FILLED and not filled
    if order.overfilled(filled, value) or status is None or empty:
        found.odd += 1
    # Where the venue tells no figure of its own, its complete list of fills is the truth.
    complete = told.filled_qty is None or abs(filled - told.filled_qty) < CENT_PART
    if status in ENDED_BY_VENUE and complete and not empty:
        reason = told.reject_reason or told.status_word.lower()
        end = order.progress(status, reason, new, now)
        found.odd += _sums_differ(end, told)
        found.facts.append(end)
        found.ended = True
    elif new:
        editing = order.status is OrderStatus.PENDING_UPDATE
        kept = OrderStatus.PENDING_UPDATE if editing else OrderStatus.PARTIALLY_FILLED
        found.facts.append(order.progress(kept, "partially filled", new, now))
        found.news = True
    elif status is OrderStatus.PENDING_CANCEL and order.status in (OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED):
        found.facts.append(order.event(status, "cancel queued", now))
    return found


def matches(order: Order, answer: OrderSeen) -> bool:
    """The venue speaks of our order, and its fills are ours: same product, side and order."""
    ours = (order.order.product_id, order.order.side, order.venue_order_id)
    told = answer.order
    return (told.product_id, told.side, told.venue_order_id) == ours and all(
        (fill.product_id, fill.side, fill.venue_order_id) == ours for fill in answer.fills
    )


def shows_edit(order: Order, told: VenueOrder) -> bool | None:
    """Whether the venue's order is what the edit under way wants, or still what it was; None where that cannot be told:
    the venue works on it, or shows terms that nobody asked for."""
    assert order.edit is not None, "no edit is under way"
    if told.status_word == "EDIT_QUEUED":
        return None
    wanted = (order.edit.wanted.quantity, order.edit.wanted.limit_price)
    if wanted in ((told.quantity, told.limit_price), *told.edits[-1:]):
        return True
    return False if _as_ordered(order, told) else None


def strange_terms(order: Order, told: VenueOrder) -> bool:
    """An open order, with no edit under way, that is not what we ordered: somebody edited it at the venue."""
    return order.edit is None and order.editable and told.quantity is not None and not _as_ordered(order, told)


def _as_ordered(order: Order, told: VenueOrder) -> bool:
    return (told.quantity, told.limit_price) == (order.order.quantity, order.order.limit_price)


def _sums_differ(end: m.OrderEvent, told: VenueOrder) -> bool:
    """The venue's own sums of value and fees against those of its fills."""
    pairs = ((end.filled_value, told.filled_value), (end.fees, told.fees))
    return any(theirs is not None and abs(ours - theirs) > CENT_PART for ours, theirs in pairs)
