from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import msgspec
import pytest

from libs.common import messages as m
from services.strategy.books import ANSWERS_KEPT
from services.strategy.config import StrategyConfig
from services.strategy.mean_reversion import MeanReversion, Parameters
from services.strategy.plugin import Why
from tests.strategy.builders import (
    BTC,
    ENTER,
    EXIT,
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


def restart(world: World, *past: m.Message, snapshot: bytes = b"") -> tuple[World, list[m.Message]]:
    """A new process at the same moment: the snapshot where there is one, then the past. Gives what came of recovery."""
    new = World(now=world.now, recovered=False)
    if snapshot:
        new.core.restore(snapshot)
    new.send(*past)
    return new, new.recover()


def crossing(world: World) -> Sequence[m.Message]:
    """What the bus keeps of `World.entry`."""
    return (mark(at=world.now), candle(0, volume=ENTER))


# -- an entry, killed in every state


def test_killed_after_the_candle_and_before_the_signal_the_candle_is_decided_after_recovery() -> None:
    world = World()
    signal = world.entry()
    _, outputs = restart(world, *crossing(world))
    assert outputs == [signal]


def test_killed_with_a_crossing_candle_that_is_no_longer_fresh_nothing_is_entered() -> None:
    world = World()
    world.wait(seconds(11))
    new, outputs = restart(world, *crossing(world))
    assert outputs == []
    assert new.decision(mark(at=new.now)).reason == "candle_too_old"


def test_of_the_candles_read_at_recovery_only_the_last_may_enter() -> None:
    world = World()
    new, outputs = restart(world, mark(at=world.now), candle(-1, volume=ENTER), candle(0))
    assert outputs == []
    assert new.signals(mark(at=new.now)) == []


def test_killed_before_the_verdict_the_same_signal_is_repeated() -> None:
    world = World()
    signal = world.entry()
    snapshot = world.core.dump()
    new, outputs = restart(world, *crossing(world), snapshot=snapshot)
    assert outputs == [signal]
    assert new.tick(4) == [signal]
    assert new.core.busy


def test_killed_before_the_verdict_which_came_meanwhile_the_signal_is_settled() -> None:
    world = World()
    signal = world.entry()
    denial = deny(signal, m.Reason.BALANCE_TOO_LOW, world.now)
    new, outputs = restart(world, denial, *crossing(world), snapshot=world.core.dump())
    assert (outputs, new.tick(4), new.core.busy) == ([], [], False)


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_killed_after_the_approval_the_order_is_waited_for(with_snapshot: bool) -> None:
    world = World()
    signal = world.entry()
    world.send(approve(signal, world.now))
    if with_snapshot:
        new, outputs = restart(world, *crossing(world), snapshot=world.core.dump())
    else:
        new, outputs = restart(world, approve(signal, world.now), *crossing(world))
    assert (outputs, new.tick(4), new.core.busy) == ([], [], True)
    assert new.signals(event(signal, m.OrderStatus.CANCELED, 2, at=new.now), mark(at=new.now)) == []
    assert not new.core.busy


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_killed_after_a_partial_fill_the_part_is_held_and_not_topped_up(with_snapshot: bool) -> None:
    world = World()
    signal = world.entry()
    part = [approve(signal, world.now), fill(1, m.Side.BUY, 4, at=world.now, signal_id=signal.id)]
    world.send(*part)
    past = [*([] if with_snapshot else part), *crossing(world)]
    new, outputs = restart(world, *past, snapshot=world.core.dump() if with_snapshot else b"")
    assert outputs == []
    assert new.signals(event(signal, m.OrderStatus.CANCELED, 3, 4, new.now), mark(at=new.now)) == []
    (stop,) = new.signals(mark(90, new.now))
    assert stop.quantity == 4


def test_killed_after_the_end_of_an_entry_and_its_exit_the_fresh_candle_does_not_enter_again() -> None:
    world = World()
    signal = world.entry()
    ledger = filled(signal, 1, at=world.now)
    world.send(*ledger)
    (stop,) = world.signals(mark(90, world.now))
    ledger += filled(stop, 2, 90, world.now)
    _, outputs = restart(world, *ledger, *crossing(world))
    assert outputs == []


def test_an_entry_under_way_that_only_the_ledger_knows_counts_as_held() -> None:
    world = World()
    signal = world.entry()
    world.wait(MINUTE)
    new, _ = restart(world, approve(signal, T0 + MINUTE), candle(0, volume=ENTER), candle(1, volume=EXIT))
    script = new.strategies[BTC]
    assert isinstance(script, Scripted)
    assert script.held == [False, True]


def test_an_entry_that_waited_for_a_mark_waits_on_after_a_restart() -> None:
    world = World()
    world.send(candle(0, volume=ENTER))
    new, outputs = restart(world, candle(0, volume=ENTER), snapshot=world.core.dump())
    assert outputs == []
    assert len(new.signals(mark(at=new.now))) == 1


def test_a_candle_decided_before_the_restart_is_not_decided_again() -> None:
    world = World()
    world.send(mark(at=world.now), candle(0))
    new, outputs = restart(world, mark(at=world.now), candle(0, volume=ENTER), snapshot=world.core.dump())
    assert outputs == []
    assert new.signals(mark(at=new.now)) == []


# -- an exit, killed in every state


def held_past(world: World) -> list[m.Message]:
    return [fill(1, m.Side.BUY, 10, at=T0 + MINUTE), mark(at=world.now), candle(0), candle(1, volume=EXIT)]


def test_an_exit_candle_that_closed_while_we_were_down_is_acted_on_however_old() -> None:
    world = World(now=T0 + 30 * MINUTE)
    _, (signal,) = restart(world, *held_past(world), candle(2), candle(3, volume=ENTER))
    assert isinstance(signal, m.Signal)
    assert (signal.side, signal.trigger) == (m.Side.SELL, "candle:2026-01-05T12:01:00+00:00")


def test_an_exit_candle_from_before_the_position_means_nothing() -> None:
    world = World(now=T0 + 30 * MINUTE)
    _, outputs = restart(world, fill(1, m.Side.BUY, 10, at=T0 + 5 * MINUTE), candle(1, volume=EXIT), candle(9))
    assert outputs == []


def test_killed_before_the_verdict_the_same_exit_is_repeated() -> None:
    world = World()
    signal = world.exit()
    new, outputs = restart(world, snapshot=world.core.dump())
    assert outputs == [signal]
    assert new.core.busy


@pytest.mark.parametrize("with_snapshot", [True, False])
def test_killed_after_a_denial_the_next_attempt_comes_at_its_time(with_snapshot: bool) -> None:
    world = World()
    entry = world.entry()
    ledger = filled(entry, 1, at=world.now)
    world.send(*ledger)
    world.wait(MINUTE)
    (first,) = world.signals(mark(at=world.now), candle(1, volume=EXIT))
    ledger.append(deny(first, m.Reason.TRADING_HALTED, world.now))
    world.send(ledger[-1])
    world.wait(seconds(3))
    past = [mark(at=world.now), candle(0, volume=ENTER), candle(1, volume=EXIT)]
    if with_snapshot:
        new, outputs = restart(world, *past, snapshot=world.core.dump())
    else:
        new, outputs = restart(world, *ledger, *past)
    assert outputs == []
    new.wait(seconds(2))
    (second,) = new.signals(mark(at=new.now))
    assert (second.attempt, second.trigger, second.id != first.id) == (2, first.trigger, True)


def attempts(world: World, signal: m.Signal, count: int) -> list[m.Message]:
    """So many denied attempts, the first of them `signal`, each after the longest pause. Gives the denials."""
    denials: list[m.Message] = []
    for _ in range(count):
        denials.append(deny(signal, m.Reason.TRADING_HALTED, world.now))
        world.send(denials[-1])
        world.wait(5 * MINUTE)
        (signal,) = world.signals(mark(at=world.now))
    return denials


def test_a_snapshot_older_than_many_attempts_goes_on_after_the_last_of_them() -> None:
    world = World()
    signal = world.exit()
    snapshot = world.core.dump()
    denials = attempts(world, signal, 3 * ANSWERS_KEPT)
    new, (following,) = restart(world, *denials, snapshot=snapshot)
    assert isinstance(following, m.Signal)
    assert following.attempt == 3 * ANSWERS_KEPT + 1
    assert following.id == world.tick(4)[0].id
    assert len(msgspec.json.decode(new.core.dump())["books"][BTC]["answers"]) <= ANSWERS_KEPT


def test_without_any_snapshot_it_goes_on_after_the_last_attempt_as_well() -> None:
    world = World()
    entry = world.entry()
    ledger = filled(entry, 1, at=world.now)
    world.send(*ledger)
    world.wait(MINUTE)
    (signal,) = world.signals(mark(at=world.now), candle(1, volume=EXIT))
    ledger += attempts(world, signal, 3 * ANSWERS_KEPT)
    _, (following,) = restart(world, *ledger, candle(0, volume=ENTER), candle(1, volume=EXIT))
    assert isinstance(following, m.Signal)
    assert following.id == world.tick(4)[0].id


def test_a_snapshot_older_than_an_attempt_whose_order_still_lives_waits_for_that_order() -> None:
    world = World()
    first = world.exit()
    snapshot = world.core.dump()
    denial = deny(first, m.Reason.MARK_STALE, world.now)
    world.send(denial)
    world.wait(seconds(5))
    (second,) = world.signals(mark(at=world.now))
    new, outputs = restart(world, denial, approve(second, world.now), snapshot=snapshot)
    assert (outputs, new.core.busy) == ([], True)
    new.wait(MINUTE)
    assert new.signals(mark(at=new.now)) == []
    new.send(event(second, m.OrderStatus.CANCELED, 2, at=new.now))
    new.wait(seconds(10))
    (third,) = new.signals(mark(at=new.now))
    assert third.attempt == 3


def test_an_order_in_flight_that_the_snapshot_does_not_know_holds_everything_up() -> None:
    """A stop was signalled and approved after the snapshot, and the peak that caused it is lost."""
    world = World()
    world.send(fill(1, m.Side.BUY, 10, at=world.now))
    snapshot = world.core.dump()
    world.send(mark(120, world.now))
    (stop,) = world.signals(mark(110, world.now))
    world.wait(MINUTE)
    new, outputs = restart(
        world, approve(stop, world.now), mark(110, world.now), candle(1, volume=EXIT), snapshot=snapshot
    )
    assert outputs == []
    assert new.core.busy
    assert new.signals(mark(90, new.now)) == []
    (exit_signal,) = new.signals(event(stop, m.OrderStatus.CANCELED, 2, at=new.now))
    assert exit_signal.side is m.Side.SELL


def test_dust_stays_dust_over_a_restart() -> None:
    world = World()
    world.send(deny(world.exit(), m.Reason.DUST, world.now))
    new, outputs = restart(world, snapshot=world.core.dump())
    assert outputs == []
    assert new.signals(mark(50, new.now)) == []


def test_the_signal_not_yet_shown_in_a_decision_is_shown_after_the_restart() -> None:
    world = World()
    signal = world.entry()
    new, _ = restart(world, snapshot=world.core.dump())
    assert new.decision(mark(at=new.now)).signal_id == signal.id


# -- the trailing stop


def test_the_peak_survives_a_restart() -> None:
    world = World()
    world.send(fill(1, m.Side.BUY, 1, 100, world.now), mark(110, world.now))
    new, _ = restart(world, mark(109, world.now), snapshot=world.core.dump())
    assert len(new.signals(mark("108.9", new.now))) == 1


@pytest.mark.parametrize(("price", "stopped"), [("108.91", False), ("108.9", True)])
def test_without_a_snapshot_the_peak_is_the_highest_of_entry_and_candles_since(price: str, stopped: bool) -> None:
    world = World(now=T0 + 5 * MINUTE)
    past = [fill(1, m.Side.BUY, 1, 100, T0 + seconds(50)), candle(-1, high=500), candle(0, high=500)]
    new, _ = restart(world, *past, candle(1, high=110), candle(2, high=105))
    assert bool(new.signals(mark(price, new.now))) is stopped


# -- the rest


def test_a_position_of_a_product_not_traded_now_is_kept_for_the_day_it_is() -> None:
    world = World(strategies={})
    world.send(fill(1, m.Side.BUY, 3, at=world.now))
    new, _ = restart(world, snapshot=world.core.dump())
    (stop,) = new.signals(mark(90, new.now))
    assert stop.quantity == 3


def test_a_snapshot_of_something_else_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        World().core.restore(b'{"books": {"BTC-USD": {"quantity": "many"}}}')


def test_an_order_decided_under_a_reason_that_this_version_does_not_know_is_tried_again() -> None:
    world = World()
    world.exit()
    foreign = world.core.dump().replace(b"crossed_down", b"said_the_oracle")
    new, (signal,) = restart(world, snapshot=foreign)
    assert isinstance(signal, m.Signal)
    new.send(deny(signal, m.Reason.MARK_STALE, new.now))
    new.wait(seconds(5))
    (second,) = new.signals(mark(at=new.now))
    assert second.reason == "said_the_oracle"


def test_candles_held_are_counted_again_after_a_restart() -> None:
    rules = Parameters(window=3, deviations=Decimal(1), max_candles=4)
    past = [fill(1, m.Side.BUY, 1, 100, T0), *(candle(number, 100 - number) for number in range(-6, 3))]
    new = World(strategies={BTC: MeanReversion(rules)}, now=T0 + 3 * MINUTE, recovered=False)
    new.send(*past)
    assert new.recover() == []
    new.wait(MINUTE)
    (signal,) = new.signals(candle(3, 90))
    assert signal.reason == Why.HELD_TOO_LONG


def test_decisions_name_the_candle_s_reason_again_after_a_restart() -> None:
    world = World(StrategyConfig())
    world.send(candle(0, volume=HOLD), mark(at=world.now))
    new, _ = restart(world, candle(0, volume=HOLD), mark(at=world.now), snapshot=world.core.dump())
    assert new.decision(mark(at=new.now)).reason == "no_signal"
