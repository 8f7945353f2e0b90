"""Risk's metrics. Figures are read from the core at each scrape; one that is not known is absent, never zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from libs.common.clock import Clock
from libs.common.messages import Trading
from libs.common.telemetry import ServiceMetrics
from services.risk.core import RiskCore


class RiskMetrics(ServiceMetrics):
    """Amounts in the quote currency unless the text says otherwise."""

    def __init__(self, core: RiskCore, clock: Clock) -> None:
        super().__init__("risk")
        self.guard_outcomes = self.counter(
            "guard_outcomes", "Changes of what a guard says, by guard and outcome.", "guard", "outcome"
        )
        self._core = core
        self._clock = clock
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Nothing before the past has been read: figures of half a ledger would be wrong ones."""
        if not self._core.recovered:
            return
        figures = self._core.figures(self._clock.market())
        yield self._one("daily_loss", "Loss since 00:00 UTC, never negative.", figures.daily_loss)
        yield self._one("daily_loss_limit", "Loss at which trading halts.", figures.daily_loss_limit)
        yield self._one("exposure", "Value of all positions at the marks.", figures.exposure)
        yield self._one("reserved", "Held for approved buys that are not at their end.", figures.reserved)
        yield self._one("equity", "Cash and positions.", figures.equity)
        yield self._one("open_orders", "Approved orders that are not at their end.", Decimal(self._core.open_orders))
        held = {product: position.quantity for product, position in figures.positions.items()}
        yield self._many("position", "Quantity held, in the base currency.", "product", held)
        yield self._many("drift", "The venue's balance less our books, where they differ.", "currency", figures.drift)
        effective = self._core.switch.effective
        states = {str(state): Decimal(state is effective) for state in Trading}
        yield self._many("trading_state", "1 for the state that holds.", "state", states if effective else None)
        yield self._counts("verdicts", "Verdicts since installation, by reason.", "reason", self._core.verdicts)
        yield self._counts("dropped", "Unusable input, by type.", "type", self._core.known.dropped)

    def _one(self, name: str, text: str, value: Decimal | None) -> Metric:
        return GaugeMetricFamily(f"{self.prefix}_{name}", text, value=None if value is None else float(value))

    def _many(self, name: str, text: str, label: str, values: Mapping[str, Decimal] | None) -> Metric:
        family = GaugeMetricFamily(f"{self.prefix}_{name}", text, labels=[label])
        for key, value in (values or {}).items():
            family.add_metric([key], float(value))
        return family

    def _counts(self, name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
        family = CounterMetricFamily(f"{self.prefix}_{name}", text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        return family
