"""REST between a service and the venue, without HTTP: a request leaves, arrives (or not, or twice), and its answer
comes back (or not). What the client hears in the end is an answer or an error of `httpx`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import NamedTuple
from urllib.parse import unquote

import httpx

from sim.api import Call
from sim.desk import BEARER, Desk, Outcome, Reply, Visit, refusal
from sim.errors import html_unavailable, internal, not_found, too_many_requests, unauthorized
from sim.rest import PREFIX, ROUTES, Route
from sim.venue import Venue
from sim.world.exchange import expiry
from sim.world.loop import Loop
from sim.world.weather import Air

HOST = "venue"
ADDRESS = "services"  # that all requests come from
TIMEOUT = httpx.ReadTimeout("nothing came")
RESET = httpx.ReadError("connection reset")
HUNG_UP = httpx.RemoteProtocolError("Server disconnected without sending a response.")
RATE_HEADERS: tuple[Mapping[str, str], ...] = (
    {},
    {"x-ratelimit-limit": "30", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"},
    {"retry-after": "2"},
)
NONSENSE = (b"", b"null", b"{}", b"[]", b'"x"', b"<html></html>", b"\xff\xfe")

# Process, method, path below the prefix, body, and when the token dies (the venue's clock; None without one).
Seen = Callable[[str, str, str, bytes, datetime | None], None]


class Answer(NamedTuple):
    """What the services read of an `httpx.Response`."""

    status_code: int
    content: bytes
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")


class Request(NamedTuple):
    process: str
    method: str
    path: str  # below the prefix
    query: Mapping[str, list[str]]
    body: bytes
    authorization: str

    def tell(self, seen: Seen) -> None:
        seen(self.process, self.method, self.path, self.body, expiry(self.authorization.removeprefix(BEARER)))


class Requests:
    """The way to the venue's desk. `on_sent` sees every request that leaves a process, `on_arrived` each time one has
    acted at the venue."""

    def __init__(self, air: Air, venue: Venue, desk: Desk) -> None:
        self.on_sent: Seen = lambda *seen: None
        self.on_arrived: Seen = lambda *seen: None
        self.air = air
        self._venue = venue
        self._desk = desk

    def serve(self, request: Request) -> Outcome:
        """The venue's part, at this moment."""
        found = _route(request.method, request.path)
        if found is None:
            return Outcome(refusal(not_found("404 Not Found")), acted=False)
        route, variables = found
        uri = f"{request.method} {HOST}{PREFIX}{request.path}"
        call = Call(variables, request.query, request.body)
        outcome = self._desk.take(route, Visit(call, uri, request.authorization, ADDRESS))
        if outcome.acted:
            request.tell(self.on_arrived)
        return outcome

    @property
    def answer_delay_seconds(self) -> float:
        return self._venue.faults.faults.answer_delay_seconds


