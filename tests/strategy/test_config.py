from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from libs.common.errors import BadConfig
from libs.common.settings import Settings
from services.strategy.app import make_core
from services.strategy.config import StrategyConfig
from services.strategy.crossover import Crossover
from services.strategy.mean_reversion import MeanReversion
from services.strategy.plugin import GROUP, load
from tests.strategy.builders import BTC

BASE: dict[str, object] = {"parameters": {"short": 2, "long": 4}}


def settings(**strategy: object) -> Settings:
    return Settings("test", Path("var"), {"market": {"products": [BTC]}, "strategy": {**BASE, **strategy}})


def test_every_registered_strategy_can_be_loaded_by_its_name() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(project["entry-points"][GROUP]) == {"crossover", "mean_reversion"}
    assert isinstance(load("crossover", {"short": 2, "long": 4}), Crossover)
    assert isinstance(load("mean_reversion", {}), MeanReversion)


def test_a_strategy_can_be_named_as_module_and_class() -> None:
    core = make_core(settings(name="services.strategy.mean_reversion:MeanReversion", parameters={"window": 7}))
    assert isinstance(core.desks[BTC].strategy, MeanReversion)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("astrology", "unknown strategy 'astrology': there are crossover, mean_reversion, or name one as module:Class"),
        ("no.such.module:Thing", "cannot be loaded: No module named 'no'"),
        ("services.strategy.crossover:Nothing", "cannot be loaded: module 'services.strategy.crossover'"),
        ("services.strategy.indicators:ZERO", "is not a class with a struct Parameters"),
        ("tests.strategy.builders:Scripted", "is not a class with a struct Parameters"),
        ("tests.strategy.test_config:Deaf", "has no warmup_candles or no on_candle"),
    ],
)
def test_a_strategy_that_cannot_be_had_stops_the_start_with_one_line(name: str, line: str) -> None:
    with pytest.raises(BadConfig) as stopped:
        make_core(settings(name=name))
    assert line in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"short": 5}, "missing required field `long`"),
        ({"short": 5, "long": 20, "fast": 1}, "unknown field `fast`"),
        ({"short": 20, "long": 5}, "short and long must be candles with 0 < short < long <= 250"),
        ({"short": 0, "long": 5}, "short and long"),
        ({"short": "five", "long": 20}, "Expected `int`, got `str` - at `$.short`"),
        ({"short": 5, "long": 20, "trend": {"min_slope": "NaN"}}, "trend.min_slope"),
        ({"short": 5, "long": 20, "trend": {"min_slope": 0, "window": 0}}, "trend.window"),
        ({"short": 5, "long": 20, "rsi": {"overbought": 101}}, "rsi.overbought"),
        ({"short": 5, "long": 20, "rsi": {"window": 1}}, "rsi.window"),
        ({"short": 5, "long": 20, "volume": {"factor": 0}}, "volume.factor"),
        ({"short": 5, "long": 20, "volume": {"factor": 1, "window": 0}}, "volume.window"),
        ({"short": 5, "long": 20, "volatility": {"min": "0.2", "max": "0.1"}}, "volatility.min"),
        ({"short": 5, "long": 20, "volatility": {"min": "NaN", "max": "0.1"}}, "volatility.min"),
        ({"short": 5, "long": 20, "volatility": {"min": 0, "max": 1, "window": 1}}, "volatility.window"),
        ({"short": 5, "long": 20, "volatility": {"min": 0, "max": 1, "span": 1}}, "unknown field `span`"),
    ],
)
def test_garbage_parameters_are_refused_with_one_line(parameters: dict[str, object], line: str) -> None:
    with pytest.raises(BadConfig) as stopped:
        make_core(settings(parameters=parameters))
    assert str(stopped.value).startswith("profile test, [strategy], parameters of crossover for BTC-USD: ")
    assert line in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"window": 1}, "window must be"),
        ({"deviations": 0}, "deviations must be"),
        ({"deviations": "NaN"}, "deviations must be"),
        ({"max_candles": 0}, "max_candles must be"),
    ],
)
def test_garbage_parameters_of_mean_reversion_are_refused(table: dict[str, object], line: str) -> None:
    with pytest.raises(BadConfig, match=line):
        make_core(settings(name="mean_reversion", parameters=table))


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"entry_notional": "0"}, "entry_notional must be positive"),
        ({"entry_notional": "NaN"}, "entry_notional must be positive"),
        ({"trailing_stop_percent": "100"}, "trailing_stop_percent must lie between 0 and 100"),
        ({"entry_slippage_bps": "-1"}, "entry_slippage_bps must be from 0 to 1000"),
        ({"signal_ttl_seconds": 0}, "signal_ttl_seconds must be above 0"),
        ({"retry_seconds": -1}, "retry_seconds must be above 0"),
        ({"mark_age_max_seconds": 0}, "mark_age_max_seconds must be above 0"),
        ({"port": 0}, "port must be between 1 and 65535"),
        ({"name": ""}, "host and name must not be empty"),
        ({"leverage": 2}, "unknown field `leverage`"),
        ({"products": {BTC: {"entry_notional": "-5"}}}, "entry_notional must be positive"),
        ({"products": {BTC: {"short": 5}}}, "unknown field `short`"),
    ],
)
def test_garbage_settings_are_refused_with_one_line(table: dict[str, object], line: str) -> None:
    with pytest.raises(BadConfig) as stopped:
        make_core(settings(**table))
    assert line in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_the_tables_of_products_not_traded_just_now_are_checked_too() -> None:
    with pytest.raises(BadConfig, match="parameters of crossover for ETH-USD"):
        make_core(settings(products={"ETH-USD": {"parameters": {"short": 90}}}))


def test_a_product_overrides_what_is_different_for_it() -> None:
    config = StrategyConfig(
        parameters={"short": 2, "long": 4},
        products=settings(
            products={BTC: {"entry_notional": "7", "trailing_stop_percent": "2", "parameters": {"long": 9}}}
        )
        .section("strategy", StrategyConfig)
        .products,
    )
    assert config.entry_notional_of(BTC) == 7
    assert config.trailing_stop_of(BTC) == Decimal("0.02")
    assert config.parameters_of(BTC) == {"short": 2, "long": 9}
    assert config.entry_notional_of("ETH-USD") == 100
    assert config.trailing_stop_of("ETH-USD") == Decimal("0.01")
    assert config.parameters_of("ETH-USD") == {"short": 2, "long": 4}


class Deaf:
    """A plug-in that forgot to listen."""

    Parameters = Crossover.Parameters
    warmup_candles = 1

    def __init__(self, parameters: Crossover.Parameters) -> None:
        self.parameters = parameters
