"""The wires between the services and what they speak to, as proxies that can be cut: nothing passes any more and
nothing is closed, as in a network that drops every packet; healed, what waited arrives, as what TCP sends again does.

Connections to NATS are told apart by the identity that a client announces, those to the venue by their address.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable

from cli.plan import free_ports
from libs.common.subjects import SERVICES

NATS = "nats"
REST, MARKET, USER = "venue rest", "venue market", "venue user"
VENUE = (REST, MARKET, USER)
CHUNK_BYTES = 65536
IDENTITY = re.compile(rb'"name":\s*"([a-z]+)"')


def bus_wire(service: str) -> str:
    return f"{service} to {NATS}"


WIRES = (*VENUE, *(bus_wire(name) for name in SERVICES))


class Network:
    """See `opened`. A wire is one of `WIRES`."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = ports  # of our own listeners: NATS, REST, MARKET, USER
        self._whole = {wire: asyncio.Event() for wire in WIRES}
        self._cuts = dict.fromkeys(WIRES, 0)
        self._connections: set[asyncio.Task[None]] = set()
        for event in self._whole.values():
            event.set()

    @property
    def environment(self) -> dict[str, str]:
        """What sends the services through here."""
        return {
            "PERPS_NATS_URL": f"nats://127.0.0.1:{self.ports[NATS]}",
            "PERPS_VENUE_REST_URL": f"http://127.0.0.1:{self.ports[REST]}",
            "PERPS_VENUE_WS_URL": f"ws://127.0.0.1:{self.ports[MARKET]}/ws",
            "PERPS_VENUE_USER_WS_URL": f"ws://127.0.0.1:{self.ports[USER]}/ws/user",
        }

    def cut(self, wires: Iterable[str]) -> None:
        for wire in wires:
            self._cuts[wire] += 1
            self._whole[wire].clear()

    def heal(self, wires: Iterable[str]) -> None:
        """A wire that was cut twice is whole again after the second time."""
        for wire in wires:
            self._cuts[wire] -= 1
            if not self._cuts[wire]:
                self._whole[wire].set()

    async def listen(self, name: str, target: int) -> asyncio.Server:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = asyncio.create_task(self._carry(name, target, reader, writer))
            self._connections.add(connection)
            connection.add_done_callback(lambda done: self._ended(done, writer))

        return await asyncio.start_server(accepted, "127.0.0.1", self.ports[name])

    def _ended(self, connection: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._connections.discard(connection)
        writer.transport.abort()

    async def close(self) -> None:
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    async def _carry(self, name: str, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until one of its ends closes it."""
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            return
        wire = [name]  # of NATS it is known once the client has said who it is
        pumps = [
            asyncio.create_task(self._pump(reader, to_there, wire)),
            asyncio.create_task(self._pump(there, writer, wire)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            to_there.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: list[str]) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = await reader.read(CHUNK_BYTES)
                if wire[0] == NATS and (found := IDENTITY.search(data)) and bus_wire(found[1].decode()) in WIRES:
                    wire[0] = bus_wire(found[1].decode())
                if wire[0] != NATS:
                    await self._whole[wire[0]].wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def opened(nats_port: int, venue_port: int) -> AsyncIterator[Network]:
    """Listening, every wire whole."""
    targets = {NATS: nats_port, **dict.fromkeys(VENUE, venue_port)}
    network = Network(dict(zip(targets, free_ports(len(targets)), strict=True)))
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(network.close)
        for name, target in targets.items():
            closing.callback((await network.listen(name, target)).close)
        yield network
