"""cancel-all: every order of ours is gone by the venue's own word, or the answer says which is not and why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime

import msgspec
import pytest

from libs.common import messages as m
from libs.common.errors import OutcomeUnknown, Rejected, Retryable
from libs.common.messages import OrderStatus as S
from services.execution import app as app_module
from services.execution import inputs as i
from services.execution.orders import Order
from services.execution.sweep import IDS_AT_MOST, Sweep
from tests.execution.story import Story, edit, key, placed, seen, trading, verdict
from tests.execution.tellings import bought, changed, sale, unknown
from tests.execution.test_app import Bus, Running, ScriptedVenue, resting, running

replace = msgspec.structs.replace
WORDS = {S.ACCEPTED: "OPEN", S.PENDING_CANCEL: "CANCEL_QUEUED", S.CANCELED: "CANCELLED", S.FILLED: "FILLED"}
EDITING = "EDIT_QUEUED"


def order(name: str, ours: bool = True, status: S = S.ACCEPTED) -> i.VenueOrder:
    told = seen(name, status=status).order
    return replace(told, client_order_id=key(name) if ours else f"by-hand-{name}", status_word=WORDS[status])


class Book(ScriptedVenue):
    """Orders that really end when they are canceled. A name in `refuses` is refused with that reason, one in `fills`
    fills instead, one in `queues` waits so many looks in the venue's queue. `arrives` come with each cancellation."""

    def __init__(self, *orders: i.VenueOrder) -> None:
        super().__init__()
        self.book = {told.venue_order_id: told for told in orders}
        self.refuses: dict[str, str] = {}
        self.fills: set[str] = set()
        self.queues: dict[str, int] = {}
        self.arrives: list[i.VenueOrder] = []
        self.silent: list[Exception] = []  # to the next listings
        self.looks = 0
        self.heeds_filters = True

    async def orders(
        self, *, open_only: bool = False, order_ids: Sequence[str] = ()
    ) -> AsyncIterator[list[i.VenueOrder]]:
        if open_only:
            self.looks += 1
        if self.silent:
            raise self.silent.pop(0)
        for told in list(self.book.values()):
            listed = told.status_word in ("OPEN", "PENDING") if open_only else told.venue_order_id in order_ids
            if listed or not (open_only or self.heeds_filters):
                yield [told]
        for name in [name for name, left in self.queues.items() if self._queued(name) and left <= self.looks]:
            self.put(name, S.CANCELED)

    def _queued(self, name: str) -> bool:
        return name in self.book and self.book[name].status is S.PENDING_CANCEL

    def put(self, name: str, status: S) -> None:
        self.book[name] = replace(self.book[name], status=status, status_word=WORDS[status])

    async def cancel(self, venue_order_ids: list[str]) -> dict[str, str]:
        self.canceled.append(venue_order_ids)
        if self.cancel_errors:
            raise self.cancel_errors.pop(0)
        for name in venue_order_ids:
            if name in self.book and name not in self.refuses:
                self.put(
                    name, S.FILLED if name in self.fills else S.PENDING_CANCEL if name in self.queues else S.CANCELED
                )
        for told in self.arrives[:1]:
            self.book[told.venue_order_id] = told
        self.arrives = self.arrives[1:]
        return {name: reason for name, reason in self.refuses.items() if name in venue_order_ids}


async def swept(venue: Book, ours: Callable[[], Iterable[Order]] = lambda: (), passes: int = 30) -> m.Reply:
    """What it says after at most so many passes."""
    left = [passes]

    async def sleep(seconds: float) -> None:
        assert seconds > 0
        left[0] -= 1
        if not left[0]:
            raise TimeoutError

    sweep = Sweep(venue, venue.cancel, ours, sleep)
    with contextlib.suppress(TimeoutError):
        await sweep.run()
    return sweep.reply()


# -- the sweep


async def test_all_of_ours_are_canceled_together_and_what_is_not_ours_is_counted_and_left_alone() -> None:
    venue = Book(order("s1"), order("s2"), order("x", ours=False), order("old", status=S.FILLED))
    reply = await swept(venue)
    assert venue.canceled == [["venue-s1", "venue-s2"]]
    assert (reply.ok, reply.detail) == (True, "2 canceled, 1 not ours left alone")
    assert reply.data == {"canceled": "2", "ended_otherwise": "0", "open": "0", "on_their_way": "0", "not_ours": "1"}
    assert venue.book["venue-x"].status is S.ACCEPTED


