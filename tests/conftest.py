"""A real nats-server for every test that needs one: own port, own folder, own credentials."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cli import plan
from cli.nats_server import find_nats_server, provision_server, write_config
from libs.common.clock import SystemClock
from libs.common.nats_bus import NatsBus, connect
from libs.common.settings import Settings
from tests.ports import free_port, free_ports

plan.free_ports = free_ports  # for every stack that a test starts


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that the last to end is a short one; their timeouts tell. Who shares a stack stays on one
    worker (`--dist loadgroup`)."""
    items.sort(key=lambda item: -_patience(item))  # stable
    for item in items:
        if "desk" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _patience(item: pytest.Item) -> float:
    """Seconds that a test may take, where it says so; real processes come before what says nothing."""
    given = item.get_closest_marker("timeout")
    if given is not None:
        return float(given.args[0])
    return 0.0 if item.get_closest_marker("integration") is None else 1.0


class NatsServer:
    """One server process; `kill` and `start` as often as a test likes, on the same port and store."""

    def __init__(self, data_dir: Path) -> None:
        ports = {"port": free_port(), "monitor_port": free_port()}
        market = {"products": ["BTC-USD", "ETH-USD"]}
        self.settings = Settings("dev", data_dir, {"nats": ports, "market": market})
        self.config = write_config(self.settings)
        self.process: subprocess.Popen[bytes] | None = None
        self._buses: list[NatsBus] = []

    def start(self) -> None:
        self.process = subprocess.Popen(
            [find_nats_server(), "-c", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def provision(self) -> None:
        await provision_server(self.settings, SystemClock())

    async def connect(self, identity: str) -> NatsBus:
        def failed(error: BaseException) -> None:
            asyncio.get_running_loop().call_exception_handler({"message": str(error)})

        seed = self.settings.identities / f"{identity}.nk"
        bus = await connect(self.settings.nats.servers, identity, seed, SystemClock(), failed)
        self._buses.append(bus)
        return bus

    async def disconnect(self) -> None:
        """What a test that failed left open would be blamed on one that comes later."""
        for bus in self._buses:
            if not bus.nc.is_closed:
                await bus.close()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def provisioned(nats_server: NatsServer) -> AsyncIterator[NatsServer]:
    await nats_server.provision()
    yield nats_server
    await nats_server.disconnect()
