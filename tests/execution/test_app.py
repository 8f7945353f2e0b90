"""Execution's shell over a bus in memory and a venue whose answers are written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from libs.common import messages as m
from libs.common.bus import Delivery, Entry
from libs.common.clock import AsyncioTasks, SystemClock
from libs.common.errors import OutcomeUnknown, Rejected, Retryable
from libs.common.subjects import INSTALLATION_KEY, STATE_BUCKET, TRADING_KEY, subject_of
from services.execution import inputs as i
from services.execution.app import ExecutionApp
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.metrics import ExecutionMetrics
from services.execution.venue import Venue
from tests.common.memory_bus import MemoryBus, MemoryLedger
from tests.execution.story import edit, key, product, seen, trading, verdict

S = m.OrderStatus
Signed = Callable[[datetime], None]


class WaitingLedger(MemoryLedger):
    async def read(self) -> list[Delivery]:
        while not (page := await self.catch_up()):
            await asyncio.sleep(0.001)
        return page


class Bus(MemoryBus):
    def __init__(self) -> None:
        super().__init__()
        self.lease = True

    def ledger(self, position: int) -> WaitingLedger:
        return WaitingLedger(self, position)

    @property
    def holds_lease(self) -> bool:
        return self.lease

    def write(self, message: m.Message) -> None:
        """Somebody else (risk) appends to the ledger."""
        assert isinstance(message, m.Verdict | m.Adjustment)
        self.stored.append(Delivery(len(self.stored) + 1, subject_of(message), message))

    @property
    def events(self) -> list[m.OrderEvent]:
        return [item.message for item in self.stored if isinstance(item.message, m.OrderEvent)]

    def told(self) -> list[m.Account]:
        return [message for message in self.published if isinstance(message, m.Account)]


class ScriptedVenue:
    """Speaks like the venue; every method can be given something else to do."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.book: dict[str, i.VenueOrder] = {}  # what a listing of orders tells, by venue id
        self.canceled: list[list[str]] = []
        self.cancel_errors: list[Exception] = []
        self.refusals: dict[str, str] = {}
        self.before_signing: Callable[[], None] = lambda: None
        self.place_error: Exception | None = None
        self.edit_error: Exception | None = None
        self.answer = seen(status=S.ACCEPTED)
        self.parts = i.AccountParts(balances={"USD": m.Balance(available=Decimal(1000), hold=Decimal(0))})
        self.account_errors: list[i.AccountParts] = []
        self.listing_errors: list[Exception] = []
        self.listings: list[datetime] = []

    async def place(self, order: m.ApprovedOrder, signed: Signed) -> str:
        self.before_signing()
        signed(datetime.now(UTC) + timedelta(seconds=10))
        self.sent.append(order.client_order_id)
        if self.place_error is not None:
            raise self.place_error
        return "venue-s1"

    async def edit(self, venue_order_id: str, wanted: m.ApprovedOrder, signed: Signed) -> None:
        self.before_signing()
        signed(datetime.now(UTC) + timedelta(seconds=10))
        self.sent.append(f"edit {venue_order_id} to {wanted.quantity}")
        if self.edit_error is not None:
            raise self.edit_error

    async def find(self, client_order_id: str, product_id: str, start: datetime) -> i.VenueOrder | None:
        raise OutcomeUnknown("503")

    async def order(self, venue_order_id: str) -> tuple[i.VenueOrder, list[i.VenueFill]]:
        return self.answer.order, [*self.answer.fills]

    async def orders(
        self, *, open_only: bool = False, order_ids: Sequence[str] = ()
    ) -> AsyncIterator[list[i.VenueOrder]]:
        for order in list(self.book.values()):
            if order.status not in m.TERMINAL if open_only else order.venue_order_id in order_ids:
                yield [order]

    async def listing(self, since: datetime) -> i.Listing:
        self.listings.append(since)
        if self.listing_errors:
            raise self.listing_errors.pop(0)
        return i.Listing(orders=(self.answer.order,), fills=())

    async def cancel(self, venue_order_ids: list[str]) -> dict[str, str]:
        self.canceled.append(venue_order_ids)
        if self.cancel_errors:
            raise self.cancel_errors.pop(0)
        return self.refusals

    async def account(self) -> i.AccountParts:
        return self.account_errors.pop(0) if self.account_errors else self.parts

    async def user_updates(self) -> AsyncIterator[i.VenueOrder | None]:
        yield None
        await asyncio.Event().wait()


