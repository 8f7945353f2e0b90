"""What could be wrong in what all services stand on, and in those that only read."""

from __future__ import annotations

from datetime import datetime

import msgspec

from libs.common import messages as m
from libs.common.bus import Delivery
from libs.common.errors import Conflict, Stop
from libs.common.nats_bus import LEASE_SECONDS, NatsBus
from libs.common.nats_ledger import NatsLedger
from libs.common.shell import CONFLICTS_MAX, Shell, Snapshot
from libs.common.subjects import BY_TYPE, LEASE_BUCKET, SNAPSHOT_BUCKET, Kept
from services.exporter.core import ExporterCore
from services.marketdata.core import MarketDataCore
from services.marketdata.facts import Connected
from services.strategy.books import ZERO
from services.strategy.core import Desk, StrategyCore
from sim.world.faults import Kind
from tests.simulation.planting import SETTLES, Patch, again, always, replaces, together

TWO_RISKS = again(10, Kind.TWIN, "risk", seconds=9)
HANDED_OVER = together(again(6.3, Kind.TWIN, "execution", seconds=5), always(Kind.REST, switch="refuse", value=0.7))


# -- the shell

_effect = Shell._effect


@replaces(Shell, "_effect", rules=(2,))
async def handled_before_it_is_durable(self: Shell, output: m.Message) -> None:
    """A fact is handed to the core first and written to the ledger afterwards."""
    route = BY_TYPE.get(type(output))
    if route is None or route.kept is not Kept.LEDGER:
        return await _effect(self, output)
    await self._effects(self._feed(output), output)
    self._written = await self._ledger.append(output, self._over.get(type(output), ""))


@replaces(Shell, "_save_snapshot", rules=(3, 9, 10, SETTLES), faults=again(3, Kind.KILL, "risk"))
async def snapshot_one_ahead_of_its_state(self: Shell) -> None:
    """A snapshot is kept under the sequence that comes next, which its state does not hold."""
    state = self.core.dump()
    if state and state != self._saved and self.bus.connected:
        raw = Snapshot(self._applied + 1, msgspec.Raw(state), self.clock.wall()).sealed()
        await self.bus.store(SNAPSHOT_BUCKET, self.service, raw, None)
        self._saved, self._saved_applied, self._saved_ticks = state, self._applied, self._ticks


_catch_up = NatsLedger.catch_up


@replaces(NatsLedger, "catch_up", rules=(2, 3, 9, SETTLES), faults=again(5, Kind.KILL, "execution"))
async def tail_not_read_at_start(self: NatsLedger) -> list[Delivery]:
    """A start takes up its snapshot, and leaves what came after it to the consumer."""
    return [] if self._subscription is None else await _catch_up(self)


@replaces(Shell, "_effects", rules=(1,), faults=TWO_RISKS)
async def old_decision_written_again(self: Shell, outputs: list[m.Message], origin: m.Message) -> list[m.Message]:
    """Who has lost a compare-and-set reads on, and then writes what it had decided before."""
    for _ in range(CONFLICTS_MAX):
        try:
            for output in outputs:
                await self._effect(output)
            return outputs
        except Conflict:
            self._deliveries.extend(await self._ledger.catch_up())
            await self._drain_ledger()
    raise Stop("too many lost writes")


@replaces(NatsLedger, "_expected", rules=(1, 9, 10), first=5, within=16, faults=TWO_RISKS)
async def compare_and_set_against_what_is_there(self: NatsLedger, subject: str) -> int:
    """The sequence that a write expects is read right before it, whether or not that message has been handled."""
    last = await self._bus.last_on(subject)
    return int(last.headers["Nats-Sequence"]) if last else 0


# -- the lease


@replaces(NatsBus, "hold_lease", rules=(1, 2, 9), first=2, faults=HANDED_OVER)
async def lease_taken_over(self: NatsBus, key: str) -> int:
    """A new process takes the lease from the old one instead of waiting for its end."""
    subject, owner = f"$KV.{LEASE_BUCKET}.{key}", self.nc.new_inbox().encode()
    revision = await self._store(subject, owner, None, LEASE_SECONDS)
    self._lease, self._lease_renewed = (subject, revision), self.clock.monotonic()
    self._spawn(self._renew(subject, owner))
    return revision


