"""Frames between the simulated venue and the services' own user channel and market connection, in every weather."""

from __future__ import annotations

import json

import pytest

from libs.common.errors import PerpsError, Retryable
from services.execution.user_channel import SILENCE_SECONDS
from tests.simulation.network_rig import Rig, rig


def numbers(frames: list[bytes | str | Exception]) -> list[int]:
    return [json.loads(frame)["sequence_num"] for frame in frames if not isinstance(frame, Exception)]


def connections(world: Rig) -> int:
    return len(world.network.hub.connections)


def test_the_user_channel_tells_of_every_order_from_its_subscription_on() -> None:
    with rig() as world:
        told = world.follow()
        world.run(1)
        world.place("c1")
        world.run(1)
        assert told == ["?", "c1 ACCEPTED"]
        world.trade("89000")
        world.run(1)
        assert told == ["?", "c1 ACCEPTED", "c1 FILLED"]


def test_a_market_connection_tells_numbered_frames_without_a_hole() -> None:
    with rig() as world:
        frames = world.frames(world.loop("marketdata"))
        for price in range(99_000, 99_020):
            world.run(0.3)
            world.trade(str(price))
        world.run(1)
        assert numbers(frames) == list(range(len(frames)))
        channels = {json.loads(frame)["channel"] for frame in frames if not isinstance(frame, Exception)}
        assert {"ticker", "market_trades", "heartbeats", "subscriptions"} <= channels


# What execution counts of it, besides what its user channel tells anew.
DISTURBED = {
    "cut": "user_channel_lost",
    "half_open": "user_channel_lost",
    "duplicate_frame": "user_channel_gap",
    "reorder_frame": "user_channel_gap",
    "skip_frame": "user_channel_gap",
}


@pytest.mark.parametrize("name", DISTURBED)
def test_the_user_channel_knows_when_it_may_have_missed_something_and_goes_on(name: str) -> None:
    for seed in range(6):
        with rig(seed) as world:
            told = world.follow()
            world.run(2)
            setattr(world.weather, name, 0.5)
            world.run(10)
            setattr(world.weather, name, 0.0)
            world.run(2 * SILENCE_SECONDS + 10)
            assert world.client.answers[DISTURBED[name]] >= 1
            assert told.count("?") >= 2
            world.place("c1")
            world.run(1)
            assert told[-1] == "c1 ACCEPTED"


def test_a_half_open_connection_tells_nothing_more_and_the_venue_lets_go_of_it_in_the_end() -> None:
    with rig() as world:
        frames = world.frames(world.loop("marketdata"))
        world.run(3)
        world.weather.half_open = 1.0
        world.run(2)
        had = len(frames)
        world.weather.half_open = 0.0
        world.run(15)
        assert (len(frames), connections(world)) == (had, 1)
        world.run(10)
        assert (len(frames), connections(world)) == (had, 0)


def test_a_connection_that_is_cut_ends_for_both_after_the_frames_before_it() -> None:
    with rig() as world:
        frames = world.frames(world.loop("marketdata"))
        world.run(3)
        world.weather.cut = 1.0
        world.run(2)
        assert isinstance(frames[-1], Retryable)
        assert numbers(frames) == list(range(len(frames) - 1))
        assert connections(world) == 0


def test_slow_frames_stay_in_order() -> None:
    with rig() as world:
        world.weather.slow_frames = 0.5
        frames = world.frames(world.loop("marketdata"))
        for price in range(99_000, 99_030):
            world.run(0.1)
            world.trade(str(price))
        world.run(3)
        assert numbers(frames) == list(range(len(frames)))
        assert len(frames) > 30


def test_a_refused_dial_is_tried_again() -> None:
    with rig() as world:
        world.weather.refuse_dial = 1.0
        told, frames = world.follow(), world.frames(world.loop("marketdata"))
        world.run(10)
        assert told == []
        assert [type(frame) for frame in frames] == [Retryable]
        assert world.client.answers["user_channel_lost"] > 1
        world.weather.refuse_dial = 0.0
        world.run(15)
        assert told == ["?"]


