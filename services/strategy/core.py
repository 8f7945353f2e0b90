"""When to buy and when to sell. Decides on closed candles by the plug-in, and on marks by the trailing stop.

The price of a mark is its mid. A decision is published by the shell as it stands, and the core knows no wall time:
`Decision.decided_at` repeats the mark's `received_at`, and the time of the decision is the bus's stamp `sent_at`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from msgspec import Struct, field

from libs.common import messages as m
from services.strategy.books import Book, State, Told, Wanted
from services.strategy.config import StrategyConfig
from services.strategy.plugin import Action, Intent, Strategy, Why
from services.strategy.sound import sound_candle, sound_fill, sound_mark, timed_mark

REPEAT_TICKS = 4  # an unanswered signal is repeated about every second
HIGHS_KEPT = 500  # as many candles as the bus keeps
BPS = Decimal(10_000)
Ledger = m.Verdict | m.OrderEvent | m.Fill


class Desk(Struct):
    """One traded product: what is rebuilt after a restart, beside its book."""

    product_id: str
    strategy: Strategy
    book: Book
    entry_notional: Decimal
    trailing_stop: Decimal  # fraction of the peak
    mark: m.Mark | None = None  # the newest
    candles: int = 0
    newest_start: datetime | None = None
    highs: deque[tuple[datetime, Decimal]] = field(default_factory=lambda: deque(maxlen=HIGHS_KEPT))
    undecided: tuple[m.Candle, Intent] | None = None
    reason: Why = Why.WARMING_UP  # why the newest candle made no signal

    @property
    def warm(self) -> bool:
        return self.candles >= self.strategy.warmup_candles

    @property
    def stop_price(self) -> Decimal | None:
        """The trailing stop of the position held, in quote currency."""
        return self.book.peak * (1 - self.trailing_stop) if self.book.held and self.book.peak is not None else None


class StrategyCore:
    """See `libs.common.shell.Core`. `desks` and `dropped` are for the metrics to look at."""

    def __init__(
        self, config: StrategyConfig, granularity: str, candle_seconds: int, strategies: Mapping[str, Strategy]
    ) -> None:
        self._config = config
        self._granularity = granularity
        self._candle_length = timedelta(seconds=candle_seconds)
        self._ttl = timedelta(seconds=config.signal_ttl_seconds)
        self._retry_after = timedelta(seconds=config.retry_seconds)
        self._mark_age_max = timedelta(seconds=config.mark_age_max_seconds)
        self._installation = ""
        self._recovered = False
        self._ticks = 0
        self._state = State()
        self.dropped: dict[str, int] = {}
        self.desks = {
            product_id: Desk(
                product_id,
                strategy,
                self._state.book(product_id),
                config.entry_notional_of(product_id),
                config.trailing_stop_of(product_id),
            )
            for product_id, strategy in strategies.items()
        }

    # -- what the shell asks

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        match message:
            case m.Mark():
                return self._on_mark(message, now)
            case m.Candle():
                return self._on_candle(message, now)
            case m.Verdict() | m.OrderEvent() | m.Fill():
                return self._on_ledger(message, now)
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
        self._state = msgspec.json.decode(raw, type=State)
        for product_id, desk in self.desks.items():
            desk.book = self._state.book(product_id)

    # -- what comes in

    def _on_mark(self, mark: m.Mark, now: datetime) -> list[m.Message]:
        desk = self.desks.get(mark.product_id)
        if desk is None or not timed_mark(mark):
            return self._drop(mark)
        if not sound_mark(mark) or mark.at - now > self._mark_age_max:
            self._drop(mark)
            return [_decision(mark, Told("hold", Why.MARK_UNUSABLE, ""))]
        if desk.mark is None or mark.at >= desk.mark.at:
            desk.mark = mark
        desk.book.raise_peak(mark.mid, mark.at)
        if not self._recovered:
            return []
        signals = self._retry(desk, now) or self._decide(desk, now) or self._stop(desk, now)
        untold = desk.book.untold
        told = untold.pop(0) if untold else Told("hold", self._why_hold(desk, now), "")
        return [*signals, _decision(mark, told)]

    def _on_candle(self, candle: m.Candle, now: datetime) -> list[m.Message]:
        desk = self.desks.get(candle.product_id)
        if desk is None or candle.granularity != self._granularity or not sound_candle(candle):
            return self._drop(candle)
        if candle.start - now > self._mark_age_max:
            return self._drop(candle)  # it cannot have closed before it began
        if desk.newest_start is not None and candle.start <= desk.newest_start:
            return []
        book, since = desk.book, desk.book.held_since
        intent = desk.strategy.on_candle(candle, held=since is not None and self._end(candle) > since)
        desk.newest_start = candle.start
        desk.candles += 1
        desk.highs.append((candle.start, candle.high))
        book.raise_peak(candle.high, candle.start)
        if not desk.warm:
            intent = Intent(Action.HOLD, Why.WARMING_UP)
        if book.last_decided_start is not None and candle.start <= book.last_decided_start:
            desk.reason = intent.reason if intent.action is Action.HOLD else Why.NO_SIGNAL
            return []  # decided before the restart
        if desk.undecided is None or desk.undecided[1].action is not Action.EXIT:
            desk.undecided = (candle, intent)  # a later candle replaces anything but an exit
        return self._decide(desk, now) if self._recovered else []

    def _on_ledger(self, message: Ledger, now: datetime) -> list[m.Message]:
        if isinstance(message, m.Fill) and not sound_fill(message):
            return self._drop(message)
        book = self._state.book(message.product_id)
        opened = book.apply(message, self._retry_after)
        desk = self.desks.get(message.product_id)
        if desk is None:
            return []
        if opened:
            # A fill may reach us late: what candles and the mark have shown since counts already.
            for start, high in desk.highs:
                book.raise_peak(high, start)
            if desk.mark is not None:
                book.raise_peak(desk.mark.mid, desk.mark.at)
        return self._decide(desk, now) if self._recovered else []

    def _on_tick(self, now: datetime) -> list[m.Message]:
        self._ticks += 1
        unanswered = self._unanswered() if self._ticks % REPEAT_TICKS == 0 else []
        return [*unanswered, *(signal for desk in self.desks.values() for signal in self._retry(desk, now))]

    def _on_recovered(self, now: datetime) -> list[m.Message]:
        assert self._installation, "recovered without an installation: no signal could have an id"
        self._recovered = True
        for desk in self.desks.values():
            self._skip_attempts(desk)
        unanswered = self._unanswered()
        return [
            *unanswered,
            *(s for desk in self.desks.values() for s in self._retry(desk, now) or self._decide(desk, now)),
        ]

    # -- what goes out

    def _decide(self, desk: Desk, now: datetime) -> list[m.Message]:
        """Act on the candle that has not been acted on, once that is possible."""
        if desk.undecided is None:
            return []
        book, (candle, intent) = desk.book, desk.undecided
        signals: list[m.Message] = []
        if intent.action is Action.HOLD:
            desk.reason = intent.reason
        elif intent.action is Action.EXIT:
            if not book.free:
                return []
            if book.held and book.opened_at is not None and self._end(candle) > book.opened_at:
                signals = self._exit(desk, _candle_trigger(candle), intent.reason, candle.id, now)
        elif now - self._end(candle) > self._ttl:
            desk.reason = Why.CANDLE_TOO_OLD
        elif not book.held:
            if not book.free or not self._fresh(desk, now):
                return []
            desk.reason = Why.NO_SIGNAL
            signals = self._enter(desk, candle, intent.reason, now)
        desk.undecided = None
        book.last_decided_start = desk.newest_start
        return signals

    def _enter(self, desk: Desk, candle: m.Candle, reason: Why, now: datetime) -> list[m.Message]:
        trigger = _candle_trigger(candle)
        if m.client_order_id(self._signal_id(desk, trigger, m.Side.BUY, 1)) in desk.book.answers:
            return []  # asked before a crash, and answered: an entry is not tried again
        return self._want(desk, m.Side.BUY, trigger, 1, reason, candle.id, now)

    def _exit(self, desk: Desk, trigger: str, reason: Why, cause: str, now: datetime) -> list[m.Message]:
        attempt = self._latest_attempt(desk, trigger, 1)
        if attempt is None:
            return self._want(desk, m.Side.SELL, trigger, 1, reason, cause, now)
        # Asked before a crash, and answered: go on after the last answer.
        signal = self._signal(desk, m.Side.SELL, trigger, attempt, reason, cause, now)
        desk.book.wanted = Wanted(signal, desk.book.opened_by)
        desk.book.adopt_answer(self._retry_after)
        return self._retry(desk, now)

    def _stop(self, desk: Desk, now: datetime) -> list[m.Message]:
        """The trailing stop: the newest mark has come down to it. An old mark does not trade."""
        book, mark, price = desk.book, desk.mark, desk.stop_price
        if mark is None or price is None or mark.mid > price or not book.free or not self._fresh(desk, now):
            return []
        return self._exit(desk, f"stop:{book.opened_by}", Why.TRAILING_STOP, mark.id, now)

    def _retry(self, desk: Desk, now: datetime) -> list[m.Message]:
        """The next attempt of an exit whose last one has come to its end."""
        wanted = desk.book.wanted
        if wanted is None or wanted.retry_at is None or now < wanted.retry_at or desk.book.in_flight:
            return []
        last = wanted.signal
        return self._want(desk, last.side, last.trigger, last.attempt + 1, last.reason, last.cause, now)

    def _want(
        self, desk: Desk, side: m.Side, trigger: str, attempt: int, reason: str, cause: str, now: datetime
    ) -> list[m.Message]:
        signal = self._signal(desk, side, trigger, attempt, reason, cause, now)
        desk.book.wanted = Wanted(signal, desk.book.opened_by)
        desk.book.tell(Told("buy" if side is m.Side.BUY else "close", reason, signal.id))
        return [signal]

    def _signal(
        self, desk: Desk, side: m.Side, trigger: str, attempt: int, reason: str, cause: str, now: datetime
    ) -> m.Signal:
        buy = side is m.Side.BUY
        assert not buy or desk.mark is not None, "an entry is priced from a mark"
        ask = desk.mark.ask if buy and desk.mark is not None else None
        return m.Signal(
            id=self._signal_id(desk, trigger, side, attempt),
            cause=cause,
            at=now,
            product_id=desk.product_id,
            strategy=self._config.name,
            side=side,
            order_type=m.OrderType.LIMIT if buy else m.OrderType.MARKET,
            time_in_force=m.TimeInForce.IOC,
            quantity=desk.book.quantity if ask is None else desk.entry_notional / ask,
            limit_price=None if ask is None else ask * (1 + self._config.entry_slippage_bps / BPS),
            reduce_only=not buy,
            reason=reason,
            trigger=trigger,
            attempt=attempt,
            expires_at=now + self._ttl,
        )

    def _unanswered(self) -> list[m.Message]:
        """Repeated also after they have expired: risk answers that too, durably."""
        books = [desk.book for desk in self.desks.values()]
        return [b.wanted.signal for b in books if b.wanted is not None and b.wanted.key not in b.answers]

    # -- small questions

    def _signal_id(self, desk: Desk, trigger: str, side: m.Side, attempt: int) -> str:
        return m.derive_id(self._installation, self._config.name, desk.product_id, trigger, side, attempt)

    def _latest_attempt(self, desk: Desk, trigger: str, first: int) -> int | None:
        """The last attempt of an exit, from `first` on, that the ledger has answered."""
        attempts = range(first, desk.book.verdicts + 1)
        keys = {n: m.client_order_id(self._signal_id(desk, trigger, m.Side.SELL, n)) for n in attempts}
        return max((n for n, key in keys.items() if key in desk.book.answers), default=None)

    def _skip_attempts(self, desk: Desk) -> None:
        """A snapshot may be older than the ledger: an exit goes on after the last attempt that was answered."""
        wanted = desk.book.wanted
        if wanted is None or wanted.signal.side is m.Side.BUY:
            return
        attempt = self._latest_attempt(desk, wanted.signal.trigger, wanted.signal.attempt + 1)
        if attempt is not None:
            signal_id = self._signal_id(desk, wanted.signal.trigger, m.Side.SELL, attempt)
            wanted.signal = msgspec.structs.replace(wanted.signal, id=signal_id, attempt=attempt)
            wanted.retry_at = None
            desk.book.adopt_answer(self._retry_after)

    def _why_hold(self, desk: Desk, now: datetime) -> Why:
        if not desk.warm:
            return Why.WARMING_UP
        if not self._fresh(desk, now):
            return Why.MARK_STALE
        if not desk.book.free:
            return Why.SIGNAL_PENDING
        if desk.book.held:
            return Why.HOLDING
        if desk.book.residue:
            return Why.DUST
        return Why.NO_SIGNAL if desk.reason is Why.HOLDING else desk.reason

    def _fresh(self, desk: Desk, now: datetime) -> bool:
        return desk.mark is not None and now - desk.mark.at <= self._mark_age_max

    def _end(self, candle: m.Candle) -> datetime:
        return candle.start + self._candle_length

    def _drop(self, message: m.Message) -> list[m.Message]:
        kind = type(message).__name__
        self.dropped[kind] = self.dropped.get(kind, 0) + 1
        return []


def _candle_trigger(candle: m.Candle) -> str:
    return f"candle:{candle.start.isoformat()}"


def _decision(mark: m.Mark, told: Told) -> m.Decision:
    return m.Decision(
        id=f"decision-{mark.id}",
        cause=mark.id,
        at=mark.at,
        product_id=mark.product_id,
        action=told.action,
        reason=told.reason,
        mark_at=mark.at,
        received_at=mark.received_at,
        decided_at=mark.received_at,
        signal_id=told.signal_id,
    )
