from __future__ import annotations

from decimal import Decimal

from services.strategy import indicators
from tests.strategy.builders import candle

# The worked example of StockCharts' ChartSchool ("Relative Strength Index"), published with two decimals.
PUBLISHED = """
44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433
46.0826 45.8931 46.0328 45.6140 46.2820 46.2820 46.0028 46.0328 46.4116
"""
CLOSES = [Decimal(text) for text in PUBLISHED.split()]
CENT = Decimal("0.01")


def numbers(*values: object) -> list[Decimal]:
    return [Decimal(str(value)) for value in values]


def test_rsi_gives_the_published_figures() -> None:
    found = [indicators.rsi(CLOSES[:count], 14) for count in (15, 16, 17, 18)]
    assert [value and value.quantize(CENT) for value in found] == numbers("70.53", "66.32", "66.55", "69.41")


def test_rsi_is_100_when_prices_only_rise_and_0_when_they_only_fall() -> None:
    assert indicators.rsi(numbers(1, 2, 3, 4), 3) == 100
    assert indicators.rsi(numbers(4, 3, 2, 1), 3) == 0


def test_rsi_of_prices_that_never_move_is_absent() -> None:
    assert indicators.rsi(numbers(5, 5, 5, 5), 3) is None


def test_rsi_follows_from_its_window_alone_however_much_came_before() -> None:
    window = [Decimal(100 + (number * 37) % 11) for number in range(indicators.smoothed_candles(4))]
    assert indicators.rsi([*numbers(900, 1, 900), *window], 4) == indicators.rsi(window, 4)


def test_average_true_range_counts_gaps_from_the_close_before() -> None:
    candles = [candle(0, 10), candle(1, 12, high=13, low=11), candle(2, 9, high=10, low=9), candle(3, 9)]
    # true ranges: 13 - 10, 12 - 9, 0; seeded with the mean of the first two, then smoothed: 3 + (0 - 3) / 2
    assert indicators.average_true_range(candles, 2) == Decimal("1.5")


def test_standard_deviation_is_that_of_the_population() -> None:
    assert indicators.standard_deviation(numbers(2, 4, 4, 4, 5, 5, 7, 9)) == 2


def test_slope_is_the_relative_change_per_candle() -> None:
    assert indicators.slope(Decimal(100), Decimal(103), 3) == Decimal("0.01")


def test_volume_ratio_compares_with_the_candles_before() -> None:
    assert indicators.volume_ratio(numbers(100, 1, 2, 3, 4), 3) == 2


def test_volume_ratio_over_no_volume_is_absent() -> None:
    assert indicators.volume_ratio(numbers(0, 0, 0, 4), 3) is None
