"""What the venue sends, frames of its market WebSocket and answers of REST, and how to read it. Pure.

The envelope of a frame is decoded first and its events only for the channels that we follow: what the venue adds
without notice is skipped and still counts in the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from libs.common.errors import Rejected
from libs.common.messages import EPOCH, Message, Product, sound

HEARTBEATS, TICKER, MARKET_TRADES = "heartbeats", "ticker", "market_trades"
CHANNELS = (HEARTBEATS, TICKER, MARKET_TRADES)  # one subscribe message each, in this order
SUBSCRIPTIONS = "subscriptions"
TYPED = (TICKER, MARKET_TRADES)  # channels whose events tell their type
EVENT_TYPES = ("snapshot", "update")
YEARS = range(2010, 2100)  # a time outside is a defect, and would drag the candles with it
START_MAX = 4_102_444_800  # 2100, in unix seconds
MAGNITUDE_MAX = 18  # decimal digits before or after the point; no price or size of the venue comes near

Time = Annotated[datetime, Meta(tz=True)]


class Ticker(Struct, frozen=True):
    """Best prices of one product; zero where the venue named none. Sizes in the base currency, None where it named
    none."""

    product_id: str
    price: Decimal
    bid: Decimal
    ask: Decimal
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None


class Trade(Struct, frozen=True):
    """One trade, on the WebSocket as in REST. `trade_id` rises per product; `size` may be zero in a replay."""

    trade_id: int
    product_id: str
    price: Decimal
    size: Decimal
    time: Time


class Bucket(Struct):
    """A candle, the venue's or one under construction; `start` in unix seconds. Nothing tells whether it is closed."""

    start: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class Tickers(Struct, frozen=True):
    tickers: tuple[Ticker, ...]


class Trades(Struct, frozen=True):
    """A snapshot holds the recent trades, all older than the subscription. Newest first."""

    snapshot: bool
    trades: tuple[Trade, ...]


class Heartbeat(Struct, frozen=True, rename={"counter": "heartbeat_counter"}):
    counter: int


class Subscriptions(Struct, frozen=True, rename={"channels": "subscriptions"}):
    """Everything subscribed on this connection, by channel."""

    channels: dict[str, tuple[str, ...]]


Event = Tickers | Trades | Heartbeat | Subscriptions


class Frame(Struct, frozen=True):
    """One message of the venue. An error frame has no envelope: only `error` says something then."""

    channel: str
    timestamp: datetime
    sequence: int
    events: tuple[Event, ...] = ()
    skipped: int = 0  # events, or whole channels, of a kind that we do not know
    error: str = ""


class _Envelope(Struct, frozen=True):
    channel: str = ""
    timestamp: Time | None = None
    sequence_num: Annotated[int, Meta(ge=0)] | None = None
    events: Raw = Raw(b"[]")
    type: str = ""
    message: str = ""


class _Type(Struct, frozen=True):
    type: str = ""


class _TickerLine(Struct, frozen=True):
    product_id: str
    price: str = ""
    best_bid: str = ""
    best_ask: str = ""
    best_bid_quantity: str | None = None
    best_ask_quantity: str | None = None


class _Tickers(Struct, frozen=True):
    tickers: tuple[_TickerLine, ...]


class _Trades(Struct, frozen=True):
    """An event of the WebSocket, or a REST answer, which has no type."""

    trades: tuple[Trade, ...]
    type: str = ""


class _Candles(Struct, frozen=True):
    candles: tuple[Bucket, ...]


# Mostly not strict: trade ids are numbers in strings, and old documents say so of the heartbeat counter.
_envelope = msgspec.json.Decoder(_Envelope, strict=False)
_parts = msgspec.json.Decoder(tuple[Raw, ...])
_type = msgspec.json.Decoder(_Type)
_tickers = msgspec.json.Decoder(_Tickers)
_trades = msgspec.json.Decoder(_Trades, strict=False)
_candles = msgspec.json.Decoder(_Candles, strict=False)
_object = msgspec.json.Decoder(dict[str, object], float_hook=Decimal)


