"""A player of risk's whole world: strategy, operator, venue, market, clock and crashes, in any order."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.messages import AdjustmentKind, AdjustmentRequest, OrderStatus, OrderType, Side, TimeInForce
from services.risk.adjust import AdjustmentAsked
from services.risk.trading import STRICTNESS, Action
from tests.risk.builders import PRODUCTS, SECOND, D, command, edit, feed, fill, mark, requested, signal
from tests.risk.counterparty import BASES, LOT, ZERO, Counterparty

Step = tuple[str, int, int]
ASKED = ("buy", "buy", "sell", "order", "order", "order", "exit", "edit", "edit")
TRADED = ("fill", "fill", "fill", "fill", "status", "end", "end")
PASSED = ("pass", "pass", "night", "again", "account")
OPERATED = ("command", "command", "adjust", "adjust", "pay", "pay")
BROKEN = ("restart", "rebuild", "feed", "silence", "mark", "elsewhere")
ANYTHING = ASKED * 2 + TRADED * 2 + PASSED + OPERATED + BROKEN
TURNS: dict[OrderStatus | None, tuple[OrderStatus, ...]] = {
    None: (OrderStatus.SUBMITTING,),
    OrderStatus.SUBMITTING: (OrderStatus.ACCEPTED, OrderStatus.UNKNOWN),
    OrderStatus.UNKNOWN: (OrderStatus.ACCEPTED,),
}
ENDS = (OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REJECTED, OrderStatus.DENIED)


def steps(*kinds: str, least: int = 10, most: int = 45) -> st.SearchStrategy[list[Step]]:
    step = st.tuples(st.sampled_from(kinds), st.integers(0, 9), st.integers(1, 40))
    return st.lists(step, min_size=least, max_size=most)


def played(most: int = 100) -> settings:
    """How often; the machine that runs it may be busy."""
    return settings(max_examples=int(os.environ.get("PERPS_FUZZ_EXAMPLES", most)), deadline=None)


class Play(Counterparty):
    """Takes steps."""

    def begin(self, quantity: str = "2") -> Play:
        """With a position in each product, of orders long done."""
        for product_id in PRODUCTS:
            self.held[product_id] += D(quantity)
            self.books[BASES[product_id]] += D(quantity)
            self.books["USD"] -= 100 * D(quantity)
            self.tell(fill(f"before-{product_id}", size=quantity, at=self.desk.now, product_id=product_id))
        self.pass_time(1)
        self.poll()
        return self

    def step(self, step: Step) -> list[m.Message]:
        """Everything that came of it."""
        kind, which, size = step
        self.count += 1
        self.desk.now += timedelta(milliseconds=1)  # nothing happens at one moment with something else
        handler: Callable[[int, int], list[m.Message]] = getattr(self, f"_{kind}")
        found = handler(which, size)
        return found if self.lazy and size % 3 == 0 else found + self.settle()

    # -- asking

    def _ask(self, wanted: m.Signal, operator: bool) -> list[m.Message]:
        before = set(self.orders)
        found = self.tell(requested(wanted, self.desk.now) if operator else wanted)
        for key in self.orders.keys() - before:
            if self.orders[key].order.time_in_force is TimeInForce.GTC:
                found += self.event(self.orders[key], OrderStatus.ACCEPTED)
        return found

    def _entry(self, which: int, size: int, operator: bool) -> list[m.Message]:
        gtc: dict[str, object] = {"time_in_force": TimeInForce.GTC}
        kinds: list[dict[str, object]] = [
            {},
            gtc,
            {**gtc, "limit_price": D(95)},
            {"order_type": OrderType.MARKET, "limit_price": None},
            {"order_type": OrderType.MARKET, "limit_price": None, "quote_size": D(size) * 8, "quantity": "0"},
        ]
        fields: dict[str, object] = {"quantity": str(D(size) / 14)} | kinds[which // 2]
        return self._ask(self._signal(Side.BUY, which, **fields), operator)

    def _leave(self, which: int, size: int, operator: bool) -> list[m.Message]:
        gtc: dict[str, object] = {"time_in_force": TimeInForce.GTC}
        kinds: list[dict[str, object]] = [
            {"order_type": OrderType.MARKET, "limit_price": None},
            {"order_type": OrderType.MARKET, "limit_price": None},
            {**gtc, "limit_price": D(101)},
            {**gtc, "order_type": OrderType.STOP_LIMIT, "stop_price": D(60), "limit_price": D("59.9")},
            {**gtc, "order_type": OrderType.BRACKET, "stop_price": D(60), "limit_price": D(130)},
        ]
        # A strategy that would like to pass for the operator's closing.
        names = {"strategy": "operator", "reason": "flatten", "trigger": self.stored.flatten or "flatten"}
        fields = {"quantity": str(D(size) / 5)} | kinds[which // 2] | names
        return self._ask(self._signal(Side.SELL, which, **fields), operator)

    def _signal(self, side: Side, which: int, **fields: object) -> m.Signal:
        now = self.desk.now
        plain = {"product_id": PRODUCTS[which % 2], "at": now, "expires_at": now + 5 * SECOND}
        return signal(f"s{self.count}", side, **(plain | fields))  # type: ignore[arg-type]

    def _buy(self, which: int, size: int) -> list[m.Message]:
        return self._entry(which, size, operator=False)

    def _order(self, which: int, size: int) -> list[m.Message]:
        return self._entry(which, size, operator=True)

    def _sell(self, which: int, size: int) -> list[m.Message]:
        return self._leave(which, size, operator=False)

    def _exit(self, which: int, size: int) -> list[m.Message]:
        return self._leave(which, size, operator=True)

    def _rest(self, which: int, size: int) -> list[m.Message]:
        """A buy or a sale that stays in the book, for an operator."""
        side = Side.SELL if which > 5 else Side.BUY
        price = D(101) if side is Side.SELL else D(100 - which % 3)
        quantity = str(D(size) / (5 if side is Side.SELL else 14))
        gtc = TimeInForce.GTC
        wanted = self._signal(side, which, quantity=quantity, limit_price=price, time_in_force=gtc)
        return self._ask(wanted, operator=True)

    def _edit(self, which: int, size: int) -> list[m.Message]:
        """Begin an edit of a resting order, or end the one that is under way."""
        resting = [o for o in self.open() if o.editable]
        if not resting:
            return []
        sent = resting[which % len(resting)]
        if sent.edit is not None:
            return self.event(sent, OrderStatus.ACCEPTED, edit_id=sent.settle_edit(size % 2 == 0)) if which % 2 else []
        price = ("95", "100", "100.5")[size % 3] if sent.buys else ("100", "101", "105")[size % 3]
        wanted = edit(
            sent.verdict,
            str(D(size) / (14 if sent.buys else 8)),
            price,
            f"s{self.count}",
            at=self.desk.now,
            expires_at=self.desk.now + 5 * SECOND,
        )
        found = self.tell(requested(wanted, self.desk.now) if which % 2 else wanted)
        return found + (self.event(sent, OrderStatus.PENDING_UPDATE) if sent.edit and size % 5 else [])

    # -- the venue

    def _status(self, which: int, size: int) -> list[m.Message]:
        fresh = [o for o in self.open() if not o.ended and o.status in TURNS]
        if not fresh:
            return []
        sent = fresh[which % len(fresh)]
        if sent.status is None and not sent.buys and size % 2:
            # Execution clamps a sale once more.
            less = max(LOT, sent.order.quantity - D(size) / 10)
            sent.order = msgspec.structs.replace(sent.order, quantity=min(less, sent.order.quantity))
        turns = TURNS[sent.status]
        return self.event(sent, turns[which % len(turns)])

    def _fill(self, which: int, size: int) -> list[m.Message]:
        late = [o for o in self.open() if o.late]
        if late:
            return self.book(late[0], late[0].late, which)
        going = [o for o in self.open() if not o.ended and self.fillable(o)]
        if not going:
            return []
        sent = going[which % len(going)]
        return self.book(sent, min(self.fillable(sent), D(size) / 20), which)

    def _end(self, which: int, size: int) -> list[m.Message]:
        going = [o for o in self.open() if not o.ended]
        if not going:
            return []
        sent = going[which % len(going)]
        late = min(self.fillable(sent), D(size) / 20) if size % 4 == 0 else ZERO
        return self.end(sent, ENDS[which % 4 if not sent.filled + late else which % 2], late=late)

    # -- the market and the clock

    def _pass(self, which: int, size: int) -> list[m.Message]:
        return self.pass_time(size) + (self.poll() if which % 2 else [])

    def _silence(self, which: int, size: int) -> list[m.Message]:
        return self.pass_time(size, silent=True) + (self.quote(*PRODUCTS) if which % 4 else [])

    def _night(self, which: int, size: int) -> list[m.Message]:
        """Shortly before midnight, or over it."""
        now = self.desk.now
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        then = max(midnight + timedelta(seconds=2 * size - 30), now)
        return self.pass_time((then - now).total_seconds(), silent=which == 9) + self.poll()

    def _mark(self, which: int, size: int) -> list[m.Message]:
        """A price moves; where facts may be late, it was a while ago."""
        product_id, now = PRODUCTS[which % 2], self.desk.now
        if self.moving:
            self.prices[product_id] = D(80 + size)
        at = now - which * SECOND if self.late else now
        return self.tell(mark(product_id, str(self.prices[product_id]), at))

    def _feed(self, which: int, size: int) -> list[m.Message]:
        state = m.Feed.LIVE if size % 4 else m.Feed.GAP
        return self.tell(feed(PRODUCTS[which % 2], state))

    def _again(self, which: int, size: int) -> list[m.Message]:
        """The bus delivers something a second time."""
        ledger, known = self.desk.ledger, self.desk.core.known
        again = [self.stored, *known.marks.values(), *known.feeds.values(), *ledger[-which - 1 :]]
        return self.tell_again(again[size % len(again)])

    # -- the operator, and another risk process

    def _command(self, which: int, size: int) -> list[m.Message]:
        """Out of what is in force, more often than into something else."""
        action = list(Action)[which % 4]
        if which > 3 and self.stored.state is not m.Trading.ACTIVE:
            action = Action.RESUME
        return self.tell(command(action, "" if size == 40 else "because", f"c{self.count}", self.desk.now))

    def _elsewhere(self, which: int, size: int) -> list[m.Message]:
        """Another risk process was faster, or the stored state is lost. It never ends a halt either."""
        if which == 0:
            self.stored = m.TradingState(
                id="lost",
                at=self.desk.now,
                state=m.Trading.HALTED,
                reason="lost",
                who="fail closed",
                since=self.desk.now,
            )
            return self.tell(self.stored)
        if which > 4:
            return []
        wanted = max(self.stored.state, STRICTNESS[1 + which % 2], key=STRICTNESS.index)
        flatten = self.stored.flatten or (f"elsewhere-{self.count}" if size % 2 else "")
        return self.store(
            msgspec.structs.replace(
                self.stored, id=f"e{self.count}", cause="", state=wanted, reason="guard", who="risk", flatten=flatten
            )
        )

    def _account(self, which: int, size: int) -> list[m.Message]:
        return self.poll()

    def _pay(self, which: int, size: int) -> list[m.Message]:
        """The account changes without an order of ours: money or coins, in or out."""
        product_id, amount = PRODUCTS[which % 2], D(size) / 10
        base = BASES[product_id]
        cash = max(ZERO, self.venue("USD") - self.promised())
        coins = max(ZERO, self.venue(base) - self.selling(product_id))
        moves: list[dict[str, Decimal]] = [
            {"USD": D(size)},
            {"USD": -min(cash, D(size))},
            {base: amount},
            {base: -min(coins, amount)},
        ]
        return self._moved(moves[size % 4], poll=which % 5 > 0)

    def _trade(self, which: int, size: int) -> list[m.Message]:
        """Somebody trades by hand what is not on hold, and says so."""
        product_id, amount = PRODUCTS[which % 2], D(size) / 10
        base, price = BASES[product_id], self.prices[product_id]
        coins = min(amount, max(ZERO, self.venue(base) - self.selling(product_id)))
        buys = size % 2 == 0 and amount * price <= self.venue("USD") - self.promised()
        traded, paid = (amount, -amount * price) if buys else (-coins, coins * price * D("0.99"))
        found = self._moved({base: traded, "USD": paid}, poll=True)
        return found + self._explain(kind=AdjustmentKind.MANUAL_TRADE, product_id=product_id)

    def _moved(self, amounts: dict[str, Decimal], poll: bool) -> list[m.Message]:
        for currency, amount in amounts.items():
            self.outside[currency] += amount
        return self.poll() if poll else []

    def _adjust(self, which: int, size: int) -> list[m.Message]:
        """The operator explains the account, or hands coins over, or takes them back."""
        product_id = PRODUCTS[which % 2]
        base = BASES[product_id]
        drifting = [c for c in (base, "USD") if self.outside[c]]
        currency = drifting[size % len(drifting)] if drifting else "USD"
        payment = AdjustmentKind.WITHDRAWAL if self.outside[currency] < 0 else AdjustmentKind.DEPOSIT
        fields: dict[str, object] = {"kind": payment, "currency": currency}
        if not drifting or which == 9:
            quantity = (-1 if size % 4 > 1 else 1) * D(size) / 16
            fields = {"kind": AdjustmentKind.HANDOVER, "product_id": product_id, "quantity": quantity}
        elif which > 5:
            fields["quantity"] = abs(self.outside[currency]) / 2
        return self._explain(**fields)

    def _explain(self, **fields: object) -> list[m.Message]:
        request = AdjustmentRequest(request_id=f"r{self.count}", **fields)  # type: ignore[arg-type]
        asked = AdjustmentAsked(id=f"a{self.count}", at=self.desk.now, request=request, reason="because", who="ann")
        return self.tell(asked)

    # -- crashes

    def _restart(self, which: int, size: int) -> list[m.Message]:
        return self.crash(which)

    def crash(self, again_seconds: float) -> list[m.Message]:
        """A new process with the last snapshot; what was written in the last seconds comes once more."""
        recent = [n for n, fact in enumerate(self.desk.ledger) if fact.at > self.desk.now - again_seconds * SECOND]
        return self.restart(self.desk.core.dump(), recent[0] if recent else len(self.desk.ledger))

    def _rebuild(self, which: int, size: int) -> list[m.Message]:
        """From the ledger alone. The account is read again: the books cannot be compared with what was read before."""
        return self.restart(None, 0) + self.poll()
