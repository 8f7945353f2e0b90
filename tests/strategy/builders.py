"""Messages and a world round the core: what risk, execution and the venue would say, without their rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from libs.common import messages as m
from services.strategy.config import StrategyConfig
from services.strategy.core import StrategyCore
from services.strategy.plugin import Action, Intent, Strategy, Why

T0 = datetime(2026, 1, 5, 12, tzinfo=UTC)
BTC = "BTC-USD"
MINUTE = timedelta(minutes=1)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def mark(price: object = 100, at: datetime = T0, product_id: str = BTC, spread: object = 0) -> m.Mark:
    """`price` is the mid."""
    mid, half = Decimal(str(price)), Decimal(str(spread)) / 2
    return m.Mark(
        id=f"mark-{product_id}-{at.isoformat()}-{price}",
        at=at,
        product_id=product_id,
        bid=mid - half,
        ask=mid + half,
        last=mid,
        mid=mid,
        price_time=at,
        sequence=1,
        received_at=at,
    )


def candle(
    number: int = 0,
    close: object = 100,
    *,
    high: object | None = None,
    low: object | None = None,
    volume: object = 1,
    product_id: str = BTC,
    granularity: str = "1m",
    start: datetime | None = None,
) -> m.Candle:
    """Candle `number` starts so many minutes after T0."""
    price = Decimal(str(close))
    start = T0 + number * MINUTE if start is None else start
    return m.Candle(
        id=f"candle-{product_id}-{start.isoformat()}",
        at=start,
        product_id=product_id,
        granularity=granularity,
        start=start,
        open=price,
        high=price if high is None else Decimal(str(high)),
        low=price if low is None else Decimal(str(low)),
        close=price,
        volume=Decimal(str(volume)),
    )


def fill(
    number: int,
    side: m.Side,
    size: object,
    price: object = 100,
    at: datetime = T0,
    signal_id: str = "operator",
    product_id: str = BTC,
) -> m.Fill:
    return m.Fill(
        id=f"fill-{product_id}-{number}",
        at=at,
        product_id=product_id,
        client_order_id=m.client_order_id(signal_id),
        venue_order_id=f"venue-{signal_id}",
        trade_id=str(number),
        side=side,
        price=Decimal(str(price)),
        size=Decimal(str(size)),
        fee=Decimal(0),
        liquidity="TAKER",
        trade_time=at,
    )


def adjustment(
    number: int, size: object, price: object = 100, at: datetime = T0, product_id: str = BTC
) -> m.Adjustment:
    """What a handover of so much would be written as; `size` 0 is a payment."""
    amount, value = Decimal(str(size)), Decimal(str(price))
    return m.Adjustment(
        id=f"adjustment-{product_id}-{number}",
        at=at,
        kind=m.AdjustmentKind.HANDOVER if amount else m.AdjustmentKind.DEPOSIT,
        request_id=f"request-{number}",
        who="operator",
        reason="test",
        flows={"BTC": -amount, "USD": amount * value} if amount else {"USD": value},
        product_id=product_id if amount else "",
        size=amount,
        price=value if amount else Decimal(0),
    )


def state(trading: m.Trading, revision: int, flatten: str = "") -> m.TradingState:
    return m.TradingState(
        id=f"trading-{revision}",
        at=T0,
        state=trading,
        reason="test",
        who="operator",
        since=T0,
        revision=revision,
        flatten=flatten,
    )


def order_of(signal: m.Signal) -> m.ApprovedOrder:
    return m.ApprovedOrder(
        client_order_id=m.client_order_id(signal.id),
        product_id=signal.product_id,
        side=signal.side,
        order_type=signal.order_type,
        time_in_force=signal.time_in_force,
        quantity=signal.quantity,
        limit_price=signal.limit_price,
        reduce_only=signal.reduce_only,
    )


def approve(signal: m.Signal, at: datetime = T0) -> m.Verdict:
    return m.Verdict(
        id=f"verdict-{signal.id}",
        at=at,
        product_id=signal.product_id,
        signal_id=signal.id,
        reason=m.Reason.APPROVED,
        detail="",
        trading_revision=1,
        expires_at=at + MINUTE,
        order=order_of(signal),
    )


def deny(signal: m.Signal, reason: m.Reason, at: datetime = T0) -> m.Verdict:
    return m.Verdict(
        id=f"verdict-{signal.id}",
        at=at,
        product_id=signal.product_id,
        signal_id=signal.id,
        reason=reason,
        detail="",
        trading_revision=1,
        expires_at=at,
    )


def event(
    signal: m.Signal, status: m.OrderStatus, revision: int = 1, filled: object = 0, at: datetime = T0, reason: str = ""
) -> m.OrderEvent:
    return m.OrderEvent(
        id=f"order-{signal.id}-{revision}",
        at=at,
        product_id=signal.product_id,
        client_order_id=m.client_order_id(signal.id),
        signal_id=signal.id,
        revision=revision,
        status=status,
        reason=reason,
        order=order_of(signal),
        filled_qty=Decimal(str(filled)),
    )


def filled(signal: m.Signal, number: int, price: object = 100, at: datetime = T0) -> list[m.Message]:
    """Approved, filled whole, done: the ledger's usual course."""
    return [
        approve(signal, at),
        event(signal, m.OrderStatus.SUBMITTING, 1, at=at),
        fill(number, signal.side, signal.quantity, price, at, signal.id, signal.product_id),
        event(signal, m.OrderStatus.FILLED, 2, signal.quantity, at),
    ]


