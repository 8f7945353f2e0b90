"""From what a signal asks for to the exact order: clamped to what is held, floored to the venue's increments.

`Context` is all that a decision may look at. What a rule needs and is not there raises `Missing`, which refuses with
that reason: no rule has to think of it, and none can forget it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import TypeVar

from msgspec import Struct

from libs.common.messages import (
    Account,
    ApprovedOrder,
    FeedState,
    Mark,
    OrderType,
    Product,
    Reason,
    Side,
    Signal,
    TimeInForce,
    Trading,
    client_order_id,
)
from services.risk.books import ZERO
from services.risk.config import BPS, RiskConfig

T = TypeVar("T")


class Missing(Exception):
    """A figure that the rule needs is not known."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Context(Struct, frozen=True, kw_only=True):
    """One signal and all that is known at market time `now`. Amounts in the quote currency unless said."""

    now: datetime
    signal: Signal
    config: RiskConfig
    trading: Trading | None
    product: Product | None
    mark: Mark | None
    feed: FeedState | None
    account: Account | None
    drift: Mapping[str, Decimal] | None  # per currency
    held: Decimal  # base currency
    selling: Decimal  # base currency that open sells may still take
    buying: Decimal  # open buys of this product may still spend this
    reserved: Decimal  # open buys of all products
    position: Decimal | None  # value of what is held of this product
    exposure: Decimal | None  # value of all positions
    unmarked: tuple[str, ...]  # held products without a mark: the reason why figures are None
    cash: Decimal | None  # by the books
    equity: Decimal | None
    daily_loss: Decimal | None
    approvals: int  # in the last minute

    @property
    def entry(self) -> bool:
        """On spot every sale is an exit: it can only reduce, since it is clamped to what is held."""
        return self.signal.side is Side.BUY


def known(value: T | None, reason: Reason, detail: str) -> T:
    if value is None:
        raise Missing(reason, detail)
    return value


def product_of(context: Context) -> Product:
    return known(context.product, Reason.PRODUCT_UNKNOWN, f"no rules of {context.signal.product_id}")


def mark_of(context: Context) -> Mark:
    return known(context.mark, Reason.MARK_UNKNOWN, f"no mark of {context.signal.product_id}")


def account_of(context: Context) -> Account:
    return known(context.account, Reason.ACCOUNT_UNKNOWN, "no account snapshot")


def marked(context: Context, value: Decimal | None) -> Decimal:
    """A figure over all positions, which needs the mark of each."""
    return known(value, Reason.MARK_UNKNOWN, f"no mark of {', '.join(context.unmarked)}, which is held")


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    return value // step * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value(rounding=ROUND_CEILING) * step


def free(context: Context) -> Decimal:
    """Base currency that is held and not yet promised to an open sell, in whole increments."""
    return floor_to(max(ZERO, context.held - context.selling), product_of(context).base_increment)


def quantity(context: Context) -> Decimal:
    """Base currency of the order: floors only, never up to a minimum; a sale never above what is free."""
    asked = floor_to(context.signal.quantity, product_of(context).base_increment)
    return asked if context.entry else min(asked, free(context))


def limit_price(context: Context) -> Decimal | None:
    """None for a market order. Rounded to the side that gives us no worse price than was asked for."""
    if context.signal.order_type is OrderType.MARKET:
        return None
    asked = known(context.signal.limit_price, Reason.PRICE_OFF_MARKET, "a limit order needs a limit price")
    step = product_of(context).price_increment
    return floor_to(asked, step) if context.entry else ceil_to(asked, step)


def touch_price(context: Context) -> Decimal:
    """What one unit costs or brings as the market stands: the limit price, else the ask or the bid."""
    limit, mark = limit_price(context), mark_of(context)
    if limit is not None:
        return limit
    return mark.ask if context.entry else mark.bid


def worst_price(context: Context) -> Decimal:
    """What one unit may cost at the most: the limit price, else the ask and the slippage."""
    if context.entry and limit_price(context) is None:
        return touch_price(context) * (1 + context.config.slippage_bps / BPS)
    return touch_price(context)


def notional(context: Context) -> Decimal:
    return quantity(context) * worst_price(context)


def reservation(context: Context) -> Decimal:
    """Quote currency to hold until the order is terminal, taker fee included; a sale holds its base currency."""
    return notional(context) * (1 + account_of(context).taker_fee_rate) if context.entry else ZERO


def order_of(context: Context) -> ApprovedOrder:
    """The exact order. Every sale is marked reduce-only, so that execution clamps it again."""
    signal = context.signal
    market = signal.order_type is OrderType.MARKET
    return ApprovedOrder(
        client_order_id=client_order_id(signal.id),
        product_id=signal.product_id,
        side=signal.side,
        order_type=signal.order_type,
        time_in_force=TimeInForce.IOC if market else signal.time_in_force,
        quantity=quantity(context),
        limit_price=limit_price(context),
        reduce_only=not context.entry,
    )
