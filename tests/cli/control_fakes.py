"""Risk, execution and the bus by hand, as the operator's commands meet them."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from cli.control import ControlBus
from cli.explain import HistoryBus, LedgerBus
from cli.flatten import FlattenBus
from libs.common import messages as m
from libs.common.bus import Entry
from libs.common.errors import BusDown
from libs.common.nats_ledger import Raw
from libs.common.subjects import STATE_BUCKET, TRADING_KEY, subject_of
from tests.cli.builders import PRODUCT, START, figures

PAGE = 3


def state(trading: m.Trading = m.Trading.HALTED, flatten: str = "", who: str = "ann") -> m.TradingState:
    return m.TradingState(
        id="t1", at=START, state=trading, reason="drill", who=who, since=START, revision=1, flatten=flatten
    )


def closing(held: str, sold: str = "0", outcome: str = "selling", attempts: int = 1, detail: str = "") -> m.Closing:
    return m.Closing(held=Decimal(held), sold=Decimal(sold), outcome=outcome, attempts=attempts, detail=detail)


def told(
    parts: dict[str, m.Closing] | None, held: dict[str, str], trading: m.Trading = m.Trading.REDUCING
) -> m.RiskFigures:
    """Figures with these positions, none of which is dust, and this closing."""
    made = figures({})
    position = made.positions[PRODUCT]
    positions = {product: replace(position, quantity=Decimal(quantity)) for product, quantity in held.items()}
    return replace(made, positions=positions, closing=parts, trading=trading)


class DeskBus:
    """`reply` is what a service answers, `lost` how often it does not, by command; `then` is what happens once it has
    answered, and `stored` what the trading state then is."""

    def __init__(self, reply: m.Reply | None = None) -> None:
        self.reply = reply or m.Reply(ok=True, detail="halted since noon")
        self.asked: list[tuple[str, str, m.Command]] = []
        self.lost: dict[str, int] = {}
        self.entries: list[bytes] = [msgspec.json.encode(state())]
        self.values: list[m.Message] = []
        self.then: Callable[[], None] = lambda: None
        self.ledger: list[m.Message | bytes] = []
        self.pages = 0
        self._handlers: list[Callable[[m.Message], None]] = []

    def store(self, value: m.TradingState) -> None:
        self.entries.append(msgspec.json.encode(value))

    def say(self, message: m.Message) -> None:
        for handler in self._handlers:
            handler(message)

    async def request(self, service: str, command: str, body: m.Command, timeout_seconds: float) -> m.Reply:
        self.asked.append((service, command, body))
        if self.lost.get(command, 0):
            self.lost[command] -= 1
            raise BusDown(f"{service} does not answer {command}: no responders")
        if command == "sync":
            return m.Reply(ok=True)
        self.then()
        return self.reply

    async def load(self, bucket: str, key: str) -> Entry | None:
        assert (bucket, key) == (STATE_BUCKET, TRADING_KEY)
        return Entry(self.entries[-1], len(self.entries)) if self.entries else None

    async def history(self, bucket: str, key: str) -> list[Entry]:
        assert (bucket, key) == (STATE_BUCKET, TRADING_KEY)
        return [Entry(value, number) for number, value in enumerate(self.entries, 1)]

    async def last(self, kind: type[m.Message]) -> list[m.Message]:
        return [value for value in self.values if isinstance(value, kind)]

    async def subscribe(self, kind: type[m.Message], handler: Callable[[m.Message], None]) -> None:
        assert kind is m.RiskFigures
        self._handlers.append(handler)

    async def last_sequence(self) -> int:
        return len(self.ledger)

    async def direct_page(self, position: int) -> list[Raw]:
        self.pages += 1
        rows = list(enumerate(self.ledger, 1))[position : position + PAGE]
        return [_raw(number, row) for number, row in rows]

    async def order_events(self, client_order_id: str) -> list[m.Message]:
        return [row for row in self.ledger if isinstance(row, m.OrderEvent) and row.client_order_id == client_order_id]


def _raw(sequence: int, row: m.Message | bytes) -> Raw:
    if isinstance(row, bytes):
        return Raw(sequence, f"perps.verdict.{PRODUCT}", row)
    return Raw(sequence, subject_of(row), msgspec.json.encode(row))


def _is_what_it_stands_for() -> tuple[ControlBus, FlattenBus, LedgerBus, HistoryBus]:
    bus = DeskBus()
    return bus, bus, bus, bus
