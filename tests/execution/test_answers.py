"""What the venue says to what we ask it to do."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from msgspec.structs import replace

from libs.common.errors import OutcomeUnknown, Rejected
from libs.common.messages import Side
from services.execution import answers
from tests.execution.fake_venue import ORDER
from tests.recorded import recorded

TOLD = {"order_id": "v1", "product_id": "BTC-USD", "side": "BUY", "client_order_id": "c1"}


def created(**answer: object) -> str:
    return answers.parse_created(json.dumps(answer).encode(), ORDER)


def edited(**answer: object) -> None:
    answers.parse_edited(json.dumps(answer).encode(), "v1")


def test_a_recorded_success_gives_the_order_id() -> None:
    order = replace(ORDER, client_order_id="lknalksdj89asdkl", product_id="ALGO-USD", side=Side.BUY)
    data = recorded("rest/kmiq/create_limit_order.json").read_bytes()
    assert answers.parse_created(data, order) == "07f1e718-8ea8-4ece-a2e1-3f00aad7f040"


@pytest.mark.parametrize(
    ("name", "value"), [("product_id", "ETH-USD"), ("side", "SELL"), ("client_order_id", "c2"), ("side", "")]
)
def test_an_order_handed_back_must_be_the_one_that_was_asked_for(name: str, value: str) -> None:
    if not value:
        assert created(success=True, success_response={**TOLD, name: value}) == "v1"
        return
    with pytest.raises(OutcomeUnknown, match=f"order v1 with another {name}"):
        created(success=True, success_response={**TOLD, name: value})


@pytest.mark.parametrize("name", ["create_order_failure_no_funds", "default_order_failure"])
def test_a_recorded_refusal_gives_the_venues_reason(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        answers.parse_created(recorded(f"rest/kmiq/{name}.json").read_bytes(), ORDER)
    assert caught.value.reason == "PREVIEW_INSUFFICIENT_FUND"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ({"new_order_failure_reason": "A", "preview_failure_reason": "B", "error": "C"}, "A"),
        ({"new_order_failure_reason": "UNKNOWN_FAILURE_REASON", "preview_failure_reason": "B", "error": "C"}, "B"),
        ({"preview_failure_reason": "UNKNOWN_PREVIEW_FAILURE_REASON", "error": "C"}, "C"),
        ({"new_order_failure_reason": None, "error": "C", "message": None}, "C"),
    ],
)
def test_the_reason_is_looked_for_in_three_places(failure: dict[str, str], reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        created(success=False, error_response=failure)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>502</html>",
        b"null",
        b"{}",
        b'{"success":true}',
        b'{"success":true,"success_response":{}}',
        b'{"success":false}',
        b'{"success":false,"error_response":{"error":"UNKNOWN_FAILURE_REASON"}}',
        b'{"success":false,"error_response":{"error":"INVALID_ARGUMENT","message":"DUPLICATE_CLIENT_ORDER_ID"}}',
        b'{"success":false,"error_response":{"new_order_failure_reason":"DUPLICATE_CLIENT_ORDER_ID"}}',
    ],
)
def test_an_unreadable_answer_to_an_order_is_an_unknown_outcome(data: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        answers.parse_created(data, ORDER)


def test_a_recorded_edit_with_its_errors_in_an_object_was_taken() -> None:
    answers.parse_edited(recorded("rest/kmiq/edit_order.json").read_bytes(), "v1")


FUNDS = {"edit_failure_reason": "COMMANDER_REJECTED_EDIT_ORDER", "preview_failure_reason": "PREVIEW_INSUFFICIENT_FUND"}
NOTHING = {
    "edit_failure_reason": "UNKNOWN_EDIT_ORDER_FAILURE_REASON",
    "preview_failure_reason": "UNKNOWN_PREVIEW_FAILURE_REASON",
}


@pytest.mark.parametrize(
    ("answer", "reason", "detail"),
    [
        ({"errors": [FUNDS]}, "COMMANDER_REJECTED_EDIT_ORDER", "PREVIEW_INSUFFICIENT_FUND"),
        ({"errors": FUNDS}, "COMMANDER_REJECTED_EDIT_ORDER", "PREVIEW_INSUFFICIENT_FUND"),
        ({"errors": [{"preview_failure_reason": "B"}]}, "B", ""),
        ({"errors": [NOTHING], "error_response": {"edit_order_failure_reason": "C", "error_details": "d"}}, "C", "d"),
        ({"error_response": {"edit_order_failure_reason": "C"}, "errors": None}, "C", ""),
    ],
)
def test_an_edits_reason_is_found_in_a_list_an_object_or_the_error_response(
    answer: dict[str, object], reason: str, detail: str
) -> None:
    with pytest.raises(Rejected) as caught:
        edited(success=False, **answer)
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


def test_an_edit_that_failed_without_a_reason_or_of_another_order_has_an_unknown_outcome() -> None:
    with pytest.raises(OutcomeUnknown, match="no edit, and no reason"):
        edited(success=False, errors=[NOTHING], error_response={"error_details": "?"})
    with pytest.raises(OutcomeUnknown, match="of order v2"):
        edited(success=True, success_response={"order_id": "v2"})
    edited(success=True, success_response={"order_id": "v1"}, errors=[])


def test_a_recorded_cancel_refuses_one_and_takes_the_other_whatever_reason_a_success_carries() -> None:
    data = recorded("rest/kmiq/cancel_orders.json").read_bytes()
    refused, taken = "dc98ccb7-8494-418d-99e9-651b76ca64f2", "2ab5a57e-f3e4-41fa-bf82-65e7d89640c0"
    assert answers.parse_cancelled(data, [refused, taken]) == {refused: "UNKNOWN_CANCEL_ORDER"}
    assert answers.parse_cancelled(data, [taken, "v3"]) == {"v3": "NOT_MENTIONED"}


def test_a_preview_tells_figures_reasons_and_warnings() -> None:
    body = {"order_total": "101.2", "commission_total": "1.2", "quote_size": "100", "base_size": "", "best_bid": ""}
    told = {"errs": ["PREVIEW_INSUFFICIENT_FUND"], "warning": ["BIG_ORDER"], "slippage": "0", "best_ask": "5"}
    preview = answers.parse_preview(json.dumps({**body, **told}).encode())
    assert preview.order_total == Decimal("101.2")
    assert (preview.commission_total, preview.base_size) == (Decimal("1.2"), Decimal(0))
    assert (preview.best_bid, preview.best_ask, preview.slippage) == (None, Decimal(5), Decimal(0))
    assert (preview.errors, preview.warnings) == (("PREVIEW_INSUFFICIENT_FUND",), ("BIG_ORDER",))
    ofedit = answers.parse_preview(json.dumps({**body, "errors": [NOTHING, FUNDS], "errs": None}).encode())
    assert ofedit.errors == ("COMMANDER_REJECTED_EDIT_ORDER", "PREVIEW_INSUFFICIENT_FUND")