async def test_it_is_over_only_when_the_venue_has_shown_the_end() -> None:
    venue = Book(order("s1"))
    venue.queues = {"venue-s1": 4}
    reply = await swept(venue)
    assert (reply.ok, venue.looks, venue.canceled) == (True, 4, [["venue-s1"]])  # what is queued is not asked for again


async def test_where_nothing_is_open_a_second_time_changes_nothing() -> None:
    venue = Book(order("s1"), order("x", ours=False))
    await swept(venue)
    reply = await swept(venue)
    assert (reply.ok, reply.detail, len(venue.canceled)) == (True, "0 canceled, 1 not ours left alone", 1)


async def test_it_goes_on_while_new_ones_come() -> None:
    venue = Book(order("s1"))
    venue.arrives = [order("s2"), order("s3")]
    reply = await swept(venue)
    assert (reply.ok, reply.detail, len(venue.canceled)) == (True, "3 canceled", 3)


async def test_what_filled_before_its_cancellation_is_not_told_as_canceled() -> None:
    venue = Book(order("s1"), order("s2"))
    venue.fills = {"venue-s2"}
    assert (await swept(venue)).detail == "1 canceled, 1 ended otherwise"


async def test_what_the_venue_refuses_is_asked_for_again_and_named_with_its_reason() -> None:
    venue = Book(order("s1"), order("s2"))
    venue.refuses = {"venue-s1": "COMMANDER_REJECTED_CANCEL_ORDER"}
    reply = await swept(venue, passes=3)
    assert (reply.ok, reply.data["open"]) == (False, "1")
    assert reply.detail == "1 canceled, 1 still open: venue-s1 OPEN (COMMANDER_REJECTED_CANCEL_ORDER)"
    assert venue.canceled == [["venue-s1", "venue-s2"], ["venue-s1"], ["venue-s1"]]
    venue.refuses = {"venue-s1": "DUPLICATE_CANCEL_REQUEST"}
    assert (await swept(venue, passes=2)).detail == "0 canceled, 1 still open: venue-s1 OPEN"


async def test_of_many_that_stay_some_are_named() -> None:
    venue = Book(*[order(f"s{number}") for number in range(8)])
    venue.refuses = dict.fromkeys(venue.book, "NO")
    reply = await swept(venue, passes=1)
    assert reply.detail.startswith("0 canceled, 8 still open: venue-s0 OPEN (NO); venue-s1")
    assert reply.detail.endswith("venue-s4 OPEN (NO); 3 more")


@pytest.mark.parametrize("error", [Retryable("429"), OutcomeUnknown("503"), Rejected("HTTP_403", "view only")])
async def test_a_silent_venue_is_asked_again_and_a_look_without_an_answer_ends_nothing(error: Exception) -> None:
    venue = Book(order("s1"))
    venue.silent, venue.cancel_errors = [error], [error]
    assert (await swept(venue)).ok
    assert len(venue.canceled) == 2
    venue.silent = [error] * 1000
    reply = await swept(venue)
    assert (reply.ok, reply.detail) == (False, f"0 canceled, the venue's answer is incomplete: {error}")


async def test_an_order_in_the_middle_of_an_edit_is_known_from_our_books_where_the_listing_leaves_it_out() -> None:
    venue = Book(replace(order("s1"), status_word=EDITING))
    known = Story().tell(verdict(gtc=True), placed(), edit())
    assert (await swept(venue)).detail == "0 canceled"
    reply = await swept(venue, lambda: known.core.state.orders.values())
    assert (reply.detail, venue.canceled) == ("1 canceled", [["venue-s1"]])


async def test_an_order_that_had_ended_before_we_asked_is_not_told_as_canceled() -> None:
    venue = Book(order("s1", status=S.CANCELED))
    known = Story().tell(verdict(gtc=True), placed())  # our books do not know it yet
    reply = await swept(venue, lambda: known.core.state.orders.values())
    assert (reply.ok, reply.detail, venue.canceled) == (True, "0 canceled", [])


