"""nats-py's client on virtual time, as far as `libs.common.nats_bus`, its ledger and nats.micro use it; with the faults
of the network between one process and the server.

Measured ways of the real one that are kept: pings find a dead connection, nothing is buffered while there is none, an
answer may come after nobody waits for it any more, a subscription is renewed by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import nats.errors
from nats.aio.client import Client as RealClient
from nats.aio.client import ServerVersion
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from libs.common.clock import Clock
from libs.common.nats_bus import NatsBus, connect
from sim.world.loop import Loop
from sim.world.nats_jetstream import JetStream
from sim.world.nats_server import NatsServer
from sim.world.nats_subscriptions import Answers, Calling, Holding, Names, Subscription
from sim.world.nats_wire import Link, Pipe
from sim.world.streams import Headers

SHORTEST_SECONDS, USUAL_SECONDS = 0.0001, 0.0019  # one way: at least, and up to so much more
MAX_PAYLOAD = 8 * 1024 * 1024  # libs/common/permissions.py


async def open_bus(
    server: NatsServer,
    loop: Loop,
    identity: str,
    clock: Clock,
    failed: Callable[[BaseException], None],
    chance: random.Random,
) -> NatsBus:
    """As `libs.common.nats_bus.connect`, whose options hold here too. Its `nc` is a `Client`, with the faults."""

    def make() -> RealClient:
        return cast(RealClient, Client(server, loop, identity, chance))

    return await connect(["nats://world"], identity, Path(identity), clock, failed, client=make)


class Client:
    """See `nats.aio.client.Client`."""

    connected_server_version = ServerVersion("2.15.1")

    def __init__(self, server: NatsServer, loop: Loop, identity: str, chance: random.Random) -> None:
        self.server = server
        self.loop = loop
        self.identity = identity
        self.is_connected = False
        self.is_closed = False
        self.slow_seconds = 0.0  # a fault: up to so long for one way; 0: as usual
        self._chance = chance
        self._nuid = Names(chance)
        self._partitioned = False
        self._partitions = 0
        self._link: Link | None = None
        self._links: list[Link] = []  # that the server may still believe in
        self._connected_at = 0.0
        self._attempted_at = -1.0
        self._subscriptions: dict[int, Subscription] = {}
        self._sids = 0
        self._answers: Answers | None = None
        self._returning: asyncio.Task[None] | None = None
        self._others_of_loop = loop.on_death
        loop.on_death = self._die

    # -- faults

    def partition(self) -> None:
        """Packets vanish both ways; both sides believe in the connection until their pings have failed."""
        self._partitioned = True
        self._partitions += 1
        for link in self._links:
            link.up.blocked = link.down.blocked = True
        if self._link is not None:
            self._expect_silence(self._link)

    def heal(self) -> None:
        """What was sent in the meantime arrives now, that of a connection given up too."""
        self._partitioned = False
        for link in self._links:
            link.up.unblock(self._chance)
            link.down.unblock(self._chance)

    def disconnect(self) -> None:
        """The connection is reset."""
        if self._link is not None:
            self._part(self._link)
            self.loop.call_soon(self.lost, self._link)

    @property
    def silent(self) -> bool:
        return self.loop.paused

    def _delay(self) -> float:
        return SHORTEST_SECONDS + (self.slow_seconds or USUAL_SECONDS) * self._chance.random()

    def _die(self) -> None:
        """The kernel closes the connections of a dead process."""
        self._others_of_loop()
        if self._link is not None:
            self._part(self._link)

    def _part(self, link: Link) -> None:
        link.up.cut(self._chance)
        link.up.send(self._parted, link)

    def _parted(self, link: Link) -> None:
        self.server.close(link)
        self._links = [held for held in self._links if held is not link]

    def _expect_silence(self, link: Link) -> None:
        """The third ping without an answer ends it. They go out every second of the connection, and are worked out only
        while nothing gets through."""
        age = self.loop.time() - self._connected_at
        pings = int(age / self._ping_interval) + 1 + self._pings_max
        due = self._connected_at + pings * self._ping_interval
        self.loop.call_at(due, self._notice_silence, link, self._partitions)

    def _notice_silence(self, link: Link, partition: int) -> None:
        if self._partitioned and partition == self._partitions:
            self.lost(link)

    # -- connection

    async def connect(
        self,
        servers: list[str],
        *,
        name: str,
        inbox_prefix: bytes,
        reconnect_time_wait: float,
        connect_timeout: float,
        ping_interval: float,
        max_outstanding_pings: int,
        pending_size: int,
        error_cb: Callable[[Exception], Awaitable[None]],
        disconnected_cb: Callable[[], Awaitable[None]],
        reconnected_cb: Callable[[], Awaitable[None]],
        closed_cb: Callable[[], Awaitable[None]],
        **rest: object,
    ) -> None:
        if pending_size > 0:
            raise AssertionError("what is sent while there is no connection is kept: not modelled")
        self._inbox_prefix = bytearray(inbox_prefix)
        self._inbox_name = inbox_prefix.decode()
        self._reconnect_wait = reconnect_time_wait
        self._connect_timeout = connect_timeout
        self._ping_interval = ping_interval
        self._pings_max = max_outstanding_pings
        self.report = error_cb
        self._on_disconnect = disconnected_cb
        self._on_reconnect = reconnected_cb
        self._on_close = closed_cb
        self._attach(await self._dial())

    async def _dial(self) -> Link:
        """Try until a server lets us in."""
        while True:
            if self.loop.time() < self._attempted_at + self._reconnect_wait:
                await asyncio.sleep(self._reconnect_wait)
            self._attempted_at = self.loop.time()
            try:
                return await self._shake_hands()
            except (OSError, TimeoutError) as error:
                self._attempted_at = self.loop.time()
                await self.report(error)

    async def _shake_hands(self) -> Link:
        for _ in range(3):  # TCP, INFO, and PONG
            await asyncio.sleep(self._delay() + self._delay())
            if self._partitioned:
                await asyncio.sleep(self._connect_timeout)
                raise TimeoutError
            if not self.server.listening:
                raise ConnectionRefusedError(111, "Connect call failed")
        scheduler = self.server.scheduler
        up = Pipe(scheduler, self._delay, scheduler.at)
        return self.server.accept(self, up, Pipe(scheduler, self._delay, self.loop.call_at))

    def _attach(self, link: Link) -> None:
        self._link = link
        self._links.append(link)
        self._connected_at = self.loop.time()
        self.is_connected = True
        for subscription in self._subscriptions.values():
            self._announce(subscription)

    def lost(self, link: Link) -> None:
        """The connection has ended; whose end we see first does not matter."""
        if link is not self._link or self.is_closed:
            return
        self._link = None
        self.is_connected = False
        if link.up.blocked:
            link.up.send(self._parted, link)
        else:
            self._parted(link)
        if self._returning is not None:
            self._returning.cancel()
        self._returning = self.loop.create_task(self._return())

    async def _return(self) -> None:
        await self._on_disconnect()
        self._attach(await self._dial())
        await self.flush()
        await self._on_reconnect()

    async def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed, self.is_connected = True, False
        if self._returning is not None:
            self._returning.cancel()
        if self._link is not None:
            self._link.up.send(self._parted, self._link)
            self._link = None
        await asyncio.sleep(0)
        for subscription in self._subscriptions.values():
            if isinstance(subscription, Holding) and subscription.asked and not subscription.asked.done():
                subscription.asked.set_exception(nats.errors.ConnectionClosedError())
        self._subscriptions.clear()
        await self._on_disconnect()
        await self._on_close()

    def check_open(self) -> None:
        if self.is_closed:
            raise nats.errors.ConnectionClosedError

    async def within(self, seconds: float, future: asyncio.Future[Any], late: type[Exception]) -> Any:
        """Wait for what comes in, or raise `late`."""
        timer = self.loop.call_later(seconds, _fail, future, late)
        try:
            return await future
        finally:
            timer.cancel()

    async def flush(self, timeout: float = 10) -> None:
        self.check_open()
        if self._link is None:
            return
        pong: asyncio.Future[None] = self.loop.create_future()
        self._link.up.send(self.server.ping, self._link, partial(_answered, pong))
        await self.within(timeout, pong, nats.errors.FlushTimeoutError)

    # -- messages

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: Headers = None) -> None:
        self.check_open()
        if self._link is None:
            raise nats.errors.OutboundBufferLimitError
        if len(payload) > MAX_PAYLOAD:
            raise nats.errors.MaxPayloadError
        self._link.up.send(self.server.take, self._link, subject, reply, payload, headers)

    async def subscribe(
        self,
        subject: str,
        queue: str = "",
        cb: Callable[[Msg], Awaitable[None]] | None = None,
        **limits: int,
    ) -> Subscription:
        self.check_open()
        self._sids += 1
        subscription = (
            Calling(self, self._sids, subject, queue, cb) if cb else Holding(self, self._sids, subject, queue)
        )
        return self._add(subscription)

    def _add(self, subscription: Subscription) -> Subscription:
        self._subscriptions[subscription.sid] = subscription
        self._announce(subscription)
        return subscription

    def _announce(self, held: Subscription) -> None:
        if self._link is not None:
            self._link.up.send(self.server.subscribe, self._link, held.sid, held.subject, held.queue)

    def forget(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription.sid, None)
        if self._link is not None:
            self._link.up.send(self.server.unsubscribe, self._link, subscription.sid)

    def message(self, link: Link, sid: int, subject: str, reply: str, data: bytes, headers: Headers) -> None:
        subscription = self._subscriptions.get(sid)
        if subscription is not None and link is self._link:
            subscription.take(Msg(cast(RealClient, self), subject, reply, data, headers, _sid=sid))

    def new_inbox(self) -> str:
        return f"{self._inbox_name}.{self._nuid.next().decode()}"

    async def request(
        self, subject: str, payload: bytes = b"", timeout: float = 0.5, *, headers: Headers = None
    ) -> Msg:
        if self._answers is None:
            self.check_open()
            self._sids += 1
            self._answers = Answers(self, self._sids, f"{self.new_inbox()}.*")
            self._add(self._answers)
        token, waiting = self._nuid.next().decode(), self._answers.waiting
        waiting[token] = self.loop.create_future()
        try:
            await self.publish(subject, payload, self._answers.subject[:-1] + token, headers)
            msg = cast(Msg, await self.within(timeout, waiting[token], nats.errors.TimeoutError))
        finally:
            del waiting[token]
        if msg.headers and msg.headers.get("Status") == "503":
            raise nats.errors.NoRespondersError
        return msg

    def jetstream(self, timeout: float = 5) -> JetStreamContext:
        return JetStream(self, timeout)


def _answered(pong: asyncio.Future[None]) -> None:
    if not pong.done():
        pong.set_result(None)


def _fail(future: asyncio.Future[Any], late: type[Exception]) -> None:
    if not future.done():
        future.set_exception(late())
