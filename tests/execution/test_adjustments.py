"""What an operator says of the account moves what may be sold, and each word of it counts once."""

from __future__ import annotations

from decimal import Decimal

import pytest

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from tests.execution.story import NOON, Story, key, placed, seen
from tests.execution.tellings import SELL, account, adjustment, bought, sale


def held(story: Story) -> Decimal:
    return story.core.state.positions.get("BTC-USD", Decimal(0))


def test_holdings_that_were_handed_over_may_be_sold() -> None:
    story = Story().tell(sale("s1", "0.4"))
    assert story.reasons == [m.Reason.NOTHING_TO_REDUCE]
    story.tell(adjustment("a1", "0.3"), sale("s2", "0.4"))
    assert story.all(i.Place)[-1].order.quantity == Decimal("0.3")


def test_what_was_given_back_or_sold_by_hand_may_not_be_sold() -> None:
    story = bought("1").tell(adjustment("a1", "-0.6"), sale("s2", "1"), placed("s2"))
    assert story.all(i.Place)[-1].order.quantity == Decimal("0.4")
    story.tell(seen("s2", status=S.CANCELED, side=SELL), adjustment("a2", "-0.4"))
    assert story.tell(sale("s3", "1")).reasons[-1] == m.Reason.NOTHING_TO_REDUCE


def test_what_was_paid_in_or_out_changes_no_position_and_not_the_opening_balances() -> None:
    story = bought()
    story.tell(m.Installation(id="installation", opening={"USD": Decimal(100)}))
    story.tell(adjustment("a1", USD="50"), adjustment("a2", BTC="-3"), adjustment("a3", "2", USD="-200"))
    assert story.core.state.positions == {"BTC-USD": Decimal(3)}
    assert account(story).opening == {"USD": Decimal(100)}


def test_an_adjustment_that_is_told_twice_counts_once_for_ever() -> None:
    story = Story().tell(adjustment("a1", "0.3"), adjustment("a1", "0.3"))
    story.tell(*[adjustment(f"b{number}", "0.01") for number in range(1000)], adjustment("a1", "0.3"))
    assert held(story) == Decimal("10.3")


def test_two_adjustments_of_the_same_size_count_twice() -> None:
    assert held(Story().tell(adjustment("a1", "0.3"), adjustment("a2", "0.3"))) == Decimal("0.6")


def test_after_an_adjustment_the_account_is_read_again_and_only_for_a_new_one() -> None:
    for said in (adjustment("a1", "0.3"), adjustment("a2", USD="50")):
        story = Story()
        before = len(story.all(i.FetchAccount))
        story.tell(said, said)
        assert len(story.all(i.FetchAccount)) == before + 1


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_an_adjustment_before_and_one_after_a_snapshot_count_once_each(kept: int) -> None:
    """The ledger is read again from before the snapshot's place: what it holds already must not move it."""
    ledger = [*bought().ledger, adjustment("a1", "0.3"), adjustment("a2", "-0.5")]
    first = Story(ledger[: len(ledger) - 2 + kept])
    again = Story(start=False)
    again.core.restore(first.core.dump())
    for fact in ledger:
        again.core.on_message(fact, NOON)
    assert held(again.tell(m.Recovered(id="recovered"))) == Decimal("0.8")
    assert held(Story(ledger)) == Decimal("0.8")


def test_a_snapshot_of_before_there_were_adjustments_is_still_one() -> None:
    story = bought()
    raw = story.core.dump().replace(b',"adjustment_ids":[]', b"")
    assert b"adjustment" not in raw
    again = Story(start=False)
    again.core.restore(raw)
    assert held(again.tell(adjustment("a1", "1"))) == 2


def test_a_handover_beside_an_open_sale_adds_to_what_other_sales_may_take() -> None:
    story = bought().tell(sale("s2", "1"), placed("s2"), adjustment("a1", "0.5"), sale("s3", "1"))
    assert story.all(i.Place)[-1].order.client_order_id == key("s3")
    assert story.all(i.Place)[-1].order.quantity == Decimal("0.5")
