"""The `perps_bot_*` series, rendered from the view at the moment of the scrape, beside the exporter's own.

A figure that is not known has no series: Prometheus must be able to alert on its absence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from libs.common import messages as m
from libs.common.telemetry import ServiceMetrics
from services.exporter.cycles import BOUNDS
from services.exporter.figures import PLAYBOOK, Figures, Number, Row, of_kept, of_risk, unknown

Labelled = tuple[tuple[str, ...], Number]


class Table(Struct, frozen=True):
    """One family of /metrics with labels. A name that ends in _total is a counter."""

    name: str
    help: str
    labels: tuple[str, ...]
    get: Callable[[Figures], Iterable[Labelled]]


ROWS = (
    Row("perps_bot_metrics_up", "1 while the exporter hears the bus and has read the past.", lambda f: int(f.up)),
    Row("perps_bot_uptime_seconds", "Time since the last of the trading services started.", lambda f: f.uptime),
    Row("perps_bot_risk_figures_age_seconds", "Age of the last risk figures.", lambda f: f.risk_age),
    Row("perps_bot_equity", "Equity in the quote currency.", of_risk(lambda risk: risk.equity)),
    Row("perps_bot_exposure", "Exposure in the quote currency.", of_risk(lambda risk: risk.exposure)),
    Row(
        "perps_bot_reserved",
        "Quote currency held against the limits for orders under way.",
        of_risk(lambda risk: risk.reserved),
    ),
    Row(
        "perps_bot_realized_pnl",
        "Realised profit and loss in the quote currency.",
        of_risk(lambda risk: risk.realized_pnl),
    ),
    Row(
        "perps_bot_unrealized_pnl",
        "Unrealised profit and loss in the quote currency.",
        of_risk(lambda risk: risk.unrealized_pnl),
    ),
    Row("perps_bot_fees", "Fees paid in the quote currency.", of_risk(lambda risk: risk.fees)),
    Row("perps_bot_last_mark_age_seconds", "Age of the last mark of any product.", lambda f: f.last_mark_age),
    Row("perps_bot_last_decision_age_seconds", "Age of the last decision.", lambda f: f.last_decision_age),
    Row(
        "perps_bot_last_venue_answer_age_seconds",
        "Age of the venue's last answer to execution.",
        lambda f: f.last_venue_answer_age,
    ),
    Row("perps_bot_open_orders", "Orders without a final status.", of_kept(lambda kept: len(kept.open))),
    Row(
        "perps_bot_unknown_orders",
        "Orders of which nobody knows whether the venue has them.",
        of_kept(lambda kept: len(unknown(kept))),
    ),
    Row(
        "perps_bot_oldest_unknown_order_age_seconds",
        "Time since the oldest unknown order became unknown; absent without one.",
        lambda f: f.oldest_unknown_age,
    ),
    Row(
        "perps_bot_signals_unanswered_total",
        "Signals that expired without an answer of risk.",
        of_kept(lambda kept: kept.unanswered),
    ),
)


def _info(f: Figures) -> Iterable[Labelled]:
    yield (f.scope.profile, "simulated" if f.scope.simulated else "live", "replay" if f.scope.replay else "wall"), 1


def _trading(f: Figures) -> Iterable[Labelled]:
    trading = f.seen.trading
    return [((state.value,), int(trading.state is state)) for state in m.Trading] if trading else []


def _feeds(f: Figures) -> Iterable[Labelled]:
    return [((p, state.value), int(feed.state is state)) for p, feed in f.feeds.items() for state in m.Feed]


def _positions(f: Figures) -> Iterable[Labelled]:
    return [((product,), position.quantity) for product, position in f.risk.positions.items()] if f.risk else []


def _drift(f: Figures) -> Iterable[Labelled]:
    return [((currency,), amount) for currency, amount in ((f.risk and f.risk.drift) or {}).items()]


def _finished(f: Figures) -> Iterable[Labelled]:
    statuses = sorted(m.TERMINAL)
    return [((status.value,), f.kept.finished.get(status, 0)) for status in statuses] if f.kept else []


def _verdicts(f: Figures) -> Iterable[Labelled]:
    return [((reason.value,), f.kept.verdicts.get(reason, 0)) for reason in m.Reason] if f.kept else []


def _fills(f: Figures) -> Iterable[Labelled]:
    return [((side.value,), f.kept.fills.get(side, 0)) for side in m.Side] if f.kept else []


def _notional(f: Figures) -> Iterable[Labelled]:
    return [((side.value,), f.kept.fill_notional.get(side, 0)) for side in m.Side] if f.kept else []


TABLES = (
    Table(
        "perps_bot_info",
        "What runs here: profile, whether the venue is simulated or live, whose time it follows.",
        ("profile", "venue", "time"),
        _info,
    ),
    Table(
        "perps_bot_market_data_product_staleness_seconds",
        "Age of the last confirmed mark price; without any, time since the exporter started.",
        ("product",),
        lambda f: [((product,), seconds) for product, seconds in f.product_staleness.items()],
    ),
    Table("perps_bot_trading_state", "1 for the trading state in force.", ("state",), _trading),
    Table("perps_bot_feed_state", "1 for the state that the feed is in.", ("product", "state"), _feeds),
    Table("perps_bot_position_quantity", "Position in the base currency.", ("product",), _positions),
    Table("perps_bot_account_drift", "The venue's balance less ours, where they differ.", ("currency",), _drift),
    Table(
        "perps_bot_service_up",
        "1 while the service reports at least every 5 s.",
        ("service",),
        lambda f: [((s.service,), int(s.up)) for s in f.services],
    ),
    Table(
        "perps_bot_service_ready",
        "1 while the service reports that it can do its work.",
        ("service",),
        lambda f: [((s.service,), None if s.ready is None else int(s.ready)) for s in f.services],
    ),
    Table(
        "perps_bot_service_restarts_total",
        "Starts of the service since installation, less one.",
        ("service",),
        lambda f: [((s.service,), s.restarts) for s in f.services],
    ),
    Table("perps_bot_orders_finished_total", "Orders by final status.", ("status",), _finished),
    Table("perps_bot_verdicts_total", "Answers of risk to signals, by reason.", ("reason",), _verdicts),
    Table("perps_bot_fills_total", "Fills, by side.", ("side",), _fills),
    Table("perps_bot_fill_notional_total", "Value of fills in the quote currency, by side.", ("side",), _notional),
    Table(
        "perps_exporter_dropped_total",
        "Messages that could not be reckoned with, by type.",
        ("type",),
        lambda f: [((kind,), count) for kind, count in f.seen.dropped.items()],
    ),
)


class ExporterMetrics(ServiceMetrics):
    def __init__(self) -> None:
        super().__init__("exporter")
        self.file_writes = self.counter("metrics_file_writes", "Writes of metrics.json, by outcome.", "outcome")

    def show(self, look: Callable[[], Figures]) -> None:
        """Serve the business figures beside our own; `look` is asked at each scrape."""
        self.registry.register(_BusinessCollector(look))


class _BusinessCollector:
    def __init__(self, look: Callable[[], Figures]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        now = self._look()
        for row in (*PLAYBOOK, *ROWS):
            yield from _family(row.name, row.help, (), [((), row.get(now))])
        for table in TABLES:
            yield from _family(table.name, table.help, table.labels, table.get(now))
        if now.kept is not None:
            yield _cycles(now)


def _family(name: str, text: str, labels: tuple[str, ...], samples: Iterable[Labelled]) -> Iterator[Metric]:
    """One family with the samples whose value is known; nothing at all without any."""
    known = [(values, float(value)) for values, value in samples if value is not None]
    if not known:
        return
    family = (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, text, labels=labels)
    for values, value in known:
        family.add_metric(values, value)
    yield family


def _cycles(now: Figures) -> Metric:
    buckets, count = [], 0
    for bound, inside in zip((*map(str, BOUNDS), "+Inf"), now.cycle_counts, strict=True):
        count += inside
        buckets.append((bound, float(count)))
    return HistogramMetricFamily(
        "perps_bot_cycle_seconds", "Durations of finished cycles.", buckets=buckets, sum_value=now.cycle_total
    )
