"""Every guard of the core by itself: what loses or doubles an order or a fill, or lets a halt or a sale through."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from services.execution.config import ExecutionConfig
from services.execution.core import CLOSED_KEPT, ExecutionCore
from services.execution.orders import TRANSITIONS
from services.execution.permission import live_entries, overtaken, refusal
from tests.execution.story import NOON, Story, edit, key, placed, product, seen, trading, verdict

replace = msgspec.structs.replace
AS_IT_WAS = ("1", "100")
SELL = m.Side.SELL


def changed(approval: m.Verdict, **fields: object) -> m.Verdict:
    assert approval.order is not None
    return replace(approval, order=replace(approval.order, **fields))


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def unknown(dies_after_seconds: float = 10) -> i.PlaceUnknown:
    return i.PlaceUnknown(id="u", client_order_id=key(), why="timeout", token_expires_at=later(dies_after_seconds))


def edit_unknown(edit_id: str = "e1") -> i.EditUnknown:
    return i.EditUnknown(id="x", client_order_id=key(), edit_id=edit_id, why="timeout", token_expires_at=later(10))


def edited(edit_id: str = "e1") -> i.Edited:
    return i.Edited(id="x", client_order_id=key(), edit_id=edit_id)


def not_found(asked_after_seconds: float) -> i.NotFound:
    return i.NotFound(id="n", client_order_id=key(), asked_at=later(asked_after_seconds))


def not_sent() -> i.PlaceNotSent:
    return i.PlaceNotSent(id="n", client_order_id=key(), why="no connection")


def refused(status: S = S.REJECTED) -> i.PlaceRefused:
    return i.PlaceRefused(id="r", client_order_id=key(), status=status, reason="no")


def ask_failed() -> i.AskFailed:
    return i.AskFailed(id="a", client_order_id=key(), why="503")


def user(order: i.VenueOrder) -> i.UserUpdate:
    return i.UserUpdate(id="u", order=order)


def listed(*orders: i.VenueOrder, fills: tuple[i.VenueFill, ...] = (), until: datetime = NOON) -> i.Reconciled:
    return i.Reconciled(id="listing", listing=i.Listing(orders=orders, fills=fills), until=until)


def one_fill(entry: str, name: str = "s1") -> i.VenueFill:
    [fill] = seen(name, fills=((entry, "100", "0.5"),)).fills
    return fill


def account(story: Story, epoch: int | None = None, resting: dict[str, Decimal | None] | None = None) -> m.Account:
    parts = i.AccountParts(balances={})
    now = story.core.epoch if epoch is None else epoch
    story.tell(i.AccountSeen(id="a", epoch=now, ledger_sequence=7, parts=parts, resting=resting or {}))
    return story.all(m.Account)[-1]


def resting(quantity: str = "1") -> Story:
    return Story().tell(
        verdict(quantity=quantity, gtc=True), placed(), seen(status=S.ACCEPTED, terms=(quantity, "100"))
    )


def bought(quantity: str = "1") -> Story:
    fill = seen("s0", filled=quantity, fills=(("e-s0", "100", quantity),))
    return Story().tell(verdict("s0", quantity=quantity), placed("s0"), fill)


def sale(name: str, quantity: str, *, gtc: bool = True) -> m.Verdict:
    return verdict(name, SELL, quantity, gtc=gtc, reduce_only=True)


def sale_edit(name: str, quantity: str) -> m.Verdict:
    return changed(edit(name, quantity, "100"), side=SELL, reduce_only=True)


def last(story: Story) -> m.OrderEvent:
    return [fact for fact in story.ledger if isinstance(fact, m.OrderEvent)][-1]


def questions(story: Story) -> int:
    return len(story.all(i.Query)) + len(story.all(i.Find))


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


# -- edits


def test_a_fill_in_the_middle_of_an_edit_does_not_send_it_again() -> None:
    story = resting().tell(edit(), edit_unknown())
    for number in (1, 2):
        fills = tuple((f"f{n}", "100", "0.1") for n in range(number))
        story.tell(seen(status=S.ACCEPTED, filled=str(number / 10), fills=fills, terms=AS_IT_WAS))
    assert last(story).status is S.PENDING_UPDATE
    assert len(story.all(i.Edit)) == 1


def test_an_edit_of_an_order_that_may_not_be_at_the_venue_is_odd_and_does_nothing() -> None:
    for story in (Story().tell(verdict(gtc=True)), Story().tell(verdict(gtc=True), unknown())):
        facts = len(story.ledger)
        story.tell(edit())
        assert story.ledger[facts:] == [edit()]
        assert story.core.anomalies == 1
        assert story.core.state.orders[key()].edit is None


def test_an_edit_of_an_ended_order_is_nothing_odd() -> None:
    assert resting().tell(seen(status=S.CANCELED), edit()).core.anomalies == 0


def test_a_partly_filled_order_is_edited_and_asked_about_when_that_is_done() -> None:
    story = resting().tell(seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),)), edit())
    assert last(story).status is S.PENDING_UPDATE
    story.tell(seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),), terms=AS_IT_WAS))
    before = questions(story)
    story.tell(edited())
    assert (last(story).status, last(story).order.quantity) == (S.PARTIALLY_FILLED, Decimal(2))
    assert (questions(story), story.all(i.Query)[-1].delay_seconds) == (before + 1, 0)


def test_a_sale_may_be_edited_to_all_that_is_held_beside_what_it_has_sold() -> None:
    story = bought().tell(sale("s1", "0.5"), placed())
    story.tell(seen(status=S.ACCEPTED, filled="0.3", fills=(("b", "100", "0.3"),), side=SELL))
    assert last(story.tell(sale_edit("s1", "1"))).status is S.PENDING_UPDATE


def test_a_sale_is_not_edited_to_what_a_later_sale_may_take() -> None:
    story = bought().tell(sale("s1", "0.3"), placed(), seen(status=S.ACCEPTED, side=SELL), sale("s2", "0.6"))
    story.tell(sale_edit("s1", "0.5"))
    assert last(story).reason == "edit_refused: nothing_to_reduce"
    assert story.all(i.Edit) == []


@pytest.mark.parametrize(
    "kind",
    [
        {"time_in_force": m.TimeInForce.IOC},
        {"time_in_force": m.TimeInForce.GTD},
        {"order_type": m.OrderType.STOP_LIMIT},
    ],
)
def test_an_order_of_a_kind_that_the_venue_does_not_edit_stays_as_it_was(kind: dict[str, object]) -> None:
    story = Story().tell(changed(verdict(gtc=True), **kind), placed(), edit())
    assert last(story).reason == "edit_refused: order_not_editable"
    assert story.all(i.Edit) == []


def test_while_an_edit_to_less_is_under_way_the_larger_quantity_still_counts() -> None:
    story = resting().tell(edit(quantity="0.5"))
    assert story.core.state.orders[key()].open_quantity == 1


def test_the_answer_to_another_edit_settles_nothing() -> None:
    story = resting().tell(edit(), edited(), edit(quantity="3", edit_id="e2"), edited("e1"))
    assert (last(story).status, last(story).edit_id) == (S.PENDING_UPDATE, "e2")
    order = story.core.state.orders[key()]
    order.apply(replace(last(story), revision=last(story).revision + 1, status=S.ACCEPTED, edit_id="e1"))
    assert order.edit is not None
    assert order.edit.id == "e2"


def test_what_settled_one_edit_settles_no_later_one() -> None:
    nothing = seen(status=S.ACCEPTED, terms=AS_IT_WAS, asked_at=later(12))
    story = resting().tell(edit(), edit_unknown(), nothing, nothing)
    assert last(story).reason == "edit_refused: never_arrived"
    story.tell(edit(edit_id="e2"), nothing, nothing)
    assert last(story).status is S.PENDING_UPDATE


def test_an_order_that_ends_in_the_middle_of_an_edit_says_nothing_of_it() -> None:
    story = resting().tell(edit(), seen(status=S.CANCELED))
    assert (last(story).status, last(story).edit_id, last(story).wanted) == (S.CANCELED, "", None)
    assert last(story).order.quantity == 1


def test_a_cancel_that_waits_does_not_settle_an_edit() -> None:
    story = resting().tell(edit(), edit_unknown(), seen(status=S.PENDING_CANCEL, terms=AS_IT_WAS))
    assert last(story).status is S.PENDING_UPDATE


def test_an_edit_without_an_answer_is_asked_about_soon() -> None:
    story = resting().tell(edit(), edit_unknown(), seen(status=S.ACCEPTED, terms=AS_IT_WAS))
    assert story.all(i.Query)[-1].delay_seconds == 0.05


def test_an_edit_begun_by_another_process_is_asked_about_and_never_sent_by_us() -> None:
    """Two processes at the takeover of the lease: the other one's event is read while we run."""
    other = resting()
    begun = other.tell(edit()).ledger[-1]
    running = Story(other.ledger[:-2])
    running.core.on_message(trading(m.Trading.HALTED, 0), NOON)
    assert running.core.on_message(edit(), NOON) != []  # our own answer, a refusal, lost the write
    running.tell(begun)
    assert running.all(i.Edit) == []
    running.tell(edit_unknown())
    assert running.core.state.orders[key()].status is S.PENDING_UPDATE


