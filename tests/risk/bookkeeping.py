"""What a bookkeeper with a pencil makes of fills, adjustments and marks. Shares no code with the books of risk."""

from __future__ import annotations

from datetime import datetime
from decimal import Context, Decimal, localcontext

from msgspec import Struct

from libs.common import messages as m

ZERO = Decimal(0)
Fact = m.Fill | m.Adjustment | m.Mark


class ByHand(Struct, frozen=True):
    """Base currency by product; quote currency; a loss is positive."""

    positions: dict[str, Decimal]
    balances: dict[str, Decimal]
    fees: Decimal
    day_result: Decimal
    equity: Decimal


def by_hand(opening: dict[str, Decimal], facts: list[Fact], now: datetime) -> ByHand:
    """Every trade, in the order in which it was told, on one side of midnight or the other."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    balances, fees = dict(opening), ZERO
    positions: dict[str, Decimal] = {}
    at_midnight: dict[str, Decimal] = {}
    cash_today = ZERO  # of trades, so without what was paid in or out
    with localcontext(Context(prec=60)):
        for fact in facts:
            if isinstance(fact, m.Mark):
                continue
            product_id, size, cash, when = _trade(fact)
            if isinstance(fact, m.Adjustment):
                for currency, flow in fact.flows.items():
                    balances[currency] = balances.get(currency, ZERO) + flow
            else:
                fees += fact.fee
            if not product_id:
                continue
            base = product_id.removesuffix("-USD")
            balances[base] = balances.get(base, ZERO) + size
            balances["USD"] += cash
            positions[product_id] = positions.get(product_id, ZERO) + size
            if when < midnight:
                at_midnight[product_id] = at_midnight.get(product_id, ZERO) + size
            else:
                cash_today += cash
        marks = {f.product_id: f.mid for f in sorted(facts, key=lambda fact: fact.at) if isinstance(f, m.Mark)}
        value = sum((quantity * marks[p] for p, quantity in positions.items()), ZERO)
        then = sum((q * _price_before(midnight, p, facts) for p, q in at_midnight.items() if q), ZERO)
        return ByHand(positions, balances, fees, value + cash_today - then, balances["USD"] + value)


def _trade(fact: m.Fill | m.Adjustment) -> tuple[str, Decimal, Decimal, datetime]:
    """Product, signed size, what it brought, and when."""
    if isinstance(fact, m.Adjustment):
        return fact.product_id, fact.size, -fact.size * fact.price, fact.at
    sign = 1 if fact.side is m.Side.BUY else -1
    value = fact.price * fact.size if fact.value is None else fact.value
    return fact.product_id, sign * fact.size, -sign * value - fact.fee, fact.trade_time


def _price_before(midnight: datetime, product_id: str, facts: list[Fact]) -> Decimal:
    """The last price of the day before, of a mark or of a trade; marks count from the first trade on."""
    found, at, traded = ZERO, None, False
    for fact in facts:
        if fact.product_id != product_id:
            continue
        traded = traded or not isinstance(fact, m.Mark)
        price = fact.mid if isinstance(fact, m.Mark) else fact.price
        when = fact.trade_time if isinstance(fact, m.Fill) else fact.at
        if traded and when < midnight and (at is None or when >= at):
            found, at = price, when
    return found
