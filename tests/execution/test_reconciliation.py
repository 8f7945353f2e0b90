"""The whole account against our books: what differs is asked about, what is not ours is shown."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from libs.common import messages as m
from services.execution import inputs as i
from services.execution.reconciliation import MARGIN
from tests.execution.story import NOON, Story, key, placed, seen, verdict

S = m.OrderStatus


def order(name: str, status: S | None = S.ACCEPTED, filled: str = "0", client_order_id: str = "") -> i.VenueOrder:
    return msgspec.structs.replace(
        seen(name, status=status, filled=filled).order, client_order_id=client_order_id or key(name)
    )


def fill(entry: str, name: str = "s1", at: datetime = NOON) -> i.VenueFill:
    [one] = seen(name, fills=((entry, "100", "0.5"),)).fills
    return msgspec.structs.replace(one, trade_time=at)


def listed(*orders: i.VenueOrder, fills: tuple[i.VenueFill, ...] = (), until: datetime = NOON) -> i.Reconciled:
    return i.Reconciled(id="listing", listing=i.Listing(orders=orders, fills=fills), until=until)


def account(**parts: object) -> i.AccountSeen:
    given = {"balances": {}, **parts}
    return i.AccountSeen(id="a", epoch=0, ledger_sequence=0, parts=i.AccountParts(**given))  # type: ignore[arg-type]


def resting() -> Story:
    return Story().tell(verdict(gtc=True), placed(), seen(status=S.ACCEPTED), seen(status=S.ACCEPTED))


def questions(story: Story) -> int:
    return len(story.all(i.Query))


def test_a_start_lists_everything_since_the_oldest_order_in_flight() -> None:
    [first] = Story().all(i.Reconcile)
    assert first.since == NOON - MARGIN
    old = msgspec.structs.replace(verdict(gtc=True), at=NOON - timedelta(days=3))
    [again] = Story([old]).all(i.Reconcile)
    assert again.since == NOON - timedelta(days=3) - MARGIN


def test_an_open_order_however_old_does_not_make_the_listings_longer() -> None:
    story = Story().tell(msgspec.structs.replace(verdict(gtc=True), at=NOON - timedelta(days=3)), placed())
    story.tell(i.ReconcileDue(id="due"))
    assert story.all(i.Reconcile)[-1].since == NOON - MARGIN


def test_a_foreign_fill_that_was_counted_long_ago_is_not_counted_again() -> None:
    theirs, story = fill("theirs", "x"), Story()
    for minutes in range(10):
        story.tell(listed(fills=(theirs,), until=NOON + timedelta(minutes=minutes)))
    assert story.core.state.watermark.foreign_fills == 1


def test_an_order_that_the_venue_refused_and_has_all_the_same_is_shown_with_its_fills() -> None:
    no = i.PlaceRefused(id="x", client_order_id=key(), status=S.REJECTED, reason="NO")
    story = Story().tell(verdict(gtc=True), no, listed(order("s1")))
    assert (story.core.anomalies, len(story.core.account.foreign_orders or ())) == (1, 1)
    story.tell(listed(order("s1", S.FILLED, "0.5"), fills=(fill("a"),)))
    assert [one.id for one in story.fills] == ["a"]


def test_fills_of_an_order_of_ours_that_is_forgotten_are_not_somebody_elses() -> None:
    forgotten = order("x", S.FILLED, "0.5", client_order_id=m.client_order_id("long ago"))
    story = Story().tell(listed(forgotten, fills=(fill("theirs", "x"),)))
    assert (story.core.state.watermark.foreign_fills, story.fills) == (0, [])


def test_it_is_not_ready_before_the_first_complete_comparison() -> None:
    story = Story().tell(account())
    assert story.core.not_ready(NOON) == "not yet compared with the venue's orders and fills"
    story.tell(listed())
    assert story.core.not_ready(NOON) == ""


def test_it_is_not_ready_with_a_key_that_may_not_trade() -> None:
    key_of = m.Permissions(can_view=True, can_trade=False, can_transfer=False, portfolio_uuid="p")
    story = Story().tell(account(permissions=key_of), listed())
    assert story.core.not_ready(NOON) == "the key may not trade"


def test_an_open_order_that_is_not_listed_is_asked_about() -> None:
    story = resting()
    before = questions(story)
    story.tell(listed())
    assert questions(story) == before + 1


def test_an_open_order_that_is_listed_as_we_know_it_needs_no_question() -> None:
    story = resting()
    before = questions(story)
    story.tell(listed(order("s1")))
    assert questions(story) == before


def test_an_order_listed_with_more_filled_than_we_know_is_asked_about() -> None:
    story = resting()
    before = questions(story)
    story.tell(listed(order("s1", filled="0.5")))
    assert questions(story) == before + 1


def test_a_fill_that_we_do_not_know_is_never_booked_from_the_listing_but_asked_about() -> None:
    story = resting()
    before = questions(story)
    story.tell(listed(order("s1"), fills=(fill("a"),)))
    assert (questions(story), story.fills) == (before + 1, [])


def test_an_order_of_unknown_outcome_is_found_by_the_listing() -> None:
    answer = i.PlaceUnknown(id="x", client_order_id=key(), why="timeout", token_expires_at=NOON)
    story = Story().tell(verdict(), answer, listed(order("s1")))
    assert story.statuses[-1] is S.ACCEPTED


def test_a_fill_that_comes_after_the_end_of_its_order_is_booked_once_and_shown_as_odd() -> None:
    story = resting().tell(seen(status=S.CANCELED))
    story.tell(listed(fills=(fill("late"),)), listed(fills=(fill("late"),)))
    assert [one.id for one in story.fills] == ["late"]
    assert story.core.state.positions["BTC-USD"] == Decimal("0.5")
    assert story.core.anomalies == 1


def test_open_orders_of_somebody_else_are_shown_and_ended_ones_are_not() -> None:
    theirs = order("x", client_order_id="by-hand")
    story = Story().tell(listed(theirs, order("y", S.FILLED, "1", "done-by-hand")), account())
    [shown] = story.all(m.Account)[-1].foreign_orders or ()
    assert (shown.client_order_id, shown.venue_order_id) == ("by-hand", "venue-x")
    assert story.all(i.Cancel) == []
    story.tell(listed(), account())
    assert story.all(m.Account)[-1].foreign_orders == ()


def test_before_the_first_listing_nobody_knows_of_foreign_orders() -> None:
    assert Story().tell(account()).all(m.Account)[-1].foreign_orders is None


def test_a_fill_of_somebody_else_counts_once_and_makes_the_account_be_read_again() -> None:
    story = Story()
    before = len(story.all(i.FetchAccount))
    story.tell(listed(fills=(fill("theirs", "x"),)))
    assert len(story.all(i.FetchAccount)) == before + 1
    story.tell(listed(fills=(fill("theirs", "x"),)), account())
    assert story.all(m.Account)[-1].foreign_fills == 1


def test_fills_are_nobodys_while_an_order_of_ours_may_be_at_the_venue_under_an_unknown_id() -> None:
    answer = i.PlaceUnknown(id="x", client_order_id=key(), why="timeout", token_expires_at=NOON)
    story = Story().tell(verdict(), answer, listed(fills=(fill("perhaps-ours"),), until=NOON + timedelta(hours=1)))
    assert story.core.state.watermark.foreign_fills == 0
    assert story.core.state.watermark.seen_until is None


def test_the_next_listing_begins_where_the_last_one_was_begun_and_a_restart_keeps_that() -> None:
    later = NOON + timedelta(hours=2)
    story = Story().tell(listed(until=later))
    story.now = later + timedelta(minutes=1)
    story.tell(i.ReconcileDue(id="due"))
    assert story.all(i.Reconcile)[-1].since == later - MARGIN
    fresh = Story(start=False)
    fresh.core.restore(story.core.dump())
    assert fresh.tell(m.Recovered(id="r")).all(i.Reconcile)[-1].since == NOON - MARGIN  # never after now
    fresh.now = story.now
    assert fresh.tell(i.ReconcileDue(id="due")).all(i.Reconcile)[-1].since == later - MARGIN


def test_fee_rates_that_cannot_be_read_stay_the_last_known_and_are_absent_before_that() -> None:
    tier = m.FeeTier(
        pricing_tier="t",
        taker_fee_rate=Decimal("0.01"),
        maker_fee_rate=Decimal("0.005"),
        total_volume=Decimal(0),
        total_fees=Decimal(0),
    )
    story = Story().tell(account(unavailable={"fee_tier": "503"}))
    assert story.all(m.Account)[-1].taker_fee_rate is None
    story.tell(account(fee_tier=tier), account(unavailable={"fee_tier": "503"}))
    told = story.all(m.Account)[-1]
    assert (told.taker_fee_rate, told.fee_tier, told.unavailable) == (Decimal("0.01"), None, {"fee_tier": "503"})


def test_an_update_of_an_order_that_is_not_ours_makes_the_account_be_listed() -> None:
    story = Story()
    before = len(story.all(i.Reconcile))
    story.tell(i.UserUpdate(id="u", order=order("x", client_order_id="by-hand")))
    assert len(story.all(i.Reconcile)) == before + 1
    assert story.core.strangers == 1
