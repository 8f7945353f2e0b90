"""Messages with sane defaults, and the exporter with a clock set by hand. Times are seconds after START."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from libs.common import messages as m
from services.exporter.app import Exporter
from services.exporter.core import ExporterCore
from services.exporter.figures import Scope
from services.exporter.metrics import ExporterMetrics

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
BTC, ETH = "BTC-USD", "ETH-USD"
PRODUCTS = (BTC, ETH)
PLAYBOOK_NAMES = (
    "perps_bot_cycle_duration_seconds",
    "perps_bot_cycle_errors_total",
    "perps_bot_orders_submitted_total",
    "perps_bot_risk_daily_loss",
    "perps_bot_risk_daily_loss_limit",
    "perps_bot_market_data_staleness_seconds",
    "perps_bot_telemetry_account_age_seconds",
    "perps_bot_order_tooling_errors_total",
)


def t(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def mark(at: float, product_id: str = BTC, received: float | None = None, sent: float | None = None) -> m.Mark:
    return m.Mark(
        id=f"mark-{product_id}-{at}",
        at=t(at),
        sent_at=t(at if sent is None else sent),
        product_id=product_id,
        bid=Decimal("49999.5"),
        ask=Decimal("50000.5"),
        last=Decimal("50000"),
        mid=Decimal("50000"),
        price_time=t(at),
        sequence=1,
        received_at=t(at if received is None else received),
    )


def decision(of: m.Mark, sent: float, signal_id: str = "", action: str = "hold", reason: str = "flat") -> m.Decision:
    return m.Decision(
        id=f"decision-{of.id}",
        cause=of.id,
        at=of.at,
        sent_at=t(sent),
        product_id=of.product_id,
        action=action,
        reason=reason,
        mark_at=of.at,
        received_at=of.received_at,
        decided_at=t(sent),
        signal_id=signal_id,
    )


def signal(signal_id: str, at: float, expires: float) -> m.Signal:
    return m.Signal(
        id=signal_id,
        at=t(at),
        sent_at=t(at),
        product_id=BTC,
        strategy="crossover",
        side=m.Side.BUY,
        order_type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal("0.5"),
        limit_price=None,
        reduce_only=False,
        reason="crossed up",
        trigger="candle",
        attempt=1,
        expires_at=t(expires),
    )


def approved(signal_id: str) -> m.ApprovedOrder:
    return m.ApprovedOrder(
        client_order_id=m.client_order_id(signal_id),
        product_id=BTC,
        side=m.Side.BUY,
        order_type=m.OrderType.LIMIT,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal("0.5"),
        limit_price=Decimal("50010"),
        reduce_only=False,
    )


def verdict(signal_id: str, at: float, reason: m.Reason = m.Reason.APPROVED) -> m.Verdict:
    return m.Verdict(
        id=f"verdict-{signal_id}",
        at=t(at),
        sent_at=t(at),
        product_id=BTC,
        signal_id=signal_id,
        reason=reason,
        detail="",
        trading_revision=1,
        expires_at=t(at + 5),
        order=approved(signal_id) if reason is m.Reason.APPROVED else None,
    )


def order(signal_id: str, revision: int, status: m.OrderStatus, at: float, filled: str = "0") -> m.OrderEvent:
    return m.OrderEvent(
        id=f"{signal_id}-{revision}",
        at=t(at),
        sent_at=t(at),
        product_id=BTC,
        client_order_id=m.client_order_id(signal_id),
        signal_id=signal_id,
        revision=revision,
        status=status,
        reason="",
        order=approved(signal_id),
        filled_qty=Decimal(filled),
    )


def fill(entry_id: str, at: float, price: str = "50000", size: str = "0.5", side: m.Side = m.Side.BUY) -> m.Fill:
    return m.Fill(
        id=entry_id,
        at=t(at),
        sent_at=t(at),
        product_id=BTC,
        client_order_id="order",
        venue_order_id="venue-order",
        trade_id="trade",
        side=side,
        price=Decimal(price),
        size=Decimal(size),
        fee=Decimal("1.5"),
        liquidity="TAKER",
        trade_time=t(at),
    )


def feed(at: float, state: m.Feed = m.Feed.LIVE, product_id: str = BTC) -> m.FeedState:
    return m.FeedState(
        id=f"feed-{at}", at=t(at), sent_at=t(at), product_id=product_id, state=state, reason="", since=t(at)
    )


FOREIGN = m.ForeignOrder(
    venue_order_id="v-9",
    client_order_id="by hand",
    product_id=ETH,
    side=m.Side.SELL,
    status="OPEN",
    quantity=Decimal("0.25"),
    filled_qty=Decimal(0),
    limit_price=Decimal("4100.5"),
)


def account(at: float, **changes: Any) -> m.Account:
    """The venue's limits could not be read; everything else is there."""
    snapshot = m.Account(
        id="account",
        at=t(at),
        sent_at=t(at),
        balances={"USD": m.Balance(available=Decimal("70000"), hold=Decimal(0))},
        taker_fee_rate=Decimal("0.006"),
        maker_fee_rate=Decimal("0.004"),
        settled=True,
        ledger_sequence=1,
        opening={"USD": Decimal("100000")},
        fee_tier=m.FeeTier(
            pricing_tier="Intro 1",
            taker_fee_rate=Decimal("0.006"),
            maker_fee_rate=Decimal("0.004"),
            total_volume=Decimal("1250.5"),
            total_fees=Decimal("7.5"),
        ),
        permissions=m.Permissions(can_view=True, can_trade=True, can_transfer=False, portfolio_uuid="p-1"),
        portfolios=(m.Portfolio(uuid="p-1", name="Default", type="DEFAULT"),),
        unavailable={"limits": "HTTP 503"},
        foreign_orders=(FOREIGN,),
        foreign_fills=2,
        reconciled_at=t(at - 1),
    )
    return msgspec.structs.replace(snapshot, **changes)


