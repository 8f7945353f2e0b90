"""The next tick waits until everything that follows from the last one is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import httpx
import msgspec
import pytest

from cli import feeder as feeder_module
from cli.feeder import Feeder, Step, SteppedFill
from cli.journal import Journal
from libs.common import messages as m
from libs.common.errors import StackFailed
from tests.cli.builders import PRODUCT, START, OperatorBus, decision, event, fill, mark, verdict


class Venue:
    """Ticks a minute apart; `on_step` is what the system does about one."""

    def __init__(self, ticks: int) -> None:
        self.ticks = ticks
        self.done = 0
        self.fills: dict[int, list[SteppedFill]] = {}
        self.on_step: Callable[[int], None] = lambda tick: None

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert (request.url.path, request.content) == ("/sim/step", b'{"ticks":1}')
        ended = self.done == self.ticks
        if not ended:
            self.on_step(self.done + 1)
            self.done += 1
        at = START + timedelta(minutes=self.done)
        step = Step(ended, at, self.done, self.ticks, {PRODUCT: at}, self.fills.get(self.done, []))
        return httpx.Response(200, content=msgspec.json.encode(step))


class World:
    def __init__(self, ticks: int = 3, speed: float = 0.0) -> None:
        self.bus = OperatorBus()
        self.venue = Venue(ticks)
        self.venue.on_step = lambda tick: self.bus.say(decision(START + timedelta(minutes=tick)))
        self.seen: list[int] = []
        self._speed = speed

    async def feed(self) -> Feeder:
        journal = Journal(self.bus)
        await journal.follow(m.Decision, m.Signal)
        async with httpx.AsyncClient(
            transport=httpx.MockTransport(self.venue.answer), base_url="http://venue"
        ) as client:
            feeder = Feeder(journal, self.bus, client, self._speed)
            await feeder.run(lambda step: self.seen.append(step.ticks_done))
        return feeder


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder_module, "TICK_SECONDS", 0.05)


async def test_every_tick_is_fed_once_and_quiet_ones_ask_nobody() -> None:
    world = World(ticks=3)
    feeder = await world.feed()
    assert world.seen == [1, 2, 3]
    assert (feeder.first_time, feeder.last and feeder.last.ticks_done) == (START + timedelta(minutes=1), 3)
    services = [service for service, _ in world.bus.asked]
    assert services == ["marketdata", "strategy", "risk", "execution"] * 2  # before the first, after the last


async def test_a_decision_on_an_older_mark_does_not_count() -> None:
    world = World(ticks=1)
    world.venue.on_step = lambda tick: world.bus.say(decision(START))
    world.bus.values = [mark(START + timedelta(minutes=1))]
    with pytest.raises(StackFailed, match="strategy is behind: no decision"):
        await world.feed()


async def test_without_a_mark_it_is_marketdata_that_is_behind() -> None:
    world = World(ticks=1)
    world.venue.on_step = lambda tick: None
    world.bus.values = [mark(START)]
    with pytest.raises(StackFailed, match="marketdata is behind: no mark"):
        await world.feed()


async def test_after_a_signal_nothing_goes_on_before_everybody_is_at_rest_at_the_same_place() -> None:
    world = World(ticks=2)

    before_the_second: list[tuple[str, int]] = []

    def step(tick: int) -> None:
        before_the_second[:] = world.bus.asked
        world.bus.say(decision(START + timedelta(minutes=tick), signal_id="s1" if tick == 1 else ""))
        if tick == 1:
            world.bus.replies["risk"] = [m.Reply(ok=True, busy=True)]
            world.bus.on_request = lambda service: trade() if service == "execution" else None
            world.bus.asked.clear()

    def trade() -> None:
        world.bus.on_request = lambda service: None
        world.bus.pages.messages += [verdict("s1"), fill(), event("s1")]

    world.venue.on_step = step
    await world.feed()
    # Risk is busy; then the ledger grows; then all four have read it up to its end.
    assert before_the_second == [
        *[(service, 0) for service in ("marketdata", "strategy", "risk")],
        *[(service, 0) for service in ("marketdata", "strategy", "risk", "execution")],
        *[(service, 3) for service in ("marketdata", "strategy", "risk", "execution")],
    ]


async def test_a_fill_of_a_step_has_to_be_on_the_ledger() -> None:
    world = World(ticks=2)
    world.venue.fills = {1: [SteppedFill("f1", "order-s1", PRODUCT)]}
    with pytest.raises(StackFailed, match="execution has not booked the venue's fill f1"):
        await world.feed()


async def test_who_never_comes_to_rest_is_named() -> None:
    world = World(ticks=1)
    world.bus.replies["strategy"] = [m.Reply(ok=True, busy=True)] * 10_000
    with pytest.raises(StackFailed, match="strategy has not finished"):
        await world.feed()


async def test_market_time_never_runs_faster_than_the_speed() -> None:
    world = World(ticks=3, speed=600)  # two minutes between the first tick and the last
    began = time.monotonic()
    await world.feed()
    assert 0.2 <= time.monotonic() - began < 2


async def test_a_venue_that_does_not_step_ends_the_replay() -> None:
    world = World(ticks=1)

    def broken(tick: int) -> None:
        raise httpx.ConnectError("refused")

    world.venue.on_step = broken
    with pytest.raises(StackFailed, match="the simulated venue does not step"):
        await world.feed()
