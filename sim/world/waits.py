"""Rules about what must happen in time. Looked at every second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libs.common import messages as m
from sim.world.checks import PRICE_TOLERANCE
from sim.world.strikes import client_of

if TYPE_CHECKING:
    from sim.world.processes import Life
    from sim.world.world import World

LOSS_SECONDS = 15.0  # until a loss at the limit has halted trading
CANCEL_SECONDS = 15.0  # until a halt has taken resting entries off the venue: a poll, a timeout, a second try
LEASE_SECONDS = 4.0
ENDS_MAX, ENDS_SECONDS = 6, 30.0  # a service that ends by itself more often is in a circle


class Waits:
    """Since when something is due, by its name; None while it is not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since: dict[str, float] = {}
        self._ends: dict[str, list[float]] = {}

    def every_second(self) -> None:
        world = self._world
        config = world.configs.execution
        halted = self._stored() not in (None, m.Trading.ACTIVE)
        acts = self._up("execution") and world.network_calm
        undisturbed = world.scheduler.now > world.around.disturbed_until
        self._due(
            "loss", self._loses() and self._up("risk") and undisturbed, LOSS_SECONDS, 7, "a loss beyond the limit"
        )
        resting = self._rests()
        self._due("halt", halted and acts and undisturbed and resting, CANCEL_SECONDS, 4, "entries rest in a halt")
        patience = config.bus_lost_cancel_seconds + LEASE_SECONDS + config.request_timeout_seconds + 3
        cut_off = self._cut_off() and world.network_calm
        self._due("bus", cut_off and resting, patience, 10, "entries rest with the bus gone")

    def ended(self, life: Life) -> None:
        """A process ended by itself, with one line."""
        now = self._world.scheduler.now
        recent = [at for at in self._ends.get(life.service, []) if at > now - ENDS_SECONDS]
        self._ends[life.service] = [*recent, now]
        often = len(recent) >= ENDS_MAX
        self._world.checks.require(not often, 9, f"{life.service} ends again and again: {life.error}")

    def _due(self, name: str, holds: bool, patience: float, rule: int, what: str) -> None:
        if not holds:
            self._since.pop(name, None)
            return
        since = self._since.setdefault(name, self._world.scheduler.now)
        waited = self._world.scheduler.now - since
        self._world.checks.require(waited <= patience, rule, f"{what}, for {waited:.0f} s")

    def _stored(self) -> m.Trading | None:
        trading = self._world.facts.trading
        state = trading[-1][1] if trading else None
        return state.state if state else None

    def _loses(self) -> bool:
        loss, limit = self._world.facts.least_loss(), self._world.configs.risk.daily_loss_limit
        beyond = loss is not None and loss > limit * (1 + PRICE_TOLERANCE)
        return beyond and self._stored() not in (None, m.Trading.HALTED) and self._clocks_agree()

    def _clocks_agree(self) -> bool:
        return self._world.scheduler.now > self._world.around.clocks_until

    def _up(self, service: str) -> bool:
        lives = self._world.alive(service)
        return bool(lives) and all(life.shell is not None and not life.shell.not_ready() for life in lives)

    def _rests(self) -> bool:
        """An entry of ours that waits at the venue, and that execution knows to be there."""
        for order in self._world.facts.open_orders():
            approved = order.approved
            known = order.status in (m.OrderStatus.ACCEPTED, m.OrderStatus.PARTIALLY_FILLED)
            if approved and approved.side is m.Side.BUY and known and any(not v.ended for v in order.venue.values()):
                return True
        return False

    def _cut_off(self) -> bool:
        """The one execution runs, and has no bus."""
        lives = self._world.alive("execution")
        if len(lives) != 1 or lives[0].loop.paused or lives[0].bus is None or lives[0].shell is None:
            return False
        if lives[0].shell.not_ready() == "recovering":
            return False
        return not client_of(lives[0].bus).is_connected or not self._world.server.listening
