"""Coinbase Advanced Trade as execution uses it: private REST over httpx, the user channel over websockets.

Errors are sorted at this edge. Retryable: certainly not done (no connection, 429). Rejected: the venue's definite no.
OutcomeUnknown: sent, and no readable answer (timeout, reset, 5xx, HTML).
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from libs.common.clock import Clock
from libs.common.errors import OutcomeUnknown, PerpsError, Rejected, Retryable
from libs.common.messages import TERMINAL, ApprovedOrder, Balance, OrderType, TimeInForce
from services.execution import parse
from services.execution.auth import Signer
from services.execution.inputs import AccountParts, Listing, VenueFill, VenueOrder

log = logging.getLogger(__name__)
BASE = "/api/v3/brokerage"
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
PAGE = 250
DEFINITE = (400, 401, 403, 404, 422)  # the venue read the request and said no


class Venue(Protocol):
    """What the shell needs of a venue; the simulation hands in its own.

    Every method raises Retryable (certainly not done), Rejected (a definite no) or OutcomeUnknown.
    """

    async def place(self, order: ApprovedOrder, signed: Callable[[datetime], None]) -> str:
        """Send one order; gives the venue's id. `signed` is told when a request's token dies (our wall time), right
        before it is sent, and may raise Retryable to stop it."""
        ...

    async def edit(self, venue_order_id: str, wanted: ApprovedOrder, signed: Callable[[datetime], None]) -> None:
        """Give an open order the quantity and limit price of `wanted`. Never repeated by itself."""
        ...

    async def find(self, client_order_id: str, product_id: str, start: datetime) -> VenueOrder | None:
        """Page through all orders of the product since `start`; None only after a complete listing without it."""
        ...

    async def order(self, venue_order_id: str) -> tuple[VenueOrder, list[VenueFill]]:
        """One order and all its fills."""
        ...

    async def listing(self, since: datetime) -> Listing:
        """All open orders, and all orders and fills since then (the venue's clock)."""
        ...

    async def cancel(self, venue_order_ids: list[str]) -> dict[str, str]:
        """Ask for any number of cancellations, in chunks; gives the venue's reason for each one that it refused."""
        ...

    async def account(self) -> AccountParts:
        """Every part that can be read; the others are named as unavailable."""
        ...

    def user_updates(self) -> AsyncIterator[VenueOrder | None]:
        """Orders that the user channel mentions, for ever; None after each (re)connection."""
        ...


class CoinbaseVenue:
    """The real one, or anything that speaks its protocol."""

    def __init__(self, rest_url: str, user_ws_url: str, signer: Signer, clock: Clock, timeout_seconds: float) -> None:
        self._signer = signer
        self._clock = clock
        self._user_ws_url = user_ws_url
        self._timeout_seconds = timeout_seconds
        self._host = urlsplit(rest_url).netloc
        self._http = httpx.AsyncClient(base_url=rest_url, timeout=timeout_seconds)
        self.answers: dict[str, int] = {}  # by outcome, for metrics

    async def close(self) -> None:
        await self._http.aclose()

    async def place(self, order: ApprovedOrder, signed: Callable[[datetime], None]) -> str:
        body = json.dumps(create_body(order)).encode()
        return parse.parse_created(await self._call("POST", "/orders", content=body, signed=signed))

    async def find(self, client_order_id: str, product_id: str, start: datetime) -> VenueOrder | None:
        params = {"product_ids": product_id, "start_date": rfc3339(start), "limit": str(PAGE)}
        cursor, seen = "", set[str]()
        while True:
            page, cursor = parse.parse_orders(await self._read("/orders/historical/batch", params, cursor))
            for order in page:
                if order.client_order_id == client_order_id:
                    return order
            if not cursor:
                return None
            self._check_progress(cursor, seen)

    async def order(self, venue_order_id: str) -> tuple[VenueOrder, list[VenueFill]]:
        order = parse.parse_order(await self._read(f"/orders/historical/{venue_order_id}", {}, ""))
        fills: dict[str, VenueFill] = {}
        cursor, seen = "", set[str]()
        while order.filled_qty or order.filled_qty is None or order.status in TERMINAL:
            params = {"order_ids": venue_order_id, "limit": str(PAGE)}
            page, cursor = parse.parse_fills(await self._read("/orders/historical/fills", params, cursor))
            fills |= {fill.entry_id: fill for fill in page if fill.venue_order_id == venue_order_id}
            total = sum((fill.size for fill in fills.values()), Decimal(0))
            if not cursor or (order.filled_qty and total >= order.filled_qty):
                break
            self._check_progress(cursor, seen)
        return order, list(fills.values())

    async def cancel(self, venue_order_ids: list[str]) -> None:
        body = json.dumps({"order_ids": venue_order_ids}).encode()
        await self._call("POST", "/orders/batch_cancel", content=body)

    async def account(self) -> tuple[dict[str, Balance], Decimal, Decimal]:
        balances: dict[str, Balance] = {}
        cursor, seen = "", set[str]()
        while True:
            page, cursor = parse.parse_accounts(await self._read("/accounts", {"limit": str(PAGE)}, cursor))
            balances |= page
            if not cursor:
                break
            self._check_progress(cursor, seen)
        taker, maker = parse.parse_fee_rates(await self._read("/transaction_summary", {}, ""))
        return balances, taker, maker

    async def user_updates(self) -> AsyncIterator[VenueOrder | None]:
        pause = 0.1
        while True:
            try:
                async with connect(self._user_ws_url, max_size=64 * 2**20, open_timeout=5) as socket:
                    token, _ = self._signer.token(self._clock.wall())
                    for channel in ("heartbeats", "user"):
                        await socket.send(json.dumps({"type": "subscribe", "channel": channel, "jwt": token}))
                    yield None
                    while True:
                        # Heartbeats come every second: silence is a dead socket.
                        for order in parse.parse_user_frame(await asyncio.wait_for(socket.recv(), 5)):
                            yield order
                        pause = 0.1
            except (OSError, TimeoutError, WebSocketException, PerpsError) as error:
                self._count("user_channel_lost")
                log.warning("user channel lost: %r", error, extra={"event": "venue.user_channel"})
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 10)

    async def _read(self, path: str, params: dict[str, str], cursor: str) -> bytes:
        return await self._call("GET", path, params={**params, "cursor": cursor} if cursor else params)

    async def _call(
        self, method: str, path: str, signed: Callable[[datetime], None] = lambda expires_at: None, **request: Any
    ) -> bytes:
        """One request, and one more with a fresh token after a 401."""
        response = await self._send(method, path, signed, request)
        if response.status_code == 401:
            response = await self._send(method, path, signed, request)
        self._count(str(response.status_code))
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

    async def _send(
        self, method: str, path: str, signed: Callable[[datetime], None], request: dict[str, Any]
    ) -> httpx.Response:
        token, expires_at = self._signer.token(self._clock.wall(), f"{method} {self._host}{BASE}{path}")
        signed(expires_at)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            # httpx counts its timeout anew for every piece of an answer; this one counts the whole.
            async with asyncio.timeout(self._timeout_seconds):
                return await self._http.request(method, BASE + path, headers=headers, **request)
        except NOT_SENT as error:
            self._count("not_sent")
            raise Retryable(f"no connection to the venue: {error!r}") from None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            self._count("no_answer")
            raise OutcomeUnknown(f"no answer from the venue: {error!r}") from None

    def _check_progress(self, cursor: str, seen: set[str]) -> None:
        """Raises OutcomeUnknown for pages that go round in a circle."""
        if cursor in seen:
            raise OutcomeUnknown(f"the cursor {cursor!r} came twice")
        seen.add(cursor)

    def _count(self, outcome: str) -> None:
        self.answers[outcome] = self.answers.get(outcome, 0) + 1


def create_body(order: ApprovedOrder) -> dict[str, object]:
    """Body of POST /orders for the four kinds that we send."""
    size = format(order.quantity, "f")
    if order.order_type is OrderType.MARKET:
        configuration: dict[str, object] = {"market_market_ioc": {"base_size": size}}
    else:
        if order.limit_price is None:
            raise AssertionError("a limit order has a price")
        price = format(order.limit_price, "f")
        key = "sor_limit_ioc" if order.time_in_force is TimeInForce.IOC else "limit_limit_gtc"
        configuration = {key: {"base_size": size, "limit_price": price}}
    return {
        "client_order_id": order.client_order_id,
        "product_id": order.product_id,
        "side": str(order.side),
        "order_configuration": configuration,
    }


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