class Running:
    def __init__(self, bus: Bus, venue: ScriptedVenue, app: ExecutionApp, metrics: ExecutionMetrics) -> None:
        self.bus, self.venue, self.app, self.metrics = bus, venue, app, metrics

    def store(self, state: m.TradingState) -> None:
        """Risk stores another trading state, and everybody is told."""
        entry = Entry(msgspec.json.encode(state), state.revision)
        self.bus.entries[STATE_BUCKET, TRADING_KEY] = entry
        for watcher in self.bus.watchers:
            watcher(entry)

    async def until(self, holds: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.005)

    async def until_status(self, status: S) -> None:
        await self.until(lambda: bool(self.bus.events) and self.bus.events[-1].status is status)


@asynccontextmanager
async def running(fake: ScriptedVenue | None = None, ready: bool = True, **settings: float) -> AsyncIterator[Running]:
    bus, fake = Bus(), fake or ScriptedVenue()
    venue: Venue = fake  # the fake speaks the protocol of the real one
    await bus.store(STATE_BUCKET, INSTALLATION_KEY, msgspec.json.encode(m.Installation(id="installation")), 0)
    await bus.store(STATE_BUCKET, TRADING_KEY, msgspec.json.encode(trading()), 0)
    bus.published.append(product())
    config = msgspec.convert(settings, ExecutionConfig)
    tasks, core, metrics = AsyncioTasks(lambda error: None), ExecutionCore(config), ExecutionMetrics()
    app = ExecutionApp("dev", core, config, bus=bus, clock=SystemClock(), tasks=tasks, venue=venue, metrics=metrics)
    running = Running(bus, fake, app, metrics)
    tasks.spawn(app.shell.run(), "shell")
    try:
        await running.until(lambda: not ready or not app.shell.not_ready())
        yield running
    finally:
        await tasks.close()


def fresh(approval: m.Verdict) -> m.Verdict:
    now = datetime.now(UTC)
    return msgspec.structs.replace(approval, at=now, expires_at=now + timedelta(seconds=30))


async def resting(system: Running) -> None:
    system.bus.write(fresh(verdict(gtc=True)))
    await system.until_status(S.ACCEPTED)


async def test_an_approval_is_sent_once_after_its_submitting_is_durable() -> None:
    async with running() as system:
        system.venue.before_signing = lambda: (
            None if [event.status for event in system.bus.events] == [S.SUBMITTING] else system.venue.sent.append("!")
        )
        await resting(system)
        assert system.venue.sent == [key()]


async def test_without_the_lease_nothing_is_sent_and_the_order_waits_for_its_expiry() -> None:
    async with running() as system:
        system.bus.lease = False
        approval = fresh(verdict(gtc=True))
        soon = datetime.now(UTC) + timedelta(seconds=1)
        system.bus.write(msgspec.structs.replace(approval, expires_at=soon))
        await system.until_status(S.DENIED)
        assert system.venue.sent == []
        assert system.bus.events[-1].reason in (m.Reason.VENUE_UNREACHABLE, m.Reason.APPROVAL_EXPIRED)


async def test_a_halt_that_comes_while_the_request_waits_for_its_turn_holds() -> None:
    async with running() as system:

        def halt() -> None:
            system.store(trading(m.Trading.HALTED, 2))
            system.venue.before_signing = lambda: None

        system.venue.before_signing = halt
        system.bus.write(fresh(verdict(gtc=True)))
        await system.until_status(S.DENIED)
        assert system.venue.sent == []
        assert system.bus.events[-1].reason == m.Reason.TRADING_STATE_CHANGED


