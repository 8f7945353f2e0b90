"""What holds for any sequence of messages, redelivered, restarted in between, in any order the bus allows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.messages import OrderStatus
from services.risk.trading import Action
from tests.risk.builders import BTC, ETH, PRODUCTS, D, Desk, command, config, fill, mark, market, signal, tick

amounts = st.decimals("0.001", "9.999", places=3)
fees = st.decimals(0, 5, places=9)
prices = st.decimals("1", "999.99", places=2)
sides = st.sampled_from(list(m.Side))
trades = st.lists(st.tuples(st.sampled_from(PRODUCTS), sides, amounts, prices, fees), max_size=25)


@given(trades, prices)
def test_the_books_are_the_sum_of_the_fills_to_the_last_digit(
    bought: list[tuple[str, m.Side, Decimal, Decimal, Decimal]], price: Decimal
) -> None:
    desk = Desk(config(daily_loss_limit=D(10**9))).open(prices={p: str(price) for p in PRODUCTS})
    for number, (product_id, side, size, at, fee) in enumerate(bought):
        desk.fact(fill(str(number), side, str(size), str(at), str(fee), product_id=product_id))
    figures = desk.figures
    sign = {m.Side.BUY: 1, m.Side.SELL: -1}
    held = {p: sum((sign[side] * size for q, side, size, *_ in bought if q == p), D(0)) for p in PRODUCTS}
    cash = sum((-sign[side] * size * at - fee for _, side, size, at, fee in bought), D(0))
    assert figures.books == {"BTC": held[BTC], "ETH": held[ETH], "USD": 100_000 + cash}
    assert {p: position.quantity for p, position in figures.positions.items()} == {
        p: held[p] for p in figures.positions
    }
    assert figures.fees == sum((fee for *_, fee in bought), D(0))
    # What was earned is what the account is worth more: realised + unrealised - fees.
    worth = cash + sum((quantity * price for quantity in held.values()), D(0))
    assert figures.unrealized_pnl is not None
    assert figures.realized_pnl + figures.unrealized_pnl - figures.fees == worth
    assert figures.equity == 100_000 + worth
    assert figures.daily_loss == max(D(0), -worth)


LIMITS = config(
    order_notional_max=D(300),
    position_notional_max=D(500),
    exposure_max=D(800),
    orders_per_minute_max=5,
    daily_loss_limit=D(50),
)
TERMINAL = st.sampled_from([OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED])
Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["buy", "buy", "sell", "fill", "fill", "end", "unknown", "pass", "mark", "command", "again"]),
        st.integers(0, 9),
        st.integers(1, 40),
    ),
    min_size=12,
    max_size=40,
)


class Play:
    """Plays steps on a desk: orders that were approved are filled and ended in any order, as a venue might."""

    def __init__(self, desk: Desk, *, moving: bool) -> None:
        self.desk = desk
        self.moving = moving
        self.open: list[tuple[m.Verdict, Decimal]] = []
        self.count = 0

    def promised(self, product_id: str) -> Decimal:
        """Quote currency that open buys of this product may still spend."""
        parts = [
            v.reserved * (v.order.quantity - done) / v.order.quantity
            for v, done in self.open
            if v.order is not None and v.product_id == product_id and v.order.side is m.Side.BUY
        ]
        return sum(parts, D(0))

    def step(self, step: Step) -> list[m.Message]:
        kind, which, size = step
        self.count += 1
        handlers: dict[str, Callable[[int, int], list[m.Message]]] = {
            "buy": self._signal,
            "sell": self._exit,
            "fill": self._fill,
            "end": self._end,
            "unknown": self._unknown,
            "pass": self._pass,
            "mark": self._mark,
            "command": self._command,
            "again": self._again,
        }
        return handlers[kind](which, size)

    def _ask(self, wanted: m.Signal) -> list[m.Message]:
        found = self.desk.feed(wanted)
        self.open += [(v, D(0)) for v in found if isinstance(v, m.Verdict) and v.order is not None]
        return found

    def _signal(self, which: int, size: int) -> list[m.Message]:
        product_id, quantity = PRODUCTS[which % 2], str(D(size) / 10)
        expires = self.desk.now + timedelta(seconds=5)
        make = market if which % 3 == 0 else signal
        return self._ask(
            make(f"s{self.count}", quantity=quantity, product_id=product_id, at=self.desk.now, expires_at=expires)
        )

    def _exit(self, which: int, size: int) -> list[m.Message]:
        expires = self.desk.now + timedelta(seconds=5)
        product_id, quantity = PRODUCTS[which % 2], str(D(size) / 10)
        return self._ask(
            market(f"s{self.count}", m.Side.SELL, quantity, product_id=product_id, at=self.desk.now, expires_at=expires)
        )

    def _fill(self, which: int, size: int) -> list[m.Message]:
        if not self.open:
            return []
        verdict, done = self.open.pop(which % len(self.open))
        assert verdict.order is not None
        part = min(verdict.order.quantity - done, D(size) / 20)
        self.open.append((verdict, done + part))
        return self.desk.fill(verdict, f"f{self.count}", str(part), "100") if part else []

    def _end(self, which: int, size: int) -> list[m.Message]:
        if not self.open:
            return []
        verdict, done = self.open.pop(which % len(self.open))
        return self.desk.end(verdict, OrderStatus.CANCELED, 1000 + self.count, str(done))

    def _unknown(self, which: int, size: int) -> list[m.Message]:
        if not self.open:
            return []
        verdict, _ = self.open[which % len(self.open)]
        return self.desk.end(verdict, OrderStatus.UNKNOWN, self.count)

    def _pass(self, which: int, size: int) -> list[m.Message]:
        self.desk.later(size)
        return self.desk.feed(tick(self.desk.now))

    def _mark(self, which: int, size: int) -> list[m.Message]:
        price = str(80 + size) if self.moving else "100"
        return self.desk.feed(mark(PRODUCTS[which % 2], price, self.desk.now))

    def _command(self, which: int, size: int) -> list[m.Message]:
        if not self.moving:
            return []
        action = list(Action)[which % 3]
        self.desk.storing.clear()
        found = self.desk.feed(command(action, name=f"c{self.count}", at=self.desk.now))
        while self.desk.storing:
            found += self.desk.store()
        return found

    def _again(self, which: int, size: int) -> list[m.Message]:
        """The bus delivers something a second time."""
        if self.desk.ledger:
            self.desk.feed(self.desk.ledger[which % len(self.desk.ledger)])
        return []


def decisions(found: list[m.Message]) -> list[m.Message]:
    return [message for message in found if isinstance(message, m.Verdict | m.TradingState | m.Audit)]


@settings(max_examples=100)
@given(steps)
def test_no_interleaving_exceeds_a_limit(taken: list[Step]) -> None:
    """With a market that stands still, what is held and what is promised never pass a limit, whatever comes when."""
    desk = Desk(LIMITS).open()
    play = Play(desk, moving=False)
    for step in taken:
        play.step(step)
        figures = desk.figures
        assert figures.exposure is not None
        assert figures.exposure + figures.reserved <= LIMITS.exposure_max
        for product_id in PRODUCTS:
            position = figures.positions.get(product_id)
            held = position.quantity if position else D(0)
            assert held >= 0
            assert held * 100 + play.promised(product_id) <= LIMITS.position_notional_max
        recent = [v.at for v in desk.ledger if isinstance(v, m.Verdict) and v.order and v.order.side is m.Side.BUY]
        assert all(sum(a - timedelta(minutes=1) < b <= a for b in recent) <= 5 for a in recent)


@settings(max_examples=100)
@given(steps, st.integers(0, 12))
def test_a_restart_at_any_point_changes_no_later_decision(taken: list[Step], at: int) -> None:
    plain, restarted = Play(Desk(LIMITS).open(), moving=True), Play(Desk(LIMITS).open(), moving=True)
    for number, step in enumerate(taken):
        if number == at:
            settle(plain.desk)
            settle(restarted.desk)
            restarted.desk.restart()
            settle(restarted.desk)
        assert decisions(plain.step(step)) == decisions(restarted.step(step))
    assert plain.desk.figures == restarted.desk.figures
    assert plain.desk.core.open_orders == restarted.desk.core.open_orders


@settings(max_examples=100)
@given(steps)
def test_the_ledger_alone_gives_the_same_figures_as_a_life_without_a_restart(taken: list[Step]) -> None:
    """All but the drift, which needs an account to compare with."""
    play = Play(Desk(LIMITS).open(), moving=True)
    for step in taken:
        play.step(step)
        settle(play.desk)
    before, open_orders = play.desk.figures, play.desk.core.open_orders
    play.desk.restart(snapshot=False)
    assert msgspec.structs.replace(play.desk.figures, drift=before.drift) == before
    assert play.desk.core.open_orders == open_orders


def settle(desk: Desk) -> None:
    """What was proposed is stored: a shell does that before it takes the next message."""
    while desk.storing:
        desk.store()


@settings(max_examples=100)
@given(steps, st.data())
def test_messages_that_come_twice_change_nothing(taken: list[Step], data: st.DataObject) -> None:
    desk = Desk(LIMITS).open()
    play = Play(desk, moving=True)
    for step in taken:
        play.step(step)
        settle(desk)
    before = desk.core.dump()
    for message in data.draw(st.lists(st.sampled_from(desk.ledger), max_size=20) if desk.ledger else st.just([])):
        desk.core.on_message(message, desk.now)
    assert desk.core.dump() == before
