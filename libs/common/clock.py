"""The only reader of time.

Wall time rules sockets, backoff, leases and tokens. Market time rules candles, ages, expiries and the UTC day; it
is the wall clock while we trade live, and the venue's clock, as told by the messages that arrive, in a replay:
there it stands still between messages, so that results do not depend on the speed of the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Protocol

from libs.common.messages import EPOCH


class Clock(Protocol):
    """Handed to every shell. `monotonic` counts seconds from an arbitrary start and measures durations."""

    def wall(self) -> datetime: ...
    def market(self) -> datetime: ...
    def monotonic(self) -> float: ...
    def observe(self, market_time: datetime) -> None: ...


class SystemClock:
    """`replay=True`: market time is the latest time that a message told."""

    def __init__(self, replay: bool = False) -> None:
        self._replay = replay
        self._market = EPOCH

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def market(self) -> datetime:
        return self._market if self._replay else self.wall()

    def monotonic(self) -> float:
        return time.monotonic()

    def observe(self, market_time: datetime) -> None:
        self._market = max(self._market, market_time)


class Tasks(Protocol):
    """Runs what happens beside the loop. The simulation hands in its own."""

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None: ...
    async def sleep(self, seconds: float) -> None: ...


class AsyncioTasks:
    """Tasks in the running event loop. A task that fails ends the service: `failed` is called with its error."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Cancel what still runs and wait for it; again where a cancellation got lost (`asyncio.wait_for` in 3.11
        loses one that arrives together with its result)."""
        while self._running:
            for task in list(self._running):
                task.cancel()
            await asyncio.wait(self._running, timeout=0.5)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)
