"""The venue's REST answers, and how to read them. Pure."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TypeVar

import msgspec
from msgspec import Struct

from libs.common.errors import Rejected
from libs.common.messages import EPOCH, Product
from services.marketdata.frames import Trade, check_trade, sane

T = TypeVar("T")
START_MAX = 4_102_444_800  # 2100, in unix seconds


class VenueCandle(Struct, frozen=True):
    """One bucket; `start` in unix seconds. Nothing tells whether it is closed."""

    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class _Candles(Struct, frozen=True):
    candles: tuple[VenueCandle, ...]


class _Trades(Struct, frozen=True):
    trades: tuple[Trade, ...]


class _Product(Struct, frozen=True):
    product_id: str
    base_currency_id: str
    quote_currency_id: str
    base_increment: Decimal
    quote_increment: Decimal
    base_min_size: Decimal
    base_max_size: Decimal
    quote_min_size: Decimal
    quote_max_size: Decimal
    price_increment: Decimal | None = None  # absent until 2024, when it was the quote increment
    status: str = ""
    trading_disabled: bool = False
    is_disabled: bool = False
    view_only: bool = False
    cancel_only: bool = False
    limit_only: bool = False
    post_only: bool = False
    auction_mode: bool = False


_candles = msgspec.json.Decoder(_Candles, strict=False)
_trades = msgspec.json.Decoder(_Trades, strict=False)
_product = msgspec.json.Decoder(_Product, strict=False)


def parse_candles(data: bytes) -> tuple[VenueCandle, ...]:
    """Newest first, as the venue sends them. Raises Rejected."""
    candles = _decode(_candles, data).candles
    for candle in candles:
        prices = (candle.open, candle.high, candle.low, candle.close)
        if not all(sane(price) and price for price in prices) or not sane(candle.volume):
            raise Rejected("bad_number", f"candle {candle.start}")
        if not candle.low <= min(prices) <= max(prices) <= candle.high or not 0 < candle.start < START_MAX:
            raise Rejected("bad_candle", f"candle {candle.start}")
    return candles


def parse_trades(data: bytes) -> tuple[Trade, ...]:
    """Newest first, as the venue sends them. Raises Rejected."""
    trades = _decode(_trades, data).trades
    for trade in trades:
        check_trade(trade)
    return trades


def parse_product(data: bytes, at: datetime = EPOCH) -> Product:
    """The rules of one product. Raises Rejected, also for increments that nothing can be rounded to."""
    raw = _decode(_product, data)
    price_increment = raw.price_increment or raw.quote_increment
    steps = (raw.base_increment, raw.quote_increment, price_increment)
    bounds = (raw.base_min_size, raw.base_max_size, raw.quote_min_size, raw.quote_max_size)
    if not all(sane(number) for number in (*steps, *bounds)) or not all(steps):
        raise Rejected("bad_number", f"rules of {raw.product_id}")
    return Product(
        id=f"product-{raw.product_id}-{at.isoformat()}",
        at=at,
        product_id=raw.product_id,
        base_currency=raw.base_currency_id,
        quote_currency=raw.quote_currency_id,
        base_increment=raw.base_increment,
        quote_increment=raw.quote_increment,
        price_increment=price_increment,
        base_min_size=raw.base_min_size,
        base_max_size=raw.base_max_size,
        quote_min_size=raw.quote_min_size,
        quote_max_size=raw.quote_max_size,
        status=raw.status,
        trading_disabled=raw.trading_disabled,
        is_disabled=raw.is_disabled,
        view_only=raw.view_only,
        cancel_only=raw.cancel_only,
        limit_only=raw.limit_only,
        post_only=raw.post_only,
        auction_mode=raw.auction_mode,
    )


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise Rejected("wrong_shape", str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Rejected("not_json", str(error)) from None
