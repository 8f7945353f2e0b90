"""Partial fills and fees from the venue to the books, through the cores without I/O.

A venue that is nothing but its list of fills answers as badly as the real one may: late, twice, in any order, in
parts, by the user channel, by queries and by listings, while execution dies and starts again from its ledger. In the
end risk's books hold exactly the venue's fills, each once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.messages import OrderStatus, Side
from services.execution import inputs as i
from services.risk.books import EXACT, Holding
from services.risk.state import State
from tests.execution.story import NOON, Story, key, verdict

Draw = Callable[[st.SearchStrategy[Any]], Any]
ZERO = Decimal(0)
PRODUCT = "BTC-USD"
UNIT = Decimal("1E-8")  # the finest size of the venue
VALUE_UNIT = Decimal("1E-13")  # of values that the venue tells itself
LOT = 10_000  # units in a base increment of the story's product
ROUNDED = Decimal("1E-12")  # to which the books round the cost of a part of a position
ROUNDS_MAX = 40
prices = st.integers(1, 10**8).map(lambda cents: Decimal(cents).scaleb(-2))
fees = st.integers(0, 10**17).map(lambda parts: Decimal(parts).scaleb(-14))
EXAMPLES = int(os.environ.get("PERPS_FUZZ_EXAMPLES", "100"))
# How many of the facts that follow from one message are written before a crash; mostly there is none.
CRASHES = st.sampled_from([99, 99, 99, 99, 0, 1, 2])


class Execution(msgspec.Struct):
    """One order at the venue: its fills in the order of time. The first `done` have happened; the last `late` ones
    come only after the venue has called the order finished."""

    name: str
    side: Side
    quantity: Decimal
    fills: tuple[i.VenueFill, ...]
    late: int = 0
    done: int = 0

    @property
    def finished(self) -> bool:
        return self.done >= len(self.fills) - self.late

    def seen(self, upto: int) -> i.VenueOrder:
        """The order as it was after so many fills. The end comes with the last fill."""
        filled = sum((fill.size for fill in self.fills[:upto]), ZERO)
        full = OrderStatus.FILLED if filled >= self.quantity else OrderStatus.CANCELED
        ended = upto >= len(self.fills) - self.late
        return i.VenueOrder(
            venue_order_id=f"venue-{self.name}",
            client_order_id=key(self.name),
            product_id=PRODUCT,
            side=self.side,
            status=full if ended else OrderStatus.ACCEPTED,
            status_word=str(full) if ended else "OPEN",
            filled_qty=filled,
            filled_value=sum((fill.quote_value for fill in self.fills[:upto]), ZERO),
            fees=sum((fill.fee for fill in self.fills[:upto]), ZERO),
            quantity=self.quantity,
        )


def fill(
    name: str, number: int, side: Side, size: Decimal, price: Decimal, fee: Decimal, value: Decimal | None = None
) -> i.VenueFill:
    return i.VenueFill(
        entry_id=f"{name}/{number}",
        trade_id=f"t{number}",
        venue_order_id=f"venue-{name}",
        product_id=PRODUCT,
        side=side,
        price=price,
        size=size,
        fee=fee,
        liquidity="TAKER",
        trade_time=NOON,
        value=value,
    )


FOREIGN = fill("somebody else's", 0, Side.SELL, Decimal(7), Decimal(1), Decimal(1))


def one_fill(draw: Draw, name: str, number: int, side: Side, size: Decimal) -> i.VenueFill:
    """Some are told in the quote currency: their value is not price x size to the last digit."""
    price, odd = draw(prices), draw(st.sampled_from([None, None, 0, 1, -1, 99]))
    value = None if odd is None else price * size + odd * VALUE_UNIT
    return fill(name, number, side, size, price, draw(fees), value)


def split(draw: Draw, name: str, side: Side, quantity: Decimal) -> Execution:
    """Any way to fill an order: nothing, a part, all of it or more than that; in one fill or in many."""
    units = int(quantity / UNIT)
    total = draw(
        st.sampled_from([units, units, units, draw(st.integers(0, units)), units + draw(st.integers(1, units))])
    )
    cuts = sorted(set(draw(st.lists(st.integers(1, max(1, total - 1)), max_size=5)))) if total > 1 else []
    edges = [0, *cuts, total] if total else [0]
    fills = tuple(
        one_fill(draw, name, number, side, (end - start) * UNIT) for number, (start, end) in enumerate(pairwise(edges))
    )
    return Execution(name, side, quantity, fills, late=draw(st.sampled_from([0, 0, 0, min(1, len(fills))])))


class Desk:
    """What may happen between the venue, execution and risk, one method each; `finish` lets everything come to its end
    and compares."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.story = Story()
        self.snapshot: tuple[int, bytes] = (0, b"")
        self.executions: dict[str, Execution] = {}
        self.risk = State()
        self.told = 0  # how much of the ledger risk has been told

    # -- what may happen

    def approve(self) -> None:
        name, held = f"s{len(self.risk.answers.given)}", self.story.core.state.positions.get(PRODUCT, ZERO)
        side = self.draw(
            st.sampled_from([Side.BUY, Side.SELL, Side.SELL] if held > 0 else [Side.BUY] * 4 + [Side.SELL])
        )
        size = self.draw(st.integers(1, 30_000)) * LOT * UNIT
        self.tell(verdict(name, side, str(size), gtc=self.draw(st.booleans()), reduce_only=side is Side.SELL))
        event = next(fact for fact in reversed(self.story.ledger) if isinstance(fact, m.OrderEvent))
        if event.status is not OrderStatus.SUBMITTING:
            assert side is Side.SELL
            return
        self.executions[name] = split(self.draw, name, side, event.order.quantity)
        outcome = self.draw(st.sampled_from(["placed", "placed", "silent", "unknown"]))
        if outcome == "placed":
            self.tell(i.Placed(id="placed", client_order_id=key(name), venue_order_id=f"venue-{name}"))
        elif outcome == "unknown":
            self.tell(i.PlaceUnknown(id="lost", client_order_id=key(name), why="reset", token_expires_at=NOON))

    def execute(self) -> None:
        for execution in self.executions.values():
            most = len(execution.fills) - (0 if execution.finished else execution.late)
            execution.done = min(most, execution.done + self.draw(st.integers(0, 3)))

    def mention(self) -> None:
        """The user channel tells the order as it is, or as it was a while ago."""
        if execution := self.any_execution():
            self.tell(i.UserUpdate(id="user", order=execution.seen(self.moment(execution))))

    def answer(self) -> None:
        """The order from one moment, its fills from another, some missing, some twice, in any order."""
        if execution := self.any_execution():
            fills = self.some(list(execution.fills[: execution.done]))
            self.tell(*self.reply(execution, self.moment(execution), fills))

    def fail(self) -> None:
        if execution := self.any_execution():
            self.tell(i.AskFailed(id="failed", client_order_id=key(execution.name), why="503"))

    def reconcile(self) -> None:
        self.tell(self.listing(self.some([FOREIGN, *(f for e in self.executions.values() for f in e.fills[: e.done])])))

    def reconnect(self) -> None:
        self.tell(i.UserReconnected(id="reconnected"))

    def keep(self) -> None:
        self.snapshot = (len(self.story.ledger), self.story.core.dump())

    def restart(self) -> None:
        self.revive(self.story.ledger)

    def redeliver(self) -> None:
        """Both are told twice what they know, and risk starts again from its snapshot."""
        for fact in self.story.ledger[-12:]:
            assert self.story.core.on_message(fact, NOON) == []
            self.book(fact)
        self.risk = msgspec.json.decode(msgspec.json.encode(self.risk), type=State)

    # -- with what

    def any_execution(self) -> Execution | None:
        return self.draw(st.sampled_from(list(self.executions.values()))) if self.executions else None

    def moment(self, execution: Execution) -> int:
        back: int = self.draw(st.sampled_from([0, 0, 0, 1, 2]))
        return max(0, execution.done - back)

    def some(self, fills: list[i.VenueFill]) -> list[i.VenueFill]:
        shuffled: list[i.VenueFill] = self.draw(st.permutations(fills))
        missing = self.draw(st.sampled_from([0, 0, 1, 2, 4]))
        return shuffled[missing:] + shuffled[: self.draw(st.sampled_from([0, 0, 1, 9]))]

    # -- how it happens

    def tell(self, *messages: m.Message, mortal: bool = True) -> None:
        """Hand it to execution, which may die in the midst of writing what follows; then all of the ledger to risk."""
        for message in messages:
            durable = len(self.story.ledger) + isinstance(message, m.Verdict)
            self.story.tell(message)
            cut = durable + self.draw(CRASHES) if mortal else len(self.story.ledger)
            if cut < len(self.story.ledger):
                self.revive(self.story.ledger[:cut])
        for fact in self.story.ledger[self.told :]:
            self.book(fact)
        self.told = len(self.story.ledger)

    def revive(self, ledger: list[m.Message]) -> None:
        """A new process: snapshot and the ledger's tail, or the ledger alone."""
        usable = self.snapshot[0] <= len(ledger) and self.draw(st.booleans())
        position, raw = self.snapshot if usable else (0, b"")
        self.story = Story(start=False)
        if raw:
            self.story.core.restore(raw)
        for fact in ledger[position:]:
            self.story.core.on_message(fact, NOON)
        self.story.ledger = list(ledger)
        self.tell(m.Recovered(id="recovered"), mortal=False)

    def book(self, fact: m.Message) -> None:
        with localcontext(EXACT):  # as risk's core does
            if isinstance(fact, m.Verdict):
                self.risk.answer(fact)
            elif isinstance(fact, m.OrderEvent | m.Fill):
                self.risk.move(fact)

    def reply(self, execution: Execution, upto: int, fills: list[i.VenueFill]) -> list[m.Message]:
        """What the venue answers to the question that is out about the order, if there can be one."""
        order = self.story.core.state.orders.get(key(execution.name))
        told = execution.seen(upto)
        if order is None or order.terminal or order.status is None:
            return []
        if order.status is OrderStatus.SUBMITTING:
            return [i.Placed(id="placed", client_order_id=key(execution.name), venue_order_id=told.venue_order_id)]
        if order.status is OrderStatus.UNKNOWN:
            return [i.Found(id="found", client_order_id=key(execution.name), order=told)]
        name = key(execution.name)
        return [i.OrderSeen(id="seen", asked_at=NOON, client_order_id=name, order=told, fills=tuple(fills))]

    def listing(self, fills: list[i.VenueFill]) -> i.Reconciled:
        orders = tuple(execution.seen(execution.done) for execution in self.executions.values())
        return i.Reconciled(id="listing", listing=i.Listing(orders=orders, fills=tuple(fills)), until=NOON)

    # -- what must hold

    def check(self) -> None:
        """After every step: each fill counts once, and the books are the sum of the fills."""
        ids = [fill.id for fill in self.story.fills]
        assert len(ids) == len(set(ids))
        assert set(ids) <= {fill.entry_id for e in self.executions.values() for fill in e.fills[: e.done]}

        check_books(self.risk.books.holdings.get(PRODUCT, Holding()), self.story.fills)
        self.check_sales()

    def check_sales(self) -> None:
        """At no step may the sales under way exceed what was held when the last of them went out."""
        held, under_way = ZERO, dict[str, Decimal]()
        for fact in self.story.ledger:
            if isinstance(fact, m.Fill):
                held += fact.size if fact.side is Side.BUY else -fact.size
                if fact.client_order_id in under_way:
                    under_way[fact.client_order_id] -= fact.size
            elif isinstance(fact, m.OrderEvent) and fact.order.side is Side.SELL:
                if fact.status is OrderStatus.SUBMITTING:
                    under_way[fact.client_order_id] = fact.order.quantity
                    assert sum((max(ZERO, left) for left in under_way.values()), ZERO) <= held
                elif fact.status in m.TERMINAL:
                    under_way.pop(fact.client_order_id, None)

    def finish(self) -> None:
        """Everything happens, the venue answers truly, and the books are the venue's."""
        for _ in range(ROUNDS_MAX):
            for execution in self.executions.values():
                if not self.story.core.state.orders[key(execution.name)].terminal:
                    execution.done = max(execution.done, len(execution.fills) - execution.late)
                    told = list(execution.fills[: execution.done])
                    self.tell(*self.reply(execution, execution.done, told), mortal=False)
        for execution in self.executions.values():
            execution.done = len(execution.fills)
        every = [fill for execution in self.executions.values() for fill in execution.fills]
        self.tell(self.listing([FOREIGN, *every, *every]), mortal=False)  # as pages that overlap tell them
        assert all(order.terminal for order in self.story.core.state.orders.values())
        assert sorted(fill.id for fill in self.story.fills) == sorted(fill.entry_id for fill in every)
        with localcontext(EXACT):
            holding = self.risk.books.holdings.get(PRODUCT, Holding())
            assert holding.quantity == sum((signed(f) for f in every), ZERO)
            assert holding.cash == -sum((worth(f) + f.fee for f in every), ZERO)
            assert holding.fees == sum((f.fee for f in every), ZERO)
            assert self.risk.reserved() == 0
        assert self.story.core.state.positions.get(PRODUCT, ZERO) == holding.quantity
        for execution in self.executions.values():
            self.check_end(execution)

    def check_end(self, execution: Execution) -> None:
        """The last step of the order tells what the venue told, with or without the late fill: size, value and fees."""
        events = [f for f in self.story.ledger if isinstance(f, m.OrderEvent) and f.signal_id == execution.name]
        views = [execution.seen(len(execution.fills) - late) for late in {0, execution.late}]
        end = events[-1]
        assert (end.status, end.filled_qty, end.filled_value, end.fees) in [
            (told.status, told.filled_qty, told.filled_value, told.fees) for told in views
        ]


