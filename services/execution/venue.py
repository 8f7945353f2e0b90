"""Coinbase Advanced Trade as execution and the operator's tools use it: private REST and the user channel.

Errors: see `rest`. What stands in an answer: see `parse` and `answers`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import quote

from msgspec.structs import replace
from websockets.asyncio.client import connect

from libs.common.clock import Clock
from libs.common.errors import OutcomeUnknown, PerpsError, Rejected, Retryable
from libs.common.messages import TERMINAL, ApprovedOrder, Balance, RateLimits
from services.execution import answers, parse, parse_account
from services.execution.bodies import create_body, edit_body, preview_body, rfc3339
from services.execution.budget import REQUESTS_PER_SECOND, Priority
from services.execution.inputs import AccountParts, Listing, Preview, VenueFill, VenueOrder
from services.execution.rest import Http, Params, Rest, Signed, Tokens
from services.execution.user_channel import Dial, UserChannel

PAGE = 250
CANCELS_AT_MOST = 100  # in one request
NO_ORDER_ID = "NO_ORDER_ID"  # our word: an empty id was not sent, because it makes the venue hang
# The sizes of an order's fills are its filled size, but for the rounding of those that are told in the quote currency.
ROUNDING = Decimal("1E-6")
# Not about one order of a batch: the key may not do this at all.
KEY_REFUSED = ("HTTP_401", "HTTP_403")
NO_ANSWER = (Retryable, Rejected, OutcomeUnknown)  # to a question: whatever the reason, nothing is known
# The venue's filter OPEN leaves these out, and they may be cancelled too.
WAITING = ("PENDING", "QUEUED")

T = TypeVar("T")


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

    def orders(self, *, open_only: bool = False, order_ids: Sequence[str] = ()) -> AsyncIterator[list[VenueOrder]]:
        """Pages of orders: the open ones, or those of these ids."""
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
    """The real one, or anything that speaks its protocol. `market_ws_url` is where the user channel goes on when its
    own endpoint cannot be reached; `requests_per_second` is what this process may take of the venue's
    limit, None where the venue has none; `http` and `dial` are what the simulation has in place of sockets."""

    def __init__(
        self,
        rest_url: str,
        user_ws_url: str,
        signer: Tokens,
        clock: Clock,
        timeout_seconds: float,
        *,
        market_ws_url: str = "",
        requests_per_second: float | None = REQUESTS_PER_SECOND,
        chance: Callable[[], float] = random.random,
        http: Http | None = None,
        dial: Dial = connect,
    ) -> None:
        self._rest = Rest(
            rest_url, signer, clock, timeout_seconds, requests_per_second=requests_per_second, chance=chance, http=http
        )
        addresses = [user_ws_url, market_ws_url] if market_ws_url else [user_ws_url]
        self._channel = UserChannel(
            addresses, self._rest.token, self._rest.measure, self._rest.count, chance=chance, dial=dial
        )

    @property
    def answers(self) -> dict[str, int]:
        """Requests and events of the user channel by outcome, for metrics."""
        return self._rest.answers

    @property
    def clock_offset_seconds(self) -> float | None:
        """The venue's clock minus ours; None until it was measured."""
        return self._rest.skew.offset.total_seconds() if self._rest.skew.measured else None

    async def close(self) -> None:
        await self._rest.close()

    # -- what changes something

    async def place(self, order: ApprovedOrder, signed: Signed) -> str:
        return answers.parse_created(await self._rest.once("/orders", create_body(order), signed), order)

    async def edit(self, venue_order_id: str, wanted: ApprovedOrder, signed: Signed) -> None:
        body = edit_body(venue_order_id, wanted)
        answers.parse_edited(await self._rest.once("/orders/edit", body, signed), venue_order_id)

    async def cancel(self, venue_order_ids: list[str]) -> dict[str, str]:
        wanted = list(dict.fromkeys(venue_order_ids))
        refused: dict[str, str] = {key: NO_ORDER_ID for key in wanted if not key}
        wanted = [key for key in wanted if key]
        for start in range(0, len(wanted), CANCELS_AT_MOST):
            chunk = wanted[start : start + CANCELS_AT_MOST]
            try:
                refused |= await self._cancel(chunk)
            except Rejected as error:
                if len(wanted) == 1 or error.reason in KEY_REFUSED:
                    raise
                refused |= await self._cancel_one_by_one(chunk)
        return refused

    async def _cancel(self, venue_order_ids: list[str]) -> dict[str, str]:
        data = await self._rest.ask("/orders/batch_cancel", {"order_ids": venue_order_ids}, Priority.CANCEL)
        return answers.parse_cancelled(data, venue_order_ids)

    async def _cancel_one_by_one(self, venue_order_ids: list[str]) -> dict[str, str]:
        """After a refusal of them all: one id that the venue does not like must not keep the others alive."""
        refused: dict[str, str] = {}
        for key in venue_order_ids:
            try:
                refused |= await self._cancel([key])
            except Rejected as error:
                refused[key] = error.reason
        return refused

    # -- what would happen

    async def preview(self, order: ApprovedOrder) -> Preview:
        """Raises Retryable, Rejected or OutcomeUnknown, like all questions below."""
        return answers.parse_preview(await self._rest.ask("/orders/preview", preview_body(order), Priority.READ))

    async def preview_edit(self, venue_order_id: str, wanted: ApprovedOrder) -> Preview:
        body = edit_body(venue_order_id, wanted)
        return answers.parse_preview(await self._rest.ask("/orders/edit_preview", body, Priority.READ))

    # -- orders and fills

    async def find(self, client_order_id: str, product_id: str, start: datetime) -> VenueOrder | None:
        async for page in self.orders(product_id=product_id, since=start):
            for order in page:
                if order.client_order_id == client_order_id:
                    return order
        return None

    async def order(self, venue_order_id: str) -> tuple[VenueOrder, list[VenueFill]]:
        order = parse.parse_order(await self._rest.read(f"/orders/historical/{quote(venue_order_id, safe='')}"))
        found: dict[str, VenueFill] = {}
        if order.filled_qty == 0 and order.status not in TERMINAL:
            return order, []
        async for page in self.fills(order_id=venue_order_id):
            found |= {fill.entry_id: fill for fill in page}
            if order.filled_qty and sum((fill.size for fill in found.values()), Decimal(0)) >= order.filled_qty:
                break
        return order, _made_whole(order, list(found.values()))

    async def listing(self, since: datetime) -> Listing:
        orders: dict[str, VenueOrder] = {}
        for pages in (self.orders(open_only=True), self.orders(since=since)):
            async for page in pages:
                orders |= {order.venue_order_id: order for order in page}
        # Read last, so that they hold every fill that an order above tells of.
        fills: dict[str, VenueFill] = {}
        async for found in self.fills(since=since):
            fills |= {fill.entry_id: fill for fill in found}
        return Listing(orders=tuple(orders.values()), fills=tuple(fills.values()))

    async def orders(
        self,
        *,
        product_id: str = "",
        open_only: bool = False,
        since: datetime | None = None,
        order_ids: Sequence[str] = (),
    ) -> AsyncIterator[list[VenueOrder]]:
        """Pages of orders, newest first; complete only when the iteration ends without an error."""
        params = [("product_ids", product_id)] if product_id else []
        params += [("order_ids", order_id) for order_id in order_ids]
        if since is not None:
            params.append(("start_date", rfc3339(since)))
        read = partial(parse.parse_orders, count=self._rest.count)
        # Waiting ones first: they become open ones, never the other way.
        for statuses in (WAITING, ("OPEN",)) if open_only else ((),):
            wanted = [*params, *(("order_status", status) for status in statuses)]
            async for page in self._pages("/orders/historical/batch", wanted, read):
                yield page

    async def fills(
        self, *, order_id: str = "", product_id: str = "", since: datetime | None = None
    ) -> AsyncIterator[list[VenueFill]]:
        """Pages of fills, newest first; complete only when the iteration ends without an error."""
        given = {"order_ids": order_id, "product_ids": product_id}
        params = [(name, value) for name, value in given.items() if value]
        if since is not None:
            params.append(("start_sequence_timestamp", rfc3339(since)))  # the venue ignores start_date here
        read = partial(parse.parse_fills, order_id=order_id, count=self._rest.count)
        async for page in self._pages("/orders/historical/fills", params, read):
            yield [fill for fill in page if order_id in ("", fill.venue_order_id)]

    async def _pages(self, path: str, params: Params, read: Callable[[bytes], tuple[T, str]]) -> AsyncIterator[T]:
        """Follow the cursors. Raises OutcomeUnknown for pages that go round in a circle."""
        cursor, seen = "", set[str]()
        while True:
            page_params = [*params, ("limit", str(PAGE)), *([("cursor", cursor)] if cursor else [])]
            page, cursor = read(await self._rest.read(path, page_params))
            yield page
            if not cursor:
                return
            if cursor in seen:
                raise OutcomeUnknown(f"the cursor {cursor!r} came twice")
            seen.add(cursor)

    # -- the account

    async def account(self) -> AccountParts:
        unavailable: dict[str, str] = {}

        async def part(name: str, reading: Awaitable[T]) -> T | None:
            try:
                return await reading
            except PerpsError as error:
                unavailable[name] = f"{error!s:.200}"
                return None

        balances, fee_tier, permissions, portfolios, server_time = await asyncio.gather(
            part("balances", self._balances()),
            part("fee_tier", self._parsed("/transaction_summary", parse_account.parse_fee_tier)),
            part("permissions", self._parsed("/key_permissions", parse_account.parse_permissions)),
            part("portfolios", self._parsed("/portfolios", parse_account.parse_portfolios)),
            part("server_time", self.server_time()),
        )
        return AccountParts(
            balances=balances,
            fee_tier=fee_tier,
            permissions=permissions,
            portfolios=portfolios,
            limits=await part("limits", self._limits()),
            server_time=server_time,
            unavailable=unavailable,
        )

    async def server_time(self) -> datetime:
        """The venue's clock."""
        return await self._rest.time()

    async def _balances(self) -> dict[str, Balance]:
        balances: dict[str, Balance] = {}
        async for page in self._pages("/accounts", [], parse_account.parse_accounts):
            for currency, balance in page.items():
                parse_account.add_balance(balances, currency, balance)
        return balances

    async def _parsed(self, path: str, read: Callable[[bytes], T]) -> T:
        return read(await self._rest.read(path))

    async def _limits(self) -> RateLimits:
        if self._rest.limits is None:
            raise OutcomeUnknown("the venue's answers carry no x-ratelimit headers")
        return self._rest.limits

    def user_updates(self) -> AsyncIterator[VenueOrder | None]:
        return self._channel.updates()


def _made_whole(order: VenueOrder, fills: list[VenueFill]) -> list[VenueFill]:
    """The fills, so that their sizes are the order's own figure to the last digit: the newest of those that were told
    in the quote currency takes what rounding has lost. A larger difference is a fill that is not listed yet."""
    rounded = [fill for fill in fills if fill.value is not None]
    if not rounded or not order.filled_qty:
        return fills
    lost = order.filled_qty - sum((fill.size for fill in fills), Decimal(0))
    newest = max(rounded, key=lambda fill: fill.trade_time)
    if abs(lost) >= order.filled_qty * ROUNDING or newest.size + lost <= 0:
        return fills
    return [replace(fill, size=fill.size + lost) if fill is newest else fill for fill in fills]
