"""What an operator says of the account, checked word by word, and sent so that it counts once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cli import control
from cli.adjust import adjust, classification, handover
from cli.errors import OutcomePending, Refused
from libs.common import messages as m
from libs.common.errors import BadConfig, BusDown
from tests.cli.control_fakes import DeskBus

K = m.AdjustmentKind
REQUEST = m.AdjustmentRequest(request_id="r1", kind=K.DEPOSIT, currency="USD")
BODY = m.Command(reason="drill", who="ann", adjustment=REQUEST)
AGAIN = "perps-bot account classify deposit --currency USD --request-id r1"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RETRY_SECONDS", 0.0)


def test_what_is_typed_becomes_the_request() -> None:
    found = classification("deposit", "usd", "", "12.5", "r1")
    assert found == m.AdjustmentRequest(request_id="r1", kind=K.DEPOSIT, currency="USD", quantity=Decimal("12.5"))
    assert classification("withdrawal", "USD", "", "", "r1").quantity is None
    trade = classification("manual-trade", "", "btc-usd", "", "r1")
    assert trade == m.AdjustmentRequest(request_id="r1", kind=K.MANUAL_TRADE, product_id="BTC-USD")
    back = handover("btc-usd", "-0.5", "100", "r1")
    assert (back.kind, back.product_id, back.quantity, back.price) == (
        K.HANDOVER,
        "BTC-USD",
        Decimal("-0.5"),
        Decimal(100),
    )
    assert handover("BTC-USD", "0.5", "", "r1").price is None


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (("gift", "USD", "", ""), "KIND 'gift' is none of deposit, withdrawal, manual-trade"),
        (("handover", "USD", "", ""), "KIND 'handover' is none of"),
        (("deposit", "", "", ""), "--currency is missing"),
        (("withdrawal", "", "BTC-USD", ""), "--product does not go with withdrawal"),
        (("deposit", "USD", "", "0"), "--quantity '0'"),
        (("deposit", "USD", "", "-1"), "--quantity '-1'"),
        (("deposit", "USD", "", "ten"), "--quantity 'ten' is not a number"),
        (("manual-trade", "", "", ""), "--product is missing"),
        (("manual-trade", "USD", "BTC-USD", ""), "--currency does not go with manual-trade"),
        (("manual-trade", "", "BTC-USD", "1"), "--quantity does not go with manual-trade"),
    ],
)
def test_a_classification_that_cannot_be_meant_names_the_flag(typed: tuple[str, str, str, str], line: str) -> None:
    with pytest.raises(BadConfig, match=line):
        classification(*typed, "r1")


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (("", "1", ""), "--product is missing"),
        (("BTC-USD", "", ""), "--quantity is missing"),
        (("BTC-USD", "0", ""), "--quantity"),
        (("BTC-USD", "--1", ""), "--quantity"),
        (("BTC-USD", "-", ""), "--quantity"),
        (("BTC-USD", "1", "-5"), "--price '-5'"),
    ],
)
def test_a_handover_that_cannot_be_meant_names_the_flag(typed: tuple[str, str, str], line: str) -> None:
    with pytest.raises(BadConfig, match=line):
        handover(*typed, "r1")


async def test_what_was_counted_is_shown() -> None:
    bus = DeskBus(m.Reply(ok=True, detail="deposit counted", data={"adjustment_id": "a1", "flow_USD": "12.5"}))
    found = await adjust(bus, BODY, AGAIN)
    assert (found["request_id"], found["answer"], found["flow_USD"]) == ("r1", "deposit counted", "12.5")
    assert bus.asked[-1] == ("risk", "adjust", BODY)


async def test_a_refusal_is_told_with_its_reason() -> None:
    with pytest.raises(Refused, match="adjust refused by risk: no drift of USD"):
        await adjust(DeskBus(m.Reply(ok=False, detail="no drift of USD: there is none")), BODY, AGAIN)


async def test_a_lost_answer_is_asked_for_again_under_the_same_id() -> None:
    bus = DeskBus()
    bus.lost["adjust"] = 2
    await adjust(bus, BODY, AGAIN, 5)
    sent = [body.adjustment for _, command, body in bus.asked if command == "adjust"]
    assert sent == [REQUEST] * 3


async def test_an_answer_that_never_comes_leaves_the_command_that_asks_for_the_same() -> None:
    bus = DeskBus()
    bus.lost["adjust"] = 10**9
    with pytest.raises(OutcomePending, match=f"it may have been counted: `{AGAIN}`"):
        await adjust(bus, BODY, AGAIN, 0)


async def test_nothing_is_sent_to_a_risk_that_does_not_answer() -> None:
    bus = DeskBus()
    bus.lost["sync"] = 10**9
    with pytest.raises(BusDown, match="risk does not answer"):
        await adjust(bus, BODY, AGAIN, 0)
    assert {command for _, command, _ in bus.asked} == {"sync"}
