"""Every guard of execution's shell by itself: what would send twice, let a halt through, or take silence for a yes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.errors import OutcomeUnknown, Rejected, Retryable
from libs.common.subjects import OPENING_KEY, STATE_BUCKET, TRADING_KEY
from services.execution import inputs as i
from services.execution.rounds import Rounds
from tests.common.memory_bus import MemoryLedger
from tests.execution.story import NOON, edit, key, seen, trading, verdict
from tests.execution.tellings import adjustment, closing
from tests.execution.test_app import Bus, Running, ScriptedVenue, WaitingLedger, fresh, resting, running

S = m.OrderStatus


class Searched(ScriptedVenue):
    """Its answers to searches and its user channel are written down too."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[i.VenueOrder | Exception | None] = []  # to the next searches; after them no answer comes
        self.updates: asyncio.Queue[i.VenueOrder | None] = asyncio.Queue()
        self.order_of_calls: list[str] = []

    async def find(self, client_order_id: str, product_id: str, start: datetime) -> i.VenueOrder | None:
        answer = self.found.pop(0) if self.found else OutcomeUnknown("503")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def listing(self, since: datetime) -> i.Listing:
        self.order_of_calls.append("listing")
        return await super().listing(since)

    async def account(self) -> i.AccountParts:
        self.order_of_calls.append("account")
        return await super().account()

    async def user_updates(self) -> AsyncIterator[i.VenueOrder | None]:
        while True:
            yield await self.updates.get()


async def test_a_request_that_got_no_answer_is_unknown_and_is_never_sent_again() -> None:
    venue = Searched()
    async with running(venue) as system:
        system.venue.place_error = OutcomeUnknown("timeout")
        venue.found = [Retryable("no connection"), OutcomeUnknown("503"), Rejected("400")]
        system.bus.write(fresh(verdict(gtc=True)))
        await system.until_status(S.UNKNOWN)
        await system.until(lambda: not venue.found)
        venue.found = [seen(status=S.ACCEPTED).order]
        await system.until_status(S.ACCEPTED)
        assert system.venue.sent == [key()]


async def test_an_order_never_arrived_only_once_the_token_that_was_signed_is_dead() -> None:
    venue = Searched()
    async with running(venue, jwt_margin_seconds=0) as system:
        system.venue.place_error = OutcomeUnknown("timeout")
        venue.found = [None] * 6
        system.bus.write(fresh(verdict(gtc=True)))
        await system.until(lambda: not venue.found)
        assert system.bus.events[-1].status is S.UNKNOWN  # signed for ten seconds, which are not over


async def test_a_refusal_by_the_venue_is_its_own_and_keeps_its_reason() -> None:
    async with running() as system:
        system.venue.place_error = Rejected("INSUFFICIENT_FUND")
        system.bus.write(fresh(verdict(gtc=True)))
        await system.until_status(S.REJECTED)
        assert system.bus.events[-1].reason == "INSUFFICIENT_FUND"


def halt_unseen(system: Running) -> None:
    """The state is stored, and we have not been told of it."""
    system.bus.entries[STATE_BUCKET, TRADING_KEY] = Entry(msgspec.json.encode(trading(m.Trading.HALTED, 2)), 2)


async def test_a_halt_that_is_stored_but_not_told_yet_holds_for_an_order_and_for_an_edit() -> None:
    async with running() as system:
        await resting(system)
        halt_unseen(system)
        system.bus.write(fresh(edit()))
        await system.until(lambda: bool(system.bus.events[-1].edit_id) and system.bus.events[-1].status is S.ACCEPTED)
        assert system.bus.events[-1].reason == "edit_refused: trading_state_changed"
        system.bus.write(fresh(verdict("s2", gtc=True)))
        await system.until_status(S.DENIED)
        assert system.bus.events[-1].reason == m.Reason.TRADING_STATE_CHANGED
        assert system.venue.sent == [key()]


async def test_an_edit_does_not_leave_once_the_lease_is_gone() -> None:
    async with running() as system:
        await resting(system)

        def lose() -> None:
            system.bus.lease = False

        system.venue.before_signing = lose
        system.bus.write(fresh(edit()))
        await system.until(lambda: bool(system.bus.events[-1].edit_id) and system.bus.events[-1].status is S.ACCEPTED)
        assert system.bus.events[-1].reason == "edit_refused: venue_unreachable"
        assert system.venue.sent == [key()]


async def test_the_user_channel_leads_to_a_question_at_once() -> None:
    venue = Searched()
    async with running(venue, poll_seconds=1000) as system:
        await resting(system)
        system.venue.answer = seen(status=S.CANCELED)
        venue.updates.put_nowait(system.venue.answer.order)
        await system.until_status(S.CANCELED)


async def test_after_a_hole_in_the_user_channel_open_orders_are_asked_about_at_once() -> None:
    venue = Searched()
    async with running(venue, poll_seconds=1000) as system:
        await resting(system)
        system.venue.answer = seen(status=S.CANCELED)
        venue.updates.put_nowait(None)
        await system.until_status(S.CANCELED)


