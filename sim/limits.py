"""Token buckets: how many requests a second a caller may send. Pure."""

from __future__ import annotations


class Buckets:
    """One bucket per caller, holding at most `per_second` requests and filled at that rate."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._levels: dict[str, tuple[float, float]] = {}

    def left(self, caller: str, at: float) -> float:
        """How many requests the bucket holds at the time `at`; at most its capacity."""
        level, since = self._levels.get(caller, (float(self.per_second), at))
        return min(level + (at - since) * self.per_second, self.per_second)

    def allows(self, caller: str, at: float) -> bool:
        """Take one request out at the time `at` (seconds, monotonic); False when the bucket is empty."""
        level = self.left(caller, at)
        allowed = level >= 1
        self._levels[caller] = (level - 1 if allowed else level, at)
        return allowed
