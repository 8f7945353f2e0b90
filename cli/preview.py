"""`perps-bot orders preview`: what the venue says that an order would do, without placing it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal

from msgspec import Struct

from cli.coinbase import Previews
from cli.errors import Refused
from cli.order_flags import as_order
from cli.output import Json, jsonable
from libs.common import messages as m
from libs.common.errors import OutcomeUnknown
from services.execution.inputs import Preview

FIGURES_AGE = timedelta(seconds=30)  # risk tells its figures every second
ZERO = Decimal(0)
NOT_SHOWN = ("request_id", "edits")  # a preview has neither


class Holding(Struct, frozen=True):
    """What a reduce-only order may sell at most. `increment` is None where it is not known."""

    quantity: Decimal
    source: str  # bot: its position; venue: the account's available balance
    increment: Decimal | None = None


Held = Callable[[str], Awaitable[Holding | None]]  # the bot's holding of a product; None: not known


async def preview_order(venue: Previews, held: Held, request: m.OrderRequest) -> tuple[Json, Preview]:
    """Raises Refused where a reduce-only order has nothing to reduce."""
    reduced: Json | None = None
    quantity = request.quantity or ZERO
    if request.reduce_only:
        holding = await _holding(venue, held, request)
        quantity = reduce(quantity, holding)
        reduced = {
            "requested_quantity": request.quantity,
            "held_quantity": holding.quantity,
            "previewed_quantity": quantity,
            "source": holding.source,
        }
    preview = await venue.preview(as_order(request, quantity))
    asked: Json = jsonable(request)
    order = {name: value for name, value in asked.items() if value is not None and name not in NOT_SHOWN}
    return {"order": order, "reduce_only": reduced, **jsonable(preview)}, preview


def check(preview: Preview, say: Callable[[str], None]) -> None:
    """Raises Refused where the venue says that it would refuse."""
    for warning in preview.warnings:
        say(f"the venue warns: {warning}")
    if preview.errors:
        raise Refused(f"the venue would refuse: {', '.join(preview.errors)}")


async def _holding(venue: Previews, held: Held, request: m.OrderRequest) -> Holding:
    if request.side is m.Side.BUY:
        raise Refused("nothing_to_reduce: spot has no short position that a buy could reduce")
    if (holding := await held(request.product_id)) is not None:
        return holding
    account = await venue.account()
    if account.balances is None:
        raise OutcomeUnknown(f"balances: {account.unavailable.get('balances', 'unavailable')}")
    balance = account.balances.get(request.product_id.partition("-")[0])  # a wallet that is empty may be missing
    return Holding(balance.available if balance else ZERO, "venue")


def reduce(quantity: Decimal, holding: Holding) -> Decimal:
    """No more than what is held, in whole increments. Raises Refused where nothing is left."""
    most = min(quantity, holding.quantity)
    if holding.increment:
        most = (most / holding.increment).to_integral_value(ROUND_DOWN) * holding.increment
    if most <= 0:
        raise Refused(f"nothing_to_reduce: {holding.quantity:f} held, says the {holding.source}")
    return most


def bots_holding(figures: list[m.Message], products: list[m.Message], product_id: str) -> Holding | None:
    """The bot's position by the bus's last values; None where risk has not told it lately."""
    increments = [p.base_increment for p in products if isinstance(p, m.Product) and p.product_id == product_id]
    for message in figures:
        if isinstance(message, m.RiskFigures) and message.sent_at:
            if datetime.now(UTC) - message.sent_at > FIGURES_AGE:
                return None
            position = message.positions.get(product_id)
            return Holding(position.quantity if position else ZERO, "bot", increments[0] if increments else None)
    return None
