"""What a public Coinbase feed says, read for the paper market: frames of its WebSocket, products of its REST. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct
from msgspec.structs import replace

from sim.columns import number, read_iso
from sim.money import ZERO
from sim.products import Product, spot_product
from sim.ticks import Side, Tick

HEARTBEATS, TICKER, TRADES = "heartbeats", "ticker", "market_trades"
CHANNELS = (HEARTBEATS, TICKER, TRADES)
INCREMENTS = ("base_increment", "quote_increment", "price_increment")
BOUNDS = ("base_min_size", "base_max_size", "quote_min_size", "quote_max_size")
MAGNITUDE_MAX = 18  # decimal digits before or after the point; nothing of the venue comes near
FLAGS = ("is_disabled", "trading_disabled", "cancel_only", "limit_only", "post_only", "auction_mode", "view_only")


class FeedBroken(Exception):
    """No dependable price comes from the feed any more; one line that says why."""


class Unreadable(Exception):
    """One message that cannot be understood. Where it bore a number, the next one shows a gap."""


class Beat(NamedTuple):
    """The feed is alive: what it said last still holds."""


class Past(NamedTuple):
    """A trade from before the subscription. It is known, and fills nothing."""

    tick: Tick


Fact = Beat | Past | Tick


class _Envelope(Struct):
    channel: str = ""
    sequence_num: Annotated[int, Meta(ge=0)] | None = None
    timestamp: str = ""
    events: list[Raw] = []
    type: str = ""
    message: str = ""


class _Ticker(Struct):
    product_id: str
    price: str = ""
    best_bid: str = ""
    best_ask: str = ""
    best_bid_quantity: str = ""
    best_ask_quantity: str = ""


class _Tickers(Struct):
    tickers: list[_Ticker] = []


class _Trade(Struct):
    product_id: str
    trade_id: int
    price: str
    size: str
    time: str
    side: Side


class _Trades(Struct):
    type: str = ""
    trades: list[_Trade] = []  # newest first


class _Subscriptions(Struct):
    subscriptions: dict[str, list[str]]


_envelope = msgspec.json.Decoder(_Envelope, strict=False).decode
_tickers = msgspec.json.Decoder(_Tickers).decode
_trades = msgspec.json.Decoder(_Trades, strict=False).decode  # trade ids are numbers in strings
_subscriptions = msgspec.json.Decoder(_Subscriptions).decode


class Link:
    """One connection to the feed, from its first message on. `quotes`: the latest of each product, as a tick.

    The venue numbers the messages of a connection over all channels: above the next number one was lost, below it was
    overtaken and is to be ignored.
    """

    def __init__(self, product_ids: Iterable[str]) -> None:
        self.quotes: dict[str, Tick] = {}
        self._product_ids = tuple(product_ids)
        self._next: int | None = None
        self._subscribed: dict[str, list[str]] = {}

    def lacks(self) -> str:
        """What is still to come before its prices can be traded at; empty when nothing."""
        for channel in CHANNELS:
            wanted = (HEARTBEATS,) if channel == HEARTBEATS else self._product_ids
            if missing := [name for name in wanted if name not in self._subscribed.get(channel, ())]:
                return f"channel {channel} of {missing[0]}"
        return next((f"a price of {name}" for name in self._product_ids if name not in self.quotes), "")

    def read(self, data: bytes | str) -> list[Fact]:
        """Take the next message. Raises FeedBroken, or Unreadable for one that can be skipped."""
        try:
            envelope = _envelope(data)
            if not envelope.channel and envelope.type == "error":
                raise FeedBroken(f"the feed says: {envelope.message[:200]}")
            if envelope.sequence_num is None or self._overtaken(envelope.sequence_num):
                return []
            return self._facts(envelope)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            raise Unreadable(str(error)[:200]) from None

    def _overtaken(self, sequence: int) -> bool:
        expected = sequence if self._next is None else self._next
        if sequence > expected:
            raise FeedBroken(f"messages were lost: expected number {expected}, got {sequence}")
        if sequence == expected:
            self._next = sequence + 1
        return sequence < expected

    def _facts(self, envelope: _Envelope) -> list[Fact]:
        match envelope.channel:
            case "heartbeats":
                return [Beat()]
            case "subscriptions":
                for event in envelope.events:
                    self._subscribed = _subscriptions(event).subscriptions
                return []
            case "ticker":
                lines = [line for event in envelope.events for line in _tickers(event).tickers]
                wanted = [line for line in lines if line.product_id in self._product_ids]
                quotes = [quote for line in wanted if (quote := _quote(line, read_iso(envelope.timestamp)))]
                self.quotes.update((quote.product_id, quote) for quote in quotes)
                return list(quotes)
            case "market_trades":
                return [fact for event in envelope.events for fact in self._traded(_trades(event))]
        return []  # the venue adds channels without notice

    def _traded(self, event: _Trades) -> Sequence[Fact]:
        ticks = [self._trade(trade) for trade in reversed(event.trades) if trade.product_id in self._product_ids]
        return ticks if event.type == "update" else [Past(tick) for tick in ticks]

    def _trade(self, trade: _Trade) -> Tick:
        """With the best prices that stand beside it, so that the book stays the feed's own."""
        paid, size = _amount(trade.price), _amount(trade.size)
        if not paid:
            raise ValueError(f"trade {trade.trade_id} has no price")
        traded = Tick(read_iso(trade.time), trade.product_id, trade.trade_id, paid, size, trade.side)
        quote = self.quotes.get(trade.product_id)
        if quote is None:
            return traded
        return traded._replace(bid=quote.bid, ask=quote.ask, bid_size=quote.bid_size, ask_size=quote.ask_size)


