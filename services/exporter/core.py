"""Takes every message into the view of the system. Decides nothing and publishes nothing."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec
from msgspec import Struct

from libs.common import messages as m
from libs.common.subjects import SERVICES
from services.exporter.cycles import Cycles
from services.exporter.state import Kept, Seen

DIGITS_MAX = 40  # before or behind the point; far beyond any price or size, far within what arithmetic bears


class ExporterCore:
    """See `libs.common.shell.Core`. `figures.py` reads `kept`, `seen` and `cycles` whenever someone looks."""

    busy = False

    def __init__(self, products: tuple[str, ...]) -> None:
        self.kept = Kept()
        self.seen = Seen()
        self.cycles = Cycles()
        self._products = frozenset(products)

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case m.Tick():
                self.cycles.on_tick(self.kept, now)
            case m.Recovered():
                self.seen.recovered = True
                self.cycles.forget_waiting()
            case _ if not (sane(message) and self._ours(message)):
                kind = type(message).__name__
                self.seen.dropped[kind] = self.seen.dropped.get(kind, 0) + 1
            case m.Verdict():
                self.kept.on_verdict(message)
                self.cycles.on_verdict(message, self.kept)
            case m.OrderEvent():
                self.kept.on_order(message)
                self.cycles.on_order(message, self.kept)
            case m.Fill():
                self.kept.on_fill(message)
            case m.Signal():
                self.cycles.on_signal(message, self.kept)
            case m.Tooling():
                self.kept.on_tooling(message)
            case _:
                self._last_value(message, now)
        return []

    def not_ready(self, now: datetime) -> str:
        """It can always tell what it knows; that the others are silent is something to tell."""
        return ""

    def dump(self) -> bytes:
        return msgspec.json.encode(self.kept)

    def restore(self, raw: bytes) -> None:
        self.kept = m.read(raw, Kept)

    def _ours(self, message: m.Message) -> bool:
        """Only configured products and our own services: their number bounds the labels."""
        match message:
            case m.Mark() | m.Decision() | m.FeedState():
                return message.product_id in self._products
            case m.ServiceStatus():
                return message.service in SERVICES
        return True

    def _last_value(self, message: m.Message, now: datetime) -> None:
        seen = self.seen
        match message:
            case m.Mark() if not outdated(seen.marks.get(message.product_id), message, now):
                seen.marks[message.product_id] = message
                self.cycles.on_mark(message)
            case m.Decision():
                if not outdated(seen.decisions.get(message.product_id), message, now):
                    seen.decisions[message.product_id] = message
                self.cycles.on_decision(message, self.kept)
            case m.FeedState() if not outdated(seen.feeds.get(message.product_id), message, now):
                seen.feeds[message.product_id] = message
            case m.ServiceStatus() if not outdated(seen.services.get(message.service), message, now):
                seen.services[message.service] = message
                self.kept.on_status(message)
            case m.RiskFigures() if not outdated(seen.risk, message, now):
                seen.risk = message
            case m.Account() if not outdated(seen.account, message, now):
                seen.account = message
            case m.TradingState():
                seen.trading = message


def outdated(known: m.Message | None, message: m.Message, now: datetime) -> bool:
    """Overtaken by a newer one. What claims to come from the future does not hold up what comes after it."""
    return known is not None and message.at < known.at <= now


def sane(value: object) -> bool:
    """False if a Decimal in it, finite as it is, is so large or so small that reckoning with it overflows."""
    match value:
        case Decimal():
            return not value or abs(value.adjusted()) <= DIGITS_MAX
        case Struct():
            return all([sane(getattr(value, name)) for name in m.figures_of(type(value))])
        case dict():
            return all(map(sane, value.values()))
        case tuple():
            return all(map(sane, value))
    return True
