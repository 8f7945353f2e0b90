"""The book shown around the market's price: finite, deterministic, consumed by takers until the next tick."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct

from sim.money import ZERO, ceil_to, floor_to
from sim.products import Product
from sim.ticks import Side, Tick

TEN_THOUSAND = Decimal(10_000)
# Neighbouring levels differ as they do in recorded books; whole numbers keep every size a multiple of its increment.
WEIGHTS = (10, 4, 17, 25, 8, 31, 14, 42, 20, 58)


class Depth(Struct, frozen=True):
    """How the book is made. A level's size is worth about `level_value` in the quote currency, times 0.4 to 5.8."""

    half_spread_bps: Decimal = Decimal(1)
    levels: int = 10
    level_value: Decimal = Decimal(50_000)


class Level(NamedTuple):
    price: Decimal
    size: Decimal


class Book:
    """Bids and asks of one product, best first. Takers consume levels; the next tick makes a new book."""

    def __init__(self, at: datetime, last: Decimal, bids: list[Level], asks: list[Level]) -> None:
        self.at = at
        self.last = last
        self.bids = bids
        self.asks = asks

    def against(self, side: Side) -> list[Level]:
        """The levels that an order of this side would take."""
        return self.asks if side is Side.BUY else self.bids

    def crosses(self, side: Side, price: Decimal) -> bool:
        """Whether a limit at `price` would take at once."""
        levels = self.against(side)
        if not levels:
            return False
        return price >= levels[0].price if side is Side.BUY else price <= levels[0].price

    def consume(self, side: Side, size: Decimal) -> None:
        """Remove `size` from the best level that an order of this side takes."""
        levels = self.against(side)
        left = levels[0].size - size
        if left > 0:
            levels[0] = Level(levels[0].price, left)
        else:
            del levels[0]


def book_at(product: Product, tick: Tick, depth: Depth) -> Book:
    """The book after a tick: its own quotes where it has some, else the half spread around its price."""
    step = product.price_increment
    half = max(ceil_to(tick.price * depth.half_spread_bps / TEN_THOUSAND, step), step)
    bid = floor_to(tick.bid if tick.bid is not None else max(tick.price - half, ZERO), step)
    ask = ceil_to(tick.ask if tick.ask is not None else tick.price + half, step)
    if ask <= bid:
        ask = bid + step
    gap = max(floor_to(tick.price / TEN_THOUSAND, step), step)
    unit = max(floor_to(depth.level_value / tick.price / 10, product.base_increment), product.base_increment)
    bids = [_level(bid - gap * place, unit, place) for place in range(depth.levels)]
    asks = [_level(ask + gap * place, unit, place) for place in range(depth.levels)]
    bids = [level for level in bids if level.price > 0]
    _override(bids, tick.bid_size, product)
    _override(asks, tick.ask_size, product)
    return Book(tick.at, tick.price, bids, asks)


def _level(price: Decimal, unit: Decimal, place: int) -> Level:
    return Level(price, unit * WEIGHTS[place % len(WEIGHTS)])


def _override(levels: list[Level], size: Decimal | None, product: Product) -> None:
    if size and levels:
        levels[0] = Level(levels[0].price, max(floor_to(size, product.base_increment), product.base_increment))
