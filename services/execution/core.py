"""Execution's decisions: which approval becomes an order, what the venue's answers mean, what to ask next.

Facts (order events, fills) change the state only when they come back from the ledger. Whatever the venue has not said
stays as it is, and is asked again: an outcome is never assumed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec
from msgspec import Struct, field

from libs.common import messages as m
from libs.common.messages import OrderStatus, Reason, Side
from services.execution import inputs as i
from services.execution.config import ExecutionConfig
from services.execution.orders import ENDED_BY_VENUE, OPEN, TRANSITIONS, Inquiry, Order, signed

CLOSED_KEPT = 200
LISTINGS_NEEDED = 2
START_MARGIN = timedelta(minutes=10)
FIRST_QUESTION_SECONDS = 0.05
LAST_QUESTION_SECONDS = 5.0
RETRY_SECONDS = 1.0


class State(Struct):
    """All that outlives a restart. Everything but `opening` can be rebuilt from the ledger."""

    orders: dict[str, Order] = field(default_factory=dict)
    positions: dict[str, Decimal] = field(default_factory=dict)
    opening: dict[str, Decimal] | None = None


class ExecutionCore:
    """See `libs.common.shell.Core`."""

    def __init__(self, config: ExecutionConfig) -> None:
        self._config = config
        self.state = State()
        self.trading: m.TradingState | None = None
        self.rules: dict[str, m.Product] = {}
        self.account: m.Account | None = None
        self.strangers = 0  # updates of orders that are not ours: shown, never touched
        self.anomalies = 0  # answers that contradict what we sent
        self._installation = ""
        self._started_at = m.EPOCH
        self.epoch = 0  # rises with every step of any order
        self._inquiries: dict[str, Inquiry] = {}
        self._begun: set[str] = set()  # orders whose SUBMITTING is ours: only these may be sent
        self._handlers = {
            m.Verdict: self._on_verdict,
            m.OrderEvent: self._on_event,
            m.Fill: self._on_fill,
            m.TradingState: self._on_trading,
            m.Product: self._on_product,
            m.Installation: self._on_installation,
            m.Recovered: self._on_recovered,
            i.Starting: self._on_starting,
            i.Placed: self._on_placed,
            i.PlaceRefused: self._on_refused,
            i.PlaceNotSent: self._on_not_sent,
            i.PlaceUnknown: self._on_unknown,
            i.Found: self._on_found,
            i.NotFound: self._on_not_found,
            i.AskFailed: self._on_ask_failed,
            i.OrderSeen: self._on_seen,
            i.UserUpdate: self._on_user,
            i.UserReconnected: self._on_user_reconnected,
            i.AccountDue: self._on_account_due,
            i.AccountSeen: self._on_account,
        }

    # -- the shell's side

    def on_message(self, message: m.Message, now: datetime) -> list[m.Message]:
        handler = self._handlers.get(type(message))
        return handler(message, now) if handler else []  # type: ignore[operator]

    def not_ready(self, now: datetime) -> str:
        if self.trading is None:
            return "trading state not known"
        if self.account is None:
            return "account not known"
        return ""

    @property
    def busy(self) -> bool:
        orders = (order for order in self.state.orders.values() if not order.terminal)
        return any(not order.resting or self._inquiry(order).without_news < 2 for order in orders)

    def dump(self) -> bytes:
        return msgspec.json.encode(self.state)

    def restore(self, raw: bytes) -> None:
        self.state = msgspec.json.decode(raw, type=State)

    def refusal(self, place: i.Place, trading: m.TradingState, now: datetime) -> Reason | None:
        """The last check, right before the POST, with the trading state read again."""
        if trading.revision != place.trading_revision:
            return Reason.TRADING_STATE_CHANGED
        if now > place.expires_at:
            return Reason.APPROVAL_EXPIRED
        return _forbidden(trading, place.order.reduce_only)

    def live_entries(self) -> list[Order]:
        """Orders that may rest at the venue and could still raise a position."""
        return [
            order
            for order in self.state.orders.values()
            if order.status is not None
            and not order.terminal
            and order.order.side is Side.BUY
            and not _immediate(order)
        ]

    # -- facts from the ledger

    def _on_verdict(self, verdict: m.Verdict, now: datetime) -> list[m.Message]:
        approved = verdict.order
        if approved is None or approved.client_order_id in self.state.orders:
            return []
        order = Order(
            order=approved,
            signal_id=verdict.signal_id,
            trading_revision=verdict.trading_revision,
            expires_at=verdict.expires_at,
            approved_at=verdict.at,
        )
        self.state.orders[approved.client_order_id] = order
        return self._begin(order, now)

    def _begin(self, order: Order, now: datetime) -> list[m.Message]:
        reason, quantity = self._permitted(order, now)
        if reason is not None:
            return [order.event(OrderStatus.DENIED, reason, now)]
        self._begun.add(order.order.client_order_id)
        order_sent = msgspec.structs.replace(order.order, quantity=quantity)
        event = order.event(OrderStatus.SUBMITTING, "approved", now)
        return [msgspec.structs.replace(event, order=order_sent)]

    def _permitted(self, order: Order, now: datetime) -> tuple[Reason | None, Decimal]:
        """Why this approval may not be sent any more, or the quantity that may."""
        wanted = order.order
        if self.trading is None:
            return Reason.TRADING_STATE_UNKNOWN, wanted.quantity
        if self.trading.revision > order.trading_revision:
            return Reason.TRADING_STATE_CHANGED, wanted.quantity
        if now > order.expires_at:
            return Reason.APPROVAL_EXPIRED, wanted.quantity
        # Risk may have read a newer state than we have been told: the check before the POST reads the stored one.
        told = self.trading.revision in (0, order.trading_revision)
        if told and (reason := _forbidden(self.trading, wanted.reduce_only)) is not None:
            return reason, wanted.quantity
        if wanted.side is Side.BUY:
            return (Reason.EVALUATION_FAILED if wanted.reduce_only else None), wanted.quantity
        return self._clamped(order)

    def _clamped(self, order: Order) -> tuple[Reason | None, Decimal]:
        """A sale never exceeds what is held now, less what other open sales may still take."""
        wanted = order.order
        rules = self.rules.get(wanted.product_id)
        if rules is None:
            return Reason.PRODUCT_UNKNOWN, wanted.quantity
        held = self.state.positions.get(wanted.product_id, Decimal(0)) - self._promised(order)
        quantity = min(wanted.quantity, held // rules.base_increment * rules.base_increment)
        if quantity <= 0:
            return Reason.NOTHING_TO_REDUCE, wanted.quantity
        return (Reason.DUST if quantity < rules.base_min_size else None), quantity

    def _promised(self, order: Order) -> Decimal:
        """What other sales of the product may still take: those begun, and those approved before this one."""
        found = Decimal(0)
        earlier = True
        for other in self.state.orders.values():
            if other is order:
                earlier = False
            elif other.order.product_id == order.order.product_id and other.order.side is Side.SELL:
                found += other.open_quantity if earlier or other.status is not None else 0
        return found

    def _on_event(self, event: m.OrderEvent, now: datetime) -> list[m.Message]:
        order = self.state.orders.get(event.client_order_id)
        before = order.status if order else None
        if order is None or not order.apply(event):
            return []
        self.epoch += 1
        if event.status not in TRANSITIONS[before]:
            self.anomalies += 1
        if order.terminal:
            self._inquiries.pop(event.client_order_id, None)
            self._forget_old()
            return [i.FetchAccount(id="account")]
        if event.status is OrderStatus.SUBMITTING:
            if event.client_order_id in self._begun:
                return [self._place(order, 0)]
            return [order.event(OrderStatus.UNKNOWN, "submitted by another process", now)]
        if event.status in (OrderStatus.UNKNOWN, OrderStatus.ACCEPTED):
            return self._ask(order, news=True)
        return []

    def _on_fill(self, fill: m.Fill, now: datetime) -> list[m.Message]:
        order = self.state.orders.get(fill.client_order_id)
        if order is None or not order.book(fill):
            return []
        held = self.state.positions.get(fill.product_id, Decimal(0))
        self.state.positions[fill.product_id] = held + signed(fill.side, fill.size)
        self.epoch += 1
        return []

    def _forget_old(self) -> None:
        closed = [key for key, order in self.state.orders.items() if order.terminal]
        for key in closed[:-CLOSED_KEPT]:
            del self.state.orders[key]

    # -- standing facts

    def _on_trading(self, state: m.TradingState, now: datetime) -> list[m.Message]:
        if self.trading is not None and 0 < state.revision < self.trading.revision:
            return []
        self.trading = state
        return [cancel for order in self.state.orders.values() for cancel in self._unwanted(order)]

    def _unwanted(self, order: Order) -> list[m.Message]:
        """A resting entry has no place in a halt or a reduction: cancel it, again at every look until it is gone."""
        if self.trading is None or self.trading.state is m.Trading.ACTIVE:
            return []
        if order.status not in OPEN or order.order.side is Side.SELL or _immediate(order):
            return []
        key = order.order.client_order_id
        return [i.Cancel(id=f"cancel-{key}", client_order_id=key, venue_order_id=order.venue_order_id)]

    def _on_product(self, product: m.Product, now: datetime) -> list[m.Message]:
        self.rules[product.product_id] = product
        return []

    def _on_installation(self, made: m.Installation, now: datetime) -> list[m.Message]:
        self._installation = made.id
        if made.opening is not None:
            self.state.opening = made.opening
        return []

    def _on_starting(self, starting: i.Starting, now: datetime) -> list[m.Message]:
        self._started_at = starting.wall
        return []

    def _on_recovered(self, message: m.Recovered, now: datetime) -> list[m.Message]:
        """Take up every order where the ledger left it."""
        outputs: list[m.Message] = [i.FetchAccount(id="account")]
        self._inquiries.clear()  # questions of the replay were never asked, its orders not sent by us
        self._begun.clear()
        dead_at = self._started_at + timedelta(seconds=self._config.jwt_seconds)
        for order in self.state.orders.values():
            if order.status is None:
                outputs += self._begin(order, now)
            elif order.status is OrderStatus.SUBMITTING:
                # The process before us may have sent it: that is for the venue to say.
                self._inquiry(order).token_expires_at = dead_at
                outputs.append(order.event(OrderStatus.UNKNOWN, "found unanswered at start", now))
            elif not order.terminal:
                self._inquiry(order).token_expires_at = dead_at
                outputs += [*self._unwanted(order), *self._ask(order)]
        return outputs

    # -- answers to a POST

    def _on_placed(self, answer: i.Placed, now: datetime) -> list[m.Message]:
        order = self._waiting(answer.client_order_id)
        if order is None:
            known = self.state.orders.get(answer.client_order_id)
            self.anomalies += 1 if known and known.terminal else 0
            return []
        return [order.event(OrderStatus.ACCEPTED, "accepted", now, venue_order_id=answer.venue_order_id)]

    def _on_refused(self, answer: i.PlaceRefused, now: datetime) -> list[m.Message]:
        order = self._waiting(answer.client_order_id)
        if order is None or order.status is OrderStatus.UNKNOWN:
            return []
        return [order.event(answer.status, answer.reason, now)]

    def _on_not_sent(self, answer: i.PlaceNotSent, now: datetime) -> list[m.Message]:
        order = self._waiting(answer.client_order_id)
        if order is None or order.status is OrderStatus.UNKNOWN:
            return []
        if now > order.expires_at:
            return [order.event(OrderStatus.DENIED, Reason.VENUE_UNREACHABLE, now)]
        return [self._place(order, RETRY_SECONDS)]

    def _on_unknown(self, answer: i.PlaceUnknown, now: datetime) -> list[m.Message]:
        order = self._waiting(answer.client_order_id)
        if order is None:
            return []
        inquiry = self._inquiry(order)
        inquiry.token_expires_at = max(inquiry.token_expires_at, answer.token_expires_at)
        if order.status is OrderStatus.UNKNOWN:
            return []
        return [order.event(OrderStatus.UNKNOWN, answer.why, now)]

    def _waiting(self, client_order_id: str) -> Order | None:
        """The order if its POST is still unanswered; a late answer to a settled one is no news."""
        order = self.state.orders.get(client_order_id)
        return order if order and order.status in (OrderStatus.SUBMITTING, OrderStatus.UNKNOWN) else None

    # -- answers to questions

    def _on_found(self, answer: i.Found, now: datetime) -> list[m.Message]:
        self._answered(answer.client_order_id, answer.id)
        order = self._waiting(answer.client_order_id)
        if order is None:
            return []
        if answer.order.product_id != order.order.product_id or answer.order.side is not order.order.side:
            self.anomalies += 1
            return self._ask(order)
        return [order.event(OrderStatus.ACCEPTED, "found", now, venue_order_id=answer.order.venue_order_id)]

    def _on_not_found(self, answer: i.NotFound, now: datetime) -> list[m.Message]:
        """It never arrived once two complete listings, begun after its token had died, do not know it."""
        self._answered(answer.client_order_id, answer.id)
        order = self.state.orders.get(answer.client_order_id)
        if order is None or order.status is not OrderStatus.UNKNOWN:
            return []
        margin, inquiry = timedelta(seconds=self._config.jwt_margin_seconds), self._inquiry(order)
        if inquiry.token_expires_at > m.EPOCH and answer.asked_at > inquiry.token_expires_at + margin:
            inquiry.listings_without += 1
        if inquiry.listings_without >= LISTINGS_NEEDED:
            return [order.event(OrderStatus.REJECTED, "never_arrived", now)]
        return self._ask(order)

    def _on_ask_failed(self, answer: i.AskFailed, now: datetime) -> list[m.Message]:
        self._answered(answer.client_order_id, answer.id)
        order = self.state.orders.get(answer.client_order_id)
        return self._ask(order) if order and order.status not in (None, *m.TERMINAL) else []

    def _on_seen(self, answer: i.OrderSeen, now: datetime) -> list[m.Message]:
        """Book what is new, and end the order only when every fill that the venue counts is booked."""
        self._answered(answer.client_order_id, answer.id)
        order = self.state.orders.get(answer.client_order_id)
        if order is None or order.status not in OPEN:
            return []
        if not _matches(order, answer):
            self.anomalies += 1
            return self._ask(order)
        new = {fill.entry_id: fill for fill in answer.fills if fill.entry_id not in order.entry_ids}
        outputs: list[m.Message] = [order.fill_of(fill, now) for fill in new.values()]
        filled = order.filled_qty + sum((fill.size for fill in new.values()), Decimal(0))
        status = answer.order.status
        empty = status is OrderStatus.FILLED and not filled
        if filled > order.order.quantity or status is None or empty:
            self.anomalies += 1
        if status in ENDED_BY_VENUE and filled == answer.order.filled_qty and not empty:
            reason = answer.order.reject_reason or answer.order.status_word.lower()
            return [*outputs, order.progress(status, reason, [*new.values()], now)]
        if new:
            progress = order.progress(OrderStatus.PARTIALLY_FILLED, "partially filled", [*new.values()], now)
            outputs.append(progress)
        elif status is OrderStatus.PENDING_CANCEL and order.status is not status:
            outputs.append(order.event(status, "cancel queued", now))
        return [*outputs, *self._unwanted(order), *self._ask(order, news=bool(new))]

    def _on_user(self, update: i.UserUpdate, now: datetime) -> list[m.Message]:
        order = self.state.orders.get(update.order.client_order_id)
        if order is None:
            self.strangers += 1
            return []
        if order.status in (OrderStatus.SUBMITTING, OrderStatus.UNKNOWN):
            found = i.Found(id=update.id, client_order_id=update.order.client_order_id, order=update.order)
            return self._on_found(found, now)
        news = update.order.filled_qty != order.filled_qty
        if order.terminal and news:
            self.anomalies += 1
        if order.status in OPEN and (news or update.order.status in ENDED_BY_VENUE):
            return self._ask(order, news=True)
        return []

    def _on_user_reconnected(self, message: i.UserReconnected, now: datetime) -> list[m.Message]:
        outputs: list[m.Message] = []
        for order in self.state.orders.values():
            if order.status in OPEN:
                outputs += self._ask(order, news=True)
        return outputs

    # -- the account

    def _on_account_due(self, message: i.AccountDue, now: datetime) -> list[m.Message]:
        return [i.FetchAccount(id="account")]

    def _on_account(self, seen: i.AccountSeen, now: datetime) -> list[m.Message]:
        outputs: list[m.Message] = []
        if self.state.opening is None and not self.state.orders:
            opening = {currency: b.available + b.hold for currency, b in seen.balances.items()}
            self.state.opening = opening
            outputs.append(i.StoreOpening(id=self._installation, opening=opening))
        still = seen.epoch == self.epoch and all(order.terminal for order in self.state.orders.values())
        self.account = m.Account(
            id=m.derive_id("account", self._installation, now, self.epoch),
            at=now,
            balances=seen.balances,
            taker_fee_rate=seen.taker_fee_rate,
            maker_fee_rate=seen.maker_fee_rate,
            settled=still,
            ledger_sequence=seen.ledger_sequence,
            opening=self.state.opening,
        )
        return [*outputs, self.account]

    # -- building blocks

    def _place(self, order: Order, delay_seconds: float) -> i.Place:
        return i.Place(
            id=f"place-{order.order.client_order_id}",
            order=order.order,
            trading_revision=order.trading_revision,
            expires_at=order.expires_at,
            delay_seconds=delay_seconds,
        )

    def _inquiry(self, order: Order) -> Inquiry:
        return self._inquiries.setdefault(order.order.client_order_id, Inquiry())

    def _answered(self, client_order_id: str, question: str) -> None:
        """The question is no longer out, if it is the latest one."""
        inquiry = self._inquiries.get(client_order_id)
        if inquiry is not None and inquiry.id == question:
            inquiry.id = ""

    def _ask(self, order: Order, news: bool = False) -> list[m.Message]:
        """The next question about this order: at once after news, else later each time. One question is out at a time;
        one asked after news takes the place of an older one, whose answer then asks nothing more."""
        key, inquiry = order.order.client_order_id, self._inquiry(order)
        if news:
            inquiry.without_news = 0
        elif inquiry.id:
            return []
        delay = 0.0 if not inquiry.without_news else FIRST_QUESTION_SECONDS * 2.0 ** (inquiry.without_news - 1)
        if order.resting and inquiry.without_news:
            delay = self._config.poll_seconds
        inquiry.without_news = min(inquiry.without_news + 1, 20)
        inquiry.number += 1
        inquiry.id = f"ask-{key}-{inquiry.number}"
        delay = min(delay, max(LAST_QUESTION_SECONDS, self._config.poll_seconds if order.resting else 0))
        if order.status is OrderStatus.UNKNOWN:
            start, product_id = order.approved_at - START_MARGIN, order.order.product_id
            question = i.Find(
                id=inquiry.id, client_order_id=key, product_id=product_id, start=start, delay_seconds=delay
            )
            return [question]
        query = i.Query(id=inquiry.id, client_order_id=key, venue_order_id=order.venue_order_id, delay_seconds=delay)
        return [query]


def _forbidden(trading: m.TradingState, reduce_only: bool) -> Reason | None:
    if trading.state is m.Trading.HALTED:
        return Reason.TRADING_HALTED
    if trading.state is m.Trading.REDUCING and not reduce_only:
        return Reason.TRADING_REDUCING
    return None


def _immediate(order: Order) -> bool:
    """It does not rest: what does not fill at once is gone."""
    return order.order.time_in_force is m.TimeInForce.IOC


def _matches(order: Order, answer: i.OrderSeen) -> bool:
    """The venue speaks of our order, and its fills are ours: same product, side and order."""
    ours = (order.order.product_id, order.order.side, order.venue_order_id)
    told = answer.order
    return (told.product_id, told.side, told.venue_order_id) == ours and all(
        (fill.product_id, fill.side, fill.venue_order_id) == ours for fill in answer.fills
    )