async def test_balances_beside_an_open_order_count_by_what_the_venue_lists_and_not_without_a_listing() -> None:
    async with running(account_seconds=0.05, reconcile_seconds=1000) as system:
        await resting(system)
        await system.until(lambda: system.bus.told()[-1].settled)
        system.venue.listing_errors = [OutcomeUnknown("503")]
        before = len(system.bus.told())
        await system.until(lambda: not all(account.settled for account in system.bus.told()[before:]))
        assert system.venue.listing_errors == []


async def test_an_installation_that_another_process_recorded_first_is_the_one_that_counts() -> None:
    async with running() as system:
        theirs = m.Installation(id="installation", opening={"USD": Decimal(7)})
        system.bus.entries[STATE_BUCKET, OPENING_KEY] = Entry(msgspec.json.encode(theirs), 1)
        [made] = await system.app._perform(i.StoreOpening(id="installation", opening={"USD": Decimal(9)}))
        assert made == theirs
        assert msgspec.json.decode(system.bus.entries[STATE_BUCKET, OPENING_KEY].value, type=m.Installation) == theirs


async def test_with_the_bus_gone_an_order_whose_acceptance_is_not_stored_is_canceled_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(bus_lost_cancel_seconds=0.1) as system:

        async def stuck(ledger: MemoryLedger, message: m.Message, over: str = "") -> int:
            if isinstance(message, m.OrderEvent) and message.status is S.ACCEPTED:
                system.bus.connected = False
                await asyncio.Event().wait()
            return await MemoryLedger.append(ledger, message, over)

        monkeypatch.setattr(WaitingLedger, "append", stuck)
        system.bus.write(fresh(verdict(gtc=True)))
        await system.until(lambda: system.venue.canceled == [["venue-s1"]])
        assert system.bus.events[-1].status is S.SUBMITTING


async def test_a_bus_that_is_gone_again_cancels_again_and_not_before_its_time_is_up() -> None:
    async with running(bus_lost_cancel_seconds=1.5) as system:
        await resting(system)
        system.bus.connected = False
        await system.until(lambda: system.venue.canceled == [["venue-s1"]])
        began = asyncio.get_running_loop().time()
        system.bus.connected = True
        await system.until(lambda: asyncio.get_running_loop().time() - began > 1.2)
        system.bus.connected = False
        again = asyncio.get_running_loop().time()
        await system.until(lambda: len(system.venue.canceled) == 2)
        assert asyncio.get_running_loop().time() - again >= 1.5


async def test_the_moment_of_a_reading_is_taken_before_it_and_open_orders_are_listed_after_the_balances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Moving(Searched):
        async def account(self) -> i.AccountParts:
            system.app._core.epoch += 1  # an order moves meanwhile
            return await super().account()

    async with running() as system:
        await resting(system)
        posted: list[m.Message] = []
        monkeypatch.setattr(system.app.shell, "post", posted.append)
        venue = Moving()
        monkeypatch.setattr(system.app, "_venue", venue)
        before = system.app._core.epoch
        await system.app._read_account()
        assert venue.order_of_calls == ["account", "listing"]
        venue.account_errors = [i.AccountParts(unavailable={"balances": "503"})]
        assert not await system.app._read_account()  # that round is to be repeated
        system.app._reconcile = i.Reconcile(id="r", since=NOON, until=NOON)
        await system.app._read_listing()
        [seen_at] = [item.epoch for item in posted if isinstance(item, i.AccountSeen)]
        [until] = [item.until for item in posted if isinstance(item, i.Reconciled)]
        assert (seen_at, until) == (before, NOON)


async def test_a_request_that_did_not_leave_is_tried_again_after_a_pause_only() -> None:
    async with running() as system:
        tries: list[int] = []
        system.venue.before_signing = lambda: tries.append(1)
        system.bus.lease = False
        soon = datetime.now(UTC) + timedelta(seconds=1)
        system.bus.write(msgspec.structs.replace(fresh(verdict(gtc=True)), expires_at=soon))
        await system.until_status(S.DENIED)
        assert 1 <= len(tries) <= 2


async def test_with_the_bus_gone_an_order_without_a_venue_id_does_not_spoil_the_cancel_of_the_others() -> None:
    async with running(bus_lost_cancel_seconds=0.1) as system:
        await resting(system)
        system.venue.place_error = OutcomeUnknown("timeout")
        system.bus.write(fresh(verdict("s2", gtc=True)))
        await system.until_status(S.UNKNOWN)
        system.bus.connected = False
        await system.until(lambda: bool(system.venue.canceled))
        assert system.venue.canceled[0] == ["venue-s1"]


async def test_a_question_without_an_answer_is_put_again() -> None:
    class Silent(Searched):
        async def order(self, venue_order_id: str) -> tuple[i.VenueOrder, list[i.VenueFill]]:
            if errors:
                raise errors.pop(0)
            return await super().order(venue_order_id)

    errors: list[Exception] = [Retryable("no connection"), OutcomeUnknown("503"), Rejected("400")]
    async with running(Silent(), poll_seconds=0.05) as system:
        system.bus.write(fresh(verdict(gtc=True)))
        await system.until(lambda: not errors)
        system.venue.answer = seen(status=S.CANCELED)
        await system.until_status(S.CANCELED)


