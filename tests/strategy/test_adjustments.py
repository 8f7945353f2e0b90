"""Holdings that an operator hands over, takes back or has traded by hand: positions like any other."""

from __future__ import annotations

from decimal import Decimal

import pytest

from libs.common import messages as m
from tests.strategy.builders import (
    ENTER,
    EXIT,
    MINUTE,
    T0,
    World,
    adjustment,
    approve,
    candle,
    deny,
    event,
    fill,
    filled,
    mark,
    seconds,
)


@pytest.mark.parametrize(("price", "stopped"), [("99.01", False), ("99", True)])
def test_the_trailing_stop_of_holdings_handed_over_starts_from_their_price(price: str, stopped: bool) -> None:
    world = World()
    world.send(adjustment(1, 2, 100, world.now))
    signals = world.signals(mark(price, world.now))
    assert bool(signals) is stopped
    if stopped:
        assert (signals[0].side, signals[0].quantity) == (m.Side.SELL, Decimal(2))
        assert (signals[0].reason, signals[0].trigger) == ("trailing_stop", "stop:adjustment-BTC-USD-1")


@pytest.mark.parametrize(("price", "stopped"), [("108.91", False), ("108.9", True)])
def test_the_peak_of_holdings_handed_over_is_that_of_the_time_since(price: str, stopped: bool) -> None:
    world = World(now=T0 + 3 * MINUTE)
    world.send(mark(300, T0), candle(0, high=500), candle(1, high=500))
    world.send(adjustment(1, 2, 100, T0 + 2 * MINUTE))
    world.send(candle(2, high=110))
    assert bool(world.signals(mark(price, world.now))) is stopped


def test_an_exit_sells_what_was_handed_over_along_with_what_was_bought() -> None:
    world = World()
    world.hold()
    world.send(adjustment(1, "2.5", 100, world.now))
    world.wait(MINUTE)
    (signal,) = world.signals(mark(at=world.now), candle(1, volume=EXIT))
    assert signal.quantity == Decimal("12.5")


def test_an_exit_candle_from_before_the_handover_means_nothing() -> None:
    world = World()
    world.send(mark(at=world.now), adjustment(1, 2, 100, world.now + seconds(1)))
    assert world.signals(candle(0, volume=EXIT)) == []


def test_with_holdings_handed_over_nothing_is_entered() -> None:
    world = World()
    world.send(adjustment(1, 2, 100, T0))
    assert world.signals(mark(at=world.now), candle(0, volume=ENTER)) == []


def test_holdings_given_back_in_part_are_not_sold() -> None:
    world = World()
    world.hold()
    world.send(adjustment(1, "-2.5", 90, world.now))
    (stop,) = world.signals(mark(90, world.now))
    assert (stop.quantity, stop.trigger) == (Decimal("7.5"), "stop:fill-BTC-USD-1")


def test_holdings_given_back_whole_end_the_position_and_the_wanted_exit() -> None:
    world = World()
    world.send(deny(world.exit(), m.Reason.MARK_STALE, world.now))
    world.send(adjustment(1, -10, 100, world.now))
    world.wait(MINUTE)
    assert world.signals(mark(50, world.now), m.Tick(id="tick")) == []
    assert [s.side for s in world.signals(mark(at=world.now), candle(2, volume=ENTER))] == ["BUY"]


def test_an_exit_under_way_is_not_settled_by_holdings_given_back() -> None:
    world = World()
    first = world.exit()
    world.send(approve(first, world.now), adjustment(1, -10, 100, world.now))
    assert world.core.busy
    world.send(event(first, m.OrderStatus.CANCELED, 2, at=world.now))
    assert not world.core.busy


def test_an_adjustment_counts_once_however_often_it_is_told() -> None:
    world = World()
    given, back = adjustment(1, 3, 100, T0), adjustment(2, -1, 100, T0)
    world.send(given, back, given, back, given)
    new = World(now=world.now, recovered=False)
    new.core.restore(world.core.dump())
    new.send(given, back)
    new.recover()
    (stop,) = new.signals(mark(90, new.now))
    assert stop.quantity == 2


def test_dust_that_holdings_are_handed_over_to_is_held_again() -> None:
    world = World()
    world.send(deny(world.exit(), m.Reason.DUST, world.now), adjustment(1, 1, 100, world.now))
    (stop,) = world.signals(mark(90, world.now))
    assert (stop.quantity, stop.trigger) == (Decimal(11), "stop:adjustment-BTC-USD-1")


def test_payments_are_no_positions() -> None:
    world = World()
    before = world.core.dump()
    assert world.send(adjustment(1, 0, 5000, world.now)) == []
    assert world.core.dump() == before
    assert not world.core.dropped


def test_holdings_of_a_product_not_traded_now_are_only_booked() -> None:
    world = World()
    assert world.send(adjustment(1, 3, 100, T0, "ETH-USD"), mark(50, world.now, "ETH-USD")) == []
    assert b'"ETH-USD":{"quantity":"3"' in world.core.dump()


def test_an_adjustment_that_is_no_trade_is_dropped_and_counted() -> None:
    world = World()
    world.send(adjustment(1, 3, 0, T0), adjustment(2, "1e20", 100, T0), adjustment(3, "-1e20", 100, T0))
    assert world.core.dropped["Adjustment"] == 3
    assert world.signals(mark(90, world.now)) == []


def test_an_exit_refused_while_trading_by_hand_goes_on_with_what_is_left() -> None:
    world = World()
    first = world.exit()
    world.send(deny(first, m.Reason.MARK_STALE, world.now), adjustment(1, -4, 100, world.now))
    world.wait(seconds(5))
    (second,) = world.signals(mark(at=world.now))
    assert (second.attempt, second.quantity) == (2, Decimal(6))


def test_a_position_opened_after_one_was_given_back_is_a_new_one() -> None:
    world = World()
    world.send(adjustment(1, 3, 100, T0), mark(120, world.now), adjustment(2, -3, 120, world.now))
    world.send(fill(1, m.Side.BUY, 1, 100, world.now + seconds(1)))
    world.wait(seconds(2))
    assert world.signals(mark("99.5", world.now)) == []
    (stop,) = world.signals(mark(99, world.now))
    world.send(*filled(stop, 2, 99, world.now))
    assert not world.core.busy
