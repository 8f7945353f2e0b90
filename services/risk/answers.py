"""Which signals are answered: each id gets one verdict, for ever.

Ids are remembered for a day of market time. What is older than the memory may have been answered and forgotten, so it
is not answered at all.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct, field

MEMORY = timedelta(hours=24)
ANSWERS_MAX = 10_000  # bounds the snapshot; reached only by a strategy that signals every nine seconds, all day
MINUTE = timedelta(minutes=1)


class Answers(Struct):
    """`given` is the time of the verdict per signal id, oldest first; `forgotten` the latest one that has left it."""

    given: dict[str, datetime] = field(default_factory=dict)
    forgotten: datetime | None = None
    approvals: list[datetime] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # verdicts by reason, since installation

    def add(self, signal_id: str, reason: str, at: datetime, approved: bool) -> bool:
        """False when the signal is answered already."""
        if signal_id in self.given:
            return False
        self.given[signal_id] = at
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if approved:
            self.approvals = [*self.recent(at), at]
        self._forget(at)
        return True

    def older_than_memory(self, signal_at: datetime) -> bool:
        """A verdict is never older than its signal: only what is as old as a forgotten verdict can be forgotten."""
        return self.forgotten is not None and signal_at <= self.forgotten

    def recent(self, now: datetime) -> list[datetime]:
        """Approvals of the last minute; the one exactly a minute ago is not among them."""
        return [at for at in self.approvals if at > now - MINUTE]

    def _forget(self, now: datetime) -> None:
        while self.given:
            oldest = next(iter(self.given))
            at = self.given[oldest]
            if now - at <= MEMORY and len(self.given) <= ANSWERS_MAX:
                return
            del self.given[oldest]
            self.forgotten = max(at, self.forgotten or at)
