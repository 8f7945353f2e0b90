"""Closing every position: by an operator's word or with a halt, until nothing is held, over restarts and refusals."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus, Reason, Trading
from services.risk.config import HaltPositions
from services.risk.flatten import attempt_id
from services.risk.trading import Action
from tests.risk.builders import (
    BTC,
    ETH,
    MIDNIGHT,
    NOON,
    SECOND,
    D,
    Desk,
    all_of,
    command,
    config,
    event,
    mark,
    one,
    product,
    signal,
    tick,
    trading,
)

SELL = m.Side.SELL
CLOSING = config(halt_positions=HaltPositions.FLATTEN, daily_loss_limit=D(100))


def flattened(desk: Desk, reason: str = "out") -> list[m.Verdict]:
    """The verdicts that follow at once."""
    before = len(desk.ledger)
    assert desk.tell(Action.FLATTEN, reason).ok
    return all_of(desk.ledger[before:], m.Verdict)


def sold(desk: Desk, verdict: m.Verdict, size: str, status: OrderStatus = OrderStatus.FILLED) -> None:
    """Execution and the venue make that of it."""
    assert verdict.order is not None
    desk.end(verdict, OrderStatus.SUBMITTING, 1)
    desk.end(verdict, OrderStatus.ACCEPTED, 2)
    if D(size):
        desk.fill(verdict, f"fill-{verdict.order.client_order_id}", size)
    desk.end(verdict, status, 3, size)


def test_everything_that_is_held_is_sold_at_the_market_and_trading_stays_reduce_only() -> None:
    desk = Desk().open().bought("2").bought("3", product_id=ETH)
    verdicts = flattened(desk)
    orders = [(v.order.product_id, v.order.quantity) for v in verdicts if v.order]
    assert orders == [(BTC, D(2)), (ETH, D(3))]
    for verdict in verdicts:
        order = verdict.order
        assert order is not None
        assert (order.side, order.order_type, order.time_in_force) == (SELL, m.OrderType.MARKET, m.TimeInForce.IOC)
        assert order.reduce_only
        assert order.flatten
        assert verdict.operator
    assert desk.trading() is Trading.REDUCING
    for verdict, size in zip(verdicts, ("2", "3"), strict=True):
        sold(desk, verdict, size)
    closing = desk.figures.closing
    assert closing is not None
    assert {p: (c.outcome, c.held, c.sold, c.attempts) for p, c in closing.items()} == {
        BTC: ("flat", D(0), D(2), 1),
        ETH: ("flat", D(0), D(3), 1),
    }
    assert all_of(desk.feed(tick(), at=NOON + timedelta(hours=1)), m.Verdict) == []
    assert desk.ask(signal("entry", at=desk.now)).reason is Reason.TRADING_REDUCING


def test_the_command_is_answered_when_its_state_is_stored_and_orders_come_only_then() -> None:
    desk = Desk().open().bought("2")
    found = desk.feed(command(Action.FLATTEN, "out"))
    assert (all_of(found, m.Audit), all_of(found, m.Verdict)) == ([], [])
    [state] = desk.storing
    assert (state.state, state.reason, bool(state.flatten)) == (Trading.REDUCING, "out", True)
    found = desk.store()
    assert one(found, m.Audit).ok
    assert one(found, m.Verdict).trading_revision == 2


def test_while_halted_it_closes_too_and_the_halt_stays() -> None:
    desk = Desk().open().bought("2")
    desk.tell(Action.HALT)
    assert desk.ask(signal("exit", SELL)).reason is Reason.TRADING_HALTED
    [verdict] = flattened(desk)
    assert verdict.order is not None
    assert verdict.order.flatten
    assert desk.trading() is Trading.HALTED


def test_no_signal_of_a_strategy_can_pass_for_a_closing() -> None:
    desk = Desk().open().bought("2")
    desk.tell(Action.HALT)
    rogue = signal("rogue", SELL, strategy="operator", reason="flatten", trigger="flatten")
    assert desk.ask(rogue).reason is Reason.TRADING_HALTED
    assert not desk.ledger[-1].operator  # type: ignore[attr-defined]


def test_asked_twice_it_is_one_closing() -> None:
    desk = Desk().open().bought("2")
    flattened(desk)
    found = desk.feed(command(Action.FLATTEN, "again", "second"))
    assert (all_of(found, m.Verdict), all_of(found, m.TradingState)) == ([], [])
    audit = one(found, m.Audit)
    assert audit.ok
    assert audit.result.startswith("already reducing")
    assert audit.result.endswith("being closed")


def test_stale_marks_and_a_lost_feed_do_not_stop_it() -> None:
    desk = Desk().open().bought("2")
    desk.feed(tick(), at=NOON + timedelta(hours=5))
    [verdict] = flattened(desk)
    assert verdict.order is not None


def test_without_any_mark_it_sells_all_the_same() -> None:
    desk = Desk().open().bought("2")
    desk.core.known.marks.clear()
    [verdict] = flattened(desk)
    assert verdict.order is not None
    assert verdict.order.quantity == 2


def test_a_partial_fill_is_followed_by_the_rest_after_a_pause() -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    sold(desk, verdict, "0.5", OrderStatus.CANCELED)
    closing = desk.figures.closing
    assert closing is not None
    assert closing[BTC].outcome == "waiting"
    assert all_of(desk.feed(tick(), at=NOON + SECOND - timedelta(microseconds=1)), m.Verdict) == []
    second = one(desk.feed(tick(), at=NOON + SECOND), m.Verdict)
    assert second.order is not None
    assert second.order.quantity == D("1.5")
    sold(desk, second, "1.5")
    closing = desk.figures.closing
    assert closing is not None
    assert (closing[BTC].outcome, closing[BTC].sold, closing[BTC].attempts) == ("flat", D(2), 2)


def test_what_the_venue_refuses_is_tried_again_with_growing_pauses_and_says_why() -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    gaps = []
    for _ in range(8):
        desk.end(verdict, OrderStatus.REJECTED, 1, reason="INSUFFICIENT_FUND")
        closing, since = desk.figures.closing, desk.now
        assert closing is not None
        assert closing[BTC].detail == "REJECTED: INSUFFICIENT_FUND"
        while not (found := all_of(desk.feed(tick(desk.now), at=desk.now + SECOND), m.Verdict)):
            assert desk.now - since < timedelta(minutes=5)
        [verdict] = found
        gaps.append((desk.now - since).total_seconds())
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_refusal_of_one_product_does_not_hold_up_the_other() -> None:
    desk = Desk().open().bought("2").bought("3", product_id=ETH)
    desk.feed(product(BTC, trading_disabled=True))
    verdicts = {v.product_id: v for v in flattened(desk)}
    assert verdicts[BTC].reason is Reason.PRODUCT_NOT_TRADABLE
    sold(desk, verdicts[ETH], "3")
    closing = desk.figures.closing
    assert closing is not None
    assert (closing[BTC].outcome, closing[ETH].outcome) == ("waiting", "flat")
    assert closing[BTC].detail.startswith("product_not_tradable: ")


def test_an_open_order_of_the_product_comes_first_to_its_end() -> None:
    desk = Desk().open().bought("2")
    resting = desk.rest(signal("bracket", SELL, "2", limit_price=D(101), time_in_force=m.TimeInForce.GTC))
    assert flattened(desk) == []
    desk.feed(tick(), at=NOON + timedelta(minutes=1))
    found = desk.end(resting, OrderStatus.CANCELED, 2)
    assert one(found, m.Verdict).order is not None


def test_an_entry_that_fills_late_is_closed_as_well() -> None:
    desk = Desk().open()
    entry = desk.approve(signal("entry", quantity="4"))
    assert flattened(desk) == []
    desk.fact(event(entry, OrderStatus.UNKNOWN, 1))
    closing = desk.figures.closing
    assert closing is not None
    assert (closing[BTC].outcome, closing[BTC].held) == ("waiting", D(0)), "what may still come is not yet closed"
    assert closing[BTC].detail.endswith("is UNKNOWN")
    [part] = all_of(desk.fill(entry, "late", "1"), m.Verdict)
    sold(desk, part, "1")
    assert all_of(desk.fill(entry, "later", "3"), m.Verdict) == []
    desk.end(entry, OrderStatus.FILLED, 2, "4")
    rest = one(desk.feed(tick(), at=NOON + SECOND), m.Verdict)
    assert rest.order is not None
    assert rest.order.quantity == 3


def test_what_is_held_is_sold_though_a_buy_is_of_unknown_outcome() -> None:
    desk = Desk().open().bought("10")
    entry = desk.approve(signal("entry", quantity="4"))
    desk.fact(event(entry, OrderStatus.UNKNOWN, 1))
    [verdict] = flattened(desk)
    assert verdict.order is not None
    assert verdict.order.quantity == 10


def test_a_name_that_somebody_else_has_used_does_not_stop_it() -> None:
    desk = Desk().open().bought("2")
    state = trading(Trading.REDUCING, 2, flatten="f")
    theirs = attempt_id("f", desk.core.known, BTC, 1)
    desk.ask(signal(theirs, SELL, "0"))
    assert one(desk.feed(state), m.Verdict).order is not None


def test_the_attempts_of_a_day_do_not_make_the_snapshot_grow_for_ever() -> None:
    desk = Desk().open().bought("2")
    desk.feed(product(BTC, trading_disabled=True))
    flattened(desk)
    for _ in range(50):
        desk.feed(tick(), at=desk.now + timedelta(minutes=2))
    closing = desk.figures.closing
    assert closing is not None
    assert closing[BTC].attempts == 51
    assert desk.core.state.answers.asked == {}


def test_dust_is_left_and_said() -> None:
    desk = Desk().open().bought("0.005")
    assert flattened(desk) == []
    closing = desk.figures.closing
    assert closing is not None
    assert closing[BTC].outcome == "dust"


def test_nothing_held_is_nothing_to_do() -> None:
    desk = Desk().open()
    assert flattened(desk) == []
    assert desk.figures.closing == {}
    assert Desk().open().figures.closing is None


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_restart_in_the_middle_sells_nothing_twice(snapshot: bool) -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    desk.now += timedelta(minutes=1)
    desk.restart(snapshot=snapshot)
    assert all_of(desk.feed(tick()), m.Verdict) == []
    sold(desk, verdict, "0.5", OrderStatus.CANCELED)
    desk.restart(snapshot=snapshot)
    second = one(desk.feed(tick(), at=desk.now + 2 * SECOND), m.Verdict)
    assert second.order is not None
    assert second.order.quantity == D("1.5")
    assert second.signal_id != verdict.signal_id
    closing = desk.figures.closing
    assert closing is not None
    assert (closing[BTC].sold, closing[BTC].attempts) == (D("0.5"), 2)


@pytest.mark.parametrize("action", [Action.RESUME, Action.HALT])
def test_a_resume_and_a_halt_of_the_operator_end_it(action: Action) -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    sold(desk, verdict, "0.5", OrderStatus.CANCELED)
    assert desk.tell(action, name="end").ok
    assert all_of(desk.feed(tick(), at=NOON + timedelta(minutes=5)), m.Verdict) == []
    assert desk.figures.closing is None


def test_a_guard_that_halts_in_the_middle_does_not_stop_it() -> None:
    desk = Desk(config(daily_loss_limit=D(100))).open().bought("10")
    [verdict] = flattened(desk)
    desk.feed(mark(price="90"))
    [state] = desk.storing
    assert (state.state, bool(state.flatten)) == (Trading.HALTED, True)
    desk.end(verdict, OrderStatus.DENIED, 1, reason="trading_state_changed")
    assert desk.storing, "while the state is stored, no attempt"
    desk.store()
    assert one(desk.feed(tick(), at=NOON + SECOND), m.Verdict).order is not None


@pytest.mark.parametrize("by", ["operator", "guard"])
def test_a_profile_may_close_everything_with_every_halt(by: str) -> None:
    desk = Desk(CLOSING).open().bought("10")
    if by == "operator":
        found = desk.feed(command(Action.HALT, "out")) + desk.store()
    else:
        desk.feed(mark(price="90"))
        found = desk.store()
    assert desk.trading() is Trading.HALTED
    assert one(found, m.Verdict).order is not None


def test_a_profile_that_keeps_positions_leaves_them_at_a_halt() -> None:
    desk = Desk(config(daily_loss_limit=D(100))).open().bought("10")
    desk.feed(mark(price="90"))
    desk.store()
    assert all_of(desk.feed(tick(), at=NOON + timedelta(minutes=1)), m.Verdict) == []
    assert desk.figures.closing is None


def test_a_state_of_another_process_with_a_closing_is_taken_up() -> None:
    desk = Desk().open().bought("2")
    found = desk.feed(trading(Trading.HALTED, 2, flatten="theirs"))
    assert one(found, m.Verdict).order is not None


def test_a_new_closing_after_a_resume_begins_anew() -> None:
    desk = Desk().open().bought("2")
    [verdict] = flattened(desk)
    sold(desk, verdict, "2")
    desk.tell(Action.RESUME, name="resume")
    desk.bought("1")
    desk.feed(command(Action.FLATTEN, "again", "second"))
    again = one(desk.store(), m.Verdict)
    assert again.order is not None
    assert again.order.quantity == 1
    closing = desk.figures.closing
    assert closing is not None
    assert (closing[BTC].attempts, closing[BTC].sold) == (1, D(0))


def test_the_attempts_of_two_processes_are_the_same_signals() -> None:
    one_desk, other = Desk().open().bought("2"), Desk().open().bought("2")
    state = trading(Trading.REDUCING, 2, flatten="f")
    verdicts = [one(d.feed(msgspec.structs.replace(state)), m.Verdict) for d in (one_desk, other)]
    assert verdicts[0].signal_id == verdicts[1].signal_id


def test_a_midnight_in_the_middle_changes_nothing() -> None:
    desk = Desk(now=MIDNIGHT - SECOND).open().bought("2")
    [verdict] = flattened(desk)
    sold(desk, verdict, "0.5", OrderStatus.CANCELED)
    assert one(desk.feed(tick(), at=MIDNIGHT + SECOND), m.Verdict).order is not None
