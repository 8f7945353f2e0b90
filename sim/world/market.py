"""Prices of a world: a random walk per product, with jumps, and trades of all sizes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from sim.products import ASSETS
from sim.ticks import Side, Tick
from sim.world.loop import Scheduler

STEP = 0.0008  # standard deviation of one return
JUMP_CHANCE, JUMP = 0.01, 0.01
PAUSES = (0.4, 2.4)  # seconds between two ticks
SIZES = ((5, 100), (20, 30_000))  # quote currency, of what the market trades: every other trade is a small one
CENT, UNIT = Decimal("0.01"), Decimal("0.000001")


class Market:
    """`deliver` takes each tick at its moment."""

    def __init__(
        self,
        scheduler: Scheduler,
        chance: Random,
        epoch: datetime,
        products: tuple[str, ...],
        deliver: Callable[[Tick], None],
    ) -> None:
        self._scheduler = scheduler
        self._chance = chance
        self._epoch = epoch
        self._deliver = deliver
        self._trades = 0
        self._prices = {name: float(ASSETS[name.partition("-")[0]].base_price) for name in products}

    def start(self) -> None:
        for product_id in self._prices:
            self._next(product_id)

    def tick(self, product_id: str) -> Tick:
        """What is traded now."""
        chance = self._chance
        move = chance.gauss(0, STEP) + (chance.choice((-JUMP, JUMP)) if chance.random() < JUMP_CHANCE else 0)
        self._prices[product_id] *= 1 + move
        self._trades += 1
        price = Decimal(self._prices[product_id]).quantize(CENT)
        size = (Decimal(chance.randint(*chance.choice(SIZES))) / price).quantize(UNIT)
        at = self._epoch + timedelta(seconds=self._scheduler.now)
        return Tick(at, product_id, self._trades, price, size, Side.SELL if move >= 0 else Side.BUY)

    def _next(self, product_id: str) -> None:
        def trade() -> None:
            self._deliver(self.tick(product_id))
            self._next(product_id)

        self._scheduler.later(self._chance.uniform(*PAUSES), trade)
