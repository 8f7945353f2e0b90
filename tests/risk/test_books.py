"""Positions, profit and cash against figures reckoned by hand."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from tests.risk.builders import (
    BTC,
    ETH,
    NOON,
    SECOND,
    D,
    Desk,
    account,
    event,
    feed,
    fill,
    installation,
    mark,
    product,
    signal,
    trading,
)

SELL = m.Side.SELL


def test_cost_is_averaged_and_profit_is_realised_against_it_without_fees() -> None:
    desk = Desk().open()
    desk.fact(fill("1", size="1", price="100", fee="1"), fill("2", size="3", price="120", fee="3.6"))
    btc = desk.figures.positions[BTC]
    assert (btc.quantity, btc.avg_price, btc.realized_pnl, btc.fees) == (D(4), D(115), D(0), D("4.6"))
    desk.fact(fill("3", SELL, "2", "130", "2.6"))
    btc = desk.figures.positions[BTC]
    assert (btc.quantity, btc.avg_price, btc.realized_pnl, btc.fees) == (D(2), D(115), D(30), D("7.2"))
    desk.feed(mark(price="110", at=NOON + SECOND))
    figures = desk.figures
    # 100,000 - (100 + 1) - (360 + 3.6) + (260 - 2.6)
    assert figures.books == {"BTC": D(2), "ETH": D(0), "USD": D("99792.8")}
    assert (figures.unrealized_pnl, figures.exposure, figures.equity) == (D(-10), D(220), D("100012.8"))
    assert (figures.realized_pnl, figures.fees, figures.daily_loss) == (D(30), D("7.2"), D(0))


def test_a_flat_position_has_no_average_and_needs_no_mark() -> None:
    desk = Desk().open()
    desk.fact(fill("1", size="3", price="99.99", fee="0.1"), fill("2", SELL, "3", "101.01", "0.1"))
    desk.core.known.marks.clear()
    figures = desk.figures
    btc = figures.positions[BTC]
    assert (btc.quantity, btc.avg_price, btc.realized_pnl, btc.unrealized_pnl) == (D(0), None, D("3.06"), D(0))
    assert (figures.daily_loss, figures.equity) == (D(0), D("100002.86"))


def test_thirds_lose_nothing() -> None:
    """A cost that cannot be split without rounding keeps in the rest what the part has lost."""
    desk = Desk().open()
    desk.fact(fill("1", size="3", price="33.333333333333331"), fill("2", SELL, "1", "34"), fill("3", SELL, "1", "34"))
    desk.fact(fill("4", SELL, "1", "34"))
    assert desk.figures.positions[BTC].realized_pnl == 102 - 3 * D("33.333333333333331")


def test_more_sold_than_held_is_shown_as_it_is() -> None:
    desk = Desk().open().bought("1", "100")
    desk.fact(fill("over", SELL, "3", "110"))
    btc = desk.figures.positions[BTC]
    assert (btc.quantity, btc.avg_price, btc.realized_pnl) == (D(-2), D(110), D(10))
    assert desk.figures.equity == 100_000 + 10 + 2 * (110 - 100)
    desk.fact(fill("back", m.Side.BUY, "3", "90"))
    btc = desk.figures.positions[BTC]
    assert (btc.quantity, btc.avg_price, btc.realized_pnl) == (D(1), D(90), D(10 + 40))


def test_a_fill_whose_value_the_venue_tells_itself_costs_exactly_that() -> None:
    """As recorded: 1 USD, fee included, for so many ALGO at 0.255."""
    desk, value = Desk().open(), D("0.9940357852882704")
    told = fill("1", size="3.898179550150", price="0.255", fee="0.0059642147117296")
    desk.fact(msgspec.structs.replace(told, value=value))
    assert desk.figures.books["USD"] == 99_999
    desk.fact(msgspec.structs.replace(fill("2", SELL, "3.898179550150", "0.255"), value=value))
    assert (desk.figures.positions[BTC].realized_pnl, desk.figures.books["USD"]) == (D(0), 99_999 + value)


def test_what_an_order_by_quote_size_has_spent_is_the_value_that_the_venue_tells() -> None:
    desk = Desk().open()
    wanted = signal("quote", quantity="0", quote_size=D(100), order_type=m.OrderType.MARKET, limit_price=None)
    order = desk.approve(wanted).order
    assert order is not None
    told = fill("1", size="0.333333333333", price="150", fee="1", order=order.client_order_id)
    desk.fact(msgspec.structs.replace(told, value=D(50)))
    assert desk.figures.reserved == 49


def test_products_that_share_a_currency_share_its_books() -> None:
    desk = Desk().open().bought("1", "100", "1").bought("2", "50", "1", ETH)
    assert desk.figures.books == {"BTC": D(1), "ETH": D(2), "USD": D(100_000 - 101 - 101)}


def test_a_fill_counts_once() -> None:
    desk = Desk().open()
    bought = fill("1", size="1")
    desk.fact(bought, bought)
    desk.feed(msgspec.structs.replace(bought, at=NOON + SECOND))
    assert desk.figures.positions[BTC].quantity == 1
    assert desk.restart().figures.positions[BTC].quantity == 1
    assert desk.restart(snapshot=False).figures.positions[BTC].quantity == 1


def test_what_is_not_known_is_none() -> None:
    desk = Desk().open(opening=None)
    figures = desk.figures
    assert (figures.equity, figures.books, figures.drift) == (None, {}, None)
    assert (figures.exposure, figures.daily_loss) == (D(0), D(0))
    desk.bought("1")
    del desk.core.known.marks[BTC]
    figures = desk.figures
    assert (figures.exposure, figures.daily_loss, figures.unrealized_pnl) == (None, None, None)
    assert (figures.positions[BTC].unrealized_pnl, figures.positions[BTC].mark_price) == (None, None)
    desk.feed(installation())
    assert (desk.figures.equity, desk.figures.books["USD"]) == (None, D(99_900))


def test_a_residue_below_the_minimum_is_flagged_as_dust() -> None:
    desk = Desk().open().bought("0.009").bought("0.01", product_id=ETH)
    assert {p: position.dust for p, position in desk.figures.positions.items()} == {BTC: True, ETH: False}
    desk.feed(mark(ETH, "99.99", NOON + SECOND))
    assert desk.figures.positions[ETH].dust
    desk.feed(product(ETH, quote_min_size=D("0.5")))
    assert not desk.figures.positions[ETH].dust


def test_figures_follow_every_fill_every_terminal_event_and_every_fourth_tick() -> None:
    desk = Desk().open()
    told = [len(desk.feed(m.Tick(id="tick"))) for _ in range(8)]
    assert told == [0, 0, 1, 0, 0, 0, 1, 0]  # `open` has fed one
    assert [type(message) for message in desk.fact(fill("1"))] == [m.RiskFigures]


def test_only_products_that_were_traded_have_a_position() -> None:
    assert list(Desk().open().bought("1").figures.positions) == [BTC]


# -- drift


def test_the_books_agree_with_the_venue_after_fills_and_holds() -> None:
    desk = Desk().open().bought("2", "100", "1.5")
    balances = {"USD": D(99_000), "BTC": D("1.5")}
    desk.feed(account(balances, NOON + SECOND, hold={"USD": D("798.5"), "BTC": D("0.5")}))
    assert desk.figures.drift == {}


@pytest.mark.parametrize(("difference", "drift"), [("1E-8", {}), ("-1E-8", {}), ("1.1E-8", {"USD": D("1.1E-8")})])
def test_what_the_venue_may_have_rounded_is_no_drift(difference: str, drift: dict[str, Decimal]) -> None:
    desk = Desk().open()
    desk.feed(account({"USD": 100_000 + D(difference)}, NOON + SECOND))
    assert desk.figures.drift == drift


def test_an_unexplained_change_is_shown_per_currency_and_clears_when_the_venue_agrees_again() -> None:
    desk = Desk().open()
    desk.feed(account({"USD": D(99_000), "BTC": D("0.5"), "DOGE": D(7)}, NOON + SECOND))
    assert desk.figures.drift == {"USD": D(-1000), "BTC": D("0.5")}
    desk.feed(account({"USD": D(100_000)}, NOON + 2 * SECOND))
    assert desk.figures.drift == {}


def test_a_balance_that_is_not_comparable_says_nothing_about_drift() -> None:
    desk = Desk().open()
    desk.feed(account({"USD": D(1)}, NOON + SECOND, settled=False))
    assert desk.figures.drift == {}
    desk.fact(fill("1", at=NOON + 2 * SECOND))
    desk.feed(account({"USD": D(1)}, NOON + 2 * SECOND))  # may have been read before the fill
    assert desk.figures.drift == {}


def test_an_account_that_outruns_the_ledger_is_compared_when_the_ledger_has_caught_up() -> None:
    desk = Desk().open()
    verdict = desk.approve(signal())
    desk.feed(account({"USD": D(99_900), "BTC": D("1.25")}, NOON + 3 * SECOND, ledger_sequence=3))
    assert desk.figures.drift == {}
    desk.fill(verdict, "1", "1")
    assert desk.figures.drift == {}
    desk.core.reached(3)
    desk.fact(event(verdict, m.OrderStatus.FILLED, 3, "1", NOON + SECOND))
    assert desk.figures.drift == {"BTC": D("0.25")}


def test_the_books_are_compared_while_orders_rest() -> None:
    desk = Desk().open()
    desk.approve(signal(time_in_force=m.TimeInForce.GTC))
    desk.feed(account({"USD": D(100_001)}, NOON + 3 * SECOND))
    assert desk.figures.drift == {"USD": D(1)}


def test_opening_balances_that_are_recorded_while_we_run_come_with_the_account() -> None:
    desk = Desk().open(opening=None)
    opening = {"USD": D(500), "BTC": D(3)}
    desk.feed(account(opening, NOON + SECOND, opening=opening))
    assert (desk.figures.books["USD"], desk.figures.equity, desk.figures.drift) == (D(500), D(500), {})


def test_drift_survives_a_restart() -> None:
    desk = Desk().open()
    desk.feed(account({"USD": D(1)}, NOON + SECOND))
    desk.feed(account({"USD": D(100_000)}, NOON + 2 * SECOND, settled=False))
    assert desk.restart().figures.drift == {"USD": D(-99_999)}


def test_an_older_account_does_not_replace_a_newer_one() -> None:
    desk = Desk().open()
    desk.feed(account({"USD": D(100_000)}, NOON + 2 * SECOND), account({"USD": D(1)}, NOON + SECOND))
    assert desk.figures.drift == {}


def test_readiness_names_what_is_missing() -> None:
    desk = Desk()
    said = [desk.core.not_ready(desk.now)]
    for message in (trading(), installation(), product(), product(ETH), account(), mark(), mark(ETH), feed()):
        desk.feed(message)
        said.append(desk.core.not_ready(desk.now))
    assert said[:8] == [
        "the trading state is not known",
        "the opening balances are not known",
        "no product rules of BTC-USD, ETH-USD",
        "no product rules of ETH-USD",
        "no account snapshot",
        "no mark of BTC-USD, ETH-USD",
        "no mark of ETH-USD",
        "",
    ]
    desk.bought("1", product_id="SOL-USD")
    assert desk.core.not_ready(desk.now + timedelta(1)) == "no mark of SOL-USD, which is held"
    assert not desk.core.busy
