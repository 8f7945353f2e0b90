"""A connection between a client and the server: two directions, each in order whatever the latency."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from sim.world.loop import Scheduler
from sim.world.streams import Headers

Work = Callable[..., None]
RESEND_SECONDS = 0.5  # at most so long after the end of a partition does TCP send again


class Pipe:
    """One direction of a connection. What is on its way while it is blocked waits, as TCP would send it again."""

    def __init__(self, scheduler: Scheduler, delay: Callable[[], float], wake: Callable[[float, Work], object]) -> None:
        self.blocked = False
        self._scheduler = scheduler
        self._delay = delay
        self._wake = wake
        self._items: deque[tuple[float, Work, tuple[Any, ...]]] = deque()
        self._sent = -1.0
        self._due = -1.0

    def send(self, work: Work, *args: Any) -> None:
        """Do `work` at the other end. What is written at one moment arrives at one moment."""
        now = self._scheduler.now
        if now != self._sent:
            self._sent = now
            due = now + self._delay()
            if due > self._due:
                self._due = due
                self._wake(due, self._arrive)
        self._items.append((self._due, work, args))

    def _arrive(self) -> None:
        items, now = self._items, self._scheduler.now
        while items and items[0][0] <= now and not self.blocked:
            _, work, args = items.popleft()
            work(*args)

    def cut(self, chance: random.Random) -> None:
        """The sender is dead: some of what it had sent last never left."""
        if self._items:
            for _ in range(chance.randint(0, len(self._items))):
                self._items.pop()

    def unblock(self, chance: random.Random) -> None:
        self.blocked = False
        if self._items:
            self._due = max(self._due, self._scheduler.now + RESEND_SECONDS * chance.random())
            self._items = deque((self._due, work, args) for _, work, args in self._items)
            self._wake(self._due, self._arrive)


class Peer(Protocol):
    """The client's end of a connection."""

    identity: str

    @property
    def silent(self) -> bool:
        """It would not answer a ping now."""
        ...

    def message(self, link: Link, sid: int, subject: str, reply: str, data: bytes, headers: Headers) -> None: ...
    def lost(self, link: Link) -> None: ...


class Link:
    """A connection as the server sees it, with both its directions."""

    def __init__(self, peer: Peer, up: Pipe, down: Pipe) -> None:
        self.peer = peer
        self.up = up
        self.down = down
        self.open = True
        self.missed = 0  # pings without an answer
        self.subjects: dict[int, str] = {}  # by subscription
