"""Rules about what the services tell: every figure is exact or absent, every price was one of the venue."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from libs.common import messages as m
from sim.world.checks import ROUNDING, Checks
from sim.world.facts import ZERO

PRICE_GRACE_SECONDS = 3.0  # the way of a slow frame


def on_mark(checks: Checks, mark: m.Mark, epoch: datetime) -> None:
    """A confirmed price is one that held at the time of its confirmation, less the way of a frame."""
    at = (mark.at - epoch).total_seconds()
    held = checks.facts.priced(mark.product_id, at - PRICE_GRACE_SECONDS, at + 0.5)
    calm = checks.around.now > checks.around.clocks_until
    checks.require(mark.last in held or not calm, 5, f"{mark.product_id} is told to cost {mark.last} at {at:.2f} s")


def on_figures(checks: Checks, told: m.RiskFigures, whole_day: bool) -> None:
    """Every figure equals what the ledger gives at its sequence, or is absent. `whole_day`: nothing was ever before the
    day began, so that the daily loss is that of everything."""
    facts, sequence = checks.facts, told.ledger_sequence
    changes, held = dict(facts.changes(sequence)), facts.held(sequence)
    if changes.get("USD", ZERO) != told.books.get("USD", ZERO) - facts.opening.get("USD", ZERO):
        # Risk knows of its own adjustment before it comes back to it with what was written in between.
        for at, flows in facts.adjusted:
            if at > sequence:
                changes |= {name: changes.get(name, ZERO) + amount for name, amount in flows.items()}
    for currency, amount in told.books.items():
        true = facts.opening.get(currency, ZERO) + changes.get(currency, ZERO)
        checks.require(amount == true, 3, f"books of {currency} at {sequence}: {amount}, by the ledger {true}")
    for product_id, size in held.items():
        quantity = told.positions[product_id].quantity if product_id in told.positions else ZERO
        why = f"position of {product_id} at {sequence}: {quantity}, by the ledger {size}"
        checks.require(quantity == size, 3, why)
    unmarked = [p for p, position in told.positions.items() if position.quantity and position.mark_price is None]
    if unmarked:
        known = (told.equity, told.exposure, told.daily_loss, told.unrealized_pnl)
        checks.require(not any(figure is not None for figure in known), 8, f"figures {known} without {unmarked[0]}")
    elif told.equity is not None:
        _worth(checks, told, changes.get("USD", ZERO), whole_day)
    if sequence == facts.last_sequence:
        orders = facts.open_orders()
        true = sum((order.left for order in orders if order.approved and order.approved.side is m.Side.BUY), ZERO)
        why = f"{told.reserved} is reserved at {sequence}, by the ledger {true}"
        checks.require(abs(told.reserved - true) <= ROUNDING, 10, why)


def _worth(checks: Checks, told: m.RiskFigures, cash: Decimal, whole_day: bool) -> None:
    facts = checks.facts
    value = sum((p.quantity * (p.mark_price or ZERO) for p in told.positions.values()), ZERO)
    true = facts.opening.get("USD", ZERO) + cash + value
    checks.require(told.equity == true, 8, f"equity {told.equity}, by the ledger {true}")
    clocks_agree = checks.around.now > checks.around.clocks_until  # else risk's day may not be ours
    if whole_day and clocks_agree and told.ledger_sequence == facts.last_sequence:
        lost = max(ZERO, -(cash - facts.flows + value))
        checks.require(told.daily_loss == lost, 7, f"daily loss {told.daily_loss}, by the ledger {lost}")
