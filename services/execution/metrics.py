"""What execution counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from libs.common.messages import OrderStatus
from libs.common.telemetry import ServiceMetrics
from services.execution.core import ExecutionCore


class ExecutionMetrics(ServiceMetrics):
    def __init__(self) -> None:
        super().__init__("execution")
        self.submit_seconds = self.histogram("submit_seconds", "From the request of an order to the venue's answer.")

    def read(self, core: ExecutionCore, answers: Callable[[], dict[str, int]]) -> None:
        """Export the core's state and the venue client's tally at each scrape."""
        self.registry.register(_Orders(core, answers))


class _Orders:
    def __init__(self, core: ExecutionCore, answers: Callable[[], dict[str, int]]) -> None:
        self._core = core
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        orders = GaugeMetricFamily("perps_execution_open_orders", "Orders not yet terminal.", labels=["status"])
        tally = dict.fromkeys((s for s in OrderStatus if s in LIVE), 0)
        for order in self._core.state.orders.values():
            if order.status in tally:
                tally[order.status] += 1
        for status, count in tally.items():
            orders.add_metric([str(status)], count)
        yield orders
        strange = CounterMetricFamily("perps_execution_strangers", "Updates of orders that are not ours.")
        strange.add_metric([], self._core.strangers)
        yield strange
        odd = CounterMetricFamily("perps_execution_anomalies", "Answers that contradict what we sent.")
        odd.add_metric([], self._core.anomalies)
        yield odd
        answers = CounterMetricFamily("perps_execution_venue_answers", "Venue requests by outcome.", labels=["outcome"])
        for outcome, count in self._answers().items():
            answers.add_metric([outcome], count)
        yield answers


LIVE = (
    OrderStatus.SUBMITTING,
    OrderStatus.UNKNOWN,
    OrderStatus.ACCEPTED,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.PENDING_UPDATE,
    OrderStatus.PENDING_CANCEL,
)
