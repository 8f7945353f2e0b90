from __future__ import annotations

from decimal import Decimal
from time import perf_counter

import pytest

from services.strategy import indicators
from services.strategy.crossover import (
    Crossover,
    Parameters,
    RsiFilter,
    TrendFilter,
    VolatilityFilter,
    VolumeFilter,
)
from services.strategy.plugin import Action, Intent, Why
from tests.strategy.builders import candle

ENTER = Intent(Action.ENTER, Why.CROSSED_UP)
# Falls, then turns: with means of 2 and 4 the last candle crosses up.
TURN = (104, 103, 102, 101, 100, 100, 104)


def last_intent(parameters: Parameters, closes: tuple[object, ...], held: bool = False, **shape: object) -> Intent:
    """`shape` is that of the last candle. Candles before are led in so that the strategy is warm."""
    strategy = Crossover(parameters)
    lead = [closes[0]] * max(strategy.warmup_candles - len(closes), 0)
    all_closes = [*lead, *closes]
    for number, close in enumerate(all_closes[:-1]):
        strategy.on_candle(candle(number, close), held)
    return strategy.on_candle(candle(len(all_closes), all_closes[-1], **shape), held)  # type: ignore[arg-type]


def hold(reason: Why) -> Intent:
    return Intent(Action.HOLD, reason)


def test_it_enters_where_the_short_mean_crosses_above_the_long_one() -> None:
    assert last_intent(Parameters(2, 4), TURN) == ENTER


def test_it_does_not_enter_one_candle_before_or_after_the_cross() -> None:
    assert last_intent(Parameters(2, 4), TURN[:-1]) == hold(Why.NO_SIGNAL)
    assert last_intent(Parameters(2, 4), (*TURN, 105)) == hold(Why.NO_SIGNAL)


def test_it_exits_at_the_opposite_cross_and_only_when_something_is_held() -> None:
    mirrored = tuple(200 - close for close in TURN)
    assert last_intent(Parameters(2, 4), mirrored, held=True) == Intent(Action.EXIT, Why.CROSSED_DOWN)
    assert last_intent(Parameters(2, 4), mirrored, held=False) == hold(Why.NO_SIGNAL)


def test_it_keeps_what_it_holds_while_nothing_crosses() -> None:
    assert last_intent(Parameters(2, 4), TURN, held=True) == hold(Why.HOLDING)


def test_it_warms_up_for_exactly_the_candles_its_hungriest_rule_needs() -> None:
    strategy = Crossover(Parameters(2, 4, rsi=RsiFilter(window=3)))
    assert strategy.warmup_candles == 16
    reasons = [strategy.on_candle(candle(number), False).reason for number in range(17)]
    assert reasons == [Why.WARMING_UP] * 15 + [Why.NO_SIGNAL] * 2


@pytest.mark.parametrize(
    ("parameters", "needed"),
    [
        (Parameters(2, 4), 5),
        (Parameters(2, 4, trend=TrendFilter(min_slope=Decimal(0), window=3)), 7),
        (Parameters(2, 4, volatility=VolatilityFilter(min=Decimal(0), max=Decimal(1), window=2)), 11),
        (Parameters(2, 4, volume=VolumeFilter(factor=Decimal(1), window=10)), 11),
    ],
)
def test_warm_up_is_sized_from_each_rule(parameters: Parameters, needed: int) -> None:
    assert Crossover(parameters).warmup_candles == needed


def test_the_trend_filter_asks_for_the_slope_of_the_long_mean() -> None:
    # The long mean goes from 100.75 to 101.25 with the last candle: +0.00496
    exact = indicators.slope(Decimal("100.75"), Decimal("101.25"), 1)
    passing, blocking = TrendFilter(min_slope=exact), TrendFilter(min_slope=exact + Decimal("1e-20"))
    assert last_intent(Parameters(2, 4, trend=passing), TURN) == ENTER
    assert last_intent(Parameters(2, 4, trend=blocking), TURN) == hold(Why.TREND_FILTER_BLOCKED)


def test_the_rsi_filter_blocks_an_overbought_market() -> None:
    late = (104, 103, 102, 101, 100, 99, 98, 97, 96, 95, 99)
    exact = indicators.rsi([Decimal(close) for close in late], 2)
    assert exact is not None
    for overbought, intent in ((exact + Decimal("1e-20"), ENTER), (exact, hold(Why.RSI_FILTER_BLOCKED))):
        assert last_intent(Parameters(2, 4, rsi=RsiFilter(window=2, overbought=overbought)), late) == intent


def test_the_volatility_filter_wants_the_true_range_within_its_bounds() -> None:
    def found(low: str, high: str) -> Intent:
        rule = VolatilityFilter(min=Decimal(low), max=Decimal(high), window=2)
        return last_intent(Parameters(2, 4, volatility=rule), TURN)

    assert found("0.001", "0.1") == ENTER
    assert found("0.05", "0.1") == hold(Why.VOLATILITY_FILTER_BLOCKED)
    assert found("0.001", "0.002") == hold(Why.VOLATILITY_FILTER_BLOCKED)


def test_the_volume_filter_compares_the_candle_with_those_before_it() -> None:
    rules = Parameters(2, 4, volume=VolumeFilter(factor=Decimal("1.2"), window=3))
    assert last_intent(rules, TURN, volume="1.2") == ENTER
    assert last_intent(rules, TURN, volume="1.19") == hold(Why.VOLUME_FILTER_BLOCKED)


def test_a_filter_without_a_figure_blocks() -> None:
    strategy = Crossover(Parameters(2, 4, volume=VolumeFilter(factor=Decimal("1.2"), window=3)))
    intents = [strategy.on_candle(candle(number, close, volume=0), False) for number, close in enumerate(TURN)]
    assert intents[-1] == hold(Why.INDICATOR_DATA_UNAVAILABLE)


def test_a_restarted_strategy_fed_its_warm_up_again_says_the_same() -> None:
    rules = Parameters(
        3,
        8,
        trend=TrendFilter(min_slope=Decimal("-0.01")),
        rsi=RsiFilter(window=5, overbought=Decimal(90)),
        volume=VolumeFilter(factor=Decimal("0.8")),
    )
    closes = [100 + abs(number % 40 - 20) + (number * number * 7) % 5 for number in range(200)]
    candles = [candle(number, close, volume=10 + close % 5) for number, close in enumerate(closes)]
    whole = Crossover(rules)
    intents = [whole.on_candle(bar, False) for bar in candles]
    for at in range(whole.warmup_candles, 200, 13):
        again = Crossover(rules)
        assert [again.on_candle(bar, False) for bar in candles[at - whole.warmup_candles : at]][-1] == intents[at - 1]
    assert ENTER in intents


def test_a_decision_takes_less_than_a_fifth_of_a_millisecond() -> None:
    strategy = Crossover(
        Parameters(
            15,
            60,
            TrendFilter(min_slope=Decimal(0)),
            RsiFilter(window=21),
            VolatilityFilter(min=Decimal(0), max=Decimal(1)),
            VolumeFilter(factor=Decimal(1)),
        )
    )
    candles = [candle(number, f"{60000 + (number * 7919) % 997}.{number % 90 + 10}") for number in range(1000)]
    best = 1.0
    for part in range(10):
        began = perf_counter()
        for bar in candles[part * 100 : part * 100 + 100]:
            strategy.on_candle(bar, False)
        best = min(best, (perf_counter() - began) / 100)
    assert best < 0.0002
