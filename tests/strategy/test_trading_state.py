"""What the trading state does to exits: one that it refused goes out again as soon as it may, one that an operator's
flatten takes care of does not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from libs.common import messages as m
from tests.strategy.builders import (
    BTC,
    ENTER,
    EXIT,
    HOLD,
    MINUTE,
    World,
    approve,
    candle,
    deny,
    event,
    fill,
    mark,
    seconds,
    state,
)

ACTIVE, REDUCING, HALTED = m.Trading.ACTIVE, m.Trading.REDUCING, m.Trading.HALTED
BY_STATE = [m.Reason.TRADING_HALTED, m.Reason.TRADING_STATE_UNKNOWN, m.Reason.TRADING_STATE_CHANGED]


def refused(reason: m.Reason = m.Reason.TRADING_HALTED, attempts: int = 1) -> tuple[World, m.Signal]:
    """Halted under revision 2, with an exit that was refused so many times; the last refusal is just made."""
    world = World()
    world.send(state(ACTIVE, 1))
    signal = world.exit()
    world.send(state(HALTED, 2))
    for number in range(attempts):
        if number:
            world.wait(seconds(300))
            (signal,) = world.signals(mark(at=world.now))
        world.send(deny(signal, reason, world.now))
    return world, signal


def restart(world: World, *past: m.Message, snapshot: bytes) -> tuple[World, list[m.Message]]:
    """A new process at the same moment: the snapshot, then the past. Gives what came of recovery."""
    new = World(now=world.now, recovered=False)
    new.core.restore(snapshot)
    assert new.send(*past) == []
    return new, new.recover()


# -- a halt that ends


@pytest.mark.parametrize("reason", BY_STATE)
@pytest.mark.parametrize("after", [ACTIVE, REDUCING])
def test_an_exit_that_the_trading_state_refused_is_tried_again_at_once_when_exits_may_pass(
    reason: m.Reason, after: m.Trading
) -> None:
    world, last = refused(reason, attempts=9)
    world.wait(seconds(1))
    (following,) = world.signals(state(after, 3))
    assert (following.attempt, following.trigger, following.quantity) == (10, last.trigger, Decimal(10))
    assert (following.at, following.expires_at) == (world.now, world.now + seconds(10))
    assert following.id == m.derive_id("installation", "crossover", BTC, last.trigger, m.Side.SELL, 10)


def test_the_end_of_a_halt_that_is_told_twice_gives_one_attempt() -> None:
    world, _ = refused()
    assert len(world.signals(state(ACTIVE, 3), state(ACTIVE, 3), state(ACTIVE, 4))) == 1


def test_one_state_gives_no_more_than_one_early_attempt() -> None:
    world, _ = refused()
    (second,) = world.signals(state(ACTIVE, 3))
    assert world.signals(deny(second, m.Reason.TRADING_HALTED, world.now), mark(at=world.now)) == []
    assert world.signals(state(ACTIVE, 3)) == []
    world.wait(seconds(10))
    assert [signal.attempt for signal in world.signals(mark(at=world.now))] == [3]


def test_a_refusal_that_is_told_after_the_end_of_its_halt_is_answered_at_once_as_well() -> None:
    """Ledger and trading state reach us by different ways."""
    world = World()
    world.send(state(HALTED, 1))
    first = world.exit()
    assert world.signals(state(ACTIVE, 2)) == []
    world.send(deny(first, m.Reason.TRADING_HALTED, world.now))
    (second,) = world.signals(mark(at=world.now))
    assert second.attempt == 2


def test_a_refusal_by_a_halt_that_is_yet_to_be_told_is_not_answered_early() -> None:
    world = World()
    world.send(state(ACTIVE, 1))
    world.send(deny(world.exit(), m.Reason.TRADING_HALTED, world.now))
    assert world.signals(mark(at=world.now)) == []
    assert world.signals(state(HALTED, 2), mark(at=world.now)) == []
    assert [signal.attempt for signal in world.signals(state(REDUCING, 3))] == [2]


def test_an_exit_that_execution_refused_for_the_state_is_tried_again_at_once_too() -> None:
    world = World()
    world.send(state(ACTIVE, 1))
    first = world.exit()
    denied = event(first, m.OrderStatus.DENIED, at=world.now, reason=m.Reason.TRADING_STATE_CHANGED)
    world.send(approve(first, world.now), denied)
    assert [signal.attempt for signal in world.signals(state(REDUCING, 2))] == [2]


@pytest.mark.parametrize("reason", [m.Reason.MARK_STALE, m.Reason.SIGNAL_EXPIRED])
def test_an_exit_refused_for_another_reason_keeps_its_pause(reason: m.Reason) -> None:
    world, _ = refused(reason)
    assert world.signals(state(ACTIVE, 3), mark(at=world.now)) == []
    world.wait(seconds(5))
    assert len(world.signals(mark(at=world.now))) == 1


def test_an_exit_whose_order_ended_for_another_reason_keeps_its_pause() -> None:
    world = World()
    world.send(state(HALTED, 1))
    first = world.exit()
    world.send(approve(first, world.now), event(first, m.OrderStatus.EXPIRED, 2, at=world.now))
    assert world.signals(state(ACTIVE, 2), mark(at=world.now)) == []


def test_another_halt_and_an_older_state_end_no_halt() -> None:
    world, _ = refused()
    assert world.signals(state(HALTED, 3), state(ACTIVE, 1), state(ACTIVE, 3), mark(at=world.now)) == []
    assert len(world.signals(state(ACTIVE, 4))) == 1


def test_a_lost_state_is_taken_up_and_whatever_is_stored_next_counts() -> None:
    world, _ = refused()
    assert world.signals(state(HALTED, 0)) == []
    assert len(world.signals(state(ACTIVE, 3))) == 1


def test_a_flatten_whose_state_is_lost_holds_nothing_back() -> None:
    world = World()
    world.hold()
    world.send(state(REDUCING, 2, flatten="f"), state(HALTED, 0))
    assert len(world.signals(mark(90, world.now))) == 1


def test_an_attempt_without_an_answer_gets_no_second_one_when_the_halt_ends() -> None:
    world = World()
    world.send(state(HALTED, 1))
    first = world.exit()
    assert world.signals(state(ACTIVE, 2), mark(at=world.now)) == []
    assert world.tick(4) == [first]


def test_a_denied_entry_stays_denied_when_the_halt_ends() -> None:
    world = World()
    world.send(state(HALTED, 1))
    world.send(deny(world.entry(), m.Reason.TRADING_HALTED, world.now))
    assert world.signals(state(ACTIVE, 2), mark(at=world.now), m.Tick(id="tick")) == []


def test_while_halted_decisions_and_attempts_go_on_as_ever() -> None:
    world, _ = refused()
    assert world.decision(mark(at=world.now)).action == "close"
    assert world.decision(mark(at=world.now)).reason == "signal_pending"
    world.wait(seconds(5))
    assert [signal.attempt for signal in world.signals(mark(at=world.now))] == [2]


@pytest.mark.parametrize("known_before", [True, False])
def test_killed_in_the_halt_and_started_after_it_the_exit_goes_out_with_the_start(known_before: bool) -> None:
    world, last = refused(attempts=9)
    past = [state(ACTIVE, 3)] if known_before else []
    new, outputs = restart(world, *past, snapshot=world.core.dump())
    signals = [out for out in outputs if isinstance(out, m.Signal)] or new.signals(state(ACTIVE, 3))
    assert [(signal.attempt, signal.trigger) for signal in signals] == [(10, last.trigger)]


def test_killed_after_the_early_attempt_the_start_makes_no_other() -> None:
    world, _ = refused()
    (second,) = world.signals(state(ACTIVE, 3))
    world.send(deny(second, m.Reason.TRADING_HALTED, world.now))
    new, outputs = restart(world, state(ACTIVE, 3), snapshot=world.core.dump())
    assert outputs == []
    assert new.signals(mark(at=new.now)) == []


# -- an operator's flatten


@pytest.mark.parametrize("under", [ACTIVE, REDUCING, HALTED])
def test_while_a_flatten_is_in_force_no_exit_is_begun(under: m.Trading) -> None:
    world = World()
    world.hold()
    world.send(state(under, 1, flatten="f"))
    world.wait(MINUTE)
    assert world.signals(mark(50, world.now), candle(1, volume=EXIT), m.Tick(id="tick")) == []
    assert not world.core.busy


def test_while_a_flatten_is_in_force_no_exit_is_tried_again() -> None:
    world, _ = refused()
    world.send(state(REDUCING, 3, flatten="f"))
    world.wait(10 * MINUTE)
    assert world.signals(mark(at=world.now), *[m.Tick(id="tick")] * 4) == []


def test_what_was_given_before_the_flatten_is_still_repeated_until_it_is_answered() -> None:
    world = World()
    first = world.exit()
    world.send(state(REDUCING, 1, flatten="f"))
    assert world.tick(4) == [first]


def test_decisions_say_that_the_position_is_being_closed_and_go_on_when_it_is() -> None:
    world = World()
    world.hold()
    world.send(mark(at=world.now), state(REDUCING, 1, flatten="f"))
    assert world.decision(mark(50, world.now)).reason == "closing"
    world.send(fill(9, m.Side.SELL, 10, at=world.now))
    assert world.decision(mark(50, world.now)).reason == "no_signal"


def test_a_position_that_the_flatten_closed_is_left_alone_after_it() -> None:
    world, _ = refused()
    world.send(state(REDUCING, 3, flatten="f"))
    world.wait(MINUTE)
    world.send(candle(2, volume=EXIT), fill(9, m.Side.SELL, 10, at=world.now))
    world.wait(MINUTE)
    assert world.signals(state(ACTIVE, 4), mark(50, world.now)) == []
    assert [s.side for s in world.signals(mark(at=world.now), candle(3, volume=ENTER))] == ["BUY"]


def test_an_exit_held_back_goes_out_when_the_flatten_ends_and_the_position_is_still_there() -> None:
    world = World()
    world.hold()
    world.send(state(REDUCING, 1, flatten="f"))
    world.wait(MINUTE)
    world.send(mark(at=world.now), candle(1, volume=EXIT), fill(9, m.Side.SELL, 4, at=world.now))
    world.wait(MINUTE)
    world.send(candle(2, volume=HOLD))
    (signal,) = world.signals(state(ACTIVE, 2))
    assert (signal.quantity, signal.trigger, signal.attempt) == (Decimal(6), "candle:2026-01-05T12:01:00+00:00", 1)


def test_an_exit_that_was_refused_before_the_flatten_goes_on_when_it_ends() -> None:
    world, _ = refused()
    world.send(state(REDUCING, 3, flatten="f"))
    assert [signal.attempt for signal in world.signals(state(REDUCING, 4))] == [2]


def test_a_stop_reached_during_the_flatten_is_asked_again_at_the_first_mark_after_it() -> None:
    world = World()
    world.hold()
    world.send(state(REDUCING, 1, flatten="f"), mark(90, world.now), state(ACTIVE, 2))
    (stop,) = world.signals(mark(90, world.now))
    assert stop.reason == "trailing_stop"


def test_a_flatten_of_a_halted_state_ends_in_the_halt_without_an_early_attempt() -> None:
    world, _ = refused()
    assert world.signals(state(HALTED, 3, flatten="f"), state(HALTED, 4), mark(at=world.now)) == []


def test_restarted_during_the_flatten_it_holds_back_and_forgets_nothing() -> None:
    world = World()
    world.hold()
    world.send(state(REDUCING, 1, flatten="f"))
    world.wait(MINUTE)
    exit_candle = candle(1, volume=EXIT)
    world.send(mark(at=world.now), exit_candle)
    past = [state(REDUCING, 1, flatten="f"), mark(at=world.now), candle(0, volume=ENTER), exit_candle]
    new, outputs = restart(world, *past, snapshot=world.core.dump())
    assert outputs == []
    assert new.signals(mark(50, new.now), m.Tick(id="tick")) == []
    assert [signal.trigger for signal in new.signals(state(ACTIVE, 2))] == ["candle:2026-01-05T12:01:00+00:00"]


def test_restarted_during_the_flatten_a_refused_exit_waits_for_its_end() -> None:
    world, _ = refused()
    world.wait(10 * MINUTE)
    new, outputs = restart(world, state(REDUCING, 3, flatten="f"), snapshot=world.core.dump())
    assert outputs == []
    assert [signal.attempt for signal in new.signals(state(ACTIVE, 4))] == [2]


def test_restarted_after_the_flatten_closed_everything_it_wants_nothing() -> None:
    world, _ = refused()
    snapshot = world.core.dump()
    new, outputs = restart(
        world, fill(9, m.Side.SELL, 10, at=world.now), state(REDUCING, 3, flatten="f"), snapshot=snapshot
    )
    assert outputs == []
    assert new.signals(state(ACTIVE, 4), mark(50, new.now)) == []


def test_entries_are_wanted_as_ever_and_left_to_risk_to_refuse() -> None:
    world = World()
    world.send(state(REDUCING, 1, flatten="f"))
    assert world.entry().side is m.Side.BUY


def test_an_exit_held_back_is_forgotten_with_its_position_and_stands_in_no_entry_s_way() -> None:
    world = World()
    world.hold()
    world.send(state(REDUCING, 1, flatten="f"))
    world.wait(MINUTE)
    world.send(candle(1, volume=EXIT), fill(9, m.Side.SELL, 10, at=world.now))
    world.wait(MINUTE)
    assert [s.side for s in world.signals(mark(at=world.now), candle(2, volume=ENTER))] == ["BUY"]