# -- restarts


def test_an_unknown_order_found_at_start_ends_after_the_longest_life_of_a_token() -> None:
    story = Story().tell(verdict(), unknown()).restart()
    story.tell(not_found(5), not_found(11), not_found(11.5))
    assert story.statuses[-1] is S.UNKNOWN
    assert story.tell(not_found(12)).statuses[-1] is S.REJECTED


def test_an_edit_found_begun_at_start_ends_after_the_longest_life_of_a_token() -> None:
    story = Story(resting().tell(edit()).ledger)
    story.tell(*[seen(status=S.ACCEPTED, terms=AS_IT_WAS, asked_at=later(at)) for at in (5, 11, 11.5)])
    assert last(story).status is S.PENDING_UPDATE
    story.tell(seen(status=S.ACCEPTED, terms=AS_IT_WAS, asked_at=later(12)))
    assert last(story).reason == "edit_refused: never_arrived"


def test_an_edit_whose_first_step_was_overtaken_by_a_fill_is_begun_at_start() -> None:
    before = resting()
    facts = len(before.ledger)
    before.tell(seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),)))
    story = Story([*before.ledger[:facts], edit(), *before.ledger[facts:]])
    assert last(story).status is S.PENDING_UPDATE
    assert len(story.all(i.Edit)) == 1


