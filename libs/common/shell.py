"""The loop that every service runs: take a message, ask the core, do what it says. Nothing is decided here.

State changes only by messages: what the core wants to be durable is written to the ledger first and then handed back
to it, so that a running service and one that replays the ledger after a crash go through the same steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from msgspec import Struct

from libs.common import messages as m
from libs.common.bus import Bus, Delivery, Entry
from libs.common.clock import Clock, Tasks
from libs.common.errors import Conflict, Stop
from libs.common.subjects import BY_TYPE, INSTALLATION_KEY, OPENING_KEY, SNAPSHOT_BUCKET, STATE_BUCKET, Kept
from libs.common.telemetry import VERSION, ServiceMetrics

log = logging.getLogger(__name__)
TICK_SECONDS = 0.25
KEPT_MARGIN = timedelta(minutes=1)  # the bus and we may tell the time differently
STATUS_TICKS = 4  # a status and, where something changed, a snapshot every second
CONFLICTS_MAX = 20


class Core(Protocol):
    """Pure: no I/O, no clock, no chance. The same core runs on NATS, in the simulation and in the backtest."""

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        """Take one message at market time `now`; give what follows from it."""
        ...

    def not_ready(self, now: datetime) -> str:
        """Why it cannot do its work; empty when it can."""
        ...

    @property
    def busy(self) -> bool:
        """True while something that was begun has not come to its end."""
        ...

    def dump(self) -> bytes:
        """The state to start from after a restart; empty where there is none to keep."""
        ...

    def restore(self, raw: bytes) -> None:
        """Take up a dumped state. Raises msgspec.DecodeError when it is not one."""
        ...


class Snapshot(Struct, frozen=True):
    """State, the ledger sequence up to which it holds, and the wall time at which it was kept. `digest` is of all of
    it: a damaged digit would else be another position, or leave out a part of the ledger."""

    sequence: int
    state: msgspec.Raw
    saved_at: datetime | None = None
    digest: str = ""

    def sealed(self) -> bytes:
        """As it is stored."""
        return msgspec.json.encode(msgspec.structs.replace(self, digest=self._seal()))

    @classmethod
    def read(cls, raw: bytes) -> Snapshot:
        """Raises msgspec.DecodeError for what has not been sealed just so."""
        found = m.read(raw, cls)
        if found.digest != found._seal():
            raise msgspec.DecodeError("its digest is not that of what it holds")
        return found

    def _seal(self) -> str:
        return m.derive_id(self.sequence, self.saved_at, hashlib.blake2b(self.state).hexdigest())


class Life(Struct, frozen=True):
    """Kept across restarts: how often the service started, and how often it had ended without saying so."""

    starts: int = 0
    crashes: int = 0
    clean: bool = True


class Inputs(Struct, frozen=True):
    """What a service reads. `candles` are the (product, granularity) windows to warm up from."""

    kinds: tuple[type[m.Message], ...] = ()
    ledger: bool = False
    trading: bool = False
    candles: tuple[tuple[str, str], ...] = ()


class Ask(Struct, frozen=True):
    """A message with somebody waiting for what follows from it; without a message, for its turn to come."""

    message: m.Message | None
    done: asyncio.Future[list[m.Message]]


# Does one effect and gives the facts that came of it, for the core.
Perform = Callable[[m.Message], Awaitable[list[m.Message]]]


async def _nothing_to_perform(message: m.Message) -> list[m.Message]:
    raise AssertionError(f"no one performs {type(message).__name__}")


class Shell:
    """Runs one core. `perform` does what is neither published nor stored in the ledger: venue calls, key-value writes.

    `before_recovery` is awaited first of all (a lease). `over` widens the compare-and-set of a ledger message from its
    own subject to a wildcard. Where the ledger has not moved, a changed state is kept every `idle_snapshot_seconds`:
    one that every price changes need not be written every second.
    """

    def __init__(
        self,
        service: str,
        profile: str,
        core: Core,
        inputs: Inputs,
        *,
        bus: Bus,
        clock: Clock,
        tasks: Tasks,
        metrics: ServiceMetrics,
        perform: Perform = _nothing_to_perform,
        before_recovery: Callable[[], Awaitable[None]] | None = None,
        over: dict[type[m.Message], str] | None = None,
        idle_snapshot_seconds: int = 1,
    ) -> None:
        self.core = core
        self.clock = clock
        self.bus = bus
        self.tasks = tasks
        self.metrics = metrics
        self.service = service
        self.last_venue_at: datetime | None = None
        self.trading: m.TradingState | None = None  # as the bus told it last, also while the core has yet to be told
        self._profile = profile
        self._inputs = inputs
        self._perform = perform
        self._before_recovery = before_recovery
        self._over = over or {}
        self._inbox: asyncio.Queue[m.Message | Ask | None] = asyncio.Queue()
        self._deliveries: deque[Delivery] = deque()
        self._ledger = bus.ledger(0)
        self._applied = 0
        self._written = 0
        self._kept_since: datetime | None = None  # what was kept before it is in the state already
        self._life = Life()
        self._started_at = clock.wall()
        self._recovered = False
        self._ticks = 0
        self._tick_waits = False
        self._last_input_at: datetime | None = None
        self._last_output_at: datetime | None = None
        self._cycle_seconds: float | None = None
        self._errors = 0
        self._saved = b""
        self._saved_applied = -1
        self._saved_ticks = 0
        self._idle_snapshot_ticks = idle_snapshot_seconds * STATUS_TICKS

    # -- life

    async def run(self) -> None:
        """Recover, then handle messages until cancelled. Raises Stop when it cannot go on."""
        await self._recover()
        self.tasks.spawn(self._keep_time(), "time")
        if self._inputs.ledger:
            self.tasks.spawn(self._follow_ledger(), "ledger")
        while True:
            await self._take(await self._inbox.get())

    async def close(self) -> None:
        """Save what a quick restart wants. A crash leaves this out, and the next start does not mind."""
        if self._recovered and self.bus.connected:
            await self._save_snapshot()
            await self._save_life(msgspec.structs.replace(self._life, clean=True))

    def post(self, message: m.Message) -> None:
        """Hand in a message from a callback or a task."""
        self._inbox.put_nowait(message)

    def error(self, kind: str) -> None:
        self._errors += 1
        self.metrics.errors.labels(kind).inc()

    @property
    def applied(self) -> int:
        """The ledger sequence up to which the core knows everything that it will ever be told, its own writes included:
        those it knows before they come back."""
        return max(self._applied, self._written)

    def not_ready(self) -> str:
        if not self._recovered:
            return "recovering"
        if not self.bus.connected:
            return "bus disconnected"
        return self.core.not_ready(self.clock.market())

    async def _recover(self) -> None:
        """The one way to start, after a crash as after a stop: snapshot, ledger tail, last values."""
        if self._before_recovery is not None:
            await self._before_recovery()
        await self._begin_life()
        for kind in self._inputs.kinds:
            await self.bus.subscribe(kind, self.post)
        entry = await self.bus.load(SNAPSHOT_BUCKET, self.service)
        if entry is not None:
            self._restore(entry.value)
        await self._load_installation()
        self._ledger = self.bus.ledger(self._applied)
        while self._inputs.ledger and (page := await self._ledger.catch_up()):
            for item in page:
                self._apply(item)
                await self._ledger.acknowledge(item.sequence)
        if self._inputs.trading:
            await self.bus.watch_trading(self._on_trading)
        await self._read_last_values()
        self._recovered = True
        await self._handle(m.Recovered(id=f"recovered-{self.service}", at=self.clock.market()))
        await self.bus.serve("sync", self._sync)
        log.info("recovered at ledger %d", self._applied, extra={"event": "service.recovered"})

    async def _begin_life(self) -> None:
        entry = await self.bus.load(SNAPSHOT_BUCKET, f"{self.service}-life")
        try:
            before = m.read(entry.value, Life) if entry else Life()
        except msgspec.DecodeError:
            before = Life()  # figures only
        crashes = before.crashes + (0 if before.clean else 1)
        self._life = Life(starts=before.starts + 1, crashes=crashes, clean=False)
        self.metrics.restarts.set(before.starts)
        await self._save_life(self._life)

    async def _load_installation(self) -> None:
        made = await self.bus.load(STATE_BUCKET, INSTALLATION_KEY)
        if made is None:
            raise Stop("the bus holds no installation: provision it first (perps-bot run does)")
        opening = await self.bus.load(STATE_BUCKET, OPENING_KEY)
        try:
            self._feed(m.read(opening.value if opening else made.value, m.Installation))
        except msgspec.DecodeError as error:
            raise Stop(f"the installation kept on the bus is unreadable: {error}") from None

    def _restore(self, raw: bytes) -> None:
        try:
            snapshot = Snapshot.read(raw)
            self.core.restore(bytes(snapshot.state))
            self._applied = snapshot.sequence
            self._kept_since = snapshot.saved_at and snapshot.saved_at - KEPT_MARGIN
        except msgspec.DecodeError as error:
            # Another version's snapshot: the ledger has everything, it only takes longer.
            log.warning(
                "snapshot not usable, reading the whole ledger: %s",
                error,
                extra={"event": "service.snapshot"},
            )

    async def _read_last_values(self) -> None:
        for kind in self._inputs.kinds:
            if BY_TYPE[kind].kept is Kept.LAST:
                for message in await self.bus.last(kind):
                    self._feed(message)
            elif BY_TYPE[kind].kept is Kept.AUDIT:  # counted, so none may be missed; the core knows what it has counted
                for message in await self.bus.since(kind, self._kept_since):
                    self._feed(message)
        for product_id, granularity in self._inputs.candles:
            for message in await self.bus.candles(product_id, granularity):
                self._feed(message)

    # -- the loop

    def _feed(self, message: m.Message) -> list[m.Message]:
        self.clock.observe(message.at)
        return self.core.on_message(message, self.clock.market())

    def _apply(self, item: Delivery) -> list[m.Message]:
        if item.sequence <= self._applied:
            return []
        outputs = self._feed(item.message)
        self._applied = item.sequence
        return outputs

    async def _take(self, item: m.Message | Ask | None) -> None:
        await self._drain_ledger()  # facts first: what was handed out counts as known in the next write
        if isinstance(item, Ask):
            outputs = await self._handle(item.message) if item.message else []
            if not item.done.done():
                item.done.set_result(outputs)
        elif item is not None:
            await self._handle(item)
        if type(item) is m.Tick:
            self._tick_waits = False
            self._ticks += 1
            if self._ticks % STATUS_TICKS == 0:
                await self._report()

    async def _drain_ledger(self) -> None:
        while self._deliveries:
            item = self._deliveries.popleft()
            await self._effects(self._apply(item), item.message)
            self._count(item.message)
            await self._ledger.acknowledge(item.sequence)

    async def _handle(self, message: m.Message) -> list[m.Message]:
        began = self.clock.monotonic()
        outputs = await self._effects(self._feed(message), message)
        self._count(message)
        if not isinstance(message, m.Tick):
            self._cycle_seconds = self.clock.monotonic() - began
            self.metrics.handling[type(message)].observe(self._cycle_seconds)
        return outputs

    def _count(self, message: m.Message) -> None:
        self.metrics.messages_in[type(message)].inc()
        if not isinstance(message, m.Tick):
            self._last_input_at = self.clock.wall()
            self.metrics.last_input.set(self._last_input_at.timestamp())

    async def _effects(self, outputs: list[m.Message], origin: m.Message) -> list[m.Message]:
        """Do what the core said, in order. A lost compare-and-set means: read on, and let the core decide again."""
        for _ in range(CONFLICTS_MAX):
            try:
                for output in outputs:
                    await self._effect(output)
                return outputs
            except Conflict as conflict:
                if isinstance(origin, m.Recovered):
                    raise Stop(f"another process wrote while this one started: {conflict}") from None
                log.warning("deciding again: %s", conflict, extra={"event": "service.conflict", "cause": origin.id})
                self._deliveries.extend(await self._ledger.catch_up())
                await self._drain_ledger()
                outputs = self._feed(origin)
        raise Stop(f"{CONFLICTS_MAX} lost writes in a row for {origin.id}: another process writes as {self.service}")

    async def _effect(self, output: m.Message) -> None:
        route = BY_TYPE.get(type(output))
        if route is None or type(output) is m.TradingState:
            for fact in await self._perform(output):
                await self._effects(self._feed(fact), fact)
            return
        output = msgspec.structs.replace(output, producer=self.service)
        if route.kept is Kept.LEDGER:
            self._written = await self._ledger.append(output, self._over.get(type(output), ""))
        else:
            await self.bus.publish(output)
        self._last_output_at = self.clock.wall()
        self.metrics.messages_out[type(output)].inc()
        if route.kept is Kept.LEDGER:
            # Stored, so it is a fact: only now may the core act on it.
            await self._effects(self._feed(output), output)

    # -- beside the loop

    async def _keep_time(self) -> None:
        while True:
            await self.tasks.sleep(TICK_SECONDS)
            if not self._tick_waits:  # a loop that waits for the bus needs no heap of ticks afterwards
                self._tick_waits = True
                self.post(m.Tick(id="tick", at=self.clock.market()))

    async def _follow_ledger(self) -> None:
        while True:
            page = await self._ledger.read()
            if page:
                self._deliveries.extend(page)
                self._inbox.put_nowait(None)

    def _on_trading(self, entry: Entry | None) -> None:
        state = trading_state(entry, self.clock.market())
        self.trading = state
        if self._recovered:
            self.post(state)
        else:
            self._feed(state)

    async def ask(self, message: m.Message | None) -> list[m.Message]:
        """Hand in a message and wait until all that follows from it is done."""
        done: asyncio.Future[list[m.Message]] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(Ask(message, done))
        return await done

    async def _sync(self, command: m.Command) -> m.Reply:
        """Answered once everything that had arrived before has been handled. Replays keep step with this."""
        if self._inputs.ledger and command.ledger_sequence > self._applied:
            self._deliveries.extend(await self._ledger.catch_up())
        await self.ask(None)
        return m.Reply(ok=True, busy=self.core.busy, ledger_sequence=self._applied)

    # -- keeping and telling

    async def _report(self) -> None:
        self._gauges()
        await self.bus.publish(self.status())
        if self._applied != self._saved_applied or self._ticks - self._saved_ticks >= self._idle_snapshot_ticks:
            await self._save_snapshot()

    def status(self) -> m.ServiceStatus:
        reason = self.not_ready()
        return m.ServiceStatus(
            id=f"status-{self.service}",
            producer=self.service,
            at=self.clock.market(),
            service=self.service,
            version=VERSION,
            pid=os.getpid(),
            profile=self._profile,
            started_at=self._started_at,
            ready=not reason,
            not_ready_reason=reason,
            last_input_at=self._last_input_at,
            last_decision_at=self._last_output_at,
            last_venue_at=self.last_venue_at,
            cycle_seconds=self._cycle_seconds,
            errors=self._errors + self._life.crashes,
            restarts=self._life.starts - 1,
            ledger_sequence=self._applied,
        )

    def _gauges(self) -> None:
        self.metrics.ready.set(0 if self.not_ready() else 1)
        self.metrics.bus_connected.set(1 if self.bus.connected else 0)
        self.metrics.ledger_sequence.set(self._applied)
        self.metrics.inbox_depth.set(self._inbox.qsize())

    async def _save_snapshot(self) -> None:
        state = self.core.dump()
        if state and state != self._saved and self.bus.connected:
            raw = Snapshot(self._applied, msgspec.Raw(state), self.clock.wall()).sealed()
            await self.bus.store(SNAPSHOT_BUCKET, self.service, raw, None)
            self._saved, self._saved_applied, self._saved_ticks = state, self._applied, self._ticks

    async def _save_life(self, life: Life) -> None:
        await self.bus.store(SNAPSHOT_BUCKET, f"{self.service}-life", msgspec.json.encode(life), None)


def trading_state(entry: Entry | None, now: datetime) -> m.TradingState:
    """The stored trading state. Unreadable, or gone after the first start, means halted."""
    reason = "the stored trading state is gone"
    if entry is not None:
        reason = "the stored trading state is unreadable"
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.structs.replace(m.read(entry.value, m.TradingState), revision=entry.revision)
    return m.TradingState(
        id="trading-lost",
        at=now,
        state=m.Trading.HALTED,
        reason=reason,
        who="fail closed",
        since=now,
        revision=entry.revision if entry else 0,
    )
