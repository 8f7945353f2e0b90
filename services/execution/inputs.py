"""What passes between the core and its shell without crossing the bus: venue questions, and the venue's answers."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from libs.common.messages import EPOCH, ApprovedOrder, Balance, Message, OrderStatus, Side


class VenueOrder(Struct, frozen=True, kw_only=True):
    """An order as the venue tells it. `status` is None for a word that we do not know."""

    venue_order_id: str
    client_order_id: str
    product_id: str
    side: Side
    status: OrderStatus | None
    status_word: str
    filled_qty: Decimal | None  # None where the venue does not say
    reject_reason: str = ""


class VenueFill(Struct, frozen=True, kw_only=True):
    entry_id: str
    trade_id: str
    venue_order_id: str
    product_id: str
    side: Side
    price: Decimal
    size: Decimal  # base currency
    fee: Decimal
    liquidity: str
    trade_time: datetime


# -- from the core to the shell


class Place(Message, frozen=True, kw_only=True):
    """POST this order. Its SUBMITTING event is durable by now."""

    order: ApprovedOrder
    trading_revision: int
    expires_at: datetime
    delay_seconds: float = 0


class Find(Message, frozen=True, kw_only=True):
    """Look for an order of unknown outcome in the complete listing since `start`."""

    client_order_id: str
    product_id: str
    start: datetime
    delay_seconds: float


class Query(Message, frozen=True, kw_only=True):
    """Read one order and its fills."""

    client_order_id: str
    venue_order_id: str
    delay_seconds: float


class Cancel(Message, frozen=True, kw_only=True):
    client_order_id: str
    venue_order_id: str


class FetchAccount(Message, frozen=True, kw_only=True):
    """Read balances and fee rates."""


class StoreOpening(Message, frozen=True, kw_only=True):
    """Record the opening balances, once for ever."""

    opening: dict[str, Decimal]


# -- from the shell to the core


class Placed(Message, frozen=True, kw_only=True):
    client_order_id: str
    venue_order_id: str


class PlaceRefused(Message, frozen=True, kw_only=True):
    """Definitely no order: the venue, or our last check before the POST, said no."""

    client_order_id: str
    status: OrderStatus  # REJECTED by the venue, DENIED by us
    reason: str


class PlaceNotSent(Message, frozen=True, kw_only=True):
    """Not one byte of the request left: it may be tried again."""

    client_order_id: str
    why: str


class PlaceUnknown(Message, frozen=True, kw_only=True):
    client_order_id: str
    why: str
    token_expires_at: datetime  # wall time: after it the venue no longer takes that request


class Found(Message, frozen=True, kw_only=True):
    client_order_id: str
    order: VenueOrder


class NotFound(Message, frozen=True, kw_only=True):
    """A complete listing, begun at `asked_at` (wall), without the order."""

    client_order_id: str
    asked_at: datetime


class AskFailed(Message, frozen=True, kw_only=True):
    """A question without an answer is no answer: ask again."""

    client_order_id: str
    why: str


class OrderSeen(Message, frozen=True, kw_only=True):
    client_order_id: str
    order: VenueOrder
    fills: tuple[VenueFill, ...]


class UserUpdate(Message, frozen=True, kw_only=True):
    """The user channel mentioned an order: a reason to ask, never itself a fill."""

    order: VenueOrder


class UserReconnected(Message, frozen=True, kw_only=True):
    """The user channel may have missed something."""


class AccountDue(Message, frozen=True, kw_only=True):
    pass


class AccountSeen(Message, frozen=True, kw_only=True):
    """`epoch` is the core's when the question was put: a later one now means that orders moved meanwhile."""

    epoch: int
    ledger_sequence: int
    balances: dict[str, Balance]
    taker_fee_rate: Decimal
    maker_fee_rate: Decimal


class Starting(Message, frozen=True, kw_only=True):
    """The wall time of this start: no request of an earlier process was signed after it."""

    wall: datetime = EPOCH
