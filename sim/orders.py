"""Orders and fills as values. An order changes only by being replaced with a newer one of the same id."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from msgspec import Struct

from sim.money import ONE, ZERO
from sim.ticks import Side

Configuration = dict[str, dict[str, Any]]  # the client's own order_configuration, echoed as it was sent


BRACKET_SLIPPAGE = Decimal("0.05")


class Kind(StrEnum):
    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP_LIMIT = "STOP_LIMIT"
    BRACKET = "BRACKET"  # rests at its limit price; from its stop price on it leaves at the market


class TimeInForce(StrEnum):
    IOC = "IMMEDIATE_OR_CANCEL"
    GTC = "GOOD_UNTIL_CANCELLED"
    GTD = "GOOD_UNTIL_DATE_TIME"
    FOK = "FILL_OR_KILL"


class Status(StrEnum):
    PENDING = "PENDING"
    OPEN = "OPEN"
    CANCEL_QUEUED = "CANCEL_QUEUED"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


ENDED = frozenset({Status.FILLED, Status.CANCELLED, Status.EXPIRED})


class Trigger(StrEnum):
    NONE = "INVALID_ORDER_TYPE"
    PENDING = "STOP_PENDING"
    DONE = "STOP_TRIGGERED"


class StopDirection(StrEnum):
    UP = "STOP_DIRECTION_STOP_UP"
    DOWN = "STOP_DIRECTION_STOP_DOWN"


class Liquidity(StrEnum):
    MAKER = "MAKER"
    TAKER = "TAKER"


class NewOrder(Struct, frozen=True):
    """A request as parsed. Which of the optional fields are present depends on the configuration."""

    product_id: str
    side: Side
    kind: Kind
    time_in_force: TimeInForce
    configuration: Configuration
    client_order_id: str = ""
    base_size: Decimal | None = None
    quote_size: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_direction: StopDirection | None = None
    end_time: datetime | None = None
    post_only: bool = False
    supported: bool = True  # False: a configuration that the venue knows and does not take on spot
    numeric: bool = True  # False: an amount that is not a number


class Edit(Struct, frozen=True):
    """One accepted change of a resting order."""

    price: Decimal
    size: Decimal
    accepted_at: datetime


class Order(Struct, frozen=True):
    """An accepted order. `hold` is what it keeps from being spent, in the quote currency for BUY, in base for SELL."""

    order_id: str
    sequence: int
    client_order_id: str
    product_id: str
    side: Side
    kind: Kind
    time_in_force: TimeInForce
    configuration: Configuration
    created_at: datetime
    active_at: datetime
    status: Status
    hold_currency: str
    hold: Decimal
    hold_fee_rate: Decimal
    base_size: Decimal | None = None  # None: sized by quote_size, whose fees are included in it
    quote_size: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    stop_direction: StopDirection | None = None
    end_time: datetime | None = None
    post_only: bool = False
    trigger: Trigger = Trigger.NONE
    filled_size: Decimal = ZERO
    filled_value: Decimal = ZERO
    fees: Decimal = ZERO
    fills: int = 0
    last_fill_at: datetime | None = None
    cancel_message: str = ""
    edits: tuple[Edit, ...] = ()

    @property
    def remaining(self) -> Decimal:
        """Base size still to fill; zero for an order that is sized in the quote currency."""
        return self.base_size - self.filled_size if self.base_size is not None else ZERO

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def dormant(self) -> bool:
        """Waits for its stop price outside of the book."""
        return self.kind is Kind.STOP_LIMIT and self.trigger is Trigger.PENDING


def exit_price(side: Side, stop_price: Decimal) -> Decimal:
    """The limit of a bracket that was triggered: 5 % beyond its stop, as the venue's documentation has it."""
    return stop_price * (ONE + BRACKET_SLIPPAGE if side is Side.BUY else ONE - BRACKET_SLIPPAGE)


def worst_price(order: NewOrder | Order) -> Decimal | None:
    """The highest price at which a BUY may come to trade; None for one without a limit."""
    if order.kind is Kind.BRACKET and order.limit_price is not None and order.stop_price is not None:
        return max(order.limit_price, exit_price(order.side, order.stop_price))
    return order.limit_price


class Fill(Struct, frozen=True):
    """One execution. `fee` is in the quote currency, exactly price * size * rate."""

    entry_id: str
    trade_id: str
    sequence: int
    order_id: str
    client_order_id: str
    product_id: str
    side: Side
    price: Decimal
    size: Decimal
    fee: Decimal
    liquidity: Liquidity
    at: datetime