class Scripted:
    """A strategy that does what the test says: the candle's volume is the word."""

    WORDS: Mapping[Decimal, Intent] = {
        Decimal(7): Intent(Action.ENTER, Why.CROSSED_UP),
        Decimal(8): Intent(Action.EXIT, Why.CROSSED_DOWN),
    }

    def __init__(self, warmup_candles: int = 1) -> None:
        self.warmup_candles = warmup_candles
        self.held: list[bool] = []

    def on_candle(self, candle: m.Candle, held: bool) -> Intent:
        self.held.append(held)
        return self.WORDS.get(candle.volume, Intent(Action.HOLD, Why.NO_SIGNAL))


ENTER, EXIT, HOLD = 7, 8, 1


class World:
    """One core at a hand-set market time, 1-minute candles."""

    def __init__(
        self,
        config: StrategyConfig | None = None,
        strategies: Mapping[str, Strategy] | None = None,
        *,
        now: datetime = T0 + MINUTE,
        recovered: bool = True,
    ) -> None:
        default = StrategyConfig(trailing_stop_percent=Decimal(1), entry_notional=Decimal(1000))
        self.strategies = {BTC: Scripted()} if strategies is None else strategies
        self.core = StrategyCore(config or default, "1m", 60, self.strategies)
        self.now = now
        self.core.on_message(m.Installation(id="installation"), self.now)
        if recovered:
            self.recover()

    def send(self, *messages: m.Message) -> list[m.Message]:
        return [output for message in messages for output in self.core.on_message(message, self.now)]

    def signals(self, *messages: m.Message) -> list[m.Signal]:
        return [output for output in self.send(*messages) if isinstance(output, m.Signal)]

    def decision(self, message: m.Mark) -> m.Decision:
        (decision,) = (output for output in self.send(message) if isinstance(output, m.Decision))
        return decision

    def tick(self, count: int = 1) -> list[m.Message]:
        return [output for _ in range(count) for output in self.send(m.Tick(id="tick", at=self.now))]

    def recover(self) -> list[m.Message]:
        return self.send(m.Recovered(id="recovered"))

    def wait(self, length: timedelta) -> None:
        self.now += length

    # -- the usual beginnings

    def entry(self) -> m.Signal:
        """A crossing candle, just closed, in a market at 100."""
        (signal,) = self.signals(mark(at=self.now), candle(0, volume=ENTER))
        return signal

    def hold(self, price: object = 100) -> m.Signal:
        """A position of 10, entered at `price`."""
        signal = self.entry()
        self.send(*filled(signal, 1, price, self.now))
        return signal

    def exit(self) -> m.Signal:
        """A position, and the signal to leave it at the next candle."""
        self.hold()
        self.wait(MINUTE)
        (signal,) = self.signals(mark(at=self.now), candle(1, volume=EXIT))
        return signal


def run(core: StrategyCore, candles: Sequence[m.Candle], length: timedelta) -> list[m.Signal]:
    """Feed candles with a mark each to a core whose every wish comes true at the close. Gives its signals."""
    core.on_message(m.Installation(id="installation"), candles[0].start)
    core.on_message(m.Recovered(id="recovered"), candles[0].start)
    given: list[m.Signal] = []
    for bar in candles:
        now = bar.start + length
        for message in (mark(bar.close, now, bar.product_id), bar):
            for output in core.on_message(message, now):
                if isinstance(output, m.Signal):
                    given.append(output)
                    for answer in filled(output, len(given), bar.close, now):
                        core.on_message(answer, now)
    return given
