"""The two servers that the conversation is held with, and processes around the modelled one."""

from __future__ import annotations

import random
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from libs.common.clock import SystemClock
from libs.common.nats_bus import NatsBus
from libs.common.permissions import PROVISIONER
from libs.common.provision import provision
from sim.world.loop import Clock, Loop, Scheduler
from sim.world.nats_client import Client, open_bus
from sim.world.nats_server import NatsServer
from tests.conftest import NatsServer as RealServer

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)
T = TypeVar("T")


class Real:
    """A real server, provisioned."""

    def __init__(self, server: RealServer) -> None:
        self.clock = SystemClock()
        self.connect = server.connect
        self.kill = server.kill
        self.start = server.start

    def reset(self, bus: NatsBus) -> None:
        cast(Any, bus.nc)._transport._io_writer.transport.abort()


class Process:
    """One process beside the modelled server; also a stage, with all of its clients in this one process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.errors: list[BaseException] = []
        self.loop = Loop(world.scheduler, name, self.errors.append)  # what it lacks, nobody calls
        self.clock = Clock(self.loop, EPOCH)
        self.kill = world.server.kill
        self.start = world.server.start

    async def connect(self, identity: str) -> NatsBus:
        return await open_bus(self.world.server, self.loop, identity, self.clock, self.errors.append, self.world.chance)

    def reset(self, bus: NatsBus) -> None:
        client(bus).disconnect()

    def begin(self, work: Coroutine[Any, Any, T]) -> Any:
        return self.loop.create_task(work)

    def run(self, work: Coroutine[Any, Any, T], seconds: float = 60) -> T:
        """What comes of it, within so much virtual time."""
        task = self.begin(work)
        end = self.world.scheduler.now + seconds
        while not task.done() and self.world.scheduler.now < end:
            self.world.scheduler.run(self.world.scheduler.now + 0.01)
        assert not self.errors, self.errors
        return cast(T, task.result())

    def bus(self) -> NatsBus:
        return self.run(self.connect(self.name))


class World:
    """The model, provisioned."""

    def __init__(self, seed: int) -> None:
        self.scheduler = Scheduler()
        self.chance = random.Random(seed)
        self.server = NatsServer(self.scheduler, self.chance, EPOCH)
        self._processes: list[Process] = []
        first = self.process(PROVISIONER)
        self.admin = first.bus()
        first.run(provision(self.admin, first.clock, "installation"))
        self.first = first

    def process(self, name: str) -> Process:
        made = Process(self, name)
        self._processes.append(made)
        return made

    def wait(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now + seconds)

    def bury(self) -> None:
        for process in self._processes:
            process.loop.bury()


def client(bus: NatsBus) -> Client:
    return cast(Client, bus.nc)
