"""Settings to core, core to shell. Around the core lies nothing but the counting of what it says."""

from __future__ import annotations

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
from services.strategy.metrics import StrategyMetrics
from services.strategy.plugin import Strategy, load


def make_core(settings: Settings) -> StrategyCore:
    """Read every setting that this service uses. Raises BadConfig with one line."""
    config = settings.section("strategy", StrategyConfig)
    market = settings.market
    made: dict[str, Strategy] = {}
    # The tables of products that are not traded just now are checked as well.
    for product_id in (*market.products, *config.products):
        try:
            made[product_id] = load(config.name, config.parameters_of(product_id))
        except msgspec.ValidationError as error:
            where = f"profile {settings.profile}, [strategy], parameters of {config.name} for {product_id}"
            raise BadConfig(f"{where}: {error}") from None
    return StrategyCore(config, market.granularity, market.candle_seconds, {p: made[p] for p in market.products})


def inputs(settings: Settings) -> Inputs:
    """What the core lives on."""
    market = settings.market
    candles = tuple((product_id, market.granularity) for product_id in market.products)
    return Inputs(kinds=(m.Mark, m.Candle), ledger=True, trading=True, candles=candles)


async def build(context: Context) -> Parts:
    metrics = StrategyMetrics()
    shell = Shell(
        context.service,
        context.settings.profile,
        Counted(make_core(context.settings), metrics, context.clock),
        inputs(context.settings),
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
        self._signal_ids: dict[str, str] = {}  # the last one per product
        self._received: dict[str, datetime] = {}  # and the arrival of its last mark
        self.not_ready, self.dump, self.restore = core.not_ready, core.dump, core.restore

    @property
    def busy(self) -> bool:
        return self._core.busy

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        outputs = self._core.on_message(message, now)
        for output in outputs:
            if isinstance(output, m.Decision):
                self._count_decision(output)
            elif isinstance(output, m.Signal) and self._signal_ids.get(output.product_id) != output.id:
                self._signal_ids[output.product_id] = output.id
                self._metrics.signals.labels(output.product_id, output.side, output.reason).inc()
        if isinstance(message, m.Tick | m.Recovered):
            self._look()
        return outputs

    def _count_decision(self, decision: m.Decision) -> None:
        self._metrics.decisions.labels(decision.product_id, decision.action, decision.reason).inc()
        # A mark that only confirms a price keeps the time of its arrival: it says nothing about our speed.
        if self._received.get(decision.product_id) != decision.received_at:
            self._received[decision.product_id] = decision.received_at
            seconds = (self._clock.wall() - decision.received_at).total_seconds()
            self._metrics.decision_seconds.observe(max(seconds, 0))

    def _look(self) -> None:
        metrics = self._metrics
        metrics.stop_price.clear()
        for product_id, desk in self._core.desks.items():
            metrics.pending.labels(product_id).set(desk.book.in_flight)
            metrics.position.labels(product_id).set(float(desk.book.quantity))
            metrics.warm_candles.labels(product_id).set(min(desk.candles, desk.strategy.warmup_candles))
            metrics.needed_candles.labels(product_id).set(desk.strategy.warmup_candles)
            if desk.stop_price is not None:
                metrics.stop_price.labels(product_id).set(float(desk.stop_price))
        for kind, count in self._core.dropped.items():
            metrics.dropped.labels(kind).set(count)
