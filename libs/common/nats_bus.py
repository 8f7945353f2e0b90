"""The bus on NATS. With its ledger and its provisioning the only modules that know NATS.

Measured choices: callbacks instead of iterators, fast pings (a dead server is seen in under 3 s), no outgoing buffer
(`pending_size=-1`: by default nats-py sends an order seconds after its publish "failed"), no callback that may raise
(the client would go deaf), a closed connection ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, Service, ServiceConfig

from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.clock import Clock
from libs.common.errors import BusDown, Conflict
from libs.common.nats_ledger import PAGE, WRONG_SEQUENCE, NatsLedger, Raw
from libs.common.subjects import (
    BY_TYPE,
    LEASE_BUCKET,
    STATE_BUCKET,
    TRADING_KEY,
    Kept,
    control_subject,
    decode,
    subject_of,
)

log = logging.getLogger(__name__)
LEASE_SECONDS = 4
STORED_WITHIN = (0.0, 0.005, 0.02, 0.1, 0.5, 1.0)  # seconds between two looks at an entry that is being stored
REFUSALS_MAX = 10  # unanswered requests in a row on a healthy connection: nobody will answer


class BusStats:
    """Plain counters that telemetry reads at each scrape."""

    def __init__(self) -> None:
        self.disconnects = 0
        self.reconnects = 0
        self.dropped = 0
        self.undecodable = 0
        self.errors = 0
        self.conflicts = 0


async def connect(
    servers: list[str],
    identity: str,
    seed_file: Path,
    clock: Clock,
    failed: Callable[[BaseException], None],
    patience_seconds: float = 15,
    client: Callable[[], Client] = Client,
) -> NatsBus:
    """Connect as `identity`, waiting for a server. `failed` is called once the connection is gone for good.
    `client` makes what speaks to the server; the simulation has its own.

    Raises BusDown with one line when no server answers or the credential is refused.
    """
    bus = NatsBus(identity, clock, failed)
    try:
        bus.nc = client()
        await asyncio.wait_for(
            bus.nc.connect(
                servers,
                name=identity,
                nkeys_seed=str(seed_file),
                inbox_prefix=f"_INBOX_{identity}".encode(),
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,  # type: ignore[arg-type]  # of seconds; the library hands it to sleep()
                connect_timeout=1,
                ping_interval=1,
                max_outstanding_pings=2,
                pending_size=-1,
                flush_timeout=1,
                drain_timeout=3,
                error_cb=bus.on_error,
                disconnected_cb=bus.on_disconnected,
                reconnected_cb=bus.on_reconnected,
                closed_cb=bus.on_closed,
            ),
            patience_seconds,
        )
    except (TimeoutError, OSError, nats.errors.Error) as error:
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):  # a socket half open; the reason is known
            await asyncio.wait_for(bus.close(), 1)
        why = str(error) or "no answer"
        raise BusDown(f"no NATS server at {', '.join(servers)} lets {identity} in: {why}") from None
    bus.js = bus.nc.jetstream(timeout=1)
    bus.announced_up = True
    return bus


class NatsBus:
    """See `libs.common.bus.Bus`."""

    nc: Client
    js: JetStreamContext

    def __init__(self, identity: str, clock: Clock, failed: Callable[[BaseException], None]) -> None:
        self.identity = identity
        self.stats = BusStats()
        self.clock = clock
        self._failed = failed
        self._closing = False
        self.announced_up = False  # what the log last said of the connection
        self._micro: Service | None = None
        self._lease: tuple[str, int] | None = None  # subject and fencing revision
        self._lease_renewed = 0.0
        self._on_reconnect: list[Callable[[], Awaitable[None]]] = []
        self._background: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        return bool(self.nc.is_connected)

    async def close(self) -> None:
        self._closing = True
        for task in list(self._background):
            task.cancel()
        await self._end_lease()
        if self._micro is not None and self.connected:
            await self._micro.stop()
        await self.nc.close()

    # -- callbacks of the client: they only set flags and counters, and never raise

    async def on_error(self, error: Exception) -> None:
        self.stats.errors += 1
        # Ten vain tries a second to reconnect are no news: the disconnect has been told.
        level = logging.ERROR if self.announced_up else logging.DEBUG
        log.log(level, "bus error: %s", error, extra={"event": "bus.error"})

    async def on_disconnected(self) -> None:
        if not self._closing:
            self.stats.disconnects += 1
            self.announced_up = False
            log.warning("bus disconnected", extra={"event": "bus.disconnected"})

    async def on_reconnected(self) -> None:
        self.stats.reconnects += 1
        self.announced_up = True
        log.warning("bus reconnected", extra={"event": "bus.reconnected"})
        for hook in self._on_reconnect:
            self._spawn(hook())

    async def on_closed(self) -> None:
        if not self._closing:
            self._failed(BusDown(f"the bus closed the connection of {self.identity}"))

    # -- core messages

    async def publish(self, message: m.Message) -> None:
        stamped = msgspec.structs.replace(message, sent_at=self.clock.wall())
        try:
            await self.nc.publish(subject_of(message), msgspec.json.encode(stamped))
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError):
            self.stats.dropped += 1

    async def publish_kept(self, message: m.Message) -> None:
        """Publish to the stream that keeps it, done on return; the same id soon again is kept once. Raises BusDown."""
        stamped = msgspec.structs.replace(message, sent_at=self.clock.wall())
        body, headers = msgspec.json.encode(stamped), {"Nats-Msg-Id": message.id}
        try:
            await self.js.publish(subject_of(message), body, headers=headers)
        except (TimeoutError, nats.errors.Error) as error:
            raise BusDown(f"{subject_of(message)} was not kept: {str(error) or 'no answer'}") from None

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None:
        await self._subscribe(BY_TYPE[kind].wildcard, handler)

    async def _subscribe(self, subject: str, handler: Callable[[m.Message], None]) -> None:
        async def receive(msg: Msg) -> None:
            try:
                handler(decode(msg.subject, msg.data))
            except msgspec.DecodeError as error:
                self.undecodable(msg.subject, error)

        await self.nc.subscribe(subject, cb=receive)
        await self._in_force()

    async def _in_force(self) -> None:
        """Wait until the server knows every subscription. nats-py sends the PING of a flush ahead of what waits to be
        sent: only the second one follows the SUB."""
        for _ in range(2):
            await self.nc.flush(2)

    def undecodable(self, subject: str, error: Exception) -> None:
        self.stats.undecodable += 1
        log.error("undecodable message on %s: %s", subject, error, extra={"event": "bus.undecodable"})

    async def last(self, kind: type[m.Message]) -> list[m.Message]:
        route = BY_TYPE[kind]
        return self._read(await self._direct(str(route.kept), {"multi_last": [route.wildcard], "batch": 1000}))

    async def since(self, kind: type[m.Message], moment: datetime | None) -> list[m.Message]:
        route, found = BY_TYPE[kind], []
        start: dict[str, Any] = {"start_time": moment.isoformat()} if moment else {"seq": 1}
        while page := await self._direct(str(route.kept), {**start, "next_by_subj": route.wildcard, "batch": 1000}):
            found += self._read(page)
            start = {"seq": int(page[-1].headers["Nats-Sequence"]) + 1}
        return found

    async def candles(self, product_id: str, granularity: str) -> list[m.Message]:
        subject = f"perps.candle.{product_id}.{granularity}"
        return self._read(await self._direct(Kept.CANDLES, {"seq": 1, "next_by_subj": subject, "batch": 1000}))

    async def order_events(self, client_order_id: str) -> list[m.Message]:
        """Every step of one order, oldest first."""
        subject = f"perps.order.*.{client_order_id}"
        return self._read(await self._direct(Kept.LEDGER, {"seq": 1, "next_by_subj": subject, "batch": 1000}))

    def _read(self, page: list[Any]) -> list[m.Message]:
        found = []
        for msg in page:
            try:
                found.append(decode(msg.headers["Nats-Subject"], msg.data))
            except msgspec.DecodeError as error:
                self.undecodable(msg.headers["Nats-Subject"], error)
        return found

    async def _direct(self, stream: str, request: dict[str, Any]) -> list[Any]:
        """Messages of a stream by a batched direct get (nats-server 2.11), again until the bus answers."""
        refusals = 0
        while True:
            inbox = self.nc.new_inbox()
            replies = await self.nc.subscribe(inbox)
            found: list[Any] = []
            try:
                await self.nc.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox)
                while True:
                    msg = await replies.next_msg(timeout=1)
                    status = (msg.headers or {}).get("Status")
                    if status in ("204", "404"):
                        return found
                    if status is not None:
                        raise nats.errors.Error(f"status {status}")  # a server that is still reading its streams
                    found.append(msg)
                    if "batch" not in request:
                        return found  # a single get has no closing message
            except (TimeoutError, nats.errors.Error) as error:
                log.log(
                    logging.WARNING if self.connected else logging.DEBUG,
                    "reading %s again: %r",
                    stream,
                    error,
                    extra={"event": "bus.retry"},
                )
                refusals = refusals + 1 if self.connected else 0
                if refusals > REFUSALS_MAX:
                    raise BusDown(f"{self.identity} cannot read {stream}: is it provisioned and permitted?") from None
                await asyncio.sleep(0.1)
            finally:
                if not self.nc.is_closed:
                    await replies.unsubscribe()

    # -- ledger

    def ledger(self, position: int) -> NatsLedger:
        return NatsLedger(self, position)

    async def direct_page(self, position: int) -> list[Raw]:
        """The next page of the ledger after `position`."""
        page = await self._direct(Kept.LEDGER, {"seq": position + 1, "batch": PAGE})
        return [Raw(int(p.headers["Nats-Sequence"]), p.headers["Nats-Subject"], p.data) for p in page]

    async def last_sequence(self) -> int:
        """Of the ledger, 0 while it is empty. For the operator: services may not ask."""
        try:
            return int((await self.js.stream_info(Kept.LEDGER)).state.last_seq)
        except (TimeoutError, nats.errors.Error) as error:
            raise BusDown(f"{Kept.LEDGER} does not tell its length: {str(error) or 'no answer'}") from None

    async def last_on(self, subject: str) -> Any | None:
        """The last ledger message on a subject or wildcard, None if there is none."""
        found = await self._direct(Kept.LEDGER, {"multi_last": [subject], "batch": 1000})
        return max(found, key=lambda msg: int(msg.headers["Nats-Sequence"]), default=None)

    # -- key-value

    async def load(self, bucket: str, key: str) -> Entry | None:
        found = await self._direct(f"KV_{bucket}", {"last_by_subj": f"$KV.{bucket}.{key}"})
        if not found or found[0].headers.get("KV-Operation"):
            return None
        return Entry(found[0].data, int(found[0].headers["Nats-Sequence"]))

    async def history(self, bucket: str, key: str) -> list[Entry]:
        """What the key has held, as far back as the bucket keeps it, oldest first; empty where it was deleted."""
        subject = f"$KV.{bucket}.{key}"
        found = await self._direct(f"KV_{bucket}", {"seq": 1, "next_by_subj": subject, "batch": 1000})
        return [Entry(msg.data, int(msg.headers["Nats-Sequence"])) for msg in found]

    async def store(self, bucket: str, key: str, value: bytes, revision: int | None) -> int:
        while True:
            try:
                return await self._store(f"$KV.{bucket}.{key}", value, revision)
            except (TimeoutError, nats.errors.Error) as error:
                log.warning("storing %s again: %r", key, error, extra={"event": "bus.retry"})
                await asyncio.sleep(0.1)
                entry = await self.load(bucket, key)
                if entry is not None and entry.value == value:
                    return entry.revision

    async def _store(self, subject: str, value: bytes, revision: int | None, ttl: int = 0) -> int:
        headers = {} if revision is None else {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        if ttl:
            headers["Nats-TTL"] = str(ttl)
        try:
            return int((await self.js.publish(subject, value, headers=headers)).seq)
        except nats.js.errors.APIError as error:
            if error.err_code in WRONG_SEQUENCE:
                self.stats.conflicts += 1
                raise Conflict(f"{subject}: {error.description}") from None
            raise

    async def watch_trading(self, handler: Callable[[Entry | None], None]) -> None:
        async def read_again(told: bytes | None = None) -> None:
            for pause in STORED_WITHIN:
                await asyncio.sleep(pause)
                entry = await self.load(STATE_BUCKET, TRADING_KEY)
                handler(entry)
                if told is None or told == (entry.value if entry else b""):
                    return

        async def changed(msg: Msg) -> None:
            # The stored entry is the truth, the message only says that there is a new one; and the server tells its
            # subscribers before the stream has it (once in several hundred changes the entry read at once is the old
            # one). Read until it is what was told; where it is never, a later change tells of itself.
            self._spawn(read_again(msg.data))

        await self.nc.subscribe(f"$KV.{STATE_BUCKET}.{TRADING_KEY}", cb=changed)
        self._on_reconnect.append(read_again)
        await read_again()

    async def hold_lease(self, key: str) -> int:
        subject, owner = f"$KV.{LEASE_BUCKET}.{key}", self.nc.new_inbox().encode()
        log.info("waiting for the lease %s", key, extra={"event": "bus.lease"})
        while True:
            asked = self.clock.monotonic()
            try:
                self._lease = (subject, await self._store(subject, owner, 0, LEASE_SECONDS))
                self._lease_renewed = asked
                break
            except (Conflict, TimeoutError, nats.errors.Error):
                await asyncio.sleep(0.2)
        self._spawn(self._renew(subject, owner))
        return self._lease[1]

    async def _end_lease(self) -> None:
        """An orderly end lets the next one in after a second instead of the lease's whole life."""
        if self._lease is not None and self.connected:
            with contextlib.suppress(Conflict, TimeoutError, nats.errors.Error):
                await self._store(self._lease[0], b"", self._lease[1], 1)

    async def _renew(self, subject: str, owner: bytes) -> None:
        """For ever. A lost bus does not end us (resting orders may need us), but `holds_lease` turns false in time."""
        while self._lease is not None:
            await asyncio.sleep(LEASE_SECONDS / 4)
            asked = self.clock.monotonic()
            try:
                self._lease = (subject, await self._store(subject, owner, self._lease[1], LEASE_SECONDS))
                self._lease_renewed = asked
            except Conflict as error:
                self._failed(error)
                return
            except (TimeoutError, nats.errors.Error) as error:
                log.debug("the lease was not renewed: %r", error)

    @property
    def holds_lease(self) -> bool:
        return self._lease is not None and self.clock.monotonic() - self._lease_renewed < LEASE_SECONDS - 1

    # -- requests

    async def register(self, service: str, version: str) -> None:
        """Show up in `nats micro ls`."""
        self._micro = await add_service(self.nc, ServiceConfig(name=service, version=version, description="perps-bot"))

    async def serve(self, command: str, handler: Callable[[m.Command], Awaitable[m.Reply]]) -> None:
        async def answer(request: Request) -> None:
            try:
                reply = await handler(m.read(request.data or b"{}", m.Command))
            except msgspec.DecodeError as error:
                self.undecodable(request.subject, error)
                reply = m.Reply(ok=False, detail=f"not a command: {error}")
            await request.respond(msgspec.json.encode(reply))

        if self._micro is None:
            raise AssertionError("register before serving")
        subject = control_subject(self.identity, command)
        await self._micro.add_endpoint(EndpointConfig(name=command, subject=subject, handler=answer, queue_group=""))
        await self._in_force()

    async def request(self, service: str, command: str, body: m.Command, timeout_seconds: float) -> m.Reply:
        """Ask a service. Raises BusDown with one line when it does not answer in time."""
        try:
            msg = await self.nc.request(
                control_subject(service, command), msgspec.json.encode(body), timeout=timeout_seconds
            )
            return m.read(msg.data, m.Reply)
        except (TimeoutError, nats.errors.Error, msgspec.DecodeError) as error:
            raise BusDown(f"{service} does not answer {command}: {error or 'timeout'}") from None

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failed(error)  # a watch that ended in silence would leave us deaf to a halt