class Http:
    """The client of one life of a process, bound to the venue. `timeout_seconds` is how long `httpx` waits for an
    answer, unless its caller gives up before."""

    def __init__(self, requests: Requests, loop: Loop, timeout_seconds: float) -> None:
        self._requests = requests
        self._loop = loop
        self._timeout_seconds = timeout_seconds

    async def get(
        self, url: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return await self.request("GET", url, params=(params or {}).items(), content=None, headers=headers or {})

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Iterable[tuple[str, str]],
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> Answer:
        query: dict[str, list[str]] = {}
        for name, value in params:
            query.setdefault(name, []).append(value)
        path = url.removeprefix(PREFIX)
        request = Request(self._loop.name, method, path, query, content or b"", headers.get("Authorization", ""))
        answered: asyncio.Future[Answer] = self._loop.create_future()
        _Trip(self._requests, request, answered, self._timeout_seconds).leave()
        return await answered

    async def aclose(self) -> None:
        """Nothing is open between two requests."""


class _Trip:
    """One request on its way, and the one answer of it that is heard."""

    def __init__(
        self, requests: Requests, request: Request, answered: asyncio.Future[Answer], timeout_seconds: float
    ) -> None:
        self._requests = requests
        self._air = requests.air
        self._request = request
        self._answered = answered
        self._give_up_at = self._air.scheduler.now + timeout_seconds
        self._refusal: Outcome | None = None  # what stands before the venue says, to the copy of a request too

    def leave(self) -> None:
        air, weather = self._air, self._air.weather
        if air.strikes(weather.refuse):
            self._hear(httpx.ConnectError("connection refused"), air.latency())
            return
        self._request.tell(self._requests.on_sent)
        if air.strikes(weather.lose_request):
            self._hear_nothing(TIMEOUT, RESET)
            return
        self._refusal = self._refused()
        arrives = air.latency()
        if air.strikes(weather.late_request):
            arrives += air.upto(weather.late_seconds)
        heard = arrives
        if air.strikes(weather.duplicate_request):
            again = arrives + air.upto(weather.late_seconds)
            heard = air.chance.choice((arrives, again))
            air.scheduler.later(again, partial(self._arrive, again == heard))
        air.scheduler.later(arrives, partial(self._arrive, arrives == heard))
        if air.scheduler.now + heard >= self._give_up_at:
            self._hear_nothing(TIMEOUT)

    def _arrive(self, heard: bool) -> None:
        reply, _, hangs = self._refusal or self._requests.serve(self._request)
        if not heard:
            return
        air, weather = self._air, self._air.weather
        if reply is None:
            self._hear_nothing(TIMEOUT) if hangs else self._hear_nothing(RESET, HUNG_UP)
        elif air.strikes(weather.lose_answer):
            self._hear_nothing(TIMEOUT, TIMEOUT, RESET, HUNG_UP)
        else:
            slow = air.upto(weather.slow_seconds) if air.strikes(weather.slow) else 0.0
            status, body, _, headers = self._spoilt(reply)
            self._hear(Answer(status, body, headers), air.latency() + slow + self._requests.answer_delay_seconds)

    def _refused(self) -> Outcome | None:
        """An answer that means that nothing was done."""
        air, weather = self._air, self._air.weather
        if air.strikes(weather.html_before):
            return Outcome(self._html(), acted=False)
        if air.strikes(weather.too_many):
            reply = refusal(too_many_requests())
            return Outcome(reply._replace(headers=air.chance.choice(RATE_HEADERS)), acted=False)
        if air.strikes(weather.unauthorized):
            return Outcome(refusal(unauthorized()), acted=False)
        return None

    def _spoilt(self, reply: Reply) -> Reply:
        air, weather = self._air, self._air.weather
        if air.strikes(weather.error_after):
            return refusal(internal())
        if air.strikes(weather.html_after):
            return self._html()
        if air.strikes(weather.garbage):
            cut_off = reply.body[: air.chance.randrange(len(reply.body))]
            return reply._replace(body=air.chance.choice((cut_off, air.chance.choice(NONSENSE))))
        return reply

    def _html(self) -> Reply:
        return refusal(html_unavailable())._replace(status=self._air.chance.choice((502, 503)))

    # -- what the client hears

    def _hear_nothing(self, *errors: httpx.TransportError) -> None:
        """One of the errors: that nothing came at the end of its patience, the others soon."""
        error = self._air.chance.choice(errors) if len(errors) > 1 else errors[0]
        self._hear(error, self._air.latency() if error is not TIMEOUT else float("inf"))

    def _hear(self, told: Answer | httpx.TransportError, seconds: float) -> None:
        when = self._air.scheduler.now + seconds
        if when >= self._give_up_at:
            when, told = self._give_up_at, TIMEOUT
        self._air.scheduler.at(when, partial(self._end, told))

    def _end(self, told: Answer | httpx.TransportError) -> None:
        if self._answered.done():  # or given up
            return
        if isinstance(told, Answer):
            self._answered.set_result(told)
        else:
            self._answered.set_exception(type(told)(*told.args))


EXACT = {(route.method, route.path): route for route in ROUTES if "{" not in route.path}
PATTERNS = [
    (route, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route.path))) for route in ROUTES if "{" in route.path
]


def _route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """Who serves a path, and the variable parts of it."""
    if exact := EXACT.get((method, path)):
        return exact, {}
    for route, pattern in PATTERNS:
        if route.method == method and (found := pattern.fullmatch(path)):
            return route, {name: unquote(value) for name, value in found.groupdict().items()}
    return None
