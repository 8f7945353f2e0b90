"""The operator knows when everything that was begun has come to its end."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from cli.journal import Journal, money, plain
from libs.common import messages as m
from tests.cli.builders import START, OperatorBus, decision, event, figures, fill, verdict


async def followed() -> tuple[OperatorBus, Journal]:
    bus = OperatorBus()
    journal = Journal(bus)
    await journal.follow(m.Decision, m.Signal, m.RiskFigures)
    return bus, journal


async def test_a_signal_is_unfinished_until_it_is_denied() -> None:
    bus, journal = await followed()
    bus.say(decision(START, signal_id="s1"))
    assert journal.unfinished
    bus.pages.messages.append(verdict("s1", approved=False))
    assert await journal.read_ledger()
    assert not journal.unfinished


async def test_an_approval_is_unfinished_until_its_order_is_at_its_end() -> None:
    bus, journal = await followed()
    bus.say(decision(START, signal_id="s1"))
    bus.pages.messages += [verdict("s1"), event("s1", m.OrderStatus.ACCEPTED), fill()]
    await journal.read_ledger()
    assert journal.unfinished
    bus.pages.messages.append(event("s1", m.OrderStatus.FILLED))
    await journal.read_ledger()
    assert not journal.unfinished
    assert list(journal.fills) == ["f1"]


async def test_an_edit_that_is_approved_after_the_end_of_its_order_opens_nothing() -> None:
    bus, journal = await followed()
    late = msgspec.structs.replace(verdict("s1"), signal_id="edit", edits=True)
    bus.pages.messages += [verdict("s1"), event("s1", m.OrderStatus.FILLED), late]
    await journal.read_ledger()
    assert not journal.unfinished


async def test_a_signal_that_is_repeated_after_its_answer_is_not_open_again() -> None:
    bus, journal = await followed()
    bus.pages.messages.append(verdict("s1", approved=False))
    await journal.read_ledger()
    bus.say(decision(START, signal_id="s1"))
    assert not journal.unfinished
    assert journal.signals == {"s1"}


async def test_reading_a_ledger_without_news_says_so() -> None:
    bus, journal = await followed()
    bus.pages.messages.append(fill())
    assert await journal.read_ledger()
    assert not await journal.read_ledger()


async def test_waiting_ends_with_what_was_waited_for_or_with_the_time() -> None:
    bus, journal = await followed()
    assert not await journal.until(lambda: journal.equity is not None, 0.01)
    bus.say(figures({"USD": "1000"}, equity="1000"))
    bus.say(figures({"USD": "900"}, equity="900"))
    assert await journal.until(lambda: journal.equity is not None, 0.01)
    assert (journal.first_equity, journal.equity) == (Decimal(1000), Decimal(900))


def test_amounts_are_written_for_people_and_for_machines() -> None:
    assert [plain(Decimal(text)) for text in ("1E+2", "0.50", "-0.00000001")] == ["100", "0.5", "-0.00000001"]
    assert [money(Decimal("1234567.891")), money(None)] == ["1,234,567.89", "-"]
