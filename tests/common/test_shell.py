from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
import pytest

from libs.common import messages as m
from libs.common.bus import Bus, Entry
from libs.common.clock import AsyncioTasks, SystemClock
from libs.common.errors import Stop
from libs.common.shell import STATUS_TICKS, Inputs, Life, Shell, Snapshot, trading_state
from libs.common.subjects import INSTALLATION_KEY, SNAPSHOT_BUCKET, STATE_BUCKET, TRADING_KEY
from libs.common.telemetry import ServiceMetrics
from tests.common.builders import NOW, fill, mark, verdict
from tests.common.memory_bus import MemoryBus

OVER = "perps.verdict.>"


class State(msgspec.Struct):
    applied: list[str] = []


class EchoCore:
    """Answers each mark with a verdict, until two verdicts exist; remembers what was applied to it."""

    def __init__(self) -> None:
        self.state = State()
        self.seen: list[str] = []
        self.busy = False

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        self.seen.append(message.id)
        match message:
            case m.Verdict() | m.Fill() if message.id not in self.state.applied:
                self.state.applied.append(message.id)
            case m.Mark() if len(self.state.applied) < 2:
                return [verdict(f"{message.id}-{len(self.state.applied)}")]
            case m.Recovered():
                return [m.Tooling(id="acted", command="test", ok=True)]
        return []

    def not_ready(self, now: datetime) -> str:
        return ""

    def dump(self) -> bytes:
        return msgspec.json.encode(self.state)

    def restore(self, raw: bytes) -> None:
        self.state = msgspec.json.decode(raw, type=State)


def bus_with_installation() -> MemoryBus:
    bus = MemoryBus()
    made = msgspec.json.encode(m.Installation(id="installation"))
    bus.entries[STATE_BUCKET, INSTALLATION_KEY] = Entry(made, 1)
    return bus


@asynccontextmanager
async def running(bus: MemoryBus, core: EchoCore, idle_snapshot_seconds: int = 1) -> AsyncIterator[Shell]:
    failures: list[BaseException] = []
    tasks = AsyncioTasks(failures.append)
    typed: Bus = bus
    shell = Shell(
        "risk",
        "dev",
        core,
        Inputs(kinds=(m.Mark,), ledger=False, trading=True),
        bus=typed,
        clock=SystemClock(),
        tasks=tasks,
        metrics=ServiceMetrics("risk"),
        over={m.Verdict: OVER},
        idle_snapshot_seconds=idle_snapshot_seconds,
    )
    tasks.spawn(shell.run(), "shell")
    async with asyncio.timeout(5):
        while shell.not_ready() and not failures:
            await asyncio.sleep(0)
    if failures:
        raise failures[0]
    yield shell
    await tasks.close()
    assert not failures


async def test_a_durable_answer_is_stored_first_and_then_told_to_the_core() -> None:
    bus, core = bus_with_installation(), EchoCore()
    async with running(bus, core) as shell:
        await shell.ask(mark("5"))
    assert [item.message.id for item in bus.stored] == ["verdict-mark-5-0"]
    assert core.state.applied == ["verdict-mark-5-0"]


async def test_a_lost_compare_and_set_is_read_up_and_decided_again() -> None:
    bus, core = bus_with_installation(), EchoCore()
    async with running(bus, core) as shell:
        await bus.ledger(0).append(verdict("by another process"))
        await shell.ask(mark("5"))
    assert [item.message.id for item in bus.stored] == ["verdict-by another process", "verdict-mark-5-1"]
    assert core.state.applied == ["verdict-by another process", "verdict-mark-5-1"]


async def test_the_ledger_tail_is_replayed_without_acting_on_it() -> None:
    bus, core = bus_with_installation(), EchoCore()
    for name in ("a", "b"):
        await bus.ledger(len(bus.stored)).append(verdict(name))
    shell_inputs = Inputs(ledger=True)
    tasks = AsyncioTasks(lambda error: None)
    shell = Shell(
        "risk", "dev", core, shell_inputs, bus=bus, clock=SystemClock(), tasks=tasks, metrics=ServiceMetrics("risk")
    )
    tasks.spawn(shell.run(), "shell")
    async with asyncio.timeout(5):
        while shell.not_ready():
            await asyncio.sleep(0)
    assert core.seen[:4] == ["installation", "verdict-a", "verdict-b", "recovered-risk"]
    assert [message.id for message in bus.published] == ["acted"]
    await shell.close()
    await tasks.close()


