from __future__ import annotations

import asyncio
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import msgspec

from libs.common import messages as m
from libs.common.bus import Delivery, Entry
from libs.common.clock import AsyncioTasks
from libs.common.settings import Settings
from libs.common.shell import Shell
from libs.common.subjects import INSTALLATION_KEY, STATE_BUCKET, TRADING_KEY, subject_of
from services.strategy.app import Counted, inputs
from services.strategy.metrics import StrategyMetrics
from tests.common.memory_bus import MemoryBus, MemoryLedger
from tests.strategy.builders import (
    BTC,
    ENTER,
    EXIT,
    MINUTE,
    T0,
    World,
    candle,
    deny,
    fill,
    mark,
    seconds,
    state,
)


class Hands:
    """A clock whose hands the test moves."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def wall(self) -> datetime:
        return self.now

    def market(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()

    def observe(self, market_time: datetime) -> None:
        self.now = max(self.now, market_time)


class Service:
    """The counted core, recovered, with a look at its metrics."""

    def __init__(self, recovered: bool = True) -> None:
        self.world = World(recovered=False)
        self.clock = Hands(self.world.now)
        self.metrics = StrategyMetrics()
        self.counted = Counted(self.world.core, self.metrics, self.clock)
        if recovered:
            self.send(m.Recovered(id="recovered"))

    def send(self, *messages: m.Message) -> list[m.Message]:
        return [output for message in messages for output in self.counted.on_message(message, self.world.now)]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"perps_strategy_{name}", labels)


def test_signals_are_counted_once_however_often_they_are_repeated() -> None:
    service = Service()
    now = service.world.now
    service.send(mark(at=now), candle(0, volume=ENTER), *[m.Tick(id="tick")] * 8)
    assert service.value("signals_total", product=BTC, side="BUY", reason="crossed_up") == 1


def test_decisions_are_counted_and_timed_from_the_arrival_of_a_new_price() -> None:
    service = Service()
    service.clock.now += seconds(0.002)
    service.send(mark(at=service.world.now), mark(at=service.world.now))
    assert service.value("decisions_total", product=BTC, action="hold", reason="warming_up") == 2
    assert service.value("mark_to_decision_seconds_count") == 1  # the second only confirmed the first
    assert service.value("mark_to_decision_seconds_sum") == 0.002


def test_what_the_past_would_have_said_is_not_counted() -> None:
    service = Service(recovered=False)
    service.send(mark(0, service.world.now))
    assert service.value("mark_to_decision_seconds_count") == 0


def test_gauges_show_pending_position_stop_and_warmth() -> None:
    service = Service()
    tick = m.Tick(id="tick")
    service.send(tick)
    assert (service.value("warm_candles", product=BTC), service.value("needed_candles", product=BTC)) == (0, 1)
    signal = service.send(mark(at=service.world.now), candle(0, volume=ENTER))[-1]
    assert isinstance(signal, m.Signal)
    service.send(tick)
    assert (service.value("signal_pending", product=BTC), service.value("warm_candles", product=BTC)) == (1, 1)
    assert service.value("trailing_stop_price", product=BTC) is None
    service.send(deny(signal, m.Reason.DUST), fill(1, m.Side.BUY, 2, 100, service.world.now), tick)
    assert service.value("signal_pending", product=BTC) == 0
    assert (service.value("position_size", product=BTC), service.value("trailing_stop_price", product=BTC)) == (2, 99)
    service.send(fill(2, m.Side.SELL, 2), tick)
    assert service.value("trailing_stop_price", product=BTC) is None


def test_dropped_messages_are_shown() -> None:
    service = Service()
    service.send(candle(0, 0), m.Tick(id="tick"))
    assert service.value("dropped_messages", type="Candle") == 1


def test_everything_else_is_the_core_s_own() -> None:
    service = Service()
    service.send(mark(at=service.world.now), candle(0, volume=ENTER))
    assert service.counted.busy
    assert service.counted.not_ready(service.world.now) == ""
    other = Service(recovered=False)
    other.counted.restore(service.counted.dump())
    assert other.counted.dump() == service.counted.dump()
    assert other.counted.not_ready(other.world.now + MINUTE) == "recovering"


class SilentLedger(MemoryLedger):
    """After the past nothing more comes."""

    async def read(self) -> list[Delivery]:
        await asyncio.Event().wait()
        raise AssertionError("it waits for ever")


class Bus(MemoryBus):
    """A position, the candle that ends it, and a flatten in force."""

    def __init__(self) -> None:
        super().__init__()
        bought = fill(1, m.Side.BUY, 2, at=T0 + seconds(30))
        self.stored = [Delivery(1, subject_of(bought), bought)]
        self.window = [candle(0), candle(1, volume=EXIT)]
        self.entries[STATE_BUCKET, INSTALLATION_KEY] = Entry(msgspec.json.encode(m.Installation(id="installation")), 1)
        flatten = state(m.Trading.REDUCING, 1, flatten="f")
        self.entries[STATE_BUCKET, TRADING_KEY] = Entry(msgspec.json.encode(flatten), 1)

    def ledger(self, position: int) -> SilentLedger:
        return SilentLedger(self, position)

    @property
    def signals(self) -> list[m.Signal]:
        return [message for message in self.published if isinstance(message, m.Signal)]


async def test_the_shell_tells_it_the_trading_state_at_the_start_and_from_then_on() -> None:
    bus, failures = Bus(), list[BaseException]()
    tasks, settings = AsyncioTasks(failures.append), Settings("test", Path("var"), {"market": {"products": [BTC]}})
    shell = Shell(
        "strategy",
        "test",
        World(recovered=False).core,
        inputs(settings),
        bus=bus,
        clock=Hands(T0 + 2 * MINUTE),
        tasks=tasks,
        metrics=StrategyMetrics(),
    )
    tasks.spawn(shell.run(), "shell")
    async with asyncio.timeout(5):
        while "sync" not in bus.served and not failures:
            await asyncio.sleep(0)
        await shell.ask(None)
        assert bus.signals == []
        await bus.store(STATE_BUCKET, TRADING_KEY, msgspec.json.encode(state(m.Trading.ACTIVE, 2)), 1)
        await shell.ask(None)
    await tasks.close()
    assert failures == []
    assert [(signal.side, signal.quantity) for signal in bus.signals] == [(m.Side.SELL, Decimal(2))]
