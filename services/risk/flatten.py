"""Closing every position for an operator: market sells of all that is held, attempt after attempt, until nothing is.

Each attempt is a signal of risk's own making, decided like any other and remembered for ever: the same attempt never
becomes a second order, whatever restarts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from libs.common.messages import Closing, OrderType, Side, Signal, TimeInForce, derive_id
from services.risk import state as s
from services.risk.books import ZERO, Holding
from services.risk.knowledge import Knowledge
from services.risk.operator import OPERATOR

PAUSE_SECONDS_MAX = 60


def pause(attempts: int) -> timedelta:
    """After that many attempts: 1, 2, 4, ... seconds."""
    return timedelta(seconds=min(2 ** min(attempts - 1, 10), PAUSE_SECONDS_MAX)) if attempts else timedelta(0)


def next_signals(flatten: str, state: s.State, known: Knowledge, now: datetime, ttl: timedelta) -> list[Signal]:
    """The attempts that are due: of what is held, can be sold, and has no sale open. An open sale comes first to its
    end; execution cancels those that rest."""
    selling = {order.order.product_id for order in state.orders.values() if order.order.side is Side.SELL}
    found = []
    for product_id, holding in sorted(state.books.holdings.items()):
        tried = _tried(state, product_id, flatten)
        if product_id in selling or holding.quantity <= 0 or _dust(state, known, product_id):
            continue
        if now >= tried.at + pause(tried.attempts):
            attempt = tried.attempts + 1
            while state.answers.known(attempt_id(flatten, known, product_id, attempt)):
                attempt += 1  # somebody else has used that name
            found.append(_signal(flatten, known, product_id, attempt, holding.quantity, now, ttl))
    return found


def closing(flatten: str, state: s.State, known: Knowledge) -> dict[str, Closing]:
    """How far it is, for everybody else: what is held, what it has sold, and what may still come of open orders."""
    open_orders = {order.order.product_id: order for order in state.orders.values()}
    found = {}
    for product_id in sorted(state.books.holdings.keys() | open_orders.keys()):
        holding, tried = state.books.holdings.get(product_id, Holding()), _tried(state, product_id, flatten)
        open_order = open_orders.get(product_id)
        if not holding.quantity and not tried.attempts and open_order is None:
            continue
        outcome, detail = "waiting" if holding.quantity else "flat", tried.detail
        if open_order is not None:
            wanted, status = open_order.order, open_order.status or "APPROVED"
            outcome = "selling" if wanted.flatten else "waiting"
            detail = f"{wanted.side} {wanted.client_order_id} is {status}"
        elif outcome == "waiting" and _dust(state, known, product_id):
            outcome = "dust"
        found[product_id] = Closing(
            held=holding.quantity,
            sold=tried.sold,
            outcome=outcome,
            attempts=tried.attempts,
            detail=detail if outcome in ("selling", "waiting") else "",
        )
    return found


def _tried(state: s.State, product_id: str, flatten: str) -> s.Closing:
    known = state.closings.get(product_id)
    return known if known is not None and known.flatten == flatten else s.Closing(flatten)


def _dust(state: s.State, known: Knowledge, product_id: str) -> bool:
    holding = state.books.holdings[product_id]
    return holding.position(known.marks.get(product_id), known.rules.get(product_id)).dust


def attempt_id(flatten: str, known: Knowledge, product_id: str, attempt: int) -> str:
    return derive_id(known.installation_id, "flatten", flatten, product_id, attempt)


def _signal(
    flatten: str, known: Knowledge, product_id: str, attempt: int, quantity: Decimal, now: datetime, ttl: timedelta
) -> Signal:
    return Signal(
        id=attempt_id(flatten, known, product_id, attempt),
        cause=flatten,
        producer=OPERATOR,
        at=now,
        product_id=product_id,
        strategy=OPERATOR,
        side=Side.SELL,
        order_type=OrderType.MARKET,
        time_in_force=TimeInForce.IOC,
        quantity=max(ZERO, quantity),
        limit_price=None,
        reduce_only=True,
        reason="flatten",
        trigger=flatten,
        attempt=attempt,
        expires_at=now + ttl,
    )
