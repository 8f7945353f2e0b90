"""The synthetic market: the same for the same seed, restless enough to trade, and able to go on after a restart."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from sim.market import HISTORY, SyntheticMarket
from sim.products import ASSETS, spot_product
from sim.ticks import Tick

NOW = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
BOTH = ("BTC-USD", "ETH-USD")


def market(seed: int = 1, products: tuple[str, ...] = BOTH, **last: str) -> SyntheticMarket:
    return SyntheticMarket(seed, products, {f"{base}-USD": Decimal(price) for base, price in last.items()})


def opened(made: SyntheticMarket, now: datetime = NOW) -> list[Tick]:
    return list(made.backfill(now))


def crossovers(ticks: list[Tick], fast: int = 5, slow: int = 20) -> list[datetime]:
    """When the fast average over 2-second candles crosses the slow one."""
    closes: dict[int, Tick] = {}
    for tick in ticks:
        closes[int(tick.at.timestamp()) // 2] = tick
    series = [closes[bucket] for bucket in sorted(closes)]
    signs = []
    for end in range(slow, len(series) + 1):
        window = [tick.price for tick in series[end - slow : end]]
        signs.append((series[end - 1].at, sum(window[-fast:]) / fast > sum(window) / slow))
    return [at for (_, before), (at, after) in itertools.pairwise(signs) if before != after]


def test_equal_seeds_give_equal_markets_and_other_seeds_others() -> None:
    first, second, other = market(), market(), market(seed=2)
    assert opened(first) == opened(second) != opened(other)
    later = NOW + timedelta(minutes=1)
    assert list(first.due(later)) == list(second.due(later))


def test_time_rises_strictly_over_all_products_through_history_and_present() -> None:
    made = market()
    ticks = opened(made)
    for seconds in range(1, 20):
        ticks += made.due(NOW + timedelta(seconds=seconds))
    assert all(before.at < after.at for before, after in itertools.pairwise(ticks))
    assert {tick.product_id for tick in ticks} == set(BOTH)


def test_the_history_covers_the_half_hour_before_now_and_ends_at_the_base_price() -> None:
    ticks = opened(market(products=("BTC-USD",)))
    assert NOW - HISTORY - timedelta(seconds=5) < ticks[0].at < NOW - HISTORY + timedelta(seconds=60)
    assert NOW - timedelta(seconds=60) < ticks[-1].at <= NOW
    assert ticks[-1].price == ASSETS["BTC"].base_price


def test_after_a_restart_history_leads_up_to_the_last_price_and_the_market_goes_on_from_it() -> None:
    made = market(BTC="87654.32", ETH="3000")
    last = {tick.product_id: tick.price for tick in opened(made)}
    assert last == {"BTC-USD": Decimal("87654.32"), "ETH-USD": Decimal("3000")}
    following = next(tick for tick in made.due(NOW + timedelta(minutes=1)) if tick.product_id == "BTC-USD")
    assert abs(following.price / Decimal("87654.32") - 1) < Decimal("0.01")


def test_trade_ids_rise_over_a_restart() -> None:
    before = market(products=("BTC-USD",))
    opened(before)
    ids = [tick.trade_id for tick in before.due(NOW + timedelta(seconds=30))]
    after = market(products=("BTC-USD",))
    opened(after, NOW + timedelta(seconds=30))
    ids += [tick.trade_id for tick in after.due(NOW + timedelta(seconds=60))]
    assert ids == sorted(set(ids))


def test_about_four_trades_a_second_are_made_outside_quiet_spells() -> None:
    ticks = opened(market(products=("BTC-USD",)))
    assert 5000 < len(ticks) <= 7200


@pytest.mark.parametrize("base", ASSETS)
def test_prices_and_sizes_move_in_the_products_increments(base: str) -> None:
    product = spot_product(f"{base}-USD")
    made = market(products=(product.product_id,))
    opened(made)
    for tick in made.due(NOW + timedelta(seconds=30)):
        assert tick.price % product.price_increment == 0
        assert tick.size % product.base_increment == 0
        assert tick.price > 0
        assert tick.size > 0


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_crossover_of_five_over_twenty_two_second_candles_happens_about_every_minute(seed: int) -> None:
    crossings = crossovers(opened(market(seed, ("BTC-USD",))))
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(crossings))
    assert len(crossings) >= 25
    assert gaps[len(gaps) // 2] <= timedelta(seconds=60)


def test_trends_move_the_price_by_several_per_mille_in_ten_seconds() -> None:
    ticks = opened(market(products=("BTC-USD",)))
    moves = [abs(ticks[place + 40].price / ticks[place].price - 1) for place in range(0, len(ticks) - 40, 40)]
    assert sum(move > Decimal("0.003") for move in moves) > len(moves) / 3


def test_a_day_of_market_stays_within_reach_of_where_it_began() -> None:
    made = market(products=("DOGE-USD",))
    opened(made)
    prices = []
    for minute in range(0, 24 * 60, 20):
        prices += [tick.price for tick in made.due(NOW + timedelta(minutes=minute, seconds=50))]
    assert Decimal("0.1") < min(prices)
    assert max(prices) < Decimal("0.4")


def test_after_the_machine_slept_the_market_goes_on_from_now() -> None:
    made = market()
    opened(made)
    ticks = list(made.due(NOW + timedelta(hours=8)))
    assert len(ticks) < 20
