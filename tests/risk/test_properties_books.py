"""Positions and daily loss after any interleaving, against a bookkeeper with a pencil: `tests.risk.bookkeeping`."""

from __future__ import annotations

from hypothesis import given

from libs.common import messages as m
from tests.risk.bookkeeping import by_hand
from tests.risk.builders import D, Desk, config
from tests.risk.play import ANYTHING, OPERATED, Play, Step, played, steps

OPENING = {"USD": D(100_000), "BTC": D(5), "ETH": D(0)}
FREE = config(daily_loss_limit=D(10**9), orders_per_minute_max=100)
DAYS = (
    tuple(kind for kind in ANYTHING if kind != "rebuild")
    + OPERATED
    + ("night", "fill", "order", "mark", "mark", "trade")
)


def compare(play: Play) -> None:
    by_pencil, figures = by_hand(OPENING, play.facts, play.desk.now), play.desk.figures
    assert {p: position.quantity for p, position in figures.positions.items()} == by_pencil.positions
    assert figures.books == by_pencil.balances
    assert figures.fees == by_pencil.fees
    assert figures.equity == by_pencil.equity
    assert figures.daily_loss == max(D(0), -by_pencil.day_result)
    assert figures.equity_day_start == by_pencil.equity - by_pencil.day_result


@played()
@given(steps(*DAYS))
def test_the_figures_are_those_of_a_computation_by_hand(taken: list[Step]) -> None:
    """At every moment, over midnights and restarts; of the ledger alone see `test_properties_restart`."""
    play = Play(Desk(FREE).open(opening=OPENING, fee="0.006"), moving=True, fee="0.006")
    for step in taken:
        play.step(step)
        compare(play)


@played()
@given(steps(*DAYS, "adjust", "adjust", "pay"))
def test_what_is_paid_or_handed_over_is_no_gain_and_no_loss(taken: list[Step]) -> None:
    play = Play(Desk(FREE).open(opening=OPENING), moving=True).begin()
    for step in taken:
        before = play.desk.figures
        made = [a for a in play.step(step) if isinstance(a, m.Adjustment)]
        if made and made[0].kind is not m.AdjustmentKind.MANUAL_TRADE:
            after, flow = play.desk.figures, made[0].flows.get("USD", D(0))
            assert after.daily_loss == before.daily_loss
            assert (after.equity_day_start, after.equity_peak) == (
                sum_of(before.equity_day_start, flow),
                sum_of(before.equity_peak, flow),
            )


def sum_of(before: object, flow: object) -> object:
    return D(str(before)) + D(str(flow))
