"""An operator with a stopwatch: sends orders to a running stack, breaks something, and notes the first sign of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum

import httpx
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cli.stack import why_not_ready
from libs.common import messages as m
from libs.common.errors import BusDown
from libs.common.subjects import SERVICES
from sim.faults import Faults
from tests.integration.stack import System

CENT = Decimal("0.01")
THROUGH = Decimal("0.008")  # how far a limit price lies beyond the market's, within what the dev profile allows
LOOK_SECONDS = 0.02
READY_SECONDS = 0.2
COUNTING = {name for name, kind in Faults.__annotations__.items() if kind == "int"}  # switches that are used up


class Kind(StrEnum):
    MARKET = "market"
    LIMIT = "limit"


class Cell(Struct):
    """One order, or several in a row, under one fault. Times are wall time."""

    row: str
    kind: Kind
    product_id: str
    size: Decimal  # of a buy; a sale sells all that is held
    requests: int = 0
    orders: list[str] = []  # client order ids that risk approved
    last: m.OrderRequest | None = None  # the request of the last of them


class Sign(Struct, frozen=True):
    """Something that anybody who looks can see. Without an order it concerns the whole system."""

    at: datetime
    what: str
    client_order_id: str = ""


class Watch:
    """Everything that the bus tells, and when it was sent."""

    def __init__(self) -> None:
        self.signs: list[Sign] = []
        self.events: dict[str, list[m.OrderEvent]] = {}
        self.held: dict[str, Decimal] = {}
        self.feeds: dict[str, m.Feed] = {}
        self.products: dict[str, m.Product] = {}
        self.statuses: dict[str, m.ServiceStatus] = {}

    def note(self, message: m.Message) -> None:
        if what := self._sign(message):
            key = message.client_order_id if isinstance(message, m.OrderEvent) else ""
            self.signs.append(Sign(message.sent_at or datetime.now(UTC), what, key))
        match message:
            case m.OrderEvent():
                self.events.setdefault(message.client_order_id, []).append(message)
            case m.Fill():
                signed = message.size if message.side is m.Side.BUY else -message.size
                self.held[message.product_id] = self.held.get(message.product_id, Decimal(0)) + signed
            case m.FeedState():
                self.feeds[message.product_id] = message.state
            case m.Product():
                self.products[message.product_id] = message
            case m.ServiceStatus():
                self.statuses[message.service] = message

    def _sign(self, message: m.Message) -> str:
        """What is out of the ordinary in it."""
        match message:
            case m.OrderEvent(status=m.OrderStatus.UNKNOWN | m.OrderStatus.REJECTED):
                return f"order {message.status}"
            case m.FeedState() if message.state is not m.Feed.LIVE:
                return f"feed {message.state}"
            case m.Product(limit_only=True):
                return f"{message.product_id} limit_only"
            case m.RiskFigures() if message.trading is not m.Trading.ACTIVE:
                return f"trading {message.trading}"
            case m.ServiceStatus():
                before = self.statuses.get(message.service, message)
                return f"{message.service} errors" if message.errors > before.errors else ""
        return ""

    def note_reason(self, service: str, reason: str) -> None:
        """What /readyz says, which is what Prometheus sees as well."""
        if reason:
            self.signs.append(Sign(datetime.now(UTC), f"{service} {reason}"))

    def first(self, since: datetime, orders: Sequence[str]) -> Sign | None:
        """The first sign since then, of these orders or of the system."""
        seen = [sign for sign in self.signs if sign.at >= since and sign.client_order_id in ("", *orders)]
        return min(seen, key=lambda sign: sign.at, default=None)

    def venue_order_id(self, client_order_id: str) -> str:
        """The venue's own id, empty while nobody knows it."""
        return max((event.venue_order_id for event in self.events.get(client_order_id, ())), default="")

    def status(self, client_order_id: str) -> m.OrderStatus | None:
        events = self.events.get(client_order_id)
        return max(events, key=lambda event: event.revision).status if events else None


