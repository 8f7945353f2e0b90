"""A stack under load and under faults, and its books at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from cli import books
from cli.journal import Journal
from cli.operator import connected
from cli.plan import make_plan, own_ports
from cli.stack import Stack
from libs.common import messages as m
from libs.common.errors import PerpsError
from libs.common.subjects import OPENING_KEY, STATE_BUCKET
from tests.chaos import network as network_module
from tests.chaos.accounts import Count, account_at, count
from tests.chaos.faults import Fault, bouts
from tests.chaos.market import BTC, FILE, Feed, recorded_feed
from tests.chaos.network import Network
from tests.chaos.operator import RESTING, Operator
from tests.chaos.saboteur import Blow, Saboteur
from tests.chaos.watch import LOOK_SECONDS, Watch
from tests.integration.market_replay import profile
from tests.integration.stack import BUSY, System

LIMIT_SECONDS = 10.0  # of a recovery
PATIENCE_SECONDS = 90.0  # without a recovery the run is over
EVERY_SECONDS = 6.0  # from one fault to the next, on average
SETTLE_SECONDS = 120.0
EXTRA_MINUTES = 6.0  # of market, for the start and the end
START_SECONDS = 60.0
SETTINGS = {
    **BUSY,
    "PERPS_MARKET_PRODUCTS": BTC,
    "PERPS_MARKET_GRANULARITY": "2s",
    "PERPS_EXECUTION_REQUEST_TIMEOUT_SECONDS": "2",
    "PERPS_RISK_ORDER_NOTIONAL_MAX": "1000000",
    "PERPS_RISK_POSITION_NOTIONAL_MAX": "1000000",
    "PERPS_RISK_EXPOSURE_MAX": "1000000",
    "PERPS_RISK_EXPOSURE_FRACTION_MAX": "1",
    "PERPS_RISK_DAILY_LOSS_PERCENT_MAX": "100",
}
# The guards that look at prices or count errors would halt for the faults; this one is what an outage is for.
GUARDS = {"mark_staleness": "{ warn = 10, reduce = 30, recover_seconds = 2 }"}


class Survived(Struct, frozen=True):
    """One fault, and seconds from its end, or from that of another one that struck with it and outlasted it, until
    everything was at work again. `late` is what was not when the limit had passed; `beside` are the others."""

    kind: str
    means: str
    recovered: float
    late: str = ""
    beside: tuple[str, ...] = ()


class Recovery(Struct, frozen=True):
    """A fault, and the moment (monotonic) at which everything was seen at work after it."""

    blow: Blow
    at: float
    late: str

    def among(self, bout: Sequence[Recovery]) -> Survived:
        """`bout`: all that struck together, this one too."""
        ends = [other.blow.over for other in bout]
        over = max(end for end in ends if self.blow.over <= end <= self.at)
        seconds = round(self.at - over, 2)
        fault, late = self.blow.fault, self.late if seconds > LIMIT_SECONDS else ""
        beside = tuple(other.blow.fault.kind for other in bout if other is not self)
        return Survived(fault.kind, fault.means, seconds, late, beside)


class Result(Struct, frozen=True):
    """`broken` is empty when nothing is; `idle` faults met nobody and are not among the survived."""

    seed: int
    market: str
    seconds: float
    survived: list[Survived]
    idle: int
    asked: dict[str, int]  # what the operator asked for and got
    interventions: dict[str, int]
    count: Count | None
    broken: list[str]


class Chaos:
    """See `running`."""

    def __init__(self, system: System, network: Network, feed: Feed | None, journal: Journal, seed: int) -> None:
        self.system = system
        self.journal = journal
        self.operator = Operator(system, journal, seed)
        self.survived: list[Survived] = []
        self.idle = 0
        self._seed = seed
        self._feed = feed
        self._saboteur = Saboteur(system, network, feed)
        self._watch = Watch(system, journal)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def market(self) -> str:
        return self._feed.name if self._feed else f"synthetic: {FILE} is not there"

    # -- faults

    async def strike(self, faults: tuple[Fault, ...]) -> None:
        """Together, and wait until everything is at work again. Raises TimeoutError where it is not."""
        recoveries = await asyncio.gather(*map(self._survive, faults))
        self.survived += [one.among(recoveries) for one in recoveries if one.blow.struck]
        self.idle += sum(not one.blow.struck for one in recoveries)

    async def _survive(self, fault: Fault) -> Recovery:
        blow = await self._saboteur.strike(fault)
        seconds, late = await self._watch.works_again(blow.over, LIMIT_SECONDS, PATIENCE_SECONDS)
        return Recovery(blow, blow.over + seconds, late)

    async def storm(self, seconds: float, tell: Callable[[float, Chaos], None]) -> None:
        """The seed's faults for so long, one in `EVERY_SECONDS` or as fast as they are recovered from."""
        began, due = time.monotonic(), 0.0
        for faults in bouts(self._seed, self._feed is not None):
            due += EVERY_SECONDS * len(faults)
            await self.strike(faults)
            tell(time.monotonic() - began, self)
            if time.monotonic() - began > seconds:
                return
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))

    # -- load

    async def begin(self) -> None:
        await self.journal.follow(m.Decision, m.RiskFigures)
        self._tasks = [asyncio.create_task(self._watch.follow()), asyncio.create_task(self.operator.run())]
        await self._watch.works_again(time.monotonic(), LIMIT_SECONDS, START_SECONDS)

    async def quieten(self) -> None:
        """The load stops, what is in flight comes to its end, and prices stand still."""
        await self._end(self._tasks.pop())
        async with asyncio.timeout(SETTLE_SECONDS):
            while not await self._halted():
                pass
            while self._unsettled():
                await asyncio.sleep(LOOK_SECONDS)
        if self._feed is not None:
            self._feed.stop()
        else:  # a market that nobody stops could fill what rests while we count
            await self.operator.cancel_all()
        await self.system.settle()

    async def _halted(self) -> bool:
        with contextlib.suppress(TimeoutError):
            return await self.operator.switch("halt")
        return False

    def _unsettled(self) -> bool:
        """Something is open that is no exit at rest: a halt takes entries off the venue, and leaves those."""
        steps = [self.journal.orders.get(key) for key in self.journal.open_orders]
        return not all(step and (step.status in m.TERMINAL or _rests_to_sell(step)) for step in steps)

    async def balance(self) -> tuple[Count, list[str]]:
        """Our own count, and what `perps-bot replay` finds, each with what is not as it has to be."""
        opening = await self._opening()
        figures = await self.system.figures()
        ledger = [item.message for item in await self.system.ledger()]
        found = count(ledger, account_at(self.system.settings.data_dir / "sim"), opening, figures.reserved)
        broken = list(found.troubles)
        await self.journal.read_ledger()
        self.journal.first_equity = opening["USD"]
        async with httpx.AsyncClient(base_url=f"http://{self.system.settings.sim_url}", timeout=10) as client:
            audit = await books.audit(self.journal, client, self.system.settings, datetime.now(UTC))
        return found, broken + [f"the audit of a replay: {difference}" for difference in audit.differences]

    async def _opening(self) -> dict[str, Decimal]:
        entry = await self.system.bus.load(STATE_BUCKET, OPENING_KEY)
        assert entry is not None, "the opening balances are gone"
        return msgspec.json.decode(entry.value, type=m.Installation).opening or {}

    async def close(self) -> None:
        await self._end(*self._tasks)

    async def _end(self, *tasks: asyncio.Task[None]) -> None:
        """Asked again where it got lost, see `AsyncioTasks.close`. Raises what one of them has failed with."""
        left = set(tasks)
        while left:
            for task in left:
                task.cancel()
            done, left = await asyncio.wait(left, timeout=0.5)
            for task in done:
                with contextlib.suppress(asyncio.CancelledError):
                    task.result()


