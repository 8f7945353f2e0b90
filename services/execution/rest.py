"""Signed requests to the venue's private REST paths: budget, clock, tokens, attempts, and errors sorted at this edge.

Retryable: certainly not done (no connection, 429). Rejected: the venue's definite no.
OutcomeUnknown: sent, and no readable answer (timeout, reset, 5xx, HTML).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import httpx

from libs.common.clock import Clock
from libs.common.errors import OutcomeUnknown, PerpsError, Rejected, Retryable
from libs.common.messages import RateLimits
from services.execution.bodies import Json
from services.execution.budget import REQUESTS_PER_SECOND, Budget, Priority, backoff
from services.execution.parse import parse_time
from services.execution.skew import Sample, Skew

BASE = "/api/v3/brokerage"
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
DEFINITE = (400, 401, 403, 404, 422)  # the venue read the request and said no
ATTEMPTS = 3
TIME_SECONDS = 1.0  # all that a measurement of the venue's clock may take
TIME_SAMPLES = 3
RATE_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "retry-after", "x-ratelimit-reset")
EPOCH_FROM = 1e9  # a reset of this size is a time, not a number of seconds

Signed = Callable[[datetime], None]
Params = Sequence[tuple[str, str]]


class Tokens(Protocol):
    """What is used of `auth.Signer`."""

    def token(self, now: datetime, uri: str = "") -> tuple[str, datetime]: ...


class Answer(Protocol):
    """What is read of an `httpx.Response`."""

    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    @property
    def text(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Http(Protocol):
    """What is used of an `httpx.AsyncClient`, bound to the venue's address; the simulation hands in its own."""

    async def get(self, url: str, *, headers: Mapping[str, str]) -> Answer: ...
    async def request(
        self,
        method: str,
        url: str,
        *,
        params: tuple[tuple[str, str], ...],
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> Answer: ...
    async def aclose(self) -> None: ...


class _Request(NamedTuple):
    method: str
    path: str
    priority: Priority
    params: Params = ()
    content: bytes | None = None
    signed: Signed = lambda expires_at: None


class Rest:
    """One HTTP client of one key. `requests_per_second` None: no budget, for a venue without limits. `chance` gives
    numbers from 0 to 1 and spreads the pauses between attempts. `http` None: real sockets."""

    def __init__(
        self,
        rest_url: str,
        signer: Tokens,
        clock: Clock,
        timeout_seconds: float,
        *,
        requests_per_second: float | None = REQUESTS_PER_SECOND,
        chance: Callable[[], float] = random.random,
        http: Http | None = None,
    ) -> None:
        self._signer = signer
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._chance = chance
        self._host = urlsplit(rest_url).netloc
        self._http: Http = http or httpx.AsyncClient(base_url=rest_url, timeout=timeout_seconds)
        self._budget = Budget(requests_per_second) if requests_per_second else None
        self._measuring = asyncio.Lock()
        self.skew = Skew()
        self.limits: RateLimits | None = None  # of the last answer that told them
        self.answers: dict[str, int] = {}  # by outcome, for metrics

    async def close(self) -> None:
        await self._http.aclose()

    async def read(self, path: str, params: Params = ()) -> bytes:
        """GET, tried up to ATTEMPTS times while there is no definite answer."""
        return await self._repeated(_Request("GET", path, Priority.READ, params))

    async def ask(self, path: str, body: Json, priority: Priority) -> bytes:
        """POST of what may be done twice (a cancel, a preview), tried like a read."""
        return await self._repeated(_Request("POST", path, priority, content=json.dumps(body).encode()))

    async def once(self, path: str, body: Json, signed: Signed) -> bytes:
        """POST of what must not be done twice: never repeated, except after a 401, which is certainly not done.

        `signed` is told when the request's token dies (our wall time), right before it is sent; it may raise Retryable.
        """
        request = _Request("POST", path, Priority.ORDER, content=json.dumps(body).encode(), signed=signed)
        return self._content(await self._authorized(request))

    async def token(self) -> str:
        """A fresh token for one message of a WebSocket."""
        await self._keep_measured(Priority.READ)
        return self._sign("")[0]

    async def time(self) -> datetime:
        """The venue's clock. Not signed, so that a wrong clock of ours does not matter. Raises OutcomeUnknown."""
        try:
            response = await self._http.get(f"{BASE}/time", headers={"Cache-Control": "no-cache"})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OutcomeUnknown(f"the venue does not tell its time: {error!r}") from None
        if response.status_code != 200:
            raise OutcomeUnknown(f"the venue does not tell its time: {response.status_code}")
        return parse_time(response.content)

    async def measure(self) -> None:
        """Compare the clocks. A venue that does not tell its time costs TIME_SECONDS and leaves the last offset."""
        samples: list[Sample] = []
        try:
            async with asyncio.timeout(min(TIME_SECONDS, self._timeout_seconds)):
                while len(samples) < TIME_SAMPLES:
                    sent = self._clock.wall()
                    server = await self.time()
                    samples.append(Sample(sent, server, self._clock.wall()))
        except (TimeoutError, PerpsError):
            self.count("no_time")
        self.skew.take(samples, self._clock.monotonic())

    def count(self, outcome: str) -> None:
        self.answers[outcome] = self.answers.get(outcome, 0) + 1

    # -- one request

    async def _repeated(self, request: _Request) -> bytes:
        for attempt in range(ATTEMPTS):
            try:
                return self._content(await self._authorized(request))
            except (Retryable, OutcomeUnknown):
                if attempt == ATTEMPTS - 1:
                    raise
            self.count("repeated")
            await asyncio.sleep(backoff(attempt, self._chance()))
        raise AssertionError("the last attempt returns or raises")

    async def _authorized(self, request: _Request) -> Answer:
        """After a 401 once more, with a fresh token and our clock compared anew."""
        response = await self._send(request)
        if response.status_code == 401:
            self.count("401")
            await self.measure()
            response = await self._send(request)
        return response

    async def _send(self, request: _Request) -> Answer:
        await self._keep_measured(request.priority)
        await self._admitted(request.priority)
        token, expires_at = self._sign(f"{request.method} {self._host}{BASE}{request.path}")
        request.signed(expires_at)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            # httpx counts its timeout anew for every piece of an answer; this one counts the whole.
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._http.request(
                    request.method,
                    BASE + request.path,
                    params=tuple(request.params),
                    content=request.content,
                    headers=headers,
                )
        except NOT_SENT as error:
            self.count("not_sent")
            raise Retryable(f"no connection to the venue: {error!r}") from None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            self.count("no_answer")
            raise OutcomeUnknown(f"no answer from the venue: {error!r}") from None
        self._heed(response)
        return response

    async def _keep_measured(self, priority: Priority) -> None:
        """Orders and cancels do not wait for a later measurement, only for the first one."""
        if priority is not Priority.READ and self.skew.measured:
            return
        if self.skew.due(self._clock.monotonic()):
            async with self._measuring:
                if self.skew.due(self._clock.monotonic()):
                    await self.measure()

    async def _admitted(self, priority: Priority) -> None:
        """Wait for the budget, before the token is made: a token's life must not be spent in our own queue."""
        if self._budget is None:
            return
        until = self._clock.monotonic() + self._timeout_seconds
        while pause := self._budget.take(priority, self._clock.monotonic()):
            if self._clock.monotonic() + pause > until:
                self.count("held_back")
                raise Retryable("the venue's rate limit is used up")
            await asyncio.sleep(pause)

    def _sign(self, uri: str) -> tuple[str, datetime]:
        """A token in the venue's time; its death in ours."""
        offset = self.skew.offset
        token, expires_at = self._signer.token(self._clock.wall() + offset, uri)
        return token, expires_at - offset

    def _heed(self, response: Answer) -> None:
        """What the headers say about rates. No documented Retry-After, but a CDN in front may send one."""
        now = self._clock.monotonic()
        limit, remaining, wait, reset = (_header(response, name) for name in RATE_HEADERS)
        if limit is not None and remaining is not None:
            self.limits = RateLimits(limit=int(limit), remaining=int(remaining))
            if self._budget:
                self._budget.told(int(limit), int(remaining), now)
        if self._budget is None:
            return
        if response.status_code == 429:
            if reset is not None and reset > EPOCH_FROM:
                reset = max(0.0, reset - (self._clock.wall() + self.skew.offset).timestamp())
            self._budget.refused(reset if wait is None else wait, now)
        elif wait is not None and response.status_code >= 500:
            self._budget.hold_reads(wait, now)

    def _content(self, response: Answer) -> bytes:
        """The body of a 200. Raises for every other answer."""
        self.count(str(response.status_code))
        if response.status_code == 200:
            return response.content
        if response.status_code == 429:
            raise Retryable("429 too many requests")
        if response.status_code in DEFINITE:
            text = response.text[:500].strip()
            if "DUPLICATE_CLIENT_ORDER_ID" in text:
                raise OutcomeUnknown("the venue has this order already")
            raise Rejected(f"HTTP_{response.status_code}", text)
        raise OutcomeUnknown(f"{response.status_code} from the venue")


def _header(response: Answer, name: str) -> float | None:
    """A header that holds a number from 0 up; None for anything else (Retry-After may be a date)."""
    try:
        number = float(response.headers.get(name, ""))
    except ValueError:
        return None
    return number if 0 <= number < 1e12 else None
