from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from services.execution.orders import TRANSITIONS
from services.execution.permission import refusal
from tests.execution.story import NOON, Story, key, placed, product, seen, trading, verdict


def bought(name: str = "s0", quantity: str = "1") -> Story:
    fill = seen(name, filled=quantity, fills=(("e-" + name, "100", quantity),))
    return Story().tell(verdict(name, quantity=quantity), placed(name), fill)


def not_found(asked_after_seconds: float) -> i.NotFound:
    return i.NotFound(id="n", client_order_id=key(), asked_at=NOON + timedelta(seconds=asked_after_seconds))


def unknown(dies_after_seconds: float = 10) -> i.PlaceUnknown:
    dies = NOON + timedelta(seconds=dies_after_seconds)
    return i.PlaceUnknown(id="u", client_order_id=key(), why="timeout", token_expires_at=dies)


def test_an_approval_is_durable_as_submitting_before_the_order_is_sent() -> None:
    story = Story()
    outputs = story.core.on_message(verdict(), NOON)
    assert [type(output) for output in outputs] == [m.OrderEvent]
    assert isinstance(outputs[0], m.OrderEvent)
    assert outputs[0].status is S.SUBMITTING
    assert [type(output) for output in story.core.on_message(outputs[0], NOON)] == [i.Place]


def test_a_market_order_lives_from_submitting_to_filled_with_exact_totals() -> None:
    story = Story().tell(verdict(), placed(), seen(filled="1", fills=(("a", "100", "0.4"), ("b", "101", "0.6"))))
    assert story.statuses == [S.SUBMITTING, S.ACCEPTED, S.FILLED]
    last = [fact for fact in story.ledger if isinstance(fact, m.OrderEvent)][-1]
    assert (last.filled_qty, last.filled_value, last.fees) == (Decimal(1), Decimal("100.6"), Decimal("1.006"))
    assert story.core.state.positions == {"BTC-USD": Decimal(1)}
    assert not story.core.busy


def test_a_verdict_seen_twice_makes_one_order() -> None:
    story = Story().tell(verdict(), verdict(), placed(), verdict())
    assert len(story.all(i.Place)) == 1


def test_a_denied_verdict_makes_no_order() -> None:
    story = Story()
    before = len(story.said)
    story.tell(msgspec.structs.replace(verdict(), order=None, reason=m.Reason.MARK_STALE))
    assert story.said[before:] == []
    assert story.statuses == []


def test_a_redelivered_submitting_event_does_not_send_again() -> None:
    story = Story().tell(verdict())
    story.tell(story.ledger[-1], story.ledger[-1])
    assert len(story.all(i.Place)) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"expires_in_seconds": -1}, m.Reason.APPROVAL_EXPIRED),
        ({"revision": 0}, m.Reason.TRADING_STATE_CHANGED),
        ({"side": m.Side.SELL, "reduce_only": True}, m.Reason.NOTHING_TO_REDUCE),
        ({"reduce_only": True}, m.Reason.EVALUATION_FAILED),
    ],
)
def test_an_approval_that_no_longer_holds_is_denied_with_its_reason(change: dict[str, object], reason: str) -> None:
    story = Story().tell(verdict(**change))  # type: ignore[arg-type]
    assert story.statuses == [S.DENIED]
    assert story.reasons == [str(reason)]
    assert story.all(i.Place) == []


@pytest.mark.parametrize(
    ("state", "reduce_only", "expected"),
    [
        (m.Trading.HALTED, True, m.Reason.TRADING_HALTED),
        (m.Trading.HALTED, False, m.Reason.TRADING_HALTED),
        (m.Trading.REDUCING, False, m.Reason.TRADING_REDUCING),
        (m.Trading.REDUCING, True, None),
        (m.Trading.ACTIVE, False, None),
    ],
)
def test_the_last_check_before_the_post_obeys_the_trading_state(
    state: m.Trading, reduce_only: bool, expected: m.Reason | None
) -> None:
    order = verdict(reduce_only=reduce_only).order
    assert order is not None
    place = i.Place(id="p", order=order, trading_revision=3, expires_at=NOON)
    assert refusal(place, trading(state, 3), NOON) == expected


