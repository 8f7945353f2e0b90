from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from libs.common import messages as m
from services.strategy.config import StrategyConfig
from tests.strategy.builders import (
    ENTER,
    EXIT,
    HOLD,
    MINUTE,
    T0,
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


def test_an_exit_sells_the_whole_position_at_the_market_reduce_only() -> None:
    world = World()
    world.hold()
    world.send(fill(50, m.Side.BUY, "0.5", at=world.now))
    world.wait(MINUTE)
    (signal,) = world.signals(mark(at=world.now), candle(1, volume=EXIT))
    kind = (signal.side, signal.order_type, signal.time_in_force)
    assert kind == (m.Side.SELL, m.OrderType.MARKET, m.TimeInForce.IOC)
    assert (signal.quantity, signal.limit_price, signal.reduce_only) == (Decimal("10.5"), None, True)
    assert (signal.reason, signal.trigger) == ("crossed_down", "candle:2026-01-05T12:01:00+00:00")


def test_an_exit_needs_neither_a_fresh_candle_nor_a_mark() -> None:
    world = World()
    world.send(fill(1, m.Side.BUY, 1))
    world.wait(10 * MINUTE)
    assert len(world.signals(candle(0, volume=EXIT))) == 1


def test_an_exit_that_comes_while_the_entry_is_under_way_waits_for_it() -> None:
    world = World()
    entry = world.entry()
    world.send(approve(entry, world.now))
    world.wait(MINUTE)
    assert world.signals(candle(1, volume=EXIT), candle(2, volume=HOLD)) == []
    (signal,) = world.signals(
        fill(1, m.Side.BUY, 4, at=world.now - seconds(50), signal_id=entry.id),
        event(entry, m.OrderStatus.CANCELED, 2, 4, world.now),
    )
    assert (signal.side, signal.quantity) == (m.Side.SELL, Decimal(4))


def test_an_exit_meant_for_an_entry_that_failed_is_dropped() -> None:
    world = World()
    entry = world.entry()
    world.send(approve(entry, world.now))
    world.wait(MINUTE)
    world.send(candle(1, volume=EXIT))
    assert world.signals(event(entry, m.OrderStatus.CANCELED, at=world.now)) == []
    world.wait(MINUTE)
    assert [s.side for s in world.signals(mark(at=world.now), candle(2, volume=ENTER))] == ["BUY"]


def test_a_denied_exit_is_tried_again_with_the_next_attempt_after_the_pause() -> None:
    world = World()
    first = world.exit()
    world.send(deny(first, m.Reason.TRADING_HALTED, world.now))
    assert not world.core.busy
    world.wait(seconds(4.9))
    assert world.signals(mark(at=world.now)) == []
    world.wait(seconds(0.1))
    (second,) = world.signals(mark(at=world.now))
    assert (second.attempt, second.trigger, second.reason) == (2, first.trigger, first.reason)
    assert second.id != first.id
    assert second.expires_at == world.now + seconds(10)


def test_the_pause_doubles_with_each_attempt_up_to_five_minutes() -> None:
    """A halt of a weekend leaves hundreds of denials in the ledger, not tens of thousands."""
    world = World()
    signal = world.exit()
    for pause in (5, 10, 20, 40, 80, 160, 300, 300):
        world.send(deny(signal, m.Reason.TRADING_HALTED, world.now))
        world.wait(seconds(pause - 0.1))
        assert world.signals(mark(at=world.now)) == []
        world.wait(seconds(0.1))
        (signal,) = world.signals(mark(at=world.now))
    assert signal.attempt == 9


def test_the_next_trigger_starts_with_the_short_pause_again() -> None:
    world = World()
    first = world.exit()
    world.send(deny(first, m.Reason.TRADING_HALTED, world.now))
    world.wait(seconds(5))
    (second,) = world.signals(mark(at=world.now))
    world.send(*filled(second, 9, at=world.now), fill(10, m.Side.BUY, 3, at=world.now))
    (stop,) = world.signals(mark(90, world.now))
    world.send(deny(stop, m.Reason.TRADING_HALTED, world.now))
    world.wait(seconds(5))
    assert [signal.attempt for signal in world.signals(mark(90, world.now))] == [2]


def test_thousands_of_attempts_do_not_outgrow_the_pause() -> None:
    world = World(StrategyConfig(retry_seconds=2.5))
    world.exit()
    world.core.restore(world.core.dump().replace(b'"attempt":1,', b'"attempt":5000,'))
    (signal,) = [output for output in world.recover() if isinstance(output, m.Signal)]
    world.send(deny(signal, m.Reason.TRADING_HALTED, world.now))
    world.wait(5 * MINUTE)
    assert [signal.attempt for signal in world.signals(mark(at=world.now))] == [5001]


def test_the_pause_runs_from_the_end_of_the_order_not_from_its_approval() -> None:
    world = World()
    first = world.exit()
    world.send(approve(first, world.now))
    world.wait(seconds(10))
    world.send(event(first, m.OrderStatus.EXPIRED, 2, at=world.now))
    assert world.signals(mark(at=world.now)) == []
    world.wait(seconds(5))
    assert [signal.attempt for signal in world.signals(mark(at=world.now))] == [2]


def test_many_refusals_of_an_operator_do_not_make_it_forget_what_it_waits_for() -> None:
    world = World()
    first = world.exit()
    world.send(deny(first, m.Reason.MARK_STALE, world.now))
    refused = [deny(replace(first, id=f"operator-{n}"), m.Reason.BALANCE_TOO_LOW, world.now) for n in range(50)]
    world.send(*refused)
    world.wait(seconds(5))
    (second,) = world.signals(mark(at=world.now))
    world.send(approve(second, world.now))
    refused = [deny(replace(first, id=f"again-{n}"), m.Reason.BALANCE_TOO_LOW, world.now) for n in range(50)]
    world.send(*refused)
    assert world.core.busy
    assert world.tick(4) == []


def test_many_refusals_do_not_make_it_forget_an_order_that_still_lives() -> None:
    world = World()
    entry = world.hold()
    world.send(approve(replace(entry, id="flatten"), world.now))
    world.send(*[deny(replace(entry, id=f"no-{n}"), m.Reason.BALANCE_TOO_LOW, world.now) for n in range(50)])
    assert world.core.busy


def test_the_next_attempt_comes_with_a_tick_where_no_mark_does() -> None:
    world = World()
    world.send(deny(world.exit(), m.Reason.MARK_STALE, world.now))
    world.wait(seconds(5))
    (second,) = world.tick()
    assert isinstance(second, m.Signal)
    assert second.attempt == 2


def test_an_unanswered_exit_never_becomes_a_second_attempt() -> None:
    world = World()
    first = world.exit()
    world.wait(60 * MINUTE)
    outputs = [*world.tick(8), *world.signals(mark(at=world.now))]
    assert outputs == [first, first]


def test_an_exit_that_filled_in_part_sells_the_rest_with_the_next_attempt() -> None:
    world = World()
    first = world.exit()
    world.send(
        approve(first, world.now),
        fill(9, m.Side.SELL, 4, at=world.now, signal_id=first.id),
        event(first, m.OrderStatus.CANCELED, 3, 4, world.now),
    )
    world.wait(seconds(5))
    (second,) = world.signals(mark(at=world.now))
    assert (second.attempt, second.quantity) == (2, Decimal(6))


def test_a_filled_exit_is_the_end_of_it() -> None:
    world = World()
    world.send(*filled(world.exit(), 9, at=world.now))
    world.wait(seconds(5))
    assert world.signals(mark(at=world.now), m.Tick(id="tick")) == []
    assert world.decision(mark(at=world.now)).reason == "no_signal"
    world.wait(seconds(55))
    assert len(world.signals(mark(at=world.now), candle(2, volume=ENTER))) == 1


def test_an_exit_is_not_tried_again_for_a_position_that_somebody_else_has_sold() -> None:
    world = World()
    first = world.exit()
    world.send(deny(first, m.Reason.MARK_STALE, world.now), fill(9, m.Side.SELL, 10, at=world.now))
    world.wait(seconds(5))
    assert world.signals(mark(at=world.now)) == []


def test_an_exit_does_not_go_on_to_sell_a_position_bought_since() -> None:
    world = World()
    first = world.exit()
    world.send(
        approve(first, world.now),
        fill(9, m.Side.SELL, 10, at=world.now, signal_id=first.id),
        fill(10, m.Side.BUY, 3, at=world.now),
        event(first, m.OrderStatus.FILLED, 3, 10, world.now),
    )
    world.wait(seconds(5))
    assert world.signals(mark(at=world.now)) == []


def test_no_exit_beside_an_order_of_the_operator_that_may_fill_any_moment() -> None:
    world = World()
    mine = world.exit()
    world.send(deny(mine, m.Reason.MARK_STALE, world.now))
    world.send(approve(replace(mine, id="operator"), world.now))
    world.wait(seconds(5))
    assert world.signals(mark(at=world.now)) == []
    (second,) = world.signals(event(replace(mine, id="operator"), m.OrderStatus.CANCELED, at=world.now), mark())
    assert second.attempt == 2


@pytest.mark.parametrize("reason", [m.Reason.DUST, m.Reason.NOTHING_TO_REDUCE])
def test_a_residue_that_risk_will_not_sell_counts_as_flat(reason: m.Reason) -> None:
    world = World()
    world.send(deny(world.exit(), reason, world.now))
    assert not world.core.busy
    world.wait(seconds(50))
    assert world.signals(mark(50, world.now), m.Tick(id="tick")) == []
    assert world.decision(mark(50, world.now)).reason == "dust"
    world.wait(seconds(10))
    assert world.signals(candle(2, volume=EXIT)) == []


def test_execution_may_find_the_dust_as_well() -> None:
    world = World()
    signal = world.exit()
    denied = event(signal, m.OrderStatus.DENIED, at=world.now, reason=m.Reason.NOTHING_TO_REDUCE)
    world.send(approve(signal, world.now), denied, denied)
    world.wait(seconds(50))
    assert world.signals(mark(50, world.now)) == []


def test_what_an_operator_could_not_sell_does_not_end_our_exit() -> None:
    world = World()
    first = world.exit()
    denied, ended = replace(first, id="operator-1"), replace(first, id="operator-2")
    world.send(deny(first, m.Reason.MARK_STALE, world.now), deny(denied, m.Reason.DUST, world.now))
    refusal = event(ended, m.OrderStatus.DENIED, at=world.now, reason=m.Reason.NOTHING_TO_REDUCE)
    world.send(approve(ended, world.now), refusal)
    world.wait(seconds(5))
    assert [signal.attempt for signal in world.signals(mark(at=world.now))] == [2]


def test_over_dust_a_new_entry_is_made_and_exited_whole() -> None:
    world = World()
    first = world.exit()
    world.send(
        approve(first, world.now),
        fill(9, m.Side.SELL, "9.999", at=world.now, signal_id=first.id),
        event(first, m.OrderStatus.CANCELED, 3, "9.999", world.now),
    )
    world.wait(seconds(5))
    (second,) = world.signals(mark(at=world.now))
    world.send(deny(second, m.Reason.DUST, world.now))
    world.wait(seconds(55))
    (entry,) = world.signals(mark(50, world.now), candle(2, 50, volume=ENTER))
    world.send(*filled(entry, 20, 50, world.now))
    # The stop follows the new position: its peak is not that of the dust.
    assert world.signals(mark(50, world.now)) == []
    (stop,) = world.signals(mark(49, world.now))
    assert (stop.quantity, stop.trigger) == (Decimal("20.001"), "stop:fill-BTC-USD-20")


def test_what_a_resting_sell_order_had_reserved_is_for_sale_again_when_that_order_ends() -> None:
    world = World()
    first = world.exit()
    world.send(deny(first, m.Reason.NOTHING_TO_REDUCE, world.now))
    assert world.signals(mark(90, world.now)) == []
    world.send(event(replace(first, id="operator"), m.OrderStatus.CANCELED, at=world.now))
    (stop,) = world.signals(mark(90, world.now))
    assert stop.trigger == "stop:fill-BTC-USD-1"


def test_an_operators_resting_order_holds_nothing_up() -> None:
    world = World()
    entry = world.hold()
    world.send(approve(replace(entry, id="operator", time_in_force=m.TimeInForce.GTC), world.now))
    assert not world.core.busy
    assert len(world.signals(mark(90, world.now))) == 1


def test_selling_more_than_was_bought_leaves_nothing_held() -> None:
    world = World()
    world.send(fill(1, m.Side.BUY, 1), fill(2, m.Side.SELL, 3), fill(3, m.Side.BUY, 2))
    (stop,) = world.signals(mark(90, world.now))
    assert stop.quantity == 2


def test_a_fill_told_twice_counts_once() -> None:
    world = World()
    world.send(fill(1, m.Side.BUY, 1), fill(2, m.Side.BUY, 1), fill(1, m.Side.BUY, 1))
    (stop,) = world.signals(mark(90, world.now))
    assert stop.quantity == 2


def test_a_fill_told_twice_does_not_stand_in_for_one_that_is_yet_to_be_told() -> None:
    world = World()
    first = world.exit()
    part = fill(9, m.Side.SELL, 4, at=world.now, signal_id=first.id)
    world.send(approve(first, world.now), part, part, event(first, m.OrderStatus.CANCELED, 3, 8, world.now))
    assert world.core.busy
    world.send(fill(10, m.Side.SELL, 4, at=world.now, signal_id=first.id))
    assert not world.core.busy


def test_ledger_messages_told_twice_change_nothing() -> None:
    world = World()
    first = world.exit()
    story = [
        deny(first, m.Reason.MARK_STALE, world.now),
        deny(first, m.Reason.MARK_STALE, world.now + MINUTE),
        event(first, m.OrderStatus.CANCELED, at=T0),
    ]
    world.send(*story)
    world.wait(seconds(5))
    (second,) = world.signals(mark(at=world.now))
    assert second.attempt == 2
    assert world.signals(*story) == []
