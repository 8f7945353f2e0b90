"""How long a mark's way through the decision takes.

A cycle begins when marketdata receives a mark. It ends when strategy has decided and, where it signalled, when the
order is acknowledged by the venue or denied by us. Ledger and core messages may overtake each other, so an end may
be known before its beginning.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta

from msgspec import Struct, field

from libs.common import messages as m
from services.exporter.state import Kept, Recent, Signalled, remember, sent

# From a hop to a hang; 3 s and 6 s are the playbook's thresholds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 6.0, 10.0, 30.0, 60.0)
UNSETTLED = frozenset({m.OrderStatus.SUBMITTING, m.OrderStatus.UNKNOWN})
# Without the signal's own expiry; and how long after it risk's answer may still be on its way.
LIFETIME_DEFAULT = timedelta(seconds=60)
ANSWER_GRACE = timedelta(seconds=10)
NEVER = datetime.min.replace(tzinfo=UTC)


class Progress(Struct):
    """How far one product has come: its newest mark, and what strategy has decided on. NEVER: nothing yet."""

    confirmed_at: datetime = NEVER  # the newest mark's confirmation by the venue (market)
    received_at: datetime = NEVER  # when its frame reached us (wall)
    start: datetime = NEVER  # when its cycle began (wall)
    decided_at: datetime = NEVER  # confirmation of the mark that was decided on last (market)
    decided_received_at: datetime = NEVER  # the latest frame that was decided on (wall)
    waiting: datetime | None = None  # start of the oldest mark without a decision (wall)


class Cycles(Struct):
    """`last` is the duration of the last finished cycle in seconds; `counts` has a bucket per bound, and the rest."""

    last: float | None = None
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0
    products: dict[str, Progress] = field(default_factory=dict)
    signalled: Recent = field(default_factory=Recent)
    ends: dict[str, datetime] = field(default_factory=dict)
    expiries: dict[str, datetime] = field(default_factory=dict)

    def on_mark(self, mark: m.Mark) -> None:
        """The oldest mark without a decision is what waits: newer ones must not hide that nobody decides."""
        progress = self.products.setdefault(mark.product_id, Progress())
        # A confirmation repeats the frame of the last price: its way begins when it is sent.
        same_frame = mark.received_at <= progress.received_at
        progress.start = sent(mark) if same_frame else mark.received_at
        progress.confirmed_at, progress.received_at = mark.at, mark.received_at
        if mark.at > progress.decided_at and progress.waiting is None:
            progress.waiting = progress.start

    def on_decision(self, decision: m.Decision, kept: Kept) -> None:
        progress = self.products.setdefault(decision.product_id, Progress())
        new_frame = decision.received_at > progress.decided_received_at
        progress.decided_at = decision.mark_at
        progress.decided_received_at = max(decision.received_at, progress.decided_received_at)
        if decision.mark_at >= progress.confirmed_at:
            progress.waiting = None
        elif progress.waiting is not None:
            progress.waiting = progress.start
        signal_id = decision.signal_id
        if signal_id and signal_id not in kept.signalled and self.signalled.first_time(signal_id):
            self._signalled(decision, kept)
        elif new_frame:
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
        for progress in self.products.values():
            progress.waiting = None

    def duration(self, kept: Kept, wall: datetime) -> float | None:
        """The larger of the last finished cycle and the oldest unfinished one; None before the first mark."""
        starts = [progress.waiting for progress in self.products.values() if progress.waiting is not None]
        starts += [cycle.received_at for cycle in kept.signalled.values()]
        if not starts:
            return self.last
        return max(self.last or 0.0, (wall - min(starts)).total_seconds())

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
        self.counts[bisect_left(BOUNDS, seconds)] += 1
