"""The daily loss, the halt that it causes, and the operator's commands."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from libs.common import messages as m
from libs.common.messages import Guard, GuardLevel, Reason, Trading
from services.risk.trading import Action, GuardOutcome
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
    command,
    config,
    fill,
    mark,
    one,
    signal,
    tick,
    trading,
)

SELL = m.Side.SELL
LIMITS = config(daily_loss_limit=D(100))
MICRO = timedelta(microseconds=1)


def losing(loss: str, now: datetime = NOON) -> Desk:
    """Ten bought at 100, now worth less by `loss`."""
    desk = Desk(LIMITS, now).open().bought("10")
    desk.feed(mark(price=str(100 - D(loss) / 10), at=now))
    return desk


def test_a_loss_just_below_the_limit_goes_on_trading() -> None:
    desk = losing("99.99999")
    assert (desk.figures.daily_loss, desk.storing) == (D("99.99999"), [])
    desk.approve(signal(limit_price=D("90.01")))


def test_a_loss_of_exactly_the_limit_halts_once() -> None:
    desk = losing("100")
    [state] = desk.storing
    assert (state.state, state.reason, state.who, state.since, state.revision) == (
        Trading.HALTED,
        "daily_loss_limit",
        "risk",
        NOON,
        1,
    )
    desk.feed(mark(price="89", at=NOON), tick(), fill("more", size="0.1", price="89"))
    assert len(desk.storing) == 1
    desk.store()
    desk.feed(mark(price="80", at=NOON), tick())
    assert desk.storing == []


@pytest.mark.parametrize("by", ["mark", "fill", "tick"])
def test_whatever_shows_the_loss_halts(by: str) -> None:
    desk = Desk(LIMITS).open()
    if by == "mark":
        desk.bought("10").feed(mark(price="90"))
    elif by == "fill":
        desk.fact(fill("1", size="10", price="100"), fill("2", SELL, "10", "90"))
    else:
        desk.feed(trading(Trading.HALTED, 2)).clear()
        desk.bought("10").feed(mark(price="90"))
        desk.core.switch.current = trading(Trading.ACTIVE, 3)
        desk.feed(tick())
    assert [state.state for state in desk.storing] == [Trading.HALTED]


def test_realised_unrealised_and_fees_make_the_loss() -> None:
    desk = Desk(config(daily_loss_limit=D(10_000))).open()
    desk.fact(fill("1", size="10", price="100", fee="3"), fill("2", SELL, "4", "90", "2"))
    desk.feed(mark(price="95"))
    # -40 realised, -5 fees, -30 unrealised
    assert desk.figures.daily_loss == 75


def test_a_gain_is_no_loss() -> None:
    desk = Desk(LIMITS).open().bought("10")
    desk.feed(mark(price="200"))
    assert desk.figures.daily_loss == 0


def test_deposits_and_withdrawals_are_no_loss() -> None:
    desk = Desk(LIMITS).open().bought("10")
    desk.feed(account({"USD": D(5)}, NOON + SECOND))
    assert desk.figures.daily_loss == 0
    assert [state.state for state in desk.storing] == [Trading.REDUCING]  # by the drift


def test_halted_by_the_loss_nothing_passes_not_even_an_exit() -> None:
    desk = losing("100")
    assert desk.ask(signal("while it is stored", SELL, limit_price=D(90))).reason is Reason.TRADING_HALTED
    desk.store()
    assert desk.ask(signal("after", SELL, limit_price=D(90))).reason is Reason.TRADING_HALTED


def test_the_halt_holds_when_the_loss_is_gone() -> None:
    desk = losing("100")
    desk.store()
    desk.feed(mark(price="150"))
    desk.later(24 * 3600)
    assert desk.trading() is Trading.HALTED


def test_a_resume_is_refused_while_the_loss_is_at_the_limit() -> None:
    desk = losing("100")
    desk.store()
    audit = desk.tell(Action.RESUME)
    assert (audit.ok, audit.result) == (False, "daily_loss_limit: daily_loss=100 limit=100")
    assert desk.trading() is Trading.HALTED


def test_a_resume_is_free_again_below_the_limit_and_the_guard_trips_again() -> None:
    desk = losing("100")
    desk.store()
    desk.feed(mark(price="90.01"))
    assert desk.tell(Action.RESUME).ok
    assert desk.trading() is Trading.ACTIVE
    desk.feed(mark(price="90"))
    assert [state.state for state in desk.storing] == [Trading.HALTED]


def test_a_resume_is_refused_while_the_loss_is_not_known() -> None:
    desk = Desk(LIMITS).open().bought("10")
    desk.feed(trading(Trading.HALTED, 2))
    del desk.core.known.marks[BTC]
    assert not desk.tell(Action.RESUME).ok


def test_at_midnight_the_day_begins_anew_at_the_last_mark_before_it() -> None:
    before = MIDNIGHT - SECOND
    desk = losing("90", before)
    desk.feed(mark(price="91.5", at=MIDNIGHT - MICRO))
    desk.feed(tick(), at=MIDNIGHT - MICRO)
    assert desk.figures.daily_loss == 85
    desk.feed(tick(), at=MIDNIGHT)
    assert desk.figures.daily_loss == 0
    desk.feed(mark(price="90", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    assert (desk.figures.daily_loss, desk.figures.unrealized_pnl) == (D(15), D(-100))


def test_what_was_realised_yesterday_is_no_loss_of_today() -> None:
    desk = Desk(config(daily_loss_limit=D(10_000)), MIDNIGHT - SECOND).open()
    desk.bought("10").fact(fill("out", SELL, "10", "50", at=desk.now))
    assert desk.figures.daily_loss == 500
    desk.feed(tick(), at=MIDNIGHT)
    assert (desk.figures.daily_loss, desk.figures.realized_pnl) == (D(0), D(-500))


def test_the_halt_of_yesterday_can_be_resumed_after_midnight() -> None:
    desk = losing("100", MIDNIGHT - SECOND)
    desk.store()
    assert not desk.tell(Action.RESUME, name="too early").ok
    desk.feed(tick(), at=MIDNIGHT)
    assert desk.trading() is Trading.HALTED
    assert desk.tell(Action.RESUME, name="next day").ok
    assert desk.trading() is Trading.ACTIVE


@pytest.mark.parametrize("snapshot", [True, False])
def test_the_loss_of_the_day_survives_a_restart(snapshot: bool) -> None:
    desk = losing("60")
    desk.fact(fill("fee", size="0.1", price="94", fee="7"))
    assert desk.figures.daily_loss == 67
    assert desk.restart(snapshot=snapshot).figures.daily_loss == 67


def test_the_anchor_of_midnight_survives_a_restart() -> None:
    desk = losing("60", MIDNIGHT - SECOND)
    desk.feed(tick(), at=MIDNIGHT)
    desk.feed(mark(price="93", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    assert desk.restart().figures.daily_loss == 10


def test_a_loss_that_is_found_at_the_start_halts() -> None:
    desk = losing("99")
    desk.core.known.marks[BTC] = mark(price="90", at=NOON + SECOND)
    desk.restart()
    assert [state.state for state in desk.storing] == [Trading.HALTED]


def test_without_a_snapshot_the_prices_of_midnight_come_from_the_ledger() -> None:
    desk = losing("60", MIDNIGHT - SECOND)
    desk.feed(tick(), at=MIDNIGHT)
    desk.feed(mark(price="93", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    assert desk.figures.daily_loss == 10
    assert desk.restart(snapshot=False).figures.daily_loss == 10


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_fill_of_yesterday_that_is_told_late_does_not_move_the_prices_of_midnight(snapshot: bool) -> None:
    desk = Desk(config(daily_loss_limit=D(10_000)), MIDNIGHT - SECOND).open().bought("10")
    desk.feed(mark(price="150", at=MIDNIGHT - MICRO))
    desk.feed(tick(), at=MIDNIGHT)
    desk.fact(fill("late", size="1", price="100", at=MIDNIGHT - 3600 * SECOND))
    desk.feed(mark(price="140", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    assert desk.figures.daily_loss == 110
    assert desk.restart(snapshot=snapshot).figures.daily_loss == 110


def test_a_day_that_began_while_risk_was_down_is_measured_from_the_last_prices_written_down() -> None:
    desk = Desk(config(daily_loss_limit=D(10_000)), MIDNIGHT - SECOND).open().bought("10")
    desk.feed(mark(price="150", at=MIDNIGHT - MICRO))
    desk.feed(tick(), at=MIDNIGHT)
    later = MIDNIGHT + timedelta(hours=24, minutes=30)
    desk.core.known.marks[BTC] = mark(price="128", at=later)
    desk.now = later
    assert desk.restart(snapshot=False).figures.daily_loss == 220


def test_the_highest_equity_outlives_a_lost_snapshot_also_after_a_resume() -> None:
    desk = Desk(config(daily_loss_limit=D(10_000)), MIDNIGHT - SECOND).open().bought("10")
    desk.tell(Action.REDUCE_ONLY)
    desk.tell(Action.RESUME, name="resume")
    desk.feed(mark(price="150", at=MIDNIGHT - MICRO))
    desk.feed(tick(), at=MIDNIGHT)
    desk.feed(mark(price="130", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    assert desk.figures.equity_peak == 100_500
    assert desk.restart(snapshot=False).figures.equity_peak == 100_500


def test_each_day_is_written_down_once_also_over_a_restart() -> None:
    desk = losing("60", MIDNIGHT - SECOND)
    desk.feed(tick(), at=MIDNIGHT)
    desk.restart()
    desk.feed(tick(), mark(price="93", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    days = all_of(desk.ledger, m.Baseline)
    assert [day.midnight for day in days] == [MIDNIGHT - timedelta(days=1), MIDNIGHT]
    assert days[-1].prices == {BTC: D(94)}


def test_the_limit_is_the_smaller_of_the_amount_and_the_part_of_the_first_equity_of_the_day() -> None:
    desk = Desk(config(daily_loss_limit=D(1000), daily_loss_percent_max=D("0.05"))).open().bought("10")
    assert desk.figures.daily_loss_limit == 50  # of 100,000
    desk.feed(mark(price="95.0001"))
    assert (desk.figures.daily_loss_limit, desk.storing) == (D(50), [])
    desk.feed(mark(price="95"))
    assert [state.reason for state in desk.storing] == ["daily_loss_limit"]


def test_the_part_of_the_equity_follows_the_day() -> None:
    desk = Desk(config(daily_loss_limit=D(1000), daily_loss_percent_max=D("0.05")), MIDNIGHT - SECOND).open()
    desk.bought("10").feed(mark(price="96", at=desk.now))
    assert desk.figures.equity_day_start == 100_000
    desk.feed(tick(), at=MIDNIGHT)
    assert (desk.figures.equity_day_start, desk.figures.daily_loss_limit) == (D(99_960), D("49.98"))


def test_with_nothing_at_the_start_of_the_day_the_amount_is_the_limit() -> None:
    desk = Desk(LIMITS).open(opening={"USD": D(0), "BTC": D(0), "ETH": D(0)})
    assert (desk.figures.equity_day_start, desk.figures.daily_loss_limit) == (D(0), D(100))
    assert desk.storing == []


def test_a_fill_of_yesterday_that_is_told_after_midnight_belongs_to_yesterday() -> None:
    desk = Desk(config(daily_loss_limit=D(10_000)), MIDNIGHT - SECOND).open().bought("10")
    desk.feed(tick(), at=MIDNIGHT + SECOND)
    desk.fact(fill("late", SELL, "4", "50", "3", at=MIDNIGHT - MICRO))
    desk.feed(mark(price="50", at=MIDNIGHT + SECOND))
    assert (desk.figures.daily_loss, desk.figures.realized_pnl) == (D(0), D(-200))
    desk.feed(mark(price="40", at=MIDNIGHT + SECOND))
    assert desk.figures.daily_loss == 60


def test_a_mark_of_yesterday_that_is_told_after_midnight_moves_the_anchor() -> None:
    desk = losing("50", MIDNIGHT - SECOND)
    desk.feed(tick(), at=MIDNIGHT)
    desk.feed(mark(price="94", at=MIDNIGHT - MICRO))
    assert desk.figures.daily_loss == 0


def test_a_day_never_goes_back() -> None:
    desk = losing("60", MIDNIGHT - SECOND)
    desk.feed(mark(price="93", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    desk.feed(tick(), at=MIDNIGHT - SECOND)
    desk.feed(tick(), at=MIDNIGHT + SECOND)
    assert desk.figures.daily_loss == 10


# -- what the guards say


def levels(found: list[m.Message]) -> list[tuple[Guard, GuardLevel]]:
    return [(message.guard, message.level) for message in all_of(found, GuardOutcome)]


def test_each_change_of_a_guard_is_told_once() -> None:
    desk = Desk(LIMITS).open().bought("10")
    assert levels(desk.feed(mark(price="92.0001"))) == []
    assert levels(desk.feed(mark(price="92"))) == [(Guard.DAILY_LOSS, GuardLevel.WARNING)]
    assert levels(desk.feed(mark(price="91"))) == []
    told = all_of(desk.feed(mark(price="90")), GuardOutcome)
    assert [(t.level, t.detail) for t in told] == [(GuardLevel.HALT, "daily_loss=100 limit=100")]
    assert levels(desk.feed(mark(price="99"))) == [(Guard.DAILY_LOSS, GuardLevel.OK)]


def test_a_restart_tells_where_the_guards_stand() -> None:
    desk = Desk(LIMITS).open()
    desk.feed(account({"USD": D(1)}, NOON + SECOND))
    desk.outbox.clear()
    desk.restart()
    said = dict(levels(desk.outbox))
    assert said.keys() == set(Guard)
    assert (said[Guard.DAILY_LOSS], said[Guard.POSITION_DRIFT]) == (GuardLevel.OK, GuardLevel.REDUCE)


def test_a_loss_that_is_not_known_is_told_as_that() -> None:
    desk = Desk(LIMITS).open()
    found = desk.feed(fill("1", product_id="SOL-USD"))
    assert (Guard.DAILY_LOSS, GuardLevel.UNKNOWN) in levels(found)
    assert desk.storing == []


# -- commands


def test_a_halt_is_stored_then_told_and_acts_on_the_very_next_signal() -> None:
    desk = Desk().open()
    [state] = all_of(desk.feed(command(Action.HALT, "smoke")), m.TradingState)
    assert (state.state, state.reason, state.who, state.cause) == (Trading.HALTED, "smoke", "operator", "command")
    assert all_of(desk.outbox, m.Audit) == []
    assert desk.ask(signal("while it is stored")).reason is Reason.TRADING_HALTED
    told = desk.store()
    audit = one(told, m.Audit)
    assert (audit.command, audit.who, audit.reason, audit.ok) == ("halt", "operator", "smoke", True)
    assert (audit.cause, audit.ok, audit.result) == (
        "command",
        True,
        "halted since 2026-03-10 12:00:00 UTC, smoke (operator)",
    )
    assert desk.ask(signal("after")).reason is Reason.TRADING_HALTED


def test_reducing_lets_exits_pass_and_resume_lets_all_pass() -> None:
    desk = Desk().open().bought("2")
    assert desk.tell(Action.REDUCE_ONLY).ok
    assert desk.ask(signal("entry")).reason is Reason.TRADING_REDUCING
    desk.approve(signal("exit", SELL))
    assert desk.tell(Action.RESUME, name="resume").ok
    verdict = desk.approve(signal("entry again"))
    assert verdict.trading_revision == 3


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("reason", ["", "  \t"])
def test_a_command_without_a_reason_is_refused(action: Action, reason: str) -> None:
    desk = Desk().open()
    audit = desk.tell(action, reason)
    assert (audit.ok, audit.result, desk.trading()) == (False, "a reason is required", Trading.ACTIVE)


@pytest.mark.parametrize(
    ("state", "action"),
    [(Trading.HALTED, Action.HALT), (Trading.REDUCING, Action.REDUCE_ONLY), (Trading.ACTIVE, Action.RESUME)],
)
def test_a_command_that_changes_nothing_succeeds_without_a_write(state: Trading, action: Action) -> None:
    desk = Desk().open()
    desk.feed(trading(state, 2))
    found = desk.feed(command(action))
    assert all_of(found, m.TradingState) == []
    assert one(found, m.Audit).ok
    assert one(found, m.Audit).result.startswith(f"already {state} since")


def test_only_resume_leads_out_of_a_halt() -> None:
    desk = Desk().open()
    desk.tell(Action.HALT)
    audit = desk.tell(Action.REDUCE_ONLY, name="second")
    assert (audit.ok, desk.trading()) == (False, Trading.HALTED)
    assert desk.tell(Action.RESUME, name="third").ok
    assert desk.trading() is Trading.ACTIVE


def test_a_halt_leads_out_of_reducing() -> None:
    desk = Desk().open()
    desk.tell(Action.REDUCE_ONLY)
    assert desk.tell(Action.HALT, name="second").ok
    assert desk.trading() is Trading.HALTED


def test_a_resume_that_is_still_being_stored_does_not_count_yet() -> None:
    desk = Desk().open()
    desk.tell(Action.HALT)
    desk.feed(command(Action.RESUME, name="resume"))
    assert desk.ask(signal("early")).reason is Reason.TRADING_HALTED
    desk.store()
    desk.approve(signal("late"))


def test_a_lost_race_is_decided_again_from_what_the_other_has_stored() -> None:
    desk = Desk().open()
    desk.feed(command(Action.HALT))
    desk.storing.clear()
    found = desk.feed(trading(Trading.REDUCING, 7))
    [again] = all_of(found, m.TradingState)
    assert (again.state, again.revision, all_of(found, m.Audit)) == (Trading.HALTED, 7, [])
    assert one(desk.store(), m.Audit).ok


def test_a_lost_race_for_the_same_state_is_a_success_without_another_write() -> None:
    desk = Desk().open()
    desk.feed(command(Action.HALT))
    desk.storing.clear()
    found = desk.feed(trading(Trading.HALTED, 7))
    assert all_of(found, m.TradingState) == []
    assert one(found, m.Audit).result.startswith("already halted since")


def test_a_loss_guard_that_lost_the_race_halts_again() -> None:
    desk = losing("100")
    desk.storing.clear()
    [again] = all_of(desk.feed(trading(Trading.ACTIVE, 5)), m.TradingState)
    assert (again.state, again.revision) == (Trading.HALTED, 5)


def test_a_command_is_refused_while_the_state_is_not_known() -> None:
    found = Desk().feed(command(Action.HALT))
    assert (one(found, m.Audit).ok, all_of(found, m.TradingState)) == (False, [])


def test_an_older_revision_is_ignored_and_a_lost_state_means_halted() -> None:
    desk = Desk().open()
    desk.feed(trading(Trading.HALTED, 5), trading(Trading.ACTIVE, 4))
    assert desk.trading() is Trading.HALTED
    desk.feed(trading(Trading.ACTIVE, 6))
    assert desk.trading() is Trading.ACTIVE
    desk.feed(trading(Trading.HALTED, 0, reason="gone"))
    assert desk.trading() is Trading.HALTED
    assert desk.tell(Action.RESUME).ok
    assert desk.trading() is Trading.ACTIVE


def test_the_same_revision_told_again_changes_nothing() -> None:
    desk = Desk().open()
    desk.feed(command(Action.HALT))
    assert desk.feed(trading()) == []  # the watch repeats what was stored before
    assert desk.trading() is Trading.HALTED
    assert one(desk.store(), m.Audit).ok
    assert desk.feed(trading(Trading.HALTED, 2)) == []


def test_the_first_product_alone_does_not_hide_the_loss_of_the_second() -> None:
    desk = Desk(LIMITS).open().bought("10").bought("10", product_id=ETH)
    desk.feed(mark(BTC, "95"), mark(ETH, "95"))
    assert [state.state for state in desk.storing] == [Trading.HALTED]


def test_one_change_is_stored_after_the_other() -> None:
    desk = Desk().open()
    desk.feed(command(Action.REDUCE_ONLY, name="first"))
    found = desk.feed(command(Action.HALT, name="second"))
    assert (one(found, m.Audit).ok, all_of(found, m.TradingState)) == (False, [])
    assert one(desk.store(), m.Audit).cause == "first"
