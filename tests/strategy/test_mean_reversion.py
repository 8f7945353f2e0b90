from __future__ import annotations

from decimal import Decimal

from services.strategy.mean_reversion import MeanReversion, Parameters
from services.strategy.plugin import Action, Intent, Why
from tests.strategy.builders import candle

RULES = Parameters(window=4, deviations=Decimal(1), max_candles=3)


def intents(closes: list[object], held_from: int = 999, rules: Parameters = RULES) -> list[Intent]:
    strategy = MeanReversion(rules)
    return [strategy.on_candle(candle(n, close), n >= held_from) for n, close in enumerate(closes)]


def test_it_enters_when_the_close_falls_out_of_the_band() -> None:
    # mean 99, deviation 1.73: the band is at 97.27
    assert intents([100, 100, 100, 96])[-1] == Intent(Action.ENTER, Why.BELOW_BAND)


def test_it_does_not_enter_inside_the_band() -> None:
    wide = Parameters(window=4, deviations=Decimal(2), max_candles=3)
    assert intents([100, 100, 100, 96], rules=wide)[-1] == Intent(Action.HOLD, Why.NO_SIGNAL)


def test_a_market_that_stands_still_is_no_reason_to_enter() -> None:
    assert intents([100] * 6)[-1] == Intent(Action.HOLD, Why.NO_SIGNAL)


def test_it_exits_at_the_mean() -> None:
    assert intents([100, 100, 100, 96, 97, 99], held_from=4)[-2:] == [
        Intent(Action.HOLD, Why.HOLDING),
        Intent(Action.EXIT, Why.MEAN_REACHED),
    ]


def test_it_gives_up_after_so_many_candles() -> None:
    assert [intent.reason for intent in intents([100, 100, 100, 96, 95, 94, 93], held_from=4)][-3:] == [
        Why.HOLDING,
        Why.HOLDING,
        Why.HELD_TOO_LONG,
    ]


def test_the_candles_of_an_earlier_position_do_not_count() -> None:
    strategy = MeanReversion(RULES)
    closes = [100, 100, 100, 96, 95, 94, 93, 92]
    held = [False, False, False, False, True, True, False, True]
    found = [strategy.on_candle(candle(n, c), h) for n, (c, h) in enumerate(zip(closes, held, strict=True))]
    assert found[-1] == Intent(Action.HOLD, Why.HOLDING)


def test_it_warms_up_over_all_candles_that_it_may_hold() -> None:
    assert MeanReversion(Parameters(window=4, max_candles=9)).warmup_candles == 10
    assert MeanReversion(Parameters(window=30, max_candles=9)).warmup_candles == 30
    assert [i.reason for i in intents([100, 100, 100, 96])][:3] == [Why.WARMING_UP] * 3
