"""Recordings as one market: their ticks in time order, and what marketdata is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from heapq import merge
from itertools import chain
from math import ceil
from operator import attrgetter
from pathlib import Path

import msgspec

from libs.common.errors import BadConfig, BadData
from libs.common.settings import GRANULARITY_SECONDS
from services.marketdata import facts as f
from services.marketdata import wire
from services.marketdata.candles import PAGE_CANDLES
from services.marketdata.venue import TRADES_MAX
from sim import readers
from sim.book import Book, Level
from sim.history import History, unix
from sim.hub import SNAPSHOT_TRADES
from sim.replay import Replay, open_replay
from sim.ticks import LAST_MOMENT, Tick
from sim.wire import product_json

NOTHING = Level(Decimal(0), Decimal(0))
CHANNELS = {wire.HEARTBEATS: (wire.HEARTBEATS,)}


def open_market(files: Sequence[Path], start: datetime | None, end: datetime | None) -> Market:
    """Read and check all that will be replayed, start <= time < end. Raises BadData, or BadConfig for a product that
    is recorded twice."""
    try:
        replays = [open_replay(path, None, start, end) for path in files]
    except readers.BadData as error:
        raise BadData(str(error)) from None
    names = [replay.product_id for replay in replays]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadConfig(f"{twice[0]} is in more than one file")
    if not replays:
        raise BadConfig("no file of recorded data is given")
    return Market(replays)


class Market:
    """`opens_at` is the moment before the first tick; what happened before it is `past`, of every product."""

    def __init__(self, replays: Sequence[Replay]) -> None:
        self.products = {replay.product_id: replay.product for replay in replays}
        self.total_ticks = sum(replay.total_ticks for replay in replays)
        self.candle_seconds = max((replay.candle_seconds or 0 for replay in replays), default=0)
        self.histories = {replay.product_id: History() for replay in replays}
        streams = [iter(replay) for replay in replays]
        self._firsts = [next(stream) for stream in streams]
        self._streams = [chain((first,), stream) for first, stream in zip(self._firsts, streams, strict=True)]
        self.first_at = min(first.at for first in self._firsts)
        self.opens_at = self.first_at - LAST_MOMENT
        for replay in replays:
            for tick in replay.past():
                self.histories[replay.product_id].add(tick)

    def opening_ticks(self) -> Iterator[Tick]:
        """The price of each product before the first tick: its last one, or the one at which its recording begins.
        A product whose recording begins later has none."""
        for first in self._firsts:
            last = self.histories[first.product_id].last
            if last is not None:
                yield last
            elif first.at - LAST_MOMENT <= self.opens_at:
                yield first

    def ticks(self) -> Iterator[Tick]:
        """In time order; at one moment, in the order of the files. To be walked once."""
        if len(self._streams) == 1:
            return iter(self._streams[0])
        return merge(*self._streams, key=attrgetter("at"))

    def remember(self, tick: Tick) -> None:
        """Keep a tick for whoever asks for the candle that was open at the start: later ones nobody asks for."""
        self.histories[tick.product_id].add(tick)

    def opening(self, books: Iterable[tuple[str, Book]]) -> tuple[wire.Event, ...]:
        """What a connection begins with: prices, the latest trades, and that everything is subscribed."""
        recent = (trade for past in self.histories.values() for trade in past.trades(SNAPSHOT_TRADES))
        names = tuple(self.products)
        return (
            wire.Tickers(tuple(ticker(product_id, book) for product_id, book in books)),
            wire.Trades(True, tuple(map(_trade, recent))),
            wire.Subscriptions({**CHANNELS, wire.TICKER: names, wire.MARKET_TRADES: names}),
        )

    def fetch(self, request: f.Fetch) -> f.Fetched:
        """What the venue's REST interface answers."""
        label, history = f"answer-{request.id}", self.histories[request.product_id]
        match request:
            case f.FetchCandles():
                seconds = GRANULARITY_SECONDS[request.granularity]
                bars = history.candles(seconds, unix(request.start), unix(request.end) - 1, PAGE_CANDLES)
                buckets = (wire.Bucket(b.start, b.open, b.high, b.low, b.close, b.volume) for b in bars)
                return f.Fetched(id=label, request=request, candles=tuple(buckets))
            case f.FetchTrades():
                found = history.trades(TRADES_MAX, unix(request.start), ceil(request.end.timestamp()))
                return f.Fetched(id=label, request=request, trades=tuple(map(_trade, found)))
            case f.FetchProduct():
                told = product_json(self.products[request.product_id], "", history.day())
                return f.Fetched(id=label, request=request, product=wire.parse_product(msgspec.json.encode(told)))


def told(tick: Tick, book: Book) -> tuple[wire.Event, ...]:
    """A tick as marketdata hears of it: the trade, where there was one, goes before the price."""
    price = wire.Tickers((ticker(tick.product_id, book),))
    return (wire.Trades(False, (_trade(tick),)), price) if tick.is_trade else (price,)


def ticker(product_id: str, book: Book) -> wire.Ticker:
    bid = book.bids[0] if book.bids else NOTHING
    ask = book.asks[0] if book.asks else NOTHING
    return wire.Ticker(product_id, book.last, bid.price, ask.price, bid.size or None, ask.size or None)


def _trade(tick: Tick) -> wire.Trade:
    return wire.Trade(tick.trade_id, tick.product_id, tick.price, tick.size, tick.at)
