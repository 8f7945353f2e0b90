"""The last values that others tell: product rules, marks, feed states, the account, the opening balances.

None of it is kept over a restart: all of it can be read again. What cannot be true is dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from libs.common import messages as m
from services.risk.books import currencies


class Knowledge:
    """`opening` is None until the balances of the first start are recorded: at the very first start, execution does
    so when we are running already, and tells it with the account."""

    def __init__(self, products: tuple[str, ...], quote_currency: str) -> None:
        self.products = products
        self.quote_currency = quote_currency
        self.installation_id = ""
        self.opening: dict[str, Decimal] | None = None
        self.rules: dict[str, m.Product] = {}
        self.marks: dict[str, m.Mark] = {}
        self.feeds: dict[str, m.FeedState] = {}
        self.account: m.Account | None = None
        self.dropped: Counter[str] = Counter()  # by type of message

    def learn(self, message: m.Message) -> bool:
        """False when it cannot be true. It then changes nothing; a fill that is lost this way shows as drift."""
        if not self._believable(message):
            self.dropped[type(message).__name__] += 1
            return False
        match message:
            case m.Mark(product_id=product_id) if _as_new(message, self.marks.get(product_id)):
                self.marks[product_id] = message
            case m.FeedState():
                self.feeds[message.product_id] = message
            case m.Product():
                self.rules[message.product_id] = message
            case m.Account() if _as_new(message, self.account):
                self.account = message
                self.opening = self.opening if message.opening is None else message.opening
            case m.Installation():
                self.installation_id, self.opening = message.id, message.opening
        return True

    def _believable(self, message: m.Message) -> bool:
        """The bus lets nothing in that is not finite."""
        match message:
            case m.Mark():
                return 0 < message.bid <= message.ask and message.mid > 0
            case m.Product():
                steps = (message.base_increment, message.quote_increment, message.price_increment)
                return message.quote_currency == self.quote_currency and min(steps) > 0
            case m.Account():
                return message.taker_fee_rate is None or message.taker_fee_rate >= 0
            case m.OrderEvent():
                return message.filled_qty >= 0
            case m.Fill():
                return message.price > 0 and message.size > 0
        return True

    @property
    def prices(self) -> dict[str, Decimal]:
        return {product_id: mark.mid for product_id, mark in self.marks.items()}

    @property
    def currencies(self) -> list[str]:
        """The quote currency and the bases of the configured products; other balances are none of our business."""
        return [self.quote_currency, *(currencies(product_id)[0] for product_id in self.products)]


def _as_new(message: m.Message, before: m.Message | None) -> bool:
    return before is None or message.at >= before.at
