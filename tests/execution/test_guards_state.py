"""The guards of edits, restarts, the account and the listing, each by itself."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from tests.execution.story import NOON, Story, edit, key, placed, seen, trading, verdict
from tests.execution.tellings import (
    AS_IT_WAS,
    SELL,
    account,
    ask_failed,
    bought,
    changed,
    edit_unknown,
    edited,
    last,
    later,
    listed,
    not_found,
    one_fill,
    questions,
    replace,
    resting,
    sale,
    sale_edit,
    unknown,
)

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


# -- what is remembered, and odd answers


def test_a_purchase_without_the_products_rules_is_not_sent() -> None:
    story = Story()
    story.core.rules.clear()
    story.tell(verdict())
    assert (story.statuses, story.reasons) == ([S.DENIED], [m.Reason.PRODUCT_UNKNOWN])


def test_an_order_found_without_an_id_is_no_answer() -> None:
    nameless = msgspec.structs.replace(seen(status=S.ACCEPTED).order, venue_order_id="")
    answer = i.PlaceUnknown(id="x", client_order_id=key(), why="timeout", token_expires_at=NOON)
    story = Story().tell(verdict(), answer, i.Found(id="f", client_order_id=key(), order=nameless))
    assert story.statuses[-1] is S.UNKNOWN


def test_an_approval_told_again_before_anything_was_done_about_it_is_begun() -> None:
    story = Story()
    story.core.on_message(verdict(), NOON)  # its first step was not written: somebody else had written before
    story.tell(verdict())
    assert story.statuses == [S.SUBMITTING]


def test_an_old_order_that_ends_last_is_remembered_longest_and_refused_ones_push_nobody_out() -> None:
    story = Story().tell(verdict("old", gtc=True), placed("old"), seen("old", status=S.ACCEPTED))
    for number in range(201):
        story.tell(verdict(f"s{number}"), placed(f"s{number}"), seen(f"s{number}", status=S.CANCELED))
    story.tell(seen("old", status=S.CANCELED))
    for number in range(300, 501):
        story.tell(msgspec.structs.replace(verdict(f"s{number}"), expires_at=NOON - timedelta(seconds=1)))
    assert key("old") in story.core.state.orders
    assert len(story.core.state.orders) == 400


def test_an_open_order_that_shows_more_than_we_ordered_is_odd_and_counts_in_full() -> None:
    story = Story().tell(verdict(gtc=True), placed(), seen(status=S.ACCEPTED, terms=("3", "100")))
    assert (story.core.anomalies, story.core.state.orders[key()].open_quantity) == (1, Decimal(3))


@pytest.mark.parametrize(("told", "settled"), [(None, False), ("0.4", False), ("0.3", True)])
def test_beside_a_resting_order_balances_count_once_the_venue_has_filled_no_more_of_it_than_is_booked(
    told: str | None, settled: bool
) -> None:
    story = Story().tell(verdict(gtc=True), placed())
    story.tell(seen(status=S.ACCEPTED, filled="0.3", fills=(("a", "100", "0.3"),)))
    resting: dict[str, Decimal | None] = {} if told is None else {key(): Decimal(told)}
    parts = i.AccountParts(balances={})
    story.tell(i.AccountSeen(id="a", epoch=story.core.epoch, ledger_sequence=7, parts=parts, resting=resting))
    assert story.all(m.Account)[-1].settled is settled
