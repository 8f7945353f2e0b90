"""A bus in memory with the semantics that the shell relies on, behind the same protocol as the real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from fnmatch import fnmatch

from libs.common import messages as m
from libs.common.bus import Delivery, Entry
from libs.common.errors import Conflict
from libs.common.subjects import BY_TYPE, STATE_BUCKET, TRADING_KEY, subject_of


class MemoryBus:
    def __init__(self) -> None:
        self.connected = True
        self.stored: list[Delivery] = []
        self.published: list[m.Message] = []
        self.entries: dict[tuple[str, str], Entry] = {}
        self.served: dict[str, Callable[[m.Command], Awaitable[m.Reply]]] = {}
        self.subscribers: list[tuple[type[m.Message], Callable[[m.Message], None]]] = []
        self.watchers: list[Callable[[Entry | None], None]] = []
        self.window: list[m.Message] = []

    async def publish(self, message: m.Message) -> None:
        self.published.append(message)
        for kind, handler in self.subscribers:
            if isinstance(message, kind):
                handler(message)

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None:
        self.subscribers.append((kind, handler))

    async def watch_trading(self, handler: Callable[[Entry | None], None]) -> None:
        self.watchers.append(handler)
        handler(self.entries.get((STATE_BUCKET, TRADING_KEY)))

    async def last(self, kind: type[m.Message]) -> list[m.Message]:
        latest = {subject_of(message): message for message in self.published if isinstance(message, kind)}
        return list(latest.values())

    async def since(self, kind: type[m.Message], moment: datetime | None) -> list[m.Message]:
        found = [message for message in self.published if isinstance(message, kind)]
        return [message for message in found if moment is None or message.sent_at is None or message.sent_at >= moment]

    async def candles(self, product_id: str, granularity: str) -> list[m.Message]:
        return self.window

    def ledger(self, position: int) -> MemoryLedger:
        return MemoryLedger(self, position)

    async def load(self, bucket: str, key: str) -> Entry | None:
        return self.entries.get((bucket, key))

    async def store(self, bucket: str, key: str, value: bytes, revision: int | None) -> int:
        now = self.entries.get((bucket, key))
        if revision is not None and revision != (now.revision if now else 0):
            raise Conflict(key)
        entry = Entry(value, (now.revision if now else 0) + 1)
        self.entries[bucket, key] = entry
        if key == TRADING_KEY:
            for watcher in self.watchers:
                watcher(entry)
        return entry.revision

    async def serve(self, command: str, handler: Callable[[m.Command], Awaitable[m.Reply]]) -> None:
        self.served[command] = handler

    async def hold_lease(self, key: str) -> int:
        return 1

    @property
    def holds_lease(self) -> bool:
        return self.connected


class MemoryLedger:
    def __init__(self, bus: MemoryBus, position: int) -> None:
        self.position = position
        self._bus = bus
        self._own: set[int] = set()

    async def catch_up(self) -> list[Delivery]:
        page = self._bus.stored[self.position :]
        self.position = len(self._bus.stored)
        return page

    async def read(self) -> list[Delivery]:
        return await self.catch_up()

    async def acknowledge(self, sequence: int) -> None:
        pass

    async def append(self, message: m.Message, over: str = "") -> int:
        subject = subject_of(message)
        pattern = over.replace(">", "*") or subject
        known = self._own | set(range(self.position + 1))
        if any(fnmatch(item.subject, pattern) and item.sequence not in known for item in self._bus.stored):
            raise Conflict(subject)
        sequence = len(self._bus.stored) + 1
        self._bus.stored.append(Delivery(sequence, subject, message))
        self._own.add(sequence)
        assert BY_TYPE[type(message)].kept == "LEDGER"
        return sequence
