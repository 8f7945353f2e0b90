"""The trading state reaches its watchers, also where the server tells of it before the stream has it."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from libs.common.bus import Entry
from libs.common.provision import provision
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from sim.world import nats_server
from sim.world.loop import Clock, Loop, Scheduler
from sim.world.nats_client import open_bus
from sim.world.nats_server import NatsServer

EPOCH = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [0.0001, 0.003, 0.05, 0.4])
def test_a_watcher_ends_up_with_every_change_however_late_it_is_stored(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real servers were seen to answer a read, made because of the message, with the entry from before it."""
    monkeypatch.setattr(nats_server, "SYNC_SECONDS", (seconds, seconds))
    scheduler = Scheduler()
    server = NatsServer(scheduler, random.Random(1), EPOCH)
    failures: list[BaseException] = []
    seen: list[bytes] = []

    def watcher(entry: Entry | None) -> None:
        seen.append(entry.value if entry else b"")

    async def work() -> None:
        clock = Clock(loop, EPOCH)
        bus = await open_bus(server, loop, "provisioner", clock, failures.append, random.Random(2))
        await provision(bus, clock, "installation")
        await bus.watch_trading(watcher)
        for number in range(5):
            await bus.store(STATE_BUCKET, TRADING_KEY, b"state %d" % number, None)
            await clock.sleep(2)
            assert seen[-1] == b"state %d" % number
        server.delete(STATE_BUCKET, TRADING_KEY)
        await clock.sleep(2)
        assert seen[-1] == b""

    loop = Loop(scheduler, "watcher", failures.append)
    loop.start(work())
    scheduler.run(60)
    loop.die()
    loop.bury()
    assert failures == []
    assert seen[-1] == b""