ACTIONS = (
    *(Desk.answer,) * 6,
    *(Desk.execute,) * 4,
    *(Desk.approve, Desk.approve, Desk.mention, Desk.reconcile) * 2,
    *(Desk.fail, Desk.reconnect, Desk.keep, Desk.restart, Desk.redeliver),
)


def signed(fill: i.VenueFill | m.Fill) -> Decimal:
    return fill.size if fill.side is Side.BUY else -fill.size


def worth(fill: i.VenueFill | m.Fill) -> Decimal:
    return fill.quote_value if fill.side is Side.BUY else -fill.quote_value


def check_books(holding: Holding, fills: list[m.Fill]) -> None:
    """Position, average price, fees and realised result against a reckoning in fractions, in the ledger's order."""
    quantity = cost = realized = Fraction(0)
    closings = 0
    for fill in fills:
        size, price, value = Fraction(signed(fill)), Fraction(fill.price), Fraction(worth(fill))
        closed = out = Fraction(0)
        if size * quantity < 0:
            closed = min(size, -quantity, key=abs)
            released = cost * -closed / quantity
            cost -= released
            out = value if closed == size else closed * price
            realized += -out - released
            closings += 1
        cost += value - out
        quantity += size
    with localcontext(EXACT):
        paid = sum((fill.fee for fill in fills), ZERO)
        assert holding.quantity == quantity
        assert holding.fees == paid
        assert holding.cash == -sum((worth(fill) for fill in fills), ZERO) - paid
        assert holding.realized - holding.fees - holding.cost == holding.cash
        assert abs(Fraction(holding.realized) - realized) <= closings * Fraction(ROUNDED)
        average = holding.position(None, None).avg_price
        if not quantity:
            assert average is None
            assert (holding.cost, holding.realized) == (ZERO, holding.cash + paid)
        else:
            assert average is not None
            allowed = Fraction(ROUNDED) * (1 + closings / abs(quantity))
            assert abs(Fraction(average) - cost / quantity) <= allowed


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(st.data())
def test_the_books_are_the_venue_s_fills_however_they_were_told(data: st.DataObject) -> None:
    desk = Desk(data.draw)
    desk.approve()
    for action in data.draw(st.lists(st.sampled_from(ACTIONS), min_size=12, max_size=45)):
        action(desk)
        desk.check()
    desk.finish()
    desk.check()


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_an_over_filled_sale_is_booked_and_shown_and_its_excess_is_not_sold_again(data: st.DataObject) -> None:
    """However the excess is told, what is held falls below zero once, and no further sale goes out."""
    desk = Desk(data.draw)
    buy = Execution(
        "s0", Side.BUY, Decimal(1), (fill("s0", 0, Side.BUY, Decimal(1), Decimal(100), Decimal(1)),), done=1
    )
    sizes = data.draw(st.lists(st.integers(1, 10**8).map(lambda units: units * UNIT), min_size=1, max_size=5))
    sizes.append(Decimal(1) + UNIT)  # alone more than was asked for
    fills = tuple(fill("s1", n, Side.SELL, size, data.draw(prices), data.draw(fees)) for n, size in enumerate(sizes))
    sale = Execution("s1", Side.SELL, Decimal(1), fills, done=len(fills))
    for execution in (buy, sale):
        name, every = execution.name, list(execution.fills)
        desk.executions[name] = execution
        desk.tell(verdict(name, execution.side, "1", reduce_only=execution is sale), mortal=False)
        desk.tell(i.Placed(id="placed", client_order_id=key(name), venue_order_id=f"venue-{name}"), mortal=False)
        for told in (desk.some(every), desk.some(every), every, every):
            desk.tell(*desk.reply(execution, execution.done, told), mortal=False)
        desk.check()
    assert desk.story.core.anomalies > 0
    assert desk.story.core.state.positions[PRODUCT] == 1 - sum(sizes) < 0
    for revived in (False, True):
        if revived:
            desk.restart()
        desk.tell(verdict(f"again-{revived}", Side.SELL, "1", reduce_only=True), mortal=False)
        assert desk.story.statuses[-1] is OrderStatus.DENIED
        assert desk.story.reasons[-1] == m.Reason.NOTHING_TO_REDUCE
    desk.finish()
