"""What an operator says of the account: a drift that is no mistake, or holdings that the bot may sell from now on.

Becomes one `Adjustment` in the ledger, or a refusal in one line. A request id counts once, for ever.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from libs.common.messages import Adjustment, AdjustmentKind, AdjustmentRequest, Message, derive_id, sound
from services.risk.books import FINEST, ZERO, currencies
from services.risk.knowledge import Knowledge
from services.risk.rules import show
from services.risk.state import State

Kind = AdjustmentKind


class AdjustmentAsked(Message, frozen=True, kw_only=True):
    """Somebody explains the account."""

    request: AdjustmentRequest | None
    reason: str
    who: str
    command: str = "adjust"


class Refused(Exception):
    """Why it cannot be so, in one line."""


def adjustment_of(asked: AdjustmentAsked, state: State, known: Knowledge, now: datetime) -> Adjustment:
    """Raises Refused."""
    request = asked.request
    if not asked.reason.strip():
        raise Refused("a reason is required")
    if request is None or not request.request_id.strip():
        raise Refused("request_id is empty: choose one, and send the same again when no answer came")
    if not sound(request):
        raise Refused("a number is not finite")
    makers = {
        Kind.DEPOSIT: _payment,
        Kind.WITHDRAWAL: _payment,
        Kind.MANUAL_TRADE: _trade,
        Kind.HANDOVER: _handover,
    }
    flows, product_id, size, price = makers[request.kind](request, state, known)
    return Adjustment(
        id=derive_id(known.installation_id, "adjustment", request.request_id),
        cause=asked.id,
        at=now,
        kind=request.kind,
        request_id=request.request_id,
        who=asked.who,
        reason=asked.reason,
        flows=flows,
        product_id=product_id,
        size=size,
        price=price,
    )


Change = tuple[dict[str, Decimal], str, Decimal, Decimal]  # flows, product, size, price


def _payment(request: AdjustmentRequest, state: State, known: Knowledge) -> Change:
    drift = _drift(state, request.currency)
    sign = 1 if request.kind is Kind.DEPOSIT else -1
    if drift * sign < 0:
        raise Refused(f"{request.currency} drifts by {drift.normalize():f}, which is no {request.kind}")
    quantity = abs(drift) if request.quantity is None else request.quantity
    if not 0 < quantity <= abs(drift):
        raise Refused(f"quantity must be above 0 and at most the drift: {show(quantity=quantity, drift=abs(drift))}")
    return {request.currency: sign * quantity}, "", ZERO, ZERO


def _trade(request: AdjustmentRequest, state: State, known: Knowledge) -> Change:
    """Both drifts of the product, fees in the price. What the rounded price leaves over is a flow."""
    base, quote = _traded(request, known)
    size, value = _drift(state, base), _drift(state, quote)
    if size * value > 0:
        raise Refused(f"{base} and {quote} drift the same way, which is no trade: {show(**{base: size, quote: value})}")
    if (held := _held(state, request.product_id)) + size < 0:
        raise Refused(
            f"more was sold than the bot holds ({show(sold=-size, held=held)}): "
            f"classify a withdrawal of {base} and a deposit of {quote}"
        )
    price = (-value / size).quantize(FINEST)
    return {quote: value + size * price}, request.product_id, size, price


def _handover(request: AdjustmentRequest, state: State, known: Knowledge) -> Change:
    """Between what was there before us and what is ours. The money side is a flow of its own: cash does not move."""
    base, quote = _traded(request, known)
    size, mark = request.quantity or ZERO, known.prices.get(request.product_id)
    if state.drift is None or base in state.drift:
        raise Refused(f"books and account must agree on {base} first: classify its drift")
    if not size:
        raise Refused("a handover needs a quantity, above 0 to the bot or below 0 back to you")
    if size > 0:
        foreign = state.balances(known).get(base, ZERO) - _held(state, request.product_id)
        if size > foreign:
            raise Refused(f"the account holds less beside the bot's own: {show(quantity=size, beside=foreign)}")
    else:
        free = _held(state, request.product_id) - state.selling(request.product_id)
        if -size > free:
            raise Refused(f"the bot holds less that is not promised to open orders: {show(quantity=-size, free=free)}")
    if mark is not None and request.price is not None:
        raise Refused(f"leave the price out: {request.product_id} is handed over at its mark, {mark.normalize():f}")
    price = mark if mark is not None else request.price
    if price is None or price <= 0:
        raise Refused(f"no mark of {request.product_id}: give its price (above 0)")
    return {base: -size, quote: size * price}, request.product_id, size, price


def _drift(state: State, currency: str) -> Decimal:
    if state.drift is None:
        raise Refused("the books were not compared with the account yet")
    if currency not in state.drift:
        raise Refused(f"no drift of {currency or 'nothing'}: there is {show(**state.drift) or 'none'}")
    return state.drift[currency]


def _traded(request: AdjustmentRequest, known: Knowledge) -> tuple[str, str]:
    if request.product_id not in known.products:
        raise Refused(f"{request.product_id or 'no product'} is not traded: there are {', '.join(known.products)}")
    return currencies(request.product_id)


def _held(state: State, product_id: str) -> Decimal:
    holding = state.books.holdings.get(product_id)
    return holding.quantity if holding else ZERO
