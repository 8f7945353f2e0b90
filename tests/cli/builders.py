"""Messages, and a bus by hand, for tests of what the operator sees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from libs.common import messages as m
from libs.common.bus import Delivery, Entry

START = datetime(2025, 10, 1, tzinfo=UTC)
PRODUCT = "BTC-USD"


def order(name: str = "s1") -> m.ApprovedOrder:
    return m.ApprovedOrder(
        client_order_id=f"order-{name}",
        product_id=PRODUCT,
        side=m.Side.BUY,
        order_type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal("0.5"),
        limit_price=None,
        reduce_only=False,
    )


def verdict(name: str = "s1", approved: bool = True) -> m.Verdict:
    return m.Verdict(
        id=f"verdict-{name}",
        product_id=PRODUCT,
        signal_id=name,
        reason=m.Reason.APPROVED if approved else m.Reason.MARK_STALE,
        detail="",
        trading_revision=1,
        expires_at=START,
        order=order(name) if approved else None,
    )


def event(name: str = "s1", status: m.OrderStatus = m.OrderStatus.FILLED) -> m.OrderEvent:
    return m.OrderEvent(
        id=f"event-{name}-{status}",
        product_id=PRODUCT,
        client_order_id=f"order-{name}",
        signal_id=name,
        revision=1,
        status=status,
        reason="",
        order=order(name),
    )


def fill(entry: str = "f1", fee: str = "0.6") -> m.Fill:
    return m.Fill(
        id=entry,
        product_id=PRODUCT,
        client_order_id="order-s1",
        venue_order_id="v1",
        trade_id="t1",
        side=m.Side.BUY,
        price=Decimal(100),
        size=Decimal("0.5"),
        fee=Decimal(fee),
        liquidity="TAKER",
        trade_time=START,
    )


def adjustment(
    kind: m.AdjustmentKind, flows: dict[str, str], size: str = "0", price: str = "0", name: str = "a1"
) -> m.Adjustment:
    return m.Adjustment(
        id=name,
        kind=kind,
        request_id=name,
        who="ann",
        reason="test",
        flows={currency: Decimal(amount) for currency, amount in flows.items()},
        product_id=PRODUCT if Decimal(size) else "",
        size=Decimal(size),
        price=Decimal(price),
    )


def decision(at: datetime, signal_id: str = "") -> m.Decision:
    return m.Decision(
        id=f"decision-{at}",
        product_id=PRODUCT,
        action="buy" if signal_id else "hold",
        reason="crossed_up" if signal_id else "no_signal",
        mark_at=at,
        received_at=at,
        decided_at=at,
        signal_id=signal_id,
    )


def mark(at: datetime) -> m.Mark:
    return m.Mark(
        id=f"mark-{at}",
        at=at,
        sent_at=at,
        product_id=PRODUCT,
        bid=Decimal(99),
        ask=Decimal(101),
        last=Decimal(100),
        mid=Decimal(100),
        price_time=at,
        sequence=1,
        received_at=at,
    )


def figures(books: dict[str, str], fees: str = "0.6", sequence: int = 0, equity: str = "999.4") -> m.RiskFigures:
    """A position of 0.5 bought at 100 that is worth the same now."""
    held = m.Position(
        quantity=Decimal(books.get("BTC", "0")),
        avg_price=Decimal(100),
        realized_pnl=Decimal(0),
        fees=Decimal(fees),
        mark_price=Decimal(100),
        unrealized_pnl=Decimal(0),
    )
    return m.RiskFigures(
        id="figures",
        at=START,
        daily_loss_limit=Decimal(500),
        daily_loss=Decimal(fees),
        equity=Decimal(equity),
        exposure=Decimal(50),
        reserved=Decimal(0),
        realized_pnl=Decimal(0),
        fees=Decimal(fees),
        unrealized_pnl=Decimal(0),
        positions={PRODUCT: held},
        books={name: Decimal(amount) for name, amount in books.items()},
        drift={},
        trading=m.Trading.ACTIVE,
        ledger_sequence=sequence,
    )


def heartbeat(service: str, at: datetime, reason: str = "") -> m.ServiceStatus:
    return m.ServiceStatus(
        id=f"status-{service}",
        sent_at=at,
        service=service,
        version="0.1.0",
        pid=7,
        profile="dev",
        started_at=at - timedelta(seconds=90),
        ready=not reason,
        not_ready_reason=reason,
        last_input_at=at,
        restarts=2,
    )


class Pages:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.position = 0
        self.messages: list[m.Message] = []

    async def catch_up(self) -> list[Delivery]:
        page = [Delivery(n + 1, "", message) for n, message in enumerate(self.messages) if n >= self.position]
        self.position = len(self.messages)
        return page


class OperatorBus:
    """The operator's bus by hand: `say` is what a service publishes, `replies` what it answers to sync."""

    def __init__(self) -> None:
        self.pages = Pages()
        self.values: list[m.Message] = []
        self.trading: Entry | None = None
        self.asked: list[tuple[str, int]] = []
        self.replies: dict[str, list[m.Reply]] = {}
        self.on_request: Callable[[str], None] = lambda service: None
        self._handlers: list[tuple[type[m.Message], Callable[[m.Message], None]]] = []

    def ledger(self, position: int) -> Pages:
        return self.pages

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None:
        self._handlers.append((kind, handler))

    async def last(self, kind: type[m.Message]) -> list[m.Message]:
        return [value for value in self.values if isinstance(value, kind)]

    async def load(self, bucket: str, key: str) -> Entry | None:
        return self.trading

    async def request(self, service: str, command: str, body: m.Command, timeout_seconds: float) -> m.Reply:
        assert command == "sync"
        self.asked.append((service, body.ledger_sequence))
        self.on_request(service)
        replies = self.replies.get(service, [])
        return replies.pop(0) if replies else m.Reply(ok=True)

    def say(self, message: m.Message) -> None:
        for kind, handler in self._handlers:
            if isinstance(message, kind):
                handler(message)
