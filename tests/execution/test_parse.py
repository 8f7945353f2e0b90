from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import OutcomeUnknown, PerpsError, Rejected
from libs.common.messages import OrderStatus
from services.execution import parse
from tests.recorded import DATA, recorded


def test_a_recorded_success_gives_the_order_id() -> None:
    data = recorded("rest/kmiq/create_limit_order.json").read_bytes()
    assert parse.parse_created(data) == "07f1e718-8ea8-4ece-a2e1-3f00aad7f040"


def test_a_recorded_refusal_gives_the_venues_reason() -> None:
    with pytest.raises(Rejected) as caught:
        parse.parse_created(recorded("rest/kmiq/create_order_failure_no_funds.json").read_bytes())
    assert caught.value.reason == "PREVIEW_INSUFFICIENT_FUND"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ({"new_order_failure_reason": "A", "preview_failure_reason": "B", "error": "C"}, "A"),
        ({"new_order_failure_reason": "UNKNOWN_FAILURE_REASON", "preview_failure_reason": "B", "error": "C"}, "B"),
        ({"error": "C"}, "C"),
    ],
)
def test_the_reason_is_looked_for_in_three_places(failure: dict[str, str], reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        parse.parse_created(json.dumps({"success": False, "error_response": failure}).encode())
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>502</html>",
        b"null",
        b"{}",
        b'{"success":true}',
        b'{"success":true,"success_response":{}}',
        b'{"success":false}',
        b'{"success":false,"error_response":{"error":"UNKNOWN_FAILURE_REASON"}}',
        b'{"success":false,"error_response":{"error":"INVALID_ARGUMENT","message":"DUPLICATE_CLIENT_ORDER_ID"}}',
    ],
)
def test_an_unreadable_answer_to_an_order_is_an_unknown_outcome(data: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        parse.parse_created(data)


def test_a_recorded_filled_market_order_and_its_fill_agree() -> None:
    orders, cursor = parse.parse_orders(recorded("rest/ccxt/list_orders_filled_market_ioc.json").read_bytes())
    fills, _ = parse.parse_fills(recorded("rest/ccxt/list_fills_taker.json").read_bytes())
    assert cursor == "748478308"
    assert orders[0].status is OrderStatus.FILLED
    assert orders[0].filled_qty == fills[0].size == Decimal(10)
    assert (fills[0].price, fills[0].fee, fills[0].liquidity) == (Decimal("0.392"), Decimal("0.03136"), "TAKER")


def test_a_fill_sized_in_the_quote_currency_is_turned_into_base() -> None:
    page = json.loads(recorded("rest/ccxt/list_fills_taker.json").read_text())
    page["fills"][0] |= {"size_in_quote": True, "size": "3.92"}
    assert parse.parse_fills(json.dumps(page).encode())[0][0].size == Decimal(10)


def test_recorded_user_frames_give_orders_in_either_spelling() -> None:
    lines = recorded("ws/live_transcribed/user_channel_events_open_cancelled_2026-01-03.jsonl").read_text().splitlines()
    frames = [json.dumps({"channel": "user", "events": [json.loads(line)]}) for line in lines]
    assert [parse.parse_user_frame(frame)[0].status for frame in frames] == [
        OrderStatus.ACCEPTED,
        OrderStatus.CANCELED,
    ]


def test_a_word_that_we_do_not_know_is_no_status() -> None:
    page = json.loads(recorded("rest/ccxt/list_orders_filled_market_ioc.json").read_text())
    page["orders"][0]["status"] = "UNKNOWN_ORDER_STATUS"
    order = parse.parse_orders(json.dumps(page).encode())[0][0]
    assert (order.status, order.status_word) == (None, "UNKNOWN_ORDER_STATUS")


def test_an_order_that_cannot_be_read_does_not_hide_ours_in_the_same_frame() -> None:
    ours = {"order_id": "v", "client_order_id": "c", "product_id": "BTC-USD", "order_side": "BUY", "status": "OPEN"}
    orders = [{**ours, "order_side": "NEITHER"}, {}, {**ours, "order_id": ""}, ours]
    frame = json.dumps({"channel": "user", "events": [{"type": "snapshot", "orders": orders}]})
    assert [order.client_order_id for order in parse.parse_user_frame(frame)] == ["c"]


def test_the_venues_error_frame_is_a_refusal() -> None:
    with pytest.raises(Rejected, match="authentication failure"):
        parse.parse_user_frame('{"type":"error","message":"authentication failure"}')


PARSERS = (
    parse.parse_created,
    parse.parse_order,
    parse.parse_orders,
    parse.parse_fills,
    parse.parse_accounts,
    parse.parse_fee_rates,
    parse.parse_user_frame,
)


def refused(parser: Callable[[bytes], object], data: bytes) -> str | None:
    """The reason of a refusal, None for a payload that was read; anything else comes through."""
    try:
        parser(data)
    except PerpsError as refusal:
        return str(refusal)
    return None


RECORDED = sorted(DATA.glob("rest/*/*.json")) + sorted(DATA.glob("ws/*/*.json*"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recorded_payload_is_read_or_refused_with_a_reason(path: Path) -> None:
    for data in (path.read_bytes(), *path.read_bytes().splitlines()[:50]):
        for parser in PARSERS:
            reasons = [refusal for refusal in [refused(parser, data)] if refusal is not None]
            assert all(reasons)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["success", "orders", "order", "fills", "events", "channel", "order_id", "price", "size"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_a_decoder_fail_otherwise_than_by_our_errors(data: bytes) -> None:
    for parser in PARSERS:
        refused(parser, data)
