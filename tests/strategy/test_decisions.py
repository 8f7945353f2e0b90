from __future__ import annotations

from libs.common import messages as m
from services.strategy.config import StrategyConfig
from services.strategy.core import StrategyCore
from tests.strategy.builders import BTC, ENTER, EXIT, MINUTE, Scripted, World, candle, deny, fill, filled, mark, seconds


def test_every_mark_gets_exactly_one_decision() -> None:
    world = World()
    seen = mark(at=world.now)
    assert world.send(seen) == [
        m.Decision(
            id=f"decision-{seen.id}",
            cause=seen.id,
            at=seen.at,
            product_id=BTC,
            action="hold",
            reason="warming_up",
            mark_at=seen.at,
            received_at=seen.received_at,
            decided_at=seen.received_at,
        )
    ]


def test_a_signal_made_by_a_candle_is_shown_in_the_next_decision_and_in_no_other() -> None:
    world = World()
    signal = world.entry()
    first, second = world.decision(mark(at=world.now)), world.decision(mark(at=world.now))
    assert (first.action, first.reason, first.signal_id) == ("buy", "crossed_up", signal.id)
    assert (second.action, second.reason, second.signal_id) == ("hold", "signal_pending", "")


def test_a_stop_is_shown_in_the_decision_of_its_own_mark() -> None:
    world = World()
    world.send(fill(1, m.Side.BUY, 1, 100, world.now))
    signal, decision = world.send(mark(90, world.now))
    assert isinstance(decision, m.Decision)
    assert (decision.action, decision.reason, decision.signal_id) == ("close", "trailing_stop", signal.id)


def test_an_attempt_made_by_a_tick_is_shown_too() -> None:
    world = World()
    world.send(deny(world.exit(), m.Reason.MARK_STALE, world.now), mark(at=world.now))
    world.wait(seconds(5))
    (second,) = world.tick()
    decision = world.decision(mark(at=world.now))
    assert (decision.action, decision.signal_id) == ("close", second.id)


def test_where_no_marks_come_only_the_newest_signals_wait_to_be_shown() -> None:
    world = World()
    signal = world.exit()
    for _ in range(50):
        world.send(deny(signal, m.Reason.MARK_STALE, world.now))
        world.wait(5 * MINUTE)
        (signal,) = [output for output in world.tick() if isinstance(output, m.Signal)]
    shown = [world.decision(mark(at=world.now)).signal_id for _ in range(6)]
    assert shown[3:] == [signal.id, "", ""]


def test_a_held_position_is_a_reason() -> None:
    world = World()
    world.hold()
    world.send(mark(at=world.now))
    assert world.decision(mark(at=world.now)).reason == "holding"


def test_the_reason_of_the_last_candle_stands_until_the_next() -> None:
    world = World()
    world.send(candle(0))
    assert [world.decision(mark(at=world.now)).reason for _ in range(2)] == ["no_signal", "no_signal"]


def test_holding_is_no_reason_once_the_position_is_sold() -> None:
    world = World()
    world.hold()
    world.wait(MINUTE)
    world.send(candle(1), fill(9, m.Side.SELL, 10, at=world.now), mark(at=world.now))
    assert world.decision(mark(at=world.now)).reason == "no_signal"


def test_a_mark_that_is_no_price_is_answered_with_that() -> None:
    world = World()
    assert world.decision(mark(0, world.now)).reason == "mark_unusable"
    assert world.decision(mark(100, world.now + MINUTE)).reason == "mark_unusable"


def test_marks_of_the_past_are_not_decided_on() -> None:
    world = World(recovered=False)
    assert world.send(mark(at=world.now)) == []


def test_a_core_is_busy_from_the_signal_to_the_end_of_its_order() -> None:
    world = World()
    busy = [world.core.busy]
    signal = world.entry()
    busy.append(world.core.busy)
    for message in filled(signal, 1, at=world.now):
        world.send(message)
        busy.append(world.core.busy)
    assert busy == [False, True, True, True, True, False]


def test_it_is_not_ready_until_it_has_recovered() -> None:
    core = StrategyCore(StrategyConfig(), "1m", 60, {BTC: Scripted()})
    assert core.not_ready(mark().at) == "recovering"


def test_every_product_that_is_cold_is_named() -> None:
    world = World(strategies={BTC: Scripted(21), "ETH-USD": Scripted(5)})
    world.send(candle(-1), candle(0))
    assert world.core.not_ready(world.now) == "BTC-USD warming up 2/21, ETH-USD warming up 0/5"


def test_an_exit_is_shown_as_a_close() -> None:
    world = World()
    world.hold()
    world.send(mark(at=world.now))
    world.wait(MINUTE)
    world.send(candle(1, volume=EXIT))
    assert world.decision(mark(at=world.now)).action == "close"


def test_an_entry_decided_before_its_mark_is_stale_is_still_shown() -> None:
    world = World()
    world.send(mark(at=world.now))
    world.send(candle(0, volume=ENTER))
    assert world.decision(mark(at=world.now - MINUTE)).action == "buy"
