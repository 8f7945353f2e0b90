"""An edit of an open order: one request, and its outcome only ever by the venue's word."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from services.execution import inputs as i
from tests.execution.story import NOON, Story, edit, key, placed, product, seen, trading, verdict

S = m.OrderStatus
AS_IT_WAS, AS_WANTED = ("1", "100"), ("2", "99")


def resting() -> Story:
    return Story().tell(verdict(gtc=True), placed(), seen(status=S.ACCEPTED, terms=AS_IT_WAS))


def last(story: Story) -> m.OrderEvent:
    event = story.ledger[-1]
    assert isinstance(event, m.OrderEvent)
    return event


def edited(edit_id: str = "e1") -> i.Edited:
    return i.Edited(id="x", client_order_id=key(), edit_id=edit_id)


def unknown() -> i.EditUnknown:
    dies = NOON + timedelta(seconds=10)
    return i.EditUnknown(id="x", client_order_id=key(), edit_id="e1", why="timeout", token_expires_at=dies)


def after_the_token(seconds: float = 12) -> i.OrderSeen:
    return seen(status=S.ACCEPTED, terms=AS_IT_WAS, asked_at=NOON + timedelta(seconds=seconds))


def test_an_approved_edit_is_durable_before_it_is_sent_and_the_order_changes_with_the_venues_yes() -> None:
    story = resting().tell(edit())
    assert (last(story).status, last(story).edit_id) == (S.PENDING_UPDATE, "e1")
    assert last(story).order.quantity == 1
    [request] = story.all(i.Edit)
    assert (request.venue_order_id, request.wanted.quantity, request.wanted.limit_price) == (
        "venue-s1",
        Decimal(2),
        Decimal(99),
    )
    story.tell(edited())
    assert (last(story).status, last(story).edit_id, last(story).order.quantity) == (S.ACCEPTED, "e1", Decimal(2))
    assert story.core.state.orders[key()].edit is None


def test_a_refused_edit_leaves_the_order_as_it_was() -> None:
    story = resting().tell(edit(), i.EditRefused(id="x", client_order_id=key(), edit_id="e1", reason="TOO_LATE"))
    assert (last(story).status, last(story).reason, last(story).order.quantity) == (
        S.ACCEPTED,
        "edit_refused: TOO_LATE",
        Decimal(1),
    )


def test_while_an_edit_is_under_way_the_larger_quantity_counts_as_open() -> None:
    story = resting().tell(edit(), unknown())
    assert story.core.state.orders[key()].open_quantity == 2


def test_an_edit_without_an_answer_is_settled_by_what_the_order_shows() -> None:
    story = resting().tell(edit(), unknown(), seen(status=S.ACCEPTED, terms=AS_WANTED))
    assert (last(story).status, last(story).order.quantity, last(story).edit_id) == (S.ACCEPTED, Decimal(2), "e1")
    assert len(story.all(i.Edit)) == 1


def test_an_edit_never_arrived_only_after_its_token_died_and_two_answers_without_it() -> None:
    story = resting().tell(edit(), unknown(), *[after_the_token(5)] * 5)
    assert last(story).status is S.PENDING_UPDATE
    story.tell(after_the_token())
    assert last(story).status is S.PENDING_UPDATE
    story.tell(after_the_token())
    assert (last(story).status, last(story).reason) == (S.ACCEPTED, "edit_refused: never_arrived")
    assert last(story).order.quantity == 1


def test_an_edit_that_the_venue_still_works_on_is_not_settled_by_the_old_terms() -> None:
    queued = after_the_token()
    queued = msgspec.structs.replace(queued, order=msgspec.structs.replace(queued.order, status_word="EDIT_QUEUED"))
    story = resting().tell(edit(), unknown(), *[queued] * 5)
    assert (last(story).status, story.core.anomalies) == (S.PENDING_UPDATE, 0)


def test_an_answer_from_before_the_edit_proves_nothing_about_it_though_it_shows_what_is_wanted() -> None:
    story = resting()
    [*_, asked] = story.all(i.Query)
    story.tell(edit(), edited(), seen(status=S.ACCEPTED, terms=AS_WANTED))
    back = edit(quantity="1", price="100", edit_id="e2")
    story.tell(back)
    stale = msgspec.structs.replace(seen(status=S.ACCEPTED, terms=AS_IT_WAS), id=asked.id)
    story.core.on_message(stale, story.now)
    assert all(not isinstance(fact, m.OrderEvent) or fact.status is S.PENDING_UPDATE for fact in story.ledger[-1:])
    story.tell(i.EditRefused(id="x", client_order_id=key(), edit_id="e2", reason="NO"))
    assert (last(story).order.quantity, last(story).reason) == (Decimal(2), "edit_refused: NO")


def test_an_edit_that_only_the_orders_history_shows_was_taken() -> None:
    answer = after_the_token()
    order = msgspec.structs.replace(answer.order, edits=((Decimal(2), Decimal(99)),))
    story = resting().tell(edit(), unknown(), msgspec.structs.replace(answer, order=order))
    assert (last(story).status, last(story).order.quantity) == (S.ACCEPTED, Decimal(2))


def test_an_edit_of_a_product_that_only_takes_cancels_is_not_sent() -> None:
    story = resting().tell(product(cancel_only=True), edit())
    assert last(story).reason == "edit_refused: product_not_tradable"


def test_an_order_that_shows_neither_the_old_nor_the_new_terms_is_odd_and_stays_open() -> None:
    story = resting().tell(edit(), unknown(), seen(status=S.ACCEPTED, terms=("3", "98")))
    assert last(story).status is S.PENDING_UPDATE
    assert story.core.anomalies == 1


def test_answers_that_came_while_the_request_was_on_its_way_prove_nothing() -> None:
    story = Story(resting().ledger)  # a restart has left the expiry of an older token behind
    story.now = NOON + timedelta(seconds=1)
    story.tell(edit(), *[after_the_token(1000)] * 5)
    assert last(story).status is S.PENDING_UPDATE


def test_fills_go_on_being_booked_while_an_edit_is_under_way() -> None:
    story = resting().tell(edit(), unknown())
    story.tell(seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),), terms=AS_WANTED))
    assert (last(story).status, last(story).filled_qty) == (S.PENDING_UPDATE, Decimal("0.4"))
    story.tell(seen(status=S.ACCEPTED, filled="0.4", fills=(("a", "100", "0.4"),), terms=AS_WANTED))
    assert (last(story).status, last(story).order.quantity) == (S.PARTIALLY_FILLED, Decimal(2))
    assert [fill.id for fill in story.fills] == ["a"]


def test_an_order_that_ends_takes_its_edit_with_it() -> None:
    story = resting().tell(edit(), seen(status=S.FILLED, filled="1", fills=(("a", "100", "1"),)), edited())
    assert last(story).status is S.FILLED
    assert story.core.state.orders[key()].edit is None


def test_an_edit_found_begun_at_a_start_is_asked_about_and_not_sent_again() -> None:
    story = Story(resting().tell(edit()).ledger)
    assert story.all(i.Edit) == []
    story.tell(seen(status=S.ACCEPTED, terms=AS_WANTED))
    assert (last(story).status, last(story).order.quantity) == (S.ACCEPTED, Decimal(2))


def test_an_edit_approved_right_before_a_crash_is_begun_by_the_next_process() -> None:
    story = Story([*resting().ledger, edit()])
    assert last(story).status is S.PENDING_UPDATE
    assert len(story.all(i.Edit)) == 1


def test_a_state_that_was_dumped_in_the_middle_of_an_edit_goes_on_with_it() -> None:
    story = resting().tell(edit(), unknown())
    fresh = Story(start=False)
    fresh.core.restore(story.core.dump())
    fresh.tell(m.Recovered(id="recovered"), seen(status=S.ACCEPTED, terms=AS_WANTED))
    assert last(fresh).order.quantity == 2


@pytest.mark.parametrize(
    ("story", "approval", "reason"),
    [
        (resting(), msgspec.structs.replace(edit(), expires_at=NOON - timedelta(seconds=1)), "approval_expired"),
        (resting().tell(trading(m.Trading.HALTED, 2)), edit(), "trading_state_changed"),
        (resting().tell(seen(status=S.PENDING_CANCEL)), edit(), "order_not_editable"),
    ],
)
def test_an_edit_that_may_not_be_sent_ends_with_the_order_as_it_was(
    story: Story, approval: m.Verdict, reason: str
) -> None:
    before = last(story).status
    story.tell(approval)
    assert (last(story).status, last(story).reason, last(story).edit_id) == (before, f"edit_refused: {reason}", "e1")
    assert story.all(i.Edit) == []
    assert story.core.state.orders[key()].edit is None


def test_a_sale_is_not_edited_beyond_what_is_held() -> None:
    story = Story().tell(verdict("b", quantity="1"), placed("b"))
    story.tell(seen("b", filled="1", fills=(("a", "100", "1"),)))
    story.tell(verdict(side=m.Side.SELL, gtc=True, reduce_only=True), placed())
    story.tell(seen(status=S.ACCEPTED, side=m.Side.SELL))
    wanted = edit(quantity="1.5").order
    assert wanted is not None
    sale = msgspec.structs.replace(wanted, side=m.Side.SELL, reduce_only=True)
    story.tell(msgspec.structs.replace(edit(), order=sale))
    assert last(story).reason == "edit_refused: nothing_to_reduce"


def test_a_second_edit_beside_the_first_is_odd_and_not_sent() -> None:
    story = resting().tell(edit(), edit(edit_id="e2"))
    assert [request.edit_id for request in story.all(i.Edit)] == ["e1"]
    assert story.core.anomalies == 1


def test_an_edit_of_an_order_that_has_ended_does_nothing() -> None:
    story = resting().tell(seen(status=S.CANCELED))
    facts = len(story.ledger)
    story.tell(edit())
    assert story.ledger[facts:] == [edit()]


def test_a_late_answer_to_an_edit_that_is_settled_is_no_news() -> None:
    story = resting().tell(edit(), unknown(), seen(status=S.ACCEPTED, terms=AS_WANTED))
    facts = len(story.ledger)
    story.tell(edited(), unknown(), i.EditRefused(id="x", client_order_id=key(), edit_id="e1", reason="LATE"))
    assert len(story.ledger) == facts
