"""The `perps_bot_*` series, rendered from the view at the moment of the scrape, beside the exporter's own.

A figure that is not known has no series: Prometheus must be able to alert on its absence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from libs.common import messages as m
from libs.common.subjects import SERVICES
from libs.common.telemetry import ServiceMetrics
from services.exporter.cycles import BOUNDS, Cycles
from services.exporter.figures import ACCOUNT_PARTS, Figures, Number, Row, playbook
from services.exporter.state import Kept

Samples = dict[tuple[str, ...], Number]  # by the values of the labels
LEVELS = tuple(m.GuardLevel)  # the worst last, so that an alert can say "from there on"
STEPS = ("warn", "reduce", "halt")
DONE = ("flat", "dust")  # outcomes of a closing that has come to its end


class ExporterMetrics(ServiceMetrics):
    def __init__(self) -> None:
        super().__init__("exporter")
        self.file_writes = self.counter(
            "metrics_file_writes", "Writes of metrics.json and account.json, by outcome.", "outcome"
        )

    def show(self, look: Callable[[], Figures]) -> None:
        """Serve the business figures beside our own; `look` is asked at each scrape."""
        self.registry.register(_BusinessCollector(look))


class _BusinessCollector(Struct, frozen=True):
    look: Callable[[], Figures]

    def collect(self) -> list[Metric]:
        return [family for family in _families(self.look()) if family.samples]


def _families(f: Figures) -> Iterator[Metric]:
    for row in (*playbook(f), *_rows(f)):
        yield _family(row.name, row.help, {(): row.value})
    yield from _tables(f)
    yield from _guards(f)
    yield from _services(f)
    yield from _account(f)
    if f.kept is not None:
        yield from _ledger(f.kept)
        yield _durations(f.cycles)


def _family(name: str, text: str, samples: Samples, *labels: str) -> Metric:
    """One family with the samples whose value is known. A name that ends in _total is a counter."""
    family = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, text, labels=labels)
    for values, value in samples.items():
        if value is not None:
            family.add_metric(values, float(value))
    return family


def _rows(f: Figures) -> Iterator[Row]:
    yield Row("perps_bot_metrics_up", "1 while the exporter hears the bus and has read the past.", int(f.up))
    yield Row("perps_bot_uptime_seconds", "Time since the last of the trading services started.", f.uptime)
    yield Row("perps_bot_risk_figures_age_seconds", "Age of the last risk figures.", f.risk_age)
    yield Row("perps_bot_last_mark_age_seconds", "Age of the last mark of any product.", f.last_mark_age)
    yield Row("perps_bot_last_decision_age_seconds", "Age of the last decision.", f.last_decision_age)
    yield Row(
        "perps_bot_last_venue_answer_age_seconds", "Age of the venue's last answer to execution.", f.venue_answer_age
    )
    yield Row(
        "perps_bot_oldest_unknown_order_age_seconds",
        "Time since the oldest unknown order became unknown; absent without one.",
        f.oldest_unknown_age,
    )
    yield Row(
        "perps_bot_reconciliation_age_seconds",
        "Time since orders, fills and balances were last compared with the venue in full.",
        f.reconciliation_age,
    )
    if risk := f.risk:
        yield Row("perps_bot_equity", "Equity in the quote currency.", risk.equity)
        yield Row("perps_bot_equity_day_start", "Equity at 00:00 UTC, with what was paid since.", risk.equity_day_start)
        yield Row("perps_bot_equity_peak", "Highest equity since an operator last resumed.", risk.equity_peak)
        yield Row("perps_bot_exposure", "Exposure in the quote currency.", risk.exposure)
        yield Row("perps_bot_reserved", "Quote currency held against the limits for orders under way.", risk.reserved)
        yield Row("perps_bot_realized_pnl", "Realised profit and loss in the quote currency.", risk.realized_pnl)
        yield Row("perps_bot_unrealized_pnl", "Unrealised profit and loss in the quote currency.", risk.unrealized_pnl)
        yield Row("perps_bot_fees", "Fees paid in the quote currency.", risk.fees)
    if kept := f.kept:
        yield Row("perps_bot_open_orders", "Orders without a final status.", len(kept.open))
        yield Row(
            "perps_bot_unknown_orders", "Orders of which nobody knows whether the venue has them.", len(f.unknown)
        )
        yield Row(
            "perps_bot_signals_unanswered_total", "Signals that expired without an answer of risk.", kept.unanswered
        )


def _tables(f: Figures) -> Iterator[Metric]:
    scope, risk, trading = f.scope, f.risk, f.seen.trading
    mode = {"profile": scope.profile, "venue": scope.venue, "time": "replay" if scope.replay else "wall"}
    yield _family(
        "perps_bot_info",
        "What runs here: profile, whether the venue is simulated or live, whose time it follows.",
        {tuple(mode.values()): 1},
        *mode,
    )
    yield _family(
        "perps_bot_market_data_product_staleness_seconds",
        "Age of the last confirmed mark price; without any, time since the exporter started.",
        {(product,): seconds for product, seconds in f.mark_ages.items()},
        "product",
    )
    states: Samples = {(state,): int(trading.state is state) for state in m.Trading} if trading else {}
    yield _family("perps_bot_trading_state", "1 for the trading state in force.", states, "state")
    feeds: Samples = {(p, state): int(feed.state is state) for p, feed in f.feeds.items() for state in m.Feed}
    yield _family("perps_bot_feed_state", "1 for the state that the feed is in.", feeds, "product", "state")
    if risk:
        quantities: Samples = {(product,): position.quantity for product, position in risk.positions.items()}
        yield _family("perps_bot_position_quantity", "Position in the base currency.", quantities, "product")
        drift: Samples = {(currency,): amount for currency, amount in (risk.drift or {}).items()}
        yield _family("perps_bot_account_drift", "The venue's balance less ours, where they differ.", drift, "currency")
    dropped: Samples = {(kind,): count for kind, count in f.seen.dropped.items()}
    yield _family("perps_exporter_dropped_total", "Messages that could not be reckoned with, by type.", dropped, "type")


def _guards(f: Figures) -> Iterator[Metric]:
    """Without any guard the figures come from a risk of before them, which cannot tell what is degraded either."""
    if (risk := f.risk) is None or not risk.guards:
        return
    levels: Samples = {(guard,): LEVELS.index(figure.level) for guard, figure in risk.guards.items()}
    text = "How far the guard has gone: " + ", ".join(f"{number} {level}" for number, level in enumerate(LEVELS)) + "."
    yield _family("perps_bot_risk_guard_level", text, levels, "guard")
    values: Samples = {(guard,): figure.value for guard, figure in risk.guards.items()}
    yield _family("perps_bot_risk_guard_value", "What the guard measures, in its own unit.", values, "guard")
    steps: Samples = {(guard, step): getattr(fig, step) for guard, fig in risk.guards.items() for step in STEPS}
    text = "The value from which on the guard warns, reduces, halts; absent where it never does."
    yield _family("perps_bot_risk_guard_threshold", text, steps, "guard", "step")
    degraded: Samples = {(product,): int(product in risk.degraded) for product in f.scope.products}
    text = "1 while the product takes no entries: its market data is not sound, or was not until just now."
    yield _family("perps_bot_market_degraded", text, degraded, "product")
    closing: Samples = {(p,): int(position.outcome not in DONE) for p, position in (risk.closing or {}).items()}
    text = "1 while a flatten has still to close the position, 0 once it is flat or dust; absent without a flatten."
    yield _family("perps_bot_position_closing", text, closing, "product")


def _services(f: Figures) -> Iterator[Metric]:
    up: Samples = {(name,): int(name in f.alive) for name in SERVICES}
    yield _family("perps_bot_service_up", "1 while the service reports at least every 5 s.", up, "service")
    statuses = f.seen.services.items()
    ready: Samples = {(name,): int(name in f.alive and status.ready) for name, status in statuses}
    yield _family("perps_bot_service_ready", "1 while the service reports that it can do its work.", ready, "service")
    restarts: Samples = {(name,): status.restarts for name, status in statuses}
    yield _family(
        "perps_bot_service_restarts_total", "Starts of the service since installation, less one.", restarts, "service"
    )


def _account(f: Figures) -> Iterator[Metric]:
    if (account := f.account) is None:
        return
    parts: Samples = {(part,): int(part in f.account_unavailable) for part in ACCOUNT_PARTS}
    text = "1 for a part of the account snapshot that could not be read."
    yield _family("perps_bot_account_part_unavailable", text, parts, "part")
    foreign: Samples = {(): None if account.foreign_orders is None else len(account.foreign_orders)}
    yield _family("perps_bot_foreign_open_orders", "Open orders of the account that are not ours.", foreign)
    fills: Samples = {(): account.foreign_fills}
    yield _family("perps_bot_foreign_fills", "Fills of orders that are not ours, as far back as remembered.", fills)
    rates: Samples = {("taker",): account.taker_fee_rate, ("maker",): account.maker_fee_rate}
    yield _family("perps_bot_fee_rate", "Fee as a fraction of the value traded.", rates, "side")
    if may := account.permissions:
        permissions: Samples = {("view",): may.can_view, ("trade",): may.can_trade, ("transfer",): may.can_transfer}
        yield _family("perps_bot_key_permission", "1 for what the venue key may do.", permissions, "permission")


def _ledger(kept: Kept) -> Iterator[Metric]:
    finished: Samples = {(status,): kept.finished.get(status, 0) for status in sorted(m.TERMINAL)}
    yield _family("perps_bot_orders_finished_total", "Orders by final status.", finished, "status")
    verdicts: Samples = {(reason,): kept.verdicts.get(reason, 0) for reason in m.Reason}
    yield _family("perps_bot_verdicts_total", "Answers of risk to signals, by reason.", verdicts, "reason")
    fills: Samples = {(side,): kept.fills.get(side, 0) for side in m.Side}
    yield _family("perps_bot_fills_total", "Fills, by side.", fills, "side")
    notional: Samples = {(side,): kept.fill_notional.get(side, 0) for side in m.Side}
    yield _family("perps_bot_fill_notional_total", "Value of fills in the quote currency, by side.", notional, "side")


def _durations(cycles: Cycles) -> Metric:
    bounds = (*map(str, BOUNDS), "+Inf")
    buckets = [(bound, float(count)) for bound, count in zip(bounds, accumulate(cycles.counts), strict=True)]
    text = "Durations of finished cycles."
    return HistogramMetricFamily("perps_bot_cycle_seconds", text, buckets=buckets, sum_value=cycles.total)
