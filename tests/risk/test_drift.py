"""The account differs from the books: trading is reduce-only until it does not, and nobody else's state is touched."""

from __future__ import annotations

from datetime import datetime

import pytest

from libs.common import messages as m
from libs.common.messages import Guard, GuardLevel, Reason, Trading
from services.risk.trading import Action, GuardOutcome
from tests.risk.builders import (
    BTC,
    NOON,
    OPENING,
    SECOND,
    D,
    Desk,
    account,
    all_of,
    command,
    config,
    mark,
    one,
    signal,
    tick,
    trading,
)

CENT = {**OPENING, "USD": D("100000.01")}


def drifted(desk: Desk | None = None, at: datetime = NOON + SECOND) -> Desk:
    desk = desk or Desk().open()
    desk.feed(account(CENT, at))
    return desk


def explained(desk: Desk, at: datetime = NOON + 2 * SECOND) -> list[m.Message]:
    return desk.feed(account(at=at))


def test_any_difference_makes_an_active_trading_reduce_only_once() -> None:
    desk = drifted()
    [state] = desk.storing
    assert (state.state, state.reason, state.who, state.revision) == (Trading.REDUCING, "account_drift", "risk", 1)
    assert desk.ask(signal("while it is stored")).reason is Reason.TRADING_REDUCING
    desk.feed(tick(), account(CENT, NOON + 2 * SECOND))
    assert len(desk.storing) == 1
    desk.store()
    desk.feed(tick(), account({**CENT, "ETH": D(1)}, NOON + 3 * SECOND))
    assert (desk.storing, desk.trading()) == ([], Trading.REDUCING)


def test_the_difference_is_told_with_its_figures() -> None:
    told = one(Desk().open().feed(account(CENT, NOON + SECOND)), GuardOutcome)
    assert (told.guard, told.level) == (Guard.POSITION_DRIFT, GuardLevel.REDUCE)
    assert "USD=0.01" in told.detail


def test_no_difference_and_no_comparison_leave_trading_active() -> None:
    desk = Desk().open()
    explained(desk)
    desk.feed(account(CENT, NOON + 3 * SECOND, settled=False), tick())
    assert (desk.storing, desk.trading()) == ([], Trading.ACTIVE)


def test_exits_pass_while_the_account_differs() -> None:
    desk = Desk().open().bought("2")
    desk.feed(account(CENT, NOON + SECOND))
    desk.store()
    desk.approve(signal("exit", m.Side.SELL))


def test_it_is_active_again_when_the_books_equal_the_account() -> None:
    desk = drifted()
    desk.store()
    [state] = all_of(explained(desk), m.TradingState)
    assert (state.state, state.reason, state.who) == (Trading.ACTIVE, "account_drift_gone", "risk")
    assert desk.ask(signal("early")).reason is Reason.TRADING_REDUCING
    desk.store()
    desk.approve(signal("late"))
    drifted(desk, NOON + 3 * SECOND)
    desk.end(one([v for v in desk.ledger if isinstance(v, m.Verdict) and v.order], m.Verdict), m.OrderStatus.DENIED, 1)
    drifted(desk, NOON + 4 * SECOND)
    assert [state.state for state in desk.storing] == [Trading.REDUCING]


@pytest.mark.parametrize(
    "state",
    [
        trading(Trading.REDUCING, 2, reason="account_drift", who="ann"),
        trading(Trading.REDUCING, 2, reason="lunch", who="risk"),
        trading(Trading.HALTED, 2, reason="account_drift", who="risk"),
        trading(Trading.HALTED, 2, reason="daily_loss_limit", who="risk"),
    ],
)
def test_what_somebody_else_has_ordered_is_not_cleared(state: m.TradingState) -> None:
    desk = drifted()
    desk.storing.clear()
    desk.feed(state)
    explained(desk)
    desk.feed(tick())
    assert (desk.storing, desk.trading()) == ([], state.state)


@pytest.mark.parametrize("state", [Trading.REDUCING, Trading.HALTED])
def test_an_operators_state_is_left_alone_when_the_account_differs(state: Trading) -> None:
    desk = Desk().open()
    desk.feed(trading(state, 2))
    drifted(desk).feed(tick())
    assert (desk.storing, desk.trading()) == ([], state)


def test_an_operators_reduce_only_takes_the_place_of_the_guards_and_stays() -> None:
    desk = drifted()
    desk.store()
    assert desk.tell(Action.REDUCE_ONLY, "I want to look").ok
    current = desk.core.switch.current
    assert current is not None
    assert (current.who, current.reason) == ("operator", "I want to look")
    explained(desk)
    assert (desk.storing, desk.trading()) == ([], Trading.REDUCING)


