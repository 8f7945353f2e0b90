"""The venue's words, read strictly where money depends on them. Pure.

Shapes: REST orders and fills, the user channel (other field names, `reject_Reason` with a capital R in production),
create answers whose failure code may stand in three places. Decimals may arrive as empty strings.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from libs.common.errors import OutcomeUnknown, Rejected
from libs.common.messages import Balance, Side
from services.execution.inputs import VenueFill, VenueOrder
from services.execution.orders import VENUE_STATUS

SATOSHI = Decimal("1E-8")  # the finest base increment of the venue
NO_REASON = ("", "UNKNOWN_FAILURE_REASON", "UNKNOWN_PREVIEW_FAILURE_REASON", "REJECT_REASON_UNSPECIFIED")


class _RestOrder(Struct):
    order_id: str
    product_id: str
    side: Side
    status: str
    client_order_id: str = ""
    filled_size: str | None = None
    reject_reason: str | None = None


class _OrderPage(Struct):
    orders: list[_RestOrder]
    has_next: bool = False
    cursor: str = ""


class _OneOrder(Struct):
    order: _RestOrder


class _RestFill(Struct):
    entry_id: str
    trade_id: str
    order_id: str
    trade_time: Annotated[datetime, Meta(tz=True)]
    price: str
    size: str
    commission: str
    product_id: str
    side: Side
    liquidity_indicator: str = ""
    size_in_quote: bool = False


class _FillPage(Struct):
    fills: list[_RestFill]
    cursor: str = ""


class _Success(Struct):
    order_id: str


class _Failure(Struct):
    error: str = ""
    message: str = ""
    error_details: str = ""
    preview_failure_reason: str = ""
    new_order_failure_reason: str = ""


class _Created(Struct):
    success: bool
    success_response: _Success | None = None
    error_response: _Failure | None = None
    failure_reason: str | None = None


class _Amount(Struct):
    value: str


class _Wallet(Struct):
    currency: str
    available_balance: _Amount
    hold: _Amount


class _AccountPage(Struct):
    accounts: list[_Wallet]
    has_next: bool = False
    cursor: str = ""


class _FeeTier(Struct):
    taker_fee_rate: str
    maker_fee_rate: str


class _Summary(Struct):
    fee_tier: _FeeTier


class _UserOrder(Struct):
    order_id: str
    product_id: str
    order_side: Side
    status: str
    client_order_id: str = ""
    cumulative_quantity: str = ""
    reject_Reason: str = ""
    reject_reason: str = ""


class _UserEvent(Struct):
    type: str = ""
    orders: list[msgspec.Raw] = []


class _UserFrame(Struct):
    channel: str = ""
    events: list[msgspec.Raw] = []
    type: str = ""
    message: str = ""


def decimal(text: str) -> Decimal:
    """A number of the venue; an empty string is zero. Raises OutcomeUnknown for anything that is no finite number."""
    try:
        number = Decimal(text or "0")
    except InvalidOperation:
        raise OutcomeUnknown(f"not a number: {text!r}") from None
    if not number.is_finite():
        raise OutcomeUnknown(f"not a number: {text!r}")
    return number


def decode(data: bytes, kind: Any) -> Any:
    """Raises OutcomeUnknown when the answer is not what it should be: then nothing is known."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OutcomeUnknown(f"unreadable answer: {error}") from None


def parse_created(data: bytes) -> str:
    """The venue's order id of a create answer. Raises Rejected with the venue's reason, or OutcomeUnknown."""
    answer: _Created = decode(data, _Created)
    if answer.success:
        if answer.success_response is None or not answer.success_response.order_id:
            raise OutcomeUnknown("success without an order id")
        return answer.success_response.order_id
    failure = answer.error_response or _Failure()
    words = (failure.new_order_failure_reason, failure.preview_failure_reason, failure.error, answer.failure_reason)
    reasons = [word for word in words if word and word not in NO_REASON]
    if not reasons or "DUPLICATE_CLIENT_ORDER_ID" in f"{reasons} {failure.message} {failure.error_details}":
        raise OutcomeUnknown(f"no order, and it may be there: {reasons} {failure.message}")
    raise Rejected(reasons[0], failure.message or failure.error_details)


