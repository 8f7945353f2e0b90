"""Takes every message into the view of the system. Decides nothing and publishes nothing."""

from __future__ import annotations

from datetime import datetime

import msgspec

from libs.common import messages as m
from libs.common.subjects import SERVICES
from services.exporter import orders
from services.exporter.cycles import Cycles
from services.exporter.sound import sound
from services.exporter.state import Kept, Seen, ServiceLife


class ExporterCore:
    """See `libs.common.shell.Core`. `figures.py` reads `kept`, `seen` and `cycles` whenever someone looks."""

    busy = False

    def __init__(self, products: tuple[str, ...]) -> None:
        self.kept = Kept()
        self.seen = Seen()
        self.cycles = Cycles()
        self._products = frozenset(products)

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        if isinstance(message, m.Tick):
            self.cycles.on_tick(self.kept, now)
        elif isinstance(message, m.Recovered):
            self.seen.recovered = True
            self.cycles.forget_waiting()
        elif not sound(message):
            self._drop(message)
        elif isinstance(message, m.Verdict | m.OrderEvent | m.Fill):
            self._stored(message)
        else:
            self._told(message, now)
        return []

    def not_ready(self, now: datetime) -> str:
        """It can always tell what it knows; that the others are silent is something to tell."""
        return ""

    def dump(self) -> bytes:
        return msgspec.json.encode(self.kept)

    def restore(self, raw: bytes) -> None:
        self.kept = msgspec.json.decode(raw, type=Kept)

    def _drop(self, message: m.Message) -> None:
        kind = type(message).__name__
        self.seen.dropped[kind] = self.seen.dropped.get(kind, 0) + 1

    def _stored(self, message: m.Verdict | m.OrderEvent | m.Fill) -> None:
        match message:
            case m.Verdict():
                orders.on_verdict(self.kept, message)
                self.cycles.on_verdict(message, self.kept)
            case m.OrderEvent():
                orders.on_order(self.kept, message)
                self.cycles.on_order(message, self.kept)
            case m.Fill():
                orders.on_fill(self.kept, message)

    def _told(self, message: m.Message, now: datetime) -> None:
        match message:
            case m.Mark() | m.Decision() | m.FeedState():
                self._of_product(message, now)
            case m.ServiceStatus():
                self._status(message, now)
            case m.RiskFigures() if not outdated(self.seen.risk, message, now):
                self.seen.risk = message
            case m.Account() if not outdated(self.seen.account, message, now):
                self.seen.account = message
            case m.TradingState():
                self.seen.trading = message
            case m.Signal():
                self.cycles.on_signal(message, self.kept)
            case m.Tooling():
                self._tooling(message)

    def _of_product(self, message: m.Mark | m.Decision | m.FeedState, now: datetime) -> None:
        """Only configured products: their number bounds the labels."""
        product_id, seen = message.product_id, self.seen
        if product_id not in self._products:
            self._drop(message)
        elif isinstance(message, m.Mark):
            if not outdated(seen.marks.get(product_id), message, now):
                seen.marks[product_id] = message
                self.cycles.on_mark(message)
        elif isinstance(message, m.Decision):
            if not outdated(seen.decisions.get(product_id), message, now):
                seen.decisions[product_id] = message
            self.cycles.on_decision(message, self.kept)
        elif not outdated(seen.feeds.get(product_id), message, now):
            seen.feeds[product_id] = message

    def _status(self, status: m.ServiceStatus, now: datetime) -> None:
        if status.service not in SERVICES:
            self._drop(status)
        elif not outdated(self.seen.services.get(status.service), status, now):
            self.seen.services[status.service] = status
            self._count_errors(status)

    def _count_errors(self, status: m.ServiceStatus) -> None:
        """A service counts its errors anew after each start, on top of the crashes that it survived."""
        life = self.kept.lives.get(status.service)
        if life is None:
            self.kept.cycle_errors += status.errors
        elif status.started_at == life.started_at:
            self.kept.cycle_errors += max(0, status.errors - life.errors)
            life.errors = max(life.errors, status.errors)
            return
        elif status.started_at < life.started_at:
            return
        else:
            self.kept.cycle_errors += max(0, status.errors - life.floor)
        self.kept.lives[status.service] = ServiceLife(status.started_at, status.errors, status.errors)

    def _tooling(self, outcome: m.Tooling) -> None:
        if not outcome.ok and self.kept.tooling_known.first_time(f"{outcome.id} {outcome.at.isoformat()}"):
            self.kept.tooling_errors += 1


def outdated(known: m.Message | None, message: m.Message, now: datetime) -> bool:
    """Overtaken by a newer one. What claims to come from the future does not hold up what comes after it."""
    return known is not None and message.at < known.at <= now
