"""What the tests of the simulated venue are made of: an exchange at a price, orders, ticks."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from sim.book import Depth
from sim.core import Exchange
from sim.events import Event, FillMade, OrderChanged
from sim.money import text
from sim.orders import Fill, NewOrder, Order
from sim.products import spot_product
from sim.requests import order_of
from sim.rules import VenueRules
from sim.ticks import Side, Tick

START = datetime(2026, 1, 1, tzinfo=UTC)
BTC = "BTC-USD"

_ids = itertools.count(1)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def tick(price: str, size: str = "1", seconds: float = 0, product_id: str = BTC, **quotes: str) -> Tick:
    quoted = {name: Decimal(value) for name, value in quotes.items()}
    return Tick(at(seconds), product_id, int(seconds * 10) + 1, Decimal(price), Decimal(size), Side.SELL, **quoted)


def exchange(
    usd: str = "100000",
    btc: str = "0",
    price: str | None = "50000",
    level_value: str = "50000",
    levels: int = 10,
    **rules: Any,
) -> Exchange:
    """An exchange for BTC-USD whose market stands at a price, with half a basis point of spread or so."""
    depth = Depth(half_spread_bps=Decimal(1), levels=levels, level_value=Decimal(level_value))
    made = Exchange(
        [spot_product(BTC)],
        VenueRules(depth=depth, **rules),
        {"USD": Decimal(usd), "BTC": Decimal(btc)},
        seed="test",
    )
    if price is not None:
        made.prime(tick(price, seconds=-1))
    return made


def order(side: str, key: str, client_order_id: str = "", product_id: str = BTC, **fields: Any) -> NewOrder:
    """An order request, read from the JSON that a client would send."""
    body = {
        "client_order_id": client_order_id or f"test-{next(_ids)}",
        "product_id": product_id,
        "side": side,
        "order_configuration": {key: fields},
    }
    return order_of(msgspec.json.encode(body))


def placed(venue: Exchange, request: NewOrder, seconds: float = 0) -> Order:
    """Place an order that must be accepted; its last state."""
    placement = venue.place(request, at(seconds))
    assert placement.refusal is None, placement.refusal
    assert placement.order is not None
    return placement.order


def fills_of(events: list[Event]) -> list[Fill]:
    return [event.fill for event in events if isinstance(event, FillMade)]


def statuses(events: list[Event]) -> list[str]:
    return [event.order.status.value for event in events if isinstance(event, OrderChanged)]


def free(venue: Exchange, currency: str = "USD") -> str:
    """What may be spent of a currency of which nothing is held."""
    balance = venue.balances()[currency]
    assert balance.hold == 0
    return text(balance.available)
