"""Reading REST answers, recorded ones and broken ones."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import Rejected
from services.marketdata.wire import Bucket, parse_candles, parse_product, parse_trades

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "rest"
needs_recordings = pytest.mark.skipif(not RECORDED.exists(), reason=f"no recorded answers at {RECORDED.name}")
RULES = {
    "product_id": "BTC-USD",
    "base_currency_id": "BTC",
    "quote_currency_id": "USD",
    "base_increment": "0.00000001",
    "quote_increment": "0.01",
    "base_min_size": "0.00000001",
    "base_max_size": "3400",
    "quote_min_size": "1",
    "quote_max_size": "150000000",
    "status": "online",
}


def product_answer(**others: object) -> bytes:
    return msgspec.json.encode(RULES | others)


def candle_answer(**others: object) -> bytes:
    plain = {"start": "1712192400", "low": "1", "high": "4", "open": "2", "close": "3", "volume": "5"}
    return msgspec.json.encode({"candles": [plain | others]})


def test_candles_are_read_in_the_venue_s_own_order_of_columns() -> None:
    numbers = (Decimal(2), Decimal(4), Decimal(1), Decimal(3), Decimal(5))
    assert parse_candles(candle_answer()) == (Bucket(1712192400, *numbers),)


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ({"open": "NaN"}, "bad_number"),
        ({"volume": "-1"}, "bad_number"),
        ({"low": "0"}, "bad_number"),
        ({"high": "1"}, "bad_candle"),
        ({"low": "2.5"}, "bad_candle"),
        ({"start": "99999999999999"}, "bad_candle"),
        ({"close": ""}, "wrong_shape"),
    ],
)
def test_a_candle_that_cannot_be_is_rejected(others: dict[str, str], reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse_candles(candle_answer(**others))
    assert caught.value.reason == reason


def test_a_product_s_flags_and_steps_are_read() -> None:
    product = parse_product(product_answer(limit_only=True, price_increment="0.5", unknown={"x": 1}))
    assert (product.limit_only, product.cancel_only, product.price_increment) == (True, False, Decimal("0.5"))


def test_a_product_without_a_price_increment_has_that_of_its_quote_currency() -> None:
    assert parse_product(product_answer()).price_increment == Decimal("0.01")


@pytest.mark.parametrize("others", [{"base_increment": "0"}, {"base_min_size": "Infinity"}, {"quote_increment": ""}])
def test_rules_that_nothing_can_be_rounded_to_are_rejected(others: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        parse_product(product_answer(**others))


def test_an_exponent_that_no_number_can_have_is_rejected() -> None:
    with pytest.raises(Rejected, match="bad_number"):
        parse_product(product_answer(volume_24h=1).replace(b'"volume_24h":1', b'"volume_24h":1e99999999999999999999'))


@pytest.mark.parametrize("parse", [parse_candles, parse_trades, parse_product])
@pytest.mark.parametrize("data", [b"<html>", b"", b"[]", b"{}", b'{"candles":null,"trades":[{}]}', b"[" * 100_000])
def test_an_answer_of_another_shape_is_rejected(parse: object, data: bytes) -> None:
    assert callable(parse)
    with pytest.raises(Rejected):
        parse(data)


@given(st.binary(max_size=200))
def test_arbitrary_answers_are_rejected_and_never_raise_anything_else(data: bytes) -> None:
    for parse in (parse_candles, parse_trades, parse_product):
        with pytest.raises(Rejected):
            parse(data)


@needs_recordings
def test_recorded_answers_are_read() -> None:
    assert len(parse_trades((RECORDED / "kmiq" / "get_trades.json").read_bytes())) == 100
    for name in (
        "kmiq/get_product_candles.json",
        "kmiq/get_product_candles_all_call_1.json",
        "nautilus/http_candles.json",
    ):
        assert parse_candles((RECORDED / name).read_bytes())
    for name in ("fastmm/product_btc_usd_2026-09-30.json", "nautilus/http_product.json", "kmiq/get_product.json"):
        product = parse_product((RECORDED / name).read_bytes())
        assert (product.base_currency, product.quote_currency, product.status) == ("BTC", "USD", "online")
