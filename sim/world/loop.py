"""Virtual time. One scheduler orders everything that happens; each life of a process has a loop of its own on it.

A process is killed between two steps by letting its loop die: none of its coroutines ever goes on, no `finally` runs,
as with SIGKILL. Equal calls give an equal order: what is due at one moment runs in the order in which it was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")
Work = Callable[[], None]


class Scheduler:
    """`now` counts virtual seconds from the beginning of the world; `steps` what has been run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.after_step: Work = lambda: None  # called after each of them
        self._ready: deque[Work] = deque()
        self._timers: list[tuple[float, int, Work]] = []
        self._asked = 0

    def soon(self, work: Work) -> None:
        """Run it at this moment, after what waits already."""
        self._ready.append(work)

    def at(self, when: float, work: Work) -> None:
        """Run it at `when`, or now where that is past."""
        self._asked += 1
        heapq.heappush(self._timers, (when, self._asked, work))

    def later(self, seconds: float, work: Work) -> None:
        self.at(self.now + seconds, work)

    def run(self, until: float) -> None:
        """Everything that is due up to and including that moment."""
        while True:
            if self._ready:
                work = self._ready.popleft()
            elif self._timers and self._timers[0][0] <= until:
                when, _, work = heapq.heappop(self._timers)
                self.now = max(self.now, when)
            else:
                self.now = max(self.now, until)
                return
            self.steps += 1
            work()
            self.after_step()


class Step(asyncio.TimerHandle):
    """A call that a loop owes, as the work that the scheduler runs. Half of an asyncio handle is there for debugging,
    and a world makes tens of thousands of them."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], loop: Loop, context: Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = _nothing, ()

    def __call__(self) -> None:
        if not self._cancelled:
            self._loop.run(self)


if TYPE_CHECKING:  # what is left abstract is never asked for
    Base = asyncio.BaseEventLoop
else:
    Base = asyncio.AbstractEventLoop


class Loop(Base):
    """The event loop of one life of one process; `alive` until it dies. `wall_offset` is by how many seconds its wall
    clock is ahead. An error that no task of its own handles goes to `failed`."""

    def __init__(self, scheduler: Scheduler, name: str, failed: Callable[[BaseException], None]) -> None:
        self.scheduler = scheduler
        self.name = name
        self.alive = True
        self.wall_offset = 0.0
        self.dies_in: int | None = None  # after so many more of its steps
        self.on_death: Work = lambda: None
        self._failed = failed
        self._held: deque[Step] | None = None  # what has become due while the process is stopped
        self._corpses: list[asyncio.Task[Any]] = []

    # -- what the world does to it

    def die(self) -> None:
        """SIGKILL."""
        if not self.alive:
            return
        self.alive = False
        # Kept, since a coroutine that is collected would run its `finally`.
        self._corpses = list(asyncio.all_tasks(self))
        self.on_death()

    def pause(self) -> None:
        """SIGSTOP: nothing runs until `resume`, while time goes on."""
        if self._held is None:
            self._held = deque()

    def resume(self) -> None:
        held, self._held = self._held or deque(), None
        if self.alive:
            for step in held:
                self.scheduler.soon(step)

    @property
    def paused(self) -> bool:
        return self._held is not None

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """The first task of the process."""
        task = self.create_task(work, name=self.name)
        task.add_done_callback(self._ended)

    def bury(self) -> None:
        """At the end of the world: let go of what never ended, without a sound."""
        with _silence():
            for task in self._corpses or list(asyncio.all_tasks(self)):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with contextlib.suppress(BaseException):
                    task.get_coro().close()
            self._corpses = []

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)

    # -- asyncio.AbstractEventLoop, as far as tasks, futures, locks, queues and timeouts need it

    def time(self) -> float:
        return self.scheduler.now

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        step = Step(callback, args, self, context)
        if self.alive:
            self.scheduler.soon(step)
        return step

    call_soon_threadsafe = call_soon  # there is one thread

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.scheduler.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        step = Step(callback, args, self, context)
        self.scheduler.at(when, step)
        return step

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=None if name is None else str(name), context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self.alive

    def is_closed(self) -> bool:
        return not self.alive

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.alive and isinstance(error, BaseException):
            self._failed(error)

    def run(self, step: Step) -> None:
        if not self.alive:
            return
        if self._held is not None:
            self._held.append(step)
            return
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.die()
                return
        asyncio._set_running_loop(self)
        try:
            step._run()
        finally:
            asyncio._set_running_loop(None)


class Clock:
    """`libs.common.clock.Clock` of one process. Wall time may jump, monotonic time never does; trading is live, so that
    market time is wall time."""

    def __init__(self, loop: Loop, epoch: datetime) -> None:
        self._loop = loop
        self._epoch = epoch
        self._seconds, self._wall = 0.0, epoch

    def wall(self) -> datetime:
        seconds = self._loop.scheduler.now + self._loop.wall_offset
        if seconds != self._seconds:  # asked several times within most steps
            self._seconds, self._wall = seconds, self._epoch + timedelta(seconds=seconds)
        return self._wall

    market = wall

    def monotonic(self) -> float:
        return self._loop.scheduler.now

    def observe(self, market_time: datetime) -> None:
        """Live: messages do not move the clock."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What a dead coroutine says while it is let go of concerns nobody."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook
