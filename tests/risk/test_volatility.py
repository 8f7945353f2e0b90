"""The volatility guard: a figure per year whatever the sampling, and steps that fit the markets of the profiles."""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from libs.common import messages as m
from libs.common.messages import Guard, GuardLevel
from libs.common.settings import load
from services.risk.config import Guards, RiskConfig, Volatility
from services.risk.guards import MEASURES, Scene, Watch, figures
from services.risk.knowledge import Knowledge
from services.risk.state import State
from sim.market import SyntheticMarket
from sim.ticks import Candle, ticks_of
from tests.recorded import recorded
from tests.risk.builders import BTC, ETH, NOON, PRODUCTS, SECOND, WIDE, D, guarded, mark

YEAR = timedelta(days=365)
Price = tuple[datetime, float]


def volatility(seconds: float = 60, window: int = 20, halt: float = 5) -> RiskConfig:
    return guarded(volatility=Volatility(sample_seconds=seconds, window=window, halt=D(str(halt))))


def seen(watch: Watch, prices: Iterable[Price], config: Guards, product_id: str = BTC) -> Watch:
    for at, price in prices:
        watch.on_mark(mark(product_id, f"{price:.8f}", at), config)
    return watch


def figure(watch: Watch, config: RiskConfig = WIDE) -> m.GuardFigure:
    return figures(config, State(watch=watch), Knowledge(PRODUCTS, "USD"), NOON)[Guard.VOLATILITY]


def measured(prices: Iterable[Price], config: RiskConfig) -> float:
    value = figure(seen(Watch(), prices, config.guards), config).value
    assert value is not None
    return float(value)


def brownian(sigma: float, steps: Iterable[float], seed: int = 7) -> list[Price]:
    """Geometric Brownian motion of `sigma` per year, seen after each of these seconds."""
    draw, at, price = random.Random(seed), NOON, 100.0
    found = [(at, price)]
    for seconds in steps:
        at += timedelta(seconds=seconds)
        price *= math.exp(draw.gauss(0, sigma * math.sqrt(seconds / YEAR.total_seconds())))
        found.append((at, price))
    return found


def zigzag(part: float, seconds: float, returns: int, start: datetime = NOON) -> list[Price]:
    """Up and down by the same part."""
    return [
        (start + timedelta(seconds=seconds * place), 100 * (1 + part if place % 2 else 1))
        for place in range(returns + 1)
    ]


# -- the figure


@pytest.mark.parametrize("seconds", [1, 60, 3600])
def test_the_same_market_reads_the_same_at_any_sampling(seconds: int) -> None:
    prices = brownian(0.8, [seconds] * 2000)
    assert measured(prices, volatility(seconds, window=2000)) == pytest.approx(0.8, rel=0.05)


def test_the_same_market_reads_the_same_at_irregular_sampling() -> None:
    draw = random.Random(3)
    prices = brownian(0.8, [draw.choice([61, 75, 90, 240, 1500]) for _ in range(2000)])
    assert measured(prices, volatility(60, window=2000)) == pytest.approx(0.8, rel=0.05)


def test_one_path_reads_the_same_with_half_of_its_marks_lost() -> None:
    prices = brownian(0.8, [1] * 4000)
    kept = [price for price in prices if random.Random(price[1]).random() < 0.5]
    assert measured(kept, volatility(1, window=4000)) == pytest.approx(measured(prices, volatility(1, 4000)), rel=0.05)


def test_two_per_mille_every_five_seconds_is_a_wild_market_and_trips() -> None:
    """The predecessor scaled them like daily returns, read 0.029 and never tripped."""
    watch = seen(Watch(), zigzag(0.002, 5, 20), volatility(5).guards)
    found = figure(watch, volatility(5))
    assert found.value is not None
    assert float(found.value) == pytest.approx(0.002 * math.sqrt(YEAR / timedelta(seconds=5)), rel=0.01)
    assert found.level is GuardLevel.HALT


@pytest.mark.parametrize(("halt", "expected"), [("5.0178", GuardLevel.HALT), ("5.0179", GuardLevel.OK)])
def test_volatility_halts_exactly_at_its_step(halt: str, expected: GuardLevel) -> None:
    config = volatility(5, halt=float(halt))
    found = figure(seen(Watch(), zigzag(0.002, 5, 20), config.guards), config)
    assert (found.value, found.level) == (D("5.0178"), expected)


def test_a_still_price_has_no_volatility() -> None:
    assert measured(zigzag(0, 60, 20), volatility()) == 0


def test_the_figure_is_that_of_the_worst_product() -> None:
    config = volatility()
    watch = seen(Watch(), zigzag(0.001, 60, 20), config.guards)
    assert figure(watch, config).detail == BTC, "the other has no figure yet"
    calm = figure(watch, config).value
    found = figure(seen(watch, zigzag(0.002, 60, 20), config.guards, ETH), config)
    assert (found.detail, calm and found.value and found.value > calm) == (ETH, True)
    seen(watch, zigzag(0.004, 60, 20), config.guards, "XRP-USD")
    assert figure(watch, config).detail == ETH, "what is not traded does not count"


@pytest.mark.parametrize(("window", "needed"), [(10, 10), (20, 10), (21, 10), (22, 11), (60, 30)])
def test_too_few_returns_tell_nothing(window: int, needed: int) -> None:
    config = volatility(window=window)
    found = figure(seen(Watch(), zigzag(0.01, 60, needed - 1), config.guards), config)
    assert (found.value, found.level, found.detail) == (None, GuardLevel.UNKNOWN, "not enough samples")
    assert figure(seen(Watch(), zigzag(0.01, 60, needed), config.guards), config).value is not None


# -- samples


def test_a_price_is_sampled_when_its_time_has_come_and_not_before() -> None:
    watch, config = Watch(), volatility(60).guards
    for seconds in (0, 59.999999, 60, 119.999999, 120.5, 180.499999, 180.5):
        watch.on_mark(mark(at=NOON + timedelta(seconds=seconds)), config)
    assert [(at - NOON).total_seconds() for at, _ in watch.samples[BTC]] == [0, 60, 120.5, 180.5]


def test_a_mark_that_goes_back_in_time_is_ignored() -> None:
    config = volatility(60)
    watch = seen(Watch(), zigzag(0.001, 60, 20), config.guards)
    before = watch.samples[BTC].copy()
    for seconds in (-3600, 0, 60 * 20):
        watch.on_mark(mark(price="1", at=NOON + seconds * SECOND), config.guards)
    assert (watch.samples[BTC], watch.marked[BTC]) == (before, NOON + 1200 * SECOND)


def test_one_sample_more_than_the_windows_returns_is_kept() -> None:
    config = volatility(window=20)
    watch = seen(Watch(), zigzag(0.5, 60, 5) + zigzag(0, 60, 19, NOON + 360 * SECOND), config.guards)
    assert len(watch.samples[BTC]) == 21
    assert figure(watch, config).value != 0
    watch.on_mark(mark(at=NOON + 1560 * SECOND), config.guards)
    assert len(watch.samples[BTC]) == 21
    assert figure(watch, config).value == 0


def test_a_gap_counts_its_whole_time() -> None:
    end = NOON + 600 * SECOND
    prices = [*zigzag(0, 60, 10), (end + 600 * SECOND, 101.0)]
    expected = math.sqrt(math.log(1.01) ** 2 / 1200 * YEAR.total_seconds())
    assert measured(prices, volatility()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("gap", "forgotten"), [(1200, False), (1200.001, True)])
def test_a_gap_longer_than_the_window_does_not_dilute_what_has_happened_since(gap: float, forgotten: bool) -> None:
    config, wild = volatility(window=20), zigzag(0.01, 60, 10, NOON + timedelta(seconds=gap))
    alone = measured(wild, config)
    watch = seen(Watch(), [(NOON, 100.0), *wild[:-1]], config.guards)
    assert figure(watch, config).value is not None, "until there is enough of it, the gap counts too"
    assert float(figure(watch, config).value or 0) < alone
    watch = seen(watch, wild[-1:], config.guards)
    assert (float(figure(watch, config).value or 0) == alone) is forgotten


def test_a_gap_longer_than_the_window_weighs_no_more_than_one_window() -> None:
    """Wild minutes after hours of silence must be seen as such at once."""
    config = volatility(window=20)
    prices = [*zigzag(0, 60, 8), *zigzag(0.03, 60, 3, NOON + timedelta(hours=6))]
    squares = 3 * math.log(1.03) ** 2
    seconds = 8 * 60 + 20 * 60 + 3 * 60
    assert measured(prices, config) == pytest.approx(math.sqrt(squares / seconds * YEAR.total_seconds()), rel=0.02)


