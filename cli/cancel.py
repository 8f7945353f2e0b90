"""`perps-bot orders cancel` and `cancel-all`: the venue is asked what is open, not our memory, and asked again until it
says that the orders have ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable

from msgspec import Struct

from cli.coinbase import Cancels
from cli.errors import OutcomePending, Refused, VenueSilent
from cli.orders import must_find, row
from cli.output import Json
from libs.common import messages as m
from libs.common.errors import OutcomeUnknown, Retryable
from services.execution.inputs import VenueOrder

LOOK_SECONDS = 0.25
REFUSALS_MAX = 3  # of one order, in one run: what is refused may be between two states
UNDER_WAY = "DUPLICATE_CANCEL_REQUEST"  # the venue's word for: you have asked before
SILENT = (Retryable, OutcomeUnknown)
Watch = Callable[[str, int, int], None]  # a line, how many have ended, how many there are


class Cancelled(Struct):
    """One order and what has become of its cancellation."""

    order: VenueOrder
    refusals: int = 0
    reason: str = ""  # the venue's last refusal

    @property
    def outcome(self) -> str:
        if self.order.status in m.TERMINAL:
            return "ended"
        return "refused" if self.reason else "pending"

    def show(self) -> Json:
        return {"outcome": self.outcome, "reason": self.reason, **row(self.order)}


async def cancel_orders(venue: Cancels, order_ids: list[str], wait_seconds: float) -> tuple[list[Cancelled], str]:
    """Ask for each of them, and wait until the venue shows it as ended or has refused it; and why the venue gave no
    answer, if so. Raises Refused for an unknown id, before anything is asked."""
    asked: dict[str, Cancelled] = {}
    for order_id in order_ids:
        found = await must_find(venue, order_id)
        asked[found.venue_order_id] = Cancelled(found)
    silence = await _ask(venue, list(asked.values()))
    deadline = time.monotonic() + wait_seconds
    while True:
        # What was refused may just have ended by itself: then that is its outcome.
        unsure = [one for one in asked.values() if one.outcome != "ended"]
        try:
            for one in unsure:
                one.order, _ = await venue.order(one.order.venue_order_id)
        except SILENT as error:
            silence = silence or str(error)
        if all(one.outcome != "pending" for one in unsure) or time.monotonic() > deadline:
            return list(asked.values()), silence
        await asyncio.sleep(LOOK_SECONDS)


async def _ask(venue: Cancels, wanted: list[Cancelled]) -> str:
    """One request, the refusals noted; why there is no answer, if so."""
    try:
        refused = await venue.cancel([one.order.venue_order_id for one in wanted])
    except SILENT as error:
        return str(error)
    for one in wanted:
        reason = refused.get(one.order.venue_order_id, "")
        one.reason = "" if reason == UNDER_WAY else reason
        one.refusals += bool(one.reason)
    return ""


class Sweep:
    """Cancel everything, by passes: first what the venue calls open, then everything else that has not ended (its OPEN
    filter leaves out PENDING and QUEUED), again until a pass finds nothing. `watch` is told how it goes on."""

    def __init__(self, venue: Cancels, product: str, foreign: bool, watch: Watch) -> None:
        self._venue = venue
        self._product = product
        self._foreign = foreign
        self._watch = watch
        self.orders: dict[str, Cancelled] = {}
        self.untouched: dict[str, VenueOrder] = {}  # not ours
        self.passes = 0
        self.silence = ""  # why the last pass is incomplete

    async def run(self, wait_seconds: float) -> None:
        """Never raises for a silent venue: see `silence`, and `judge` the orders afterwards."""
        deadline = time.monotonic() + wait_seconds
        while True:
            self.passes += 1
            self.silence = ""
            try:
                alive = await self._pass(open_only=True) + await self._pass(open_only=False)
            except SILENT as error:
                self.silence, alive = str(error), 1
            if not alive or time.monotonic() > deadline:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _pass(self, open_only: bool) -> int:
        """Ask for all that has not ended; how many of them may still end."""
        alive = [one async for one in self._alive(open_only) if one.refusals < REFUSALS_MAX]
        wanted = [one for one in alive if one.order.status is not m.OrderStatus.PENDING_CANCEL]
        if wanted:
            self.silence = await _ask(self._venue, wanted) or self.silence
        ended = sum(one.outcome == "ended" for one in self.orders.values())
        total = len(self.orders)
        self._watch(f"pass {self.passes}: asked for {len(wanted)}; {ended} of {total} have ended", ended, total)
        return len(alive)

    async def _alive(self, open_only: bool) -> AsyncIterator[Cancelled]:
        read, words = 0, "open orders" if open_only else "orders"
        async for page in self._venue.orders(product_id=self._product, open_only=open_only):
            read += len(page)
            ended = sum(one.outcome == "ended" for one in self.orders.values())
            self._watch(f"pass {self.passes}: {read} {words} read", ended, len(self.orders))
            for order in page:
                if one := self._take(order):
                    yield one

    def _take(self, order: VenueOrder) -> Cancelled | None:
        """Note an order as the venue tells it now; None if there is nothing to ask for."""
        ended = order.status in m.TERMINAL
        known = self.orders.get(order.venue_order_id)
        if known is None and not ended:
            if not (self._foreign or m.is_ours(order.client_order_id)):
                self.untouched[order.venue_order_id] = order
                return None
            known = self.orders[order.venue_order_id] = Cancelled(order)
        if known is not None:
            known.order = order
        return None if ended else known

    def show(self) -> Json:
        return {
            "passes": self.passes,
            "orders": [one.show() for one in self.orders.values()],
            "foreign": [row(order) for order in self.untouched.values()],
        }


def judge(orders: Iterable[Cancelled], silence: str, say: Callable[[str], None]) -> None:
    """How it ends. Raises Refused, VenueSilent or OutcomePending where an order has not ended."""
    alive = [one for one in orders if one.outcome != "ended"]
    refused = [one for one in alive if one.outcome == "refused"]
    for one in refused:
        say(f"order {one.order.venue_order_id} stays {one.order.status_word}: {one.reason}")
    if refused:
        raise Refused(f"refused by the venue: {len(refused)} cancellations, {refused[0].reason}")
    if silence:
        raise VenueSilent(f"the venue gave no readable answer: {silence}")
    if alive:
        look = alive[0].order.venue_order_id
        raise OutcomePending(f"asked, and {len(alive)} have not ended yet: look with `perps-bot orders show {look}`")
