"""The REST paths over a real socket."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.sim.serving import PREFIX, Client, order_body, replay_settings, serving

MARKET = "market_market_ioc"


async def test_time_is_wall_time_and_needs_no_key(venue: Client) -> None:
    told = await venue.public("/time")
    assert abs(datetime.now(UTC) - datetime.fromisoformat(told["iso"])) < timedelta(seconds=5)
    assert int(told["epochMillis"]) // 1000 == int(told["epochSeconds"])


@pytest.mark.parametrize("path", ["/products", "/products/BTC-USD", "/product_book?product_id=BTC-USD"])
async def test_market_paths_have_public_twins(venue: Client, path: str) -> None:
    bare, _, query = path.partition("?")
    private = await venue.get(bare, **dict([query.split("=")] if query else []))
    public = await venue.http.get(f"{PREFIX}/market{path}", headers={"Authorization": "Bearer nonsense"})
    assert public.json() == private
    assert (await venue.http.get(PREFIX + path)).status_code == 401


async def test_products_are_filtered_and_paged(venue: Client) -> None:
    assert (await venue.public("/market/products"))["num_products"] == 1
    assert (await venue.public("/market/products", product_ids=["ETH-USD", "BTC-USD"]))["num_products"] == 1
    assert (await venue.public("/market/products", product_ids="ETH-USD"))["products"] == []
    assert (await venue.public("/market/products", product_type="FUTURE"))["products"] == []
    assert (await venue.public("/market/products", offset=1))["products"] == []


async def test_unknown_things_are_not_found(venue: Client) -> None:
    for path in ("/products/NOPE-USD", "/orders/historical/nope", "/accounts/nope", "/portfolios/nope"):
        response = await venue.call("GET", path)
        assert (response.status_code, response.json()["error"]) == (404, "NOT_FOUND")
    assert (await venue.call("GET", "/no/such/path")).status_code == 404
    assert (await venue.http.get("/")).status_code == 404


async def test_best_bid_and_ask_stand_around_the_last_price(venue: Client) -> None:
    (book,) = (await venue.get("/best_bid_ask", product_ids=["BTC-USD", "ETH-USD"]))["pricebooks"]
    assert (book["bids"][0]["price"], book["asks"][0]["price"]) == ("50003.99", "50014.01")


async def test_a_book_is_cut_to_the_limit_and_merged_to_the_increment(venue: Client) -> None:
    cut = await venue.public("/market/product_book", product_id="BTC-USD", limit=3)
    assert [len(cut["pricebook"][side]) for side in ("bids", "asks")] == [3, 3]
    assert (cut["mid_market"], cut["spread_absolute"]) == ("50009", "10.02")
    whole = await venue.public("/market/product_book", product_id="BTC-USD")
    merged = await venue.public("/market/product_book", product_id="BTC-USD", aggregation_price_increment="100")
    assert [level["price"] for level in merged["pricebook"]["asks"]] == ["50100"]
    sizes = [round(sum(float(level["size"]) for level in book["pricebook"]["asks"]), 8) for book in (whole, merged)]
    assert sizes[0] == sizes[1]


async def test_candles_before_the_replay_are_there_newest_first(venue: Client) -> None:
    candles = (await venue.public("/market/products/BTC-USD/candles", granularity="ONE_MINUTE"))["candles"]
    assert [int(candle["start"]) - 1735689600 for candle in candles] == [240, 180, 120, 60, 0]
    assert candles[0] == {
        "start": "1735689840",
        "low": "49994",
        "high": "50014",
        "open": "50004",
        "close": "50009",
        "volume": "4",
    }
    five = (await venue.public("/market/products/BTC-USD/candles", granularity="FIVE_MINUTE"))["candles"]
    assert [candle["volume"] for candle in five] == ["20"]


async def test_candles_are_chosen_by_their_bucket_and_limited(venue: Client) -> None:
    path = "/market/products/BTC-USD/candles"
    asked = {"granularity": "ONE_MINUTE", "start": "1735689660", "end": "1735689780"}
    assert [candle["start"] for candle in (await venue.public(path, **asked))["candles"]] == [
        "1735689780",
        "1735689720",
        "1735689660",
    ]
    assert len((await venue.public(path, **asked, limit=1))["candles"]) == 1
    for wrong in ({"granularity": "FOUR_SECONDS"}, {**asked, "end": "1736689660"}, {**asked, "start": "x"}):
        response = await venue.http.get(PREFIX + path, params=wrong)
        assert (response.status_code, response.json()["error"]) == (400, "INVALID_ARGUMENT")


async def test_stepping_a_minute_adds_exactly_the_recorded_candle(venue: Client) -> None:
    await venue.step(4)
    newest = (await venue.public("/market/products/BTC-USD/candles", granularity="ONE_MINUTE"))["candles"][0]
    assert newest == {
        "start": "1735689900",
        "low": "49995",
        "high": "50015",
        "open": "50005",
        "close": "50010",
        "volume": "4",
    }


async def test_trades_are_listed_newest_first_and_by_time(venue: Client) -> None:
    path = "/market/products/BTC-USD/ticker"
    told = await venue.public(path, limit=3)
    ids = [int(trade["trade_id"]) for trade in told["trades"]]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 3
    assert told["best_bid"] == "50003.99"
    some = (await venue.public(path, start="1735689660", end="1735689674"))["trades"]
    assert [trade["time"] for trade in some] == ["2025-01-01T00:01:00Z"]


async def test_accounts_are_paged_and_show_what_is_held(venue: Client) -> None:
    await venue.order("a")
    first = await venue.get("/accounts", limit=1)
    second = await venue.get("/accounts", limit=1, cursor=first["cursor"])
    assert (first["has_next"], second["has_next"], second["cursor"]) == (True, False, "")
    (usd,) = second["accounts"]
    assert (usd["currency"], usd["hold"]["value"]) == ("USD", "25294.94")
    assert usd["available_balance"]["value"] == "74705.06"
    assert (await venue.get(f"/accounts/{usd['uuid']}"))["account"] == usd
    assert (await venue.call("GET", "/accounts", limit=251)).status_code == 400


async def test_an_order_is_accepted_found_and_cancelled(venue: Client) -> None:
    accepted = await venue.order("mine")
    assert accepted["success"] is True
    order_id = accepted["success_response"]["order_id"]
    found = (await venue.get(f"/orders/historical/{order_id}"))["order"]
    assert (found["status"], found["client_order_id"]) == ("OPEN", "mine")
    assert found["order_configuration"] == {"limit_limit_gtc": {"base_size": "0.5", "limit_price": "49990"}}
    cancelled = (await venue.call("POST", "/orders/batch_cancel", {"order_ids": [order_id, "nope"]})).json()
    assert cancelled["results"] == [
        {"success": True, "failure_reason": "UNKNOWN_CANCEL_FAILURE_REASON", "order_id": order_id},
        {"success": False, "failure_reason": "UNKNOWN_CANCEL_ORDER", "order_id": "nope"},
    ]
    assert (await venue.get(f"/orders/historical/{order_id}"))["order"]["status"] == "CANCELLED"


async def test_a_refusal_is_an_answer_with_status_200(venue: Client) -> None:
    refused = await venue.order("big", key=MARKET, base_size="3000")
    assert refused["success"] is False
    assert refused["error_response"] == {
        "error": "INSUFFICIENT_FUND",
        "message": "Insufficient balance in source account",
        "error_details": "",
        "preview_failure_reason": "PREVIEW_INSUFFICIENT_FUND",
        "new_order_failure_reason": "UNKNOWN_FAILURE_REASON",
    }


async def test_a_taker_fill_is_listed_with_its_exact_commission(venue: Client) -> None:
    await venue.order("buy", key=MARKET, base_size="0.1")
    (fill,) = (await venue.get("/orders/historical/fills"))["fills"]
    assert (fill["price"], fill["size"], fill["commission"]) == ("50014.01", "0.1", "60.016812")
    assert (fill["liquidity_indicator"], fill["trade_time"]) == ("TAKER", "2025-01-01T00:04:59.999Z")
    summary = await venue.get("/transaction_summary")
    assert summary["total_fees"] == pytest.approx(60.016812)
    assert summary["fee_tier"]["taker_fee_rate"] == "0.012"


async def test_the_fills_of_a_market_order_by_quote_size_are_told_in_the_quote_currency(venue: Client) -> None:
    order_id = (await venue.order("buy", key=MARKET, quote_size="100"))["order_id"]
    order = (await venue.get(f"/orders/historical/{order_id}"))["order"]
    fills = (await venue.get("/orders/historical/fills", order_ids=order_id))["fills"]
    assert {fill["size_in_quote"] for fill in fills} == {True}
    assert sum(Decimal(fill["size"]) for fill in fills) == Decimal(order["filled_value"])
    assert sum(Decimal(fill["commission"]) for fill in fills) == Decimal(order["total_fees"])
    sizes = [Decimal(fill["size"]) / Decimal(fill["price"]) for fill in fills]
    assert sum(sizes) == Decimal(order["filled_size"])


async def test_cursors_lead_through_all_orders_newest_first_even_while_new_ones_come(venue: Client) -> None:
    for number in range(5):
        await venue.order(f"n{number}", base_size="0.01", limit_price="40000")
    seen: list[str] = []
    cursor = ""
    while True:
        page = await venue.get("/orders/historical/batch", limit=2, cursor=cursor)
        seen += [order["client_order_id"] for order in page["orders"]]
        cursor = page["cursor"]
        await venue.order(f"later{len(seen)}", base_size="0.01", limit_price="40000")
        if not page["has_next"]:
            break
    assert seen == ["n4", "n3", "n2", "n1", "n0"]


async def test_orders_are_filtered_by_everything_that_can_be_asked(venue: Client) -> None:
    resting = (await venue.order("resting"))["order_id"]
    await venue.step(4)
    filled = (await venue.order("filled", key=MARKET, base_size="0.1"))["order_id"]
    expectations: list[tuple[dict[str, object], list[str]]] = [
        ({"order_status": "OPEN"}, [resting]),
        ({"order_status": ["FILLED", "CANCELLED"]}, [filled]),
        ({"order_ids": [resting, filled]}, [filled, resting]),
        ({"product_ids": "ETH-USD"}, []),
        ({"product_type": "FUTURE"}, []),
        ({"time_in_forces": "IMMEDIATE_OR_CANCEL"}, [filled]),
        ({"order_types": ["LIMIT", "STOP_LIMIT"]}, [resting]),
        ({"order_side": "SELL"}, []),
        ({"start_date": "2025-01-01T00:05:00Z"}, [filled]),
        ({"end_date": "2025-01-01T00:05:00Z"}, [resting]),
        ({"sort_by": "LIMIT_PRICE"}, [resting, filled]),
    ]
    for query, wanted in expectations:
        found = (await venue.get("/orders/historical/batch", **query))["orders"]
        assert [order["order_id"] for order in found] == wanted, query
    for wrong in ({"order_status": ["OPEN", "FILLED"]}, {"order_status": "BROKEN"}, {"start_date": "now"}):
        assert (await venue.call("GET", "/orders/historical/batch", **wrong)).status_code == 400


async def test_fills_have_their_own_keys_for_dates_and_end_at_an_empty_cursor(venue: Client) -> None:
    for number in range(3):
        await venue.order(f"n{number}", key=MARKET, base_size="0.01")
        await venue.step(4)
    page = await venue.get("/orders/historical/fills", limit=2)
    rest = await venue.get("/orders/historical/fills", limit=2, cursor=page["cursor"])
    assert "has_next" not in page
    assert [len(page["fills"]), len(rest["fills"]), rest["cursor"]] == [2, 1, ""]
    recent = await venue.get("/orders/historical/fills", start_sequence_timestamp="2025-01-01T00:05:30Z")
    assert len(recent["fills"]) == 2
    ignored = await venue.get("/orders/historical/fills", start_date="2030-01-01T00:00:00Z")
    assert len(ignored["fills"]) == 3
    one = await venue.get("/orders/historical/fills", order_ids=rest["fills"][0]["order_id"])
    assert one["fills"] == rest["fills"]


async def test_a_preview_costs_nothing_and_names_what_would_be_refused(venue: Client) -> None:
    body = order_body("", "BUY", MARKET, base_size="0.1")
    del body["client_order_id"]
    shown = (await venue.call("POST", "/orders/preview", body)).json()
    assert (shown["errs"], shown["commission_total"], shown["order_total"]) == ([], "60.016812", "5061.417812")
    body["order_configuration"] = {MARKET: {"base_size": "3000"}}
    refused = (await venue.call("POST", "/orders/preview", body)).json()
    assert refused["errs"] == ["PREVIEW_INSUFFICIENT_FUND"]
    assert (await venue.state())["orders"] == 0


async def test_an_edit_is_previewed_and_made(venue: Client) -> None:
    order_id = (await venue.order("mine"))["order_id"]
    change = {"order_id": order_id, "price": "49000", "size": "0.6"}
    shown = (await venue.call("POST", "/orders/edit_preview", change)).json()
    assert (shown["errors"], shown["quote_size"]) == ([], "29400")
    edited = (await venue.call("POST", "/orders/edit", change)).json()
    assert edited == {"success": True, "success_response": {"order_id": order_id}, "errors": []}
    again = (await venue.call("POST", "/orders/edit", change)).json()
    assert again["success"] is False
    assert again["errors"][0]["edit_failure_reason"] == "EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST"
    order = (await venue.get(f"/orders/historical/{order_id}"))["order"]
    assert order["order_configuration"]["limit_limit_gtc"]["limit_price"] == "49000"
    assert order["edit_history"][0]["size"] == "0.6"


async def test_bodies_are_read_as_strictly_as_protobuf_reads_them(venue: Client) -> None:
    good = order_body("x", "BUY", MARKET, base_size="0.1")
    for body, details in (
        ({**good, "hello": 1}, 'unknown field "hello"'),
        (order_body("x", "BUY", MARKET, base_size="0.1", limit_price="1"), 'unknown field "limit_price"'),
        (order_body("x", "BUY", "market_maker", base_size="0.1"), 'unknown field "market_maker"'),
        (order_body("x", "BUY", MARKET, base_size=0.1), "invalid value for str type: 0.1"),
        (order_body("x", "BUY", "limit_limit_gtd", end_time="soon"), "invalid google.protobuf.Timestamp value"),
    ):
        response = await venue.call("POST", "/orders", body)
        assert (response.status_code, response.json()["error"]) == (400, "unknown")
        assert response.json()["error_details"].startswith("proto: (line 1:")
        assert details in response.json()["error_details"]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {**order_body("x", "BUY", MARKET, base_size="1"), "side": "UP"},
        {**order_body("x", "BUY", MARKET, base_size="1"), "client_order_id": ""},
        {**order_body("x", "BUY", MARKET, base_size="1"), "order_configuration": {}},
    ],
)
async def test_incomplete_orders_are_invalid_arguments(venue: Client, body: object) -> None:
    response = await venue.call("POST", "/orders", body)
    assert (response.status_code, response.json()["error"]) == (400, "INVALID_ARGUMENT")


async def test_more_than_a_hundred_cancels_are_refused(venue: Client) -> None:
    response = await venue.call("POST", "/orders/batch_cancel", {"order_ids": ["x"] * 101})
    assert (response.status_code, response.json()["error"]) == (400, "InvalidArgument")
    assert "limit is 100" in response.json()["message"]
    for ids in ([], [""], [None], "x", None):
        assert (await venue.call("POST", "/orders/batch_cancel", {"order_ids": ids})).status_code == 400


async def test_the_one_portfolio_is_shown_and_no_other_can_be_made(venue: Client) -> None:
    (portfolio,) = (await venue.get("/portfolios"))["portfolios"]
    permissions = await venue.get("/key_permissions")
    assert permissions["portfolio_uuid"] == portfolio["uuid"]
    breakdown = (await venue.get(f"/portfolios/{portfolio['uuid']}"))["breakdown"]
    assert breakdown["portfolio_balances"]["total_balance"]["value"] == "100000"
    assert (await venue.call("POST", "/portfolios", {"name": "other"})).status_code == 403


async def test_private_answers_tell_what_is_left_of_the_rate_limit(venue: Client) -> None:
    answers = await asyncio.gather(*[venue.call("GET", "/orders/historical/nope") for _ in range(20)])
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"30"}
    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert 10 <= min(left) < 27
    assert "x-ratelimit-limit" not in (await venue.http.get(f"{PREFIX}/time")).headers
    await venue.faults(too_many_requests=1)
    refused = await venue.call("GET", "/accounts")
    told = {name: value for name, value in refused.headers.items() if name.startswith("x-ratelimit")}
    assert told == {"x-ratelimit-limit": "30", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}


async def test_rate_limits_answer_429_where_they_are_on(tmp_path: Path) -> None:
    async with serving(replay_settings(tmp_path, rate_limits=True)) as client:
        public = [(await client.http.get(f"{PREFIX}/time")).status_code for _ in range(40)]
        assert public[:10] == [200] * 10
        assert 429 in public
        private = [(await client.call("GET", "/key_permissions")).status_code for _ in range(30)]
        assert private == [200] * 30
        refused = next(
            response
            for response in [await client.http.get(f"{PREFIX}/time") for _ in range(40)]
            if response.status_code == 429
        )
        assert refused.headers["x-ratelimit-limit"] == "10"
        assert refused.json() == {"errors": [{"id": "rate_limit_exceeded", "message": "Too many requests"}]}


async def test_unauthenticated_socket_messages_are_limited_by_address_where_limits_are_on(tmp_path: Path) -> None:
    async with serving(replay_settings(tmp_path, rate_limits=True)) as client, client.frames() as frames:
        for _ in range(20):
            await frames.subscribe("heartbeats", token="")
        for _ in range(20):
            await frames.subscribe("heartbeats")
        answers = [await frames.next() for _ in range(40)]
        refused = [answer for answer in answers if answer == {"type": "error", "message": "rate limit exceeded"}]
        assert 1 <= len(refused) <= 12
        assert all(answer.get("channel") for answer in answers[20:])


async def test_a_bracket_is_told_as_one(venue: Client) -> None:
    await venue.order("bought", key=MARKET, base_size="0.2")
    fields = {"base_size": "0.2", "limit_price": "60000", "stop_trigger_price": "50007"}
    async with venue.frames("/user") as frames:
        await frames.subscribe("user")
        await frames.until_acknowledged("user")
        placed = await venue.order("bracket", "SELL", "trigger_bracket_gtc", **fields)
        told = (await frames.next("user"))["events"][0]["orders"][0]
        assert (told["order_type"], told["stop_price"], told["limit_price"]) == ("Bracket", "50007", "60000")
    order = (await venue.get(f"/orders/historical/{placed['order_id']}"))["order"]
    assert (order["order_type"], order["trigger_status"], order["status"]) == ("BRACKET", "STOP_PENDING", "OPEN")
    assert order["order_configuration"] == {"trigger_bracket_gtc": fields}
    await venue.step(3)
    order = (await venue.get(f"/orders/historical/{placed['order_id']}"))["order"]
    assert (order["trigger_status"], order["status"]) == ("STOP_TRIGGERED", "FILLED")
    assert order["order_configuration"] == {"trigger_bracket_gtc": fields}
