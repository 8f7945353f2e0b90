"""One WebSocket connection: its numbering, what it subscribed to, and a bounded queue between us and a slow client."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime

from aiohttp import WSMsgType
from aiohttp.web import Request, WebSocketResponse

from sim.frames import envelope
from sim.venue import Venue

FRAMES_AT_MOST = 10_000
BYTES_AT_MOST = 128 * 1024 * 1024  # a few full-size level2 snapshots
FLUSH_SECONDS = 1.0


class Connection:
    """Frames are numbered when they are queued, from 0, over all channels."""

    def __init__(self, socket: WebSocketResponse, venue: Venue, request: Request, transport: asyncio.Transport) -> None:
        self.subscribed: dict[str, list[str]] = {}
        self.user = "user" in request.path  # on the user endpoint
        self.address = request.remote or ""
        self.greeted = False  # has ever subscribed
        self.hang_up = transport.abort
        self.stop_reading = transport.pause_reading  # not even pings get an answer then
        self.last_frame_at = venue.clock.monotonic()
        self._socket = socket
        self._venue = venue
        self._next_number = 0
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._held_back: bytes | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._slow = False

    def send(self, channel: str, events: bytes, at: datetime) -> None:
        """Queue one frame of encoded events. A client that lets too much pile up is cut off."""
        box = self._venue.faults
        if box.strikes("skip_sequence"):
            self._next_number += 1
        with_client_id = box.faults.client_id_on_user if self.user else box.faults.client_id_on_market
        frame = envelope(channel, at, self._next_number, events, with_client_id, box.faults.extra_fields)
        self._next_number += 1
        if self._held_back is not None:
            held, self._held_back = self._held_back, None
            self.put(frame)
            self.put(held)
        elif box.strikes("reorder_sequence"):
            self._held_back = frame
        else:
            self.put(frame)

    def put(self, frame: bytes) -> None:
        """Queue a frame as it is."""
        faults = self._venue.faults.faults
        self.last_frame_at = self._venue.clock.monotonic()
        if faults.silent_sockets or faults.half_open_sockets:
            return
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._idle.clear()
        self._wake.set()
        if len(self._queue) > FRAMES_AT_MOST or self._queued_bytes > BYTES_AT_MOST:
            self._queue.clear()
            self.hang_up()

    async def write(self) -> None:
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
        """Wait until the queue has been handed to the socket; a client that keeps us waiting is not waited for again
        before it has caught up."""
        if self._slow or self._idle.is_set():
            return
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            self._slow = True
