"""What the venue tells about orders and fills, read strictly where money depends on it. Pure.

Shapes: REST orders and fills, the user channel (other field names, `reject_Reason` with a capital R in production).
Decimals may arrive as empty strings. Every parser raises OutcomeUnknown for what it cannot read: then nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from libs.common.errors import OutcomeUnknown, Rejected
from libs.common.messages import (
    EPOCH,
    OrderStatus,
    OrderType,
    Side,
    is_ours,
    sound,
)
from libs.common.words import TimeInForce
from services.execution.bodies import CONFIGURATIONS
from services.execution.inputs import VenueFill, VenueOrder
from services.execution.orders import VENUE_STATUS

FINEST = Decimal("1E-12")  # to which the base size of a fill that is told in the quote currency is rounded
MAGNITUDE_MAX = 30  # decimal places before or after the point; written out, a larger exponent would fill the memory
NO_REASON = (
    "",
    "UNKNOWN_FAILURE_REASON",
    "UNKNOWN_PREVIEW_FAILURE_REASON",
    "UNKNOWN_EDIT_ORDER_FAILURE_REASON",
    "REJECT_REASON_UNSPECIFIED",
)
KINDS = {key: kind for kind, key in CONFIGURATIONS.items()}
TIMES_IN_FORCE = {
    "GOOD_UNTIL_CANCELLED": TimeInForce.GTC,
    "GOOD_UNTIL_DATE_TIME": TimeInForce.GTD,
    "IMMEDIATE_OR_CANCEL": TimeInForce.IOC,
    "FILL_OR_KILL": TimeInForce.FOK,
}
# The venue's other trade types are REVERSAL, CORRECTION and SYNTHETIC; what they do to a fill it does not say.
FILLED = (None, "", "FILL")
Count = Callable[[str], None]


class _RestOrder(Struct):
    """Strict is what the life of an order hangs on; the rest is told where it can be read."""

    order_id: str
    product_id: str
    side: Side
    status: str
    client_order_id: str | None = None
    filled_size: str | None = None
    reject_reason: str | None = None
    order_configuration: Any = None
    order_type: Any = None
    time_in_force: Any = None
    filled_value: Any = None
    total_fees: Any = None
    created_time: Any = None
    edit_history: Any = None


class Paged(Struct):
    has_next: bool = False
    cursor: str = ""


class _OrderPage(Paged, kw_only=True):
    orders: list[msgspec.Raw]


class _Named(Struct):
    client_order_id: str | None = None


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
    trade_type: str | None = None


class _Owned(Struct):
    order_id: str


class _FillPage(Struct):
    fills: list[msgspec.Raw]
    cursor: str = ""


class _Time(Struct, rename="camel"):
    epoch_millis: str


class _UserOrder(Struct):
    order_id: str
    product_id: str
    order_side: Side
    status: str
    client_order_id: str | None = None
    cumulative_quantity: str = ""
    reject_Reason: str | None = None
    reject_reason: str | None = None
    order_type: Any = None
    time_in_force: Any = None
    leaves_quantity: Any = None
    limit_price: Any = None
    stop_price: Any = None
    post_only: Any = None
    filled_value: Any = None
    total_fees: Any = None
    creation_time: Any = None


class _UserEvent(Struct):
    orders: list[msgspec.Raw] = []
    subscriptions: dict[str, Any] = {}


class _Envelope(Struct):
    channel: str = ""
    sequence_num: int | None = None
    events: msgspec.Raw = msgspec.Raw(b"[]")
    type: str = ""
    message: str = ""


class UserFrame(NamedTuple):
    """One frame: its number on this connection (None where it has none), whether it proves that the user channel is
    subscribed to, and the orders that it mentions."""

    number: int | None
    subscribed: bool
    orders: list[VenueOrder]


def decimal(text: str) -> Decimal:
    """A number of the venue; an empty string is zero. Raises OutcomeUnknown for anything that is no sane number."""
    number = _number(text or "0")
    if number is None:
        raise OutcomeUnknown(f"not a number: {text[:40]!r}")
    return number


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if sound(number) and abs(number.adjusted()) <= MAGNITUDE_MAX else None


def figure(value: object) -> Decimal | None:
    """A number that an answer may leave out: None where it is absent, empty or unreadable."""
    return _number(str(value)) if isinstance(value, str | int | Decimal) and value != "" else None


def _moment(value: object) -> datetime | None:
    try:
        moment = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return None
    return moment if moment.tzinfo and moment > EPOCH else None  # 0001-01-01 is the venue's "never"


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, float_hook=Decimal)


def decode(data: bytes | str, kind: Any) -> Any:
    """Raises OutcomeUnknown when the answer is not what it should be: then nothing is known."""
    try:
        return _decoder(kind).decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError, InvalidOperation) as error:
        raise OutcomeUnknown(f"unreadable answer: {error!s:.200}") from None


def following(page: Paged) -> str:
    """The cursor of the next page, empty at the end."""
    if page.has_next and not page.cursor:
        raise OutcomeUnknown("a page that says there is more, without a cursor")
    return page.cursor if page.has_next else ""


# -- orders


def parse_order(data: bytes) -> VenueOrder:
    return _order(decode(data, _OneOrder).order)


def uncounted(word: str) -> None:
    """For who does not count what a listing leaves out."""


def parse_orders(data: bytes, count: Count = uncounted) -> tuple[list[VenueOrder], str]:
    """One page and the cursor of the next, empty at the end. `count` is told `odd_order` for each one left out."""
    page: _OrderPage = decode(data, _OrderPage)
    return [order for raw in page.orders if (order := _listed(bytes(raw), count))], following(page)


def _listed(data: bytes, count: Count) -> VenueOrder | None:
    """None for an order that cannot be read and by its id is not ours: it must not hide the others of its page. One
    without an id may be ours: a listing that leaves it out would say that ours never arrived."""
    try:
        return _order(decode(data, _RestOrder))
    except OutcomeUnknown:
        key = decode(data, _Named).client_order_id
        if not key or is_ours(key):
            raise
        count("odd_order")
        return None


def _order(order: _RestOrder) -> VenueOrder:
    if not order.order_id:
        raise OutcomeUnknown("an order without an id")
    key, terms = _terms(order.order_configuration)
    order_type, time_in_force = KINDS.get(key, (_type(order.order_type), TIMES_IN_FORCE.get(str(order.time_in_force))))
    return VenueOrder(
        venue_order_id=order.order_id,
        client_order_id=order.client_order_id or "",
        product_id=order.product_id,
        side=order.side,
        status=VENUE_STATUS.get(order.status),
        status_word=order.status,
        filled_qty=decimal(order.filled_size) if order.filled_size else None,
        reject_reason=_reason(order.reject_reason),
        order_type=order_type,
        time_in_force=time_in_force,
        quantity=figure(terms.get("base_size")),
        quote_size=figure(terms.get("quote_size")),
        limit_price=figure(terms.get("limit_price")),
        stop_price=figure(terms.get("stop_price") or terms.get("stop_trigger_price")),
        post_only=terms.get("post_only") is True,
        filled_value=figure(order.filled_value),
        fees=figure(order.total_fees),
        created_at=_moment(order.created_time),
        edits=_edits(order.edit_history),
    )


def _terms(configuration: object) -> tuple[str, dict[str, Any]]:
    """Key and fields of an order configuration; empty for anything but one key with fields."""
    if isinstance(configuration, dict):
        found = [(key, fields) for key, fields in configuration.items() if isinstance(fields, dict)]
        if len(found) == 1:
            return found[0]
    return "", {}


def _edits(history: object) -> tuple[tuple[Decimal, Decimal], ...]:
    """Size and price of each edit that can be read."""
    told = [edit for edit in history if isinstance(edit, dict)] if isinstance(history, list) else []
    pairs = [(figure(edit.get("size")), figure(edit.get("price"))) for edit in told]
    return tuple((size, price) for size, price in pairs if size is not None and price is not None)


def _type(word: object) -> OrderType | None:
    """`LIMIT` in REST, `Limit` and `Stop Limit` on the user channel."""
    name = str(word).upper().replace(" ", "_")
    return OrderType(name) if name in OrderType.__members__ else None


def _reason(*words: str | None) -> str:
    return next((word for word in words if word and word not in NO_REASON), "")


# -- fills


def parse_fills(data: bytes, order_id: str = "", count: Count = uncounted) -> tuple[list[VenueFill], str]:
    """One page and the cursor of the next. There is no `has_next`: the end is an empty cursor or an empty page.

    Where the fills of one order were asked for, each of its own must be readable. Any other that is not, or is no
    ordinary fill, is left out, so that it hides nothing; `count` is told `odd_fill`.
    """
    page: _FillPage = decode(data, _FillPage)
    fills = [fill for raw in page.fills if (fill := _listed_fill(bytes(raw), order_id, count))]
    return fills, page.cursor if page.fills else ""


def _listed_fill(data: bytes, order_id: str, count: Count) -> VenueFill | None:
    owner = decode(data, _Owned).order_id
    if not owner:
        raise OutcomeUnknown("a fill without the id of its order")
    try:
        return _fill(decode(data, _RestFill))
    except OutcomeUnknown:
        if owner == order_id:
            raise
        count("odd_fill")
        return None


def _fill(fill: _RestFill) -> VenueFill:
    if fill.trade_type not in FILLED:
        raise OutcomeUnknown(f"fill {fill.entry_id} is a {fill.trade_type[:40]!r}")
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
        size=_base(size, price) if fill.size_in_quote else size,
        fee=decimal(fill.commission),
        liquidity=fill.liquidity_indicator,
        trade_time=fill.trade_time,
        value=size if fill.size_in_quote else None,
    )


def _base(size: Decimal, price: Decimal) -> Decimal:
    try:
        return (size / price).quantize(FINEST)
    except InvalidOperation:
        raise OutcomeUnknown(f"a fill worth {size} at {price}") from None


# -- the clock


def parse_time(data: bytes) -> datetime:
    """The venue's clock, to the millisecond."""
    text = decode(data, _Time).epoch_millis
    try:
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        raise OutcomeUnknown(f"not a time: {text[:40]!r}") from None


