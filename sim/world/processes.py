"""The five services as they run in a world: one `Life` for each start, ended by a crash, a stop, or themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Protocol

from msgspec import Struct

from libs.common.clock import AsyncioTasks
from libs.common.errors import PerpsError
from libs.common.nats_bus import NatsBus
from libs.common.settings import Settings
from libs.common.shell import TICK_SECONDS, Core, Shell
from libs.common.telemetry import VERSION
from services.execution.app import ExecutionApp
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore
from services.execution.metrics import ExecutionMetrics
from services.execution.venue import CoinbaseVenue
from services.exporter.app import INPUTS as EXPORTER_INPUTS
from services.exporter.core import ExporterCore
from services.exporter.metrics import ExporterMetrics
from services.marketdata.app import PULSE_SECONDS
from services.marketdata.app import App as MarketDataApp
from services.marketdata.config import Config as MarketDataConfig
from services.marketdata.metrics import MarketDataMetrics
from services.marketdata.venue import CoinbaseMarket
from services.risk.app import RiskShell
from services.risk.config import RiskConfig
from services.risk.core import RiskCore
from services.risk.metrics import RiskMetrics
from services.strategy.app import Counted, inputs
from services.strategy.config import StrategyConfig
from services.strategy.core import StrategyCore
from services.strategy.metrics import StrategyMetrics
from sim.world.loop import Clock, Loop
from sim.world.nats_client import open_bus
from sim.world.nats_server import NatsServer
from sim.world.network import VenueNetwork
from sim.world.rest import HOST
from sim.world.restless import Parameters, Restless

CLOSE_SECONDS = 3
BEAT_SECONDS = 0.5
REST_URL, MARKET_URL, USER_URL = f"https://{HOST}", f"wss://{HOST}/ws", f"wss://{HOST}/ws/user"


class Configs(Struct, frozen=True):
    """Every section that the services read, once."""

    settings: Settings
    marketdata: MarketDataConfig
    strategy: StrategyConfig
    risk: RiskConfig
    execution: ExecutionConfig


def configs_of(settings: Settings) -> Configs:
    return Configs(
        settings=settings,
        marketdata=settings.section("marketdata", MarketDataConfig),
        strategy=settings.section("strategy", StrategyConfig),
        risk=settings.section("risk", RiskConfig),
        execution=settings.section("execution", ExecutionConfig),
    )


class Surface(Protocol):
    """What a life stands on."""

    configs: Configs
    server: NatsServer
    network: VenueNetwork


class Tasks(AsyncioTasks):
    """Time in a world beats half as often: no decision rests on how often, and it halves what a beat costs."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(BEAT_SECONDS if seconds in (TICK_SECONDS, PULSE_SECONDS) else seconds)


class Life:
    """One start of one service. `error` is what ended it, unless the world did; `defect`: it was none of ours."""

    def __init__(self, world: Surface, service: str, loop: Loop, clock: Clock, chance: Random) -> None:
        self.service = service
        self.loop = loop
        self.clock = clock
        self.shell: Shell | None = None
        self.core: Core | None = None
        self.bus: NatsBus | None = None
        self.error: BaseException | None = None
        self._world = world
        self._chance = chance
        self._tasks = Tasks(self.failed)
        self._close: Callable[[], Awaitable[None]] | None = None

    def start(self) -> None:
        self.loop.start(self._main())

    def stop(self) -> None:
        """SIGTERM: as `libs.common.process` ends a service."""
        self.loop.start(self._end())

    def failed(self, error: BaseException) -> None:
        """The process ends with one line."""
        if self.loop.alive:
            self.error = error
            self.loop.die()

    @property
    def defect(self) -> bool:
        return self.error is not None and not isinstance(self.error, PerpsError)

    async def _main(self) -> None:
        self.bus = await open_bus(self._world.server, self.loop, self.service, self.clock, self.failed, self._chance)
        BUILD[self.service](self)
        assert self.shell is not None, "every service has a shell"
        await self.bus.register(self.service, VERSION)
        self._tasks.spawn(self.shell.run(), "shell")

    async def _end(self) -> None:
        await self._tasks.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                if self.shell is not None:
                    await self.shell.close()
        if self._close is not None:
            await self._close()
        if self.bus is not None:
            await self.bus.close()
        self.loop.die()

    # -- the five

    def marketdata(self) -> None:
        configs, network = self._world.configs, self._world.network
        market = configs.settings.market
        venue = CoinbaseMarket(
            REST_URL, MARKET_URL, market.products, http=network.http(self.loop), dial=network.dial(self.loop)
        )
        app = MarketDataApp(
            configs.settings.profile,
            market,
            configs.marketdata,
            bus=self._bus,
            clock=self.clock,
            tasks=self._tasks,
            venue=venue,
            jitter=self._chance.random,
            metrics=MarketDataMetrics(),
        )
        self.shell, self.core, self._close = app.shell, app.core, venue.close

    def strategy(self) -> None:
        configs = self._world.configs
        market, metrics = configs.settings.market, StrategyMetrics()
        made = {product_id: Restless(Parameters()) for product_id in market.products}
        core = StrategyCore(configs.strategy, market.granularity, market.candle_seconds, made)
        self.core = core
        self.shell = Shell(
            "strategy",
            configs.settings.profile,
            Counted(core, metrics, self.clock),
            inputs(configs.settings),
            bus=self._bus,
            clock=self.clock,
            tasks=self._tasks,
            metrics=metrics,
        )

    def risk(self) -> None:
        configs = self._world.configs
        market = configs.settings.market
        core = RiskCore(configs.risk, market.products, market.quote_currency)
        self.core = core
        self.shell = RiskShell(
            configs.settings.profile,
            core,
            bus=self._bus,
            clock=self.clock,
            tasks=self._tasks,
            metrics=RiskMetrics(core, self.clock),
        )

    def execution(self) -> None:
        configs, network = self._world.configs, self._world.network
        core, metrics = ExecutionCore(configs.execution), ExecutionMetrics()
        venue = CoinbaseVenue(
            REST_URL,
            USER_URL,
            network.signer(configs.execution.jwt_seconds),
            self.clock,
            configs.execution.request_timeout_seconds,
            market_ws_url=MARKET_URL,
            http=network.http(self.loop, configs.execution.request_timeout_seconds),
            dial=network.dial(self.loop),
            chance=self._chance.random,
        )
        app = ExecutionApp(
            configs.settings.profile,
            core,
            configs.execution,
            bus=self._bus,
            clock=self.clock,
            tasks=self._tasks,
            venue=venue,
            metrics=metrics,
        )
        self.shell, self.core, self._close = app.shell, core, venue.close

    def exporter(self) -> None:
        configs = self._world.configs
        core = ExporterCore(configs.settings.market.products)
        self.core = core
        self.shell = Shell(
            "exporter",
            configs.settings.profile,
            core,
            EXPORTER_INPUTS,
            bus=self._bus,
            clock=self.clock,
            tasks=self._tasks,
            metrics=ExporterMetrics(),
        )

    @property
    def _bus(self) -> NatsBus:
        assert self.bus is not None, "connected first of all"
        return self.bus


BUILD: dict[str, Callable[[Life], None]] = {
    "marketdata": Life.marketdata,
    "strategy": Life.strategy,
    "risk": Life.risk,
    "execution": Life.execution,
    "exporter": Life.exporter,
}
