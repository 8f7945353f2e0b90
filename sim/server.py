"""The simulated venue over real sockets: REST, WebSocket and admin paths on one port."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta

from aiohttp import web

from sim.admin import Admin, failed
from sim.auth import Verifier, verifier_at
from sim.clock import Clock
from sim.core import Exchange
from sim.door import Door
from sim.errors import ApiError, html_unavailable, invalid_argument, not_found
from sim.hub import Hub
from sim.market import SyntheticMarket
from sim.paper import Paper
from sim.replay import Replay
from sim.settings import Settings
from sim.sockets import Sockets
from sim.store import Store
from sim.venue import Venue

HOST = "127.0.0.1"
KEY_FILE = "cdp_api_key.json"
STOP_SECONDS = 1.0
LONGEST_WAIT = timedelta(seconds=0.1)  # between two looks at the clock in live mode: orders expire that exactly
BODY_BYTES = 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class VenueServer:
    """Serves one exchange. `async with` opens the port and closes it; `port` tells which one it became."""

    def __init__(
        self,
        exchange: Exchange,
        store: Store,
        clock: Clock,
        settings: Settings,
        market: SyntheticMarket | Replay | None,
        position: int = 0,
    ) -> None:
        self.venue = Venue(exchange, store, clock, market)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._settings = settings
        self._position = position
        self._hub = Hub(self.venue)
        self._paper = Paper(settings, self.venue, self._hub) if market is None else None
        self._tasks: list[asyncio.Task[None]] = []
        verifier = verifier_at(settings.folder / KEY_FILE)
        self._runner = web.AppRunner(self._application(verifier), access_log=None, shutdown_timeout=STOP_SECONDS)

    @property
    def port(self) -> int:
        port: int = self._runner.addresses[0][1]
        return port

    async def __aenter__(self) -> VenueServer:
        """Raises OSError when the port is taken."""
        self.venue.open_market(self._position)
        self.venue.publish = self._hub.publish
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, HOST, self._settings.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._spawn(self._every_second())
        if self.venue.live:
            self._spawn(self._pump())
        if self._paper:
            self._spawn(self._paper.run())
            self._spawn(self._paper.keep_products())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hub.hang_up()
        await self._runner.cleanup()
        self.venue.keep_prices()
        if self._paper:
            await self._paper.close()

    def _application(self, verifier: Verifier) -> web.Application:
        sockets = Sockets(self.venue, self._hub, verifier, self._settings)
        admin = Admin(self.venue, self._hub)
        door = Door(self.venue, verifier, self._settings.rate_limits)

        @web.middleware
        async def venue_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
            """Upgrades go to the sockets whatever their path; errors leave as the venue writes them."""
            upgrade = request.headers.get("Upgrade", "").lower() == "websocket" and request.method == "GET"
            try:
                if upgrade:
                    self._admit_socket(request)
                    return await sockets.serve(request)
                return await self._serve(request, handler)
            except ApiError as error:
                return failed(error)
            except web.HTTPRequestEntityTooLarge:
                return failed(invalid_argument("request is too large"))
            except web.HTTPException as error:  # aiohttp's own: no such path, or not with this method
                return failed(not_found(f"{error.status} {error.reason}"))
            except (sqlite3.Error, AssertionError) as error:
                self._fail(error)  # what is in memory may be ahead of the store now
                raise

        application = web.Application(middlewares=[venue_answers], client_max_size=BODY_BYTES)
        application.add_routes(door.routes())
        application.router.add_get("/sim/state", admin.state)
        application.router.add_post("/sim/step", admin.step)
        application.router.add_get("/sim/faults", admin.faults)
        application.router.add_post("/sim/faults", admin.change_faults)
        return application

    def _admit_socket(self, request: web.Request) -> None:
        """Raises ApiError: without prices there is no market channel, while orders can still be heard of."""
        if self.venue.trouble and "user" not in request.path:
            raise html_unavailable()

    async def _serve(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        paper = self._paper
        if paper and paper.refuses(request.method, request.path):
            raise html_unavailable()
        response = await handler(request)
        if paper and response.status == 200 and request.path.endswith(("/candles", "/ticker")):
            return web.Response(
                body=await paper.past(request.path, request.rel_url.raw_query_string), content_type="application/json"
            )
        return response

    async def _pump(self) -> None:
        while True:
            self.venue.pump()
            market, wait = self.venue.market, LONGEST_WAIT
            if isinstance(market, SyntheticMarket):
                wait = min(market.next_at() - self._clock.wall(), LONGEST_WAIT)
            await self._clock.sleep(max(wait.total_seconds(), 0))

    async def _every_second(self) -> None:
        due = self._clock.monotonic()
        while True:
            due += 1
            await self._clock.sleep(max(due - self._clock.monotonic(), 0))
            if self._paper is None:  # which beats with its feed
                self._hub.every_second()
            if isinstance(self.venue.market, SyntheticMarket):
                self.venue.keep_prices()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._done)
        self._tasks.append(task)

    def _done(self, task: asyncio.Future[None]) -> None:
        """A venue whose heart stopped must not go on answering: whoever runs us ends the process."""
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
