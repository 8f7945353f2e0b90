"""A stored snapshot that is damaged, or another version's, is refused: the service starts from the ledger instead, and
never from something else than was kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.clock import AsyncioTasks
from libs.common.settings import load
from libs.common.shell import Core, Inputs, Shell, Snapshot
from libs.common.subjects import INSTALLATION_KEY, SNAPSHOT_BUCKET, STATE_BUCKET
from libs.common.telemetry import ServiceMetrics
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.state import State as ExecutionState
from services.exporter.core import ExporterCore
from services.exporter.state import Kept as ExporterState
from services.marketdata.config import Config as MarketDataConfig
from services.marketdata.core import Kept as MarketDataState
from services.marketdata.core import MarketDataCore
from services.risk.__main__ import check as risk_config
from services.risk.core import RiskCore
from services.risk.state import State as RiskState
from services.strategy.books import State as StrategyState
from services.strategy.config import StrategyConfig
from services.strategy.core import StrategyCore
from services.strategy.plugin import load as load_plugin
from tests.common.memory_bus import MemoryBus
from tests.properties.damage import NOON, damaged, example, oddities, strangers
from tests.risk.fakes import HandClock

SETTINGS = load("dev", {})
PRODUCTS = SETTINGS.market.products
STRATEGY = SETTINGS.section("strategy", StrategyConfig)
PLUGINS = {product_id: load_plugin(STRATEGY.name, STRATEGY.parameters_of(product_id)) for product_id in PRODUCTS}
LIMITS = risk_config(SETTINGS)
CORES: dict[str, tuple[Callable[[], Core], type[msgspec.Struct]]] = {
    "marketdata": (lambda: MarketDataCore(PRODUCTS, "5m", 300, MarketDataConfig(), False), MarketDataState),
    "strategy": (lambda: StrategyCore(STRATEGY, "5m", 300, PLUGINS), StrategyState),
    "risk": (lambda: RiskCore(LIMITS, PRODUCTS, "USD"), RiskState),
    "execution": (lambda: ExecutionCore(ExecutionConfig()), ExecutionState),
    "exporter": (lambda: ExporterCore(PRODUCTS), ExporterState),
}
services = pytest.mark.parametrize("service", CORES)


def state_of(service: str) -> bytes:
    """A state in which nothing is left out, in the form in which the core gives it."""
    state = example(CORES[service][1])
    if isinstance(state, MarketDataState):
        state = MarketDataState("5m", dict.fromkeys(PRODUCTS, 1_000_000_200))
    core = CORES[service][0]()
    core.restore(msgspec.json.encode(state))
    return core.dump()


def started(service: str, stored: bytes | None) -> bytes:
    """The state in which a service is, once it has started beside this snapshot and an empty ledger."""

    async def start() -> None:
        tasks, bus = AsyncioTasks(failures.append), MemoryBus()
        bus.entries[STATE_BUCKET, INSTALLATION_KEY] = Entry(msgspec.json.encode(m.Installation(id="made")), 1)
        if stored is not None:
            bus.entries[SNAPSHOT_BUCKET, service] = Entry(stored, 1)
        shell = Shell(
            service,
            "dev",
            core,
            Inputs(),
            bus=bus,
            clock=HandClock(),
            tasks=tasks,
            metrics=ServiceMetrics(service),
            perform=nothing,
        )
        tasks.spawn(shell.run(), "shell")
        while "sync" not in bus.served and not failures:
            await asyncio.sleep(0)
        await tasks.close()

    failures: list[BaseException] = []
    core = CORES[service][0]()
    asyncio.run(start())
    assert not failures, failures
    return core.dump()


async def nothing(message: m.Message) -> list[m.Message]:
    return []


@services
def test_a_state_with_odd_values_is_one_that_can_be_kept_again_or_refused(service: str) -> None:
    state = state_of(service)
    for raw in (*oddities(state), *strangers(state)):
        core = CORES[service][0]()
        try:
            core.restore(raw)
        except msgspec.DecodeError:
            assert core.dump() == CORES[service][0]().dump(), "refused, and nothing of it is left"
        else:
            again = CORES[service][0]()
            again.restore(core.dump())
            assert again.dump() == core.dump()


@services
def test_a_state_of_another_version_is_refused(service: str) -> None:
    for raw in (state_of(service)[:-1] + b',"renamed":{}}', b'{"unlike":1}'):
        with pytest.raises(msgspec.DecodeError):
            CORES[service][0]().restore(raw)


@services
def test_a_snapshot_that_is_damaged_anywhere_is_as_good_as_none(service: str) -> None:
    sealed = Snapshot(7, msgspec.Raw(state_of(service)), NOON).sealed()
    kept, none = started(service, sealed), started(service, None)
    assert kept != none
    assert {started(service, raw) for raw in oddities(sealed, 12)} == {none}
    assert {started(service, raw) for raw in list(strangers(sealed))[::7]} <= {kept, none}


@hypothesis(max_examples=100, deadline=None)
@given(st.data())
def test_whatever_becomes_of_its_bytes_a_snapshot_is_what_was_kept_or_refused(data: st.DataObject) -> None:
    kept = Snapshot(7, msgspec.Raw(state_of(data.draw(st.sampled_from(list(CORES))))), NOON)
    raw = data.draw(st.composite(lambda draw: damaged(kept.sealed(), draw))())
    try:
        found = Snapshot.read(raw)
    except msgspec.DecodeError:
        return
    assert (found.sequence, bytes(found.state), found.saved_at) == (7, bytes(kept.state), NOON)
