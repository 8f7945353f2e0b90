"""What a service may ask of the bus. `libs.common.nats_bus` is the real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from libs.common.messages import Command, Message, Reply


class Delivery(Struct, frozen=True):
    """One message of the ledger at its place in the one sequence."""

    sequence: int
    subject: str
    message: Message


class Entry(Struct, frozen=True):
    """One key-value entry; `revision` is what a later compare-and-set must name."""

    value: bytes
    revision: int


class Ledger(Protocol):
    """Reads the ledger in order, without a hole, from a given place on."""

    position: int

    async def catch_up(self) -> list[Delivery]:
        """The next page of what is already there; empty at the end."""
        ...

    async def read(self) -> list[Delivery]:
        """What comes next; empty after about a second without anything."""
        ...

    async def acknowledge(self, sequence: int) -> None:
        """Everything up to `sequence` has been handled: later writes of this reader rest on it."""
        ...

    async def append(self, message: Message, over: str = "") -> int:
        """Write one message, durable on return; gives its sequence.

        Succeeds only if nobody has written to the message's subject (or to the wildcard `over`) since what has been
        acknowledged as handled; else Conflict. Waits out a lost bus, and settles a write whose acknowledgement was
        lost by asking."""
        ...


class Bus(Protocol):
    """All methods may raise BusDown when the server refuses us for good."""

    @property
    def connected(self) -> bool: ...

    async def publish(self, message: Message) -> None:
        """Send and forget. Dropped, and counted, while the bus is away: whatever matters is repeated or durable."""
        ...

    async def subscribe(self, kind: type[Message], handler: Callable[[Message], None]) -> None:
        """Call `handler` with every message of that kind from now on. It must not raise."""
        ...

    async def watch_trading(self, handler: Callable[[Entry | None], None]) -> None:
        """Call `handler` with the trading state now, at every change, and again after every reconnect."""
        ...

    async def last(self, kind: type[Message]) -> list[Message]:
        """The last value on every subject of that kind."""
        ...

    async def since(self, kind: type[Message], moment: datetime | None) -> list[Message]:
        """What was kept of that kind from this wall time on, oldest first; None: from the beginning."""
        ...

    async def candles(self, product_id: str, granularity: str) -> list[Message]:
        """The kept window of closed candles, oldest first."""
        ...

    def ledger(self, position: int) -> Ledger:
        """A reader that starts after `position`."""
        ...

    async def load(self, bucket: str, key: str) -> Entry | None: ...

    async def store(self, bucket: str, key: str, value: bytes, revision: int | None) -> int:
        """Durable on return; gives the new revision. With a revision it is a compare-and-set (0: must not exist) and
        raises Conflict when lost."""
        ...

    async def serve(self, command: str, handler: Callable[[Command], Awaitable[Reply]]) -> None:
        """Answer `perps.control.<this service>.<command>`."""
        ...

    async def hold_lease(self, key: str) -> int:
        """Wait until this process alone holds the lease, keep renewing it, and give its fencing revision.
        Losing it to another process ends this one."""
        ...

    @property
    def holds_lease(self) -> bool:
        """False as soon as another process might hold it: the last renewal is too long ago."""
        ...