GUARDS = {
    m.Guard.DAILY_LOSS: m.GuardFigure(
        level=m.GuardLevel.OK, value=Decimal("0.1255"), warn=Decimal("0.8"), halt=Decimal(1), detail="125.5 of 1000"
    ),
    m.Guard.DRAWDOWN: m.GuardFigure(
        level=m.GuardLevel.REDUCE,
        value=Decimal("0.12"),
        warn=Decimal("0.05"),
        reduce=Decimal("0.1"),
        halt=Decimal("0.2"),
    ),
    m.Guard.VOLATILITY: m.GuardFigure(level=m.GuardLevel.UNKNOWN, value=None, halt=Decimal(5), detail="too few prices"),
}


def risk(at: float, **changes: Any) -> m.RiskFigures:
    """In the middle of a flatten, with one product degraded."""
    figures = m.RiskFigures(
        id="risk",
        at=t(at),
        sent_at=t(at),
        daily_loss_limit=Decimal("1000"),
        daily_loss=Decimal("125.5"),
        equity=Decimal("99874.5"),
        exposure=Decimal("25000"),
        reserved=Decimal(0),
        realized_pnl=Decimal("-100"),
        fees=Decimal("25.5"),
        unrealized_pnl=Decimal(0),
        positions={
            BTC: m.Position(
                quantity=Decimal("0.5"),
                avg_price=Decimal("50000"),
                realized_pnl=Decimal("-100"),
                fees=Decimal("25.5"),
                mark_price=Decimal("50000"),
                unrealized_pnl=Decimal(0),
            ),
            ETH: m.Position(quantity=Decimal(0), avg_price=None, realized_pnl=Decimal(0), fees=Decimal(0), dust=False),
        },
        books={"USD": Decimal("70000"), "BTC": Decimal("0.5")},
        drift={"BTC": Decimal("0.01")},
        trading=m.Trading.ACTIVE,
        ledger_sequence=1,
        equity_day_start=Decimal(100_000),
        equity_peak=Decimal("100250.5"),
        guards=GUARDS,
        degraded={ETH: "gap"},
        closing={
            BTC: m.Closing(held=Decimal("0.5"), sold=Decimal("0.25"), outcome="waiting", attempts=2, detail="expired"),
            ETH: m.Closing(held=Decimal(0), sold=Decimal(1), outcome="flat", attempts=1),
        },
    )
    return msgspec.structs.replace(figures, **changes)


