"""What we send: the bodies of create, preview and edit (venue document 2.1). Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from libs.common.messages import ApprovedOrder, OrderType, StopDirection, TimeInForce

Json = dict[str, object]

CONFIGURATIONS = {
    (OrderType.MARKET, TimeInForce.IOC): "market_market_ioc",
    (OrderType.LIMIT, TimeInForce.IOC): "sor_limit_ioc",
    (OrderType.LIMIT, TimeInForce.FOK): "limit_limit_fok",
    (OrderType.LIMIT, TimeInForce.GTC): "limit_limit_gtc",
    (OrderType.LIMIT, TimeInForce.GTD): "limit_limit_gtd",
    (OrderType.STOP_LIMIT, TimeInForce.GTC): "stop_limit_stop_limit_gtc",
    (OrderType.STOP_LIMIT, TimeInForce.GTD): "stop_limit_stop_limit_gtd",
    (OrderType.BRACKET, TimeInForce.GTC): "trigger_bracket_gtc",
    (OrderType.BRACKET, TimeInForce.GTD): "trigger_bracket_gtd",
}
STOP_DIRECTIONS = {StopDirection.UP: "STOP_DIRECTION_STOP_UP", StopDirection.DOWN: "STOP_DIRECTION_STOP_DOWN"}


def create_body(order: ApprovedOrder) -> Json:
    """Body of POST /orders. Risk lets no order pass whose fields do not belong together."""
    return {"client_order_id": order.client_order_id, **preview_body(order)}


def preview_body(order: ApprovedOrder) -> Json:
    """Body of POST /orders/preview: the venue refuses a client_order_id there."""
    key = CONFIGURATIONS[order.order_type, order.time_in_force]
    return {"product_id": order.product_id, "side": str(order.side), "order_configuration": {key: _terms(order)}}


def edit_body(venue_order_id: str, wanted: ApprovedOrder) -> Json:
    """Body of POST /orders/edit and /orders/edit_preview: the new total size and the new price, both always told."""
    return {"order_id": venue_order_id, "price": _needed(wanted.limit_price), "size": plain(wanted.quantity)}


def _terms(order: ApprovedOrder) -> Json:
    terms: Json = {"base_size": plain(order.quantity)}
    if order.order_type is OrderType.MARKET:
        return terms if order.quote_size is None else {"quote_size": plain(order.quote_size)}
    terms["limit_price"] = _needed(order.limit_price)
    match order.order_type:
        case OrderType.STOP_LIMIT:
            assert order.stop_direction is not None, "a stop-limit order has a direction"
            terms["stop_price"] = _needed(order.stop_price)
            terms["stop_direction"] = STOP_DIRECTIONS[order.stop_direction]
        case OrderType.BRACKET:
            terms["stop_trigger_price"] = _needed(order.stop_price)
        case OrderType.LIMIT if order.time_in_force.rests:
            terms["post_only"] = order.post_only
    if order.time_in_force is TimeInForce.GTD:
        assert order.end_time is not None, "an order good till a date has that date"
        terms["end_time"] = rfc3339(order.end_time)
    return terms


def _needed(price: Decimal | None) -> str:
    assert price is not None, "an order of this kind has this price"
    return plain(price)


def plain(number: Decimal) -> str:
    """Never with an exponent, which the venue does not read."""
    return format(number, "f")


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
