"""The exact order that each kind of signal becomes, what it reserves, and what its fills leave of that."""

from __future__ import annotations

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus, OrderType, Reason, StopDirection, TimeInForce
from services.risk.operator import OPERATOR
from tests.risk.builders import BTC, NOON, SECOND, D, Desk, config, mark, product, signal
from tests.risk.order_rows import bracket, quote, stop
from tests.risk.rule_rows import SELL

GTC, GTD = TimeInForce.GTC, TimeInForce.GTD
END = NOON + 3600 * SECOND


def approved(wanted: m.Signal, *, held: bool = False) -> m.ApprovedOrder:
    desk = Desk().open()
    order = (desk.bought("5") if held else desk).approve(wanted).order
    assert order is not None
    return order


def plain(**changes: object) -> m.ApprovedOrder:
    order = m.ApprovedOrder(
        client_order_id=m.client_order_id("signal"),
        product_id=BTC,
        side=m.Side.BUY,
        order_type=OrderType.LIMIT,
        time_in_force=GTC,
        quantity=D(1),
        limit_price=D(100),
        reduce_only=False,
    )
    return msgspec.structs.replace(order, **changes)


@pytest.mark.parametrize("in_force", [TimeInForce.IOC, TimeInForce.FOK, GTC])
def test_a_limit_order_keeps_its_time_in_force(in_force: TimeInForce) -> None:
    assert approved(signal(time_in_force=in_force)) == plain(time_in_force=in_force)


def test_a_post_only_order_until_a_date() -> None:
    wanted = signal(time_in_force=GTD, end_time=END, post_only=True)
    assert approved(wanted) == plain(time_in_force=GTD, end_time=END, post_only=True)


def test_a_stop_goes_away_from_us_unless_told_otherwise_and_is_rounded_like_a_limit_price() -> None:
    buy = stop(at="101.019")
    up, down = StopDirection.UP, StopDirection.DOWN
    kind = OrderType.STOP_LIMIT
    assert approved(buy) == plain(order_type=kind, limit_price=D("101.01"), stop_price=D("101.01"), stop_direction=up)
    assert approved(stop(at="99", stop_direction=down)).stop_direction is down
    assert approved(stop(SELL, at="90.011"), held=True) == plain(
        order_type=kind,
        side=SELL,
        limit_price=D("90.02"),
        stop_price=D("90.02"),
        stop_direction=down,
        reduce_only=True,
    )
    assert approved(stop(SELL, "110", stop_direction=up, time_in_force=GTD, end_time=END), held=True) == plain(
        order_type=kind,
        side=SELL,
        time_in_force=GTD,
        end_time=END,
        limit_price=D(110),
        stop_price=D(110),
        stop_direction=up,
        reduce_only=True,
    )


def test_a_bracket_ends_a_position_with_a_profit_or_a_loss_and_keeps_its_base_currency() -> None:
    desk = Desk().open().bought("5")
    verdict = desk.ordered(bracket(quantity=D(4)))
    assert verdict.order == plain(
        client_order_id=m.client_order_id(m.derive_id("installation", OPERATOR, "signal")),
        order_type=OrderType.BRACKET,
        side=SELL,
        quantity=D(4),
        limit_price=D(110),
        stop_price=D(90),
        reduce_only=True,
    )
    assert verdict.reserved == 0
    assert desk.approve(signal("rest", SELL, "5")).order == plain(
        client_order_id=m.client_order_id("rest"), side=SELL, reduce_only=True, time_in_force=TimeInForce.IOC
    )


def test_a_stop_buy_reserves_its_limit_price_and_the_fee() -> None:
    desk = Desk().open(fee="0.01")
    assert desk.approve(stop(at="200", limit_price=D(202))).reserved == D(202) * D("1.01")


def test_a_buy_for_an_amount_spends_and_reserves_it_fee_included_and_names_the_most_that_may_come() -> None:
    desk = Desk(config(price_deviation_bps_max=D(200))).open(fee="0.01")
    desk.feed(mark(spread="0.5"))
    verdict = desk.approve(quote("99.009"))
    assert (verdict.reserved, desk.figures.reserved) == (D("99.00"), D("99.00"))
    # 99 at two percent below the bid of 99.75
    assert verdict.order == plain(
        order_type=OrderType.MARKET,
        time_in_force=TimeInForce.IOC,
        quantity=D("1.012"),
        limit_price=None,
        quote_size=D("99.00"),
    )


def test_fills_of_a_buy_for_an_amount_release_exactly_what_they_cost() -> None:
    desk = Desk().open(fee="0.01")
    verdict = desk.approve(quote("100"))
    desk.fill(verdict, "one", "0.5", "100", "0.5")
    assert desk.figures.reserved == D("49.5")
    desk.fill(verdict, "two", "0.49", "99", "0.4851")
    assert desk.figures.reserved == D("0.5049")
    desk.end(verdict, OrderStatus.FILLED, 3, "0.99")
    assert (desk.figures.reserved, desk.core.open_orders) == (D(0), 0)


def test_a_buy_for_an_amount_needs_no_fee_rate_and_any_other_buy_does() -> None:
    desk = Desk().open()
    account = desk.core.known.account
    assert account is not None
    desk.feed(msgspec.structs.replace(account, taker_fee_rate=None, at=NOON + SECOND))
    verdict = desk.ask(signal("no rate"))
    assert (verdict.reason, verdict.detail) == (Reason.ACCOUNT_UNKNOWN, "the fee rates are not known")
    desk.approve(quote("100", id="amount"))
    desk.bought("5").approve(signal("exit", SELL))


def test_a_product_that_takes_post_only_orders_takes_an_edit_of_one() -> None:
    desk = Desk().open()
    desk.feed(product(post_only=True))
    posted = desk.rest(signal("first", time_in_force=GTC, post_only=True))
    assert posted.order is not None
    order = desk.approve(signal("edit", quantity="2", time_in_force=GTC, edits=posted.order.client_order_id)).order
    assert order == msgspec.structs.replace(posted.order, quantity=D(2))
