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


class Order(Struct):
    """One order at its last event. `since`: wall time at which it came into this status."""

    event: m.OrderEvent
    since: datetime
    submitted: bool = False


class Signalled(Struct):
    """A cycle whose decision was a signal and whose end is outstanding. `expires_at` is market time."""

    received_at: datetime
    expires_at: datetime


class Kept(Struct, forbid_unknown_fields=True):
    """Counters and what they rest on; another version's are refused, and counted anew from the bus. A message counts
    once however often it is delivered."""

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

    def on_verdict(self, verdict: m.Verdict) -> None:
        if self.verdicts_known.first_time(verdict.signal_id):
            self.verdicts[verdict.reason] = self.verdicts.get(verdict.reason, 0) + 1

    def on_order(self, event: m.OrderEvent) -> None:
        order = self.open.get(event.client_order_id)
        known = order.event.revision if order else 0
        if event.client_order_id in self.finished_known.ids or event.revision <= known:
            return
        if order is None:
            order = self.open[event.client_order_id] = Order(event, sent(event))
        elif event.status is not order.event.status:
            order.since = sent(event)
        order.event = event
        if event.status is m.OrderStatus.SUBMITTING and not order.submitted:
            order.submitted = True
            self.submitted += 1
        if event.status in m.TERMINAL:
            self._finish(event, order.submitted)

    def on_fill(self, fill: m.Fill) -> None:
        if self.fills_known.first_time(fill.id):
            self.fills[fill.side] = self.fills.get(fill.side, 0) + 1
            self.fill_notional[fill.side] = self.fill_notional.get(fill.side, Decimal(0)) + fill.quote_value
            self.last_fills = [*self.last_fills, fill][-LAST_FILLS:]

    def on_status(self, status: m.ServiceStatus) -> None:
        """A service counts its errors anew after each start, on top of the crashes that it survived."""
        life = self.lives.get(status.service)
        if life is not None and status.started_at < life.started_at:
            return
        if life is not None and status.started_at == life.started_at:
            counted, life.errors = life.errors, max(life.errors, status.errors)
        else:
            counted = life.floor if life else 0
            self.lives[status.service] = ServiceLife(status.started_at, status.errors, status.errors)
        self.cycle_errors += max(0, status.errors - counted)

    def on_tooling(self, outcome: m.Tooling) -> None:
        if not outcome.ok and self.tooling_known.first_time(f"{outcome.id} {outcome.at.isoformat()}"):
            self.tooling_errors += 1

    def _finish(self, event: m.OrderEvent, submitted: bool) -> None:
        """An order that traded succeeded, whatever ended it; one that was sent and did not trade failed."""
        del self.open[event.client_order_id]
        self.finished_known.first_time(event.client_order_id)
        self.finished[event.status] = self.finished.get(event.status, 0) + 1
        if event.filled_qty > 0:
            self.successful += submitted
        else:
            self.failed += submitted


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
