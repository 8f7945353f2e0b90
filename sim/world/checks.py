"""The ten rules of the design, asked of everything that becomes durable, leaves a process or happens at the venue.

Nothing else can break them, so that asking there is asking after every step. The first break is kept in `broken`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from msgspec import Struct

from libs.common import messages as m
from services.risk.config import RiskConfig
from sim import orders as venue
from sim.events import Event, FillMade, OrderChanged
from sim.world.facts import ZERO, Facts, OrderFacts, currencies

RULES = {
    1: "no order without an approval",
    2: "unknown stays unknown",
    3: "every fill counts once",
    4: "a halt holds",
    5: "old data does not trade",
    6: "reduce-only reduces",
    7: "daily loss stops trading",
    8: "missing is not zero",
    9: "starting after a crash is the ordinary start",
    10: "guards fail closed",
}
LIVENESS, DEFECT = "everything settles", "no process ends by a defect"
# Between the last look at the stored trading state and the request: a bus hop; with the bus away the life of the lease.
HALT_GRACE_SECONDS = 0.3
HALT_GRACE_DISTURBED_SECONDS = 4.5
FRAME_GRACE_SECONDS = 2.5
DRIFT_GRACE_SECONDS = 60.0
UNSEEN_MAX = 15  # messages of the ledger that risk may not have handled when it decides
PRICE_TOLERANCE = Decimal("0.03")  # prices move between a decision and its durable message
ROUNDING = Decimal("1E-8")
STRICTNESS = (m.Trading.ACTIVE, m.Trading.REDUCING, m.Trading.HALTED)


class Broken(Exception):
    """A rule was broken: which, and by what."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(f"{rule}: {what}")
        self.rule = rule
        self.what = what


NEVER = float("-inf")
RESUME_SECONDS = 12.0  # that a request may take: as long as the server believes in a dead connection


class Surroundings(Struct):
    """What the checks are told by the world, beside the facts. Times in virtual seconds."""

    now: float = 0.0
    wall: datetime = m.EPOCH  # the true time
    frame_at: float = 0.0  # when a frame of the venue last reached marketdata
    disturbed_until: float = 0.0  # the bus or the processes were tampered with up to then
    venue_until: float = 0.0  # the venue, or the way to it, was tampered with up to then
    clocks_until: float = 0.0  # wall clocks differed up to then
    resume_asked: float = NEVER  # an operator's resume that nobody has answered was sent then
    execution_until: float = 0.0  # the bus, or execution, was tampered with up to then
    execution_clock: timedelta = timedelta()  # by how much the acting execution's wall clock is ahead
    by_hand_since: float | None = None  # when money was first moved by hand that nobody has classified