async def _no_lease(self: NatsBus, key: str) -> int:
    return 0


@replaces(
    NatsBus,
    "holds_lease",
    Patch(NatsBus, "hold_lease", _no_lease),
    rules=(1, 2, 9),
    faults=HANDED_OVER,
    wrap=property,
)
def two_act_without_a_lease(self: NatsBus) -> bool:
    """A second process acts beside the first one: nobody asks who holds the lease."""
    return True


# -- strategy

_on_recovered = StrategyCore._on_recovered
_restore = StrategyCore.restore


@replaces(
    StrategyCore,
    "_on_recovered",
    rules=(1,),
    faults=together(again(4, Kind.KILL, "strategy"), always(Kind.REST, switch="slow", value=1.0)),
)
def attempt_raised_at_every_restart(self: StrategyCore, now: datetime) -> list[m.Message]:
    """A start takes what was wanted before it for lost, and makes the next attempt."""
    for book in self._state.books.values():
        if book.wanted is not None:
            book.wanted = self._attempt(book.wanted, book.wanted.attempt + 1)
    return _on_recovered(self, now)


@replaces(StrategyCore, "_retry", rules=(1,), faults=always(Kind.REST, switch="lose_answer", value=0.6))
def exit_tried_again_while_one_is_open(self: StrategyCore, desk: Desk, now: datetime) -> list[m.Message]:
    """The next attempt of an exit follows after a pause, whether or not the order of the last one is at its end."""
    last, answer = desk.book.wanted, desk.book.answer
    if last is None or answer is None or self._closing:
        return []
    if now < answer.at + self._config.pause_after(last.attempt):
        return []
    following = self._attempt(last, last.attempt + 1)
    changed = {"at": now, "quantity": desk.book.quantity, "expires_at": now + self._ttl}
    return [self._give(desk.book, msgspec.structs.replace(following, **changed))]


@replaces(StrategyCore, "restore", rules=(3, 9, SETTLES), first=3, faults=again(6, Kind.KILL, "strategy"))
def position_forgotten_at_restart(self: StrategyCore, raw: bytes) -> None:
    """What is held is not taken up from the snapshot: after a restart the strategy believes itself flat."""
    _restore(self, raw)
    for book in self._state.books.values():
        book.quantity, book.opened_at, book.opened_by = ZERO, None, ""


# -- marketdata and the exporter

_on_tick = MarketDataCore._on_tick
_on_message = MarketDataCore.on_message


@replaces(
    MarketDataCore,
    "_on_tick",
    rules=(5,),
    faults=together(
        again(40, Kind.SOCKET, switch="half_open", seconds=1, value=1.0),
        again(40, Kind.SOCKET, switch="refuse_dial", seconds=35, value=1.0),
    ),
)
def marks_confirmed_by_a_timer(self: MarketDataCore, now: datetime) -> list[m.Message]:
    """The last price is confirmed every second, whether or not the venue is heard."""
    confirmed = [line.confirm(now, now) for line in self.lines.values()]
    return [*(mark for mark in confirmed if mark is not None), *_on_tick(self, now)]


@replaces(
    MarketDataCore,
    "on_message",
    rules=(5,),
    faults=together(
        again(20, Kind.SOCKET, switch="cut", seconds=1, value=1.0),
        again(20, Kind.SOCKET, switch="refuse_dial", seconds=8, value=1.0),
    ),
)
def staleness_skipped_after_a_reconnect(self: MarketDataCore, message: m.Message, now: datetime) -> list[m.Message]:
    """A new connection vouches for the prices of the one before it, without waiting for its snapshots."""
    outputs = _on_message(self, message, now)
    if isinstance(message, Connected):
        confirmed = [line.confirm(now, now) for line in self.lines.values()]
        outputs += [mark for mark in confirmed if mark is not None]
    return outputs


@replaces(ExporterCore, "restore", rules=(9, SETTLES), faults=again(10, Kind.KILL, "exporter"))
def counters_begin_anew_at_restart(self: ExporterCore, raw: bytes) -> None:
    """The exporter's counters are not taken up from its snapshot, while its place in the ledger is."""
