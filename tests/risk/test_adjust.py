"""What an operator says of the account: payments, trades by hand, holdings handed over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common import messages as m
from libs.common.messages import AdjustmentKind as Kind
from libs.common.messages import AdjustmentRequest, Trading
from services.risk.adjust import AdjustmentAsked
from services.risk.config import MarkStaleness
from tests.risk.builders import (
    BTC,
    MIDNIGHT,
    NOON,
    OPENING,
    SECOND,
    D,
    Desk,
    account,
    all_of,
    config,
    guarded,
    mark,
    one,
    signal,
    tick,
)

SELL = m.Side.SELL
HOLDING = {"USD": D(100_000), "BTC": D(5), "ETH": D(0)}  # five BTC that are not the bot's


def ask(desk: Desk, kind: Kind, request_id: str = "r", reason: str = "because", **fields: object) -> m.Reply:
    request = AdjustmentRequest(request_id=request_id, kind=kind, **fields)  # type: ignore[arg-type]
    asked = AdjustmentAsked(id=f"asked-{request_id}", at=desk.now, request=request, reason=reason, who="ann")
    audit = one(desk.feed(asked), m.Audit)
    reply = desk.core.replies.pop(asked.id)
    assert (audit.command, audit.who, audit.ok, audit.result) == ("adjust", "ann", reply.ok, reply.detail)
    return reply


def drifted(desk: Desk | None = None, **balances: str) -> Desk:
    """The venue holds something else than the books say; risk has made trading reduce-only."""
    desk = desk or Desk().open()
    desk.now += SECOND
    desk.feed(account({**OPENING, **{c: D(v) for c, v in balances.items()}}, desk.now))
    desk.store()
    assert desk.trading() is Trading.REDUCING
    return desk


def settled(desk: Desk) -> bool:
    """The drift is gone, and with it the reduction, without another look at the account."""
    assert desk.figures.drift == {}
    desk.store()
    return desk.trading() is Trading.ACTIVE


def test_a_deposit_ends_the_drift_and_is_no_gain() -> None:
    desk = drifted(USD="100500")
    reply = ask(desk, Kind.DEPOSIT, currency="USD")
    assert (reply.ok, reply.data["flow_USD"]) == (True, "500")
    assert settled(desk)
    figures = desk.figures
    assert (figures.daily_loss, figures.equity, figures.books["USD"]) == (D(0), D(100_500), D(100_500))
    assert (figures.equity_day_start, figures.equity_peak) == (D(100_500), D(100_500))


def test_a_withdrawal_is_no_loss_and_no_drawdown() -> None:
    desk = drifted(USD="40000")
    assert ask(desk, Kind.WITHDRAWAL, currency="USD").ok
    assert settled(desk)
    figures = desk.figures
    assert (figures.daily_loss, figures.equity, figures.equity_peak) == (D(0), D(40_000), D(40_000))


def test_a_part_of_the_drift_leaves_the_rest_unexplained() -> None:
    desk = drifted(USD="100500")
    assert ask(desk, Kind.DEPOSIT, currency="USD", quantity=D(300)).ok
    assert (desk.figures.drift, desk.trading()) == ({"USD": D(200)}, Trading.REDUCING)
    assert ask(desk, Kind.DEPOSIT, "second", currency="USD").ok
    assert settled(desk)


def test_coins_that_were_paid_in_are_not_the_bots_to_sell() -> None:
    desk = drifted(BTC="5")
    assert ask(desk, Kind.DEPOSIT, currency="BTC").ok
    assert settled(desk)
    assert desk.figures.equity == 100_000
    assert desk.ask(signal("exit", SELL)).reason is m.Reason.NOTHING_TO_REDUCE


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        (Kind.WITHDRAWAL, {"currency": "USD"}, "USD drifts by 500, which is no withdrawal"),
        (Kind.DEPOSIT, {"currency": "ETH"}, "no drift of ETH: there is USD=500"),
        (Kind.DEPOSIT, {}, "no drift of nothing: there is USD=500"),
        (Kind.DEPOSIT, {"currency": "USD", "quantity": D("500.01")}, "at most the drift: quantity=500.01 drift=500"),
        (Kind.DEPOSIT, {"currency": "USD", "quantity": D(0)}, "quantity must be above 0"),
        (Kind.DEPOSIT, {"currency": "USD", "quantity": D(-1)}, "quantity must be above 0"),
        (Kind.DEPOSIT, {"currency": "USD", "quantity": D("NaN")}, "not finite"),
        (Kind.MANUAL_TRADE, {"product_id": BTC}, "no drift of BTC"),
        (Kind.MANUAL_TRADE, {"product_id": "DOGE-USD"}, "DOGE-USD is not traded"),
        (Kind.MANUAL_TRADE, {}, "no product is not traded"),
        (Kind.HANDOVER, {"product_id": BTC, "quantity": D(1)}, "less beside the bot's own: quantity=1 beside=0"),
        (Kind.HANDOVER, {"product_id": BTC, "quantity": D(-1)}, "not promised to open orders: quantity=1 free=0"),
        (Kind.HANDOVER, {"product_id": BTC}, "needs a quantity"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(kind: Kind, fields: dict[str, object], why: str) -> None:
    desk = drifted(USD="100500")
    before = desk.figures
    reply = ask(desk, kind, **fields)  # type: ignore[arg-type]  # names of the request's fields only
    assert not reply.ok
    assert why in reply.detail
    assert "\n" not in reply.detail
    assert all_of(desk.ledger, m.Adjustment) == []
    assert desk.figures == before


def test_without_a_reason_or_a_request_id_nothing_is_counted() -> None:
    desk = drifted(USD="100500")
    assert ask(desk, Kind.DEPOSIT, reason=" ", currency="USD").detail == "a reason is required"
    assert "request_id is empty" in ask(desk, Kind.DEPOSIT, " ", currency="USD").detail
    assert desk.figures.drift == {"USD": D(500)}


def test_before_the_first_comparison_there_is_nothing_to_explain() -> None:
    desk = Desk().open()
    desk.core.state.drift = None
    assert "not compared" in ask(desk, Kind.DEPOSIT, currency="USD").detail


def test_the_same_request_counts_once_for_ever() -> None:
    desk = drifted(USD="100500")
    first = ask(desk, Kind.DEPOSIT, currency="USD")
    again = ask(desk, Kind.DEPOSIT, currency="USD")
    assert (again.ok, again.detail) == (True, "counted before")
    assert again.data["adjustment_id"] == first.data["adjustment_id"]
    desk.restart()
    assert ask(desk, Kind.DEPOSIT, currency="USD").detail == "counted before"
    assert desk.figures.books["USD"] == 100_500


@pytest.mark.parametrize("snapshot", [True, False])
def test_it_survives_a_restart_exactly_once(snapshot: bool) -> None:
    desk = drifted(Desk().open(opening=HOLDING), USD="100500", BTC="5")
    ask(desk, Kind.DEPOSIT, currency="USD")
    ask(desk, Kind.HANDOVER, "hand", product_id=BTC, quantity=D(2))
    before = desk.figures
    after = desk.restart(snapshot=snapshot).figures
    assert (after.books, after.positions, after.equity) == (before.books, before.positions, before.equity)
    assert after.drift == {}


def test_a_sale_by_hand_is_booked_like_a_fill() -> None:
    desk = drifted(Desk().open().bought("3"), USD="99950", BTC="1")  # 300 paid; two sold for 250
    reply = ask(desk, Kind.MANUAL_TRADE, product_id=BTC)
    assert (reply.ok, reply.data["size"], reply.data["price"]) == (True, "-2", "125.000000000000")
    assert settled(desk)
    position = desk.figures.positions[BTC]
    assert (position.quantity, position.realized_pnl) == (D(1), D(50))
    assert desk.ask(signal("exit", SELL, "3")).order.quantity == 1  # type: ignore[union-attr]


def test_a_purchase_by_hand_becomes_the_bots_and_its_cost_counts_to_the_cent() -> None:
    desk = drifted(Desk().open(), USD="99899.99", BTC="3")  # a price that no decimal holds
    assert ask(desk, Kind.MANUAL_TRADE, product_id=BTC).ok
    assert settled(desk)
    assert desk.figures.books["USD"] == D("99899.99")
    assert desk.figures.positions[BTC].quantity == 3


def test_both_sides_up_is_no_trade_and_more_than_held_cannot_have_been_sold() -> None:
    desk = drifted(Desk().open().bought("1"), USD="100400", BTC="2")
    assert "which is no trade" in ask(desk, Kind.MANUAL_TRADE, product_id=BTC).detail
    desk = drifted(Desk().open(opening=HOLDING).bought("1"), USD="100400", BTC="3")
    assert "more was sold than the bot holds" in ask(desk, Kind.MANUAL_TRADE, product_id=BTC).detail


def test_what_is_handed_over_can_be_sold_and_moves_no_money() -> None:
    desk = Desk().open(opening=HOLDING)
    assert desk.ask(signal("before", SELL)).reason is m.Reason.NOTHING_TO_REDUCE
    desk.feed(mark(price="110"))
    reply = ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(2))
    assert reply.ok
    assert reply.data["price"] == "110"
    figures = desk.figures
    assert figures.books == {"USD": D(100_000), "BTC": D(5), "ETH": D(0)}
    assert (figures.positions[BTC].quantity, figures.positions[BTC].avg_price) == (D(2), D(110))
    assert (figures.equity, figures.equity_day_start, figures.equity_peak) == (D(100_220), D(100_220), D(100_220))
    assert (figures.daily_loss, figures.drift) == (D(0), {})
    order = desk.approve(signal("after", SELL, "5", limit_price=D(110))).order
    assert order is not None
    assert order.quantity == 2


def test_a_loss_counts_from_the_handover_on() -> None:
    desk = Desk(config(daily_loss_limit=D(100))).open(opening=HOLDING)
    ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(5))
    desk.feed(mark(price="80.01"))
    assert (desk.figures.daily_loss, desk.storing) == (D("99.95"), [])
    desk.feed(mark(price="80"))
    assert [state.reason for state in desk.storing] == ["daily_loss_limit"]


def test_after_midnight_the_day_begins_with_what_was_handed_over() -> None:
    desk = Desk(now=MIDNIGHT - SECOND).open(opening=HOLDING)
    ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(5))
    desk.feed(mark(price="90", at=desk.now))
    desk.feed(tick(), at=MIDNIGHT)
    assert desk.figures.daily_loss == 0
    desk.feed(mark(price="89", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    assert desk.figures.daily_loss == 5


def test_what_is_given_back_is_not_sold_any_more() -> None:
    desk = Desk().open(opening=HOLDING)
    ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(3))
    assert "beside=2" in ask(desk, Kind.HANDOVER, "more", product_id=BTC, quantity=D(3)).detail
    desk.rest(signal("half", SELL, "1", time_in_force=m.TimeInForce.GTC, limit_price=D(101)))
    assert "free=2" in ask(desk, Kind.HANDOVER, "all", product_id=BTC, quantity=D(-3)).detail
    assert ask(desk, Kind.HANDOVER, "back", product_id=BTC, quantity=D(-2)).ok
    assert desk.figures.positions[BTC].quantity == 1
    assert desk.figures.books["BTC"] == 5


def test_a_handover_has_the_price_of_the_mark_and_another_only_without_one() -> None:
    desk = Desk().open(opening=HOLDING)
    told = ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(1), price=D(50))
    assert "leave the price out: BTC-USD counts at its mark, 100" in told.detail
    desk.core.config = guarded(mark_staleness=MarkStaleness(reduce=D(30), recover_seconds=5))
    desk.now += 30 * SECOND  # from here on the mark is none
    assert "give its price" in ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(1)).detail
    assert ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(1), price=D(50)).ok


def test_a_drift_of_the_coin_itself_is_explained_before_it_is_handed_over() -> None:
    desk = drifted(Desk().open(opening=HOLDING), BTC="6")
    assert "must agree on BTC" in ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(6)).detail


def test_the_bots_own_coins_that_were_withdrawn_are_no_position_any_more() -> None:
    desk = drifted(Desk().open(opening=HOLDING).bought("10"), USD="99000", BTC="3")  # 5 beside its own, 12 gone
    desk.feed(mark(price="110", at=desk.now))
    reply = ask(desk, Kind.WITHDRAWAL, currency="BTC")
    assert (reply.ok, reply.data["size"], reply.data["price"]) == (True, "-7", "110")
    assert settled(desk)
    figures = desk.figures
    assert (figures.positions[BTC].quantity, figures.books["BTC"]) == (D(3), D(3))
    assert (figures.equity, figures.daily_loss, figures.books["USD"]) == (D(99_330), D(0), D(99_000))
    assert figures.equity_peak == 99_330


def test_figures_that_no_account_has_are_refused_and_risk_goes_on() -> None:
    desk = Desk().open(opening=HOLDING)
    assert "not finite" in ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D("1E+2000000")).detail
    desk.approve(signal("still here"))


@pytest.mark.parametrize("snapshot", [True, False])
def test_what_was_handed_over_yesterday_is_no_loss_of_today_after_a_restart(snapshot: bool) -> None:
    desk = Desk(now=MIDNIGHT - 2 * SECOND).open(opening={**HOLDING, "BTC": D(50)})
    ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(50))
    desk.feed(mark(price="70", at=MIDNIGHT - SECOND), at=MIDNIGHT - SECOND)
    desk.storing.clear()
    desk.feed(tick(), at=MIDNIGHT + SECOND)
    assert desk.figures.daily_loss == 0
    assert desk.restart(snapshot=snapshot).figures.daily_loss == 0


def test_a_minute_later_nothing_drifts_back() -> None:
    desk = drifted(USD="100500")
    ask(desk, Kind.DEPOSIT, currency="USD")
    desk.store()
    desk.now += timedelta(minutes=1)
    desk.feed(account({**OPENING, "USD": D(100_500)}, desk.now), tick())
    assert (desk.storing, desk.figures.drift, desk.now > NOON) == ([], {}, True)
