"""Results of backtests by hand, and one of a market that goes up and down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from msgspec.structs import replace

from libs.common import messages as m
from sim.backtest.result import Bar, Point, Result, Trip

START = datetime(2025, 10, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BTC = "BTC-USD"

EMPTY = Result(
    profile="spot",
    strategy="crossover",
    parameters={},
    products=(BTC,),
    granularity="1h",
    start=START,
    end=START + 10 * DAY,
    opening_equity=Decimal(1000),
    events=4,
    seconds=0.5,
    bars=[],
    points=[],
    signals=[],
    denials={},
    orders=0,
    fills=[],
    trips=[],
)


def point(at: datetime, equity: object, exposure: object = 0) -> Point:
    whole, held = Decimal(str(equity)), Decimal(str(exposure))
    return Point(at, whole, whole - held, held)


def daily(*equities: object, start: datetime = START) -> Result:
    """One point at each following midnight, the first a day after `start`."""
    points = [point(start + number * DAY, equity) for number, equity in enumerate(equities, start=1)]
    return replace(EMPTY, start=start, end=start + len(equities) * DAY, points=points)


def trip(pnl: object, opened: float = 0, closed: float | None = 1, product_id: str = BTC, fees: object = 1) -> Trip:
    """Times in days after START."""
    return Trip(
        product_id=product_id,
        opened_at=START + opened * DAY,
        closed_at=None if closed is None else START + closed * DAY,
        size=Decimal("0.01"),
        entry_price=Decimal(60_000),
        exit_price=Decimal(60_100),
        fees=Decimal(str(fees)),
        pnl=Decimal(str(pnl)),
    )


def fill(number: int, side: m.Side, price: object, size: object, fee: object, at: datetime = START) -> m.Fill:
    return m.Fill(
        id=f"fill-{number}",
        at=at,
        product_id=BTC,
        client_order_id=f"order-{number}",
        venue_order_id=f"venue-{number}",
        trade_id=str(number),
        side=side,
        price=Decimal(str(price)),
        size=Decimal(str(size)),
        fee=Decimal(str(fee)),
        liquidity="TAKER",
        trade_time=at,
    )


def bars(count: int, product_id: str = BTC, level: float = 60_000) -> list[Bar]:
    found, price = [], level
    for number in range(count):
        following = level * (1 + 0.03 * math.sin(number / 20) + 0.01 * math.sin(number / 3.7))
        prices = [Decimal(f"{value:.6g}") for value in (price, max(price, following) * 1.002, following)]
        low = Decimal(f"{min(price, following) * 0.998:.6g}")
        found.append(Bar(product_id, START + number * HOUR, prices[0], prices[1], low, prices[2]))
        price = following
    return found


def lively(count: int = 500, products: Sequence[str] = (BTC,)) -> Result:
    """Bought every 40 candles and sold 17 later; nobody would trade like this."""
    made = {name: bars(count, name, 60_000 / 10**place) for place, name in enumerate(products)}
    points: list[Point] = []
    trips: list[Trip] = []
    fills: list[m.Fill] = []
    cash = Decimal(10_000)
    for number in range(count):
        held = spent = Decimal(0)
        for name, known in made.items():
            begin = number - number % 40
            if number - begin == 17:
                entry, leaves = known[begin].close, known[number].close
                size = Decimal(1000) / entry
                pnl = (leaves - entry) * size - 2
                cash += pnl
                opened, closed = known[begin].start + HOUR, known[number].start + HOUR
                trips.append(Trip(name, opened, closed, size, entry, leaves, Decimal(2), pnl))
                sides = ((m.Side.BUY, entry, opened), (m.Side.SELL, leaves, closed))
                for side, price, at in sides:
                    fills.append(replace(fill(len(fills), side, price, size, 1, at), product_id=name))
            elif number - begin < 17:
                held += known[number].close / known[begin].close * 1000
                spent += 1000
        points.append(Point(START + (number + 1) * HOUR, cash - spent + held, cash - spent, held))
    return replace(
        EMPTY,
        products=tuple(products),
        end=START + count * HOUR,
        opening_equity=Decimal(10_000),
        bars=sorted((bar for known in made.values() for bar in known), key=lambda bar: bar.start),
        points=points,
        fills=fills,
        trips=trips,
        orders=len(fills),
        denials={"spread_too_wide": 2},
    )
