"""Every guard of the core by itself: what loses or doubles an order or a fill, or lets a halt or a sale through."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.orders import TRANSITIONS
from services.execution.permission import live_entries, overtaken, refusal
from services.execution.state import CLOSED_KEPT
from tests.execution.story import NOON, Story, key, placed, product, seen, trading, verdict
from tests.execution.tellings import (
    SELL,
    ask_failed,
    bought,
    changed,
    last,
    later,
    listed,
    not_found,
    not_sent,
    questions,
    refused,
    replace,
    resting,
    sale,
    unknown,
    user,
)

# -- the life of an order


def test_the_ways_that_lose_or_double_an_order_are_not_in_the_table() -> None:
    assert set(TRANSITIONS[None]) == {S.SUBMITTING, S.DENIED}
    assert set(TRANSITIONS[S.UNKNOWN]) == {S.ACCEPTED, S.REJECTED}
    assert [status for status, ways in TRANSITIONS.items() if S.SUBMITTING in ways] == [None]
    assert [status for status, ways in TRANSITIONS.items() if S.UNKNOWN in ways] == [S.SUBMITTING]
    assert {status for status, ways in TRANSITIONS.items() if S.DENIED in ways} == {None, S.SUBMITTING}
    assert S.PENDING_UPDATE not in TRANSITIONS[S.PENDING_CANCEL]
    assert S.PENDING_CANCEL not in TRANSITIONS[S.PENDING_UPDATE]


def test_a_step_that_the_table_does_not_have_is_never_written_by_us() -> None:
    order = Story().tell(verdict(), unknown()).core.state.orders[key()]
    with pytest.raises(AssertionError, match="cannot become"):
        order.event(S.DENIED, "no", NOON)


@pytest.mark.parametrize("status", [S.FILLED, S.CANCELED, S.EXPIRED, S.REJECTED])
def test_every_end_that_the_venue_tells_ends_the_order_and_the_account_is_read_again(status: S) -> None:
    story = resting()
    fills = (("a", "100", "1"),) if status is S.FILLED else ()
    before = len(story.all(i.FetchAccount))
    story.tell(seen(status=status, filled="1" if fills else "0", fills=fills))
    assert last(story).status is status
    assert len(story.all(i.FetchAccount)) == before + 1


def test_the_venues_reason_for_an_end_is_kept() -> None:
    end = seen(status=S.REJECTED)
    story = resting().tell(replace(end, order=replace(end.order, reject_reason="POST_ONLY_WOULD_CROSS")))
    assert last(story).reason == "POST_ONLY_WOULD_CROSS"


def test_a_step_after_a_hole_in_the_numbers_is_taken_and_one_from_before_is_not() -> None:
    story = resting()
    order = story.core.state.orders[key()]
    step = last(story)
    assert order.apply(replace(step, revision=step.revision + 2, status=S.CANCELED))
    assert not order.apply(replace(step, revision=step.revision + 1))
    assert order.status is S.CANCELED


def test_only_the_oldest_closed_orders_are_forgotten_and_never_an_open_one() -> None:
    story = resting()
    for number in range(CLOSED_KEPT + 3):
        story.tell(verdict(f"m{number}", expires_in_seconds=-1))
    assert len(story.core.state.orders) == CLOSED_KEPT + 1
    assert key() in story.core.state.orders
    assert key("m0") not in story.core.state.orders


def test_a_sale_takes_away_from_what_is_held() -> None:
    story = bought().tell(sale("s2", "0.4"), placed("s2"))
    story.tell(seen("s2", filled="0.4", fills=(("b", "100", "0.4"),), side=SELL))
    assert story.core.state.positions == {"BTC-USD": Decimal("0.6")}


def test_totals_go_on_over_several_answers_and_come_out_exact() -> None:
    story = Story().tell(verdict(), placed(), seen(filled="1", fills=(("a", "100", "0.4"),)))
    assert story.all(i.Query)[-1].delay_seconds == 0  # news: the rest may be there already
    story.tell(seen(filled="1", fills=(("a", "100", "0.4"), ("b", "101", "0.6"))))
    assert (last(story).status, last(story).filled_qty) == (S.FILLED, Decimal(1))
    assert (last(story).filled_value, last(story).fees) == (Decimal("100.6"), Decimal("1.006"))
    order = story.core.state.orders[key()]
    assert (order.filled_value, order.fees) == (Decimal("100.6"), Decimal("1.006"))
    assert story.core.anomalies == 0


def test_the_same_fill_twice_in_one_answer_is_written_once_and_counts_once_in_the_totals() -> None:
    story = Story().tell(verdict(), placed(), seen(filled="1", fills=(("a", "9", "0.4"), ("a", "9", "0.4"))))
    assert [fill.id for fill in story.fills] == ["a"]
    assert last(story).filled_qty == Decimal("0.4")


# -- answers to a POST


def test_nothing_but_the_venue_ends_an_unknown_order() -> None:
    story = Story().tell(verdict(), unknown(), refused(), refused(S.DENIED))
    assert story.statuses == [S.SUBMITTING, S.UNKNOWN]


def test_an_unknown_order_is_not_sent_again_by_a_late_word_that_nothing_left() -> None:
    story = Story().tell(verdict(), unknown(), not_sent())
    story.now = later(20)
    story.tell(not_sent())
    assert len(story.all(i.Place)) == 1
    assert story.statuses == [S.SUBMITTING, S.UNKNOWN]


def test_an_approval_holds_up_to_its_last_moment() -> None:
    story = Story()
    story.now = later(10)
    story.tell(verdict(), not_sent())
    assert [place.delay_seconds for place in story.all(i.Place)] == [0, 1]


def test_an_order_of_the_other_side_under_our_id_settles_nothing() -> None:
    story = Story().tell(verdict(), unknown())
    story.tell(i.Found(id="f", client_order_id=key(), order=seen(side=SELL).order))
    assert story.statuses[-1] is S.UNKNOWN
    assert story.core.anomalies == 1


def test_a_listing_without_the_order_ends_nothing_once_the_venue_has_shown_it() -> None:
    story = Story().tell(verdict(gtc=True), unknown(), i.Found(id="f", client_order_id=key(), order=seen().order))
    story.tell(*[not_found(seconds) for seconds in (12, 13, 14)])
    assert story.statuses[-1] is S.ACCEPTED


def test_the_longest_token_of_two_requests_counts() -> None:
    story = Story().tell(verdict(), unknown(10), unknown(5), not_found(7), not_found(8))
    assert story.statuses[-1] is S.UNKNOWN


def test_listings_before_another_unknown_outcome_do_not_count() -> None:
    story = Story().tell(verdict(), unknown(), not_found(12), unknown(), not_found(13))
    assert story.statuses[-1] is S.UNKNOWN
    assert story.tell(not_found(14)).statuses[-1] is S.REJECTED


def test_questions_come_later_each_time_and_never_stop() -> None:
    story = Story().tell(verdict(), unknown(), *[ask_failed()] * 1100)
    finds = story.all(i.Find)
    assert [find.delay_seconds for find in finds[:4]] == [0, 0.05, 0.1, 0.2]
    assert (len(finds), finds[-1].delay_seconds) == (1101, 5)
    assert {find.start for find in finds} == {NOON - timedelta(minutes=10)}
    assert story.core.busy


def test_an_order_that_has_ended_is_asked_about_no_more() -> None:
    story = resting().tell(seen(status=S.CANCELED))
    before = questions(story)
    story.tell(ask_failed(), listed(), i.UserReconnected(id="u"), user(seen(status=S.CANCELED).order))
    assert questions(story) == before


# -- answers to a question


def test_an_end_that_counts_less_than_our_fills_is_no_end() -> None:
    story = resting().tell(seen(status=S.CANCELED, filled="0.3", fills=(("a", "100", "0.4"),)))
    assert (last(story).status, last(story).filled_qty) == (S.PARTIALLY_FILLED, Decimal("0.4"))


def test_a_fill_of_another_order_is_not_ours() -> None:
    answer = seen(filled="1", fills=(("a", "100", "1"),))
    story = Story().tell(verdict(), placed(), replace(answer, fills=(replace(answer.fills[0], venue_order_id="v2"),)))
    assert story.fills == []
    assert story.core.anomalies == 1


@pytest.mark.parametrize(
    ("value", "fees", "odd"),
    [("100", "1", 0), ("100.000000005", "1.000000005", 0), ("100.01", "1", 1), ("100", "1.01", 1), (None, None, 0)],
)
def test_the_venues_own_sums_are_held_against_those_of_its_fills(value: str | None, fees: str | None, odd: int) -> None:
    answer = seen(filled="1", fills=(("a", "100", "1"),))
    sums = {"filled_value": Decimal(value) if value else None, "fees": Decimal(fees) if fees else None}
    story = Story().tell(verdict(), placed(), replace(answer, order=replace(answer.order, **sums)))
    assert last(story).status is S.FILLED
    assert story.core.anomalies == odd


@pytest.mark.parametrize(("second", "odd"), [("40", 0), ("40.01", 1)])
def test_an_order_by_amount_is_held_against_its_amount_over_all_answers(second: str, odd: int) -> None:
    story = Story().tell(changed(verdict(), quote_size=Decimal(100)), placed())
    story.tell(seen(filled="2", fills=(("a", "60", "1"),)))
    story.tell(seen(filled="2", fills=(("a", "60", "1"), ("b", second, "1"))))
    assert last(story).status is S.FILLED
    assert story.core.anomalies == odd


def test_a_cancel_that_waits_is_written_once_and_fills_still_count() -> None:
    story = resting().tell(seen(status=S.ACCEPTED, filled="0.2", fills=(("a", "100", "0.2"),)))
    canceling = seen(status=S.PENDING_CANCEL, filled="0.2", fills=(("a", "100", "0.2"),))
    story.tell(canceling, canceling)
    assert story.statuses[-2:] == [S.PARTIALLY_FILLED, S.PENDING_CANCEL]
    fills = (("a", "100", "0.2"), ("b", "100", "0.3"))
    story.tell(seen(status=S.PENDING_CANCEL, filled="0.5", fills=fills))
    story.tell(seen(status=S.CANCELED, filled="0.5", fills=fills))
    assert (last(story).status, last(story).filled_qty) == (S.CANCELED, Decimal("0.5"))


def test_a_look_without_news_waits_and_one_with_news_is_followed_at_once() -> None:
    story = resting().tell(seen(status=S.ACCEPTED))
    assert story.all(i.Query)[-1].delay_seconds == 5
    story.tell(seen(status=S.ACCEPTED, filled="0.2", fills=(("a", "100", "0.2"),)))
    assert story.all(i.Query)[-1].delay_seconds == 0


def test_an_end_that_the_user_channel_tells_makes_us_ask_at_once() -> None:
    story = resting()
    before = questions(story)
    story.tell(user(seen(status=S.CANCELED).order))
    assert (questions(story), story.all(i.Query)[-1].delay_seconds) == (before + 1, 0)


def test_an_update_without_a_figure_is_no_news() -> None:
    silent = replace(seen(status=S.ACCEPTED).order, filled_qty=None)
    story = resting()
    before = questions(story)
    story.tell(user(silent))
    assert questions(story) == before
    story.tell(seen(status=S.CANCELED), user(silent))
    assert story.core.anomalies == 0


def test_after_a_hole_in_the_user_channel_every_open_order_is_asked_about() -> None:
    story = resting().tell(verdict("s2", gtc=True), placed("s2"), seen("s2", status=S.ACCEPTED))
    before = len(story.all(i.Query))
    story.tell(i.UserReconnected(id="u"))
    assert {query.client_order_id for query in story.all(i.Query)[before:]} == {key(), key("s2")}


# -- permission


def test_before_the_trading_state_is_known_nothing_is_sent_and_it_is_not_ready() -> None:
    core = ExecutionCore(ExecutionConfig())
    core.on_message(product(), NOON)
    [denied] = core.on_message(verdict(), NOON)
    assert isinstance(denied, m.OrderEvent)
    assert (denied.status, denied.reason) == (S.DENIED, m.Reason.TRADING_STATE_UNKNOWN)
    assert core.not_ready(NOON) == "trading state not known"


def test_a_stored_trading_state_that_is_older_than_the_approval_is_another_one_too() -> None:
    order = verdict().order
    assert order is not None
    place = i.Place(id="p", order=order, trading_revision=3, expires_at=NOON)
    assert refusal(place, trading(revision=2), NOON) is m.Reason.TRADING_STATE_CHANGED


@pytest.mark.parametrize(
    ("state", "now", "expected"),
    [
        (trading(revision=1), NOON, False),
        (trading(revision=2), NOON, True),
        (trading(m.Trading.HALTED, 0), NOON, True),
        (None, NOON, True),
        (trading(revision=1), NOON + timedelta(microseconds=1), True),
    ],
)
def test_a_request_is_overtaken_by_a_newer_state_or_its_expiry(
    state: m.TradingState | None, now: datetime, expected: bool
) -> None:
    order = verdict().order
    assert order is not None
    place = i.Place(id="p", order=order, trading_revision=1, expires_at=NOON)
    assert overtaken(place, state, now) is expected


def test_a_product_that_is_closed_takes_no_order_and_an_unknown_one_no_sale() -> None:
    story = bought()
    story.core.rules.clear()
    assert story.tell(sale("s2", "1")).reasons[-1] == m.Reason.PRODUCT_UNKNOWN
    story.core.on_message(product(trading_disabled=True), NOON)
    assert story.tell(verdict("s3")).reasons[-1] == m.Reason.PRODUCT_NOT_TRADABLE
    assert len(story.all(i.Place)) == 1


def test_a_sale_is_rounded_down_to_the_increment_and_the_smallest_one_is_sent() -> None:
    story = bought("0.00019").tell(sale("s2", "1", gtc=False))
    assert story.all(i.Place)[-1].order.quantity == Decimal("0.0001")
    assert last(story).status is S.SUBMITTING


def test_only_sales_of_the_same_product_take_away_from_what_may_be_sold() -> None:
    story = bought().tell(verdict("s2", gtc=True), placed("s2"))  # an open entry promises nothing
    story.core.on_message(product(product_id="ETH-USD"), NOON)
    story.core.state.positions["ETH-USD"] = Decimal(5)
    story.tell(changed(sale("s3", "5"), product_id="ETH-USD"))
    assert story.all(i.Place)[-1].order.quantity == 5
    story.tell(sale("s4", "3"))
    assert story.all(i.Place)[-1].order.quantity == 1


def test_a_sale_that_has_ended_frees_what_it_did_not_sell() -> None:
    story = bought().tell(sale("s2", "0.7"), placed("s2"), seen("s2", status=S.CANCELED, side=SELL))
    assert story.tell(sale("s3", "1")).all(i.Place)[-1].order.quantity == 1


def test_what_a_sale_has_sold_is_not_taken_away_twice() -> None:
    story = bought().tell(sale("s2", "0.7"), placed("s2"))
    story.tell(seen("s2", status=S.ACCEPTED, filled="0.3", fills=(("b", "100", "0.3"),), side=SELL))
    assert story.tell(sale("s3", "1")).all(i.Place)[-1].order.quantity == Decimal("0.3")


def test_a_sale_that_sold_too_much_frees_nothing() -> None:
    story = bought().tell(sale("s2", "0.5"), placed("s2"))
    story.tell(seen("s2", status=S.ACCEPTED, filled="0.6", fills=(("b", "100", "0.6"),), side=SELL))
    assert story.tell(sale("s3", "1")).all(i.Place)[-1].order.quantity == Decimal("0.4")


def test_an_entry_that_fills_at_once_or_not_at_all_is_not_canceled_by_a_halt() -> None:
    story = Story().tell(verdict(), placed(), trading(m.Trading.HALTED, 2), seen(status=S.ACCEPTED))
    assert story.all(i.Cancel) == []


def test_what_to_cancel_without_the_bus_are_entries_that_may_rest_at_the_venue() -> None:
    story = bought().tell(verdict("ioc"), placed("ioc"), verdict("gone", gtc=True), placed("gone"))
    story.tell(seen("gone", status=S.CANCELED), sale("exit", "0.5"), placed("exit"))
    story.tell(verdict("rests", gtc=True), placed("rests"), verdict("sent", gtc=True))
    story.core.on_message(verdict("approved", gtc=True), NOON)  # its first step is not durable yet
    assert [order.signal_id for order in live_entries(story.core.state.orders.values())] == ["rests", "sent"]
