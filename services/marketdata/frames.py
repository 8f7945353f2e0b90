"""Frames of the venue's market WebSocket, and how to read one. Pure.

The envelope is decoded first and its events only for the channels that we follow: what the venue adds without notice
is skipped and still counts in the sequence.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from libs.common.errors import Rejected
from libs.common.messages import EPOCH

HEARTBEATS, TICKER, MARKET_TRADES = "heartbeats", "ticker", "market_trades"
CHANNELS = (HEARTBEATS, TICKER, MARKET_TRADES)  # one subscribe message each, in this order
SUBSCRIPTIONS = "subscriptions"
EVENT_TYPES = ("snapshot", "update")
YEARS = range(2010, 2100)  # a time outside is a defect, and would drag the candles with it
MAGNITUDE_MAX = 18  # decimal digits before or after the point; no price or size of the venue comes near
NOTHING = Decimal(0)

Time = Annotated[datetime, Meta(tz=True)]


class Ticker(Struct, frozen=True):
    """Best prices of one product; zero where the venue named none."""

    product_id: str
    price: Decimal
    bid: Decimal
    ask: Decimal


class Trade(Struct, frozen=True):
    """One trade, on the WebSocket as in REST. `trade_id` rises per product; `size` may be zero in a replay."""

    trade_id: int
    product_id: str
    price: Decimal
    size: Decimal
    time: Time


class Tickers(Struct, frozen=True):
    tickers: tuple[Ticker, ...]


class Trades(Struct, frozen=True):
    """A snapshot holds the recent trades, all older than the subscription. Newest first."""

    snapshot: bool
    trades: tuple[Trade, ...]


class Heartbeat(Struct, frozen=True):
    counter: int


class Subscriptions(Struct, frozen=True):
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


class _TickerLine(Struct, frozen=True):
    product_id: str
    price: str = ""
    best_bid: str = ""
    best_ask: str = ""


class _TickerEvent(Struct, frozen=True):
    type: str
    tickers: tuple[_TickerLine, ...]


class _TradesEvent(Struct, frozen=True):
    type: str
    trades: tuple[Trade, ...]


class _HeartbeatEvent(Struct, frozen=True):
    heartbeat_counter: int


class _SubscriptionsEvent(Struct, frozen=True):
    subscriptions: dict[str, tuple[str, ...]]


class _AnyEvent(Struct, frozen=True):
    type: str = ""


# Not strict: trade ids are numbers in strings, and old documents say so of the heartbeat counter.
_envelope = msgspec.json.Decoder(_Envelope, strict=False)
_ticker_events = msgspec.json.Decoder(tuple[_TickerEvent, ...])
_ticker_event = msgspec.json.Decoder(_TickerEvent)
_trades_events = msgspec.json.Decoder(tuple[_TradesEvent, ...], strict=False)
_trades_event = msgspec.json.Decoder(_TradesEvent, strict=False)
_heartbeat_events = msgspec.json.Decoder(tuple[_HeartbeatEvent, ...], strict=False)
_subscriptions_events = msgspec.json.Decoder(tuple[_SubscriptionsEvent, ...])
_raw_events = msgspec.json.Decoder(tuple[Raw, ...])
_any_event = msgspec.json.Decoder(_AnyEvent)


def parse_frame(data: bytes | str) -> Frame:
    """Read one message. Raises Rejected with one of a few reasons when it cannot be understood."""
    try:
        envelope = _envelope.decode(data)
        if envelope.channel:
            return _enveloped(envelope)
    except msgspec.ValidationError as error:
        raise Rejected("wrong_shape", str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Rejected("not_json", str(error)) from None
    if envelope.type == "error":
        return Frame("error", EPOCH, -1, error=envelope.message or "no reason given")
    raise Rejected("no_channel", envelope.type)


def _enveloped(envelope: _Envelope) -> Frame:
    if envelope.timestamp is None or envelope.sequence_num is None:
        raise Rejected("no_envelope", envelope.channel)
    timestamp = plausible(envelope.timestamp)
    parse = _PARSERS.get(envelope.channel)
    if parse is None:
        return Frame(envelope.channel, timestamp, envelope.sequence_num, skipped=1)
    events, skipped = parse(envelope.events)
    return Frame(envelope.channel, timestamp, envelope.sequence_num, events, skipped)


def _tickers(raw: Raw) -> tuple[tuple[Event, ...], int]:
    events, skipped = _known(raw, _ticker_events, _ticker_event)
    return tuple(Tickers(tuple(_ticker(line) for line in event.tickers)) for event in events), skipped


def _ticker(line: _TickerLine) -> Ticker:
    return Ticker(line.product_id, _number(line.price), _number(line.best_bid), _number(line.best_ask))


def _trades(raw: Raw) -> tuple[tuple[Event, ...], int]:
    events, skipped = _known(raw, _trades_events, _trades_event)
    for event in events:
        for trade in event.trades:
            check_trade(trade)
    return tuple(Trades(event.type == "snapshot", event.trades) for event in events), skipped


def _heartbeats(raw: Raw) -> tuple[tuple[Event, ...], int]:
    return tuple(Heartbeat(event.heartbeat_counter) for event in _heartbeat_events.decode(raw)), 0


def _subscriptions(raw: Raw) -> tuple[tuple[Event, ...], int]:
    return tuple(Subscriptions(event.subscriptions) for event in _subscriptions_events.decode(raw)), 0


_PARSERS = {TICKER: _tickers, MARKET_TRADES: _trades, HEARTBEATS: _heartbeats, SUBSCRIPTIONS: _subscriptions}
_Typed = TypeVar("_Typed", _TickerEvent, _TradesEvent)


def _known(
    raw: Raw, together: msgspec.json.Decoder[tuple[_Typed, ...]], single: msgspec.json.Decoder[_Typed]
) -> tuple[tuple[_Typed, ...], int]:
    """The events of types that we know and the number of others, which may have any shape."""
    try:
        events = together.decode(raw)
    except msgspec.ValidationError:
        parts = _raw_events.decode(raw)
        understood = [part for part in parts if _any_event.decode(part).type in EVENT_TYPES]
        return tuple(single.decode(part) for part in understood), len(parts) - len(understood)
    known = tuple(event for event in events if event.type in EVENT_TYPES)
    return known, len(events) - len(known)


def plausible(time: datetime) -> datetime:
    """The time in UTC. Raises Rejected for one that no venue can mean."""
    if time.year not in YEARS:
        raise Rejected("bad_time", str(time))
    return time if time.tzinfo is UTC else time.astimezone(UTC)


def sane(number: Decimal) -> bool:
    """Finite, not negative, and of a size that arithmetic cannot overflow."""
    return number.is_finite() and not number.is_signed() and abs(number.adjusted()) <= MAGNITUDE_MAX


def check_trade(trade: Trade) -> None:
    """Raises Rejected for a trade that must not enter a candle."""
    plausible(trade.time)
    if not (sane(trade.price) and trade.price and sane(trade.size)):
        raise Rejected("bad_number", f"trade {trade.trade_id}: {trade.price} x {trade.size}")


def _number(text: str) -> Decimal:
    """Zero for what is no usable number: an empty side of the book is written as an empty string."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return NOTHING
    return number if number.is_finite() and abs(number.adjusted()) <= MAGNITUDE_MAX else NOTHING
