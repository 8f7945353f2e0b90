"""A wire that is cut closes nothing and passes nothing; healed, what waited arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.chaos.network import MARKET, NATS, REST, Network, bus_wire, opened

SECONDS = 0.2  # in which a whole wire has long passed what there is


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def __init__(self, gone: set[asyncio.Future[None]]) -> None:
        self._gone = asyncio.get_running_loop().create_future()
        gone.add(self._gone)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._gone.set_result(None)


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """Gives its port; every connection has ended afterwards."""
    gone: set[asyncio.Future[None]] = set()
    async with await asyncio.get_running_loop().create_server(lambda: Echo(gone), "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*gone)


class Line:
    """A client's connection through the network."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def echoes(self, text: str) -> bool:
        """Whether it comes back in time; left to arrive later where not."""
        self._writer.write(text.encode())
        return await self.hears(text)

    async def hears(self, text: str) -> bool:
        try:
            async with asyncio.timeout(SECONDS):
                return await self._reader.readexactly(len(text)) == text.encode()
        except TimeoutError:
            return False

    async def ended(self) -> bool:
        async with asyncio.timeout(5):
            return await self._reader.read() == b""

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def line(network: Network, name: str) -> AsyncIterator[Line]:
    found = Line(*await asyncio.open_connection("127.0.0.1", network.ports[name]))
    yield found
    await found.close()


async def test_a_cut_wire_is_silent_and_open_and_heals_with_nothing_lost() -> None:
    async with (
        echo() as port,
        opened(port, port) as network,
        line(network, REST) as rest,
        line(network, MARKET) as other,
    ):
        assert await rest.echoes("before")
        network.cut([REST])
        assert not await rest.echoes("during")
        assert await other.echoes("another wire")
        network.heal([REST])
        assert await rest.hears("during")


async def test_a_connection_that_is_made_while_the_wire_is_cut_gets_no_answer_until_it_heals() -> None:
    async with echo() as port, opened(port, port) as network:
        network.cut([REST])
        network.cut([REST])
        async with line(network, REST) as rest:
            assert not await rest.echoes("hello")
            network.heal([REST])
            assert not await rest.hears("hello"), "cut twice"
            network.heal([REST])
            assert await rest.hears("hello")


async def test_connections_to_nats_are_told_apart_by_the_name_that_they_give() -> None:
    async with echo() as port, opened(port, port) as network, line(network, NATS) as risk, line(network, NATS) as other:
        assert await risk.echoes('CONNECT {"name": "risk"}\r\n')
        assert await other.echoes('CONNECT {"name":"execution"}\r\n')
        network.cut([bus_wire("risk")])
        assert not await risk.echoes("PING")
        assert await other.echoes("PING")
        network.heal([bus_wire("risk")])
        assert await risk.hears("PING")


async def test_who_is_down_hangs_up_on_whoever_calls() -> None:
    async with echo() as port:
        pass
    async with opened(port, port) as network, line(network, REST) as rest:
        assert await rest.ended()
