from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from libs.common import messages as m
from services.strategy.config import ProductConfig, StrategyConfig
from tests.strategy.builders import (
    BTC,
    ENTER,
    HOLD,
    MINUTE,
    T0,
    Scripted,
    World,
    approve,
    candle,
    deny,
    event,
    fill,
    filled,
    mark,
    seconds,
)

ETH = "ETH-USD"


def test_a_crossing_candle_becomes_a_priced_buy_with_an_expiry() -> None:
    world = World(StrategyConfig(entry_notional=Decimal(1000), entry_slippage_bps=Decimal(20)))
    (signal,) = world.signals(mark(100, world.now, spread=2), candle(0, volume=ENTER))
    trigger = "candle:2026-01-05T12:00:00+00:00"
    assert signal == m.Signal(
        id=m.derive_id("installation", "crossover", BTC, trigger, m.Side.BUY, 1),
        cause=candle(0).id,
        at=world.now,
        product_id=BTC,
        strategy="crossover",
        side=m.Side.BUY,
        order_type=m.OrderType.LIMIT,
        time_in_force=m.TimeInForce.IOC,
        quantity=Decimal(1000) / Decimal(101),
        limit_price=Decimal("101.2020"),
        reduce_only=False,
        reason="crossed_up",
        trigger=trigger,
        attempt=1,
        expires_at=world.now + seconds(10),
    )


def test_each_product_has_its_own_size() -> None:
    config = StrategyConfig(entry_notional=Decimal(1000), products={ETH: ProductConfig(entry_notional=Decimal(50))})
    world = World(config, {BTC: Scripted(), ETH: Scripted()})
    world.send(mark(100, world.now), mark(10, world.now, ETH))
    (big,) = world.signals(candle(0, volume=ENTER))
    (small,) = world.signals(candle(0, 10, volume=ENTER, product_id=ETH))
    assert (big.quantity, small.quantity) == (Decimal(10), Decimal(5))


def test_nothing_is_entered_before_the_plug_in_is_warm() -> None:
    world = World(strategies={BTC: Scripted(warmup_candles=3)})
    world.send(mark(at=world.now))
    assert world.core.not_ready(world.now) == "BTC-USD warming up 0/3"
    assert world.signals(candle(-1), candle(0, volume=ENTER)) == []
    assert world.core.not_ready(world.now) == "BTC-USD warming up 2/3"
    world.wait(MINUTE)
    assert len(world.signals(mark(at=world.now), candle(1, volume=ENTER))) == 1
    assert world.core.not_ready(world.now) == ""


def test_a_candle_that_closed_too_long_ago_enters_nothing() -> None:
    world = World()
    world.wait(seconds(10.1))
    assert world.signals(mark(at=world.now), candle(0, volume=ENTER)) == []
    assert world.decision(mark(at=world.now)).reason == "candle_too_old"


def test_a_candle_as_old_as_a_signal_may_be_still_enters() -> None:
    world = World()
    world.wait(seconds(10))
    assert len(world.signals(mark(at=world.now), candle(0, volume=ENTER))) == 1


def test_without_a_mark_an_entry_waits_for_one_while_its_candle_is_fresh() -> None:
    world = World()
    assert world.signals(candle(0, volume=ENTER)) == []
    world.wait(seconds(9))
    signal, decision = world.send(mark(at=world.now))
    assert isinstance(signal, m.Signal)
    assert isinstance(decision, m.Decision)
    assert decision.signal_id == signal.id


def test_a_stale_mark_enters_nothing() -> None:
    world = World()
    world.send(mark(at=world.now - seconds(5.1)))
    assert world.signals(candle(0, volume=ENTER)) == []
    assert world.decision(mark(at=world.now - seconds(5.1))).reason == "mark_stale"


def test_a_mark_of_just_the_allowed_age_enters() -> None:
    world = World()
    world.send(mark(at=world.now - seconds(5)))
    assert len(world.signals(candle(0, volume=ENTER))) == 1


def test_an_entry_that_waited_too_long_for_its_mark_is_given_up() -> None:
    world = World()
    world.send(candle(0, volume=ENTER))
    world.wait(seconds(11))
    assert world.decision(mark(at=world.now)).reason == "candle_too_old"


def test_a_candle_seen_twice_or_late_is_ignored() -> None:
    world = World()
    script = world.strategies[BTC]
    assert isinstance(script, Scripted)
    signal = world.entry()
    world.send(deny(signal, m.Reason.BALANCE_TOO_LOW, world.now))
    assert world.signals(candle(0, volume=ENTER), candle(-1, volume=ENTER)) == []
    assert len(script.held) == 1


def test_a_candle_of_another_length_is_not_for_us() -> None:
    world = World()
    world.send(mark(at=world.now))
    assert world.signals(candle(0, volume=ENTER, granularity="5m")) == []
    assert world.core.dropped == {"Candle": 1}


def test_a_hole_in_the_candles_does_not_matter() -> None:
    world = World()
    world.send(candle(-30, volume=HOLD), mark(at=world.now))
    assert len(world.signals(candle(0, volume=ENTER))) == 1


def test_a_signal_is_repeated_every_second_until_it_is_answered_also_after_its_expiry() -> None:
    world = World()
    signal = world.entry()
    assert world.tick(8) == [signal, signal]
    world.wait(MINUTE)
    assert world.tick(4) == [signal]
    world.send(deny(signal, m.Reason.SIGNAL_EXPIRED, world.now))
    assert world.tick(8) == []


