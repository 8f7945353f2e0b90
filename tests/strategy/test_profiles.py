"""The shipped profiles over recorded candles: a strategy that never trades has passed every other test before."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from msgspec.structs import replace

from libs.common import settings
from libs.common.messages import Candle, Side, Signal
from services.strategy.app import make_core
from tests.strategy.builders import BTC, run
from tests.strategy.recorded import read

ETH = "ETH-USD"
HANDFUL = 5
FIVE_MINUTES = timedelta(minutes=5)
HOURLY = {
    BTC: "cdd_Coinbase_BTCUSD_1h_2017-07_2019-10.csv.gz",
    ETH: "cdd_Coinbase_ETHUSD_1h_2017-07_2020-08.csv.gz",
}
SPOT_PRODUCTS = settings.load("spot", {}).market.products


@pytest.fixture(scope="module")
def hourly() -> dict[str, list[Candle]]:
    return {product_id: read(name, product_id, "1h", "2018-01-01", "2018-12-31") for product_id, name in HOURLY.items()}


@pytest.fixture(scope="module")
def july() -> list[Candle]:
    return read("BTC-USD_5m_2025-07-01_2026-01-08.csv.gz", BTC, "5m", "2025-07-01", "2025-07-31")


def trades(profile: str, product_id: str, candles: list[Candle], length: timedelta) -> list[Signal]:
    """The profile's own core, its granularity set to the candles that there are."""
    loaded = settings.load(profile, {"PERPS_MARKET_GRANULARITY": candles[0].granularity})
    return run(make_core(loaded), [replace(bar, product_id=product_id) for bar in candles], length)


def assert_lively(signals: list[Signal]) -> None:
    sides = Counter(signal.side for signal in signals)
    assert sides[Side.BUY] > HANDFUL
    assert sides[Side.SELL] > HANDFUL
    assert [signal.side for signal in signals] == [(Side.BUY, Side.SELL)[n % 2] for n in range(len(signals))]
    assert len({signal.id for signal in signals}) == len(signals)


@pytest.mark.parametrize("product_id", SPOT_PRODUCTS)
def test_every_product_of_spot_enters_and_exits(product_id: str, hourly: dict[str, list[Candle]]) -> None:
    """Products other than BTC and ETH have no recorded candles: their parameters are shown to trade on BTC's."""
    assert_lively(trades("spot", product_id, hourly.get(product_id, hourly[BTC]), timedelta(hours=1)))


@pytest.mark.parametrize("product_id", [BTC, ETH])
def test_prod_enters_and_exits(product_id: str, july: list[Candle]) -> None:
    assert_lively(trades("prod", product_id, july, FIVE_MINUTES))


def test_dev_enters_and_exits(july: list[Candle]) -> None:
    assert_lively(trades("dev", BTC, july, FIVE_MINUTES))


def test_both_ways_out_are_taken(july: list[Candle]) -> None:
    reasons = {signal.reason for signal in trades("prod", BTC, july, FIVE_MINUTES)}
    assert reasons == {"crossed_up", "crossed_down", "trailing_stop"}


def test_mean_reversion_trades_the_same_candles_otherwise(july: list[Candle]) -> None:
    loaded = settings.load("prod", {"PERPS_STRATEGY_NAME": "mean_reversion"})
    loaded.tables["strategy"]["parameters"] = {"window": 20, "deviations": "2", "max_candles": 12}
    signals = run(make_core(loaded), july, FIVE_MINUTES)
    assert_lively(signals)
    assert {signal.reason for signal in signals} >= {"below_band", "mean_reached", "held_too_long"}


@pytest.mark.parametrize("profile", ["dev", "spot", "prod"])
def test_the_bus_keeps_more_candles_than_any_shipped_strategy_needs(profile: str) -> None:
    """And the venue gives as many in one answer: 350."""
    core = make_core(settings.load(profile, {}))
    assert all(desk.strategy.warmup_candles <= 350 for desk in core.desks.values())


def test_spot_follows_its_table() -> None:
    table = settings.load("spot", {}).tables["strategy"]["products"]
    found = {product_id: (row["parameters"]["short"], row["parameters"]["long"]) for product_id, row in table.items()}
    assert found == {
        "BTC-USD": (5, 40),
        "ETH-USD": (10, 40),
        "SOL-USD": (8, 32),
        "XRP-USD": (12, 48),
        "LTC-USD": (7, 35),
        "ADA-USD": (12, 50),
        "DOGE-USD": (15, 60),
        "BCH-USD": (6, 30),
        "AVAX-USD": (9, 36),
        "LINK-USD": (9, 45),
    }
    assert set(found) == set(SPOT_PRODUCTS)
