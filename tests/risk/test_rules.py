"""Every rule at exactly its threshold and just beyond it, the order of the rules, and what exits are exempt from."""

from __future__ import annotations

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import CheckOutcome, Reason
from services.risk import rules
from services.risk.checks import Finding
from services.risk.config import MarkStaleness
from services.risk.rules import RULES, Rule
from services.risk.sizing import Context
from tests.risk.builders import (
    BTC,
    ETH,
    NOON,
    SECOND,
    D,
    Desk,
    account,
    config,
    feed,
    fill,
    guarded,
    installation,
    mark,
    market,
    product,
    signal,
    trading,
)
from tests.risk.rule_rows import Row
from tests.risk.table import IDS, ROWS, beyond, refuser, rule_of, world

SELL = m.Side.SELL
VERDICT_BYTES_MAX = 4_500


def name_of(rule: Rule) -> str:
    return rule.violated.__name__


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_at_the_threshold_the_signal_is_approved(row: Row) -> None:
    verdict = world(row).ask(row.within)
    assert (verdict.reason, verdict.order is None) == (Reason.APPROVED, False), verdict.detail


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_just_beyond_the_threshold_the_signal_is_refused_for_that_reason(row: Row) -> None:
    verdict = beyond(row)
    assert (verdict.reason, verdict.order, verdict.reserved) == (row.reason, None, D(0)), verdict.detail
    first = refuser(verdict)
    assert (first.rule, first.reason, first.detail) == (rule_of(row), row.reason, verdict.detail)
    assert verdict.detail


UNKNOWN: list[tuple[Reason, type[m.Message], m.Side]] = [
    (Reason.TRADING_STATE_UNKNOWN, m.TradingState, m.Side.BUY),
    (Reason.TRADING_STATE_UNKNOWN, m.TradingState, SELL),
    (Reason.PRODUCT_UNKNOWN, m.Product, m.Side.BUY),
    (Reason.PRODUCT_UNKNOWN, m.Product, SELL),
    (Reason.ACCOUNT_UNKNOWN, m.Account, m.Side.BUY),
    (Reason.ACCOUNT_DRIFT, m.Installation, m.Side.BUY),
    (Reason.MARK_UNKNOWN, m.Mark, m.Side.BUY),
    (Reason.MARK_UNKNOWN, m.Mark, SELL),
    (Reason.FEED_NOT_LIVE, m.FeedState, m.Side.BUY),
]


@pytest.mark.parametrize(("reason", "never_told", "side"), UNKNOWN)
def test_what_was_never_told_refuses(reason: Reason, never_told: type[m.Message], side: m.Side) -> None:
    desk = Desk()
    world = [installation(), trading(), product(), feed(), account(), mark(), m.Recovered(id="recovered")]
    desk.feed(*(message for message in world if not isinstance(message, never_told)))
    desk.bought("1")
    desk.feed(account({"USD": D(99_900), "BTC": D(1)}, at=NOON + SECOND))
    if never_told is m.Account:
        desk.core.known.account = None
    assert desk.ask(signal(side=side)).reason is reason


def test_a_held_product_without_a_mark_makes_every_entry_unknown() -> None:
    desk = Desk().open().bought("1", product_id=ETH)
    del desk.core.known.marks[ETH]
    verdict = desk.ask(signal())
    assert (verdict.reason, verdict.detail) == (Reason.MARK_UNKNOWN, "no mark of ETH-USD, which is held")


def test_a_held_product_with_an_old_mark_makes_every_entry_unknown() -> None:
    limits = guarded(mark_staleness=MarkStaleness(reduce=D(30), recover_seconds=10))
    desk = Desk(limits).open().bought("1", product_id=ETH).bought("1")
    desk.later(20, BTC)
    desk.later(10.5, BTC)
    verdict = desk.ask(signal(expires_at=NOON + 60 * SECOND))
    told = "the mark of ETH-USD, which is held, is 30.500 s old"
    assert (verdict.reason, verdict.detail) == (Reason.MARK_STALE, told)
    unknown = {check.rule for check in verdict.checks if check.outcome is CheckOutcome.UNKNOWN}
    assert unknown == {"exposure_too_large", "losing"}
    desk.approve(signal("exit", SELL, expires_at=NOON + 60 * SECOND))


@pytest.mark.parametrize(
    "broken", [signal(quantity="NaN"), signal(quantity="sNaN"), signal(limit_price=D("NaN")), signal(quantity="1E+80")]
)
def test_a_rule_that_cannot_be_reckoned_refuses(broken: m.Signal) -> None:
    verdict = Desk().open().ask(broken)
    assert (verdict.reason, verdict.order) == (Reason.EVALUATION_FAILED, None)