def test_the_last_check_refuses_an_older_revision_and_an_expired_approval() -> None:
    order = verdict().order
    assert order is not None
    place = i.Place(id="p", order=order, trading_revision=3, expires_at=NOON)
    assert refusal(place, trading(revision=4), NOON) is m.Reason.TRADING_STATE_CHANGED
    late = NOON + timedelta(microseconds=1)
    assert refusal(place, trading(revision=3), late) is m.Reason.APPROVAL_EXPIRED


def test_a_sale_is_clamped_to_what_is_held_less_what_other_sales_may_take() -> None:
    story = bought(quantity="1").tell(verdict("s2", m.Side.SELL, "0.7", gtc=True, reduce_only=True), placed("s2"))
    story.tell(verdict("s3", m.Side.SELL, "0.7", reduce_only=True))
    assert [place.order.quantity for place in story.all(i.Place)] == [Decimal(1), Decimal("0.7"), Decimal("0.3000")]


def test_a_residue_below_the_minimum_is_dust() -> None:
    story = bought(quantity="0.0001")
    story.core.on_message(product(base_min_size=Decimal("0.001")), NOON)
    assert story.tell(verdict("s2", m.Side.SELL, reduce_only=True)).reasons[-1] == m.Reason.DUST


def test_a_rejection_by_the_venue_is_final() -> None:
    refused = i.PlaceRefused(id="r", client_order_id=key(), status=S.REJECTED, reason="INSUFFICIENT_FUND")
    story = Story().tell(verdict(), refused, placed(), refused)
    assert story.statuses == [S.SUBMITTING, S.REJECTED]
    assert story.reasons[-1] == "INSUFFICIENT_FUND"


def test_a_request_that_never_left_is_sent_again_with_the_same_id_until_the_approval_expires() -> None:
    lost = i.PlaceNotSent(id="n", client_order_id=key(), why="refused")
    story = Story().tell(verdict(), lost, lost)
    places = story.all(i.Place)
    assert {place.order.client_order_id for place in places} == {key()}
    assert [place.delay_seconds > 0 for place in places] == [False, True, True]
    story.now = NOON + timedelta(seconds=11)
    assert story.tell(lost).statuses == [S.SUBMITTING, S.DENIED]
    assert story.reasons[-1] == m.Reason.VENUE_UNREACHABLE


def test_an_unanswered_submit_is_unknown_and_asked_never_sent_again() -> None:
    story = Story().tell(verdict(), unknown())
    assert story.statuses == [S.SUBMITTING, S.UNKNOWN]
    assert len(story.all(i.Place)) == 1
    assert len(story.all(i.Find)) == 1
    assert story.core.busy


def test_an_unknown_order_stays_unknown_while_the_venue_does_not_answer() -> None:
    story = Story().tell(verdict(), unknown())
    for _ in range(1000):
        story.tell(i.AskFailed(id="a", client_order_id=key(), why="503"))
    assert story.statuses[-1] is S.UNKNOWN
    assert len(story.all(i.Find)) == 1001
    assert max(find.delay_seconds for find in story.all(i.Find)) == 5


def test_an_unknown_order_that_the_venue_has_is_accepted_and_filled() -> None:
    story = Story().tell(verdict(), unknown())
    story.tell(i.Found(id="f", client_order_id=key(), order=seen().order))
    story.tell(seen(filled="1", fills=(("a", "100", "1"),)))
    assert story.statuses == [S.SUBMITTING, S.UNKNOWN, S.ACCEPTED, S.FILLED]


def test_never_arrived_needs_two_complete_listings_after_the_token_died() -> None:
    story = Story().tell(verdict(), unknown(dies_after_seconds=10))
    story.tell(*[not_found(seconds) for seconds in (1, 5, 10, 11)])
    assert story.statuses[-1] is S.UNKNOWN  # 10 s of life and 1 s of margin: none of these counts
    assert story.tell(not_found(11.1)).statuses[-1] is S.UNKNOWN
    assert story.tell(not_found(12)).statuses[-1] is S.REJECTED
    assert story.reasons[-1] == "never_arrived"