async def test_an_order_that_the_venue_does_not_tell_of_is_asked_for_and_has_not_ended() -> None:
    known = Story().tell(verdict(gtc=True), placed())
    venue = Book()
    reply = await swept(venue, lambda: known.core.state.orders.values(), passes=2)
    assert (reply.ok, reply.detail) == (False, "0 canceled, 1 still open: venue-s1 not told by the venue")
    assert venue.canceled == [["venue-s1"]] * 2


async def test_a_venue_that_heeds_no_filter_does_not_make_others_orders_ours() -> None:
    venue = Book(order("s1"), replace(order("x", ours=False), status_word="QUEUED"))
    venue.heeds_filters = False
    assert (await swept(venue)).detail == "1 canceled"
    assert venue.canceled == [["venue-s1"]]


async def test_more_orders_than_fit_in_one_question_are_all_settled() -> None:
    venue = Book(*[order(f"s{number}") for number in range(2 * IDS_AT_MOST + 1)])
    assert (await swept(venue)).detail == f"{2 * IDS_AT_MOST + 1} canceled"
    assert venue.looks == 2


@pytest.mark.parametrize("outcome", ["unknown", "submitting"])
async def test_it_waits_for_what_is_on_its_way_and_may_come_to_rest(outcome: str) -> None:
    story, venue = Story().tell(verdict(gtc=True)), Book()
    story.tell(*([unknown()] if outcome == "unknown" else []))
    reply = await swept(venue, lambda: story.core.state.orders.values(), passes=2)
    assert (reply.ok, reply.data["on_their_way"]) == (False, "1")
    assert reply.detail == f"0 canceled, 1 sent and may still come to rest: {key()}"
    looked = [0]

    def ours() -> Iterable[Order]:
        looked[0] += 1
        if looked[0] == 2:  # it arrives between our look at the books and the venue's answer
            before = list(story.core.state.orders.values())
            venue.book["venue-s1"] = order("s1")
            story.tell(placed())
            return before
        return story.core.state.orders.values()

    assert (await swept(venue, ours)).detail == "1 canceled"


@pytest.mark.parametrize("sent", [verdict(), changed(verdict(gtc=True), time_in_force=m.TimeInForce.FOK)])
async def test_what_cannot_rest_and_what_was_not_sent_are_not_waited_for(sent: m.Verdict) -> None:
    story = Story().tell(sent)
    story.core.on_message(verdict("s2", gtc=True), story.now)  # approved; its first step is not durable yet
    assert (await swept(Book(), lambda: story.core.state.orders.values())).ok


async def test_exits_go_too() -> None:
    known, venue = bought().tell(sale("s2", "1"), placed("s2")), Book(order("s2"))
    assert (await swept(venue, lambda: known.core.state.orders.values())).detail == "1 canceled"


# -- the command


async def asked(system: Running, **fields: str) -> m.Reply:
    return await system.bus.served["cancel-all"](m.Command(**({"reason": "drill", "who": "ann"} | fields)))  # type: ignore[arg-type]


def audits(bus: Bus) -> list[m.Audit]:
    return [message for message in bus.published if isinstance(message, m.Audit)]


async def test_what_came_of_it_is_answered_audited_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Book(order("s1"), order("x", ours=False))) as system:
        with caplog.at_level(logging.WARNING):
            reply = await asked(system)
        assert (reply.ok, reply.detail) == (True, "1 canceled, 1 not ours left alone")
        [audit] = audits(system.bus)
        assert (audit.command, audit.who, audit.reason) == ("cancel-all", "ann", "drill")
        assert (audit.ok, audit.result, audit.producer) == (True, reply.detail, "execution")
        told = next(record for record in caplog.records if getattr(record, "event", "") == "execution.cancel_all")
        assert (told.levelname, told.getMessage()) == ("WARNING", f"cancel-all: {reply.detail}")


@pytest.mark.parametrize("reason", ["", "  \n"])
async def test_without_a_reason_nothing_is_asked_for_and_the_refusal_is_audited(reason: str) -> None:
    venue = Book(order("s1"))
    async with running(venue) as system:
        reply = await asked(system, reason=reason)
        assert (reply.ok, reply.detail) == (False, "a reason is required")
        assert (venue.looks, venue.canceled) == (0, [])
        assert [(audit.ok, audit.result) for audit in audits(system.bus)] == [(False, reply.detail)]


