"""REST without HTTP: a call comes in, an answer or an ApiError comes out. Which path does what stands in `sim.rest`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from msgspec import Struct

from sim.columns import read_iso
from sim.errors import invalid_argument, not_found
from sim.money import text
from sim.orders import Order
from sim.products import Product
from sim.venue import Venue
from sim.wire import Json, order_json

T = TypeVar("T")
WHOLE = re.compile(r"[0-9]{1,18}")


class Call(Struct, frozen=True):
    """A request as the handlers see it. `path` holds the variable parts of the path, `query` all values of each key."""

    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    body: bytes

    def one(self, name: str, default: str = "") -> str:
        values = self.query.get(name)
        return values[-1] if values and values[-1] else default

    def many(self, name: str) -> frozenset[str]:
        """All values of a repeated key; empty means no filter."""
        return frozenset(value for value in self.query.get(name, ()) if value)

    def whole(self, name: str, default: int | None, high: int | None = None) -> int | None:
        """A whole number from 0 to `high`."""
        value = self.one(name)
        if not value:
            return default
        if not WHOLE.fullmatch(value) or (high is not None and int(value) > high):
            raise invalid_argument(f"{name} is invalid: {value}")
        return int(value)

    def count(self, name: str, default: int, high: int) -> int:
        """A page size: 1 to `high`; 0 counts as absent, as an unset protobuf number does."""
        return self.whole(name, default, high) or default

    def time(self, name: str) -> datetime | None:
        value = self.one(name)
        try:
            return read_iso(value.replace(" ", "+")) if value else None  # "+" of an unescaped zone arrives as space
        except (ValueError, OverflowError):
            raise invalid_argument(f"{name} is not an RFC 3339 time: {value}") from None


def product_named(venue: Venue, product_id: str) -> Product:
    product = venue.exchange.products.get(product_id)
    if product is None:
        raise not_found(f"ProductID {product_id} could not be found")
    return product


def order_answer(venue: Venue, order: Order) -> Json:
    return order_json(order, venue.user_id, venue.portfolio_id)


def price_text(venue: Venue, product_id: str) -> str:
    """The last trade's price; empty before the first one."""
    last = venue.histories[product_id].last
    return text(last.price) if last else ""


def page(items: Sequence[T], keys: Sequence[str], limit: int, cursor: str) -> tuple[Sequence[T], str]:
    """The items after the one whose key is `cursor`, and the next cursor ("" at the end)."""
    start = 0
    if cursor:
        if cursor not in keys:
            raise invalid_argument(f"cursor is invalid: {cursor}")
        start = keys.index(cursor) + 1
    chosen = items[start : start + limit]
    more = start + limit < len(items)
    return chosen, keys[start + limit - 1] if more else ""
