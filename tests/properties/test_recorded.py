"""Every recorded payload goes through every decoder. `pytest -s` prints what came of it, folder by folder."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from services.execution import parse
from tests.properties.payloads import (
    ANSWERS,
    FRAMES,
    MARKET_ANSWERS,
    MARKET_FRAMES,
    TRADING_ANSWERS,
    USER_FRAMES,
    Payload,
    payloads,
    refusal,
)
from tests.recorded import DATA

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="no recorded data beside the repository")
MADE_UP = "unreadable answer"  # an example of the documentation, with values that the venue cannot mean
# The answers to requests that we make: whose they are, and the reason of those that must be refused.
OURS: dict[str, tuple[str, str | None]] = {
    "kmiq/get_product_candles.json": ("candles", None),
    "kmiq/get_product_candles_all_call_1.json": ("candles", None),
    "kmiq/get_product_candles_all_call_2.json": ("candles", None),
    "nautilus/http_candles.json": ("candles", None),
    "kmiq/get_trades.json": ("trades", None),
    "kmiq/get_product.json": ("product", None),
    "nautilus/http_product.json": ("product", None),
    "fastmm/product_btc_usd_2026-09-30.json": ("product", None),
    "kmiq/create_buy_market_order.json": ("created", None),
    "kmiq/create_limit_order.json": ("created", None),
    "kmiq/create_order_failure_no_funds.json": ("created", "PREVIEW_INSUFFICIENT_FUND"),
    "kmiq/default_order_failure.json": ("created", "PREVIEW_INSUFFICIENT_FUND"),
    "coinbase_net/PlaceOrder.json": ("created", None),
    "kmiq/edit_order.json": ("edited", None),
    "coinbase_net/EditOrder.json": ("edited", None),
    "kmiq/edit_order_preview.json": ("preview", "not a number"),
    "kmiq/cancel_orders.json": ("cancelled", None),
    "coinbase_net/CancelOrders.json": ("cancelled", None),
    "coinbase_net/GetOrder.json": ("order", None),
    "nautilus/http_order.json": ("order", None),
    "kmiq/list_orders.json": ("orders", None),
    "ccxt/list_orders_filled_market_ioc.json": ("orders", None),
    "fastmm/open_orders_empty_2026-09-30.json": ("orders", None),
    "coinbase_net/GetOrders.json": ("orders", None),
    "kmiq/list_fills.json": ("fills", None),
    "ccxt/list_fills_taker.json": ("fills", None),
    "kmiq/list_accounts.json": ("accounts", None),
    "nautilus/http_accounts.json": ("accounts", None),
    "coinbase_net/GetAccounts.json": ("accounts", None),
    "kmiq/get_transactions_summary.json": ("fee tier", None),
    "coinbase_net/GetFeeInfo2.json": ("fee tier", None),
    "coinbase_net/GetApiKeyInfo.json": ("permissions", None),
    "kmiq/list_portfolios.json": ("portfolios", None),
    "kmiq/get_unix_time.json": ("time", None),
    "fastmm/time_2026-09-30.json": ("time", None),
}
LISTS = {"candles": "candles", "trades": "trades", "orders": "orders", "fills": "fills", "portfolios": "portfolios"}
PRODUCT_LISTS = ("kmiq/list_products.json", "nautilus/http_products_future.json", "coinbase_net/GetSymbols.json")
FOLDERS = {
    "ws/coinbase_net",
    "ws/cryptofeed_legacy",
    "ws/cryptonorm",
    "ws/live_transcribed",
    "ws/nautilus",
    "rest/ccxt",
    "rest/coinbase_net",
    "rest/fastmm",
    "rest/kmiq",
    "rest/nautilus",
    "rest/vcr",
}


def owner(payload: Payload) -> str:
    """The decoder of the answer to a request that we make; empty for any other answer."""
    if payload.file in PRODUCT_LISTS and not payload.name.endswith("#0"):
        return "product"
    return OURS.get(payload.file, ("", None))[0]


def answers_recorded() -> list[Payload]:
    return [payload for payload in payloads() if not payload.is_frame]


def test_no_folder_of_the_recorded_data_is_left_out() -> None:
    assert {payload.folder for payload in payloads()} == FOLDERS
    files = {str(path.relative_to(DATA)) for folder in FOLDERS for path in (DATA / folder).iterdir()}
    read = {f"{payload.folder}/{payload.name.partition('#')[0]}" for payload in payloads()}
    assert read == files
    assert len(payloads()) > 10_700


def test_every_payload_is_read_by_every_decoder_or_refused_with_a_reason() -> None:
    """Also by decoders that it was never meant for: what comes back on a path is the venue's choice."""
    for payload in payloads():
        for decoder in (FRAMES | ANSWERS).values():
            refusal(decoder, payload.data)


