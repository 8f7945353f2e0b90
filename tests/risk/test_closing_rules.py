"""What binds the sales that risk makes to close a position: they go where nothing else may, and no further."""

from __future__ import annotations

from decimal import localcontext

import pytest
from msgspec.structs import replace

from libs.common import messages as m
from libs.common.messages import CheckOutcome, Feed, OrderType, Reason, Trading
from services.risk.books import EXACT
from services.risk.rules import Evaluation, evaluate
from services.risk.sizing import Context
from tests.risk.builders import BTC, NOON, SECOND, D, Desk, feed, mark, market, product, signal, trading

SELL = m.Side.SELL
QUANTITY = "100"


def closing(desk: Desk, quantity: str = QUANTITY, **changes: object) -> Context:
    core, wanted = desk.core, market(side=SELL, quantity=quantity)
    state = core.switch.effective
    return Context(desk.now, replace(wanted, **changes), core.config, state, core.known, core.state, True, True)


def closed(desk: Desk, quantity: str = QUANTITY, **changes: object) -> tuple[Evaluation, m.ApprovedOrder | None]:
    with localcontext(EXACT):
        context = closing(desk, quantity, **changes)
        found = evaluate(context)
        return found, context.order() if found.reason is Reason.APPROVED else None


def refused(desk: Desk, quantity: str = QUANTITY, **changes: object) -> tuple[Reason, str]:
    found, _ = closed(desk, quantity, **changes)
    return found.reason, found.detail


def holding(quantity: str = "2") -> Desk:
    return Desk().open().bought(quantity)


def test_it_sells_what_is_held_as_a_closing_that_only_reduces() -> None:
    found, order = closed(holding())
    assert order is not None
    assert (order.quantity, order.reduce_only, order.flatten, order.order_type) == (D(2), True, True, OrderType.MARKET)
    assert (order.time_in_force, order.limit_price) == (m.TimeInForce.IOC, None)
    assert found.detail == "quantity=2 held=2"


def test_no_other_order_is_one() -> None:
    order = holding().approve(market(side=SELL)).order
    assert order is not None
    assert not order.flatten


@pytest.mark.parametrize("state", Trading)
def test_it_goes_in_every_known_state_of_trading(state: Trading) -> None:
    desk = holding()
    desk.feed(trading(state, 2))
    assert closed(desk)[1] is not None


def test_it_does_not_go_while_the_state_of_trading_is_not_known() -> None:
    desk = holding()
    desk.core.switch.current = None
    assert refused(desk)[0] is Reason.TRADING_STATE_UNKNOWN


def test_it_needs_no_mark_no_feed_no_account_and_no_comparison_of_the_books() -> None:
    desk = holding()
    desk.feed(feed(state=Feed.GAP))
    desk.core.known.marks.clear()
    desk.core.known.account, desk.core.state.drift = None, None
    found, order = closed(desk)
    assert order is not None
    assert order.quantity == 2
    assert found.detail == "quantity=2 held=2"


def test_it_goes_at_an_old_mark_and_a_wide_spread() -> None:
    desk = holding()
    desk.feed(mark(spread="50"))
    desk.now = NOON + 3600 * SECOND
    assert closed(desk, expires_at=desk.now)[1] is not None


def test_an_order_of_the_strategy_is_not_in_its_way_and_keeps_what_it_sells() -> None:
    desk = holding()
    desk.approve(signal("open", SELL, "0.5"))
    order = closed(desk)[1]
    assert order is not None
    assert order.quantity == D("1.5")


def test_it_says_which_rules_do_not_bind_it() -> None:
    found, _ = closed(holding())
    bound = [check.rule for check in found.checks if check.outcome is not CheckOutcome.EXEMPT]
    assert bound == [
        "expired",
        "trading_unknown",
        "product_unknown",
        "not_editable",
        "invalid",
        "not_tradable",
        "nothing_to_reduce",
        "dust",
        "too_small",
        "too_large",
    ]


def test_a_buy_is_never_one() -> None:
    desk = holding()
    desk.feed(trading(Trading.HALTED, 2))
    assert refused(desk, side=m.Side.BUY)[0] is Reason.TRADING_HALTED


@pytest.mark.parametrize(
    ("reason", "rules"),
    [
        (Reason.PRODUCT_NOT_TRADABLE, product(trading_disabled=True)),
        (Reason.PRODUCT_NOT_TRADABLE, product(limit_only=True)),
        (Reason.DUST, product(base_min_size=D("2.001"))),
        (Reason.DUST, product(quote_min_size=D("200.01"))),
    ],
)
def test_it_is_bound_by_what_the_venue_takes(reason: Reason, rules: m.Product) -> None:
    desk = holding()
    assert closed(desk)[1] is not None
    desk.feed(rules)
    assert refused(desk)[0] is reason


def test_it_is_bound_by_knowing_the_product() -> None:
    desk = holding()
    del desk.core.known.rules[BTC]
    assert refused(desk)[0] is Reason.PRODUCT_UNKNOWN


def test_it_expires_and_is_a_sound_order_like_any_other() -> None:
    desk = holding()
    assert refused(desk, expires_at=NOON - SECOND)[0] is Reason.SIGNAL_EXPIRED
    assert refused(desk, limit_price=D(100))[0] is Reason.ORDER_INVALID


def test_it_sells_nothing_that_is_not_held_or_promised_to_another_order() -> None:
    desk = holding()
    desk.ordered(signal("open", SELL, "2"))
    assert refused(desk) == (Reason.NOTHING_TO_REDUCE, "held=2 selling=2")
    assert refused(Desk().open()) == (Reason.NOTHING_TO_REDUCE, "held=0 selling=0")


@pytest.mark.parametrize(("held", "reason"), [("0.01", Reason.APPROVED), ("0.009", Reason.DUST)])
def test_without_a_mark_dust_is_told_by_its_size(held: str, reason: Reason) -> None:
    desk = holding(held)
    desk.feed(product(quote_min_size=D(1000)))
    assert refused(desk)[0] is Reason.DUST  # by its value
    del desk.core.known.marks[BTC]
    assert refused(desk)[0] is reason


@pytest.mark.parametrize(("asked", "reason"), [("0.01", Reason.APPROVED), ("0.009", Reason.SIZE_BELOW_MINIMUM)])
def test_without_a_mark_a_size_is_too_small_by_itself(asked: str, reason: Reason) -> None:
    desk = holding()
    del desk.core.known.marks[BTC]
    assert refused(desk, asked)[0] is reason


def test_more_than_the_venue_takes_at_once_is_sold_in_parts_of_that_size() -> None:
    desk = holding("5.5")
    desk.feed(product(base_max_size=D("2.0005")))
    order = closed(desk)[1]
    assert order is not None
    assert order.quantity == 2
    desk.feed(product(quote_max_size=D("150.19")))
    order = closed(desk)[1]
    assert order is not None
    assert order.quantity == D("1.501")
    del desk.core.known.marks[BTC]
    order = closed(desk)[1]
    assert order is not None
    assert order.quantity == D("5.5")


def test_any_other_exit_is_refused_where_it_is_too_large() -> None:
    desk = holding("5")
    desk.feed(product(base_max_size=D(2)))
    assert desk.ask(market("exit", SELL, "3")).reason is Reason.SIZE_ABOVE_MAXIMUM
    assert desk.ask(market("all", SELL, "9")).reason is Reason.SIZE_ABOVE_MAXIMUM
