"""One run of an operator's tool: its bus, where there is one, and its outcome, which is never lost.

An outcome goes to `perps.tooling`; with the bus down it waits in `tooling.jsonl` beside the metrics file, and the next
tool that reaches the bus publishes it, under the id that it has had from the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from cli.errors import as_stop
from cli.live import say
from cli.operator import open_bus
from libs.common import messages as m
from libs.common.errors import BusDown, PerpsError
from libs.common.nats_bus import NatsBus
from libs.common.settings import Settings

BUS_SECONDS = 1.0  # a tool that does not need the bus must not wait longer for it
ASK_SECONDS = 2.0
LOCK_SECONDS = 2.0  # longer than any tool holds it
T = TypeVar("T")


class Tool:
    """What a tool works with."""

    def __init__(self, settings: Settings, bus: NatsBus | None, no_bus: BusDown | None) -> None:
        self.settings = settings
        self.bus = bus
        self._no_bus = no_bus

    def need_bus(self) -> NatsBus:
        """Raises BusDown with the line that says why there is none."""
        if self.bus is None:
            raise self._no_bus or BusDown("there is no bus")
        return self.bus

    async def if_bus(self, ask: Callable[[NatsBus], Awaitable[T]]) -> T | None:
        """What the bus says, None where there is none that answers soon."""
        if self.bus is None:
            return None
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await ask(self.bus)
        except (TimeoutError, BusDown):
            return None


async def run_tool(
    command: str, settings: Settings, work: Callable[[Tool], Awaitable[None]], bus_seconds: float = BUS_SECONDS
) -> int:
    """Do it and record what came of it. Raises Stop with one line and its own exit code."""
    async with _bus_if_up(settings, bus_seconds) as (bus, no_bus):
        error = "ended by a defect"
        try:
            await work(Tool(settings, bus, no_bus))
            error = ""
        except PerpsError as failure:
            stop = as_stop(failure)
            error = str(stop)
            raise stop from None
        except asyncio.CancelledError:
            error = "interrupted"
            raise
        finally:
            await _tell(settings, bus, outcome_of(command, error))
    return 0


async def record(command: str, settings: Settings, error: str) -> None:
    """The outcome of a tool that did not even get to run."""
    async with _bus_if_up(settings, BUS_SECONDS) as (bus, _):
        await _tell(settings, bus, outcome_of(command, error))


def outcome_of(command: str, error: str) -> m.Tooling:
    return m.Tooling(
        id=m.derive_id("tooling", command, time.time_ns(), os.getpid()),
        producer="operator",
        at=datetime.now(UTC),
        command=command,
        ok=not error,
        error=error,
    )


@contextlib.asynccontextmanager
async def _bus_if_up(settings: Settings, seconds: float) -> AsyncIterator[tuple[NatsBus | None, BusDown | None]]:
    bus, no_bus = None, None
    try:
        bus = await open_bus(settings, lambda error: None, seconds)
    except BusDown as error:
        no_bus = error
    try:
        yield bus, no_bus
    finally:
        if bus is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BUS_SECONDS):
                    await bus.close()


async def _tell(settings: Settings, bus: NatsBus | None, outcome: m.Tooling) -> None:
    backlog = Backlog(settings.metrics_file.with_name("tooling.jsonl"))
    try:
        if bus is None:
            await backlog.keep(outcome)
        else:
            await deliver(bus, backlog, outcome)
    except OSError as error:
        say(f"the outcome of this tool could not be kept in {backlog.path}: {error.strerror}")


class Keeps(Protocol):
    """The part of `libs.common.nats_bus.NatsBus` that outcomes need."""

    async def publish_kept(self, message: m.Message) -> None: ...


async def deliver(bus: Keeps, backlog: Backlog, outcome: m.Tooling) -> None:
    """Publish an outcome and what earlier tools left behind; what the bus does not take waits in the backlog."""
    told = False
    try:
        async with asyncio.timeout(BUS_SECONDS):
            await bus.publish_kept(outcome)
            told = True
            await backlog.empty(bus)
    except (TimeoutError, BusDown):
        if not told:
            await backlog.keep(outcome)


class Backlog:
    """Outcomes that the bus has not seen, one JSON object a line. A lock keeps tools that run at once apart."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def keep(self, outcome: m.Tooling) -> None:
        """Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        async with self._locked():
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(outcome) + b"\n")

    async def empty(self, bus: Keeps) -> None:
        """Publish all of it; what is interrupted goes on where it was. Raises BusDown, OSError."""
        if not self.path.exists():
            return
        async with self._locked():
            left = self.path.read_bytes().splitlines() if self.path.exists() else []
            try:
                while left:
                    try:
                        await bus.publish_kept(m.read(left[0], m.Tooling))
                    except msgspec.DecodeError:
                        say(f"left out of {self.path}, since it is no outcome: {left[0][:80]!r}")
                    left.pop(0)
            finally:
                self._replace(left)

    def _replace(self, lines: list[bytes]) -> None:
        if not lines:
            self.path.unlink(missing_ok=True)
            return
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(b"\n".join(lines) + b"\n")
        fresh.replace(self.path)

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Not for ever: an outcome told twice has the same id, one that waits for a stopped tool holds up this one."""
        deadline = time.monotonic() + LOCK_SECONDS
        with self.path.with_suffix(".lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                    await asyncio.sleep(0.02)
            yield
