"""The view at one moment, in figures. What is not known, or known only from too long ago, is None, never zero.

Ages are wall time against the time a message was sent. Only the age of a mark is market time in a replay, where
market time stands still between messages.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from libs.common import messages as m
from libs.common.subjects import SERVICES
from services.exporter.core import ExporterCore
from services.exporter.state import Kept, Order, Seen, sent

SERVICE_SILENT_SECONDS = 5.0
RISK_STALE_SECONDS = 30.0
TRADING_SERVICES = ("marketdata", "strategy", "risk", "execution")

Number = float | int | Decimal | None


class Scope(Struct, frozen=True, kw_only=True):
    """What does not change while the exporter runs. `started_at` is wall time."""

    profile: str
    products: tuple[str, ...]
    replay: bool
    simulated: bool
    started_at: datetime


class ServiceFigures(Struct, frozen=True, kw_only=True):
    """`ready`, and everything behind it, is None for a service that was never heard of."""

    service: str
    up: bool
    ready: bool | None = None
    not_ready_reason: str = ""
    version: str | None = None
    restarts: int | None = None
    errors: int | None = None
    uptime_seconds: float | None = None
    status_age_seconds: float | None = None
    last_input_age_seconds: float | None = None
    last_decision_age_seconds: float | None = None
    last_venue_answer_age_seconds: float | None = None


class Figures(Struct, frozen=True, kw_only=True):
    """`kept` is None until the past has been read; `risk` and `feeds` are None or empty unless they are current."""

    scope: Scope
    wall: datetime
    up: bool
    seen: Seen
    kept: Kept | None
    risk: m.RiskFigures | None
    feeds: dict[str, m.FeedState]
    services: tuple[ServiceFigures, ...]
    cycle_duration: float | None
    cycle_counts: tuple[int, ...]
    cycle_total: float
    product_staleness: dict[str, float]
    staleness: float | None
    last_mark_age: float | None
    last_decision_age: float | None
    last_venue_answer_age: float | None
    account_age: float | None
    risk_age: float | None
    oldest_unknown_age: float | None
    uptime: float | None


class Row(Struct, frozen=True):
    """One unlabelled series of /metrics. A name that ends in _total is a counter."""

    name: str
    help: str
    get: Callable[[Figures], Number]


def of_kept(get: Callable[[Kept], Number]) -> Callable[[Figures], Number]:
    """A figure of what we count; not known until the past has been read."""
    return lambda f: None if f.kept is None else get(f.kept)


def of_risk(get: Callable[[m.RiskFigures], Number]) -> Callable[[Figures], Number]:
    """A figure of risk's, while it is current."""
    return lambda f: None if f.risk is None else get(f.risk)


# Names and meanings are a contract with the monitoring playbook, its alerts and its runbooks.
PLAYBOOK = (
    Row(
        "perps_bot_cycle_duration_seconds",
        "The larger of the last finished cycle and the oldest unfinished one; a cycle is one mark's way from its "
        "arrival to the decision and, after a signal, to the order's acknowledgement or denial.",
        lambda f: f.cycle_duration,
    ),
    Row(
        "perps_bot_cycle_errors_total",
        "Errors that the services reported, crashes included.",
        of_kept(lambda kept: kept.cycle_errors),
    ),
    Row("perps_bot_orders_submitted_total", "Orders sent to the venue.", of_kept(lambda kept: kept.submitted)),
    Row(
        "perps_bot_risk_daily_loss",
        "Loss since 00:00 UTC in the quote currency: realised, unrealised and fees.",
        of_risk(lambda risk: risk.daily_loss),
    ),
    Row(
        "perps_bot_risk_daily_loss_limit",
        "Daily loss in the quote currency at which trading halts.",
        of_risk(lambda risk: risk.daily_loss_limit),
    ),
    Row(
        "perps_bot_market_data_staleness_seconds",
        "Age of the last confirmed mark price of the product where it is oldest.",
        lambda f: f.staleness,
    ),
    Row("perps_bot_telemetry_account_age_seconds", "Age of the last account snapshot.", lambda f: f.account_age),
    Row(
        "perps_bot_order_tooling_errors_total",
        "Operator tools that failed.",
        of_kept(lambda kept: kept.tooling_errors),
    ),
)


