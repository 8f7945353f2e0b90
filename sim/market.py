"""The synthetic market: prices as a pure function of (seed, product, tick index, last price).

Time is cut into quarter seconds since 1970, so that a restart goes on where the clock is, with the same trade ids.
Every minute holds two regimes of 20 to 40 seconds, in most of which the price trends, upwards in the first and
downwards in the second: a 5/20 crossover over 2-second candles has something to trade within a minute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

from sim.money import ONE, floor_to
from sim.products import ASSETS, DEFAULT_ASSET, Asset, spot_product
from sim.ticks import Side, Tick

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS_PER_SECOND = 4
TICK_US = 1_000_000 // TICKS_PER_SECOND
TICKS_PER_MINUTE = 60 * TICKS_PER_SECOND
HISTORY = timedelta(minutes=30)
LATE = timedelta(minutes=1)  # after a longer sleep of the machine the market goes on from now
SCALE = Decimal(10_000_000)  # returns are whole numbers of 1e-7


class Regime(Enum):
    TREND = 0
    RANGE = 1
    JUMP = 2
    QUIET = 3


# Of ten regimes seven trend, one each ranges, jumps and is quiet.
REGIMES = (*[Regime.TREND] * 7, Regime.RANGE, Regime.JUMP, Regime.QUIET)


class Spell(NamedTuple):
    """One regime: how it started, which way it goes, how strongly (return per tick in 1e-7)."""

    regime: Regime
    sign: int
    drift: int
    age: int


def price_after(seed: int, product_id: str, index: int, last: Decimal) -> tuple[Decimal, Decimal] | None:
    """Price and size of tick `index` after `last`; None where nothing is traded."""
    asset = ASSETS.get(product_id.partition("-")[0], DEFAULT_ASSET)
    spell = _spell(seed, product_id, index)
    noise, chance, size = _draws(f"{seed}|{product_id}|tick|{index}")
    if spell.regime is Regime.QUIET and chance % 10:
        return None
    moved = last * (SCALE + _return(spell, noise, last / asset.base_price)) / SCALE
    price = max((moved / asset.price_increment).to_integral_value(), ONE) * asset.price_increment
    return price, _size(size, price, asset)


def _spell(seed: int, product_id: str, index: int) -> Spell:
    minute, place = divmod(index, TICKS_PER_MINUTE)
    cut = TICKS_PER_MINUTE // 3 + _draws(f"{seed}|{product_id}|cut|{minute}")[0] % (TICKS_PER_MINUTE // 3 + 1)
    second_half = place >= cut
    kind, strength, _ = _draws(f"{seed}|{product_id}|regime|{minute}|{second_half}")
    sign = -1 if second_half else 1
    drift = 900 + strength % 900  # 3.6 to 7.2 per mille in ten seconds
    return Spell(REGIMES[kind % len(REGIMES)], sign, drift, place - cut if second_half else place)


def _return(spell: Spell, noise: int, level: Decimal) -> int:
    """The tick's return in 1e-7; far from the base price the way back is steeper than the way out."""
    wobble = noise % 801 - 400
    match spell.regime:
        case Regime.TREND:
            outwards = (level > 1) == (spell.sign > 0)
            far = abs(level - 1) > Decimal("0.05")
            return spell.sign * (spell.drift // 2 if outwards and far else spell.drift) + wobble
        case Regime.RANGE:
            return (600 if spell.age // 20 % 2 else -600) + wobble
        case Regime.JUMP:
            return spell.sign * 60_000 if spell.age == 0 else wobble
        case Regime.QUIET:
            return wobble // 4


def _size(draw: int, price: Decimal, asset: Asset) -> Decimal:
    """Mostly small trades, some up to about 20,000 in the quote currency."""
    share = draw % 1000
    value = Decimal(20 + 20_000 * share**3 // 1000**3)
    return max(floor_to(value / price, asset.base_increment), asset.base_increment)


def _draws(name: str) -> tuple[int, int, int]:
    digest = hashlib.blake2b(name.encode(), digest_size=12).digest()
    return int.from_bytes(digest[:4]), int.from_bytes(digest[4:8]), int.from_bytes(digest[8:])


class SyntheticMarket:
    """Ticks of several products up to any moment. `last_prices` continue where an earlier run stopped.

    Products take turns within each quarter second, so that time rises strictly over all of them.
    """

    def __init__(self, seed: int, product_ids: Sequence[str], last_prices: Mapping[str, Decimal]) -> None:
        self.product_ids = tuple(product_ids)
        self._seed = seed
        self._last = {name: last_prices.get(name) or _base_price(name) for name in product_ids}
        self._turn = 0

    def backfill(self, now: datetime) -> Iterator[Tick]:
        """The trades of the half hour before `now`, leading up to the last prices; the market goes on from there."""
        end = (now - EPOCH) // timedelta(microseconds=TICK_US)
        first = end - int(HISTORY.total_seconds()) * TICKS_PER_SECOND
        begun = sum(self._time(end, place) <= now for place in range(len(self.product_ids)))
        walks = [
            self._walk(product_id, first, end + (place < begun)) for place, product_id in enumerate(self.product_ids)
        ]
        for index in range(first, end + 1):
            for place, walk in enumerate(walks):
                if drawn := walk.get(index):
                    yield self._tick(place, index, *drawn)
        self._turn = end * len(self.product_ids) + begun

    def due(self, now: datetime) -> Iterator[Tick]:
        """What has been traded since the last call, up to `now`."""
        if now - self.next_at() > LATE:
            self._turn = (now - EPOCH) // timedelta(microseconds=TICK_US) * len(self.product_ids)
        while self.next_at() <= now:
            index, place = divmod(self._turn, len(self.product_ids))
            product_id = self.product_ids[place]
            if drawn := price_after(self._seed, product_id, index, self._last[product_id]):
                yield self._tick(place, index, *drawn)
            self._turn += 1

    def next_at(self) -> datetime:
        """When the next tick is due."""
        return self._time(*divmod(self._turn, len(self.product_ids)))

    def _time(self, index: int, place: int) -> datetime:
        return EPOCH + timedelta(microseconds=index * TICK_US + place * TICK_US // len(self.product_ids))

    def _walk(self, product_id: str, first: int, end: int) -> dict[int, tuple[Decimal, Decimal]]:
        """Walk from the last price, then scale the walk so that it ends there: the past has to meet the present."""
        drawn: dict[int, tuple[Decimal, Decimal]] = {}
        price = target = self._last[product_id]
        for index in range(first, end):
            if step := price_after(self._seed, product_id, index, price):
                drawn[index] = step
                price = step[0]
        step_size = spot_product(product_id).price_increment
        factor = target / price
        return {
            index: (max((was * factor / step_size).to_integral_value(), ONE) * step_size, size)
            for index, (was, size) in drawn.items()
        }

    def _tick(self, place: int, index: int, price: Decimal, size: Decimal) -> Tick:
        product_id = self.product_ids[place]
        side = Side.SELL if price >= self._last[product_id] else Side.BUY
        self._last[product_id] = price
        return Tick(self._time(index, place), product_id, index, price, size, side)


def _base_price(product_id: str) -> Decimal:
    return ASSETS.get(product_id.partition("-")[0], DEFAULT_ASSET).base_price
