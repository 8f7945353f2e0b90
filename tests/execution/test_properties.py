"""Whatever risk approves, in whatever order things happen: the sales that have left never exceed what is held."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from tests.execution.story import Story, key, placed, seen, verdict
from tests.execution.tellings import SELL, adjustment, replace, sale, sale_edit

EXAMPLES = int(os.environ.get("PERPS_FUZZ_EXAMPLES", "100"))
ZERO = Decimal(0)
TENTH = Decimal("0.1")
KINDS = ("buy", "sell", "sell", "sell", "fill", "fill", "end", "edit", "edit", "answer", "hand_over", "restart")
Step = tuple[str, int, int]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(1, 30)), min_size=8, max_size=40)


class Sale(Struct):
    """A sale that has left; while an edit is under way the venue may have either quantity."""

    name: str
    quantity: Decimal
    filled: Decimal = ZERO
    edit_id: str = ""
    wanted: Decimal = ZERO

    @property
    def left(self) -> Decimal:
        return max(self.quantity, self.wanted) - self.filled


class Venue:
    """Takes what execution sends, and counts it; risk approves sales of any size, as if it had lost its mind."""

    def __init__(self) -> None:
        self.story = Story()
        self.held = ZERO
        self.open: dict[str, Sale] = {}
        self.count = 0

    def step(self, step: Step) -> None:
        kind, which, size = step
        self.count += 1
        handler: Callable[[int, Decimal], None] = getattr(self, f"_{kind}")
        handler(which, size * TENTH)
        for said in self.story.said:
            if isinstance(said, i.Place) and said.order.side is SELL:
                name = self.names[said.order.client_order_id]
                self.open[name] = Sale(name, said.order.quantity)
            elif isinstance(said, i.Edit):
                sent = self.open[self.names[said.wanted.client_order_id]]
                sent.edit_id, sent.wanted = said.edit_id, said.wanted.quantity
        self.story.said = [said for said in self.story.said if not isinstance(said, i.Place | i.Edit)]

    @property
    def names(self) -> dict[str, str]:
        return {key(f"s{number}"): f"s{number}" for number in range(self.count + 1)}

    @property
    def selling(self) -> Decimal:
        return sum((sent.left for sent in self.open.values()), ZERO)

    def _buy(self, which: int, size: Decimal) -> None:
        name = f"s{self.count}"
        self.held += size
        filled = seen(name, filled=str(size), fills=((f"e-{name}", "100", str(size)),))
        self.story.tell(verdict(name, quantity=str(size)), placed(name), filled)

    def _sell(self, which: int, size: Decimal) -> None:
        self.story.tell(sale(f"s{self.count}", str(size), gtc=which > 2))

    def _hand_over(self, which: int, size: Decimal) -> None:
        """Coins become the bot's, or go back as far as they are free."""
        moved = size if which % 2 else -min(size, self.held - self.selling)
        if moved:
            self.held += moved
            self.story.tell(adjustment(f"a{self.count}", str(moved)))

    def _some(self, which: int) -> Sale | None:
        return list(self.open.values())[which % len(self.open)] if self.open else None

    def _answer(self, which: int, size: Decimal) -> None:
        if sent := self._some(which):
            self.story.tell(placed(sent.name), self._told(sent, S.ACCEPTED))

    def _fill(self, which: int, size: Decimal) -> None:
        sent = self._some(which)
        part = min(size, sent.quantity - sent.filled) if sent else ZERO
        if sent and part > 0:
            sent.filled += part
            self.held -= part
            self.story.tell(placed(sent.name), self._told(sent, S.ACCEPTED, (f"e{self.count}", "100", str(part))))

    def _end(self, which: int, size: Decimal) -> None:
        """Canceled, or what was sent never came to be an order."""
        if sent := self._some(which):
            del self.open[sent.name]
            self.story.tell(placed(sent.name), self._told(sent, S.CANCELED))

    def _edit(self, which: int, size: Decimal) -> None:
        """Risk approves one, or the venue answers."""
        sent = self._some(which)
        if sent is None:
            return
        if not sent.edit_id:
            self.story.tell(replace(sale_edit(sent.name, str(size)), signal_id=f"edit{self.count}"))
            return
        edit_id, wanted = sent.edit_id, sent.wanted
        taken = which % 2 == 0 and wanted > sent.filled
        sent.quantity, sent.wanted, sent.edit_id = (wanted if taken else sent.quantity), ZERO, ""
        answer: i.Edited | i.EditRefused = i.Edited(id="x", client_order_id=key(sent.name), edit_id=edit_id)
        if not taken:
            answer = i.EditRefused(id="x", client_order_id=key(sent.name), edit_id=edit_id, reason="no")
        self.story.tell(answer)

    def _restart(self, which: int, size: Decimal) -> None:
        self.story = self.story.restart()

    def _told(self, sent: Sale, status: S, *fills: tuple[str, str, str]) -> i.OrderSeen:
        return seen(sent.name, status, str(sent.filled), fills, SELL, (str(sent.quantity), "100"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(STEPS)
def test_the_sales_that_have_left_never_exceed_what_is_held(taken: list[Step]) -> None:
    venue = Venue()
    for step in taken:
        venue.step(step)
        assert ZERO <= venue.selling <= venue.held
        assert venue.story.core.state.positions.get("BTC-USD", ZERO) == venue.held
