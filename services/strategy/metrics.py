"""The metrics of strategy: perps_strategy_*."""

from __future__ import annotations

from libs.common.telemetry import ServiceMetrics


class StrategyMetrics(ServiceMetrics):
    def __init__(self) -> None:
        super().__init__("strategy")
        self.signals = self.counter("signals", "Signals given, repetitions not counted.", "product", "side", "reason")
        self.decisions = self.counter("decisions", "Marks decided on.", "product", "action", "reason")
        self.decision_seconds = self.histogram(
            "mark_to_decision_seconds", "From a mark's arrival to its decision, wall."
        )
        self.pending = self.gauge("signal_pending", "1 while a signal or its order has not ended.", "product")
        self.position = self.gauge("position_size", "Position held, in the base currency.", "product")
        self.stop_price = self.gauge("trailing_stop_price", "Absent while nothing is held.", "product")
        self.warm_candles = self.gauge("warm_candles", "Closed candles seen, up to what is needed.", "product")
        self.needed_candles = self.gauge("needed_candles", "Closed candles needed before the first entry.", "product")
        self.dropped = self.gauge("dropped_messages", "Unusable messages since the start, by type.", "type")
