"""All metrics of marketdata. What the core counts is read from it at each scrape, so that the hot path pays nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from libs.common.clock import Clock
from libs.common.messages import Feed
from libs.common.telemetry import ServiceMetrics
from services.marketdata.core import MarketDataCore
from services.marketdata.frames import CHANNELS, HEARTBEATS, SUBSCRIPTIONS, Frame

CHANNEL_LABELS = (*CHANNELS, SUBSCRIPTIONS, "error")


class MarketDataMetrics(ServiceMetrics):
    def __init__(self) -> None:
        super().__init__("marketdata")
        self._frames = self.counter("frames", "Frames of the venue, by channel.", "channel")
        self._by_channel: dict[str, Counter] = {name: self._frames.labels(name) for name in CHANNEL_LABELS}
        self._other = self._frames.labels("other")
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
        self._by_channel.get(frame.channel, self._other).inc()
        self.last_frame.set(received_at.timestamp())
        if frame.skipped:
            self.skipped.inc(frame.skipped)
        if not frame.error:
            age = (received_at - frame.timestamp).total_seconds()
            self.frame_age.observe(age)
            if frame.channel == HEARTBEATS:
                self.clock_skew.set(age)

    def watch(self, core: MarketDataCore, clock: Clock) -> None:
        """Export the figures of this core from now on."""
        self.registry.register(_CoreCollector(self.prefix, core, clock))


class _CoreCollector:
    def __init__(self, prefix: str, core: MarketDataCore, clock: Clock) -> None:
        self._prefix = prefix
        self._core = core
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        lines = self._core.lines.values()
        rejected = CounterMetricFamily(
            f"{self._prefix}_rejected", "What the venue sent and nobody may use, by reason.", labels=["reason"]
        )
        for reason, count in self._core.rejected.items():
            rejected.add_metric([reason], count)
        marks = CounterMetricFamily(
            f"{self._prefix}_marks", "Marks published, confirmations included.", labels=["product"]
        )
        late = CounterMetricFamily(
            f"{self._prefix}_late_trades", "Trades that came after their candle was closed.", labels=["product"]
        )
        staleness = GaugeMetricFamily(
            f"{self._prefix}_staleness_seconds",
            "Market time since the last confirmation of the mark; absent before the first.",
            labels=["product"],
        )
        states = GaugeMetricFamily(
            f"{self._prefix}_feed_state", "1 for the state that the feed is in.", labels=["product", "state"]
        )
        for line in lines:
            marks.add_metric([line.product_id], line.marks)
            late.add_metric([line.product_id], line.candles.late)
            age = line.age(self._clock.market())
            if age is not None:
                staleness.add_metric([line.product_id], age.total_seconds())
            for state in Feed:
                states.add_metric([line.product_id, state], 1 if line.state is state else 0)
        yield from (rejected, marks, late, staleness, states)
