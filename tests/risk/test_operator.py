"""Orders that an operator asks for: decided like any signal, answered once, on the record."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import Reason
from libs.common.subjects import INSTALLATION_KEY, STATE_BUCKET
from tests.risk.builders import BTC, NOON, SECOND, WIDE, D, account, config, event, fill, mark, trading
from tests.risk.fakes import HandClock, RiskBus, running

SIGNAL_ID = m.derive_id("installation", "operator", "r1")
KEY = m.client_order_id(SIGNAL_ID)


async def prepared() -> RiskBus:
    bus = RiskBus()
    await bus.prepare()
    return bus


def request(**changes: object) -> m.OrderRequest:
    plain = m.OrderRequest(request_id="r1", product_id=BTC, side=m.Side.BUY, quantity=D(2))
    return msgspec.structs.replace(plain, **changes)


def body(**changes: object) -> m.Command:
    return m.Command(order=request(**changes), reason="rebalancing", who="ann")


def audits(bus: RiskBus) -> list[m.Audit]:
    return [message for message in bus.published if isinstance(message, m.Audit)]


async def test_an_approved_order_is_in_the_ledger_before_it_is_answered_and_on_the_record() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        reply = await bus.served["order"](body())
    [verdict] = bus.verdicts()
    assert reply == m.Reply(
        ok=True,
        detail="approved: quantity=2 notional=200.2 reserved=200.2 mid=100 held=0",
        data={"signal_id": SIGNAL_ID, "client_order_id": KEY, "reason": "approved"},
    )
    assert (verdict.signal_id, verdict.reason, verdict.expires_at) == (SIGNAL_ID, Reason.APPROVED, NOON + 10 * SECOND)
    assert verdict.order is not None
    assert (verdict.order.client_order_id, verdict.order.order_type, verdict.order.quantity) == (
        KEY,
        m.OrderType.MARKET,
        D(2),
    )
    [audit] = audits(bus)
    assert (audit.command, audit.who, audit.reason, audit.ok, audit.result) == (
        "order",
        "ann",
        "rebalancing",
        True,
        reply.detail,
    )


async def test_a_refused_order_is_a_verdict_with_the_rules_own_reason() -> None:
    bus = await prepared()
    async with running(bus, config(order_notional_max=D(150)), HandClock()):
        reply = await bus.served["order"](body())
    assert (reply.ok, reply.detail) == (False, "notional_above_limit: notional=200.2 limit=150")
    assert reply.data == {"signal_id": SIGNAL_ID, "client_order_id": KEY, "reason": "notional_above_limit"}
    assert [v.reason for v in bus.verdicts()] == [Reason.NOTIONAL_ABOVE_LIMIT]
    assert [(a.ok, a.result) for a in audits(bus)] == [(False, reply.detail)]


async def test_the_same_request_is_answered_once_also_after_a_restart() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        first, again = await asyncio.gather(bus.served["order"](body()), bus.served["order"](body()))
    async with running(bus, WIDE, HandClock()):
        restarted = await bus.served["order"](body(quantity=D(3)))
        other = await bus.served["order"](body(request_id="r2"))
    assert [r.data["reason"] for r in (first, again, restarted, other)] == [
        "approved",
        "answered_before",
        "answered_before",
        "approved",
    ]
    assert first.data["client_order_id"] == again.data["client_order_id"] == restarted.data["client_order_id"] == KEY
    assert again.ok
    assert restarted.ok
    assert [v.signal_id for v in bus.verdicts()] == [SIGNAL_ID, m.derive_id("installation", "operator", "r2")]


async def test_two_processes_answer_the_same_request_with_one_verdict() -> None:
    bus, clock = await prepared(), HandClock()
    async with running(bus, WIDE, clock):
        one = bus.served["order"]
        async with running(bus, WIDE, clock):
            other = bus.served["order"]
            replies = await asyncio.gather(one(body()), other(body()))
    assert sorted(reply.data["reason"] for reply in replies) == ["answered_before", "approved"]
    assert len(bus.verdicts()) == 1


async def test_the_same_request_id_at_another_installation_is_another_order() -> None:
    bus = await prepared()
    bus.entries[STATE_BUCKET, INSTALLATION_KEY] = msgspec.structs.replace(
        bus.entries[STATE_BUCKET, INSTALLATION_KEY],
        value=msgspec.json.encode(m.Installation(id="another", at=NOON, opening={"USD": D(1000)})),
    )
    async with running(bus, WIDE, HandClock()):
        reply = await bus.served["order"](body())
    assert reply.data["signal_id"] == m.derive_id("another", "operator", "r1")


async def test_an_order_needs_a_mark_and_nothing_of_the_strategy() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()) as shell:
        shell._risk.known.marks.clear()
        reply = await bus.served["order"](body())
        assert (reply.ok, reply.detail) == (False, "mark_unknown: no mark of BTC-USD")
        await shell.ask(mark())
        assert (await bus.served["order"](body(request_id="r2"))).ok


async def test_a_request_that_waited_too_long_is_refused() -> None:
    bus, clock = await prepared(), HandClock()
    async with running(bus, WIDE, clock):
        waiting = asyncio.ensure_future(bus.served["order"](body()))
        await asyncio.sleep(0)
        clock.now = NOON + 11 * SECOND
        assert (await waiting).data["reason"] == "signal_expired"


async def test_an_exit_passes_while_reducing_and_nothing_passes_a_halt() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()) as shell:
        await bus.ledger(0).append(fill("1", size="5"))
        await shell.ask(account({"USD": D(99_500), "BTC": D(5)}, NOON + SECOND))
        await shell.ask(trading(m.Trading.REDUCING, 2))
        replies = [
            await bus.served["order"](body(request_id=f"{side}-2", side=side)) for side in (m.Side.BUY, m.Side.SELL)
        ]
        await shell.ask(trading(m.Trading.HALTED, 3))
        replies.append(await bus.served["order"](body(request_id="late", side=m.Side.SELL)))
    assert [reply.data["reason"] for reply in replies] == ["trading_reducing", "approved", "trading_halted"]


async def resting(bus: RiskBus) -> m.Verdict:
    """An order that the venue has accepted."""
    asked = body(order_type=m.OrderType.LIMIT, time_in_force=m.TimeInForce.GTC, limit_price=D(100), post_only=True)
    assert (await bus.served["order"](asked)).ok
    [verdict] = bus.verdicts()
    await bus.ledger(len(bus.stored)).append(event(verdict, m.OrderStatus.ACCEPTED, 1))
    await bus.served["sync"](m.Command(ledger_sequence=len(bus.stored)))
    return verdict


async def test_an_edit_changes_the_order_and_keeps_what_it_leaves_out() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        first = await resting(bus)
        asked = body(request_id="r2", edits=KEY, quantity=None, limit_price=D("99.5"))
        reply = await bus.served["order"](asked)
        again = await bus.served["order"](asked)
    edit_id = m.derive_id("installation", "operator", "r2")
    assert (reply.ok, reply.data) == (True, {"signal_id": edit_id, "client_order_id": KEY, "reason": "approved"})
    assert again.data == {**reply.data, "reason": "answered_before"}
    verdict = bus.verdicts()[-1]
    assert (verdict.edits, verdict.signal_id) == (True, edit_id)
    assert first.order is not None
    assert verdict.order == msgspec.structs.replace(first.order, limit_price=D("99.5"))


async def test_an_edit_of_an_order_that_is_not_known_is_refused_with_the_rules_own_reason() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        reply = await bus.served["order"](body(edits="5", quantity=D(1)))
    assert (reply.ok, reply.detail) == (False, "order_not_editable: no open order of ours: 5")
    assert reply.data["client_order_id"] == "5"


async def test_fields_that_do_not_belong_together_are_a_verdict_in_one_line() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        reply = await bus.served["order"](body(stop_price=D(90)))
    assert (reply.ok, reply.detail) == (False, "order_invalid: MARKET IOC BUY takes no stop_price")
    assert [v.reason for v in bus.verdicts()] == [Reason.ORDER_INVALID]


async def test_an_amount_to_spend_reaches_the_order() -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        assert (await bus.served["order"](body(quantity=None, quote_size=D("50.009")))).ok
    [verdict] = bus.verdicts()
    assert verdict.order is not None
    assert (verdict.order.quote_size, verdict.reserved) == (D("50.00"), D("50.00"))


MALFORMED: list[tuple[m.OrderRequest | None, str]] = [
    (None, "the order is missing"),
    (request(request_id=" "), "request_id is empty: choose one, and send the same again when no answer came"),
    (request(product_id=""), "product_id is empty"),
    (request(quantity=None), "give either quantity or quote_size"),
    (request(quote_size=D(5)), "give either quantity or quote_size"),
    (request(quantity=Decimal("NaN")), "a number is not finite or a time has no zone"),
    (request(end_time=NOON.replace(tzinfo=None)), "a number is not finite or a time has no zone"),
    (request(edits=KEY, quantity=None), "an edit needs a quantity or a limit_price"),
    (request(edits=KEY, quote_size=D(5)), "an edit changes quantity and limit_price, not quote_size"),
    (request(edits=KEY, post_only=True), "an edit changes quantity and limit_price, not post_only"),
]


@pytest.mark.parametrize(("asked", "why"), MALFORMED)
async def test_what_cannot_become_a_signal_is_told_in_one_line_and_writes_nothing(
    asked: m.OrderRequest | None, why: str
) -> None:
    bus = await prepared()
    async with running(bus, WIDE, HandClock()):
        reply = await bus.served["order"](m.Command(order=asked, who="ann"))
    assert reply == m.Reply(ok=False, detail=f"order_invalid: {why}", data={"reason": "order_invalid"})
    assert bus.verdicts() == []
    assert [(a.command, a.ok, a.result) for a in audits(bus)] == [("order", False, reply.detail)]


async def test_a_request_is_remembered_for_ever_and_a_refused_one_stays_refused() -> None:
    bus, clock = await prepared(), HandClock()
    async with running(bus, config(order_notional_max=D(150)), clock) as shell:
        refused = await bus.served["order"](body())
        state = shell._risk.state
        for days in (2, 4):  # what was answered long ago is forgotten, other signals of that day with it
            clock.now = NOON + 86400 * days * SECOND
            await bus.served["order"](body(request_id=f"later-{days}"))
        assert len(state.answers.given) == 1
        again = await bus.served["order"](body())
    assert (refused.ok, again.ok) == (False, False)
    assert again.detail == "answered_before: with notional_above_limit"
    assert len(bus.verdicts()) == 3
