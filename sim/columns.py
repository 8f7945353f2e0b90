"""The column forms of recorded market data: which cells mean what, and how their times are written. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from sim.market import EPOCH
from sim.ticks import UNIT, Candle, Side

TIME_NAMES = ("ts_ms", "start", "timestamp", "time", "date", "unix")
PRICE_NAMES = ("price",)
SIZE_NAMES = ("size", "qty", "quantity", "amount")
SYMBOL_NAMES = ("symbol", "product_id", "product")
QUOTES = ("USDT", "USDC", "USD", "EUR", "GBP")
BAR = ("open", "high", "low", "close")
DAILY_CANDLE = ("time", *BAR, "volume")
QUOTE_BAR = tuple(f"{side}_{part}" for side in ("bid", "ask") for part in (*BAR, "size"))
DAILY_TIME = re.compile(r"\d{8} \d\d:\d\d$")
LENGTH_MAX = 60  # characters of a number
MAGNITUDE_MAX = 18  # decimal digits before or after the point; no market comes near
LAST_YEAR = 2999  # a time in milliseconds that is read as seconds is beyond it, and so is what no calendar holds
HOURLY_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d-[AP]M$")


class Quote(NamedTuple):
    bid: Decimal
    ask: Decimal


class QuoteBar(NamedTuple):
    """Bid and ask over one bar; sizes are those at its end, in the base currency."""

    start: datetime
    open: Quote
    high: Quote
    low: Quote
    close: Quote
    bid_size: Decimal
    ask_size: Decimal


class TradeRow(NamedTuple):
    start: datetime
    price: Decimal
    size: Decimal
    side: Side | None
    trade_id: int | None


class QuoteRow(NamedTuple):
    start: datetime
    bid: Decimal
    ask: Decimal
    bid_size: Decimal | None
    ask_size: Decimal | None


Row = Candle | QuoteBar | TradeRow | QuoteRow
Parse = Callable[[Sequence[str]], Row]


class Form(NamedTuple):
    """How to read a row, and where its symbol stands (None: the file has no such column)."""

    parse: Parse
    symbol: int | None


def form_of(header: Sequence[str], sample: Sequence[str]) -> Form | None:
    """The form of a header (lower case); `sample` is the first row of data. None: not a header that we know."""
    at = {name: place for place, name in enumerate(header)}
    time_place = next((at[name] for name in TIME_NAMES if name in at), None)
    if time_place is None or time_place >= len(sample):
        return None
    time = time_reader(sample[time_place])
    symbol = next((at[name] for name in SYMBOL_NAMES if name in at), None)
    for build in (_quote_bars, _candles, _quotes, _trades):
        if parse := build(at, time_place, time):
            return Form(parse, symbol)
    return None


def headerless(first: Sequence[str]) -> tuple[str, ...] | None:
    """The names that a file without header would have, told by its first row."""
    if not first or not DAILY_TIME.match(first[0]):
        return None
    return {len(DAILY_CANDLE): DAILY_CANDLE, len(QUOTE_BAR) + 1: ("time", *QUOTE_BAR)}.get(len(first))


TimeReader = Callable[[str], datetime]


def time_reader(sample: str) -> TimeReader:
    """How the times of a file are written, told by one of them. All are UTC."""
    if sample.isdigit() and len(sample) != len("20141201"):
        step = {True: 1_000_000, False: 1_000}[len(sample) < 12] if len(sample) < 15 else 1
        return lambda cell: _usable(EPOCH + timedelta(microseconds=int(cell) * step))
    if DAILY_TIME.match(sample):
        return lambda cell: _usable(datetime.strptime(cell, "%Y%m%d %H:%M").replace(tzinfo=UTC))
    if HOURLY_TIME.match(sample):
        return lambda cell: _usable(datetime.strptime(cell, "%Y-%m-%d %I-%p").replace(tzinfo=UTC))
    return read_iso


def read_iso(cell: str) -> datetime:
    """RFC 3339, or a date and time without zone, which is UTC."""
    at = datetime.fromisoformat(cell)
    return _usable(at).replace(tzinfo=UTC) if at.tzinfo is None else _usable(at).astimezone(UTC)


def _usable(at: datetime) -> datetime:
    if not EPOCH.year <= at.year <= LAST_YEAR:
        raise ValueError(f"not a usable time: {at}")
    return at


def number(cell: str) -> Decimal:
    if len(cell) > LENGTH_MAX:
        raise ValueError(f"not a usable number: {cell[:LENGTH_MAX]}...")
    try:
        value = Decimal(cell)
    except InvalidOperation:
        raise ValueError(f"not a number: {cell!r}") from None
    if not value.is_finite() or value < 0 or abs(value.adjusted()) > MAGNITUDE_MAX:
        raise ValueError(f"not a usable number: {cell!r}")
    return value


def price(cell: str) -> Decimal:
    if not (value := number(cell)):
        raise ValueError(f"not a price: {cell!r}")
    return value


def size(cell: str) -> Decimal:
    """Rounded to 1e-8: some sources carry the noise of binary fractions."""
    return number(cell).quantize(UNIT)


def product_of(symbol: str) -> str | None:
    """BTC-USD of BTC-USD, BTC/USD, btc_usd or BTCUSD; None where no known quote currency ends it."""
    plain = re.sub(r"[/_-]", "", symbol.upper())
    for quote in QUOTES:
        if plain.endswith(quote) and plain.isalnum() and len(plain) > len(quote) + 1:
            return f"{plain.removesuffix(quote)}-{quote}"
    return None


Places = dict[str, int]


def _candles(at: Places, time_place: int, time: TimeReader) -> Parse | None:
    volume = _volume(at)
    if volume is None or any(name not in at for name in BAR):
        return None
    o, h, low, c = (at[name] for name in BAR)

    def parse(cells: Sequence[str]) -> Row:
        start = time(cells[time_place])
        candle = Candle(
            start, price(cells[o]), price(cells[h]), price(cells[low]), price(cells[c]), size(cells[volume])
        )
        if candle.high < max(candle.open, candle.close) or candle.low > min(candle.open, candle.close):
            raise ValueError("high or low does not enclose open and close")
        return candle

    return parse


def _volume(at: Places) -> int | None:
    """The base volume: some forms have `volume btc` beside a `volume` in the quote currency."""
    named = {name: place for name, place in at.items() if name.startswith("volume")}
    for name, place in named.items():
        unit = name.removeprefix("volume").strip(" _").upper()
        if unit and unit not in QUOTES:
            return place
    return named.get("volume")


def _quote_bars(at: Places, time_place: int, time: TimeReader) -> Parse | None:
    if any(name not in at for name in QUOTE_BAR):
        return None

    def parse(cells: Sequence[str]) -> Row:
        bid = [price(cells[at[f"bid_{part}"]]) for part in BAR]
        ask = [price(cells[at[f"ask_{part}"]]) for part in BAR]
        quotes = [Quote(min(pair), max(pair)) for pair in zip(bid, ask, strict=True)]
        sizes = size(cells[at["bid_size"]]), size(cells[at["ask_size"]])
        return QuoteBar(time(cells[time_place]), quotes[0], quotes[1], quotes[2], quotes[3], *sizes)

    return parse


def _quotes(at: Places, time_place: int, time: TimeReader) -> Parse | None:
    if "bid" not in at or "ask" not in at:
        return None
    bid, ask, bid_size, ask_size = at["bid"], at["ask"], at.get("bid_size"), at.get("ask_size")

    def parse(cells: Sequence[str]) -> Row:
        sizes = [size(cells[place]) if place is not None else None for place in (bid_size, ask_size)]
        return QuoteRow(time(cells[time_place]), price(cells[bid]), price(cells[ask]), sizes[0], sizes[1])

    return parse


def _trades(at: Places, time_place: int, time: TimeReader) -> Parse | None:
    price_place = next((at[name] for name in PRICE_NAMES if name in at), None)
    size_place = next((at[name] for name in SIZE_NAMES if name in at), None)
    if price_place is None or size_place is None:
        return None
    side_place, id_place = at.get("side"), at.get("trade_id")

    def parse(cells: Sequence[str]) -> Row:
        side = Side(cells[side_place].upper()) if side_place is not None and cells[side_place] else None
        trade_id = int(cells[id_place]) if id_place is not None and cells[id_place].isdigit() else None
        return TradeRow(time(cells[time_place]), price(cells[price_place]), size(cells[size_place]), side, trade_id)

    return parse
