"""The network between the services of a world and its venue, in place of HTTP and WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from sim.desk import Desk
from sim.dialogue import Dialogue
from sim.hub import Hub
from sim.venue import Venue
from sim.world.exchange import Signer, Verifier
from sim.world.loop import Loop, Scheduler
from sim.world.rest import Http, Requests, Seen
from sim.world.sockets import Dialling, Endpoint
from sim.world.weather import Air, Weather

PUMP_SECONDS = 0.25  # between two looks whether an order is due at the venue
READ_SECONDS = 10.0


class VenueNetwork:
    """Takes the venue as it is, and beats its heart. The venue's host is `sim.world.rest.HOST`."""

    def __init__(self, scheduler: Scheduler, chance: Random, venue: Venue) -> None:
        self.hub = Hub(venue)
        self.hub.later = scheduler.later
        venue.publish = self.hub.publish
        self._scheduler = scheduler
        self._venue = venue
        self._air = Air(scheduler, chance)
        verifier = Verifier()
        self._requests = Requests(self._air, venue, Desk(venue, verifier, rate_limits=False))
        self._endpoint = Endpoint(self._air, venue, self.hub, Dialogue(venue, self.hub, verifier, rate_limits=False))
        scheduler.later(1, self.every_second)
        scheduler.later(PUMP_SECONDS, self._pump)

    @property
    def weather(self) -> Weather:
        return self._air.weather

    def observe(self, on_sent: Seen, on_arrived: Seen) -> None:
        """Show every request as it leaves a process, and each time one has acted at the venue."""
        self._requests.on_sent = on_sent
        self._requests.on_arrived = on_arrived

    # -- for one life of a process

    def http(self, loop: Loop, timeout_seconds: float = READ_SECONDS) -> Http:
        """In place of an `httpx.AsyncClient` with that timeout."""
        return Http(self._requests, loop, timeout_seconds)

    def dial(self, loop: Loop) -> Callable[..., Dialling]:
        """In place of `websockets.connect`."""

        def connect(uri: str, *, open_timeout: float, close_timeout: float, **options: Any) -> Dialling:
            return Dialling(self._endpoint, loop, uri, open_timeout, close_timeout)

        return connect

    def signer(self, lifetime_seconds: float) -> Signer:
        """Of tokens that this venue accepts."""
        return Signer(lifetime_seconds)

    # -- the venue's own time

    def every_second(self) -> None:
        self.hub.every_second()
        self._scheduler.later(1, self.every_second)

    def _pump(self) -> None:
        self._venue.pump()
        self._scheduler.later(PUMP_SECONDS, self._pump)
