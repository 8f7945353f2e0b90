"""Tools fail while the exporter is down: the stream has kept what they said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from libs.common import messages as m
from libs.common.bus import Bus, Entry
from libs.common.clock import AsyncioTasks, SystemClock
from libs.common.shell import Shell
from libs.common.subjects import INSTALLATION_KEY, STATE_BUCKET
from services.exporter.app import INPUTS
from services.exporter.core import ExporterCore
from services.exporter.metrics import ExporterMetrics
from tests.common.memory_bus import MemoryBus
from tests.exporter.builders import PRODUCTS

TOOLS = msgspec.structs.replace(INPUTS, ledger=False)  # the ledger plays no part here


def failed(name: str, age_seconds: float = 0) -> m.Tooling:
    at = datetime.now(UTC) - timedelta(seconds=age_seconds)
    return m.Tooling(id=name, at=at, sent_at=at, command="preview", ok=False, error="no")


@asynccontextmanager
async def exporter(bus: MemoryBus) -> AsyncIterator[ExporterCore]:
    """One life of the exporter, to its orderly end."""
    failures: list[BaseException] = []
    tasks, core = AsyncioTasks(failures.append), ExporterCore(PRODUCTS)
    typed: Bus = bus
    shell = Shell(
        "exporter", "dev", core, TOOLS, bus=typed, clock=SystemClock(), tasks=tasks, metrics=ExporterMetrics()
    )
    tasks.spawn(shell.run(), "shell")
    async with asyncio.timeout(5):
        while shell.not_ready() and not failures:
            await asyncio.sleep(0)
    yield core
    await shell.ask(None)
    await shell.close()
    await tasks.close()
    bus.subscribers.clear()
    assert failures == []


async def test_errors_of_tools_are_counted_once_whether_the_exporter_was_up_or_down() -> None:
    bus = MemoryBus()
    bus.entries[STATE_BUCKET, INSTALLATION_KEY] = Entry(msgspec.json.encode(m.Installation(id="made")), 1)
    await bus.publish(failed("before the first start", age_seconds=3600))
    async with exporter(bus) as core:
        assert core.kept.tooling_errors == 1
        await bus.publish(failed("while up"))
    assert core.kept.tooling_errors == 2
    await bus.publish(failed("while down"))
    async with exporter(bus) as core:
        assert core.kept.tooling_errors == 3
    async with exporter(bus) as core:
        assert core.kept.tooling_errors == 3


async def test_what_was_counted_long_ago_is_not_read_again() -> None:
    """The core remembers the last outcomes only: what lies further back must not come a second time."""
    bus = MemoryBus()
    bus.entries[STATE_BUCKET, INSTALLATION_KEY] = Entry(msgspec.json.encode(m.Installation(id="made")), 1)
    for number in range(600):
        await bus.publish(failed(str(number), age_seconds=3600))
    async with exporter(bus) as core:
        assert core.kept.tooling_errors == 600
    async with exporter(bus) as core:
        assert core.kept.tooling_errors == 600
