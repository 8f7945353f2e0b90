"""From what a signal asks for to the exact order: clamped to what is held, floored to the venue's increments.

What a rule needs and is not there raises `Missing`, which refuses with that reason: no rule has to think of it, and
none can forget it.
"""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import TypeVar

import msgspec
from msgspec import Struct

from libs.common import messages as m
from libs.common.messages import Reason
from services.risk.books import ZERO, Worth, share
from services.risk.config import BPS, RiskConfig
from services.risk.knowledge import Knowledge
from services.risk.state import OpenOrder, State

T = TypeVar("T")


class Missing(Exception):
    """A figure that the rule needs is not known."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def need(value: T | None, reason: Reason, detail: str) -> T:
    if value is None:
        raise Missing(reason, detail)
    return value


def floor_to(value: Decimal, step: Decimal) -> Decimal:
    return value // step * step


def ceil_to(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value(rounding=ROUND_CEILING) * step


class Context(Struct, frozen=True):
    """One signal and all that a decision may look at, at market time `now`. Only read."""

    now: datetime
    signal: m.Signal
    config: RiskConfig
    trading: m.Trading | None
    known: Knowledge
    state: State
    operator: bool = False  # risk has made the signal of an operator's request, or for a closing
    closing: bool = False  # risk closes a position by it, for `flatten`

    @property
    def entry(self) -> bool:
        """On spot every sale is an exit: it can only reduce, since it is clamped to what is held."""
        return self.signal.side is m.Side.BUY

    @property
    def product(self) -> m.Product:
        """Not known also where it is not ours to trade."""
        product_id = self.signal.product_id
        product = self.known.rules.get(product_id) if product_id in self.known.products else None
        return need(product, Reason.PRODUCT_UNKNOWN, f"no rules of {product_id}")

    @property
    def mark(self) -> m.Mark:
        product_id = self.signal.product_id
        return need(self.known.marks.get(product_id), Reason.MARK_UNKNOWN, f"no mark of {product_id}")

    @property
    def without_mark(self) -> bool:
        """A closing goes on without a mark, and then nothing is worth anything to it. All else needs one."""
        return self.closing and self.signal.product_id not in self.known.marks

    @property
    def account(self) -> m.Account:
        return need(self.known.account, Reason.ACCOUNT_UNKNOWN, "no account snapshot")

    @property
    def worth(self) -> Worth:
        """Figures over all positions, which need the mark of each, and a fresh one."""
        books, prices = self.state.books, self.known.prices
        unmarked = ", ".join(books.unmarked(prices))
        worth = need(books.worth(prices), Reason.MARK_UNKNOWN, f"no mark of {unmarked}, which is held")
        self.need_fresh_marks(*books.holdings)
        return worth

    def need_fresh_marks(self, *products: str) -> None:
        """What is held counts at its mark, and at none that is older than where the guard stops the product."""
        limit = self.config.guards.mark_staleness.reduce
        for product_id in products:
            holding, mark = self.state.books.holdings.get(product_id), self.known.marks.get(product_id)
            age = (self.now - mark.at).total_seconds() if mark else 0
            if holding is not None and holding.quantity and age > limit:
                raise Missing(Reason.MARK_STALE, f"the mark of {product_id}, which is held, is {age:.3f} s old")

    @property
    def held(self) -> Decimal:
        """Base currency."""
        holding = self.state.books.holdings.get(self.signal.product_id)
        return holding.quantity if holding else ZERO

    @property
    def editing(self) -> OpenOrder | None:
        """The open order that the signal changes; None where it is a new one, or one that we do not know."""
        return self.state.orders.get(self.signal.edits) if self.signal.edits else None

    @property
    def filled(self) -> Decimal:
        """Base currency that has come of the order already: a quantity counts from its beginning."""
        return self.editing.booked if self.editing else ZERO

    @property
    def selling(self) -> Decimal:
        """Base currency that other open sells may still take."""
        own = self.editing.outstanding if self.editing and not self.entry else ZERO
        return self.state.selling(self.signal.product_id) - own

    @property
    def free(self) -> Decimal:
        """Base currency that the order may sell in all: what is held and not yet promised to another open sell, in
        whole increments."""
        return self.filled + floor_to(max(ZERO, self.held - self.selling), self.product.base_increment)

    @property
    def quote_size(self) -> Decimal | None:
        """Quote currency to spend, fees included; None where the order names its size in the base currency."""
        asked = self.signal.quote_size
        return None if asked is None else floor_to(asked, self.product.quote_increment)

    @property
    def quantity(self) -> Decimal:
        """Base currency of the order: floors only, never up to a minimum; a sale never above what is free. Of an order
        in the quote currency the most that may come of it: at the bid less the deviation that prices may have."""
        if self.quote_size is not None:
            cheapest = self.mark.bid * (1 - self.config.price_deviation_bps_max / BPS)
            return floor_to(self.quote_size / cheapest, self.product.base_increment)
        asked = floor_to(self.signal.quantity, self.product.base_increment)
        if self.entry:
            return asked
        return min(asked, self.free, self._at_once) if self.closing else min(asked, self.free)

    @property
    def _at_once(self) -> Decimal:
        """The most that the venue takes in one order: a closing sells the rest with the next."""
        product = self.product
        largest = product.base_max_size
        if not self.without_mark:
            largest = min(largest, product.quote_max_size / self.touch_price)
        return floor_to(largest, product.base_increment)

    def _price(self, asked: Decimal | None) -> Decimal | None:
        """Rounded to the side that gives us no worse price than was asked for."""
        return None if asked is None else (floor_to if self.entry else ceil_to)(asked, self.product.price_increment)

    @property
    def limit_price(self) -> Decimal | None:
        """None for a market order."""
        return self._price(self.signal.limit_price)

    @property
    def stop_price(self) -> Decimal | None:
        """None for an order without a stop."""
        return self._price(self.signal.stop_price)

    @property
    def stop_direction(self) -> m.StopDirection | None:
        """Of a stop-limit: as asked, else up for a buy and down for a sale."""
        if self.signal.order_type is not m.OrderType.STOP_LIMIT:
            return None
        return self.signal.stop_direction or (m.StopDirection.UP if self.entry else m.StopDirection.DOWN)

    @property
    def post_only(self) -> bool:
        return self.editing.order.post_only if self.editing else self.signal.post_only

    @property
    def touch_price(self) -> Decimal:
        """What one unit costs or brings as the market stands: the limit price, else the ask or the bid."""
        touch = self.mark.ask if self.entry else self.mark.bid
        return touch if self.limit_price is None else self.limit_price

    @property
    def notional(self) -> Decimal:
        """What the order may cost at the most: its quote size, else at the limit price, else at the ask and the
        slippage."""
        if self.quote_size is not None:
            return self.quote_size
        slippage = self.config.slippage_bps / BPS if self.entry and self.limit_price is None else ZERO
        return self.quantity * self.touch_price * (1 + slippage)

    @property
    def reservation(self) -> Decimal:
        """Quote currency to hold until the order is terminal, taker fee included; a sale holds its base currency."""
        if not self.entry:
            return ZERO
        if self.quote_size is not None:
            return self.quote_size
        rate = need(self.account.taker_fee_rate, Reason.ACCOUNT_UNKNOWN, "the fee rates are not known")
        return self.notional * (1 + rate)

    @property
    def added(self) -> Decimal:
        """What the reservation adds to those that stand: all of it, or by how much an edit raises what is left."""
        if self.editing is None:
            return self.reservation
        left = share(self.reservation, self.quantity - self.filled, self.quantity)
        return max(ZERO, left - self.editing.quote)

    def order(self) -> m.ApprovedOrder:
        """The exact order. Every sale is marked reduce-only, so that execution clamps it again."""
        signal = self.signal
        if self.editing is not None:
            return msgspec.structs.replace(self.editing.order, quantity=self.quantity, limit_price=self.limit_price)
        market = signal.order_type is m.OrderType.MARKET
        return m.ApprovedOrder(
            client_order_id=m.client_order_id(signal.id),
            product_id=signal.product_id,
            side=signal.side,
            order_type=signal.order_type,
            time_in_force=m.TimeInForce.IOC if market else signal.time_in_force,
            quantity=self.quantity,
            limit_price=self.limit_price,
            reduce_only=not self.entry,
            quote_size=self.quote_size,
            stop_price=self.stop_price,
            stop_direction=self.stop_direction,
            post_only=signal.post_only,
            end_time=signal.end_time,
            flatten=self.closing,
        )
