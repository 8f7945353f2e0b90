"""How far the venue's clock is from ours. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

REFRESH_SECONDS = 300.0
AGAIN_SECONDS = 10.0  # after a venue that did not answer


class Sample(NamedTuple):
    """One answer of GET /time, between two readings of our wall clock."""

    sent: datetime
    server: datetime
    received: datetime


class Skew:
    """`offset` is what must be added to our wall clock to get the venue's; zero until it was measured.

    It is the least that the samples allow (as though each answer had come back in no time), so that the venue never
    reads a token as one from the future; it is too small by half a round trip, or by the age of a cached answer.
    """

    def __init__(self) -> None:
        self.offset = timedelta(0)
        self.measured = False
        self._due_at = float("-inf")

    def due(self, now: float) -> bool:
        """Whether to measure, `now` in seconds of a clock that never goes back."""
        return now >= self._due_at

    def take(self, samples: list[Sample], now: float) -> None:
        """The samples of one measurement; without any the last offset stays in force."""
        if samples:
            self.offset = max(sample.server - sample.received for sample in samples)
            self.measured = True
        self._due_at = now + (REFRESH_SECONDS if samples else AGAIN_SECONDS)
