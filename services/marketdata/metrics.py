"""All metrics of marketdata. What the core counts is read from it at each scrape, so that the hot path pays nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from libs.common.clock import Clock
from libs.common.messages import Feed
from libs.common.telemetry import ServiceMetrics
from services.marketdata.core import MarketDataCore
from services.marketdata.wire import CHANNELS, HEARTBEATS, SUBSCRIPTIONS, Frame


class MarketDataMetrics(ServiceMetrics):
    def __init__(self) -> None:
        super().__init__("marketdata")
        frames = self.counter("frames", "Frames of the venue, by channel.", "channel")
        self._frames = {name: frames.labels(name) for name in (*CHANNELS, SUBSCRIPTIONS, "error", "other")}
        self.undecodable = self.counter("frames_undecodable", "Frames that could not be read, by reason.", "reason")
        self.skipped = self.counter("events_skipped", "Events of a kind that we do not know.")
        self.gaps = self.counter("sequence_gaps", "Holes in the venue's sequence or heartbeats.")
        self.reconnects = self.counter("reconnects", "Connections made anew, by reason.", "reason")
        self.connected = self.gauge("connected", "1 while a connection to the venue is open.")
        self.frame_age = self.histogram("frame_age_seconds", "Wall time of arrival minus the venue's timestamp.")
        self.clock_skew = self.gauge(
            "clock_skew_seconds", "Our clock minus the venue's at the last heartbeat, with the way of the message."
        )
        self.last_frame = self.gauge("last_frame_timestamp_seconds", "Wall time of the last frame.")
        self.rest = self.counter("rest_answers", "Answers of the venue's REST paths.", "request", "outcome")

    def frame(self, frame: Frame, received_at: datetime) -> None:
        self._frames.get(frame.channel, self._frames["other"]).inc()
        self.last_frame.set(received_at.timestamp())
        self.skipped.inc(frame.skipped)
        if not frame.error:
            age = (received_at - frame.timestamp).total_seconds()
            self.frame_age.observe(age)
            if frame.channel == HEARTBEATS:
                self.clock_skew.set(age)

    def watch(self, core: MarketDataCore, clock: Clock) -> None:
        """Export the figures of this core from now on."""
        self._core = core
        self._clock = clock
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        lines, now = self._core.lines, self._clock.market()
        text = "What the venue sent and nobody may use, by reason."
        yield self._counts("rejected", text, "reason", self._core.rejected)
        marks = {product: line.marks for product, line in lines.items()}
        yield self._counts("marks", "Marks published, confirmations included.", "product", marks)
        late = {product: line.candles.late for product, line in lines.items()}
        yield self._counts("late_trades", "Trades that came after their candle was closed.", "product", late)
        text = "Market time since the last confirmation of the mark; absent before the first."
        staleness = GaugeMetricFamily(f"{self.prefix}_staleness_seconds", text, labels=["product"])
        text = "1 for the state that the feed is in."
        states = GaugeMetricFamily(f"{self.prefix}_feed_state", text, labels=["product", "state"])
        for product, line in lines.items():
            if line.mark is not None:
                staleness.add_metric([product], line.age(now).total_seconds())
            for state in Feed:
                states.add_metric([product, state], float(line.state is state))
        yield from (staleness, states)

    def _counts(self, name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
        family = CounterMetricFamily(f"{self.prefix}_{name}", text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        return family
