"""What an operator asks for, as the signal that it becomes: from there on nothing distinguishes it from the strategy's.

A request id is remembered for ever (see `state.Answers`).
"""

from __future__ import annotations

from datetime import timedelta

from libs.common.messages import ApprovedOrder, Message, OrderRequest, OrderType, Signal, TimeInForce, derive_id, sound
from services.risk.books import ZERO

OPERATOR = "operator"


class OrderAsked(Message, frozen=True, kw_only=True):
    """Somebody asks for an order. `at` is when: a request that had to wait too long is not carried out any more."""

    request: OrderRequest | None
    reason: str
    who: str
    command: str = "order"


def fault(request: OrderRequest) -> str:
    """Why it cannot even become a signal; empty when it can. Whether its fields belong together is a rule."""
    if not request.request_id.strip():
        return "request_id is empty: choose one, and send the same again when no answer came"
    if not request.product_id:
        return "product_id is empty"
    if not sound(request):
        return "a number is not finite or a time has no zone"
    if request.edits:
        strangers = [
            name for name in ("quote_size", "stop_price", "stop_direction", "end_time") if _given(request, name)
        ]
        if strangers or request.post_only:
            return f"an edit changes quantity and limit_price, not {(strangers or ['post_only'])[0]}"
        return "" if request.quantity or request.limit_price else "an edit needs a quantity or a limit_price"
    if (request.quantity is None) == (request.quote_size is None):
        return "give either quantity or quote_size"
    return ""


def _given(request: OrderRequest, name: str) -> bool:
    return getattr(request, name) is not None


def signal_of(
    asked: OrderAsked, request: OrderRequest, installation: str, ttl: timedelta, edited: ApprovedOrder | None
) -> Signal:
    """The same request id is the same signal, and so the same order. `edited` is what an edit changes, where it is
    known: what the request leaves out stays as it is."""
    edit = bool(request.edits)
    quantity, limit_price = request.quantity, request.limit_price
    if edited is not None:
        quantity = edited.quantity if quantity is None else quantity
        limit_price = edited.limit_price if limit_price is None else limit_price
    return Signal(
        id=derive_id(installation, OPERATOR, request.request_id),
        cause=asked.id,
        producer=OPERATOR,
        at=asked.at,
        product_id=request.product_id,
        strategy=OPERATOR,
        side=request.side,
        order_type=OrderType.LIMIT if edit else request.order_type,
        time_in_force=TimeInForce.GTC if edit else request.time_in_force,
        quantity=ZERO if quantity is None else quantity,
        limit_price=limit_price,
        reduce_only=request.reduce_only,
        reason=asked.reason,
        trigger=request.request_id,
        attempt=1,
        expires_at=asked.at + ttl,
        quote_size=request.quote_size,
        stop_price=request.stop_price,
        stop_direction=request.stop_direction,
        post_only=request.post_only,
        end_time=request.end_time,
        edits=request.edits,
    )
