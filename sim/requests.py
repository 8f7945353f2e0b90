"""Order requests as clients send them, read as strictly as the venue's protobuf-JSON reader reads them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from sim.columns import read_iso
from sim.errors import invalid_argument, proto
from sim.orders import Kind, NewOrder, StopDirection, TimeInForce
from sim.ticks import Side

Body = dict[str, Any]


class Shape(NamedTuple):
    """What an order_configuration key stands for, and the fields that it may hold."""

    kind: Kind
    time_in_force: TimeInForce
    fields: frozenset[str]
    supported: bool = True


def _shape(kind: Kind, time_in_force: TimeInForce, fields: str, supported: bool = True) -> Shape:
    return Shape(kind, time_in_force, frozenset(fields.split()), supported)


MARKET = "quote_size base_size rfq_disabled rfq_enabled reduce_only"
LIMIT = "quote_size base_size limit_price rfq_disabled reduce_only"
STOP = "base_size limit_price stop_price stop_direction"
BRACKET = "base_size limit_price stop_trigger_price"
SHAPES = {
    "market_market_ioc": _shape(Kind.MARKET, TimeInForce.IOC, MARKET),
    "market_market_fok": _shape(Kind.MARKET, TimeInForce.FOK, MARKET, supported=False),
    "sor_limit_ioc": _shape(Kind.LIMIT, TimeInForce.IOC, LIMIT),
    "limit_limit_gtc": _shape(Kind.LIMIT, TimeInForce.GTC, f"{LIMIT} post_only"),
    "limit_limit_gtd": _shape(Kind.LIMIT, TimeInForce.GTD, f"{LIMIT} post_only end_time"),
    "limit_limit_fok": _shape(Kind.LIMIT, TimeInForce.FOK, LIMIT),
    "stop_limit_stop_limit_gtc": _shape(Kind.STOP_LIMIT, TimeInForce.GTC, STOP),
    "stop_limit_stop_limit_gtd": _shape(Kind.STOP_LIMIT, TimeInForce.GTD, f"{STOP} end_time"),
    "trigger_bracket_gtc": _shape(Kind.BRACKET, TimeInForce.GTC, BRACKET),
    "trigger_bracket_gtd": _shape(Kind.BRACKET, TimeInForce.GTD, f"{BRACKET} end_time"),
    "twap_limit_gtd": _shape(
        Kind.LIMIT, TimeInForce.GTD, f"{LIMIT} start_time end_time number_buckets bucket_size bucket_duration", False
    ),
    "scaled_limit_gtc": _shape(Kind.LIMIT, TimeInForce.GTC, f"{LIMIT} orders num_orders", False),
}
BOOLEANS = frozenset({"post_only", "rfq_disabled", "rfq_enabled", "reduce_only"})
FIELDS = frozenset(
    {
        "client_order_id",
        "preview_id",
        "product_id",
        "side",
        "order_configuration",
        "retail_portfolio_id",
        "self_trade_prevention_id",
        "leverage",
        "margin_type",
        "attached_order_configuration",
        "sor_preference",
        "prediction_metadata",
    }
)


def json_object(body: bytes, fields: frozenset[str]) -> Body:
    """The body as an object that holds none but these fields. Raises ApiError."""
    try:
        found = msgspec.json.decode(body, type=Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise invalid_argument(f"proto: syntax error: {error}") from None
    _known(body, found, fields)
    return found


def order_of(body: bytes, preview: bool = False) -> NewOrder:
    """An order request. Raises ApiError where the venue answers 400 instead of a failure reason."""
    found = json_object(body, FIELDS)
    for name in ("product_id",) if preview else ("client_order_id", "product_id"):
        if not isinstance(found.get(name), str) or not found[name]:
            raise invalid_argument(f"{name} is missing")
    if found.get("side") not in ("BUY", "SELL"):
        raise invalid_argument("side is missing or not a side")
    configuration = found.get("order_configuration")
    if not isinstance(configuration, dict) or len(configuration) != 1:
        raise invalid_argument("order_configuration needs exactly one entry")
    _known(body, configuration, SHAPES.keys())
    key, values = next(iter(configuration.items()))
    if not isinstance(values, dict):
        raise proto(body, key, "syntax error: unexpected token")
    return _order(body, found, SHAPES[key], values)


def _order(body: bytes, found: Body, shape: Shape, values: Body) -> NewOrder:
    _known(body, values, shape.fields)
    if not shape.supported:
        return _request(found, shape, {})
    values = {name: value for name, value in values.items() if value is not None and value != ""}
    for name, value in values.items():
        wanted = bool if name in BOOLEANS else str
        if not isinstance(value, wanted):
            raise proto(body, name, f"invalid value for {wanted.__name__} type: {value}")
    amounts = {
        name: amount(values[name]) if name in values else None
        for name in ("base_size", "quote_size", "limit_price", "stop_price", "stop_trigger_price")
    }
    numeric = all(value is not None for name, value in amounts.items() if name in values)
    stop_direction, trigger_price = _stop_direction(body, values), amounts.pop("stop_trigger_price")
    if shape.kind is Kind.BRACKET:
        amounts["stop_price"] = trigger_price
        stop_direction = StopDirection.UP if found["side"] == Side.BUY else StopDirection.DOWN
    return _request(
        found,
        shape,
        {
            **amounts,
            "numeric": numeric,
            "end_time": _time(body, "end_time", values["end_time"]) if "end_time" in values else None,
            "post_only": values.get("post_only", False),
            "stop_direction": stop_direction,
        },
    )


def _request(found: Body, shape: Shape, details: Body) -> NewOrder:
    return NewOrder(
        client_order_id=found.get("client_order_id", ""),
        product_id=found["product_id"],
        side=Side(found["side"]),
        kind=shape.kind,
        time_in_force=shape.time_in_force,
        configuration=found["order_configuration"],
        supported=shape.supported,
        **details,
    )


def _known(body: bytes, found: Mapping[str, object], fields: frozenset[str] | Any) -> None:
    for name in found:
        if name not in fields:
            raise proto(body, name, f'unknown field "{name}"')


def amount(value: str) -> Decimal | None:
    """A decimal number of sensible length; None for anything else."""
    try:
        number = Decimal(value)
    except ArithmeticError:
        return None
    usable = number.is_finite() and len(number.as_tuple().digits) <= 40 and abs(number.adjusted()) <= 20
    return number if usable else None


def _time(body: bytes, name: str, value: str) -> datetime:
    try:
        return read_iso(value)
    except (ValueError, OverflowError):
        raise proto(body, name, f'invalid google.protobuf.Timestamp value "{value}"') from None


def _stop_direction(body: bytes, values: Body) -> StopDirection | None:
    if "stop_direction" not in values:
        return None
    try:
        return StopDirection(values["stop_direction"])
    except ValueError:
        complaint = f"invalid value for enum type: {values['stop_direction']}"
        raise proto(body, "stop_direction", complaint) from None