def test_answers_to_our_requests_are_read_by_their_decoder() -> None:
    found = {payload.file for payload in answers_recorded()}
    assert set(OURS) <= found
    for payload in answers_recorded():
        if name := owner(payload):
            expected = OURS.get(payload.file, ("", None))[1]
            assert refusal(ANSWERS[name], payload.data) == expected, payload.name


def test_answers_that_are_not_ours_are_refused_by_every_decoder() -> None:
    strangers = [payload for payload in answers_recorded() if not owner(payload)]
    assert len(strangers) > 700
    for payload in strangers:
        taken = [name for name, decoder in ANSWERS.items() if refusal(decoder, payload.data) is None]
        assert taken == [], payload.name


def test_nothing_of_a_recorded_list_is_lost_but_orders_without_a_side() -> None:
    counted = 0
    for payload in answers_recorded():
        name = owner(payload)
        if name in LISTS and refusal(ANSWERS[name], payload.data) is None:
            read: Any = ANSWERS[name](payload.data)
            items = read[0] if name in ("orders", "fills") else read
            listed = json.loads(payload.data)[LISTS[name]]
            known = [item for item in listed if name != "orders" or item["side"] in ("BUY", "SELL")]
            assert len(items) == len(known), payload.name
            counted += len(items)
    assert counted > 700


def test_recorded_fills_and_orders_carry_the_venue_s_own_figures() -> None:
    """Filled size, value and fees of an order are the sums of its fills, where both were recorded."""
    texts = {payload.file: payload.data for payload in answers_recorded()}
    (order,), _ = parse.parse_orders(texts["ccxt/list_orders_filled_market_ioc.json"])
    fills, _ = parse.parse_fills(texts["ccxt/list_fills_taker.json"])
    assert order.filled_qty == sum(fill.size for fill in fills)
    assert order.filled_value == sum(fill.quote_value for fill in fills)
    assert order.fees == sum(fill.fee for fill in fills)


def test_user_frames_of_the_present_api_give_their_orders() -> None:
    wanted: list[Any] = []
    given: list[Any] = []
    for payload in payloads():
        if payload.is_frame and b'"orders"' in payload.data and payload.folder != "ws/cryptofeed_legacy":
            body = json.loads(payload.data)
            # Some were kept without their envelope.
            frame: Any = body if "channel" in body else {"channel": "user", "sequence_num": 0, "events": [body]}
            wanted += [order["order_id"] for event in frame["events"] for order in event["orders"]]
            given += [order.venue_order_id for order in parse.parse_user_frame(json.dumps(frame)).orders]
    assert given == wanted
    assert len(given) == 4


def test_the_table_of_what_was_read_and_refused() -> None:
    rows: dict[tuple[str, str], Counter[str]] = {}
    for payload in payloads():
        sides = (MARKET_FRAMES, USER_FRAMES) if payload.is_frame else (MARKET_ANSWERS, TRADING_ANSWERS)
        for side, decoders in zip(("marketdata", "execution"), sides, strict=True):
            outcomes = [outcome(payload, name) for name in decoders if payload.is_frame or owner(payload) == name]
            # What is nobody's answer has the reason of whichever decoder comes first: they all refuse it.
            outcomes = outcomes or [f"another's ({outcome(payload, next(iter(decoders)))})"]
            rows.setdefault((payload.folder, side), Counter()).update(outcomes)
    print(f"\n{'folder':22} {'decoders of':12} {'payloads':>8} {'decoded':>8}  refused")
    for (folder, side), outcomes_of in sorted(rows.items()):
        refused = ", ".join(f"{reason} {count}" for reason, count in sorted(outcomes_of.items()) if reason != "decoded")
        print(f"{folder:22} {side:12} {outcomes_of.total():8} {outcomes_of['decoded']:8}  {refused}")
    assert {folder for folder, _ in rows} == FOLDERS


def outcome(payload: Payload, name: str) -> str:
    reason = refusal((FRAMES | ANSWERS)[name], payload.data)
    if name == "user frame" and reason is None:
        frame = parse.parse_user_frame(payload.data)
        return "decoded" if frame.subscribed or frame.orders else "another channel"
    return reason or "decoded"
