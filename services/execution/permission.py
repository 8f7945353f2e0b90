"""May this approval still be sent, and with which quantity? The last look before anything leaves. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal

from libs.common import messages as m
from libs.common.messages import Reason, Side
from services.execution.inputs import Edit, Place
from services.execution.orders import Order

ZERO = Decimal(0)


def forbidden(trading: m.TradingState, reduce_only: bool) -> Reason | None:
    """What the trading state itself says."""
    if trading.state is m.Trading.HALTED:
        return Reason.TRADING_HALTED
    if trading.state is m.Trading.REDUCING and not reduce_only:
        return Reason.TRADING_REDUCING
    return None


def refusal(request: Place | Edit, trading: m.TradingState, now: datetime) -> Reason | None:
    """The last check, right before the request, with the trading state read again."""
    if trading.revision != request.trading_revision:
        return Reason.TRADING_STATE_CHANGED
    if now > request.expires_at:
        return Reason.APPROVAL_EXPIRED
    order = request.order if isinstance(request, Place) else request.wanted
    return forbidden(trading, order.reduce_only)


def outdated(
    trading: m.TradingState | None, revision: int, expires_at: datetime, reduce_only: bool, now: datetime
) -> Reason | None:
    """Why an approval of that revision holds no more."""
    if trading is None:
        return Reason.TRADING_STATE_UNKNOWN
    if trading.revision > revision:
        return Reason.TRADING_STATE_CHANGED
    if now > expires_at:
        return Reason.APPROVAL_EXPIRED
    # Risk may have read a newer state than we have been told: the check before the request reads the stored one.
    return forbidden(trading, reduce_only) if trading.revision in (0, revision) else None


def sized(
    order: Order, orders: Iterable[Order], positions: Mapping[str, Decimal], rules: m.Product | None
) -> tuple[Reason | None, Decimal]:
    """The quantity that may go out: a sale never exceeds what is held now, less what other open sales may still take.
    With a reason nothing may."""
    wanted = order.order
    if rules is not None and rules.forbids(wanted.order_type, wanted.time_in_force, wanted.post_only):
        return Reason.PRODUCT_NOT_TRADABLE, wanted.quantity
    if wanted.side is Side.BUY:
        return (Reason.EVALUATION_FAILED if wanted.reduce_only else None), wanted.quantity
    if rules is None:
        return Reason.PRODUCT_UNKNOWN, wanted.quantity
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
