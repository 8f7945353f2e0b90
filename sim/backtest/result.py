"""What a backtest gives, before anybody draws or reckons with it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from msgspec import Struct

from libs.common import messages as m


class Bar(Struct, frozen=True):
    """A closed candle as the strategy saw it, for the price plot. Prices in quote currency."""

    product_id: str
    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


class Point(Struct, frozen=True):
    """The account at one moment, at mid prices and in quote currency: `equity` = `cash` + `exposure`."""

    at: datetime
    equity: Decimal
    cash: Decimal
    exposure: Decimal  # value of all positions


class Trip(Struct, frozen=True):
    """A position from flat to flat. `fees` are those of all its fills; `pnl` is after fees. `closed_at` is None for one
    that is still open at the end, valued at the last price."""

    product_id: str
    opened_at: datetime
    closed_at: datetime | None
    size: Decimal  # largest quantity held
    entry_price: Decimal  # average
    exit_price: Decimal  # average, or the last price
    fees: Decimal
    pnl: Decimal


class Result(Struct, frozen=True):
    """One run. `events` counts the market's ticks, `seconds` is wall time of computing. Lists are in time order."""

    profile: str
    strategy: str
    parameters: dict[str, str]  # what was swept or given beyond the profile
    products: tuple[str, ...]
    granularity: str
    start: datetime
    end: datetime
    opening_equity: Decimal
    events: int
    seconds: float
    bars: list[Bar]
    points: list[Point]  # one at each candle's close, and one at the end
    signals: list[m.Signal]  # each id once
    denials: dict[str, int]  # by reason
    orders: int
    fills: list[m.Fill]
    trips: list[Trip]
    states: list[m.TradingState] = []  # changes of the trading state: what a guard has reduced or halted, and when
