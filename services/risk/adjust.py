"""What an operator says of the account: a drift that is no mistake, or holdings that the bot may sell from now on.

Becomes one `Adjustment` in the ledger, or a refusal in one line. A request id counts once, for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
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


def adjustment_of(
    asked: AdjustmentAsked, state: State, known: Knowledge, now: datetime, mark_age_max: timedelta
) -> Adjustment:
    """What to write. A mark older than that is none. Raises Refused, or ArithmeticError for figures out of range."""
    request = asked.request
    if not asked.reason.strip():
        raise Refused("a reason is required")
    if request is None or not request.request_id.strip():
        raise Refused("request_id is empty: choose one, and send the same again when no answer came")
    if not sound(request):
        raise Refused("a number is not finite")
    prices = {product: mark.mid for product, mark in known.marks.items() if now - mark.at < mark_age_max}
    makers = {
        Kind.DEPOSIT: _payment,
        Kind.WITHDRAWAL: _payment,
        Kind.MANUAL_TRADE: _trade,
        Kind.HANDOVER: _handover,
    }
    flows, product_id, size, price = makers[request.kind](request, state, known, prices)
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


Prices = Mapping[str, Decimal]


def _payment(request: AdjustmentRequest, state: State, known: Knowledge, prices: Prices) -> Change:
    drift = _drift(state, request.currency)
    sign = 1 if request.kind is Kind.DEPOSIT else -1
    if drift * sign < 0:
        raise Refused(f"{request.currency} drifts by {drift.normalize():f}, which is no {request.kind}")
    quantity = abs(drift) if request.quantity is None else request.quantity
    if not 0 < quantity <= abs(drift):
        raise Refused(f"quantity must be above 0 and at most the drift: {show(quantity=quantity, drift=abs(drift))}")
    owned = {p: h.quantity for p, h in state.books.holdings.items() if h.quantity > 0}
    ours = {product: held for product, held in owned.items() if currencies(product)[0] == request.currency}
    taken = quantity - (state.balances(known).get(request.currency, ZERO) - sum(ours.values(), ZERO))
    if sign > 0 or taken <= 0 or not ours:
        return {request.currency: sign * quantity}, "", ZERO, ZERO
    # More went out than what lay beside the bot's own: the rest of it was given back first, at the mark.
    product_id = max(ours, key=ours.__getitem__)
    if taken > owned[product_id] - (selling := state.selling(product_id)):
        raise Refused(f"open orders sell the same coins, cancel them first: {show(gone=taken, open=selling)}")
    price = _price(request, product_id, prices)
    quote = currencies(product_id)[1]
    return {request.currency: taken - quantity, quote: -taken * price}, product_id, -taken, price


def _trade(request: AdjustmentRequest, state: State, known: Knowledge, prices: Prices) -> Change:
    """Both drifts of the product, fees in the price. What the rounded price leaves over is a flow."""
    base, quote = _traded(request, known)
    size, value = _drift(state, base), _drift(state, quote)
    if size * value > 0:
        raise Refused(f"{base} and {quote} drift the same way, which is no trade: {show(**{base: size, quote: value})}")
    held, selling = _held(state, request.product_id), state.selling(request.product_id)
    if held + size < 0:
        raise Refused(
            f"more was sold than the bot holds ({show(sold=-size, held=held)}): "
            f"classify a withdrawal of {base} and a deposit of {quote}"
        )
    if size < 0 and held + size < selling:
        raise Refused(f"open orders sell the same coins, cancel them first: {show(held=held, open=selling)}")
    price = (-value / size).quantize(FINEST)
    return {quote: value + size * price}, request.product_id, size, price


def _handover(request: AdjustmentRequest, state: State, known: Knowledge, prices: Prices) -> Change:
    """Between what was there before us and what is ours. The money side is a flow of its own: cash does not move."""
    base, quote = _traded(request, known)
    size = request.quantity or ZERO
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
    price = _price(request, request.product_id, prices)
    return {base: -size, quote: size * price}, request.product_id, size, price


def _price(request: AdjustmentRequest, product_id: str, prices: Prices) -> Decimal:
    """The mark; what the operator says, where there is none that is fresh."""
    mark = prices.get(product_id)
    if mark is not None and request.price is not None:
        raise Refused(f"leave the price out: {product_id} counts at its mark, {mark.normalize():f}")
    price = mark if mark is not None else request.price
    if price is None or price <= 0:
        raise Refused(f"no fresh mark of {product_id}: give its price (above 0)")
    return price


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