def figures(core: ExporterCore, scope: Scope, wall: datetime, market: datetime, up: bool) -> Figures:
    """What can be said at this wall and market time. `up`: recovered, and the bus connection stands."""
    kept, seen = core.kept, core.seen
    services = tuple(_service(name, seen.services.get(name), wall) for name in SERVICES)
    alive = {service.service for service in services if service.up}
    staleness = {product: _staleness(product, seen, scope, wall, market) for product in scope.products}
    risk_age = age(seen.risk, wall)
    return Figures(
        scope=scope,
        wall=wall,
        up=up,
        seen=seen,
        kept=kept if seen.recovered else None,
        risk=seen.risk if risk_age is not None and risk_age <= RISK_STALE_SECONDS else None,
        feeds=seen.feeds if "marketdata" in alive else {},
        services=services,
        cycle_duration=core.cycles.duration(kept, wall),
        cycle_counts=tuple(core.cycles.counts),
        cycle_total=core.cycles.total,
        product_staleness=staleness,
        staleness=max(staleness.values()) if seen.marks else None,
        last_mark_age=min((staleness[product] for product in seen.marks), default=None),
        last_decision_age=min((since(sent(d), wall) for d in seen.decisions.values()), default=None),
        last_venue_answer_age=next(s.last_venue_answer_age_seconds for s in services if s.service == "execution"),
        account_age=age(seen.account, wall),
        risk_age=risk_age,
        oldest_unknown_age=max((since(o.since, wall) for o in unknown(kept)), default=None),
        uptime=_uptime(services),
    )


def since(then: datetime, now: datetime) -> float:
    """Seconds; clocks of two machines may differ, an age is never negative."""
    return max(0.0, (now - then).total_seconds())


def age(message: m.Message | None, wall: datetime) -> float | None:
    return None if message is None else since(sent(message), wall)


def unknown(kept: Kept) -> list[Order]:
    """Orders of which nobody knows whether the venue has them."""
    return [order for order in kept.open.values() if order.status is m.OrderStatus.UNKNOWN]


def _staleness(product: str, seen: Seen, scope: Scope, wall: datetime, market: datetime) -> float:
    """A product without any mark counts from our start, so that it alerts too."""
    mark = seen.marks.get(product)
    if mark is None:
        return since(scope.started_at, wall)
    return since(mark.at, market) if scope.replay else since(sent(mark), wall)


def _service(name: str, status: m.ServiceStatus | None, wall: datetime) -> ServiceFigures:
    if status is None:
        return ServiceFigures(service=name, up=False)

    def ago(then: datetime | None) -> float | None:
        return None if then is None else since(then, wall)

    silent = since(sent(status), wall)
    up = silent < SERVICE_SILENT_SECONDS
    return ServiceFigures(
        service=name,
        up=up,
        ready=up and status.ready,
        not_ready_reason=status.not_ready_reason if up else "silent",
        version=status.version,
        restarts=status.restarts,
        errors=status.errors,
        uptime_seconds=since(status.started_at, wall) if up else None,
        status_age_seconds=silent,
        last_input_age_seconds=ago(status.last_input_at),
        last_decision_age_seconds=ago(status.last_decision_at),
        last_venue_answer_age_seconds=ago(status.last_venue_at),
    )


def _uptime(services: tuple[ServiceFigures, ...]) -> float | None:
    """How long all that trades has been running together."""
    times = [s.uptime_seconds for s in services if s.service in TRADING_SERVICES]
    known = [seconds for seconds in times if seconds is not None]
    return min(known) if len(known) == len(TRADING_SERVICES) else None
