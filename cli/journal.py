"""What the operator sees of a stack while it trades: decisions, risk figures, and the ledger in its order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from libs.common import messages as m
from libs.common.bus import Delivery


class LedgerPages(Protocol):
    """The part of `libs.common.bus.Ledger` that we read."""

    position: int

    async def catch_up(self) -> list[Delivery]: ...


class Source(Protocol):
    """The part of `libs.common.bus.Bus` that we read."""

    def ledger(self, position: int) -> LedgerPages: ...

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None: ...


class Journal:
    """Filled by subscriptions and by `read_ledger`; whoever waits for something in it calls `until`."""

    def __init__(self, bus: Source) -> None:
        self._bus = bus
        self._ledger = bus.ledger(0)
        self.marks: Counter[str] = Counter()
        self.decisions: dict[str, m.Decision] = {}
        self.reasons: Counter[str] = Counter()  # of the decisions to hold
        self.signals: set[str] = set()
        self.unanswered: set[str] = set()
        self.open_orders: set[str] = set()
        self.verdicts: dict[str, m.Verdict] = {}
        self.orders: dict[str, m.OrderEvent] = {}
        self.fills: dict[str, m.Fill] = {}
        self.adjustments: dict[str, m.Adjustment] = {}
        self.figures: m.RiskFigures | None = None
        self.first_equity: Decimal | None = None
        self._changed = asyncio.Event()

    async def follow(self, *kinds: type[m.Message]) -> None:
        for kind in kinds:
            await self._bus.subscribe(kind, self._take)

    def _take(self, message: m.Message) -> None:
        match message:
            case m.Mark():
                self.marks[message.product_id] += 1
            case m.Decision():
                self.decisions[message.product_id] = message
                if message.signal_id:
                    self._signalled(message.signal_id)
                else:
                    self.reasons[message.reason] += 1
            case m.Signal():
                self._signalled(message.id)
            case m.RiskFigures():
                self.figures = message
                if self.first_equity is None:
                    self.first_equity = message.equity
        self._changed.set()

    def _signalled(self, signal_id: str) -> None:
        self.signals.add(signal_id)
        if signal_id not in self.verdicts:
            self.unanswered.add(signal_id)

    async def until(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        """Wait for something to be seen; False when the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def read_ledger(self) -> bool:
        """Take in what the ledger has got since; False when that was nothing."""
        before = self.position
        while page := await self._ledger.catch_up():
            for item in page:
                self._record(item.message)
        return self.position != before

    @property
    def position(self) -> int:
        """Sequence of the last ledger message taken in."""
        return self._ledger.position

    def _record(self, message: m.Message) -> None:
        match message:
            case m.Verdict():
                self.verdicts.setdefault(message.signal_id, message)
                self.unanswered.discard(message.signal_id)
                if message.order is not None and not message.edits:  # an edit opens nothing, and may follow the end
                    self.open_orders.add(message.order.client_order_id)
            case m.OrderEvent():
                self.orders[message.client_order_id] = message
                if message.status in m.TERMINAL:
                    self.open_orders.discard(message.client_order_id)
            case m.Fill():
                self.fills.setdefault(message.id, message)
            case m.Adjustment():
                self.adjustments.setdefault(message.id, message)

    @property
    def equity(self) -> Decimal | None:
        return self.figures.equity if self.figures else None

    @property
    def unfinished(self) -> bool:
        """A signal without an answer, or an approval whose order is not at its end."""
        return bool(self.unanswered or self.open_orders)


def plain(value: Decimal | None) -> str | None:
    """A Decimal without an exponent and without empty places."""
    if value is None:
        return None
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(value: Decimal | None, places: int = 2) -> str:
    """For people: thousands separated, fixed places."""
    return "-" if value is None else f"{value:,.{places}f}"
