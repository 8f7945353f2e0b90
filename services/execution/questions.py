"""What to ask the venue about an order next, and how soon. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from libs.common.messages import EPOCH, OrderStatus
from services.execution import inputs as i
from services.execution.config import ExecutionConfig
from services.execution.orders import Order

START_MARGIN = timedelta(minutes=10)
FIRST_QUESTION_SECONDS = 0.05
LAST_QUESTION_SECONDS = 5.0
LISTINGS_NEEDED = 2


class Inquiry(Struct):
    """How far we are with asking about one order. Not kept over a restart; times are wall time."""

    id: str = ""  # of the question that is out; answers to older ones ask nothing new
    number: int = 0
    without_news: int = 0  # in a row, for the backoff
    token_expires_at: datetime = EPOCH  # of the request whose outcome is not known
    answers_without: int = 0  # complete ones, asked after that, in which the venue does not know of it


class Questions:
    """One question per order is out at a time."""

    def __init__(self, config: ExecutionConfig) -> None:
        self._config = config
        self._inquiries: dict[str, Inquiry] = {}

    def forget_all(self) -> None:
        self._inquiries.clear()

    def forget(self, client_order_id: str) -> None:
        self._inquiries.pop(client_order_id, None)

    def of(self, order: Order) -> Inquiry:
        return self._inquiries.setdefault(order.order.client_order_id, Inquiry())

    def answered(self, client_order_id: str, question: str) -> bool:
        """The question is no longer out, if it is the latest one; False for an older one."""
        inquiry = self._inquiries.get(client_order_id)
        latest = inquiry is not None and inquiry.id == question
        if inquiry is not None and latest:
            inquiry.id = ""
        return latest

    def sending(self, order: Order) -> None:
        """A request about this order is on its way: what was asked before proves nothing about it, and as long as its
        outcome is not unknown, no answer proves that it never came."""
        inquiry = self.of(order)
        inquiry.id, inquiry.token_expires_at, inquiry.answers_without = "", EPOCH, 0

    def sent_until(self, order: Order, token_expires_at: datetime) -> None:
        """A request about this order has an unknown outcome; the venue takes it until its token dies."""
        inquiry = self.of(order)
        inquiry.token_expires_at = max(inquiry.token_expires_at, token_expires_at)
        inquiry.answers_without = 0

    def never_arrived(self, order: Order, asked_at: datetime) -> bool:
        """Count one more complete answer that does not know of the request: two of them, asked after its token had died
        (and a margin), prove that it never came."""
        margin, inquiry = timedelta(seconds=self._config.jwt_margin_seconds), self.of(order)
        if inquiry.token_expires_at > EPOCH and asked_at > inquiry.token_expires_at + margin:
            inquiry.answers_without += 1
        return inquiry.answers_without >= LISTINGS_NEEDED

    def ask(self, order: Order, news: bool = False) -> list[i.Find | i.Query]:
        """The next question: at once after news, else later each time. One asked after news takes the place of an older
        one, whose answer then asks nothing more."""
        key, inquiry = order.order.client_order_id, self.of(order)
        if news:
            inquiry.without_news = 0
        elif inquiry.id:
            return []
        delay = self._delay(order, inquiry.without_news)
        inquiry.without_news = min(inquiry.without_news + 1, 20)
        inquiry.number += 1
        inquiry.id = f"ask-{key}-{inquiry.number}"
        if order.status is OrderStatus.UNKNOWN:
            start, product_id = order.approved_at - START_MARGIN, order.order.product_id
            return [i.Find(id=inquiry.id, client_order_id=key, product_id=product_id, start=start, delay_seconds=delay)]
        return [i.Query(id=inquiry.id, client_order_id=key, venue_order_id=order.venue_order_id, delay_seconds=delay)]

    def _delay(self, order: Order, without_news: int) -> float:
        if not without_news:
            return 0.0
        if order.resting and order.status is not OrderStatus.PENDING_UPDATE:
            return self._config.poll_seconds
        return min(FIRST_QUESTION_SECONDS * 2.0 ** (without_news - 1), LAST_QUESTION_SECONDS)
