"""A clock that is set by hand, and the memory bus with what a running risk needs: a ledger that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from libs.common import messages as m
from libs.common.bus import Bus, Delivery, Entry
from libs.common.clock import AsyncioTasks
from libs.common.errors import Conflict
from libs.common.subjects import INSTALLATION_KEY, STATE_BUCKET, TRADING_KEY
from services.risk.app import RiskShell
from services.risk.config import RiskConfig
from services.risk.core import RiskCore
from services.risk.metrics import RiskMetrics
from tests.common.memory_bus import MemoryBus, MemoryLedger
from tests.risk.builders import NOON, PRODUCTS, account, feed, installation, mark, product, trading


class HandClock:
    """All times stand where they are put."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def wall(self) -> datetime:
        return self.now

    def market(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return 0.0

    def observe(self, market_time: datetime) -> None:
        pass


class WaitingLedger(MemoryLedger):
    async def read(self) -> list[Delivery]:
        while not (page := await self.catch_up()):
            await asyncio.sleep(0.001)
        return page


class RiskBus(MemoryBus):
    """`before_store` happens between a service's decision to store the trading state and the write."""

    def __init__(self) -> None:
        super().__init__()
        self.before_store: Callable[[], None] = lambda: None
        self.deleted = False

    async def prepare(self) -> None:
        await self.store(STATE_BUCKET, INSTALLATION_KEY, msgspec.json.encode(installation()), 0)
        await self.store(STATE_BUCKET, TRADING_KEY, msgspec.json.encode(trading()), 0)
        self.published += [account(), *map(product, PRODUCTS), *map(feed, PRODUCTS), *map(mark, PRODUCTS)]

    def ledger(self, position: int) -> WaitingLedger:
        return WaitingLedger(self, position)

    async def store(self, bucket: str, key: str, value: bytes, revision: int | None) -> int:
        if key == TRADING_KEY:
            self.before_store()
            if self.deleted and revision is not None:
                raise Conflict("the mark of a deletion has a sequence of its own")
        return await super().store(bucket, key, value, revision)

    def write(self, state: m.TradingState) -> None:
        """Somebody else stores a trading state."""
        now = self.entries[STATE_BUCKET, TRADING_KEY]
        self.entries[STATE_BUCKET, TRADING_KEY] = Entry(msgspec.json.encode(state), now.revision + 1)
        for watcher in self.watchers:
            watcher(self.entries[STATE_BUCKET, TRADING_KEY])

    @property
    def trading(self) -> m.TradingState:
        return msgspec.json.decode(self.entries[STATE_BUCKET, TRADING_KEY].value, type=m.TradingState)

    def verdicts(self) -> list[m.Verdict]:
        return [item.message for item in self.stored if isinstance(item.message, m.Verdict)]


@asynccontextmanager
async def running(bus: RiskBus, limits: RiskConfig, clock: HandClock) -> AsyncIterator[RiskShell]:
    """One risk process, until the block ends."""
    failures: list[BaseException] = []
    tasks = AsyncioTasks(failures.append)
    core = RiskCore(limits, PRODUCTS, "USD")
    typed: Bus = bus
    shell = RiskShell("dev", core, bus=typed, clock=clock, tasks=tasks, metrics=RiskMetrics(core, clock))
    tasks.spawn(shell.run(), "shell")
    async with asyncio.timeout(5):
        while shell.not_ready() and not failures:
            await asyncio.sleep(0)
    try:
        yield shell
        assert not failures, failures
        await shell.close()
    finally:
        await tasks.close()
