"""The venue client against the simulated venue: every endpoint, and the faults that end in an unknown outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from libs.common.clock import SystemClock
from libs.common.errors import OutcomeUnknown, Rejected
from libs.common.messages import (
    ApprovedOrder,
    OrderStatus,
    OrderType,
    Side,
    StopDirection,
    TimeInForce,
    client_order_id,
)
from libs.common.settings import Coinbase
from services.execution.auth import load_signer
from services.execution.inputs import VenueFill, VenueOrder
from services.execution.sweep import Sweep
from services.execution.venue import CoinbaseVenue
from sim.server import KEY_FILE
from tests.sim.serving import Client, replay_settings, serving

START = datetime(2025, 1, 1, 0, 5, tzinfo=UTC)
EARLIER = START - timedelta(days=1)
MARKET = ApprovedOrder(
    client_order_id=client_order_id("market"),
    product_id="BTC-USD",
    side=Side.BUY,
    order_type=OrderType.MARKET,
    time_in_force=TimeInForce.IOC,
    quantity=Decimal("0.01"),
    limit_price=None,
    reduce_only=False,
)
RESTING = replace(
    MARKET,
    client_order_id=client_order_id("resting"),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.GTC,
    limit_price=Decimal(40000),
)


def named(name: str, order: ApprovedOrder = RESTING, **changes: object) -> ApprovedOrder:
    return replace(order, client_order_id=client_order_id(name), **changes)


class Pair:
    """The simulated venue, and our client of it."""

    def __init__(self, sim: Client, venue: CoinbaseVenue) -> None:
        self.sim = sim
        self.venue = venue

    async def place(self, order: ApprovedOrder) -> str:
        return await self.venue.place(order, lambda expires_at: None)

    async def edit(self, key: str, wanted: ApprovedOrder) -> None:
        await self.venue.edit(key, wanted, lambda expires_at: None)

    async def orders(self, *, open_only: bool = False) -> list[VenueOrder]:
        return [order async for page in self.venue.orders(open_only=open_only) for order in page]

    async def fills(self) -> list[VenueFill]:
        return [fill async for page in self.venue.fills() for fill in page]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    settings = replay_settings(tmp_path, start=START)
    async with serving(settings) as sim:
        signer = load_signer(Coinbase(), settings.folder / KEY_FILE, 60)
        address = f"ws://{sim.address}/ws"
        venue = CoinbaseVenue(
            f"http://{sim.address}",
            f"{address}/user",
            signer,
            SystemClock(),
            1,
            market_ws_url=address,
            chance=lambda: 0.0,
        )
        yield Pair(sim, venue)
        await venue.close()


KINDS = {
    "market by base": MARKET,
    "market by quote": replace(MARKET, quote_size=Decimal(100)),
    "limit IOC": replace(RESTING, time_in_force=TimeInForce.IOC),
    "limit FOK": replace(RESTING, time_in_force=TimeInForce.FOK),
    "limit GTC": RESTING,
    "limit GTC post-only": replace(RESTING, post_only=True),
    "stop-limit GTC": replace(
        RESTING,
        order_type=OrderType.STOP_LIMIT,
        limit_price=Decimal(60100),
        stop_price=Decimal(60000),
        stop_direction=StopDirection.UP,
    ),
    "bracket GTC": replace(RESTING, order_type=OrderType.BRACKET, stop_price=Decimal(60000)),
}
KINDS |= {
    f"{kind} GTD": replace(KINDS[f"{kind} GTC"], time_in_force=TimeInForce.GTD, end_time=START + timedelta(days=1))
    for kind in ("limit", "stop-limit", "bracket")
}


@pytest.mark.parametrize("order", KINDS.values(), ids=KINDS.keys())
async def test_each_kind_of_order_is_taken_and_told_back_as_it_was_sent(pair: Pair, order: ApprovedOrder) -> None:
    key = await pair.place(order)
    told, fills = await pair.venue.order(key)
    assert (told.client_order_id, told.product_id, told.side) == (order.client_order_id, "BTC-USD", Side.BUY)
    assert (told.order_type, told.time_in_force) == (order.order_type, order.time_in_force)
    assert told.quantity == (None if order.quote_size else order.quantity)
    assert (told.quote_size, told.limit_price) == (order.quote_size, order.limit_price)
    assert (told.stop_price, told.post_only) == (order.stop_price, order.post_only)
    assert told.created_at is not None
    assert sum((fill.size for fill in fills), Decimal(0)) == told.filled_qty
    assert sum((fill.fee for fill in fills), Decimal(0)) == told.fees
    assert sum((fill.quote_value for fill in fills), Decimal(0)) == told.filled_value
    assert all((fill.value is not None) == (order.quote_size is not None) for fill in fills)


async def test_a_refusal_has_the_venue_s_reason(pair: Pair) -> None:
    with pytest.raises(Rejected, match="INSUFFICIENT_FUND"):
        await pair.place(replace(RESTING, quantity=Decimal(500)))


async def test_a_preview_tells_cost_and_reasons_and_makes_no_order(pair: Pair) -> None:
    fine = await pair.venue.preview(MARKET)
    assert fine.errors == ()
    assert fine.order_total == fine.quote_size + fine.commission_total
    assert fine.best_bid is not None
    poor = await pair.venue.preview(replace(RESTING, quantity=Decimal(500)))
    assert poor.errors == ("PREVIEW_INSUFFICIENT_FUND",)
    assert await pair.orders() == []


async def test_an_edit_changes_price_and_size_and_a_refused_one_says_why(pair: Pair) -> None:
    key = await pair.place(RESTING)
    wanted = replace(RESTING, limit_price=Decimal(41000), quantity=Decimal("0.02"))
    assert (await pair.venue.preview_edit(key, wanted)).errors == ()
    await pair.edit(key, wanted)
    told, _ = await pair.venue.order(key)
    assert (told.limit_price, told.quantity) == (Decimal(41000), Decimal("0.02"))
    assert (await pair.venue.preview_edit(key, wanted)).errors == ("EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST",)
    # A request that arrives twice is refused the second time, with the edit in force: the order tells, not the answer.
    with pytest.raises(OutcomeUnknown):
        await pair.edit(key, wanted)


async def test_more_orders_than_a_page_are_listed_cancelled_and_gone(pair: Pair) -> None:
    names = [client_order_id(f"many {number}") for number in range(260)]  # past our own client, which would pace them
    small = {"base_size": "0.001", "limit_price": "40000"}
    keys = [(await pair.sim.order(name, **small))["order_id"] for name in names]
    assert {order.venue_order_id for order in await pair.orders(open_only=True)} == set(keys)
    assert len((await pair.venue.listing(EARLIER)).orders) == 260
    first = await pair.venue.find(client_order_id("many 0"), "BTC-USD", EARLIER)
    assert first is not None
    assert first.venue_order_id == keys[0]
    assert await pair.venue.find(client_order_id("never sent"), "BTC-USD", EARLIER) is None
    assert await pair.venue.cancel([*keys, "", "unknown"]) == {"": "NO_ORDER_ID", "unknown": "UNKNOWN_CANCEL_ORDER"}
    assert await pair.orders(open_only=True) == []
    assert {order.status for order in await pair.orders()} == {OrderStatus.CANCELED}


async def test_orders_are_told_by_their_ids_whatever_has_become_of_them(pair: Pair) -> None:
    keys = [await pair.place(named(f"o{number}")) for number in range(3)]
    await pair.venue.cancel(keys[:1])
    told = [order async for page in pair.venue.orders(order_ids=keys[:2]) for order in page]
    assert {order.venue_order_id: order.status_word for order in told} == {keys[0]: "CANCELLED", keys[1]: "OPEN"}


async def test_a_sweep_takes_all_that_are_ours_waiting_ones_too_and_nothing_else(pair: Pair) -> None:
    names = [client_order_id(f"many {number}") for number in range(120)]
    for name in [*names, "by-hand"]:  # past our own client, which would pace them
        await pair.sim.order(name, base_size="0.001", limit_price="40000")
    await pair.sim.faults(pending_delay_seconds=3600)
    await pair.place(RESTING)
    await pair.sim.faults(cancel_then_drop=1, too_many_requests=1)
    sweep = Sweep(pair.venue, pair.venue.cancel, lambda: (), asyncio.sleep)
    async with asyncio.timeout(20):
        await sweep.run()
    assert (sweep.reply().ok, sweep.reply().detail) == (True, "121 canceled, 1 not ours left alone")
    assert [order.client_order_id for order in await pair.orders(open_only=True)] == ["by-hand"]


async def test_orders_that_still_wait_count_as_open(pair: Pair) -> None:
    await pair.sim.faults(pending_delay_seconds=3600)
    key = await pair.place(RESTING)
    assert [(order.venue_order_id, order.status_word) for order in await pair.orders(open_only=True)] == [
        (key, "PENDING")
    ]


async def test_a_listing_agrees_with_the_fills_of_each_order(pair: Pair) -> None:
    keys = [await pair.place(named(f"m{number}", MARKET)) for number in range(3)]
    await pair.place(RESTING)
    listing = await pair.venue.listing(EARLIER)
    assert len(listing.orders) == 4
    by_order = [fill for key in keys for fill in (await pair.venue.order(key))[1]]
    assert sorted(fill.entry_id for fill in listing.fills) == sorted(fill.entry_id for fill in by_order)
    assert sorted(fill.entry_id for fill in await pair.fills()) == sorted(fill.entry_id for fill in by_order)
    later = await pair.venue.listing(START + timedelta(days=1))
    assert [order.client_order_id for order in later.orders] == [RESTING.client_order_id]  # open, however old
    assert later.fills == ()


async def test_the_account_agrees_with_the_venue_s_own_state(pair: Pair) -> None:
    await pair.place(RESTING)
    parts = await pair.venue.account()
    assert set(parts.unavailable) <= {"limits"}
    assert parts.balances is not None
    assert parts.balances["USD"].hold > 400
    assert parts.fee_tier is not None
    assert parts.fee_tier.taker_fee_rate > 0
    assert parts.permissions is not None
    assert (parts.permissions.can_trade, parts.permissions.can_transfer) == (True, False)
    assert parts.portfolios is not None
    assert parts.portfolios[0].uuid == parts.permissions.portfolio_uuid
    assert parts.server_time is not None


async def test_a_venue_whose_clock_differs_is_understood_without_a_refused_order(pair: Pair) -> None:
    await pair.sim.faults(clock_skew_seconds=-90)
    assert await pair.place(RESTING)
    assert "401" not in pair.venue.answers
    await pair.sim.faults(clock_skew_seconds=90)  # it moves while we run: our tokens are long expired there
    assert await pair.place(MARKET)
    assert pair.venue.answers["401"] == 1
    assert pair.venue.clock_offset_seconds == pytest.approx(90, abs=0.5)


@pytest.mark.parametrize("fault", ["accept_then_drop", "accept_then_500", "accept_then_hang"])
async def test_an_order_that_was_taken_without_an_answer_is_found_by_its_own_id(pair: Pair, fault: str) -> None:
    await pair.sim.faults(**{fault: 1})
    with pytest.raises(OutcomeUnknown):
        await pair.place(RESTING)
    found = await pair.venue.find(RESTING.client_order_id, "BTC-USD", EARLIER)
    assert found is not None
    assert found.status is OrderStatus.ACCEPTED


async def test_the_same_order_sent_twice_is_one_order_in_both_behaviours_of_the_venue(pair: Pair) -> None:
    key = await pair.place(RESTING)
    assert await pair.place(RESTING) == key
    await pair.sim.faults(duplicates="refuses")
    with pytest.raises(OutcomeUnknown):
        await pair.place(RESTING)
    await pair.sim.faults(duplicates="returns_existing")
    with pytest.raises(OutcomeUnknown, match="with another side"):
        await pair.place(replace(RESTING, side=Side.SELL))
    assert len(await pair.orders()) == 1


async def test_a_cancel_whose_answer_is_lost_or_refused_for_a_while_still_cancels(pair: Pair) -> None:
    key = await pair.place(RESTING)
    await pair.sim.faults(cancel_then_drop=1, too_many_requests=1)
    await pair.venue.cancel([key])
    assert (await pair.venue.order(key))[0].status is OrderStatus.CANCELED


async def test_an_edit_whose_answer_is_lost_shows_in_the_order(pair: Pair) -> None:
    key = await pair.place(RESTING)
    await pair.sim.faults(edit_then_drop=1)
    with pytest.raises(OutcomeUnknown):
        await pair.edit(key, replace(RESTING, limit_price=Decimal(41000)))
    told, _ = await pair.venue.order(key)
    assert (told.limit_price, told.edits) == (Decimal(41000), ((RESTING.quantity, Decimal(41000)),))


async def test_unknown_fields_everywhere_change_nothing(pair: Pair) -> None:
    await pair.sim.faults(extra_fields=True)
    key = await pair.place(MARKET)
    assert (await pair.venue.order(key))[0].status is OrderStatus.FILLED
    assert len((await pair.venue.listing(EARLIER)).fills) >= 1
    assert (await pair.venue.account()).balances


# -- the user channel


class Watch:
    """The user channel, read in the background."""

    def __init__(self, venue: CoinbaseVenue) -> None:
        self.updates: list[VenueOrder | None] = []
        self._venue = venue

    async def __aenter__(self) -> Watch:
        self._task = asyncio.create_task(self._read())
        await self.until(lambda: self.updates != [])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _read(self) -> None:
        async for update in self._venue.user_updates():
            self.updates.append(update)

    async def until(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    def words(self) -> list[str | None]:
        return [None if update is None else update.status_word for update in self.updates]


async def test_the_user_channel_tells_of_each_order_that_moves(pair: Pair) -> None:
    async with Watch(pair.venue) as watch:
        assert watch.words() == [None]
        key = await pair.place(RESTING)
        await pair.venue.cancel([key])
        await watch.until(lambda: "CANCELLED" in watch.words())
        opened = next(update for update in watch.updates if update is not None and update.status_word == "OPEN")
    assert (opened.venue_order_id, opened.client_order_id) == (key, RESTING.client_order_id)
    assert (opened.limit_price, opened.quantity, opened.order_type) == (
        RESTING.limit_price,
        RESTING.quantity,
        OrderType.LIMIT,
    )


@pytest.mark.parametrize("fault", ["skip_sequence", "reorder_sequence"])
async def test_a_hole_in_the_numbers_says_that_something_may_have_been_missed(pair: Pair, fault: str) -> None:
    async with Watch(pair.venue) as watch:
        await pair.sim.faults(**{fault: 1})
        await watch.until(lambda: watch.words().count(None) > 1)
    assert pair.venue.answers["user_channel_gap"] >= 1


@pytest.mark.parametrize("fault", [{"drop_sockets": 1}, {"silent_sockets": True}, {"half_open_sockets": True}])
async def test_a_socket_that_is_lost_silent_or_half_open_is_replaced(pair: Pair, fault: dict[str, object]) -> None:
    async with Watch(pair.venue) as watch:
        await pair.sim.faults(**fault)
        await watch.until(lambda: pair.venue.answers.get("user_channel_lost", 0) >= 1)
        await pair.sim.faults(silent_sockets=False, half_open_sockets=False)
        await watch.until(lambda: watch.words().count(None) > 1)
        key = await pair.place(RESTING)
        await watch.until(lambda: any(update and update.venue_order_id == key for update in watch.updates))
