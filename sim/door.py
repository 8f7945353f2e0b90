"""The HTTP door: requests as they come in over real sockets, and the answers as they leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from sim.api import Call
from sim.desk import Desk, Verifies, Visit
from sim.rest import PREFIX, ROUTES, Route
from sim.venue import Venue

HANG_CHECK_SECONDS = 0.05  # between two looks whether a client that gets no answer has gone


class Door:
    """Serves the venue's REST paths."""

    def __init__(self, venue: Venue, verifier: Verifies, rate_limits: bool) -> None:
        self._venue = venue
        self._desk = Desk(venue, verifier, rate_limits)

    def routes(self) -> list[web.RouteDef]:
        return [web.route(route.method, f"{PREFIX}{route.path}", self._serving(route)) for route in ROUTES]

    def _serving(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            return await self._serve(route, request, await request.read())

        return serve

    async def _serve(self, route: Route, request: web.Request, body: bytes) -> web.StreamResponse:
        reply, _, hangs = self._desk.take(route, _visit(request, body))
        if reply is None:
            return await self._hang(request) if hangs else _hang_up(request)
        if delay := self._venue.faults.faults.answer_delay_seconds:
            await self._venue.clock.sleep(delay)
        charset = "utf-8" if reply.content_type.startswith("text/") else None
        return web.Response(
            status=reply.status,
            body=reply.body,
            content_type=reply.content_type,
            charset=charset,
            headers=reply.headers,
        )

    async def _hang(self, request: web.Request) -> web.Response:
        """Say nothing until the client gives up; what is returned goes nowhere."""
        while request.transport is not None:
            await self._venue.clock.sleep(HANG_CHECK_SECONDS)
        return web.Response()


def _visit(request: web.Request, body: bytes) -> Visit:
    call = Call(request.match_info, {key: request.query.getall(key) for key in request.query}, body)
    uri = f"{request.method} {request.host}{request.path}"
    return Visit(call, uri, request.headers.get("Authorization", ""), request.remote or "")


def _hang_up(request: web.Request) -> web.Response:
    """End the connection without an answer; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