# -- the user channel


def parse_user_frame(data: bytes | str) -> UserFrame:
    """Frames of other channels, and of kinds that we do not know, mention no orders.

    Raises Rejected for the venue's error frame, OutcomeUnknown for what cannot be read.
    """
    frame: _Envelope = decode(data, _Envelope)
    if frame.type == "error":
        raise Rejected("user_channel", frame.message)
    if frame.channel not in ("user", "subscriptions"):
        return UserFrame(frame.sequence_num, False, [])
    events: list[_UserEvent] = decode(bytes(frame.events), list[_UserEvent])
    told = frame.channel == "user" or any("user" in event.subscriptions for event in events)
    orders = [order for event in events for raw in event.orders if (order := _user_order(bytes(raw)))]
    return UserFrame(frame.sequence_num, told, orders)


def _user_order(data: bytes) -> VenueOrder | None:
    """None for one that cannot be read: an order of somebody else must not hide ours, which polling finds anyway."""
    try:
        order: _UserOrder = decode(data, _UserOrder)
        filled = decimal(order.cumulative_quantity)
    except OutcomeUnknown:
        return None
    if not order.order_id:
        return None
    status = VENUE_STATUS.get(order.status)
    # What is left is zeroed or kept at the end of an order, so that only an open one tells its total.
    left = figure(order.leaves_quantity) if status is OrderStatus.ACCEPTED else None
    return VenueOrder(
        venue_order_id=order.order_id,
        client_order_id=order.client_order_id or "",
        product_id=order.product_id,
        side=order.order_side,
        status=status,
        status_word=order.status,
        filled_qty=filled,
        reject_reason=_reason(order.reject_Reason, order.reject_reason),
        order_type=_type(order.order_type),
        time_in_force=TIMES_IN_FORCE.get(str(order.time_in_force)),
        quantity=None if left is None else left + filled,
        limit_price=figure(order.limit_price),
        stop_price=figure(order.stop_price),
        post_only=order.post_only in (True, "true"),
        filled_value=figure(order.filled_value),
        fees=figure(order.total_fees),
        created_at=_moment(order.creation_time),
    )
