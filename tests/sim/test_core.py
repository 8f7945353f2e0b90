"""The life of orders: what they take, how they rest, what they cost, how they end."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sim.account import Balance
from sim.core import Exchange
from sim.money import text
from sim.orders import Liquidity, Status
from tests.sim.builders import BTC, at, exchange, fills_of, free, order, placed, statuses, tick

TAKER, MAKER = Decimal("0.012"), Decimal("0.006")


def market_buy(venue: Exchange, **size: str) -> str:
    return placed(venue, order("BUY", "market_market_ioc", **size)).order_id


def test_a_market_buy_takes_the_best_ask_and_pays_the_exact_taker_fee() -> None:
    venue = exchange()
    done = placed(venue, order("BUY", "market_market_ioc", base_size="0.1"))
    assert done.status is Status.FILLED
    assert done.filled_value == Decimal("0.1") * Decimal("50005")
    assert done.fees == done.filled_value * TAKER
    assert venue.balances()["BTC"].available == Decimal("0.1")
    assert free(venue) == text(Decimal(100_000 - done.filled_value - done.fees))


def test_a_market_buy_by_quote_size_spends_at_most_that_with_fees_included() -> None:
    venue = exchange()
    done = placed(venue, order("BUY", "market_market_ioc", quote_size="1000"))
    spent = done.filled_value + done.fees
    assert done.status is Status.FILLED
    assert spent <= 1000
    assert 1000 - spent < Decimal("50005") * Decimal("0.00000001") * (1 + TAKER)


def test_a_large_taker_walks_the_levels_until_they_end_and_keeps_what_it_got() -> None:
    venue = exchange(usd="10000000", level_value="1000", levels=3)
    placement = venue.place(order("BUY", "market_market_ioc", base_size="10"), at(0))
    fills = fills_of(placement.events)
    assert [fill.price for fill in fills] == [Decimal("50005"), Decimal("50010"), Decimal("50015")]
    assert placement.order is not None
    assert placement.order.status is Status.CANCELLED
    assert placement.order.filled_size == sum(fill.size for fill in fills) < 10
    assert venue.balances()["USD"].hold == 0
    book = venue.book(BTC)
    assert book is not None
    assert book.asks == []


def test_consumed_depth_comes_back_with_the_next_tick() -> None:
    venue = exchange(usd="10000000", level_value="1000", levels=3)
    market_buy(venue, base_size="10")
    venue.on_tick(tick("50000", seconds=1))
    assert placed(venue, order("BUY", "market_market_ioc", base_size="0.001"), 1).status is Status.FILLED


def test_an_ioc_limit_takes_up_to_its_price_and_cancels_the_rest() -> None:
    venue = exchange(level_value="1000")
    done = placed(venue, order("BUY", "sor_limit_ioc", base_size="1", limit_price="50010"))
    assert done.status is Status.CANCELLED
    assert 0 < done.filled_size < 1
    assert venue.balances()["USD"].hold == 0


def test_fill_or_kill_fills_whole_or_not_at_all() -> None:
    venue = exchange(level_value="1000")
    whole = placed(venue, order("BUY", "limit_limit_fok", base_size="0.001", limit_price="50010"))
    none = placed(venue, order("BUY", "limit_limit_fok", base_size="1", limit_price="50010"))
    assert (whole.status, whole.filled_size) == (Status.FILLED, Decimal("0.001"))
    assert (none.status, none.filled_size, none.hold) == (Status.CANCELLED, Decimal(0), Decimal(0))


def test_a_limit_order_that_crosses_takes_first_and_rests_with_the_remainder() -> None:
    venue = exchange(level_value="1000")
    done = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="50010"))
    assert done.status is Status.OPEN
    assert done.filled_size > 0
    assert venue.balances()["USD"].hold == done.hold == done.remaining * 50010 * (1 + TAKER)


def test_a_resting_order_fills_as_maker_bounded_by_what_was_traded() -> None:
    venue = exchange()
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000"))
    assert venue.balances()["USD"].hold == 49000 * (1 + TAKER)
    assert not fills_of(venue.on_tick(tick("49000.01", "5", seconds=1)))
    first = fills_of(venue.on_tick(tick("49000", "0.4", seconds=2)))
    assert [(fill.price, fill.size, fill.liquidity) for fill in first] == [
        (Decimal(49000), Decimal("0.4"), Liquidity.MAKER)
    ]
    events = venue.on_tick(tick("48000", "9", seconds=3))
    assert fills_of(events)[0].price == 49000
    assert fills_of(events)[0].fee == 49000 * Decimal("0.6") * MAKER
    assert statuses(events) == ["FILLED"]
    assert venue.orders[resting.order_id].fees == 49000 * MAKER
    assert free(venue) == text(Decimal(100_000 - 49000 * (1 + MAKER)))


def test_what_was_traded_is_shared_out_by_price_and_then_by_time() -> None:
    venue = exchange()
    late = placed(venue, order("BUY", "limit_limit_gtc", base_size="0.5", limit_price="48000"), 1)
    early = placed(venue, order("BUY", "limit_limit_gtc", base_size="0.5", limit_price="49000"), 2)
    fills = fills_of(venue.on_tick(tick("47000", "0.7", seconds=3)))
    assert [(fill.order_id, fill.size) for fill in fills] == [
        (early.order_id, Decimal("0.5")),
        (late.order_id, Decimal("0.2")),
    ]


def test_a_quote_through_a_resting_order_fills_it_without_a_trade() -> None:
    venue = exchange()
    placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000"))
    events = venue.on_tick(tick("48995", "0", 1, bid="48990", ask="49000", bid_size="2", ask_size="0.3"))
    assert [fill.size for fill in fills_of(events)] == [Decimal("0.3")]


def test_a_sell_is_paid_less_the_fee_and_holds_only_the_base_currency() -> None:
    venue = exchange(usd="0", btc="1")
    resting = placed(venue, order("SELL", "limit_limit_gtc", base_size="0.25", limit_price="51000"))
    assert venue.balances()["BTC"] == Balance(Decimal("0.75"), Decimal("0.25"))
    venue.on_tick(tick("51000", "1", seconds=1))
    assert venue.orders[resting.order_id].status is Status.FILLED
    assert venue.balances()["USD"].available == 51000 * Decimal("0.25") * (1 - MAKER)


def test_a_post_only_order_holds_the_maker_fee_only() -> None:
    venue = exchange()
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000", post_only=True))
    assert resting.hold == 49000 * (1 + MAKER)


def test_an_order_with_an_end_time_expires_then_and_gives_its_hold_back() -> None:
    venue = exchange()
    fields = {"base_size": "1", "limit_price": "49000", "end_time": "2026-01-01T00:00:10Z"}
    resting = placed(venue, order("BUY", "limit_limit_gtd", **fields))
    assert venue.advance(at(9)) == []
    assert statuses(venue.advance(at(10))) == ["EXPIRED"]
    assert free(venue) == "100000"
    assert venue.cancel(resting.order_id, at(11))[0] == "UNKNOWN_CANCEL_ORDER"


def test_a_tick_at_the_end_time_finds_the_order_expired() -> None:
    venue = exchange()
    fields = {"base_size": "1", "limit_price": "49000", "end_time": "2026-01-01T00:00:10Z"}
    placed(venue, order("BUY", "limit_limit_gtd", **fields))
    assert statuses(venue.on_tick(tick("48000", "9", seconds=10))) == ["EXPIRED"]


def test_a_stop_waits_for_its_price_and_then_acts_as_a_limit_order() -> None:
    venue = exchange(usd="0", btc="1")
    fields = {
        "base_size": "1",
        "limit_price": "48000",
        "stop_price": "49000",
        "stop_direction": "STOP_DIRECTION_STOP_DOWN",
    }
    stop = placed(venue, order("SELL", "stop_limit_stop_limit_gtc", **fields))
    assert (stop.status, stop.trigger.value) == (Status.OPEN, "STOP_PENDING")
    assert not fills_of(venue.on_tick(tick("49500", "9", seconds=1)))
    events = venue.on_tick(tick("49000", "9", seconds=2))
    assert fills_of(events)[0].liquidity is Liquidity.TAKER
    assert venue.orders[stop.order_id].trigger.value == "STOP_TRIGGERED"
    assert venue.orders[stop.order_id].status is Status.FILLED


def test_cancelling_releases_exactly_what_the_remainder_held() -> None:
    venue = exchange()
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000"))
    venue.on_tick(tick("49000", "0.3", seconds=1))
    reason, events = venue.cancel(resting.order_id, at(2))
    assert (reason, statuses(events)) == ("", ["CANCELLED"])
    paid = 49000 * Decimal("0.3") * (1 + MAKER)
    assert free(venue) == text(Decimal(100_000 - paid))


def test_cancelling_answers_with_the_venues_reasons() -> None:
    venue = exchange()
    filled = market_buy(venue, base_size="0.1")
    assert venue.cancel("no-such-order", at(1))[0] == "UNKNOWN_CANCEL_ORDER"
    assert venue.cancel(filled, at(1))[0] == "ORDER_IS_FULLY_FILLED"


def test_cancel_queued_comes_first_where_the_venue_reports_it() -> None:
    venue = exchange(cancel_queued=True)
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000"))
    assert statuses(venue.cancel(resting.order_id, at(1))[1]) == ["CANCEL_QUEUED", "CANCELLED"]


def test_an_edit_changes_price_and_total_size_and_what_is_held() -> None:
    venue = exchange()
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000"))
    refusal, events = venue.edit(resting.order_id, Decimal("48000"), Decimal("0.5"), at(1))
    assert refusal is None
    assert statuses(events) == ["OPEN"]
    edited = venue.orders[resting.order_id]
    assert (edited.limit_price, edited.base_size, len(edited.edits)) == (Decimal(48000), Decimal("0.5"), 1)
    assert edited.configuration["limit_limit_gtc"]["limit_price"] == "48000"
    assert venue.balances()["USD"].hold == 24000 * (1 + TAKER)


def test_an_edit_into_the_book_takes_at_once() -> None:
    venue = exchange()
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="0.1", limit_price="49000"))
    venue.edit(resting.order_id, Decimal("51000"), None, at(1))
    assert venue.orders[resting.order_id].status is Status.FILLED


@pytest.mark.parametrize(
    ("price", "size", "reason"),
    [
        ("49000", "1", "EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST"),
        ("49000.001", "1", "INVALID_EDITED_PRICE"),
        ("48000", "0.000000001", "INVALID_EDITED_SIZE"),
        ("48000", "0.3", "CANNOT_EDIT_TO_BELOW_FILLED_SIZE"),
        ("48000", "50", "COMMANDER_REJECTED_EDIT_ORDER"),
    ],
)
def test_an_edit_that_cannot_be_is_refused_and_changes_nothing(price: str, size: str, reason: str) -> None:
    venue = exchange()
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000"))
    venue.on_tick(tick("49000", "0.3", seconds=1))
    before = venue.orders[resting.order_id]
    refusal, events = venue.edit(resting.order_id, Decimal(price), Decimal(size), at(2))
    assert refusal is not None
    assert (refusal.edit, events) == (reason, [])
    assert venue.orders[resting.order_id] == before


def test_only_resting_gtc_limit_orders_can_be_edited() -> None:
    venue = exchange()
    fields = {"base_size": "1", "limit_price": "49000", "end_time": "2026-01-02T00:00:00Z"}
    dated = placed(venue, order("BUY", "limit_limit_gtd", **fields))
    filled = market_buy(venue, base_size="0.1")
    refusals = [venue.edit(name, Decimal(1), Decimal(1), at(1))[0] for name in (dated.order_id, filled, "nothing")]
    assert [refusal.edit for refusal in refusals if refusal] == [
        "ONLY_LIMIT_ORDER_EDITS_SUPPORTED",
        "ONLY_OPEN_ORDERS_CAN_BE_EDITED",
        "ORDER_NOT_FOUND",
    ]


def bracket(venue: Exchange, side: str = "SELL", **fields: str) -> str:
    fields = {"base_size": "1", "limit_price": "51000", "stop_trigger_price": "49000"} | fields
    placement = placed(venue, order(side, f"trigger_bracket_gt{'d' if 'end_time' in fields else 'c'}", **fields))
    assert (placement.status, placement.trigger.value) == (Status.OPEN, "STOP_PENDING")
    return placement.order_id


def test_a_bracket_rests_and_takes_its_profit_at_its_limit_price() -> None:
    venue = exchange(btc="1")
    name = bracket(venue)
    (fill,) = fills_of(venue.on_tick(tick("51000", "2", seconds=1)))
    assert (fill.price, fill.size, fill.liquidity) == (Decimal(51000), Decimal(1), Liquidity.MAKER)
    assert (venue.orders[name].status, venue.orders[name].trigger.value) == (Status.FILLED, "STOP_PENDING")


def test_a_bracket_leaves_at_the_market_once_its_stop_is_met() -> None:
    venue = exchange(btc="1")
    name = bracket(venue)
    assert not fills_of(venue.on_tick(tick("49000.01", "2", seconds=1)))
    fills = fills_of(venue.on_tick(tick("48999", "2", seconds=2)))
    assert {fill.liquidity for fill in fills} == {Liquidity.TAKER}
    assert sum(fill.size for fill in fills) == 1
    assert all(Decimal("46550") <= fill.price < 49000 for fill in fills)
    assert (venue.orders[name].status, venue.orders[name].trigger.value) == (Status.FILLED, "STOP_TRIGGERED")
    assert venue.balances()["BTC"] == Balance(Decimal(0), Decimal(0))


def test_a_bracket_does_not_sell_lower_than_five_percent_below_its_stop() -> None:
    venue = exchange(btc="1")
    name = bracket(venue)
    assert not fills_of(venue.on_tick(tick("40000", "2", seconds=1)))
    left = venue.orders[name]
    assert (left.status, left.limit_price, left.hold) == (Status.OPEN, Decimal("46550"), Decimal(1))


def test_a_bracket_to_buy_holds_what_its_stop_may_cost() -> None:
    venue = exchange()
    bracket(venue, "BUY", limit_price="49000", stop_trigger_price="51000")
    assert venue.balances()["USD"].hold == 51000 * Decimal("1.05") * (1 + TAKER)
    fills = fills_of(venue.on_tick(tick("51000", "2", seconds=1)))
    assert all(51000 < fill.price <= Decimal("53550") for fill in fills)
    assert sum(fill.size for fill in fills) == 1
    assert venue.balances()["USD"].hold == 0


def test_a_dated_bracket_expires_and_no_bracket_can_be_edited() -> None:
    venue = exchange(btc="1")
    name = bracket(venue, end_time=at(5).isoformat())
    refusal, _ = venue.edit(name, Decimal(52000), Decimal(1), at(1))
    assert refusal is not None
    assert refusal.edit == "ONLY_LIMIT_ORDER_EDITS_SUPPORTED"
    assert statuses(venue.advance(at(5))) == ["EXPIRED"]
    assert venue.balances()["BTC"] == Balance(Decimal(1), Decimal(0))


def test_a_known_client_order_id_answers_with_the_order_it_has() -> None:
    venue = exchange()
    first = placed(venue, order("BUY", "market_market_ioc", "mine", base_size="0.1"))
    again = venue.place(order("BUY", "market_market_ioc", "mine", base_size="0.1"), at(1))
    assert (again.order, again.events) == (first, [])
    assert len(venue.orders) == 1


def test_a_known_client_order_id_is_refused_where_the_venue_does_so() -> None:
    venue = exchange(duplicates="refuses")
    placed(venue, order("BUY", "market_market_ioc", "mine", base_size="0.1"))
    again = venue.place(order("BUY", "market_market_ioc", "mine", base_size="0.1"), at(1))
    assert again.refusal is not None
    assert again.refusal.exchange == "DUPLICATE_CLIENT_ORDER_ID"


def test_a_preview_tells_what_the_order_then_costs() -> None:
    venue = exchange()
    request = order("BUY", "market_market_ioc", base_size="1.5")
    estimate = venue.preview(request, at(0))
    done = placed(venue, request)
    assert (estimate.refusal, estimate.base_size) == (None, done.filled_size)
    assert (estimate.value, estimate.commission) == (done.filled_value, done.fees)


def test_equal_seeds_and_calls_give_equal_ids_and_fills_have_their_own() -> None:
    first, second = exchange(level_value="1000"), exchange(level_value="1000")
    for venue in (first, second):
        placed(venue, order("BUY", "market_market_ioc", "same", base_size="0.1"))
    assert list(first.orders) == list(second.orders)
    assert [fill.entry_id for fill in first.fills] == [fill.entry_id for fill in second.fills]
    assert len({fill.entry_id for fill in first.fills}) == len(first.fills) > 1


def test_a_restored_exchange_goes_on_with_the_same_account_and_resting_orders() -> None:
    venue = exchange()
    resting = placed(venue, order("BUY", "limit_limit_gtc", base_size="1", limit_price="49000"))
    market_buy(venue, base_size="0.1")
    again = exchange()
    again.restore(venue.ledger, venue.orders.values(), venue.fills)
    assert again.balances() == venue.balances()
    assert again.open_orders() == venue.open_orders() == [resting]
    assert again.on_tick(tick("49000", "1", seconds=1)) == venue.on_tick(tick("49000", "1", seconds=1))
