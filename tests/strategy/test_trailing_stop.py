from __future__ import annotations

from decimal import Decimal

import pytest

from libs.common import messages as m
from services.strategy.config import ProductConfig, StrategyConfig
from tests.strategy.builders import BTC, ENTER, HOLD, MINUTE, T0, World, candle, deny, fill, mark, seconds


def held(price: object = 100, percent: str = "1") -> World:
    """A position of 1 entered at `price`, half a minute into the first candle."""
    world = World(StrategyConfig(trailing_stop_percent=Decimal(percent)), now=T0 + seconds(30))
    world.send(fill(1, m.Side.BUY, 1, price, world.now))
    return world


def stops_at(world: World, price: object) -> bool:
    return bool(world.signals(mark(price, world.now)))


@pytest.mark.parametrize(("price", "stopped"), [("99.00000001", False), ("99", True), ("98", True)])
def test_it_stops_exactly_at_its_distance_below_the_entry(price: str, stopped: bool) -> None:
    assert stops_at(held(), price) is stopped


@pytest.mark.parametrize(("price", "stopped"), [("108.90000001", False), ("108.9", True)])
def test_it_follows_the_highest_mark_since_the_entry(price: str, stopped: bool) -> None:
    world = held()
    for seen in ("105", "110", "109.5"):
        assert not stops_at(world, seen)
    assert stops_at(world, price) is stopped


@pytest.mark.parametrize(("price", "stopped"), [("118.80000001", False), ("118.8", True)])
def test_it_follows_the_highs_of_candles_since_the_entry(price: str, stopped: bool) -> None:
    world = held()
    world.wait(2 * MINUTE)
    world.send(candle(1, 110, high=120))
    assert stops_at(world, price) is stopped


def test_highs_from_before_the_entry_mean_nothing() -> None:
    world = held()
    world.send(candle(-1, 110, high=120), mark(150, T0 + seconds(29)))
    world.wait(seconds(31))
    world.send(candle(0, 110, high=120))  # it began before the entry: nobody knows which side of it the high was
    assert not stops_at(world, "99.1")


def test_a_fill_that_is_told_late_counts_what_was_seen_since() -> None:
    world = World(now=T0 + 3 * MINUTE)
    world.send(candle(0, 100, high=500), candle(1, 110, high=120), mark(110, world.now))
    world.send(fill(1, m.Side.BUY, 1, 100, T0 + seconds(30)))
    assert stops_at(world, "118.8")


def test_a_mark_seen_before_a_late_fill_counts() -> None:
    world = World()
    world.send(mark(110, world.now), fill(1, m.Side.BUY, 1, 100, world.now - seconds(1)))
    assert stops_at(world, "108.9")


def test_the_stop_of_an_entry_in_parts_starts_from_its_average() -> None:
    world = held(100)
    world.send(fill(2, m.Side.BUY, 3, 104, world.now))
    assert not stops_at(world, "101.98")
    assert stops_at(world, "101.97")


def test_the_signal_names_the_position_it_leaves() -> None:
    world = held()
    bad = mark(99, world.now)
    (signal,) = world.signals(bad)
    assert (signal.reason, signal.trigger, signal.cause) == ("trailing_stop", "stop:fill-BTC-USD-1", bad.id)
    assert (signal.side, signal.quantity, signal.reduce_only) == (m.Side.SELL, Decimal(1), True)


def test_once_triggered_it_stays_wanted_even_when_the_price_recovers() -> None:
    world = held()
    (first,) = world.signals(mark(99, world.now))
    world.send(deny(first, m.Reason.MARK_STALE, world.now))
    world.wait(seconds(5))
    (second,) = world.signals(mark(130, world.now))
    assert second.attempt == 2


def test_it_works_before_the_plug_in_is_warm() -> None:
    world = held()
    assert "warming up" in world.core.not_ready(world.now)
    assert stops_at(world, 99)


def test_an_old_mark_does_not_stop() -> None:
    world = held()
    old = world.now
    world.wait(seconds(5.1))
    world.send(candle(-1))
    assert world.signals(mark(90, old)) == []
    assert world.decision(mark(90, old)).reason == "mark_stale"


def test_a_mark_that_arrives_out_of_order_does_not_stop() -> None:
    world = held()
    world.wait(seconds(2))
    assert not stops_at(world, 100)
    assert world.signals(mark(90, world.now - seconds(1))) == []


def test_a_position_that_is_gone_has_no_stop() -> None:
    world = held()
    world.send(fill(2, m.Side.SELL, 1, 100, world.now))
    assert not stops_at(world, 50)


def test_the_next_position_starts_afresh() -> None:
    world = held()
    world.send(mark(200, world.now), fill(2, m.Side.SELL, 1, 200, world.now))
    world.wait(seconds(1))
    world.send(fill(3, m.Side.BUY, 1, 100, world.now))
    assert not stops_at(world, "99.1")
    (signal,) = world.signals(mark(99, world.now))
    assert signal.trigger == "stop:fill-BTC-USD-3"


def test_a_partial_sale_keeps_the_peak() -> None:
    world = held()
    world.send(mark(110, world.now), fill(2, m.Side.SELL, "0.5", 110, world.now))
    (signal,) = world.signals(mark("108.9", world.now))
    assert signal.quantity == Decimal("0.5")


def test_each_product_has_its_own_distance() -> None:
    config = StrategyConfig(products={BTC: ProductConfig(trailing_stop_percent=Decimal(5))})
    world = World(config)
    world.send(fill(1, m.Side.BUY, 1, 100, world.now))
    assert not stops_at(world, "95.01")
    assert stops_at(world, 95)


def test_only_one_way_out_at_a_time() -> None:
    world = held()
    (stop,) = world.signals(mark(99, world.now))
    world.wait(MINUTE)
    assert world.signals(candle(0, volume=8), mark(90, world.now)) == []
    world.send(deny(stop, m.Reason.MARK_STALE, world.now), candle(1, volume=HOLD))
    world.wait(seconds(5))
    (again,) = world.signals(mark(90, world.now))
    assert again.trigger == stop.trigger


def test_an_entry_right_after_a_stop_is_possible() -> None:
    world = held()
    (stop,) = world.signals(mark(99, world.now))
    world.send(fill(2, m.Side.SELL, 1, 99, world.now, stop.id), deny(stop, m.Reason.NOTHING_TO_REDUCE, world.now))
    world.wait(seconds(30))
    (entry,) = world.signals(mark(99, world.now), candle(0, 99, volume=ENTER))
    assert entry.side is m.Side.BUY
