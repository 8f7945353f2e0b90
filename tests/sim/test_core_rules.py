"""Why orders are refused, by the venue's own names."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from sim.faults import flagged
from sim.products import Flags, spot_product
from sim.rules import Refusal
from tests.sim.builders import BTC, at, exchange, order

LIMIT = "limit_limit_gtc"
MARKET = "market_market_ioc"


def refusal(side: str, key: str, venue: Any = None, **fields: Any) -> Refusal:
    placement = (venue or exchange(btc="1")).place(order(side, key, **fields), at(0))
    assert placement.refusal is not None
    assert placement.events == []
    return placement.refusal


GTD = {"base_size": "1", "limit_price": "49000"}
BRACKET = {"base_size": "1", "limit_price": "60000", "stop_trigger_price": "40000"}


@pytest.mark.parametrize(
    ("side", "key", "fields", "name"),
    [
        ("BUY", LIMIT, {"base_size": "3", "limit_price": "49000"}, "INSUFFICIENT_FUND"),
        ("SELL", MARKET, {"base_size": "1.1"}, "INSUFFICIENT_FUND"),
        ("BUY", MARKET, {"quote_size": "100001"}, "INSUFFICIENT_FUND"),
        ("BUY", MARKET, {"base_size": "2"}, "INSUFFICIENT_FUND"),
        ("BUY", MARKET, {"base_size": "0.123456789"}, "INVALID_SIZE_PRECISION"),
        ("SELL", MARKET, {"quote_size": "10"}, "UNSUPPORTED_ORDER_CONFIGURATION"),
        ("BUY", "market_market_fok", {"base_size": "1"}, "UNSUPPORTED_ORDER_CONFIGURATION"),
        ("SELL", "trigger_bracket_gtc", {**BRACKET, "stop_trigger_price": "60000"}, "INVALID_BRACKET_PRICES"),
        ("BUY", "trigger_bracket_gtc", BRACKET, "INVALID_BRACKET_PRICES"),
        ("BUY", LIMIT, {"base_size": "1", "limit_price": "49000.001"}, "INVALID_PRICE_PRECISION"),
        ("BUY", LIMIT, {"base_size": "1", "limit_price": "0"}, "INVALID_LIMIT_PRICE"),
        ("BUY", LIMIT, {"base_size": "1", "limit_price": "50005", "post_only": True}, "INVALID_LIMIT_PRICE_POST_ONLY"),
        ("BUY", "limit_limit_gtd", GTD, "GTD_ORDERS_MUST_HAVE_END_TIME"),
        ("BUY", "limit_limit_gtd", {**GTD, "end_time": "2025-12-31T23:59:59Z"}, "END_TIME_IS_IN_THE_PAST"),
    ],
)
def test_the_venue_refuses(side: str, key: str, fields: dict[str, Any], name: str) -> None:
    found = refusal(side, key, **fields)
    assert (found.exchange, found.preview) == (name, f"PREVIEW_{name}")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"base_size": "0"}, "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL"),
        ({"base_size": "-1"}, "PREVIEW_INVALID_BASE_SIZE_TOO_SMALL"),
        ({"base_size": "3401"}, "PREVIEW_INVALID_BASE_SIZE_TOO_LARGE"),
        ({"quote_size": "0.99"}, "PREVIEW_INVALID_QUOTE_SIZE_TOO_SMALL"),
        ({"quote_size": "150000001"}, "PREVIEW_INVALID_QUOTE_SIZE_TOO_LARGE"),
        ({"quote_size": "10.001"}, "PREVIEW_INVALID_QUOTE_SIZE_PRECISION"),
        ({"base_size": "abc"}, "PREVIEW_NON_NUMERIC_ORDER_SIZE"),
        ({"base_size": "NaN"}, "PREVIEW_NON_NUMERIC_ORDER_SIZE"),
        ({}, ""),
        ({"base_size": "1", "quote_size": "10"}, ""),
    ],
)
def test_some_reasons_are_known_to_previews_only(fields: dict[str, Any], name: str) -> None:
    found = refusal("BUY", MARKET, **fields)
    assert (found.exchange, found.preview) == ("", name)


@pytest.mark.parametrize(
    ("direction", "stop_price", "name"),
    [
        ("STOP_DIRECTION_STOP_UP", "50000", "PREVIEW_STOP_PRICE_BELOW_LAST_TRADE_PRICE"),
        ("STOP_DIRECTION_STOP_DOWN", "50000", "PREVIEW_STOP_PRICE_ABOVE_LAST_TRADE_PRICE"),
    ],
)
def test_a_stop_on_the_wrong_side_of_the_market_is_refused(direction: str, stop_price: str, name: str) -> None:
    fields = {"base_size": "1", "limit_price": "50000", "stop_price": stop_price, "stop_direction": direction}
    assert refusal("SELL", "stop_limit_stop_limit_gtc", **fields).preview == name


def test_stops_are_unsupported_where_the_switch_says_so() -> None:
    venue = exchange(btc="1", stop_limit_allowed=False)
    fields = {"base_size": "1", "limit_price": "48000", "stop_price": "49000"}
    found = refusal("SELL", "stop_limit_stop_limit_gtc", venue, **fields, stop_direction="STOP_DIRECTION_STOP_DOWN")
    assert found.exchange == "UNSUPPORTED_ORDER_CONFIGURATION"


def test_a_product_that_is_not_listed_is_unknown() -> None:
    placement = exchange().place(order("BUY", MARKET, product_id="NOPE-USD", base_size="1"), at(0))
    assert placement.refusal is not None
    assert placement.refusal.exchange == "INVALID_PRODUCT_ID"


def test_without_a_price_nothing_is_tradable() -> None:
    found = refusal("BUY", MARKET, exchange(price=None), base_size="0.1")
    assert found.exchange == "INVALID_NO_LIQUIDITY"


@pytest.mark.parametrize(
    ("flags", "key", "name"),
    [
        (Flags(trading_disabled=True), LIMIT, "TRADING_DISABLED"),
        (Flags(status="offline"), LIMIT, "TRADING_DISABLED"),
        (Flags(is_disabled=True), LIMIT, "UNTRADABLE_PRODUCT"),
        (Flags(view_only=True), LIMIT, "UNTRADABLE_PRODUCT"),
        (Flags(status="delisted"), LIMIT, "UNTRADABLE_PRODUCT"),
        (Flags(cancel_only=True), LIMIT, "ORDER_ENTRY_DISABLED"),
        (Flags(limit_only=True), MARKET, "PREVIEW_NOT_ALLOWED_BY_MARKET_STATE"),
        (Flags(post_only=True), LIMIT, "PREVIEW_NOT_ALLOWED_BY_MARKET_STATE"),
        (Flags(auction_mode=True), MARKET, "PREVIEW_NOT_ALLOWED_BY_MARKET_STATE"),
    ],
)
def test_product_flags_decide_what_may_be_ordered(flags: Flags, key: str, name: str) -> None:
    venue = exchange()
    venue.products[BTC] = flagged(spot_product(BTC), flags)
    fields = {"base_size": "0.1"} | ({"limit_price": "49000"} if key == LIMIT else {})
    found = refusal("BUY", key, venue, **fields)
    assert name in (found.exchange, found.preview)


def test_limit_only_takes_limit_orders_and_post_only_takes_post_only_ones() -> None:
    venue = exchange()
    venue.products[BTC] = replace(venue.products[BTC], limit_only=True, post_only=True)
    fields: dict[str, Any] = {"base_size": "0.1", "limit_price": "49000", "post_only": True}
    assert venue.place(order("BUY", LIMIT, **fields), at(0)).refusal is None


def test_a_limit_order_sized_in_quote_buys_what_that_is_worth_at_its_limit() -> None:
    placement = exchange().place(order("BUY", LIMIT, quote_size="490", limit_price="49000"), at(0))
    assert placement.order is not None
    assert placement.order.base_size is not None
    assert str(placement.order.base_size.normalize()) == "0.01"
