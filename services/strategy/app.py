"""Settings to core, core to shell. Around the core lies nothing but the counting of what it says."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime

import msgspec

from libs.common import messages as m
from libs.common.clock import Clock
from libs.common.errors import BadConfig
from libs.common.process import Context, Parts
from libs.common.settings import Settings
from libs.common.shell import Inputs, Shell
from services.strategy.config import StrategyConfig
from services.strategy.core import StrategyCore
from services.strategy.loading import load
from services.strategy.metrics import StrategyMetrics
from services.strategy.plugin import Strategy


def make_core(settings: Settings) -> StrategyCore:
    """Read every setting that this service uses. Raises BadConfig with one line."""
    config = settings.section("strategy", StrategyConfig)
    market = settings.market
    return StrategyCore(config, market.granularity, market.candle_seconds, _strategies(settings, config))


def _strategies(settings: Settings, config: StrategyConfig) -> Mapping[str, Strategy]:
    """One strategy per traded product. The tables of products that are not traded just now are checked as well."""
    make = load(config.name)
    made: dict[str, Strategy] = {}
    for product_id in dict.fromkeys([*settings.market.products, *config.products]):
        try:
            made[product_id] = make(config.parameters_of(product_id))
        except msgspec.ValidationError as error:
            raise BadConfig(
                f"profile {settings.profile}, [strategy], parameters of {config.name} for {product_id}: {error}"
            ) from None
    return {product_id: made[product_id] for product_id in settings.market.products}


async def build(context: Context) -> Parts:
    core, metrics = make_core(context.settings), StrategyMetrics()
    market = context.settings.market
    shell = Shell(
        context.service,
        context.settings.profile,
        Counted(core, metrics, context.clock),
        Inputs(
            kinds=(m.Mark, m.Candle),
            ledger=True,
            candles=tuple((product_id, market.granularity) for product_id in market.products),
        ),
        bus=context.bus,
        clock=context.clock,
        tasks=context.tasks,
        metrics=metrics,
    )
    return Parts(shell, metrics)


class Counted:
    """The core, with what it says counted on its way to the bus. See `libs.common.shell.Core`."""

    def __init__(self, core: StrategyCore, metrics: StrategyMetrics, clock: Clock) -> None:
        self._core = core
        self._metrics = metrics
        self._clock = clock
        self._counting = False
        self._counted: dict[str, str] = {}  # the last signal id per product
        self._received: dict[str, datetime] = {}  # and the arrival of its last mark

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        outputs = self._core.on_message(message, now)
        if isinstance(message, m.Recovered):
            self._counting = True  # what came out before was dropped
        if self._counting:
            for output in outputs:
                self._count(output)
        if isinstance(message, m.Tick | m.Recovered):
            self._look()
        return outputs

    def not_ready(self, now: datetime) -> str:
        return self._core.not_ready(now)

    @property
    def busy(self) -> bool:
        return self._core.busy

    def dump(self) -> bytes:
        return self._core.dump()

    def restore(self, raw: bytes) -> None:
        self._core.restore(raw)

    def _count(self, output: m.Message) -> None:
        if isinstance(output, m.Decision):
            self._metrics.decisions.labels(output.product_id, output.action, output.reason).inc()
            if (
                self._received.get(output.product_id) != output.received_at
            ):  # a confirmed mark keeps its time of arrival
                self._received[output.product_id] = output.received_at
                seconds = (self._clock.wall() - output.received_at).total_seconds()
                self._metrics.decision_seconds.observe(max(seconds, 0))
        elif isinstance(output, m.Signal) and self._counted.get(output.product_id) != output.id:
            self._counted[output.product_id] = output.id
            self._metrics.signals.labels(output.product_id, output.side, output.reason).inc()

    def _look(self) -> None:
        metrics = self._metrics
        for product_id, desk in self._core.desks.items():
            needed = desk.strategy.warmup_candles
            metrics.pending.labels(product_id).set(1 if desk.book.in_flight else 0)
            metrics.position.labels(product_id).set(float(desk.book.quantity))
            metrics.warm_candles.labels(product_id).set(min(desk.candles, needed))
            metrics.needed_candles.labels(product_id).set(needed)
            if desk.stop_price is not None:
                metrics.stop_price.labels(product_id).set(float(desk.stop_price))
            else:
                with contextlib.suppress(KeyError):  # it was not there
                    metrics.stop_price.remove(product_id)
        for kind, count in self._core.dropped.items():
            metrics.dropped.labels(kind).set(count)