@pytest.mark.parametrize(("silent", "counts"), [(1199.999, True), (1200, False)])
def test_a_market_that_is_silent_for_a_window_does_not_hold_up_the_others(silent: float, counts: bool) -> None:
    config = volatility(window=20)
    watch = seen(Watch(), zigzag(0.05, 60, 20), config.guards)
    now = watch.marked[BTC] + timedelta(seconds=silent)
    state, known = State(watch=watch), Knowledge(PRODUCTS, "USD")
    found = figures(config, state, known, now)[Guard.VOLATILITY]
    assert (found.value is not None) is counts


def test_only_the_last_gap_counts() -> None:
    config, day = volatility(window=20), timedelta(days=1)
    prices = [*zigzag(0.01, 60, 3), *zigzag(0.02, 60, 3, NOON + day), *zigzag(0.01, 60, 10, NOON + 2 * day)]
    assert measured(prices, config) == measured(zigzag(0.01, 60, 10), config)


# -- the steps of the profiles


REAL = ("canary", "paper", "prod", "spot")


def of_profile(profile: str) -> RiskConfig:
    return load(profile, {}).section("risk", RiskConfig)


def readings(profile: str, marks: Iterable[tuple[str, datetime, Decimal]]) -> list[tuple[datetime, Decimal]]:
    """What the guard of a profile measures after every sample."""
    config, watch, found, taken = of_profile(profile), Watch(), [], 0
    state, known = State(watch=watch), Knowledge(PRODUCTS, "USD")
    for product_id, at, price in marks:
        watch.on_mark(mark(product_id, str(price), at), config.guards)
        if watch.samples[product_id][-1][0] == at:
            taken += 1
            value = MEASURES[Guard.VOLATILITY](Scene(config, state, known, at, None, None, None)).value
            found += [] if value is None else [(at, value)]
    assert len(found) > taken / 2
    return found


@pytest.mark.parametrize(("profile", "minutes"), [("dev", 10), ("demo", 80)])
def test_the_synthetic_market_never_even_warns(profile: str, minutes: int) -> None:
    market = SyntheticMarket(1, PRODUCTS, {})
    list(market.backfill(NOON))
    ticks = [tick for second in range(minutes * 60) for tick in market.due(NOON + second * SECOND)]
    found = readings(profile, ((tick.product_id, tick.at, tick.price) for tick in ticks))
    warn = of_profile(profile).guards.volatility.warn
    assert warn is not None
    assert max(value for _, value in found) < warn


def bars(name: str, start: str, end: str) -> list[Candle]:
    with gzip.open(recorded(f"candles/{name}"), "rt", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if start <= row["start"] < end]
    return [
        Candle(
            datetime.fromisoformat(row["start"]).replace(tzinfo=UTC),
            *(D(row[name]) for name in ("open", "high", "low", "close", "volume")),
        )
        for row in rows
    ]


def test_profiles_for_real_prices_sample_alike() -> None:
    assert len({(v.sample_seconds, v.window) for v in (of_profile(profile).guards.volatility for profile in REAL)}) == 1


def test_ordinary_days_never_even_warn() -> None:
    days = bars("BTC-USD_1m_2025-11-23_2026-01-08.csv.gz", "2025-12-12 00", "2025-12-14 00")
    found = readings("prod", ((BTC, bar.start, bar.close) for bar in days))
    for profile in REAL:
        warn = of_profile(profile).guards.volatility.warn
        assert warn is not None
        assert max(value for _, value in found) < warn


def test_the_crash_of_october_2025_warns_reduces_and_halts() -> None:
    crash = datetime(2025, 10, 10, 20, 50, tzinfo=UTC)
    day = bars("BTC-USD_5m_2025-07-01_2026-01-08.csv.gz", "2025-10-10 18", "2025-10-10 22")
    ticks = [tick for bar in day for tick in ticks_of(bar, BTC, 300, 1)]
    found = readings("prod", ((BTC, tick.at, tick.price) for tick in ticks))
    for profile in REAL:
        steps = of_profile(profile).guards.volatility
        assert steps.warn is not None
        assert steps.reduce is not None
        assert steps.halt is not None
        reached = [min(at for at, value in found if value >= step) for step in (steps.warn, steps.reduce, steps.halt)]
        assert reached[0] < reached[1] < reached[2]
        assert crash < reached[1]
        assert reached[2] < crash + timedelta(minutes=45)
