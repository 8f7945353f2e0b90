"""How long a mark's way through the decision takes.

A cycle begins when marketdata receives a mark. It ends when strategy has decided and, where it signalled, when the
order is acknowledged by the venue or denied by us. Ledger and core messages may overtake each other, so an end may
be known before its beginning.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct, field

from libs.common import messages as m
from services.exporter.state import Kept, Recent, Signalled, remember, sent

# From a hop to a hang; 3 s and 6 s are the playbook's thresholds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 6.0, 10.0, 30.0, 60.0)
UNSETTLED = frozenset({m.OrderStatus.SUBMITTING, m.OrderStatus.UNKNOWN})
# Without the signal's own expiry; and how long after it risk's answer may still be on its way.
LIFETIME_DEFAULT = timedelta(seconds=60)
ANSWER_GRACE = timedelta(seconds=10)


class Newest(Struct, frozen=True):
    """The newest mark of a product: the venue's confirmation time (market), and when its cycle began (wall)."""

    at: datetime
    start: datetime
    received_at: datetime


class Decided(Struct, frozen=True):
    """How far strategy has come in one product."""

    mark_at: datetime
    received_at: datetime


class Cycles(Struct):
    """`last` is the duration of the last finished cycle in seconds; `counts` has a bucket per bound, and the rest."""

    last: float | None = None
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0
    waiting: dict[str, datetime] = field(default_factory=dict)
    newest: dict[str, Newest] = field(default_factory=dict)
    decided: dict[str, Decided] = field(default_factory=dict)
    signalled: Recent = field(default_factory=Recent)
    ends: dict[str, datetime] = field(default_factory=dict)
    expiries: dict[str, datetime] = field(default_factory=dict)

    def on_mark(self, mark: m.Mark) -> None:
        """The oldest mark without a decision is what waits: newer ones must not hide that nobody decides."""
        product_id = mark.product_id
        before = self.newest.get(product_id)
        # A confirmation repeats the frame of the last price: its way begins when it is sent.
        same_frame = before is not None and mark.received_at <= before.received_at
        start = sent(mark) if same_frame else mark.received_at
        self.newest[product_id] = Newest(mark.at, start, mark.received_at)
        decided = self.decided.get(product_id)
        if decided is None or mark.at > decided.mark_at:
            self.waiting.setdefault(product_id, start)

    def on_decision(self, decision: m.Decision, kept: Kept) -> None:
        product_id = decision.product_id
        before = self.decided.get(product_id)
        self._decided(decision)
        signal_id = decision.signal_id
        if signal_id and signal_id not in kept.signalled and self.signalled.first_time(signal_id):
            self._signalled(decision, kept)
        elif before is None or decision.received_at > before.received_at:
            self._finish(decision.received_at, sent(decision))

    def on_signal(self, signal: m.Signal, kept: Kept) -> None:
        remember(self.expiries, signal.id, signal.expires_at)
        if signal.id in kept.signalled:
            kept.signalled[signal.id].expires_at = signal.expires_at

    def on_verdict(self, verdict: m.Verdict, kept: Kept) -> None:
        if verdict.order is None:
            self._end(verdict.signal_id, sent(verdict), kept)

    def on_order(self, event: m.OrderEvent, kept: Kept) -> None:
        if event.status not in UNSETTLED:
            self._end(event.signal_id, sent(event), kept)

    def on_tick(self, kept: Kept, now: datetime) -> None:
        """A signal that expired without any answer will not get one: its cycle is given up, and counted."""
        for signal_id, cycle in list(kept.signalled.items()):
            if now > cycle.expires_at + ANSWER_GRACE and signal_id not in kept.verdicts_known.ids:
                del kept.signalled[signal_id]
                kept.unanswered += 1

    def forget_waiting(self) -> None:
        """Last values do not tell whether they were decided on; the next mark does."""
        self.waiting.clear()

    def duration(self, kept: Kept, wall: datetime) -> float | None:
        """The larger of the last finished cycle and the oldest unfinished one; None before the first mark."""
        starts = [*self.waiting.values(), *(cycle.received_at for cycle in kept.signalled.values())]
        if not starts:
            return self.last
        return max(self.last or 0.0, (wall - min(starts)).total_seconds())

    def _decided(self, decision: m.Decision) -> None:
        product_id = decision.product_id
        before = self.decided.get(product_id)
        received_at = max(decision.received_at, before.received_at) if before else decision.received_at
        self.decided[product_id] = Decided(decision.mark_at, received_at)
        newest = self.newest.get(product_id)
        if newest is None or decision.mark_at >= newest.at:
            self.waiting.pop(product_id, None)
        elif product_id in self.waiting:
            self.waiting[product_id] = newest.start

    def _signalled(self, decision: m.Decision, kept: Kept) -> None:
        signal_id = decision.signal_id
        if signal_id in self.ends:
            self._finish(decision.received_at, max(self.ends[signal_id], sent(decision)))
            return
        expires_at = self.expiries.get(signal_id, decision.at + LIFETIME_DEFAULT)
        kept.signalled[signal_id] = Signalled(decision.received_at, expires_at)

    def _end(self, signal_id: str, at: datetime, kept: Kept) -> None:
        cycle = kept.signalled.pop(signal_id, None)
        if cycle is not None:
            self._finish(cycle.received_at, at)
        elif signal_id not in self.ends:
            remember(self.ends, signal_id, at)

    def _finish(self, start: datetime, end: datetime) -> None:
        seconds = max(0.0, (end - start).total_seconds())
        self.last = seconds
        self.total += seconds
        self.counts[next((i for i, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] += 1