async def test_a_snapshot_spares_the_ledger_before_it_and_a_broken_one_is_rebuilt() -> None:
    bus = bus_with_installation()
    for name in ("f1", "f2", "f3"):
        await bus.ledger(len(bus.stored)).append(fill(name))
    for raw, expected in (
        (Snapshot(2, msgspec.Raw(b'{"applied":["f1","f2"]}')).sealed(), ["f3"]),
        (b'{"sequence":2,"state":{"applied":["f1","f2"]}}', ["f1", "f2", "f3"]),
        (b"garbage", ["f1", "f2", "f3"]),
        (Snapshot(2, msgspec.Raw(b'{"applied":7}')).sealed(), ["f1", "f2", "f3"]),
    ):
        bus.entries[SNAPSHOT_BUCKET, "risk"] = Entry(raw, 1)
        core, tasks = EchoCore(), AsyncioTasks(lambda error: None)
        shell = Shell(
            "risk",
            "dev",
            core,
            Inputs(ledger=True),
            bus=bus,
            clock=SystemClock(),
            tasks=tasks,
            metrics=ServiceMetrics("risk"),
        )
        tasks.spawn(shell.run(), "shell")
        async with asyncio.timeout(5):
            while shell.not_ready():
                await asyncio.sleep(0)
        assert [seen for seen in core.seen if seen.startswith("f")] == expected
        assert core.state.applied == ["f1", "f2", "f3"]
        await tasks.close()


async def test_while_the_ledger_stands_still_a_changed_state_is_kept_only_now_and_then() -> None:
    bus, core = bus_with_installation(), EchoCore()

    def kept() -> bytes:
        return bus.entries[SNAPSHOT_BUCKET, "risk"].value

    async def pass_seconds(shell: Shell, seconds: int) -> None:
        for _ in range(seconds * STATUS_TICKS):
            shell.post(m.Tick(id="tick"))
        await shell.ask(None)

    async with running(bus, core, idle_snapshot_seconds=10) as shell:
        await pass_seconds(shell, 1)
        assert b"beside" not in kept()
        await shell.ask(fill("beside the ledger"))
        await pass_seconds(shell, 8)
        assert b"beside" not in kept()
        await pass_seconds(shell, 3)
        assert b"beside" in kept()
        await shell.ask(fill("another"))
        await shell.close()
        assert b"another" in kept(), "an orderly end keeps everything"


async def test_a_step_of_the_ledger_is_kept_within_a_second() -> None:
    bus, core = bus_with_installation(), EchoCore()
    async with running(bus, core, idle_snapshot_seconds=1000) as shell:
        for _ in range(STATUS_TICKS):
            shell.post(m.Tick(id="tick"))
        await shell.ask(mark("5"))
        shell._applied += 1  # what the follower of the ledger does
        for _ in range(STATUS_TICKS):
            shell.post(m.Tick(id="tick"))
        await shell.ask(None)
        assert b"verdict-mark-5" in bus.entries[SNAPSHOT_BUCKET, "risk"].value


async def test_without_an_installation_nothing_starts() -> None:
    with pytest.raises(Stop, match="no installation"):
        async with running(MemoryBus(), EchoCore()):
            pass


async def test_a_start_after_a_crash_is_counted_and_one_after_a_stop_is_not() -> None:
    bus = bus_with_installation()
    for expected_restarts, expected_errors, clean in ((0, 0, True), (1, 0, False), (2, 1, True), (3, 1, True)):
        async with running(bus, EchoCore()) as shell:
            assert (shell.status().restarts, shell.status().errors) == (expected_restarts, expected_errors)
            if clean:
                await shell.close()
    life = msgspec.json.decode(bus.entries[SNAPSHOT_BUCKET, "risk-life"].value, type=Life)
    assert life == Life(starts=4, crashes=1, clean=True)


async def test_sync_is_answered_once_everything_before_it_is_handled() -> None:
    bus, core = bus_with_installation(), EchoCore()
    async with running(bus, core) as shell:
        for price in range(10, 20):
            shell.post(mark(str(price)))
        reply = await bus.served["sync"](m.Command())
        assert reply.ok
        assert core.seen[-1] == "mark-19"


async def test_the_trading_state_is_known_before_the_first_message_is_acted_on() -> None:
    bus, core = bus_with_installation(), EchoCore()
    state = m.TradingState(id="stored", state=m.Trading.ACTIVE, reason="r", who="w", since=NOW)
    bus.entries[STATE_BUCKET, TRADING_KEY] = Entry(msgspec.json.encode(state), 4)
    async with running(bus, core):
        assert core.seen[:3] == ["installation", "stored", "recovered-risk"]


WITHOUT_A_ZONE = b'{"id":"t","state":"active","reason":"r","who":"w","since":"2026-03-01T12:00:00"}'


@pytest.mark.parametrize(
    "entry", [None, *(Entry(raw, 3) for raw in (b"garbage", b"{}", b"", b'{"id":"\xff"}', WITHOUT_A_ZONE))]
)
def test_a_trading_state_that_is_gone_or_unreadable_means_halted(entry: Entry | None) -> None:
    state = trading_state(entry, NOW)
    assert state.state is m.Trading.HALTED
    assert state.who == "fail closed"


def test_a_readable_trading_state_carries_the_revision_of_its_entry() -> None:
    stored = m.TradingState(id="t", state=m.Trading.REDUCING, reason="r", who="w", since=NOW)
    state = trading_state(Entry(msgspec.json.encode(stored), 9), NOW)
    assert (state.state, state.revision) == (m.Trading.REDUCING, 9)
