"""The view at one moment, in figures. What is not known, or known only from too long ago, is None, never zero.

Ages are wall time against the time a message was sent. Only the age of a mark is market time in a replay, where
market time stands still between messages.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from msgspec import Struct

from libs.common import messages as m
from services.exporter.core import ExporterCore
from services.exporter.state import Seen, sent

SILENT_SECONDS = 5.0
RISK_STALE_SECONDS = 30.0
ACCOUNT_STALE_SECONDS = 15 * 60.0  # the playbook's warning
# What of the account may be missing by itself.
ACCOUNT_PARTS = ("balances", "fee_tier", "permissions", "portfolios", "limits", "foreign_orders")
TRADING_SERVICES = ("marketdata", "strategy", "risk", "execution")

Number = float | int | Decimal | None


class Scope(Struct, frozen=True, kw_only=True):
    """What does not change while the exporter runs. `started_at` is wall time."""

    profile: str
    products: tuple[str, ...]
    replay: bool
    simulated: bool
    started_at: datetime

    @property
    def venue(self) -> str:
        return "simulated" if self.simulated else "live"


class Figures:
    """What can be said at this wall and market time. `up`: recovered, and the bus connection stands.

    `kept` is None until the past has been read; `risk`, `account` and `feeds` are None or empty unless current.
    """

    def __init__(self, core: ExporterCore, scope: Scope, wall: datetime, market: datetime, up: bool) -> None:
        seen = core.seen
        self.scope = scope
        self.wall = wall
        self.up = up
        self.seen = seen
        self.kept = core.kept if seen.recovered else None
        self.cycles = core.cycles
        self.cycle_duration = core.cycles.duration(core.kept, wall)
        self.alive = {name for name, status in seen.services.items() if since(sent(status), wall) < SILENT_SECONDS}
        # How long all that trades has been running together.
        starts = [seen.services[name].started_at for name in TRADING_SERVICES if name in self.alive]
        self.uptime = since(max(starts), wall) if len(starts) == len(TRADING_SERVICES) else None
        self.risk_age = since(sent(seen.risk), wall) if seen.risk else None
        self.risk = seen.risk if self.risk_age is not None and self.risk_age <= RISK_STALE_SECONDS else None
        self.feeds = seen.feeds if "marketdata" in self.alive else {}
        self.mark_ages = {product: _mark_age(product, seen, scope, wall, market) for product in scope.products}
        self.staleness = max(self.mark_ages.values()) if seen.marks else None
        self.last_mark_age = min((self.mark_ages[product] for product in seen.marks), default=None)
        self.last_decision_age = min((since(sent(d), wall) for d in seen.decisions.values()), default=None)
        execution = seen.services.get("execution")
        self.venue_answer_age = ago(execution.last_venue_at, wall) if execution else None
        self.account_age = since(sent(seen.account), wall) if seen.account else None
        self.account = (
            seen.account if self.account_age is not None and self.account_age <= ACCOUNT_STALE_SECONDS else None
        )
        self.account_unavailable = _unavailable(seen.account)
        # Told in market time, which is wall time unless this is a replay.
        reconciled_at = seen.account.reconciled_at if seen.account else None
        self.reconciliation_age = ago(reconciled_at, market if scope.replay else wall)
        self.unknown = [order for order in core.kept.open.values() if order.event.status is m.OrderStatus.UNKNOWN]
        self.oldest_unknown_age = max((since(order.since, wall) for order in self.unknown), default=None)


class Row(NamedTuple):
    """One figure of /metrics. A name that ends in _total is a counter."""

    name: str
    help: str
    value: Number


def playbook(f: Figures) -> list[Row]:
    """Names and meanings are a contract with the monitoring playbook, its alerts and its runbooks."""
    kept, risk = f.kept, f.risk
    return [
        Row(
            "perps_bot_cycle_duration_seconds",
            "The larger of the last finished cycle and the oldest unfinished one; a cycle is one mark's way from its "
            "arrival to the decision and, after a signal, to the order's acknowledgement or denial.",
            f.cycle_duration,
        ),
        Row(
            "perps_bot_cycle_errors_total",
            "Errors that the services reported, crashes included.",
            kept.cycle_errors if kept else None,
        ),
        Row("perps_bot_orders_submitted_total", "Orders sent to the venue.", kept.submitted if kept else None),
        Row(
            "perps_bot_risk_daily_loss",
            "Loss since 00:00 UTC in the quote currency: realised, unrealised and fees.",
            risk.daily_loss if risk else None,
        ),
        Row(
            "perps_bot_risk_daily_loss_limit",
            "Daily loss in the quote currency at which trading halts at the latest: the smaller of the amount and the "
            "percentage of the equity at 00:00 UTC.",
            risk.daily_loss_limit if risk else None,
        ),
        Row(
            "perps_bot_market_data_staleness_seconds",
            "Age of the last confirmed mark price of the product where it is oldest.",
            f.staleness,
        ),
        Row("perps_bot_telemetry_account_age_seconds", "Age of the last account snapshot.", f.account_age),
        Row(
            "perps_bot_order_tooling_errors_total", "Operator tools that failed.", kept.tooling_errors if kept else None
        ),
    ]


def since(then: datetime, now: datetime) -> float:
    """Seconds; clocks of two machines may differ, an age is never negative."""
    return max(0.0, (now - then).total_seconds())


def ago(then: datetime | None, now: datetime) -> float | None:
    return None if then is None else since(then, now)


def _unavailable(account: m.Account | None) -> dict[str, str]:
    """Why a part of the account is not known, by part."""
    if account is None:
        return dict.fromkeys(ACCOUNT_PARTS, "no account snapshot yet")
    silent = {part: "not read yet" for part in ACCOUNT_PARTS if getattr(account, part) is None}
    return silent | account.unavailable


def _mark_age(product: str, seen: Seen, scope: Scope, wall: datetime, market: datetime) -> float:
    """A product without any mark counts from our start, so that it alerts too."""
    mark = seen.marks.get(product)
    if mark is None:
        return since(scope.started_at, wall)
    return since(mark.at, market) if scope.replay else since(sent(mark), wall)
