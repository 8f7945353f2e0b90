"""What a market source yields: ticks, and candles walked as four ticks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from sim.money import ZERO


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


class Tick(NamedTuple):
    """One trade of the market, or one quote (`bid` and `ask` given).

    `side` is the MAKER's side, as on the venue's market_trades channel. `size` may be 0: with quotes given nothing
    was traded, else it is a trade of a candle without volume, which consumers need to see the price.
    """

    at: datetime
    product_id: str
    trade_id: int
    price: Decimal
    size: Decimal
    side: Side
    bid: Decimal | None = None
    ask: Decimal | None = None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None

    @property
    def is_trade(self) -> bool:
        return self.size > 0 or self.bid is None


class Candle(NamedTuple):
    """`start` is the bucket's beginning (UTC), `volume` is in the base currency."""

    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


UNIT = Decimal("0.00000001")  # sizes of replayed ticks move in this step, the smallest that the venue knows
LAST_MOMENT = timedelta(milliseconds=1)


def ticks_of(candle: Candle, product_id: str, seconds: int, first_trade_id: int) -> Iterator[Tick]:
    """Walk a candle of `seconds`: open, low and high (close >= open: low first), close.

    Aggregating the four ticks gives back exactly the candle's prices and, in steps of 1e-8, its volume. The last
    tick comes 1 ms before the end, so that all four fall into the candle.
    """
    length = timedelta(seconds=seconds)
    rising = candle.close >= candle.open
    turns = (candle.low, candle.high) if rising else (candle.high, candle.low)
    prices = (candle.open, *turns, candle.close)
    times = (
        candle.start,
        candle.start + length / 4,
        candle.start + length / 2,
        candle.start + length - LAST_MOMENT,
    )
    side = Side.SELL if rising else Side.BUY
    previous = candle.open
    for index, (at, price, size) in enumerate(zip(times, prices, _shares(candle.volume), strict=True)):
        if price != previous:  # a rising price takes offers, so the maker sold
            side = Side.SELL if price > previous else Side.BUY
        yield Tick(at, product_id, first_trade_id + index, price, size, side)
        previous = price


def _shares(volume: Decimal) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Four sizes that add up to the volume; the first ones take what does not divide."""
    units, rest = divmod(int((volume / UNIT).to_integral_value()), 4)
    first, second, third, fourth = (UNIT * (units + (1 if rest > place else 0)) for place in range(4))
    return (first, second, third, fourth) if volume else (ZERO, ZERO, ZERO, ZERO)
