"""Messages for tests of the common library."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from libs.common import messages as m

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def mark(price: str = "100", product_id: str = "BTC-USD") -> m.Mark:
    value = Decimal(price)
    return m.Mark(
        id=f"mark-{price}",
        at=NOW,
        product_id=product_id,
        bid=value - 1,
        ask=value + 1,
        last=value,
        mid=value,
        price_time=NOW,
        sequence=1,
        received_at=NOW,
    )


def verdict(name: str) -> m.Verdict:
    return m.Verdict(
        id=f"verdict-{name}",
        at=NOW,
        product_id="BTC-USD",
        signal_id=name,
        reason=m.Reason.MARK_STALE,
        detail="",
        trading_revision=1,
        expires_at=NOW,
    )


def fill(name: str, order: str = "o1") -> m.Fill:
    return m.Fill(
        id=name,
        at=NOW,
        product_id="BTC-USD",
        client_order_id=order,
        venue_order_id="v",
        trade_id="t",
        side=m.Side.BUY,
        price=Decimal(100),
        size=Decimal("0.1"),
        fee=Decimal("0.1"),
        liquidity="TAKER",
        trade_time=NOW,
    )
