"""The user channel: which of our orders moved. It triggers questions and is itself the source of no fill."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from libs.common.errors import OutcomeUnknown, PerpsError, Rejected
from services.execution.budget import backoff
from services.execution.inputs import VenueOrder
from services.execution.parse import parse_user_frame

log = logging.getLogger(__name__)
wire = log.getChild("wire")
wire.setLevel(logging.INFO)  # its debug lines would show tokens
SILENCE_SECONDS = 5.0  # heartbeats come every second: a socket silent for so long is dead, half-open ones included
FRAME_BYTES_MAX = 64 * 2**20
FAILOVER_AFTER = 3  # attempts in a row at one address without a working subscription
PAUSE_SECONDS_MAX = 10.0


class Socket(Protocol):
    """What is used of a connection of `websockets`."""

    async def send(self, message: str) -> None: ...
    async def recv(self) -> bytes | str: ...


Dial = Callable[..., AbstractAsyncContextManager[Socket]]  # as `websockets.connect`


class UserChannel:
    """Orders that the user channel mentions, for ever, over one connection after the other.

    `addresses`: the user endpoint first, then where the channel works as well (the market endpoint is the venue's
    documented failover). `token` makes a fresh token; `refused` is called when the venue refused one.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        token: Callable[[], Awaitable[str]],
        refused: Callable[[], Awaitable[None]],
        count: Callable[[str], None],
        *,
        silence_seconds: float = SILENCE_SECONDS,
        chance: Callable[[], float] = random.random,
        dial: Dial = connect,
    ) -> None:
        self._addresses = addresses
        self._token = token
        self._refused = refused
        self._count = count
        self._silence_seconds = silence_seconds
        self._chance = chance
        self._dial = dial

    async def updates(self) -> AsyncGenerator[VenueOrder | None, None]:
        """None where something may have been missed: once each new connection is subscribed, and after a gap."""
        failures = 0  # in a row
        while True:
            address = self._addresses[failures // FAILOVER_AFTER % len(self._addresses)]
            try:
                # On a half-open socket the closing handshake has no end either.
                async with self._dial(
                    address, max_size=FRAME_BYTES_MAX, open_timeout=5, close_timeout=1, logger=wire
                ) as socket:
                    await self._subscribe(socket)
                    feed = Feed(asyncio.get_running_loop().time(), self._silence_seconds, self._count)
                    while True:
                        async with asyncio.timeout(self._silence_seconds):
                            frame = await socket.recv()
                        for update in feed.take(frame, asyncio.get_running_loop().time()):
                            failures = 0
                            yield update
            except (OSError, TimeoutError, WebSocketException, PerpsError) as error:
                self._count("user_channel_lost")
                log.warning("user channel at %s lost: %r", address, error, extra={"event": "venue.user_channel"})
                if isinstance(error, Rejected):
                    await self._refused()
            await asyncio.sleep(backoff(failures, 0.5 + self._chance() / 2, PAUSE_SECONDS_MAX))
            failures += 1

    async def _subscribe(self, socket: Socket) -> None:
        """One channel per message, one fresh token per message (venue document 1.1)."""
        for channel in ("heartbeats", "user"):
            await socket.send(json.dumps({"type": "subscribe", "channel": channel, "jwt": await self._token()}))


class Feed:
    """The frames of one connection: numbered from 0 without a hole over all channels. Pure; times in seconds."""

    def __init__(self, began: float, patience: float, count: Callable[[str], None]) -> None:
        self._deadline = began + patience
        self._count = count
        self._subscribed = False
        self._last = -1

    def take(self, frame: bytes | str, now: float) -> list[VenueOrder | None]:
        """The orders of a frame, after None where something may have been missed before it.

        Raises Rejected for an error frame and OutcomeUnknown for what cannot be read; also for a connection that tells
        of everything but the user channel: a subscription may fail without a word.
        """
        told = parse_user_frame(frame)
        missed = told.number is not None and told.number != self._last + 1
        if told.number is not None:
            self._last = max(self._last, told.number)
        began = told.subscribed and not self._subscribed
        self._subscribed |= told.subscribed
        if not self._subscribed and now > self._deadline:
            raise OutcomeUnknown("the venue does not confirm the subscription to the user channel")
        gap = missed and self._subscribed and not began
        if gap:
            self._count("user_channel_gap")
        return [None, *told.orders] if began or gap else list(told.orders)
