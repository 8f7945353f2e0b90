"""Drives the execution core as its shell does: durable outputs become facts, the rest is collected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import msgspec

from libs.common import messages as m
from services.execution import inputs as i
from services.execution.config import ExecutionConfig
from services.execution.core import ExecutionCore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
T = TypeVar("T", bound=m.Message)


def product(**changes: object) -> m.Product:
    fields: dict[str, object] = {
        "id": "product",
        "at": NOON,
        "product_id": "BTC-USD",
        "base_currency": "BTC",
        "quote_currency": "USD",
        "base_increment": Decimal("0.0001"),
        "quote_increment": Decimal("0.01"),
        "price_increment": Decimal("0.01"),
        "base_min_size": Decimal("0.0001"),
        "base_max_size": Decimal(100),
        "quote_min_size": Decimal(1),
        "quote_max_size": Decimal(1_000_000),
    }
    return m.Product(**(fields | changes))  # type: ignore[arg-type]


def trading(state: m.Trading = m.Trading.ACTIVE, revision: int = 1, flatten: str = "") -> m.TradingState:
    return m.TradingState(
        id="t", at=NOON, state=state, reason="r", who="w", since=NOON, revision=revision, flatten=flatten
    )


def verdict(
    name: str = "s1",
    side: m.Side = m.Side.BUY,
    quantity: str = "1",
    *,
    gtc: bool = False,
    reduce_only: bool = False,
    revision: int = 1,
    expires_in_seconds: float = 10,
) -> m.Verdict:
    return m.Verdict(
        id=f"verdict-{name}",
        at=NOON,
        product_id="BTC-USD",
        signal_id=name,
        reason=m.Reason.APPROVED,
        detail="",
        trading_revision=revision,
        expires_at=NOON + timedelta(seconds=expires_in_seconds),
        order=m.ApprovedOrder(
            client_order_id=m.client_order_id(name),
            product_id="BTC-USD",
            side=side,
            order_type=m.OrderType.LIMIT if gtc else m.OrderType.MARKET,
            time_in_force=m.TimeInForce.GTC if gtc else m.TimeInForce.IOC,
            quantity=Decimal(quantity),
            limit_price=Decimal(100) if gtc else None,
            reduce_only=reduce_only,
        ),
    )


def edit(name: str = "s1", quantity: str = "2", price: str = "99", edit_id: str = "e1") -> m.Verdict:
    """Risk allows another quantity and price for the GTC order of `verdict(name, gtc=True)`."""
    approved = verdict(name, gtc=True)
    assert approved.order is not None
    wanted = msgspec.structs.replace(approved.order, quantity=Decimal(quantity), limit_price=Decimal(price))
    return msgspec.structs.replace(approved, id=f"verdict-{edit_id}", signal_id=edit_id, order=wanted, edits=True)


def key(name: str = "s1") -> str:
    return m.client_order_id(name)


def placed(name: str = "s1") -> i.Placed:
    return i.Placed(id="placed", client_order_id=key(name), venue_order_id=f"venue-{name}")


def seen(
    name: str = "s1",
    status: m.OrderStatus | None = m.OrderStatus.FILLED,
    filled: str = "0",
    fills: tuple[tuple[str, str, str], ...] = (),
    side: m.Side = m.Side.BUY,
    terms: tuple[str, str] | None = None,
    asked_at: datetime = NOON,
) -> i.OrderSeen:
    """An answer to a query; a fill is (entry id, price, size), its fee 1 % of the value; terms: quantity and price."""
    order = i.VenueOrder(
        venue_order_id=f"venue-{name}",
        client_order_id=key(name),
        product_id="BTC-USD",
        side=side,
        status=status,
        status_word=str(status),
        filled_qty=Decimal(filled),
        quantity=Decimal(terms[0]) if terms else None,
        limit_price=Decimal(terms[1]) if terms else None,
    )
    return i.OrderSeen(
        id="seen",
        asked_at=asked_at,
        client_order_id=key(name),
        order=order,
        fills=tuple(
            i.VenueFill(
                entry_id=entry,
                trade_id="t",
                venue_order_id=f"venue-{name}",
                product_id="BTC-USD",
                side=side,
                price=Decimal(price),
                size=Decimal(size),
                fee=Decimal(price) * Decimal(size) / 100,
                liquidity="TAKER",
                trade_time=NOON,
            )
            for entry, price, size in fills
        ),
    )


class Story:
    """`tell` feeds messages; the ledger is what became durable, `said` everything else the core gave."""

    def __init__(self, ledger: list[m.Message] | None = None, start: bool = True) -> None:
        self.core = ExecutionCore(ExecutionConfig(jwt_seconds=10, jwt_margin_seconds=1))
        self.ledger: list[m.Message] = []
        self.said: list[m.Message] = []
        self.now = NOON
        self.core.on_message(m.Installation(id="installation"), NOON)
        self.core.on_message(product(), NOON)
        self.core.on_message(i.Starting(id="starting", wall=NOON), NOON)
        for fact in ledger or []:
            self.core.on_message(fact, NOON)
            self.ledger.append(fact)
        self.core.on_message(trading(), NOON)
        if start:
            self.tell(m.Recovered(id="recovered"))

    def tell(self, *messages: m.Message) -> Story:
        for message in messages:
            if isinstance(message, i.Found | i.NotFound | i.AskFailed | i.OrderSeen):
                message = self.answering(message)
            if isinstance(message, m.Verdict | m.Adjustment):
                self.ledger.append(message)
            for output in self.core.on_message(message, self.now):
                if isinstance(output, m.OrderEvent | m.Fill):
                    self.ledger.append(output)
                    self.tell(output)
                else:
                    self.said.append(output)
        return self

    def answering(self, answer: T) -> T:
        """As the shell does: an answer bears the id of its question, here the latest about that order."""
        questions = [said for said in self.said if isinstance(said, i.Find | i.Query)]
        key = getattr(answer, "client_order_id", "")
        latest = next((question.id for question in reversed(questions) if question.client_order_id == key), answer.id)
        return msgspec.structs.replace(answer, id=latest)

    def all(self, kind: type[T]) -> list[T]:
        return [message for message in self.said if isinstance(message, kind)]

    @property
    def statuses(self) -> list[m.OrderStatus]:
        return [fact.status for fact in self.ledger if isinstance(fact, m.OrderEvent)]

    @property
    def reasons(self) -> list[str]:
        return [fact.reason for fact in self.ledger if isinstance(fact, m.OrderEvent)]

    @property
    def fills(self) -> list[m.Fill]:
        return [fact for fact in self.ledger if isinstance(fact, m.Fill)]

    def restart(self) -> Story:
        """A new process that has nothing but the ledger."""
        return Story(self.ledger)
