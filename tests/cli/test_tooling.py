"""The outcome of every tool reaches `perps.tooling` once, now or when the bus is back."""

from __future__ import annotations

import asyncio
import fcntl
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from cli.errors import Refused
from cli.tooling import Backlog, Tool, deliver, outcome_of, record, run_tool
from libs.common import messages as m
from libs.common.errors import BusDown, Rejected
from libs.common.nats_bus import NatsBus
from tests.cli.commands import environment, perps_bot
from tests.conftest import NatsServer


class Keeper:
    """A bus that takes so many outcomes, then is gone."""

    def __init__(self, takes: int = 1000) -> None:
        self.kept: list[m.Message] = []
        self._takes = takes

    async def publish_kept(self, message: m.Message) -> None:
        await asyncio.sleep(0)  # others get their turn, as with a real one
        if len(self.kept) == self._takes:
            raise BusDown("gone")
        self.kept.append(message)


@pytest.fixture
def backlog(tmp_path: Path) -> Backlog:
    return Backlog(tmp_path / "data" / "tooling.jsonl")


async def test_what_waits_is_published_after_ones_own_outcome_and_forgotten(backlog: Backlog) -> None:
    waiting = [outcome_of(f"tool {n}", "" if n else "no bus") for n in range(3)]
    for outcome in waiting:
        await backlog.keep(outcome)
    bus, own = Keeper(), outcome_of("orders list", "")
    await deliver(bus, backlog, own)
    assert bus.kept == [own, *waiting]
    assert not backlog.path.exists()
    await deliver(bus, backlog, own)
    assert len(bus.kept) == 5


async def test_a_bus_that_goes_in_the_middle_leaves_the_rest_for_the_next_tool(backlog: Backlog) -> None:
    waiting = [outcome_of(f"tool {n}", "") for n in range(3)]
    for outcome in waiting:
        await backlog.keep(outcome)
    await deliver(Keeper(takes=2), backlog, outcome_of("orders list", ""))
    bus = Keeper()
    await backlog.empty(bus)
    assert bus.kept == waiting[1:]


async def test_an_outcome_that_the_bus_does_not_take_waits(backlog: Backlog) -> None:
    own = outcome_of("orders list", "503")
    await deliver(Keeper(takes=0), backlog, own)
    assert msgspec.json.decode(backlog.path.read_bytes(), type=m.Tooling) == own


async def test_a_line_that_is_no_outcome_does_not_hold_up_the_others(backlog: Backlog) -> None:
    own = outcome_of("orders list", "")
    await backlog.keep(own)
    backlog.path.write_bytes(b"\xff{torn\n" + backlog.path.read_bytes())
    bus = Keeper()
    await backlog.empty(bus)
    assert (bus.kept, backlog.path.exists()) == ([own], False)


async def test_tools_that_run_at_once_lose_nothing_and_tell_nothing_twice(backlog: Backlog) -> None:
    buses = [Keeper() for _ in range(4)]
    outcomes = [outcome_of(f"tool {n}", "") for n in range(20)]
    await asyncio.gather(*(backlog.keep(outcome) for outcome in outcomes))
    await asyncio.gather(*(backlog.empty(bus) for bus in buses))
    assert sorted(one.id for bus in buses for one in bus.kept) == sorted(outcome.id for outcome in outcomes)


async def test_a_tool_that_was_stopped_with_the_lock_in_its_hand_holds_up_nobody_for_long(backlog: Backlog) -> None:
    await backlog.keep(outcome_of("first", ""))
    with backlog.path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await asyncio.wait_for(backlog.keep(outcome_of("second", "")), 5)
    assert len(backlog.path.read_bytes().splitlines()) == 2


# -- with a real server


@pytest.fixture
async def operator(provisioned: NatsServer) -> AsyncIterator[NatsBus]:
    bus = await provisioned.connect("operator")
    yield bus
    await bus.close()


async def told(bus: NatsBus) -> list[m.Tooling]:
    found = await bus.since(m.Tooling, None)
    return [outcome for outcome in found if isinstance(outcome, m.Tooling)]


async def works(tool: Tool) -> None:
    assert tool.need_bus().connected


async def fails(tool: Tool) -> None:
    raise Rejected("INSUFFICIENT_FUND")


async def test_every_run_leaves_one_outcome_in_the_audit_stream(provisioned: NatsServer, operator: NatsBus) -> None:
    assert await run_tool("orders list", provisioned.settings, works) == 0
    with pytest.raises(Refused):
        await run_tool("orders preview", provisioned.settings, fails)
    await record("orders", provisioned.settings, "No such option: --nope")
    outcomes = await told(operator)
    assert [(one.command, one.ok) for one in outcomes] == [
        ("orders list", True),
        ("orders preview", False),
        ("orders", False),
    ]
    assert outcomes[1].error == "refused by the venue: INSUFFICIENT_FUND"


async def test_without_the_bus_a_tool_is_not_slow_and_its_outcome_arrives_once_it_is_back(
    provisioned: NatsServer,
) -> None:
    provisioned.kill()
    began = time.monotonic()
    with pytest.raises(Refused):
        await run_tool("orders preview", provisioned.settings, fails)
    with pytest.raises(BusDown, match="no NATS server at"):
        await run_tool("positions", provisioned.settings, works)
    assert time.monotonic() - began < 2
    provisioned.start()
    async with asyncio.timeout(20):
        bus = await provisioned.connect("operator")
    await run_tool("orders list", provisioned.settings, works, 10)
    await run_tool("orders list", provisioned.settings, works, 10)
    assert [one.command for one in await told(bus)] == ["orders list", "orders preview", "positions", "orders list"]
    await bus.close()


async def test_a_server_that_hangs_costs_a_tool_about_a_second(provisioned: NatsServer) -> None:
    assert provisioned.process is not None
    settings = provisioned.settings
    env = environment(settings.data_dir, {"PERPS_NATS_PORT": str(settings.nats.port)})
    provisioned.process.send_signal(signal.SIGSTOP)  # it still accepts connections
    try:
        began = time.monotonic()
        answer = await asyncio.to_thread(perps_bot, "positions", env=env)
        assert (answer.returncode, "no answer" in answer.stderr) == (5, True), answer.stderr
        assert time.monotonic() - began < 10  # most of it is the interpreter's start; patience would be 15
    finally:
        provisioned.process.send_signal(signal.SIGCONT)
    assert "no answer" in Backlog(settings.metrics_file.with_name("tooling.jsonl")).path.read_text()
