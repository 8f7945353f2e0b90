"""What we hold and what it earned, from fills alone: exact, per product, whole and since 00:00 UTC.

Realised profit is against average cost and without fees, which are counted apart. The identity
`realized - fees - cost == cash` holds to the last digit: where a part of the cost must be rounded, the rest keeps what
the part has lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal

from msgspec import Struct, field

from libs.common.messages import EPOCH, Fill, Side

ZERO = Decimal(0)
# Sums of years with the venue's 16 decimals stay below this; the default of 28 digits would round one day.
EXACT = Context(prec=60)
FINEST = Decimal("1E-12")
# Execution writes a fill once, and the shell hands the ledger on once; this memory covers what slips past both.
FILLS_REMEMBERED = 5_000


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

    def trade(self, size: Decimal, price: Decimal, fee: Decimal) -> None:
        """Book one fill; `size` is negative for a sale. More sold than held is a short position, shown as it is."""
        closing = min(abs(size), abs(self.quantity)) if size * self.quantity < 0 else ZERO
        if closing:
            released = share(self.cost, closing, abs(self.quantity))
            closed = closing if size > 0 else -closing
            self.cost -= released
            self.quantity += closed
            self.realized -= closed * price + released
            opened = size - closed
        else:
            opened = size
        self.cost += opened * price
        self.quantity += opened
        self.fees += fee
        self.cash -= size * price + fee

    def see(self, price: Decimal, at: datetime, midnight: datetime) -> None:
        """Take the price of a mark or a fill. One of yesterday that comes late still belongs to midnight."""
        if at < midnight and at >= self.day_price_at:
            self.day_price, self.day_price_at = price, at
        if at >= self.price_at:
            self.price, self.price_at = price, at

    def roll(self) -> None:
        self.day_quantity, self.day_cash = self.quantity, self.cash
        self.day_price, self.day_price_at = self.price, self.price_at

    def day_result(self, price: Decimal) -> Decimal:
        """Since midnight: realised - fees + change of what is unrealised."""
        return self.cash + self.quantity * price - self.day_cash - self.day_quantity * self.day_price


class Books(Struct):
    """All products. `fill_ids` are the venue's entry ids that are booked, oldest first."""

    day: date = date.min
    holdings: dict[str, Holding] = field(default_factory=dict)
    fill_ids: dict[str, int] = field(default_factory=dict)

    def roll(self, now: datetime) -> None:
        """Begin a new UTC day when market time has reached it. Days never go back."""
        if now.date() > self.day:
            self.day = now.date()
            for holding in self.holdings.values():
                holding.roll()

    def book(self, fill: Fill) -> bool:
        """False when this fill is known already."""
        if fill.id in self.fill_ids:
            return False
        self.fill_ids[fill.id] = 1
        if len(self.fill_ids) > FILLS_REMEMBERED:
            del self.fill_ids[next(iter(self.fill_ids))]
        holding = self.holdings.setdefault(fill.product_id, Holding())
        size = fill.size if fill.side is Side.BUY else -fill.size
        holding.trade(size, fill.price, fill.fee)
        if fill.trade_time < self._midnight:
            # Told late, after a restart over midnight: it was part of the day before.
            holding.day_quantity += size
            holding.day_cash -= size * fill.price + fill.fee
        holding.see(fill.price, fill.trade_time, self._midnight)
        return True

    def see(self, product_id: str, price: Decimal, at: datetime) -> None:
        """Remember the price of what is held, for midnight."""
        if product_id in self.holdings:
            self.holdings[product_id].see(price, at, self._midnight)

    @property
    def _midnight(self) -> datetime:
        return datetime.combine(self.day, time(0), UTC)

    def held(self, product_id: str) -> Decimal:
        holding = self.holdings.get(product_id)
        return holding.quantity if holding else ZERO

    def unmarked(self, prices: Mapping[str, Decimal]) -> list[str]:
        """Products that are held and have no mark: with them, no figure that needs marks is known."""
        return sorted(p for p, holding in self.holdings.items() if holding.quantity and p not in prices)

    def exposure(self, prices: Mapping[str, Decimal]) -> Decimal | None:
        """Value of all positions at the marks."""
        if self.unmarked(prices):
            return None
        return sum((abs(h.quantity) * prices[p] for p, h in self.holdings.items() if h.quantity), ZERO)

    def day_result(self, prices: Mapping[str, Decimal]) -> Decimal | None:
        """Profit or loss since 00:00 UTC, fees taken off; deposits and withdrawals never enter."""
        if self.unmarked(prices):
            return None
        return sum((h.day_result(prices.get(p, ZERO)) for p, h in self.holdings.items()), ZERO)

    def daily_loss(self, prices: Mapping[str, Decimal]) -> Decimal | None:
        result = self.day_result(prices)
        return None if result is None else max(ZERO, -result)

    def equity(self, quote: str, opening: Mapping[str, Decimal], prices: Mapping[str, Decimal]) -> Decimal | None:
        """Cash in the quote currency and our positions at the marks; what was there before us is not ours."""
        if self.unmarked(prices):
            return None
        positions = sum((h.quantity * prices[p] for p, h in self.holdings.items() if h.quantity), ZERO)
        return self.balances(opening, [quote])[quote] + positions

    def balances(self, opening: Mapping[str, Decimal], wanted: Iterable[str]) -> dict[str, Decimal]:
        """Per currency: opening balance + fills. A currency that the venue did not list at the opening was empty."""
        flows: dict[str, Decimal] = {}
        for product_id, holding in self.holdings.items():
            base, quote = currencies(product_id)
            flows[base] = flows.get(base, ZERO) + holding.quantity
            flows[quote] = flows.get(quote, ZERO) + holding.cash
        return {name: opening.get(name, ZERO) + flows.get(name, ZERO) for name in sorted({*wanted, *flows})}