def test_an_order_of_another_product_under_our_id_is_an_anomaly_and_settles_nothing() -> None:
    story = Story().tell(verdict(), unknown())
    other = msgspec.structs.replace(seen().order, product_id="ETH-USD")
    story.tell(i.Found(id="f", client_order_id=key(), order=other))
    assert story.statuses[-1] is S.UNKNOWN
    assert story.core.anomalies == 1


def test_a_late_answer_to_a_settled_order_changes_nothing() -> None:
    story = Story().tell(verdict(), placed(), seen(filled="1", fills=(("a", "100", "1"),)))
    before = list(story.ledger)
    refused = i.PlaceRefused(id="r", client_order_id=key(), status=S.REJECTED, reason="x")
    story.tell(placed(), unknown(), not_found(100), not_found(101), seen(filled="1"), refused)
    assert story.ledger == before


def test_an_order_ends_only_when_every_fill_that_the_venue_counts_is_booked() -> None:
    story = Story().tell(verdict(), placed(), seen(filled="1", fills=(("a", "100", "0.4"),)))
    assert story.statuses == [S.SUBMITTING, S.ACCEPTED, S.PARTIALLY_FILLED]
    story.tell(seen(filled="1", fills=(("a", "100", "0.4"), ("b", "100", "0.6"))))
    assert story.statuses[-1] is S.FILLED
    assert [fill.id for fill in story.fills] == ["a", "b"]


def test_a_partly_filled_and_canceled_order_keeps_its_fills() -> None:
    story = Story().tell(verdict(), placed(), seen(status=S.CANCELED, filled="0.3", fills=(("a", "100", "0.3"),)))
    assert story.statuses[-1] is S.CANCELED
    assert story.core.state.positions == {"BTC-USD": Decimal("0.3")}


def test_a_fill_counts_once_however_often_it_is_seen() -> None:
    story = Story().tell(verdict(gtc=True), placed())
    for _ in range(3):
        story.tell(seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),)))
    story.tell(*story.ledger)
    assert story.core.state.positions == {"BTC-USD": Decimal("0.4")}
    assert [fill.id for fill in story.fills] == ["a"]


def test_more_filled_than_ordered_is_booked_and_shown() -> None:
    story = Story().tell(verdict(), placed(), seen(filled="1.2", fills=(("a", "100", "1.2"),)))
    assert story.core.state.positions == {"BTC-USD": Decimal("1.2")}
    assert story.core.anomalies == 1


def test_an_unknown_status_word_ends_nothing() -> None:
    story = Story().tell(verdict(), placed(), seen(status=None))
    assert story.statuses[-1] is S.ACCEPTED
    assert story.core.anomalies == 1


def test_the_user_channel_makes_us_ask_and_never_books() -> None:
    story = Story().tell(verdict(gtc=True), placed(), seen(status=S.ACCEPTED))
    questions = len(story.all(i.Query))
    update = i.UserUpdate(id="u", order=msgspec.structs.replace(seen().order, filled_qty=Decimal("0.5")))
    story.tell(update)
    assert len(story.all(i.Query)) == questions + 1
    assert story.all(i.Query)[-1].delay_seconds == 0
    assert story.fills == []


def test_the_user_channel_settles_an_unknown_order() -> None:
    story = Story().tell(verdict(), unknown(), i.UserUpdate(id="u", order=seen(status=S.ACCEPTED).order))
    assert story.statuses[-1] is S.ACCEPTED


def test_an_order_that_is_not_ours_is_counted_and_left_alone() -> None:
    story = Story().tell(i.UserUpdate(id="u", order=seen("stranger").order))
    assert story.core.strangers == 1
    assert story.ledger == []


