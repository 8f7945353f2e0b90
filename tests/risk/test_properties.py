"""No interleaving breaks a limit, and no sale ever takes more than is held.

What is held and promised is counted beside risk, by the player: see `tests.risk.counterparty`.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from libs.common import messages as m
from libs.common.messages import Side
from tests.risk.builders import BTC, ETH, PRODUCTS, D, Desk, config, fill
from tests.risk.play import ANYTHING, ASKED, BROKEN, PASSED, TRADED, Play, Step, played, steps

amounts = st.decimals("0.001", "9.999", places=3)
fees = st.decimals(0, 5, places=9)
prices = st.decimals("1", "999.99", places=2)
sides = st.sampled_from(list(Side))
trades = st.lists(st.tuples(st.sampled_from(PRODUCTS), sides, amounts, prices, fees), max_size=25)
rates = st.sampled_from(["0", "0.006"])
LIMITS = config(
    order_notional_max=D(300),
    position_notional_max=D(500),
    exposure_max=D(800),
    exposure_fraction_max=D("0.9"),
    orders_per_minute_max=6,
    daily_loss_limit=D(50),
)
RICH = {"USD": D(100_000), "BTC": D(5), "ETH": D(0)}  # five BTC that are not the bot's
POOR = {"USD": D(650), "BTC": D(5), "ETH": D(0)}  # less than the limits would allow


@given(trades, prices)
def test_the_books_are_the_sum_of_the_fills_to_the_last_digit(
    bought: list[tuple[str, Side, Decimal, Decimal, Decimal]], price: Decimal
) -> None:
    desk = Desk(config(daily_loss_limit=D(10**9))).open(prices={p: str(price) for p in PRODUCTS})
    for number, (product_id, side, size, at, fee) in enumerate(bought):
        desk.fact(fill(str(number), side, str(size), str(at), str(fee), product_id=product_id))
    figures = desk.figures
    sign = {Side.BUY: 1, Side.SELL: -1}
    held = {p: sum((sign[side] * size for q, side, size, *_ in bought if q == p), D(0)) for p in PRODUCTS}
    cash = sum((-sign[side] * size * at - fee for _, side, size, at, fee in bought), D(0))
    assert figures.books == {"BTC": held[BTC], "ETH": held[ETH], "USD": 100_000 + cash}
    assert {p: position.quantity for p, position in figures.positions.items()} == {
        p: held[p] for p in figures.positions
    }
    assert figures.fees == sum((fee for *_, fee in bought), D(0))
    # What was earned is what the account is worth more: realised + unrealised - fees.
    worth = cash + sum((quantity * price for quantity in held.values()), D(0))
    assert figures.unrealized_pnl is not None
    assert figures.realized_pnl + figures.unrealized_pnl - figures.fees == worth
    assert figures.equity == 100_000 + worth
    assert figures.daily_loss == max(D(0), -worth)


# -- limits

EXPLORED = ASKED + TRADED + PASSED + BROKEN  # an operator's adjustment may put a position above any limit


@played()
@given(steps(*EXPLORED), rates, st.sampled_from([RICH, POOR]), st.booleans())
def test_no_interleaving_exceeds_a_limit(taken: list[Step], fee: str, opening: dict[str, Decimal], lazy: bool) -> None:
    """With a market that stands still, what is held and what is promised never pass a limit, whatever comes when."""
    play = Play(Desk(LIMITS).open(fee=fee, opening=opening), fee=fee, lazy=lazy)
    for step in taken:
        play.step(step)
        within_limits(play)
    orders_are_small_and_few(play)


def within_limits(play: Play) -> None:
    assert sum(play.worth(p) for p in PRODUCTS) + play.promised() <= LIMITS.exposure_max
    for product_id in PRODUCTS:
        assert play.held[product_id] >= 0
        assert play.worth(product_id) + play.promised(product_id) <= LIMITS.position_notional_max
    assert play.promised() <= play.books["USD"]


def orders_are_small_and_few(play: Play) -> None:
    approved = [v for v in play.desk.ledger if isinstance(v, m.Verdict) and v.order is not None]
    for number, verdict in enumerate(approved):
        assert verdict.order is not None
        if verdict.order.side is Side.BUY:
            limit_price = verdict.order.limit_price or D("100.1")
            assert (verdict.order.quote_size or verdict.order.quantity * limit_price) <= LIMITS.order_notional_max
            minute = [v for v in approved[: number + 1] if v.at > verdict.at - timedelta(minutes=1)]
            assert len(minute) <= LIMITS.orders_per_minute_max


@played()
@given(steps(*ANYTHING, "trade"), rates, st.sampled_from([RICH, POOR]), st.booleans())
def test_no_approval_adds_to_what_is_above_a_limit(
    taken: list[Step], fee: str, opening: dict[str, Decimal], lazy: bool
) -> None:
    """While prices move, money comes and goes and coins are handed over: positions may pass a limit by that alone,
    but no order takes them there."""
    before = {"": D(0)}

    def judge(verdict: m.Verdict) -> None:
        promised, product_id = play.promised(), verdict.product_id
        if promised > before[""]:
            value, exposure = play.worth(product_id), sum((play.worth(p) for p in PRODUCTS), D(0))
            equity = play.books["USD"] + exposure
            assert value + play.promised(product_id) <= LIMITS.position_notional_max
            assert exposure + promised <= min(LIMITS.exposure_max, LIMITS.exposure_fraction_max * equity)
            assert promised <= play.books["USD"]
        before[""] = promised

    play = Play(Desk(LIMITS).open(fee=fee, opening=opening), moving=True, fee=fee, lazy=lazy, judge=judge)
    for step in taken:
        play.step(step)
        before[""] = play.promised()


EDITS = ("rest", "rest", "edit", "edit", "edit", "order", "exit", "fill", "end", "pass", "restart", "rebuild")


@played()
@given(steps(*EDITS, least=20))
def test_an_order_under_edit_counts_as_the_larger_of_both_versions(taken: list[Step]) -> None:
    limits = msgspec.structs.replace(LIMITS, orders_per_minute_max=100)
    play = Play(Desk(limits).open(opening=RICH)).begin()
    for step in taken:
        play.step(step)
        within_limits(play)
        covered(play)


# -- reduce-only


@played(150)
@given(steps(*ANYTHING, "buy", "order", "exit"), st.booleans())
def test_no_sale_and_no_sum_of_sales_ever_takes_more_than_is_held(taken: list[Step], lazy: bool) -> None:
    """If every open sale filled now, nothing would be short: reduce-only reduces, whatever comes when."""
    never_short(taken, lazy)


@played()
@given(steps(*ANYTHING, "trade", "exit"))
@example([("exit", 4, 40), ("trade", 0, 5)])
def test_a_trade_by_hand_leaves_what_is_promised_to_open_sales(taken: list[Step]) -> None:
    never_short(taken)


def never_short(taken: list[Step], lazy: bool = False) -> None:
    play = Play(Desk(LIMITS).open(opening=RICH), moving=True, lazy=lazy).begin()
    for step in taken:
        play.step(step)
        covered(play)


def covered(play: Play) -> None:
    for product_id in PRODUCTS:
        assert play.selling(product_id) <= play.held[product_id]


@played()
@given(steps(*ANYTHING, "sell", "exit"))
def test_what_is_reduce_only_is_a_sale_of_what_is_free_and_every_sale_is_reduce_only(taken: list[Step]) -> None:
    def judge(verdict: m.Verdict) -> None:
        order, sent = verdict.order, play.orders[verdict.order.client_order_id if verdict.order else ""]
        assert order is not None
        assert order.reduce_only == (order.side is Side.SELL)
        if order.reduce_only:
            others = play.selling(verdict.product_id) - sent.base
            assert 0 < order.quantity - sent.filled <= play.held[verdict.product_id] - others

    play = Play(Desk(LIMITS).open(opening=RICH), moving=True, judge=judge).begin()
    for step in taken:
        play.step(step)


# -- one at a time


@played()
@given(steps(*ASKED, *TRADED, *PASSED, *BROKEN, "buy", "sell"))
def test_the_strategy_never_has_two_orders_of_one_product_and_side_open(taken: list[Step]) -> None:
    play = Play(Desk(LIMITS).open(opening=RICH))
    for step in taken:
        play.step(step)
        own = [(o.order.product_id, o.order.side) for o in play.open() if not o.verdict.operator]
        assert len(own) == len(set(own))
