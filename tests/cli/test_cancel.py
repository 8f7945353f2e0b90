"""Cancelling asks the venue and believes the venue, whatever it answers."""

from __future__ import annotations

import pytest

from cli.cancel import Cancelled, Sweep, cancel_orders, judge
from cli.errors import OutcomePending, Refused, VenueSilent
from libs.common.errors import OutcomeUnknown, Retryable
from tests.cli.fakes import OURS, MemoryVenue, venue_order

FOREIGN = "11111111-2222-3333-4444-555555555555"


def quiet(line: str) -> None:
    pass


async def sweep(venue: MemoryVenue, foreign: bool = False, product: str = "") -> Sweep:
    made = Sweep(venue, product, foreign, lambda line, done, total: None)
    await made.run(1)
    return made


def outcomes(orders: list[Cancelled]) -> dict[str, str]:
    return {one.order.venue_order_id: one.outcome for one in orders}


async def test_an_order_counts_as_cancelled_once_the_venue_shows_it_so() -> None:
    venue = MemoryVenue(venue_order())
    venue.queues = 2
    orders, silence = await cancel_orders(venue, ["v1"], 2)
    assert (outcomes(orders), silence, venue.asked) == ({"v1": "ended"}, "", [["v1"]])
    judge(orders, silence, quiet)


async def test_orders_are_named_by_either_id_and_one_named_twice_is_asked_for_once() -> None:
    venue = MemoryVenue(venue_order(), venue_order("v2", FOREIGN))
    orders, _ = await cancel_orders(venue, [OURS, "v1", FOREIGN], 2)
    assert outcomes(orders) == {"v1": "ended", "v2": "ended"}
    assert venue.asked == [["v1", "v2"]]


async def test_an_unknown_id_is_refused_before_anything_is_asked() -> None:
    venue = MemoryVenue(venue_order())
    with pytest.raises(Refused, match="the venue has no order v9"):
        await cancel_orders(venue, ["v1", "v9"], 2)
    assert venue.asked == []


async def test_a_refusal_is_told_with_the_venues_word() -> None:
    venue = MemoryVenue(venue_order(), venue_order("v2", word="FILLED"))
    venue.refuses = {"v1": "NOT_ALLOWED_TO_CANCEL", "v2": "ORDER_IS_FULLY_FILLED"}
    orders, silence = await cancel_orders(venue, ["v1", "v2"], 2)
    assert outcomes(orders) == {"v1": "refused", "v2": "ended"}
    with pytest.raises(Refused, match="1 cancellations, NOT_ALLOWED_TO_CANCEL"):
        judge(orders, silence, quiet)


async def test_a_cancellation_without_an_answer_is_settled_by_what_the_venue_shows() -> None:
    venue = MemoryVenue(venue_order())
    venue.silent["cancel"] = [OutcomeUnknown("reset")]
    orders, silence = await cancel_orders(venue, ["v1"], 2)
    assert (outcomes(orders), silence) == ({"v1": "ended"}, "reset")


async def test_what_is_still_queued_when_the_time_is_over_has_no_known_outcome() -> None:
    venue = MemoryVenue(venue_order())
    venue.queues = 1000
    orders, silence = await cancel_orders(venue, ["v1"], 0)
    with pytest.raises(OutcomePending, match="perps-bot orders show v1"):
        judge(orders, silence, quiet)
    with pytest.raises(VenueSilent, match="503"):
        judge(orders, "503", quiet)


async def test_cancel_all_finds_what_the_open_filter_leaves_out_and_leaves_alone_what_is_not_ours() -> None:
    pending = venue_order("v2", word="PENDING")
    venue = MemoryVenue(venue_order(), pending, venue_order("v3", FOREIGN), venue_order("v4", word="FILLED"))
    done = await sweep(venue)
    assert {key: one.outcome for key, one in done.orders.items()} == {"v1": "ended", "v2": "ended"}
    assert (venue.asked, list(done.untouched), done.passes) == ([["v1"], ["v2"]], ["v3"], 2)
    assert venue.book["v3"].status_word == "OPEN"


async def test_cancel_all_takes_others_orders_only_when_told_and_one_product_when_named() -> None:
    venue = MemoryVenue(venue_order(), venue_order("v2", FOREIGN))
    assert list((await sweep(venue, foreign=True, product="ETH-USD")).orders) == []
    assert list((await sweep(venue, foreign=True)).orders) == ["v1", "v2"]


async def test_cancel_all_goes_on_until_a_pass_finds_nothing() -> None:
    venue = MemoryVenue(venue_order())
    venue.arrives = [venue_order("v2"), venue_order("v3")]
    done = await sweep(venue)
    assert {key: one.outcome for key, one in done.orders.items()} == {"v1": "ended", "v2": "ended", "v3": "ended"}


async def test_cancel_all_waits_for_what_is_queued_and_asks_again_after_silence() -> None:
    venue = MemoryVenue(venue_order())
    venue.queues = 3
    venue.silent = {"orders": [Retryable("429")], "cancel": [OutcomeUnknown("503")]}
    done = await sweep(venue)
    assert (done.orders["v1"].outcome, done.silence, len(venue.asked)) == ("ended", "", 1)


async def test_cancel_all_gives_up_on_what_the_venue_keeps_refusing_but_not_on_what_is_under_way() -> None:
    venue = MemoryVenue(venue_order(), venue_order("v2"))
    venue.refuses = {"v1": "COMMANDER_REJECTED_CANCEL_ORDER", "v2": "DUPLICATE_CANCEL_REQUEST"}
    done = await sweep(venue)
    assert {key: one.outcome for key, one in done.orders.items()} == {"v1": "refused", "v2": "pending"}
    assert sum("v1" in ids for ids in venue.asked) == 3
    with pytest.raises(Refused):
        judge(done.orders.values(), done.silence, quiet)


async def test_cancel_all_that_cannot_read_the_listing_to_its_end_has_not_done_its_work() -> None:
    venue = MemoryVenue(venue_order())
    venue.silent["orders"] = [OutcomeUnknown("503")] * 1000
    done = Sweep(venue, "", False, lambda line, done, total: None)
    await done.run(0)
    with pytest.raises(VenueSilent, match="503"):
        judge(done.orders.values(), done.silence, quiet)
