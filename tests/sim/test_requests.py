"""Whatever a client sends, it gets an answer of the venue's and harms nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import ApiError
from sim.requests import SHAPES, order_of
from tests.sim.builders import at, exchange
from tests.sim.serving import PREFIX, Client, order_body

FIELDS = sorted({field for shape in SHAPES.values() for field in shape.fields})
words = st.one_of(
    st.sampled_from(["1", "0.5", "50000", "-1", "0", "1e9", "1e-9", "NaN", "Infinity", "x", "", "0x1", "9" * 60]),
    st.sampled_from(["2026-01-02T00:00:00Z", "9999-12-31T23:59:59+00:01", "0001-01-01T00:00:00+01:00"]),
    st.sampled_from(["STOP_DIRECTION_STOP_UP", "STOP_DIRECTION_STOP_DOWN"]),
    st.text(max_size=5),
)
anything = st.one_of(words, st.none(), st.booleans(), st.integers(), st.lists(words, max_size=2))
bodies = st.fixed_dictionaries(
    {"client_order_id": st.just("x") | anything, "product_id": st.just("BTC-USD") | anything},
    optional={
        "side": st.sampled_from(["BUY", "SELL"]) | anything,
        "order_configuration": st.dictionaries(
            st.sampled_from(sorted(SHAPES)), st.dictionaries(st.sampled_from(FIELDS), anything, max_size=6), max_size=2
        )
        | anything,
        "leverage": anything,
        "unknown": anything,
    },
)
JUNK = ["", "²", "-1", "1.5", "9" * 5000, "0001-01-01T00:00:00+01:00", "\x00", "null", "%00"]


@given(bodies)
@settings(max_examples=200, deadline=None)
def test_any_body_is_an_order_or_a_400(body: dict[str, Any]) -> None:
    venue = exchange(btc="1")
    status = 200
    try:
        placement = venue.place(order_of(msgspec.json.encode(body)), at(0))
        assert (placement.order is None) != (placement.refusal is None)
    except ApiError as error:
        status = error.status
    assert status in (200, 400)


@given(st.binary(max_size=30))
def test_any_bytes_are_an_order_or_a_400(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        order_of(body)
    assert caught.value.status == 400


async def test_a_body_nested_without_end_is_a_400(venue: Client) -> None:
    deep = order_body("x", "BUY", "market_market_ioc", base_size="1")
    text = msgspec.json.encode(deep).replace(b'"1"', b"[" * 100_000)
    headers = {"Authorization": f"Bearer {venue.token(f'POST {venue.address}{PREFIX}/orders')}"}
    assert (await venue.http.post(f"{PREFIX}/orders", content=text, headers=headers)).status_code == 400
    async with venue.frames() as frames:
        await frames.send('{"type":' + "[" * 100_000)
        assert (await frames.next())["type"] == "error"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/orders/historical/batch", ["limit", "cursor", "start_date", "end_date", "order_status", "sort_by"]),
        ("/orders/historical/fills", ["limit", "cursor", "start_sequence_timestamp", "sort_by"]),
        ("/products/BTC-USD/candles", ["granularity", "start", "end", "limit"]),
        ("/products/BTC-USD/ticker", ["limit", "start", "end"]),
        ("/product_book", ["product_id", "limit", "aggregation_price_increment"]),
        ("/products", ["limit", "offset", "product_ids", "product_type"]),
        ("/accounts", ["limit", "cursor", "retail_portfolio_id"]),
    ],
)
async def test_any_query_is_answered_or_refused(venue: Client, path: str, names: list[str]) -> None:
    await venue.order("mine")
    needed = {"product_id": "BTC-USD", "granularity": "ONE_MINUTE"}
    for name in names:
        for value in JUNK:
            response = await venue.call("GET", path, **{**needed, name: value})
            assert response.status_code in (200, 400, 404), (name, value, response.text)
