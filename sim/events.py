"""What the exchange answers and reports, as values. Pure."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from sim.orders import Fill, Order
from sim.rules import Refusal
from sim.ticks import Tick


class OrderChanged(Struct, frozen=True):
    order: Order


class FillMade(Struct, frozen=True):
    fill: Fill


class Ticked(Struct, frozen=True):
    """The market moved: a trade (or quote) and a new book."""

    tick: Tick


class BookChanged(Struct, frozen=True):
    """An order of ours consumed shown depth."""

    product_id: str


Event = OrderChanged | FillMade | Ticked | BookChanged


class Placement(Struct, frozen=True):
    """The answer to a new order: the accepted (or already known) order, or the refusal."""

    order: Order | None
    refusal: Refusal | None
    events: list[Event]


class Estimate(Struct, frozen=True):
    """What an order would do now. Amounts in the quote currency, sizes in base; `refusal` when it would be refused."""

    refusal: Refusal | None
    base_size: Decimal
    value: Decimal
    commission: Decimal
    worst_price: Decimal | None


class Ledger(Struct, frozen=True):
    """What must survive a restart beside orders and fills."""

    totals: dict[str, Decimal]
    orders_made: int = 0
    fills_made: int = 0
