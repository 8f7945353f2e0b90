"""How fast we may ask the venue: a token bucket that keeps room for cancels, and pauses between attempts. Pure.

Time is passed in, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from enum import Enum

REQUESTS_PER_SECOND = 25.0  # the venue takes 30 per user on private paths, and other programs share them
HELD_SECONDS_MAX = 60.0
REFUSED_SECONDS = 1.0  # after a 429 that does not say for how long
PAUSE_SECONDS = 0.25
PAUSE_SECONDS_MAX = 5.0


class Priority(Enum):
    """The part of the bucket that a request must leave to those above it."""

    CANCEL = 0.0
    ORDER = 0.2  # creates and edits
    READ = 0.5


class Budget:
    """Requests that may go out now. What the venue says about it counts more than what we counted."""

    def __init__(self, per_second: float = REQUESTS_PER_SECOND) -> None:
        self._ceiling = per_second
        self._size = per_second  # tokens in a full bucket, filled once a second
        self._level = per_second
        self._at = 0.0
        self._reads_from = 0.0

    def take(self, priority: Priority, now: float) -> float:
        """0: go, a token is taken. Otherwise the seconds to wait before asking again."""
        self._fill(now)
        held = self._reads_from - now if priority is Priority.READ else 0.0
        missing = 1 + priority.value * self._size - self._level
        if held <= 0 and missing <= 0:
            self._level -= 1
            return 0.0
        return max(held, missing / self._size, 0.001)

    def told(self, limit: int, remaining: int, now: float) -> None:
        """What the headers of an answer say: the venue's limit may be tighter than ours, and others use it too."""
        self._fill(now)
        # A bucket of fewer than three tokens would never leave one to a read.
        self._size = max(3.0, min(self._ceiling, float(limit)))
        self._level = min(self._level, self._size, max(0.0, float(remaining)))

    def refused(self, seconds: float | None, now: float) -> None:
        """A 429: nothing is left, and reads wait for as long as the venue says."""
        self._fill(now)
        self._level = 0.0
        self.hold_reads(REFUSED_SECONDS if seconds is None else seconds, now)

    def hold_reads(self, seconds: float, now: float) -> None:
        self._reads_from = max(self._reads_from, now + min(seconds, HELD_SECONDS_MAX))

    def _fill(self, now: float) -> None:
        self._level = min(self._size, self._level + max(0.0, now - self._at) * self._size)
        self._at = now


def backoff(attempt: int, chance: float, longest: float = PAUSE_SECONDS_MAX) -> float:
    """Seconds before attempt `attempt` + 1, doubling from one to the next, spread evenly from 0 by `chance` (0 .. 1) so
    that programs which failed together do not come back together."""
    return chance * min(longest, PAUSE_SECONDS * 2.0 ** min(attempt, 16))
