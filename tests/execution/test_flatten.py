"""The closing of all positions: what may leave through it and nothing else, and what has to make room for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from libs.common.messages import Reason, Trading
from services.execution import inputs as i
from services.execution.permission import outdated, overtaken, refusal
from tests.execution.story import NOON, Story, key, placed, product, seen, trading, verdict
from tests.execution.tellings import (
    SELL,
    bought,
    changed,
    closing,
    last,
    later,
    listed,
    resting,
    sale,
    sale_edit,
    unknown,
    user,
)

HALTED, REDUCING, ACTIVE = Trading.HALTED, Trading.REDUCING, Trading.ACTIVE
FLATTEN = trading(HALTED, 2, flatten="f1")


def canceled(story: Story) -> list[str]:
    return [cancel.client_order_id for cancel in story.all(i.Cancel)]


def place(approval: m.Verdict) -> i.Place:
    assert approval.order is not None
    return i.Place(id="p", order=approval.order, trading_revision=approval.trading_revision, expires_at=NOON)


# -- what may leave


@pytest.mark.parametrize("state", [HALTED, REDUCING])
def test_a_closing_order_leaves_while_trading_is_halted_or_reducing(state: Trading) -> None:
    story = bought().tell(trading(state, 2, flatten="f1"), closing("c1", "1"))
    assert story.all(i.Place)[-1].order.client_order_id == key("c1")
    assert refusal(story.all(i.Place)[-1], trading(state, 2, flatten="f1"), NOON) is None
    story.tell(placed("c1"), seen("c1", filled="1", fills=(("x", "100", "1"),), side=SELL))
    assert last(story).status is S.FILLED
    assert story.core.state.positions == {"BTC-USD": Decimal(0)}


def test_a_halt_without_a_closing_lets_no_closing_order_out() -> None:
    story = bought().tell(trading(HALTED, 2), closing("c1", "1"))
    assert story.reasons[-1] == Reason.TRADING_HALTED
    assert refusal(place(closing("c1", "1")), trading(HALTED, 2), NOON) is Reason.TRADING_HALTED


@pytest.mark.parametrize(
    "approval", [verdict("c1", SELL, "1", reduce_only=True, revision=2), verdict("c1", revision=2)]
)
def test_a_closing_in_force_lets_no_other_order_out_of_a_halt(approval: m.Verdict) -> None:
    story = bought().tell(FLATTEN, approval)
    assert story.reasons[-1] == Reason.TRADING_HALTED
    assert refusal(place(approval), FLATTEN, NOON) is Reason.TRADING_HALTED


@pytest.mark.parametrize("state", [HALTED, REDUCING, ACTIVE])
@pytest.mark.parametrize(
    "odd",
    [
        {"side": m.Side.BUY},
        {"side": m.Side.BUY, "reduce_only": False},
        {"reduce_only": False},
        {"time_in_force": m.TimeInForce.GTC},
    ],
)
def test_what_does_not_only_sell_and_at_once_is_no_way_out_whatever_it_says(
    state: Trading, odd: dict[str, object]
) -> None:
    approval, now = changed(closing("c1", "1"), **odd), trading(state, 2, flatten="f1")
    assert bought().tell(now, approval).reasons[-1] == Reason.EVALUATION_FAILED
    assert refusal(place(approval), now, NOON) is Reason.EVALUATION_FAILED


@pytest.mark.parametrize("state", [trading(HALTED, 3, flatten="f1"), trading(HALTED, 3), trading(ACTIVE, 3)])
def test_a_closing_order_of_an_older_trading_state_is_refused_as_ever(state: m.TradingState) -> None:
    story = bought().tell(state, closing("c1", "1"))
    assert story.reasons[-1] == Reason.TRADING_STATE_CHANGED
    assert refusal(place(closing("c1", "1")), state, NOON) is Reason.TRADING_STATE_CHANGED
    assert overtaken(place(closing("c1", "1")), state, NOON)


@pytest.mark.parametrize(
    ("state", "now", "expected"),
    [
        (FLATTEN, NOON, None),
        (None, NOON, Reason.TRADING_STATE_UNKNOWN),
        (trading(HALTED, 0), NOON, Reason.TRADING_HALTED),  # the stored state was lost
        (FLATTEN, NOON + timedelta(microseconds=1), Reason.APPROVAL_EXPIRED),
    ],
)
def test_a_closing_order_needs_a_known_state_and_a_living_approval(
    state: m.TradingState | None, now: datetime, expected: Reason | None
) -> None:
    wanted = closing("c1", "1").order
    assert wanted is not None
    assert outdated(state, 2, NOON, wanted, now) == expected
    assert overtaken(place(closing("c1", "1")), state, now) is (expected is not None)


def test_an_operators_halt_that_ends_the_closing_stops_an_order_that_waits_for_its_turn() -> None:
    story = bought().tell(FLATTEN, closing("c1", "1"))
    assert not overtaken(story.all(i.Place)[-1], FLATTEN, NOON)
    assert overtaken(story.all(i.Place)[-1], trading(HALTED, 3), NOON)


def test_a_closing_order_is_clamped_to_what_is_held_and_free() -> None:
    story = bought("0.5").tell(FLATTEN, closing("c1", "1"))
    assert story.all(i.Place)[-1].order.quantity == Decimal("0.5")
    assert story.tell(closing("c2", "1")).reasons[-1] == Reason.NOTHING_TO_REDUCE
    small = bought("0.0001")
    small.core.on_message(product(base_min_size=Decimal("0.001")), NOON)
    assert small.tell(FLATTEN, closing("c1", "1")).reasons[-1] == Reason.DUST


def test_no_edit_of_a_resting_order_is_a_way_out() -> None:
    story = bought().tell(sale("s2", "0.5"), placed("s2"), seen("s2", status=S.ACCEPTED, side=SELL))
    wanted = changed(sale_edit("s2", "0.6"), client_order_id=key("s2"), flatten=True)
    story.core.on_message(trading(HALTED, 1, flatten="f1"), NOON)
    assert story.tell(wanted).reasons[-1] == "edit_refused: evaluation_failed"
    assert story.all(i.Edit) == []


# -- what makes room


def bracketed() -> Story:
    """One bought, and all of it promised to a bracket that rests at the venue."""
    bracket = changed(sale("s2", "1"), order_type=m.OrderType.BRACKET, stop_price=Decimal(90))
    return bought().tell(bracket, placed("s2"), seen("s2", status=S.ACCEPTED, side=SELL))


@pytest.mark.parametrize("state", [HALTED, REDUCING])
def test_a_resting_bracket_is_canceled_and_then_the_closing_order_leaves(state: Trading) -> None:
    story = bracketed().tell(trading(state, 2, flatten="f1"))
    assert canceled(story) == [key("s2")]
    assert story.tell(closing("c1", "1")).reasons[-1] == Reason.NOTHING_TO_REDUCE  # not sold twice
    story.tell(seen("s2", status=S.ACCEPTED, side=SELL))
    assert canceled(story) == [key("s2")] * 2
    story.tell(seen("s2", status=S.CANCELED, side=SELL), closing("c2", "1"))
    assert story.all(i.Place)[-1].order.client_order_id == key("c2")
    assert story.all(i.Place)[-1].order.quantity == 1


def test_what_rests_is_canceled_again_at_every_look_until_it_is_gone() -> None:
    story = bracketed().tell(FLATTEN)
    told = seen("s2", status=S.ACCEPTED, side=SELL)
    failed = i.AskFailed(id="a", client_order_id=key("s2"), why="503")
    story.tell(failed, user(told.order), listed(told.order), told)
    assert canceled(story) == [key("s2")] * 5
    story.tell(seen("s2", status=S.CANCELED, side=SELL), FLATTEN)
    assert canceled(story) == [key("s2")] * 5


def test_entries_and_exits_both_make_room_and_without_a_closing_exits_stay() -> None:
    for state, gone in ((FLATTEN, {"s2", "s3"}), (trading(HALTED, 2), {"s3"}), (trading(REDUCING, 2), {"s3"})):
        story = bracketed().tell(verdict("s3", gtc=True), placed("s3"))
        assert set(canceled(story.tell(state))) == {key(name) for name in gone}
    story = bracketed().tell(verdict("s3", gtc=True), placed("s3"), trading(ACTIVE, 2))
    assert canceled(story) == []


@pytest.mark.parametrize("rests", ["unknown", "submitting"])
def test_what_only_later_turns_out_to_rest_is_canceled_then(rests: str) -> None:
    story = bought().tell(sale("s1", "0.5"))
    story.tell(*([unknown()] if rests == "unknown" else []), FLATTEN)
    assert canceled(story) == []
    order = seen(status=S.ACCEPTED, side=SELL).order
    story.tell(i.Found(id="f", client_order_id=key(), order=order) if rests == "unknown" else placed())
    assert canceled(story) == [key()]


def test_an_exit_in_the_middle_of_an_edit_is_canceled_too() -> None:
    story = bought().tell(sale("s1", "0.3"), placed(), seen(status=S.ACCEPTED, side=SELL), sale_edit("s1", "0.5"))
    assert last(story).status is S.PENDING_UPDATE
    assert canceled(story.tell(FLATTEN)) == [key()]


def test_a_closing_order_itself_is_never_canceled() -> None:
    story = bought().tell(FLATTEN, closing("c1", "1"), placed("c1"))
    story.tell(seen("c1", status=S.ACCEPTED, side=SELL), FLATTEN)
    assert canceled(story) == []


def test_it_is_busy_until_nothing_rests_that_has_to_go() -> None:
    for story, state in ((bracketed(), FLATTEN), (resting(), trading(HALTED, 2))):
        name = "s2" if state is FLATTEN else "s1"
        side = SELL if state is FLATTEN else m.Side.BUY
        story.tell(*[seen(name, status=S.ACCEPTED, side=side)] * 3)
        assert not story.core.busy
        story.tell(state)
        assert story.core.busy
        story.tell(seen(name, status=S.CANCELED, side=side))
        assert not story.core.busy


# -- restarts


def restarted(ledger: list[m.Message], state: m.TradingState) -> Story:
    story = Story(ledger, start=False)
    story.core.on_message(state, NOON)
    return story.tell(m.Recovered(id="recovered"))


def test_a_closing_order_found_submitting_at_start_is_asked_about_and_never_sent_again() -> None:
    story = restarted(bought().tell(FLATTEN, closing("c1", "1")).ledger, FLATTEN)
    assert story.statuses[-2:] == [S.SUBMITTING, S.UNKNOWN]
    assert story.all(i.Place) == []
    assert [find.client_order_id for find in story.all(i.Find)] == [key("c1")]
    assert story.tell(closing("c2", "1")).reasons[-1] == Reason.NOTHING_TO_REDUCE  # it may have sold all
    for seconds in (12, 13):
        story.tell(i.NotFound(id="n", client_order_id=key("c1"), asked_at=later(seconds)))
    story.tell(closing("c3", "1"))
    assert [order.order.client_order_id for order in story.all(i.Place)] == [key("c3")]


def test_a_closing_order_approved_before_the_start_leaves_after_it_if_its_state_still_holds() -> None:
    facts = [*bought().ledger, closing("c1", "1")]
    assert [order.order.client_order_id for order in restarted(facts, FLATTEN).all(i.Place)] == [key("c1")]
    ended = restarted(facts, trading(HALTED, 3))
    assert (ended.all(i.Place), ended.reasons[-1]) == ([], Reason.TRADING_STATE_CHANGED)


def test_an_exit_found_resting_at_a_start_under_a_closing_is_canceled() -> None:
    assert canceled(restarted(bracketed().ledger, FLATTEN)) == [key("s2")]


def test_a_snapshot_keeps_what_an_order_was_allowed_to_do() -> None:
    story = bought().tell(FLATTEN, closing("c1", "1"))
    fresh = Story(start=False)
    fresh.core.restore(story.core.dump())
    assert fresh.core.state.orders[key("c1")].order.flatten
