"""A ledger as the services write it, of any length: in and out of one product, an order every half minute.

Each order is a verdict of the real core (with all its checks), the steps of execution, and two fills.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from msgspec.structs import replace

from libs.common import messages as m
from services.execution.orders import Order
from services.risk.config import RiskConfig
from services.risk.core import RiskCore

PRODUCT = "BTC-USD"
CASH = Decimal(100_000)
SIZES = (Decimal("0.006"), Decimal("0.004"))  # of the two fills of each order
FEE_RATE = Decimal("0.012")
PERIOD = timedelta(seconds=30)
FILLS_PER_ORDER = len(SIZES)
HELD = sum(SIZES)


def price_of(number: int) -> Decimal:
    """Of an order: up and down by up to 1 %."""
    return Decimal(50_000 + abs(number % 1000 - 500))


def surroundings(at: datetime, price: Decimal) -> list[m.Message]:
    """Everything but the ledger that risk wants to know before it is ready."""
    base, quote = PRODUCT.split("-")
    return [
        m.Product(
            id="product",
            at=at,
            product_id=PRODUCT,
            base_currency=base,
            quote_currency=quote,
            base_increment=Decimal("0.00000001"),
            quote_increment=Decimal("0.01"),
            price_increment=Decimal("0.01"),
            base_min_size=Decimal("0.0001"),
            base_max_size=Decimal(1000),
            quote_min_size=Decimal(1),
            quote_max_size=Decimal(10_000_000),
        ),
        m.FeedState(id="feed", at=at, product_id=PRODUCT, state=m.Feed.LIVE, reason="gapless", since=at),
        m.Account(
            id="account",
            at=at,
            balances={quote: m.Balance(available=CASH, hold=Decimal(0))},
            taker_fee_rate=FEE_RATE,
            maker_fee_rate=FEE_RATE / 2,
            settled=True,
            ledger_sequence=0,
            opening={quote: CASH},
        ),
        m.Mark(
            id="mark",
            at=at,
            product_id=PRODUCT,
            bid=price,
            ask=price,
            last=price,
            mid=price,
            price_time=at,
            sequence=1,
            received_at=at,
            bid_size=Decimal(1),
            ask_size=Decimal(1),
        ),
    ]


def active(at: datetime) -> m.TradingState:
    return m.TradingState(
        id="trading", at=at, state=m.Trading.ACTIVE, reason="bench", who="bench", since=at, revision=1
    )


class Template(NamedTuple):
    """One order's verdict and what execution says of it, to be dated and named anew for each order."""

    verdict: m.Verdict
    steps: tuple[m.OrderEvent, ...]
    fills: tuple[m.Fill, ...]


def templates(config: RiskConfig, at: datetime) -> dict[m.Side, Template]:
    """Of a buy and of the sale that follows it, decided by the real core."""
    core = RiskCore(config, (PRODUCT,), "USD")
    known = [m.Installation(id="installation", at=at, opening={"USD": CASH}), active(at)]
    for message in [*known, *surroundings(at, price_of(0)), m.Recovered(id="recovered", at=at)]:
        core.on_message(message, at)
    found = {}
    for side in m.Side:
        [verdict] = [out for out in core.on_message(_signal(side, at), at) if isinstance(out, m.Verdict)]
        assert verdict.order is not None, f"{verdict.reason}: {verdict.detail}"
        found[side] = _carried_out(verdict, at)
        for fact in (verdict, *found[side].steps[:-1], *found[side].fills, found[side].steps[-1]):
            core.on_message(fact, at)
    return found


def _signal(side: m.Side, at: datetime) -> m.Signal:
    return m.Signal(
        id=m.derive_id("bench", side),
        at=at,
        product_id=PRODUCT,
        strategy="crossover",
        side=side,
        order_type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal(HELD),
        limit_price=None,
        reduce_only=side is m.Side.SELL,
        reason="crossed_up",
        trigger="candle:2026-03-10T12:00:00+00:00",
        attempt=1,
        expires_at=at + timedelta(seconds=10),
    )


def _carried_out(verdict: m.Verdict, at: datetime) -> Template:
    """SUBMITTING, ACCEPTED, the fills, FILLED: made by execution's own order."""
    assert verdict.order is not None
    order = Order(
        order=verdict.order,
        signal_id=verdict.signal_id,
        trading_revision=1,
        expires_at=verdict.expires_at,
        approved_at=at,
    )
    steps = [order.event(m.OrderStatus.SUBMITTING, "", at)]
    order.apply(steps[-1])
    steps.append(order.event(m.OrderStatus.ACCEPTED, "", at, "venue-order"))
    order.apply(steps[-1])
    fills = tuple(_fill(verdict.order, number, size, at) for number, size in enumerate(SIZES))
    for fill in fills:
        order.book(fill)
    steps.append(order.event(m.OrderStatus.FILLED, "", at))
    return Template(verdict, tuple(steps), fills)


def _fill(order: m.ApprovedOrder, number: int, size: Decimal, at: datetime) -> m.Fill:
    price = price_of(0)
    return m.Fill(
        id=f"fill-{number}",
        cause=f"{order.client_order_id}-2",
        at=at,
        product_id=PRODUCT,
        client_order_id=order.client_order_id,
        venue_order_id="venue-order",
        trade_id=f"trade-{number}",
        side=order.side,
        price=price,
        size=size,
        fee=price * size * FEE_RATE,
        liquidity="TAKER",
        trade_time=at,
    )


class History:
    """The ledger's messages in their order."""

    def __init__(self, config: RiskConfig, began: datetime) -> None:
        self._began = began
        self._templates = templates(config, began)
        self._midnight = began.replace(hour=0, minute=0, second=0, microsecond=0)

    def orders(self, first: int, last: int) -> Iterator[list[m.Message]]:
        """What the orders with these numbers leave, from 0, `last` not included; buys are the even ones."""
        for number in range(first, last):
            at = self._began + number * PERIOD
            yield [*self._new_day(at, number), *self._order(number, at)]

    def _new_day(self, at: datetime, number: int) -> Iterator[m.Baseline]:
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
        if midnight > self._midnight:
            self._midnight = midnight
            prices = {PRODUCT: price_of(number)} if number % 2 else {}
            yield m.Baseline(
                id=f"baseline-{midnight:%Y-%m-%d}", at=at, midnight=midnight, prices=prices, peak_equity=CASH
            )

    def _order(self, number: int, at: datetime) -> Iterator[m.Message]:
        template = self._templates[m.Side.SELL if number % 2 else m.Side.BUY]
        signal_id = m.derive_id("bench", number)
        key, price = m.client_order_id(signal_id), price_of(number)
        assert template.verdict.order is not None
        order = replace(template.verdict.order, client_order_id=key)
        verdict = replace(template.verdict, id=f"verdict-{number}", at=at, cause=signal_id, signal_id=signal_id)
        yield replace(verdict, order=order, expires_at=at + timedelta(seconds=10))
        steps = [
            replace(step, id=f"{key}-{step.revision}", at=at, client_order_id=key, signal_id=signal_id, order=order)
            for step in template.steps
        ]
        yield from steps[:-1]
        for place, fill in enumerate(template.fills):
            name = m.derive_id("fill", number, place)  # as long as the venue's
            fee = price * fill.size * FEE_RATE
            yield replace(fill, id=name, at=at, trade_time=at, client_order_id=key, price=price, fee=fee, trade_id=name)
        value = price * Decimal(HELD)
        yield replace(steps[-1], filled_value=value, fees=value * FEE_RATE)