class Checks:
    def __init__(self, facts: Facts, config: RiskConfig, around: Surroundings) -> None:
        self.broken: Broken | None = None
        self.facts = facts
        self.around = around
        self._config = config
        self._attempts: dict[tuple[str, str, str], dict[int, str]] = {}  # signal ids of exits by their attempt
        self._approvals: list[datetime] = []

    def fail(self, rule: int | str, what: str) -> None:
        name = f"rule {rule}, {RULES[rule]}" if isinstance(rule, int) else rule
        self.broken = self.broken or Broken(name, what)

    def require(self, holds: bool, rule: int | str, what: str) -> None:
        if not holds:
            self.fail(rule, what)

    # -- the ledger

    def on_ledger(self, sequence: int, message: m.Message) -> None:
        """A message became durable. The facts know it only afterwards."""
        match message:
            case m.Verdict():
                self._verdict(message)
            case m.OrderEvent():
                self._order_event(message)
            case m.Fill():
                self._fill(message)
        self.facts.take(sequence, message)

    def _verdict(self, verdict: m.Verdict) -> None:
        facts, approved = self.facts, verdict.order
        self.require(verdict.signal_id not in facts.answered, 1, f"signal {verdict.signal_id} is answered twice")
        if approved is None:
            return
        key = approved.client_order_id
        if verdict.edits:
            self.require(key in facts.orders, 1, f"an edit of {key}, which was never approved")
        else:
            derived = m.client_order_id(verdict.signal_id)
            self.require(key == derived, 1, f"order {key} does not follow from its signal, {derived} does")
            self._order_rate(verdict)
        self._state_allows(verdict, approved)
        if not approved.flatten:
            self._fresh(verdict)
        if approved.reduce_only:
            self._reduces(verdict, approved)
        if approved.side is m.Side.BUY:
            self._within_limits(verdict, approved)
            self._explained(verdict)

    def _explained(self, verdict: m.Verdict) -> None:
        """A change of the account that nobody has explained means reduce-only, once it can be seen."""
        since, around = self.around.by_hand_since, self.around
        seen = since is not None and around.now - since > DRIFT_GRACE_SECONDS and around.now > around.disturbed_until
        self.require(not seen, 3, f"{verdict.id} was approved with money moved by hand that nobody explained")

    def _state_allows(self, verdict: m.Verdict, approved: m.ApprovedOrder) -> None:
        state = self._revision(verdict.trading_revision)
        if state is not None:
            why = f"{approved.client_order_id} was approved under revision {state.revision}, which is {state.state}"
            self.require(_allowed(state, approved), 4, why)

    def _revision(self, revision: int) -> m.TradingState | None:
        found = (state for _, state in self.facts.trading if state is not None and state.revision == revision)
        return next(found, None)

    def _order_rate(self, verdict: m.Verdict) -> None:
        if verdict.order is None or verdict.order.reduce_only:
            self._approvals.append(verdict.at)
            return
        recent = [at for at in self._approvals if verdict.at - timedelta(minutes=1) < at <= verdict.at]
        quiet = self.around.now > self.around.clocks_until + 60
        limit = self._config.orders_per_minute_max
        self.require(len(recent) < limit or not quiet, 10, f"{len(recent) + 1} approvals within a minute, of {limit}")
        self._approvals.append(verdict.at)

    def _fresh(self, verdict: m.Verdict) -> None:
        silent = self.around.now - self.around.frame_at
        limit = self._config.mark_age_max_seconds + FRAME_GRACE_SECONDS
        if self.around.now > self.around.clocks_until:
            self.require(silent <= limit, 5, f"{verdict.id} was approved {silent:.1f} s after the venue's last frame")

    def _reduces(self, verdict: m.Verdict, approved: m.ApprovedOrder) -> None:
        """Risk knows at least what it was told before: what it approves is never more than was held at some time
        since the last fills that it may not have seen."""
        held = self.facts.most_held(approved.product_id, self.facts.last_sequence - UNSEEN_MAX)
        self.require(approved.side is m.Side.SELL, 6, f"{approved.client_order_id} is a reduce-only buy")
        # The quantity of an edited order is its total, with what of it is sold already.
        left = approved.quantity - self.facts.order(approved.client_order_id).filled
        why = f"{approved.client_order_id} sells {left} of {held} {approved.product_id}"
        self.require(left <= held, 6, why)

    def _within_limits(self, verdict: m.Verdict, approved: m.ApprovedOrder) -> None:
        """What is held and what is reserved, this one included, against the limits."""
        product, config = approved.product_id, self._config
        prices = {name: min(mids) for name in self.facts.marks if (mids := self.facts.mids(name))}
        self.require(product in prices, 10, f"{verdict.id} was approved without any mark of {product}")
        self.require(self.facts.account_told, 10, f"{verdict.id} was approved before any balance was told")
        held = {name: size * prices.get(name, ZERO) for name, size in self.facts.position.items()}
        reserved: dict[str, Decimal] = {product: self._reserved_by(verdict)}
        for order in self.facts.open_orders():
            other = order.approved
            if other is None or other.side is not m.Side.BUY or other.client_order_id == approved.client_order_id:
                continue
            reserved[other.product_id] = reserved.get(other.product_id, ZERO) + order.left
        value = approved.quote_size or approved.quantity * prices.get(product, ZERO)
        why = f"{verdict.id} is worth {value:.2f}"
        self.require(value * (1 - PRICE_TOLERANCE) <= config.order_notional_max, 10, why)
        one = (held.get(product, ZERO) + reserved[product]) * (1 - PRICE_TOLERANCE)
        all_of_them = (sum(held.values(), ZERO) + sum(reserved.values(), ZERO)) * (1 - PRICE_TOLERANCE)
        limit = config.position_limit(product)
        self.require(one <= limit, 10, f"{verdict.id} takes {product} to {one:.2f}, of {limit}")
        self.require(all_of_them <= config.exposure_max, 10, f"{verdict.id} takes exposure to {all_of_them:.2f}")
        loss = self.facts.least_loss()
        if loss is not None:
            why = f"{verdict.id} opens a position at a daily loss of {loss:.2f}"
            self.require(loss * (1 - PRICE_TOLERANCE) < config.daily_loss_limit, 7, why)

    def _reserved_by(self, verdict: m.Verdict) -> Decimal:
        """An order that is edited may have been filled in part, and only the rest is still reserved."""
        if not verdict.edits or verdict.order is None:
            return verdict.reserved
        order = self.facts.order(verdict.order.client_order_id)
        left = max(ZERO, verdict.order.quantity - order.filled)
        return verdict.reserved * left / verdict.order.quantity

    def _order_event(self, event: m.OrderEvent) -> None:
        order = self.facts.order(event.client_order_id)
        key = event.client_order_id
        self.require(order.verdict is not None, 1, f"{key} has an event and no approval")
        self.require(not order.terminal, 2, f"{key} is {event.status} after it was {order.status}")
        self.require(
            event.revision == len(order.events) + 1, 9, f"{key}: step {event.revision} follows {len(order.events)}"
        )
        if event.edit_id and event.status is not m.OrderStatus.PENDING_UPDATE:
            self._edit_ended(event, order)
        if event.status not in m.TERMINAL:
            return
        at_venue = list(order.venue.values())
        for known in at_venue:
            self.require(known.ended, 2, f"{key} is {event.status}, while the venue still has it {known.status}")
        if at_venue:
            filled = sum((known.filled_size for known in at_venue), ZERO)
            self.require(
                filled == event.filled_qty, 2, f"{key} ends with {event.filled_qty}, the venue filled {filled}"
            )

    def _edit_ended(self, event: m.OrderEvent, order: OrderFacts) -> None:
        """The order is what the venue has of it, taken or refused."""
        for known in order.venue.values():
            told, true = (event.order.quantity, event.order.limit_price), (known.base_size, known.limit_price)
            why = f"{event.client_order_id} is {told} after its edit ({event.reason}), at the venue {true}"
            self.require(told == true or known.ended, 2, why)

    def _fill(self, fill: m.Fill) -> None:
        made = self.facts.venue_fills.get(fill.id)
        self.require(fill.id not in self.facts.fills, 3, f"fill {fill.id[:12]} is in the ledger twice")
        if made is None:
            self.fail(3, f"fill {fill.id[:12]} never happened at the venue")
            return
        told = (fill.client_order_id, str(fill.side), fill.size, fill.price)
        true = (made.client_order_id, str(made.side), made.size, made.price)
        self.require(told == true, 3, f"fill {fill.id[:12]} is {told} in the ledger and {true} at the venue")
        self.require(abs(fill.fee - made.fee) <= ROUNDING, 3, f"fee of {fill.id[:12]}: {fill.fee}, not {made.fee}")

    # -- the trading state

    def on_trading(self, state: m.TradingState | None) -> None:
        """The stored trading state changed; None: it is gone, or unreadable."""
        before = self.facts.trading[-1][1] if self.facts.trading else None
        strict = m.Trading.HALTED if self.facts.trading and before is None else before.state if before else None
        if state is not None and strict is m.Trading.HALTED and state.state is not m.Trading.HALTED:
            why = (
                f"revision {state.revision} is {state.state} ({state.who}: {state.reason}), and nobody asked to resume"
            )
            self.require(self._may_resume, 4, why)
        if state is not None and strict is not None and STRICTNESS.index(state.state) < STRICTNESS.index(strict):
            self.around.resume_asked = NEVER
        self.facts.trading.append((self.around.now, state))

    @property
    def _may_resume(self) -> bool:
        return self.around.now - self.around.resume_asked <= RESUME_SECONDS

    def on_announced(self, state: m.TradingState) -> None:
        stored = {known.revision: known.state for _, known in self.facts.trading if known is not None}
        why = f"{state.state} was announced as revision {state.revision}, stored is {stored.get(state.revision)}"
        self.require(stored.get(state.revision) is state.state, 4, why)

    def on_answered(self, command: str) -> None:
        """An operator was told that a command is done."""
        wanted = {"halt": m.Trading.HALTED, "reduce-only": m.Trading.REDUCING, "flatten": m.Trading.REDUCING}.get(
            command
        )
        state = self.facts.trading[-1][1] if self.facts.trading else None
        if wanted is None or state is None or self._may_resume:
            return
        strict = STRICTNESS.index(state.state) >= STRICTNESS.index(wanted)
        self.require(strict, 4, f"{command} was answered as done, while {state.state} is stored")

    # -- execution and the venue

    def on_sent(self, client_order_id: str, expires_at: datetime | None) -> None:
        """A request for a new order leaves execution."""
        order = self.facts.order(client_order_id)
        if order.verdict is None or order.approved is None:
            self.fail(1, f"order {client_order_id} was sent and never approved")
            return
        self.require(order.acted == 0, 2, f"{client_order_id} was sent again after the venue had taken it")
        self.require(order.status is m.OrderStatus.SUBMITTING, 2, f"{client_order_id} was sent while {order.status}")
        order.sent += 1
        now = self.around.wall + self.around.execution_clock
        late = (now - order.verdict.expires_at).total_seconds()
        self.require(late <= 0.01, 5, f"{client_order_id} was sent {late:.2f} s after its approval had expired")
        disturbed = self.around.now <= self.around.execution_until
        grace = HALT_GRACE_DISTURBED_SECONDS if disturbed else HALT_GRACE_SECONDS
        states = self.facts.trading_since(self.around.now - grace)
        allowed = any(state is not None and _allowed(state, order.approved) for state in states)
        self.require(allowed, 4, f"{client_order_id} was sent while trading was {_told(states)}")
        revision = order.verdict.trading_revision
        in_force = any(state is not None and state.revision == revision for state in states)
        why = f"{client_order_id} was approved under revision {revision} and sent under {_told(states)}"
        self.require(in_force, 4, why)

    def on_acted(self, client_order_id: str) -> None:
        self.facts.order(client_order_id).acted += 1

    def on_venue(self, event: Event) -> None:
        match event:
            case OrderChanged(order):
                self._venue_order(order)
            case FillMade(fill):
                self.facts.venue_fills[fill.entry_id] = fill

    def _venue_order(self, told: venue.Order) -> None:
        order = self.facts.order(told.client_order_id)
        new = told.order_id not in order.venue
        order.venue[told.order_id] = told
        if not new:
            return
        key = told.client_order_id
        self.require(len(order.venue) == 1, 1, f"{key} is {len(order.venue)} orders at the venue")
        if order.approved is None:
            self.fail(1, f"the venue has {key}, which was never approved")
            return
        self.require(not order.terminal, 2, f"the venue takes {key} after it was {order.status}")
        self.require(str(told.side) == str(order.approved.side), 1, f"{key} is a {told.side} at the venue")
        size = told.base_size or ZERO
        self.require(size <= order.most, 1, f"{key} has {size} at the venue, approved are {order.most}")
        if order.approved.reduce_only:
            self.require(str(told.side) != m.Side.BUY, 6, f"{key} is reduce-only and buys")

    def on_balances(self, totals: dict[str, Decimal], by_hand: dict[str, Decimal]) -> None:
        """The venue's totals after a change: the bot sells nothing that it did not buy."""
        for product_id in self.facts.marks:
            base, _ = currencies(product_id)
            bought = totals.get(base, ZERO) - self.facts.opening.get(base, ZERO) - by_hand.get(base, ZERO)
            self.require(bought >= 0, 6, f"{-bought} {base} more were sold than bought")

    def on_signal(self, signal: m.Signal) -> None:
        """The next attempt of an exit is made only after the one before has come to a durable end."""
        attempts = self._attempts.setdefault((signal.product_id, signal.trigger, str(signal.side)), {})
        known = attempts.setdefault(signal.attempt, signal.id)
        self.require(known == signal.id, 1, f"attempt {signal.attempt} at {signal.trigger} has two ids")
        before = attempts.get(signal.attempt - 1)
        if before is not None:
            verdict = self.facts.answered.get(before)
            order = self.facts.orders.get(m.client_order_id(before))
            over = verdict is not None and (verdict.order is None or (order is not None and order.terminal))
            self.require(over, 1, f"attempt {signal.attempt} at {signal.trigger}, while the one before is not over")


def _allowed(state: m.TradingState, order: m.ApprovedOrder) -> bool:
    if order.flatten:
        return bool(state.flatten)
    if state.state is m.Trading.REDUCING:
        return order.reduce_only
    return state.state is m.Trading.ACTIVE


def _told(states: list[m.TradingState | None]) -> str:
    return ", ".join(f"{s.state} (revision {s.revision})" if s else "lost" for s in states)


def readable(raw: bytes, revision: int) -> m.TradingState | None:
    """A stored trading state, read without the services' own reader."""
    try:
        return msgspec.structs.replace(msgspec.json.decode(raw, type=m.TradingState), revision=revision)
    except msgspec.DecodeError:
        return None
