"""The WebSocket door: connections from upgrade to end, and a bounded queue between us and a slow client."""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp import WSMsgType, web

from sim.connection import Connection
from sim.desk import Verifies
from sim.dialogue import Dialogue
from sim.hub import Hub
from sim.settings import Settings
from sim.venue import Venue

MESSAGE_BYTES = 1024 * 1024
HANG_CHECK_SECONDS = 0.05  # between two looks whether a client that gets no answer has gone
FRAMES_AT_MOST = 10_000
BYTES_AT_MOST = 128 * 1024 * 1024  # a few full-size level2 snapshots
FLUSH_SECONDS = 1.0


class SocketWire:
    """A Wire over a real socket."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.hang_up = transport.abort
        self.stop_reading = transport.pause_reading  # not even pings get an answer then
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._slow = False

    def write(self, frame: bytes) -> None:
        """A client that lets too much pile up is cut off."""
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._idle.clear()
        self._wake.set()
        if len(self._queue) > FRAMES_AT_MOST or self._queued_bytes > BYTES_AT_MOST:
            self._queue.clear()
            self.hang_up()

    async def run(self) -> None:
        """Send what is queued until the connection ends."""
        try:
            while True:
                while self._queue:
                    frame = self._queue.popleft()
                    await self._socket.send_frame(frame, WSMsgType.TEXT)
                    self._queued_bytes -= len(frame)
                self._queued_bytes = 0
                self._slow = False
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
        except ConnectionError:
            return  # the client went; its reader sees that too
        finally:
            self._idle.set()

    async def flushed(self) -> None:
        """A client that keeps us waiting is not waited for again before it has caught up."""
        if self._slow or self._idle.is_set():
            return
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            self._slow = True


class Sockets:
    """Serves WebSocket on any path; market and user channels alike."""

    def __init__(self, venue: Venue, hub: Hub, verifier: Verifies, settings: Settings) -> None:
        self._venue = venue
        self._hub = hub
        self._patience = settings.first_subscribe_seconds
        self._dialogue = Dialogue(venue, hub, verifier, settings.rate_limits)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One connection from upgrade to end."""
        while self._venue.faults.faults.half_open_sockets and request.transport is not None:
            await self._venue.clock.sleep(HANG_CHECK_SECONDS)
        if request.transport is None:
            return web.Response()  # the client gave up
        socket = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES, timeout=1.0)
        await socket.prepare(request)
        wire = SocketWire(socket, request.transport)
        connection = Connection(self._venue, wire, request.remote or "", "user" in request.path)
        self._hub.connections[connection] = None
        writer = asyncio.create_task(wire.run())
        try:
            await self._read(socket, connection)
        finally:
            del self._hub.connections[connection]
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _read(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        deadline = asyncio.get_running_loop().time() + self._patience
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                message = await socket.receive(timeout=None if connection.greeted else max(left, 0.001))
            except TimeoutError:
                await socket.close()  # no subscription in the first seconds
                return
            if message.type is not WSMsgType.TEXT:
                if message.type is not WSMsgType.BINARY:
                    return  # closed, or broken beyond what the library answers
                self._dialogue.not_understood(connection)
                continue
            self._dialogue.hear(connection, message.data)
