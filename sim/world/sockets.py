"""WebSocket between a service and the venue, without sockets: what `websockets.connect` gives, and the other end of it.

Each direction of a connection keeps its order. A connection of a process that died is reset at the venue's next frame.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from functools import partial
from typing import Any

from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

from sim.connection import Connection
from sim.dialogue import Dialogue
from sim.hub import Hub
from sim.settings import Settings
from sim.venue import Venue
from sim.world.loop import Loop, Work
from sim.world.rest import ADDRESS
from sim.world.weather import Air

FIRST_SUBSCRIBE_SECONDS = Settings().first_subscribe_seconds
HALF_OPEN_SECONDS = 20.0  # until the venue lets go of a client that acknowledges nothing


class _Way:
    """One direction: nothing overtakes."""

    def __init__(self, air: Air) -> None:
        self._air = air
        self._last = 0.0

    def send(self, arrival: Work, seconds: float = 0.0) -> None:
        self._last = max(self._last, self._air.scheduler.now + self._air.latency() + seconds)
        self._air.scheduler.at(self._last, arrival)


class Endpoint:
    """Where the venue takes connections."""

    def __init__(self, air: Air, venue: Venue, hub: Hub, dialogue: Dialogue) -> None:
        self.air = air
        self._venue = venue
        self._hub = hub
        self._dialogue = dialogue

    @property
    def deaf(self) -> bool:
        return self._venue.faults.faults.half_open_sockets

    def take(self, line: Line, uri: str) -> None:
        """A new connection."""
        connection = line.connection = Connection(self._venue, line, ADDRESS, "user" in uri)
        self._hub.connections[connection] = None

        def lose_patience() -> None:
            if not connection.greeted:
                line.hang_up()

        self.air.scheduler.later(FIRST_SUBSCRIBE_SECONDS, lose_patience)

    def hear(self, connection: Connection, message: str) -> None:
        if not self.deaf:
            self._dialogue.hear(connection, message)

    def forget(self, connection: Connection) -> None:
        # Not at once: the hub may be in the middle of telling all of them.
        self.air.scheduler.soon(lambda: self._hub.connections.pop(connection, None))


class Line:
    """One connection: the venue's Wire, and what the client's Socket stands on."""

    def __init__(self, endpoint: Endpoint, loop: Loop) -> None:
        self.connection: Connection | None = None  # as soon as the venue has taken it
        self.up = _Way(endpoint.air)
        self.down = _Way(endpoint.air)
        self.half_open = False
        self.socket = Socket(self, loop)
        self._endpoint = endpoint
        self._air = endpoint.air
        self._loop = loop
        self._gone = False  # for the venue
        self._held_back: bytes | None = None

    # -- sim.connection.Wire

    def write(self, frame: bytes) -> None:
        air, weather = self._air, self._air.weather
        if self._gone or self.half_open:
            return
        if not self._loop.alive or air.strikes(weather.cut):
            self.hang_up()
        elif air.strikes(weather.half_open):
            self.half_open = True
            air.scheduler.later(HALF_OPEN_SECONDS, self.hang_up)
        elif air.strikes(weather.skip_frame):
            return
        elif self._held_back is None and air.strikes(weather.reorder_frame):
            self._held_back = frame
        else:
            self._send(frame)
            if self._held_back is not None:
                held, self._held_back = self._held_back, None
                self._send(held)

    def hang_up(self) -> None:
        self.end()
        if not self.half_open:
            self.down.send(self.socket.lose)

    def stop_reading(self) -> None:
        self.half_open = True

    async def flushed(self) -> None:
        """What was written has left."""

    # -- for the client's end

    def end(self) -> None:
        """The venue learns that it is over."""
        if not self._gone and self.connection is not None:
            self._gone = True
            self._endpoint.forget(self.connection)

    def hear(self, message: str) -> None:
        """The venue gets a message."""
        if not self._gone and self.connection is not None:
            self._endpoint.hear(self.connection, message)

    def round_trip(self) -> float:
        return self._air.latency() + self._air.latency()

    def _send(self, frame: bytes) -> None:
        air, weather = self._air, self._air.weather
        seconds = air.upto(weather.frame_seconds) if air.strikes(weather.slow_frames) else 0.0
        self.down.send(partial(self.socket.take, frame), seconds)
        if air.strikes(weather.duplicate_frame):
            self.down.send(partial(self.socket.take, frame))


class Socket:
    """What the services use of a `websockets.ClientConnection`."""

    close_timeout = 10.0  # seconds

    def __init__(self, line: Line, loop: Loop) -> None:
        self._line = line
        self._loop = loop
        self._frames: deque[bytes] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._over: type[ConnectionClosed] | None = None

    async def send(self, message: str) -> None:
        if self._over is not None:
            raise self._over(None, None)
        if not self._line.half_open:
            self._line.up.send(partial(self._line.hear, message))

    async def recv(self, *, decode: bool = True) -> Any:
        """The next frame, also of what came before the end."""
        while not self._frames:
            if self._over is not None:
                raise self._over(None, None)
            self._waiting = self._loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        frame = self._frames.popleft()
        return frame.decode() if decode else frame

    async def close(self) -> None:
        """Does not raise. A silent peer costs `close_timeout`."""
        if self._over is not None:
            return
        if self._line.half_open:
            await asyncio.sleep(self.close_timeout)
        else:
            self._line.up.send(self._line.end)
            await asyncio.sleep(self._line.round_trip())
        self._end(ConnectionClosedOK)

    @property
    def transport(self) -> Socket:
        return self

    def abort(self) -> None:
        """As `transport.abort`: over at once; the venue hears a reset."""
        if self._over is None and not self._line.half_open:
            self._line.up.send(self._line.end)
        self._end(ConnectionClosedError)

    # -- what arrives

    def take(self, frame: bytes) -> None:
        if self._over is None:
            self._frames.append(frame)
            self._wake()

    def lose(self) -> None:
        self._end(ConnectionClosedError)

    def _end(self, how: type[ConnectionClosed]) -> None:
        if self._over is None:
            self._over = how
            self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Dialling:
    """What `websockets.connect` gives: awaited, or entered."""

    def __init__(self, endpoint: Endpoint, loop: Loop, uri: str, open_timeout: float, close_timeout: float) -> None:
        self._endpoint = endpoint
        self._loop = loop
        self._uri = uri
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout
        self._socket: Socket | None = None

    def __await__(self) -> Generator[Any, None, Socket]:
        return self._open().__await__()

    async def __aenter__(self) -> Socket:
        self._socket = await self._open()
        return self._socket

    async def __aexit__(self, *_: object) -> None:
        assert self._socket is not None, "entered before"
        await self._socket.close()

    async def _open(self) -> Socket:
        """Raises OSError, of which TimeoutError is one."""
        air = self._endpoint.air
        if air.strikes(air.weather.refuse_dial):
            await asyncio.sleep(air.latency())
            raise ConnectionRefusedError("connection refused")
        line = Line(self._endpoint, self._loop)
        line.socket.close_timeout = self._close_timeout
        opened: asyncio.Future[None] = self._loop.create_future()

        def answered() -> None:
            if not opened.done():
                opened.set_result(None)

        def arrived() -> None:
            if not self._endpoint.deaf:
                self._endpoint.take(line, self._uri)
                line.down.send(answered)

        line.up.send(arrived)
        try:
            async with asyncio.timeout(self._open_timeout):
                await opened
        except TimeoutError:
            raise TimeoutError("timed out during opening handshake") from None
        return line.socket
