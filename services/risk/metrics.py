"""Risk's metrics. Figures are read from the core at each scrape; one that is not known is absent, never zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from libs.common.clock import Clock
from libs.common.messages import GuardLevel, Trading
from libs.common.telemetry import ServiceMetrics
from services.risk.core import RiskCore

LEVELS = tuple(GuardLevel)
CLOSED = ("flat", "dust")


class RiskMetrics(ServiceMetrics):
    """Amounts in the quote currency unless the text says otherwise."""

    def __init__(self, core: RiskCore, clock: Clock) -> None:
        super().__init__("risk")
        self.guard_outcomes = self.counter(
            "guard_outcomes", "Changes of what a guard says, by guard and level.", "guard", "outcome"
        )
        self._core = core
        self._clock = clock
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Nothing before the past has been read: figures of half a ledger would be wrong ones."""
        if not self._core.recovered:
            return
        core, figures = self._core, self._core.figures(self._clock.market())
        held = {product: position.quantity for product, position in figures.positions.items()}
        effective = core.switch.effective
        guards = {str(guard): figure for guard, figure in figures.guards.items()}
        measured = {guard: figure.value for guard, figure in guards.items()}
        said = {guard: LEVELS.index(figure.level) for guard, figure in guards.items()}
        degraded = {product: int(product in figures.degraded) for product in core.known.products}
        closing = {
            product: int(found.outcome not in ("flat", "dust")) for product, found in (figures.closing or {}).items()
        }
        states = {str(state): int(state is effective) for state in Trading} if effective else {}
        rows: list[tuple[str, str, str, Mapping[str, Decimal | int | None]]] = [
            ("daily_loss", "Loss since 00:00 UTC, never negative.", "", {"": figures.daily_loss}),
            ("daily_loss_limit", "Loss at which trading halts.", "", {"": figures.daily_loss_limit}),
            ("exposure", "Value of all positions at the marks.", "", {"": figures.exposure}),
            ("reserved", "Held for approved buys that are not at their end.", "", {"": figures.reserved}),
            ("equity", "Cash and positions.", "", {"": figures.equity}),
            ("open_orders", "Approved orders that are not at their end.", "", {"": core.open_orders}),
            ("position", "Quantity held, in the base currency.", "product", held),
            ("drift", "The venue's balance less our books, where they differ.", "currency", figures.drift or {}),
            ("trading_state", "1 for the state that holds.", "state", states),
            ("guard_value", "What the guard measures.", "guard", measured),
            ("guard_level", "What it says: 0 ok, 1 unknown, 2 warning, 3 reduce, 4 halt.", "guard", said),
            ("degraded", "1 where the market is not sound enough for entries.", "product", degraded),
            ("closing", "1 while the position is still to be closed by `flatten`.", "product", closing),
            (
                "equity_day_start",
                "Equity at 00:00 UTC, with what was paid in or out since.",
                "",
                {"": figures.equity_day_start},
            ),
            ("equity_peak", "Highest equity since the last resume.", "", {"": figures.equity_peak}),
            ("verdicts_total", "Verdicts since installation, by reason.", "reason", core.state.answers.counts),
            ("dropped_total", "Unusable input, by type.", "type", core.known.dropped),
        ]
        for name, text, label, values in rows:
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(f"{self.prefix}_{name}", text, labels=[label] if label else [])
            for key, value in values.items():
                if value is not None:
                    family.add_metric([key] if label else [], float(value))
            yield family
