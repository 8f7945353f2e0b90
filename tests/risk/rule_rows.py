"""The rules as a table: one world at exactly the threshold, one just beyond it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from msgspec import Struct

from libs.common import messages as m
from libs.common.messages import Reason
from services.risk.config import RiskConfig
from services.risk.guards import Degraded
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
    `beyond`, the same signal in a spoilt world. `rule` says which one where several refuse with that reason; `backed`:
    without it another one would refuse with that reason too."""

    name: str
    reason: Reason
    rule: str = ""
    backed: bool = False
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
        name="second entry",
        reason=Reason.DUPLICATE_SIGNAL,
        within=signal(),
        before=lambda desk: (
            desk.approve(signal("of another product", product_id=ETH)),
            desk.bought("1").approve(signal("of the other side", SELL)),
            desk.ordered(signal("of an operator")),
        ),
        spoil=lambda desk: desk.approve(signal("open")),
    ),
    Row(
        name="second exit",
        reason=Reason.DUPLICATE_SIGNAL,
        within=signal(side=SELL),
        before=lambda desk: desk.bought("3").ordered(signal("of an operator", SELL)),
        spoil=lambda desk: desk.approve(signal("open", SELL)),
    ),
    Row(
        name="second entry while the first has no known outcome",
        reason=Reason.DUPLICATE_SIGNAL,
        within=signal(),
        before=lambda desk: desk.end(desk.approve(signal("denied")), m.OrderStatus.DENIED, 1),
        spoil=lambda desk: desk.end(desk.approve(signal("sent")), m.OrderStatus.UNKNOWN, 1),
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
        name="trading state never told",
        reason=Reason.TRADING_STATE_UNKNOWN,
        within=signal(),
        spoil=lambda desk: setattr(desk.core.switch, "current", None),
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
        backed=True,
        within=signal(),
        beyond=signal(product_id="SOL-USD"),
        before=lambda desk: desk.feed(product("SOL-USD"), mark("SOL-USD"), feed("SOL-USD")),
    ),
    Row(
        name="rules of the product never told",
        reason=Reason.PRODUCT_UNKNOWN,
        backed=True,
        within=signal(),
        spoil=lambda desk: desk.core.known.rules.pop(BTC),
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
        name="account never told",
        reason=Reason.ACCOUNT_UNKNOWN,
        backed=True,
        within=signal(),
        spoil=lambda desk: setattr(desk.core.known, "account", None),
    ),
    Row(
        name="drift",
        reason=Reason.ACCOUNT_DRIFT,
        within=signal(),
        spoil=drift,
    ),
    Row(
        name="drift never compared",
        reason=Reason.ACCOUNT_DRIFT,
        within=signal(),
        spoil=lambda desk: setattr(desk.core.state, "drift", None),
    ),
    Row(
        name="mark never told",
        reason=Reason.MARK_UNKNOWN,
        backed=True,
        within=signal(),
        spoil=lambda desk: desk.core.known.marks.pop(BTC),
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
    Row(
        name="price that has not moved",
        reason=Reason.PRICE_STALE,
        within=signal(),
        limits=config(price_age_max_seconds=60),
        before=lambda desk: desk.feed(mark(price_time=NOON - 60 * SECOND)),
        spoil=lambda desk: desk.feed(mark(price_time=NOON - 60 * SECOND - MICRO)),
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
    Row(
        name="feed never told",
        reason=Reason.FEED_NOT_LIVE,
        within=signal(),
        spoil=lambda desk: desk.core.known.feeds.pop(BTC),
    ),
    Row(
        name="degraded",
        reason=Reason.MARKET_DEGRADED,
        within=signal(),
        before=lambda desk: desk.core.state.watch.degraded.update({ETH: Degraded("of another product")}),
        spoil=lambda desk: desk.core.state.watch.degraded.update({BTC: Degraded("mark_staleness")}),
    ),
]
