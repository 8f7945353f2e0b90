"""What is asked all the time, order or no order: one table of guards, each with one figure and up to three steps.

The figures rest on facts and marks alone. What outlives a restart is in `Watch`, a part of risk's snapshot.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct, field

from libs.common import messages as m
from services.risk.config import Guards
from services.risk.knowledge import Knowledge


class Degraded(Struct):
    """A product that takes no entries: why, and since when nothing has been wrong with it any more."""

    reason: str
    sound_since: datetime | None = None


class Watch(Struct):
    """`errors` are the times of the latest orders without an outcome; `rejections` those of the venue in a row;
    `samples` (time, mid) per product, the oldest first."""

    peak_equity: Decimal | None = None
    rejections: int = 0
    errors: list[datetime] = field(default_factory=list)
    samples: dict[str, list[tuple[datetime, Decimal]]] = field(default_factory=dict)
    degraded: dict[str, Degraded] = field(default_factory=dict)

    def on_mark(self, mark: m.Mark, config: Guards) -> None:
        """Sample the price."""

    def on_order(self, event: m.OrderEvent) -> None:
        """A new step of an order; the caller tells each once."""

    def on_equity(self, equity: Decimal) -> None:
        """Raise the peak."""

    def rebase(self, peak: Decimal | None) -> None:
        """An operator has looked: measure from here on."""

    def look(self, known: Knowledge, now: datetime, config: Guards) -> None:
        """Whether each product's feed and mark are sound."""


class Measure(Struct, frozen=True):
    """What one guard measures now; None where it cannot be told."""

    value: Decimal | None
    detail: str = ""
