"""Risk's figures for everybody else; what needs a mark or the opening balances is None without them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from libs.common.messages import Mark, Position, Product, RiskFigures, Trading
from services.risk.books import ZERO, Holding, share
from services.risk.knowledge import Knowledge
from services.risk.state import State

ONE = Decimal(1)


def figures(state: State, known: Knowledge, limit: Decimal, trading: Trading | None, now: datetime) -> RiskFigures:
    """Everything that risk knows about money, at market time `now`."""
    prices = known.prices
    positions = {
        product_id: position(holding, known.marks.get(product_id), known.rules.get(product_id))
        for product_id, holding in sorted(state.books.holdings.items())
    }
    unrealized = [p.unrealized_pnl for p in positions.values() if p.unrealized_pnl is not None]
    return RiskFigures(
        id=f"risk-{now.isoformat()}",
        at=now,
        daily_loss_limit=limit,
        daily_loss=state.books.daily_loss(prices),
        equity=state.equity(known),
        exposure=state.books.exposure(prices),
        reserved=state.reservations.total(),
        realized_pnl=sum((p.realized_pnl for p in positions.values()), ZERO),
        fees=sum((p.fees for p in positions.values()), ZERO),
        unrealized_pnl=sum(unrealized, ZERO) if len(unrealized) == len(positions) else None,
        positions=positions,
        books=state.balances(known),
        drift=state.drift,
        trading=Trading.HALTED if trading is None else trading,  # not known acts as halted
        ledger_sequence=state.ledger_sequence,
    )


def position(holding: Holding, mark: Mark | None, product: Product | None) -> Position:
    quantity = holding.quantity
    unrealized = None if mark is None else quantity * mark.mid - holding.cost
    return Position(
        quantity=quantity,
        avg_price=share(holding.cost, ONE, quantity) if quantity else None,
        realized_pnl=holding.realized,
        fees=holding.fees,
        mark_price=mark.mid if mark else None,
        unrealized_pnl=unrealized if quantity else ZERO,
        dust=_too_small_to_sell(abs(quantity), mark, product),
    )


def _too_small_to_sell(quantity: Decimal, mark: Mark | None, product: Product | None) -> bool:
    """Held, but below the venue's minimum: the product counts as flat."""
    if not quantity or product is None:
        return False
    return quantity < product.base_min_size or (mark is not None and quantity * mark.mid < product.quote_min_size)
