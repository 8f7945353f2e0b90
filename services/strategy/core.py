"""When to buy and when to sell. Decides on closed candles by the plug-in, and on marks by the trailing stop.

The price of a mark is its mid. A decision is published by the shell as it stands, and the core knows no wall time:
`Decision.decided_at` repeats the mark's `received_at`, and the time of the decision is the bus's stamp `sent_at`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from libs.common import messages as m
from services.strategy.books import Book, LedgerMessage, State
from services.strategy.config import StrategyConfig
from services.strategy.plugin import Action, Intent, Strategy, Why

REPEAT_TICKS = 4  # an unanswered signal is repeated about every second
HIGHS_KEPT = 500  # as many candles as the bus keeps
BPS = Decimal(10_000)
LIMIT = Decimal(10) ** 15  # beyond any price or size, and far from the edge of Decimal's range


class Desk(Struct):
    """One traded product: what is rebuilt after a restart, beside its book."""

    product_id: str
    strategy: Strategy
    book: Book
    trailing_stop: Decimal  # fraction of the peak
    mark: m.Mark | None = None  # the newest
    candles: int = 0
    newest_start: datetime = m.EPOCH
    highs: deque[tuple[datetime, Decimal]] = field(default_factory=lambda: deque(maxlen=HIGHS_KEPT))
    undecided: tuple[m.Candle, Intent] | None = None
    reason: Why = Why.WARMING_UP  # why the newest candle made no signal

    @property
    def warm(self) -> bool:
        return self.candles >= self.strategy.warmup_candles

    @property
    def stop_price(self) -> Decimal | None:
        """The trailing stop of the position held, in quote currency."""
        return self.book.peak * (1 - self.trailing_stop) if self.book.held else None


class StrategyCore:
    """See `libs.common.shell.Core`. `desks` and `dropped` are for the metrics to look at."""

    def __init__(
        self, config: StrategyConfig, granularity: str, candle_seconds: int, strategies: Mapping[str, Strategy]
    ) -> None:
        self._config = config
        self._granularity = granularity
        self._candle_length = timedelta(seconds=candle_seconds)
        self._ttl = timedelta(seconds=config.signal_ttl_seconds)
        self._mark_age_max = timedelta(seconds=config.mark_age_max_seconds)
        self._installation = ""
        self._recovered = False
        self._ticks = 0
        self._state = State()
        self._trading: m.TradingState | None = None
        self.dropped: Counter[str] = Counter()
        self.desks = {
            product_id: Desk(product_id, strategy, self._state.book(product_id), config.trailing_stop_of(product_id))
            for product_id, strategy in strategies.items()
        }

    # -- what the shell asks

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case m.Mark():
                return self._on_mark(message, now)
            case m.Candle():
                return self._on_candle(message, now)
            case m.Verdict() | m.OrderEvent() | m.Fill() | m.Adjustment():
                return self._on_ledger(message, now)
            case m.TradingState():
                return self._on_trading(message, now)
            case m.Tick():
                return self._on_tick(now)
            case m.Installation():
                self._installation = message.id
            case m.Recovered():
                return self._on_recovered(now)
        return []

    def not_ready(self, now: datetime) -> str:
        if not self._recovered:
            return "recovering"
        cold = [desk for desk in self.desks.values() if not desk.warm]
        return ", ".join(f"{d.product_id} warming up {d.candles}/{d.strategy.warmup_candles}" for d in cold)

    @property
    def busy(self) -> bool:
        return any(desk.book.in_flight for desk in self.desks.values())

    def dump(self) -> bytes:
        return msgspec.json.encode(self._state)

    def restore(self, raw: bytes) -> None:
        self._state = m.read(raw, State)
        for product_id, desk in self.desks.items():
            desk.book = self._state.book(product_id)

    # -- what comes in

    def _on_mark(self, mark: m.Mark, now: datetime) -> list[m.Message]:
        desk = self.desks.get(mark.product_id)
        if desk is None:
            return self._drop(mark)
        if not _usable(mark) or mark.at - now > self._mark_age_max:
            self._drop(mark)
            return [_decision(mark, "hold", Why.MARK_UNUSABLE)] if self._recovered else []
        if desk.mark is None or mark.at >= desk.mark.at:
            desk.mark = mark
        desk.book.raise_peak(mark.mid, mark.at)
        if not self._recovered:
            return []
        signals = self._retry(desk, now) or self._decide(desk, now) or self._stop(desk, now)
        if not desk.book.untold:
            return [*signals, _decision(mark, "hold", self._why_hold(desk, now))]
        told = desk.book.untold.pop(0)
        return [*signals, _decision(mark, "buy" if told.side is m.Side.BUY else "close", told.reason, told.id)]

    def _on_candle(self, candle: m.Candle, now: datetime) -> list[m.Message]:
        desk = self.desks.get(candle.product_id)
        early = candle.start - now > self._mark_age_max  # it cannot have closed before it began
        if desk is None or candle.granularity != self._granularity or early or not _usable(candle):
            return self._drop(candle)
        if candle.start <= desk.newest_start:
            return []
        book, since = desk.book, desk.book.held_since
        intent = desk.strategy.on_candle(candle, held=since is not None and self._end(candle) > since)
        desk.newest_start = candle.start
        desk.candles += 1
        desk.highs.append((candle.start, candle.high))
        book.raise_peak(candle.high, candle.start)
        if not desk.warm:
            intent = Intent(Action.HOLD, Why.WARMING_UP)
        if candle.start <= book.last_decided_start:
            desk.reason = intent.reason if intent.action is Action.HOLD else Why.NO_SIGNAL
            return []  # decided before the restart
        if desk.undecided is None or desk.undecided[1].action is not Action.EXIT:
            desk.undecided = (candle, intent)  # a later candle replaces anything but an exit
        return self._decide(desk, now) if self._recovered else []

    def _on_ledger(self, message: LedgerMessage, now: datetime) -> list[m.Message]:
        if isinstance(message, m.Adjustment) and not message.size:
            return []  # money that was paid in or out is no position
        if isinstance(message, m.Fill | m.Adjustment) and not _usable(message):
            return self._drop(message)
        book = self._state.book(message.product_id)
        book.apply(message)
        desk = self.desks.get(message.product_id)
        if desk is None:
            return []
        # A fill may reach us late: what candles and the mark have shown since it was made counts already.
        for start, high in desk.highs:
            book.raise_peak(high, start)
        if desk.mark is not None:
            book.raise_peak(desk.mark.mid, desk.mark.at)
        return self._decide(desk, now) if self._recovered else []

    def _on_trading(self, state: m.TradingState, now: datetime) -> list[m.Message]:
        """Revisions only rise, except for 0: a stored state that is lost."""
        if self._trading is not None and 0 < state.revision <= self._trading.revision:
            return []
        self._trading = state
        return self._go_on(now) if self._recovered else []

    def _on_tick(self, now: datetime) -> list[m.Message]:
        self._ticks += 1
        unanswered = self._unanswered() if self._ticks % REPEAT_TICKS == 0 else []
        return [*unanswered, *(signal for desk in self.desks.values() for signal in self._retry(desk, now))]

    def _on_recovered(self, now: datetime) -> list[m.Message]:
        assert self._installation, "recovered without an installation: no signal could have an id"
        self._recovered = True
        for book in self._state.books.values():
            if book.wanted is not None:
                # A snapshot may be older than the ledger: an exit goes on after the last attempt that was answered.
                book.wanted = self._last_answered(book, book.wanted) or book.wanted
                book.settle()
        return [*self._unanswered(), *self._go_on(now)]

    # -- what goes out

    def _go_on(self, now: datetime) -> list[m.Message]:
        return [out for desk in self.desks.values() for out in self._retry(desk, now) or self._decide(desk, now)]

    def _decide(self, desk: Desk, now: datetime) -> list[m.Message]:
        """Act on the candle that has not been acted on, once that is possible."""
        if desk.undecided is None:
            return []
        book, (candle, intent) = desk.book, desk.undecided
        trigger = f"candle:{candle.start.isoformat()}"
        signals: list[m.Message] = []
        if intent.action is Action.HOLD:
            desk.reason = intent.reason
        elif intent.action is Action.EXIT:
            if not book.free or (book.held and self._closing):
                return []
            if book.held and book.opened_at is not None and self._end(candle) > book.opened_at:
                signals = self._begin(desk, self._first(desk, None, trigger, intent.reason, candle.id, now))
        elif now - self._end(candle) > self._ttl:
            desk.reason = Why.CANDLE_TOO_OLD
        elif not book.held:
            mark = self._fresh_mark(desk, now)
            if mark is None or not book.free:
                return []
            desk.reason = Why.NO_SIGNAL
            signals = self._begin(desk, self._first(desk, mark.ask, trigger, intent.reason, candle.id, now))
        desk.undecided = None
        book.last_decided_start = desk.newest_start
        return signals

    def _stop(self, desk: Desk, now: datetime) -> list[m.Message]:
        """The trailing stop: the newest mark has come down to it. An old mark does not trade."""
        book, mark, price = desk.book, self._fresh_mark(desk, now), desk.stop_price
        if mark is None or price is None or mark.mid > price or not book.free or self._closing:
            return []
        return self._begin(desk, self._first(desk, None, f"stop:{book.opened_by}", Why.TRAILING_STOP, mark.id, now))

    def _begin(self, desk: Desk, signal: m.Signal) -> list[m.Message]:
        """Give a first attempt. Where a crash made us forget that it was answered: go on after the last answer."""
        book, last = desk.book, self._last_answered(desk.book, signal)
        if last is None:
            return [self._give(book, signal)]
        if signal.side is m.Side.BUY:
            return []  # an entry is not tried again
        book.wanted, book.leaving = last, book.opened_by
        book.settle()
        return self._retry(desk, signal.at)

    def _retry(self, desk: Desk, now: datetime) -> list[m.Message]:
        """The next attempt of an exit: some time after the last one has come to its end; at once, where the trading
        state refused that one and a later state lets exits pass."""
        book, last, answer = desk.book, desk.book.wanted, desk.book.answer
        if last is None or answer is None or book.in_flight or self._closing:
            return []
        paused = now < answer.at + self._config.pause_after(last.attempt)
        if paused and not (answer.by_state and self._reopened_since(book.given_under)):
            return []
        following = self._attempt(last, last.attempt + 1)
        following = replace(following, at=now, quantity=book.quantity, expires_at=now + self._ttl)
        return [self._give(book, following)]

    def _give(self, book: Book, signal: m.Signal) -> m.Signal:
        return book.give(signal, self._trading.revision if self._trading else 0)

    def _first(self, desk: Desk, ask: Decimal | None, trigger: str, reason: Why, cause: str, now: datetime) -> m.Signal:
        """The first attempt of an entry priced from `ask`; without one, of the exit from the whole position."""
        first = m.Signal(
            id="",
            cause=cause,
            at=now,
            product_id=desk.product_id,
            strategy=self._config.name,
            side=m.Side.SELL if ask is None else m.Side.BUY,
            order_type=m.OrderType.MARKET if ask is None else m.OrderType.LIMIT,
            time_in_force=m.TimeInForce.IOC,
            quantity=desk.book.quantity if ask is None else self._config.entry_notional_of(desk.product_id) / ask,
            limit_price=None if ask is None else ask * (1 + self._config.entry_slippage_bps / BPS),
            reduce_only=ask is None,
            reason=reason,
            trigger=trigger,
            attempt=1,
            expires_at=now + self._ttl,
        )
        return self._attempt(first, 1)

    def _attempt(self, signal: m.Signal, number: int) -> m.Signal:
        """The same intent, numbered: its id follows from the intent and the number alone."""
        intent = (signal.strategy, signal.product_id, signal.trigger, signal.side)
        return replace(signal, id=m.derive_id(self._installation, *intent, number), attempt=number)

    def _last_answered(self, book: Book, signal: m.Signal) -> m.Signal | None:
        """The latest attempt of the same intent, from this one on, that the ledger has answered."""
        for number in range(max(book.verdicts, signal.attempt), signal.attempt - 1, -1):
            later = self._attempt(signal, number)
            if m.client_order_id(later.id) in book.answers:
                return later
        return None

    def _unanswered(self) -> list[m.Message]:
        """Repeated also after they have expired: risk answers that too, durably."""
        return [d.book.wanted for d in self.desks.values() if d.book.wanted is not None and d.book.answer is None]

    # -- small questions

    @property
    def _closing(self) -> bool:
        """An operator's flatten is in force: risk sells all positions, attempt after attempt, and an exit of ours would
        only stand in its way. What was given before is still repeated until it is answered. Exits that are wanted
        are given when it ends, should the position still be there."""
        return self._trading is not None and bool(self._trading.flatten)

    def _reopened_since(self, revision: int) -> bool:
        """A later trading state lets exits pass. Each gives an exit no more than one early attempt."""
        state = self._trading
        return state is not None and state.state is not m.Trading.HALTED and state.revision > revision

    def _why_hold(self, desk: Desk, now: datetime) -> Why:
        if not desk.warm:
            return Why.WARMING_UP
        if self._fresh_mark(desk, now) is None:
            return Why.MARK_STALE
        if desk.book.held and self._closing:
            return Why.CLOSING
        if not desk.book.free:
            return Why.SIGNAL_PENDING
        if desk.book.held:
            return Why.HOLDING
        if desk.book.residue:
            return Why.DUST
        return Why.NO_SIGNAL if desk.reason is Why.HOLDING else desk.reason

    def _fresh_mark(self, desk: Desk, now: datetime) -> m.Mark | None:
        return desk.mark if desk.mark is not None and now - desk.mark.at <= self._mark_age_max else None

    def _end(self, candle: m.Candle) -> datetime:
        return candle.start + self._candle_length

    def _drop(self, message: m.Message) -> list[m.Message]:
        self.dropped[type(message).__name__] += 1
        return []


def _usable(message: m.Mark | m.Candle | m.Fill | m.Adjustment) -> bool:
    """Typed well it may still be no price. That figures are finite and times have a zone, the bus has seen to."""
    if isinstance(message, m.Mark):
        return _positive(message.bid, message.ask, message.mid) and message.bid <= message.ask
    if isinstance(message, m.Fill):
        return _positive(message.price, message.size)
    if isinstance(message, m.Adjustment):
        return _positive(message.price, abs(message.size))
    inside = message.low <= min(message.open, message.close) and max(message.open, message.close) <= message.high
    return inside and _positive(message.low, message.high) and 0 <= message.volume < LIMIT


def _positive(*values: Decimal) -> bool:
    return all(1 / LIMIT < value < LIMIT for value in values)


def _decision(mark: m.Mark, action: str, reason: str, signal_id: str = "") -> m.Decision:
    return m.Decision(
        id=f"decision-{mark.id}",
        cause=mark.id,
        at=mark.at,
        product_id=mark.product_id,
        action=action,
        reason=reason,
        mark_at=mark.at,
        received_at=mark.received_at,
        decided_at=mark.received_at,
        signal_id=signal_id,
    )
