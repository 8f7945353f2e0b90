"""An edit from its verdict to its end: what may come and what is held meanwhile, live and from the ledger."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus, Reason, TimeInForce
from tests.risk.builders import BTC, NOON, SECOND, D, Desk, account, edit, event, mark, one, signal, trading

S, SELL = OrderStatus, m.Side.SELL


def resting(quantity: str = "4", side: m.Side = m.Side.BUY, **changes: object) -> tuple[Desk, m.Verdict]:
    desk = Desk().open(fee="0.01")
    if side is SELL:
        desk.bought("10")
    return desk, desk.rest(signal("first", side, quantity, **{"time_in_force": TimeInForce.GTC, **changes}))


def order_of(verdict: m.Verdict) -> m.ApprovedOrder:
    assert verdict.order is not None
    return verdict.order


def under_way(desk: Desk, first: m.Verdict, quantity: str, price: str = "100") -> m.Verdict:
    changed = desk.approve(edit(first, quantity, price))
    wanted = order_of(changed)
    desk.end(first, S.PENDING_UPDATE, 2, edit_id=changed.signal_id, wanted=wanted)
    return changed


def taken(desk: Desk, first: m.Verdict, changed: m.Verdict, status: OrderStatus = S.ACCEPTED) -> None:
    desk.end(first, status, 3, edit_id=changed.signal_id, order=order_of(changed))


def held(desk: Desk) -> tuple[Decimal, Decimal]:
    """Quote currency of all buys, and base currency of all sells."""
    return desk.figures.reserved, desk.core.state.selling(BTC)


def test_an_edit_is_a_verdict_of_its_own_for_the_same_order() -> None:
    desk, first = resting(post_only=True)
    verdict = desk.approve(edit(first, "5.0009", "99.509"))
    assert (verdict.edits, verdict.signal_id, verdict.reserved) == (True, "edit", D("5") * D("99.5") * D("1.01"))
    assert order_of(verdict) == msgspec.structs.replace(order_of(first), quantity=D(5), limit_price=D("99.50"))
    assert desk.core.open_orders == 1


@pytest.mark.parametrize(("quantity", "during", "after"), [("6", "606", "606"), ("1", "404", "101")])
def test_while_an_edit_is_under_way_the_larger_is_reserved(quantity: str, during: str, after: str) -> None:
    desk, first = resting()
    changed = desk.approve(edit(first, quantity))
    assert desk.figures.reserved == D(during)
    desk.end(first, S.PENDING_UPDATE, 2, edit_id=changed.signal_id, wanted=order_of(changed))
    assert desk.figures.reserved == D(during)
    taken(desk, first, changed)
    assert desk.figures.reserved == D(after)


@pytest.mark.parametrize("quantity", ["6", "1"])
def test_an_edit_that_is_refused_leaves_what_was_reserved_before(quantity: str) -> None:
    desk, first = resting()
    changed = under_way(desk, first, quantity)
    desk.end(first, S.ACCEPTED, 3, edit_id=changed.signal_id, reason="edit_refused: INSUFFICIENT_FUND")
    assert desk.figures.reserved == 404
    desk.approve(edit(first, "5", name="again"))


def test_an_edit_that_is_never_sent_ends_with_the_status_that_the_order_has() -> None:
    desk, first = resting()
    changed = desk.approve(edit(first, "6"))
    desk.end(first, S.PENDING_CANCEL, 2)
    assert desk.figures.reserved == 606
    desk.end(first, S.PENDING_CANCEL, 3, edit_id=changed.signal_id, reason="edit_refused: order_not_editable")
    assert desk.figures.reserved == 404


def test_only_its_own_event_ends_an_edit() -> None:
    desk, first = resting()
    under_way(desk, first, "6")
    desk.end(first, S.PARTIALLY_FILLED, 3)
    desk.end(first, S.ACCEPTED, 4, edit_id="another")
    assert desk.figures.reserved == 606
    assert desk.ask(edit(first, "5", name="again")).reason is Reason.ORDER_NOT_EDITABLE


def test_fills_count_against_both_versions() -> None:
    desk, first = resting()
    desk.fill(first, "before", "1")
    changed = under_way(desk, first, "6", "99.5")
    assert desk.figures.reserved == 5 * D("99.5") * D("1.01")
    desk.fill(first, "meanwhile", "2")
    assert desk.figures.reserved == 3 * D("99.5") * D("1.01")
    taken(desk, first, changed, S.PARTIALLY_FILLED)
    assert desk.figures.reserved == 3 * D("99.5") * D("1.01")
    desk.fill(first, "after", "3", "99.5")
    desk.end(first, S.FILLED, 4, "6", order=order_of(changed))
    assert (held(desk), desk.core.open_orders) == ((D(0), D(0)), 0)


@pytest.mark.parametrize("status", [S.CANCELED, S.EXPIRED, S.REJECTED, S.FILLED])
def test_the_end_of_the_order_settles_the_edit_too(status: OrderStatus) -> None:
    desk, first = resting()
    under_way(desk, first, "6")
    desk.fill(first, "fill", "1")
    desk.end(first, status, 3, "1")
    assert (held(desk), desk.core.open_orders) == ((D(0), D(0)), 0)


def test_an_end_that_runs_ahead_of_its_fills_keeps_the_part_of_the_version_that_it_names() -> None:
    desk, first = resting()
    changed = under_way(desk, first, "6", "101")
    desk.end(first, S.CANCELED, 3, "2", order=order_of(changed))
    assert desk.figures.reserved == 2 * 101 * D("1.01")


def test_an_unknown_outcome_keeps_the_larger_for_as_long_as_it_takes() -> None:
    desk, first = resting()
    under_way(desk, first, "6")
    desk.later(7 * 24 * 3600)
    assert desk.figures.reserved == 606
    for snapshot in (True, False):
        assert desk.restart(snapshot=snapshot).figures.reserved == 606


def test_an_edited_sale_may_take_what_is_free_beside_what_it_holds_itself() -> None:
    desk, first = resting("4", SELL)
    desk.ordered(signal("other", SELL, "5"))
    desk.fill(first, "fill", "1")
    changed = under_way(desk, first, "20")
    assert order_of(changed).quantity == 5  # one is sold, four are left beside the other order
    assert held(desk) == (D(0), D(9))
    assert desk.ask_as_operator(signal("third", SELL, "1")).reason is Reason.NOTHING_TO_REDUCE
    desk.end(first, S.PARTIALLY_FILLED, 3, "1", edit_id=changed.signal_id)
    assert held(desk) == (D(0), D(8))


def test_an_edit_down_frees_what_it_gives_up_only_when_it_is_done() -> None:
    desk, first = resting("10", SELL)
    changed = under_way(desk, first, "3")
    assert held(desk) == (D(0), D(10))
    taken(desk, first, changed)
    assert held(desk) == (D(0), D(3))


def test_an_edit_of_a_sale_passes_while_reducing_and_one_of_a_buy_does_not() -> None:
    desk, first = resting("4", SELL)
    buy = desk.rest(signal("buy", time_in_force=TimeInForce.GTC))
    desk.feed(trading(m.Trading.REDUCING, 2))
    desk.approve(edit(first, "5", name="sale"))
    assert desk.ask(edit(buy, "0.5", name="buy less")).reason is Reason.TRADING_REDUCING
    desk.feed(trading(m.Trading.HALTED, 3))
    assert desk.ask(edit(first, "2", name="halted")).reason is Reason.TRADING_HALTED


@pytest.mark.parametrize("limit", ["404", "100"])
def test_an_edit_that_adds_nothing_passes_caps_that_are_reached_or_passed(limit: str) -> None:
    desk, first = resting("4")
    desk.core.config = msgspec.structs.replace(desk.core.config, exposure_max=D(limit), position_notional_max=D(limit))
    desk.feed(account({"USD": D(0)}, NOON + SECOND, settled=False, fee="0.01"))
    assert desk.ask(edit(first, "4.001", name="more")).reason is Reason.POSITION_ABOVE_LIMIT
    verdict = desk.approve(edit(first, "3.999", name="less"))
    assert (verdict.reserved, desk.figures.reserved) == (D("403.899"), D(404))


def test_what_the_venue_was_sent_is_what_an_edit_starts_from() -> None:
    """Execution clamps a sale to what is held right before it sends it."""
    desk, first = resting("4", SELL)
    desk.end(first, S.PARTIALLY_FILLED, 2, order=msgspec.structs.replace(order_of(first), quantity=D(2)))
    assert held(desk) == (D(0), D(2))


def test_an_edit_told_after_the_end_of_its_order_changes_nothing() -> None:
    """Live, the verdict comes first: it is taken before the ledger is read on."""
    desk, first = resting()
    [verdict] = desk.core.on_message(edit(first, "6"), desk.now)
    ahead = event(first, S.CANCELED, 2, "2")
    live, replayed = Desk(), Desk()
    live.core.restore(desk.core.dump())
    replayed.core.restore(desk.core.dump())
    live.feed(verdict, ahead)
    replayed.feed(ahead, verdict)
    assert live.core.state.orders == replayed.core.state.orders
    assert live.figures.reserved == 202


STORY: list[Callable[[Desk, m.Verdict], object]] = [
    lambda desk, first: desk.approve(edit(first, "6", "99.5")),
    lambda desk, first: desk.end(first, S.PENDING_UPDATE, 2, edit_id="edit", wanted=_wanted(desk)),
    lambda desk, first: desk.fill(first, "fill", "1"),
    lambda desk, first: desk.end(first, S.PARTIALLY_FILLED, 3, "1", edit_id="edit", order=_wanted(desk)),
    lambda desk, first: desk.approve(edit(first, "2", "100", "second")),
    lambda desk, first: desk.end(first, S.PARTIALLY_FILLED, 4, "1", edit_id="second", order=_wanted(desk, "edit")),
    lambda desk, first: desk.end(first, S.CANCELED, 5, "1", order=_wanted(desk, "edit")),
]


def _wanted(desk: Desk, signal_id: str = "edit") -> m.ApprovedOrder:
    return order_of(next(v for v in desk.ledger if isinstance(v, m.Verdict) and v.signal_id == signal_id))


@pytest.mark.parametrize("steps", range(len(STORY) + 1))
@pytest.mark.parametrize("snapshot", [True, False])
def test_the_ledger_gives_the_same_state_at_every_step_of_an_edit(steps: int, snapshot: bool) -> None:
    desk, first = resting()
    for step in STORY[:steps]:
        step(desk, first)
    before = desk.core.state.orders
    assert desk.restart(snapshot=snapshot).core.state.orders == before
    desk.core.state.drift = {}  # without a snapshot it is not known: balances are not compared while an order is open
    for step in STORY[steps:]:
        step(desk, first)
    assert (held(desk), desk.core.open_orders) == ((D(0), D(0)), 0)
    assert desk.figures.positions[BTC].quantity == 1


def test_an_edit_is_answered_once() -> None:
    desk, first = resting()
    desk.approve(edit(first, "6"))
    assert desk.feed(edit(first, "7")) == []
    assert desk.restart().feed(edit(first, "7")) == []


def test_an_edit_needs_the_same_mark_as_any_order() -> None:
    desk, first = resting()
    desk.feed(mark(price="110"))
    assert desk.ask(edit(first, "5", "111.11")).reason is Reason.PRICE_OFF_MARKET
    assert one(desk.feed(edit(first, "5", "111.1", "near")), m.Verdict).reason is Reason.APPROVED