async def test_a_trading_state_that_is_lost_while_the_request_waits_for_its_turn_is_a_halt() -> None:
    async with running() as system:

        def lose() -> None:
            del system.bus.entries[STATE_BUCKET, TRADING_KEY]
            for watcher in system.bus.watchers:
                watcher(None)
            system.venue.before_signing = lambda: None

        system.venue.before_signing = lose
        system.bus.write(fresh(verdict(gtc=True)))
        await system.until_status(S.DENIED)
        assert system.venue.sent == []


async def test_with_the_bus_gone_resting_entries_are_canceled_at_the_venue_until_it_said_yes() -> None:
    async with running(bus_lost_cancel_seconds=1) as system:
        await resting(system)
        system.venue.cancel_errors = [OutcomeUnknown("timeout")]
        system.bus.connected = False
        await system.until(lambda: len(system.venue.canceled) == 2)
        assert system.venue.canceled == [["venue-s1"]] * 2


async def test_with_the_bus_gone_a_cancel_that_the_venue_refused_is_asked_for_again() -> None:
    async with running(bus_lost_cancel_seconds=1) as system:
        await resting(system)
        system.venue.refusals = {"venue-s1": "ORDER_IS_BEING_REPLACED"}
        system.bus.connected = False
        await system.until(lambda: len(system.venue.canceled) == 2)


async def test_a_bus_that_lives_but_lets_the_lease_run_out_counts_as_gone() -> None:
    async with running(bus_lost_cancel_seconds=1) as system:
        await resting(system)
        system.bus.lease = False
        await system.until(lambda: bool(system.venue.canceled))


async def test_an_edit_goes_out_once_and_changes_the_order() -> None:
    async with running() as system:
        await resting(system)
        system.bus.write(fresh(edit()))
        await system.until(lambda: system.bus.events[-1].edit_id == "e1" and system.bus.events[-1].status is S.ACCEPTED)
        assert system.venue.sent == [key(), "edit venue-s1 to 2"]
        assert system.bus.events[-1].order.quantity == 2


async def test_an_edit_that_the_venue_refuses_or_that_never_left_ends_as_refused() -> None:
    errors = (Rejected("CANNOT_EDIT_TO_BELOW_FILLED_SIZE"), Retryable("no connection"))
    for error, reason in zip(errors, ("CANNOT_EDIT_TO_BELOW_FILLED_SIZE", "venue_unreachable"), strict=True):
        async with running() as system:
            await resting(system)
            system.venue.edit_error = error
            system.bus.write(fresh(edit()))
            await system.until(lambda system=system: bool(system.bus.events[-1].edit_id))  # type: ignore[misc]
            await system.until_status(S.ACCEPTED)
            assert system.bus.events[-1].reason == f"edit_refused: {reason}"


async def test_an_edit_without_an_answer_is_settled_by_the_order_itself() -> None:
    async with running() as system:
        await resting(system)
        system.venue.edit_error = OutcomeUnknown("timeout")
        system.bus.write(fresh(edit()))
        await system.until_status(S.PENDING_UPDATE)
        system.venue.answer = seen(status=S.ACCEPTED, terms=("2", "99"))
        await system.until_status(S.ACCEPTED)
        assert system.bus.events[-1].order.quantity == 2
        assert system.venue.sent == [key(), "edit venue-s1 to 2"]


async def test_an_account_without_balances_is_no_snapshot_and_is_read_again() -> None:
    async with running(account_seconds=0.05) as system:
        before = len(system.bus.told())
        system.venue.account_errors = [i.AccountParts(unavailable={"balances": "503"})]
        await system.until(lambda: not system.venue.account_errors and len(system.bus.told()) > before)
        assert all(account.balances for account in system.bus.told())


async def test_a_listing_that_fails_is_repeated_and_until_then_it_is_not_ready() -> None:
    venue = ScriptedVenue()
    venue.listing_errors = [OutcomeUnknown("503")]
    async with running(venue) as system:
        assert len(venue.listings) == 2
        assert not system.app.shell.not_ready()