def test_a_halt_cancels_resting_entries_and_leaves_exits() -> None:
    story = bought().tell(verdict("s2", gtc=True), placed("s2"))
    story.tell(verdict("s3", m.Side.SELL, "0.5", gtc=True, reduce_only=True), placed("s3"))
    story.tell(trading(m.Trading.HALTED, 2))
    assert [cancel.client_order_id for cancel in story.all(i.Cancel)] == [key("s2")]


def test_an_older_trading_state_does_not_undo_a_halt() -> None:
    story = Story().tell(trading(m.Trading.HALTED, 5), trading(m.Trading.ACTIVE, 4))
    assert story.tell(verdict(revision=5)).reasons == [m.Reason.TRADING_HALTED]


def test_a_lost_trading_state_means_halted() -> None:
    story = Story().tell(trading(m.Trading.HALTED, 0))
    assert story.tell(verdict(revision=0)).reasons == [m.Reason.TRADING_HALTED]


# -- restarts


def test_an_approval_found_at_start_is_sent_if_it_still_holds() -> None:
    story = Story([verdict()])
    assert story.statuses == [S.SUBMITTING]
    assert len(story.all(i.Place)) == 1


def test_an_approval_found_expired_at_start_is_denied() -> None:
    assert Story([verdict(expires_in_seconds=-1)]).reasons == [m.Reason.APPROVAL_EXPIRED]


def test_an_order_found_submitting_at_start_is_unknown_and_asked_never_sent() -> None:
    story = Story().tell(verdict()).restart()
    assert story.statuses == [S.SUBMITTING, S.UNKNOWN]
    assert story.all(i.Place) == []
    assert len(story.all(i.Find)) == 1


def test_after_a_restart_a_token_of_the_dead_process_may_live_its_whole_life() -> None:
    story = Story().tell(verdict()).restart()
    story.tell(not_found(5), not_found(11), not_found(11.5))
    assert story.statuses[-1] is S.UNKNOWN
    assert story.tell(not_found(12)).statuses[-1] is S.REJECTED


def test_an_open_order_is_asked_about_at_start() -> None:
    story = Story().tell(verdict(gtc=True), placed()).restart()
    assert [query.venue_order_id for query in story.all(i.Query)] == ["venue-s1"]


def test_a_snapshot_and_the_ledger_lead_to_the_same_state() -> None:
    story = Story().tell(verdict(gtc=True), placed(), seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "9", "0.4"),)))
    fresh = Story(start=False)
    fresh.core.restore(story.core.dump())
    for fact in story.ledger:
        fresh.core.on_message(fact, NOON)
    assert fresh.core.state.positions == story.core.state.positions
    assert fresh.core.state.orders[key()].filled_qty == Decimal("0.4")


def test_the_opening_balances_are_recorded_once_and_only_before_the_first_order() -> None:
    parts = i.AccountParts(balances={"USD": m.Balance(available=Decimal(90), hold=Decimal(10))})
    account = i.AccountSeen(id="a", epoch=0, ledger_sequence=0, parts=parts)
    story = Story().tell(account, account)
    assert [stored.opening for stored in story.all(i.StoreOpening)] == [{"USD": Decimal(100)}]
    assert Story([verdict()]).tell(account).all(i.StoreOpening) == []


def test_an_account_read_while_orders_moved_is_not_settled() -> None:
    story = Story()
    epoch = story.core.epoch
    story.tell(verdict(), placed(), seen(filled="1", fills=(("a", "100", "1"),)))
    stale = i.AccountSeen(id="a", epoch=epoch, ledger_sequence=7, parts=i.AccountParts(balances={}))
    fresh = msgspec.structs.replace(stale, epoch=story.core.epoch)
    story.tell(stale, fresh)
    assert [account.settled for account in story.all(m.Account)] == [False, True]


def canceled(story: Story) -> list[str]:
    return [cancel.client_order_id for cancel in story.all(i.Cancel)]


def test_an_entry_that_comes_to_rest_after_the_halt_is_canceled_at_once_and_at_every_look() -> None:
    story = Story().tell(verdict(gtc=True), trading(m.Trading.HALTED, 2))
    assert canceled(story) == []
    story.tell(placed())
    assert canceled(story) == [key()]
    story.tell(seen(status=S.ACCEPTED))
    assert canceled(story) == [key()] * 2


