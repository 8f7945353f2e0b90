"""Every switch shows its effect, and the venue is itself again without it."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from tests.sim.serving import PREFIX, Client

BTC = "BTC-USD"
MARKET = "market_market_ioc"


async def test_switches_are_told_merged_and_checked(venue: Client) -> None:
    await venue.faults(unauthorized=2)
    told = await venue.faults(silent_sockets=True)
    assert (told["unauthorized"], told["silent_sockets"], told["duplicates"]) == (2, True, "returns_existing")
    assert (await venue.http.get("/sim/faults")).json() == told
    for wrong in ('{"no_such_switch":1}', '{"unauthorized":"x"}', "["):
        assert (await venue.http.post("/sim/faults", content=wrong)).status_code == 400


async def test_a_big_level2_snapshot_has_as_many_levels_as_the_real_one(venue: Client) -> None:
    await venue.faults(big_level2_snapshot=22_000)
    async with venue.frames() as frames:
        await frames.subscribe("level2", BTC)
        updates = (await frames.next())["events"][0]["updates"]
        assert len(updates) > 44_000
        assert updates[-1]["event_time"] == "1970-01-01T00:00:00Z"
        prices = [float(update["price_level"]) for update in updates if update["side"] == "bid"]
        assert prices == sorted(prices, reverse=True)


async def test_client_id_can_be_on_market_frames(venue: Client) -> None:
    await venue.faults(client_id_on_market=True)
    async with venue.frames() as frames:
        await frames.subscribe("ticker", BTC)
        assert (await frames.next())["client_id"] == ""


async def test_a_sequence_number_can_be_skipped(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("market_trades", BTC)
        await frames.until_acknowledged("market_trades")
        await venue.faults(skip_sequence=1)
        await venue.step(2)
        for _ in range(2):
            await frames.next()
        assert frames.numbers == [0, 1, 3, 4]


async def test_two_messages_can_change_places(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("market_trades", BTC)
        await frames.until_acknowledged("market_trades")
        await venue.faults(reorder_sequence=1)
        await venue.step(3)
        for _ in range(3):
            await frames.next()
        assert frames.numbers == [0, 1, 3, 2, 4]


async def test_sockets_can_fall_silent_and_stay_open(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("market_trades", BTC)
        await frames.until_acknowledged("market_trades")
        await venue.faults(silent_sockets=True)
        await venue.step(3)
        await asyncio.wait_for(await frames.socket.ping(), 5)
        await venue.faults(silent_sockets=False)
        await venue.step()
        await frames.next()
        assert frames.numbers == [0, 1, 5]


async def test_all_sockets_can_be_dropped_at_once(venue: Client) -> None:
    async with venue.frames() as first, venue.frames() as second:
        for frames in (first, second):
            await frames.subscribe("ticker", BTC)
            await frames.until_acknowledged("ticker")
        assert (await venue.faults(drop_sockets=1))["drop_sockets"] == 0
        assert [await first.closed(), await second.closed()] == [1006, 1006]
    async with venue.frames() as frames:
        await frames.subscribe("ticker", BTC)
        await frames.until_acknowledged("ticker")


async def test_a_subscription_can_be_answered_by_an_error_only(venue: Client) -> None:
    await venue.faults(error_instead_of_ack=1)
    async with venue.frames() as frames:
        await frames.subscribe("ticker", BTC)
        assert await frames.next() == {"type": "error", "message": "failure to subscribe"}
        await frames.subscribe("ticker", BTC)
        assert (await frames.next())["channel"] == "ticker"


async def test_leaves_quantity_can_be_zeroed_on_cancel(venue: Client) -> None:
    await venue.faults(zero_leaves_on_cancel=True)
    async with venue.frames() as frames:
        await frames.subscribe("user")
        await frames.until_acknowledged("user")
        order_id = (await venue.order("mine"))["order_id"]
        await venue.call("POST", "/orders/batch_cancel", {"order_ids": [order_id]})
        orders = [(await frames.next("user"))["events"][0]["orders"][0] for _ in range(2)]
        assert [order["leaves_quantity"] for order in orders] == ["0.5", "0"]


async def test_a_valid_token_can_be_refused_once(venue: Client) -> None:
    await venue.faults(unauthorized=1)
    statuses = [(await venue.call("GET", "/accounts")).status_code for _ in range(2)]
    assert statuses == [401, 200]


async def test_requests_can_be_too_many_for_a_while(venue: Client) -> None:
    await venue.faults(too_many_requests=2)
    statuses = [(await venue.call("GET", "/accounts")).status_code for _ in range(3)]
    assert statuses == [429, 429, 200]


@pytest.mark.parametrize(("switch", "read", "order"), [("reads", 503, 200), ("orders", 200, 503), ("all", 503, 503)])
async def test_a_cdn_can_stand_in_front_of_a_dead_venue(venue: Client, switch: str, read: int, order: int) -> None:
    await venue.faults(html_5xx=switch)
    answers = [
        await venue.call("GET", "/accounts"),
        await venue.call("POST", "/orders", {"client_order_id": "x"}),
    ]
    for answer, status in zip(answers, (read, order), strict=True):
        assert answer.status_code == status if status == 503 else answer.status_code != 503
        assert ("text/html" in answer.headers["content-type"]) == (status == 503)
    await venue.faults(html_5xx="")
    assert (await venue.order("mine"))["success"] is True


async def test_an_accepted_orders_answer_can_be_lost(venue: Client) -> None:
    await venue.faults(accept_then_drop=1)
    with pytest.raises(httpx.TransportError):
        await venue.order("mine")
    (order,) = (await venue.get("/orders/historical/batch"))["orders"]
    assert order["client_order_id"] == "mine"
    again = await venue.order("mine")
    assert again["success_response"]["order_id"] == order["order_id"]


async def test_an_order_can_be_lost_on_its_way_in(venue: Client) -> None:
    await venue.faults(reject_before=1)
    with pytest.raises(httpx.TransportError):
        await venue.order("mine")
    assert (await venue.get("/orders/historical/batch"))["orders"] == []
    assert (await venue.order("mine"))["success"] is True


async def test_answers_can_be_late_although_the_order_is_there(venue: Client) -> None:
    await venue.faults(answer_delay_seconds=0.3)
    started = time.monotonic()
    waiting = asyncio.create_task(venue.order("mine"))
    async with asyncio.timeout(5):
        while not (await venue.state())["orders"]:
            assert not waiting.done()
    assert (await waiting)["success"] is True
    assert time.monotonic() - started >= 0.3


async def test_frames_and_answers_can_hold_what_nobody_announced(venue: Client) -> None:
    await venue.faults(extra_fields=True)
    assert "x_unannounced" in await venue.public("/time")
    async with venue.frames() as frames:
        await frames.subscribe("heartbeats")
        assert "x_unannounced" in await frames.next()
        assert (await frames.next("x_unannounced"))["events"] == [{"type": "update"}]


async def test_a_duplicate_can_be_refused(venue: Client) -> None:
    await venue.order("mine")
    assert (await venue.order("mine"))["success"] is True
    await venue.faults(duplicates="refuses")
    refused = await venue.order("mine")
    assert refused["error_response"]["new_order_failure_reason"] == "DUPLICATE_CLIENT_ORDER_ID"


STOP = {"stop_price": "50500", "stop_direction": "STOP_DIRECTION_STOP_UP", "limit_price": "51000"}
BRACKET = {"stop_trigger_price": "50500", "limit_price": "49000"}


@pytest.mark.parametrize(("key", "fields"), [("stop_limit_stop_limit_gtc", STOP), ("trigger_bracket_gtc", BRACKET)])
async def test_stop_limits_and_brackets_can_be_refused(venue: Client, key: str, fields: dict[str, str]) -> None:
    fields = {"base_size": "0.1", **fields}
    assert (await venue.order("first", key=key, **fields))["success"] is True
    await venue.faults(stop_limit_allowed=False)
    refused = await venue.order("second", key=key, **fields)
    assert refused["error_response"]["error"] == "UNSUPPORTED_ORDER_CONFIGURATION"
    await venue.faults(stop_limit_allowed=True)
    assert (await venue.order("third", key=key, **fields))["success"] is True


@pytest.mark.parametrize(
    ("flag", "code"),
    [
        ("cancel_only", "ORDER_ENTRY_DISABLED"),
        ("trading_disabled", "TRADING_DISABLED"),
        ("limit_only", "PREVIEW_NOT_ALLOWED_BY_MARKET_STATE"),
        ("post_only", "PREVIEW_NOT_ALLOWED_BY_MARKET_STATE"),
        ("auction_mode", "PREVIEW_NOT_ALLOWED_BY_MARKET_STATE"),
    ],
)
async def test_maintenance_acts_at_once_and_is_told(venue: Client, flag: str, code: str) -> None:
    resting = (await venue.order("resting"))["order_id"]
    asked = {"product_id": BTC, "side": "BUY", "order_configuration": {MARKET: {"base_size": "0.1"}}}
    async with venue.frames() as frames:
        await frames.subscribe("status", BTC)
        await frames.until_acknowledged("status")
        await venue.faults(product_flags={BTC: {flag: True}})
        assert (await frames.next("status"))["events"][0]["products"][0]["id"] == BTC
    error = (await venue.order("refused", key=MARKET, base_size="0.1"))["error_response"]
    assert code in (error["error"], error["preview_failure_reason"])
    previewed = (await venue.call("POST", "/orders/preview", asked)).json()
    assert previewed["errs"] == [error["preview_failure_reason"]]
    assert [product[flag] for product in (await venue.get("/products"))["products"]] == [True]
    cancelled = (await venue.call("POST", "/orders/batch_cancel", {"order_ids": [resting]})).json()
    assert cancelled["results"][0]["success"] is True
    await venue.faults(product_flags={})
    assert (await venue.call("POST", "/orders/preview", asked)).json()["errs"] == []
    assert (await venue.order("taken", key=MARKET, base_size="0.1"))["success"] is True


async def test_orders_can_stay_pending_for_some_market_time(venue: Client) -> None:
    await venue.faults(pending_delay_seconds=20)
    await venue.order("mine", key=MARKET, base_size="0.1")
    seen = []
    for _ in range(3):
        await venue.step()
        seen.append((await venue.get("/orders/historical/batch"))["orders"][0]["status"])
    assert seen == ["PENDING", "PENDING", "FILLED"]
    opened = (await venue.get("/orders/historical/batch", order_status="OPEN"))["orders"]
    assert opened == []


async def test_a_cancel_can_be_queued_first(venue: Client) -> None:
    await venue.faults(cancel_queued=True)
    order_id = (await venue.order("mine"))["order_id"]
    async with venue.frames() as frames:
        await frames.subscribe("user")
        await frames.until_acknowledged("user")
        await venue.call("POST", "/orders/batch_cancel", {"order_ids": [order_id]})
        told = [(await frames.next("user"))["events"][0]["orders"][0]["status"] for _ in range(2)]
    assert told == ["CANCEL_QUEUED", "CANCELLED"]


async def test_product_flags_can_move_while_clients_watch(venue: Client) -> None:
    async with venue.frames() as frames:
        await frames.subscribe("status")
        await frames.until_acknowledged("status")
        await venue.faults(product_flags={BTC: {"limit_only": True, "status": "offline"}})
        assert (await frames.next("status"))["events"][0]["products"][0]["status"] == "offline"
    assert (await venue.public(f"/market/products/{BTC}"))["limit_only"] is True
    refused = await venue.order("mine", key=MARKET, base_size="0.1")
    assert refused["error_response"]["error"] == "TRADING_DISABLED"
    await venue.faults(product_flags={})
    assert (await venue.order("again", key=MARKET, base_size="0.1"))["success"] is True
    assert (await venue.http.get(f"{PREFIX}/market/products/{BTC}")).json()["limit_only"] is False
