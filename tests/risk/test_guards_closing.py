"""What keeps the closing and the adjustments from doing what they must not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common import messages as m
from libs.common.messages import AdjustmentKind as Kind
from libs.common.messages import OrderStatus, Trading
from services.risk.adjust import AdjustmentAsked
from services.risk.config import HaltPositions, MarkStaleness, Steps
from tests.risk.builders import (
    BTC,
    ETH,
    MIDNIGHT,
    NOON,
    SECOND,
    D,
    Desk,
    account,
    all_of,
    config,
    event,
    fill,
    guarded,
    mark,
    one,
    signal,
    tick,
    trading,
)
from tests.risk.test_adjust import HOLDING, ask, drifted, settled
from tests.risk.test_flatten import flattened, sold

SELL = m.Side.SELL
GTC = m.TimeInForce.GTC
LOSS_CLOSES = config(halt_positions=HaltPositions.FLATTEN, daily_loss_limit=D(100))


def closing_of(desk: Desk, product_id: str = BTC) -> m.Closing:
    closing = desk.figures.closing
    assert closing is not None
    return closing[product_id]


# -- closing everything


def test_while_the_trading_state_changes_no_attempt_is_made_though_one_is_due() -> None:
    desk = Desk(config(daily_loss_limit=D(100))).open().bought("10")
    [verdict] = flattened(desk)
    desk.end(verdict, OrderStatus.DENIED, 1)
    desk.feed(mark(price="90"))
    assert [state.state for state in desk.storing] == [Trading.HALTED]
    assert all_of(desk.feed(tick(), at=NOON + timedelta(minutes=1)), m.Verdict) == []
    assert one(desk.store(), m.Verdict).order is not None


def test_a_guard_that_halts_and_closes_goes_on_with_the_closing_that_is_in_force() -> None:
    desk = Desk(LOSS_CLOSES).open().bought("10")
    [verdict] = flattened(desk)
    sold(desk, verdict, "4", OrderStatus.CANCELED)
    before = desk.core.flatten
    desk.feed(mark(price="70"))
    [state] = desk.storing
    assert (state.state, state.flatten) == (Trading.HALTED, before)
    desk.feed(tick(), at=NOON + SECOND)
    desk.store()
    assert (closing_of(desk).attempts, closing_of(desk).sold) == (2, D(4))


def test_reducing_that_passes_from_the_drift_to_another_guard_keeps_the_closing() -> None:
    opening = {"USD": D(1000), "BTC": D(0), "ETH": D(0)}
    desk = Desk(guarded(concentration=Steps(reduce=D("0.4"), halt=D("0.9")))).open(opening=opening).bought("2")
    desk.feed(account({"USD": D(799), "BTC": D(2)}, NOON + SECOND))
    desk.storing.clear()
    desk.feed(trading(Trading.REDUCING, 2, reason="account_drift", who="risk", flatten="theirs"), mark(price="300"))
    assert [(state.reason, state.flatten) for state in desk.storing] == [("concentration", "theirs")]


def test_what_was_sold_before_a_closing_is_no_part_of_it() -> None:
    desk = Desk().open().bought("2")
    desk.fact(fill("out", SELL, "2"))
    assert flattened(desk) == []
    assert desk.figures.closing == {}


def test_what_is_being_sold_is_told_as_that_also_when_only_dust_is_left_of_it() -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    assert verdict.order is not None
    assert closing_of(desk).detail == f"SELL {verdict.order.client_order_id} is APPROVED"
    desk.end(verdict, OrderStatus.ACCEPTED, 1)
    assert (closing_of(desk).outcome, closing_of(desk).held) == ("selling", D(2))
    assert closing_of(desk).detail == f"SELL {verdict.order.client_order_id} is ACCEPTED"
    desk.fill(verdict, "most", "1.999")
    assert (closing_of(desk).outcome, closing_of(desk).held, closing_of(desk).sold) == (
        "selling",
        D("0.001"),
        D("1.999"),
    )
    desk.end(verdict, OrderStatus.CANCELED, 2, "1.999")
    assert (closing_of(desk).outcome, closing_of(desk).detail) == ("dust", "")


def test_what_is_closed_has_nothing_more_to_say() -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    sold(desk, verdict, "2")
    assert (closing_of(desk).outcome, closing_of(desk).detail) == ("flat", "")


def test_the_pause_begins_with_the_end_of_an_attempt_and_not_with_its_other_steps() -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    desk.fact(event(verdict, OrderStatus.ACCEPTED, 1, at=NOON + 30 * SECOND))
    assert desk.core.state.closings[BTC].at == NOON
    assert desk.core.state.closings[BTC].detail == ""
    desk.fact(event(verdict, OrderStatus.CANCELED, 2, at=NOON + 5 * SECOND))
    assert desk.core.state.closings[BTC].at == NOON + 5 * SECOND


def test_what_a_strategy_asks_for_meanwhile_changes_nothing_of_a_closing() -> None:
    desk = Desk().open().bought("2")
    [first] = flattened(desk)
    desk.end(first, OrderStatus.REJECTED, 1)
    for n in range(3):
        desk.ask(signal(f"entry {n}"))
    assert closing_of(desk).attempts == 1
    assert closing_of(desk).detail.startswith("REJECTED")
    second = one(desk.feed(tick(), at=NOON + SECOND), m.Verdict)
    assert second.signal_id != first.signal_id
    assert closing_of(desk).attempts == 2


def test_what_another_order_sells_is_no_success_of_the_closing() -> None:
    desk = Desk().open().bought("3")
    [verdict] = flattened(desk)
    sold(desk, verdict, "1", OrderStatus.CANCELED)
    exit_ = desk.ordered(signal("exit", SELL, "1"))
    desk.fill(exit_, "theirs", "1")
    desk.fact(event(exit_, OrderStatus.FILLED, 1, "1", at=NOON + timedelta(minutes=1)))
    assert (closing_of(desk).sold, closing_of(desk).held) == (D(1), D(1))
    assert desk.core.state.closings[BTC].at == NOON
    assert desk.core.state.closings[BTC].detail.startswith("CANCELED")


# -- what an operator says of the account


def test_an_adjustment_without_a_request_is_refused_in_one_line() -> None:
    desk = drifted(USD="100500")
    asked = AdjustmentAsked(id="asked", at=desk.now, request=None, reason="because", who="ann")
    audit = one(desk.feed(asked), m.Audit)
    assert (audit.ok, audit.result.partition(":")[0]) == (False, "request_id is empty")


def test_an_adjustment_names_who_asked_and_the_answer_only_what_was_counted() -> None:
    desk = drifted(USD="100500")
    reply = ask(desk, Kind.DEPOSIT, currency="USD")
    made = one(desk.ledger, m.Adjustment)
    assert (made.cause, made.who, made.id) == ("asked-r", "ann", reply.data["adjustment_id"])
    assert reply.data.keys() == {"adjustment_id", "flow_USD"}
    assert desk.figures.positions == {}


def test_a_payment_of_less_than_one_counts_in_its_own_direction_only() -> None:
    desk = drifted(USD="100000.5")
    assert "USD drifts by 0.5, which is no withdrawal" in ask(desk, Kind.WITHDRAWAL, currency="USD").detail
    assert ask(desk, Kind.DEPOSIT, currency="USD").ok
    assert settled(desk)
    desk = drifted(USD="99999.5")
    assert "USD drifts by -0.5, which is no deposit" in ask(desk, Kind.DEPOSIT, currency="USD").detail
    assert ask(desk, Kind.WITHDRAWAL, currency="USD").ok
    assert settled(desk)


def test_where_nothing_drifts_there_is_nothing_to_explain() -> None:
    told = ask(Desk().open(), Kind.DEPOSIT, currency="USD")
    assert (told.ok, told.detail) == (False, "no drift of USD: there is none")


def test_all_that_was_held_may_have_been_sold_by_hand() -> None:
    desk = drifted(Desk().open().bought("0.5"), USD="100010", BTC="0")
    assert ask(desk, Kind.MANUAL_TRADE, product_id=BTC).ok
    assert settled(desk)
    assert desk.figures.positions[BTC].quantity == 0


def test_a_part_of_one_coin_too_much_cannot_have_been_sold_by_hand() -> None:
    desk = drifted(Desk().open(opening=HOLDING).bought("1"), USD="100050", BTC="4.5")
    told = ask(desk, Kind.MANUAL_TRADE, product_id=BTC).detail
    assert "more was sold than the bot holds (sold=1.5 held=1)" in told


@pytest.mark.parametrize(("usd", "trade"), [("100000.5", False), ("99999.5", True)])
def test_small_drifts_are_a_trade_where_they_are_opposite_and_only_there(usd: str, trade: bool) -> None:
    reply = ask(drifted(USD=usd, BTC="0.5"), Kind.MANUAL_TRADE, product_id=BTC)
    assert (reply.ok, "which is no trade" in reply.detail) == (trade, not trade)


def test_books_that_were_never_compared_hand_nothing_over() -> None:
    desk = Desk().open(opening=HOLDING)
    desk.core.state.drift = None
    assert "must agree on BTC" in ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(1)).detail


def test_a_part_of_one_coin_is_given_back_only_where_the_bot_holds_it() -> None:
    desk = Desk().open(opening=HOLDING)
    assert "free=0" in ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D("-0.5")).detail
    assert ask(desk, Kind.HANDOVER, "to", product_id=BTC, quantity=D("0.5")).ok
    assert ask(desk, Kind.HANDOVER, "back", product_id=BTC, quantity=D("-0.5")).ok
    assert desk.figures.positions[BTC].quantity == 0


@pytest.mark.parametrize(("price", "ok"), [("0", False), ("-0.5", False), ("-2", False), ("0.5", True), ("1", True)])
def test_a_price_that_an_operator_gives_is_above_zero(price: str, ok: bool) -> None:
    desk = without_marks(Desk().open(opening=HOLDING))
    assert ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(1), price=D(price)).ok is ok


def without_marks(desk: Desk) -> Desk:
    """They are too old to be one."""
    desk.core.config = guarded(mark_staleness=MarkStaleness(reduce=D(30), recover_seconds=5))
    desk.now += 30 * SECOND
    return desk


@pytest.mark.parametrize(
    ("held", "size", "booked"),
    [("3", "4", "0"), ("3", "4.5", "0"), ("3", "5", "0"), ("3", "5.5", "-0.5"), ("0.5", "5.25", "-0.25")],
)
def test_a_withdrawal_takes_first_what_lies_beside_the_bots_own(held: str, size: str, booked: str) -> None:
    desk = Desk().open(opening=HOLDING).bought(held).bought("4", product_id=ETH)
    usd = 100_000 - 100 * (D(held) + 4)
    drifted(desk, USD=str(usd), BTC=str(5 + D(held) - D(size)), ETH="4")
    reply = ask(desk, Kind.WITHDRAWAL, currency="BTC")
    assert (reply.ok, D(reply.data.get("size", "0"))) == (True, D(booked))
    assert ("flow_USD" in reply.data) is (D(booked) != 0)
    assert settled(desk)
    assert desk.figures.positions[BTC].quantity == D(held) + D(booked)


def test_a_deposit_of_coins_that_the_bot_trades_is_no_position_of_its_own() -> None:
    desk = drifted(Desk().open().bought("3"), USD="99700", BTC="8")
    reply = ask(desk, Kind.DEPOSIT, currency="BTC")
    assert reply.data.keys() == {"adjustment_id", "flow_BTC"}
    assert settled(desk)
    assert (desk.figures.positions[BTC].quantity, desk.figures.books["BTC"]) == (D(3), D(8))


def test_a_price_that_no_account_can_have_paid_is_refused() -> None:
    desk = drifted(Desk().open().bought("1"), USD="1E+50", BTC="0.9999999")
    reply = ask(desk, Kind.MANUAL_TRADE, product_id=BTC)
    assert (reply.ok, reply.detail.partition(":")[0]) == (False, "these figures cannot be")


def test_what_is_handed_over_without_a_mark_begins_the_next_day_at_its_price() -> None:
    desk = without_marks(Desk(now=MIDNIGHT - 32 * SECOND).open(opening=HOLDING))
    ask(desk, Kind.HANDOVER, product_id=BTC, quantity=D(2), price=D(50))
    desk.feed(tick(), at=MIDNIGHT)
    assert all_of(desk.ledger, m.Baseline)[-1].prices == {BTC: D(50)}