def status(service: str, at: float, **changes: Any) -> m.ServiceStatus:
    beat = m.ServiceStatus(
        id=f"status-{service}",
        at=t(at),
        sent_at=t(at),
        service=service,
        version="0.1.0",
        pid=1,
        profile="dev",
        started_at=START,
        ready=True,
        last_input_at=t(at),
        last_decision_at=t(at),
        last_venue_at=t(at) if service in ("marketdata", "execution") else None,
    )
    return msgspec.structs.replace(beat, **changes)


def tooling(at: float, ok: bool) -> m.Tooling:
    return m.Tooling(id=f"tool-{at}", at=t(at), sent_at=t(at), command="preview", ok=ok, error="" if ok else "refused")


def trading(at: float, state: m.Trading = m.Trading.ACTIVE, flatten: str = "") -> m.TradingState:
    return m.TradingState(
        id="trading", at=t(at), state=state, reason="start", who="operator", since=t(at), revision=1, flatten=flatten
    )


RECOVERED = m.Recovered(id="recovered", at=START)


def full_story() -> list[m.Message]:
    """From the start to the first fill, with every kind of message, within ten seconds."""
    first, second, other = mark(1), mark(5), mark(5, ETH)
    services = ("marketdata", "strategy", "risk", "execution", "exporter")
    return [
        RECOVERED,
        trading(0),
        *(status(service, 1, errors=1 if service == "risk" else 0) for service in services),
        feed(1),
        feed(1, product_id=ETH),
        first,
        decision(first, 1.01),
        second,
        other,
        signal("s1", 5.01, 20),
        decision(second, 5.02, "s1", "buy", "crossed up"),
        verdict("s1", 5.03),
        order("s1", 1, m.OrderStatus.SUBMITTING, 5.04),
        order("s1", 2, m.OrderStatus.ACCEPTED, 5.25),
        fill("f1", 5.3),
        order("s1", 3, m.OrderStatus.FILLED, 5.4, "0.5"),
        signal("s2", 6, 20),
        verdict("s2", 6.1),
        order("s2", 1, m.OrderStatus.SUBMITTING, 6.2),
        order("s2", 2, m.OrderStatus.UNKNOWN, 7),
        decision(other, 5.5),
        account(7),
        risk(8),
        tooling(8, ok=False),
        tooling(8.5, ok=True),
        *(status(service, 9, errors=1 if service == "risk" else 0) for service in services),
    ]


class HandClock:
    """Wall and market time are what the test says."""

    def __init__(self) -> None:
        self.now = START
        self.market_now = START

    def wall(self) -> datetime:
        return self.now

    def market(self) -> datetime:
        return self.market_now

    def monotonic(self) -> float:
        return self.now.timestamp()

    def observe(self, market_time: datetime) -> None:
        self.market_now = max(self.market_now, market_time)


class Rig:
    """The exporter without a bus: messages go in by hand, figures come out as they would be served."""

    def __init__(self, replay: bool = False) -> None:
        self.clock = HandClock()
        self.core = ExporterCore(PRODUCTS)
        self.metrics = ExporterMetrics()
        self.reason = ""
        scope = Scope(profile="dev", products=PRODUCTS, replay=replay, simulated=True, started_at=START)
        self.exporter = Exporter(self.core, scope, lambda: self.reason, self.clock, self.metrics)
        self.metrics.show(self.exporter.look)

    def feed(self, *messages: m.Message) -> Rig:
        for message in messages:
            self.clock.observe(message.at)
            assert self.core.on_message(message, self.clock.market()) == []
        return self

    def tick(self, market: float) -> Rig:
        return self.feed(m.Tick(id="tick", at=t(market)))

    def at(self, wall: float) -> Rig:
        self.clock.now = t(wall)
        return self

    def text(self) -> str:
        return generate_latest(self.metrics.registry).decode()

    def scrape(self) -> dict[str, float]:
        """Samples by name and labels, as they stand in the text format."""
        return {
            sample.name + labels(sample.labels): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def document(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.exporter.document())
        return decoded


def labels(given: dict[str, str]) -> str:
    return "{" + ",".join(f"{name}={value}" for name, value in sorted(given.items())) + "}" if given else ""


def restarted(before: Rig) -> Rig:
    """A new exporter that takes up what the old one dumped, before its recovery has ended."""
    after = Rig()
    after.core.restore(before.core.dump())
    after.clock.now = before.clock.now
    return after
