"""Whatever happens, in whatever order, and wherever the process dies."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from libs.common import messages as m
from tests.strategy.builders import (
    BTC,
    ENTER,
    EXIT,
    HOLD,
    MINUTE,
    T0,
    World,
    adjustment,
    approve,
    candle,
    deny,
    event,
    fill,
    mark,
    state,
)
from tests.strategy.builders import seconds as seconds_of

STATES = ((m.Trading.ACTIVE, ""), (m.Trading.REDUCING, ""), (m.Trading.HALTED, ""), (m.Trading.REDUCING, "flatten"))
RESIDUE = (m.Reason.DUST, m.Reason.NOTHING_TO_REDUCE)
DENIALS = (m.Reason.MARK_STALE, m.Reason.TRADING_HALTED, m.Reason.SIGNAL_EXPIRED, *RESIDUE)

Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("mark"), st.integers(90, 112)),
        st.tuples(st.just("candle"), st.sampled_from([ENTER, ENTER, EXIT, EXIT, HOLD])),
        st.tuples(st.just("wait"), st.integers(1, 70)),
        st.tuples(st.just("tick"), st.just(0)),
        st.tuples(st.just("approve"), st.just(0)),
        st.tuples(st.just("deny"), st.integers(0, len(DENIALS) - 1)),
        st.tuples(st.just("fill"), st.sampled_from([25, 50, 100])),
        st.tuples(st.just("end"), st.integers(0, 2)),
        st.tuples(st.just("operator"), st.sampled_from([-3, 2])),
        st.tuples(st.just("adjust"), st.sampled_from([-4, -1, 3])),
        st.tuples(st.just("state"), st.integers(0, 3)),
    ),
    max_size=60,
)


class Game:
    """The core against a risk and a venue that may do anything lawful. Every new signal is checked when it comes."""

    def __init__(self) -> None:
        self.world = World()
        self.ledger: list[m.Message] = []
        self.bars: list[m.Candle] = []
        self.last_mark: m.Mark | None = None
        self.given: dict[str, m.Signal] = {}  # in the order of their first appearance
        self.ended: dict[str, str] = {}  # signal id to reason, once its end is durable
        self.approved: dict[str, m.Signal] = {}
        self.sold: dict[str, Decimal] = {}  # filled so far, by signal id
        self.quantity = Decimal(0)
        self.residue = False
        self.trading = state(m.Trading.ACTIVE, 1)
        self.world.send(self.trading)
        self.lost_state = False

    # -- what may happen

    def play(self, step: Step) -> None:
        name, argument = step
        getattr(self, f"_{name}")(argument)

    def _mark(self, price: int) -> None:
        self.last_mark = mark(price, self.world.now)
        self.send(self.last_mark)

    def _candle(self, word: int) -> None:
        """The candle that closed last, however often it is told."""
        number = (self.world.now - T0) // MINUTE - 1
        if not self.bars or candle(number).start > self.bars[-1].start:
            self.bars.append(candle(number, volume=word))
        self.send(self.bars[-1])

    def _wait(self, seconds: int) -> None:
        self.world.wait(seconds_of(seconds))

    def _tick(self, _: int) -> None:
        for _ in range(4):
            self.send(m.Tick(id="tick"))

    def _approve(self, _: int) -> None:
        for signal in self._unanswered()[:1]:
            self.approved[signal.id] = signal
            self.write(approve(signal, self.world.now))

    def _deny(self, index: int) -> None:
        for signal in self._unanswered()[:1]:
            reason = DENIALS[index] if signal.side is m.Side.SELL else m.Reason.MARK_STALE
            self.ended[signal.id] = reason
            self.residue |= reason in RESIDUE and signal.side is m.Side.SELL
            self.write(deny(signal, reason, self.world.now))

    def _fill(self, percent: int) -> None:
        for signal in self._living()[:1]:
            left = signal.quantity - self.sold.get(signal.id, Decimal(0))
            size = left * percent / 100
            if signal.side is m.Side.SELL:
                size = min(size, self.quantity)  # reduce-only reduces
            if size > 0:
                self.sold[signal.id] = self.sold.get(signal.id, Decimal(0)) + size
                self._traded(signal.side, size, signal.id)

    def _end(self, kind: int) -> None:
        for signal in self._living()[:1]:
            status = (m.OrderStatus.CANCELED, m.OrderStatus.EXPIRED, m.OrderStatus.FILLED)[kind]
            self.ended[signal.id] = status
            self.write(event(signal, status, 2, self.sold.get(signal.id, 0), self.world.now))

    def _operator(self, size: int) -> None:
        if size > 0 or self.quantity > 0:
            self._traded(m.Side.BUY if size > 0 else m.Side.SELL, Decimal(abs(size)), "operator")

    def _adjust(self, size: int) -> None:
        """Holdings handed over, and given back as far as they are there."""
        size_now = max(Decimal(size), -self.quantity)
        if size_now:
            self.quantity += size_now
            self.residue = False
            self.write(adjustment(len(self.ledger), size_now, 100, self.world.now))

    def _state(self, index: int) -> None:
        trading, flatten = STATES[index]
        self.trading = state(trading, self.trading.revision + 1, flatten)
        self.send(self.trading)

    def _traded(self, side: m.Side, size: Decimal, signal_id: str) -> None:
        self.quantity = max(self.quantity + (size if side is m.Side.BUY else -size), Decimal(0))
        self.residue = False
        self.write(fill(len(self.ledger), side, size, 100, self.world.now, signal_id))

    def crash(self, snapshot: bytes, ledger_length: int) -> None:
        """Kill it and start it from a snapshot that was taken when the ledger was that long."""
        old, self.world = self.world, World(now=self.world.now, recovered=False)
        if snapshot:
            self.world.core.restore(snapshot)
        self.world.now = old.now
        past: list[m.Message] = [
            *self.ledger[ledger_length:],
            self.trading,
            *([self.last_mark] if self.last_mark else []),
            *self.bars,
        ]
        self.world.send(*past)
        self.check(self.world.recover())

    # -- and what must hold

    def write(self, message: m.Message) -> None:
        self.ledger.append(message)
        self.send(message)

    def send(self, message: m.Message) -> None:
        outputs = self.world.send(message)
        assert len([o for o in outputs if isinstance(o, m.Decision)]) == isinstance(message, m.Mark)
        self.check(outputs)

    def check(self, outputs: list[m.Message]) -> None:
        for signal in outputs:
            if isinstance(signal, m.Signal) and signal.id not in self.given:
                self.check_new(signal)
                self.given[signal.id] = signal
            elif isinstance(signal, m.Signal):
                known = self.given[signal.id]
                assert (signal.side, signal.trigger, signal.attempt) == (known.side, known.trigger, known.attempt)
        assert self.lost_state or len(self._unanswered()) <= 1
        assert self.world.core.busy or not (self._living() or (self._unanswered() and not self.lost_state))

    def check_new(self, signal: m.Signal) -> None:
        assert not self._living(), "an order is on its way"
        if not self.lost_state:
            assert not self._unanswered(), "a signal waits for its answer"
        if signal.side is m.Side.BUY:
            assert self.quantity == 0 or self.residue, "something is held"
            assert signal.attempt == 1, "an entry is not tried again"
        else:
            assert signal.quantity == self.quantity > 0
            assert not self.trading.flatten, "risk closes the position"
            before = [s for s in self.given.values() if s.trigger == signal.trigger and s.side is signal.side]
            assert signal.attempt == len(before) + 1
            assert all(known.id in self.ended for known in before)

    def _unanswered(self) -> list[m.Signal]:
        return [s for s in self.given.values() if s.id not in self.approved and s.id not in self.ended]

    def _living(self) -> list[m.Signal]:
        return [s for s in self.approved.values() if s.id not in self.ended]


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_one_signal_at_a_time_and_attempts_only_after_a_durable_end(steps: list[Step]) -> None:
    game = Game()
    for step in steps:
        game.play(step)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.sets(st.integers(0, 60)))
@example(
    [("operator", 2), ("mark", 90), ("approve", 0), ("end", 0), ("wait", 5), ("candle", ENTER)],
    {5},
)
def test_a_run_with_crashes_gives_the_same_signals_as_one_without(steps: list[Step], crashes: set[int]) -> None:
    smooth, rough = Game(), Game()
    for number, step in enumerate(steps):
        if number in crashes:
            smooth.play(("tick", 0))  # a recovery makes an attempt that is due, as the next tick would have
            rough.crash(rough.world.core.dump(), len(rough.ledger))
        smooth.play(step)
        rough.play(step)
        assert list(rough.given.values()) == list(smooth.given.values())
        assert rough.world.core.busy == smooth.world.core.busy


@settings(max_examples=300, deadline=None)
@given(STEPS, st.dictionaries(st.integers(0, 60), st.integers(0, 10), max_size=5))
def test_a_snapshot_that_is_older_than_the_crash_never_doubles_an_order(
    steps: list[Step], crashes: dict[int, int]
) -> None:
    game = Game()
    snapshots = [(b"", 0)]
    for number, step in enumerate(steps):
        if number in crashes:
            game.lost_state = True
            game.crash(*snapshots[max(len(snapshots) - 1 - crashes[number], 0)])
        game.play(step)
        snapshots.append((game.world.core.dump(), len(game.ledger)))


def test_the_game_reaches_what_it_is_about() -> None:
    """Else its rules would hold for want of play."""
    game = Game()
    story: list[Step] = [
        *[("mark", 100), ("candle", ENTER), ("approve", 0), ("fill", 50), ("end", 0)],
        *[("wait", 60), ("mark", 90), ("deny", 0), ("wait", 6), ("tick", 0), ("approve", 0), ("fill", 100), ("end", 2)],
        *[("wait", 60), ("mark", 90), ("candle", ENTER)],
    ]
    for step in story:
        game.play(step)
    assert [(s.side, s.attempt) for s in game.given.values()] == [
        (m.Side.BUY, 1),
        (m.Side.SELL, 1),
        (m.Side.SELL, 2),
        (m.Side.BUY, 1),
    ]
    assert all(s.product_id == BTC for s in game.given.values())


def test_the_game_reaches_adjustments_and_trading_states() -> None:
    game = Game()
    story: list[Step] = [
        *[("adjust", 3), ("adjust", -1), ("mark", 90), ("state", 2), ("deny", 1)],
        *[("state", 3), ("wait", 60), ("mark", 90), ("tick", 0)],
    ]
    for step in story:
        game.play(step)
    assert len(game.given) == 1
    game.play(("state", 0))
    assert [(s.side, s.attempt, s.quantity) for s in game.given.values()] == [
        (m.Side.SELL, 1, Decimal(2)),
        (m.Side.SELL, 2, Decimal(2)),
    ]