def _rests_to_sell(step: m.OrderEvent) -> bool:
    return step.status in RESTING and step.order.time_in_force.rests and step.order.side is m.Side.SELL


@contextlib.asynccontextmanager
async def running(folder: Path, minutes: float, seed: int, overrides: Mapping[str, str]) -> AsyncIterator[Chaos]:
    """The stack, ready and under load."""
    async with contextlib.AsyncExitStack() as closing:
        feed = None
        if FILE.exists():
            feed = await closing.enter_async_context(recorded_feed(folder / "feed", minutes + EXTRA_MINUTES, seed))
        market = feed.environment if feed else {}
        guards = {"PERPS_PROFILES_DIR": str(profile(folder, GUARDS)), "PERPS_DATA_DIR": str(folder / "var")}
        plan = make_plan("dev", {**own_ports(), **SETTINGS, **guards, **market, **overrides})
        venue_port = int(plan.settings.sim_url.rpartition(":")[2])
        network = await closing.enter_async_context(network_module.opened(plan.settings.nats.port, venue_port))
        # The services alone go through the proxies; NATS is still ours to start, and the operator next to it.
        plan = replace(plan, environment={**plan.environment, **network.environment})
        stack = await closing.enter_async_context(Stack(plan))
        await stack.start_services()
        await stack.wait_ready(START_SECONDS)
        bus = await closing.enter_async_context(connected(plan.settings))
        chaos = Chaos(System(stack, bus), network, feed, Journal(bus), seed)
        closing.push_async_callback(chaos.close)
        await chaos.begin()
        yield chaos


async def campaign(
    folder: Path,
    minutes: float,
    seed: int,
    tell: Callable[[float, Chaos], None],
    overrides: Mapping[str, str] | None = None,
) -> Result:
    """Chaos for so long, then quiet, then the books. Raises PerpsError where the stack does not even start."""
    began = time.monotonic()
    found, broken = None, []
    async with running(folder, minutes, seed, overrides or {}) as chaos:
        try:
            await chaos.storm(minutes * 60, tell)
        except (TimeoutError, PerpsError, AssertionError) as error:
            broken.append(f"{type(error).__name__}: {error}")
        try:
            await chaos.quieten()
            found, more = await chaos.balance()
            broken += more
        except (TimeoutError, PerpsError, AssertionError) as error:
            broken.append(f"the books could not be balanced: {type(error).__name__}: {error}")
    return Result(
        seed=seed,
        market=chaos.market,
        seconds=round(time.monotonic() - began, 1),
        survived=chaos.survived,
        idle=chaos.idle,
        asked=dict(chaos.operator.done),
        interventions=dict(chaos.operator.interventions),
        count=found,
        broken=broken,
    )
