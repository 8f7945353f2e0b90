"""What could be wrong in execution: the life cycle of an order and the questions to the venue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec
from msgspec.structs import replace

from libs.common import messages as m
from libs.common.errors import OutcomeUnknown, Rejected
from libs.common.messages import OrderStatus
from services.execution import app, core, permission, questions, settlement
from services.execution import inputs as i
from services.execution.app import ExecutionApp
from services.execution.bodies import Json
from services.execution.budget import Priority
from services.execution.core import ExecutionCore
from services.execution.orders import Order
from services.execution.questions import Questions
from services.execution.rest import Rest
from services.execution.settlement import Settlement
from services.execution.venue import CoinbaseVenue
from sim.world.faults import Kind
from tests.simulation.planting import (
    LONG_APPROVALS,
    SETTLES,
    TIGHT_LIMIT,
    Bug,
    Patch,
    again,
    always,
    replaces,
    together,
)

ANSWERS_LOST = again(12, Kind.REST, switch="lose_answer", seconds=6, value=0.7)
CHANNEL_MUTE = always(Kind.VENUE, switch="user_drop", value=1000)
REQUESTS_LATE = always(Kind.REST, switch="late_request", value=0.7)
NOT_CONNECTED = again(10, Kind.REST, switch="refuse", seconds=7, value=0.8)
SLOW_ANSWERS = always(Kind.REST, switch="slow", value=1.0)
KILLED = again(4, Kind.KILL, "execution")


# -- placing

_place = CoinbaseVenue.place
_edit = CoinbaseVenue.edit
_on_recovered = ExecutionCore._on_recovered


@replaces(CoinbaseVenue, "place", rules=(2,), faults=ANSWERS_LOST)
async def rejected_on_timeout(self: CoinbaseVenue, order: m.ApprovedOrder, signed: Callable[[datetime], None]) -> str:
    """A POST without an answer is taken for a rejection."""
    try:
        return await _place(self, order, signed)
    except OutcomeUnknown as error:
        raise Rejected("no_answer", str(error)) from None


@replaces(Rest, "once", rules=(1, 2), faults=ANSWERS_LOST)
async def post_repeated_after_a_timeout(self: Rest, path: str, body: Json, signed: Callable[[datetime], None]) -> bytes:
    """The request of an order is tried again like a read when no answer came."""
    signed(self._clock.wall())
    return await self.ask(path, body, Priority.ORDER)


@replaces(
    ExecutionApp,
    "_refusal",
    Patch(app, "overtaken", lambda request, latest, now: False),
    rules=(4, 5),
    first=0,
    faults=NOT_CONNECTED,
)
async def no_look_before_the_post(self: ExecutionApp, request: i.Place | i.Edit) -> str:
    """Trading state and expiry are looked at when an order is begun, and not again before it leaves."""
    return ""


def _closed_only(request: i.Place | i.Edit, trading: m.TradingState, now: datetime) -> m.Reason | None:
    if trading.revision != request.trading_revision:
        return m.Reason.TRADING_STATE_CHANGED
    return permission.forbidden(trading, request.order if isinstance(request, i.Place) else request.wanted)


def _timely_only(request: i.Place | i.Edit, trading: m.TradingState, now: datetime) -> m.Reason | None:
    if now > request.expires_at:
        return m.Reason.APPROVAL_EXPIRED
    return permission.forbidden(trading, request.order if isinstance(request, i.Place) else request.wanted)


@replaces(permission, "refusal", Patch(app, "refusal", _closed_only), rules=(5,), first=3, faults=NOT_CONNECTED)
def expiry_not_looked_at_before_the_post(
    request: i.Place | i.Edit, trading: m.TradingState, now: datetime
) -> m.Reason | None:
    """The expiry of an approval counts when the order is begun; a request that has to wait may leave later."""
    return _closed_only(request, trading, now)


@replaces(ExecutionCore, "_begin", rules=(2,))
def submitting_written_after_the_post(self: ExecutionCore, order: Order, now: datetime) -> list[m.Message]:
    """The POST leaves while SUBMITTING is still being written, to save a round trip to the bus."""
    event = order.event(OrderStatus.SUBMITTING, "approved", now)
    return [self._place(order, 0), event]


@replaces(ExecutionCore, "_on_recovered", rules=(1, 2), first=1, within=16, faults=together(KILLED, SLOW_ANSWERS))
def submitting_at_start_taken_for_never_sent(
    self: ExecutionCore, message: m.Recovered, now: datetime
) -> list[m.Message]:
    """An order that is SUBMITTING at start is begun anew, as if the process before had not sent it."""
    for order in self.state.orders.values():
        if order.status is OrderStatus.SUBMITTING:
            order.status = None
    return _on_recovered(self, message, now)


@replaces(ExecutionCore, "_on_recovered", rules=(SETTLES,), faults=KILLED)
def approval_forgotten_at_start(self: ExecutionCore, message: m.Recovered, now: datetime) -> list[m.Message]:
    """An approval that was handed in before a crash is not begun at start, since its verdict is behind the snapshot."""
    waiting = {key: order for key, order in self.state.orders.items() if order.status is None}
    self.state.orders = {key: order for key, order in self.state.orders.items() if order.status is not None}
    outputs = _on_recovered(self, message, now)
    self.state.orders |= waiting
    return outputs


@replaces(
    core,
    "outdated",
    Patch(permission, "refusal", _timely_only),
    Patch(app, "refusal", _timely_only),
    rules=(4,),
    first=6,
    within=16,
    faults=NOT_CONNECTED,
    scene=LONG_APPROVALS,
)
def approval_of_an_older_state_counts(
    trading: m.TradingState | None, revision: int, expires_at: datetime, wanted: m.ApprovedOrder, now: datetime
) -> m.Reason | None:
    """An approval from before a halt counts again after the resume: its revision is not compared."""
    if trading is None:
        return m.Reason.TRADING_STATE_UNKNOWN
    return m.Reason.APPROVAL_EXPIRED if now > expires_at else permission.forbidden(trading, wanted)


@replaces(core, "unwanted", rules=(4,), first=7, within=16, faults=(), scene=TIGHT_LIMIT)
def entries_rest_in_a_halt(order: Order, trading: m.TradingState | None) -> list[m.Message]:
    """A halt keeps new orders from leaving, and leaves those that rest at the venue."""
    return []


@replaces(ExecutionApp, "_watch_bus", rules=(10,), faults=again(30, Kind.BUS_PARTITION, "execution", seconds=25))
async def entries_rest_with_the_bus_gone(self: ExecutionApp) -> None:
    """Nobody takes resting entries off the venue when the bus has been gone for long."""


@replaces(CoinbaseVenue, "edit", rules=(2,), first=0, within=8, faults=ANSWERS_LOST)
async def edit_refused_on_timeout(
    self: CoinbaseVenue, venue_order_id: str, wanted: m.ApprovedOrder, signed: Callable[[datetime], None]
) -> None:
    """An edit without an answer is taken for refused, while the venue may have taken it."""
    try:
        await _edit(self, venue_order_id, wanted, signed)
    except OutcomeUnknown as error:
        raise Rejected("no_answer", str(error)) from None


# -- asking

one_listing_is_enough = Bug(
    "one listing is enough",
    "A request counts as never arrived after one listing without it, while the venue lists an order seconds later.",
    rules=(2,),
    first=1,
    within=8,
    patches=(Patch(questions, "LISTINGS_NEEDED", 1),),
    faults=together(REQUESTS_LATE, CHANNEL_MUTE, always(Kind.VENUE, switch="orders_lag_seconds", value=5)),
)


@replaces(Questions, "never_arrived", rules=(2,), first=2, within=8, faults=REQUESTS_LATE)
def never_arrived_while_its_token_lives(self: Questions, order: Order, asked_at: datetime) -> bool:
    """Two listings without an order prove that it never came, also while the venue would still take its request."""
    self.of(order).answers_without += 1
    return self.of(order).answers_without >= questions.LISTINGS_NEEDED


@replaces(CoinbaseVenue, "find", rules=(2,), faults=together(ANSWERS_LOST, CHANNEL_MUTE))
async def looked_for_among_open_orders_only(
    self: CoinbaseVenue, client_order_id: str, product_id: str, start: datetime
) -> i.VenueOrder | None:
    """An order of unknown outcome is looked for among the open ones: one that has filled meanwhile is not found."""
    async for page in self.orders(product_id=product_id, since=start, open_only=True):
        for order in page:
            if order.client_order_id == client_order_id:
                return order
    return None


# -- fills and ends

_settle = settlement.settle
_fill_of = Order.fill_of


@replaces(core, "settle", rules=(3,), first=0)
def fill_counted_twice(order: Order, answer: i.OrderSeen, now: datetime) -> Settlement:
    """Every answer of the venue books all fills that it lists, those that are booked already among them."""
    return _settle(replace(order, entry_ids=[]), answer, now)


@replaces(Order, "fill_of", rules=(3,), first=1)
def fill_with_the_sum_of_its_order(self: Order, fill: i.VenueFill, now: datetime) -> m.Fill:
    """A fill is booked with the filled quantity of its order, which is the same for the first one."""
    return replace(_fill_of(self, fill, now), size=self.filled_qty + fill.size)


@replaces(core, "settle", rules=(2,), first=0)
def partly_filled_taken_for_filled(order: Order, answer: i.OrderSeen, now: datetime) -> Settlement:
    """An order is FILLED as soon as the venue lists a fill of it."""
    if answer.fills:
        answer = replace(answer, order=replace(answer.order, status=OrderStatus.FILLED, filled_qty=None))
    return _settle(order, answer, now)


@replaces(
    core,
    "settle",
    rules=(2,),
    faults=together(
        always(Kind.VENUE, switch="fills_lag_seconds", value=2),
        always(Kind.VENUE, switch="take_at_most_fraction", value=0.5),
    ),
)
def ended_before_its_fills_are_listed(order: Order, answer: i.OrderSeen, now: datetime) -> Settlement:
    """An order ends with the venue's word, whether or not all fills that the venue counts are listed."""
    return _settle(order, replace(answer, order=replace(answer.order, filled_qty=None)), now)


# -- restarts

_restore = ExecutionCore.restore


@replaces(ExecutionCore, "restore", rules=(9,), faults=KILLED)
def steps_counted_anew_after_a_restart(self: ExecutionCore, raw: bytes) -> None:
    """The number of an order's last step is not kept: after a restart its steps are counted from 1 again."""
    _restore(self, raw)
    for order in self.state.orders.values():
        if not order.terminal:
            order.revision = 0


@replaces(ExecutionCore, "dump", rules=(2, 4, 9, SETTLES), faults=KILLED)
def open_orders_forgotten_at_restart(self: ExecutionCore) -> bytes:
    """The snapshot keeps the orders that have ended, and the open ones are to come from the ledger's tail."""
    ended = {key: order for key, order in self.state.orders.items() if order.terminal}
    return msgspec.json.encode(replace(self.state, orders=ended))
