"""The venue's answers and frames have the fields of recorded ones. Recorded files stay outside of the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sim.serving import Client, order_body

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"recorded data is absent: {DATA}")

OLDER = {"cursor"}  # single objects carried one until 2023


def recorded(name: str) -> Any:
    text = (DATA / name).read_text()
    return [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else json.loads(text)


def same_kind(ours: Any, theirs: Any, place: str = "") -> None:
    """Every field of the recorded value is there with the same JSON type; null and empty lists tell no type."""
    if theirs is None or ours is None:
        return
    numbers = (int, float)
    if isinstance(theirs, numbers) and not isinstance(theirs, bool):
        assert isinstance(ours, numbers), place
    else:
        assert type(ours) is type(theirs), place
    if isinstance(theirs, dict):
        missing = theirs.keys() - ours.keys() - OLDER
        assert not missing, f"{place}: {missing}"
        for key in theirs.keys() & ours.keys():
            same_kind(ours[key], theirs[key], f"{place}.{key}")
    if isinstance(theirs, list) and theirs and ours:
        same_kind(ours[0], theirs[0], f"{place}[]")


async def test_market_data_answers_have_the_recorded_fields(venue: Client) -> None:
    product = await venue.public("/market/products/BTC-USD")
    same_kind(product, recorded("rest/fastmm/product_btc_usd_2026-09-30.json"), "product")
    same_kind(await venue.public("/time"), recorded("rest/fastmm/time_2026-09-30.json"), "time")
    same_kind(await venue.get("/products"), recorded("rest/kmiq/list_products.json"), "products")
    book = await venue.public("/market/product_book", product_id="BTC-USD")
    same_kind(book, recorded("rest/nautilus/http_product_book.json"), "book")
    same_kind(await venue.get("/best_bid_ask"), recorded("rest/kmiq/get_best_bid_ask.json"), "best")
    candles = await venue.public("/market/products/BTC-USD/candles", granularity="ONE_MINUTE")
    same_kind(candles, recorded("rest/kmiq/get_product_candles.json"), "candles")
    same_kind(await venue.public("/market/products/BTC-USD/ticker"), recorded("rest/kmiq/get_trades.json"), "trades")


async def test_account_answers_have_the_recorded_fields(venue: Client) -> None:
    accounts = await venue.get("/accounts")
    same_kind(accounts, recorded("rest/kmiq/list_accounts.json"), "accounts")
    same_kind(accounts, recorded("rest/nautilus/http_accounts.json"), "accounts")
    one = await venue.get(f"/accounts/{accounts['accounts'][0]['uuid']}")
    same_kind(one, recorded("rest/kmiq/get_account.json"), "account")
    fees = recorded("rest/coinbase_net/GetFeeInfo2.json")["response"]
    same_kind(await venue.get("/transaction_summary"), fees, "fees")
    keys = recorded("rest/coinbase_net/GetApiKeyInfo.json")["response"]
    same_kind(await venue.get("/key_permissions"), keys, "keys")
    portfolios = await venue.get("/portfolios")
    same_kind(portfolios, recorded("rest/kmiq/list_portfolios.json"), "portfolios")
    breakdown = recorded("rest/coinbase_net/GetPortfolio.json")["response"]
    for unsupported in ("perp_positions", "futures_positions"):
        breakdown["breakdown"].pop(unsupported, None)
    same_kind(await venue.get(f"/portfolios/{portfolios['portfolios'][0]['uuid']}"), breakdown, "portfolio")


async def test_order_answers_have_the_recorded_fields(venue: Client) -> None:
    bought = await venue.order("taken", key="market_market_ioc", base_size="0.1")
    same_kind(bought, {**recorded("rest/kmiq/create_buy_market_order.json"), "order_configuration": {}}, "created")
    refused = await venue.order("big", key="market_market_ioc", base_size="100")
    same_kind(
        refused, {**recorded("rest/kmiq/create_order_failure_no_funds.json"), "order_configuration": {}}, "refused"
    )
    orders = await venue.get("/orders/historical/batch")
    same_kind(orders, recorded("rest/fastmm/open_orders_empty_2026-09-30.json"), "orders")
    filled = recorded("rest/ccxt/list_orders_filled_market_ioc.json")
    same_kind(orders, filled, "orders")
    for field in ("status", "completion_percentage", "trigger_status", "settled", "reject_reason", "order_type"):
        assert orders["orders"][0][field] == filled["orders"][0][field]
    resting = recorded("rest/nautilus/http_order.json")
    resting["order"]["order_configuration"] = {}
    same_kind(await venue.get(f"/orders/historical/{bought['order_id']}"), resting, "order")
    same_kind(await venue.get("/orders/historical/fills"), recorded("rest/ccxt/list_fills_taker.json"), "fills")
    cancelled = (await venue.call("POST", "/orders/batch_cancel", {"order_ids": ["x"]})).json()
    same_kind(cancelled, recorded("rest/kmiq/cancel_orders.json"), "cancelled")
    preview = (await venue.call("POST", "/orders/edit_preview", {"order_id": "x", "price": "1", "size": "1"})).json()
    same_kind(preview, recorded("rest/kmiq/edit_order_preview.json"), "edit preview")


@pytest.mark.parametrize(
    ("channel", "name"),
    [
        ("market_trades", "ws/live_transcribed/ccxt_market_trades_2026-08-12.jsonl"),
        ("ticker", "ws/live_transcribed/ccxt_ticker_2026-08-12.jsonl"),
    ],
)
async def test_market_dialogues_have_the_recorded_fields(venue: Client, channel: str, name: str) -> None:
    async with venue.frames() as frames:
        await frames.subscribe(channel, "BTC-USD")
        for theirs in recorded(name):
            ours = await frames.next()
            same_kind(ours, theirs, channel)
            assert list(ours) == list(theirs)
            assert (ours["channel"], ours["sequence_num"]) == (theirs["channel"], theirs["sequence_num"])
            await venue.step()


async def test_level2_candles_and_heartbeats_have_the_recorded_fields(venue: Client) -> None:
    beat = recorded("ws/live_transcribed/level2_ack_heartbeat_error_2026-09-07.jsonl")[2]
    candle = recorded("ws/nautilus/ws_candles.json")
    candle.pop("client_id")
    for channel, theirs in (
        ("level2", recorded("ws/cryptonorm/coinbase_l2_snapshot.json")),
        ("candles", candle),
        ("heartbeats", beat),
    ):
        async with venue.frames() as frames:
            await frames.subscribe(channel, "BTC-USD")
            same_kind(await frames.next(theirs["channel"]), theirs, channel)


async def test_the_user_endpoint_answers_as_recorded(venue: Client) -> None:
    theirs = recorded("ws/live_transcribed/fastmm_user_endpoint_2026-09-30.jsonl")
    async with venue.frames("/user") as frames:
        await frames.subscribe("user")
        snapshot, acknowledged = await frames.next(), await frames.next()
        assert snapshot["events"] == theirs[0]["events"]
        for ours, wanted in ((snapshot, theirs[0]), (acknowledged, theirs[1])):
            same_kind(ours, wanted, "user")
            assert list(ours) == list(wanted)


async def test_user_orders_have_the_recorded_fields_and_no_others(venue: Client) -> None:
    theirs = recorded("ws/live_transcribed/user_channel_events_open_cancelled_2026-01-03.jsonl")
    async with venue.frames() as frames:
        await frames.subscribe("user")
        await frames.until_acknowledged("user")
        body = order_body("mine", "BUY", "limit_limit_gtc", base_size="1", limit_price="49000", post_only=True)
        order_id = (await venue.call("POST", "/orders", body)).json()["order_id"]
        await venue.call("POST", "/orders/batch_cancel", {"order_ids": [order_id]})
        varying = {"product_id", "limit_price", "order_id", "client_order_id", "creation_time", "retail_portfolio_id"}
        varying |= {"outstanding_hold_amount", "total_value_after_fees"}
        for recorded_event in theirs:
            ours, wanted = (await frames.next("user"))["events"][0]["orders"][0], recorded_event["orders"][0]
            assert ours.keys() == wanted.keys()
            assert {key: ours[key] for key in ours.keys() - varying} == {
                key: wanted[key] for key in wanted.keys() - varying
            }
            same_kind(ours, wanted, "order")
