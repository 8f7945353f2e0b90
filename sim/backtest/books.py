"""What a backtest leaves behind, taken down while it runs: from the messages alone, as any reader of the bus could."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from libs.common import messages as m
from sim.backtest.result import Bar, Point, Trip
from sim.money import ZERO, average, exact


class OpenTrip(Struct):
    """A position on its way from flat to flat. Values are in the quote currency, without fees."""

    product_id: str
    opened_at: datetime
    quantity: Decimal = ZERO
    most: Decimal = ZERO
    bought: Decimal = ZERO
    cost: Decimal = ZERO
    sold: Decimal = ZERO
    proceeds: Decimal = ZERO
    fees: Decimal = ZERO

    def add(self, fill: m.Fill) -> None:
        self.fees += fill.fee
        if fill.side is m.Side.BUY:
            self.bought += fill.size
            self.cost += fill.quote_value
        else:
            self.sold += fill.size
            self.proceeds += fill.quote_value
        self.quantity = self.bought - self.sold
        self.most = max(self.most, self.quantity)

    def ended(self, at: datetime) -> Trip:
        return self._trip(at, average(self.proceeds, self.sold), ZERO)

    def valued(self, price: Decimal) -> Trip:
        """Still open."""
        return self._trip(None, price, self.quantity * price)

    def _trip(self, closed_at: datetime | None, exit_price: Decimal, left: Decimal) -> Trip:
        return Trip(
            product_id=self.product_id,
            opened_at=self.opened_at,
            closed_at=closed_at,
            size=self.most,
            entry_price=average(self.cost, self.bought),
            exit_price=exit_price,
            fees=self.fees,
            pnl=self.proceeds + left - self.cost - self.fees,
        )


class Books:
    """Cash and positions follow from the fills, prices are the mids of the marks."""

    def __init__(self, cash: Decimal, candle_seconds: int, first_at: datetime) -> None:
        self.bars: list[Bar] = []
        self.points: list[Point] = []
        self.signals: dict[str, m.Signal] = {}
        self.denials: Counter[str] = Counter()
        self.orders = 0
        self.fills: list[m.Fill] = []
        self.trips: list[Trip] = []
        self.states: list[m.TradingState] = []
        self._cash = cash
        self._length = timedelta(seconds=candle_seconds)
        self._first_at = first_at
        self._prices: dict[str, Decimal] = {}
        self._open: dict[str, OpenTrip] = {}

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        """A core's face: it reads, and says nothing."""
        match message:
            case m.Mark():
                self._prices[message.product_id] = message.mid
            case m.Candle():
                self._candle(message)
            case m.Signal():
                self.signals.setdefault(message.id, message)
            case m.Verdict():
                self.denials.update([message.reason] if message.order is None else [])
            case m.OrderEvent():
                self._order(message)
            case m.Fill():
                self._fill(message)
            case m.TradingState():
                self.states.append(message)
        return []

    @exact
    def close(self, at: datetime) -> None:
        """The last figures, and what is still held at the last price."""
        self._point(at)
        self.trips += [trip.valued(self._prices[product_id]) for product_id, trip in self._open.items()]

    def _candle(self, candle: m.Candle) -> None:
        """Those from before the start only warm up."""
        end = candle.start + self._length
        if end <= self._first_at:
            return
        self.bars.append(Bar(candle.product_id, candle.start, candle.open, candle.high, candle.low, candle.close))
        if not self.points or self.points[-1].at < end:
            self._point(end)

    @exact
    def _point(self, at: datetime) -> None:
        exposure = sum((trip.quantity * self._prices[name] for name, trip in self._open.items()), ZERO)
        self.points.append(Point(at, self._cash + exposure, self._cash, exposure))

    def _order(self, event: m.OrderEvent) -> None:
        if event.status is m.OrderStatus.ACCEPTED:
            self.orders += 1
        elif event.status in (m.OrderStatus.DENIED, m.OrderStatus.REJECTED):
            self.denials[event.reason] += 1

    @exact
    def _fill(self, fill: m.Fill) -> None:
        self.fills.append(fill)
        sign = -1 if fill.side is m.Side.BUY else 1
        self._cash += sign * fill.quote_value - fill.fee
        trip = self._open.setdefault(fill.product_id, OpenTrip(fill.product_id, fill.trade_time))
        trip.add(fill)
        if not trip.quantity:
            self.trips.append(self._open.pop(fill.product_id).ended(fill.trade_time))
