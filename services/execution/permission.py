"""What may leave, with which quantity, and what may not stay: the last look at an order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from libs.common import messages as m
from libs.common.messages import Reason, Side
from services.execution.inputs import Cancel, Edit, Place
from services.execution.orders import Order

ZERO = Decimal(0)


def forbidden(trading: m.TradingState, wanted: m.ApprovedOrder) -> Reason | None:
    """What the trading state itself says. A halt with a closing in force lets the orders of that closing out."""
    if wanted.flatten and not closes(wanted):
        return Reason.EVALUATION_FAILED
    if trading.state is m.Trading.HALTED and not (wanted.flatten and trading.flatten):
        return Reason.TRADING_HALTED
    if trading.state is m.Trading.REDUCING and not wanted.reduce_only:
        return Reason.TRADING_REDUCING
    return None


def closes(wanted: m.ApprovedOrder) -> bool:
    """It can only sell, only what is held, and at once: what may leave while everything else is stopped."""
    return wanted.side is Side.SELL and wanted.reduce_only and not wanted.time_in_force.rests


def refusal(request: Place | Edit, trading: m.TradingState, now: datetime) -> Reason | None:
    """The last check, right before the request, with the trading state read again."""
    if trading.revision != request.trading_revision:
        return Reason.TRADING_STATE_CHANGED
    if now > request.expires_at:
        return Reason.APPROVAL_EXPIRED
    order = request.order if isinstance(request, Place) else request.wanted
    return forbidden(trading, order)


def overtaken(request: Place | Edit, latest: m.TradingState | None, now: datetime) -> bool:
    """What was allowed a moment ago may not leave any more: it had to wait for its turn. A state that is older than the
    one it was decided under has only not been told yet; revision 0 is a state that was lost."""
    if latest is not None and 0 < latest.revision < request.trading_revision:
        return now > request.expires_at
    return latest is None or refusal(request, latest, now) is not None


def outdated(
    trading: m.TradingState | None, revision: int, expires_at: datetime, wanted: m.ApprovedOrder, now: datetime
) -> Reason | None:
    """Why an approval of that revision holds no more."""
    if trading is None:
        return Reason.TRADING_STATE_UNKNOWN
    if trading.revision > revision:
        return Reason.TRADING_STATE_CHANGED
    if now > expires_at:
        return Reason.APPROVAL_EXPIRED
    # Risk may have read a newer state than we have been told: the check before the request reads the stored one.
    return forbidden(trading, wanted) if trading.revision in (0, revision) else None


def closed(wanted: m.ApprovedOrder, rules: m.Product | None) -> Reason | None:
    """Why the product takes no such order now; one that is not known takes none."""
    if rules is None:
        return Reason.PRODUCT_UNKNOWN
    forbids = rules.forbids(wanted.order_type, wanted.time_in_force, wanted.post_only)
    return Reason.PRODUCT_NOT_TRADABLE if forbids else None


def sized(
    order: Order, orders: Iterable[Order], positions: Mapping[str, Decimal], rules: m.Product | None
) -> tuple[Reason | None, Decimal]:
    """The quantity that may go out: a sale never exceeds what is held now, less what other open sales may still take.
    With a reason nothing may."""
    wanted = order.order
    if reason := closed(wanted, rules):
        return reason, wanted.quantity
    assert rules is not None, "a product without rules is closed"
    if wanted.side is Side.BUY:
        return (Reason.EVALUATION_FAILED if wanted.reduce_only else None), wanted.quantity
    held = free(order, orders, positions)
    quantity = min(wanted.quantity, held // rules.base_increment * rules.base_increment)
    if quantity <= 0:
        return Reason.NOTHING_TO_REDUCE, wanted.quantity
    return (Reason.DUST if quantity < rules.base_min_size else None), quantity


def free(order: Order, orders: Iterable[Order], positions: Mapping[str, Decimal]) -> Decimal:
    """Base currency that is held and not promised to other sales: to those begun, and those approved before it."""
    held = positions.get(order.order.product_id, ZERO)
    earlier = True
    for other in orders:
        if other is order:
            earlier = False
        elif other.order.product_id == order.order.product_id and other.order.side is Side.SELL:
            held -= other.open_quantity if earlier or other.status is not None else ZERO
    return held


def editable(
    order: Order,
    wanted: m.ApprovedOrder,
    orders: Iterable[Order],
    positions: Mapping[str, Decimal],
    rules: m.Product | None,
) -> Reason | None:
    """Why the order may not become what is wanted."""
    if not order.editable:
        return Reason.ORDER_NOT_EDITABLE
    if reason := closed(wanted, rules):
        return reason
    if wanted.side is Side.SELL and wanted.quantity - order.filled_qty > free(order, orders, positions):
        return Reason.NOTHING_TO_REDUCE
    return None


def unwanted(order: Order, trading: m.TradingState | None) -> list[m.Message]:
    """A resting entry has no place in a halt or a reduction, and nothing that rests beside a closing, which needs all
    that is held: cancel it, again at every look until it is gone."""
    if trading is None or not order.resting:
        return []
    if not trading.flatten and (trading.state is m.Trading.ACTIVE or order.order.side is Side.SELL):
        return []
    key = order.order.client_order_id
    return [Cancel(id=f"cancel-{key}", client_order_id=key, venue_order_id=order.venue_order_id)]


def live_entries(orders: Iterable[Order]) -> list[Order]:
    """Orders that may rest at the venue and could still raise a position."""
    begun = (order for order in orders if order.status is not None and not order.terminal)
    return [order for order in begun if order.order.side is Side.BUY and order.order.time_in_force.rests]
