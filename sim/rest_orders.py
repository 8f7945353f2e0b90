"""Orders over REST: create, preview, edit, cancel, list, fills."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from sim.api import Call, order_answer, page
from sim.edits import EditRefusal
from sim.errors import invalid_argument, not_found, too_many_cancels
from sim.money import average, text
from sim.orders import Fill, Order, Status
from sim.requests import amount, json_object, order_of
from sim.ticks import Side
from sim.venue import Venue
from sim.wire import Json, accepted_json, fill_json, refused_json

CANCELS_AT_MOST = 100
ORDERS_AT_MOST = 1000
FILLS_AT_MOST = 100
EDIT_FIELDS = frozenset({"order_id", "price", "size", "stop_price", "attached_order_configuration", "cancel_attached"})
STATUS_NAMES = frozenset({*Status, "FAILED", "QUEUED", "EDIT_QUEUED", "UNKNOWN_ORDER_STATUS"})


def create(venue: Venue, call: Call) -> Json:
    """HTTP 200 for a refusal too: clients decide on `success`."""
    request = order_of(call.body)
    placement = venue.place(request)
    if placement.refusal is not None:
        return refused_json(placement.refusal, request.configuration)
    assert placement.order is not None  # neither refused nor accepted does not exist
    if placement.events:  # none: the order was there before
        venue.faults.hide("orders_lag_seconds", placement.order.order_id, venue.clock.monotonic())
    return accepted_json(placement.order)


def preview(venue: Venue, call: Call) -> Json:
    request = order_of(call.body, preview=True)
    estimate = venue.exchange.preview(request, venue.market_time())
    refusal = estimate.refusal
    errors = [refusal.preview or refusal.exchange or "UNKNOWN_PREVIEW_FAILURE_REASON"] if refusal else []
    sign = 1 if request.side is Side.BUY else -1
    book = venue.exchange.book(request.product_id)
    best = book.against(request.side)[0].price if book and book.against(request.side) else None
    slippage = abs(average((estimate.worst_price or best) - best, best)) if best else Decimal(0)
    return {
        "order_total": text(estimate.value + sign * estimate.commission),
        "commission_total": text(estimate.commission),
        "errs": errors,
        "warning": [],
        "quote_size": text(estimate.value),
        "base_size": text(estimate.base_size),
        "best_bid": text(book.bids[0].price) if book and book.bids else "",
        "best_ask": text(book.asks[0].price) if book and book.asks else "",
        "is_max": False,
        "order_margin_total": "",
        "leverage": "",
        "long_leverage": "",
        "short_leverage": "",
        "slippage": text(slippage),
        "preview_id": venue.exchange.identity(f"preview {venue.market_time()}"),
        "current_liquidation_buffer": "",
        "projected_liquidation_buffer": "",
        "max_leverage": "",
        "pnl_configuration": None,
        "average_filled_price": text(average(estimate.value, estimate.base_size)),
    }


def edit(venue: Venue, call: Call) -> Json:
    order_id, refusal = _edit(venue, call, commit=True)
    if refusal is None:
        return {"success": True, "success_response": {"order_id": order_id}, "errors": []}
    details = {"error_details": "", "edit_order_failure_reason": refusal.edit}
    return {"success": False, "error_response": details, "errors": [_edit_error(refusal)]}


def edit_preview(venue: Venue, call: Call) -> Json:
    order_id, refusal = _edit(venue, call, commit=False)
    order = venue.exchange.orders.get(order_id)
    body = json_object(call.body, EDIT_FIELDS)
    price, size = amount(body.get("price") or "0") or Decimal(0), amount(body.get("size") or "0") or Decimal(0)
    commission = price * size * venue.exchange.rules.maker_fee
    book = venue.exchange.book(order.product_id) if order else None
    return {
        "errors": [_edit_error(refusal)] if refusal else [],
        "slippage": "0",
        "order_total": text(price * size + commission),
        "commission_total": text(commission),
        "quote_size": text(price * size),
        "base_size": text(size),
        "best_bid": text(book.bids[0].price) if book and book.bids else "",
        "best_ask": text(book.asks[0].price) if book and book.asks else "",
        "average_filled_price": text(average(order.filled_value, order.filled_size)) if order else "0",
        "order_margin_total": "",
    }


def _edit_error(refusal: EditRefusal) -> Json:
    return {"edit_failure_reason": refusal.edit, "preview_failure_reason": refusal.preview}


def _edit(venue: Venue, call: Call, commit: bool) -> tuple[str, EditRefusal | None]:
    body = json_object(call.body, EDIT_FIELDS)
    order_id = body.get("order_id")
    if not isinstance(order_id, str) or not order_id:
        raise invalid_argument("order_id is missing")
    amounts: list[Decimal | None] = []
    for name in ("price", "size"):
        value = body.get(name) or None
        parsed = amount(value) if isinstance(value, str) else None
        if value is not None and parsed is None:
            raise invalid_argument(f"{name} is not a number")
        amounts.append(parsed)
    return order_id, venue.edit(order_id, amounts[0], amounts[1], commit)


def batch_cancel(venue: Venue, call: Call) -> Json:
    ids = json_object(call.body, frozenset({"order_ids"})).get("order_ids")
    if not isinstance(ids, list) or not ids or not all(isinstance(order_id, str) and order_id for order_id in ids):
        raise invalid_argument("order_ids is missing or holds what is no id")
    if len(ids) > CANCELS_AT_MOST:
        raise too_many_cancels()
    results = []
    for order_id in ids:
        reason = venue.cancel(order_id)
        # A success carries this reason too.
        named = reason or "UNKNOWN_CANCEL_FAILURE_REASON"
        results.append({"success": not reason, "failure_reason": named, "order_id": order_id})
    return {"results": results}


def get_order(venue: Venue, call: Call) -> Json:
    order = venue.exchange.orders.get(call.path["order_id"])
    if order is None or _hidden(venue, order):
        raise not_found(f"order with this orderID was not found: {call.path['order_id']}")
    return {"order": order_answer(venue, order)}


def _hidden(venue: Venue, order: Order) -> bool:
    return venue.faults.hides("orders_lag_seconds", order.order_id, venue.clock.monotonic())


def list_orders(venue: Venue, call: Call) -> Json:
    """Newest first, by the filters that are given."""
    keep = _order_filter(call)
    orders = [order for order in reversed(venue.exchange.orders.values()) if keep(order) and not _hidden(venue, order)]
    match call.one("sort_by"):
        case "LIMIT_PRICE":
            orders.sort(key=lambda order: order.limit_price or Decimal(0), reverse=True)
        case "LAST_FILL_TIME":
            orders.sort(key=lambda order: (order.last_fill_at is not None, order.last_fill_at), reverse=True)
    keys = [str(order.sequence) for order in orders]
    limit = call.count("limit", ORDERS_AT_MOST, ORDERS_AT_MOST)
    chosen, cursor = page(orders, keys, limit, call.one("cursor"))
    return {
        "orders": [order_answer(venue, order) for order in chosen],
        "sequence": "0",
        "has_next": bool(cursor),
        "cursor": cursor,
        "proof_token_required": False,
    }


def _order_filter(call: Call) -> Callable[[Order], bool]:
    statuses = call.many("order_status")
    if not statuses <= STATUS_NAMES:
        raise invalid_argument(f"order_status is invalid: {', '.join(sorted(statuses - STATUS_NAMES))}")
    if "OPEN" in statuses and len(statuses) > 1:
        raise invalid_argument("order_status OPEN cannot be combined with other statuses")
    start, end = call.time("start_date"), call.time("end_date")
    spot = not call.one("product_type") or call.one("product_type") in ("SPOT", "UNKNOWN_PRODUCT_TYPE")
    wanted = {name: call.many(name) for name in ("order_ids", "product_ids", "time_in_forces", "order_types")}
    sides = call.many("order_side")

    def keep(order: Order) -> bool:
        values = (order.order_id, order.product_id, order.time_in_force, order.kind)
        chosen = all(not names or value in names for value, names in zip(values, wanted.values(), strict=True))
        dated = (start is None or order.created_at >= start) and (end is None or order.created_at < end)
        return chosen and dated and spot and (not statuses or order.status in statuses) and _in(order.side, sides)

    return keep


def _in(value: str, names: frozenset[str]) -> bool:
    return not names or value in names


def list_fills(venue: Venue, call: Call) -> Json:
    """Newest first. No has_next: the last page has an empty cursor. Dates have keys of their own."""
    keep = _fill_filter(call)
    at = venue.clock.monotonic()
    shown = (f for f in reversed(venue.exchange.fills) if not venue.faults.hides("fills_lag_seconds", f.entry_id, at))
    fills = [fill for fill in shown if keep(fill)]
    if call.one("sort_by") == "PRICE":
        fills.sort(key=lambda fill: fill.price, reverse=True)
    keys = [str(fill.sequence) for fill in fills]
    chosen, cursor = page(fills, keys, call.count("limit", FILLS_AT_MOST, ORDERS_AT_MOST), call.one("cursor"))
    orders = venue.exchange.orders
    told = [fill_json(fill, orders[fill.order_id], venue.user_id, venue.portfolio_id) for fill in chosen]
    return {"fills": told, "cursor": cursor}


def _fill_filter(call: Call) -> Callable[[Fill], bool]:
    orders = call.many("order_ids") | call.many("order_id")
    products, trades = call.many("product_ids") | call.many("product_id"), call.many("trade_ids")
    start, end = call.time("start_sequence_timestamp"), call.time("end_sequence_timestamp")

    def keep(fill: Fill) -> bool:
        named = _in(fill.order_id, orders) and _in(fill.product_id, products) and _in(fill.trade_id, trades)
        return named and (start is None or fill.at >= start) and (end is None or fill.at <= end)

    return keep
