"""Every figure against a series that was worked out by hand."""

from __future__ import annotations

import math
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from libs.common.messages import Side
from sim.backtest.figures import DEFINITIONS, RANKS, Figures, drawdowns, figures_of, rank_value
from sim.backtest.result import Bar
from tests.backtest.builders import BTC, DAY, EMPTY, HOUR, START, bars, daily, fill, point, trip

YEAR = math.sqrt(365)


def some(figures: Figures, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(figures, name) for name in names)


def test_the_total_return_is_what_became_of_the_opening_equity() -> None:
    assert figures_of(daily(1100, 1045, 1254)).total_return == pytest.approx(0.254)
    assert figures_of(daily(900)).total_return == pytest.approx(-0.1)


def test_the_annualised_return_is_the_compound_rate_of_365_days() -> None:
    two_years = replace(EMPTY, end=START + 730 * DAY, points=[point(START + 730 * DAY, 1210)])
    assert figures_of(two_years).annualised_return == pytest.approx(0.1)
    half = replace(EMPTY, end=START + 182.5 * DAY, points=[point(START + 182.5 * DAY, 1100)])
    assert figures_of(half).annualised_return == pytest.approx(0.21)


@pytest.mark.parametrize(("length", "equity"), [(DAY / 2, 1001), (DAY, 10**9), (10 * DAY, -5)])
def test_what_cannot_be_annualised_is_none(length: timedelta, equity: int) -> None:
    run = replace(EMPTY, end=START + length, points=[point(START + length, equity)])
    assert figures_of(run).annualised_return is None


def test_sharpe_is_the_mean_over_the_sample_deviation_of_daily_returns() -> None:
    # returns 0.1, -0.05, 0.2: mean 1/12, variance (1/60)^2 + (2/15)^2 + (7/60)^2 over 2 = 0.0158333
    assert figures_of(daily(1100, 1045, 1254)).sharpe == pytest.approx(1 / 12 / math.sqrt(0.95 / 60) * YEAR)


def test_sortino_counts_losses_only() -> None:
    # the one loss: root of 0.05^2 / 3
    assert figures_of(daily(1100, 1045, 1254)).sortino == pytest.approx(1 / 12 / (0.05 / math.sqrt(3)) * YEAR)


def test_days_that_were_not_run_whole_are_no_daily_returns() -> None:
    whole = daily(1100, 1045, 1254)
    before, after = START - 6 * HOUR, whole.end + 6 * HOUR
    points = [point(START, 1000), *whole.points, point(after, 2000)]
    longer = replace(whole, start=before, opening_equity=Decimal(500), end=after, points=points)
    assert figures_of(longer).sharpe == pytest.approx(figures_of(whole).sharpe)
    assert [day.pnl for day in figures_of(longer).daily_pnl] == [500, 100, -55, 209, 746]


def test_a_recording_that_ends_a_moment_before_midnight_has_its_last_day() -> None:
    whole = daily(1100, 1045, 1254)
    end = whole.end - timedelta(milliseconds=1)
    cut = replace(whole, end=end, points=[*whole.points[:-1], point(end, 1254)])
    assert figures_of(cut).sharpe == figures_of(whole).sharpe


def test_a_day_is_sampled_at_midnight_by_the_last_that_was_known() -> None:
    points = [point(START + 20 * HOUR, 1100), point(START + 30 * HOUR, 700), point(START + 48 * HOUR, 1045)]
    found = figures_of(replace(EMPTY, end=START + 2 * DAY, points=points))
    assert [day.day for day in found.daily_pnl] == [date(2025, 10, 1), date(2025, 10, 2)]
    assert [day.pnl for day in found.daily_pnl] == [100, -55]


def test_daily_pnl_covers_days_without_a_point_and_adds_up_to_the_whole() -> None:
    points = [point(START + 5 * HOUR, 1010), point(START + 75 * HOUR, 990)]
    found = figures_of(replace(EMPTY, end=START + 75 * HOUR, points=points)).daily_pnl
    assert [day.pnl for day in found] == [10, 0, 0, -20]


@pytest.mark.parametrize("equities", [(1010, 1020.1), (1000, 1000, 1000)])
def test_returns_that_do_not_vary_have_no_sharpe(equities: tuple[object, ...]) -> None:
    found = figures_of(daily(*equities))
    assert some(found, "sharpe", "sortino") == (None, None)


def test_one_day_is_too_few_for_a_ratio() -> None:
    found = figures_of(daily(1100))
    assert some(found, "sharpe", "sortino") == (None, None)


def test_equity_that_was_used_up_has_no_daily_returns() -> None:
    found = figures_of(daily(900, 0, 0, -5))
    assert some(found, "sharpe", "sortino", "total_return") == (None, None, pytest.approx(-1.005))


def test_the_maximum_drawdown_is_the_largest_part_lost_since_the_highest() -> None:
    found = figures_of(daily(1200, 900, 1100, 2000, 1600, 1700))  # 300 of 1200 is more than 400 of 2000
    assert some(found, "max_drawdown", "max_drawdown_value") == (pytest.approx(0.25), 300)
    assert some(found, "max_drawdown_from", "max_drawdown_to") == (START + DAY, START + 2 * DAY)


def test_a_drawdown_may_begin_with_the_opening_equity() -> None:
    found = figures_of(daily(950, 900))
    assert some(found, "max_drawdown", "max_drawdown_value", "max_drawdown_from") == (pytest.approx(0.1), 100, START)


