"""The parts of messages: structs that never cross the bus alone. See `libs.common.messages`."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from libs.common.words import (
    AdjustmentKind,
    CheckOutcome,
    GuardLevel,
    OrderType,
    Reason,
    Side,
    StopDirection,
    TimeInForce,
)


class ApprovedOrder(Struct, frozen=True, kw_only=True):
    """The exact order that risk allows: already quantised. Only risk makes one; execution takes nothing else."""

    client_order_id: str
    product_id: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal  # base currency; with `quote_size` the most that may come of it
    limit_price: Decimal | None
    reduce_only: bool
    quote_size: Decimal | None = None  # quote currency to spend, fees included; market buys only
    stop_price: Decimal | None = None  # the trigger of a stop-limit, the stop of a bracket
    stop_direction: StopDirection | None = None  # of a stop-limit
    post_only: bool = False
    end_time: datetime | None = None  # GTD: by the venue's clock
    flatten: bool = False  # the way out that an operator has opened: leaves also while trading is halted


class Check(Struct, frozen=True, kw_only=True):
    """What one rule of risk's table said of a signal, with the figures that it looked at."""

    rule: str
    reason: Reason  # with which it refuses
    outcome: CheckOutcome
    detail: str = ""


class Balance(Struct, frozen=True, kw_only=True):
    available: Decimal
    hold: Decimal


class FeeTier(Struct, frozen=True, kw_only=True):
    """Rates are fractions; volume and fees are those of the last 30 days in the quote currency."""

    pricing_tier: str
    taker_fee_rate: Decimal
    maker_fee_rate: Decimal
    total_volume: Decimal
    total_fees: Decimal


class Permissions(Struct, frozen=True, kw_only=True):
    """What the key may do, and the one portfolio that it belongs to."""

    can_view: bool
    can_trade: bool
    can_transfer: bool
    portfolio_uuid: str
    portfolio_type: str = ""


class Portfolio(Struct, frozen=True, kw_only=True):
    uuid: str
    name: str
    type: str
    deleted: bool = False


class RateLimits(Struct, frozen=True, kw_only=True):
    """Requests, as the headers of the venue's last answer count them."""

    limit: int
    remaining: int


class ForeignOrder(Struct, frozen=True, kw_only=True):
    """An open order of the account that is not in our books: shown, never touched unless the operator asks."""

    venue_order_id: str
    client_order_id: str
    product_id: str
    side: Side
    status: str  # the venue's word
    quantity: Decimal | None
    filled_qty: Decimal | None
    limit_price: Decimal | None


class Position(Struct, frozen=True, kw_only=True):
    """Figures of one product; what depends on an unknown mark is None, never zero."""

    quantity: Decimal
    avg_price: Decimal | None
    realized_pnl: Decimal
    fees: Decimal
    mark_price: Decimal | None = None
    unrealized_pnl: Decimal | None = None
    dust: bool = False


class GuardFigure(Struct, frozen=True, kw_only=True):
    """One guard: what it measures, and from which value on it warns, reduces, halts (None: never). None: not known."""

    level: GuardLevel
    value: Decimal | None
    warn: Decimal | None = None
    reduce: Decimal | None = None
    halt: Decimal | None = None
    detail: str = ""


class Closing(Struct, frozen=True, kw_only=True):
    """How far the closing of one position is. `outcome`: selling, waiting (for the next attempt), flat, dust."""

    held: Decimal  # base currency, now
    sold: Decimal  # base currency, by this closing
    outcome: str
    attempts: int = 0
    detail: str = ""  # why the last attempt sold nothing, or not all


class OrderRequest(Struct, frozen=True, kw_only=True):
    """What an operator asks risk for: a new order or, with `edits`, another quantity or price of an open one.

    `request_id` is the asker's own: the same id is the same order, however often it is sent. See ApprovedOrder.
    """

    request_id: str
    product_id: str
    side: Side
    order_type: OrderType = OrderType.MARKET
    time_in_force: TimeInForce = TimeInForce.IOC
    quantity: Decimal | None = None
    quote_size: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_direction: StopDirection | None = None
    post_only: bool = False
    end_time: datetime | None = None
    reduce_only: bool = False
    edits: str = ""


class AdjustmentRequest(Struct, frozen=True, kw_only=True):
    """What an operator says about the account. The same `request_id` counts once.

    deposit, withdrawal: `currency`, and the `quantity` (above 0) if not all of its drift. manual_trade: `product_id`,
    whose two drifts are the trade. handover: `product_id`, `quantity` of the base currency (below 0 gives it back) and
    its `price` where there is no mark.
    """

    request_id: str
    kind: AdjustmentKind
    currency: str = ""
    product_id: str = ""
    quantity: Decimal | None = None
    price: Decimal | None = None