class Lab:
    """See `open_lab`. `struck` is when the fault of the present row began, `over` when it ended."""

    def __init__(self, system: System, http: httpx.AsyncClient) -> None:
        self.system = system
        self.watch = Watch()
        self.struck = self.over = datetime.now(UTC)
        self._http = http
        self._switched: dict[str, object] = {}

    # -- waiting

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """AssertionError says what never came."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{what}: not within {seconds:.0f} s") from None

    async def reached(self, cells: Sequence[Cell], *wanted: m.OrderStatus, seconds: float = 40) -> None:
        """The last order of each cell is in one of these states."""
        for cell in cells:
            key = cell.orders[-1]
            await self.until(
                lambda key=key: self.watch.status(key) in wanted,  # type: ignore[misc]
                f"{cell.kind} order {'/'.join(wanted)} (it is {self.watch.status(key)})",
                seconds,
            )

    async def ended(self, cells: Sequence[Cell]) -> None:
        await self.reached(cells, *m.TERMINAL)

    async def sign(self, seconds: float = 20) -> None:
        """Somebody could have noticed by now."""
        await self.until(lambda: self.watch.first(self.struck, ()) is not None, "a sign of the fault", seconds)

    async def told(self, what: str, seconds: float = 20) -> None:
        """This very sign of the fault has come."""
        seen = self.watch.signs
        await self.until(lambda: any(sign.what == what and sign.at >= self.struck for sign in seen), what, seconds)

    async def healthy(self, seconds: float = 40) -> None:
        """Everything is ready, every feed is live, every product takes entries, and nothing else has to be told of what
        was."""
        reasons: dict[str, str] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    for name in SERVICES:
                        reasons[name] = await self._reason(name)
                    late = [product for product, state in self.watch.feeds.items() if state is not m.Feed.LIVE]
                    if not any(reasons.values()) and not late and not await self._degraded():
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            behind = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
            raise AssertionError(f"not healthy within {seconds:.0f} s: {behind or self.watch.feeds}") from None

    async def _reason(self, service: str) -> str:
        return await why_not_ready(self._http, self.system.stack.plan.service(service).reachable)

    async def _degraded(self) -> bool:
        answer = await self._http.get(f"{self.system.stack.plan.service('risk').reachable}/metrics")
        products = [line for line in answer.text.splitlines() if line.startswith("perps_risk_degraded{")]
        return not products or any(line.endswith(" 1.0") for line in products)

    async def calm(self) -> None:
        """Every service has told its status since, so that no later one tells of what was before."""
        asked = datetime.now(UTC)

        def told() -> bool:
            found = [self.watch.statuses[name].sent_at for name in SERVICES if name in self.watch.statuses]
            return len(found) == len(SERVICES) and all(at is not None and at > asked for at in found)

        await self.until(told, "a status of every service")

    # -- the fault

    def strike(self) -> None:
        self.struck = self.over = datetime.now(UTC)

    def end(self) -> None:
        self.over = datetime.now(UTC)

    @asynccontextmanager
    async def fault(self, **switches: object) -> AsyncIterator[None]:
        """The venue misbehaves inside; `end` is for the row to say where the fault lasts."""
        self.strike()
        await self.switch(**switches)
        try:
            yield
            left = await self.system.faults()
            idle = [name for name, value in self._switched.items() if name in COUNTING and left[name] == value]
            assert not idle, f"the fault never struck: {idle}"
        finally:
            await self.clear()

    async def switch(self, **switches: object) -> None:
        self._switched |= switches
        await self.system.faults(**switches)

    async def clear(self) -> None:
        """As the venue was at its start. One that is down has forgotten its switches anyway."""
        normal = msgspec.to_builtins(Faults())
        with suppress(httpx.HTTPError):
            await self.system.faults(**{name: normal[name] for name in self._switched})
        self._switched.clear()

    async def kill(self, name: str) -> None:
        self.strike()
        await self.system.kill(name)

    # -- orders

    async def send(self, *cells: Cell) -> None:
        """Ask risk for an order per cell: a buy, or a sale of all that is held. Each has to be approved."""
        for cell in cells:
            await self.send_request(cell, self.request(cell))

    async def send_request(self, cell: Cell, request: m.OrderRequest) -> None:
        reply = await self.ask(request)
        assert reply.ok, f"{cell.kind} order refused: {reply.detail}"
        cell.orders.append(reply.data["client_order_id"])
        cell.last = request

    async def send_again(self, cell: Cell) -> None:
        """Somebody who never got the answer asks for the same again, and gets the same order."""
        assert cell.last is not None
        reply = await self.ask(cell.last)
        assert (reply.ok, reply.data.get("client_order_id")) == (True, cell.orders[-1]), f"asked again: {reply}"

    async def ask(self, request: m.OrderRequest) -> m.Reply:
        """Again under the same id until risk answers: asking twice is asking once."""
        body = m.Command(reason="matrix", who="tester", order=request)
        async with asyncio.timeout(30):
            while True:
                try:
                    return await self.system.bus.request("risk", "order", body, 5)
                except BusDown:
                    await asyncio.sleep(0.1)

    def request(self, cell: Cell) -> m.OrderRequest:
        """The next order of a cell; the price of a limit order goes through the market."""
        cell.requests += 1
        held = self.watch.held.get(cell.product_id, Decimal(0))
        side = m.Side.SELL if held >= cell.size / 10 else m.Side.BUY  # less may be dust
        request = m.OrderRequest(
            request_id=f"{cell.row} {cell.kind} {cell.requests}",
            product_id=cell.product_id,
            side=side,
            quantity=held if side is m.Side.SELL else cell.size,
        )
        if cell.kind is Kind.LIMIT:
            beyond = 1 + THROUGH if side is m.Side.BUY else 1 - THROUGH
            kind, price = m.OrderType.LIMIT, self.price(cell, beyond)
            request = replace(request, order_type=kind, time_in_force=m.TimeInForce.GTC, limit_price=price)
        return request

    def price(self, cell: Cell, times: Decimal) -> Decimal:
        return (self.marks[cell.product_id].mid * times).quantize(CENT, ROUND_DOWN)

    async def blocked(self, cell: Cell) -> str:
        """An entry is refused just now; gives risk's reason."""
        request = replace(self.request(cell), side=m.Side.BUY, quantity=cell.size / 10)
        reply = await self.ask(request)
        assert not reply.ok, "an entry was approved"
        return reply.data["reason"]

    # -- what is told

    async def listen(self) -> None:
        self.marks: dict[str, m.Mark] = {}

        def mark(message: m.Message) -> None:
            assert isinstance(message, m.Mark)
            self.marks[message.product_id] = message

        await self.system.bus.subscribe(m.Mark, mark)
        for kind in (m.FeedState, m.Product, m.RiskFigures, m.ServiceStatus):
            await self.system.bus.subscribe(kind, self.watch.note)
        await self.until(lambda: len(self.marks) == len(self.system.settings.market.products), "a mark of each product")

    async def follow_ledger(self) -> None:
        reader = self.system.bus.ledger(0)
        while True:
            with suppress(BusDown):
                for item in await reader.catch_up():
                    self.watch.note(item.message)
            await asyncio.sleep(LOOK_SECONDS)

    async def follow_bus(self) -> None:
        lost = self.system.bus.stats.disconnects
        while True:
            if self.system.bus.stats.disconnects > lost:
                lost = self.system.bus.stats.disconnects
                self.watch.signs.append(Sign(datetime.now(UTC), "bus disconnected"))
            await asyncio.sleep(LOOK_SECONDS)

    async def follow_readiness(self) -> None:
        while True:
            for name in SERVICES:
                self.watch.note_reason(name, await self._reason(name))
            await asyncio.sleep(READY_SECONDS)


@asynccontextmanager
async def open_lab(system: System) -> AsyncIterator[Lab]:
    """All that the bus tells is noted inside."""
    async with httpx.AsyncClient(timeout=2) as http:
        lab = Lab(system, http)
        await lab.listen()
        following = [
            asyncio.create_task(endless) for endless in (lab.follow_ledger(), lab.follow_readiness(), lab.follow_bus())
        ]
        try:
            yield lab
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
