"""The HTTP door: who may come in, which faults strike on the way, and the answers as they leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from sim.admin import failed
from sim.api import Call
from sim.auth import Verifier
from sim.errors import ApiError, html_unavailable, too_many_requests, unauthorized
from sim.limits import Buckets
from sim.rest import NEW_ORDER, PREFIX, ROUTES, Route, answer
from sim.venue import Venue

PRIVATE_PER_SECOND = 30  # per key
PUBLIC_PER_SECOND = 10  # per address
BEARER = "Bearer "


class Door:
    """Serves the venue's REST paths."""

    def __init__(self, venue: Venue, verifier: Verifier, rate_limits: bool) -> None:
        self._venue = venue
        self._verifier = verifier
        self._private = Buckets(PRIVATE_PER_SECOND) if rate_limits else None
        self._public = Buckets(PUBLIC_PER_SECOND) if rate_limits else None

    def routes(self) -> list[web.RouteDef]:
        return [web.route(route.method, f"{PREFIX}{route.path}", self._serving(route)) for route in ROUTES]

    def _serving(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            return await self._serve(route, request, body)

        return serve

    async def _serve(self, route: Route, request: web.Request, body: bytes) -> web.StreamResponse:
        box = self._venue.faults
        new_order = route.path == NEW_ORDER
        if new_order and box.strikes("reject_before"):
            return _hang_up(request)
        try:
            self._admit(route, request)
            response = web.Response(
                body=answer(self._venue, route, _call(request, body)), content_type="application/json"
            )
        except ApiError as error:
            response = failed(error)
        else:
            if new_order and box.strikes("accept_then_drop"):
                return _hang_up(request)
        if delay := box.faults.answer_delay_seconds:
            await self._venue.clock.sleep(delay)
        return response

    def _admit(self, route: Route, request: web.Request) -> None:
        """Raise the ApiError that keeps a request out, if any."""
        box = self._venue.faults
        if box.strikes("too_many_requests"):
            raise too_many_requests()
        kind = "orders" if route.path == NEW_ORDER else "reads" if route.method == "GET" else ""
        if box.faults.html_5xx in (kind or "other", "all"):
            raise html_unavailable()
        at = self._venue.clock.monotonic()
        if route.public:
            if self._public and not self._public.allows(request.remote or "", at):
                raise too_many_requests()
            return
        if box.strikes("unauthorized") or not self._authenticated(request):
            raise unauthorized()
        if self._private and not self._private.allows("", at):  # there is one key
            raise too_many_requests()

    def _authenticated(self, request: web.Request) -> bool:
        header = request.headers.get("Authorization", "")
        uri = f"{request.method} {request.host}{request.path}"
        token = header.removeprefix(BEARER)
        return header.startswith(BEARER) and self._verifier.accepts(token, self._venue.clock.wall(), uri)


def _call(request: web.Request, body: bytes) -> Call:
    return Call(request.match_info, {key: request.query.getall(key) for key in request.query}, body)


def _hang_up(request: web.Request) -> web.Response:
    """End the connection without an answer; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
