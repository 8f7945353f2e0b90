"""What execution counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from libs.common.messages import OrderStatus
from libs.common.telemetry import ServiceMetrics
from services.execution.core import ExecutionCore


class VenueClient(Protocol):
    """What a client of the venue counts; the offset is None until it was measured."""

    @property
    def answers(self) -> dict[str, int]: ...
    @property
    def clock_offset_seconds(self) -> float | None: ...


class ExecutionMetrics(ServiceMetrics):
    def __init__(self) -> None:
        super().__init__("execution")
        self.submit_seconds = self.histogram("submit_seconds", "From the request of an order to the venue's answer.")
        self.cancellations = self.counter("cancellations", "Cancellations asked for, by outcome.", "outcome")
        for outcome in ("taken", "refused", "no_answer"):
            self.cancellations.labels(outcome)

    def read(self, core: ExecutionCore, venue: VenueClient) -> None:
        """Export the core's state and the venue client's figures at each scrape."""
        self.registry.register(_Orders(core, venue))


class _Orders:
    def __init__(self, core: ExecutionCore, venue: VenueClient) -> None:
        self._core = core
        self._venue = venue

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
        for outcome, count in self._venue.answers.items():
            answers.add_metric([outcome], count)
        yield answers
        if (seconds := self._venue.clock_offset_seconds) is not None:
            offset = GaugeMetricFamily("perps_execution_venue_clock_offset_seconds", "The venue's clock minus ours.")
            offset.add_metric([], seconds)
            yield offset


LIVE = (
    OrderStatus.SUBMITTING,
    OrderStatus.UNKNOWN,
    OrderStatus.ACCEPTED,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.PENDING_UPDATE,
    OrderStatus.PENDING_CANCEL,
)
