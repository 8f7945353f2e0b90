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
        self.opening: dict[str, Decimal] | None = None
        self.rules: dict[str, m.Product] = {}
        self.marks: dict[str, m.Mark] = {}
        self.feeds: dict[str, m.FeedState] = {}
        self.account: m.Account | None = None
        self.dropped: Counter[str] = Counter()  # by type of message

    def learn(self, message: m.Message) -> None:
        match message:
            case m.Mark():
                self._mark(message)
            case m.FeedState():
                self.feeds[message.product_id] = message
            case m.Product():
                self._product(message)
            case m.Account():
                self._account(message)
            case m.Installation():
                self.opening = message.opening

    def _mark(self, mark: m.Mark) -> None:
        prices = (mark.bid, mark.mid, mark.ask)
        if not all(price.is_finite() and price > 0 for price in prices) or mark.bid > mark.ask:
            self.dropped["Mark"] += 1
        elif mark.product_id not in self.marks or mark.at >= self.marks[mark.product_id].at:
            self.marks[mark.product_id] = mark

    def _product(self, product: m.Product) -> None:
        steps = (product.base_increment, product.quote_increment, product.price_increment)
        limits = (product.base_min_size, product.base_max_size, product.quote_min_size, product.quote_max_size)
        ours = product.quote_currency == self.quote_currency
        if ours and all(v.is_finite() for v in steps + limits) and all(step > 0 for step in steps):
            self.rules[product.product_id] = product
        else:
            self.dropped["Product"] += 1

    def _account(self, account: m.Account) -> None:
        amounts = [a for balance in account.balances.values() for a in (balance.available, balance.hold)]
        if not all(a.is_finite() for a in (*amounts, account.taker_fee_rate)) or account.taker_fee_rate < 0:
            self.dropped["Account"] += 1
        elif self.account is None or account.at >= self.account.at:
            self.account = account
            self.opening = self.opening if account.opening is None else account.opening

    def rules_of(self, product_id: str) -> m.Product | None:
        """None also for a product that is not ours to trade."""
        return self.rules.get(product_id) if product_id in self.products else None

    @property
    def prices(self) -> dict[str, Decimal]:
        return {product_id: mark.mid for product_id, mark in self.marks.items()}

    @property
    def currencies(self) -> list[str]:
        """The quote currency and the bases of the configured products; other balances are none of our business."""
        return [self.quote_currency, *(currencies(product_id)[0] for product_id in self.products)]

    @property
    def missing(self) -> str:
        """What has not been told yet; empty when everything has."""
        if self.opening is None:
            return "the opening balances are not known"
        if unknown := [p for p in self.products if p not in self.rules]:
            return f"no product rules of {', '.join(unknown)}"
        if self.account is None:
            return "no account snapshot"
        if unknown := [p for p in self.products if p not in self.marks]:
            return f"no mark of {', '.join(unknown)}"
        return ""
