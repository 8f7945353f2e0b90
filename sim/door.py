"""The HTTP door: who may come in, which faults strike on the way, and the answers as they leave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from math import ceil

from aiohttp import web

from sim.admin import failed
from sim.api import Call
from sim.auth import Verifier
from sim.errors import ApiError, html_unavailable, internal, too_many_requests, unauthorized
from sim.limits import Buckets
from sim.rest import CANCEL, EDIT, NEW_ORDER, PREFIX, ROUTES, Route, answer
from sim.venue import Venue

PRIVATE_PER_SECOND = 30  # per key
PUBLIC_PER_SECOND = 10  # per address
BEARER = "Bearer "
HANG_CHECK_SECONDS = 0.05  # between two looks whether a client that gets no answer has gone
DROPS = {NEW_ORDER: "accept_then_drop", CANCEL: "cancel_then_drop", EDIT: "edit_then_drop"}


class Door:
    """Serves the venue's REST paths."""

    def __init__(self, venue: Venue, verifier: Verifier, rate_limits: bool) -> None:
        self._venue = venue
        self._verifier = verifier
        self._limited = rate_limits
        self._private = Buckets(PRIVATE_PER_SECOND)
        self._public = Buckets(PUBLIC_PER_SECOND)

    def routes(self) -> list[web.RouteDef]:
        return [web.route(route.method, f"{PREFIX}{route.path}", self._serving(route)) for route in ROUTES]

    def _serving(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            return await self._serve(route, request, body)

        return serve

    async def _serve(self, route: Route, request: web.Request, body: bytes) -> web.StreamResponse:
        box = self._venue.faults
        if box.strikes("hang_requests"):
            return await self._hang(request)
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
            if route.path in DROPS and box.strikes(DROPS[route.path]):
                return _hang_up(request)
            if new_order and box.strikes("accept_then_hang"):
                return await self._hang(request)
            if new_order and box.strikes("accept_then_500"):
                response = failed(internal())
        if not route.public or response.status == HTTPStatus.TOO_MANY_REQUESTS:
            response.headers.update(self._rate_headers(route, request, response.status == HTTPStatus.TOO_MANY_REQUESTS))
        if delay := box.faults.answer_delay_seconds:
            await self._venue.clock.sleep(delay)
        return response

    async def _hang(self, request: web.Request) -> web.Response:
        """Say nothing until the client gives up; what is returned goes nowhere."""
        while request.transport is not None:
            await self._venue.clock.sleep(HANG_CHECK_SECONDS)
        return web.Response()

    def _admit(self, route: Route, request: web.Request) -> None:
        """Raise the ApiError that keeps a request out, if any."""
        box = self._venue.faults
        if box.strikes("too_many_requests"):
            raise too_many_requests()
        kind = "orders" if route.path == NEW_ORDER else "reads" if route.method == "GET" else ""
        if box.faults.html_5xx in (kind or "other", "all"):
            raise html_unavailable()
        at = self._venue.clock.monotonic()
        if not route.public and (box.strikes("unauthorized") or not self._authenticated(request)):
            raise unauthorized()
        buckets, caller = self._bucket(route, request)
        if not buckets.allows(caller, at) and self._limited:
            raise too_many_requests()

    def _bucket(self, route: Route, request: web.Request) -> tuple[Buckets, str]:
        """Public paths are limited by address, private ones by key, of which there is one."""
        return (self._public, request.remote or "") if route.public else (self._private, "")

    def _rate_headers(self, route: Route, request: web.Request, refused: bool) -> dict[str, str]:
        """What is left of the limit. The venue does not document its reset: here seconds until nothing is used."""
        buckets, caller = self._bucket(route, request)
        limit = buckets.per_second
        left = 0 if refused else buckets.left(caller, self._venue.clock.monotonic())
        figures = {"limit": limit, "remaining": int(left), "reset": ceil((limit - left) / limit)}
        return {f"x-ratelimit-{name}": str(figure) for name, figure in figures.items()}

    def _authenticated(self, request: web.Request) -> bool:
        header = request.headers.get("Authorization", "")
        uri = f"{request.method} {request.host}{request.path}"
        token = header.removeprefix(BEARER)
        return header.startswith(BEARER) and self._verifier.accepts(token, self._venue.wall(), uri)


def _call(request: web.Request, body: bytes) -> Call:
    return Call(request.match_info, {key: request.query.getall(key) for key in request.query}, body)


def _hang_up(request: web.Request) -> web.Response:
    """End the connection without an answer; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
