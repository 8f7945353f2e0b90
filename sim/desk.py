"""REST behind the door, without HTTP: who is let in, which faults strike on the way, and what the client hears."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from math import ceil
from typing import NamedTuple, Protocol

from sim.api import Call
from sim.errors import ApiError, html_unavailable, internal, too_many_requests, unauthorized
from sim.limits import Buckets
from sim.rest import CANCEL, EDIT, NEW_ORDER, Route, answer
from sim.venue import Venue

PRIVATE_PER_SECOND = 30  # per key
PUBLIC_PER_SECOND = 10  # per address
BEARER = "Bearer "
DROPS = {NEW_ORDER: "accept_then_drop", CANCEL: "cancel_then_drop", EDIT: "edit_then_drop"}


class Verifies(Protocol):
    """What is used of `sim.auth.Verifier`."""

    def accepts(self, token: str, now: datetime, uri: str = "") -> bool: ...


class Visit(NamedTuple):
    """A request as it arrives. `uri` is what its token must name: method, host and path without query."""

    call: Call
    uri: str
    authorization: str
    address: str


class Reply(NamedTuple):
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Outcome(NamedTuple):
    """`reply` None: nothing is said; `hangs` tells whether the connection stays open then. `acted`: the request had, or
    may have had, its effect."""

    reply: Reply | None
    acted: bool
    hangs: bool = False


class Desk:
    """Answers the venue's REST requests at the moment they arrive."""

    def __init__(self, venue: Venue, verifier: Verifies, rate_limits: bool) -> None:
        self._venue = venue
        self._verifier = verifier
        self._limited = rate_limits
        self._private = Buckets(PRIVATE_PER_SECOND)
        self._public = Buckets(PUBLIC_PER_SECOND)

    def take(self, route: Route, visit: Visit) -> Outcome:
        box = self._venue.faults
        if box.strikes("hang_requests"):
            return Outcome(None, acted=False, hangs=True)
        new_order = route.path == NEW_ORDER
        if new_order and box.strikes("reject_before"):
            return Outcome(None, acted=False)
        acted = False
        try:
            self._admit(route, visit)
            acted = True
            reply = Reply(HTTPStatus.OK, answer(self._venue, route, visit.call))
        except ApiError as error:
            reply = refusal(error)
        else:
            if route.path in DROPS and box.strikes(DROPS[route.path]):
                return Outcome(None, acted)
            if new_order and box.strikes("accept_then_hang"):
                return Outcome(None, acted, hangs=True)
            if new_order and box.strikes("accept_then_500"):
                reply = refusal(internal())
        refused = reply.status == HTTPStatus.TOO_MANY_REQUESTS
        if not route.public or refused:
            reply = reply._replace(headers=self._rate_headers(route, visit, refused))
        return Outcome(reply, acted)

    def _admit(self, route: Route, visit: Visit) -> None:
        """Raise the ApiError that keeps a request out, if any."""
        box = self._venue.faults
        if box.strikes("too_many_requests"):
            raise too_many_requests()
        kind = "orders" if route.path == NEW_ORDER else "reads" if route.method == "GET" else ""
        if box.faults.html_5xx in (kind or "other", "all"):
            raise html_unavailable()
        at = self._venue.clock.monotonic()
        if not route.public and (box.strikes("unauthorized") or not self._authenticated(visit)):
            raise unauthorized()
        buckets, caller = self._bucket(route, visit)
        if not buckets.allows(caller, at) and self._limited:
            raise too_many_requests()

    def _bucket(self, route: Route, visit: Visit) -> tuple[Buckets, str]:
        """Public paths are limited by address, private ones by key, of which there is one."""
        return (self._public, visit.address) if route.public else (self._private, "")

    def _rate_headers(self, route: Route, visit: Visit, refused: bool) -> dict[str, str]:
        """What is left of the limit. The venue does not document its reset: here seconds until nothing is used."""
        buckets, caller = self._bucket(route, visit)
        limit = buckets.per_second
        left = 0 if refused else buckets.left(caller, self._venue.clock.monotonic())
        figures = {"limit": limit, "remaining": int(left), "reset": ceil((limit - left) / limit)}
        return {f"x-ratelimit-{name}": str(figure) for name, figure in figures.items()}

    def _authenticated(self, visit: Visit) -> bool:
        token = visit.authorization.removeprefix(BEARER)
        known = visit.authorization.startswith(BEARER)
        return known and self._verifier.accepts(token, self._venue.wall(), visit.uri)


def refusal(error: ApiError) -> Reply:
    return Reply(error.status, error.body, error.content_type)
