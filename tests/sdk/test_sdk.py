"""The official Python SDK, unmodified and in its own environment, against the simulated venue over real sockets.

`COINBASE_SDK_PYTHON` names the Python of an environment made from `requirements.lock` beside this file.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.commands import environment, perps_bot, short_folder
from tests.sim.test_process import running

pytestmark = [pytest.mark.extras, pytest.mark.integration, pytest.mark.timeout(120)]
CONVERSATION = Path(__file__).with_name("conversation.py")
SAME = ("account snapshot", "orders list", "fills list", "orders list --open")
FINAL = {"sdk-buy-quote": "FILLED", "sdk-buy-base": "FILLED", "sdk-sell": "FILLED", "sdk-cancel": "CANCELLED"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Json, Json]]:
    """What the SDK was told, and right after it what `perps-bot` says of the same account; the bus is down."""
    python = os.environ.get("COINBASE_SDK_PYTHON")
    if not python:
        pytest.skip("COINBASE_SDK_PYTHON is not set: name a Python that has tests/sdk/requirements.lock installed")
    with short_folder() as folder:
        env = environment(folder / "var")
        port = int(env["PERPS_SIM_PORT"])
        with running(folder, port) as venue:
            # The SDK's own frame type wants a client_id on every frame, which the venue leaves out on market frames.
            httpx.post(f"http://{venue.address}/sim/faults", json={"client_id_on_market": True}).raise_for_status()
            command = [python, str(CONVERSATION), venue.address, str(folder / "var" / "sim" / "cdp_api_key.json")]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            yield json.loads(done.stdout), {name: perps_bot_says(env, *name.split()) for name in SAME}


def perps_bot_says(env: dict[str, str], *arguments: str) -> Json:
    done = perps_bot(*arguments, env=env)
    assert done.returncode == 0, done.stderr
    found: Json = json.loads(done.stdout)
    return found


def test_the_sdk_reads_products_candles_book_and_trades(told: tuple[Json, Json]) -> None:
    market = told[0]["market"]
    assert market["products"] == ["BTC-USD", "ETH-USD"]
    assert Decimal(market["product"]["price"]) > 0
    starts = [int(candle["start"]) for candle in market["candles"]]
    assert len(starts) == 10
    assert starts == sorted(starts, reverse=True)
    assert Decimal(market["book"]["bids"][0]["price"]) < Decimal(market["book"]["asks"][0]["price"])
    assert [book["product_id"] for book in market["best"]] == ["BTC-USD"]
    assert len(market["trades"]) == 3


def test_the_sdk_previews_creates_edits_cancels_and_lists_orders(told: tuple[Json, Json]) -> None:
    sdk = told[0]
    assert sdk["preview"]["errs"] == []
    assert Decimal(sdk["preview"]["order_total"]) <= 250
    assert all(order["success"] for order in sdk["created"])
    assert sdk["again"]["order_id"] == sdk["ids"]["sdk-buy-base"], "the same client order id is the same order"
    assert sdk["refused"]["error_response"]["preview_failure_reason"] == "PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL"
    assert sdk["edit_preview"]["errors"] == []
    assert sdk["edited"]["success"]
    assert [result["success"] for result in sdk["canceled"]["results"]] == [True, False]
    assert {order["client_order_id"]: order["status"] for order in sdk["orders"]} == {**FINAL, "sdk-open": "OPEN"}
    [open_order] = sdk["open"]
    assert open_order["order_configuration"]["limit_limit_gtc"]["base_size"] == "0.004", "the edit is in force"
    assert [entry["size"] for entry in open_order["edit_history"]] == ["0.004"]
    assert sdk["order"]["average_filled_price"] != "0"


def test_the_sdk_pages_through_the_fills_of_its_orders(told: tuple[Json, Json]) -> None:
    sdk = told[0]
    fills = sdk["fills"]
    assert len({fill["entry_id"] for fill in fills}) == len(fills)
    filled = [sdk["ids"][name] for name, status in FINAL.items() if status == "FILLED"]
    assert {fill["order_id"] for fill in fills} == set(filled)
    base = [Decimal(fill["size"]) for fill in fills if fill["order_id"] == sdk["ids"]["sdk-buy-base"]]
    assert sum(base) == Decimal("0.003")


def test_the_sdk_reads_accounts_portfolios_fees_and_the_key(told: tuple[Json, Json]) -> None:
    sdk = told[0]
    assert {account["currency"] for account in sdk["accounts"]} == {"USD", "BTC", "ETH"}
    assert sdk["account"] == sdk["accounts"][0]
    assert sdk["breakdown"]["portfolio"]["uuid"] == sdk["portfolios"][0]["uuid"] == sdk["key"]["portfolio_uuid"]
    assert sdk["fees"]["fee_tier"]["taker_fee_rate"] == "0.012"
    assert sdk["key"]["can_trade"]


def test_the_sdk_hears_every_channel_without_a_gap(told: tuple[Json, Json]) -> None:
    sdk = told[0]
    for numbers in sdk["numbers"]:
        assert numbers == list(range(len(numbers)))
    kinds = {channel: frames[0]["events"][0].get("type") for channel, frames in sdk["frames"].items()}
    assert kinds == {"ticker": "snapshot", "market_trades": "snapshot", "l2_data": "snapshot", "heartbeats": None}
    book = sdk["frames"]["l2_data"][0]["events"][0]["updates"]
    assert {level["side"] for level in book} == {"bid", "offer"}
    states: dict[str, list[str]] = {}
    for order in sdk["user"]:
        states.setdefault(order["client_order_id"], []).append(order["status"])
    assert {name: seen[-1] for name, seen in states.items()} == {**FINAL, "sdk-open": "OPEN"}


def test_perps_bot_says_the_same_of_the_account_as_the_sdk(told: tuple[Json, Json]) -> None:
    sdk, bot = told
    snapshot = bot["account snapshot"]
    assert {
        account["currency"]: (Decimal(account["available_balance"]["value"]), Decimal(account["hold"]["value"]))
        for account in sdk["accounts"]
    } == {
        currency: (Decimal(balance["available"]), Decimal(balance["hold"]))
        for currency, balance in snapshot["balances"].items()
    }
    tier, ours = sdk["fees"]["fee_tier"], snapshot["fee_tier"]
    assert [tier["pricing_tier"], tier["taker_fee_rate"], tier["maker_fee_rate"]] == [
        ours["pricing_tier"],
        ours["taker_fee_rate"],
        ours["maker_fee_rate"],
    ]
    assert {name: sdk["key"][name] for name in ("can_view", "can_trade", "can_transfer", "portfolio_uuid")} == {
        name: snapshot["permissions"][name] for name in ("can_view", "can_trade", "can_transfer", "portfolio_uuid")
    }
    assert [portfolio["uuid"] for portfolio in sdk["portfolios"]] == [each["uuid"] for each in snapshot["portfolios"]]
    assert snapshot["unavailable"] == {}


@pytest.mark.parametrize(("listing", "theirs"), [("orders list", "orders"), ("orders list --open", "open")])
def test_perps_bot_lists_the_same_orders_as_the_sdk(told: tuple[Json, Json], listing: str, theirs: str) -> None:
    sdk, bot = told
    assert sdk[theirs]
    assert [
        (
            order["order_id"],
            order["client_order_id"],
            order["product_id"],
            order["side"],
            order["status"],
            Decimal(order["filled_size"]),
            Decimal(order["filled_value"]),
            Decimal(order["total_fees"]),
        )
        for order in sdk[theirs]
    ] == [
        (
            order["venue_order_id"],
            order["client_order_id"],
            order["product_id"],
            order["side"],
            order["status_word"],
            Decimal(order["filled_qty"]),
            Decimal(order["filled_value"]),
            Decimal(order["fees"]),
        )
        for order in bot[listing]["orders"]
    ]


def test_perps_bot_lists_the_same_fills_as_the_sdk(told: tuple[Json, Json]) -> None:
    sdk, bot = told
    same = ("entry_id", "trade_id", "product_id", "side")
    assert [
        (
            *(fill[name] for name in same),
            fill["order_id"],
            *(Decimal(fill[name]) for name in ("price", "size", "commission")),
        )
        for fill in sdk["fills"]
    ] == [
        (
            *(fill[name] for name in same),
            fill["venue_order_id"],
            # The venue tells fills of a market order by quote size in the quote currency.
            *(Decimal(figure) for figure in (fill["price"], fill["value"] or fill["size"], fill["fee"])),
        )
        for fill in bot["fills list"]["fills"]
    ]
