"""The count finds what it is there for: each of these is planted in a ledger and an account that are in order."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace

from libs.common import messages as m
from sim.core import Exchange
from sim.orders import Fill, Kind, Liquidity, NewOrder, Order, Status, TimeInForce
from sim.products import spot_product
from sim.rules import VenueRules
from sim.store import Store
from sim.ticks import Side, Tick
from tests.chaos.accounts import Account, Count, account_at, count, unknowns
from tests.cli.builders import PRODUCT, START, event, fill, verdict

LEDGER: list[m.Message] = [verdict(), event(), fill()]
OPENING = {"USD": Decimal(1000)}
ORDER = Order(
    order_id="v1",
    sequence=1,
    client_order_id="order-s1",
    product_id=PRODUCT,
    side=Side.BUY,
    kind=Kind.MARKET,
    time_in_force=TimeInForce.IOC,
    configuration={},
    created_at=START,
    active_at=START,
    status=Status.FILLED,
    hold_currency="USD",
    hold=Decimal(0),
    hold_fee_rate=Decimal(0),
)
FILL = Fill(
    entry_id="f1",
    trade_id="t1",
    sequence=1,
    order_id="v1",
    client_order_id="order-s1",
    product_id=PRODUCT,
    side=Side.BUY,
    price=Decimal(100),
    size=Decimal("0.5"),
    fee=Decimal("0.6"),
    liquidity=Liquidity.TAKER,
    at=START,
)
ACCOUNT = Account((ORDER,), (FILL,), {"USD": Decimal("949.4"), "BTC": Decimal("0.5")})


def counted(ledger: list[m.Message] | None = None, account: Account = ACCOUNT, reserved: Decimal = Decimal(0)) -> Count:
    return count(LEDGER if ledger is None else ledger, account, OPENING, reserved)


def test_books_in_order_have_no_trouble() -> None:
    found = counted()
    assert found.troubles == []
    assert (found.orders, found.fills, found.approvals, found.unknown) == (1, 1, 1, 0)


def test_an_order_that_is_at_the_venue_twice_is_a_double() -> None:
    again = replace(ORDER, order_id="v2", status=Status.CANCELLED)
    assert counted(account=replace(ACCOUNT, orders=(ORDER, again))).doubles == (
        "order order-s1 is at the venue 2 times",
    )


def test_an_order_that_nobody_approved_is_a_double() -> None:
    stranger = replace(ORDER, order_id="v2", client_order_id="random", status=Status.CANCELLED)
    found = counted(account=replace(ACCOUNT, orders=(ORDER, stranger)))
    assert found.doubles == ("order random is at the venue, and nobody approved it",)


def test_an_order_that_was_approved_twice_is_a_double_and_an_edit_of_it_is_none() -> None:
    edit = replace(verdict(), id="verdict-e1", signal_id="e1", edits=True)
    assert counted([*LEDGER, edit]).troubles == []
    again = replace(verdict(), id="verdict-again", signal_id="s9")
    assert counted([*LEDGER, again]).doubles == ("order order-s1 was approved 2 times",)


def test_a_fill_that_was_booked_twice_is_a_double() -> None:
    assert counted([*LEDGER, fill()]).doubles == ("fill f1 was booked 2 times",)


def test_a_fill_that_was_not_booked_is_a_loss_and_the_balances_tell_of_it() -> None:
    found = counted([verdict(), event()])
    assert found.losses == ("fill f1 of order order-s1 was lost",)
    assert found.others == ("BTC: ours 0, the venue's 0.5", "USD: ours 1000, the venue's 949.4")


def test_a_fill_that_the_venue_does_not_know_is_a_loss() -> None:
    found = counted([*LEDGER, fill("f2")])
    assert found.losses == ("fill f2 was booked, and the venue does not know it",)


def test_a_fill_that_was_booked_with_another_fee_is_a_loss() -> None:
    (line,) = counted([verdict(), event(), fill(fee="0.5")]).losses
    assert line.startswith("fill f1 was booked as")


def test_an_approval_of_which_nothing_came_is_a_loss() -> None:
    assert counted([*LEDGER, verdict("s2")]).losses == ("order order-s2 was approved, and nothing came of it",)


@pytest.mark.parametrize("status", [m.OrderStatus.REJECTED, m.OrderStatus.DENIED])
def test_an_order_that_we_gave_up_and_the_venue_has_is_a_loss(status: m.OrderStatus) -> None:
    (line,) = counted([verdict(), event(status=status), fill()]).losses
    assert line == f"order order-s1 is {status} by our books and at the venue"


def test_an_order_that_we_believe_in_and_the_venue_has_not_is_a_loss() -> None:
    found = counted([*LEDGER, verdict("s2"), event("s2", m.OrderStatus.CANCELED)])
    assert found.losses == ("order order-s2 is CANCELED by our books and not at the venue",)


def test_an_order_of_unknown_outcome_or_with_another_end_is_told() -> None:
    assert counted([verdict(), event(status=m.OrderStatus.UNKNOWN), fill()], reserved=Decimal(1)).others == (
        "order order-s1 is still UNKNOWN",
    )
    found = counted([verdict(), event(status=m.OrderStatus.ACCEPTED), fill()], reserved=Decimal(1))
    assert found.others == ("order order-s1 is ACCEPTED by our books and ended at the venue",)


def test_what_is_reserved_for_no_order_is_told() -> None:
    assert counted(reserved=Decimal(5)).others == ("5 is reserved for 0 open buys",)


def test_the_time_in_unknown_runs_until_the_next_word_of_the_venue() -> None:
    later = START + timedelta(seconds=7)
    unknown = replace(event(status=m.OrderStatus.UNKNOWN), sent_at=START)
    still = replace(unknown, revision=2, sent_at=START + timedelta(seconds=3))
    assert unknowns([unknown, still, replace(event(), revision=3, sent_at=later)]) == [7.0]
    assert unknowns([unknown]) == [float("inf")]


def test_the_account_is_read_from_the_venues_own_store(tmp_path: Path) -> None:
    exchange = Exchange([spot_product(PRODUCT)], VenueRules(), {"USD": Decimal(1000)}, "seed")
    exchange.on_tick(Tick(START, PRODUCT, 1, Decimal(100), Decimal(1), Side.SELL))
    wanted = NewOrder(PRODUCT, Side.BUY, Kind.MARKET, TimeInForce.IOC, {}, "order-s1", base_size=Decimal("0.5"))
    exchange.place(wanted, START)
    store = Store(tmp_path)
    store.claim("test")
    store.commit(exchange.ledger, exchange.orders.values(), exchange.fills, {}, 0)
    found = account_at(tmp_path)
    store.close()
    assert [order.client_order_id for order in found.orders] == ["order-s1"]
    assert [(one.client_order_id, one.size) for one in found.fills] == [("order-s1", Decimal("0.5"))]
    assert found.totals["BTC"] == Decimal("0.5")
