"""How each fault of a schedule strikes a world, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec

from libs.common.nats_bus import NatsBus
from libs.common.subjects import SERVICES, STATE_BUCKET, TRADING_KEY, Kept
from sim.world.faults import Fault, Kind
from sim.world.nats_client import Client

if TYPE_CHECKING:
    from sim.world.processes import Life
    from sim.world.world import World

AT_THE_VENUE = (Kind.REST, Kind.SOCKET, Kind.VENUE, Kind.HAND)
AFTERMATH_SECONDS = 4.0  # after a fault of the bus or of a process, or of a clock
TRADING_SUBJECT = f"$KV.{STATE_BUCKET}.{TRADING_KEY}"
NONSENSE = b'{"state": "active", "reason'


class Strikes:
    def __init__(self, world: World) -> None:
        self._world = world
        self._over: list[Callable[[], None]] = []  # what ends the faults that still last
        self._strike = {
            Kind.KILL: self._kill,
            Kind.KILL_ALL: self._kill_all,
            Kind.STOP: self._stop,
            Kind.PAUSE: self._pause,
            Kind.TWIN: self._twin,
            Kind.CLOCK: self._clock,
            Kind.BUS_KILL: self._bus_kill,
            Kind.BUS_PARTITION: self._partition,
            Kind.BUS_RESET: self._reset,
            Kind.BUS_SLOW: self._slow,
            Kind.REST: self._weather,
            Kind.SOCKET: self._weather,
            Kind.VENUE: self._venue,
            Kind.STATE_LOST: self._state_lost,
            Kind.LAST_LOST: self._last_lost,
            Kind.HAND: self._hand,
        }

    def strike(self, fault: Fault) -> None:
        self._world.say("fault", str(fault).strip())
        if fault.kind not in AT_THE_VENUE:
            self._disturbed(fault)
        self._strike[fault.kind](fault)

    def end(self) -> None:
        """Everything that still lasts is over."""
        for end in list(self._over):
            end()

    def _lasts(self, fault: Fault, end: Callable[[], None]) -> None:
        """End it after its time, or with all the others."""

        def on_time() -> None:
            if on_time in self._over:
                self._over.remove(on_time)
                end()

        self._over.append(on_time)
        self._world.scheduler.later(fault.seconds, on_time)

    def _disturbed(self, fault: Fault) -> None:
        around = self._world.around
        until = self._world.scheduler.now + fault.seconds + AFTERMATH_SECONDS
        around.disturbed_until = max(around.disturbed_until, until)
        if fault.target in ("", "execution"):
            around.execution_until = max(around.execution_until, until)

    def _venue_disturbed(self, fault: Fault) -> None:
        around = self._world.around
        around.venue_until = max(around.venue_until, self._world.scheduler.now + fault.seconds + 2 * AFTERMATH_SECONDS)

    def _lives(self, service: str) -> list[Life]:
        return self._world.alive(service)

    # -- processes

    def _kill(self, fault: Fault) -> None:
        for life in self._lives(fault.target)[:1]:
            life.loop.dies_in = int(fault.value)

    def _kill_all(self, fault: Fault) -> None:
        for service in SERVICES:
            for life in self._lives(service):
                life.loop.die()

    def _stop(self, fault: Fault) -> None:
        for life in self._lives(fault.target)[:1]:
            life.stop()

    def _pause(self, fault: Fault) -> None:
        for life in self._lives(fault.target)[:1]:
            life.loop.pause()
            self._lasts(fault, life.loop.resume)

    def _twin(self, fault: Fault) -> None:
        twin = self._world.begin(fault.target)

        def one_dies() -> None:
            lives = self._lives(fault.target)
            if len(lives) > 1:
                lives[0 if twin.loop.name.endswith(("0", "2", "4", "6", "8")) else -1].loop.die()

        self._lasts(fault, one_dies)

    def _clock(self, fault: Fault) -> None:
        around = self._world.around
        for life in self._lives(fault.target)[:1]:
            life.loop.wall_offset = fault.value
            around.clocks_until = max(
                around.clocks_until,
                self._world.scheduler.now + fault.seconds + abs(fault.value) + 2 * AFTERMATH_SECONDS,
            )
            self._lasts(fault, partial(setattr, life.loop, "wall_offset", 0.0))

    # -- the bus

    def _bus_kill(self, fault: Fault) -> None:
        self._world.server.kill()
        self._lasts(fault, self._world.server.start)

    def _partition(self, fault: Fault) -> None:
        for life in self._lives(fault.target)[:1]:
            if life.bus is not None:
                client = client_of(life.bus)
                client.partition()
                self._lasts(fault, client.heal)

    def _reset(self, fault: Fault) -> None:
        for life in self._lives(fault.target)[:1]:
            if life.bus is not None:
                client_of(life.bus).disconnect()

    def _slow(self, fault: Fault) -> None:
        for life in self._lives(fault.target)[:1]:
            if life.bus is not None:
                client = client_of(life.bus)
                client.slow_seconds = fault.value
                self._lasts(fault, partial(setattr, client, "slow_seconds", 0.0))

    # -- the venue

    def _weather(self, fault: Fault) -> None:
        weather = self._world.network.weather
        self._venue_disturbed(fault)
        setattr(weather, fault.switch, fault.value)
        self._lasts(fault, lambda: setattr(weather, fault.switch, 0.0))

    def _venue(self, fault: Fault) -> None:
        venue, name = self._world.venue, fault.switch
        self._venue_disturbed(fault)
        usual = getattr(type(venue.faults.faults)(), name)
        wanted = type(usual)(fault.value) if not isinstance(usual, bool | int) else type(usual)(int(fault.value))
        venue.switch(msgspec.json.encode({name: wanted}))
        if name == "clock_skew_seconds":
            around = self._world.around
            around.clocks_until = max(
                around.clocks_until, self._world.scheduler.now + fault.seconds + AFTERMATH_SECONDS
            )
        self._lasts(fault, lambda: venue.switch(msgspec.json.encode({name: usual})))

    def _hand(self, fault: Fault) -> None:
        """Money comes or goes without an order of ours; the operator finds out, and says so."""
        self._world.move_by_hand("USD", Decimal(int(fault.value)))

    def _last_lost(self, fault: Fault) -> None:
        """Risk starts before anybody has told it a price or a balance."""
        self._world.server.wipe(Kept.LAST)
        self._world.facts.forget_told()
        for service in ("marketdata", "risk"):
            for life in self._lives(service):
                life.loop.die()

    def _state_lost(self, fault: Fault) -> None:
        if fault.value:
            self._world.server.put(STATE_BUCKET, TRADING_KEY, NONSENSE)
        else:
            self._world.server.delete(STATE_BUCKET, TRADING_KEY)


def client_of(bus: NatsBus) -> Client:
    return cast(Client, bus.nc)
