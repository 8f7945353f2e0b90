"""What we send, field by field: the venue answers 400 to one that it does not know."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec.structs import replace

from libs.common.messages import ApprovedOrder, OrderType, Side, StopDirection, TimeInForce
from services.execution.bodies import CONFIGURATIONS, create_body, edit_body, preview_body
from tests.execution.fake_venue import ORDER

GTC, GTD, IOC, FOK = TimeInForce.GTC, TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK
END = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
SIZE = {"base_size": "0.00000100"}
LIMIT = {**SIZE, "limit_price": "100000"}
STOP = {**LIMIT, "stop_price": "99000.5", "stop_direction": "STOP_DIRECTION_STOP_DOWN"}
BRACKET = {**LIMIT, "stop_trigger_price": "99000.5"}
ENDS = {"end_time": "2026-03-01T12:00:00.000005Z"}


def order(order_type: OrderType, time_in_force: TimeInForce, **changes: object) -> ApprovedOrder:
    limit = None if order_type is OrderType.MARKET else Decimal("1E+5")
    stops = order_type in (OrderType.STOP_LIMIT, OrderType.BRACKET)
    return replace(
        ORDER,
        order_type=order_type,
        time_in_force=time_in_force,
        limit_price=limit,
        stop_price=Decimal("99000.5") if stops else None,
        stop_direction=StopDirection.DOWN if order_type is OrderType.STOP_LIMIT else None,
        end_time=END if time_in_force is GTD else None,
        **changes,
    )


@pytest.mark.parametrize(
    ("order", "key", "terms"),
    [
        (order(OrderType.MARKET, IOC), "market_market_ioc", SIZE),
        (order(OrderType.MARKET, IOC, quote_size=Decimal("1E+2")), "market_market_ioc", {"quote_size": "100"}),
        (order(OrderType.LIMIT, IOC), "sor_limit_ioc", LIMIT),
        (order(OrderType.LIMIT, FOK), "limit_limit_fok", LIMIT),
        (order(OrderType.LIMIT, GTC), "limit_limit_gtc", {**LIMIT, "post_only": False}),
        (order(OrderType.LIMIT, GTC, post_only=True), "limit_limit_gtc", {**LIMIT, "post_only": True}),
        (order(OrderType.LIMIT, GTD, post_only=True), "limit_limit_gtd", {**LIMIT, **ENDS, "post_only": True}),
        (order(OrderType.STOP_LIMIT, GTC), "stop_limit_stop_limit_gtc", STOP),
        (order(OrderType.STOP_LIMIT, GTD), "stop_limit_stop_limit_gtd", {**STOP, **ENDS}),
        (order(OrderType.BRACKET, GTC), "trigger_bracket_gtc", BRACKET),
        (order(OrderType.BRACKET, GTD), "trigger_bracket_gtd", {**BRACKET, **ENDS}),
    ],
)
def test_each_kind_of_order_has_the_venues_body_with_plain_numbers(
    order: ApprovedOrder, key: str, terms: dict[str, object]
) -> None:
    body = {"product_id": "BTC-USD", "side": "BUY", "order_configuration": {key: terms}}
    assert preview_body(order) == body
    assert create_body(order) == {"client_order_id": "c1", **body}


def test_a_stop_that_waits_for_a_rise_says_so() -> None:
    rising = replace(order(OrderType.STOP_LIMIT, GTC), side=Side.SELL, stop_direction=StopDirection.UP)
    configuration = create_body(rising)["order_configuration"]
    assert configuration == {
        "stop_limit_stop_limit_gtc": {**STOP, "stop_direction": "STOP_DIRECTION_STOP_UP"},
    }


def test_an_edit_tells_the_new_total_and_the_new_price() -> None:
    wanted = order(OrderType.LIMIT, GTC)
    assert edit_body("v1", wanted) == {"order_id": "v1", "price": "100000", "size": "0.00000100"}


def test_no_two_kinds_share_a_configuration() -> None:
    assert len(set(CONFIGURATIONS.values())) == len(CONFIGURATIONS) == 9