async def test_without_the_lease_it_refuses_in_one_line() -> None:
    venue = Book(order("s1"))
    async with running(venue) as system:
        system.bus.lease = False
        reply = await asked(system)
        assert (reply.ok, "\n" in reply.detail) == (False, False)
        assert "lease" in reply.detail
        assert (venue.looks, venue.canceled) == (0, [])


async def test_a_process_that_waits_for_the_lease_does_not_answer_in_place_of_the_one_that_holds_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits, free = asyncio.Event(), asyncio.Event()

    async def hold(bus: Bus, name: str) -> int:
        waits.set()
        await free.wait()
        return 1

    monkeypatch.setattr(Bus, "hold_lease", hold)
    async with running(Book(), ready=False) as system:
        await waits.wait()
        assert "cancel-all" not in system.bus.served
        free.set()
        await system.until(lambda: "cancel-all" in system.bus.served)


async def test_it_works_before_the_past_is_read_and_before_the_first_comparison_with_the_venue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Deaf(Book):
        async def listing(self, since: datetime) -> i.Listing:
            await asyncio.Event().wait()
            raise AssertionError

    venue = Deaf(order("s1"))
    async with running(venue, ready=False) as system:
        await system.until(lambda: system.app.shell.not_ready() == "not yet compared with the venue's orders and fills")
        assert (await asked(system)).ok

    async def stuck(bus: Bus, bucket: str, key: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Bus, "load", stuck)
    async with running(Book(order("s1")), ready=False) as system:
        await system.until(lambda: "cancel-all" in system.bus.served)
        assert system.app.shell.not_ready() == "recovering"
        assert (await asked(system)).detail == "1 canceled"


@pytest.mark.parametrize("state", [m.Trading.ACTIVE, m.Trading.HALTED])
async def test_afterwards_the_books_learn_of_it_at_once(state: m.Trading) -> None:
    venue = Book()
    async with running(venue, poll_seconds=1000, reconcile_seconds=1000) as system:
        system.store(trading(state))
        listings = len(venue.listings)
        await asked(system)
        await system.until(lambda: len(venue.listings) > listings)


async def test_an_order_of_ours_that_rests_is_ended_in_the_ledger_too() -> None:
    venue = Book()
    async with running(venue, poll_seconds=1000, reconcile_seconds=1000) as system:
        venue.book["venue-s1"] = order("s1")
        await resting(system)
        venue.answer = seen(status=S.CANCELED)
        assert (await asked(system)).detail == "1 canceled"
        await system.until_status(S.CANCELED)


async def test_a_venue_that_never_answers_does_not_hold_the_reply_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Hanging(Book):
        async def orders(
            self, *, open_only: bool = False, order_ids: Sequence[str] = ()
        ) -> AsyncIterator[list[i.VenueOrder]]:
            self.looks += 1
            if self.looks > 1:
                await asyncio.Event().wait()
            yield list(self.book.values())

    monkeypatch.setattr(app_module, "CANCEL_ALL_SECONDS", 0.5)
    venue = Hanging(order("s1"))
    async with running(venue) as system:
        reply = await asked(system)
        said = "0 canceled, 1 still open: venue-s1 OPEN, the venue's answer is incomplete: the last look was cut short"
        assert (reply.ok, reply.detail) == (False, said)
        assert [audit.ok for audit in audits(system.bus)] == [False]
        told = next(record for record in caplog.records if getattr(record, "event", "") == "execution.cancel_all")
        assert told.levelname == "ERROR"


def test_the_time_limit_leaves_room_for_the_answer_to_a_request_over_the_bus() -> None:
    assert app_module.CANCEL_ALL_SECONDS <= 8


async def test_cancellations_are_counted_by_outcome() -> None:
    venue = Book(order("s1"), order("s2"))
    venue.cancel_errors = [OutcomeUnknown("503")]
    venue.refuses = {"venue-s2": "NO"}
    async with running(venue) as system:
        task = asyncio.create_task(asked(system))
        await system.until(lambda: len(venue.canceled) == 2)
        venue.refuses = {}
        assert (await task).ok
        counts = {
            outcome: system.metrics.registry.get_sample_value(
                "perps_execution_cancellations_total", {"outcome": outcome}
            )
            for outcome in ("taken", "refused", "no_answer")
        }
        assert counts == {"taken": 2, "refused": 1, "no_answer": 2}