def test_an_approved_signal_is_not_repeated() -> None:
    world = World()
    world.send(approve(world.entry(), world.now))
    assert world.tick(8) == []


def test_a_denied_entry_is_not_tried_again_but_the_next_cross_is() -> None:
    world = World()
    signal = world.entry()
    world.send(deny(signal, m.Reason.SPREAD_TOO_WIDE, world.now))
    assert not world.core.busy
    world.wait(seconds(9))
    assert world.signals(mark(at=world.now)) == []
    world.wait(seconds(51))
    (later,) = world.signals(mark(at=world.now), candle(1, volume=ENTER))
    assert (later.attempt, later.id == signal.id) == (1, False)


@pytest.mark.parametrize(
    "status", [m.OrderStatus.CANCELED, m.OrderStatus.EXPIRED, m.OrderStatus.REJECTED, m.OrderStatus.DENIED]
)
def test_an_entry_that_did_not_fill_is_not_tried_again(status: m.OrderStatus) -> None:
    world = World()
    signal = world.entry()
    world.send(approve(signal, world.now))
    assert world.core.busy
    world.send(event(signal, status, at=world.now))
    assert not world.core.busy
    world.wait(seconds(6))
    assert world.signals(mark(at=world.now), m.Tick(id="tick")) == []


@pytest.mark.parametrize(
    "status", [m.OrderStatus.SUBMITTING, m.OrderStatus.UNKNOWN, m.OrderStatus.ACCEPTED, m.OrderStatus.PENDING_CANCEL]
)
def test_while_an_order_may_still_fill_nothing_else_is_signalled(status: m.OrderStatus) -> None:
    world = World()
    signal = world.entry()
    world.send(approve(signal, world.now), event(signal, status, at=world.now))
    world.wait(MINUTE)
    assert world.signals(mark(at=world.now), candle(1, volume=ENTER)) == []
    assert world.decision(mark(at=world.now)).reason == "signal_pending"
    assert world.core.busy


def test_nothing_is_entered_while_something_is_held() -> None:
    world = World()
    world.hold()
    world.wait(MINUTE)
    assert world.signals(mark(at=world.now), candle(1, volume=ENTER)) == []


def test_what_an_operator_bought_counts_as_held() -> None:
    world = World()
    world.send(fill(1, m.Side.BUY, 2))
    assert world.signals(mark(at=world.now), candle(0, volume=ENTER)) == []


def test_an_order_is_over_only_when_its_fills_have_been_seen() -> None:
    """The order's last event may come before its last fill: without waiting, the same cross would be bought twice."""
    world = World()
    signal = world.entry()
    world.send(approve(signal, world.now), event(signal, m.OrderStatus.FILLED, 2, signal.quantity, world.now))
    assert world.core.busy
    world.wait(MINUTE)
    assert world.signals(mark(at=world.now), candle(1, volume=ENTER)) == []
    world.send(fill(1, m.Side.BUY, signal.quantity, at=T0, signal_id=signal.id))
    assert not world.core.busy
    assert world.signals(mark(at=world.now)) == []


def test_an_approval_told_again_after_its_order_ended_revives_nothing() -> None:
    world = World()
    signal = world.hold()
    world.send(approve(signal, world.now))
    assert not world.core.busy


def test_the_plug_in_is_told_of_a_position_from_its_first_candle_on() -> None:
    world = World()
    script = world.strategies[BTC]
    assert isinstance(script, Scripted)
    signal = world.entry()
    world.wait(MINUTE)
    world.send(candle(1))  # an entry under way counts as held
    world.send(*filled(signal, 1, at=world.now - seconds(30)))
    world.wait(MINUTE)
    world.send(candle(2))
    assert script.held == [False, True, True]


def test_a_position_opened_after_the_candle_closed_is_not_held_for_it() -> None:
    world = World()
    script = world.strategies[BTC]
    assert isinstance(script, Scripted)
    world.send(fill(1, m.Side.BUY, 1, at=T0 + MINUTE), candle(0))
    assert script.held == [False]


@pytest.mark.parametrize(
    "bad",
    [
        mark(0),
        mark(-5),
        mark("Infinity"),
        mark("1e30"),
        mark(100, spread=-2),
        mark(100, T0 + 10 * MINUTE),
        mark(100, product_id="DOGE-USD"),
        candle(0, 0),
        candle(0, 100, high=99),
        candle(0, 100, low=101),
        candle(0, 100, volume="Infinity"),
        candle(0, 100, volume=-1),
        candle(5),
        candle(0, product_id="DOGE-USD"),
        fill(1, m.Side.BUY, "1e30"),
        fill(1, m.Side.BUY, 0),
        fill(1, m.Side.BUY, 1, -1),
    ],
)
def test_garbage_is_dropped_and_counted_and_trading_goes_on(bad: m.Message) -> None:
    world = World()
    world.signals(bad)
    assert world.core.dropped == {type(bad).__name__: 1}
    assert len(world.signals(mark(at=world.now), candle(0, volume=ENTER))) == 1


def test_a_signal_needs_an_installation() -> None:
    world = World(recovered=False, now=datetime(2026, 1, 5, tzinfo=UTC))
    world.core._installation = ""
    with pytest.raises(AssertionError):
        world.recover()
