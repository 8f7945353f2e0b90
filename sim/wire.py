"""The venue's REST objects, field by field as recorded. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

from sim.account import Balance
from sim.book import Book, Level
from sim.history import Bar, Day
from sim.money import average, text
from sim.orders import Fill, Kind, Order, Status
from sim.products import FIAT, Product
from sim.rules import Refusal
from sim.ticks import Side, Tick

Json = dict[str, Any]
OPENED_AT = "2024-01-01T00:00:00Z"  # of accounts and products; nothing depends on it
HUNDRED = Decimal(100)
CENT = Decimal("0.01")
UNKNOWN_FAILURE = "UNKNOWN_FAILURE_REASON"


def rfc3339(at: datetime) -> str:
    """UTC with up to six fraction digits, trailing zeros trimmed."""
    stamp = at.replace(tzinfo=None).isoformat()
    return f"{stamp.rstrip('0') if '.' in stamp else stamp}Z"


def order_json(order: Order, user_id: str, portfolio_id: str) -> Json:
    """An order of List Orders and Get Order."""
    return {
        "order_id": order.order_id,
        "product_id": order.product_id,
        "user_id": user_id,
        "order_configuration": order.configuration,
        "side": order.side,
        "client_order_id": order.client_order_id,
        "status": order.status,
        "time_in_force": order.time_in_force,
        "created_time": rfc3339(order.created_at),
        "completion_percentage": completion(order),
        "filled_size": text(order.filled_size),
        "average_filled_price": text(average(order.filled_value, order.filled_size)),
        "fee": "",
        "number_of_fills": str(order.fills),
        "filled_value": text(order.filled_value),
        "pending_cancel": order.status is Status.CANCEL_QUEUED,
        "size_in_quote": order.quote_size is not None,
        "total_fees": text(order.fees),
        "size_inclusive_of_fees": order.kind is Kind.MARKET and order.quote_size is not None,
        "total_value_after_fees": text(value_after_fees(order)),
        "trigger_status": order.trigger,
        "order_type": order.kind,
        "reject_reason": "REJECT_REASON_UNSPECIFIED",
        "settled": order.status is Status.FILLED,
        "product_type": "SPOT",
        "reject_message": "",
        "cancel_message": order.cancel_message,
        "order_placement_source": "RETAIL_ADVANCED",
        "outstanding_hold_amount": text(order.hold),
        "is_liquidation": False,
        "last_fill_time": rfc3339(order.last_fill_at) if order.last_fill_at else None,
        "edit_history": [
            {"price": text(edit.price), "size": text(edit.size), "replace_accept_timestamp": rfc3339(edit.accepted_at)}
            for edit in order.edits
        ],
        "leverage": "",
        "margin_type": "UNKNOWN_MARGIN_TYPE",
        "retail_portfolio_id": portfolio_id,
        "originating_order_id": "",
        "attached_order_id": "",
        "attached_order_configuration": None,
    }


def completion(order: Order) -> str:
    """Percent of what was ordered, as recorded: `0`, `37.50`, `100.00`."""
    if order.status is Status.FILLED:
        return "100.00"
    if not order.filled_size:
        return "0"
    spent = order.filled_value + order.fees
    done = average(order.filled_size, order.base_size) if order.base_size else average(spent, order.quote_size or spent)
    return str((done * HUNDRED).quantize(CENT, rounding=ROUND_DOWN))


def value_after_fees(order: Order) -> Decimal:
    """What a BUY costs in all, its hold included, and what a SELL has brought."""
    if order.side is Side.BUY:
        return order.filled_value + order.fees + order.hold
    return order.filled_value - order.fees


def fill_json(fill: Fill, order: Order, user_id: str, portfolio_id: str) -> Json:
    """A market order by quote size has its fills told in the quote currency, as recorded."""
    in_quote = order.kind is Kind.MARKET and order.quote_size is not None
    return {
        "entry_id": fill.entry_id,
        "trade_id": fill.trade_id,
        "order_id": fill.order_id,
        "trade_time": rfc3339(fill.at),
        "trade_type": "FILL",
        "price": text(fill.price),
        "size": text(fill.price * fill.size if in_quote else fill.size),
        "commission": text(fill.fee),
        "product_id": fill.product_id,
        "sequence_timestamp": rfc3339(fill.at),
        "liquidity_indicator": fill.liquidity,
        "size_in_quote": in_quote,
        "user_id": user_id,
        "side": fill.side,
        "retail_portfolio_id": portfolio_id,
    }


def account_json(currency: str, balance: Balance, uuid: str, portfolio_id: str) -> Json:
    return {
        "uuid": uuid,
        "name": f"{currency} Wallet",
        "currency": currency,
        "available_balance": {"value": text(balance.available), "currency": currency},
        "default": True,
        "active": True,
        "created_at": OPENED_AT,
        "updated_at": OPENED_AT,
        "deleted_at": None,
        "type": "ACCOUNT_TYPE_FIAT" if currency in FIAT else "ACCOUNT_TYPE_CRYPTO",
        "ready": True,
        "hold": {"value": text(balance.hold), "currency": currency},
        "retail_portfolio_id": portfolio_id,
        "platform": "ACCOUNT_PLATFORM_CONSUMER",
    }


def product_json(product: Product, price: str, day: Day) -> Json:
    """A product as recorded on 2026-09-30; empty strings are empty there too."""
    return {
        "product_id": product.product_id,
        "price": price,
        "price_percentage_change_24h": text(day.change_percent),
        "volume_24h": text(day.volume),
        "volume_percentage_change_24h": "0",
        "base_increment": text(product.base_increment),
        "quote_increment": text(product.quote_increment),
        "quote_min_size": text(product.quote_min_size),
        "quote_max_size": text(product.quote_max_size),
        "base_min_size": text(product.base_min_size),
        "base_max_size": text(product.base_max_size),
        "base_name": product.base_name,
        "quote_name": product.quote_name,
        "watched": False,
        "is_disabled": product.is_disabled,
        "new": False,
        "status": product.status,
        "cancel_only": product.cancel_only,
        "limit_only": product.limit_only,
        "post_only": product.post_only,
        "trading_disabled": product.trading_disabled,
        "auction_mode": product.auction_mode,
        "product_type": "SPOT",
        "quote_currency_id": product.quote,
        "base_currency_id": product.base,
        "fcm_trading_session_details": None,
        "mid_market_price": "",
        "alias": "",
        "alias_to": [],
        "base_display_symbol": product.base,
        "quote_display_symbol": product.quote,
        "view_only": product.view_only,
        "price_increment": text(product.price_increment),
        "display_name": product.product_id,
        "product_venue": "CBE",
        "approximate_quote_24h_volume": text((day.volume * day.high).quantize(CENT)),
        "new_at": OPENED_AT,
        **dict.fromkeys(("market_cap", "base_cbrn", "quote_cbrn", "product_cbrn", "icon_color", "icon_url"), ""),
        "display_name_overwrite": "",
        "is_alpha_testing": False,
        "about_description": "",
        "best_bid_price": "",
        "best_ask_price": "",
        "high_24h": text(day.high),
        "low_24h": text(day.low),
        "hidden_from_discovery": False,
    }


def level_json(level: Level) -> Json:
    return {"price": text(level.price), "size": text(level.size)}


def pricebook_json(product_id: str, bids: list[Level], asks: list[Level], at: datetime) -> Json:
    return {
        "product_id": product_id,
        "bids": [level_json(level) for level in bids],
        "asks": [level_json(level) for level in asks],
        "time": rfc3339(at),
    }


def spread_json(book: Book) -> Json:
    """The figures that stand beside a product book; empty where a side is."""
    if not book.bids or not book.asks:
        return {"last": text(book.last), "mid_market": "", "spread_bps": "", "spread_absolute": ""}
    bid, ask = book.bids[0].price, book.asks[0].price
    middle = (bid + ask) / 2
    bps = average((ask - bid) * 10_000, middle).quantize(Decimal("1e-12"))
    return {
        "last": text(book.last),
        "mid_market": text(middle),
        "spread_bps": text(bps),
        "spread_absolute": text(ask - bid),
    }


def candle_json(bar: Bar) -> Json:
    return {
        "start": str(bar.start),
        "low": text(bar.low),
        "high": text(bar.high),
        "open": text(bar.open),
        "close": text(bar.close),
        "volume": text(bar.volume),
    }


def trade_json(tick: Tick) -> Json:
    """A trade as the market_trades channel tells it; `side` is the maker's."""
    return {
        "product_id": tick.product_id,
        "trade_id": str(tick.trade_id),
        "price": text(tick.price),
        "size": text(tick.size),
        "time": rfc3339(tick.at),
        "side": tick.side,
    }


def accepted_json(order: Order) -> Json:
    return {
        "success": True,
        "failure_reason": UNKNOWN_FAILURE,
        "order_id": order.order_id,
        "success_response": {
            "order_id": order.order_id,
            "product_id": order.product_id,
            "side": order.side,
            "client_order_id": order.client_order_id,
        },
        "order_configuration": order.configuration,
    }


def refused_json(refusal: Refusal, configuration: Json) -> Json:
    """A refusal; its name stands where the step that found it puts it."""
    return {
        "success": False,
        "failure_reason": UNKNOWN_FAILURE,
        "order_id": "",
        "error_response": {
            "error": refusal.exchange or UNKNOWN_FAILURE,
            "message": refusal.message,
            "error_details": "",
            "preview_failure_reason": refusal.preview or "UNKNOWN_PREVIEW_FAILURE_REASON",
            "new_order_failure_reason": UNKNOWN_FAILURE if refusal.preview else refusal.exchange or UNKNOWN_FAILURE,
        },
        "order_configuration": configuration,
    }
