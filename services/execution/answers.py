"""What the venue answers to what we ask it to do: create, edit, cancel, preview (venue document 2 and 2.2). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct

from libs.common.errors import OutcomeUnknown, Rejected
from libs.common.messages import ApprovedOrder
from services.execution.inputs import Preview
from services.execution.parse import NO_REASON, decimal, decode, figure

DUPLICATE = "DUPLICATE_CLIENT_ORDER_ID"
SAME = "EDIT_REQUEST_EQUAL_TO_ORIGINAL_REQUEST"
NOT_MENTIONED = "NOT_MENTIONED"  # our word: the venue's answer leaves an order out


class _Success(Struct):
    order_id: str | None = None
    product_id: str | None = None
    side: str | None = None
    client_order_id: str | None = None


class _Failure(Struct):
    error: str | None = None
    message: str | None = None
    error_details: str | None = None
    preview_failure_reason: str | None = None
    new_order_failure_reason: str | None = None
    edit_order_failure_reason: str | None = None


class _Created(Struct):
    success: bool
    success_response: _Success | None = None
    error_response: _Failure | None = None
    failure_reason: str | None = None


class _EditError(Struct):
    edit_failure_reason: str | None = None
    preview_failure_reason: str | None = None


class _Edited(Struct):
    success: bool
    success_response: _Success | None = None
    error_response: _Failure | None = None
    errors: list[_EditError] | _EditError | None = None  # the venue's recorded answers hold either


class _Cancelled(Struct):
    order_id: str
    success: bool
    failure_reason: str | None = None


class _Cancels(Struct):
    results: list[_Cancelled]


class _Preview(Struct):
    order_total: str
    commission_total: str
    quote_size: str = ""
    base_size: str = ""
    best_bid: str | None = None
    best_ask: str | None = None
    slippage: str | None = None
    errs: list[str] | None = None  # of a new order
    errors: list[_EditError] | _EditError | None = None  # of an edit
    warning: list[str] | None = None


def parse_created(data: bytes, order: ApprovedOrder) -> str:
    """The venue's order id of a create answer.

    Raises Rejected with the venue's reason; OutcomeUnknown where none is told, where an order of this client id is
    there already, and where the order handed back (an older one, perhaps) is not the one that was asked for.
    """
    answer: _Created = decode(data, _Created)
    if answer.success:
        told = answer.success_response or _Success()
        if not told.order_id:
            raise OutcomeUnknown("success without an order id")
        ours = {"product_id": order.product_id, "side": str(order.side), "client_order_id": order.client_order_id}
        if other := [name for name, value in ours.items() if (getattr(told, name) or value) != value]:
            raise OutcomeUnknown(f"the venue hands back order {told.order_id} with another {', '.join(other)}")
        return told.order_id
    failure = answer.error_response or _Failure()
    words = (
        failure.new_order_failure_reason,
        failure.preview_failure_reason,
        failure.error,
        answer.failure_reason,
    )
    reasons, text = _reasons(words), f"{failure.message or ''} {failure.error_details or ''}".strip()
    if not reasons or DUPLICATE in f"{reasons} {text}":
        raise OutcomeUnknown(f"no order, and it may be there: {reasons} {text}")
    raise Rejected(reasons[0], text)


def parse_edited(data: bytes, venue_order_id: str) -> None:
    """Returns where the venue took the edit. Raises Rejected with its reason, or OutcomeUnknown."""
    answer: _Edited = decode(data, _Edited)
    if answer.success:
        told = answer.success_response and answer.success_response.order_id
        if told and told != venue_order_id:
            raise OutcomeUnknown(f"the venue tells of an edit of order {told}")
        return
    failure = answer.error_response or _Failure()
    words = [*_edit_words(answer.errors), failure.edit_order_failure_reason]
    reasons = _reasons([*words, failure.preview_failure_reason, failure.error])
    if not reasons:
        raise OutcomeUnknown(f"no edit, and no reason: {failure.message or failure.error_details or ''}")
    if SAME in reasons:
        # A request that arrives twice is refused the second time, with the edit in force: the order itself tells.
        raise OutcomeUnknown("the order is already as the edit wants it")
    raise Rejected(reasons[0], ", ".join([*reasons[1:], failure.error_details or ""]).strip(", "))


def parse_cancelled(data: bytes, venue_order_ids: list[str]) -> dict[str, str]:
    """Why not, for each order whose cancellation the venue did not take. What a success carries as reason is none."""
    results = {result.order_id: result for result in decode(data, _Cancels).results}
    refused = {}
    for key in venue_order_ids:
        result = results.get(key)
        if result is None or not result.success:
            refused[key] = (result.failure_reason if result else "") or NOT_MENTIONED
    return refused


def parse_preview(data: bytes) -> Preview:
    """Of a new order or of an edit. Raises OutcomeUnknown."""
    answer: _Preview = decode(data, _Preview)
    return Preview(
        order_total=decimal(answer.order_total),
        commission_total=decimal(answer.commission_total),
        quote_size=decimal(answer.quote_size),
        base_size=decimal(answer.base_size),
        best_bid=_price(answer.best_bid),
        best_ask=_price(answer.best_ask),
        slippage=figure(answer.slippage),
        errors=(*(answer.errs or ()), *_reasons(_edit_words(answer.errors))),
        warnings=tuple(answer.warning or ()),
    )


def _price(text: str | None) -> Decimal | None:
    return figure(text) or None


def _edit_words(errors: list[_EditError] | _EditError | None) -> list[str | None]:
    listed = errors if isinstance(errors, list) else [errors] if errors else []
    return [word for error in listed for word in (error.edit_failure_reason, error.preview_failure_reason)]


def _reasons(words: Iterable[str | None]) -> list[str]:
    """The reasons among the words, each once."""
    return list(dict.fromkeys(word for word in words if word and word not in NO_REASON))