def parse_order(data: bytes) -> VenueOrder:
    return _order(decode(data, _OneOrder).order)


def parse_orders(data: bytes) -> tuple[list[VenueOrder], str]:
    """One page and the cursor of the next, empty at the end."""
    page: _OrderPage = decode(data, _OrderPage)
    if page.has_next and not page.cursor:
        raise OutcomeUnknown("a page that says there is more, without a cursor")
    return [_order(order) for order in page.orders], page.cursor if page.has_next else ""


def _order(order: _RestOrder) -> VenueOrder:
    return VenueOrder(
        venue_order_id=order.order_id,
        client_order_id=order.client_order_id,
        product_id=order.product_id,
        side=order.side,
        status=VENUE_STATUS.get(order.status),
        status_word=order.status,
        filled_qty=decimal(order.filled_size) if order.filled_size else None,
        reject_reason="" if (order.reject_reason or "") in NO_REASON else str(order.reject_reason),
    )


def parse_fills(data: bytes) -> tuple[list[VenueFill], str]:
    """One page and the cursor of the next. There is no `has_next`: the end is an empty cursor or an empty page."""
    page: _FillPage = decode(data, _FillPage)
    return [_fill(fill) for fill in page.fills], page.cursor if page.fills else ""


def _fill(fill: _RestFill) -> VenueFill:
    price, size = decimal(fill.price), decimal(fill.size)
    if price <= 0 or size <= 0:
        raise OutcomeUnknown(f"fill {fill.entry_id} of {size} at {price}")
    return VenueFill(
        entry_id=fill.entry_id,
        trade_id=fill.trade_id,
        venue_order_id=fill.order_id,
        product_id=fill.product_id,
        side=fill.side,
        price=price,
        size=(size / price).quantize(SATOSHI) if fill.size_in_quote else size,
        fee=decimal(fill.commission),
        liquidity=fill.liquidity_indicator,
        trade_time=fill.trade_time,
    )


def parse_accounts(data: bytes) -> tuple[dict[str, Balance], str]:
    page: _AccountPage = decode(data, _AccountPage)
    balances = {
        wallet.currency: Balance(available=decimal(wallet.available_balance.value), hold=decimal(wallet.hold.value))
        for wallet in page.accounts
    }
    if page.has_next and not page.cursor:
        raise OutcomeUnknown("a page that says there is more, without a cursor")
    return balances, page.cursor if page.has_next else ""


def parse_fee_rates(data: bytes) -> tuple[Decimal, Decimal]:
    """Taker and maker rate, as fractions."""
    tier: _FeeTier = decode(data, _Summary).fee_tier
    return decimal(tier.taker_fee_rate), decimal(tier.maker_fee_rate)


def parse_user_frame(data: bytes | str) -> list[VenueOrder]:
    """The orders that a user-channel frame mentions; none for other channels.

    Raises Rejected for the venue's error frame, OutcomeUnknown for what cannot be read.
    """
    frame: _UserFrame = decode(data if isinstance(data, bytes) else data.encode(), _UserFrame)
    if frame.type == "error":
        raise Rejected("user_channel", frame.message)
    if frame.channel != "user":
        return []
    return [
        order
        for raw in frame.events
        for one in decode(bytes(raw), _UserEvent).orders
        if (order := _user_order(bytes(one)))
    ]


def _user_order(data: bytes) -> VenueOrder | None:
    """None for one that cannot be read: an order of somebody else must not hide ours, which polling finds anyway."""
    try:
        order: _UserOrder = decode(data, _UserOrder)
        filled = decimal(order.cumulative_quantity)
    except OutcomeUnknown:
        return None
    if not order.order_id:
        return None
    return VenueOrder(
        venue_order_id=order.order_id,
        client_order_id=order.client_order_id,
        product_id=order.product_id,
        side=order.order_side,
        status=VENUE_STATUS.get(order.status),
        status_word=order.status,
        filled_qty=filled,
        reject_reason=order.reject_Reason or order.reject_reason,
    )
