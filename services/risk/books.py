"""What we hold and what it earned, from fills alone: exact, per product, whole and since 00:00 UTC.

Realised profit is against average cost and without fees, which are counted apart. The identity
`realized - fees - cost == cash` holds to the last digit: where a part of the cost must be rounded, the rest keeps what
the part has lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Context, Decimal

from msgspec import Struct, field

from libs.common.messages import EPOCH, Adjustment, Baseline, Fill, Mark, Position, Product, Side

ZERO = Decimal(0)
# Sums of years with the venue's 16 decimals stay below this; the default of 28 digits would round one day.
EXACT = Context(prec=60)
FINEST = Decimal("1E-12")
# Execution writes a fill once, and the shell hands the ledger on once; this memory covers what slips past both.
FILLS_REMEMBERED = 5_000
LATEST = timedelta(microseconds=1)  # before midnight


def share(total: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """`part / whole` of `total`; rounded to 12 decimals unless it is all of it."""
    return total if part == whole else (total * part / whole).quantize(FINEST)


def currencies(product_id: str) -> tuple[str, str]:
    """Base and quote currency."""
    base, _, quote = product_id.rpartition("-")
    return base, quote


class Holding(Struct):
    """One product. `cost` is what the quantity was bought for, without fees; `cash` is all that flowed to us.

    The `day_` figures are those of the last midnight. A price is the last one known: of a mark or of a fill.
    """

    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    realized: Decimal = ZERO
    fees: Decimal = ZERO
    cash: Decimal = ZERO
    price: Decimal = ZERO
    price_at: datetime = EPOCH
    day_quantity: Decimal = ZERO
    day_cash: Decimal = ZERO
    day_price: Decimal = ZERO
    day_price_at: datetime = EPOCH

    def trade(self, size: Decimal, price: Decimal, fee: Decimal, value: Decimal) -> None:
        """Book one fill; `size` and `value` (quote currency, without the fee) are negative for a sale. More sold than
        held is a short position, shown as it is."""
        closed = out = ZERO
        if size * self.quantity < 0:
            closed = min(size, -self.quantity, key=abs)
            released = share(self.cost, -closed, self.quantity)
            self.cost -= released
            out = value if closed == size else closed * price
            self.realized -= out + released
        self.cost += value - out
        self.quantity += size
        self.fees += fee
        self.cash -= value + fee

    def see(self, price: Decimal, at: datetime, midnight: datetime) -> None:
        """Take the price of a mark or a fill. One of yesterday that comes late still belongs to midnight."""
        if at < midnight and at >= self.day_price_at:
            self.day_price, self.day_price_at = price, at
        if at >= self.price_at:
            self.price, self.price_at = price, at

    def day_result(self, price: Decimal) -> Decimal:
        """Since midnight: realised - fees + change of what is unrealised."""
        return self.cash + self.quantity * price - self.day_cash - self.day_quantity * self.day_price

    def position(self, mark: Mark | None, product: Product | None) -> Position:
        """For everybody else. What is held, but cannot be sold for the venue's minima, is dust: the product counts as
        flat. Measured as the rule `dust` does it: in whole increments, at the bid."""
        held, value = abs(self.quantity), self.quantity * mark.mid if mark else None
        saleable = held // product.base_increment * product.base_increment if product else held
        small = product is not None and (
            saleable < product.base_min_size or (mark is not None and saleable * mark.bid < product.quote_min_size)
        )
        return Position(
            quantity=self.quantity,
            avg_price=share(self.cost, Decimal(1), self.quantity) if held else None,
            realized_pnl=self.realized,
            fees=self.fees,
            mark_price=mark.mid if mark else None,
            unrealized_pnl=(None if value is None else value - self.cost) if held else ZERO,
            dust=bool(held) and small,
        )


class Worth(Struct, frozen=True):
    """All holdings at the marks."""

    value: Decimal  # short positions are negative
    exposure: Decimal
    unrealized: Decimal
    day_result: Decimal  # since 00:00 UTC, fees included; deposits and withdrawals never enter

    @property
    def daily_loss(self) -> Decimal:
        return max(ZERO, -self.day_result)


class Books(Struct):
    """All products. `fill_ids` are the venue's entry ids that are booked, oldest first."""

    midnight: datetime = EPOCH  # at which the day began, in UTC
    holdings: dict[str, Holding] = field(default_factory=dict)
    fill_ids: dict[str, int] = field(default_factory=dict)

    def roll(self, now: datetime) -> None:
        """Begin a new UTC day when market time has reached it. Days never go back."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if midnight > self.midnight:
            self.midnight = midnight
            for holding in self.holdings.values():
                holding.day_quantity, holding.day_cash = holding.quantity, holding.cash
                holding.day_price, holding.day_price_at = holding.price, holding.price_at

    def book(self, fill: Fill) -> bool:
        """False when this fill is known already."""
        if fill.id in self.fill_ids:
            return False
        self.fill_ids[fill.id] = 1
        if len(self.fill_ids) > FILLS_REMEMBERED:
            del self.fill_ids[next(iter(self.fill_ids))]
        sign = 1 if fill.side is Side.BUY else -1
        size, value = sign * fill.size, sign * fill.quote_value
        self._trade(fill.product_id, fill.trade_time, size, fill.price, fill.fee, value)
        return True

    def _trade(
        self, product_id: str, at: datetime, size: Decimal, price: Decimal, fee: Decimal, value: Decimal
    ) -> None:
        holding = self.holdings.setdefault(product_id, Holding())
        holding.trade(size, price, fee, value)
        if at < self.midnight:
            # Told late, after a restart over midnight: it was part of the day before.
            holding.day_quantity += size
            holding.day_cash -= value + fee
        holding.see(price, at, self.midnight)

    def adjust(self, adjustment: Adjustment) -> None:
        """Book what an operator says of a position: like a fill without a fee."""
        size, price = adjustment.size, adjustment.price
        self._trade(adjustment.product_id, adjustment.at, size, price, ZERO, size * price)

    def start_day(self, baseline: Baseline) -> None:
        """Take the prices of a midnight as they were written down: nothing that is told late is nearer to it."""
        for product_id, price in baseline.prices.items():
            if product_id in self.holdings:
                self.holdings[product_id].see(price, baseline.midnight - LATEST, self.midnight)

    def see(self, product_id: str, price: Decimal, at: datetime) -> None:
        """Remember the price of what is held, for midnight."""
        if product_id in self.holdings:
            self.holdings[product_id].see(price, at, self.midnight)

    def unmarked(self, prices: Mapping[str, Decimal]) -> list[str]:
        """Products that are held and have no mark: with them, no figure that needs marks is known."""
        return sorted(p for p, holding in self.holdings.items() if holding.quantity and p not in prices)

    def worth(self, prices: Mapping[str, Decimal]) -> Worth | None:
        """None where something is held that has no mark."""
        if self.unmarked(prices):
            return None
        # What is not held needs no mark: any price will do.
        priced = [(holding, prices.get(p, ZERO)) for p, holding in self.holdings.items()]
        return Worth(
            value=sum((h.quantity * price for h, price in priced), ZERO),
            exposure=sum((abs(h.quantity) * price for h, price in priced), ZERO),
            unrealized=sum((h.quantity * price - h.cost for h, price in priced), ZERO),
            day_result=sum((h.day_result(price) for h, price in priced), ZERO),
        )