def test_a_verdict_tells_what_every_rule_looked_at_in_the_order_of_the_table() -> None:
    checks = Desk().open().approve(signal()).checks
    assert [(check.rule, check.reason) for check in checks] == [(name_of(rule), rule.reason) for rule in RULES]
    told = {check.rule: (check.outcome, check.detail) for check in checks}
    assert told["mark_stale"] == (CheckOutcome.PASSED, "age_seconds=0 limit=5")
    assert told["dust"] == (CheckOutcome.EXEMPT, "")
    assert told["slippage_too_high"] == (CheckOutcome.PASSED, "no market order")
    assert told["exposure_too_large"] == (CheckOutcome.PASSED, "after=100 exposure=0 reserved=0 limit=1000000")
    assert all(detail for outcome, detail in told.values() if outcome is CheckOutcome.PASSED)


def test_the_rules_below_the_one_that_refuses_are_asked_too() -> None:
    desk = Desk(config(order_notional_max=D(50))).open()
    desk.feed(trading(m.Trading.HALTED, 2))
    desk.core.known.feeds.clear()
    verdict = desk.ask(signal())
    said = {check.rule: check.outcome for check in verdict.checks}
    assert verdict.reason is Reason.TRADING_HALTED
    assert (said["feed_not_live"], said["order_too_large"]) == (CheckOutcome.UNKNOWN, CheckOutcome.VIOLATED)
    assert len(said) == len(RULES)


def test_what_cannot_be_told_is_unknown_with_the_reason_of_what_lacks() -> None:
    desk = Desk().open().bought("1", product_id=ETH)
    del desk.core.known.marks[ETH]
    [exposure] = [check for check in desk.ask(signal()).checks if check.rule == "exposure_too_large"]
    assert exposure == m.Check(
        rule="exposure_too_large",
        reason=Reason.MARK_UNKNOWN,
        outcome=CheckOutcome.UNKNOWN,
        detail="no mark of ETH-USD, which is held",
    )


def test_what_is_held_no_more_may_have_an_old_mark() -> None:
    limits = guarded(mark_staleness=MarkStaleness(reduce=D(30), recover_seconds=10))
    desk = Desk(limits).open().bought("1", product_id=ETH)
    desk.fact(fill("sold", SELL, "1", product_id=ETH))
    desk.later(20, BTC)
    desk.later(10.5, BTC)
    desk.approve(signal(expires_at=NOON + 60 * SECOND))


def test_an_exit_without_a_mark_is_unknown_to_every_rule_that_reckons_its_value() -> None:
    desk = Desk().open().bought("1")
    del desk.core.known.marks[BTC]
    checks = desk.ask(market(side=SELL)).checks
    unknown = {check.rule for check in checks if check.outcome is CheckOutcome.UNKNOWN}
    assert unknown == {"mark_unknown", "mark_stale", "dust", "too_small", "too_large"}


def test_an_operator_may_order_beside_an_open_order_of_the_strategy() -> None:
    desk = Desk().open()
    desk.approve(signal("open"))
    desk.ordered(signal("of an operator"))
    assert desk.ask(signal("second")).detail == f"open={m.client_order_id('open')}"


def test_a_figure_that_would_fill_a_page_is_told_in_short() -> None:
    verdict = Desk().open().ask(signal(quantity="1" * 50))
    assert (verdict.reason, verdict.detail.split()[0]) == (Reason.SIZE_ABOVE_MAXIMUM, "quantity=1.11111111111e+49")


def test_a_defect_in_a_rule_refuses_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(c: Context) -> Finding:
        raise ValueError("a defect")

    rule = msgspec.structs.replace(RULES[-1], violated=broken)
    monkeypatch.setattr(rules, "RULES", (*RULES[:-1], rule))
    verdict = Desk().open().ask(signal())
    assert (verdict.reason, verdict.order) == (Reason.EVALUATION_FAILED, None)
    assert verdict.detail == "broken: ValueError"


def test_a_verdict_stays_small_for_it_stays_in_the_ledger() -> None:
    desk = Desk().open(fee="0.012").bought("1.23456789", "61234.56", "123.456", ETH)
    price = "61234.56"
    desk.feed(mark(price=price, spread="0.02"), mark(ETH, price))
    wanted = signal("a" * 32, quantity="0.01234567", limit_price=D("61300.129"))
    for verdict in (desk.ask(wanted), desk.ask(market("b" * 32, quantity="0.0123456"))):
        assert len(msgspec.json.encode(verdict)) < VERDICT_BYTES_MAX


