"""What the exporter knows: `Kept` survives its restarts, `Seen` is told again by the bus within seconds."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from msgspec import Struct, field

from libs.common import messages as m

# The ledger's sequence already makes every delivery count once; these windows only cover a message that is handed in
# twice in a row, so they need not reach back for ever.
RECENT_MAX = 500
LAST_FILLS = 20

V = TypeVar("V")


def sent(message: m.Message) -> datetime:
    """Wall time of a message. What never crossed a bus has only its market time."""
    return message.sent_at or message.at


def remember(known: dict[str, V], key: str, value: V) -> None:
    """Note it, forgetting the oldest beyond RECENT_MAX."""
    known[key] = value
    if len(known) > RECENT_MAX:
        del known[next(iter(known))]


class Recent(Struct):
    """Ids met lately."""

    ids: dict[str, None] = field(default_factory=dict)

    def first_time(self, key: str) -> bool:
        if key in self.ids:
            return False
        remember(self.ids, key, None)
        return True


class ServiceLife(Struct):
    """Error count of one service. `floor` is its first count after a start: what its earlier crashes left."""

    started_at: datetime
    errors: int
    floor: int


class Order(Struct, kw_only=True):
    """One order as its events tell it. `since`: wall time at which it came into this status."""

    client_order_id: str
    signal_id: str
    product_id: str
    side: m.Side
    order_type: m.OrderType
    quantity: Decimal
    limit_price: Decimal | None
    status: m.OrderStatus
    since: datetime
    revision: int = 0
    submitted: bool = False
    filled_qty: Decimal = Decimal(0)


class Signalled(Struct):
    """A cycle whose decision was a signal and whose end is outstanding. `expires_at` is market time."""

    received_at: datetime
    expires_at: datetime


class Kept(Struct):
    """Counters and what they rest on."""

    cycle_errors: int = 0
    lives: dict[str, ServiceLife] = field(default_factory=dict)
    tooling_errors: int = 0
    tooling_known: Recent = field(default_factory=Recent)
    submitted: int = 0
    successful: int = 0
    failed: int = 0
    open: dict[str, Order] = field(default_factory=dict)
    finished: dict[m.OrderStatus, int] = field(default_factory=dict)
    finished_known: Recent = field(default_factory=Recent)
    verdicts: dict[m.Reason, int] = field(default_factory=dict)
    verdicts_known: Recent = field(default_factory=Recent)
    fills: dict[m.Side, int] = field(default_factory=dict)
    fill_notional: dict[m.Side, Decimal] = field(default_factory=dict)
    fills_known: Recent = field(default_factory=Recent)
    last_fills: list[m.Fill] = field(default_factory=list)
    signalled: dict[str, Signalled] = field(default_factory=dict)
    unanswered: int = 0


class Seen(Struct):
    """The last value of everything that is told again."""

    recovered: bool = False
    marks: dict[str, m.Mark] = field(default_factory=dict)
    feeds: dict[str, m.FeedState] = field(default_factory=dict)
    decisions: dict[str, m.Decision] = field(default_factory=dict)
    services: dict[str, m.ServiceStatus] = field(default_factory=dict)
    account: m.Account | None = None
    risk: m.RiskFigures | None = None
    trading: m.TradingState | None = None
    dropped: dict[str, int] = field(default_factory=dict)
