"""What an order would take from a list of levels. Pure arithmetic, shared by execution, preview and funds checks."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct

from sim.book import Level
from sim.money import ONE, ZERO, floor_to
from sim.orders import NewOrder, Order
from sim.ticks import Side


class Want(Struct, frozen=True):
    """How much may be taken, and at what price at worst. `budget` is in the quote currency and pays the fees too."""

    side: Side
    increment: Decimal
    size: Decimal | None
    limit: Decimal | None
    budget: Decimal | None
    fee_rate: Decimal


class Take(Struct, frozen=True):
    """The levels (or parts of them) that are taken, best first. `complete`: nothing wanted is left."""

    slices: tuple[Level, ...]
    complete: bool

    @property
    def size(self) -> Decimal:
        return sum((level.size for level in self.slices), ZERO)

    @property
    def value(self) -> Decimal:
        return sum((level.size * level.price for level in self.slices), ZERO)


NOTHING = Take((), False)


def take(levels: Sequence[Level], want: Want) -> Take:
    """Walk the levels until size or budget is used up, the limit is reached or the levels end."""
    size, budget = want.size, want.budget
    slices: list[Level] = []
    for level in levels:
        if size == 0 or (want.limit is not None and _worse(level.price, want.limit, want.side)):
            break
        most = level.size
        if size is not None:
            most = min(most, size)
        if budget is not None:
            affordable = floor_to(budget / (level.price * (ONE + want.fee_rate)), want.increment)
            if affordable == 0:
                return Take(tuple(slices), size is None)
            most = min(most, affordable)
            budget -= most * level.price * (ONE + want.fee_rate)
        if size is not None:
            size -= most
        slices.append(Level(level.price, most))
        if most < level.size:  # size or budget ended inside this level
            return Take(tuple(slices), not size)
    return Take(tuple(slices), size == 0)


def first_part(taken: Take, most: Decimal) -> Take:
    """The best `most` (base size) of what would be taken; the rest stays wanted."""
    if taken.size <= most:
        return taken
    slices: list[Level] = []
    for level in taken.slices:
        if most > 0:
            slices.append(Level(level.price, min(level.size, most)))
            most -= level.size
    return Take(tuple(slices), complete=False)


def _worse(price: Decimal, limit: Decimal, side: Side) -> bool:
    return price > limit if side is Side.BUY else price < limit


def want_of(order: Order | NewOrder, increment: Decimal, fee_rate: Decimal, budget: Decimal | None) -> Want:
    """What an order still wants; a budget limits a market BUY only, since every other order's cost is held."""
    size = order.remaining if isinstance(order, Order) and order.base_size is not None else order.base_size
    return Want(order.side, increment, size, order.limit_price, budget, fee_rate)


def limit_base_size(order: NewOrder, increment: Decimal) -> Decimal | None:
    """The base size of a request; a limit order sized in quote buys what that is worth at its limit, fees on top."""
    if order.base_size is not None or order.limit_price is None or order.quote_size is None:
        return order.base_size
    return floor_to(order.quote_size / order.limit_price, increment)