def test_a_halt_goes_on_canceling_while_the_venues_queries_fail() -> None:
    story = Story().tell(verdict(gtc=True), placed(), trading(m.Trading.HALTED, 2))
    before = len(canceled(story))
    story.tell(*[i.AskFailed(id="x", client_order_id=key(), why="503")] * 3)
    story.tell(i.UserUpdate(id="u", order=seen(status=S.ACCEPTED).order))
    listing = i.Listing(orders=(seen(status=S.ACCEPTED).order,), fills=())
    story.tell(i.Reconciled(id="l", listing=listing, until=NOON))
    assert len(canceled(story)) == before + 5


def test_a_cancel_that_did_not_work_is_repeated_at_every_look() -> None:
    story = Story().tell(verdict(gtc=True), placed(), trading(m.Trading.REDUCING, 2))
    story.tell(*[seen(status=S.ACCEPTED)] * 3)
    assert canceled(story) == [key()] * 4


def test_an_entry_found_resting_at_a_start_under_a_halt_is_canceled() -> None:
    ledger = Story().tell(verdict(gtc=True), placed()).ledger
    story = Story(ledger, start=False)
    story.core.on_message(trading(m.Trading.HALTED, 2), NOON)
    assert canceled(story.tell(m.Recovered(id="recovered"))) == [key()]


def test_an_impossible_step_on_the_ledger_is_taken_and_shown_and_stops_no_start() -> None:
    story = Story().tell(verdict(), unknown())
    step = [fact for fact in story.ledger if isinstance(fact, m.OrderEvent)][-1]
    ledger = [*story.ledger, msgspec.structs.replace(step, id="x", revision=3, status=S.FILLED)]
    again = Story(ledger)
    assert again.core.anomalies == 1
    assert not again.core.busy


def test_a_submission_of_another_process_is_asked_about_and_never_sent_by_us() -> None:
    """Two processes at the takeover of the lease: the other one's event is read while we run."""
    submitting = Story().tell(verdict()).ledger[-1]
    assert Story([verdict(), submitting]).all(i.Place) == []
    running = Story()
    running.core.on_message(trading(m.Trading.HALTED, 0), NOON)
    assert running.core.on_message(verdict(), NOON) != []  # our own answer, a denial, lost the write
    running.tell(submitting)
    assert running.all(i.Place) == []
    assert running.statuses == [S.UNKNOWN]


def test_questions_about_one_order_do_not_multiply_with_news() -> None:
    story = Story().tell(verdict(gtc=True), placed())
    for number in range(1, 20):
        filled = str(number / 100)
        fills = tuple((f"e{n}", "100", "0.01") for n in range(number))
        first = story.all(i.Query)[-1]
        story.tell(i.UserUpdate(id="u", order=msgspec.structs.replace(seen().order, filled_qty=Decimal(filled))))
        story.tell(seen(status=S.ACCEPTED, filled=filled, fills=fills))
        asked = len(story.all(i.Query))
        stale = msgspec.structs.replace(seen(status=S.ACCEPTED, filled=filled, fills=fills), id=first.id)
        assert story.core.on_message(stale, NOON) == []
        assert len(story.all(i.Query)) == asked == 1 + 2 * number


@pytest.mark.parametrize("answer", ["filled nothing", "no size", "another side", "another product", "another order"])
def test_an_answer_that_contradicts_the_order_books_and_ends_nothing(answer: str) -> None:
    good = seen(filled="1", fills=(("a", "100", "1"),))
    change = msgspec.structs.replace
    bad = {
        "filled nothing": seen(filled="0"),
        "no size": change(good, order=change(good.order, filled_qty=None), fills=()),
        "another side": change(good, fills=(change(good.fills[0], side=m.Side.SELL),)),
        "another product": change(good, fills=(change(good.fills[0], product_id=""),)),
        "another order": change(good, order=change(good.order, venue_order_id="v2")),
    }[answer]
    story = Story().tell(verdict(), placed(), bad)
    assert story.statuses == [S.SUBMITTING, S.ACCEPTED]
    assert story.fills == []
    assert len(story.all(i.Query)) == 2
    assert story.core.anomalies == 1
    assert story.tell(good).statuses[-1] is S.FILLED


