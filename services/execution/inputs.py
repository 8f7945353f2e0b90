"""What passes between the core and its shell without crossing the bus: venue questions, and the venue's answers."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct, field

from libs.common.messages import (
    EPOCH,
    ApprovedOrder,
    Balance,
    FeeTier,
    Message,
    OrderStatus,
    OrderType,
    Permissions,
    Portfolio,
    RateLimits,
    Side,
    TimeInForce,
)


class VenueOrder(Struct, frozen=True, kw_only=True):
    """An order as the venue tells it. `status` is None for a word that we do not know, and so is every figure that an
    answer does not hold (the user channel tells less than a listing)."""

    venue_order_id: str
    client_order_id: str
    product_id: str
    side: Side
    status: OrderStatus | None
    status_word: str
    filled_qty: Decimal | None
    reject_reason: str = ""
    order_type: OrderType | None = None
    time_in_force: TimeInForce | None = None
    quantity: Decimal | None = None  # base currency, the total
    quote_size: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    post_only: bool = False
    filled_value: Decimal | None = None  # quote currency, without fees
    fees: Decimal | None = None
    created_at: datetime | None = None
    edits: tuple[tuple[Decimal, Decimal], ...] = ()  # size and price of each, the oldest first


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
    value: Decimal | None = None  # quote currency, where the venue tells it itself; else price x size

    @property
    def quote_value(self) -> Decimal:
        return self.price * self.size if self.value is None else self.value


class AccountParts(Struct, frozen=True, kw_only=True):
    """The account, each part read by a request of its own: None and named in `unavailable` where that failed."""

    balances: dict[str, Balance] | None = None
    fee_tier: FeeTier | None = None
    permissions: Permissions | None = None
    portfolios: tuple[Portfolio, ...] | None = None
    limits: RateLimits | None = None
    server_time: datetime | None = None
    unavailable: dict[str, str] = field(default_factory=dict)


class Listing(Struct, frozen=True, kw_only=True):
    """All open orders, all orders created since a time, all fills since that time: each complete."""

    orders: tuple[VenueOrder, ...]
    fills: tuple[VenueFill, ...]


class Preview(Struct, frozen=True, kw_only=True):
    """What the venue says that an order, or an edit of one, would do. Amounts in the quote currency."""

    order_total: Decimal
    commission_total: Decimal
    quote_size: Decimal
    base_size: Decimal
    best_bid: Decimal | None
    best_ask: Decimal | None
    slippage: Decimal | None
    errors: tuple[str, ...]
    warnings: tuple[str, ...] = ()


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


class Edit(Message, frozen=True, kw_only=True):
    """Ask the venue to give an open order the quantity and price of `wanted`. Its PENDING_UPDATE is durable by now."""

    edit_id: str
    venue_order_id: str
    wanted: ApprovedOrder
    trading_revision: int
    expires_at: datetime


class Reconcile(Message, frozen=True, kw_only=True):
    """List all open orders, and every order and fill since that time."""

    since: datetime
    until: datetime


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


class Edited(Message, frozen=True, kw_only=True):
    """The venue took the edit."""

    client_order_id: str
    edit_id: str


class EditRefused(Message, frozen=True, kw_only=True):
    """The order stays as it was: the venue said no, or nothing was sent."""

    client_order_id: str
    edit_id: str
    reason: str


class EditUnknown(Message, frozen=True, kw_only=True):
    client_order_id: str
    edit_id: str
    why: str
    token_expires_at: datetime


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
    asked_at: datetime = EPOCH  # wall


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
    parts: AccountParts  # with balances: without them there is no snapshot
    resting: dict[str, Decimal | None] = field(default_factory=dict)  # filled by client order id, read after them


class ReconcileDue(Message, frozen=True, kw_only=True):
    pass


class Reconciled(Message, frozen=True, kw_only=True):
    """`until`: market time at which the listing was begun, so that it holds everything older."""

    listing: Listing
    until: datetime


class Starting(Message, frozen=True, kw_only=True):
    """The wall time of this start: no request of an earlier process was signed after it."""

    wall: datetime = EPOCH