def test_equity_that_never_fell_has_a_drawdown_of_nothing_without_times() -> None:
    found = figures_of(daily(1000, 1100))
    assert some(found, "max_drawdown", "max_drawdown_value") == (0.0, 0)
    assert some(found, "max_drawdown_from", "max_drawdown_to") == (None, None)


def test_the_drawdown_of_each_point_is_measured_from_the_highest_before_it() -> None:
    assert drawdowns(daily(900, 1200, 600, 1500)) == pytest.approx([-0.1, 0, -0.5, 0])


def test_trades_are_judged_after_fees_and_an_open_one_not_at_all() -> None:
    trips = [trip(30), trip(-10), trip(0), trip(20), trip(-15), trip(99, closed=None)]
    found = figures_of(replace(EMPTY, trips=trips))
    assert some(found, "trades", "open_trades", "win_rate") == (5, 1, pytest.approx(0.4))
    assert some(found, "profit_factor", "average_win", "average_loss") == (pytest.approx(2.0), 25, Decimal("-12.5"))


def test_with_losses_only_the_profit_factor_is_zero_and_there_is_no_average_win() -> None:
    found = figures_of(replace(EMPTY, trips=[trip(-1), trip(-3)]))
    assert some(found, "win_rate", "profit_factor", "average_win", "average_loss") == (0.0, 0.0, None, -2)


def test_with_gains_only_there_is_no_profit_factor() -> None:
    found = figures_of(replace(EMPTY, trips=[trip(1), trip(3)]))
    assert some(found, "win_rate", "profit_factor", "average_win", "average_loss") == (1.0, None, 2, None)


def test_fees_and_turnover_are_those_of_all_fills() -> None:
    fills = [fill(1, Side.BUY, 100, 2, "1.5"), fill(2, Side.SELL, 110, 2, "1.65")]
    run = replace(daily(1000, 1400), fills=[*fills, replace(fills[0], id="told", value=Decimal("199.99"))])
    found = figures_of(run)
    assert some(found, "fees", "turnover") == (Decimal("4.65"), Decimal("619.99"))
    assert found.turnover_ratio == pytest.approx(619.99 / 1200)


def test_time_in_market_counts_overlapping_positions_once_and_an_open_one_to_the_end() -> None:
    trips = [trip(1, 0, 2), trip(1, 1, 3, "ETH-USD"), trip(1, 1.5, 2), trip(1, 6, 7), trip(1, 9, None)]
    assert figures_of(replace(EMPTY, trips=trips)).time_in_market == pytest.approx(0.5)
    assert figures_of(EMPTY).time_in_market == 0.0


def test_average_exposure_weighs_each_point_with_the_time_before_it() -> None:
    points = [point(START + DAY, 1000, 0), point(START + 4 * DAY, 1000, 500), point(START + 5 * DAY, 2000, 500)]
    found = figures_of(replace(EMPTY, end=START + 5 * DAY, points=points))
    assert found.average_exposure == pytest.approx((0 * 1 + 0.5 * 3 + 0.25 * 1) / 5)


def test_buy_and_hold_takes_equal_parts_of_each_product_from_the_first_open_to_the_last_close() -> None:
    def bar(product_id: str, day: int, opening: int, close: int) -> Bar:
        low, high = min(opening, close), max(opening, close)
        return Bar(product_id, START + day * DAY, Decimal(opening), Decimal(high), Decimal(low), Decimal(close))

    known = [bar(BTC, -1, 1, 1), bar(BTC, 0, 100, 90), bar("ETH-USD", 0, 10, 12), bar(BTC, 1, 90, 110)]
    assert figures_of(replace(EMPTY, bars=known)).buy_and_hold == pytest.approx((0.1 + 0.2) / 2)


def test_a_run_without_a_trade_has_no_figure_of_trades() -> None:
    found = figures_of(replace(daily(1000, 1000), bars=bars(3)))
    assert some(found, "trades", "open_trades", "fees", "turnover") == (0, 0, 0, 0)
    assert some(found, "win_rate", "profit_factor", "average_win", "average_loss") == (None,) * 4
    assert some(found, "total_return", "time_in_market", "average_exposure") == (0.0, 0.0, 0.0)


def test_without_a_point_or_a_moment_nothing_is_known_and_nothing_is_zero() -> None:
    found = figures_of(replace(EMPTY, end=START))
    known = {name: getattr(found, name) for name in Figures.__struct_fields__}
    counted = {"trades": 0, "open_trades": 0, "fees": 0, "turnover": 0, "daily_pnl": []}
    assert {name: value for name, value in known.items() if value is not None} == counted


def test_a_single_point_is_a_run() -> None:
    found = figures_of(replace(EMPTY, end=START + HOUR, points=[point(START + HOUR, 990, 99)]))
    assert some(found, "total_return", "max_drawdown") == (pytest.approx(-0.01), pytest.approx(0.01))
    assert found.average_exposure == pytest.approx(0.1)
    assert [day.pnl for day in found.daily_pnl] == [-10]


def test_every_figure_has_a_definition_and_a_lower_drawdown_ranks_higher() -> None:
    assert {*DEFINITIONS, "daily_pnl"} == set(Figures.__struct_fields__)
    assert all(known.label and known.meaning for known in DEFINITIONS.values())
    calm, wild = figures_of(daily(1000, 990)), figures_of(daily(1500, 990))
    for rank in RANKS:
        for found in (calm, wild):
            value = getattr(found, rank)
            assert (rank_value(found, rank) is None) == (value is None)
    assert (rank_value(calm, "max_drawdown") or 0) > (rank_value(wild, "max_drawdown") or 0)
    assert (rank_value(calm, "total_return") or 0) == (rank_value(wild, "total_return") or 0)