def test_the_same_fill_twice_in_one_answer_counts_once() -> None:
    story = Story().tell(verdict(), placed(), seen(filled="1", fills=(("a", "9", "0.4"), ("a", "9", "0.4"))))
    assert story.core.state.positions == {"BTC-USD": Decimal("0.4")}


def test_an_approval_under_a_newer_trading_state_than_we_know_is_left_to_the_check_before_the_post() -> None:
    story = Story()
    story.core.on_message(trading(m.Trading.HALTED, 5), NOON)
    assert story.tell(verdict(revision=6)).statuses == [S.SUBMITTING]


def test_two_sales_found_at_start_share_what_is_held() -> None:
    story = bought()
    sales = [verdict(name, m.Side.SELL, "0.7", reduce_only=True) for name in ("s2", "s3")]
    again = Story([*story.ledger, *sales])
    assert [place.order.quantity for place in again.all(i.Place)] == [Decimal("0.7"), Decimal("0.3000")]


def test_news_of_an_order_that_we_had_ended_is_an_anomaly() -> None:
    story = Story().tell(verdict(), unknown(), not_found(12), not_found(13))
    assert story.statuses[-1] is S.REJECTED
    story.tell(placed(), i.UserUpdate(id="u", order=seen(filled="1").order))
    assert story.core.anomalies == 2


def test_terminal_states_have_no_way_out() -> None:
    assert all(TRANSITIONS[status] == () for status in m.TERMINAL)


ANSWERS = st.sampled_from(
    [
        placed(),
        unknown(),
        i.PlaceNotSent(id="n", client_order_id=key(), why="w"),
        i.PlaceRefused(id="r", client_order_id=key(), status=S.REJECTED, reason="no"),
        i.AskFailed(id="a", client_order_id=key(), why="w"),
        i.Found(id="f", client_order_id=key(), order=seen().order),
        not_found(1),
        not_found(60),
        seen(status=S.ACCEPTED),
        seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),)),
        seen(status=S.CANCELED, filled="0.4", fills=(("a", "100", "0.4"),)),
        seen(filled="1", fills=(("a", "100", "0.4"), ("b", "101", "0.6"))),
        seen(filled="1", fills=(("b", "101", "0.6"),)),
        seen(status=None),
        i.UserUpdate(id="u", order=seen(status=S.ACCEPTED).order),
        i.UserReconnected(id="u"),
        trading(m.Trading.HALTED, 2),
        m.Tick(id="tick"),
        verdict(),
        "restart",
    ]
)


@given(st.lists(ANSWERS, max_size=30), st.booleans())
def test_no_order_of_answers_and_restarts_sends_an_order_that_may_be_at_the_venue(
    answers: list[m.Message | str], gtc: bool
) -> None:
    """Whatever comes in whatever order: one order per approval, fills once, terminal for good, nothing raised."""
    story = Story().tell(verdict(gtc=gtc))
    sent, possibly_there = len(story.all(i.Place)), False
    for answer in answers:
        if isinstance(answer, m.Message):
            possibly_there |= not isinstance(answer, i.PlaceNotSent)
            before = len(story.all(i.Place))
            story.tell(answer)
            # A second POST only in answer to "not one byte left".
            assert len(story.all(i.Place)) == before or isinstance(answer, i.PlaceNotSent)
        else:
            story = story.restart()
            assert story.all(i.Place) == []
        sent = max(sent, len(story.all(i.Place)))
    assert len({fill.id for fill in story.fills}) == len(story.fills)
    ended = [status for status in story.statuses if status in m.TERMINAL]
    assert len(ended) <= 1
    assert not ended or story.statuses[-1] in m.TERMINAL
    assert story.core.state.positions.get("BTC-USD", Decimal(0)) == sum((f.size for f in story.fills), Decimal(0))