def test_what_the_replay_began_is_not_ours_to_send() -> None:
    story = Story(start=False)
    [step] = story.core.on_message(verdict(), NOON)  # read from the ledger: its outputs are let go
    story.core.on_message(trading(m.Trading.HALTED, 2), NOON)
    story.core.on_message(m.Recovered(id="recovered"), NOON)
    story.tell(step)
    assert story.all(i.Place) == []


def test_an_installation_without_balances_does_not_forget_the_opening_ones() -> None:
    story = Story().tell(m.Installation(id="installation", opening={"USD": Decimal(5)}), m.Installation(id="x"))
    assert story.core.state.opening == {"USD": Decimal(5)}


# -- the account


def test_an_order_that_comes_to_its_end_without_a_fill_unsettles_balances_read_before() -> None:
    story = resting()
    before = story.core.epoch
    story.tell(seen(status=S.CANCELED))
    assert account(story, before).settled is False
    told = account(story)
    assert (told.settled, told.ledger_sequence) == (True, 7)


def test_a_fill_that_comes_after_the_end_unsettles_balances_read_before() -> None:
    story = resting().tell(seen(status=S.CANCELED))
    before = story.core.epoch
    story.tell(listed(fills=(one_fill("late"),)))
    assert account(story, before).settled is False


@pytest.mark.parametrize("gtc", [True, False])
def test_beside_an_order_on_its_way_balances_never_count(gtc: bool) -> None:
    story = Story().tell(verdict(gtc=gtc))
    assert account(story, resting={key(): Decimal(0)}).settled is False
    if not gtc:
        story.tell(placed())
        assert account(story, resting={key(): Decimal(0)}).settled is False