def test_a_resume_from_a_halt_goes_as_far_as_the_drift_lets_it() -> None:
    desk = Desk().open()
    desk.feed(trading(Trading.HALTED, 2))
    desk.feed(account({**CENT, "BTC": D("0.5")}, NOON + SECOND))
    audit = desk.tell(Action.RESUME)
    assert (audit.ok, audit.result.partition(" ")[0], desk.trading()) == (True, "reducing", Trading.REDUCING)
    explained(desk)
    desk.store()
    assert desk.trading() is Trading.ACTIVE


def test_a_resume_is_refused_with_the_figures_while_the_account_differs() -> None:
    desk = Desk().open()
    desk.feed(trading(Trading.REDUCING, 2))
    desk.feed(account({**CENT, "BTC": D("0.5")}, NOON + SECOND))
    audit = desk.tell(Action.RESUME)
    assert (audit.ok, audit.result) == (False, "account_drift: drift_BTC=0.5 drift_USD=0.01")
    explained(desk)
    assert desk.tell(Action.RESUME, name="later").ok
    assert desk.trading() is Trading.ACTIVE


def test_a_resume_is_free_before_the_first_comparison() -> None:
    desk = Desk().open()
    desk.core.state.drift = None
    desk.feed(trading(Trading.HALTED, 2))
    assert desk.tell(Action.RESUME).ok


@pytest.mark.parametrize("snapshot", [True, False])
def test_it_holds_and_clears_over_a_restart(snapshot: bool) -> None:
    desk = drifted()
    desk.store()
    desk.restart(snapshot=snapshot)
    assert (desk.storing, desk.trading()) == ([], Trading.REDUCING)
    explained(desk)
    desk.store()
    assert desk.trading() is Trading.ACTIVE


def test_a_change_that_was_lost_in_a_crash_is_made_again() -> None:
    desk = drifted()
    desk.storing.clear()
    desk.restart()
    assert [state.state for state in desk.storing] == [Trading.REDUCING]


def test_it_never_clears_before_the_balances_have_been_compared_again() -> None:
    desk = drifted()
    desk.store()
    desk.core.known.account = None
    desk.restart(snapshot=False)
    desk.feed(tick())
    assert (desk.figures.drift, desk.storing, desk.trading()) == (None, [], Trading.REDUCING)


LOSS = config(daily_loss_limit=D(100))


def test_the_halt_comes_before_the_reduce_only_when_both_are_due() -> None:
    desk = Desk(LOSS).open().bought("10")
    desk.core.recovered = False  # both are found at the start
    desk.feed(mark(price="90"), account({"USD": D(1), "BTC": D(10)}, NOON + SECOND))
    desk.feed(m.Recovered(id="recovered"))
    assert [(state.state, state.reason) for state in desk.storing] == [(Trading.HALTED, "daily_loss_limit")]
    desk.store()
    desk.feed(tick())
    assert (desk.storing, desk.trading()) == ([], Trading.HALTED)


def test_a_loss_halts_a_trading_that_is_reduce_only_by_drift_and_the_end_of_the_drift_leaves_the_halt() -> None:
    desk = Desk(LOSS).open().bought("10")
    desk.feed(account({"USD": D(99_001), "BTC": D(10)}, NOON + SECOND))
    desk.store()
    desk.feed(mark(price="90"))
    assert [state.state for state in desk.storing] == [Trading.HALTED]
    desk.feed(account({"USD": D(99_000), "BTC": D(10)}, NOON + 2 * SECOND))
    desk.store()
    desk.feed(tick())
    assert (desk.figures.drift, desk.storing, desk.trading()) == ({}, [], Trading.HALTED)


def test_a_drift_that_ends_with_the_loss_at_its_limit_halts_instead_of_trading_again() -> None:
    desk = Desk(LOSS).open().bought("10")
    desk.feed(account({"USD": D(99_001), "BTC": D(10)}, NOON + SECOND))
    desk.store()
    desk.core.known.marks[BTC] = mark(price="90", at=NOON + SECOND)
    desk.feed(account({"USD": D(99_000), "BTC": D(10)}, NOON + 2 * SECOND))
    assert [state.state for state in desk.storing] == [Trading.HALTED]


def test_a_command_waits_for_the_change_that_is_being_stored() -> None:
    desk = drifted()
    audit = one(desk.feed(command(Action.HALT)), m.Audit)
    assert (audit.ok, audit.result) == (False, "another change is being stored, try again")
    desk.store()
    assert desk.tell(Action.HALT, name="again").ok


def test_a_lost_race_leaves_what_the_other_has_stored() -> None:
    desk = drifted()
    desk.storing.clear()
    desk.feed(trading(Trading.HALTED, 7), tick())
    assert (desk.storing, desk.trading()) == ([], Trading.HALTED)
