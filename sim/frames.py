"""The venue's WebSocket frames as recorded: envelopes and the events inside. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from sim.book import Book, Level
from sim.history import Bar, Day
from sim.money import ZERO, average, exact, text
from sim.orders import Kind, Order, Status
from sim.products import Product
from sim.ticks import Tick
from sim.wire import Json, candle_json, completion, rfc3339, trade_json, value_after_fees

NO_TIME = "0001-01-01T00:00:00Z"
OLD_LEVEL = "1970-01-01T00:00:00Z"
ORDER_TYPES = {Kind.MARKET: "Market", Kind.LIMIT: "Limit", Kind.STOP_LIMIT: "Stop Limit", Kind.BRACKET: "Bracket"}
POSITIONS: Json = {
    "perpetual_futures_positions": [],
    "expiring_futures_positions": [],
    "prediction_market_positions": [],
}
USER_PAGE = 50

encode = msgspec.json.encode


def envelope(
    channel: str, at: datetime, sequence: int, events: bytes, client_id: bool = False, extra: bool = False
) -> bytes:
    """One frame around encoded events. Written by hand, since only the number differs between connections."""
    head = '"client_id":"",' if client_id else ""
    tail = ',"x_unannounced":{"kind":1}' if extra else ""
    stamp = nanoseconds(at, sequence)
    start = f'{{"channel":"{channel}",{head}"timestamp":"{stamp}","sequence_num":{sequence},"events":'
    return b"".join((start.encode(), events, tail.encode(), b"}"))


def nanoseconds(at: datetime, sequence: int) -> str:
    """Nine fraction digits with trailing zeros trimmed; the last three come from the number, as a clock has none."""
    stamp = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond:06}{sequence * 7 % 1000:03}"
    return f"{stamp.rstrip('0').rstrip('.')}Z"


def error_frame(message: str) -> bytes:
    return encode({"type": "error", "message": message})


def trades_event(kind: str, ticks: Iterable[Tick]) -> Json:
    """Trades newest first."""
    return {"type": kind, "trades": [trade_json(tick) for tick in ticks]}


def ticker_event(kind: str, product_id: str, day: Day, book: Book | None, batch: bool = False) -> Json:
    """`batch`: the form of ticker_batch, which leaves the best bid and ask out."""
    ticker = {
        "type": "ticker",
        "product_id": product_id,
        "price": text(book.last) if book else "",
        "volume_24_h": text(day.volume),
        "low_24_h": text(day.low),
        "high_24_h": text(day.high),
        "low_52_w": text(day.lowest),
        "high_52_w": text(day.highest),
        "price_percent_chg_24_h": text(day.change_percent),
    }
    if not batch:
        bid = book.bids[0] if book and book.bids else Level(ZERO, ZERO)
        ask = book.asks[0] if book and book.asks else Level(ZERO, ZERO)
        ticker |= {
            "best_bid": text(bid.price),
            "best_ask": text(ask.price),
            "best_bid_quantity": text(bid.size),
            "best_ask_quantity": text(ask.size),
        }
    return {"type": kind, "tickers": [ticker]}


def book_snapshot(product: Product, book: Book | None, far_levels: int) -> Json:
    """All levels, bids then offers, best first; `far_levels` more a side make the frame as big as a real one."""
    updates: list[Json] = []
    if book is not None:
        at = rfc3339(book.at)
        updates += [_update("bid", level, at) for level in book.bids]
        updates += _far("bid", product, book.bids, far_levels)
        updates += [_update("offer", level, at) for level in book.asks]
        updates += _far("offer", product, book.asks, far_levels)
    return {"type": "snapshot", "product_id": product.product_id, "updates": updates}


def _far(side: str, product: Product, levels: Sequence[Level], count: int) -> list[Json]:
    """Old levels at half and double the price, out of the way of those that change."""
    if not levels:
        return []
    step = product.price_increment
    bid = side == "bid"
    start = levels[0].price / 2 // step * step if bid else levels[0].price * 2
    prices = (start - step * place if bid else start + step * place for place in range(count))
    return [_update(side, Level(price, product.base_min_size), OLD_LEVEL) for price in prices if price > 0]


def _update(side: str, level: Level, at: str) -> Json:
    return {
        "side": side,
        "event_time": at,
        "price_level": text(level.price),
        "new_quantity": text(level.size),
    }


Sides = dict[str, dict[Decimal, Decimal]]


def sides(book: Book | None) -> Sides:
    """Price to size of each side."""
    return {
        "bid": {level.price: level.size for level in book.bids} if book else {},
        "offer": {level.price: level.size for level in book.asks} if book else {},
    }


def book_update(product_id: str, before: Sides, after: Sides, at: datetime) -> Json | None:
    """What changed between two books; a level that went has the quantity 0."""
    stamp = rfc3339(at)
    updates = []
    for side, new in after.items():
        old = before[side]
        updates += [_update(side, Level(price, ZERO), stamp) for price in old if price not in new]
        updates += [_update(side, Level(price, size), stamp) for price, size in new.items() if old.get(price) != size]
    return {"type": "update", "product_id": product_id, "updates": updates} if updates else None


def candles_event(kind: str, product_id: str, bars: Iterable[Bar]) -> Json:
    return {"type": kind, "candles": [{**candle_json(bar), "product_id": product_id} for bar in bars]}


def status_event(kind: str, products: Iterable[Product]) -> Json:
    return {
        "type": kind,
        "products": [
            {
                "product_type": "SPOT",
                "id": product.product_id,
                "base_currency": product.base,
                "quote_currency": product.quote,
                "base_increment": text(product.base_increment),
                "quote_increment": text(product.quote_increment),
                "display_name": f"{product.base}/{product.quote}",
                "status": product.status,
                "status_message": "",
                "min_market_funds": text(product.quote_min_size),
            }
            for product in products
        ],
    }


def heartbeat_event(at: datetime, uptime: float, counter: int) -> Json:
    """`current_time` in Go's own format; the counter belongs to the server, not to the connection."""
    return {"current_time": f"{at:%Y-%m-%d %H:%M:%S.%f} +0000 UTC m=+{uptime:.9f}", "heartbeat_counter": counter}


