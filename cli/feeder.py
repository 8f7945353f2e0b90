"""Walks a recorded market through the running system, one tick at a time: the next tick waits until everything that
follows from the last one is done. Two replays of the same data therefore give the same trades, on any machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import httpx
import msgspec
from msgspec import Struct

from cli.journal import Journal
from libs.common import messages as m
from libs.common.errors import BusDown, StackFailed

TICK_SECONDS = 30.0  # wall; a service may be restarted meanwhile
LOOK_SECONDS = 0.005
SYNCED = ("marketdata", "strategy", "risk", "execution")  # in the order in which a price goes through them
ONE_TICK = b'{"ticks":1}'


class Operator(Protocol):
    """The part of the operator's bus that we use."""

    async def last(self, kind: type[m.Message]) -> list[m.Message]: ...

    async def request(self, service: str, command: str, body: m.Command, timeout_seconds: float) -> m.Reply: ...


class SteppedFill(Struct, frozen=True):
    entry_id: str
    client_order_id: str
    product_id: str


class Step(Struct, frozen=True):
    """The venue's answer to a step. `products` holds the time of each product's last tick."""

    done: bool
    market_time: datetime
    ticks_done: int
    ticks_total: int
    products: dict[str, datetime]
    fills: list[SteppedFill]


class Feeder:
    """`speed` is a ceiling: market seconds per wall second, 0 for none."""

    def __init__(self, journal: Journal, bus: Operator, venue: httpx.AsyncClient, speed: float) -> None:
        self._journal = journal
        self._bus = bus
        self._venue = venue
        self._speed = speed
        self._decode = msgspec.json.Decoder(Step).decode
        self.first_time: datetime | None = None
        self.last: Step | None = None

    @property
    def last_time(self) -> datetime:
        """Market time of the last tick."""
        return max(self.last.products.values(), default=m.EPOCH) if self.last else m.EPOCH

    async def run(self, progress: Callable[[Step], None]) -> None:
        """Feed every tick. Raises StackFailed naming the service that does not keep up."""
        await self.settle(set())
        began = time.monotonic()
        while True:
            step = await self._step()
            if step.done:
                break
            self.last = step
            self.first_time = self.first_time or step.market_time
            await self._decided(step)
            if step.fills or self._journal.unfinished:
                await self.settle({fill.entry_id for fill in step.fills})
            progress(step)
            if self._speed:
                due = (step.market_time - self.first_time).total_seconds() / self._speed
                await asyncio.sleep(max(0.0, due - (time.monotonic() - began)))
        await self.settle(set())

    async def _step(self) -> Step:
        deadline = time.monotonic() + TICK_SECONDS
        while True:
            try:
                answer = await self._venue.post("/sim/step", content=ONE_TICK)
                answer.raise_for_status()
                return self._decode(answer.content)
            except (httpx.HTTPError, msgspec.DecodeError) as error:
                # Safe to ask again: a tick whose answer was lost is simply one that we do not wait for.
                if time.monotonic() > deadline:
                    raise StackFailed(f"the simulated venue does not step: {error!r}") from None
                await asyncio.sleep(0.1)

    async def _decided(self, step: Step) -> None:
        decisions = self._journal.decisions

        def behind() -> list[str]:
            return [p for p, at in step.products.items() if p not in decisions or decisions[p].mark_at < at]

        if behind() and not await self._journal.until(lambda: not behind(), TICK_SECONDS):
            raise StackFailed(await self._who_is_behind(step, behind()[0]))

    async def _who_is_behind(self, step: Step, product: str) -> str:
        at = step.products[product]
        marks = {mark.product_id: mark for mark in await self._bus.last(m.Mark) if isinstance(mark, m.Mark)}
        late = product not in marks or marks[product].at < at
        service, what = ("marketdata", "mark") if late else ("strategy", "decision")
        return f"{service} is behind: no {what} for the tick of {product} at {at} within {TICK_SECONDS:.0f} s"

    async def settle(self, fills: set[str]) -> None:
        """Wait until nobody is busy, the ledger stands still, and these fills are on it."""
        deadline = time.monotonic() + TICK_SECONDS
        while behind := await self._unsettled(fills):
            if time.monotonic() > deadline:
                raise StackFailed(f"{behind} within {TICK_SECONDS:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def _unsettled(self, fills: set[str]) -> str:
        """One round; why there has to be another one."""
        await self._journal.read_ledger()
        position = self._journal.position
        for service in SYNCED:
            try:
                reply = await self._bus.request(service, "sync", m.Command(ledger_sequence=position), TICK_SECONDS)
            except BusDown as error:
                return str(error)
            if reply.busy:
                return f"{service} has not finished what it is doing"
        if await self._journal.read_ledger():
            return "the ledger does not come to rest"
        if missing := fills - self._journal.fills.keys():
            return f"execution has not booked the venue's fill {min(missing)}"
        return ""
