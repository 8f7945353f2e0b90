"""What a client of `sim.world.nats_client` does with the messages that come in."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

import nats.errors
from nats.aio.msg import Msg

if TYPE_CHECKING:
    from sim.world.nats_client import Client


class Subscription:
    def __init__(self, client: Client, sid: int, subject: str, queue: str) -> None:
        self.client = client
        self.sid = sid
        self.subject = subject
        self.queue = queue

    def take(self, msg: Msg) -> None:
        raise NotImplementedError

    async def unsubscribe(self, limit: int = 0) -> None:
        self.client.check_open()
        self.client.forget(self)

    async def drain(self) -> None:
        await self.unsubscribe()


class Calling(Subscription):
    """Hands every message to a coroutine, one after another. That of a queue group (nats.micro) may wait; any other is
    run at once, without a task, and must not."""

    def __init__(
        self, client: Client, sid: int, subject: str, queue: str, handler: Callable[[Msg], Awaitable[None]]
    ) -> None:
        super().__init__(client, sid, subject, queue)
        self._handler = handler
        self._waiting: deque[Msg] = deque()
        self._busy = False

    def take(self, msg: Msg) -> None:
        if self.queue:
            self._waiting.append(msg)
            if not self._busy:
                self._busy = True
                self.client.loop.create_task(self._work())
            return
        work = cast("Coroutine[Any, Any, None]", self._handler(msg))
        try:
            work.send(None)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - as in nats-py, a defect of the callback goes to its error callback
            self.client.loop.create_task(self.client.report(error))
            return
        raise AssertionError(f"the callback of {self.subject} waits: only one of a queue group may")

    async def _work(self) -> None:
        while self._waiting:
            try:
                await self._handler(self._waiting.popleft())
            except Exception as error:  # noqa: BLE001 - as above
                await self.client.report(error)
        self._busy = False


class Answers(Subscription):
    """Where the answers to requests come in: `waiting` by the last part of their subject."""

    def __init__(self, client: Client, sid: int, subject: str) -> None:
        super().__init__(client, sid, subject, "")
        self.waiting: dict[str, asyncio.Future[Msg]] = {}

    def take(self, msg: Msg) -> None:
        future = self.waiting.get(msg.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(msg)


class Holding(Subscription):
    """Keeps messages until they are asked for."""

    def __init__(self, client: Client, sid: int, subject: str, queue: str) -> None:
        super().__init__(client, sid, subject, queue)
        self.held: deque[Msg] = deque()
        self.asked: asyncio.Future[None] | None = None

    def take(self, msg: Msg) -> None:
        self.held.append(msg)
        if self.asked is not None and not self.asked.done():
            self.asked.set_result(None)

    async def next_msg(self, timeout: float = 1.0) -> Msg:
        self.client.check_open()
        if not self.held:
            self.asked = self.client.loop.create_future()
            await self.client.within(timeout, self.asked, nats.errors.TimeoutError)
        return self.held.popleft()


class Names:
    """Unique names, as `nats.nuid` makes them, from the chance that is given."""

    def __init__(self, chance: random.Random) -> None:
        self._prefix = f"{chance.getrandbits(64):016x}"
        self._count = 0

    def next(self) -> bytearray:
        self._count += 1
        return bytearray(f"{self._prefix}{self._count:06d}".encode())