@contextmanager
def _understood() -> Iterator[None]:
    """Turns what the decoders raise into Rejected."""
    try:
        yield
    except msgspec.ValidationError as error:
        raise Rejected("wrong_shape", str(error)) from None
    except InvalidOperation as error:  # an exponent that no number can have
        raise Rejected("bad_number", str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Rejected("not_json", str(error)) from None


# -- frames


@_understood()
def parse_frame(data: bytes | str) -> Frame:
    """Read one message. Raises Rejected with one of a few reasons when it cannot be understood."""
    envelope = _envelope.decode(data)
    channel = envelope.channel
    if not channel and envelope.type == "error":
        return Frame("error", EPOCH, -1, error=envelope.message or "no reason given")
    if not channel:
        raise Rejected("no_channel", envelope.type)
    if envelope.timestamp is None or envelope.sequence_num is None:
        raise Rejected("no_envelope", channel)
    timestamp = _plausible(envelope.timestamp)
    read = _EVENTS.get(channel)
    if read is None:
        return Frame(channel, timestamp, envelope.sequence_num, skipped=1)
    parts = _parts.decode(envelope.events)
    # Events of other types may have any shape.
    known = [part for part in parts if channel not in TYPED or _type.decode(part).type in EVENT_TYPES]
    return Frame(channel, timestamp, envelope.sequence_num, tuple(map(read, known)), len(parts) - len(known))


def _read_tickers(raw: Raw) -> Tickers:
    return Tickers(tuple(map(_ticker, _tickers.decode(raw).tickers)))


def _ticker(line: _TickerLine) -> Ticker:
    bid_size, ask_size = _number(line.best_bid_quantity or ""), _number(line.best_ask_quantity or "")
    return Ticker(
        product_id=line.product_id,
        price=_number(line.price),
        bid=_number(line.best_bid),
        ask=_number(line.best_ask),
        bid_size=bid_size or None,  # a best price with nothing behind it says nothing
        ask_size=ask_size or None,
    )


def _read_trades(raw: Raw) -> Trades:
    event = _trades.decode(raw)
    return Trades(event.type == "snapshot", _checked(event.trades))


_EVENTS: dict[str, Callable[[Raw], Event]] = {
    TICKER: _read_tickers,
    MARKET_TRADES: _read_trades,
    HEARTBEATS: msgspec.json.Decoder(Heartbeat, strict=False).decode,
    SUBSCRIPTIONS: msgspec.json.Decoder(Subscriptions).decode,
}


# -- answers of REST


@_understood()
def parse_candles(data: bytes) -> tuple[Bucket, ...]:
    """Newest first, as the venue sends them. Raises Rejected."""
    candles = _candles.decode(data).candles
    for candle in candles:
        prices = (candle.open, candle.high, candle.low, candle.close)
        if not all(_sane(price) and price for price in prices) or not _sane(candle.volume):
            raise Rejected("bad_number", f"candle {candle.start}")
        if not candle.low <= min(prices) <= max(prices) <= candle.high or not 0 < candle.start < START_MAX:
            raise Rejected("bad_candle", f"candle {candle.start}")
    return candles


@_understood()
def parse_trades(data: bytes) -> tuple[Trade, ...]:
    """Newest first, as the venue sends them. Raises Rejected."""
    return _checked(_trades.decode(data).trades)


@_understood()
def parse_product(data: bytes) -> Product:
    """The rules of one product. Raises Rejected, also for increments that nothing can be rounded to."""
    told = {name: value for name, value in _object.decode(data).items() if name not in Message.__struct_fields__}
    told |= {
        "id": "product",
        "base_currency": told.get("base_currency_id"),
        "quote_currency": told.get("quote_currency_id"),
        "status": told.get("status", ""),
    }
    if told.get("price_increment") is None:
        told["price_increment"] = 0
    rules = msgspec.convert(told, Product, strict=False)
    # Absent until 2024, when it was the quote increment.
    rules = msgspec.structs.replace(rules, price_increment=rules.price_increment or rules.quote_increment)
    steps = (rules.base_increment, rules.quote_increment, rules.price_increment)
    bounds = (rules.base_min_size, rules.base_max_size, rules.quote_min_size, rules.quote_max_size)
    if not all(map(_sane, (*steps, *bounds))) or not all(steps):
        raise Rejected("bad_number", f"rules of {rules.product_id}")
    return rules


# -- what a number, a time and a trade may be


def _plausible(time: datetime) -> datetime:
    """The time in UTC. Raises Rejected for one that no venue can mean."""
    if time.year not in YEARS:
        raise Rejected("bad_time", str(time))
    return time if time.tzinfo is UTC else time.astimezone(UTC)


def _sane(number: Decimal) -> bool:
    """Finite, not negative, and of a size that arithmetic cannot overflow."""
    return sound(number) and not number.is_signed() and abs(number.adjusted()) <= MAGNITUDE_MAX


def _number(text: str) -> Decimal:
    """Zero for what is no usable number: an empty side of the book is written as an empty string."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return Decimal(0)
    return number if _sane(number) else Decimal(0)


def _checked(trades: tuple[Trade, ...]) -> tuple[Trade, ...]:
    """Raises Rejected for a trade that must not enter a candle."""
    for trade in trades:
        _plausible(trade.time)
        if not (_sane(trade.price) and trade.price and _sane(trade.size)):
            raise Rejected("bad_number", f"trade {trade.trade_id}: {trade.price} x {trade.size}")
    return trades
