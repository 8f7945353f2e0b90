"""The exact order that an approval names, and the life of its reservation."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus, Reason
from tests.risk.builders import BTC, ETH, NOON, SECOND, D, Desk, config, event, fill, mark, market, product, signal

SELL = m.Side.SELL


def test_the_order_is_the_signal_in_the_venues_increments_under_an_id_derived_from_it() -> None:
    verdict = Desk().open().approve(signal(quantity="1.2349", limit_price=D("100.019")))
    assert verdict.order == m.ApprovedOrder(
        client_order_id=m.client_order_id("signal"),
        product_id=BTC,
        side=m.Side.BUY,
        order_type=m.OrderType.LIMIT,
        time_in_force=m.TimeInForce.IOC,
        quantity=D("1.234"),
        limit_price=D("100.01"),
        reduce_only=False,
    )
    assert (verdict.signal_id, verdict.cause, verdict.reason) == ("signal", "signal", Reason.APPROVED)


def test_a_sales_limit_price_is_rounded_up_and_it_is_marked_reduce_only() -> None:
    order = Desk().open().bought("1").approve(signal(side=SELL, limit_price=D("100.011"), reduce_only=False)).order
    assert order is not None
    assert (order.limit_price, order.reduce_only) == (D("100.02"), True)


def test_a_market_order_goes_out_as_immediate_or_cancel_without_a_price() -> None:
    order = Desk().open().approve(market(time_in_force=m.TimeInForce.GTC)).order
    assert order is not None
    assert (order.order_type, order.time_in_force, order.limit_price) == (m.OrderType.MARKET, m.TimeInForce.IOC, None)


def test_a_size_is_floored_and_never_raised_to_a_minimum() -> None:
    desk = Desk().open()
    desk.feed(product(base_increment=D("0.1"), base_min_size=D("0.5")))
    assert desk.ask(signal(quantity="0.49")).reason is Reason.SIZE_BELOW_MINIMUM


def test_an_approval_expires_with_its_ttl_or_with_its_signal_and_names_the_trading_revision() -> None:
    desk = Desk().open()
    assert desk.ordered(signal("long")).expires_at == NOON + timedelta(seconds=10)
    short = desk.approve(signal("short", expires_at=NOON + 3 * SECOND))
    assert (short.expires_at, short.trading_revision) == (NOON + 3 * SECOND, 1)


def test_a_sale_is_clamped_to_what_is_held() -> None:
    order = Desk().open().bought("0.0109").approve(signal(side=SELL, quantity="0.2")).order
    assert order is not None
    assert order.quantity == D("0.010")


def test_a_sale_is_clamped_to_what_open_sells_have_left() -> None:
    desk = Desk().open().bought("3")
    desk.ordered(signal("first", SELL, "2"))
    order = desk.approve(signal("second", SELL, "2")).order
    assert order is not None
    assert order.quantity == 1
    assert desk.ask_as_operator(signal("third", SELL, "2")).reason is Reason.NOTHING_TO_REDUCE


def test_holdings_that_we_did_not_buy_are_not_ours_to_sell() -> None:
    desk = Desk().open(opening={"USD": D(100_000), "BTC": D(5), "ETH": D(0)})
    assert desk.ask(signal(side=SELL)).reason is Reason.NOTHING_TO_REDUCE


def test_a_limit_buy_reserves_its_price_and_the_fee() -> None:
    desk = Desk().open(fee="0.012")
    verdict = desk.approve(signal(quantity="2"))
    assert verdict.reserved == D("202.400") == desk.figures.reserved


def test_a_market_buy_reserves_the_ask_the_slippage_and_the_fee() -> None:
    desk = Desk(config(slippage_bps=D(50))).open(fee="0.01")
    desk.feed(mark(spread="0.5"))
    assert desk.approve(market(quantity="2")).reserved == 2 * D("100.25") * D("1.005") * D("1.01")


def test_nothing_is_reserved_before_the_verdict_comes_back() -> None:
    desk = Desk().open()
    [verdict] = desk.core.on_message(signal(), desk.now)
    assert desk.figures.reserved == 0
    desk.feed(verdict)
    assert desk.figures.reserved == 100


def test_a_fill_turns_its_part_of_the_reservation_into_a_position() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    desk.fill(verdict, "fill-1", "1")
    assert (desk.figures.reserved, desk.figures.exposure) == (D(300), D(100))
    desk.fill(verdict, "fill-2", "3")
    assert (desk.figures.reserved, desk.figures.exposure, desk.core.open_orders) == (D(0), D(400), 1)
    desk.end(verdict, OrderStatus.FILLED, 3, "4")
    assert desk.core.open_orders == 0


@pytest.mark.parametrize(
    "status",
    [OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED, OrderStatus.DENIED],
)
def test_the_rest_is_released_by_every_terminal_event(status: OrderStatus) -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    desk.fill(verdict, "fill-1", "1")
    desk.end(verdict, status, 5, "1")
    assert (desk.figures.reserved, desk.figures.exposure, desk.core.open_orders) == (D(0), D(100), 0)


@pytest.mark.parametrize("status", [status for status in OrderStatus if status not in m.TERMINAL])
def test_nothing_is_released_by_any_other_event(status: OrderStatus) -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    desk.end(verdict, status, 1)
    assert (desk.figures.reserved, desk.core.open_orders) == (D(400), 1)


def test_no_clock_releases_a_reservation() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    desk.end(verdict, OrderStatus.UNKNOWN, 2)
    desk.later(7 * 24 * 3600)
    assert desk.figures.reserved == 400
    assert desk.restart(snapshot=False).figures.reserved == 400


def test_a_terminal_event_that_runs_ahead_of_its_fills_keeps_what_they_will_bring() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    desk.end(verdict, OrderStatus.CANCELED, 5, "3")
    assert (desk.figures.reserved, desk.core.open_orders) == (D(300), 1)
    desk.fill(verdict, "fill-1", "3")
    assert (desk.figures.reserved, desk.figures.exposure, desk.core.open_orders) == (D(0), D(300), 0)


def test_an_open_sell_keeps_its_base_currency_until_it_ends() -> None:
    desk = Desk().open().bought("3")
    verdict = desk.ordered(signal("first", SELL, "3"))
    desk.fill(verdict, "fill-1", "1")
    assert desk.ask(signal("second", SELL, "3")).reason is Reason.NOTHING_TO_REDUCE
    desk.end(verdict, OrderStatus.CANCELED, 4, "1")
    order = desk.approve(signal("third", SELL, "3")).order
    assert order is not None
    assert order.quantity == 2


def test_an_old_step_told_again_changes_nothing() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    ended = event(verdict, OrderStatus.CANCELED, 4, "0")
    desk.fact(event(verdict, OrderStatus.UNKNOWN, 3))
    desk.feed(event(verdict, OrderStatus.REJECTED, 3), event(verdict, OrderStatus.CANCELED, 2))
    assert desk.core.open_orders == 1
    desk.fact(ended)
    desk.feed(ended, event(verdict, OrderStatus.ACCEPTED, 2))
    assert (desk.core.open_orders, desk.figures.reserved) == (0, D(0))


def test_a_reservation_survives_a_restart_in_every_phase_of_its_life() -> None:
    for snapshot in (True, False):
        desk = Desk().open()
        verdict = desk.approve(signal(quantity="4"))
        assert desk.restart(snapshot=snapshot).figures.reserved == 400
        desk.end(verdict, OrderStatus.SUBMITTING, 1)
        desk.fill(verdict, "fill-1", "1")
        assert desk.restart(snapshot=snapshot).figures.reserved == 300
        desk.end(verdict, OrderStatus.UNKNOWN, 2)
        assert desk.restart(snapshot=snapshot).figures.reserved == 300
        desk.end(verdict, OrderStatus.CANCELED, 3, "1")
        assert desk.restart(snapshot=snapshot).figures.reserved == 0
        assert desk.figures.exposure == 100


def test_a_signal_is_answered_once() -> None:
    desk = Desk().open()
    desk.approve(signal())
    assert desk.feed(signal()) == []
    assert desk.restart().feed(signal()) == []
    assert desk.restart(snapshot=False).feed(signal()) == []
    assert desk.figures.reserved == 100


def test_a_denied_signal_stays_denied_when_the_cause_is_gone() -> None:
    desk = Desk(config(order_notional_max=D(50))).open()
    assert desk.ask(signal()).reason is Reason.NOTIONAL_ABOVE_LIMIT
    desk.feed(mark(price="10"))
    assert desk.feed(signal()) == []


def test_an_answer_is_remembered_for_a_day_and_what_is_older_gets_none() -> None:
    desk = Desk().open()
    old = signal("old")
    desk.approve(old)
    desk.later(24 * 3600)
    assert (
        desk.ask(signal("fresh", at=desk.now, expires_at=desk.now)).reason is not Reason.APPROVED
    )  # the account is old
    assert desk.feed(old) == []
    assert desk.core.known.dropped["Signal"] == 0
    desk.later(1)
    desk.ask(signal("fresher", at=desk.now, expires_at=desk.now))
    assert desk.feed(old) == []
    assert desk.core.known.dropped["Signal"] == 1
    assert desk.feed(signal("never seen", at=NOON - SECOND)) == []


def test_the_order_rate_counts_the_last_minute_of_market_time() -> None:
    desk = Desk(config(orders_per_minute_max=1)).open()
    desk.ordered(signal("first"))
    desk.later(59.999999)
    long = desk.now + 60 * SECOND
    assert desk.ask(signal("second", at=desk.now, expires_at=long)).reason is Reason.ORDER_RATE_ABOVE_LIMIT
    desk.later(0.000001)
    desk.approve(signal("third", at=desk.now, expires_at=long))


def test_a_refusal_does_not_count_against_the_order_rate() -> None:
    desk = Desk(config(orders_per_minute_max=1, order_notional_max=D(100))).open()
    assert desk.ask(signal("first", quantity="2")).reason is Reason.NOTIONAL_ABOVE_LIMIT
    desk.approve(signal("second"))


def test_two_verdicts_that_differ_never_share_an_id() -> None:
    """The bus takes a verdict with the same id for its own write that had got through."""
    one, other = Desk().open(), Desk(config(order_notional_max=D(1))).open()
    assert one.ask(signal()).id != other.ask(signal()).id


def test_the_detail_names_the_figures() -> None:
    desk = Desk(config(order_notional_max=D(1000))).open()
    assert desk.ask(signal("large", quantity="10.5")).detail == "notional=1050 limit=1000"
    assert desk.ask(signal("small")).detail == "quantity=1 notional=100 reserved=100 mid=100 held=0"


@pytest.mark.parametrize(
    "broken",
    [
        fill("bad", size="0"),
        fill("bad", price="-1"),
        mark(price="0"),
        mark(spread="-1"),
        product(base_increment=D(0)),
        product(quote_currency="EUR"),
    ],
)
def test_what_cannot_be_true_is_dropped_and_counted(broken: m.Message) -> None:
    desk = Desk().open()
    before = desk.core.dump()
    desk.feed(broken)
    assert desk.core.dump() == before
    assert desk.core.known.dropped == {type(broken).__name__: 1}
    desk.approve(signal())


def test_an_order_event_with_a_broken_size_releases_nothing() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    desk.end(verdict, OrderStatus.CANCELED, 2, "-1")
    assert (desk.figures.reserved, desk.core.known.dropped["OrderEvent"]) == (D(400), 1)


def test_a_mark_that_comes_late_does_not_replace_a_newer_one() -> None:
    desk = Desk().open()
    desk.feed(mark(ETH, "110", NOON + SECOND), mark(ETH, "90", NOON))
    assert desk.core.known.marks[ETH].mid == 110