def test_it_is_busy_until_a_resting_order_is_known_to_rest() -> None:
    story = Story().tell(verdict(gtc=True), placed())
    assert story.core.busy
    story.tell(seen(status=S.ACCEPTED))
    assert not story.core.busy
    for order in (verdict("m1"), verdict("m2", gtc=True)):
        waiting = Story().tell(order)
        name = order.signal_id
        waiting.tell(replace(unknown(), client_order_id=key(name)))
        waiting.tell(*[replace(ask_failed(), client_order_id=key(name))] * 3)
        assert waiting.core.busy
        assert not waiting.core.rests


def test_an_order_that_fills_at_once_never_counts_as_resting() -> None:
    story = Story().tell(verdict(), placed(), *[seen(status=S.ACCEPTED)] * 3)
    assert story.core.busy
    assert not story.core.rests
    assert story.all(i.Query)[-1].delay_seconds < 1


# -- the listing


@pytest.mark.parametrize("durable", [False, True])
def test_fills_are_nobodys_while_an_order_is_about_to_be_sent(durable: bool) -> None:
    story = Story()
    if durable:
        story.tell(verdict())
    else:
        story.core.on_message(verdict(), NOON)
    story.tell(listed(fills=(one_fill("perhaps-ours"),)))
    assert story.core.state.watermark.foreign_fills == 0
    assert story.core.state.watermark.seen_until is None


def test_a_fill_of_an_order_listed_under_our_id_is_never_foreign() -> None:
    story = Story().tell(verdict(), unknown(), not_found(12), not_found(13))
    assert story.statuses[-1] is S.REJECTED
    story.tell(listed(seen(filled="1").order, fills=(one_fill("a"),)))
    assert story.core.state.watermark.foreign_fills == 0


def test_a_late_fill_listed_twice_on_two_pages_is_written_once() -> None:
    story = resting().tell(seen(status=S.CANCELED), listed(fills=(one_fill("late"), one_fill("late"))))
    assert [fill.id for fill in story.fills] == ["late"]
    assert story.core.anomalies == 1


def test_a_partly_filled_order_that_is_not_listed_is_asked_about() -> None:
    story = resting().tell(seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),)), ask_failed())
    before = questions(story)
    story.tell(listed())
    assert questions(story) == before + 1


def test_an_order_that_has_ended_does_not_hold_the_listing_back() -> None:
    old = replace(verdict(gtc=True), at=NOON - timedelta(days=3))
    story = Story().tell(old, placed(), seen(status=S.CANCELED), i.ReconcileDue(id="due"))
    assert story.all(i.Reconcile)[-1].since == NOON - timedelta(minutes=1)


def test_what_has_been_seen_is_never_unseen() -> None:
    story = Story().tell(listed(until=later(600)), listed(until=later(300)))
    assert story.core.state.watermark.seen_until == later(600)


def test_a_foreign_fill_is_remembered_as_long_as_it_may_be_listed_again_and_counted_for_good() -> None:
    theirs = one_fill("theirs", "x")
    story = Story()
    for seconds in (0, 60, 90, 119):
        story.tell(listed(fills=(theirs,), until=later(seconds)))
    assert story.core.state.watermark.foreign_fills == 1
    story.tell(listed(until=later(600)))
    assert story.core.state.watermark.recent == {}
    assert account(story).foreign_fills == 1


def test_a_foreign_fill_and_a_foreign_order_each_make_the_account_be_read_again() -> None:
    story = Story().tell(listed())
    before = len(story.all(i.FetchAccount))
    story.tell(listed(fills=(one_fill("theirs", "x"),)))
    assert len(story.all(i.FetchAccount)) == before + 1
    theirs = replace(seen("x", status=S.ACCEPTED).order, client_order_id="by-hand")
    story.tell(listed(theirs), listed(theirs))
    assert len(story.all(i.FetchAccount)) == before + 2