def _quote(line: _Ticker, at: datetime) -> Tick | None:
    """None without both sides, or with crossed ones: the product's flags tell about a market that stands so."""
    if not (line.price and line.best_bid and line.best_ask):
        return None
    last, bid, ask = (_amount(cell) for cell in (line.price, line.best_bid, line.best_ask))
    if not 0 < bid <= ask or not last:
        return None
    sizes = _amount(line.best_bid_quantity or "0"), _amount(line.best_ask_quantity or "0")
    return Tick(at, line.product_id, 0, last, ZERO, Side.SELL, bid, ask, *sizes)


def _amount(cell: str) -> Decimal:
    """Raises ValueError for what is no number, or one that arithmetic could not bear."""
    value = number(cell)
    if abs(value.adjusted()) > MAGNITUDE_MAX:
        raise ValueError(f"no usable number: {cell[:40]}")
    return value


class _Products(Struct):
    products: list[dict[str, object]]


_products = msgspec.json.Decoder(_Products).decode


def products_of(data: bytes, product_ids: Sequence[str]) -> list[Product]:
    """The rules of these products in an answer of List Products. Raises FeedBroken where one of them is missing."""
    try:
        told = {str(fields.get("product_id")): fields for fields in _products(data).products}
        return [_product(product_id, told[product_id]) for product_id in product_ids]
    except KeyError as error:
        raise FeedBroken(f"the feed does not list {error.args[0]}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise FeedBroken(f"the feed's products cannot be read: {error}") from None


def _product(product_id: str, fields: dict[str, object]) -> Product:
    """`price_increment` was absent until 2024, when it was the quote increment."""
    cells = {"price_increment": fields.get("quote_increment"), **{k: v for k, v in fields.items() if v is not None}}
    figures = {name: _amount(str(cells.get(name))) for name in (*INCREMENTS, *BOUNDS)}
    if not all(figures[name] for name in INCREMENTS):
        raise ValueError(f"{product_id} has an increment of 0")
    flags = {name: cells.get(name) is True for name in FLAGS}
    names = {name: str(cells.get(name) or "") for name in ("base_name", "quote_name")}
    own = {**figures, **flags, **names, "status": str(cells.get("status") or "online")}
    return replace(spot_product(product_id), **own)
