"""`perps-bot account snapshot`, `fills list` and `positions`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from cli.coinbase import Fills
from cli.orders import first
from cli.output import Json, jsonable
from libs.common import messages as m
from libs.common.errors import BusDown, OutcomeUnknown, Rejected
from services.execution.inputs import AccountParts


class Account(Protocol):
    async def account(self) -> AccountParts: ...


class Values(Protocol):
    """The part of `libs.common.nats_bus.NatsBus` that keeps last values."""

    async def last(self, kind: type[m.Message]) -> list[m.Message]: ...


async def snapshot(venue: Account) -> tuple[Json, dict[str, str]]:
    """Every part of the account, and why a part is missing: that one is null. Raises OutcomeUnknown without any."""
    parts = await venue.account()
    if all(getattr(parts, name) is None for name in ("balances", "fee_tier", "permissions", "portfolios")):
        reasons = list(dict.fromkeys(parts.unavailable.values()))
        if all(reason.startswith("HTTP_") for reason in reasons):  # readable, and a definite no
            raise Rejected(reasons[0])
        raise OutcomeUnknown("; ".join(reasons))
    shown: Json = jsonable(parts)
    return {**shown, "timestamp": datetime.now(UTC)}, parts.unavailable


async def list_fills(venue: Fills, order_id: str, product: str, since: datetime | None, limit: int) -> Json:
    """The newest fills, at most `limit`."""
    found, more = await first(venue.fills(order_id=order_id, product_id=product, since=since), limit)
    return {"fills": jsonable(found), "more": more}


async def positions(bus: Values) -> Json:
    """Risk's last figures. Raises BusDown where it has told none yet."""
    for figures in await bus.last(m.RiskFigures):
        assert isinstance(figures, m.RiskFigures)
        return {
            "positions": figures.positions,
            "equity": figures.equity,
            "realized_pnl": figures.realized_pnl,
            "unrealized_pnl": figures.unrealized_pnl,
            "fees": figures.fees,
            "drift": figures.drift,
            "trading": figures.trading,
            "told_at": figures.sent_at,
        }
    raise BusDown("risk has told no figures yet: look with `perps-bot status`")
