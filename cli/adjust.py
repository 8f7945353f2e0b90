"""`perps-bot account classify` and `account handover`: what the account's changes were, and what becomes the bot's."""

from __future__ import annotations

import asyncio
import getpass
from decimal import Decimal

from cli.control import ANSWER_SECONDS, ControlBus, ask
from cli.errors import OutcomePending
from cli.live import say
from cli.order_flags import amount
from cli.output import Json, show
from cli.tooling import Tool
from libs.common import messages as m
from libs.common.errors import BadConfig, BusDown

KINDS = {
    kind.replace("_", "-"): kind
    for kind in (m.AdjustmentKind.DEPOSIT, m.AdjustmentKind.WITHDRAWAL, m.AdjustmentKind.MANUAL_TRADE)
}


def classification(kind: str, currency: str, product: str, quantity: str, request_id: str) -> m.AdjustmentRequest:
    """Raises BadConfig with one line that names what is missing or too much."""
    chosen = KINDS.get(kind.lower().replace("_", "-"))
    if chosen is None:
        raise BadConfig(f"KIND {kind!r} is none of {', '.join(KINDS)}")
    trade = chosen is m.AdjustmentKind.MANUAL_TRADE
    if trade and (currency or quantity):
        flag = "--currency" if currency else "--quantity"
        raise BadConfig(f"{flag} does not go with manual-trade: it takes all of both drifts of --product")
    if trade and not product:
        raise BadConfig("--product is missing: what was traded by hand, like BTC-USD")
    if not trade and product:
        raise BadConfig(f"--product does not go with {kind}: name the --currency")
    if not trade and not currency:
        raise BadConfig(f"--currency is missing: of what it was a {kind}, like USD")
    return m.AdjustmentRequest(
        request_id=request_id,
        kind=chosen,
        currency=currency.upper(),
        product_id=product.upper(),
        quantity=amount(quantity, "--quantity"),
    )


def handover(product: str, quantity: str, price: str, request_id: str) -> m.AdjustmentRequest:
    """Raises BadConfig with one line that names what is missing."""
    if not product:
        raise BadConfig("--product is missing: whose base currency is handed over, like BTC-USD")
    if not quantity:
        raise BadConfig("--quantity is missing: above 0 it becomes the bot's, below 0 it is yours again")
    return m.AdjustmentRequest(
        request_id=request_id,
        kind=m.AdjustmentKind.HANDOVER,
        product_id=product.upper(),
        quantity=_signed(quantity, "--quantity"),
        price=amount(price, "--price"),
    )


def _signed(text: str, flag: str) -> Decimal:
    size = amount(text.removeprefix("-"), flag)
    if size is None:
        raise BadConfig(f"{flag} {text!r} is not a number")
    return -size if text.startswith("-") else size


async def adjust(bus: ControlBus, body: m.Command, repeat: str, patience_seconds: float = ANSWER_SECONDS) -> Json:
    """Raises BusDown where nothing was sent, Refused with risk's reason, OutcomePending with `repeat`, the command line
    that asks for the very same again, where risk gave no answer."""
    request = body.adjustment
    assert request is not None
    await ask(bus, "risk", "sync", m.Command(), patience_seconds)  # raises before anything is asked for
    try:
        reply = await ask(bus, "risk", "adjust", body, patience_seconds)
    except (BusDown, asyncio.CancelledError):
        raise OutcomePending(f"no answer, it may have been counted: `{repeat}` asks for the same, once") from None
    return {
        "request_id": request.request_id,
        "kind": request.kind,
        "answer": reply.detail,
        "ledger_sequence": reply.ledger_sequence or None,
        **reply.data,
    }


async def run_adjustment(tool: Tool, request: m.AdjustmentRequest, reason: str, repeat: str, as_json: bool) -> None:
    if not reason.strip():
        raise BadConfig(f"{request.kind.replace('_', '-')} needs a reason: --reason 'why'")
    if not request.request_id.strip():
        raise BadConfig("--request-id is empty: leave it out, or give the one of the request to repeat")
    bus = tool.need_bus()
    say(f"request {request.request_id}")
    body = m.Command(reason=reason, who=getpass.getuser(), adjustment=request)
    result = await adjust(bus, body, repeat)
    say(f"{request.kind.replace('_', '-')}: {result['answer'] or 'done'}")
    show(result, as_json)
