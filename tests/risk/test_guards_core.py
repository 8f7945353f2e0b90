"""What keeps the core, the switch and the state from doing what they must not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common import messages as m
from libs.common.messages import AdjustmentKind as Kind
from libs.common.messages import OrderStatus, Reason, Trading
from services.risk import state as s
from services.risk.books import FILLS_REMEMBERED
from services.risk.config import HaltPositions, MarkStaleness, Steps
from services.risk.core import FIGURES_TICKS
from services.risk.trading import Action
from tests.risk.builders import (
    BTC,
    ETH,
    MIDNIGHT,
    NOON,
    OPENING,
    PRODUCTS,
    SECOND,
    D,
    Desk,
    account,
    all_of,
    command,
    config,
    edit,
    event,
    feed,
    fill,
    guarded,
    installation,
    mark,
    one,
    product,
    signal,
    tick,
    trading,
)
from tests.risk.test_adjust import ask, drifted

SELL = m.Side.SELL
GTC = m.TimeInForce.GTC
MICRO = timedelta(microseconds=1)
OPEN_STEPS = (OrderStatus.SUBMITTING, OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_FILLED, OrderStatus.UNKNOWN)
DEEP = config(daily_loss_limit=D(10_000))
LOSS_CLOSES = config(halt_positions=HaltPositions.FLATTEN, daily_loss_limit=D(100))


# -- the core


def test_before_the_past_has_been_read_nothing_is_written_sold_or_told() -> None:
    desk = Desk(LOSS_CLOSES)
    desk.feed(installation(), *(product(p) for p in PRODUCTS), account(), mark(BTC), mark(ETH))
    found = desk.feed(fill("held", size="10"), trading(Trading.HALTED, 2, flatten="theirs"), mark(price="80"))
    for _ in range(FIGURES_TICKS):
        found += desk.feed(tick(), at=desk.now + SECOND)
    assert (found, desk.storing) == ([], [])


def test_the_end_of_an_order_and_a_fill_show_the_figures_at_once_and_no_other_step_does() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    shown = [all_of(desk.end(verdict, status, n), m.RiskFigures) for n, status in enumerate(OPEN_STEPS, 1)]
    assert shown == [[]] * len(OPEN_STEPS)
    assert one(desk.fill(verdict, "part", "1"), m.RiskFigures).reserved == 300
    assert one(desk.end(verdict, OrderStatus.CANCELED, 9, "1"), m.RiskFigures).reserved == 0


def test_the_figures_are_shown_every_second_and_hold_no_more_often() -> None:
    desk = Desk().open()
    shown = [len(all_of(desk.feed(tick()), m.RiskFigures)) for _ in range(8)]
    assert (sum(shown), shown[:4].count(1), shown[4:].count(1)) == (2, 1, 1)


def test_an_unknown_trading_state_is_shown_as_halted_and_a_verdict_under_it_names_no_revision() -> None:
    desk = Desk()
    assert desk.figures.trading is Trading.HALTED
    desk.feed(installation(), *(product(p) for p in PRODUCTS), account(), mark(BTC), mark(ETH))
    verdict = desk.ask(signal())
    assert (verdict.order, verdict.trading_revision) == (None, 0)


def test_a_command_before_the_trading_state_is_known_is_refused_and_says_so() -> None:
    for action in Action:
        audit = one(Desk().feed(command(action)), m.Audit)
        assert (audit.ok, audit.result) == (False, "the trading state is not known yet")


def test_a_day_is_not_written_down_before_the_prices_of_what_is_held_are_known() -> None:
    desk = Desk(now=MIDNIGHT - SECOND).open().bought("2", product_id="SOL-USD")
    before = len(all_of(desk.ledger, m.Baseline))
    desk.feed(tick(), at=MIDNIGHT)
    assert len(all_of(desk.ledger, m.Baseline)) == before
    desk.feed(mark("SOL-USD", at=MIDNIGHT))
    assert len(all_of(desk.ledger, m.Baseline)) == before + 1


def test_the_prices_of_midnight_are_those_of_what_was_held_then() -> None:
    desk = Desk(now=MIDNIGHT - SECOND).open().bought("2").bought("1", product_id=ETH)
    desk.fact(fill("out", SELL, "1", at=desk.now, product_id=ETH))
    desk.feed(tick(), at=MIDNIGHT)
    assert all_of(desk.ledger, m.Baseline)[-1].prices == {BTC: D(100)}


def test_a_refused_edit_is_no_edit_for_execution() -> None:
    desk = Desk(config(order_notional_max=D(150))).open()
    resting = desk.rest(signal(time_in_force=GTC))
    refused = desk.ask(edit(resting, "2"))
    assert (refused.reason, refused.edits) == (Reason.NOTIONAL_ABOVE_LIMIT, False)
    assert desk.approve(edit(resting, "1.2", name="smaller")).edits


STALE = guarded(mark_staleness=MarkStaleness(reduce=D(30), halt=D(60), recover_seconds=5))


def test_the_figures_tell_what_the_guards_say_and_which_products_take_no_entries() -> None:
    desk = Desk(STALE).open()
    desk.feed(tick(), at=NOON + 30 * SECOND)
    figures = desk.figures
    assert figures.guards.keys() == set(m.Guard)
    assert figures.guards[m.Guard.MARK_STALENESS].level is m.GuardLevel.REDUCE
    assert figures.degraded == dict.fromkeys(PRODUCTS, "no mark for 30 seconds")
    assert desk.storing == [], "of single products only"


def test_a_mark_that_was_missing_for_long_enough_halts_all_trading() -> None:
    desk = Desk(STALE).open()
    desk.feed(tick(), at=NOON + 60 * SECOND)
    assert [(state.state, state.reason) for state in desk.storing] == [(Trading.HALTED, "mark_staleness")]


@pytest.mark.parametrize("down", [4, 20])
def test_the_time_to_recover_begins_anew_after_a_restart(down: int) -> None:
    desk = Desk(STALE).open()
    desk.feed(tick(), at=NOON + 30 * SECOND)
    desk.later(1)
    desk.now += down * SECOND
    for product_id in PRODUCTS:
        desk.core.known.marks[product_id] = mark(product_id, at=desk.now)
    desk.restart()
    assert desk.figures.degraded.keys() == set(PRODUCTS)
    desk.later(4)
    assert desk.figures.degraded.keys() == set(PRODUCTS)
    desk.later(1)
    assert desk.figures.degraded == {}


def test_the_prices_of_a_feed_are_sampled_through_the_core() -> None:
    desk = Desk().open()
    desk.feed(mark(price="101", at=NOON + 60 * SECOND))
    assert [mid for _, mid in desk.core.state.watch.samples[BTC]] == [D(100), D(101)]


def test_the_books_are_compared_as_soon_as_the_opening_balances_are_known() -> None:
    desk = Desk()
    desk.feed(account())
    assert desk.figures.drift is None
    desk.feed(installation())
    assert desk.figures.drift == {}


def test_an_account_ahead_of_the_ledger_is_compared_when_its_verdict_has_been_read() -> None:
    desk = Desk(config(order_notional_max=D(1)))
    desk.feed(installation(), *(product(p) for p in PRODUCTS), mark(BTC), account(ledger_sequence=1))
    assert desk.figures.drift is None
    desk.core.reached(1)
    assert desk.ask(signal()).order is None
    assert desk.figures.drift == {}


def test_a_feed_that_is_lost_closes_its_product_at_once() -> None:
    desk = Desk().open()
    desk.feed(feed(BTC, m.Feed.STALE))
    assert desk.figures.degraded.keys() == {BTC}


# -- the switch


def test_out_of_a_halt_the_halt_holds_until_the_milder_state_is_stored() -> None:
    desk = Desk().open().bought("2")
    desk.feed(trading(Trading.HALTED, 2))
    desk.feed(account({**OPENING, "BTC": D(3)}, NOON + SECOND))
    desk.feed(command(Action.RESUME))
    assert [state.state for state in desk.storing] == [Trading.REDUCING]
    assert desk.trading() is Trading.HALTED
    assert desk.ask(signal("exit", SELL)).reason is Reason.TRADING_HALTED
    desk.store()
    desk.approve(signal("another exit", SELL))


@pytest.mark.parametrize("action", [Action.REDUCE_ONLY, Action.HALT, Action.FLATTEN])
def test_only_a_resume_measures_a_drawdown_anew(action: Action) -> None:
    desk = Desk(DEEP).open().bought("10")
    desk.feed(mark(price="90"))
    desk.tell(action)
    assert desk.figures.equity_peak == 100_000
    assert desk.core.switch.current is not None
    assert desk.core.switch.current.resumed_at is None


def test_a_guard_that_steps_in_measures_nothing_anew() -> None:
    desk = Desk(guarded(drawdown=Steps(reduce=D("0.1"), halt=D("0.5")))).open(opening={**OPENING, "USD": D(1000)})
    desk.bought("10")
    desk.feed(mark(price="85"))
    desk.store()
    assert (desk.trading(), desk.figures.equity_peak, desk.figures.equity) == (Trading.REDUCING, D(1000), D(850))
    desk.feed(mark(price="50"))
    assert [state.state for state in desk.storing] == [Trading.HALTED]


def test_a_lost_trading_state_does_not_end_what_the_guards_count() -> None:
    """A state that nobody could read says nothing of a resume."""
    desk = Desk(DEEP).open().bought("10")
    desk.tell(Action.REDUCE_ONLY)
    desk.tell(Action.RESUME, name="resume")
    desk.feed(mark(price="90"))
    desk.feed(trading(Trading.HALTED, 0, reason="gone", who="fail closed"))
    assert (desk.figures.equity_peak, desk.figures.equity) == (D(100_000), D(99_900))


def test_a_resume_says_why_the_loss_is_not_known() -> None:
    desk = Desk().open().bought("10")
    desk.feed(trading(Trading.HALTED, 2))
    del desk.core.known.marks[BTC]
    audit = desk.tell(Action.RESUME)
    assert (audit.ok, audit.result) == (
        False,
        f"the daily loss is not known: a mark of what is held is missing: {BTC}",
    )


# -- what is kept


def test_of_what_was_forgotten_the_latest_counts() -> None:
    desk = Desk().open()
    desk.approve(signal("first"))
    later = NOON + timedelta(hours=1)
    second = signal("second", at=later, expires_at=later + SECOND)
    desk.feed(account(at=later), at=later)
    desk.ask(second)
    desk.feed(at=NOON + timedelta(hours=24, seconds=1))
    desk.ask(signal("a day later", at=desk.now))
    desk.feed(at=NOON + timedelta(hours=25, seconds=1))
    desk.ask(signal("and an hour", at=desk.now))
    assert desk.core.state.answers.forgotten == later
    assert desk.feed(second) == []


def test_answers_out_of_order_leave_the_latest_of_the_forgotten() -> None:
    answers = s.Answers(given={"late": NOON, "early": NOON - SECOND})
    verdict = Desk(now=NOON + timedelta(days=2)).ask(signal("new", at=NOON + timedelta(days=2)))
    answers.add(verdict)
    assert (list(answers.given), answers.forgotten) == (["new"], NOON)


def test_the_answers_that_are_remembered_are_bounded_and_the_oldest_leaves_first() -> None:
    answers = s.Answers(given={f"s{n}": NOON for n in range(s.ANSWERS_MAX)})
    answers.add(Desk().ask(signal("new")))
    assert (len(answers.given), answers.known("s0"), answers.known("s1")) == (s.ANSWERS_MAX, False, True)
    assert answers.forgotten == NOON


def test_the_fills_that_are_remembered_are_bounded_and_the_oldest_leaves_first() -> None:
    books = s.State().books
    for n in range(FILLS_REMEMBERED + 1):
        books.book(fill(f"f{n}"))
    assert (len(books.fill_ids), "f0" in books.fill_ids, "f1" in books.fill_ids) == (FILLS_REMEMBERED, False, True)


def test_a_fact_that_is_told_late_does_not_make_an_older_account_comparable() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal(quantity="4"))
    desk.fact(event(verdict, OrderStatus.ACCEPTED, 2, at=NOON + 5 * SECOND))
    desk.fact(event(verdict, OrderStatus.SUBMITTING, 1, at=NOON + SECOND))
    desk.feed(account({**OPENING, "USD": D(1)}, NOON + 3 * SECOND))
    assert (desk.figures.drift, desk.storing) == ({}, [])
    desk.feed(account({**OPENING, "USD": D(1)}, NOON + 6 * SECOND))
    assert desk.figures.drift == {"USD": D(-99_999)}


def test_a_payment_before_any_equity_was_known_leaves_the_peak_unknown() -> None:
    desk = drifted(USD="100500")
    ask(desk, Kind.DEPOSIT, currency="USD")
    state = s.State()
    state.adjust(one(desk.ledger, m.Adjustment), "USD")
    assert (state.watch.peak_equity, state.flows) == (None, {"USD": D(500)})


def test_the_highest_equity_of_a_day_outlives_a_lost_snapshot() -> None:
    desk = Desk(DEEP, MIDNIGHT - SECOND).open().bought("10")
    desk.feed(mark(price="150", at=MIDNIGHT - MICRO))
    desk.feed(tick(), at=MIDNIGHT)
    desk.feed(mark(price="130", at=MIDNIGHT + SECOND), at=MIDNIGHT + SECOND)
    assert desk.figures.equity_peak == 100_500
    assert desk.restart(snapshot=False).figures.equity_peak == 100_500


def test_a_day_that_began_without_a_peak_leaves_the_one_that_is_known() -> None:
    state = s.State()
    state.watch.on_equity(D(100))
    state.start_day(m.Baseline(id="b", at=MIDNIGHT, midnight=MIDNIGHT, prices={}, peak_equity=None))
    assert (state.watch.peak_equity, state.day_begun) == (D(100), MIDNIGHT)


def test_with_less_than_one_at_the_start_of_the_day_a_part_of_it_is_the_limit() -> None:
    opening = {"USD": D("0.5"), "BTC": D(0), "ETH": D(0)}
    desk = Desk(config(daily_loss_percent_max=D(10))).open(opening=opening)
    assert desk.figures.daily_loss_limit == D("0.05")


def test_an_open_buy_counts_against_its_own_product_and_promises_no_coins() -> None:
    desk = Desk(config(position_notional_max=D(500))).open().bought("2").bought("2", product_id=ETH)
    desk.rest(signal("buy", quantity="2", time_in_force=GTC))
    state = desk.core.state
    assert (state.reserved(BTC), state.reserved(ETH), state.reserved()) == (D(200), D(0), D(200))
    desk.ordered(signal("sell", SELL, "2", product_id=ETH))
    assert (state.selling(BTC), state.selling(ETH)) == (D(0), D(2))


def test_an_earlier_fill_that_is_told_late_is_not_the_price_of_midnight() -> None:
    desk = Desk(DEEP, MIDNIGHT - SECOND).open().bought("10")
    desk.feed(mark(price="120", at=desk.now))
    desk.fact(fill("late", size="1", price="90", at=MIDNIGHT - 10 * SECOND))
    desk.feed(tick(), at=MIDNIGHT)
    assert all_of(desk.ledger, m.Baseline)[-1].prices == {BTC: D(120)}


def test_a_fill_of_midnight_itself_belongs_to_the_new_day() -> None:
    desk = Desk(DEEP, MIDNIGHT - SECOND).open().bought("10")
    desk.feed(tick(), at=MIDNIGHT)
    desk.fact(fill("first", size="1", price="100", fee="7", at=MIDNIGHT))
    assert desk.figures.daily_loss == 7


def test_a_price_of_midnight_itself_is_one_of_the_new_day() -> None:
    desk = Desk(DEEP, MIDNIGHT - SECOND).open().bought("10")
    desk.feed(mark(price="90", at=MIDNIGHT), at=MIDNIGHT)
    assert desk.figures.daily_loss == 100


def test_a_baseline_of_what_is_not_held_is_passed_over() -> None:
    books = Desk().open().core.state.books
    books.start_day(m.Baseline(id="b", at=MIDNIGHT, midnight=MIDNIGHT, prices={BTC: D(1)}, peak_equity=None))
    assert books.holdings == {}


def test_a_sale_of_less_than_one_closes_its_part() -> None:
    desk = Desk().open().bought("0.25", "90").bought("0.25", "110")
    desk.fact(fill("out", SELL, "0.25", "140"))
    btc = desk.figures.positions[BTC]
    assert (btc.realized_pnl, btc.avg_price, btc.quantity) == (D(10), D(100), D("0.25"))


@pytest.mark.parametrize(
    ("held", "price", "dust"),
    [("0", "100", False), ("0.009", "1000", True), ("0.01", "100", False), ("0.01", "99.99", True)],
)
def test_a_position_is_told_with_its_mark_its_result_and_whether_it_is_dust(held: str, price: str, dust: bool) -> None:
    desk = Desk().open().bought("1", "40")
    if D(held) < 1:
        desk.fact(fill("out", SELL, str(1 - D(held)), "40"))
    desk.feed(mark(price=price))
    btc = desk.figures.positions[BTC]
    assert (btc.dust, btc.mark_price, btc.unrealized_pnl) == (dust, D(price), D(held) * (D(price) - 40))