def subscriptions_event(subscribed: Mapping[str, Sequence[str]]) -> Json:
    return {"subscriptions": dict(subscribed)}


def user_event(kind: str, orders: Iterable[Json]) -> Json:
    return {"type": kind, "orders": list(orders), "positions": POSITIONS}


@exact
def user_order(order: Order, portfolio_id: str, zero_leaves: bool, reject_reason_key: str) -> Json:
    """An order of the user channel: cumulative state, every value a string. `zero_leaves`: one of two forms in which
    cancelled orders were recorded; in the other the remainder stays. `reject_reason_key`: production writes
    `reject_Reason`, the documentation `reject_reason`."""
    gone = zero_leaves and order.status is Status.CANCELLED
    return {
        "avg_price": text(average(order.filled_value, order.filled_size)),
        "cancel_reason": order.cancel_message,
        "client_order_id": order.client_order_id,
        "completion_percentage": completion(order),
        "contract_expiry_type": "UNKNOWN_CONTRACT_EXPIRY_TYPE",
        "cumulative_quantity": text(order.filled_size),
        "filled_value": text(order.filled_value),
        "leaves_quantity": "0" if gone else text(order.remaining),
        "limit_price": text(order.limit_price) if order.limit_price is not None else "",
        "number_of_fills": str(order.fills),
        "order_id": order.order_id,
        "order_side": order.side,
        "order_type": ORDER_TYPES[order.kind],
        "outstanding_hold_amount": text(order.hold),
        "post_only": "true" if order.post_only else "false",
        "product_id": order.product_id,
        "product_type": "SPOT",
        reject_reason_key: "",
        "retail_portfolio_id": portfolio_id,
        "risk_managed_by": "UNKNOWN_RISK_MANAGEMENT_TYPE",
        "status": order.status,
        "stop_price": text(order.stop_price) if order.stop_price is not None else "",
        "time_in_force": order.time_in_force,
        "total_fees": text(order.fees),
        "total_value_after_fees": text(value_after_fees(order)),
        "trigger_status": order.trigger,
        "creation_time": rfc3339(order.created_at),
        "end_time": rfc3339(order.end_time) if order.end_time else NO_TIME,
        "start_time": NO_TIME,
    }
