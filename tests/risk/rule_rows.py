"""The rules as a table: one world at exactly the threshold, one just beyond it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from msgspec import Struct

from libs.common import messages as m
from libs.common.messages import Reason
from services.risk.config import RiskConfig
from tests.risk.builders import (
    BTC,
    ETH,
    NOON,
    SECOND,
    WIDE,
    D,
    Desk,
    account,
    config,
    feed,
    mark,
    market,
    product,
    signal,
    trading,
)

SELL, LIVE = m.Side.SELL, m.Feed.LIVE
MICRO = timedelta(microseconds=1)


class Row(Struct, kw_only=True):
    """`within` is at the threshold and approved, `beyond` just over it and refused for `reason`; where there is no
    `beyond`, the same signal in a spoilt world."""

    name: str
    reason: Reason
    within: m.Signal
    beyond: m.Signal | None = None
    limits: RiskConfig = WIDE
    before: Callable[[Desk], object] = lambda desk: None  # makes the world of both
    spoil: Callable[[Desk], object] = lambda desk: None  # makes the world of `beyond` only


def flag(name: str, wanted: m.Signal, **changes: object) -> Row:
    return Row(
        name=f"flag {name}",
        reason=Reason.PRODUCT_NOT_TRADABLE,
        within=wanted,
        spoil=lambda desk: desk.feed(product(**changes)),
    )


def at(desk: Desk, seconds: float, micros: int = 0) -> Desk:
    desk.now = NOON + timedelta(seconds=seconds, microseconds=micros)
    return desk


def drift(desk: Desk) -> None:
    desk.feed(account({"USD": D("100000.01")}, at=NOON + SECOND))
    desk.core.switch.pending = None  # the reduce-only that follows is another guard's matter


ROWS = [
    Row(
        name="expired",
        reason=Reason.SIGNAL_EXPIRED,
        within=signal(expires_at=NOON),
        beyond=signal(expires_at=NOON - MICRO),
    ),
    Row(
        name="halted",
        reason=Reason.TRADING_HALTED,
        within=signal(),
        spoil=lambda desk: desk.feed(trading(m.Trading.HALTED, 2)),
    ),
    Row(
        name="exit while halted",
        reason=Reason.TRADING_HALTED,
        within=signal(side=SELL),
        before=lambda desk: desk.bought("1"),
        spoil=lambda desk: desk.feed(trading(m.Trading.HALTED, 2)),
    ),
    Row(
        name="trading state lost",
        reason=Reason.TRADING_HALTED,
        within=signal(),
        spoil=lambda desk: desk.feed(trading(m.Trading.HALTED, 0)),
    ),
    Row(
        name="reducing",
        reason=Reason.TRADING_REDUCING,
        within=signal(),
        spoil=lambda desk: desk.feed(trading(m.Trading.REDUCING, 2)),
    ),
    Row(
        name="not ours to trade",
        reason=Reason.PRODUCT_UNKNOWN,
        within=signal(),
        beyond=signal(product_id="SOL-USD"),
        before=lambda desk: desk.feed(product("SOL-USD"), mark("SOL-USD"), feed("SOL-USD")),
    ),
    flag("is_disabled", signal(), is_disabled=True),
    flag("trading_disabled", signal(), trading_disabled=True),
    flag("view_only", signal(), view_only=True),
    flag("cancel_only", signal(), cancel_only=True),
    flag("auction_mode", signal(), auction_mode=True),
    flag("status", signal(), status="offline"),
    flag("status missing", signal(), status=""),
    Row(
        name="limit_only",
        reason=Reason.PRODUCT_NOT_TRADABLE,
        within=signal(),
        beyond=market(),
        before=lambda desk: desk.feed(product(limit_only=True)),
    ),
    Row(
        name="post_only",
        reason=Reason.PRODUCT_NOT_TRADABLE,
        within=signal(time_in_force=m.TimeInForce.GTC, post_only=True),
        beyond=signal(time_in_force=m.TimeInForce.GTC),
        before=lambda desk: desk.feed(product(post_only=True)),
    ),
    Row(
        name="account age",
        reason=Reason.ACCOUNT_UNKNOWN,
        within=signal(expires_at=NOON + 120 * SECOND),
        before=lambda desk: (at(desk, 60), desk.feed(mark(at=desk.now))),
        spoil=lambda desk: at(desk, 60, 1),
    ),
    Row(
        name="drift",
        reason=Reason.ACCOUNT_DRIFT,
        within=signal(),
        spoil=drift,
    ),
    Row(
        name="mark age",
        reason=Reason.MARK_STALE,
        within=signal(),
        before=lambda desk: at(desk, 5),
        spoil=lambda desk: at(desk, 5, 1),
    ),
    Row(
        name="mark age, exit",
        reason=Reason.MARK_STALE,
        within=signal(side=SELL),
        before=lambda desk: (desk.bought("1"), at(desk, 5)),
        spoil=lambda desk: at(desk, 5, 1),
    ),
    Row(
        name="mark from the future",
        reason=Reason.MARK_STALE,
        within=signal(),
        before=lambda desk: desk.feed(mark(at=NOON + SECOND)),
        spoil=lambda desk: desk.feed(mark(at=NOON + SECOND + MICRO)),
    ),
    *(
        Row(
            name=f"feed {state}",
            reason=Reason.FEED_NOT_LIVE,
            within=signal(),
            spoil=lambda desk, state=state: desk.feed(feed(state=state)),  # type: ignore[misc]
        )
        for state in m.Feed
        if state is not LIVE
    ),
    Row(name="reduce-only buy", reason=Reason.NOTHING_TO_REDUCE, within=signal(), beyond=signal(reduce_only=True)),
    Row(
        name="nothing held",
        reason=Reason.NOTHING_TO_REDUCE,
        within=signal(side=SELL),
        beyond=signal(side=SELL, product_id=ETH),
        before=lambda desk: desk.bought("1"),
    ),
    Row(
        name="all promised to an open sell",
        reason=Reason.NOTHING_TO_REDUCE,
        within=signal(side=SELL),
        before=lambda desk: desk.bought("1"),
        spoil=lambda desk: desk.approve(signal("first", SELL, "1")),
    ),
    Row(
        name="dust by size",
        reason=Reason.DUST,
        within=signal(side=SELL, product_id=BTC),
        beyond=signal(side=SELL, product_id=ETH),
        before=lambda desk: desk.bought("0.01").bought("0.009", product_id=ETH),
    ),
    Row(
        name="dust by value",
        reason=Reason.DUST,
        within=market(side=SELL, product_id=BTC),
        beyond=market(side=SELL, product_id=ETH),
        before=lambda desk: (
            desk.bought("0.02").bought("0.02", product_id=ETH),
            desk.feed(mark(BTC, "50"), mark(ETH, "49.99")),
        ),
    ),
    Row(
        name="dust although whole increments are missing only",
        reason=Reason.DUST,
        within=signal(side=SELL, product_id=BTC),
        beyond=signal(side=SELL, product_id=ETH),
        before=lambda desk: desk.bought("0.0109").bought("0.00999", product_id=ETH),
    ),
    Row(
        name="size below minimum",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(quantity="0.01"),
        beyond=signal(quantity="0.009"),
    ),
    Row(
        name="size below minimum after flooring",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(quantity="0.0109"),
        beyond=signal(quantity="0.00999999"),
    ),
    Row(
        name="exit below minimum although more is held",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(side=SELL, quantity="0.01"),
        beyond=signal(side=SELL, quantity="0.009"),
        before=lambda desk: desk.bought("1"),
    ),
    Row(
        name="value below minimum",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=market(quantity="0.02"),
        beyond=market(quantity="0.019"),
        before=lambda desk: desk.feed(mark(price="50")),
    ),
    Row(
        name="no size where the venue states no minimum",
        reason=Reason.SIZE_BELOW_MINIMUM,
        within=signal(quantity="0.001"),
        beyond=signal(quantity="0.0009"),
        before=lambda desk: desk.feed(product(base_min_size=D(0), quote_min_size=D(0))),
    ),
    Row(name="negative size", reason=Reason.SIZE_BELOW_MINIMUM, within=signal(), beyond=signal(quantity="-1")),
    Row(
        name="size above maximum",
        reason=Reason.SIZE_ABOVE_MAXIMUM,
        within=signal(quantity="2"),
        beyond=signal(quantity="2.001"),
        before=lambda desk: desk.feed(product(base_max_size=D(2))),
    ),
    Row(
        name="value above maximum",
        reason=Reason.SIZE_ABOVE_MAXIMUM,
        within=signal(quantity="2"),
        beyond=signal(quantity="2.001"),
        before=lambda desk: desk.feed(product(quote_max_size=D(200))),
    ),
    Row(
        name="limit price above the mark",
        reason=Reason.PRICE_OFF_MARKET,
        within=signal(limit_price=D(101)),
        beyond=signal(limit_price=D("101.01")),
    ),
    Row(
        name="limit price below the mark",
        reason=Reason.PRICE_OFF_MARKET,
        within=signal(limit_price=D(99)),
        beyond=signal(limit_price=D("98.99")),
    ),
    Row(
        name="limit price of an exit",
        reason=Reason.PRICE_OFF_MARKET,
        within=signal(side=SELL, limit_price=D(99)),
        beyond=signal(side=SELL, limit_price=D("98.99")),
        before=lambda desk: desk.bought("1"),
    ),
    Row(
        name="spread",
        reason=Reason.SPREAD_TOO_WIDE,
        within=signal(),
        before=lambda desk: desk.feed(mark(spread="1")),
        spoil=lambda desk: desk.feed(mark(spread="1.0001")),
    ),
    Row(
        name="order rate",
        reason=Reason.ORDER_RATE_ABOVE_LIMIT,
        within=signal(),
        limits=config(orders_per_minute_max=2),
        before=lambda desk: desk.approve(signal("first")),
        spoil=lambda desk: desk.approve(signal("second")),
    ),
    Row(
        name="order notional",
        reason=Reason.NOTIONAL_ABOVE_LIMIT,
        within=signal(quantity="10"),
        beyond=signal(quantity="10.001"),
        limits=config(order_notional_max=D(1000)),
    ),
    Row(
        name="order notional of a market order",
        reason=Reason.NOTIONAL_ABOVE_LIMIT,
        within=market(quantity="10"),
        beyond=market(quantity="10.001"),
        limits=config(order_notional_max=D(1001)),  # ten at 100 and ten bps of slippage
    ),
    Row(
        name="position",
        reason=Reason.POSITION_ABOVE_LIMIT,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        limits=config(position_notional_max=D(1000)),
        before=lambda desk: (desk.bought("3"), desk.approve(signal("open", quantity="2"))),
    ),
    Row(
        name="position of a product with a limit of its own",
        reason=Reason.POSITION_ABOVE_LIMIT,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        limits=config(position_notional_max_by_product={BTC: D(500)}),
    ),
    Row(
        name="exposure",
        reason=Reason.EXPOSURE_ABOVE_LIMIT,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        limits=config(exposure_max=D(1000)),
        before=lambda desk: (
            desk.bought("3", product_id=ETH),
            desk.approve(signal("open", quantity="2", product_id=ETH)),
        ),
    ),
    Row(
        name="exposure as a part of equity",
        reason=Reason.EXPOSURE_ABOVE_LIMIT,
        within=signal(quantity="500"),
        beyond=signal(quantity="500.001"),
        limits=config(exposure_fraction_max=D("0.5")),
    ),
    Row(
        name="balance by the books",
        reason=Reason.BALANCE_TOO_LOW,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        before=lambda desk: (
            desk.feed(account({"USD": D(1000)}, at=NOON + SECOND, opening={"USD": D(1000)})),
            desk.approve(signal("open", quantity="5", product_id=ETH)),
        ),
    ),
    Row(
        name="balance of the account",
        reason=Reason.BALANCE_TOO_LOW,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        before=lambda desk: desk.feed(account({"USD": D(500)}, at=NOON + SECOND, settled=False)),
    ),
    Row(
        name="balance, fee included",
        reason=Reason.BALANCE_TOO_LOW,
        within=signal(quantity="5"),
        beyond=signal(quantity="5.001"),
        before=lambda desk: desk.feed(account({"USD": D(505)}, at=NOON + SECOND, settled=False, fee="0.01")),
    ),
]
