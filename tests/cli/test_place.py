"""An order through risk: what the operator is told of its way, and what is never claimed."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from cli.errors import OutcomePending, Refused
from cli.place import Placing, edit_of
from libs.common import messages as m
from libs.common.errors import BadConfig, BusDown
from tests.cli.builders import event, order
from tests.cli.fakes import OURS, MemoryBus, MemoryVenue, venue_order

S = m.OrderStatus
RESTING = replace(
    order(),
    client_order_id=OURS,
    order_type=m.OrderType.LIMIT,
    time_in_force=m.TimeInForce.GTC,
    limit_price=Decimal(90),
)
EDITED = replace(RESTING, quantity=Decimal("0.7"))
REQUEST = m.OrderRequest(request_id="r1", product_id="BTC-USD", side=m.Side.BUY, quantity=Decimal("0.5"))


def step(revision: int, status: m.OrderStatus, reason: str = "", edit_id: str = "", **changes: object) -> m.OrderEvent:
    made = replace(event("s1", status), client_order_id=OURS, order=RESTING, revision=revision, reason=reason)
    return replace(made, edit_id=edit_id, **changes)


def placing(bus: MemoryBus, edits: str = "") -> Placing:
    body = m.Command(order=replace(REQUEST, edits=edits), reason="drill", who="ann")
    return Placing(bus, body, "perps-bot orders place --request-id r1")


async def told(bus: MemoryBus, edits: str = "") -> dict[str, object]:
    one = placing(bus, edits)
    await one.run(1)
    return one.show()


async def test_a_filled_order_is_told_with_its_average_price_and_fees() -> None:
    filled = step(3, S.FILLED, filled_qty=Decimal("0.5"), filled_value=Decimal("50.25"), fees=Decimal("0.6"))
    shown = await told(MemoryBus(step(1, S.SUBMITTING), step(2, S.ACCEPTED), filled))
    assert (shown["status"], shown["average_price"], shown["fees"]) == (S.FILLED, Decimal("100.5"), Decimal("0.6"))
    assert (shown["client_order_id"], shown["request_id"]) == (OURS, "r1")


async def test_a_resting_order_is_done_with_when_the_venue_has_it() -> None:
    assert (await told(MemoryBus(step(1, S.SUBMITTING), step(2, S.ACCEPTED))))["status"] == S.ACCEPTED


async def test_what_happens_after_the_ledger_was_read_is_heard_from_the_bus() -> None:
    bus = MemoryBus(step(1, S.SUBMITTING))
    bus.later = [step(2, S.UNKNOWN), step(3, S.FILLED), replace(step(4, S.REJECTED), client_order_id="another")]
    assert (await told(bus))["status"] == S.FILLED


async def test_an_accepted_order_that_does_not_rest_is_waited_for() -> None:
    immediate = replace(RESTING, time_in_force=m.TimeInForce.IOC)
    bus = MemoryBus(step(1, S.ACCEPTED, order=immediate))
    with pytest.raises(OutcomePending, match=f"the order is ACCEPTED; .*perps-bot orders show {OURS}"):
        await placing(bus).run(0.05)


async def test_an_unknown_outcome_stays_unknown_and_says_how_to_look() -> None:
    with pytest.raises(OutcomePending, match=f"the order is UNKNOWN; .*perps-bot orders show {OURS}"):
        await placing(MemoryBus(step(1, S.SUBMITTING), step(2, S.UNKNOWN))).run(0.05)


@pytest.mark.parametrize("status", [S.REJECTED, S.DENIED])
async def test_what_was_never_accepted_is_refused_with_the_reason(status: m.OrderStatus) -> None:
    with pytest.raises(Refused, match=f"{status.lower()}: INSUFFICIENT_FUND"):
        await placing(MemoryBus(step(1, S.SUBMITTING), step(2, status, "INSUFFICIENT_FUND"))).run(1)


async def test_a_denial_of_risk_is_told_with_its_figures() -> None:
    bus = MemoryBus(reply=m.Reply(ok=False, detail="daily_loss_limit: 51 of 50", data={"reason": "daily_loss_limit"}))
    with pytest.raises(Refused, match="denied by risk: daily_loss_limit: 51 of 50"):
        await placing(bus).run(1)


async def test_a_denied_order_comes_with_its_ids_and_the_command_that_explains_it() -> None:
    data = {"reason": "daily_loss_limit", "signal_id": "s1", "client_order_id": OURS}
    one = placing(MemoryBus(reply=m.Reply(ok=False, detail="daily_loss_limit: 51 of 50", data=data)))
    with pytest.raises(Refused, match="51 of 50; every rule: `perps-bot risk explain s1`"):
        await one.run(1)
    assert (one.show()["client_order_id"], one.show()["signal_id"]) == (OURS, "s1")


async def test_a_lost_answer_is_asked_for_again_under_the_same_id() -> None:
    bus = MemoryBus(step(1, S.FILLED))
    bus.lost["order"] = 1
    await placing(bus).run(2)
    assert [request.request_id for request in bus.requests if request] == ["r1"]


async def test_an_answer_that_never_comes_leaves_the_command_that_asks_for_the_same_order() -> None:
    bus = MemoryBus()
    bus.lost["order"] = 1000
    with pytest.raises(OutcomePending, match="`perps-bot orders place --request-id r1`"):
        await placing(bus).run(0.05)


async def test_nothing_is_sent_to_a_risk_that_does_not_answer() -> None:
    bus = MemoryBus()
    bus.lost["sync"] = 1
    with pytest.raises(BusDown, match="risk does not answer"):
        await placing(bus).run(1)
    assert bus.requests == []


async def test_an_edit_is_done_with_when_the_order_is_what_was_asked_for() -> None:
    begun = step(3, S.PENDING_UPDATE, edit_id="s1", wanted=EDITED)
    shown = await told(MemoryBus(step(2, S.ACCEPTED), begun, step(4, S.ACCEPTED, edit_id="s1", order=EDITED)), OURS)
    assert (shown["status"], shown["quantity"]) == (S.ACCEPTED, Decimal("0.7"))


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (step(4, S.ACCEPTED, "edit_refused: INVALID_EDITED_SIZE", "s1"), "the order is ACCEPTED: edit_refused: INV"),
        (step(4, S.FILLED), "the order is FILLED: it had ended"),
    ],
)
async def test_an_edit_that_came_to_nothing_is_refused(end: m.OrderEvent, line: str) -> None:
    begun = step(3, S.PENDING_UPDATE, edit_id="s1", wanted=EDITED)
    with pytest.raises(Refused, match=line):
        await placing(MemoryBus(step(2, S.ACCEPTED), begun, end), OURS).run(1)


async def test_an_edit_that_is_not_settled_has_no_known_outcome() -> None:
    bus = MemoryBus(step(2, S.ACCEPTED), step(3, S.PENDING_UPDATE, edit_id="s1", wanted=EDITED))
    with pytest.raises(OutcomePending, match="the order is PENDING_UPDATE"):
        await placing(bus, OURS).run(0.05)


async def test_an_edit_keeps_what_is_not_named_as_the_venue_shows_it() -> None:
    venue = MemoryVenue(venue_order())
    request, found = await edit_of(venue, OURS, "0.7", "", "r1")
    assert (request.edits, request.quantity, request.limit_price) == (OURS, Decimal("0.7"), Decimal(90))
    assert (found.venue_order_id, request.side, request.product_id) == ("v1", m.Side.BUY, "BTC-USD")
    assert (await edit_of(venue, "v1", "", "91.5", "r1"))[0].limit_price == Decimal("91.5")


@pytest.mark.parametrize(
    ("order_id", "qty", "kind", "line"),
    [
        ("v1", "", BadConfig, "--qty or --price is missing"),
        ("v1", "x", BadConfig, "--qty 'x' is not a number"),
        ("v2", "1", Refused, "was not made by this bot"),
        ("v3", "1", Refused, "has ended: FILLED"),
        ("v4", "1", Refused, "the venue has no order v4"),
        ("", "1", BadConfig, "is not an order id"),
    ],
)
async def test_an_edit_needs_an_open_order_of_ours_and_a_change(
    order_id: str, qty: str, kind: type[Exception], line: str
) -> None:
    venue = MemoryVenue(venue_order(), venue_order("v2", "theirs"), venue_order("v3", word="FILLED"))
    with pytest.raises(kind, match=line):
        await edit_of(venue, order_id, qty, "", "r1")
