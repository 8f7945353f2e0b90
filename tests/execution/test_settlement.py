"""The venue's figure of what was filled, against the sizes of its fills."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from libs.common import messages as m
from libs.common.messages import OrderStatus as S
from services.execution import inputs as i
from tests.execution.story import Story, placed, seen, verdict

ONE = (("a", "100", "0.4"), ("b", "101", "0.6"))


def answer(filled: Decimal | None, status: S = S.FILLED, fills: tuple[tuple[str, str, str], ...] = ONE) -> i.OrderSeen:
    told = seen(status=status, fills=fills)
    return replace(told, order=replace(told.order, filled_qty=filled))


@pytest.mark.parametrize(("filled", "end"), [("1.000000009", True), ("0.999999991", True), ("1.00000001", False)])
def test_an_order_ends_when_nothing_is_missing_but_what_rounding_has_lost(filled: str, end: bool) -> None:
    story = Story().tell(verdict(), placed(), answer(Decimal(filled)))
    assert story.statuses[-1] is (S.FILLED if end else S.PARTIALLY_FILLED)


@pytest.mark.parametrize("status", [S.FILLED, S.CANCELED, S.EXPIRED])
def test_where_the_venue_tells_no_figure_its_fills_are_the_truth(status: S) -> None:
    story = Story().tell(verdict(), placed(), answer(None, status))
    assert story.statuses[-1] is status
    assert story.core.state.positions == {"BTC-USD": Decimal(1)}


def test_a_canceled_order_without_figure_and_fills_was_not_filled() -> None:
    assert Story().tell(verdict(), placed(), answer(None, S.CANCELED, ())).statuses[-1] is S.CANCELED


def test_a_filled_order_without_a_fill_stays_odd() -> None:
    story = Story().tell(verdict(), placed(), answer(None, fills=()))
    assert story.statuses[-1] is S.ACCEPTED
    assert story.core.anomalies == 1


def test_the_value_that_the_venue_tells_itself_is_booked_to_the_last_digit() -> None:
    told = answer(Decimal(1), fills=(("a", "100", "1"),))
    value = Decimal("100.0000000000000001")
    story = Story().tell(verdict(), placed(), replace(told, fills=(replace(told.fills[0], value=value),)))
    end = [fact for fact in story.ledger if isinstance(fact, m.OrderEvent)][-1]
    assert (end.status, end.filled_value, story.fills[0].quote_value) == (S.FILLED, value, value)
    again = story.restart().core.state.orders[end.client_order_id]
    assert again.filled_value == value


@pytest.mark.parametrize(("value", "odd"), [("1", 0), ("1.0000000001", 1)])
def test_more_than_its_quote_size_is_what_the_venue_says_was_spent(value: str, odd: int) -> None:
    approved = verdict()
    assert approved.order is not None
    approved = replace(approved, order=replace(approved.order, quote_size=Decimal(1)))
    told = answer(Decimal("0.333333333334"), fills=(("a", "3", "0.333333333334"),))
    told = replace(told, fills=(replace(told.fills[0], value=Decimal(value)),))
    assert Story().tell(approved, placed(), told).core.anomalies == odd
