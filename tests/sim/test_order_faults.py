"""What can go wrong between an order and its answer, and between an order and what queries tell of it."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.sim.serving import PREFIX, Client, Json

MARKET = "market_market_ioc"
PATIENCE = httpx.Timeout(0.2)


async def only_order(venue: Client) -> Json:
    (order,) = (await venue.get("/orders/historical/batch"))["orders"]
    return order  # type: ignore[no-any-return]


async def test_an_accepted_order_can_be_answered_by_a_500(venue: Client) -> None:
    await venue.faults(accept_then_500=1)
    order = {"client_order_id": "mine", "product_id": "BTC-USD", "side": "BUY"}
    body = {**order, "order_configuration": {MARKET: {"base_size": "0.1"}}}
    answer = await venue.call("POST", "/orders", body)
    assert (answer.status_code, answer.json()["error"]) == (500, "INTERNAL")
    assert (await only_order(venue))["status"] == "FILLED"
    assert (await venue.faults())["accept_then_500"] == 0
    assert (await venue.call("POST", "/orders", body)).json()["success"] is True
    assert len((await venue.get("/orders/historical/fills"))["fills"]) == 1


async def test_an_accepted_orders_answer_may_never_come(venue: Client) -> None:
    await venue.faults(accept_then_hang=1)
    venue.http.timeout = PATIENCE
    with pytest.raises(httpx.ReadTimeout):
        await venue.order("mine")
    venue.http.timeout = httpx.Timeout(5)
    assert (await only_order(venue))["client_order_id"] == "mine"
    assert (await venue.order("other"))["success"] is True


async def test_requests_can_be_read_and_neither_acted_on_nor_answered(venue: Client) -> None:
    await venue.faults(hang_requests=2)
    venue.http.timeout = PATIENCE
    with pytest.raises(httpx.ReadTimeout):
        await venue.order("mine")
    with pytest.raises(httpx.ReadTimeout):
        await venue.public("/time")
    venue.http.timeout = httpx.Timeout(5)
    assert (await venue.faults())["hang_requests"] == 0
    assert (await venue.get("/orders/historical/batch"))["orders"] == []


@pytest.mark.parametrize(
    ("order", "status", "filled"),
    [
        ({"key": MARKET, "base_size": "0.1"}, "CANCELLED", "0.03"),
        ({"key": MARKET, "quote_size": "1000"}, "CANCELLED", None),
        ({"key": "limit_limit_gtc", "base_size": "0.1", "limit_price": "51000"}, "OPEN", "0.03"),
        ({"key": "limit_limit_fok", "base_size": "0.1", "limit_price": "51000"}, "CANCELLED", "0"),
    ],
)
async def test_an_order_can_take_a_part_of_its_size_only(
    venue: Client, order: dict[str, Any], status: str, filled: str | None
) -> None:
    await venue.faults(take_at_most_fraction="0.3")
    await venue.order("part", **order)
    part = await only_order(venue)
    assert part["status"] == status
    assert part["filled_size"] == filled or (filled is None and 250 < Decimal(part["filled_value"]) < 310)
    await venue.faults(take_at_most_fraction="1")
    await venue.order("whole", key=MARKET, base_size="0.1")
    whole = (await venue.get("/orders/historical/batch"))["orders"][0]
    assert (whole["status"], whole["filled_size"]) == ("FILLED", "0.1")


@pytest.mark.parametrize("fraction", ["1.1", "-0.1", "NaN"])
async def test_a_fraction_that_is_none_is_refused(venue: Client, fraction: str) -> None:
    refused = await venue.http.post("/sim/faults", json={"take_at_most_fraction": fraction})
    assert (refused.status_code, "from 0 to 1" in refused.text) == (400, True)


async def test_a_cancels_answer_can_be_lost(venue: Client) -> None:
    order_id = (await venue.order("mine"))["order_id"]
    await venue.faults(cancel_then_drop=1)
    with pytest.raises(httpx.TransportError):
        await venue.call("POST", "/orders/batch_cancel", {"order_ids": [order_id]})
    assert (await only_order(venue))["status"] == "CANCELLED"
    again = (await venue.call("POST", "/orders/batch_cancel", {"order_ids": [order_id]})).json()
    assert again["results"][0]["failure_reason"] == "UNKNOWN_CANCEL_ORDER"


async def test_an_edits_answer_can_be_lost(venue: Client) -> None:
    order_id = (await venue.order("mine"))["order_id"]
    edit = {"order_id": order_id, "price": "49000", "size": "0.4"}
    await venue.faults(edit_then_drop=1)
    with pytest.raises(httpx.TransportError):
        await venue.call("POST", "/orders/edit", edit)
    configuration = (await only_order(venue))["order_configuration"]
    assert configuration == {"limit_limit_gtc": {"base_size": "0.4", "limit_price": "49000"}}
    again = (await venue.call("POST", "/orders/edit", edit)).json()
    assert again["error_response"]["edit_order_failure_reason"] == "EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST"


async def test_a_new_order_can_be_unknown_to_queries_for_a_while(venue: Client) -> None:
    await venue.order("early")
    await venue.faults(orders_lag_seconds=600)
    order_id = (await venue.order("late"))["order_id"]
    assert (await only_order(venue))["client_order_id"] == "early"
    assert (await venue.call("GET", f"/orders/historical/{order_id}")).status_code == 404
    await venue.faults(orders_lag_seconds=0)
    assert (await venue.get(f"/orders/historical/{order_id}"))["order"]["client_order_id"] == "late"
    assert len((await venue.get("/orders/historical/batch"))["orders"]) == 2


async def test_a_lag_ends_by_itself(venue: Client) -> None:
    await venue.faults(orders_lag_seconds=0.2, fills_lag_seconds=0.2)
    order_id = (await venue.order("mine", key=MARKET, base_size="0.1"))["order_id"]
    assert (await venue.call("GET", f"/orders/historical/{order_id}")).status_code == 404
    async with asyncio.timeout(5):
        while not (await venue.get("/orders/historical/fills"))["fills"]:
            pass
    assert (await only_order(venue))["order_id"] == order_id


async def test_fills_can_be_listed_later_than_their_order_shows_them(venue: Client) -> None:
    await venue.order("early", key=MARKET, base_size="0.1")
    await venue.faults(fills_lag_seconds=600)
    order_id = (await venue.order("late", key=MARKET, base_size="0.2"))["order_id"]
    assert (await venue.get(f"/orders/historical/{order_id}"))["order"]["filled_size"] == "0.2"
    assert [fill["size"] for fill in (await venue.get("/orders/historical/fills"))["fills"]] == ["0.1"]
    assert (await venue.get("/orders/historical/fills", order_ids=order_id))["fills"] == []
    await venue.faults(fills_lag_seconds=0)
    assert [fill["size"] for fill in (await venue.get("/orders/historical/fills"))["fills"]] == ["0.2", "0.1"]


@pytest.mark.parametrize("skew", [-60, 600])
async def test_the_venues_clock_can_disagree_with_ours(venue: Client, skew: int) -> None:
    await venue.faults(clock_skew_seconds=skew)
    assert (await venue.call("GET", "/accounts")).status_code == 401
    told = int((await venue.public("/time"))["epochSeconds"])
    assert abs(told - time.time() - skew) < 5
    token = venue.token(f"GET {venue.address}{PREFIX}/accounts", nbf=told, exp=told + 120)
    answer = await venue.http.get(f"{PREFIX}/accounts", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    async with venue.frames() as frames:
        await frames.subscribe("user")
        assert (await frames.next())["message"] == "authentication failure"
    await venue.faults(clock_skew_seconds=0)
    assert (await venue.call("GET", "/accounts")).status_code == 200