def test_the_rules_stand_in_the_order_of_the_policy() -> None:
    assert [rule.reason for rule in RULES] == [
        Reason.SIGNAL_EXPIRED,
        Reason.DUPLICATE_SIGNAL,
        Reason.TRADING_STATE_UNKNOWN,
        Reason.TRADING_HALTED,
        Reason.TRADING_REDUCING,
        Reason.PRODUCT_UNKNOWN,
        Reason.ORDER_NOT_EDITABLE,
        Reason.ORDER_INVALID,
        Reason.PRODUCT_NOT_TRADABLE,
        Reason.ACCOUNT_UNKNOWN,
        Reason.ACCOUNT_DRIFT,
        Reason.MARK_UNKNOWN,
        Reason.MARK_STALE,
        Reason.PRICE_STALE,
        Reason.FEED_NOT_LIVE,
        Reason.MARKET_DEGRADED,
        Reason.NOTHING_TO_REDUCE,
        Reason.DUST,
        Reason.SIZE_BELOW_MINIMUM,
        Reason.SIZE_ABOVE_MAXIMUM,
        Reason.PRICE_OFF_MARKET,  # a stop that is reached
        Reason.PRICE_OFF_MARKET,
        Reason.SPREAD_TOO_WIDE,
        Reason.SLIPPAGE_TOO_HIGH,
        Reason.ORDER_RATE_ABOVE_LIMIT,
        Reason.NOTIONAL_ABOVE_LIMIT,
        Reason.POSITION_ABOVE_LIMIT,
        Reason.EXPOSURE_ABOVE_LIMIT,
        Reason.BALANCE_TOO_LOW,
        Reason.DAILY_LOSS_LIMIT,
    ]


def test_of_several_reasons_the_first_of_the_table_is_told() -> None:
    desk = Desk(config(order_notional_max=D(1), spread_bps_max=D(1))).open()
    desk.feed(mark(spread="10"), account({"USD": D(0)}, at=NOON + SECOND, settled=False))
    wanted = signal(quantity="50")
    assert desk.ask(wanted).reason is Reason.SPREAD_TOO_WIDE
    desk.feed(feed(state=m.Feed.GAP))
    assert desk.ask(signal("second", quantity="50")).reason is Reason.FEED_NOT_LIVE
    desk.feed(product(is_disabled=True))
    assert desk.ask(signal("third", quantity="50")).reason is Reason.PRODUCT_NOT_TRADABLE
    desk.feed(trading(m.Trading.HALTED, 2))
    assert desk.ask(signal("fourth", quantity="50")).reason is Reason.TRADING_HALTED
    assert desk.ask(signal("fifth", expires_at=NOON - SECOND)).reason is Reason.SIGNAL_EXPIRED


NARROW = config(
    order_notional_max=D(1),
    position_notional_max=D(1),
    exposure_max=D(1),
    orders_per_minute_max=1,
    spread_bps_max=D(1),
    daily_loss_limit=D(100_000),
)


def test_an_exit_passes_every_cap_on_entries() -> None:
    desk = Desk(NARROW).open().bought("500")
    desk.ordered(signal("first", SELL, "1"))  # spends the order rate
    desk.feed(mark(spread="10"), feed(state=m.Feed.STALE), trading(m.Trading.REDUCING, 2))
    desk.feed(account({"USD": D(0)}, at=NOON + SECOND))
    order = desk.approve(market("exit", SELL, "400")).order
    assert order is not None
    assert order.quantity == 400


def test_an_exit_passes_the_daily_loss_that_stops_entries() -> None:
    desk = Desk(config(daily_loss_limit=D(100))).open().bought("10")
    desk.feed(mark(price="90"))
    desk.core.switch.pending = None  # the halt that follows is another guard's matter
    assert desk.ask(signal("entry", quantity="1", limit_price=D(90))).reason is Reason.DAILY_LOSS_LIMIT
    desk.core.switch.pending = None
    desk.approve(market("exit", SELL, "10"))


def test_closing_half_of_the_equity_is_not_refused_by_a_cap() -> None:
    desk = Desk(NARROW).open().bought("500")
    assert desk.approve(market("exit", SELL, "500")).reserved == 0


def test_an_exit_needs_neither_account_nor_opening_balances() -> None:
    desk = Desk()
    desk.feed(trading(), product(), mark(), m.Recovered(id="recovered"))
    desk.bought("1").approve(signal(side=SELL))


def test_an_order_that_rests_may_be_as_far_on_its_own_side_of_the_market_as_it_likes() -> None:
    desk = Desk().open().bought("10")
    desk.approve(signal("low", time_in_force=m.TimeInForce.GTC, limit_price=D(1), quantity="2"))
    rests = {"order_type": m.OrderType.LIMIT, "time_in_force": m.TimeInForce.GTC, "limit_price": D(1000)}
    desk.approve(market("high", SELL, "1", **rests))
    assert desk.ask(signal("wrong side", time_in_force=m.TimeInForce.GTC, limit_price=D(200))).order is None
