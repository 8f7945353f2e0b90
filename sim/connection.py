"""One WebSocket connection as the venue sees it: its numbering, and what it subscribed to. What carries its frames to
the client is handed in."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from sim.frames import envelope
from sim.venue import Venue


class Wire(Protocol):
    """The way of one connection's frames."""

    def write(self, frame: bytes) -> None:
        """Take a frame, in order and without waiting; one that has ended takes it for nothing."""

    def hang_up(self) -> None:
        """End it at once, without a farewell."""

    def stop_reading(self) -> None:
        """Leave whatever the client sends unanswered, pings too."""

    async def flushed(self) -> None:
        """Wait, a moment at most, until what was written has left."""


class Connection:
    """Frames are numbered when they are written, from 0, over all channels. `user`: on the user endpoint, or subscribed
    to that channel."""

    def __init__(self, venue: Venue, wire: Wire, address: str, user: bool) -> None:
        self.subscribed: dict[str, list[str]] = {}
        self.user = user
        self.address = address
        self.greeted = False  # has ever subscribed
        self.hang_up = wire.hang_up
        self.stop_reading = wire.stop_reading
        self.flushed = wire.flushed
        self.last_frame_at = venue.clock.monotonic()
        self._wire = wire
        self._venue = venue
        self._next_number = 0
        self._held_back: bytes | None = None

    def send(self, channel: str, events: bytes, at: datetime) -> None:
        """Write one frame of encoded events."""
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
        """Write a frame as it is."""
        faults = self._venue.faults.faults
        self.last_frame_at = self._venue.clock.monotonic()
        if not (faults.silent_sockets or faults.half_open_sockets):
            self._wire.write(frame)
