"""Cancel every open order of ours: the venue is asked what is open, not our memory, and asked again until all of it has
ended by the venue's own word."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

from msgspec import Struct

from libs.common.messages import TERMINAL, OrderStatus, Reply, is_ours
from services.execution.inputs import VenueOrder
from services.execution.orders import Order
from services.execution.venue import NO_ANSWER, Venue

LOOK_SECONDS = 0.25
IDS_AT_MOST = 50  # in one request: they stand in its address
NAMED_AT_MOST = 5
UNDER_WAY = "DUPLICATE_CANCEL_REQUEST"  # the venue's word for: you have asked before


class Target(Struct):
    """One order of ours."""

    key: str  # the venue's id
    order: VenueOrder | None = None  # as the venue told it last
    was_open: bool = False
    refusal: str = ""  # the venue's last one

    @property
    def ended(self) -> bool:
        return self.order is not None and self.order.status in TERMINAL

    @property
    def queued(self) -> bool:
        """Its cancellation is under way."""
        return self.order is not None and self.order.status is OrderStatus.PENDING_CANCEL

    def __str__(self) -> str:
        word = self.order.status_word if self.order else "not told by the venue"
        return f"{self.key} {word}" + (f" ({self.refusal})" if self.refusal else "")


class Sweep:
    """`ours` are the orders that we know of: they add what a listing of open orders leaves out (an order in the middle
    of an edit), and what is on its way to the venue. `cancel` gives the venue's refusals."""

    def __init__(
        self,
        venue: Venue,
        cancel: Callable[[list[str]], Awaitable[dict[str, str]]],
        ours: Callable[[], Iterable[Order]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._venue = venue
        self._cancel = cancel
        self._ours = ours
        self._sleep = sleep
        self._targets: dict[str, Target] = {}
        self._foreign: set[str] = set()
        self._on_their_way: list[str] = []  # client order ids
        self._silence = ""  # why the last pass is incomplete
        self._done = False

    async def run(self) -> None:
        """Pass after pass until one finds nothing. For ever, so that the caller sets the limit; see `reply` then."""
        while not self._done:
            self._silence = self._silence or "the last look was cut short"
            try:
                await self._pass()
                self._silence = ""
            except NO_ANSWER as error:
                self._silence = f"{error!s:.200}"
            if not self._done:
                await self._sleep(LOOK_SECONDS)

    async def _pass(self) -> None:
        orders = list(self._ours())
        # Noted before the venue is asked: what arrives meanwhile is in its answer, or in that of the next pass.
        sent = [o for o in orders if o.status in (OrderStatus.SUBMITTING, OrderStatus.UNKNOWN)]
        self._on_their_way = [o.order.client_order_id for o in sent if o.order.time_in_force.rests]
        for order in orders:
            if order.resting:
                self._targets.setdefault(order.venue_order_id, Target(order.venue_order_id))
        await self._look()
        alive = [target for target in self._targets.values() if not target.ended]
        self._done = not alive and not self._on_their_way
        if wanted := [target for target in alive if not target.queued]:
            refusals = await self._cancel([target.key for target in wanted])
            for target in wanted:
                target.refusal = refusals.get(target.key, "").replace(UNDER_WAY, "")

    async def _look(self) -> None:
        """What is open, and what has become of those of ours that are not listed as open any more."""
        listed, foreign = set(), set()
        async for page in self._venue.orders(open_only=True):
            for order in page:
                if is_ours(order.client_order_id):
                    self._take(order)
                    listed.add(order.venue_order_id)
                else:
                    foreign.add(order.venue_order_id)
        self._foreign = foreign
        unlisted = [key for key, target in self._targets.items() if not target.ended and key not in listed]
        for start in range(0, len(unlisted), IDS_AT_MOST):
            async for page in self._venue.orders(order_ids=unlisted[start : start + IDS_AT_MOST]):
                for order in page:
                    if order.venue_order_id in self._targets:  # a venue that heeds no filter tells of others too
                        self._take(order)

    def _take(self, order: VenueOrder) -> None:
        target = self._targets.setdefault(order.venue_order_id, Target(order.venue_order_id))
        target.order = order
        target.was_open |= order.status not in TERMINAL

    def reply(self) -> Reply:
        """ok only where the venue has said of every order that it has ended."""
        ended = [t for t in self._targets.values() if t.ended and t.was_open]
        alive = [t for t in self._targets.values() if not t.ended]
        canceled = sum(t.order is not None and t.order.status is OrderStatus.CANCELED for t in ended)
        counts = {
            "canceled": canceled,
            "ended_otherwise": len(ended) - canceled,
            "open": len(alive),
            "on_their_way": len(self._on_their_way),
            "not_ours": len(self._foreign),
        }
        said = [f"{canceled} canceled"]
        if counts["ended_otherwise"]:
            said.append(f"{counts['ended_otherwise']} ended otherwise")
        if self._foreign:
            said.append(f"{len(self._foreign)} not ours left alone")
        if alive:
            said.append(f"{len(alive)} still open: {_some(alive)}")
        if self._on_their_way:
            said.append(f"{len(self._on_their_way)} sent and may still come to rest: {_some(self._on_their_way)}")
        if self._silence:
            said.append(f"the venue's answer is incomplete: {self._silence}")
        return Reply(ok=self._done, detail=", ".join(said), data={name: str(n) for name, n in counts.items()})


def _some(names: Sequence[object]) -> str:
    more = [f"{len(names) - NAMED_AT_MOST} more"] if len(names) > NAMED_AT_MOST else []
    return "; ".join([*map(str, names[:NAMED_AT_MOST]), *more])
