"""The services' real venue code on one virtual network with the simulated venue."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, TypeVar

from libs.common.messages import ApprovedOrder, OrderType, Side, TimeInForce
from services.execution.inputs import VenueOrder
from services.execution.venue import CoinbaseVenue
from services.marketdata.venue import CoinbaseMarket
from sim.ticks import Side as MakerSide
from sim.ticks import Tick
from sim.world.exchange import open_venue
from sim.world.loop import Clock, Loop, Scheduler
from sim.world.network import VenueNetwork

T = TypeVar("T")
EPOCH = datetime(2026, 1, 5, 12, tzinfo=UTC)
BTC = "BTC-USD"
REST_URL, MARKET_URL, USER_URL = "https://venue", "wss://venue/ws", "wss://venue/ws/user"
TIMEOUT_SECONDS, TOKEN_SECONDS = 2, 5


def order(key: str = "c1", price: str = "90000", size: str = "0.01") -> ApprovedOrder:
    """A purchase that rests below the market."""
    return ApprovedOrder(
        client_order_id=key,
        product_id=BTC,
        side=Side.BUY,
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.GTC,
        quantity=Decimal(size),
        limit_price=Decimal(price),
        reduce_only=False,
    )


class Rig:
    """One venue, one execution, one marketdata. Every request of the network is noted."""

    def __init__(self, seed: int) -> None:
        self.scheduler = Scheduler()
        self.venue = open_venue(self.scheduler, EPOCH, (BTC,), {"USD": Decimal(100_000)}, "rig")
        self.network = VenueNetwork(self.scheduler, Random(seed), self.venue)
        self.network.observe(self._sent, self._arrived)
        self.weather = self.network.weather
        self.sent: list[tuple[float, str, str]] = []
        self.arrived: list[tuple[float, str, datetime | None]] = []
        self.loops: list[Loop] = []
        self.errors: list[BaseException] = []
        self.execution = self.loop("execution")
        self.client = self.coinbase(self.execution, seed)
        self.trade("100000")

    def loop(self, name: str) -> Loop:
        self.loops.append(Loop(self.scheduler, name, self.errors.append))
        return self.loops[-1]

    def coinbase(self, loop: Loop, seed: int = 1) -> CoinbaseVenue:
        return CoinbaseVenue(
            REST_URL,
            USER_URL,
            self.network.signer(TOKEN_SECONDS),
            Clock(loop, EPOCH),
            TIMEOUT_SECONDS,
            market_ws_url=MARKET_URL,
            http=self.network.http(loop, TIMEOUT_SECONDS),
            dial=self.network.dial(loop),
            chance=Random(seed).random,
        )

    def market(self, loop: Loop) -> CoinbaseMarket:
        return CoinbaseMarket(REST_URL, MARKET_URL, (BTC,), http=self.network.http(loop), dial=self.network.dial(loop))

    def trade(self, price: str) -> None:
        """The market moves."""
        self.venue.deliver(Tick(self.now, BTC, self.scheduler.steps, Decimal(price), Decimal(1), MakerSide.BUY))

    @property
    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.scheduler.now)

    def run(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now + seconds)
        assert not self.errors

    def ask(self, work: Coroutine[Any, Any, T], loop: Loop | None = None, seconds: float = 60) -> T:
        """What the work gives or raises; within so much time."""
        ended: list[T | Exception] = []

        async def noted() -> None:
            try:
                ended.append(await work)
            except Exception as error:  # noqa: BLE001
                ended.append(error)

        (loop or self.execution).start(noted())
        until = self.scheduler.now + seconds
        while not ended and self.scheduler.now < until:
            self.run(0.01)
        assert ended, "it goes on for longer"
        if isinstance(ended[0], Exception):
            raise ended[0]
        return ended[0]

    def place(self, key: str = "c1") -> str:
        return self.ask(self.client.place(order(key), lambda expires_at: None))

    def acted(self, path: str = "/orders") -> int:
        return sum(arrived == path for _, arrived, _ in self.arrived)

    def left(self, path: str = "/orders") -> int:
        return sum(sent == path for _, _, sent in self.sent)

    def follow(self) -> list[str]:
        """What the user channel tells from now on: client order ids and statuses, "?" where it may have missed some."""
        told: list[str] = []

        async def read() -> None:
            async for update in self.client.user_updates():
                told.append(shown(update))

        self.execution.start(read())
        return told

    def frames(self, loop: Loop) -> list[bytes | str | Exception]:
        """What a new market connection tells, up to the error that ended it."""
        told: list[bytes | str | Exception] = []

        async def read() -> None:
            try:
                connection = await self.market(loop).connect()
                while True:
                    told.append(await connection.read())
            except Exception as error:  # noqa: BLE001
                told.append(error)

        loop.start(read())
        return told

    def _sent(self, process: str, method: str, path: str, body: bytes, expires_at: datetime | None) -> None:
        self.sent.append((self.scheduler.now, process, path))

    def _arrived(self, process: str, method: str, path: str, body: bytes, expires_at: datetime | None) -> None:
        self.arrived.append((self.scheduler.now, path, expires_at))


def shown(update: VenueOrder | None) -> str:
    return "?" if update is None else f"{update.client_order_id} {update.status}"


@contextmanager
def rig(seed: int = 1, measured: bool = True) -> Iterator[Rig]:
    """`measured`: execution has compared its clock with the venue's already."""
    made = Rig(seed)
    try:
        if measured:
            made.ask(made.client.account())
        yield made
    finally:
        for loop in made.loops:
            loop.die()
            loop.bury()
        asyncio.set_event_loop(None)
