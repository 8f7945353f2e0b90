"""Execution's decisions: which approval becomes an order, what the venue's answers mean, what to ask next.

Facts (order events, fills) change the state only when they come back from the ledger. Whatever the venue has not said
stays as it is, and is asked again: an outcome is never assumed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from libs.common import messages as m
from libs.common.messages import OrderStatus, Reason
from services.execution import inputs as i
from services.execution.account import AccountView, settled
from services.execution.config import ExecutionConfig
from services.execution.orders import ENDED_BY_VENUE, IN_FLIGHT, OPEN, TRANSITIONS, Order, PendingEdit
from services.execution.permission import editable, outdated, sized, unwanted
from services.execution.questions import Questions
from services.execution.reconciliation import compare
from services.execution.settlement import matches, settle, shows_edit, strange_terms
from services.execution.state import State

RETRY_SECONDS = 1.0


class ExecutionCore:
    """See `libs.common.shell.Core`."""

    def __init__(self, config: ExecutionConfig) -> None:
        self._config = config
        self.state = State()
        self.trading: m.TradingState | None = None
        self.rules: dict[str, m.Product] = {}
        self.account = AccountView()
        self.strangers = 0  # updates of orders that are not ours: shown, never touched
        self.anomalies = 0  # answers that contradict what we sent
        self._installation = ""
        self._started_at = m.EPOCH
        self.epoch = 0  # rises with every step of any order
        self._questions = Questions(config)
        self._begun: set[str] = set()  # orders and edits that are ours to send: their first step was made by us
        self._handlers = {
            m.Verdict: self._on_verdict,
            m.OrderEvent: self._on_event,
            m.Fill: self._on_fill,
            m.Adjustment: self._on_adjustment,
            m.TradingState: self._on_trading,
            m.Product: self._on_product,
            m.Installation: self._on_installation,
            m.Recovered: self._on_recovered,
            i.Starting: self._on_starting,
            i.Placed: self._on_placed,
            i.PlaceRefused: self._on_refused,
            i.PlaceNotSent: self._on_not_sent,
            i.PlaceUnknown: self._on_unknown,
            i.Edited: self._on_edited,
            i.EditRefused: self._on_edit_refused,
            i.EditUnknown: self._on_edit_unknown,
            i.Found: self._on_found,
            i.NotFound: self._on_not_found,
            i.AskFailed: self._on_ask_failed,
            i.OrderSeen: self._on_seen,
            i.UserUpdate: self._on_user,
            i.UserReconnected: self._on_user_reconnected,
            i.ReconcileDue: self._on_reconcile_due,
            i.Reconciled: self._on_reconciled,
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
        return self.account.lacks

    @property
    def busy(self) -> bool:
        orders = (order for order in self.state.orders.values() if not order.terminal)
        return any(
            not order.resting or self._questions.of(order).without_news < 2 or unwanted(order, self.trading)
            for order in orders
        )

    def dump(self) -> bytes:
        return msgspec.json.encode(self.state)

    def restore(self, raw: bytes) -> None:
        self.state = m.read(raw, State)

    # -- facts from the ledger

    def _on_verdict(self, verdict: m.Verdict, now: datetime) -> list[m.Message]:
        approved = verdict.order
        if approved is None:
            return []
        if verdict.edits:
            return self._on_edit(verdict, approved, now)
        known = self.state.orders.get(approved.client_order_id)
        if known is not None:  # told again: what came of it is on the ledger, or still to be begun
            return self._begin(known, now) if known.status is None else []
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
        wanted, state = order.order, self.state
        reason = outdated(self.trading, order.trading_revision, order.expires_at, wanted, now)
        quantity = wanted.quantity
        if reason is None:
            rules = self.rules.get(wanted.product_id)
            reason, quantity = sized(order, state.orders.values(), state.positions, rules)
        if reason is not None:
            return [order.event(OrderStatus.DENIED, reason, now)]
        self._begun.add(wanted.client_order_id)
        event = order.event(OrderStatus.SUBMITTING, "approved", now)
        return [msgspec.structs.replace(event, order=msgspec.structs.replace(wanted, quantity=quantity))]

    def _on_edit(self, verdict: m.Verdict, wanted: m.ApprovedOrder, now: datetime) -> list[m.Message]:
        order = self.state.orders.get(wanted.client_order_id)
        if order is None or order.terminal:
            return []  # it came to its end while risk decided
        if order.edit is not None and order.edit.id == verdict.signal_id:
            return self._begin_edit(order, order.edit, now) if order.status is not OrderStatus.PENDING_UPDATE else []
        if order.edit is not None or order.status not in OPEN:
            self.anomalies += 1  # risk approves one edit of an open order at a time
            return []
        order.edit = PendingEdit(
            id=verdict.signal_id,
            wanted=wanted,
            trading_revision=verdict.trading_revision,
            expires_at=verdict.expires_at,
        )
        return self._begin_edit(order, order.edit, now)

    def _begin_edit(self, order: Order, edit: PendingEdit, now: datetime) -> list[m.Message]:
        reason = outdated(self.trading, edit.trading_revision, edit.expires_at, edit.wanted, now)
        if reason is None:
            rules = self.rules.get(edit.wanted.product_id)
            reason = editable(order, edit.wanted, self.state.orders.values(), self.state.positions, rules)
        if reason is not None:
            return [order.edited(False, f"edit_refused: {reason}", now)]
        self._begun.add(edit.id)
        return [order.event(OrderStatus.PENDING_UPDATE, "edit approved", now)]

    def _on_event(self, event: m.OrderEvent, now: datetime) -> list[m.Message]:
        order = self.state.orders.get(event.client_order_id)
        before = order.status if order else None
        if order is None or not order.apply(event):
            return []
        self.epoch += 1
        if event.status not in TRANSITIONS[before]:
            self.anomalies += 1
        if order.terminal:
            self._questions.forget(event.client_order_id)
            self.state.end(order)
            return [i.FetchAccount(id="account")]
        if event.status is OrderStatus.SUBMITTING:
            if event.client_order_id in self._begun:
                return [self._place(order, 0)]
            self._sent_by_another(order, now)
            return [order.event(OrderStatus.UNKNOWN, "submitted by another process", now)]
        if event.status is OrderStatus.PENDING_UPDATE and before is not OrderStatus.PENDING_UPDATE:
            return self._send_edit(order, now)
        edited = event.edit_id and event.status is not OrderStatus.PENDING_UPDATE
        if event.status in (OrderStatus.UNKNOWN, OrderStatus.ACCEPTED) or edited:
            return [*unwanted(order, self.trading), *self._ask(order, news=True)]
        return []

    def _sent_by_another(self, order: Order, now: datetime) -> None:
        """A process beside us made this step: a request that it may have sent lives no longer than one of ours."""
        self._questions.sent_until(order, now + timedelta(seconds=self._config.jwt_seconds))

    def _send_edit(self, order: Order, now: datetime) -> list[m.Message]:
        edit = order.edit
        if edit is None or edit.id not in self._begun:
            self._sent_by_another(order, now)
            return self._ask(order, news=True)
        self._questions.sending(order)
        return [
            i.Edit(
                id=f"edit-{edit.id}",
                edit_id=edit.id,
                venue_order_id=order.venue_order_id,
                wanted=edit.wanted,
                trading_revision=edit.trading_revision,
                expires_at=edit.expires_at,
            )
        ]

    def _on_fill(self, fill: m.Fill, now: datetime) -> list[m.Message]:
        self.epoch += self.state.book(fill)
        return []

    def _on_adjustment(self, adjustment: m.Adjustment, now: datetime) -> list[m.Message]:
        """The drift that it explains is gone once the account is compared anew."""
        return [i.FetchAccount(id="account")] if self.state.adjust(adjustment) else []

    # -- standing facts

    def _on_trading(self, state: m.TradingState, now: datetime) -> list[m.Message]:
        if self.trading is not None and 0 < state.revision < self.trading.revision:
            return []
        self.trading = state
        return [cancel for order in self.state.orders.values() for cancel in unwanted(order, self.trading)]

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
        outputs: list[m.Message] = [i.FetchAccount(id="account"), *self._on_reconcile_due(message, now)]
        self._questions.forget_all()  # questions of the replay were never asked, its orders not sent by us
        self._begun.clear()
        dead_at = self._started_at + timedelta(seconds=self._config.jwt_seconds)
        for order in self.state.orders.values():
            if order.status is None:
                outputs += self._begin(order, now)
            elif order.status is OrderStatus.SUBMITTING:
                # The process before us may have sent it: that is for the venue to say.
                self._questions.sent_until(order, dead_at)
                outputs.append(order.event(OrderStatus.UNKNOWN, "found unanswered at start", now))
            elif not order.terminal:
                self._questions.sent_until(order, dead_at)
                outputs += [*unwanted(order, self.trading), *self._ask(order)]
                if order.edit is not None and order.status is not OrderStatus.PENDING_UPDATE:
                    outputs += self._begin_edit(order, order.edit, now)
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
        self._questions.sent_until(order, answer.token_expires_at)
        if order.status is OrderStatus.UNKNOWN:
            return []
        return [order.event(OrderStatus.UNKNOWN, answer.why, now)]

    def _waiting(self, client_order_id: str) -> Order | None:
        """The order if its POST is still unanswered; a late answer to a settled one is no news."""
        order = self.state.orders.get(client_order_id)
        return order if order and order.status in (OrderStatus.SUBMITTING, OrderStatus.UNKNOWN) else None

    # -- answers to an edit

    def _editing(self, answer: i.Edited | i.EditRefused | i.EditUnknown) -> Order | None:
        """The order if that edit of it is still under way."""
        order = self.state.orders.get(answer.client_order_id)
        ours = order is not None and order.edit is not None and order.edit.id == answer.edit_id
        return order if ours else None

    def _on_edited(self, answer: i.Edited, now: datetime) -> list[m.Message]:
        order = self._editing(answer)
        return [order.edited(True, "edited", now)] if order else []

    def _on_edit_refused(self, answer: i.EditRefused, now: datetime) -> list[m.Message]:
        order = self._editing(answer)
        return [order.edited(False, f"edit_refused: {answer.reason}", now)] if order else []

    def _on_edit_unknown(self, answer: i.EditUnknown, now: datetime) -> list[m.Message]:
        order = self._editing(answer)
        if order is None:
            return []
        self._questions.sent_until(order, answer.token_expires_at)
        return self._ask(order, news=True)

    def _edit_outcome(self, order: Order, answer: i.OrderSeen, now: datetime) -> list[m.Message]:
        """What the venue's order says of an edit whose answer is missing."""
        shown = shows_edit(order, answer.order)
        if shown:
            return [order.edited(True, "edited", now)]
        if shown is None:
            self.anomalies += answer.order.status_word != "EDIT_QUEUED"
        elif self._questions.never_arrived(order, answer.asked_at):
            return [order.edited(False, "edit_refused: never_arrived", now)]
        return []

    # -- answers to questions

    def _on_found(self, answer: i.Found, now: datetime) -> list[m.Message]:
        self._questions.answered(answer.client_order_id, answer.id)
        order = self._waiting(answer.client_order_id)
        if order is None:
            return []
        if not answer.order.venue_order_id:
            return self._ask(order)
        if answer.order.product_id != order.order.product_id or answer.order.side is not order.order.side:
            self.anomalies += 1
            return self._ask(order)
        return [order.event(OrderStatus.ACCEPTED, "found", now, venue_order_id=answer.order.venue_order_id)]

    def _on_not_found(self, answer: i.NotFound, now: datetime) -> list[m.Message]:
        """It never arrived once two complete listings, begun after its token had died, do not know it."""
        self._questions.answered(answer.client_order_id, answer.id)
        order = self.state.orders.get(answer.client_order_id)
        if order is None or order.status is not OrderStatus.UNKNOWN:
            return []
        if self._questions.never_arrived(order, answer.asked_at):
            return [order.event(OrderStatus.REJECTED, "never_arrived", now)]
        return self._ask(order)

    def _on_ask_failed(self, answer: i.AskFailed, now: datetime) -> list[m.Message]:
        self._questions.answered(answer.client_order_id, answer.id)
        order = self.state.orders.get(answer.client_order_id)
        if order is None or order.status in (None, *m.TERMINAL):
            return []
        return [*unwanted(order, self.trading), *self._ask(order)]

    def _on_seen(self, answer: i.OrderSeen, now: datetime) -> list[m.Message]:
        """Book what is new, and end the order only when every fill that the venue counts is booked."""
        latest = self._questions.answered(answer.client_order_id, answer.id)
        order = self.state.orders.get(answer.client_order_id)
        if order is None or order.status not in OPEN:
            return []
        if not matches(order, answer):
            self.anomalies += 1
            return self._ask(order)
        found = settle(order, answer, now)
        self.anomalies += found.odd + strange_terms(order, answer.order)
        order.shown = answer.order.quantity or Decimal(0)
        if found.ended:
            return found.facts
        edited: list[m.Message] = []
        if order.status is OrderStatus.PENDING_UPDATE and latest and not found.facts:
            edited = self._edit_outcome(order, answer, now)
        return [*found.facts, *edited, *unwanted(order, self.trading), *self._ask(order, news=found.news)]

    def _on_user(self, update: i.UserUpdate, now: datetime) -> list[m.Message]:
        if update.order.client_order_id not in self.state.orders:
            self.strangers += 1
            return self._on_reconcile_due(update, now)
        return self._mentioned(update.order, update.id, now)

    def _mentioned(self, told: i.VenueOrder, source: str, now: datetime) -> list[m.Message]:
        """The venue speaks of an order of ours without being asked: a reason to ask, never itself a fill."""
        order = self.state.orders.get(told.client_order_id)
        if order is None:
            return []
        if order.status in (OrderStatus.SUBMITTING, OrderStatus.UNKNOWN):
            return self._on_found(i.Found(id=source, client_order_id=told.client_order_id, order=told), now)
        news = told.filled_qty is not None and told.filled_qty != order.filled_qty
        if order.terminal and news:
            self.anomalies += 1
        if order.status in OPEN and (news or told.status in ENDED_BY_VENUE):
            return [*unwanted(order, self.trading), *self._ask(order, news=True)]
        return unwanted(order, self.trading)

    def _on_user_reconnected(self, message: i.UserReconnected, now: datetime) -> list[m.Message]:
        outputs: list[m.Message] = []
        for order in self.state.orders.values():
            if order.status in OPEN:
                outputs += self._ask(order, news=True)
        return outputs

    # -- the whole account

    def _on_reconcile_due(self, message: m.Message, now: datetime) -> list[m.Message]:
        since = self.state.watermark.since([*self.state.orders.values()], now)
        return [i.Reconcile(id="reconcile", since=since, until=now)]

    def _on_reconciled(self, answer: i.Reconciled, now: datetime) -> list[m.Message]:
        """Ask about whatever differs. What is not ours is shown, and explains a drift; it is never touched."""
        found = compare(answer.listing, self.state.orders)
        outputs: list[m.Message] = []
        self.anomalies += found.denied
        for told in found.mentioned:
            outputs += self._mentioned(told, answer.id, now)
        for order in found.ask:
            outputs += self._ask(order, news=True)
        for order, fill in found.late:
            self.anomalies += 1
            outputs.append(order.fill_of(fill, now))
        known = all(order.status not in IN_FLIGHT for order in self.state.orders.values())
        changed = self.account.compared(found, self.state.watermark, answer.until if known else None, now)
        return [*outputs, i.FetchAccount(id="account")] if changed else outputs

    def _on_account_due(self, message: i.AccountDue, now: datetime) -> list[m.Message]:
        return [i.FetchAccount(id="account")]

    def _on_account(self, seen: i.AccountSeen, now: datetime) -> list[m.Message]:
        outputs, balances = list[m.Message](), seen.parts.balances or {}
        if self.state.opening is None and not self.state.orders:
            self.state.opening = {currency: b.available + b.hold for currency, b in balances.items()}
            outputs.append(i.StoreOpening(id=self._installation, opening=self.state.opening))
        account = self.account.take(
            seen,
            identity=m.derive_id("account", self._installation, now, self.epoch),
            settled=seen.epoch == self.epoch and settled(seen, self.state.orders.values()),
            opening=self.state.opening,
            mark=self.state.watermark,
            now=now,
        )
        return [*outputs, account]

    @property
    def rests(self) -> bool:
        return any(order.resting for order in self.state.orders.values())

    # -- building blocks

    def _place(self, order: Order, delay_seconds: float) -> i.Place:
        return i.Place(
            id=f"place-{order.order.client_order_id}",
            order=order.order,
            trading_revision=order.trading_revision,
            expires_at=order.expires_at,
            delay_seconds=delay_seconds,
        )

    def _ask(self, order: Order, news: bool = False) -> list[m.Message]:
        return [*self._questions.ask(order, news)]