async def test_the_account_is_compared_again_and_again() -> None:
    async with running(reconcile_seconds=1) as system:
        await system.until(lambda: len(system.venue.listings) == 2)


# -- closings and adjustments


async def test_under_a_halt_with_a_closing_its_order_leaves_and_no_other_does() -> None:
    async with running() as system:
        system.bus.write(adjustment("a1", "1"))
        system.store(trading(m.Trading.HALTED, 2, flatten="f1"))
        system.bus.write(fresh(verdict("s2", m.Side.SELL, "1", reduce_only=True, revision=2)))
        await system.until_status(S.DENIED)
        assert system.bus.events[-1].reason == m.Reason.TRADING_HALTED
        system.bus.write(fresh(closing("c1", "1")))
        await system.until(lambda: system.venue.sent == [key("c1")])


async def test_a_halt_that_ends_the_closing_stops_its_order_while_that_waits_for_its_turn() -> None:
    async with running() as system:
        system.bus.write(adjustment("a1", "1"))
        system.store(trading(m.Trading.HALTED, 2, flatten="f1"))
        system.venue.before_signing = lambda: system.store(trading(m.Trading.HALTED, 3))
        system.bus.write(fresh(closing("c1", "1")))
        await system.until_status(S.DENIED)
        assert system.venue.sent == []
        assert system.bus.events[-1].reason == m.Reason.TRADING_STATE_CHANGED


async def test_after_an_adjustment_the_account_is_told_anew_with_the_ledger_that_holds_it() -> None:
    async with running(account_seconds=1000) as system:
        system.bus.write(adjustment("a1", USD="50"))
        await system.until(lambda: system.bus.told()[-1].ledger_sequence == 1)
        assert system.bus.told()[-1].settled


# -- rounds


class Turns:
    """Tasks that run in turn, and a sleep that only writes down how long."""

    def __init__(self) -> None:
        self.spawned: list[asyncio.Task[None]] = []
        self.slept: list[float] = []

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.spawned.append(asyncio.get_running_loop().create_task(work, name=name))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_one_round_runs_at_a_time_and_one_more_for_all_who_asked_meanwhile() -> None:
    turns, done = Turns(), list[int]()

    async def work() -> bool:
        done.append(1)
        if len(done) == 1:
            rounds.ask()
            rounds.ask()
        return True

    rounds = Rounds("r", turns, work, 5)
    rounds.ask()
    rounds.ask()
    assert len(turns.spawned) == 1
    await turns.spawned[0]
    assert (len(done), turns.slept, len(turns.spawned)) == (2, [5, 5], 1)
    rounds.ask()
    await turns.spawned[1]
    assert len(done) == 3


@pytest.mark.parametrize(("gap", "slept"), [(0.0, [1]), (5.0, [5, 5])])
async def test_a_round_that_failed_is_repeated_after_a_pause(gap: float, slept: list[float]) -> None:
    turns, answers = Turns(), [False, True]

    async def work() -> bool:
        return answers.pop(0)

    Rounds("r", turns, work, gap).ask()
    await turns.spawned[0]
    assert (answers, turns.slept) == ([], slept)


# -- when a question was put


async def test_an_answer_tells_when_its_question_was_put_and_a_failure_is_never_a_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered: list[datetime] = []

    class Late(Searched):
        async def find(self, client_order_id: str, product_id: str, start: datetime) -> i.VenueOrder | None:
            try:
                return await super().find(client_order_id, product_id, start)
            finally:
                await asyncio.sleep(0.01)
                answered.append(datetime.now(UTC))

        async def order(self, venue_order_id: str) -> tuple[i.VenueOrder, list[i.VenueFill]]:
            await asyncio.sleep(0.01)
            answered.append(datetime.now(UTC))
            return await super().order(venue_order_id)

    venue = Late()
    async with running(venue) as system:
        posted: list[m.Message] = []
        monkeypatch.setattr(system.app.shell, "post", posted.append)
        venue.found = [None, OutcomeUnknown("503")]
        now = datetime.now(UTC)
        find = i.Find(id="f", client_order_id=key(), product_id="BTC-USD", start=now, delay_seconds=0)
        await system.app._find(find)
        await system.app._find(find)
        await system.app._query(i.Query(id="q", client_order_id=key(), venue_order_id="venue-s1", delay_seconds=0))
        missing, failed, told = (item for item in posted if isinstance(item, i.NotFound | i.AskFailed | i.OrderSeen))
        assert isinstance(missing, i.NotFound)
        assert isinstance(failed, i.AskFailed)
        assert isinstance(told, i.OrderSeen)
        assert missing.asked_at < answered[0]
        assert told.asked_at < answered[2]


async def test_the_lease_is_held_and_the_start_is_told_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    async def hold(bus: Bus, name: str) -> int:
        assert name == "execution"
        kept.append(len(bus.entries))
        return 1

    monkeypatch.setattr(Bus, "hold_lease", hold)
    before = datetime.now(UTC)
    async with running() as system:
        assert kept == [2]  # what was there before this start, and nothing of its own
        assert system.app._core._started_at >= before
