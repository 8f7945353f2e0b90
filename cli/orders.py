"""`perps-bot orders list` and `orders show`: what the venue says of its orders, and the ledger of ours."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from typing import TypeVar

from cli.coinbase import Orders
from cli.errors import Refused
from cli.output import Json, jsonable
from libs.common import messages as m
from libs.common.errors import BadConfig, OutcomeUnknown, Rejected, Retryable
from services.execution.inputs import VenueFill, VenueOrder

PRECISION = 100  # no sum of ours comes near: nothing is rounded here
ID = re.compile(r"[0-9A-Za-z_-]+")
ABSENT = ("HTTP_400", "HTTP_404")  # the venue's answer to an id that is none of its own
T = TypeVar("T")
Steps = Callable[[str], Awaitable[list[m.Message] | None]]  # of an order by its client id; None without a bus


def row(order: VenueOrder) -> Json:
    """An order as it is shown; `ours` where its client order id proves that a bot of this kind made it."""
    found: Json = jsonable(order)
    return {**found, "ours": m.is_ours(order.client_order_id)}


def check_id(order_id: str) -> str:
    """Raises BadConfig for what can be no id: an empty one makes the venue hang."""
    if not ID.fullmatch(order_id):
        raise BadConfig(f"ORDER {order_id!r} is not an order id: give the venue's or the client order id")
    return order_id


async def list_orders(venue: Orders, product: str, open_only: bool, since: datetime | None, limit: int) -> Json:
    """The newest orders, at most `limit`; with `open_only` all that have not ended."""
    if open_only:
        # One that opens while we read is listed twice, and what has been shown as open may be over by now.
        found = {o.venue_order_id: o async for page in venue.orders(product_id=product, open_only=True) for o in page}
        orders, more = [order for order in found.values() if order.status not in m.TERMINAL], False
    else:
        orders, more = await first(venue.orders(product_id=product, since=since), limit)
    return {"orders": [row(order) for order in orders], "more": more}


async def first(pages: AsyncIterator[list[T]], limit: int) -> tuple[list[T], bool]:
    """The first so many of a listing, and whether there are more."""
    found: list[T] = []
    async for page in pages:
        found += page
        if len(found) > limit:
            return found[:limit], True
    return found, False


async def look_up(venue: Orders, order_id: str) -> VenueOrder | None:
    """By the venue's id or, paging through the listing (it has no such filter), by the client order id."""
    if not m.is_ours(order_id):
        try:
            return (await venue.order(order_id))[0]
        except Rejected as error:
            if error.reason not in ABSENT:
                raise
    async for page in venue.orders():
        for order in page:
            if order_id in (order.client_order_id, order.venue_order_id):
                return order
    return None


async def must_find(venue: Orders, order_id: str) -> VenueOrder:
    """Raises Refused where the venue has no such order."""
    found = await look_up(venue, check_id(order_id))
    if found is None:
        raise Refused(f"the venue has no order {order_id}")
    return found


async def show_order(venue: Orders, steps_of: Steps, order_id: str) -> tuple[Json, str]:
    """An order with its fills and its steps; and why the venue's part is missing, if it is."""
    silence = ""
    found: VenueOrder | None = None
    fills: Sequence[VenueFill] = ()
    try:
        found = await look_up(venue, check_id(order_id))
        if found is not None:
            found, fills = await venue.order(found.venue_order_id)
    except (Retryable, OutcomeUnknown) as error:
        silence = str(error)
    steps = await steps_of(found.client_order_id if found else order_id)
    if found is None and not steps:
        if silence:
            raise OutcomeUnknown(silence)
        bus = "and there is no bus to ask for its steps" if steps is None else "nor does the ledger"
        raise Refused(f"the venue has no order {order_id}, {bus}")
    return {
        "order": row(found) if found else None,
        **average(fills),
        "fills": jsonable(fills),
        "steps": None if steps is None else [step_row(step) for step in steps],
    }, silence


def average(fills: Sequence[VenueFill]) -> Json:
    """Quantity, value, fees and average price of fills; all but the average are exact."""
    with localcontext() as context:
        context.prec = PRECISION
        size = sum((fill.size for fill in fills), Decimal(0))
        value = sum((fill.quote_value for fill in fills), Decimal(0))
        fees = sum((fill.fee for fill in fills), Decimal(0))
    return {"filled_qty": size, "filled_value": value, "fees": fees, "average_price": value / size if size else None}


def step_row(step: m.Message) -> Json:
    assert isinstance(step, m.OrderEvent)
    return {
        "revision": step.revision,
        "at": step.at,
        "status": step.status,
        "reason": step.reason,
        "quantity": step.order.quantity,
        "limit_price": step.order.limit_price,
        "filled_qty": step.filled_qty,
        "fees": step.fees,
        "edit_id": step.edit_id,
    }