def test_an_abort_ends_the_reading_at_once_and_the_connection_at_the_venue() -> None:
    with rig() as world:
        loop = world.loop("marketdata")
        connection = world.ask(world.market(loop).connect(), loop)
        world.run(1)

        async def read_on() -> None:
            while True:
                await connection.read()

        connection.abort()
        with pytest.raises(Retryable):
            world.ask(read_on(), loop, seconds=0.1)
        world.run(0.1)
        assert connections(world) == 0
        world.ask(connection.close(), loop)


def test_a_polite_close_ends_the_connection_at_the_venue() -> None:
    with rig() as world:
        loop = world.loop("marketdata")
        connection = world.ask(world.market(loop).connect(), loop)
        world.ask(connection.close(), loop)
        world.run(0.1)
        assert connections(world) == 0


def test_a_dead_process_hears_nothing_and_its_connection_is_reset() -> None:
    with rig() as world:
        loop = world.loop("marketdata")
        frames = world.frames(loop)
        world.run(3)
        had = len(frames)
        loop.die()
        world.run(3)
        assert (len(frames), connections(world)) == (had, 0)


def test_a_stopped_process_reads_what_has_come_meanwhile_once_it_goes_on() -> None:
    with rig() as world:
        loop = world.loop("marketdata")
        frames = world.frames(loop)
        world.run(3)
        had = len(frames)
        loop.pause()
        world.run(3)
        assert len(frames) == had
        loop.resume()
        world.run(0.1)
        assert len(frames) == had + 3  # heartbeats
        assert numbers(frames) == list(range(len(frames)))


def test_the_venue_hangs_up_on_a_client_that_asks_for_nothing() -> None:
    with rig() as world:
        loop = world.loop("mute")
        dial = world.network.dial(loop)

        async def wait() -> None:
            async with dial("wss://venue/ws", open_timeout=5, close_timeout=1) as socket:
                await socket.recv()

        began = world.scheduler.now
        with pytest.raises(Exception, match="no close frame"):
            world.ask(wait(), loop)
        assert world.scheduler.now - began == pytest.approx(5, abs=0.2)


def test_the_venue_s_own_switches_strike_here_too() -> None:
    with rig() as world:
        told = world.follow()
        world.run(1)
        world.venue.switch(b'{"user_drop": 1, "cancel_queued": true}')
        key = world.place("c1")
        world.run(1)
        assert told == ["?"]
        world.venue.switch(b'{"user_delay_seconds": 2}')
        world.ask(world.client.cancel([key]))
        world.run(1)
        assert told == ["?"]
        world.run(2)
        assert told == ["?", "c1 PENDING_CANCEL", "c1 CANCELED"]
        world.venue.switch(b'{"skip_sequence": 1}')
        world.run(2)
        assert told[-1] == "?"


def test_half_open_sockets_of_the_venue_leave_a_new_dial_unanswered() -> None:
    with rig() as world:
        world.venue.switch(b'{"half_open_sockets": true}')
        began = world.scheduler.now
        with pytest.raises(Retryable, match="opening handshake"):
            world.ask(world.market(world.execution).connect())
        assert world.scheduler.now - began == pytest.approx(10, abs=0.1)


def trace(seed: int) -> list[object]:
    with rig(seed) as world:
        for name in ("lose_answer", "late_request", "duplicate_request", "slow", "garbage", "cut", "slow_frames"):
            setattr(world.weather, name, 0.2)
        told, frames = world.follow(), world.frames(world.loop("marketdata"))
        for number in range(20):
            try:
                told.append(world.place(f"c{number}"))
            except PerpsError as error:
                told.append(repr(error))
            world.trade(str(100_000 + number))
        return [world.sent, world.arrived, told, [str(frame) for frame in frames], world.scheduler.steps]


def test_equal_seeds_give_equal_traces_and_others_do_not() -> None:
    assert trace(3) == trace(3)
    assert trace(3) != trace(4)
