"""What could be wrong in risk: reservations, limits, the trading state, the books."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from libs.common import messages as m
from libs.common import shell
from libs.common.bus import Entry
from libs.common.subjects import STATE_BUCKET, TRADING_KEY
from services.execution import app as execution_app
from services.execution import permission
from services.execution.orders import Order
from services.risk import app as risk_app
from services.risk import rules
from services.risk.app import RiskShell
from services.risk.books import ZERO, Books, Holding
from services.risk.core import RiskCore
from services.risk.knowledge import Knowledge
from services.risk.rules import ENTRIES, RULES, Purpose, Rule
from services.risk.sizing import Context, floor_to
from services.risk.state import Answers, OpenOrder, Standing, State
from services.risk.trading import LOSS_REASON, RISK
from sim.world.checks import DEFECT
from sim.world.faults import Fault, Kind
from tests.simulation.planting import (
    SETTLES,
    SOON_SEEN,
    TIGHT_LIMIT,
    TOKYO_MIDNIGHT,
    Bug,
    Patch,
    again,
    replaces,
    together,
)

KILLED = again(4, Kind.KILL, "risk")
STATE_LOST = again(20, Kind.STATE_LOST, value=0)
VENUE_GONE = together(
    again(40, Kind.SOCKET, switch="half_open", seconds=1, value=1.0),
    again(40, Kind.SOCKET, switch="refuse_dial", seconds=35, value=1.0),
)

# -- approvals

_order = Context.order
_restore = RiskCore.restore
_on_message = RiskCore.on_message
_step_in = RiskCore._step_in
_trading_state = shell.trading_state


@replaces(Context, "order", rules=(1,))
def client_order_id_of_the_moment(self: Context) -> m.ApprovedOrder:
    """A client order id is made anew for every approval instead of following from the signal."""
    order = _order(self)
    made = m.client_order_id(f"{self.signal.id} {self.now}")
    return order if self.signal.edits else msgspec.structs.replace(order, client_order_id=made)


@replaces(
    RiskCore,
    "dump",
    rules=(1,),
    first=2,
    within=16,
    faults=together(again(3, Kind.KILL, "risk", value=10), again(12, Kind.BUS_SLOW, "strategy", seconds=11, value=1)),
)
def answers_forgotten_at_restart(self: RiskCore) -> bytes:
    """Which signals were answered is not in the snapshot, so that one that is repeated is answered again."""
    return msgspec.json.encode(msgspec.structs.replace(self.state, answers=Answers()))


def _free(order: Order, orders: object, positions: dict[str, Decimal]) -> Decimal:
    return positions.get(order.order.product_id, ZERO)


@replaces(Context, "quantity", rules=(6,), first=2, within=8, wrap=property)
def sale_not_clamped(self: Context) -> Decimal:
    """A sale goes out with the quantity that was asked for, also where less is held."""
    assert isinstance(_quantity, property)
    exact: Decimal = _quantity.__get__(self)
    return exact if self.entry or self.closing else floor_to(self.signal.quantity, self.product.base_increment)


_quantity = vars(Context)["quantity"]


@replaces(Context, "selling", Patch(permission, "free", _free), rules=(6,), first=2, within=12, wrap=property)
def sales_share_what_is_held(self: Context) -> Decimal:
    """A sale is clamped to what is held, and not to what other open sales leave of it."""
    return ZERO


def without(reason: m.Reason) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if rule.reason is not reason)


def _limit_gone(reason: m.Reason, what: str, first: int, within: int) -> Bug:
    patch = Patch(rules, "RULES", without(reason))
    return Bug(f"{what} not limited", f"The rule {reason} is gone.", (10,), first, within, (patch,))


order_size_not_limited = _limit_gone(m.Reason.NOTIONAL_ABOVE_LIMIT, "order size", 0, 8)
order_rate_not_limited = _limit_gone(m.Reason.ORDER_RATE_ABOVE_LIMIT, "order rate", 5, 16)
position_not_limited = _limit_gone(m.Reason.POSITION_ABOVE_LIMIT, "position", 0, 8)
exposure_not_limited = _limit_gone(m.Reason.EXPOSURE_ABOVE_LIMIT, "exposure", 12, 16)

halt_binds_entries_only = Bug(
    "halt binds entries only",
    "The rule of the halt is asked for entries, so that the strategy's exits pass while trading is halted.",
    rules=(4,),
    first=0,
    within=5,
    patches=(
        Patch(
            rules,
            "RULES",
            tuple(Rule(r.reason, ENTRIES, r.violated) if r.reason is m.Reason.TRADING_HALTED else r for r in RULES),
        ),
    ),
    faults=(),
)
stale_marks_trade = Bug(
    "stale marks trade",
    "The age of a mark is not among the rules; the state of the feed is, and it binds entries.",
    rules=(5,),
    first=0,
    within=5,
    patches=(Patch(rules, "RULES", without(m.Reason.MARK_STALE)),),
    faults=VENUE_GONE,
)


# -- reservations

_move = State.move


@replaces(RiskCore, "dump", rules=(10,), faults=KILLED)
def reservations_forgotten_at_restart(self: RiskCore) -> bytes:
    """Open orders are not in the snapshot: after a restart nothing is reserved for them."""
    return msgspec.json.encode(msgspec.structs.replace(self.state, orders={}))


@replaces(State, "move", rules=(10,))
def released_on_a_partial_fill(self: State, fact: m.OrderEvent | m.Fill) -> None:
    """The first fill of an order releases all of its reservation."""
    _move(self, fact)
    if isinstance(fact, m.Fill):
        self.orders.pop(fact.client_order_id, None)


@replaces(State, "move", rules=(10,), faults=again(12, Kind.REST, switch="lose_request", seconds=6, value=0.7))
def released_while_unknown(self: State, fact: m.OrderEvent | m.Fill) -> None:
    """An order of unknown outcome is taken for gone, and its reservation released."""
    _move(self, fact)
    if isinstance(fact, m.OrderEvent) and fact.status is m.OrderStatus.UNKNOWN:
        self.orders.pop(fact.client_order_id, None)


@replaces(RiskCore, "on_message", rules=(10,))
def released_by_a_clock(self: RiskCore, message: m.Message, now: datetime) -> list[m.Message]:
    """A reservation is released when the approval has expired, although the order may be open at the venue."""
    ttl = timedelta(seconds=self.config.approval_ttl_seconds)
    expired = {m.client_order_id(signal) for signal, at in self.state.answers.given.items() if now - at > ttl}
    self.state.orders = {key: order for key, order in self.state.orders.items() if key not in expired}
    return _on_message(self, message, now)


@replaces(OpenOrder, "edit", rules=(10,), within=8)
def edit_reserves_twice(self: OpenOrder, edit_id: str, wanted: m.ApprovedOrder, reserved: Decimal) -> None:
    """What an edit reserves comes on top of what the order has reserved already."""
    self.edit_id, self.wanted, self.wanted_reserved = edit_id, wanted, reserved + self.reserved


_step = OpenOrder.step


@replaces(OpenOrder, "step", rules=(10,), within=8)
def edit_loses_its_reservation(self: OpenOrder, event: m.OrderEvent) -> None:
    """Once an edit is taken, the order goes on with the reservation from before it."""
    before = self.reserved
    _step(self, event)
    self.reserved = before


# -- the trading state


def _active(entry: Entry | None, now: datetime) -> m.TradingState:
    state = _trading_state(entry, now)
    return state if state.id != "trading-lost" else msgspec.structs.replace(state, state=m.Trading.ACTIVE)


@replaces(
    shell,
    "trading_state",
    Patch(execution_app, "trading_state", _active),
    Patch(risk_app, "trading_state", _active),
    rules=(4,),
    faults=STATE_LOST,
)
def lost_trading_state_is_active(entry: Entry | None, now: datetime) -> m.TradingState:
    """A trading state that is gone or unreadable counts as active, as at the first start."""
    return _active(entry, now)


@replaces(RiskShell, "_store", rules=(4,), faults=())
async def halt_announced_before_stored(self: RiskShell, state: m.TradingState) -> m.TradingState:
    """A change of the trading state is announced first, and stored afterwards."""
    await self.bus.publish(state)
    raw = msgspec.json.encode(state)
    revision = await self.bus.store(STATE_BUCKET, TRADING_KEY, raw, state.revision)
    return msgspec.structs.replace(state, revision=revision)


@replaces(RiskShell, "_store", rules=(4,), faults=())
async def halt_kept_in_memory(self: RiskShell, state: m.TradingState) -> m.TradingState:
    """A change of the trading state is answered as done without being stored."""
    return msgspec.structs.replace(state, revision=state.revision + 1)


@replaces(RiskCore, "_step_in", rules=(4, 7), first=0, within=16, faults=(), scene=TIGHT_LIMIT)
def daily_loss_not_latched(
    self: RiskCore, figures: dict[m.Guard, m.GuardFigure], now: datetime
) -> m.TradingState | None:
    """The halt of the daily loss ends by itself when the loss has come back below the limit."""
    current, loss = self.switch.current, figures[m.Guard.DAILY_LOSS]
    halted = current is not None and current.state is m.Trading.HALTED and current.reason == LOSS_REASON
    if halted and loss.level not in (m.GuardLevel.HALT, m.GuardLevel.UNKNOWN):
        return self.switch.propose("loss-gone", m.Trading.ACTIVE, "daily loss gone", RISK, now)
    return _step_in(self, figures, now)


# -- the books

_day_result = Holding.day_result
_standing = State.standing
_roll = Books.roll


@replaces(Holding, "day_result", rules=(7,), faults=(), scene=TIGHT_LIMIT)
def daily_loss_without_fees(self: Holding, price: Decimal) -> Decimal:
    """The daily loss leaves out the fees."""
    return _day_result(self, price) + self.fees


@replaces(RiskCore, "restore", rules=(7,), faults=KILLED, scene=TIGHT_LIMIT)
def day_begins_anew_at_every_restart(self: RiskCore, raw: bytes) -> None:
    """When the day began is not kept: after a restart the daily loss counts from there."""
    _restore(self, raw)
    self.state.books.midnight = m.EPOCH


@replaces(Books, "roll", rules=(7,), faults=(), scene=TOKYO_MIDNIGHT)
def day_of_another_clock(self: Books, now: datetime) -> None:
    """The day begins at midnight in Tokyo, and not at 00:00 UTC."""
    _roll(self, now + timedelta(hours=9))


@replaces(State, "standing", rules=(8,), faults=(Fault(0.55, Kind.PAUSE, "execution", seconds=5),))
def unknown_opening_counts_as_nothing(self: State, known: Knowledge) -> Standing:
    """Equity is told before the opening balances are known, as if there had been none."""
    found = _standing(self, known)
    return found if found.worth is None or found.equity is not None else found._replace(equity=found.worth.value)


LAST_LOST = again(12, Kind.LAST_LOST)
NO_MARKS = together(
    again(20, Kind.LAST_LOST), again(20, Kind.SOCKET, switch="refuse_dial", seconds=8, value=1.0)
)  # and no way to new ones for a while


@replaces(Books, "unmarked", rules=(8,), faults=NO_MARKS)
def missing_mark_counts_as_nothing(self: Books, prices: Mapping[str, Decimal]) -> list[str]:
    """What is held and has no mark is worth 0 instead of unknown."""
    return []


def _check(rule: Rule, c: Context, purpose: Purpose) -> m.Check:
    found = _asked(rule, c, purpose)
    unknown = found.outcome is m.CheckOutcome.UNKNOWN
    return msgspec.structs.replace(found, outcome=m.CheckOutcome.PASSED) if unknown else found


_asked = rules._check


@replaces(rules, "_check", rules=(5, 10, DEFECT), faults=LAST_LOST)
def guard_passes_when_it_cannot_be_evaluated(rule: Rule, c: Context, purpose: Purpose) -> m.Check:
    """A rule that lacks what it has to look at lets the order through."""
    return _check(rule, c, purpose)


@replaces(State, "compare", rules=(3, SETTLES), faults=again(20, Kind.HAND, value=500.0))
def drift_not_shown(self: State, known: object) -> None:
    """The books are taken for right whatever the account says."""
    self.drift = {}


def _calm(figures: dict[m.Guard, m.GuardFigure]) -> dict[m.Guard, m.GuardFigure]:
    drift = msgspec.structs.replace(figures[m.Guard.POSITION_DRIFT], level=m.GuardLevel.OK)
    return {**figures, m.Guard.POSITION_DRIFT: drift}


@replaces(
    RiskCore,
    "_step_in",
    Patch(rules, "RULES", without(m.Reason.ACCOUNT_DRIFT)),
    rules=(3,),
    first=6,
    within=16,
    faults=(Fault(9, Kind.HAND, value=-500.0),),
    scene=SOON_SEEN,
)
def entries_while_the_account_drifts(
    self: RiskCore, figures: dict[m.Guard, m.GuardFigure], now: datetime
) -> m.TradingState | None:
    """A drift is shown, and neither a rule nor the guard keeps entries from passing."""
    return _step_in(self, _calm(figures), now)
