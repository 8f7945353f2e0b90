"""The account as the venue tells it: balances and the parts around them, and what of it is not ours. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from libs.common import messages as m
from services.execution.inputs import AccountSeen
from services.execution.orders import Order
from services.execution.reconciliation import Findings, Watermark


class AccountView:
    """The last snapshot and the last complete comparison; nothing of it is kept over a restart."""

    def __init__(self) -> None:
        self.snapshot: m.Account | None = None
        self.foreign_orders: tuple[m.ForeignOrder, ...] | None = None  # open ones; None: not listed yet
        self.reconciled_at: datetime | None = None

    @property
    def lacks(self) -> str:
        """Why nobody should rely on it yet."""
        if self.snapshot is None:
            return "account not known"
        if self.snapshot.permissions is not None and not self.snapshot.permissions.can_trade:
            return "the key may not trade"
        return "" if self.reconciled_at else "not yet compared with the venue's orders and fills"

    def compared(self, found: Findings, mark: Watermark, until: datetime | None, now: datetime) -> bool:
        """Take up what is not ours; True where that has changed. `until` is None while an order of ours may be at the
        venue under an id that we do not know yet: its fills would pass for somebody else's."""
        counted = [fill for fill in found.foreign_fills if mark.foreign(fill)] if until else []
        if until:
            mark.advance(until)
        foreign = tuple(found.foreign_orders)
        changed = bool(counted) or foreign != self.foreign_orders
        self.foreign_orders, self.reconciled_at = foreign, now
        return changed

    def take(
        self,
        seen: AccountSeen,
        *,
        identity: str,
        settled: bool,
        opening: dict[str, Decimal] | None,
        mark: Watermark,
        now: datetime,
    ) -> m.Account:
        """The message that tells the account as it is now."""
        parts = seen.parts
        assert parts.balances is not None, "without balances there is no snapshot"
        rates = parts.fee_tier or self.snapshot  # the last known ones hold until others are told
        self.snapshot = m.Account(
            id=identity,
            at=now,
            balances=parts.balances,
            taker_fee_rate=rates.taker_fee_rate if rates else None,
            maker_fee_rate=rates.maker_fee_rate if rates else None,
            settled=settled,
            ledger_sequence=seen.ledger_sequence,
            opening=opening,
            fee_tier=parts.fee_tier,
            permissions=parts.permissions,
            portfolios=parts.portfolios,
            limits=parts.limits,
            unavailable=parts.unavailable,
            foreign_orders=self.foreign_orders,
            foreign_fills=mark.foreign_fills,
            reconciled_at=self.reconciled_at,
        )
        return self.snapshot


def settled(seen: AccountSeen, orders: Iterable[Order]) -> bool:
    """No fill can be in the balances that is not in the books: what fills only grows, and of no order did the venue
    count more, after the balances had been read, than we had booked before."""
    return all(
        order.terminal or (order.resting and seen.resting.get(order.order.client_order_id) == order.filled_qty)
        for order in orders
    )
