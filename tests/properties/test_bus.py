"""Whatever stands on a subject, in a key or in a request of the bus: it is read, or refused with DecodeError alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from itertools import chain
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.nats_bus import NatsBus
from libs.common.nats_ledger import NatsLedger, Raw
from libs.common.shell import trading_state
from libs.common.subjects import ROUTES, Kept, Route, decode, subject_of
from tests.properties.damage import ODD, damaged, example, oddities, strangers

EXAMPLES = {route: cast(m.Message, example(route.type)) for route in ROUTES}
STORED = example(m.TradingState)
KINDS = (m.Command, m.Reply, m.Installation)


def all_of(message: object) -> Iterator[bytes]:
    valid = msgspec.json.encode(message)
    return chain([valid], oddities(valid), strangers(valid))


def reads(subject: str, data: bytes) -> m.Message | None:
    """None where it is refused. What is read can be told on, and belongs to the subject."""
    try:
        message = decode(subject, data)
    except msgspec.DecodeError:
        return None
    assert m.sound(message)
    assert subject_of(message) == subject
    assert decode(subject, msgspec.json.encode(message)) == message
    return message


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.type.__name__)
def test_every_odd_value_in_every_place_of_a_message_is_read_or_refused(route: Route) -> None:
    valid = EXAMPLES[route]
    subject = subject_of(valid)
    read = [reads(subject, data) for data in all_of(valid)]
    assert read[0] == valid
    assert None in read


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_message_with_damaged_bytes_is_read_or_refused(data: st.DataObject) -> None:
    valid = EXAMPLES[data.draw(st.sampled_from(ROUTES))]
    reads(subject_of(valid), data.draw(st.composite(lambda draw: damaged(msgspec.json.encode(valid), draw))()))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.type.__name__)
def test_a_message_on_a_subject_that_does_not_fit_is_refused(route: Route) -> None:
    valid, subject = EXAMPLES[route], subject_of(EXAMPLES[route])
    words = ["", ".", "perps", "perps.", "$JS.EVENT", "perps.control.risk.halt", "\udcff", "perps.x." * 300]
    others = [*words, f"{subject}.", f"{subject}.x", f".{subject}", subject.upper(), f"{route.wildcard}.*"]
    others += [f"{subject[:-1]}{letter}" for letter in "y*> " if "{" in route.subject]
    for other in others:
        with pytest.raises(msgspec.DecodeError):
            decode(other, msgspec.json.encode(valid))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_request_and_its_answer_are_read_or_refused(kind: type[msgspec.Struct]) -> None:
    for data in all_of(example(kind)):
        with contextlib.suppress(msgspec.DecodeError):
            assert m.sound(m.read(data, kind))


def test_a_page_of_the_ledger_is_read_over_everything_that_is_none() -> None:
    routes = [route for route in ROUTES if route.kept is Kept.LEDGER]
    bodies = [(subject_of(EXAMPLES[route]), data) for route in routes for data in (*ODD, *all_of(EXAMPLES[route]))]
    page = [Raw(number, *body) for number, body in enumerate(bodies, 1)]
    bus = Page(page)
    ledger = NatsLedger(cast(NatsBus, bus), 0)
    found = asyncio.run(ledger.catch_up())
    assert ledger.position == len(page)
    assert len(found) + bus.refused == len(page)
    assert [route for route in routes if EXAMPLES[route] not in [item.message for item in found]] == []


class Page:
    """The part of a bus that a ledger reads from."""

    def __init__(self, page: list[Raw]) -> None:
        self.page = page
        self.refused = 0

    async def direct_page(self, position: int) -> list[Raw]:
        return self.page[position:]

    def undecodable(self, subject: str, error: Exception) -> None:
        self.refused += 1


def test_a_stored_trading_state_is_what_it_says_or_halted() -> None:
    for number, data in enumerate(all_of(STORED)):
        state = trading_state(Entry(data, number), STORED.since)
        assert state.revision == number
        if state.who == "fail closed":
            assert state.state is m.Trading.HALTED
            with pytest.raises(msgspec.DecodeError):
                m.read(data, m.TradingState)
        else:
            assert state == msgspec.structs.replace(m.read(data, m.TradingState), revision=number)
